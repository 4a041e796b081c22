//! Scheduling algorithms: where a call runs. Core: no IO, no clock, no randomness of its own.
//!
//! A [`Policy`] is a function from what is known about a call to the next [`Step`]. It is asked
//! again with more knowledge until the step is a decision:
//!
//! ```text
//! next(task, node, heard) → Probe(peers)   asked again with heard.probes = Some(loads)
//!                         → Learn(state)   asked again with heard.learnt = Some(action)
//!                         → Consult(…)     asked again with heard.advised = what a program outside says
//!                         → WaitUntil(t)   asked again when t has passed since the arrival
//!                         → Decide(…)      carried out; if the chosen peer cannot be connected
//!                                          to, asked again without it
//! ```
//!
//! An algorithm may have a memory: it is told what became of each call that it decided
//! ([`Policy::outcome`]), what peers say in their records ([`Policy::hears`]) and in notes
//! ([`Policy::noted`]), and what time it is. What it wants of that it says itself, so that those who want
//! nothing cost nothing.
//!
//! To add an algorithm: one file here with its formula and source, one line in
//! [`registry::ALGORITHMS`], its row in `docs/schedulers.md`. Whoever carries the steps out
//! (`actors::scheduler`, or a simulator) needs no change.

pub mod cap;
pub mod deadline;
pub mod deciding;
pub mod external;
pub mod forward;
pub mod join_idle_queue;
pub mod latency;
pub mod learning;
mod learnt;
pub mod no;
mod outcome;
pub mod params;
pub mod portfolio;
pub mod power_of_n;
pub mod power_of_n_tau;
pub mod prequal;
pub mod registry;
pub mod reject;
pub mod round_robin;
pub mod second_decision;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use self::external::{Advised, Consultation};
pub use self::learnt::{LearnerDecision, Question};
pub use self::outcome::{LineOrder, MARK_BITS, Marks, MemoryFigure, Note, Outcome, OutcomeKind};
use crate::types::{FunctionName, Load, Peer, TaskType};
#[cfg(doc)]
use crate::types::{NOTE_BYTES_MAX, SAYING_BYTES_MAX};

/// The call to be scheduled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Whose call it is.
    pub function: FunctionName,
    /// The bytes of its body; `None`: nobody knows before it has come.
    pub body_bytes: Option<u64>,
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
    /// The node's clock: time since it started.
    pub now: Duration,
    /// What runs and waits here.
    pub load: Load,
    /// The same by task type 0, 1, …, as many as [`Policy::task_types`] asks for.
    pub by_type: &'a [Load],
    /// The number of functions that may run at once.
    pub k: u32,
    /// How many more calls may wait for a slot; 0 where none may.
    pub places: u32,
    /// The machines known alive, ordered by name, then address; never this node itself, never one
    /// that could not be connected to for this call.
    pub peers: &'a [Peer],
}

/// What was learnt about this call since it arrived.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// `None` until peers were probed; then one entry for each that answered, those of later rounds after
    /// those of earlier ones.
    pub probes: Option<Vec<Probe>>,
    /// The hosts of all peers that were probed, in the order in which they were asked.
    pub asked: Vec<Arc<str>>,
    /// How often peers were probed.
    pub rounds: u32,
    /// What [`Policy::mark`] gave for this call.
    pub mark: u64,
    /// Time since the call arrived at this node.
    pub elapsed: Duration,
    /// Hosts that could not be connected to when this call was to be forwarded to them.
    pub unreachable: Vec<Arc<str>>,
    /// `None` until the learner was asked.
    pub learnt: Option<LearnerDecision>,
    /// What a program outside said last; `None` until it was asked.
    pub advised: Option<Advised>,
}

impl Knowledge {
    /// The answers to a further round of probes of `asked` are there.
    pub fn answered(&mut self, asked: Vec<Arc<str>>, answers: Vec<Probe>) {
        self.rounds += 1;
        self.asked.extend(asked);
        self.probes.get_or_insert_default().extend(answers);
    }

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
    /// Its K; `None`: it does not tell, as nodes of v1 do not.
    pub k: Option<u32>,
    /// Its load by task type 0, 1, …, as far as it tells.
    pub by_type: Vec<Load>,
    /// What [`Policy::bid`] of its algorithm says of such a call; `None`: nothing.
    pub bid: Option<f64>,
}

impl Probe {
    /// Of a peer that tells its load and nothing else.
    pub fn of(peer: Peer, load: Load) -> Self {
        Self { peer, load, k: None, by_type: Vec::new(), bid: None }
    }
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
    /// Ask a program outside, and ask again with what it advises.
    Consult(Box<Consultation>),
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

    /// Whether it does better after a while, so that experiments let it warm up.
    fn improves(&self) -> bool {
        self.learns()
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

    /// A mark of its own on a call that comes now, which it finds again in [`Knowledge::mark`] and
    /// [`Outcome::mark`]. It has [`MARK_BITS`] bits; what is above them is found there as well, and is whoever's wraps
    /// this algorithm.
    fn mark(&self, _task: &Task, _now: Duration) -> u64 {
        0
    }

    /// Whether it wants to be told outcomes.
    fn hears_outcomes(&self) -> bool {
        false
    }

    /// What became of a call that it decided. Only calls whose answers leave this node: those of nodes that
    /// are killed have none.
    fn outcome(&self, _outcome: &Outcome<'_>) {}

    /// The URL of the program outside that decides for it, if one does.
    fn program(&self) -> Option<&str> {
        None
    }

    /// What a program outside is to be told although no call asks it. Asked for about once a second.
    fn tells(&self) -> Option<Consultation> {
        None
    }

    /// The order of calls that wait for a slot here, as far as those are concerned that have this mark.
    fn line_order(&self, _mark: u64) -> LineOrder {
        LineOrder::Arrival
    }

    /// What a peer that probes this node about such a call is told beside the load: a number whose meaning is
    /// the algorithm's own. `None`: nothing.
    fn bid(&self, _task: &Task, _node: NodeView<'_>) -> Option<f64> {
        None
    }

    /// Whether it wants to be asked for bids.
    fn bids(&self) -> bool {
        false
    }

    /// Whose bids those are that it makes now: the name of an algorithm. Bids of others mean something else.
    fn bidder(&self) -> &'static str {
        self.name()
    }

    /// Whose bids it wants to hear about a call of that mark.
    fn hears_bids_of(&self, _mark: u64) -> &'static str {
        self.name()
    }

    /// Whether it wants to know when this node becomes idle.
    fn notices_idle(&self) -> bool {
        false
    }

    /// The last call here has ended: nothing runs and none waits, unless one has come since. It may send a note to a
    /// peer.
    fn on_idle(&self, _node: NodeView<'_>, _rng: &mut dyn Rng) -> Option<Note> {
        None
    }

    /// A note has come from the algorithm of the peer at `from`, which is the same as this one.
    fn noted(&self, _from: &str, _text: &[u8], _now: Duration) {}

    /// Whether it says anything in its node's record, and hears what others say.
    fn converses(&self) -> bool {
        false
    }

    /// What it says in its node's record now, at most [`SAYING_BYTES_MAX`] bytes. Asked about once a second.
    fn says(&self, _now: Duration) -> Vec<u8> {
        Vec::new()
    }

    /// What the records of `peers` say now. Told about once a second, before it is asked what it says.
    fn hears(&self, _peers: &[Peer], _now: Duration) {}

    /// What it has learnt, in words and numbers: for whoever looks. `None`: it has no memory worth showing.
    fn memory(&self) -> Option<serde_json::Value> {
        None
    }

    /// The figures of its memory that are worth following over time.
    fn figures(&self) -> Vec<MemoryFigure> {
        Vec::new()
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
            .map(|i| Peer {
                name: format!("n{i}").into(),
                streams: true,
                ..Peer::at(&format!("10.0.0.{i}"))
            })
            .collect()
    }

    pub(crate) fn view(running: u32, waiting: u32, peers: &[Peer]) -> NodeView<'_> {
        NodeView {
            now: Duration::ZERO,
            load: Load { running, waiting },
            by_type: &[],
            k: 4,
            places: 4,
            peers,
        }
    }

    pub(crate) fn client() -> Task {
        Task::default()
    }

    pub(crate) fn from_peer(hops: u32) -> Task {
        Task { hops, from_peer: true, ..Task::default() }
    }

    pub(crate) fn probed(loads: &[(&Peer, u32, u32)]) -> Knowledge {
        let probe = |&(peer, running, waiting): &(&Peer, u32, u32)| {
            Probe::of(peer.clone(), Load { running, waiting })
        };
        let asked = loads.iter().map(|(peer, ..)| Arc::clone(&peer.host)).collect();
        let mut heard = Knowledge::default();
        heard.answered(asked, loads.iter().map(probe).collect());
        heard
    }
}
