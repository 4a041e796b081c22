//! `fn-work`: a stretch of work on an emulated board.
//!
//! The calls that run on a node share `cores` effective cores (egalitarian processor sharing with
//! a limit of one core a call): with n calls running, each progresses at min(1, cores / n) seconds
//! of work a second. Timers stand for processor time, so that many boards fit on one machine.
//!
//! The arithmetic is Kleinrock's virtual time (*Queueing Systems*, vol. 2, section 4.4): let V grow
//! at the current rate; a call that needs w and starts at V₀ ends when V = V₀ + w, whatever
//! starts and ends meanwhile.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lock;

/// The sharing itself, without a clock.
#[derive(Debug)]
struct Sharing {
    cores: f64,
    running: u32,
    /// V, in seconds of work per call.
    virtual_time: f64,
    /// When V was last brought up to date.
    at: Instant,
}

impl Sharing {
    fn rate(&self) -> f64 {
        (self.cores / f64::from(self.running.max(1))).min(1.0)
    }

    fn advance(&mut self, now: Instant) {
        self.virtual_time += (now - self.at).as_secs_f64() * self.rate();
        self.at = now;
    }

    /// A call with that much work starts; answers the V at which it ends.
    fn start(&mut self, work: Duration, now: Instant) -> f64 {
        self.advance(now);
        self.running += 1;
        self.virtual_time + work.as_secs_f64()
    }

    fn end(&mut self, now: Instant) {
        self.advance(now);
        self.running -= 1;
    }

    /// Time until V reaches `end` if nothing changes; zero once it has.
    fn left(&mut self, end: f64, now: Instant) -> Duration {
        self.advance(now);
        // V is a sum of rounded products; a microsecond of work is below every timer's resolution.
        let left = end - self.virtual_time;
        if left < 1e-6 { Duration::ZERO } else { Duration::from_secs_f64(left / self.rate()) }
    }
}

/// An emulated board, shared by all threads of a node.
pub struct Board {
    sharing: Mutex<Sharing>,
    /// The rate changed.
    changed: Notify,
}

/// A call that runs on a board; leaves it when dropped, also in the middle of its work.
struct Running<'a>(&'a Board);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.0.sharing).end(Instant::now());
        self.0.changed.notify_waiters();
    }
}

impl Board {
    /// With that many effective cores.
    pub fn new(cores: f64) -> Self {
        let sharing = Sharing { cores, running: 0, virtual_time: 0.0, at: Instant::now() };
        Self { sharing: Mutex::new(sharing), changed: Notify::new() }
    }

    /// Does that much work, in competition with whoever else works here.
    pub async fn work(&self, work: Duration) {
        let end = lock(&self.sharing).start(work, Instant::now());
        let _running = Running(self);
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change falls between the look and the wait.
            changed.as_mut().enable();
            let left = lock(&self.sharing).left(end, Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = changed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    async fn ended_after(board: &Board, start_ms: u64, work_ms: u64) -> u128 {
        let zero = Instant::now();
        tokio::time::sleep(Duration::from_millis(start_ms)).await;
        board.work(Duration::from_millis(work_ms)).await;
        (zero.elapsed().as_millis() + 2) / 5 * 5
    }

    async fn ends(cores: f64, calls: &[(u64, u64)]) -> Vec<u128> {
        let board = Board::new(cores);
        join_all(calls.iter().map(|&(start, work)| ended_after(&board, start, work))).await
    }

    #[actix_rt::test]
    async fn calls_up_to_the_number_of_cores_do_not_slow_each_other() {
        tokio::time::pause();
        assert_eq!(ends(2.0, &[(0, 100), (0, 100)]).await, [100, 100]);
    }

    #[actix_rt::test]
    async fn calls_beyond_the_cores_share_them_equally() {
        tokio::time::pause();
        assert_eq!(ends(2.0, &[(0, 100), (0, 100), (0, 100), (0, 100)]).await, [200; 4]);
        assert_eq!(ends(1.0, &[(0, 100), (0, 200)]).await, [200, 300]);
    }

    #[actix_rt::test]
    async fn an_arrival_slows_those_who_work_from_then_on_only() {
        tokio::time::pause();
        // Alone for 50 ms at rate 1, then half the core each: 50 ms of work left take 100.
        assert_eq!(ends(1.0, &[(0, 100), (50, 100)]).await, [150, 200]);
    }

    #[actix_rt::test]
    async fn half_a_core_takes_twice_as_long() {
        tokio::time::pause();
        assert_eq!(ends(0.5, &[(0, 100)]).await, [200]);
    }

    #[actix_rt::test]
    async fn a_call_that_is_given_up_no_longer_slows_the_others() {
        tokio::time::pause();
        let board = Board::new(1.0);
        let given_up =
            tokio::time::timeout(Duration::from_millis(100), board.work(Duration::from_secs(60)));
        let (other, gone) = tokio::join!(ended_after(&board, 0, 100), given_up);
        assert!(gone.is_err());
        assert_eq!(other, 150);
    }
}
