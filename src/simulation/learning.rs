//! A simulated node's learner: the real one, with what reaches it when.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rand::Rng;

use super::world::{LearningSetup, Rewarding};
use crate::lock;
use crate::policy::{LearnerDecision, Question, Task};
use crate::rl::learner::{Learner, Snapshot};
use crate::rl::reward::RewardSink;
use crate::rl::{Eid, Entry};
use crate::types::TaskType;

/// What a node's own rewards have come to.
#[derive(Default)]
struct OwnRewards(Mutex<Vec<(u64, Entry)>>);

impl RewardSink for OwnRewards {
    fn rewarded(&self, generation: u64, _: TaskType, entry: Entry) {
        lock(&self.0).push((generation, entry));
    }
}

/// See the module.
pub(super) struct SimLearner {
    learner: Learner,
    snapshot: Snapshot,
    next_eid: Eid,
    rewarding: Rewarding,
    /// The client's entries that are not sent yet, and those on their way.
    batch: Vec<Entry>,
    on_their_way: VecDeque<Vec<Entry>>,
    own: Arc<OwnRewards>,
}

impl SimLearner {
    pub(super) fn new(setup: &LearningSetup) -> Self {
        let learner = Learner::new(setup.parameters.clone());
        Self {
            snapshot: learner.snapshot(),
            learner,
            next_eid: 1,
            rewarding: setup.rewarding.clone(),
            batch: Vec::new(),
            on_their_way: VecDeque::new(),
            own: Arc::default(),
        }
    }

    /// Decides; where the value function cannot tell the state, the call runs here.
    pub(super) fn decide(
        &mut self,
        question: Question,
        task: &Task,
        rng: &mut dyn Rng,
    ) -> LearnerDecision {
        let eid = self.next_eid;
        if self.snapshot.check(&question.state).is_err() {
            return LearnerDecision::fallback(None, question);
        }
        self.next_eid += 1;
        let sink = Arc::clone(&self.own) as _;
        LearnerDecision::taken(&self.snapshot, eid, &question, task, sink, rng)
    }

    /// A client knows what came of a decision on a task of that type: answered well, after so many seconds.
    /// Whether a batch is full.
    pub(super) fn hears(
        &mut self,
        learnt: &LearnerDecision,
        task_type: u32,
        answered_s: Option<f64>,
    ) -> bool {
        let Rewarding::Client { deadlines_s, batch } = &self.rewarding else { return false };
        let limit = deadlines_s.get(task_type as usize).or(deadlines_s.last());
        let met = answered_s.is_some_and(|took| limit.is_none_or(|limit| took <= *limit));
        self.batch.push(Entry {
            eid: learnt.eid,
            state: Arc::clone(&learnt.state),
            action: learnt.action,
            reward: f64::from(u8::from(met)),
        });
        self.batch.len() >= *batch
    }

    /// Whether entries come from clients.
    pub(super) fn hears_clients(&self) -> bool {
        matches!(self.rewarding, Rewarding::Client { .. })
    }

    /// What there is of a batch goes on its way; whether there was anything.
    pub(super) fn send(&mut self) -> bool {
        let batch = std::mem::take(&mut self.batch);
        let is_some = !batch.is_empty();
        if is_some {
            self.on_their_way.push_back(batch);
        }
        is_some
    }

    /// The batch that was sent first has come.
    pub(super) fn takes_batch(&mut self) {
        let given = self.next_eid;
        for entry in self.on_their_way.pop_front().unwrap_or_default() {
            if self.learner.check_told(entry.eid, entry.reward, given).is_ok() {
                self.take(entry);
            }
        }
        self.publish();
    }

    /// What the node has rewarded itself.
    pub(super) fn takes_own(&mut self) {
        let rewarded = std::mem::take(&mut *lock(&self.own.0));
        if rewarded.is_empty() {
            return;
        }
        for (generation, entry) in rewarded {
            if generation == self.learner.generation() {
                self.take(entry);
            }
        }
        self.publish();
    }

    fn take(&mut self, entry: Entry) {
        let Entry { eid, state, action, reward } = entry;
        // What does not fit teaches nothing, as in a node.
        if let Ok(entry) = self.learner.check(eid, state, action as f64, reward) {
            self.learner.take(entry);
        }
    }

    fn publish(&mut self) {
        self.snapshot = self.learner.snapshot();
        // In a node on another thread; here it takes no time.
        if let Some((number, job)) = self.learner.job() {
            self.learner.job_done(number, job());
        }
    }
}
