//! What is kept of a run's calls: made into jobs, counted and written beside the simulation, by a thread of its own.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::job::JobMaker;
use crate::experiment::design::job::Job;
use crate::experiment::report::summary::Collector;
use crate::experiment::run::SimulatedResults;
use crate::simulation::Finished;

/// Calls that are handed over at once, and how often that many may wait.
const BATCH: usize = 500;
const BATCHES: usize = 16;

/// Hands calls over that have ended.
pub(super) struct Hand {
    to: SyncSender<Vec<Finished>>,
    batch: Vec<Finished>,
}

/// The two ends of what hands calls over.
pub(super) fn hand() -> (Hand, Receiver<Vec<Finished>>) {
    let (to, ended) = sync_channel(BATCHES);
    (Hand { to, batch: Vec::with_capacity(BATCH) }, ended)
}

impl Hand {
    /// Hands a call over; waits where the keeper is behind. Whether the keeper is still there: if not, it says why
    /// in the end.
    pub(super) fn over(&mut self, mut finished: Finished) -> bool {
        if let Some(learnt) = &mut finished.learnt {
            // A learner hears of its decision when the last that knows of it lets it go: here, and not at whatever
            // time the keeper comes to it.
            learnt.pending = None;
        }
        self.batch.push(finished);
        self.batch.len() < BATCH || self.send()
    }

    fn send(&mut self) -> bool {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        self.to.send(batch).is_ok()
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.send();
    }
}

/// See the module.
pub(super) struct Keeper {
    /// Makes jobs of calls.
    pub(super) jobs: JobMaker,
    /// Counts them.
    pub(super) collector: Collector,
    /// Writes them; `None`: nobody does.
    pub(super) results: Option<SimulatedResults>,
    /// How many there were.
    pub(super) planned: u64,
}

impl Keeper {
    /// Keeps all that is handed over, as long as it can be written.
    pub(super) fn keep(mut self, ended: &Receiver<Vec<Finished>>) -> Self {
        let mut in_order = InOrder::default();
        for finished in ended.iter().flatten() {
            if let Some((number, job)) = self.jobs.job(&finished) {
                self.planned += 1;
                in_order.put(number, job);
            }
            for mut job in in_order.by_ref() {
                self.jobs.number(&mut job);
                self.collector.add(&job);
                if self.results.as_mut().is_some_and(|results| !results.take(job)) {
                    return self;
                }
            }
        }
        self
    }
}

/// Jobs in the order in which their requests were sent, whenever they ended.
#[derive(Default)]
struct InOrder {
    first: u64,
    waiting: VecDeque<Option<Job>>,
}

impl InOrder {
    fn put(&mut self, number: u64, job: Job) {
        let Some(at) = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok())
        else {
            return;
        };
        if self.waiting.len() <= at {
            self.waiting.resize_with(at + 1, || None);
        }
        if let Some(place) = self.waiting.get_mut(at) {
            *place = Some(job);
        }
    }
}

impl Iterator for InOrder {
    type Item = Job;

    fn next(&mut self) -> Option<Job> {
        self.waiting.front()?.as_ref()?;
        self.first += 1;
        self.waiting.pop_front()?
    }
}
