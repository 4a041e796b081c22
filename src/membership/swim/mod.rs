//! Who is there, told from node to node by SWIM with suspicion (Das, Gupta, Motivala: *SWIM*, DSN 2002), by
//! the `foca` crate, with what Lifeguard adds (Dadgar, Phillips, Currey, 2018). Core: datagrams and timers come
//! in, effects go out; time and seed are passed in.
//!
//! Each node pings one other at a time, all in turn. Who does not answer is asked for by others, and is then
//! suspected: all hear that, the suspect first, which can say that it is there. After `SUSPECT` it is down.
//!
//! Time-outs follow the round trips that were measured: a node that is far is not a node that is dead. And a
//! node whose own probes fail, while nobody else's do, is slow itself: it waits for longer before it accuses.

mod codec;
mod effects;
mod spread;

use std::cell::{Ref, RefCell};
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use foca::{Foca, Identity, Incarnation, PeriodicParams, State, Timer};
use rand::Rng;

pub use self::codec::{BadDatagram, DATAGRAM_BYTES_MAX};
use self::codec::{DatagramCodec, MAGIC, accusation, named};
use self::effects::Effects;
use self::spread::{SharedRecords, Spread};
use super::records::Records;
use crate::types::{NodeDescription, RecordLoad, Saying, may_be_machine};

/// One other node is pinged in that time, where round trips are short.
pub const PROBE_PERIOD: Duration = Duration::from_millis(250);
/// What an answer to a ping may take before others are asked, where round trips are short.
const PROBE_ANSWER: Duration = Duration::from_millis(60);
/// How long a suspect has to say that it is there.
pub const SUSPECT: Duration = Duration::from_millis(2500);
/// How long it is remembered that a node is down: it is asked now and then, so that what was parted finds
/// itself again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How often one that is down is asked, and one that is alive for all that it knows.
const ASK_DOWN: Duration = Duration::from_secs(1);
const ASK_ALIVE: Duration = Duration::from_secs(10);
/// How often what is new is told beside the pings.
const GOSSIP: Duration = Duration::from_millis(500);
/// How often what is new of records is passed on at once, to a few others.
const RELAY: Duration = Duration::from_millis(100);
/// Larger numbers than any clock gives.
const GENERATION_MAX: u64 = 1 << 60;
/// A node as SWIM knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwimId {
    /// Its address.
    pub ip: IpAddr,
    /// Larger with each start, and after it was taken for dead.
    pub generation: u64,
}

impl Identity for SwimId {
    type Addr = IpAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> IpAddr {
        self.ip
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.generation > other.generation
    }
}

/// Something that is to come back to [`Swim::woken`] later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwimTimer(Due);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    /// A step of the protocol.
    Step(Timer<SwimId>),
    /// A suspect is told, if it still is one.
    Tell(SwimId, Incarnation),
}

/// What is to be done, or has been learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwimEffect {
    /// This datagram goes to that address.
    Send {
        /// Where to.
        to: IpAddr,
        /// All of it.
        datagram: Bytes,
    },
    /// The timer comes back after that time.
    Wake {
        /// After what time.
        after: Duration,
        /// What comes back.
        timer: SwimTimer,
    },
    /// A node is there, or was started again.
    Up(IpAddr),
    /// A node is down, or has left.
    Down(IpAddr),
    /// A node did not answer in time. Others are asked for it now, and its machine may say that it is gone.
    Doubt(IpAddr),
}

type Protocol = Foca<SwimId, DatagramCodec, Box<dyn Rng>, Spread>;

/// See the module.
pub struct Swim {
    foca: Protocol,
    effects: Effects,
    members_max: usize,
    /// When what is new of records may be passed on at once again, and not only beside pings.
    relays_from: Duration,
    /// What nodes know of one another; foca hands it what comes with its datagrams.
    shared: Rc<RefCell<SharedRecords>>,
}

fn config() -> foca::Config {
    let often = |frequency, members| PeriodicParams {
        frequency,
        num_members: NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN),
    };
    foca::Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_ANSWER,
        num_indirect_probes: NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN),
        max_transmissions: NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: SUSPECT,
        remove_down_after: Some(REMEMBERED),
        max_packet_size: NonZeroUsize::new(DATAGRAM_BYTES_MAX - MAGIC.len())
            .unwrap_or(NonZeroUsize::MIN),
        notify_down_members: true,
        periodic_announce: Some(often(ASK_ALIVE, 1)),
        periodic_announce_to_down_members: Some(often(ASK_DOWN, 2)),
        periodic_gossip: Some(often(GOSSIP, 3)),
    }
}

impl Swim {
    /// A node that knows nobody yet, and never more than `members_max`.
    pub fn new(own: SwimId, members_max: usize, rng: Box<dyn Rng>) -> Self {
        let (records, now) = (Records::new(own.ip), Duration::ZERO);
        let shared = Rc::new(RefCell::new(SharedRecords { records, now, news: false }));
        let spread = Spread(Rc::clone(&shared));
        let foca = Foca::with_custom_broadcast(own, config(), rng, DatagramCodec, spread);
        Self {
            foca,
            effects: Effects::new(Rc::clone(&shared)),
            members_max,
            relays_from: Duration::ZERO,
            shared,
        }
    }

    /// What nodes know of one another.
    pub fn records(&self) -> Ref<'_, Records> {
        Ref::map(self.shared.borrow(), |shared| &shared.records)
    }

    /// What this node says of itself now: if it is news, the others are told. `unix_ms` makes it later than
    /// what was said before a restart.
    pub fn say(
        &mut self,
        about: &NodeDescription,
        load: RecordLoad,
        saying: &Saying,
        now: Duration,
        unix_ms: u64,
    ) {
        let said = self.shared.borrow_mut().records.say(about, load, saying, now, unix_ms);
        for item in said {
            // It is short enough.
            let _ = self.foca.add_broadcast(&item);
        }
        self.step(now, |_, _| Ok(()));
    }

    /// The round trip to the node at `ip`, as measured of late.
    pub fn round_trip(&self, ip: IpAddr) -> Option<Duration> {
        self.effects.round_trips.get(&ip).copied()
    }

    /// Who this node is.
    pub fn own(&self) -> SwimId {
        *self.foca.identity()
    }

    /// The nodes that are there, by what is known.
    pub fn alive(&self) -> impl Iterator<Item = IpAddr> {
        self.foca.iter_members().map(|member| member.id().ip)
    }

    /// Asks the node at `ip`, which may or may not take part, to be taken in.
    pub fn join(&mut self, ip: IpAddr, now: Duration) {
        self.step(now, |foca, effects| foca.announce(SwimId { ip, generation: 0 }, effects));
    }

    /// This node has been among these for long.
    pub fn knows(&mut self, others: &[SwimId], now: Duration) {
        let others = others.iter().map(|id| foca::Member::alive(*id));
        self.step(now, |foca, effects| foca.apply_many(others, false, effects));
    }

    /// A datagram came from that address.
    ///
    /// # Errors
    /// It is none, says that somebody else sent it (who is then answered), or names what can be no node, or more
    /// than there is room for. Nothing has changed then.
    pub fn received(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<(), BadDatagram> {
        if Records::is_comparison(datagram) {
            return self.compared(from.to_canonical(), datagram, now);
        }
        let data = datagram.strip_prefix(MAGIC).ok_or(BadDatagram::Meaningless)?;
        let own = Some(self.own().ip);
        let (to, ids) = named(data)?;
        if ids.first().map(|sender| sender.ip) != Some(from.to_canonical()) {
            return Err(BadDatagram::Foreign);
        }
        if ids.iter().any(|id| !may_be_machine(id.ip, own)) {
            return Err(BadDatagram::Meaningless);
        }
        let known = self.foca.iter_membership_state().len();
        if known + ids.len() > self.members_max {
            let is_known = |id: &SwimId| {
                Some(id.ip) == own || self.foca.iter_membership_state().any(|m| m.id().ip == id.ip)
            };
            if !ids.iter().all(is_known) {
                return Err(BadDatagram::Full);
            }
        }
        // A board whose clock was set back: the others know of a later start.
        let later = self.own().generation + 1..GENERATION_MAX;
        if Some(to.ip) == own && later.contains(&to.generation) {
            let next = SwimId { generation: to.generation + 1, ..to };
            self.step(now, |foca, effects| foca.change_identity(next, effects));
        }
        self.step(now, |foca, effects| foca.handle_data(data, effects));
        Ok(())
    }

    /// A datagram that compares records came.
    fn compared(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<(), BadDatagram> {
        let answers = self.shared.borrow_mut().records.compared(from, datagram, now)?;
        let answers = answers.into_iter().map(|datagram| SwimEffect::Send { to: from, datagram });
        self.effects.out.extend(answers);
        self.step(now, |_, _| Ok(()));
        Ok(())
    }

    /// A timer came back.
    pub fn woken(&mut self, timer: SwimTimer, now: Duration) {
        match timer.0 {
            // foca (2.0) would tell one that has refuted the suspicion that it is down.
            Due::Step(Timer::ChangeSuspectToDown { member_id, incarnation, .. })
                if !self.is_suspect(member_id, incarnation) => {}
            Due::Step(timer) => self.step(now, |foca, effects| foca.handle_timer(timer, effects)),
            Due::Tell(id, incarnation) => self.tell(id, Some(incarnation)),
        }
    }

    /// Whether nobody needs to be woken for `timer` alone: the ping whose answer it would miss was answered. It is
    /// to come back with the next one.
    pub fn may_wait(&self, timer: &SwimTimer) -> bool {
        let Due::Step(Timer::SendIndirectProbe { probed_id, .. }) = &timer.0 else { return false };
        !self.effects.pings.keys().any(|(id, _)| id == probed_id)
    }

    fn is_suspect(&self, id: SwimId, incarnation: Incarnation) -> bool {
        self.foca.iter_members().any(|member| {
            let suspected = member.state() == State::Suspect && member.incarnation() == incarnation;
            *member.id() == id && suspected
        })
    }

    /// Tells a suspect that it is one, by a ping whose answer refutes it. (What SWIM says to others in passing
    /// may miss it: others that know better do not hand it on.)
    fn tell(&mut self, id: SwimId, incarnation: Option<Incarnation>) {
        let Some(member) = self.foca.iter_members().find(|member| *member.id() == id) else {
            return;
        };
        let is_meant = incarnation.is_none_or(|incarnation| member.incarnation() == incarnation);
        if member.state() == State::Suspect && is_meant {
            let datagram = accusation(self.own(), member);
            self.effects.out.push_back(SwimEffect::Send { to: id.ip, datagram });
        }
    }

    /// The node at `ip` is certainly not there: its machine says so.
    pub fn refused(&mut self, ip: IpAddr, now: Duration) {
        let found = self.foca.iter_members().find(|member| member.id().ip == ip);
        let Some(id) = found.map(|member| *member.id()) else { return };
        self.effects.slow = self.effects.slow.saturating_sub(1);
        let down = std::iter::once(foca::Member::down(id));
        self.step(now, |foca, effects| foca.apply_many(down, true, effects));
    }

    /// This node has another address now.
    pub fn moved(&mut self, ip: IpAddr, now: Duration) {
        let own = SwimId { ip, ..self.own() };
        if own != self.own() {
            self.shared.borrow_mut().records.moved(ip);
            self.step(now, |foca, effects| foca.change_identity(own, effects));
        }
    }

    /// This node stops: the others are told.
    pub fn leave(&mut self, now: Duration) {
        self.step(now, |foca, effects| foca.leave_cluster(effects));
    }

    /// What is to be done next, and what was learnt, in order.
    pub fn effect(&mut self) -> Option<SwimEffect> {
        self.effects.out.pop_front()
    }

    fn step(
        &mut self,
        now: Duration,
        act: impl FnOnce(&mut Protocol, &mut Effects) -> Result<(), foca::Error>,
    ) {
        self.effects.now = now;
        self.shared.borrow_mut().now = now;
        // What foca refuses has changed nothing: a message from before a restart, or one to somebody else.
        let _ = act(&mut self.foca, &mut self.effects);
        for id in std::mem::take(&mut self.effects.renamed) {
            if self.foca.iter_members().any(|member| *member.id() == id) {
                self.effects.up(id.ip);
            }
        }
        for suspect in std::mem::take(&mut self.effects.suspects) {
            self.tell(suspect, None);
        }
        if std::mem::take(&mut self.effects.urgent) {
            let _ = self.foca.gossip(&mut self.effects);
        }
        if now >= self.relays_from && std::mem::take(&mut self.shared.borrow_mut().news) {
            self.relays_from = now + RELAY;
            let _ = self.foca.broadcast(&mut self.effects);
        }
        let unknown = self.shared.borrow_mut().records.take_unknown();
        let own = Some(self.own().ip);
        for ip in unknown.into_iter().filter(|ip| may_be_machine(*ip, own)) {
            let _ = self.foca.announce(SwimId { ip, generation: 0 }, &mut self.effects);
        }
        let compares = self.shared.borrow_mut().records.compare(now);
        let compares = compares.map(|(to, datagram)| SwimEffect::Send { to, datagram });
        self.effects.out.extend(compares);
    }
}

#[cfg(test)]
mod tests;
