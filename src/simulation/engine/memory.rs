//! What algorithms with a memory are told: what became of calls, that a node is idle, what others say.

use std::sync::Arc;
use std::time::Duration;

use super::{CallEnd, CallId, Event, Request, Simulation};
use crate::policy::{NodeView, Outcome, OutcomeKind, Task};
use crate::simulation::node::SimNode;
use crate::simulation::world::SimMembership;
use crate::types::{NodeRecord, TaskType};

/// How often algorithms say something in their node's record, and hear what others say.
const CONVERSE: Duration = Duration::from_secs(1);

impl<R: Iterator<Item = Request>> Simulation<R> {
    /// Algorithms that converse begin to.
    pub(super) fn begin_conversing(&mut self) {
        if self.nodes.iter().any(|node| node.policy.converses()) {
            self.after(CONVERSE, Event::Converse);
        }
    }

    /// All say something, and hear what the others said before.
    pub(super) fn converse(&mut self) {
        let now = Duration::from_nanos(self.now);
        let is_ruled = self.world.membership == SimMembership::Ruled;
        let said: Vec<Option<Arc<NodeRecord>>> = match is_ruled {
            true => self.nodes.iter().map(|node| node.said.clone()).collect(),
            false => Vec::new(),
        };
        for index in (0..self.nodes.len()).filter_map(|index| u32::try_from(index).ok()) {
            self.refresh(index);
            let by_host = &self.by_host;
            let Some(node) = self.nodes.get_mut(index as usize) else { continue };
            if node.is_down() || node.still_until > self.now {
                continue;
            }
            if is_ruled {
                for peer in &mut node.peers {
                    let of = by_host.get(&peer.host).and_then(|index| said.get(*index as usize));
                    peer.record = of.cloned().flatten();
                }
            }
            node.policy.hears(&node.peers, now);
            let saying = node.policy.says(now);
            if node.said.as_ref().is_none_or(|said| *said.saying != *saying) {
                let record = NodeRecord { saying: saying.into(), ..NodeRecord::default() };
                node.said = Some(Arc::new(record));
            }
        }
        if self.goes_on() {
            self.after(CONVERSE, Event::Converse);
        }
    }

    /// The answer of a call leaves the node where it is: the algorithm there is told.
    pub(super) fn tells_outcome(&mut self, id: CallId) {
        let (now, function) = (Duration::from_nanos(self.now), &self.function);
        let Some(call) = self.calls.get(id) else { return };
        let (hops, end) = (call.at, call.end);
        let Some(passed) = call.path.get(hops) else { return };
        let Some(node) = self.nodes.get(passed.node as usize) else { return };
        if !node.policy.hears_outcomes() || node.is_down() {
            return;
        }
        let next = call.path.get(hops + 1).and_then(|next| self.nodes.get(next.node as usize));
        let task = Task {
            function: function.clone(),
            body_bytes: Some(call.request.bytes),
            task_type: TaskType(f64::from(call.request.task_type)),
            hops: u32::try_from(hops).unwrap_or(u32::MAX),
            from_peer: hops > 0,
            deadline: passed.deadline,
        };
        node.policy.outcome(&Outcome {
            task: &task,
            mark: passed.mark,
            now,
            kind: match end {
                Some(CallEnd::Served) => OutcomeKind::Served,
                // As a node tells it: what a peer rejects is like what finds no room there.
                Some(CallEnd::Rejected) if next.is_none() => OutcomeKind::Rejected,
                Some(CallEnd::Rejected | CallEnd::Refused | CallEnd::Full(_)) => OutcomeKind::Full,
                _ => OutcomeKind::Lost,
            },
            peer: next.map(|next| &*next.setup.host),
            execution: call.execution.filter(|_| next.is_none()),
            total: passed.total,
        });
    }

    /// A call has ended at a node, and none waits there. If none runs, either, the algorithm is told.
    pub(super) fn is_idle(&mut self, index: u32) {
        let now = Duration::from_nanos(self.now);
        if self
            .nodes
            .get(index as usize)
            .is_none_or(|node| !node.policy.notices_idle() || node.queue.load().total() > 0)
        {
            return;
        }
        self.refresh(index);
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        let found = node.found(now);
        let view = NodeView {
            now,
            load: found.load,
            by_type: &found.by_type,
            k: node.setup.limits.k,
            places: found.places,
            peers: &node.peers,
        };
        let Some(note) = node.policy.on_idle(view, &mut node.rng) else { return };
        let to = self.by_host.get(&note.to.host).copied();
        let Some(to) = to.filter(|to| !self.are_parted(index, *to)) else { return };
        let takes = self.world.network.between(index, to, 0, &mut self.rng);
        let number = self.notes.put((index, to, note.text));
        self.after(takes + self.world.overheads.probe / 2, Event::Note(number));
    }

    /// A note has come.
    pub(super) fn note_comes(&mut self, number: u32) {
        let now = Duration::from_nanos(self.now);
        let Some((from, to, text)) = self.notes.take(number) else { return };
        let from = self.nodes.get(from as usize).map(|node| Arc::clone(&node.setup.host));
        let to = self.nodes.get(to as usize).filter(|node| !SimNode::is_down(node));
        if let (Some(from), Some(to)) = (from, to) {
            to.policy.noted(&from, &text, now);
        }
    }
}
