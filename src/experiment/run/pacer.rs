//! Sending on time. The kernel's timer wakes a sleeping core in some tens of microseconds, which
//! would be a good part of a fast server's latency; the last of them are therefore waited for awake.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::time::timer::Timer;

/// Turns without a wait after which the event loop gets a turn of its own.
const TURNS: u32 = 16;
/// What waking up may take; waited for awake, while the event loop goes on.
const AWAKE: Duration = Duration::from_micros(60);

/// Waits for one instant after the other.
pub struct Pacer {
    timer: Timer,
    turns: u32,
}

impl Pacer {
    /// For the current thread.
    ///
    /// # Errors
    /// The kernel has no timer to give.
    pub fn new() -> io::Result<Self> {
        Ok(Self { timer: Timer::new()?, turns: 0 })
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
        self.timer.sleep(left.saturating_sub(AWAKE)).await?;
        while Instant::now() < at {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
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
