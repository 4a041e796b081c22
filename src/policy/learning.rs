//! `LearningScheduler n`: where a call runs is learnt from how earlier calls fared.
//!
//! The state is the call's task type, then the running calls of each type 0 … n−1, then the waiting
//! ones of each type. The learner chooses an action for it:
//!
//! ```text
//! 0      reject
//! 1      run here
//! 2      probe one random peer, forward to it if it is less loaded than this node, else run here
//! a ≥ 3  forward to the machine at index a − 3 of the list ordered by name
//! ```
//!
//! A peer's call runs here. Source: P2PFaaS (G. Proietti Mattia, R. Beraldi, SoftwareX 21 (2023)
//! 101290), sections 2.1.1 and 2.1.2; how the learner learns stands in [`crate::rl`].
//!
//! Actions that are not possible now are not chosen: those that name a machine that is not there,
//! and probing without peers. A machine that was chosen and cannot be connected to, or a probe that
//! is not answered, means run here.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::params::{BadParameters, Params};
use super::{Decision, Knowledge, LearnerDecision, NodeView, Policy, Question, Step, Task};
use crate::types::TASK_TYPES_MAX;

/// See the module.
#[derive(Debug, PartialEq)]
pub struct LearningScheduler {
    /// n: task types that the state tells apart.
    pub task_types: usize,
}

/// Actions that name no machine.
const NAMELESS: usize = 3;

impl LearningScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "LearningScheduler";

    /// Reads `n`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        let wanted = "an integer from 0 to 256";
        let task_types = params.up_to("number of task types", TASK_TYPES_MAX, wanted)?;
        Ok(Self { task_types })
    }

    fn question(&self, task: &Task, node: NodeView<'_>) -> Question {
        let mut state = Vec::with_capacity(1 + 2 * self.task_types);
        state.push(task.task_type.0);
        let types = || node.by_type.iter().take(self.task_types);
        state.extend(types().map(|load| f64::from(load.running)));
        state.extend(types().map(|load| f64::from(load.waiting)));
        let possible = match node.peers.len() {
            0 => NAMELESS - 1,
            peers => NAMELESS + peers,
        };
        Question { state: state.into(), possible }
    }

    fn carry_out(
        learnt: &LearnerDecision,
        node: NodeView<'_>,
        heard: &Knowledge,
        rng: &mut dyn Rng,
    ) -> Step {
        match (learnt.action, &heard.probes) {
            (0, _) => Step::Decide(Decision::Reject),
            // What was chosen cannot be connected to.
            _ if !heard.unreachable.is_empty() => Step::run_here(),
            (1, _) => Step::run_here(),
            (2, None) => {
                let drawn = node.peers.choose(rng).cloned();
                drawn.map_or_else(Step::run_here, |peer| Step::Probe(vec![peer]))
            }
            (2, Some(probes)) => match probes.first() {
                Some(probe) if probe.load.total() < node.load.total() => {
                    Step::forward(probe.peer.clone())
                }
                _ => Step::run_here(),
            },
            (action, _) => {
                let chosen = node.peers.get(action - NAMELESS).cloned();
                chosen.map_or_else(Step::run_here, Step::forward)
            }
        }
    }
}

impl Policy for LearningScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![self.task_types.to_string()]
    }

    fn learns(&self) -> bool {
        true
    }

    fn may_forward(&self, task: &Task) -> bool {
        !task.from_peer
    }

    fn task_types(&self) -> usize {
        self.task_types
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        match &heard.learnt {
            _ if task.from_peer => Step::run_here(),
            None => Step::Learn(self.question(task, node)),
            Some(learnt) => Self::carry_out(learnt, node, heard, rng),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::types::{Load, TaskType};

    const POLICY: LearningScheduler = LearningScheduler { task_types: 2 };

    fn chose(action: usize) -> Knowledge {
        let learnt = LearnerDecision {
            eid: 1,
            state: [0.0].into(),
            action,
            epsilon: 0.5,
            fallback: false,
            pending: None,
        };
        Knowledge { learnt: Some(learnt), ..Knowledge::default() }
    }

    #[test]
    fn the_state_is_task_type_then_running_then_waiting_per_type() {
        let by_type =
            [Load { running: 3, waiting: 1 }, Load { running: 0, waiting: 2 }, Load::default()];
        let (task, peers) = (Task { task_type: TaskType(1.0), ..client() }, peers(2));
        let node = NodeView { by_type: &by_type, ..view(3, 3, &peers) };
        let step = POLICY.next(&task, node, &Knowledge::default(), &mut rng(1));
        let state = [1.0, 3.0, 0.0, 1.0, 2.0].into();
        assert_eq!(step, Step::Learn(Question { state, possible: 5 }));
    }

    #[test]
    fn without_peers_neither_probing_nor_forwarding_is_possible() {
        let step = POLICY.next(&client(), view(0, 0, &[]), &Knowledge::default(), &mut rng(1));
        assert!(matches!(step, Step::Learn(Question { possible: 2, .. })));
    }

    #[test]
    fn every_action_of_the_contract_is_carried_out() {
        let peers = peers(3);
        let next =
            |heard: &Knowledge| POLICY.next(&client(), view(2, 0, &peers), heard, &mut rng(1));
        assert_eq!(next(&chose(0)), Step::Decide(Decision::Reject));
        assert_eq!(next(&chose(1)), Step::run_here());
        assert!(matches!(next(&chose(2)), Step::Probe(drawn) if drawn.len() == 1));
        for (action, peer) in [(3, &peers[0]), (4, &peers[1]), (5, &peers[2])] {
            assert_eq!(next(&chose(action)), Step::forward(peer.clone()));
        }
        assert_eq!(next(&chose(6)), Step::run_here(), "there is no fourth machine");
    }

    #[test]
    fn a_probed_peer_gets_the_call_only_if_it_is_less_loaded() {
        let peers = peers(1);
        for (running, waiting, forwarded) in [(1, 0, true), (1, 1, false), (0, 3, false)] {
            let probes = probed(&[(&peers[0], running, waiting)]).probes;
            let heard = Knowledge { probes, ..chose(2) };
            let step = POLICY.next(&client(), view(2, 0, &peers), &heard, &mut rng(1));
            let wanted = if forwarded { Step::forward(peers[0].clone()) } else { Step::run_here() };
            assert_eq!(step, wanted);
        }
        let silent = Knowledge { probes: Some(Vec::new()), ..chose(2) };
        let step = POLICY.next(&client(), view(2, 0, &peers), &silent, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn a_machine_that_cannot_be_connected_to_means_run_here_not_its_neighbour() {
        let peers = peers(3);
        let heard = Knowledge { unreachable: vec![peers[0].host.clone()], ..chose(3) };
        let step = POLICY.next(&client(), view(0, 0, &peers[1..]), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn a_peer_s_call_runs_here_and_asks_nobody() {
        let peers = peers(1);
        let step =
            POLICY.next(&from_peer(1), view(9, 9, &peers), &Knowledge::default(), &mut rng(1));
        assert_eq!(step, Step::run_here());
    }
}
