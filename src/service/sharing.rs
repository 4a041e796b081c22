//! An emulated board of a few cores, without a clock: how far each of the calls on it has come.
//!
//! The calls that run on a board share `cores` effective cores (egalitarian processor sharing with
//! a limit of one core a call): with n calls running, each progresses at min(1, cores / n) seconds
//! of work a second.
//!
//! The arithmetic is Kleinrock's virtual time (*Queueing Systems*, vol. 2, section 4.4): let V grow
//! at the current rate; a call that needs w and starts at V₀ ends when V = V₀ + w, whatever
//! starts and ends meanwhile.

use std::time::Duration;

/// What is left of a call's work, in seconds, from which on it counts as done: V is a sum of rounded products, and a
/// microsecond is below every timer's resolution.
const DONE_S: f64 = 1e-6;

/// A board and how many calls run on it. Times are since any one moment.
#[derive(Debug)]
pub struct Sharing {
    cores: f64,
    running: u32,
    /// V, in seconds of work per call.
    virtual_time: f64,
    /// When V was last brought up to date.
    at: Duration,
}

impl Sharing {
    /// A board of so many effective cores, on which nothing runs.
    pub fn new(cores: f64) -> Self {
        Self { cores, running: 0, virtual_time: 0.0, at: Duration::ZERO }
    }

    /// Seconds of work that each call does in a second.
    fn rate(&self) -> f64 {
        (self.cores / f64::from(self.running.max(1))).min(1.0)
    }

    fn advance(&mut self, now: Duration) {
        self.virtual_time += now.saturating_sub(self.at).as_secs_f64() * self.rate();
        self.at = now;
    }

    /// A call with that much work starts; answers the V at which it ends.
    pub fn start(&mut self, work: Duration, now: Duration) -> f64 {
        self.advance(now);
        self.running += 1;
        self.virtual_time + work.as_secs_f64()
    }

    /// A call ends, whether its work is done or not.
    pub fn end(&mut self, now: Duration) {
        self.advance(now);
        self.running = self.running.saturating_sub(1);
    }

    /// Time until V reaches `end` if nothing changes; zero once it has.
    pub fn left(&mut self, end: f64, now: Duration) -> Duration {
        self.advance(now);
        let left = end - self.virtual_time;
        if left < DONE_S { Duration::ZERO } else { Duration::from_secs_f64(left / self.rate()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_call_has_a_core_at_most_and_its_share_beyond_them() {
        let mut board = Sharing::new(2.0);
        let ends = [1, 2].map(|_| board.start(ms(100), ms(0)));
        assert_eq!(board.left(ends[0], ms(0)), ms(100), "a core each");
        let third = board.start(ms(100), ms(50));
        // 50 ms of work are left, at two thirds of a core.
        assert_eq!(board.left(ends[1], ms(50)), ms(75));
        (0..2).for_each(|_| board.end(ms(125)));
        assert_eq!(board.left(third, ms(125)), ms(50), "alone again");
        assert_eq!(board.left(third, ms(175)), Duration::ZERO);
    }
}
