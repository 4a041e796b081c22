//! A run in figures: what a report says of it.

use std::collections::HashMap;
use std::net::IpAddr;

use super::stats::{Estimate, batch_means, quantile, share};
use crate::experiment::design::about::{About, RunEnd};
use crate::experiment::design::job::Job;

/// Pieces that a run's time is cut into: of a second, but so many at least and at most.
const BINS: std::ops::RangeInclusive<usize> = 10..=30;
/// Points of a latency distribution.
const CDF_POINTS: usize = 200;

/// What became of a call, each in one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// Answered 2xx.
    Served,
    /// Rejected by the algorithm (503, code 401).
    Rejected,
    /// The node was full (500, code 400).
    Full,
    /// Anything else, no answer at all among them.
    Failed,
}

impl JobEnd {
    /// Of a call.
    pub fn of(job: &Job) -> Self {
        match (job.status, job.error_code) {
            (200..300, _) => Self::Served,
            (503, 401) => Self::Rejected,
            (500, 400) => Self::Full,
            _ => Self::Failed,
        }
    }
}

/// What the learner's actions are, for counting.
pub const ACTIONS: [&str; 4] = ["reject", "run here", "probe one", "forward to a machine"];

/// A piece of a run's time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bin {
    /// Per node: calls planned in it, and of those answered in time.
    pub in_time: Vec<(u32, u32)>,
    /// Calls planned in it.
    pub offered: u32,
    /// Of those, by [`JobEnd`] in its order.
    pub outcomes: [u32; 4],
    /// Of those, run by another node.
    pub forwarded: u32,
    /// Calls answered 2xx in it.
    pub served: u32,
    /// Decisions by [`ACTIONS`].
    pub actions: [u32; 4],
    /// The sum of the ε that they were taken with.
    pub eps: f64,
}

/// The calls of one task type.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeSummary {
    /// Which.
    pub task_type: u32,
    /// Its deadline in seconds.
    pub deadline_s: Option<f64>,
    /// Calls.
    pub calls: usize,
    /// The share answered in time.
    pub in_time: Option<Estimate>,
    /// Seconds that half, 90, 95 and 99 % of the answers took at most.
    pub quantiles_s: Option<[f64; 4]>,
    /// The distribution of the answers' latency: seconds and the share that took at most that.
    pub cdf: Vec<(f64, f64)>,
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What it was.
    pub about: About,
    /// Calls.
    pub calls: usize,
    /// The share answered in time.
    pub in_time: Option<Estimate>,
    /// The share rejected by the algorithm.
    pub rejected: Option<Estimate>,
    /// The share refused because the node was full.
    pub full: Option<Estimate>,
    /// The share that failed otherwise.
    pub failed: Option<Estimate>,
    /// The share run by another node.
    pub forwarded: Option<Estimate>,
    /// The share refused: rejected or full.
    pub refused: Option<Estimate>,
    /// Mean latency of the answers 2xx, in seconds.
    pub latency_s: Option<Estimate>,
    /// Seconds that half, 90, 95 and 99 % of the answers 2xx took at most.
    pub quantiles_s: Option<[f64; 4]>,
    /// By task type, ascending.
    pub types: Vec<TypeSummary>,
    /// Seconds that a bin is long.
    pub bin_s: f64,
    /// In order.
    pub bins: Vec<Bin>,
    /// Calls served, by entry node and node that ran them; the last column is of machines that are
    /// not among the nodes. Empty where there are more than a hundred nodes.
    pub ran: Vec<Vec<u32>>,
}

impl Summary {
    /// Calls per second that were planned, as far as the run came.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / (self.bin_s * self.bins.len().max(1) as f64)
    }

    /// The share of the planned calls that were sent by the end of the run; `None`: the run did not
    /// come to tell.
    pub fn sent(&self) -> Option<f64> {
        let kept = &self.about.kept;
        (kept.planned > 0).then(|| kept.sent_in_time as f64 / kept.planned as f64)
    }

    /// Whether something beside the nodes had its part in the figures: see `LoadKept::disturbed`.
    pub fn disturbed(&self) -> bool {
        self.about.kept.disturbed()
    }

    /// Decisions by [`ACTIONS`] over the whole run.
    pub fn actions(&self) -> [u32; 4] {
        let mut sum = [0; 4];
        for bin in &self.bins {
            sum.iter_mut().zip(bin.actions).for_each(|(sum, n)| *sum += n);
        }
        sum
    }
}

/// The calls of a type while they are collected.
#[derive(Default)]
struct OfType {
    in_time: Vec<bool>,
    latencies: Vec<f64>,
}

/// A call in a byte: its outcome in the lowest two bits, and what else is counted.
#[derive(Clone, Copy)]
struct Packed(u8);

impl Packed {
    const IN_TIME: u8 = 4;
    const FORWARDED: u8 = 8;

    fn new(outcome: JobEnd, in_time: bool, forwarded: bool) -> Self {
        let in_time = if in_time { Self::IN_TIME } else { 0 };
        Self(outcome as u8 | in_time | if forwarded { Self::FORWARDED } else { 0 })
    }

    fn is(self, outcome: JobEnd) -> bool {
        self.0 & 3 == outcome as u8
    }

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// Collects a run's jobs, in the order of their planned times.
pub struct Collector {
    about: About,
    bin_s: f64,
    bins: Vec<Bin>,
    ran: Vec<Vec<u32>>,
    calls: Vec<Packed>,
    latencies: Vec<f64>,
    types: Vec<OfType>,
    /// The number of the first node at each address.
    addresses: HashMap<IpAddr, usize>,
    nodes: usize,
}

/// Of how many nodes at most it is kept which ran whose calls: it grows with their square.
const RAN_NODES_MAX: usize = 100;
/// Task types that are told apart; further ones count as the last.
const TYPES_MAX: usize = 256;

impl Collector {
    /// For the run that `about` tells of.
    pub fn new(about: About) -> Self {
        let duration = about.scenario.duration_s;
        let count = (duration as usize).clamp(*BINS.start(), *BINS.end());
        let nodes = about.nodes.len();
        let bin = Bin { in_time: vec![(0, 0); nodes], ..Bin::default() };
        let mut addresses = HashMap::new();
        for (node, number) in about.nodes.iter().zip(0..) {
            if let Ok(address) = node.address.parse() {
                addresses.entry(address).or_insert(number);
            }
        }
        Self {
            about,
            bin_s: duration / count as f64,
            bins: vec![bin; count],
            ran: if nodes > RAN_NODES_MAX { Vec::new() } else { vec![vec![0; nodes + 1]; nodes] },
            addresses,
            nodes,
            calls: Vec::new(),
            latencies: Vec::new(),
            types: Vec::new(),
        }
    }

    fn bin(&mut self, unix_s: f64) -> Option<&mut Bin> {
        let after = unix_s - self.about.started;
        // What the clock and the set-up take falls into the last bin.
        let index = (after / self.bin_s).max(0.0) as usize;
        let last = self.bins.len().checked_sub(1)?;
        self.bins.get_mut(index.min(last))
    }

    /// The number of the node that ran a call; one past the last for others.
    fn ran_by(&self, job: &Job) -> usize {
        let ip = job.peers_ip.last().and_then(|ip| ip.parse().ok());
        let known = ip.and_then(|ip: IpAddr| self.addresses.get(&ip).copied());
        let elsewhere = if job.external { self.nodes } else { job.node as usize };
        known.unwrap_or(elsewhere)
    }

    /// Takes one.
    pub fn add(&mut self, job: &Job) {
        let met = self.about.deadlines_s.met(job.task_type, job.status, job.total_s);
        let outcome = JobEnd::of(job);
        let forwarded = job.external && outcome == JobEnd::Served;
        let class = job.task_type.min(TYPES_MAX as u32 - 1) as usize;
        if self.types.len() <= class {
            self.types.resize_with(class + 1, OfType::default);
        }
        self.calls.push(Packed::new(outcome, met, forwarded));
        if let Some(of_type) = self.types.get_mut(class) {
            of_type.in_time.push(met);
            if outcome == JobEnd::Served {
                of_type.latencies.push(job.total_s);
            }
        }
        let node = job.node as usize;
        if let Some(bin) = self.bin(job.start) {
            bin.offered += 1;
            bin.outcomes.iter_mut().skip(outcome as usize).take(1).for_each(|n| *n += 1);
            bin.forwarded += u32::from(forwarded);
            if let Some((calls, in_time)) = bin.in_time.get_mut(node) {
                *calls += 1;
                *in_time += u32::from(met);
            }
            if let Some(learnt) = &job.learnt {
                let action = (learnt.action.max(0.0) as usize).min(ACTIONS.len() - 1);
                bin.actions.iter_mut().skip(action).take(1).for_each(|n| *n += 1);
                bin.eps += learnt.eps;
            }
        }
        if outcome == JobEnd::Served {
            self.latencies.push(job.total_s);
            let ran_by = self.ran_by(job);
            if let Some(cell) = self.ran.get_mut(node).and_then(|row| row.get_mut(ran_by)) {
                *cell += 1;
            }
            let end = job.start + job.total_s - self.about.started;
            if end <= self.bin_s * self.bins.len() as f64
                && let Some(bin) = self.bin(job.start + job.total_s)
            {
                bin.served += 1;
            }
        }
    }

    /// The figures.
    pub fn finish(mut self) -> Summary {
        if self.about.end != RunEnd::Complete {
            // What did not come is not what nobody asked for.
            let came = self.bins.iter().rposition(|bin| bin.offered > 0).map_or(1, |last| last + 1);
            self.bins.truncate(came);
        }
        let deadlines = &self.about.deadlines_s;
        let of_type = |(class, mut of): (usize, OfType)| {
            of.latencies.sort_by(f64::total_cmp);
            let at = |q| quantile(&of.latencies, q);
            let task_type = u32::try_from(class).unwrap_or(u32::MAX);
            let step = |i: usize| i as f64 / CDF_POINTS as f64;
            let point = |i: usize| Some((at(step(i))?, step(i)));
            TypeSummary {
                task_type,
                deadline_s: deadlines.of(task_type),
                calls: of.in_time.len(),
                in_time: share(of.in_time.iter().copied()),
                quantiles_s: quantiles(&of.latencies),
                cdf: (0..=CDF_POINTS).filter_map(point).collect(),
            }
        };
        let types = self.types.into_iter().enumerate().filter(|(_, of)| !of.in_time.is_empty());
        let types = types.map(of_type).collect();
        let of = |is: &dyn Fn(Packed) -> bool| share(self.calls.iter().map(|call| is(*call)));
        let outcome = |outcome| of(&|call| call.is(outcome));
        let (rejected, full) = (outcome(JobEnd::Rejected), outcome(JobEnd::Full));
        let refused = of(&|call| call.is(JobEnd::Rejected) || call.is(JobEnd::Full));
        let latency_s = batch_means(&self.latencies);
        let mut sorted = self.latencies;
        sorted.sort_by(f64::total_cmp);
        Summary {
            calls: self.calls.len(),
            in_time: of(&|call| call.has(Packed::IN_TIME)),
            rejected,
            full,
            failed: outcome(JobEnd::Failed),
            forwarded: of(&|call| call.has(Packed::FORWARDED)),
            refused,
            latency_s,
            quantiles_s: quantiles(&sorted),
            types,
            bin_s: self.bin_s,
            bins: self.bins,
            ran: self.ran,
            about: self.about,
        }
    }
}

/// Half, 90, 95 and 99 %.
fn quantiles(sorted: &[f64]) -> Option<[f64; 4]> {
    let at = |q| quantile(sorted, q);
    Some([at(0.5)?, at(0.9)?, at(0.95)?, at(0.99)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::design::about::NodeAbout;
    use crate::experiment::design::job::DecisionShown;
    use crate::experiment::design::scenario::{Deadlines, Scenario};

    fn about() -> About {
        let node = |address: &str| NodeAbout { address: address.to_owned(), ..Default::default() };
        About {
            scenario: Scenario { duration_s: 10.0, ..Scenario::default() },
            deadlines_s: Deadlines(vec![0.1, 0.5]),
            nodes: vec![node("10.0.0.1"), node("10.0.0.2")],
            started: 1000.0,
            end: RunEnd::Complete,
            ..About::default()
        }
    }

    fn job(node: u32, at: f64, status: u16, error_code: u32, total_s: f64) -> Job {
        Job { node, start: 1000.0 + at, status, error_code, total_s, ..Job::default() }
    }

    #[test]
    fn each_call_counts_in_one_class_and_where_it_belongs() {
        let mut collector = Collector::new(about());
        let forwarded = Job {
            external: true,
            peers_ip: vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()],
            task_type: 1,
            ..job(0, 0.5, 200, 0, 0.2)
        };
        let learnt = DecisionShown { action: 7.0, eps: 0.5, ..DecisionShown::default() };
        for job in [
            forwarded,
            job(0, 1.5, 200, 0, 0.05),
            job(0, 1.6, 200, 0, 0.2),
            Job { learnt: Some(learnt), ..job(1, 2.5, 503, 401, 0.01) },
            job(1, 3.5, 500, 400, 0.01),
            job(1, 4.5, 500, 1, 0.01),
            job(1, 9.99, 0, 0, 30.0),
            job(1, 9.99, 200, 0, 0.05),
            Job {
                external: true,
                peers_ip: vec!["9.9.9.9".to_owned()],
                ..job(1, 5.5, 200, 0, 1.0)
            },
        ] {
            collector.add(&job);
        }
        let summary = collector.finish();
        let mean = |estimate: Option<Estimate>| estimate.map(|estimate| estimate.mean);
        assert_eq!(summary.calls, 9);
        assert_eq!(mean(summary.in_time), Some(3.0 / 9.0));
        assert_eq!(
            [summary.rejected, summary.full, summary.failed, summary.forwarded].map(mean),
            [1, 1, 2, 2].map(|n| Some(f64::from(n) / 9.0))
        );
        assert_eq!(summary.ran, [[2, 1, 0], [0, 1, 1]]);
        assert_eq!((summary.bins.len(), summary.bin_s), (10, 1.0));
        assert_eq!(summary.bins[1].in_time, [(2, 1), (0, 0)]);
        // The last was planned within the run and answered after it.
        assert_eq!((summary.bins[9].offered, summary.bins[9].served), (2, 0));
        assert_eq!((summary.bins[2].actions, summary.bins[2].eps), ([0, 0, 0, 1], 0.5));
        assert_eq!(summary.actions(), [0, 0, 0, 1]);
        let [first, second] = &*summary.types else { panic!("two types") };
        assert_eq!((first.calls, first.deadline_s), (8, Some(0.1)));
        assert_eq!(second.quantiles_s, Some([0.2; 4]));
        // Latencies 0.05, 0.05, 0.2, 1: the median lies between the middle two.
        assert!((first.cdf[100].0 - 0.125).abs() < 1e-9, "{:?}", first.cdf[100]);
        assert_eq!(summary.bins[3].outcomes, [0, 0, 1, 0]);
    }

    #[test]
    fn a_run_that_did_not_end_is_as_long_as_it_came() {
        let mut collector = Collector::new(About { end: RunEnd::Unknown, ..about() });
        (0..30).for_each(|n| collector.add(&job(0, f64::from(n) / 10.0, 200, 0, 0.05)));
        let summary = collector.finish();
        assert_eq!((summary.bins.len(), summary.rate()), (3, 10.0));
    }

    #[test]
    fn a_run_without_calls_has_no_figures() {
        let summary = Collector::new(about()).finish();
        assert_eq!((summary.calls, summary.in_time, summary.latency_s), (0, None, None));
        assert!(summary.types.is_empty());
    }
}
