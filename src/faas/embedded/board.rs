//! `fn-work`: a stretch of work on an emulated board, whose cores the calls share ([`Sharing`]). Timers stand
//! for processor time, so that many boards fit on one machine.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lock;
use crate::service::sharing::Sharing;

/// An emulated board, shared by all threads of a node.
pub struct Board {
    sharing: Mutex<Sharing>,
    /// What times count from.
    zero: Instant,
    /// The rate changed.
    changed: Notify,
}

/// A call that runs on a board; leaves it when dropped, also in the middle of its work.
struct Running<'a>(&'a Board);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.0.sharing).end(self.0.zero.elapsed());
        self.0.changed.notify_waiters();
    }
}

impl Board {
    /// With that many effective cores.
    pub fn new(cores: f64) -> Self {
        let sharing = Mutex::new(Sharing::new(cores));
        Self { sharing, zero: Instant::now(), changed: Notify::new() }
    }

    /// Does that much work, in competition with whoever else works here.
    pub async fn work(&self, work: Duration) {
        let end = lock(&self.sharing).start(work, self.zero.elapsed());
        let _running = Running(self);
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that no change falls between the look and the wait.
            changed.as_mut().enable();
            let left = lock(&self.sharing).left(end, self.zero.elapsed());
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
