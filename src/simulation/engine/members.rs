//! What nodes say to each other so as to know who is there, brought from one to the other.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{BadWorld, Event, Request, Simulation, nanos};
use crate::membership::Introduction;
use crate::membership::swimming::{ASK_AGAIN, AfterFailure, SwimErrand};
use crate::simulation::agenda::Nanos;
use crate::simulation::members::{
    Letter, MEMBERS_MAX, Members, Message, POLL_TIME, POLL_TIMEOUT, PollReply,
};
use crate::simulation::node::SimNode;
use crate::simulation::world::{Neighbourhood, SimMembership, World};
use crate::types::{RecordLoad, Saying, may_be_machine};

/// The addresses of a world's nodes, where they are needed.
///
/// # Errors
/// A node's is none, or there are too many nodes.
pub(super) fn addresses(world: &World) -> Result<Vec<IpAddr>, BadWorld> {
    if world.membership == SimMembership::Ruled {
        return Ok(Vec::new());
    }
    if world.nodes.len() > MEMBERS_MAX {
        return Err(BadWorld::TooManyMembers { nodes: world.nodes.len(), most: MEMBERS_MAX });
    }
    let mut all: Vec<IpAddr> = Vec::new();
    for (node, setup) in world.nodes.iter().enumerate() {
        let host = &*setup.host;
        let address = host.parse().ok().filter(|address: &IpAddr| {
            // Some may be on loopback if all are.
            let with = Some(all.first().copied().unwrap_or(*address));
            let is_written_so = address.to_string() == host;
            is_written_so
                && may_be_machine(*address, with)
                && address.is_loopback() == with.is_some_and(|with| with.is_loopback())
        });
        let none = || BadWorld::NoAddress { node, host: host.to_owned() };
        all.push(address.ok_or_else(none)?);
    }
    Ok(all)
}

/// What a node says of its load, and what its algorithm says.
fn said_of(node: &SimNode) -> (RecordLoad, Saying) {
    let load = node.queue.load();
    // No function fails here.
    let (running, waiting, failing_percent) = (load.running, load.waiting, 0);
    let load = RecordLoad { k: node.setup.limits.k, running, waiting, failing_percent };
    (load, node.said.as_ref().map(|said| Arc::clone(&said.saying)).unwrap_or_default())
}

impl<R: Iterator<Item = Request>> Simulation<R> {
    /// All nodes have been together for long.
    pub(super) fn begin_members(&mut self) {
        let name = |node: &SimNode| node.setup.name.to_string();
        let is = |node: &SimNode| Introduction {
            name: name(node),
            streams: true,
            ..Introduction::default()
        };
        let all: Vec<_> = self.addresses.iter().copied().zip(self.nodes.iter().map(is)).collect();
        for (index, (own, _)) in (0u32..).zip(&all) {
            // Each begins by the first, and the first by the second.
            let init_server = all.get(usize::from(index == 0)).map(|(ip, _)| *ip);
            let Some(node) = self.nodes.get_mut(index as usize) else { return };
            let seed = self.world.seed ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut members = Members::new(*own, &node.setup.name, init_server, seed);
            members.lists(&all);
            let (pings, polls) = members.beginnings();
            node.members = Some(Box::new(members));
            self.after(pings, Event::SwimBegins(index));
            self.after(polls, Event::Polls(index, 0));
        }
    }

    fn members(&mut self, index: u32) -> Option<&mut Members> {
        let node = self.nodes.get_mut(index as usize).filter(|node| !node.is_down())?;
        node.members.as_deref_mut()
    }

    fn address(&self, index: u32) -> Option<IpAddr> {
        self.addresses.get(index as usize).copied()
    }

    pub(super) fn swim_begins(&mut self, index: u32) {
        if self.stands_still(index, Event::SwimBegins(index))
            || self.members(index).is_some_and(|members| members.start > 0)
        {
            return;
        }
        let (now, all) = (self.now, self.addresses.clone());
        if let Some(members) = self.members(index) {
            members.begins(&all, now);
            self.carry_errands(index);
        }
    }

    /// A node that was killed is started again.
    pub(super) fn members_start_again(&mut self, index: u32) {
        let now = self.now;
        let Some(members) = self.members(index) else { return };
        members.starts_again(now);
        let start = members.start;
        self.agenda.add(now, Event::Polls(index, start));
    }

    pub(super) fn polls(&mut self, index: u32, start: u32) {
        if !self.goes_on() || self.stands_still(index, Event::Polls(index, start)) {
            return;
        }
        let now = self.now;
        let Some((load, saying)) = self.nodes.get(index as usize).map(said_of) else { return };
        let Some(members) = self.members(index).filter(|members| members.start == start) else {
            return;
        };
        let due = members.polls(load, &saying, now);
        self.poll_all(index, due);
        self.carry_errands(index);
        self.after(POLL_TIME, Event::Polls(index, start));
    }

    pub(super) fn swim_wakes(&mut self, index: u32) {
        if !self.goes_on() || self.stands_still(index, Event::SwimWakes(index)) {
            return;
        }
        let now = self.now;
        let Some((load, saying)) = self.nodes.get(index as usize).map(said_of) else { return };
        // It may have been told another time since.
        let is_due = |members: &&mut Members| members.wakes_at.is_some_and(|at| at <= now);
        if let Some(members) = self.members(index).filter(is_due) {
            members.wakes(load, &saying, now);
            self.carry_errands(index);
        }
    }

    pub(super) fn asks_again(&mut self, index: u32, other: u32) {
        if !self.goes_on() || self.stands_still(index, Event::AsksAgain(index, other)) {
            return;
        }
        let (now, ip) = (self.now, self.address(other));
        let asks =
            |(members, ip): (&mut Members, IpAddr)| members.asks_again(ip, now).then_some(ip);
        let due = self.members(index).zip(ip).and_then(asks);
        self.poll_all(index, due.into_iter().collect());
    }

    /// A call from a node to another found no connection: `in_vain` if it was the node that did not wait any longer.
    pub(super) fn cannot_reach(&mut self, index: u32, other: u32, in_vain: bool) {
        let (now, ip) = (self.now, self.address(other));
        let Some((members, ip)) = self.members(index).zip(ip) else { return };
        let after = match in_vain {
            true => members.waited_in_vain(ip, now),
            false => members.failed(ip, now),
        };
        self.follows(index, other, after);
        self.carry_errands(index);
    }

    fn follows(&mut self, index: u32, other: u32, after: AfterFailure) {
        if after == AfterFailure::AsksAgain {
            self.after(ASK_AGAIN, Event::AsksAgain(index, other));
        }
    }

    /// What SWIM wants done at a node is done.
    fn carry_errands(&mut self, index: u32) {
        let now = self.now;
        let Some(members) = self.members(index) else { return };
        let (errands, start) = (members.errands(now), members.start);
        if let Some(at) = members.wants_waking() {
            self.agenda.add(at.max(now), Event::SwimWakes(index));
        }
        let mut polls = Vec::new();
        for errand in errands {
            let (ip, message) = match errand {
                SwimErrand::Send { to, datagram } => (to, Message::Datagram(datagram)),
                SwimErrand::Try(ip) => (ip, Message::Try),
                SwimErrand::Poll(ip) => {
                    polls.push(ip);
                    continue;
                }
                SwimErrand::BeganAnew => continue,
            };
            if let Some(to) = self.by_address.get(&ip).copied() {
                self.sends(Letter { from: index, to, start, since: now, message });
            }
        }
        self.poll_all(index, polls);
    }

    fn poll_all(&mut self, index: u32, addresses: Vec<IpAddr>) {
        let now = self.now;
        for ip in addresses {
            let to = self.by_address.get(&ip).copied();
            let Some((members, to)) = self.members(index).zip(to) else { continue };
            let message = Message::Poll(members.is_polled_briefly(ip, now));
            let start = members.start;
            self.sends(Letter { from: index, to, start, since: now, message });
        }
    }

    /// A message leaves; datagrams may be lost, and what is parted hears nothing.
    fn sends(&mut self, letter: Letter) {
        let (from, to) = (letter.from, letter.to);
        let is_parted = self.are_parted(from, to);
        let network = &self.world.network;
        let takes = match &letter.message {
            Message::Poll(_) if is_parted => {
                let index = self.letters.put(letter);
                return self.goes_unanswered(index);
            }
            Message::Answer(..) if is_parted => POLL_TIMEOUT,
            _ if is_parted => return,
            Message::Datagram(bytes) => {
                let bytes = bytes.len() as u64;
                match network.datagram(from, to, bytes, &mut self.rng) {
                    Some(takes) => takes,
                    None => return,
                }
            }
            _ => {
                let takes = network.between(from, to, 0, &mut self.rng);
                takes + self.world.overheads.probe / 2
            }
        };
        if matches!(letter.message, Message::Poll(_)) && takes > POLL_TIMEOUT {
            let index = self.letters.put(letter);
            return self.goes_unanswered(index);
        }
        self.arrives(self.now.saturating_add(nanos(takes)), letter);
    }

    /// A letter is on its way; nobody waits longer for an answer than he waits.
    fn arrives(&mut self, at: Nanos, mut letter: Letter) {
        let mut at = at;
        let last = letter.since.saturating_add(nanos(POLL_TIMEOUT));
        if let Message::Answer(answer, took) = &mut letter.message {
            if at > last {
                *answer = None;
            }
            at = at.min(last).max(self.now);
            *took = Duration::from_nanos(at.saturating_sub(letter.since));
        }
        let index = self.letters.put(letter);
        self.agenda.add(at, Event::Letter(index));
    }

    /// Whoever sent this poll waits as long as it does.
    fn goes_unanswered(&mut self, index: u32) {
        let Some(Letter { from, to, start, since, .. }) = self.letters.take(index) else { return };
        let message = Message::Answer(None, POLL_TIMEOUT);
        let nothing = Letter { from: to, to: from, start, since, message };
        self.arrives(since.saturating_add(nanos(POLL_TIMEOUT)), nothing);
    }

    pub(super) fn letter_comes(&mut self, index: u32) {
        let Some(letter) = self.letters.get(index) else { return };
        let (to, waits_until) = (letter.to, letter.since.saturating_add(nanos(POLL_TIMEOUT)));
        let is_poll = matches!(letter.message, Message::Poll(_));
        let still_until = self.nodes.get(to as usize).map_or(0, |node| node.still_until);
        if is_poll && still_until > waits_until {
            // Nobody waits for that answer.
            return self.goes_unanswered(index);
        }
        if !self.goes_on() || still_until == Nanos::MAX {
            self.letters.take(index);
            return;
        }
        if self.stands_still(to, Event::Letter(index)) {
            return;
        }
        let Some(Letter { from, start, since, message, .. }) = self.letters.take(index) else {
            return;
        };
        let (now, ip) = (self.now, self.address(from));
        let Some(ip) = ip else { return };
        let back = |message| Letter { from: to, to: from, start, since, message };
        let is_for = |members: &&mut Members| members.start == start;
        match message {
            Message::Datagram(bytes) => {
                if let Some(members) = self.members(to) {
                    members.hears(ip, &bytes, now);
                    self.carry_errands(to);
                }
            }
            Message::Poll(briefly) => {
                let answer = self.answer(from, to, briefly);
                self.sends(back(Message::Answer(answer, Duration::ZERO)));
            }
            Message::Answer(answer, took) => {
                let Some(members) = self.members(to).filter(is_for) else { return };
                let after = members.polled(ip, answer, took, now);
                self.follows(to, from, after);
                self.asks_newcomers(to);
            }
            Message::Try if self.nodes.get(to as usize).is_some_and(SimNode::is_down) => {
                self.sends(back(Message::Refused));
            }
            Message::Try => {}
            Message::Refused => {
                if let Some(members) = self.members(to).filter(is_for) {
                    members.refused(ip, now);
                    self.carry_errands(to);
                }
            }
        }
    }

    /// What a node answers to another's poll; `None`: it is not there.
    fn answer(&mut self, from: u32, to: u32, briefly: bool) -> Option<PollReply> {
        let (now, ip) = (self.now, self.address(from)?);
        let asks = self.nodes.get(from as usize)?.members.as_ref()?.introduction().clone();
        let answer = self.members(to)?.is_polled(ip, &asks, briefly, now);
        self.asks_newcomers(to);
        Some(answer)
    }

    fn asks_newcomers(&mut self, index: u32) {
        let now = self.now;
        let Some(members) = self.members(index) else { return };
        let due = members.newcomers(now);
        self.poll_all(index, due);
        self.carry_errands(index);
    }

    /// A node's peers are those that its membership lists now.
    pub(super) fn refresh(&mut self, index: u32) {
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        let (Some(members), by_address) = (&mut node.members, &self.by_address) else { return };
        let is_neighbour = |ip: IpAddr| match (&node.setup.neighbours, by_address.get(&ip)) {
            (Neighbourhood::All, index) => index.is_some(),
            (Neighbourhood::Of(some), index) => index.is_some_and(|index| some.contains(index)),
        };
        if let Some((peers, failing)) = members.news(is_neighbour) {
            (node.peers, node.failing) = (peers, failing);
        }
    }
}
