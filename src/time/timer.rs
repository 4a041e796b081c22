//! Waiting for a time to a few tens of microseconds. The runtime's own timers count in
//! milliseconds, rounded up.

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

/// A timer of the kernel's, for one wait at a time.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// For the current thread.
    ///
    /// # Errors
    /// The kernel has no timer to give, for want of file descriptors above all.
    #[allow(
        deprecated,
        reason = "what takes its place is unsafe for the sake of types whose descriptor changes; \
                  an OwnedFd keeps its one, open, until it is dropped"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
    }

    /// Waits for that time.
    ///
    /// # Errors
    /// The kernel's timer does not work.
    pub async fn sleep(&self, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            // The kernel would take it for none at all.
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: zero, it_value: spec(time) };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        let mut fired = [0; 8];
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(&self.0, &mut fired) {
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

fn spec(time: Duration) -> Timespec {
    // Seconds beyond what the kernel counts in are cut: three hundred thousand million years.
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: i64::from(time.subsec_nanos()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[actix_rt::test]
    async fn it_never_ends_early_and_can_be_used_again() {
        let timer = Timer::new().expect("a timer");
        for us in [0, 1, 300, 2500, 700] {
            let (start, time) = (Instant::now(), Duration::from_micros(us));
            timer.sleep(time).await.expect("it works");
            assert!(start.elapsed() >= time, "{us}");
        }
    }

    #[actix_rt::test]
    async fn a_wait_that_was_given_up_does_not_end_the_next_early() {
        let timer = Timer::new().expect("a timer");
        let given_up = timer.sleep(Duration::from_micros(500));
        let _ = tokio::time::timeout(Duration::ZERO, given_up).await;
        let (start, time) = (Instant::now(), Duration::from_millis(5));
        timer.sleep(time).await.expect("it works");
        assert!(start.elapsed() >= time);
    }
}
