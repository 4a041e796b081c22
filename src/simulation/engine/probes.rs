//! A call's probes: peers that are asked for their load before it is decided on.

use std::sync::Arc;
use std::time::Duration;

use super::{CallId, Event, Request, Simulation, are_parted, nanos};
use crate::simulation::calls::Asked;
use crate::types::Peer;

impl<R: Iterator<Item = Request>> Simulation<R> {
    /// All at once.
    pub(super) fn probe(&mut self, id: CallId, from: u32, peers: Vec<Peer>) {
        let Some(call) = self.calls.get(id) else { return };
        call.probing_since = self.now;
        call.probes.clear();
        for peer in peers {
            let node = self.by_host.get(&peer.host).copied().unwrap_or(from);
            call.probes.push(Asked { peer, node, answer: None, is_back: false, in_vain: None });
        }
        let (half, longest) = (self.world.overheads.probe / 2, self.world.patience.probe);
        for (asked, index) in call.probes.iter_mut().zip(0u16..) {
            let takes = match are_parted(&self.sides, from, asked.node) {
                true => None,
                false => {
                    Some(self.world.network.between(from, asked.node, 0, &mut self.rng) + half)
                }
            };
            let (takes, event) = match takes.filter(|takes| *takes <= longest) {
                Some(takes) => (takes, Event::ProbeComes(id, index)),
                None => {
                    asked.in_vain = takes.is_none().then_some(true);
                    (longest, Event::ProbeBack(id, index))
                }
            };
            self.agenda.add(self.now.saturating_add(nanos(takes)), event);
        }
        if call.probes.is_empty() {
            self.all_probes_back(id);
        }
    }

    pub(super) fn probe_comes(&mut self, id: CallId, index: u16) {
        let now = Duration::from_nanos(self.now);
        let Some(call) = self.calls.get(id) else { return };
        let from = call.node().unwrap_or_default();
        let (asker, mark) = (self.nodes.get(from as usize), call.path.last().map(|at| at.mark));
        let bidder = asker.zip(mark).map_or("", |(asker, mark)| asker.policy.hears_bids_of(mark));
        let Some(asked) = call.probes.get_mut(usize::from(index)) else { return };
        let Some(node) = self.nodes.get(asked.node as usize) else { return };
        asked.in_vain = node.is_down().then_some(false);
        if !node.is_down()
            && let Some(deciding) = &call.deciding
        {
            asked.answer = Some(node.answers_probe(&asked.peer, &deciding.task, bidder, now));
        }
        let answers = self.now.max(node.still_until);
        let takes = self.world.network.between(asked.node, from, 0, &mut self.rng);
        let half = if node.is_down() { Duration::ZERO } else { self.world.overheads.probe / 2 };
        let back = answers.saturating_add(nanos(takes + half));
        let last = call.probing_since.saturating_add(nanos(self.world.patience.probe));
        if back > last {
            asked.answer = None;
        }
        self.agenda.add(back.min(last), Event::ProbeBack(id, index));
    }

    pub(super) fn probe_back(&mut self, id: CallId, index: u16) {
        let Some(call) = self.calls.get(id) else { return };
        let mut silent = None;
        if let Some(asked) = call.probes.get_mut(usize::from(index)) {
            asked.is_back = true;
            silent = asked.in_vain.map(|in_vain| (asked.node, in_vain));
        }
        let (from, are_all_back) = (call.node(), call.probes.iter().all(|asked| asked.is_back));
        if let Some((from, (silent, in_vain))) = from.zip(silent) {
            self.cannot_reach(from, silent, in_vain);
        }
        if are_all_back {
            self.all_probes_back(id);
        }
    }

    fn all_probes_back(&mut self, id: CallId) {
        let now = self.now;
        let Some(call) = self.calls.get(id) else { return };
        let took = Duration::from_nanos(now.saturating_sub(call.probing_since));
        if let Some(passed) = call.path.last_mut() {
            *passed.probing.get_or_insert_default() += took;
        }
        let asked = call.probes.iter().map(|asked| Arc::clone(&asked.peer.host)).collect();
        let probes = call.probes.drain(..).filter_map(|asked| asked.answer).collect();
        if let Some(deciding) = &mut call.deciding {
            deciding.heard.answered(asked, probes);
        }
        self.schedule(id);
    }
}
