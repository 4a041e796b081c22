//! Init servers by name, and by addresses that are others than their nodes say they have.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::Membership;

/// Other addresses that are remembered; past that they are learnt anew.
const ALIASES_MAX: usize = 1024;

/// Names that are looked up at a time: each takes a thread for as long as the resolver likes.
const LOOKUPS_MAX: usize = 8;

/// Addresses of one name that are asked.
const ADDRESSES_MAX: usize = 64;

/// Where this node itself has answered, another one may answer some day: asked again after this.
const OURSELVES_TIME: Duration = Duration::from_secs(30);

/// What is known of the way to init servers. It can be lost: it is found out again.
#[derive(Default)]
pub(super) struct Joins {
    /// Names that are being looked up. A resolver may take longer than a poll.
    pending: HashSet<String>,
    /// Names that are to be looked up, in turn.
    waiting: VecDeque<String>,
    /// Names that led to nothing when they were last looked up.
    failing: HashSet<String>,
    /// The address that the node at an address says it has, and when it said so.
    aliases: HashMap<IpAddr, (IpAddr, Instant)>,
}

impl Joins {
    /// These names and no others are to be looked up, each unless it is being looked up already.
    pub(super) fn wants(&mut self, names: Vec<String>) {
        self.failing.retain(|name| names.contains(name));
        self.waiting.retain(|name| names.contains(name));
        for name in names {
            if !self.pending.contains(&name) && !self.waiting.contains(&name) {
                self.waiting.push_back(name);
            }
        }
    }

    /// The next name to look up, if one more may be.
    pub(super) fn begin(&mut self) -> Option<String> {
        if self.pending.len() >= LOOKUPS_MAX {
            return None;
        }
        let name = self.waiting.pop_front()?;
        self.pending.insert(name.clone());
        Some(name)
    }

    /// `name` was looked up. Gives its addresses, and says what has changed for the operator.
    pub(super) fn end(
        &mut self,
        name: &str,
        addresses: Result<Vec<IpAddr>, String>,
    ) -> Vec<IpAddr> {
        self.pending.remove(name);
        match addresses {
            Ok(mut addresses) => {
                addresses.truncate(ADDRESSES_MAX);
                if self.failing.remove(name) {
                    let addresses = addresses.len();
                    tracing::info!(name, addresses, "an init server's name has addresses now");
                }
                addresses
            }
            Err(why) => {
                if self.failing.insert(name.to_owned()) {
                    tracing::warn!(name, why, "an init server's name leads to nothing for now");
                }
                Vec::new()
            }
        }
    }

    /// The node at `ip` says that it is at `told`. Gives whether that is new.
    pub(super) fn alias(&mut self, ip: IpAddr, told: IpAddr, now: Instant) -> bool {
        if self.aliases.len() >= ALIASES_MAX {
            self.aliases.clear();
        }
        self.aliases.insert(ip, (told, now)).is_none_or(|(before, _)| before != told)
    }

    /// Where else the node at `told` has answered.
    pub(super) fn aliases_of(&self, told: IpAddr) -> Vec<IpAddr> {
        let same = |(_, (other, _)): &(&IpAddr, &(IpAddr, Instant))| *other == told;
        self.aliases.iter().filter(same).map(|(ip, _)| *ip).collect()
    }

    /// Forgets who answers where.
    pub(super) fn reset(&mut self) {
        self.aliases.clear();
    }

    /// Whether asking `ip` could tell of a node that is not known: not while the one that answered
    /// there is known alive under another address, nor soon after it was this node, at `own`.
    pub(super) fn may_ask(
        &self,
        ip: IpAddr,
        membership: &Membership,
        own: Option<IpAddr>,
        now: Instant,
    ) -> bool {
        self.aliases.get(&ip).is_none_or(|(told, then)| match Some(*told) == own {
            true => now - *then >= OURSELVES_TIME,
            false => membership.alive_at(*told).is_none(),
        })
    }
}
