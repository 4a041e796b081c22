//! Membership rules: which machines are known, which are alive, whom to ask next. Core: no IO;
//! time is passed in.
//!
//! Nodes of this program tell each other who is there by [`swim`], and are polled only to learn what they
//! are, and now and then whether they can be reached; the rules here are for all machines alike.
//!
//! A machine is believed alive because of what *it* does: it called us ([`Membership::heartbeat`])
//! or answered our poll ([`Membership::answered`]). What others say of it
//! ([`Membership::hearsay`]) only makes it worth asking. A poll that fails counts against it
//! ([`Membership::failed`]); at the threshold it is dead, and from then on asked only now and
//! then, so that a healed partition heals the list.
//!
//! Whoever reaches a node can say anything, so what is said is bounded: an address must be one that
//! a machine can have ([`may_be_machine`]), a name belongs to the living machine that has it, and of
//! those that are only heard of a few are asked at a time ([`UNKNOWN_ASKED_MAX`]).

mod conflicts;
mod machine;
mod polling;
pub mod records;
pub mod swim;
pub mod swimming;
pub mod topology;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use self::machine::{FAR_STEP, coarse};
pub use self::machine::{Introduction, Machine, Standing};
use crate::types::may_be_machine;

/// Machines that are only heard of and are asked between two polls without an answer, at most: the
/// lists of others name addresses as they like, and this node is not to scan networks for them.
pub const UNKNOWN_ASKED_MAX: usize = 64;

/// What the rules are governed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Failed polls in a row after which a machine is dead; at least 1.
    pub dead_polls_threshold: u32,
    /// How often a dead machine is asked; usually many times the poll time.
    pub dead_poll_time: Duration,
    /// Machines held at most. Beyond it those only heard of and then the longest dead make room for
    /// a sign of life, and half of the dead for what is only heard of; then nobody new is taken.
    pub machines_max: usize,
}

/// An instant as the rules need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Monotonic time since any fixed start.
    pub elapsed: Duration,
    /// Seconds since the Unix epoch, for `last_update`.
    pub unix_s: u64,
}

/// All machines that this node knows, but itself.
#[derive(Debug)]
pub struct Membership {
    rules: Rules,
    own: Option<IpAddr>,
    own_name: String,
    next_id: u64,
    machines: BTreeMap<IpAddr, Machine>,
    version: u64,
    /// How many that are only heard of may still be asked before the next poll.
    unknown_left: usize,
    /// When one of those that SWIM tells of was last polled, and which turn that was since 1970.
    checked: Option<(Duration, u64)>,
}

impl Membership {
    /// Knows nobody yet.
    pub fn new(rules: Rules, own: Option<IpAddr>) -> Self {
        let (machines, unknown_left) = (BTreeMap::new(), UNKNOWN_ASKED_MAX);
        Self {
            rules,
            own,
            own_name: String::new(),
            next_id: 1,
            machines,
            version: 0,
            unknown_left,
            checked: None,
        }
    }

    /// This node's own address changed; a machine at that address was ourselves, and those on
    /// loopback are none any more once the node is elsewhere.
    pub fn set_own(&mut self, own: Option<IpAddr>) {
        self.own = own;
        self.version += 1;
        self.machines.retain(|ip, _| Some(*ip) != own && may_be_machine(*ip, own));
    }

    /// This node's own name, which another machine may have as well.
    pub fn set_own_name(&mut self, name: &str) {
        name.clone_into(&mut self.own_name);
    }

    /// An operator named this machine: listed at once, as in v1, until it fails its polls.
    pub fn configured(&mut self, ip: IpAddr, at: At) {
        if !self.machines.contains_key(&ip) {
            self.insert(ip, Introduction::default(), Standing::Alive, at);
        }
        if let Some(machine) = self.machines.get_mut(&ip) {
            machine.proven = true;
        }
    }

    /// Somebody else spoke of this machine. Adds it if it is new, and tells whether it did; never
    /// refreshes or revives it.
    pub fn hearsay(&mut self, ip: IpAddr, is: Introduction, at: At) -> bool {
        if self.machines.contains_key(&ip) || !is.fits() || !self.has_room(Standing::Hearsay) {
            return false;
        }
        // A name that is taken is an old address of a machine that has moved; but what is dead may
        // have moved to where others see it now.
        let taken = |m: &Machine| m.standing != Standing::Dead;
        if self.others_named(ip, &is.name).any(taken) {
            return false;
        }
        self.insert(ip, is, Standing::Hearsay, at)
    }

    /// A machine that this node knew when it last ran: as [`hearsay`](Self::hearsay), but it stays
    /// known if it does not answer.
    pub fn remembered(&mut self, ip: IpAddr, is: Introduction, at: At) {
        self.hearsay(ip, is, at);
        if let Some(machine) = self.machines.get_mut(&ip) {
            machine.proven = true;
        }
    }

    /// This machine called us. Gives the other living machine that has its name, or this node's own address if
    /// that is who has it, if that is news.
    pub fn heartbeat(&mut self, ip: IpAddr, is: Introduction, at: At) -> Option<IpAddr> {
        if !is.fits() {
            return None;
        }
        if !self.machines.contains_key(&ip) {
            self.insert(ip, is.clone(), Standing::Alive, at);
        }
        let known = self.machines.get_mut(&ip)?;
        if is.tls_port.is_some() {
            // Only members say it, of themselves.
            known.is.tls_port = is.tls_port;
        }
        if is.streams && known.standing != Standing::Alive && known.dead_polls > 0 {
            // That it reaches this node does not say that it can be reached: it is asked, at once.
            known.polled = known.polled.filter(|_| known.polling);
            return None;
        }
        // Anybody can call in its name; what it says of itself it is asked at every poll.
        let is = match known.named_itself {
            true => {
                known.is_claimed_by(is.name, at.elapsed);
                known.is.clone()
            }
            false => is,
        };
        self.alive(ip, is, at)
    }

    /// This machine answered our poll, after `ping`. It may have been forgotten meanwhile. Gives
    /// what [`heartbeat`](Self::heartbeat) gives, or `ip` if it is news that a machine of another name says
    /// that it has this address.
    pub fn answered(
        &mut self,
        ip: IpAddr,
        is: Introduction,
        ping: Duration,
        at: At,
    ) -> Option<IpAddr> {
        let machine = self.machines.get_mut(&ip)?;
        if !machine.proven {
            // It was worth asking.
            self.unknown_left = (self.unknown_left + 1).min(UNKNOWN_ASKED_MAX);
        }
        machine.ping = ping;
        machine.polling = false;
        let far = coarse(ping);
        // Longer at once; shorter only where it is so beyond doubt.
        if far > machine.far || far + FAR_STEP < machine.far {
            machine.far = far;
            self.version += 1;
        }
        machine.named_itself = !is.name.is_empty();
        let claimed = machine.claim_was_wrong(&is.name, at.elapsed);
        self.alive(ip, is, at).or(claimed.then_some(ip))
    }

    /// A poll of this machine failed, or a call to it could not be connected. `true`: it died of it.
    /// One that was only heard of is forgotten instead.
    pub fn failed(&mut self, ip: IpAddr) -> bool {
        let threshold = self.rules.dead_polls_threshold;
        let Some(machine) = self.machines.get_mut(&ip) else { return false };
        machine.polling = false;
        machine.dead_polls = machine.dead_polls.saturating_add(1);
        let dies = machine.dead_polls >= threshold && machine.standing != Standing::Dead;
        if dies && machine.swims && machine.standing == Standing::Hearsay {
            // It is there, but cannot be reached: not yet.
            return false;
        }
        if dies && !machine.proven {
            self.forget(ip);
            return false;
        }
        if dies {
            machine.standing = Standing::Dead;
            self.version += 1;
        }
        dies
    }

    /// The machine at `ip` says that it stops. Gives whether it was believed alive.
    pub fn left(&mut self, ip: IpAddr) -> bool {
        let threshold = self.rules.dead_polls_threshold;
        let Some(machine) = self.machines.get_mut(&ip) else { return false };
        // This was its answer.
        machine.polling = false;
        if machine.standing != Standing::Alive {
            return false;
        }
        (machine.standing, machine.dead_polls) = (Standing::Dead, threshold);
        self.version += 1;
        true
    }

    /// SWIM says that the machine at `ip` is there. Gives whether it is to be asked what it is.
    pub fn swims(&mut self, ip: IpAddr, at: At) -> bool {
        if !self.machines.contains_key(&ip) {
            self.insert(ip, Introduction::default(), Standing::Hearsay, at);
        }
        let Some(machine) = self.machines.get_mut(&ip) else { return false };
        machine.swims = true;
        machine.standing != Standing::Alive
    }

    /// SWIM says that the machine at `ip` is not there any more. Datagrams may be lost on a way that
    /// connections find, so it has one more poll: gives whether it is to be asked at once.
    pub fn swims_no_more(&mut self, ip: IpAddr) -> bool {
        let threshold = self.rules.dead_polls_threshold;
        let Some(machine) = self.machines.get_mut(&ip) else { return false };
        machine.swims = false;
        machine.dead_polls = machine.dead_polls.max(threshold.saturating_sub(1));
        machine.standing == Standing::Alive
    }

    /// SWIM says nothing any more: machines are polled.
    pub fn nobody_swims(&mut self) {
        self.machines.values_mut().for_each(|machine| machine.swims = false);
    }

    /// Whether SWIM says that the machine at `ip` is there.
    pub fn is_swimming(&self, ip: IpAddr) -> bool {
        self.machines.get(&ip).is_some_and(|machine| machine.swims)
    }

    /// Whether the machine at `ip` was alive once, or an operator named it.
    pub fn is_proven(&self, ip: IpAddr) -> bool {
        self.machines.get(&ip).is_some_and(|machine| machine.proven)
    }

    /// The machine that answered at `ip` is this node itself under another address.
    pub fn forget(&mut self, ip: IpAddr) {
        self.machines.remove(&ip);
        self.version += 1;
    }

    /// Forgets all machines.
    pub fn reset(&mut self) {
        self.version += 1;
        self.machines.clear();
    }

    /// An init server: as [`hearsay`](Self::hearsay), but worth asking at every poll even when it is
    /// dead, so that a node that was cut off is back as soon as the network is.
    pub fn init_server(&mut self, ip: IpAddr, at: At) {
        // An operator's word: those only heard of make room.
        if !self.machines.contains_key(&ip) && self.make_room(Standing::Alive, false) {
            self.insert(ip, Introduction::default(), Standing::Hearsay, at);
        }
        let Some(machine) = self.machines.get_mut(&ip) else { return };
        machine.proven = true;
        if machine.standing == Standing::Dead && !machine.polling {
            machine.polled = None;
        }
    }

    /// The machines believed alive, ordered bytewise by name, then by address as text.
    pub fn list(&self) -> Vec<&Machine> {
        let mut alive: Vec<_> =
            self.machines.values().filter(|m| m.standing == Standing::Alive).collect();
        alive.sort_by_cached_key(|m| (m.is.name.clone(), m.ip.to_string()));
        alive
    }

    /// Grows with every change of who is known, under what name, and in what standing.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the machine at `ip` is, if it is believed alive.
    pub fn alive_at(&self, ip: IpAddr) -> Option<&Introduction> {
        self.machines.get(&ip).filter(|m| m.standing == Standing::Alive).map(|m| &m.is)
    }

    /// Where the machine at `ip` said that it answers members of its cluster by TLS.
    pub fn tls_port_of(&self, ip: IpAddr) -> Option<u16> {
        self.machines.get(&ip)?.is.tls_port
    }

    /// All machines that have been alive or that an operator named, whatever their standing.
    pub fn known(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(|m| m.proven)
    }

    /// How many machines have this standing.
    pub fn count(&self, standing: Standing) -> usize {
        self.machines.values().filter(|m| m.standing == standing).count()
    }

    /// The machines of this name at other addresses than `ip`; nobody shares the empty name.
    fn others_named<'a>(
        &'a self,
        ip: IpAddr,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Machine> + use<'a> {
        let same = move |m: &&Machine| !name.is_empty() && m.ip != ip && m.is.name == name;
        self.machines.values().filter(same)
    }

    /// The machine at `ip` gave a sign of life under that name. If a dead one had the name, it has
    /// moved here: it keeps its number. A living one keeps its name and its place; gives its address
    /// when that is news.
    fn alive(&mut self, ip: IpAddr, is: Introduction, at: At) -> Option<IpAddr> {
        let first = |standing| {
            let mut others = self.others_named(ip, &is.name);
            others.find(|m| m.standing == standing).map(|m| (m.ip, m.id))
        };
        let is_own = !is.name.is_empty() && is.name == self.own_name;
        let own = self.own.filter(|_| is_own);
        let holder = first(Standing::Alive).map(|(ip, _)| ip).or(own);
        let moved = first(Standing::Dead).filter(|_| holder.is_none());
        if let Some((old, _)) = moved {
            self.forget(old);
        }
        let machine = self.machines.get_mut(&ip)?;
        let changed = machine.is != is || machine.standing != Standing::Alive || !machine.proven;
        if let Some((_, id)) = moved {
            machine.id = id;
        }
        machine.is = is;
        machine.standing = Standing::Alive;
        machine.proven = true;
        machine.dead_polls = 0;
        machine.last_update = at.unix_s;
        self.version += u64::from(changed);
        holder.filter(|_| changed)
    }

    /// Takes a machine in that is not known yet. `false`: there is no such machine, or no place.
    fn insert(&mut self, ip: IpAddr, is: Introduction, standing: Standing, at: At) -> bool {
        let may_be = Some(ip) != self.own && may_be_machine(ip, self.own);
        if !may_be || !self.make_room(standing, is.tls_port.is_some()) {
            return false;
        }
        let machine = Machine {
            id: self.next_id,
            ip,
            is,
            ping: Duration::ZERO,
            last_update: at.unix_s,
            standing,
            dead_polls: 0,
            polled: None,
            polling: false,
            proven: false,
            named_itself: false,
            claim: None,
            claimed: None,
            listed: None,
            swims: false,
            far: Duration::ZERO,
        };
        self.next_id += 1;
        self.version += 1;
        self.machines.insert(ip, machine);
        true
    }

    fn has_room(&self, standing: Standing) -> bool {
        self.machines.len() < self.rules.machines_max || self.gives_way(standing, false).is_some()
    }

    /// Whether there is a place for one more of that standing, made if need be.
    fn make_room(&mut self, standing: Standing, is_member: bool) -> bool {
        if self.machines.len() < self.rules.machines_max {
            return true;
        }
        self.gives_way(standing, is_member).is_some_and(|ip| self.machines.remove(&ip).is_some())
    }

    /// Who makes room for a newcomer of that standing: never the living, but for members of a cluster with a key
    /// those that are spoken to in the clear.
    fn gives_way(&self, newcomer: Standing, is_member: bool) -> Option<IpAddr> {
        let all = || self.machines.values();
        let in_the_clear = || all().filter(|m| is_member && m.is.tls_port.is_none());
        let heard_of = all().filter(|m| !m.proven && m.standing == Standing::Hearsay);
        let dead = all().filter(|m| m.standing == Standing::Dead);
        let oldest_dead = dead.min_by_key(|m| m.last_update);
        let gives_way = match newcomer {
            Standing::Alive => {
                let heard_of = heard_of.min_by_key(|m| m.id);
                heard_of.or(oldest_dead).or_else(|| in_the_clear().min_by_key(|m| m.id))
            }
            // What others speak of drives out no more than half of what was once alive.
            _ => oldest_dead.filter(|_| self.count(Standing::Dead) * 2 > self.rules.machines_max),
        };
        gives_way.map(|m| m.ip)
    }
}

#[cfg(test)]
mod tests;
