//! What is counted of programs outside that decide.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::register;

/// See the module.
pub(super) struct ProgramMetrics {
    fallbacks: IntCounterVec,
    dropped: IntCounter,
}

impl ProgramMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let fallbacks = Opts::new(
            "p2pfaas_program_fallbacks_total",
            "Calls run here because a program outside has not decided on them, by why",
        );
        let dropped = IntCounter::new(
            "p2pfaas_program_outcomes_dropped_total",
            "Outcomes of calls that a program outside was not told: too many waited, or it was gone",
        );
        Self {
            fallbacks: register(registry, IntCounterVec::new(fallbacks, &["why"])),
            dropped: register(registry, dropped),
        }
    }

    pub(super) fn fallback(&self, why: &str) {
        self.fallbacks.with_label_values(&[why]).inc();
    }

    pub(super) fn dropped(&self, count: u64) {
        self.dropped.inc_by(count);
    }
}
