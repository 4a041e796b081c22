//! What goes wrong: nodes that are killed or stand still, networks that part.

use std::time::Duration;

use super::{CallEnd, CallId, Event, Request, Simulation, nanos};
use crate::simulation::world::{FaultKind, SimMembership};

impl<R: Iterator<Item = Request>> Simulation<R> {
    /// Whether a node stands still; if so, `event` happens once it goes on.
    pub(super) fn stands_still(&mut self, index: u32, event: Event) -> bool {
        let until = self.nodes.get(index as usize).map_or(0, |node| node.still_until);
        let is_still = until > self.now;
        if is_still {
            self.agenda.add(until, event);
        }
        is_still
    }

    pub(super) fn fault_begins(&mut self, number: u32) {
        let Some(fault) = self.world.faults.get(number as usize).cloned() else { return };
        let (until, bit) = (nanos(fault.until), self.side_bit(number));
        for &index in &fault.nodes {
            match fault.kind {
                FaultKind::Kill => self.kill(index),
                FaultKind::Stall => {
                    let node = self.nodes.get_mut(index as usize).filter(|node| !node.is_down());
                    if let Some(node) = node {
                        node.still_until = node.still_until.max(until);
                    }
                }
                FaultKind::Part => {
                    if let Some(side) = self.sides.get_mut(index as usize) {
                        *side ^= bit;
                    }
                }
            }
        }
        self.is_noticed();
        self.agenda.add(until, Event::FaultEnds(number));
    }

    /// The bit of a partition in the sides of nodes: each has one of its own, up to 32 of them.
    fn side_bit(&self, number: u32) -> u32 {
        let before = self.world.faults.iter().take(number as usize);
        let parts = before.filter(|fault| fault.kind == FaultKind::Part).count();
        1 << (parts % 32)
    }

    pub(super) fn fault_ends(&mut self, number: u32) {
        let Some(fault) = self.world.faults.get(number as usize).cloned() else { return };
        let bit = self.side_bit(number);
        for &index in &fault.nodes {
            match (fault.kind.clone(), self.nodes.get_mut(index as usize)) {
                (FaultKind::Kill, Some(node)) => {
                    node.downs = node.downs.saturating_sub(1);
                    if !node.is_down() {
                        self.members_start_again(index);
                    }
                }
                (FaultKind::Part, _) => {
                    if let Some(side) = self.sides.get_mut(index as usize) {
                        *side ^= bit;
                    }
                }
                _ => {}
            }
        }
        self.is_noticed();
    }

    fn is_noticed(&mut self) {
        if self.world.membership == SimMembership::Ruled {
            self.after(self.world.patience.notice, Event::Noticed);
        }
    }

    /// The nodes list whom they can hear now.
    pub(super) fn list_all(&mut self) {
        let (now, sides) = (self.now, &self.sides);
        let is_there: Vec<bool> =
            self.nodes.iter().map(|node| !node.is_down() && node.still_until <= now).collect();
        for (node, own) in self.nodes.iter_mut().zip(0u32..) {
            let heard = |other: u32| {
                is_there.get(other as usize).is_some_and(|there| *there)
                    && sides.get(own as usize) == sides.get(other as usize)
            };
            node.list(own, &self.world.nodes, heard);
        }
    }

    /// A node is gone, and all that it held: clients and nodes that had sent it calls hear so at once.
    fn kill(&mut self, index: u32) {
        // It was built before, so it can be again.
        let policy = self.world.scheduler.build();
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        node.downs += 1;
        // What begins again is another process.
        node.still_until = 0;
        node.forget();
        if let Ok(policy) = policy {
            (node.policy, node.said) = (policy, None);
        }
        for id in self.calls.ids() {
            self.loses(id, index);
        }
    }

    /// What becomes of a call if that node is lost.
    fn loses(&mut self, id: CallId, index: u32) {
        let Some(call) = self.calls.get(id) else { return };
        let passed = |at: &usize| call.path.get(*at).is_some_and(|p| p.node == index && p.came > 0);
        let last = if call.end.is_some() { call.at } else { call.path.len().saturating_sub(1) };
        let Some(at) = (0..=last).find(passed) else { return };
        if at == 0 {
            return self.finish(id, CallEnd::NodeLost);
        }
        // Its answer has left the node already.
        if call.end.is_some() && call.at == at {
            return;
        }
        let id = self.calls.renew(id);
        let Some(call) = self.calls.get(id) else { return };
        (call.end, call.at) = (Some(CallEnd::PeerLost), at);
        self.after(Duration::ZERO, Event::Back(id));
    }
}
