//! Scheduling algorithms: where a call runs. Core: no IO, no clock, no randomness of its own.
//!
//! A [`Policy`] is a function from what is known about a call to the next [`Step`]. It is asked
//! again with more knowledge until the step is a decision:
//!
//! ```text
//! next(task, node, heard) → Probe(peers)   asked again with heard.probes = Some(loads)
//!                         → Learn(state)   asked again with heard.learnt = Some(action)
//!                         → WaitUntil(t)   asked again when t has passed since the arrival
//!                         → Decide(…)      carried out; if the chosen peer cannot be connected
//!                                          to, asked again without it
//! ```
//!
//! To add an algorithm: one file here with its formula and source, one line in
//! [`registry::ALGORITHMS`], its row in `docs/schedulers.md`. Whoever carries the steps out
//! (`actors::scheduler`, or a simulator) needs no change.

pub mod deciding;
pub mod forward;
pub mod learning;
pub mod no;
pub mod params;
pub mod power_of_n;
pub mod power_of_n_tau;
pub mod registry;
pub mod reject;
pub mod round_robin;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use crate::rl::learner::Snapshot;
use crate::rl::reward::{Pending, RewardSink};
use crate::rl::{Eid, Entry, State};
use crate::types::{Load, Peer, TaskType};

/// The call to be scheduled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Task {
    /// Its service class.
    pub task_type: TaskType,
    /// How often it was forwarded before it came here; 0 for a client's own call.
    pub hops: u32,
    /// Whether another node sent it.
    pub from_peer: bool,
    /// The time that it has left from its arrival here, if it brings a deadline of its own.
    pub deadline: Option<Duration>,
}

/// The node as a policy sees it: a snapshot taken when the call is scheduled.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// What runs and waits here.
    pub load: Load,
    /// The same by task type 0, 1, …, as many as [`Policy::task_types`] asks for.
    pub by_type: &'a [Load],
    /// The number of functions that may run at once.
    pub k: u32,
    /// The machines known alive, ordered by name, then address; never this node itself, never one
    /// that could not be connected to for this call.
    pub peers: &'a [Peer],
}

/// What was learnt about this call since it arrived.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// `None` until peers were probed; then one entry for each that answered.
    pub probes: Option<Vec<Probe>>,
    /// Time since the call arrived at this node.
    pub elapsed: Duration,
    /// Hosts that could not be connected to when this call was to be forwarded to them.
    pub unreachable: Vec<Arc<str>>,
    /// `None` until the learner was asked.
    pub learnt: Option<LearnerDecision>,
}

/// What a policy asks of the learner.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The state to decide in.
    pub state: State,
    /// Only the first so many actions are possible now.
    pub possible: usize,
}

/// The learner's decision on a call.
#[derive(Clone, Debug)]
pub struct LearnerDecision {
    /// Its number.
    pub eid: Eid,
    /// The state it was taken in.
    pub state: State,
    /// What was chosen.
    pub action: usize,
    /// The ε used.
    pub epsilon: f64,
    /// Whether it could not be had from the learner in time and stands in for it: action 1.
    pub fallback: bool,
    /// Where the node itself finds out what it was worth.
    pub pending: Option<Arc<Pending>>,
}

impl LearnerDecision {
    /// The decision number `eid` of a learner as it is in `snapshot`, on `question` about `task`. If the node
    /// rewards itself, `sink` hears what the decision was worth.
    pub fn taken(
        snapshot: &Snapshot,
        eid: Eid,
        question: &Question,
        task: &Task,
        sink: Arc<dyn RewardSink>,
        rng: &mut dyn Rng,
    ) -> Self {
        let choice = snapshot.decide(&question.state, question.possible, rng);
        let state = || Arc::clone(&question.state);
        let deadline = snapshot.running.reward.deadline(task.task_type, task.deadline);
        let pending = deadline.map(|deadline| {
            let entry = Entry { eid, state: state(), action: choice.action, reward: 0.0 };
            Pending::new(entry, task.task_type, snapshot.generation, deadline, sink)
        });
        let (action, epsilon) = (choice.action, choice.epsilon);
        Self { eid, state: state(), action, epsilon, fallback: false, pending }
    }

    /// What stands in for a decision that cannot be had: run here. Without an EID it is number 0.
    pub fn fallback(eid: Option<Eid>, question: Question) -> Self {
        Self {
            eid: eid.unwrap_or_default(),
            state: question.state,
            action: 1,
            epsilon: 0.0,
            fallback: true,
            pending: None,
        }
    }
}

impl Knowledge {
    /// Whether `host` failed this call before.
    pub fn failed(&self, host: &str) -> bool {
        self.unreachable.iter().any(|h| &**h == host)
    }
}

/// A peer's answer to a probe. A probe that failed leaves none: it never counts as load 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Who answered.
    pub peer: Peer,
    /// Its load when it answered.
    pub load: Load,
}

/// What a policy wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Carry this out.
    Decide(Decision),
    /// Ask these peers for their load, all at once, and ask again.
    Probe(Vec<Peer>),
    /// Ask the learner, and ask again with its decision.
    Learn(Question),
    /// Ask again once this much time has passed since the call arrived.
    WaitUntil(Duration),
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Run it on this node; `may_wait` says whether it may stand in line for a slot.
    RunHere {
        /// `false`: refused when no slot is free, whatever the queue's settings.
        may_wait: bool,
    },
    /// Hand it to that peer.
    Forward(Peer),
    /// Reject it deliberately (code 401).
    Reject,
    /// This node takes no such call (code 400).
    Refuse,
}

impl Step {
    /// Run here, waiting for a slot where the queue allows it.
    pub fn run_here() -> Self {
        Self::Decide(Decision::RunHere { may_wait: true })
    }

    /// Forward to `peer`.
    pub fn forward(peer: Peer) -> Self {
        Self::Decide(Decision::Forward(peer))
    }
}

/// A scheduling algorithm with its parameters.
///
/// One value serves all workers of a node at once, so state that outlives a call (a rotation's
/// cursor) is shared and atomic.
pub trait Policy: Send + Sync + 'static {
    /// The algorithm's name, as in `POST /configuration/scheduler`.
    fn name(&self) -> &'static str;

    /// Its parameters in their normal form; parsing them again gives an equal policy.
    fn parameters(&self) -> Vec<String>;

    /// The next step for `task`. Must not block. `rng` is the only source of chance.
    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step;

    /// Name and parameters as clients see them: `PowerOfNScheduler(1, 2, true, 1)`.
    fn full_name(&self) -> String {
        let parameters = self.parameters();
        if parameters.is_empty() {
            return self.name().to_owned();
        }
        format!("{}({})", self.name(), parameters.join(", "))
    }

    /// How many task types it wants the load of, at most [`crate::types::TASK_TYPES_MAX`].
    fn task_types(&self) -> usize {
        0
    }

    /// Whether it asks the learner: then there is something to train and to reward.
    fn learns(&self) -> bool {
        false
    }

    /// The one decision that it takes on every call, if it takes none but that. Where it is to run
    /// calls here, each node is a queue of its own, which the closed forms of queueing theory know.
    fn always(&self) -> Option<Decision> {
        None
    }

    /// Whether a call may be handed to a node that it has passed already. Else such nodes are not among
    /// the peers, so that calls find their way where nodes have few neighbours.
    fn may_return(&self) -> bool {
        false
    }

    /// Whether it may hand such a call to a peer. Where it never does, no peers need to be looked up for it, and it is
    /// shown none.
    fn may_forward(&self, _task: &Task) -> bool {
        self.always().is_none_or(|decision| matches!(decision, Decision::Forward(_)))
    }

    /// What an operator should know before using it with these parameters, if anything.
    fn warning(&self) -> Option<String> {
        None
    }
}

/// The warning of algorithms that forward a call more than once.
fn max_hops_warning(max_hops: u32) -> Option<String> {
    (max_hops > 1).then(|| {
        format!(
            "max hops {max_hops} > 1: nodes of P2PFaaS v1 reset the hop count, so that in a mixed \
             cluster a call can travel further than that"
        )
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    pub(crate) fn rng(seed: u64) -> SmallRng {
        SmallRng::seed_from_u64(seed)
    }

    pub(crate) fn peers(n: usize) -> Vec<Peer> {
        (1..=n)
            .map(|i| Peer { name: format!("n{i}").into(), ..Peer::at(&format!("10.0.0.{i}")) })
            .collect()
    }

    pub(crate) fn view(running: u32, waiting: u32, peers: &[Peer]) -> NodeView<'_> {
        NodeView { load: Load { running, waiting }, by_type: &[], k: 4, peers }
    }

    pub(crate) fn client() -> Task {
        Task::default()
    }

    pub(crate) fn from_peer(hops: u32) -> Task {
        Task { hops, from_peer: true, ..Task::default() }
    }

    pub(crate) fn probed(loads: &[(&Peer, u32, u32)]) -> Knowledge {
        let probe = |&(peer, running, waiting): &(&Peer, u32, u32)| Probe {
            peer: peer.clone(),
            load: Load { running, waiting },
        };
        Knowledge { probes: Some(loads.iter().map(probe).collect()), ..Knowledge::default() }
    }
}
