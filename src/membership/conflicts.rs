//! What two machines claim at once. Nobody is hidden for it: both are listed, and it shows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Machine, Membership};
use crate::wire::WireMachine;

/// How long a claim to somebody's address that is not repeated is shown.
pub(super) const CLAIM_SHOWN: Duration = Duration::from_secs(60);

/// What is claimed twice.
enum Conflict {
    /// Another living machine, or this node, has the same name.
    Name,
    /// A machine of another name says that it has this address.
    Address,
}

impl Conflict {
    /// As `GET /list` tells it.
    fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Address => "address",
        }
    }
}

impl Membership {
    /// The machines believed alive, as [`list`](Self::list) has them, with what is claimed twice.
    pub fn listed(&self, now: Duration) -> Vec<WireMachine> {
        let machines = self.list();
        let mut named: BTreeMap<&str, usize> = BTreeMap::new();
        for machine in &machines {
            *named.entry(&machine.is.name).or_default() += 1;
        }
        *named.entry(&self.own_name).or_default() += 1;
        let shown = |machine: &&Machine| {
            let is_shared = !machine.is.name.is_empty()
                && named.get(&*machine.is.name).is_some_and(|count| *count > 1);
            let claimed = machine.claimed.is_some_and(|at| now.saturating_sub(at) < CLAIM_SHOWN);
            let conflict = match (is_shared, claimed) {
                (true, _) => Some(Conflict::Name),
                (false, true) => Some(Conflict::Address),
                (false, false) => None,
            };
            let conflict = conflict.map(|conflict| conflict.label().to_owned());
            WireMachine { conflict, ..WireMachine::from(*machine) }
        };
        machines.iter().map(shown).collect()
    }
}
