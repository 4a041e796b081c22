//! Budgets of bodies and answers, in which the slowest make room.

use std::sync::Arc;
use std::time::Duration;

use super::{Connection, Connections};
use crate::memory::budget::{Budget, Reservation};

/// Whether there will be room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Others end for it.
    Coming,
    /// Others hold it who may end by themselves, or stand still, in a moment.
    Perhaps,
    /// None: it is held by calls that run.
    None,
}

/// A budget of bodies and answers, with those who may have to make room in it.
#[derive(Clone, Debug)]
pub struct Bodies {
    /// What all of them may hold.
    pub budget: Arc<Budget>,
    /// Whose requests and answers hold it.
    pub connections: Arc<Connections>,
}

/// How long a body waits for those that make room for it, and how often it looks for some.
const ROOM_TIME: Duration = Duration::from_millis(240);
const ROOM_TRIES: u32 = 8;
/// Bodies and answers up to this size are small.
const SMALL_BYTES: u64 = 64 << 10;
/// How often an answer, which is there already, looks for room.
const ANSWER_TRIES: u32 = 32;

impl Bodies {
    /// A share of `bytes`, at the cost of those that stand still, if need be. `but` is the connection
    /// that asks. `None`: there is no room.
    pub async fn take(&self, bytes: u64, but: Option<&Connection>) -> Option<Reservation> {
        self.take_within(bytes, but, ROOM_TRIES).await
    }

    /// The same for what a function or a peer answers: while there is no room, it is not read on.
    pub async fn take_for_answer(&self, bytes: u64) -> Option<Reservation> {
        self.take_within(bytes, None, ANSWER_TRIES).await
    }

    async fn take_within(
        &self,
        bytes: u64,
        but: Option<&Connection>,
        tries: u32,
    ) -> Option<Reservation> {
        // Large bodies leave some room to small ones: many calls are small, and quick.
        let left = if bytes > SMALL_BYTES { self.budget.max() / 4 } else { 0 };
        let left = left.min(self.budget.max().saturating_sub(bytes));
        if let Some(held) = self.budget.take_leaving(bytes, left) {
            return Some(held);
        }
        if bytes > self.budget.max() {
            return None;
        }
        let wanted = bytes + left;
        for _ in 0..tries {
            match self.connections.make_room_for_body(&self.budget, wanted, but) {
                Room::Coming => self.budget.wait_for(wanted, ROOM_TIME).await,
                Room::Perhaps => self.budget.wait_for(wanted, ROOM_TIME / ROOM_TRIES).await,
                Room::None if tries == ANSWER_TRIES => {
                    self.budget.wait_for(wanted, ROOM_TIME / ROOM_TRIES).await;
                }
                Room::None => break,
            }
            if let Some(held) = self.budget.take_leaving(bytes, left) {
                return Some(held);
            }
        }
        None
    }
}
