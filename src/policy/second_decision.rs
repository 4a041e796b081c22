//! `SecondDecisionScheduler F T`: power-of-n choices, and whoever is handed a call decides once more.
//!
//! ```text
//! load < T, or forwarded twice already    run here
//! else                                    probe F random peers; the least loaded gets the call if it is less
//!                                         loaded than this node, else it runs here
//! ```
//!
//! The first decision is that of the node that the client called, the second that of the node that is handed the call:
//! what was probed is old by the time the call is there, and others may have found the same node idle. No call comes
//! back to a node that it has passed. It is `PowerOfNScheduler` with the same F and T and 2 as max hops, by the name
//! of its question: what is a second decision worth?
//!
//! Source: that there are two decisions, one on whom to offload to, and one, at the receiver, on whether it accepts, is
//! from Tayel, Proietti Mattia, Beraldi, *A Double-Decision Reinforcement Learning Based Algorithm for Online
//! Scheduling in Edge and Fog Computing*, ALGOCLOUD 2023 (doi 10.1007/978-3-031-49361-4_11). There both are learnt, and
//! the second one brings 4 % more tasks in time on a cluster of Raspberry Pi 4; here both go by the threshold of the
//! protocol LL(F, T) (see [`power_of_n`](super::power_of_n)), so that figure is not this algorithm's.
//!
//! Its own, simulated (20 nodes of 4 slots, no queues, 100 ms one way, calls of 1 s in mean), in calls lost with one
//! decision and with two: at load 0.7, 6.7 % and 5.2 % with F 1 and T 4, 4.8 % and 2.2 % with F 2; at load 0.9, 16.9 %
//! and 14.9 %, and 14.9 % and 12.9 %. With a T below the number of slots nothing is gained (T 2 at load 0.9: 21.2 % and
//! 21.8 %): calls that had a slot travel on.

use rand::Rng;

use super::params::{BadParameters, Params};
use super::power_of_n::PowerOfNScheduler;
use super::{Knowledge, NodeView, Policy, Step, Task};

/// How often a call is decided on, at most, before it runs where it is.
const DECISIONS: u32 = 2;

/// See the module.
#[derive(Debug, PartialEq)]
pub struct SecondDecisionScheduler {
    /// F and T, and the number of decisions.
    each: PowerOfNScheduler,
}

impl SecondDecisionScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "SecondDecisionScheduler";

    /// Reads `F T`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        let (fan_out, threshold) = (params.u32("fan-out F")?, params.u32("threshold T")?);
        Ok(Self { each: PowerOfNScheduler { fan_out, threshold, loss: true, max_hops: DECISIONS } })
    }
}

impl Policy for SecondDecisionScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        [self.each.fan_out, self.each.threshold].map(|number| number.to_string()).to_vec()
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        self.each.next(task, node, heard, rng)
    }

    fn may_forward(&self, task: &Task) -> bool {
        self.each.may_forward(task)
    }

    fn warning(&self) -> Option<String> {
        self.each.warning()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn policy() -> SecondDecisionScheduler {
        let words = ["2".to_owned(), "1".to_owned()];
        SecondDecisionScheduler::parse(&mut Params::new(&words)).expect("good")
    }

    #[test]
    fn below_the_threshold_a_call_runs_here_whoever_sent_it() {
        let peers = peers(3);
        for task in [client(), from_peer(1), from_peer(2)] {
            let heard = Knowledge::default();
            assert_eq!(
                policy().next(&task, view(0, 0, &peers), &heard, &mut rng(1)),
                Step::run_here()
            );
        }
    }

    #[test]
    fn the_receiver_probes_and_forwards_once_more_and_then_it_ends() {
        let peers = peers(3);
        let ask = |task: &Task, heard: &Knowledge| {
            policy().next(task, view(2, 0, &peers), heard, &mut rng(1))
        };
        for task in [client(), from_peer(1)] {
            let step = ask(&task, &Knowledge::default());
            assert!(matches!(step, Step::Probe(drawn) if drawn.len() == 2));
            let step = ask(&task, &probed(&[(&peers[0], 2, 0), (&peers[1], 1, 0)]));
            assert_eq!(step, Step::forward(peers[1].clone()), "strictly less loaded");
            assert!(policy().may_forward(&task));
        }
        assert_eq!(ask(&from_peer(2), &Knowledge::default()), Step::run_here());
        assert!(!policy().may_forward(&from_peer(2)) && !policy().may_return());
    }

    #[test]
    fn it_decides_as_power_of_n_with_two_hops_does() {
        let peers = peers(6);
        let same = PowerOfNScheduler { fan_out: 2, threshold: 1, loss: true, max_hops: 2 };
        for seed in 0..100 {
            let (load, task) = (u32::try_from(seed % 3).unwrap_or(0), from_peer(1));
            let ask = |policy: &dyn Policy| {
                let heard = Knowledge::default();
                policy.next(&task, view(load, 0, &peers), &heard, &mut rng(seed))
            };
            assert_eq!(ask(&policy()), ask(&same));
        }
        assert!(policy().warning().is_some(), "v1 nodes reset the count of hops");
    }
}
