//! A scenario with the files that it names, and the requests that follow from them.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::ExperimentError;
use super::load::Ready;
use crate::experiment::design::arrivals::{Arrivals, Rates};
use crate::experiment::design::plan::{Mix, Plan};
use crate::experiment::design::scenario::{Payload, Point, Scenario};
use crate::experiment::design::trace;
use crate::fleet::{Body, Fleet, look_up};
use crate::storage;

/// Points of a run's trace, repetitions and all.
const KNOTS_MAX: usize = 1_000_000;

/// A scenario with the files that it names.
pub struct Inputs {
    /// The scenario.
    pub scenario: Scenario,
    pub(super) fleet: Fleet,
    pub(super) payloads: Vec<Ready>,
    /// Values of each node's trace; empty: rates are fixed.
    traces: Vec<Vec<f64>>,
}

impl Inputs {
    /// Reads the files.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn load(scenario: Scenario) -> Result<Self, ExperimentError> {
        let mut problems = Vec::new();
        let fleet = kept("fleet", fleet(&scenario.fleet), &mut problems).unwrap_or_default();
        let mut fleet: Fleet = fleet;
        if let Some(topology) = &scenario.topology {
            match topology.parse() {
                Ok(topology) => fleet.take_shape(topology),
                Err(why) => problems.push(format!("topology: {why}")),
            }
        }
        let nodes = fleet.0.len();
        let paths = (0..nodes).filter_map(|node| scenario.trace_of(node));
        let traces: Vec<Vec<f64>> =
            paths.filter_map(|path| kept("traces", values(&path), &mut problems)).collect();
        let payloads = scenario.payloads.iter();
        let payloads =
            payloads.filter_map(|one| kept("payloads", ready(one), &mut problems)).collect();
        let longest = traces.iter().map(Vec::len).max().unwrap_or(0);
        if longest.saturating_mul(scenario.trace_repetitions as usize) > KNOTS_MAX {
            let what = format!("{longest} points {} times", scenario.trace_repetitions);
            problems.push(format!("trace_repetitions: {what} is more than {KNOTS_MAX} points"));
        }
        // Too few of what there should be one of per node; one alone is for all.
        let mut per_node = |key: &str, given: usize| {
            if given > 1 && given != nodes && nodes > 0 {
                problems.push(format!("{key}: there are {given} for {nodes} nodes"));
            }
        };
        per_node("traces", scenario.traces.0.len());
        if scenario.traces.0.is_empty() {
            per_node("rates", scenario.rates.0.len());
        }
        if problems.is_empty() {
            Ok(Self { scenario, fleet, payloads, traces })
        } else {
            Err(ExperimentError::Inputs(problems))
        }
    }

    fn rates(&self, node: usize, point: &Point, duration_s: f64) -> Rates {
        let fixed = || match &*self.scenario.rates.0 {
            [one] => *one,
            all => all.get(node).copied().unwrap_or(0.0),
        };
        let rates = match self.traces.get(node) {
            Some(trace) => Rates::along(trace, self.scenario.shape(), duration_s),
            None => Rates::constant(fixed(), duration_s),
        };
        rates.scaled(point.load_factor)
    }

    /// All requests of a run; a warm-up has others.
    pub(super) fn plan(&self, point: &Point, duration_s: f64, warm_up: bool) -> Plan<SmallRng> {
        let purpose = if warm_up { 2 } else { 0 };
        let rng = |node: usize, n: u64| stream(point.seed, node as u64, purpose + n);
        let node = |node: usize| {
            let rates = self.rates(node, point, duration_s);
            (Arrivals::new(rates, self.scenario.arrivals, rng(node, 0)), rng(node, 1))
        };
        let weight = |payload: &Payload| payload.mix.unwrap_or(1.0);
        let weights: Vec<f64> = self.scenario.payloads.iter().map(weight).collect();
        Plan::new((0..self.fleet.0.len()).map(node), Mix::new(&weights))
    }
}

/// What was read, or nothing and a problem more.
fn kept<T>(key: &str, read: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    read.map_err(|why| problems.push(format!("{key}: {why}"))).ok()
}

/// What a file holds, by `parse`; errors with its name.
fn read<T, E: Display>(
    path: &Path,
    bytes_max: usize,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, String> {
    let named = |why: &dyn Display| format!("{}: {why}", path.display());
    let text = storage::read_text(path, bytes_max).map_err(|why| named(&why))?;
    parse(&text).map_err(|why| named(&why))
}

fn fleet(path: &Path) -> Result<Fleet, String> {
    read(path, storage::TEXT_BYTES_MAX, |text| Fleet::parse(text, &look_up))
}

fn values(path: &Path) -> Result<Vec<f64>, String> {
    read(path, storage::TRACE_BYTES_MAX, trace::parse)
}

fn ready(payload: &Payload) -> Result<Ready, String> {
    let bytes = |path: &PathBuf| {
        let read = storage::read_bounded(path, storage::PAYLOAD_BYTES_MAX);
        read.map_err(|why| format!("{}: {why}", path.display()))
    };
    let bytes = payload.file.as_ref().map_or(Ok(Vec::new()), bytes)?;
    let body = Body { bytes: bytes.into(), content_type: payload.content_type.clone() };
    let (task_type, query) = (payload.task_type, payload.query.clone());
    Ok(Ready { title: payload.title(), body, task_type, query })
}

/// Randomness of a node's own for each purpose, so that one more node changes no other's.
fn stream(seed: u64, node: u64, purpose: u64) -> SmallRng {
    let node = node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let purpose = purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    SmallRng::seed_from_u64(seed ^ node ^ purpose)
}
