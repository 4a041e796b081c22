//! `CapScheduler cap F rounds`: no node takes more than it can do in time.
//!
//! A node whose load (running + waiting) is below the cap runs the call. Otherwise it draws F peers that it
//! has not asked about this call yet and asks all of them for their load; the first, in the order of asking,
//! that is below the cap gets the call. If none is, it asks F further ones, up to so many rounds; then the
//! call is rejected:
//!
//! ```text
//! load < cap                              run here
//! else, for round 1 … rounds              forward to the first of F new peers with load < cap
//! else                                    reject
//! ```
//!
//! A peer's call runs here below the cap and is rejected otherwise: the cap holds whatever overtakes the
//! probes, but for calls that two threads of a node decide in the same moment, and those whose chosen peers could not
//! be connected to, which run here. Source: the protocol LL(F, T) of Beraldi and Proietti Mattia (*Power of random choices made efficient
//! for fog computing*, IEEE TCC 10(2), 2022, doi 10.1109/TCC.2020.2968443), with the threshold as a hard limit,
//! probing in rounds as in sequential random search (Eager, Lazowska, Zahorjan, *Adaptive load sharing in
//! homogeneous distributed systems*, IEEE TSE 12(5), 1986: the policy "threshold" with its probe limit).

use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::params::{BadParameters, Params};
use super::{Decision, Knowledge, NodeView, Peer, Policy, Step, Task};

/// See the module.
#[derive(Debug, PartialEq)]
pub struct CapScheduler {
    /// The load from which a node takes no further call; 0: it takes none at all.
    pub cap: u32,
    /// F: peers asked at once.
    pub fan_out: u32,
    /// How often peers are asked at most.
    pub rounds: u32,
}

/// Rounds of probing at most: a call is not to be asked about for ever.
pub(super) const ROUNDS_MAX: usize = 12;

impl CapScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "CapScheduler";

    /// Reads `cap F rounds`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self {
            cap: params.u32("cap")?,
            fan_out: params.u32("fan-out F")?,
            rounds: rounds(params)?,
        })
    }
}

/// Reads how often peers are asked.
pub(super) fn rounds(params: &mut Params<'_>) -> Result<u32, BadParameters> {
    let rounds = params.up_to("rounds", ROUNDS_MAX, "an integer from 0 to 12")?;
    Ok(u32::try_from(rounds).unwrap_or(u32::MAX))
}

/// So many peers at most, drawn at random from those that were not asked about this call.
pub(super) fn new_peers(
    peers: &[Peer],
    heard: &Knowledge,
    fan_out: u32,
    rng: &mut dyn Rng,
) -> Vec<Peer> {
    let is_new = |peer: &&Peer| {
        !heard.asked.iter().any(|host| Arc::ptr_eq(host, &peer.host) || *host == peer.host)
    };
    let new: Vec<&Peer> = peers.iter().filter(is_new).collect();
    new.sample(rng, fan_out as usize).map(|peer| (*peer).clone()).collect()
}

impl Policy for CapScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        [self.cap, self.fan_out, self.rounds].map(|number| number.to_string()).to_vec()
    }

    fn may_forward(&self, task: &Task) -> bool {
        !task.from_peer
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        if node.load.total() < self.cap {
            return Step::run_here();
        }
        let has_room = |probe: &&super::Probe| {
            probe.load.total() < self.cap && !heard.failed(&probe.peer.host)
        };
        if let Some(probe) = heard.probes.iter().flatten().find(has_room) {
            return Step::forward(probe.peer.clone());
        }
        if !task.from_peer && heard.rounds < self.rounds {
            let drawn = new_peers(node.peers, heard, self.fan_out, rng);
            if !drawn.is_empty() {
                return Step::Probe(drawn);
            }
        }
        Step::Decide(Decision::Reject)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::types::Load;

    const POLICY: CapScheduler = CapScheduler { cap: 2, fan_out: 2, rounds: 2 };

    #[test]
    fn below_the_cap_a_call_runs_here_whoever_sent_it() {
        let peers = peers(3);
        for task in [client(), from_peer(1)] {
            let step = POLICY.next(&task, view(1, 0, &peers), &Knowledge::default(), &mut rng(1));
            assert_eq!(step, Step::run_here());
        }
    }

    #[test]
    fn at_the_cap_it_asks_new_peers_round_by_round_and_then_rejects() {
        let peers = peers(5);
        for seed in 0..50 {
            let (mut heard, rng) = (Knowledge::default(), &mut rng(seed));
            for round in 1..=2 {
                let step = POLICY.next(&client(), view(2, 0, &peers), &heard, rng);
                let Step::Probe(drawn) = step else { panic!("{step:?}") };
                assert_eq!(drawn.len(), 2);
                assert!(drawn.iter().all(|peer| !heard.asked.contains(&peer.host)), "new ones");
                let full = Load { running: 1, waiting: 1 };
                let answers = drawn.iter().map(|peer| super::super::Probe::of(peer.clone(), full));
                let answers = answers.collect();
                heard.answered(drawn.into_iter().map(|peer| peer.host).collect(), answers);
                assert_eq!(heard.rounds, round);
            }
            let step = POLICY.next(&client(), view(2, 0, &peers), &heard, rng);
            assert_eq!(step, Step::Decide(Decision::Reject));
        }
    }

    #[test]
    fn the_first_below_the_cap_gets_it_not_the_least_loaded() {
        let peers = peers(3);
        let heard = probed(&[(&peers[0], 2, 0), (&peers[1], 1, 0), (&peers[2], 0, 0)]);
        let step = POLICY.next(&client(), view(2, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::forward(peers[1].clone()));
    }

    #[test]
    fn a_peer_that_could_not_be_reached_is_passed_over_and_further_ones_are_asked() {
        let peers = peers(3);
        let mut heard = probed(&[(&peers[0], 0, 0)]);
        heard.unreachable.push(peers[0].host.clone());
        let step = POLICY.next(&client(), view(2, 0, &peers[1..]), &heard, &mut rng(1));
        assert!(matches!(step, Step::Probe(drawn) if drawn.len() == 2));
    }

    #[test]
    fn a_peers_call_is_rejected_at_the_cap_and_asks_nobody() {
        let peers = peers(3);
        let heard = Knowledge::default();
        let step = POLICY.next(&from_peer(1), view(1, 1, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::Decide(Decision::Reject));
    }
}
