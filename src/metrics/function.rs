//! What is counted and timed of one function's calls.

use std::sync::Mutex;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use super::register;
use crate::error::CallOutcome;
use crate::lock;

/// Seconds; from a trivial call on loopback to a slow one on a board.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// What is counted and timed of calls, by function.
pub(super) struct CallMetrics {
    requests: IntCounterVec,
    execution: HistogramVec,
    queueing: HistogramVec,
    total: HistogramVec,
    first_byte: HistogramVec,
}

impl CallMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let requests = Opts::new(
            "p2pfaas_requests_total",
            "Calls that ended, by function, scheduler and outcome",
        );
        let requests = IntCounterVec::new(requests, &["function", "scheduler", "outcome"]);
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            register(registry, HistogramVec::new(opts, &["function"]))
        };
        Self {
            requests: register(registry, requests),
            execution: histogram(
                "p2pfaas_execution_seconds",
                "The call to the function alone, for calls that ran here",
            ),
            queueing: histogram("p2pfaas_queueing_seconds", "Time spent waiting for a slot here"),
            total: histogram("p2pfaas_total_seconds", "Arrival to completion at this node"),
            first_byte: histogram(
                "p2pfaas_first_byte_seconds",
                "Arrival to the beginning of the answer at this node",
            ),
        }
    }

    /// Those of the function that is called `label` in the metrics.
    pub(super) fn labelled(&self, label: &str) -> FunctionMetrics {
        FunctionMetrics {
            label: label.to_owned(),
            requests: self.requests.clone(),
            counters: Mutex::default(),
            execution: self.execution.with_label_values(&[label]),
            queueing: self.queueing.with_label_values(&[label]),
            total: self.total.with_label_values(&[label]),
            first_byte: self.first_byte.with_label_values(&[label]),
        }
    }
}

/// What is counted and timed of one function's calls.
pub struct FunctionMetrics {
    label: String,
    requests: IntCounterVec,
    /// Of `requests`, those that were asked for: as many as there are algorithms and outcomes at most.
    counters: Mutex<Vec<(&'static str, CallOutcome, IntCounter)>>,
    execution: Histogram,
    queueing: Histogram,
    total: Histogram,
    first_byte: Histogram,
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
