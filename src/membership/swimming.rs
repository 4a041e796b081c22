//! A node's part in SWIM: the protocol with its timers, and what follows from it for the list of machines. What
//! is to be done outside comes out as errands. Core: the Discovery actor and the simulation do them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::swim::{BadDatagram, Swim, SwimEffect, SwimId, SwimTimer};
use super::{At, Introduction, Machine, Membership};
use crate::types::{NodeDescription, Peer, RecordLoad, Saying};

/// When a machine that SWIM tells of, and that did not answer, is asked again.
pub const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How often a node looks whether it has something new to say of itself, at most.
pub const TELL_TIME: Duration = Duration::from_millis(500);

/// Nodes that are asked between two polls to take this one in: while it knows nobody, and then. Each answer names
/// dozens of others.
const JOINS_FIRST: usize = 8;
const JOINS_MORE: usize = 2;
/// Timers of four times that time or more are due at multiples of it.
const GRID: Duration = Duration::from_millis(50);
/// Timers that may run at once: whatever the size, and for each machine that may be known.
const TIMERS_MIN: usize = 256;
const TIMERS_EACH: usize = 8;
/// Machines that one answer may make known. The next polls tell of further ones.
const NEWCOMERS_MAX: usize = 256;

/// Something that is to be done for SWIM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwimErrand {
    /// This datagram goes to that address.
    Send {
        /// Where to.
        to: IpAddr,
        /// All of it.
        datagram: Bytes,
    },
    /// The machine there is to be polled.
    Poll(IpAddr),
    /// It is to be tried whether the machine there refuses connections; if so, [`Swimming::without`] hears of it.
    Try(IpAddr),
    /// Nothing: it is said that strange datagrams made SWIM begin anew.
    BeganAnew,
}

/// What follows from a poll, or a call, that did not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Nothing yet.
    Nothing,
    /// The machine is dead now.
    Died,
    /// It is to be asked again after [`ASK_AGAIN`]: all others wait for what this node finds out.
    AsksAgain,
}

/// See the module.
pub struct Swimming {
    swim: Option<Swim>,
    machines_max: usize,
    /// Timers of SWIM, by the time when they are due, and a number.
    timers: BTreeMap<(Duration, u64), SwimTimer>,
    timer_number: u64,
    /// Nodes that may still be asked to take this one in before the next poll.
    joins_left: usize,
    /// Those that are asked again in a moment: once each, however many calls fail there.
    asking_again: BTreeSet<IpAddr>,
    /// When it was last looked whether there is something to tell of this node.
    told: Option<Duration>,
}

impl Swimming {
    /// Takes no part yet; there will never be more than so many machines.
    pub fn new(machines_max: usize) -> Self {
        Self {
            swim: None,
            machines_max,
            timers: BTreeMap::new(),
            timer_number: 0,
            joins_left: 0,
            asking_again: BTreeSet::new(),
            told: None,
        }
    }

    /// The protocol; `None`: this node takes no part.
    pub fn swim(&self) -> Option<&Swim> {
        self.swim.as_ref()
    }

    /// Takes part under the address `ip`, if it may; to be called before each poll. A generation that is larger than
    /// those before, and chance, are needed where it begins.
    pub fn takes_part(
        &mut self,
        ip: IpAddr,
        generation: u64,
        rng: impl FnOnce() -> Box<dyn Rng>,
        now: Duration,
    ) {
        if self.has_many_timers() {
            return;
        }
        match &mut self.swim {
            Some(swim) => swim.moved(ip, now),
            None => {
                // What the one before was to be woken for is nothing to this one.
                self.timers.clear();
                self.swim = Some(Swim::new(SwimId { ip, generation }, self.machines_max, rng()));
            }
        }
        // Those that it knows then tell the rest.
        let knows_some = self.swim.as_ref().is_some_and(|swim| swim.alive().next().is_some());
        self.joins_left = if knows_some { JOINS_MORE } else { JOINS_FIRST };
    }

    /// Takes no part any more.
    pub fn stop(&mut self) {
        self.swim = None;
    }

    /// The others are to know that this node stops; [`Self::stop`] follows when the errands are done.
    pub fn leave(&mut self, now: Duration) {
        if let Some(swim) = &mut self.swim {
            swim.leave(now);
        }
    }

    /// Asks the machine at `ip`, which speaks our protocol, to take this node in, unless it has done so.
    pub fn join(&mut self, ip: IpAddr, membership: &Membership, now: Duration) {
        let may_ask = self.joins_left > 0 && !membership.is_swimming(ip);
        if let Some(swim) = self.swim.as_mut().filter(|_| may_ask) {
            self.joins_left -= 1;
            swim.join(ip, now);
        }
    }

    /// This node has been among these for long.
    pub fn knows(&mut self, others: &[SwimId], now: Duration) {
        if let Some(swim) = &mut self.swim {
            swim.knows(others, now);
        }
    }

    /// The machine at `ip` is certainly not there: then it is not there for anybody.
    pub fn without(&mut self, ip: IpAddr, now: Duration) {
        if let Some(swim) = &mut self.swim {
            swim.refused(ip, now);
        }
    }

    /// A datagram came from that address.
    ///
    /// # Errors
    /// It is none of SWIM's. Nothing has changed then.
    pub fn hears(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<(), BadDatagram> {
        match &mut self.swim {
            Some(swim) => swim.received(from, datagram, now),
            None => Ok(()),
        }
    }

    /// Timers are due.
    pub fn wakes(&mut self, now: Duration) {
        let Some(swim) = &mut self.swim else { return };
        while let Some(first) = self.timers.first_entry().filter(|first| first.key().0 <= now) {
            swim.woken(first.remove(), now);
        }
    }

    /// When the next timer that cannot wait is due.
    pub fn wakes_at(&mut self) -> Option<Duration> {
        let Some(swim) = &self.swim else {
            self.timers.clear();
            return None;
        };
        let next = self.timers.iter().find(|(_, timer)| !swim.may_wait(timer));
        next.map(|((due, _), _)| *due)
    }

    /// Whether it is time to look whether there is something to say; if so, [`Self::says`] follows.
    pub fn may_say(&mut self, now: Duration) -> bool {
        let rests = self.told.is_some_and(|then| now.saturating_sub(then) < TELL_TIME);
        if !rests {
            self.told = Some(now);
        }
        !rests
    }

    /// What this node is has changed: that is said without rest.
    pub fn has_news(&mut self) {
        self.told = None;
    }

    /// What this node says of itself now; the others are told if it is news. `unix_ms` makes it later than what was
    /// said before a restart.
    pub fn says(
        &mut self,
        about: &NodeDescription,
        load: RecordLoad,
        saying: &Saying,
        now: Duration,
        unix_ms: u64,
    ) {
        if let Some(swim) = &mut self.swim {
            swim.say(about, load, saying, now, unix_ms);
        }
    }

    /// A poll of the machine at `ip`, or a call to it, did not come through.
    pub fn failed(
        &mut self,
        ip: IpAddr,
        membership: &mut Membership,
        now: Duration,
    ) -> AfterFailure {
        if membership.failed(ip) {
            self.without(ip, now);
            return AfterFailure::Died;
        }
        match membership.is_swimming(ip) && self.asking_again.insert(ip) {
            true => AfterFailure::AsksAgain,
            false => AfterFailure::Nothing,
        }
    }

    /// [`ASK_AGAIN`] is over. Whether the machine at `ip` is to be polled.
    pub fn asks_again(&mut self, ip: IpAddr, membership: &mut Membership, at: At) -> bool {
        self.asking_again.remove(&ip);
        membership.due_again(ip, at).is_some()
    }

    /// What is to be done now, in order; `membership` hears who is there.
    pub fn errands(&mut self, membership: &mut Membership, at: At) -> Vec<SwimErrand> {
        let mut errands = Vec::new();
        while let Some(effect) = self.swim.as_mut().and_then(Swim::effect) {
            match effect {
                SwimEffect::Send { to, datagram } => {
                    errands.push(SwimErrand::Send { to, datagram });
                }
                SwimEffect::Wake { after, timer } => {
                    self.timer_number += 1;
                    self.timers.insert((on_grid(at.elapsed, after), self.timer_number), timer);
                }
                SwimEffect::Up(ip) => {
                    errands.extend(membership.swims(ip, at).then_some(SwimErrand::Poll(ip)));
                }
                SwimEffect::Down(ip) => {
                    errands.extend(membership.swims_no_more(ip).then_some(SwimErrand::Poll(ip)));
                }
                SwimEffect::Doubt(ip) => errands.push(SwimErrand::Try(ip)),
            }
        }
        if self.has_many_timers() {
            self.swim = None;
            membership.nobody_swims();
            errands.push(SwimErrand::BeganAnew);
        }
        errands
    }

    /// The machines of the list that are neighbours, as peers, with what they say of themselves.
    pub fn peers(
        &self,
        membership: &Membership,
        is_neighbour: impl Fn(&Machine) -> bool,
    ) -> Vec<Peer> {
        let records = self.swim.as_ref().map(Swim::records);
        let peer = |machine: &Machine| {
            let record = records.as_ref().and_then(|all| all.of(machine.ip)).cloned();
            Peer { record, ..Peer::from(machine) }
        };
        let list = membership.list().into_iter().filter(|machine| is_neighbour(machine));
        list.map(peer).collect()
    }

    /// Grows with everything that may change [`Self::peers`].
    pub fn version(&self, membership: &Membership) -> (u64, u64) {
        (membership.version(), self.swim.as_ref().map_or(0, |swim| swim.records().version()))
    }

    /// Whether more timers run than any cluster of that size needs: whoever sends datagrams could begin
    /// any number of them.
    fn has_many_timers(&self) -> bool {
        self.timers.len() > TIMERS_MIN + TIMERS_EACH * self.machines_max
    }
}

impl Membership {
    /// A machine that was polled spoke of others.
    pub fn told(&mut self, others: impl IntoIterator<Item = (IpAddr, Introduction)>, at: At) {
        let mut newcomers = NEWCOMERS_MAX;
        for (ip, is) in others {
            newcomers -= usize::from(self.hearsay(ip, is, at));
            if newcomers == 0 {
                break;
            }
        }
    }
}

/// When a timer is due that begins now and has that long. The longer ones come on a grid, so that several come at
/// once.
fn on_grid(now: Duration, after: Duration) -> Duration {
    let due = now + after;
    if after < GRID * 4 {
        return due;
    }
    let steps = due.as_nanos().div_ceil(GRID.as_nanos());
    GRID * u32::try_from(steps).unwrap_or(u32::MAX)
}
