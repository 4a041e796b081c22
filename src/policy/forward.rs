//! `ForwardScheduler max_hops`: blind random forwarding. A call goes to a peer drawn uniformly
//! until it was forwarded *max hops* times, then it runs where it is. No peer: it runs here.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::params::{BadParameters, Params};
use super::{Knowledge, NodeView, Policy, Step, Task, max_hops_warning};

/// See the module.
#[derive(Debug)]
pub struct ForwardScheduler {
    /// How often a call may be forwarded in all.
    pub max_hops: u32,
}

impl ForwardScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "ForwardScheduler";

    /// Reads `max hops`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self { max_hops: params.u32("max hops")? })
    }
}

impl Policy for ForwardScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![self.max_hops.to_string()]
    }

    fn next(&self, task: &Task, node: NodeView<'_>, _: &Knowledge, rng: &mut dyn Rng) -> Step {
        if task.hops >= self.max_hops {
            return Step::run_here();
        }
        node.peers.choose(rng).cloned().map_or_else(Step::run_here, Step::forward)
    }

    fn may_forward(&self, task: &Task) -> bool {
        task.hops < self.max_hops
    }

    fn warning(&self) -> Option<String> {
        max_hops_warning(self.max_hops)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Decision, Peer};
    use super::*;

    fn next(max_hops: u32, task: Task, peers: &[Peer], seed: u64) -> Step {
        let policy = ForwardScheduler { max_hops };
        policy.next(&task, view(0, 0, peers), &Knowledge::default(), &mut rng(seed))
    }

    #[test]
    fn a_call_is_forwarded_until_max_hops_and_then_runs_here() {
        let peers = peers(3);
        assert!(matches!(next(2, client(), &peers, 1), Step::Decide(Decision::Forward(_))));
        assert!(matches!(next(2, from_peer(1), &peers, 1), Step::Decide(Decision::Forward(_))));
        assert_eq!(next(2, from_peer(2), &peers, 1), Step::run_here());
        assert_eq!(next(0, client(), &peers, 1), Step::run_here());
    }

    #[test]
    fn without_a_peer_a_call_runs_here() {
        assert_eq!(next(1, client(), &[], 1), Step::run_here());
    }

    #[test]
    fn every_peer_is_drawn_about_equally_often() {
        let peers = peers(4);
        let mut drawn = [0u32; 4];
        for seed in 0..4000 {
            let Step::Decide(Decision::Forward(peer)) = next(1, client(), &peers, seed) else {
                panic!("there are peers")
            };
            drawn[peers.iter().position(|p| *p == peer).expect("a known peer")] += 1;
        }
        // Binomial(4000, 1/4): mean 1000, standard deviation 27; six of them either way.
        assert!(drawn.iter().all(|n| (836..1164).contains(n)), "{drawn:?}");
    }

    #[test]
    fn more_than_one_hop_comes_with_a_warning() {
        assert!(ForwardScheduler { max_hops: 1 }.warning().is_none());
        assert!(ForwardScheduler { max_hops: 2 }.warning().is_some());
    }
}
