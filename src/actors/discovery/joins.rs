//! Init servers by name, and by addresses that are others than their nodes say they have.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::Membership;

/// Other addresses that are remembered; past that they are learnt anew.
const ALIASES_MAX: usize = 1024;

/// Where this node itself has answered, another one may answer some day: asked again after this.
const OURSELVES_TIME: Duration = Duration::from_secs(30);

/// What is known of the way to init servers. It can be lost: it is found out again.
#[derive(Default)]
pub(super) struct Joins {
    /// Names that are being looked up. A resolver may take longer than a poll.
    pending: HashSet<String>,
    /// Names that led to nothing when they were last looked up.
    failing: HashSet<String>,
    /// The address that the node at an address says it has, and when it said so.
    aliases: HashMap<IpAddr, (IpAddr, Instant)>,
}

impl Joins {
    /// Whether `name` is to be looked up: it is not being looked up already.
    pub(super) fn begin(&mut self, name: &str) -> bool {
        self.pending.insert(name.to_owned())
    }

    /// `name` was looked up. Gives its addresses, and says what has changed for the operator.
    pub(super) fn end(
        &mut self,
        name: &str,
        addresses: Result<Vec<IpAddr>, String>,
    ) -> Vec<IpAddr> {
        self.pending.remove(name);
        match addresses {
            Ok(addresses) => {
                if self.failing.remove(name) {
                    tracing::info!(name, ?addresses, "an init server's name has addresses now");
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
            false => !membership.is_alive(*told),
        })
    }
}
