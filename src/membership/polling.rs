//! Whom to ask, and when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::{At, Machine, Membership, Standing, UNKNOWN_ASKED_MAX};

/// Machines that speak our protocol and that SWIM does not tell of, polled at once.
pub(super) const TURN_MAX: usize = 16;
/// How often a machine that speaks our protocol is asked for its list where SWIM does not reach it.
const LIST_TIME: Duration = Duration::from_secs(30);
/// How often one of the machines that SWIM tells of is polled: whether it can be reached, and what it is.
const CHECK_TIME: Duration = Duration::from_secs(3);

impl Membership {
    /// Whom to ask now: the living and the hearsay at every call, the dead when their time has
    /// come, nobody whose last poll is still under way; of those only heard of no more than
    /// [`UNKNOWN_ASKED_MAX`], the longest known first.
    pub fn due(&mut self, at: At) -> Vec<IpAddr> {
        let under_way = self.machines.values().filter(|m| !m.proven && m.polling).count();
        self.unknown_left = UNKNOWN_ASKED_MAX.saturating_sub(under_way);
        let rest = self.rules.dead_poll_time;
        let checked = self.check(at);
        let turn = self.turn();
        self.take_due(at, |m| {
            let rested = m.polled.is_none_or(|then| at.elapsed.saturating_sub(then) >= rest);
            match m.standing {
                Standing::Alive if m.swims => m.dead_polls > 0 || Some(m.ip) == checked,
                Standing::Dead => rested || m.swims,
                Standing::Alive if m.is.streams => m.dead_polls > 0 || turn.contains(&m.ip),
                Standing::Alive | Standing::Hearsay => true,
            }
        })
    }

    /// Whose turn it is of those that speak our protocol and that SWIM does not tell of, or not yet: a few at a
    /// time, or a hundred nodes that begin at once would have no time for anything else.
    fn turn(&self) -> BTreeSet<IpAddr> {
        let is_one = |m: &&Machine| m.standing == Standing::Alive && m.is.streams && !m.swims;
        let mut all: Vec<_> = self.machines.values().filter(is_one).collect();
        all.sort_by_key(|m| (m.polled, Some(m.ip) < self.own, m.ip));
        all.iter().take(TURN_MAX).map(|m| m.ip).collect()
    }

    /// Whose turn it is of those that SWIM tells of: they are polled one by one. Nodes that know the same machines,
    /// and the same time more or less, take turns so that each is polled by exactly one other.
    fn check(&mut self, at: At) -> Option<IpAddr> {
        let mut turn = at.unix_s / CHECK_TIME.as_secs();
        if let Some((then, last)) = self.checked {
            if at.elapsed.saturating_sub(then) < CHECK_TIME {
                return None;
            }
            turn = turn.max(last + 1);
        }
        self.checked = Some((at.elapsed, turn));
        let swims = self.machines.values().filter(|m| m.swims && m.standing == Standing::Alive);
        let all: Vec<IpAddr> = swims.map(|m| m.ip).collect();
        // The node itself has a place in the order, too, but no turn.
        let place = all.partition_point(|ip| Some(*ip) < self.own) as u64;
        let count = all.len() as u64;
        let next = (place + turn.checked_rem(count)?) % count;
        all.get(usize::try_from(next).ok()?).copied()
    }

    /// Whom to ask now without waiting for the next poll: those that nobody has asked yet.
    pub fn due_first(&mut self, at: At) -> Vec<IpAddr> {
        self.take_due(at, |m| m.polled.is_none())
    }

    /// The machine at `ip`, if it has failed its last poll, is still believed alive, and nobody asks it already.
    pub fn due_again(&mut self, ip: IpAddr, at: At) -> Option<IpAddr> {
        let fails = |m: &&mut Machine| m.swims && m.standing == Standing::Alive && m.dead_polls > 0;
        let machine = self.machines.get_mut(&ip).filter(fails).filter(|m| !m.polling)?;
        (machine.polling, machine.polled) = (true, Some(at.elapsed));
        Some(ip)
    }

    fn take_due(&mut self, at: At, is_due: impl Fn(&Machine) -> bool) -> Vec<IpAddr> {
        let (mut due, mut unknown) = (Vec::new(), Vec::new());
        for machine in self.machines.values().filter(|m| !m.polling && is_due(m)) {
            match machine.proven {
                true => due.push(machine.ip),
                false => unknown.push((machine.polled, machine.id, machine.ip)),
            }
        }
        unknown.sort_unstable();
        unknown.truncate(self.unknown_left);
        self.unknown_left -= unknown.len();
        due.extend(unknown.into_iter().map(|(.., ip)| ip));
        for ip in &due {
            if let Some(machine) = self.machines.get_mut(ip) {
                (machine.polling, machine.polled) = (true, Some(at.elapsed));
            }
        }
        due
    }

    /// Whoever polled is gone and will not report, and the clock may begin anew: everybody can be
    /// asked again.
    pub fn forget_polls(&mut self) {
        self.checked = None;
        for machine in self.machines.values_mut() {
            (machine.polling, machine.polled, machine.swims) = (false, None, false);
            machine.listed = None;
        }
    }

    /// Whether a poll of the machine at `ip` is to tell what it is and no more: SWIM tells who else is there, or
    /// nodes that speak our protocol tell it when they join. Else its list is taken to be asked for now.
    pub fn is_polled_briefly(&mut self, ip: IpAddr, at: At) -> bool {
        let Some(machine) = self.machines.get_mut(&ip) else { return false };
        let rested = |then: Duration| at.elapsed.saturating_sub(then) >= LIST_TIME;
        let briefly = machine.swims || (machine.is.streams && !machine.listed.is_none_or(rested));
        if !briefly {
            machine.listed = Some(at.elapsed);
        }
        briefly
    }
}
