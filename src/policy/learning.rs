//! `LearningScheduler n [actions [state]]`: where a call runs is learnt from how earlier calls fared.
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
//! These are `reject,here,probe1,peers`. Other actions can be named in their place, in any order; `peers`, if at
//! all, as the last:
//!
//! ```text
//! reject   reject
//! here     run here
//! probeD   probe D random peers, forward to the least loaded if it is less loaded than this node, else run here
//! capC     as CapScheduler C 3 4: run here below a load of C, else find a peer below it, else reject
//! peers    one action for each machine of the list ordered by name: forward to it
//! ```
//!
//! With the state `deadline` (else `load`) the state has one more number at its end: the seconds that the call has
//! until its deadline, 0 where it has none.
//!
//! A peer's call runs here. Source: P2PFaaS (G. Proietti Mattia, R. Beraldi, SoftwareX 21 (2023)
//! 101290), sections 2.1.1 and 2.1.2; how the learner learns stands in [`crate::rl`].
//!
//! Actions that are not possible now are not chosen: those that name a machine that is not there,
//! and probing without peers. A machine that was chosen and cannot be connected to, or a probe that
//! is not answered, means run here.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

use super::cap::{CapScheduler, new_peers};
use super::params::{BadParameters, Params};
use super::power_of_n::least_loaded;
use super::{Decision, Knowledge, LearnerDecision, NodeView, Policy, Question, Step, Task};
use crate::types::TASK_TYPES_MAX;

/// See the module.
#[derive(Debug, PartialEq)]
pub struct LearningScheduler {
    /// n: task types that the state tells apart.
    pub task_types: usize,
    /// The actions that name no machine, in their order.
    actions: Vec<NamedAction>,
    /// Whether each machine is one further action.
    names_peers: bool,
    /// Whether the state has the call's deadline.
    has_deadline: bool,
}

/// What can be done with a call without naming a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum NamedAction {
    Reject,
    Here,
    Probe(u32),
    Cap(u32),
}

/// v1's actions, each machine's aside.
const V1_ACTIONS: [NamedAction; 3] =
    [NamedAction::Reject, NamedAction::Here, NamedAction::Probe(1)];
/// The word for one action for each machine.
const PEERS: &str = "peers";
/// Peers asked at once by `capC`, and how often.
const CAP_FAN_OUT: u32 = 3;
const CAP_ROUNDS: u32 = 4;
/// Peers probed by `probeD` at most, and the largest C of `capC`.
const NUMBER_MAX: u32 = 999;

impl FromStr for NamedAction {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let number = |digits: &str| {
            let number = digits.parse().map_err(drop)?;
            let is_one = !digits.starts_with(['+', '0']) && number <= NUMBER_MAX;
            is_one.then_some(number).ok_or(())
        };
        match word {
            "reject" => Ok(Self::Reject),
            "here" => Ok(Self::Here),
            _ => match (word.strip_prefix("probe"), word.strip_prefix("cap")) {
                (Some(digits), _) => number(digits).map(Self::Probe),
                (None, Some(digits)) => number(digits).map(Self::Cap),
                (None, None) => Err(()),
            },
        }
    }
}

impl fmt::Display for NamedAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reject => f.write_str("reject"),
            Self::Here => f.write_str("here"),
            Self::Probe(peers) => write!(f, "probe{peers}"),
            Self::Cap(cap) => write!(f, "cap{cap}"),
        }
    }
}

impl LearningScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "LearningScheduler";

    /// v1's, with a state that tells so many task types apart.
    pub fn of_v1(task_types: usize) -> Self {
        let actions = V1_ACTIONS.to_vec();
        Self { task_types, actions, names_peers: true, has_deadline: false }
    }

    /// Reads `n [actions [state]]`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        let wanted = "an integer from 0 to 256";
        let mut policy =
            Self::of_v1(params.up_to("number of task types", TASK_TYPES_MAX, wanted)?);
        if !params.has_more() {
            return Ok(policy);
        }
        let words = params.text("actions")?;
        let named = words.strip_suffix(PEERS).map(|rest| rest.strip_suffix(',').unwrap_or(rest));
        policy.names_peers = named.is_some();
        let named = named.unwrap_or(words).split(',').filter(|word| !word.is_empty());
        let actions: Result<Vec<_>, ()> = named.map(str::parse).collect();
        policy.actions = actions.map_err(|()| {
            params.wrong("actions", words, "a list of reject, here, probeD, capC and, last, peers")
        })?;
        if params.has_more() {
            policy.has_deadline = match params.text("state")? {
                "load" => false,
                "deadline" => true,
                other => return Err(params.wrong("state", other, "load or deadline")),
            };
        }
        Ok(policy)
    }

    fn words(&self) -> String {
        let named = self.actions.iter().map(ToString::to_string);
        let peers = self.names_peers.then(|| PEERS.to_owned());
        named.chain(peers).collect::<Vec<_>>().join(",")
    }

    fn question(&self, task: &Task, node: NodeView<'_>) -> Question {
        let mut state = Vec::with_capacity(2 + 2 * self.task_types);
        state.push(task.task_type.0);
        let types = || node.by_type.iter().take(self.task_types);
        state.extend(types().map(|load| f64::from(load.running)));
        state.extend(types().map(|load| f64::from(load.waiting)));
        if self.has_deadline {
            state.push(task.deadline.map_or(0.0, |deadline| deadline.as_secs_f64()));
        }
        let peers = if self.names_peers { node.peers.len() } else { 0 };
        // Without peers there is nobody to probe. Where probing is the last, it is not possible then.
        let in_vain = match self.actions.last() {
            Some(NamedAction::Probe(_)) => usize::from(node.peers.is_empty()),
            _ => 0,
        };
        let possible = self.actions.len() - in_vain + peers;
        // Without such an action there is none that means it; the decision says that it is a fallback.
        let here = self.actions.iter().position(|action| *action == NamedAction::Here);
        Question { state: state.into(), possible, here: here.unwrap_or_default() }
    }

    fn carry_out(
        &self,
        learnt: &LearnerDecision,
        task: &Task,
        node: NodeView<'_>,
        heard: &Knowledge,
        rng: &mut dyn Rng,
    ) -> Step {
        let named = self.actions.get(learnt.action).copied();
        match (named, &heard.probes) {
            // Nothing was learnt about it.
            _ if learnt.fallback => Step::run_here(),
            (Some(NamedAction::Reject), _) => Step::Decide(Decision::Reject),
            (Some(NamedAction::Cap(cap)), _) => {
                let like = CapScheduler { cap, fan_out: CAP_FAN_OUT, rounds: CAP_ROUNDS };
                like.next(task, node, heard, rng)
            }
            // What was chosen cannot be connected to.
            _ if !heard.unreachable.is_empty() => Step::run_here(),
            (Some(NamedAction::Here), _) => Step::run_here(),
            (Some(NamedAction::Probe(count)), None) => {
                let drawn = new_peers(node.peers, heard, count, rng);
                if drawn.is_empty() { Step::run_here() } else { Step::Probe(drawn) }
            }
            (Some(NamedAction::Probe(_)), Some(probes)) => {
                let best = least_loaded(probes, node.load.total(), heard, rng);
                best.map_or_else(Step::run_here, Step::forward)
            }
            (None, _) => {
                let index = learnt.action.checked_sub(self.actions.len());
                let chosen = index.and_then(|index| node.peers.get(index)).cloned();
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
        let mut all = vec![self.task_types.to_string()];
        let is_v1 = self.names_peers && self.actions == V1_ACTIONS;
        // v1 knows the first parameter alone.
        if !is_v1 || self.has_deadline {
            all.push(self.words());
        }
        if self.has_deadline {
            all.push("deadline".to_owned());
        }
        all
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
            Some(learnt) => self.carry_out(learnt, task, node, heard, rng),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::types::{Load, TaskType};

    fn policy() -> LearningScheduler {
        LearningScheduler::of_v1(2)
    }

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
        let step = policy().next(&task, node, &Knowledge::default(), &mut rng(1));
        let state = [1.0, 3.0, 0.0, 1.0, 2.0].into();
        assert_eq!(step, Step::Learn(Question { state, possible: 5, here: 1 }));
    }

    #[test]
    fn without_peers_neither_probing_nor_forwarding_is_possible() {
        let step = policy().next(&client(), view(0, 0, &[]), &Knowledge::default(), &mut rng(1));
        assert!(matches!(step, Step::Learn(Question { possible: 2, .. })));
    }

    #[test]
    fn every_action_of_the_contract_is_carried_out() {
        let peers = peers(3);
        let next =
            |heard: &Knowledge| policy().next(&client(), view(2, 0, &peers), heard, &mut rng(1));
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
            let step = policy().next(&client(), view(2, 0, &peers), &heard, &mut rng(1));
            let wanted = if forwarded { Step::forward(peers[0].clone()) } else { Step::run_here() };
            assert_eq!(step, wanted);
        }
        let silent = Knowledge { probes: Some(Vec::new()), ..chose(2) };
        let step = policy().next(&client(), view(2, 0, &peers), &silent, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn a_machine_that_cannot_be_connected_to_means_run_here_not_its_neighbour() {
        let peers = peers(3);
        let heard = Knowledge { unreachable: vec![peers[0].host.clone()], ..chose(3) };
        let step = policy().next(&client(), view(0, 0, &peers[1..]), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn other_actions_can_be_named_and_the_state_can_have_the_deadline() {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let build = |text: &str| LearningScheduler::parse(&mut Params::new(&words(text)));
        let policy = build("1 reject,probe2,cap2,peers deadline").expect("good");
        assert_eq!(policy.parameters().join(" "), "1 reject,probe2,cap2,peers deadline");
        assert_eq!(build("2 reject,here,probe1,peers load"), Ok(LearningScheduler::of_v1(2)));
        let (peers, deadline) = (peers(4), std::time::Duration::from_millis(250));
        let task = Task { deadline: Some(deadline), ..client() };
        let by_type = [Load { running: 2, waiting: 1 }];
        let node = NodeView { by_type: &by_type, ..view(2, 1, &peers) };
        let next = |heard: &Knowledge| policy.next(&task, node, heard, &mut rng(1));
        let asked =
            Step::Learn(Question { state: [0.0, 2.0, 1.0, 0.25].into(), possible: 7, here: 0 });
        assert_eq!(next(&Knowledge::default()), asked);
        assert_eq!(next(&chose(0)), Step::Decide(Decision::Reject));
        assert!(matches!(next(&chose(1)), Step::Probe(drawn) if drawn.len() == 2));
        assert!(matches!(next(&chose(2)), Step::Probe(drawn) if drawn.len() == 3));
        assert_eq!(next(&chose(3)), Step::forward(peers[0].clone()));
        let mut fallback = chose(0);
        fallback.learnt.as_mut().expect("there").fallback = true;
        assert_eq!(next(&fallback), Step::run_here());
        for wrong in ["2 peers,here", "2 probe", "2 cap0", "2 here2", "2 here time", "2 probe1000"]
        {
            assert!(build(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_peer_s_call_runs_here_and_asks_nobody() {
        let peers = peers(1);
        let step =
            policy().next(&from_peer(1), view(9, 9, &peers), &Knowledge::default(), &mut rng(1));
        assert_eq!(step, Step::run_here());
    }
}
