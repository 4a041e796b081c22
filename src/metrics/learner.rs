//! The learner's own figures.

use prometheus::{Gauge, IntGaugeVec, Opts, Registry};

use super::register;
use crate::rl::stats::LearnerStats;

/// The learner's own figures, set when they are asked for. They start anew with a reset.
pub(super) struct LearnerMetrics {
    epsilon: Gauge,
    average_reward: Gauge,
    mean_abs_delta: Gauge,
    share_in_time: Gauge,
    counts: IntGaugeVec,
    decisions: IntGaugeVec,
    rewarded: IntGaugeVec,
}

impl LearnerMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge =
            |name: &str, help: &str| register(registry, Gauge::with_opts(Opts::new(name, help)));
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        Self {
            epsilon: gauge("p2pfaas_learner_epsilon", "The exploration rate"),
            average_reward: gauge("p2pfaas_learner_average_reward", "The average reward"),
            mean_abs_delta: gauge(
                "p2pfaas_learner_mean_abs_delta",
                "The TD error's magnitude, averaged with weight 1/1000 for the newest",
            ),
            share_in_time: gauge(
                "p2pfaas_learner_share_in_time",
                "Of the last 1000 calls that the node rewarded, those within their deadline",
            ),
            counts: labelled(
                "p2pfaas_learner_count",
                "What the learner has: states seen, entries held, trained, late, duplicate, EIDs \
                 skipped, windows trained, decisions taken",
                &["what"],
            ),
            decisions: labelled("p2pfaas_learner_decisions", "Decisions by action", &["action"]),
            rewarded: labelled(
                "p2pfaas_learner_rewarded",
                "Decisions that the node rewarded, by task type and whether in time",
                &["task_type", "in_time"],
            ),
        }
    }

    pub(super) fn set(&self, stats: &LearnerStats) {
        self.epsilon.set(stats.epsilon);
        self.average_reward.set(stats.average_reward);
        self.mean_abs_delta.set(stats.mean_abs_delta);
        self.share_in_time.set(stats.rewards.recent_share_in_time.unwrap_or(0.0));
        for (what, count) in [
            ("states_seen", stats.states_seen as u64),
            ("entries_held", stats.pending_entries as u64),
            ("entries_trained", stats.trained_items),
            ("late", stats.late),
            ("duplicate", stats.duplicate),
            ("skipped", stats.skipped),
            ("windows_trained", stats.windows_trained),
            ("decisions", stats.inferences),
        ] {
            self.counts.with_label_values(&[what]).set(as_gauge(count));
        }
        self.decisions.reset();
        for (action, count) in &stats.decisions {
            self.decisions.with_label_values(&[&action.to_string()]).set(as_gauge(*count));
        }
        self.rewarded.reset();
        for (in_time, by_type) in
            [("true", &stats.rewards.in_time), ("false", &stats.rewards.missed)]
        {
            for (task_type, count) in by_type {
                let labels = [&*task_type.to_string(), in_time];
                self.rewarded.with_label_values(&labels).set(as_gauge(*count));
            }
        }
    }
}

/// A count that may begin anywhere, since a file says where.
fn as_gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
