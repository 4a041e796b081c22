//! Waiting for an instant to a few microseconds. The runtime's own timers count in milliseconds,
//! which would be most of a fast server's latency. The kernel's timer wakes a sleeping core in some
//! tens of microseconds; the last of them are therefore waited for awake.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Turns without a wait after which the event loop gets a turn of its own.
const TURNS: u32 = 16;

/// What waking up may take; waited for awake, while the event loop goes on.
const AWAKE: Duration = Duration::from_micros(60);

/// A timer of the kernel's.
pub struct Pacer {
    timer: AsyncFd<OwnedFd>,
    turns: u32,
}

impl Pacer {
    /// For the current thread.
    ///
    /// # Errors
    /// The kernel has no timer to give.
    #[allow(
        deprecated,
        reason = "what takes its place is unsafe for the sake of types whose descriptor changes; \
                  an OwnedFd keeps its one, open, until it is dropped"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: AsyncFd::with_interest(timer, Interest::READABLE)?, turns: 0 })
    }

    /// Waits until `at`; not at all if that is past.
    ///
    /// # Errors
    /// The kernel's timer does not work.
    pub async fn until(&mut self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Whoever is behind must still let answers in.
            self.turns += 1;
            if self.turns.is_multiple_of(TURNS) {
                tokio::task::yield_now().await;
            }
            return Ok(());
        }
        if let Some(asleep) = left.checked_sub(AWAKE).filter(|asleep| !asleep.is_zero()) {
            self.sleep(asleep).await?;
        }
        while Instant::now() < at {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: zero, it_value: spec(time) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        let mut fired = [0; 8];
        loop {
            let mut ready = self.timer.readable().await?;
            match rustix::io::read(&self.timer, &mut fired) {
                Ok(_) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(why) => return Err(why.into()),
            }
        }
    }
}

fn spec(left: Duration) -> Timespec {
    // A year and more is cut to one: waits here are at most as long as a run.
    let left = left.min(Duration::from_secs(365 * 24 * 3600));
    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn it_never_ends_early_and_waits_for_nothing_that_is_past() {
        let mut pacer = Pacer::new().expect("a timer");
        let start = Instant::now();
        for ms in [1, 3, 7, 2] {
            let at = start + Duration::from_millis(ms);
            pacer.until(at).await.expect("it works");
            assert!(Instant::now() >= at);
        }
    }

    #[actix_rt::test]
    async fn whoever_is_behind_lets_others_have_their_turn() {
        let turn = std::rc::Rc::new(std::cell::Cell::new(false));
        let had = std::rc::Rc::clone(&turn);
        actix_rt::spawn(async move { had.set(true) });
        let (mut pacer, past) = (Pacer::new().expect("a timer"), Instant::now());
        for _ in 0..TURNS {
            pacer.until(past).await.expect("it works");
        }
        assert!(turn.get());
    }
}
