//! A call on its way to a decision: the policy is asked until it has decided, with more knowledge each time.
//! Whoever carries out its steps (a node's Scheduler, the simulator) puts into `heard` what came of them.

use std::time::Duration;

use rand::Rng;

use super::{Knowledge, NodeView, Policy, Step, Task};
use crate::types::{Load, Peer};

/// Steps that a policy may ask for about one call; far more than any needs.
const STEPS_MAX: usize = 16;
/// Peers that are tried for one call before it runs here; each costs up to the connection time-out.
pub const FORWARDS_MAX: usize = 3;

/// The node's load as a call found it, so that it is compared with probes of the same moment.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The node's clock when the call arrived.
    pub now: Duration,
    /// What ran and waited.
    pub load: Load,
    /// How many more calls could wait.
    pub places: u32,
    /// The same by task type, as many as [`Policy::task_types`] asks for.
    pub by_type: Vec<Load>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Deciding {
    /// The call.
    pub task: Task,
    /// What is known of it.
    pub heard: Knowledge,
    found: Found,
    steps: usize,
}

impl Deciding {
    /// Of `task`, of which `heard` is known already, and which found that load.
    pub fn new(task: Task, heard: Knowledge, found: Found) -> Self {
        Self { task, heard, found, steps: 0 }
    }

    /// The node as the call found it.
    pub fn view<'a>(&'a self, k: u32, peers: &'a [Peer]) -> NodeView<'a> {
        let Found { now, load, places, by_type } = &self.found;
        let now = *now + self.heard.elapsed;
        NodeView { now, load: *load, by_type, k, places: *places, peers }
    }

    /// The policy's next step, on a node of that `k` with these `peers`; `None`: it has asked for too many already.
    pub fn next(
        &mut self,
        policy: &dyn Policy,
        k: u32,
        peers: &[Peer],
        rng: &mut dyn Rng,
    ) -> Option<Step> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return None;
        }
        let mut ask = |peers| policy.next(&self.task, self.view(k, peers), &self.heard, rng);
        if !policy.may_forward(&self.task) {
            return Some(ask(&[]));
        }
        if self.heard.unreachable.is_empty() {
            return Some(ask(peers));
        }
        let rest: Vec<Peer> =
            peers.iter().filter(|peer| !self.heard.failed(&peer.host)).cloned().collect();
        Some(ask(&rest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Decision, registry::SchedulerSpec};
    use super::*;

    #[test]
    fn peers_that_could_not_be_connected_to_are_not_among_those_that_a_policy_sees() {
        let policy = SchedulerSpec::from_words("ForwardScheduler 1").build().expect("good");
        let peers = peers(2);
        let heard = Knowledge { unreachable: vec![peers[0].host.clone()], ..Knowledge::default() };
        let mut deciding = Deciding::new(client(), heard, Found::default());
        let step = deciding.next(&*policy, 4, &peers, &mut rng(1));
        assert_eq!(step, Some(Step::Decide(Decision::Forward(peers[1].clone()))));
    }

    #[test]
    fn a_policy_that_asks_for_step_after_step_is_cut_off() {
        let policy =
            SchedulerSpec::from_words("PowerOfNScheduler 1 0 true 1").build().expect("good");
        let peers = peers(2);
        let mut deciding = Deciding::new(client(), Knowledge::default(), Found::default());
        // What it asks for is never told.
        let steps = (0..100).map_while(|_| deciding.next(&*policy, 4, &peers, &mut rng(1)));
        assert_eq!(steps.count(), STEPS_MAX);
    }
}
