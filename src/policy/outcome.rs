//! What algorithms with a memory are told, and what they tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(doc)]
use super::Policy;
use super::Task;
#[cfg(doc)]
use crate::types::NOTE_BYTES_MAX;
use crate::types::Peer;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// Its function answered.
    Served,
    /// Its function failed, here or at a peer.
    Failed,
    /// The algorithm rejected it.
    Rejected,
    /// The node that was to run it had no room.
    Full,
    /// The peer that it was handed to is lost, or this node stops.
    Lost,
    /// Its client has gone, or had sent nothing that can be carried out: that says nothing of any node.
    Gone,
}

/// What became of a call that was decided at this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<'a> {
    /// The call.
    pub task: &'a Task,
    /// What [`Policy::mark`] gave for it.
    pub mark: u64,
    /// The node's clock: now, as its answer leaves.
    pub now: Duration,
    /// What became of it.
    pub kind: OutcomeKind,
    /// The peer that it was handed to; `None`: it was not.
    pub peer: Option<&'a str>,
    /// How long its function ran here; `None`: it did not.
    pub execution: Option<Duration>,
    /// From its arrival here to the end of its answer.
    pub total: Duration,
}

impl Outcome<'_> {
    /// Whether it ended after its deadline, if it has one.
    pub fn is_late(&self) -> bool {
        self.task.deadline.is_some_and(|deadline| self.total > deadline)
    }

    /// Whether it was served, and within its deadline where it has one.
    pub fn in_time(&self) -> bool {
        self.kind == OutcomeKind::Served && !self.is_late()
    }
}

/// A short message from one node's algorithm to a peer's.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Whom it is for.
    pub to: Peer,
    /// What it says, at most [`NOTE_BYTES_MAX`] bytes.
    pub text: Vec<u8>,
}

/// A figure of an algorithm's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryFigure {
    /// What it counts or measures, in a word or two with `_` between.
    pub what: &'static str,
    /// Of what; may be empty.
    pub of: String,
    /// The figure itself.
    pub value: f64,
}

/// The order in which calls that wait for a slot get one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineOrder {
    /// As they came.
    #[default]
    Arrival,
    /// The one whose deadline is next is first; those without are last, as they came.
    EarliestDeadline,
}

/// Bits of an algorithm's own [`mark`](Policy::mark).
pub const MARK_BITS: u32 = 40;

/// Numbers by which an algorithm knows its calls: each is given once in 2^[`MARK_BITS`].
#[derive(Debug, Default)]
pub struct Marks(AtomicU64);

impl Marks {
    /// The next one.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1) % (1 << MARK_BITS)
    }
}
