//! All runs of a scenario, one after another: set the fleet up, wait until it is quiet, let it
//! learn, send the load, keep the results.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::checks::Checks;
use super::csv;
use super::drive::Drive;
use super::inputs::Inputs;
use super::results::Results;
use super::setup::Setup;
use super::{ExperimentError, Progress};
use crate::experiment::design::about::{About, LoadKept, RunEnd};
use crate::experiment::design::scenario::{Point, Scenario};
use crate::fleet::Api;
use crate::policy::registry::SchedulerSpec;

#[expect(clippy::disallowed_methods, reason = "results say when a run was made")]
fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// An experiment about to be made, in the folder of its results.
pub struct Sweep<'a> {
    inputs: &'a Inputs,
    folder: &'a Path,
    csv: bool,
    progress: &'a dyn Progress,
    stop: watch::Receiver<bool>,
    api: Rc<Api>,
}

impl<'a> Sweep<'a> {
    /// Of these inputs, results going to `folder`, which must be there. It ends early when `stop`
    /// becomes true.
    pub fn new(
        inputs: &'a Inputs,
        folder: &'a Path,
        csv: bool,
        progress: &'a dyn Progress,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let Scenario { scheduler_port, discovery_port, learner_port, .. } = inputs.scenario;
        let api = Rc::new(Api::new(scheduler_port, discovery_port, learner_port, &inputs.access));
        Self { inputs, folder, csv, progress, stop, api }
    }

    fn setup(&self) -> Setup<'_> {
        Setup { api: &self.api, inputs: self.inputs }
    }

    fn drive(&self) -> Drive<'_> {
        let (api, inputs, progress) = (&self.api, self.inputs, self.progress);
        Drive { api, inputs, progress, stop: self.stop.clone() }
    }

    /// Makes all runs.
    ///
    /// # Errors
    /// Why it ended before the last; what was measured until then is in the folder.
    pub async fn run(&self) -> Result<(), ExperimentError> {
        let setup = self.setup();
        let points = self.unless_stopped(setup.points()).await?;
        if self.inputs.scenario.checks {
            let checks = Checks { setup: &setup, points: &points };
            let findings = self.unless_stopped(checks.findings()).await?;
            if !findings.is_empty() {
                return Err(ExperimentError::Checks(findings));
            }
        }
        let digits = points.len().to_string().len().max(2);
        for (point, number) in points.iter().zip(1..) {
            let place = Place { number, of: points.len() };
            let path = self.folder.join(format!("run-{number:0digits$}.db"));
            self.unless_stopped(setup.prepare(point)).await??;
            self.warm_up(place, point).await?;
            self.measure(place, point, &path).await?;
        }
        Ok(())
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, ExperimentError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            done = work => Ok(done),
            _ = stop.wait_for(|stop| *stop) => Err(ExperimentError::Interrupted),
        }
    }

    async fn about(&self, point: &Point) -> About {
        let titles = self.inputs.payloads.iter().map(|payload| payload.title.clone());
        About {
            bench_version: format!("{} ({})", crate::VERSION, crate::COMMIT),
            simulated: false,
            scenario: self.inputs.scenario.clone(),
            point: point.clone(),
            deadlines_s: self.inputs.scenario.deadlines(point),
            payload_names: titles.collect(),
            nodes: self.setup().nodes().await,
            started: unix_now(),
            end: RunEnd::Unknown,
            kept: LoadKept::default(),
        }
    }

    async fn warm_up(&self, place: Place, point: &Point) -> Result<(), ExperimentError> {
        let seconds = self.inputs.scenario.learner_warm_up_s;
        if !point.improves() || seconds <= 0.0 {
            return Ok(());
        }
        let duration = Duration::from_secs_f64(seconds);
        self.progress.begins(&place.title(point, "warm-up"), duration);
        let driven = self.drive().run(point, duration, true, None).await?;
        if driven.end == RunEnd::Interrupted { Err(ExperimentError::Interrupted) } else { Ok(()) }
    }

    async fn measure(
        &self,
        place: Place,
        point: &Point,
        path: &Path,
    ) -> Result<(), ExperimentError> {
        let duration = Duration::from_secs_f64(self.inputs.scenario.duration_s);
        let mut about = self.unless_stopped(self.about(point)).await?;
        self.progress.begins(&place.title(point, "run"), duration);
        let results = Results::create(path, &about)?;
        let driven = self.drive().run(point, duration, false, Some(results.jobs())).await?;
        about.end = driven.end;
        about.started = driven.started;
        about.kept = driven.kept;
        self.setup().remember(&mut about.nodes).await;
        let (ended, overrun) = (about.clone(), driven.overrun);
        // On a thread that may wait for the disk: this one hears whether it shall stop.
        blocking(move || results.finish(&ended, overrun)).await??;
        self.progress.ended(&about, path);
        if self.csv {
            let path = path.to_owned();
            blocking(move || csv::export(&path)).await?.map_err(ExperimentError::Machine)?;
        }
        if about.end == RunEnd::Interrupted { Err(ExperimentError::Interrupted) } else { Ok(()) }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ExperimentError> {
    let done = actix_rt::task::spawn_blocking(work).await;
    done.map_err(|why| ExperimentError::Machine(why.to_string()))
}

/// Which run of how many.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    of: usize,
}

impl Place {
    fn title(self, point: &Point, what: &str) -> String {
        let Self { number, of } = self;
        let scheduler =
            point.scheduler.as_ref().map_or("as it is".to_owned(), SchedulerSpec::words);
        let Point { load_factor, deadline_factor, seed, .. } = point;
        format!(
            "{number}/{of} {what}: {scheduler}, load × {load_factor}, deadlines × \
             {deadline_factor}, seed {seed}"
        )
    }
}
