//! Membership rules: which machines are known, which are alive, whom to ask next. Core: no IO;
//! time is passed in.
//!
//! A machine is believed alive because of what *it* does: it called us ([`Membership::heartbeat`])
//! or answered our poll ([`Membership::answered`]). What others say of it
//! ([`Membership::hearsay`]) only makes it worth asking. A poll that fails counts against it
//! ([`Membership::failed`]); at the threshold it is dead, and from then on asked only now and
//! then, so that a healed partition heals the list.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::types::Peer;

/// What the rules are governed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Failed polls in a row after which a machine is dead; at least 1.
    pub dead_polls_threshold: u32,
    /// How often a dead machine is asked; usually many times the poll time.
    pub dead_poll_time: Duration,
    /// Machines held at most; beyond it the longest dead make room, and then nobody new is taken.
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

/// How much is known of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Others speak of it; it has not answered yet. Not listed.
    Hearsay,
    /// It called or answered, or an operator named it.
    Alive,
    /// It failed as many polls in a row as the threshold says. Not listed.
    Dead,
}

/// What a machine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Its name (`machine_id`); may be empty.
    pub name: String,
    /// Its group; may be empty.
    pub group: String,
}

/// A known machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// A number that stays with it while it is known.
    pub id: u64,
    /// Its address.
    pub ip: IpAddr,
    /// What it says of itself.
    pub is: Introduction,
    /// The last poll's round trip.
    pub ping: Duration,
    /// Unix seconds of its last sign of life.
    pub last_update: u64,
    /// Whether it is believed alive.
    pub standing: Standing,
    /// Failed polls in a row.
    pub dead_polls: u32,
    polled: Option<Duration>,
    polling: bool,
}

/// All machines that this node knows, but itself.
#[derive(Debug)]
pub struct Membership {
    rules: Rules,
    own: Option<IpAddr>,
    next_id: u64,
    machines: BTreeMap<IpAddr, Machine>,
    version: u64,
}

impl Membership {
    /// Knows nobody yet.
    pub fn new(rules: Rules, own: Option<IpAddr>) -> Self {
        Self { rules, own, next_id: 1, machines: BTreeMap::new(), version: 0 }
    }

    /// This node's own address changed; a machine at that address was ourselves.
    pub fn set_own(&mut self, own: Option<IpAddr>) {
        self.own = own;
        self.version += 1;
        self.machines.retain(|ip, _| Some(*ip) != own);
    }

    /// An operator named this machine: listed at once, as in v1, until it fails its polls.
    pub fn configured(&mut self, ip: IpAddr, at: At) {
        if !self.machines.contains_key(&ip) {
            self.insert(ip, Introduction::default(), Standing::Alive, at);
        }
    }

    /// Somebody else spoke of this machine. Adds it if it is new; never refreshes or revives it.
    pub fn hearsay(&mut self, ip: IpAddr, is: Introduction, at: At) {
        // A name that is taken is an old address of a machine that has moved; but what is dead may
        // have moved to where others see it now.
        let taken =
            |at: IpAddr| self.machines.get(&at).is_some_and(|m| m.standing != Standing::Dead);
        if !self.machines.contains_key(&ip) && !self.named(&is.name).is_some_and(taken) {
            self.insert(ip, is, Standing::Hearsay, at);
        }
    }

    /// This machine called us.
    pub fn heartbeat(&mut self, ip: IpAddr, is: Introduction, at: At) {
        if Some(ip) == self.own {
            return;
        }
        self.moved_here(ip, &is.name);
        if !self.machines.contains_key(&ip) {
            self.insert(ip, is.clone(), Standing::Alive, at);
        }
        self.alive(ip, is, at);
    }

    /// This machine answered our poll, after `ping`. It may have been forgotten meanwhile.
    pub fn answered(&mut self, ip: IpAddr, is: Introduction, ping: Duration, at: At) {
        let Some(machine) = self.machines.get_mut(&ip) else { return };
        machine.ping = ping;
        machine.polling = false;
        self.moved_here(ip, &is.name);
        self.alive(ip, is, at);
    }

    /// A poll of this machine failed, or a call to it could not be connected. `true`: it died of it.
    pub fn failed(&mut self, ip: IpAddr) -> bool {
        let threshold = self.rules.dead_polls_threshold;
        let Some(machine) = self.machines.get_mut(&ip) else { return false };
        machine.polling = false;
        machine.dead_polls = machine.dead_polls.saturating_add(1);
        let dies = machine.dead_polls >= threshold && machine.standing != Standing::Dead;
        if dies {
            machine.standing = Standing::Dead;
            self.version += 1;
        }
        dies
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
        self.hearsay(ip, Introduction::default(), at);
        let rests = |m: &&mut Machine| m.standing == Standing::Dead && !m.polling;
        if let Some(machine) = self.machines.get_mut(&ip).filter(rests) {
            machine.polled = None;
        }
    }

    /// Whom to ask now: the living and the hearsay at every call, the dead when their time has
    /// come, nobody whose last poll is still under way.
    pub fn due(&mut self, at: At) -> Vec<IpAddr> {
        let rest = self.rules.dead_poll_time;
        let mut due = Vec::new();
        for machine in self.machines.values_mut() {
            let rested = machine.polled.is_none_or(|then| at.elapsed.saturating_sub(then) >= rest);
            if !machine.polling && (machine.standing != Standing::Dead || rested) {
                machine.polling = true;
                machine.polled = Some(at.elapsed);
                due.push(machine.ip);
            }
        }
        due
    }

    /// Whom to ask now without waiting for the next poll: those that nobody has asked yet.
    pub fn due_first(&mut self, at: At) -> Vec<IpAddr> {
        let mut due = Vec::new();
        for machine in self.machines.values_mut().filter(|m| m.polled.is_none() && !m.polling) {
            (machine.polling, machine.polled) = (true, Some(at.elapsed));
            due.push(machine.ip);
        }
        due
    }

    /// Whoever polled is gone and will not report, and the clock may begin anew: everybody can be
    /// asked again.
    pub fn forget_polls(&mut self) {
        for machine in self.machines.values_mut() {
            (machine.polling, machine.polled) = (false, None);
        }
    }

    /// The machines believed alive, ordered bytewise by name, then by address as text.
    pub fn list(&self) -> Vec<&Machine> {
        let mut alive: Vec<_> =
            self.machines.values().filter(|m| m.standing == Standing::Alive).collect();
        alive.sort_by_cached_key(|m| (m.is.name.clone(), m.ip.to_string()));
        alive
    }

    /// [`list`](Self::list) as places to send calls to, in the same order.
    pub fn peers(&self) -> Vec<Peer> {
        let peer =
            |m: &&Machine| Peer { host: m.ip.to_string().into(), name: m.is.name.as_str().into() };
        self.list().iter().map(peer).collect()
    }

    /// Grows with every change of who is known, under what name, and in what standing.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the machine at `ip` is believed alive.
    pub fn is_alive(&self, ip: IpAddr) -> bool {
        self.machines.get(&ip).is_some_and(|m| m.standing == Standing::Alive)
    }

    /// All machines, whatever their standing.
    pub fn known(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values()
    }

    /// How many machines have this standing.
    pub fn count(&self, standing: Standing) -> usize {
        self.machines.values().filter(|m| m.standing == standing).count()
    }

    fn named(&self, name: &str) -> Option<IpAddr> {
        let same = |m: &&Machine| !name.is_empty() && m.is.name == name;
        self.machines.values().find(same).map(|m| m.ip)
    }

    /// A machine known by this name at another address has moved here: it keeps its number.
    fn moved_here(&mut self, ip: IpAddr, name: &str) {
        let Some(old) = self.named(name).filter(|old| *old != ip) else { return };
        let Some(machine) = self.machines.remove(&old) else { return };
        self.version += 1;
        self.machines.entry(ip).or_insert(Machine { ip, polling: false, ..machine });
    }

    fn alive(&mut self, ip: IpAddr, is: Introduction, at: At) {
        let Some(machine) = self.machines.get_mut(&ip) else { return };
        if machine.is != is || machine.standing != Standing::Alive {
            self.version += 1;
        }
        machine.is = is;
        machine.standing = Standing::Alive;
        machine.dead_polls = 0;
        machine.last_update = at.unix_s;
    }

    fn insert(&mut self, ip: IpAddr, is: Introduction, standing: Standing, at: At) {
        if Some(ip) == self.own || ip.is_unspecified() || ip.is_multicast() || !self.make_room() {
            return;
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
        };
        self.next_id += 1;
        self.version += 1;
        self.machines.insert(ip, machine);
    }

    /// Whether there is a place for one more, made at the cost of the longest dead if need be.
    fn make_room(&mut self) -> bool {
        if self.machines.len() < self.rules.machines_max {
            return true;
        }
        let dead = self.machines.values().filter(|m| m.standing == Standing::Dead);
        let Some(oldest) = dead.min_by_key(|m| m.last_update).map(|m| m.ip) else { return false };
        self.machines.remove(&oldest).is_some()
    }
}

#[cfg(test)]
mod tests;
