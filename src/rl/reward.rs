//! Rewards: what a decision was worth. Clients tell it (`"client"`), or the node finds out itself
//! (`"node"`): 1 for an answer 2xx within the deadline of the call, else 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::types::TaskType;

/// Who tells what a decision was worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase", deny_unknown_fields)]
pub enum RewardRule {
    /// Clients, by training.
    #[default]
    Client,
    /// The node, by the deadline of each task type.
    Node {
        /// Seconds from arrival, for task type 0, 1, …; types beyond the list have the last one.
        deadlines_s: Vec<f64>,
    },
}

/// Deadlines at most.
const DEADLINES_MAX: usize = 256;

impl RewardRule {
    /// Whether it can be used.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let Self::Node { deadlines_s } = self else { return Ok(()) };
        if deadlines_s.is_empty() || deadlines_s.len() > DEADLINES_MAX {
            return Err(format!(
                "deadlines_s has {} entries, it must have 1 to {DEADLINES_MAX}",
                deadlines_s.len()
            ));
        }
        match deadlines_s.iter().find(|s| !(**s > 0.0 && **s <= 86400.0)) {
            Some(s) => Err(format!("deadlines_s: {s} is not above 0 and at most 86400")),
            None => Ok(()),
        }
    }

    /// Whether the node rewards its own decisions.
    pub fn is_node(&self) -> bool {
        matches!(self, Self::Node { .. })
    }

    /// The deadline of a call of that type, `own` if it brings one; `None`: clients reward.
    pub fn deadline(&self, task_type: TaskType, own: Option<Duration>) -> Option<Duration> {
        let Self::Node { deadlines_s } = self else { return None };
        // A cast saturates: what is below 0 is type 0.
        let of_type = deadlines_s.get(task_type.0 as usize).or(deadlines_s.last());
        own.or(of_type.map(|s| Duration::try_from_secs_f64(*s).unwrap_or(Duration::MAX)))
    }
}

/// Takes what decisions were worth.
pub trait RewardSink: Send + Sync {
    /// The entry of a decision on a task of that type, taken in that generation of the learner.
    fn rewarded(&self, generation: u64, task_type: TaskType, entry: Entry);
}

/// A decision whose reward the node finds out. Yields exactly one entry, when the last clone of
/// its [`Arc`] is dropped: whatever is not told to be in time, because it was rejected, failed,
/// took too long or lost its client, is worth 0.
pub struct Pending {
    /// Its reward is filled in at the end.
    entry: Option<Entry>,
    task_type: TaskType,
    generation: u64,
    deadline: Duration,
    in_time: AtomicBool,
    sink: Arc<dyn RewardSink>,
}

impl Pending {
    /// Of the decision that `entry` tells, its reward aside; the call has until `deadline` after
    /// its arrival.
    pub fn new(
        entry: Entry,
        task_type: TaskType,
        generation: u64,
        deadline: Duration,
        sink: Arc<dyn RewardSink>,
    ) -> Arc<Self> {
        let (entry, in_time) = (Some(entry), AtomicBool::new(false));
        Arc::new(Self { entry, task_type, generation, deadline, in_time, sink })
    }

    /// The call was answered as it should, so long after its arrival.
    pub fn answered(&self, took: Duration) {
        self.in_time.store(took <= self.deadline, Ordering::Release);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let reward = if self.in_time.load(Ordering::Acquire) { 1.0 } else { 0.0 };
        if let Some(entry) = self.entry.take() {
            self.sink.rewarded(self.generation, self.task_type, Entry { reward, ..entry });
        }
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("entry", &self.entry).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(u64, Entry)>>);

    impl RewardSink for Kept {
        fn rewarded(&self, generation: u64, task_type: TaskType, entry: Entry) {
            assert_eq!(task_type, TaskType(1.0));
            self.0.lock().expect("whole").push((generation, entry));
        }
    }

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn every_decision_yields_one_entry_worth_1_only_if_answered_in_time() {
        let sink = Arc::new(Kept::default());
        let pending = |eid| {
            let entry = Entry { eid, state: [1.0].into(), action: 0, reward: 0.5 };
            Pending::new(entry, TaskType(1.0), 7, seconds(0.3), Arc::clone(&sink) as _)
        };
        pending(1).answered(seconds(0.3));
        pending(2).answered(seconds(0.31));
        let (forgotten, cloned) = (pending(3), pending(4));
        drop(forgotten);
        let clone = Arc::clone(&cloned);
        cloned.answered(seconds(0.1));
        drop(cloned);
        assert_eq!(sink.0.lock().expect("whole").len(), 3, "the clone still holds the fourth");
        drop(clone);
        let kept = sink.0.lock().expect("whole");
        let rewards: Vec<_> = kept.iter().map(|(g, entry)| (*g, entry.eid, entry.reward)).collect();
        assert_eq!(rewards, [(7, 1, 1.0), (7, 2, 0.0), (7, 3, 0.0), (7, 4, 1.0)]);
    }

    #[test]
    fn a_calls_own_deadline_goes_before_that_of_its_type() {
        let rule = RewardRule::Node { deadlines_s: vec![0.1, 0.2] };
        let of = |t| rule.deadline(TaskType(t), None);
        assert_eq!([of(0.0), of(1.0), of(1.5)], [0.1, 0.2, 0.2].map(|s| Some(seconds(s))));
        assert_eq!([of(-3.0), of(9.0)], [0.1, 0.2].map(|s| Some(seconds(s))));
        assert_eq!(rule.deadline(TaskType(0.0), Some(seconds(5.0))), Some(seconds(5.0)));
        assert_eq!(RewardRule::Client.deadline(TaskType(0.0), Some(seconds(5.0))), None);
    }

    #[test]
    fn deadlines_are_checked() {
        let node = |deadlines_s: &[f64]| RewardRule::Node { deadlines_s: deadlines_s.to_vec() };
        assert!(node(&[0.3, 2.0]).check().is_ok() && RewardRule::Client.check().is_ok());
        for bad in [&[][..], &[0.0], &[1.0, -1.0], &[f64::INFINITY], &[1.0; 300]] {
            assert!(node(bad).check().is_err(), "{bad:?}");
        }
    }
}
