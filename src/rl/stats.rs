//! What a learner tells of itself, in `/learner/stats` and in the metrics.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Eid;

/// What was counted of the node's own rewards since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RewardStats {
    /// Answered 2xx within their deadline, by task type.
    pub in_time: BTreeMap<usize, u64>,
    /// All others, by task type.
    pub missed: BTreeMap<usize, u64>,
    /// Those that were not trained on: the Learner was away for too long.
    pub dropped: u64,
    /// The share in time of the last 1000; none yet: null.
    pub recent_share_in_time: Option<f64>,
}

/// `GET /learner/stats`: v1's keys first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LearnerStats {
    /// Decisions taken.
    pub inferences: u64,
    /// Entries trained, each once.
    pub trained_items: u64,
    /// ε.
    pub epsilon: f64,
    /// Windows trained, by v1's name.
    pub episodes: u64,
    /// Entries held for reordering.
    pub pending_entries: usize,
    /// The largest EID that came.
    pub eid_max_seen: Eid,
    /// The EID of the entry trained last.
    pub eid_last_trained: Eid,
    /// R̄.
    pub average_reward: f64,
    /// |δ|, averaged with weight 1/1000 for the newest.
    pub mean_abs_delta: f64,
    /// States that training has seen.
    pub states_seen: usize,
    /// Entries that came after their turn.
    pub late: u64,
    /// Entries whose EID was held already.
    pub duplicate: u64,
    /// EIDs given up.
    pub skipped: u64,
    /// Windows trained.
    pub windows_trained: u64,
    /// Decisions on this node's calls and of its API, by action.
    pub decisions: BTreeMap<usize, u64>,
    /// What the node itself found out.
    pub rewards: RewardStats,
    /// Seconds since the model on disk was written; null: there is none.
    pub model_saved_s_ago: Option<f64>,
}
