//! What supervision is made of: a guard that tells of an actor's end, and a handle that outlives
//! the actor behind it.
//!
//! actix's own `Supervisor` restarts an actor that stops itself, but not one that panicked: its
//! address stays dead. Here every child holds a [`Guard`]; when the child is dropped, for whatever
//! cause, the guard tells the parent, which runs the child's factory again after a [`Backoff`].
//! Everybody else holds a [`Handle`], which always leads to the current incarnation.
//!
//! A child can also be replaced while it is alive, because it hangs. What it still does when it comes
//! back is bounded by its [`Charge`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::dev::{MessageResponse, ToEnvelope};
use actix::{Actor, Addr, Handler, Message};
use arc_swap::ArcSwapOption;

use super::observe::Patience;
use crate::lock;

/// What a child holds: it tells the parent, when dropped, that its holder is gone and whether it
/// panicked; and it knows whether the holder is still in charge.
pub struct Guard {
    tell: Option<Box<dyn FnOnce(EndCause) + Send>>,
    charge: Charge,
}

/// What a parent and one incarnation of its child share.
#[derive(Clone, Default)]
pub struct Charge {
    over: Arc<Mutex<bool>>,
    pulses: Arc<AtomicU64>,
}

impl Charge {
    /// Another incarnation is in charge from now on.
    pub fn end(&self) {
        *lock(&self.over) = true;
    }

    /// Grows as long as the incarnation works on something long.
    pub fn pulses(&self) -> u64 {
        self.pulses.load(Ordering::Relaxed)
    }
}

/// Why an actor was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It stopped.
    Stopped,
    /// It panicked.
    Panicked,
    /// It did not answer any more, and another took its place.
    Stuck,
}

impl EndCause {
    /// Its label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Panicked => "panicked",
            Self::Stuck => "stuck",
        }
    }
}

impl Guard {
    /// Runs `tell` once, when dropped.
    pub fn new(tell: impl FnOnce(EndCause) + Send + 'static) -> Self {
        Self { tell: Some(Box::new(tell)), charge: Charge::default() }
    }

    /// What the parent keeps of it.
    pub fn charge(&self) -> Charge {
        self.charge.clone()
    }

    /// Does `act`, which must not wait for anything, unless another incarnation is in charge: one
    /// that was stuck and comes back must not undo what its successor did. `None`: not done.
    pub fn while_in_charge<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let over = lock(&self.charge.over);
        (!*over).then(act)
    }

    /// Shows that its holder works on something long and is not stuck.
    pub fn pulse(&self) {
        // Its holder alone counts, so nothing can come between.
        let pulses = self.charge.pulses();
        self.charge.pulses.store(pulses.wrapping_add(1), Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let ended = if std::thread::panicking() { EndCause::Panicked } else { EndCause::Stopped };
        if let Some(tell) = self.tell.take() {
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

/// An actor did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It is not there. What it was asked for does not happen.
    #[error("a part of this node is not answering")]
    Gone,
    /// It is there. What it was asked for may still happen if it had begun; if not, it will not: a
    /// message that nobody waits for any more is not handled.
    #[error("a part of this node is not answering in time; it may still do what it was asked for")]
    Late,
}

/// How often [`Handle::ask`] looks for an actor that is being restarted.
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

    /// Asks for what takes no time itself: see [`ask_within`](Self::ask_within). An actor that takes
    /// longer than this counts as stuck.
    ///
    /// # Errors
    /// No answer within five seconds, restarts included.
    pub async fn ask<M>(&self, make: impl Fn() -> M) -> Result<M::Result, NoAnswer>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        <A as Handler<M>>::Result: MessageResponse<A, M>,
    {
        self.ask_within(Patience::USUAL.late, make).await
    }

    /// Sends what `make` makes and waits for the answer, through a restart if need be. A message is
    /// sent again only after its actor has ended, never because it is late. One whose handling the
    /// actor did not survive is among these, so its effect must bear that.
    ///
    /// # Errors
    /// No answer within `limit`, restarts included.
    pub async fn ask_within<M>(
        &self,
        limit: Duration,
        make: impl Fn() -> M,
    ) -> Result<M::Result, NoAnswer>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        <A as Handler<M>>::Result: MessageResponse<A, M>,
    {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(addr) = self.addr() {
                match tokio::time::timeout_at(deadline, addr.send(make())).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(_ended)) => {}
                    Err(_) => return Err(NoAnswer::Late),
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(NoAnswer::Gone);
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

    #[test]
    fn one_that_was_replaced_does_nothing_that_only_the_one_in_charge_may_do() {
        let guard = Guard::new(|_| ());
        assert_eq!(guard.while_in_charge(|| 7), Some(7));
        guard.charge().end();
        assert_eq!(guard.while_in_charge(|| 7), None);
        let before = guard.charge().pulses();
        guard.pulse();
        assert_eq!(guard.charge().pulses(), before + 1);
    }
}
