//! Membership of a simulated node: SWIM, records and polls as in a real one, over the simulated network. What it
//! wants done comes out as errands; the engine brings them to the others.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::agenda::Nanos;
use crate::membership::records::failing;
use crate::membership::swim::SwimId;
use crate::membership::swimming::{AfterFailure, SwimErrand, Swimming};
use crate::membership::{At, Introduction, Membership, Rules};
use crate::types::{NodeDescription, Peer, RecordLoad, Saying};

/// Time between polls, as nodes have it unless they are told otherwise; and so all that follows.
pub(super) const POLL_TIME: Duration = Duration::from_millis(1500);
/// What a poll may take.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// See [`Rules`].
const RULES: Rules = Rules {
    dead_polls_threshold: 3,
    dead_poll_time: Duration::from_secs(30),
    machines_max: MACHINES_MAX,
};
const MACHINES_MAX: usize = 1024;
/// Nodes at most whose membership is simulated: what they say to each other grows with the square of their number.
pub const MEMBERS_MAX: usize = 500;
/// Of all nodes, when they have been together for long.
const FIRST_GENERATION: u64 = 1;
/// Within that time nodes begin to ping each other, and not all at once.
const BEGINNING: Duration = Duration::from_millis(250);

/// What a node answers to a poll.
#[derive(Debug)]
pub(super) struct PollReply {
    is: Introduction,
    knows: Vec<(IpAddr, Introduction)>,
}

/// What nodes send each other so as to know who is there.
#[derive(Debug)]
pub(super) enum Message {
    /// One of SWIM's.
    Datagram(Bytes),
    /// A poll; whether it asks for no more than what the other is.
    Poll(bool),
    /// What came back, and how long the poll took; `None`: nothing.
    Answer(Option<PollReply>, Duration),
    /// A connection, to see whether it is refused.
    Try,
    /// It was refused.
    Refused,
}

/// A message under way. Who was started again after it began does not hear of it.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) from: u32,
    pub(super) to: u32,
    /// Of the node that began it.
    pub(super) start: u32,
    /// When that was.
    pub(super) since: Nanos,
    pub(super) message: Message,
}

/// Messages under way; places are used again.
#[derive(Debug)]
pub(super) struct Places<T> {
    all: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { all: Vec::new(), free: Vec::new() }
    }
}

impl<T> Places<T> {
    pub(super) fn put(&mut self, letter: T) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.all.get_mut(index as usize) {
            *place = Some(letter);
        }
        index
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.all.get(index as usize)?.as_ref()
    }

    pub(super) fn take(&mut self, index: u32) -> Option<T> {
        let letter = self.all.get_mut(index as usize)?.take();
        self.free.extend(letter.is_some().then_some(index));
        letter
    }
}

/// See the module.
pub(super) struct Members {
    own: IpAddr,
    is: Introduction,
    /// Whom it asks whenever it knows nobody else, as nodes are told when they are started.
    init_server: Option<IpAddr>,
    swimming: Swimming,
    membership: Membership,
    rng: SmallRng,
    /// Counts its starts: what was meant for an earlier one is gone.
    pub(super) start: u32,
    /// What it last called itself in SWIM.
    generation: u64,
    /// What the node's list of peers was made of.
    listed: Option<(u64, u64)>,
    /// When it is woken next.
    pub(super) wakes_at: Option<Nanos>,
}

fn at(now: Nanos) -> At {
    let elapsed = Duration::from_nanos(now);
    At { elapsed, unix_s: elapsed.as_secs() }
}

/// Milliseconds of a clock of which the beginning is [`FIRST_GENERATION`].
fn unix_ms(now: Nanos) -> u64 {
    now / 1_000_000 + FIRST_GENERATION
}

impl Members {
    pub(super) fn new(own: IpAddr, name: &str, init_server: Option<IpAddr>, seed: u64) -> Self {
        let is = Introduction { name: name.to_owned(), streams: true, ..Introduction::default() };
        let mut members = Self {
            own,
            is,
            init_server,
            swimming: Swimming::new(MACHINES_MAX),
            membership: Membership::new(RULES, Some(own)),
            rng: SmallRng::seed_from_u64(seed ^ 0x6d65_6d62_6572_7300),
            start: 0,
            generation: 0,
            listed: None,
            wakes_at: None,
        };
        members.membership.set_own_name(name);
        members
    }

    /// When it begins, so that not all begin at once: to ping, and to poll.
    pub(super) fn beginnings(&mut self) -> (Duration, Duration) {
        let pings = BEGINNING.mul_f64(self.rng.random::<f64>());
        (pings, BEGINNING + POLL_TIME.mul_f64(self.rng.random::<f64>()))
    }

    /// It has been with these for long, of which it is one itself.
    pub(super) fn lists(&mut self, all: &[(IpAddr, Introduction)]) {
        for (ip, is) in all.iter().filter(|(ip, _)| *ip != self.own) {
            // Nobody has another's name or address here.
            let _ = self.membership.heartbeat(*ip, is.clone(), at(0));
        }
    }

    /// It takes part in SWIM among these from now on.
    pub(super) fn begins(&mut self, all: &[IpAddr], now: Nanos) {
        self.takes_part(now);
        let others = all.iter().filter(|ip| **ip != self.own);
        let ids: Vec<_> =
            others.map(|ip| SwimId { ip: *ip, generation: FIRST_GENERATION }).collect();
        self.swimming.knows(&ids, Duration::from_nanos(now));
    }

    /// It was killed, and is started again: it knows those that it knew, and has to ask them.
    pub(super) fn starts_again(&mut self, now: Nanos) {
        let known: Vec<_> = self.membership.known().map(|m| (m.ip, m.is.clone())).collect();
        let seed = self.rng.random();
        let (own, init, start) = (self.own, self.init_server, self.start.wrapping_add(1));
        let generation = self.generation;
        *self = Self { start, generation, ..Self::new(own, &self.is.name, init, seed) };
        for (ip, is) in known {
            self.membership.remembered(ip, is, at(now));
        }
    }

    fn takes_part(&mut self, now: Nanos) {
        let seed = self.rng.random();
        if self.swimming.swim().is_none() {
            let by_clock = if self.start == 0 { FIRST_GENERATION } else { unix_ms(now) };
            self.generation = by_clock.max(self.generation + 1);
        }
        let generation = self.generation;
        let rng = || Box::new(SmallRng::seed_from_u64(seed)) as Box<dyn Rng>;
        self.swimming.takes_part(self.own, generation, rng, Duration::from_nanos(now));
    }

    /// Time for polls. Whom to ask.
    pub(super) fn polls(&mut self, load: RecordLoad, saying: &Saying, now: Nanos) -> Vec<IpAddr> {
        self.takes_part(now);
        self.tells(load, saying, now);
        if let Some(ip) = self.init_server {
            self.membership.init_server(ip, at(now));
        }
        self.membership.due(at(now))
    }

    /// Says what is new of this node, if it is time to.
    fn tells(&mut self, load: RecordLoad, saying: &Saying, now: Nanos) {
        let elapsed = Duration::from_nanos(now);
        if self.swimming.may_say(elapsed) {
            let about = NodeDescription { name: self.is.name.clone(), ..Default::default() };
            self.swimming.says(&about, load, saying, elapsed, unix_ms(now));
        }
    }

    /// What is to be done now.
    pub(super) fn errands(&mut self, now: Nanos) -> Vec<SwimErrand> {
        self.swimming.errands(&mut self.membership, at(now))
    }

    /// When SWIM wants to be woken, if that is another time than the one that it was last to be woken at.
    pub(super) fn wants_waking(&mut self) -> Option<Nanos> {
        let next = self.swimming.wakes_at().map(super::engine::nanos);
        let is_news = next != self.wakes_at;
        self.wakes_at = next;
        next.filter(|_| is_news)
    }

    /// SWIM is woken.
    pub(super) fn wakes(&mut self, load: RecordLoad, saying: &Saying, now: Nanos) {
        self.wakes_at = None;
        self.swimming.wakes(Duration::from_nanos(now));
        self.tells(load, saying, now);
    }

    /// A datagram has come.
    pub(super) fn hears(&mut self, from: IpAddr, datagram: &[u8], now: Nanos) {
        // What is refused has changed nothing.
        let _ = self.swimming.hears(from, datagram, Duration::from_nanos(now));
    }

    /// Whether a poll of `ip` is to tell what it is, and no more.
    pub(super) fn is_polled_briefly(&mut self, ip: IpAddr, now: Nanos) -> bool {
        self.membership.is_polled_briefly(ip, at(now))
    }

    /// The node at `ip`, which is that, polls this one.
    pub(super) fn is_polled(
        &mut self,
        ip: IpAddr,
        is: &Introduction,
        briefly: bool,
        now: Nanos,
    ) -> PollReply {
        let _ = self.membership.heartbeat(ip, is.clone(), at(now));
        let knows = match briefly {
            true => Vec::new(),
            false => self.membership.list().into_iter().map(|m| (m.ip, m.is.clone())).collect(),
        };
        PollReply { is: self.is.clone(), knows }
    }

    /// A poll of `ip` has ended.
    pub(super) fn polled(
        &mut self,
        ip: IpAddr,
        answer: Option<PollReply>,
        took: Duration,
        now: Nanos,
    ) -> AfterFailure {
        let Some(answer) = answer else { return self.failed(ip, now) };
        let _ = self.membership.answered(ip, answer.is, took, at(now));
        self.membership.told(answer.knows, at(now));
        self.swimming.join(ip, &self.membership, Duration::from_nanos(now));
        AfterFailure::Nothing
    }

    /// A poll of `ip`, or a call to it, did not come through.
    pub(super) fn failed(&mut self, ip: IpAddr, now: Nanos) -> AfterFailure {
        self.swimming.failed(ip, &mut self.membership, Duration::from_nanos(now))
    }

    /// A call to `ip` found no connection within this node's own deadline: it may be far.
    pub(super) fn waited_in_vain(&mut self, ip: IpAddr, now: Nanos) -> AfterFailure {
        match self.membership.is_swimming(ip) {
            true => AfterFailure::Nothing,
            false => self.failed(ip, now),
        }
    }

    /// The machine at `ip` refuses connections.
    pub(super) fn refused(&mut self, ip: IpAddr, now: Nanos) {
        self.swimming.without(ip, Duration::from_nanos(now));
    }

    /// Whether `ip`, which did not answer, is to be polled again now.
    pub(super) fn asks_again(&mut self, ip: IpAddr, now: Nanos) -> bool {
        self.swimming.asks_again(ip, &mut self.membership, at(now))
    }

    /// Whom to poll at once: those that nobody has asked yet.
    pub(super) fn newcomers(&mut self, now: Nanos) -> Vec<IpAddr> {
        self.membership.due_first(at(now))
    }

    /// Who it is.
    pub(super) fn introduction(&self) -> &Introduction {
        &self.is
    }

    /// Its peers and those of them that fail by their own word, if either has changed.
    pub(super) fn news(
        &mut self,
        is_neighbour: impl Fn(IpAddr) -> bool,
    ) -> Option<(Vec<Peer>, Vec<Arc<str>>)> {
        let version = self.swimming.version(&self.membership);
        if self.listed == Some(version) {
            return None;
        }
        self.listed = Some(version);
        let peers = self.swimming.peers(&self.membership, |machine| is_neighbour(machine.ip));
        let failing = failing(&peers);
        Some((peers, failing))
    }
}
