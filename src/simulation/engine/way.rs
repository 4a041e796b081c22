//! A call's way: from its client to a node, perhaps to another one, and back.

use std::sync::Arc;
use std::time::Duration;

use super::{CallEnd, CallId, Event, Finished, PassedNode, Request, Simulation, are_parted, nanos};
use crate::outliers::AtPeer;
use crate::policy::deciding::{Deciding, FORWARDS_MAX};
use crate::policy::{Decision, Knowledge, LearnerDecision, LineOrder, Policy, Step, Task};
use crate::queue::{Admission, Arriving};
use crate::simulation::node::SimNode;
use crate::simulation::world::BoardUse;
use crate::types::{Peer, TaskType};

impl<R: Iterator<Item = Request>> Simulation<R> {
    /// A client sends a call.
    pub(super) fn send(&mut self, request: Request) {
        let id = self.calls.open(request);
        self.pass_to(id, request.node, None);
        let takes = self.world.network.to_client(request.bytes, &mut self.rng);
        self.after(takes + self.world.overheads.client / 2, Event::Comes(id));
    }

    fn pass_to(&mut self, id: CallId, node: u32, away: Option<crate::outliers::AwayCall>) {
        if let Some(call) = self.calls.get(id) {
            call.path.push(PassedNode {
                node,
                scheduling: Duration::ZERO,
                probing: None,
                total: Duration::ZERO,
                came: 0,
                mark: 0,
                deadline: None,
                away,
            });
        }
    }

    /// A call comes to the node of its last hop.
    pub(super) fn comes(&mut self, id: CallId) {
        let now = self.now;
        let Some(call) = self.calls.get(id) else { return };
        let (Some(index), hops) = (call.node(), call.path.len() - 1) else { return };
        let is_down = self.nodes.get(index as usize).is_none_or(SimNode::is_down);
        if is_down && hops == 0 {
            return self.finish(id, CallEnd::NodeLost);
        }
        if is_down {
            let from = self.before_last(id).unwrap_or(index);
            let takes = self.world.network.between(index, from, 0, &mut self.rng);
            return self.after(takes, Event::Unreached(id, false));
        }
        if self.stands_still(index, Event::Comes(id)) {
            return;
        }
        let (function, node) = (self.function.clone(), self.nodes.get(index as usize));
        let Some(call) = self.calls.get(id) else { return };
        let deadline = call.deadline_left();
        let task = Task {
            function,
            body_bytes: Some(call.request.bytes),
            task_type: TaskType(f64::from(call.request.task_type)),
            hops: u32::try_from(hops).unwrap_or(u32::MAX),
            from_peer: hops > 0,
            deadline,
        };
        call.tries = FORWARDS_MAX;
        let mark = node.map_or(0, |node| node.policy.mark(&task, Duration::from_nanos(now)));
        if let Some(passed) = call.path.last_mut() {
            (passed.came, passed.mark, passed.deadline) = (now, mark, deadline);
        }
        self.refresh(index);
        let mut heard = Knowledge { mark, ..Knowledge::default() };
        let looks = |policy: &dyn Policy| !policy.learns() && policy.may_forward(&task);
        if self.nodes.get(index as usize).is_some_and(|node| looks(&*node.policy)) {
            heard.unreachable = self.left_out(id, index);
        }
        self.decide_anew(id, task, heard);
        if self.is_outside && hops == 0 {
            self.asks = Some(id);
        } else {
            self.schedule(id);
        }
    }

    fn decide_anew(&mut self, id: CallId, task: Task, heard: Knowledge) {
        let Some(call) = self.calls.get(id) else { return };
        let node = call.node().and_then(|index| self.nodes.get(index as usize));
        let now = Duration::from_nanos(self.now);
        call.deciding = node.map(|node| Deciding::new(task, heard, node.found(now)));
    }

    /// Peers to which a call is not to go from where it is.
    fn left_out(&mut self, id: CallId, index: u32) -> Vec<Arc<str>> {
        let now = Duration::from_nanos(self.now);
        let Some(node) = self.nodes.get(index as usize) else { return Vec::new() };
        let mut out = match self.world.peer_ejection {
            true => node.outliers.left_out(&node.peers, &node.failing, &self.function, now),
            false => Vec::new(),
        };
        if let Some(call) = self.calls.get(id).filter(|call| call.path.len() > 1)
            && !node.policy.may_return()
        {
            let before = call.path.split_last().map_or(&[][..], |(_, before)| before);
            let hosts = before.iter().filter_map(|passed| self.nodes.get(passed.node as usize));
            out.extend(hosts.map(|node| Arc::clone(&node.setup.host)));
        }
        out
    }

    /// Asks the policy until it has decided, or wants something that takes time.
    pub(super) fn schedule(&mut self, id: CallId) {
        loop {
            let Some(call) = self.calls.get(id) else { return };
            let (Some(passed), Some(deciding)) = (call.path.last(), call.deciding.as_mut()) else {
                return;
            };
            let (came, index) = (passed.came, passed.node);
            if self.nodes.get(index as usize).is_some_and(|node| node.still_until > self.now) {
                self.stands_still(index, Event::Woken(id));
                return;
            }
            let Some(node) = self.nodes.get_mut(index as usize) else { return };
            deciding.heard.elapsed = Duration::from_nanos(self.now - came);
            let k = node.setup.limits.k;
            match deciding.next(&*node.policy, k, &node.peers, &mut node.rng) {
                None => return self.carry_out(id, Decision::RunHere { may_wait: true }),
                Some(Step::Decide(decision)) => return self.carry_out(id, decision),
                Some(Step::Learn(question)) => {
                    let learnt = match &mut node.learner {
                        Some(learner) => learner.decide(question, &deciding.task, &mut node.rng),
                        None => LearnerDecision::fallback(None, question),
                    };
                    if call.path.len() == 1 {
                        call.learnt = Some(learnt.clone());
                    }
                    deciding.heard.learnt = Some(learnt);
                }
                Some(Step::Consult(consultation)) => {
                    let host = &node.setup.host;
                    deciding.heard.advised = Some(self.programs.consult(host, &consultation));
                }
                Some(Step::Probe(peers)) => return self.probe(id, index, peers),
                Some(Step::WaitUntil(after)) => {
                    let at = came.saturating_add(nanos(after)).max(self.now);
                    return self.agenda.add(at, Event::Woken(id));
                }
            }
        }
    }

    /// Does what was decided.
    pub(super) fn carry_out(&mut self, id: CallId, decision: Decision) {
        let now = self.now;
        let Some(call) = self.calls.get(id) else { return };
        if let Some(passed) = call.path.last_mut() {
            passed.scheduling = Duration::from_nanos(now.saturating_sub(passed.came));
        }
        match decision {
            Decision::Reject => self.ends(id, CallEnd::Rejected),
            Decision::Refuse => self.ends(id, CallEnd::Refused),
            Decision::RunHere { may_wait } => self.run_here(id, may_wait),
            Decision::Forward(peer) => self.forward(id, peer),
        }
    }

    fn forward(&mut self, id: CallId, peer: Peer) {
        let Some(call) = self.calls.get(id) else { return };
        let Some(from) = call.node() else { return };
        let was_here = call.path.iter().filter(|passed| passed.node == from).count() > 1;
        let Some(to) = self.by_host.get(&peer.host).copied().filter(|_| !was_here) else {
            return self.run_here(id, true);
        };
        let bytes = call.request.bytes;
        let learns = self.nodes.get(from as usize).is_some_and(|node| node.policy.learns());
        if learns && self.left_out(id, from).contains(&peer.host) {
            return self.try_again(id, &peer.host);
        }
        let now = Duration::from_nanos(self.now);
        let (ejects, function) = (self.world.peer_ejection, &self.function);
        let away = self.nodes.get_mut(from as usize).filter(|_| ejects);
        let away = away.map(|node| node.outliers.goes(&peer.host, function, now));
        self.pass_to(id, to, away);
        if self.are_parted(from, to) {
            return self.after(self.world.patience.connect, Event::Unreached(id, true));
        }
        let takes = self.world.network.between(from, to, bytes, &mut self.rng);
        self.after(takes + self.world.overheads.forward / 2, Event::Comes(id));
    }

    /// The call could not be handed to the peer of its last hop.
    pub(super) fn unreached(&mut self, id: CallId, in_vain: bool) {
        let Some(call) = self.calls.get(id) else { return };
        let Some(passed) = call.path.pop() else { return };
        self.judge(id, passed, AtPeer::PeerFailed);
        if let Some(from) = self.calls.get(id).and_then(|call| call.node()) {
            self.cannot_reach(from, passed.node, in_vain);
        }
        if let Some(node) = self.nodes.get(passed.node as usize) {
            let host = Arc::clone(&node.setup.host);
            self.try_again(id, &host);
        }
    }

    /// The call is decided on anew, without that peer; or runs here if it was handed on often enough.
    fn try_again(&mut self, id: CallId, host: &Arc<str>) {
        let Some(call) = self.calls.get(id) else { return };
        call.tries = call.tries.saturating_sub(1);
        let (tries, deciding) = (call.tries, call.deciding.take());
        let Some(Deciding { task, mut heard, .. }) = deciding.filter(|_| tries > 0) else {
            return self.run_here(id, true);
        };
        heard.unreachable.push(Arc::clone(host));
        self.decide_anew(id, task, heard);
        self.schedule(id);
    }

    fn run_here(&mut self, id: CallId, may_wait: bool) {
        let Some(call) = self.calls.get(id) else { return };
        let Some(index) = call.node() else { return };
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        let task_type = TaskType(f64::from(call.request.task_type));
        let due = call.path.last().and_then(|passed| match node.policy.line_order(passed.mark) {
            LineOrder::Arrival => None,
            LineOrder::EarliestDeadline => {
                Some(Duration::from_nanos(passed.came).saturating_add(passed.deadline?))
            }
        });
        let arriving = Arriving { bytes: 0, may_wait, task_type, due };
        match node.queue.arrive(arriving, |_| id) {
            Ok(Admission::Started) => self.begins(index, id, task_type),
            Ok(Admission::Waiting(_)) => {}
            Err(why) => self.ends(id, CallEnd::Full(why)),
        }
    }

    /// A call has a slot.
    fn begins(&mut self, index: u32, id: CallId, task_type: TaskType) {
        let now = self.now;
        let (board, late) = (self.world.board, self.world.overheads.end);
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        // Where nobody waits for it any more, it takes its time all the same.
        let work = self.calls.get(id).map_or(Duration::ZERO, |call| {
            call.began = Some(now);
            call.request.work
        });
        match board {
            BoardUse::Alone => {
                let takes = work.div_f64(node.setup.speed) + late;
                self.after(takes, Event::Done(id));
            }
            BoardUse::Shared => {
                node.begins(id, task_type, work, now);
                self.reckon(index);
            }
        }
    }

    fn reckon(&mut self, index: u32) {
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if let Some((left, reckoning)) = node.next_done(self.now) {
            let late = if left.is_zero() { Duration::ZERO } else { self.world.overheads.end };
            self.after(left + late, Event::BoardDue(index, reckoning));
        }
    }

    pub(super) fn board_due(&mut self, index: u32, reckoning: u32) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if reckoning != node.reckoning()
            || self.stands_still(index, Event::BoardDue(index, reckoning))
        {
            return;
        }
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        if let Some(working) = node.done(now) {
            self.is_done(index, working.call, working.task_type);
            self.reckon(index);
        }
    }

    pub(super) fn done_alone(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        let Some(index) = call.node() else { return };
        let task_type = TaskType(f64::from(call.request.task_type));
        if !self.stands_still(index, Event::Done(id)) {
            self.is_done(index, id, task_type);
        }
    }

    /// A function has ended at that node: the next one begins, and the answer goes out.
    fn is_done(&mut self, index: u32, id: CallId, task_type: TaskType) {
        let now = self.now;
        if let Some(call) = self.calls.get(id) {
            let ran = |began| Duration::from_nanos(now.saturating_sub(began));
            call.execution = call.began.map(ran);
        }
        let node = self.nodes.get_mut(index as usize);
        let next = node.and_then(|node| node.queue.finish(task_type));
        self.ends(id, CallEnd::Served);
        match next {
            Some(next) => self.begins(index, next.token, next.task_type),
            None => self.is_idle(index),
        }
    }

    /// A call has come to its end, where it is: the answer goes back.
    pub(super) fn ends(&mut self, id: CallId, end: CallEnd) {
        let Some(call) = self.calls.get(id) else { return };
        (call.end, call.at) = (Some(end), call.path.len().saturating_sub(1));
        self.answers(id);
    }

    /// The answer leaves the node where it is.
    fn answers(&mut self, id: CallId) {
        let now = self.now;
        let Some(call) = self.calls.get(id) else { return };
        let at = call.at;
        let bytes = if call.end == Some(CallEnd::Served) { call.request.bytes } else { 0 };
        let Some(passed) = call.path.get_mut(at) else { return };
        passed.total = Duration::from_nanos(now.saturating_sub(passed.came));
        let (from, took) = (passed.node, passed.total);
        self.tells_outcome(id);
        let Some(call) = self.calls.get(id) else { return };
        let before = at.checked_sub(1).and_then(|before| call.path.get(before));
        let Some(to) = before.map(|passed| passed.node) else {
            let served = call.end == Some(CallEnd::Served);
            let pending = call.learnt.as_ref().and_then(|learnt| learnt.pending.as_ref());
            if let Some(pending) = pending.filter(|_| served) {
                pending.answered(took);
            }
            let takes = self.world.network.to_client(bytes, &mut self.rng);
            return self.after(takes + self.world.overheads.client / 2, Event::Back(id));
        };
        if are_parted(&self.sides, from, to) {
            call.end = Some(CallEnd::PeerLost);
            return self.after(self.world.patience.notice, Event::Back(id));
        }
        let takes = self.world.network.between(from, to, bytes, &mut self.rng);
        self.after(takes + self.world.overheads.forward / 2, Event::Back(id));
    }

    /// An answer is back at the node before, or at the client.
    pub(super) fn back(&mut self, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        let Some(end) = call.end else { return };
        let Some(before) = call.at.checked_sub(1) else { return self.finish(id, end) };
        let (passed, here) = (call.path.get(call.at).copied(), call.path.get(before).copied());
        let (Some(passed), Some(here)) = (passed, here) else { return };
        if self.stands_still(here.node, Event::Back(id)) {
            return;
        }
        self.judge_at(
            here.node,
            passed,
            match end {
                CallEnd::Served => AtPeer::Served,
                CallEnd::PeerLost => AtPeer::PeerFailed,
                _ => AtPeer::Refused,
            },
        );
        if let Some(call) = self.calls.get(id) {
            call.at = before;
        }
        self.answers(id);
    }

    fn judge(&mut self, id: CallId, passed: PassedNode, what: AtPeer) {
        if let Some(index) = self.calls.get(id).and_then(|call| call.node()) {
            self.judge_at(index, passed, what);
        }
    }

    /// What became of a call at a peer is remembered by the node at `index`.
    fn judge_at(&mut self, index: u32, passed: PassedNode, what: AtPeer) {
        let now = Duration::from_nanos(self.now);
        let peer = self.nodes.get(passed.node as usize).map(|node| Arc::clone(&node.setup.host));
        let node = self.nodes.get_mut(index as usize);
        if let (Some(away), Some(host), Some(node)) = (passed.away, peer, node) {
            node.outliers.ended(&host, &self.function, away, what, now);
        }
    }

    /// The node before the last of a call's path.
    pub(super) fn before_last(&mut self, id: CallId) -> Option<u32> {
        let path = &self.calls.get(id)?.path;
        Some(path.get(path.len().checked_sub(2)?)?.node)
    }

    /// The client has its answer, or gives up.
    pub(super) fn finish(&mut self, id: CallId, end: CallEnd) {
        let patience = self.world.patience.client;
        let now = Duration::from_nanos(self.now);
        let Some(call) = self.calls.get(id) else { return };
        let (request, entry) = (call.request, call.request.node);
        let took = now.saturating_sub(request.at);
        let (end, total) = match took > patience || end == CallEnd::GivenUp {
            true => (CallEnd::GivenUp, patience),
            false => (end, took),
        };
        let finished = Finished {
            request,
            end,
            total,
            execution: call.execution,
            path: call.path.clone(),
            learnt: call.learnt.take(),
        };
        self.calls.close(id);
        if let Some(learnt) = &finished.learnt {
            self.rewards(entry, learnt, &finished);
        }
        self.finished.push_back(finished);
    }

    fn rewards(&mut self, entry: u32, learnt: &LearnerDecision, finished: &Finished) {
        let answered = (finished.end == CallEnd::Served).then_some(finished.total.as_secs_f64());
        let Some(learner) = self.learner(entry) else { return };
        learner.takes_own();
        // Nobody took decision 0.
        if learnt.eid > 0
            && learner.hears(learnt, finished.request.task_type, answered)
            && learner.send()
        {
            self.after(self.world.overheads.client / 2, Event::Trains(entry));
        }
    }
}
