//! What is asked of the learner, and what it decides.

use std::sync::Arc;

use rand::Rng;

use super::Task;
use crate::rl::learner::Snapshot;
use crate::rl::reward::{Pending, RewardSink};
use crate::rl::{Eid, Entry, State};

/// What a policy asks of the learner.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The state to decide in.
    pub state: State,
    /// Only the first so many actions are possible now.
    pub possible: usize,
    /// The action that stands for running the call here, where none can be had from the learner.
    pub here: usize,
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
    /// Whether it could not be had from the learner in time, and running the call here stands in for it.
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
            action: question.here,
            epsilon: 0.0,
            fallback: true,
            pending: None,
        }
    }
}
