//! Turns of calls whose bodies come while they run: such a call keeps its slot for as long as its client
//! takes to send. Never more than half of the slots go to them, so that who sends slowly leaves the
//! others to the rest.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::lock;

/// See the module. One per node.
#[derive(Default)]
pub struct UploadTurns {
    taken: Mutex<usize>,
    given_back: Notify,
}

/// The right to run with a body that still comes; given back when dropped.
pub struct UploadTurn(Arc<UploadTurns>);

impl UploadTurns {
    /// A turn among at most half of `k` slots, but one at least, once there is one.
    pub async fn take(self: &Arc<Self>, k: impl Fn() -> u32) -> UploadTurn {
        loop {
            let given_back = self.given_back.notified();
            {
                let mut taken = lock(&self.taken);
                if *taken < (k() / 2).max(1) as usize {
                    *taken += 1;
                    return UploadTurn(Arc::clone(self));
                }
            }
            given_back.await;
        }
    }
}

impl Drop for UploadTurn {
    fn drop(&mut self) {
        *lock(&self.0.taken) -= 1;
        self.0.given_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[actix_rt::test]
    async fn half_of_the_slots_have_turns_and_one_at_least() {
        for (k, most) in [(0, 1), (1, 1), (4, 2), (9, 4)] {
            let turns = Arc::new(UploadTurns::default());
            let mut taken = Vec::new();
            while let Some(turn) = turns.take(|| k).now_or_never() {
                taken.push(turn);
            }
            assert_eq!(taken.len(), most);
            let next = turns.take(|| k);
            let give_back = async { drop(taken.pop()) };
            let (_turn, ()) = tokio::join!(next, give_back);
        }
    }
}
