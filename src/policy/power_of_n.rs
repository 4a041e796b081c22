//! `PowerOfNScheduler F T loss max_hops`: power-of-n choices with a threshold.
//!
//! A node whose load (running + waiting) is below the threshold T runs the call. Otherwise it
//! draws a fan-out of F distinct peers, asks all for their load, and forwards to the least loaded
//! one, provided that it is strictly less loaded than this node; ties are broken at random. With
//! nobody better the call runs here. A call at `hops ≥ max hops` runs where it is.
//!
//! Source: Beraldi, Proietti Mattia, *Power of random choices made efficient for fog computing*,
//! IEEE Transactions on Cloud Computing 10(2), 2022 (doi 10.1109/TCC.2020.2968443), the protocol with
//! threshold T and fan-out F. v1 draws with repetition and forwards to any peer that is not more
//! loaded; both differ from the publication, which is what stands here.
//!
//! Assumes that a probed load is still about right when the call arrives there. A probe that
//! fails is no candidate. *loss* is kept and shown but changes nothing: the queue decides.

use rand::Rng;
use rand::seq::{IndexedRandom, index};

use super::params::{BadParameters, Params};
use super::{Knowledge, NodeView, Peer, Policy, Probe, Step, Task, max_hops_warning};

/// See the module.
#[derive(Debug, PartialEq)]
pub struct PowerOfNScheduler {
    /// F: peers probed.
    pub fan_out: u32,
    /// T: the load from which a node looks for help.
    pub threshold: u32,
    /// Kept and shown only.
    pub loss: bool,
    /// How often a call may be forwarded in all.
    pub max_hops: u32,
}

impl PowerOfNScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "PowerOfNScheduler";

    /// Reads `F T loss max_hops`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self {
            fan_out: params.u32("fan-out F")?,
            threshold: params.u32("threshold T")?,
            loss: params.bool("loss")?,
            max_hops: params.u32("max hops")?,
        })
    }

    /// The four parameters in their normal form.
    pub(super) fn shown(&self) -> Vec<String> {
        vec![
            self.fan_out.to_string(),
            self.threshold.to_string(),
            self.loss.to_string(),
            self.max_hops.to_string(),
        ]
    }

    /// The peers to ask about a call that found `load` here; `None`: it runs here unasked.
    pub(super) fn to_probe(
        &self,
        task: &Task,
        load: u32,
        peers: &[Peer],
        rng: &mut dyn Rng,
    ) -> Option<Vec<Peer>> {
        if load < self.threshold || task.hops >= self.max_hops {
            return None;
        }
        let n = peers.len().min(self.fan_out as usize);
        let drawn = index::sample(rng, peers.len(), n);
        let drawn: Vec<Peer> = drawn.iter().filter_map(|i| peers.get(i).cloned()).collect();
        (!drawn.is_empty()).then_some(drawn)
    }
}

/// The least loaded of `probes` that is strictly less loaded than `load`, ties broken at random.
pub(super) fn least_loaded(
    probes: &[Probe],
    load: u32,
    heard: &Knowledge,
    rng: &mut dyn Rng,
) -> Option<Peer> {
    let better: Vec<&Probe> =
        probes.iter().filter(|p| p.load.total() < load && !heard.failed(&p.peer.host)).collect();
    let least = better.iter().map(|p| p.load.total()).min()?;
    let ties: Vec<&Peer> =
        better.iter().filter(|p| p.load.total() == least).map(|p| &p.peer).collect();
    ties.choose(rng).map(|peer| (*peer).clone())
}

impl Policy for PowerOfNScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        self.shown()
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        let load = node.load.total();
        match &heard.probes {
            None => {
                self.to_probe(task, load, node.peers, rng).map_or_else(Step::run_here, Step::Probe)
            }
            Some(probes) => {
                least_loaded(probes, load, heard, rng).map_or_else(Step::run_here, Step::forward)
            }
        }
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
    use super::super::{Decision, Load};
    use super::*;
    use std::collections::HashSet;

    fn policy(fan_out: u32, threshold: u32) -> PowerOfNScheduler {
        PowerOfNScheduler { fan_out, threshold, loss: true, max_hops: 1 }
    }

    #[test]
    fn below_the_threshold_a_call_runs_here_unprobed() {
        let peers = peers(3);
        let step =
            policy(2, 3).next(&client(), view(1, 1, &peers), &Knowledge::default(), &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn at_the_threshold_waiting_calls_count_and_f_distinct_peers_are_probed() {
        let peers = peers(5);
        for seed in 0..200 {
            let heard = Knowledge::default();
            let step = policy(3, 2).next(&client(), view(1, 1, &peers), &heard, &mut rng(seed));
            let Step::Probe(drawn) = step else { panic!("expected probes, got {step:?}") };
            let distinct: HashSet<_> = drawn.iter().collect();
            assert_eq!((drawn.len(), distinct.len()), (3, 3));
        }
    }

    #[test]
    fn fewer_peers_than_the_fan_out_are_all_probed_and_none_means_run_here() {
        let peers = peers(2);
        let heard = Knowledge::default();
        let step = policy(9, 0).next(&client(), view(0, 0, &peers), &heard, &mut rng(1));
        assert!(matches!(step, Step::Probe(drawn) if drawn.len() == 2));
        let step = policy(9, 0).next(&client(), view(0, 0, &[]), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn a_call_at_max_hops_runs_here() {
        let peers = peers(2);
        let heard = Knowledge::default();
        let step = policy(1, 0).next(&from_peer(1), view(4, 4, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn it_goes_to_the_least_loaded_of_those_strictly_less_loaded() {
        let peers = peers(3);
        let heard = probed(&[(&peers[0], 2, 0), (&peers[1], 1, 0), (&peers[2], 0, 3)]);
        let step = policy(3, 1).next(&client(), view(2, 1, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::forward(peers[1].clone()));
    }

    #[test]
    fn an_equally_loaded_peer_is_not_better() {
        let peers = peers(1);
        let heard = probed(&[(&peers[0], 2, 1)]);
        let step = policy(1, 1).next(&client(), view(3, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn ties_among_the_least_loaded_are_broken_at_random() {
        let peers = peers(3);
        let heard = probed(&[(&peers[0], 1, 0), (&peers[1], 0, 1), (&peers[2], 2, 0)]);
        let mut chosen = HashSet::new();
        for seed in 0..100 {
            let step = policy(3, 1).next(&client(), view(4, 0, &peers), &heard, &mut rng(seed));
            let Step::Decide(Decision::Forward(peer)) = step else { panic!("{step:?}") };
            chosen.insert(peer);
        }
        assert_eq!(chosen, peers[..2].iter().cloned().collect());
    }

    #[test]
    fn failed_probes_are_no_candidates() {
        let peers = peers(2);
        let step = policy(2, 1).next(&client(), view(4, 4, &peers), &probed(&[]), &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn after_a_peer_could_not_be_connected_to_the_next_best_is_taken() {
        let peers = peers(2);
        let mut heard = probed(&[(&peers[0], 0, 0), (&peers[1], 1, 0)]);
        heard.unreachable.push(peers[0].host.clone());
        let step = policy(2, 1).next(&client(), view(4, 0, &peers[1..]), &heard, &mut rng(1));
        assert_eq!(step, Step::forward(peers[1].clone()));
        heard.unreachable.push(peers[1].host.clone());
        let step = policy(2, 1).next(&client(), view(4, 0, &[]), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn a_load_near_the_integer_limit_does_not_overflow() {
        let full = Load { running: u32::MAX, waiting: 7 };
        assert_eq!(full.total(), u32::MAX);
    }
}
