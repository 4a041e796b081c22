//! How long a function takes to have one replica more: it is scaled up by one, watched until that one is
//! available, and scaled back.
//!
//! Others scale the same function: the gateway from zero, an autoscaler, people. So it is scaled back
//! only where that takes nothing from anybody ([`back_to`]). Between the last look and the change that
//! follows it, others can still change something: the gateway's API knows no condition.

use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::OpenFaas;
use crate::error::Error;
use crate::lock;
use crate::types::{Cause, FunctionName};

/// Between two looks whether a new replica is there: the error of a measured delay.
const LOOK_TIME: Duration = Duration::from_millis(100);
/// What a new replica may take.
const SCALE_TIME: Duration = Duration::from_secs(120);

/// What the API tells of a function; the rest is not needed here.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// As many as there are to be.
    #[serde(default)]
    replicas: u64,
    /// As many as can take calls.
    #[serde(default)]
    available_replicas: u64,
    /// Calls that the gateway has counted, some seconds late.
    #[serde(default)]
    invocation_count: f64,
}

/// How long a function takes to have one replica more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScaleDelay {
    /// Seconds.
    pub approximate_delay: f64,
    /// Milliseconds: the time between two looks.
    pub error_margin: u64,
    /// Looks that it took.
    pub attempts: u32,
}

/// The measurement of a node that is under way.
#[derive(Debug, Default)]
pub struct Scaling {
    /// Held by whoever measures: two measurements would disturb each other.
    alone: tokio::sync::Mutex<()>,
    /// The function that is measured, and whether a call of it came meanwhile.
    measured: Mutex<Option<(FunctionName, bool)>>,
}

impl Scaling {
    /// A call of the function `name` goes to the gateway.
    pub fn called(&self, name: &FunctionName) {
        if let Some((measured, called)) = &mut *lock(&self.measured) {
            *called |= measured == name;
        }
    }

    fn begin(&self, name: &FunctionName) {
        *lock(&self.measured) = Some((name.clone(), false));
    }

    /// Whether a call of the function came since the measurement began.
    fn was_called(&self) -> bool {
        lock(&self.measured).as_ref().is_some_and(|(_, called)| *called)
    }
}

/// What a function is to be scaled back to, after it was scaled to one replica more than `before` and
/// is now at `now`; `called`: a call of it came to this node meanwhile.
///
/// # Errors
/// It must be left as it is, for this reason.
fn back_to(
    before: &FunctionStatus,
    now: &FunctionStatus,
    called: bool,
) -> Result<u64, &'static str> {
    if now.replicas != before.replicas.saturating_add(1) {
        return Err("others have scaled it meanwhile");
    }
    let called = called || now.invocation_count > before.invocation_count;
    match before.replicas == 0 && called {
        true => Err("calls have come meanwhile, which need the replica"),
        false => Ok(before.replicas),
    }
}

impl OpenFaas {
    /// Measures the function `name`. If the node is `stopping`, it gives up, and scales back all the
    /// same. Must be awaited to its end: only where the node ends first the replica stays.
    ///
    /// # Errors
    /// There is no such function, the gateway fails, the replica is not there in time, the node stops,
    /// or another measurement is under way.
    pub async fn scale_delay(
        &self,
        name: &FunctionName,
        stopping: impl Future<Output = ()>,
    ) -> Result<ScaleDelay, Error> {
        let scaling = &self.access.scaling;
        let busy = |_| Error::Gateway(Cause::of("a scale delay is being measured; ask again"));
        let _alone = scaling.alone.try_lock().map_err(busy)?;
        let before = self.status(name).await?;
        let too_many =
            || Error::Gateway(Cause::of(format!("{name} has {} replicas", before.replicas)));
        let wanted = before.replicas.checked_add(1).ok_or_else(too_many)?;
        scaling.begin(name);
        let measured = tokio::select! {
            measured = self.scale_up(name, wanted) => measured,
            () = stopping => Err(Error::Stopped),
        };
        let back = self.scale_back(name, &before).await;
        if let (Err(_), Err(error)) = (&measured, &back) {
            tracing::warn!(%name, %error, "the replica of a measurement may stay");
        }
        let measured = measured?;
        back.map(|()| measured)
    }

    async fn scale_up(&self, name: &FunctionName, wanted: u64) -> Result<ScaleDelay, Error> {
        let started = Instant::now();
        self.scale(name, wanted).await?;
        for attempts in 1.. {
            if self.status(name).await?.available_replicas >= wanted {
                return Ok(ScaleDelay {
                    approximate_delay: started.elapsed().as_secs_f64(),
                    error_margin: LOOK_TIME.as_millis() as u64,
                    attempts,
                });
            }
            if started.elapsed() > SCALE_TIME {
                break;
            }
            sleep(LOOK_TIME).await;
        }
        let limit_s = SCALE_TIME.as_secs();
        Err(Error::Gateway(Cause::of(format!("{name} has no new replica within {limit_s} s"))))
    }

    /// Takes back the replica that was measured, where nobody needs it.
    async fn scale_back(&self, name: &FunctionName, before: &FunctionStatus) -> Result<(), Error> {
        let scaling = &self.access.scaling;
        let now = self.status(name).await?;
        match back_to(before, &now, scaling.was_called()) {
            Ok(replicas) => {
                self.scale(name, replicas).await?;
                // A call that came just then found the replica there, and must find it again.
                if replicas == 0 && scaling.was_called() {
                    self.scale(name, 1).await?;
                }
            }
            Err(why) => {
                let (before, now) = (before.replicas, now.replicas);
                tracing::info!(%name, before, now, why, "after a measurement it is not scaled back");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(replicas: u64, invocation_count: f64) -> FunctionStatus {
        FunctionStatus { replicas, available_replicas: replicas, invocation_count }
    }

    #[test]
    fn it_is_scaled_back_only_where_that_takes_nothing_from_anybody() {
        for (before, now, called, back) in [
            (status(1, 0.0), status(2, 0.0), false, Some(1)),
            (status(0, 5.0), status(1, 5.0), false, Some(0)),
            // From one on, calls had what they need before as well.
            (status(1, 0.0), status(2, 9.0), true, Some(1)),
            (status(0, 5.0), status(1, 5.0), true, None),
            (status(0, 5.0), status(1, 6.0), false, None),
            (status(1, 0.0), status(5, 0.0), false, None),
            (status(1, 0.0), status(1, 0.0), false, None),
            (status(3, 0.0), status(0, 0.0), false, None),
        ] {
            assert_eq!(back_to(&before, &now, called).ok(), back, "{before:?} {now:?} {called}");
        }
    }

    #[test]
    fn only_calls_of_the_function_that_is_measured_count_and_only_while_it_is() {
        let [one, other] = ["one", "other"].map(|name| FunctionName::parse(name).expect("good"));
        let scaling = Scaling::default();
        scaling.called(&one);
        scaling.begin(&one);
        scaling.called(&other);
        assert!(!scaling.was_called());
        scaling.called(&one);
        assert!(scaling.was_called());
        scaling.begin(&other);
        assert!(!scaling.was_called());
    }
}
