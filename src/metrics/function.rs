//! What is counted and timed of one function's calls.

use std::sync::Mutex;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::error::CallOutcome;
use crate::lock;

/// What is counted and timed of one function's calls.
pub struct FunctionMetrics {
    pub(super) label: String,
    pub(super) requests: IntCounterVec,
    /// Of `requests`, those that were asked for: as many as there are algorithms and outcomes at most.
    pub(super) counters: Mutex<Vec<(&'static str, CallOutcome, IntCounter)>>,
    pub(super) execution: Histogram,
    pub(super) queueing: Histogram,
    pub(super) total: Histogram,
    pub(super) first_byte: Histogram,
}

impl FunctionMetrics {
    /// A call ended.
    pub fn request(&self, scheduler: &'static str, outcome: CallOutcome, total: Duration) {
        self.counter(scheduler, outcome).inc();
        self.total.observe(total.as_secs_f64());
    }

    /// The beginning of a call's answer is there.
    pub fn first_byte(&self, since_arrival: Duration) {
        self.first_byte.observe(since_arrival.as_secs_f64());
    }

    /// A look-up by labels costs more than all else that is counted of a call, so counters are kept.
    fn counter(&self, scheduler: &'static str, outcome: CallOutcome) -> IntCounter {
        let mut counters = lock(&self.counters);
        let wanted = |known: &&(&'static str, CallOutcome, IntCounter)| {
            known.1 == outcome && known.0 == scheduler
        };
        if let Some((_, _, counter)) = counters.iter().find(wanted) {
            return counter.clone();
        }
        let labels = [&*self.label, scheduler, outcome.label()];
        let counter = self.requests.with_label_values(&labels);
        counters.push((scheduler, outcome, counter.clone()));
        counter
    }

    /// A call ran here.
    pub fn executed(&self, queueing: Duration, execution: Duration) {
        self.queueing.observe(queueing.as_secs_f64());
        self.execution.observe(execution.as_secs_f64());
    }
}
