//! A scenario with the files that it names, and the requests that follow from them.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::ExperimentError;
use super::load::{DURATION, Ready};
use crate::experiment::design::arrivals::{Arrivals, Rates};
use crate::experiment::design::azure::{INVOCATIONS_MAX, parse_for};
use crate::experiment::design::plan::{Mix, Plan};
use crate::experiment::design::recorded::{self, NodePair};
use crate::experiment::design::replay::{Recording, Replayed, RunRates, Stretch};
use crate::experiment::design::scenario::{Payload, Point, Scenario};
use crate::experiment::design::trace;
use crate::fleet::{Body, Credentials, Fleet, FleetAccess, look_up};
use crate::storage;

/// Points of a run's trace, repetitions and all.
const KNOTS_MAX: usize = 1_000_000;

/// The first of two purposes of randomness that recordings have; those before are of nodes.
const RECORDED: u64 = 4;

/// A scenario with the files that it names.
pub struct Inputs {
    /// The scenario.
    pub scenario: Scenario,
    /// Its nodes.
    pub fleet: Fleet,
    /// How its nodes are reached.
    pub(super) access: FleetAccess,
    /// What is sent.
    pub payloads: Vec<Ready>,
    /// Values of each node's trace; empty: rates are fixed.
    traces: Vec<Vec<f64>>,
    /// What was recorded of arrivals; every run goes through this one.
    pub recording: Option<Arc<Recording>>,
    /// Recorded durations in seconds, which simulated functions take; empty: as the queries say.
    pub durations: Vec<f64>,
    /// Links between nodes that are not like all others.
    pub pairs: Vec<NodePair>,
}

impl Inputs {
    /// Reads the files. The nodes are going to be asked with these credentials.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn load(scenario: Scenario, credentials: Credentials) -> Result<Self, ExperimentError> {
        let mut problems = Vec::new();
        let fleet = match scenario.nodes.count {
            Some(count) => Ok(Fleet::numbered(count)),
            None => fleet(&scenario.fleet),
        };
        let mut fleet: Fleet = kept("fleet", fleet, &mut problems).unwrap_or_default();
        if let Some(topology) = &scenario.topology {
            match topology.parse() {
                Ok(topology) => fleet.take_shape(topology),
                Err(why) => problems.push(format!("topology: {why}")),
            }
        }
        fleet.0.iter_mut().for_each(|member| member.tls |= scenario.tls);
        let access = FleetAccess::new(credentials, &fleet).map_err(|why| why.to_string());
        let access = kept("tls", access, &mut problems).unwrap_or_default();
        let nodes = fleet.0.len();
        let paths = (0..nodes).filter_map(|node| scenario.trace_of(node));
        let traces: Vec<Vec<f64>> =
            paths.filter_map(|path| kept("traces", values(&path), &mut problems)).collect();
        let payloads = scenario.payloads.iter();
        let payloads: Vec<Ready> =
            payloads.filter_map(|one| kept("payloads", ready(one), &mut problems)).collect();
        let durations = scenario.service.durations.as_deref();
        let durations =
            durations.map(|path| read(path, storage::TRACE_BYTES_MAX, recorded::durations));
        let durations = kept("service", durations.unwrap_or(Ok(Vec::new())), &mut problems);
        let pairs = scenario.network.pairs.as_deref();
        let pairs = pairs.map(|path| read(path, storage::TRACE_BYTES_MAX, recorded::links));
        let pairs = kept("network", pairs.unwrap_or(Ok(Vec::new())), &mut problems);
        let (durations, pairs) = (durations.unwrap_or_default(), pairs.unwrap_or_default());
        let recording =
            kept("recording", recording(&scenario, nodes), &mut problems).unwrap_or_default();
        check_recorded(&scenario, &payloads, recording.as_deref(), &mut problems);
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
        if scenario.traces.0.is_empty() && scenario.recording.is_none() {
            per_node("rates", scenario.rates.0.len());
        }
        if problems.is_empty() {
            Ok(Self { scenario, fleet, access, payloads, traces, recording, durations, pairs })
        } else {
            Err(ExperimentError::Inputs(problems))
        }
    }

    /// Requests a second to each node over a run.
    pub fn rates(&self, point: &Point, duration_s: f64) -> RunRates {
        match self.replayed(point, duration_s) {
            Some(replayed) => RunRates::Recorded(replayed),
            None => {
                let nodes = 0..self.fleet.0.len();
                RunRates::Given(nodes.map(|node| self.given(node, point, duration_s)).collect())
            }
        }
    }

    /// What a run sends of the recording, if it follows one.
    fn replayed(&self, point: &Point, duration_s: f64) -> Option<Replayed> {
        let (recording, told) = (self.recording.as_ref()?, self.scenario.recording.as_ref()?);
        let stretch = Stretch { from_s: told.from_s, speed: told.speed, duration_s };
        let (recording, factor) = (Arc::clone(recording), point.load_factor);
        Some(Replayed { recording, stretch, factor })
    }

    /// Requests a second to a node over a run, by rates or traces.
    fn given(&self, node: usize, point: &Point, duration_s: f64) -> Rates {
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
    pub fn plan(&self, point: &Point, duration_s: f64, warm_up: bool) -> Plan<SmallRng> {
        let purpose = if warm_up { 2 } else { 0 };
        let rng = |node: usize, n: u64| stream(point.seed, node as u64, purpose + n);
        let nodes = 0..self.fleet.0.len();
        let weight = |payload: &Payload| payload.mix.unwrap_or(1.0);
        let weights: Vec<f64> = self.scenario.payloads.iter().map(weight).collect();
        let mix = Mix::new(&weights);
        if let Some(replayed) = self.replayed(point, duration_s) {
            // One for all nodes, and no other's.
            let chance = stream(point.seed, 0, RECORDED + purpose);
            return Plan::recorded(replayed.arrivals(chance), nodes.map(|node| rng(node, 1)), mix);
        }
        let node = |node: usize| {
            let rates = self.given(node, point, duration_s);
            (Arrivals::new(rates, self.scenario.arrivals, rng(node, 0)), rng(node, 1))
        };
        Plan::new(nodes.map(node), mix)
    }
}

/// The recording that the scenario names, as far as its runs need it.
fn recording(scenario: &Scenario, nodes: usize) -> Result<Option<Arc<Recording>>, String> {
    // Where there is no fleet, that is told already.
    let Some(told) = scenario.recording.as_ref().filter(|_| nodes > 0) else { return Ok(None) };
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    let Scenario { duration_s, learner_warm_up_s, .. } = *scenario;
    let run = Stretch { from_s: told.from_s, speed: told.speed, duration_s };
    let parse = |text: &str| {
        let arrived = parse_for(text, nodes.into(), scenario.payloads.len() as u64)?;
        Recording::new(arrived, nodes, run, learner_warm_up_s)
    };
    read(&told.file, storage::RECORDING_BYTES_MAX, parse).map(|read| Some(Arc::new(read)))
}

/// Calls at most in a minute of a recording: a run makes those of a minute at once.
const MINUTE_CALLS_MAX: f64 = 1e6;

/// Whether there is what payloads take from a recording, and no run sends too much of it.
fn check_recorded(
    scenario: &Scenario,
    payloads: &[Ready],
    recording: Option<&Recording>,
    problems: &mut Vec<String>,
) {
    let factor = scenario.load_factors.0.iter().copied().fold(1.0, f64::max);
    let calls = recording.map_or(0.0, |recording| recording.calls() as f64 * factor);
    if calls > INVOCATIONS_MAX as f64 {
        problems.push(format!(
            "load_factors: {factor} times what is recorded makes {calls} calls, at most {INVOCATIONS_MAX} are sent"
        ));
    }
    let of_minute = recording.map_or(0.0, |recording| recording.busiest_minute() as f64 * factor);
    if of_minute > MINUTE_CALLS_MAX {
        problems.push(format!(
            "load_factors: {factor} times what is recorded makes {of_minute} calls in a minute of the recording, at \
             most {MINUTE_CALLS_MAX} are sent"
        ));
    }
    // One that cannot be read is told already.
    if recording.is_none() && scenario.recording.is_some()
        || recording.is_some_and(|recording| recording.longest_s().is_some())
    {
        return;
    }
    for payload in payloads.iter().filter(|payload| payload.query.contains(DURATION)) {
        problems.push(format!(
            "payloads: {}: {DURATION} in its query is a recorded duration, and there is no recording with durations",
            payload.title
        ));
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
    Ok(Ready { title: payload.title(), body, task_type, query, deadline: None })
}

/// Randomness of a node's own for each purpose, so that one more node changes no other's.
fn stream(seed: u64, node: u64, purpose: u64) -> SmallRng {
    let node = node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let purpose = purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    SmallRng::seed_from_u64(seed ^ node ^ purpose)
}
