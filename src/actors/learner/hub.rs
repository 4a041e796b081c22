//! What the Learner and all who ask it share: the published snapshot, the EIDs, and the rewards on
//! their way from finished calls to training. One per node, shared by all its threads.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::eids::Eids;
use super::{LearnerActor, RewardsWait};
use crate::actors::scheduler::{Advice, Adviser};
use crate::actors::supervise::Handle;
use crate::lock;
use crate::metrics::Metrics;
use crate::policy::{LearnerDecision, Question, Task};
use crate::rl::learner::Snapshot;
use crate::rl::parameters::Compatibility;
use crate::rl::reward::RewardSink;
use crate::rl::stats::{LearnerStats, RewardStats};
use crate::rl::window::entry_bytes;
use crate::rl::{Eid, Entry};
use crate::saved::eids::ReservedEids;
use crate::saved::model_file::ModelFile;
use crate::types::TaskType;

/// Entries that wait to be trained on at most, should the Learner be away; fewer if they take more
/// than their part of the learner's memory.
const WAITING_MAX: usize = 100_000;
/// Calls over which the recent share in time is taken.
const RECENT: usize = 1000;

/// What the node itself found out about its decisions.
#[derive(Default)]
struct Rewards {
    /// With the generation of their decision.
    waiting: Vec<(u64, Entry)>,
    /// Bytes that they take.
    bytes: usize,
    /// For which there was no room in `waiting`.
    dropped: u64,
    recent: VecDeque<bool>,
    recent_in_time: usize,
    by_type: BTreeMap<usize, Tally>,
}

/// How the calls of one task type fared.
#[derive(Clone, Copy, Default)]
struct Tally {
    in_time: u64,
    missed: u64,
}

/// See the module.
pub struct LearnerHub {
    snapshot: ArcSwap<Snapshot>,
    /// The EIDs of this node's decisions.
    pub eids: Arc<Eids>,
    rewards: Mutex<Rewards>,
    /// The decisions that the node rewards itself, or did when it last rewarded any.
    rewarded_here: Mutex<Range<Eid>>,
    /// The Learner actor.
    pub learner: Handle<LearnerActor>,
    /// The model on disk.
    pub model_file: ModelFile,
    /// Held while the model is saved: those that wait for their turn hold no model meanwhile.
    pub saving: tokio::sync::Mutex<()>,
    /// Held while parameters are saved, by whichever incarnation of the actor.
    pub changing: tokio::sync::Mutex<()>,
    /// Whether it was said already that states do not fit.
    unfit_told: AtomicBool,
    /// Threads that began to ask another learner.
    asking: AtomicUsize,
}

impl LearnerHub {
    /// As the Learner begins, with its model in `model_file` and its other files in `data_path`.
    pub fn new(
        snapshot: Snapshot,
        model_file: ModelFile,
        reserved: ReservedEids,
        data_path: &Path,
    ) -> Arc<Self> {
        // What an earlier run decided was rewarded then, or is lost.
        let rewarded_here = if snapshot.running.reward.is_node() { 0..Eid::MAX } else { 0..0 };
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            eids: Eids::after(reserved, data_path),
            rewards: Mutex::default(),
            rewarded_here: Mutex::new(rewarded_here),
            learner: Handle::default(),
            model_file,
            saving: Default::default(),
            changing: Default::default(),
            unfit_told: AtomicBool::new(false),
            asking: AtomicUsize::new(0),
        })
    }

    /// The place of a thread that begins to ask another learner, among `threads` of them.
    pub fn place_among(&self, threads: usize) -> usize {
        self.asking.fetch_add(1, Ordering::Relaxed) % threads.max(1)
    }

    /// The learner as it was last published.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Shows `snapshot` to all who decide.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Whether the node itself rewards the decision `eid`: nobody else may.
    pub fn rewards_itself(&self, eid: Eid) -> bool {
        lock(&self.rewarded_here).contains(&eid)
    }

    /// The node is about to reward its decisions; those taken before are their clients' still.
    pub fn begin_rewarding(&self) {
        *lock(&self.rewarded_here) = self.eids.next()..Eid::MAX;
    }

    /// No further decision is rewarded by the node; those that are under way still are.
    pub fn end_rewarding(&self) {
        lock(&self.rewarded_here).end = self.eids.next();
    }

    /// Whether the value function can tell the state of `question`; says so once if not.
    fn fits(&self, question: &Question) -> bool {
        let fits = self.snapshot.load().check(&question.state);
        if let Err(why) = &fits
            && !self.unfit_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%why, "calls run here: the learner cannot decide on their states");
        }
        fits.is_ok()
    }

    /// The learner's decision number `eid`, on `question` about `task`.
    fn decide(
        self: &Arc<Self>,
        eid: Eid,
        question: &Question,
        task: &Task,
        rng: &mut dyn Rng,
    ) -> LearnerDecision {
        let snapshot = self.snapshot.load();
        LearnerDecision::taken(&snapshot, eid, question, task, Arc::clone(self) as _, rng)
    }

    /// What stands in for a decision that cannot be had.
    pub fn fallback(eid: Option<Eid>, question: Question, metrics: &Metrics) -> LearnerDecision {
        metrics.fallback();
        LearnerDecision::fallback(eid, question)
    }

    /// The entries that wait to be trained on.
    pub fn take_rewards(&self) -> Vec<(u64, Entry)> {
        let mut rewards = lock(&self.rewards);
        rewards.bytes = 0;
        std::mem::take(&mut rewards.waiting)
    }

    /// Starts counting anew.
    pub fn forget_rewards(&self) {
        *lock(&self.rewards) = Rewards::default();
    }

    /// What is counted, of `snapshot` and of the node's own rewards.
    pub fn stats(&self, snapshot: &Snapshot) -> LearnerStats {
        let counters = snapshot.counters;
        let v1 = snapshot.running.compatibility == Compatibility::V1;
        LearnerStats {
            inferences: snapshot.live.inferences(),
            trained_items: counters.trained_items,
            epsilon: snapshot.live.epsilon.get(),
            episodes: counters.windows_trained,
            pending_entries: snapshot.held,
            // v1 looks no further than what it has trained.
            eid_max_seen: if v1 { counters.eid_last_trained } else { counters.eid_max_seen },
            eid_last_trained: counters.eid_last_trained,
            average_reward: snapshot.average_reward,
            mean_abs_delta: counters.mean_abs_delta,
            states_seen: snapshot.values.states_seen(),
            late: counters.late,
            duplicate: counters.duplicate,
            skipped: counters.skipped,
            windows_trained: counters.windows_trained,
            decisions: snapshot.live.by_action().into_iter().enumerate().collect(),
            rewards: self.reward_stats(),
            model_saved_s_ago: self.model_file.saved_ago().map(|ago| ago.as_secs_f64()),
        }
    }

    fn reward_stats(&self) -> RewardStats {
        let rewards = lock(&self.rewards);
        let each = |count: fn(&Tally) -> u64| {
            rewards.by_type.iter().map(|(task_type, tally)| (*task_type, count(tally))).collect()
        };
        let n = rewards.recent.len();
        RewardStats {
            in_time: each(|tally| tally.in_time),
            missed: each(|tally| tally.missed),
            dropped: rewards.dropped,
            recent_share_in_time: (n > 0).then(|| rewards.recent_in_time as f64 / n as f64),
        }
    }
}

impl RewardSink for LearnerHub {
    fn rewarded(&self, generation: u64, task_type: TaskType, entry: Entry) {
        let in_time = entry.reward > 0.0;
        let bytes_max = self.snapshot.load().running.waiting_bytes();
        let first = {
            let mut rewards = lock(&self.rewards);
            // Types that are not told apart are counted as the first.
            let tally = rewards.by_type.entry(task_type.index().unwrap_or(0)).or_default();
            *(if in_time { &mut tally.in_time } else { &mut tally.missed }) += 1;
            rewards.recent.push_back(in_time);
            rewards.recent_in_time += usize::from(in_time);
            if rewards.recent.len() > RECENT {
                let oldest = rewards.recent.pop_front();
                rewards.recent_in_time -= usize::from(oldest == Some(true));
            }
            let bytes = rewards.bytes + entry_bytes(&entry.state);
            if rewards.waiting.len() < WAITING_MAX && bytes <= bytes_max {
                rewards.bytes = bytes;
                rewards.waiting.push((generation, entry));
            } else {
                rewards.dropped += 1;
            }
            rewards.waiting.len() == 1
        };
        if first && let Some(learner) = self.learner.addr() {
            // Only one such message is ever on its way; it must not be dropped.
            learner.do_send(RewardsWait);
        }
    }
}

/// Decides in the process, by what this node's Learner has published.
pub struct LocalLearner {
    learning: Arc<LearnerHub>,
    metrics: Arc<Metrics>,
    /// How long a decision may wait for an EID.
    patience: Duration,
}

impl LocalLearner {
    /// For the current thread.
    pub fn new(learning: Arc<LearnerHub>, metrics: Arc<Metrics>, patience: Duration) -> Rc<Self> {
        Rc::new(Self { learning, metrics, patience })
    }
}

impl Adviser for LocalLearner {
    fn advise(&self, question: Question, task: &Task, rng: &mut dyn Rng) -> Advice {
        let (learning, metrics) = (Arc::clone(&self.learning), Arc::clone(&self.metrics));
        if !learning.fits(&question) {
            return Advice::Now(LearnerHub::fallback(None, question, &metrics));
        }
        if let Some(eid) = learning.eids.take() {
            return Advice::Now(learning.decide(eid, &question, task, rng));
        }
        // The first decision ever, or a disk that is slower than the calls.
        let (task, patience) = (task.clone(), self.patience);
        let mut rng = SmallRng::seed_from_u64(rng.next_u64());
        Advice::Later(Box::pin(async move {
            let eid = tokio::time::timeout(patience, learning.eids.wait()).await.ok().flatten();
            match eid {
                Some(eid) => learning.decide(eid, &question, &task, &mut rng),
                None => LearnerHub::fallback(None, question, &metrics),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::learner::Learner as Core;
    use crate::rl::parameters::Parameters;

    fn hub(snapshot: Snapshot, data_path: &Path) -> Arc<LearnerHub> {
        LearnerHub::new(snapshot, ModelFile::new(data_path), ReservedEids::default(), data_path)
    }

    fn learning(data_path: &Path) -> Arc<LearnerHub> {
        let snapshot = Core::new(Parameters::default()).snapshot();
        hub(snapshot, data_path)
    }

    #[test]
    fn what_waits_while_the_learner_is_away_keeps_to_its_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let small = Parameters { memory_bytes: 1 << 20, ..Parameters::default() };
        let learning = hub(Core::new(small).snapshot(), folder.path());
        let state: crate::rl::State = vec![0.0; 1000].into();
        let room = (1 << 17) / entry_bytes(&state);
        for eid in 0..100 {
            let entry = Entry { eid, state: Arc::clone(&state), action: 0, reward: 0.0 };
            learning.rewarded(0, TaskType(0.0), entry);
        }
        assert_eq!(learning.take_rewards().len(), room);
        assert_eq!(learning.reward_stats().dropped, (100 - room) as u64);
        learning.rewarded(0, TaskType(0.0), Entry { eid: 7, state, action: 0, reward: 0.0 });
        assert_eq!(learning.take_rewards().len(), 1, "there is room again");
    }

    #[test]
    fn the_share_in_time_is_that_of_the_last_thousand() {
        let folder = tempfile::tempdir().expect("a folder");
        let learning = learning(folder.path());
        let entry = |reward| Entry { eid: 1, state: [0.0].into(), action: 0, reward };
        (0..1500).for_each(|_| learning.rewarded(0, TaskType(1.0), entry(0.0)));
        (0..250).for_each(|_| learning.rewarded(0, TaskType(0.0), entry(1.0)));
        let stats = learning.reward_stats();
        assert_eq!(stats.recent_share_in_time, Some(0.25));
        assert_eq!((stats.in_time[&0], stats.missed[&1]), (250, 1500));
        assert_eq!(learning.take_rewards().len(), 1750);
        learning.forget_rewards();
        assert_eq!(learning.reward_stats(), RewardStats::default());
    }
}
