//! What supervision is made of: a guard that tells of an actor's end, and a handle that outlives
//! the actor behind it.
//!
//! actix's own `Supervisor` restarts an actor that stops itself, but not one that panicked: its
//! address stays dead. Here every child holds a [`Guard`]; when the child is dropped, for whatever
//! cause, the guard tells the parent, which runs the child's factory again after a [`Backoff`].
//! Everybody else holds a [`Handle`], which always leads to the current incarnation.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::{MessageResponse, ToEnvelope};
use actix::{Actor, Addr, Handler, Message};
use arc_swap::ArcSwapOption;

/// Tells the parent, when dropped, that its holder is gone and whether it panicked.
pub struct Guard(Option<Box<dyn FnOnce(EndCause) + Send>>);

/// Why an actor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It stopped.
    Stopped,
    /// It panicked.
    Panicked,
}

impl EndCause {
    /// Its label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Panicked => "panicked",
        }
    }
}

impl Guard {
    /// Runs `tell` once, when dropped.
    pub fn new(tell: impl FnOnce(EndCause) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let ended = if std::thread::panicking() { EndCause::Panicked } else { EndCause::Stopped };
        if let Some(tell) = self.0.take() {
            tell(ended);
        }
    }
}

/// Ends an actor for good; whatever is still in its mailbox is dropped.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct EndActor;

/// The way to an actor, whichever incarnation runs now. Cheap to clone, usable on any thread.
pub struct Handle<A: Actor>(Arc<ArcSwapOption<Addr<A>>>);

impl<A: Actor> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor> Default for Handle<A> {
    /// Leads nowhere yet.
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// The actor did not come back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part of this node is not answering")]
pub struct Gone;

/// How long [`Handle::ask`] waits for an actor that is being restarted.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(10);

impl<A: Actor> Handle<A> {
    /// Leads to `addr` from now on.
    pub fn set(&self, addr: Addr<A>) {
        self.0.store(Some(Arc::new(addr)));
    }

    /// The current incarnation, if there is one.
    pub fn addr(&self) -> Option<Addr<A>> {
        self.0.load_full().map(|addr| (*addr).clone())
    }

    /// Sends what `make` makes and waits for the answer, through a restart if need be. A message
    /// whose handling the actor did not survive is sent again, so its effect must bear that.
    ///
    /// # Errors
    /// No answer within two seconds of restarts.
    pub async fn ask<M>(&self, make: impl Fn() -> M) -> Result<M::Result, Gone>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        <A as Handler<M>>::Result: MessageResponse<A, M>,
    {
        let start = tokio::time::Instant::now();
        loop {
            if let Some(addr) = self.addr()
                && let Ok(answer) = addr.send(make()).await
            {
                return Ok(answer);
            }
            if start.elapsed() >= PATIENCE {
                return Err(Gone);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends `message` without waiting; dropped when the actor is gone or its mailbox full.
    pub fn tell<M>(&self, message: M)
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        if let Some(addr) = self.addr() {
            // Only reports that come again by themselves are told this way.
            let _ = addr.try_send(message);
        }
    }
}

/// How long to wait before a child is started again: doubling while it keeps failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);
    const FORGIVEN_AFTER: Duration = Duration::from_secs(30);

    /// The child failed after it had lived for `lived`.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= Self::FORGIVEN_AFTER {
            self.failures = 0;
        }
        let wait = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_a_restart_doubles_up_to_five_seconds_and_is_forgiven() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.after(Duration::from_secs(30)).as_millis(), 100);
    }

    #[test]
    fn a_guard_tells_once_how_its_holder_ended() {
        let (say, told) = std::sync::mpsc::channel();
        let guard = |say: &std::sync::mpsc::Sender<EndCause>| {
            let say = say.clone();
            Guard::new(move |ended| say.send(ended).expect("the test listens"))
        };
        drop(guard(&say));
        let holder = guard(&say);
        let panicked = std::thread::spawn(move || {
            let _held = holder;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!([told.recv(), told.recv()], [Ok(EndCause::Stopped), Ok(EndCause::Panicked)]);
        assert!(told.try_recv().is_err());
    }
}
