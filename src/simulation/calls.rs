//! Calls under way: where each is, and what is known of it.

use std::time::Duration;

use super::agenda::{CallId, Nanos};
use super::world::Request;
use crate::outliers::AwayCall;
use crate::policy::deciding::Deciding;
use crate::policy::{LearnerDecision, Probe};
use crate::queue::Refusal;
use crate::types::Peer;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// Its function answered.
    Served,
    /// The algorithm rejected it.
    Rejected,
    /// The node takes no such call.
    Refused,
    /// The node that was to run it was full.
    Full(Refusal),
    /// The node that it had been handed to was lost: it may have run there.
    PeerLost,
    /// The node that it was sent to was gone, or went.
    NodeLost,
    /// Its client gave up.
    GivenUp,
}

/// A node that a call passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassedNode {
    /// Its index.
    pub node: u32,
    /// From its arrival there to the decision.
    pub scheduling: Duration,
    /// Of that, asking peers; `None`: none was asked.
    pub probing: Option<Duration>,
    /// From its arrival there to its answer's leaving.
    pub total: Duration,
    /// When it came there.
    pub(super) came: Nanos,
    /// What the algorithm there marked it with.
    pub(super) mark: u64,
    /// What was left of its deadline then.
    pub(super) deadline: Option<Duration>,
    /// It as one of the calls that the node before has there.
    pub(super) away: Option<AwayCall>,
}

/// A peer that was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) peer: Peer,
    pub(super) node: u32,
    pub(super) answer: Option<Probe>,
    pub(super) is_back: bool,
    /// Why it could not be connected to, if so: whether the node did not wait any longer, or it refused.
    pub(super) in_vain: Option<bool>,
}

/// A call under way.
#[derive(Debug, Default)]
pub(super) struct SimCall {
    pub(super) generation: u32,
    pub(super) is_open: bool,
    pub(super) request: Request,
    /// The nodes that it has passed, the one where it is last.
    pub(super) path: Vec<PassedNode>,
    /// On its way to a decision, where it is.
    pub(super) deciding: Option<Deciding>,
    pub(super) probes: Vec<Asked>,
    pub(super) probing_since: Nanos,
    /// How often it may still be handed to a peer from where it is.
    pub(super) tries: usize,
    /// The decision of its entry node's learner.
    pub(super) learnt: Option<LearnerDecision>,
    /// When its function began.
    pub(super) began: Option<Nanos>,
    pub(super) execution: Option<Duration>,
    /// What its answer says, on its way back, and how far back it is: the place in `path` that it leaves.
    pub(super) end: Option<CallEnd>,
    pub(super) at: usize,
}

impl SimCall {
    /// What is left of its deadline as it comes to the node where it is.
    pub(super) fn deadline_left(&self) -> Option<Duration> {
        let before = self.path.split_last().and_then(|(_, before)| before.last());
        match before {
            None => self.request.deadline,
            Some(passed) => Some(passed.deadline?.saturating_sub(passed.scheduling)),
        }
    }

    /// The node where it is.
    pub(super) fn node(&self) -> Option<u32> {
        self.path.last().map(|passed| passed.node)
    }
}

/// All calls under way; places are used again.
#[derive(Debug, Default)]
pub(super) struct Calls {
    all: Vec<SimCall>,
    free: Vec<u32>,
}

impl Calls {
    pub(super) fn open(&mut self, request: Request) -> CallId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(SimCall::default());
            u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
        });
        let mut id = CallId { index, generation: 0 };
        if let Some(call) = self.all.get_mut(index as usize) {
            let generation = call.generation.wrapping_add(1);
            // What has grown is kept for the next.
            let (mut path, mut probes) =
                (std::mem::take(&mut call.path), std::mem::take(&mut call.probes));
            path.clear();
            probes.clear();
            *call =
                SimCall { generation, is_open: true, request, path, probes, ..SimCall::default() };
            id.generation = generation;
        }
        id
    }

    /// The call, unless it is over.
    pub(super) fn get(&mut self, id: CallId) -> Option<&mut SimCall> {
        let call = self.all.get_mut(id.index as usize)?;
        (call.is_open && call.generation == id.generation).then_some(call)
    }

    /// The same call by another name: whatever was to happen to it does not happen any more.
    pub(super) fn renew(&mut self, id: CallId) -> CallId {
        let Some(call) = self.get(id) else { return id };
        call.generation = call.generation.wrapping_add(1);
        CallId { generation: call.generation, ..id }
    }

    /// It is over.
    pub(super) fn close(&mut self, id: CallId) {
        if let Some(call) = self.get(id) {
            call.is_open = false;
            (call.deciding, call.learnt) = (None, None);
            self.free.push(id.index);
        }
    }

    /// Calls under way.
    pub(super) fn count(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// All that are under way.
    pub(super) fn ids(&self) -> Vec<CallId> {
        let open = self.all.iter().zip(0u32..).filter(|(call, _)| call.is_open);
        open.map(|(call, index)| CallId { index, generation: call.generation }).collect()
    }
}
