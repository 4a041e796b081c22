//! What only a simulation needs to know: the nodes, the network between them, what takes how long, what goes wrong.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::keys::{KeyValue, Notation, Problem};
use crate::types::List;

/// Nodes that a simulation has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatedNodes {
    /// How many; none: those of the fleet file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// K of each, by turns, where it is not in `k`.
    pub k: List<u32>,
    /// Effective cores of each board, by turns.
    pub cores: List<f64>,
    /// Seconds of work a second with a core of its own, by turns.
    pub speed: List<f64>,
    /// How nodes hear who is there; none: by SWIM if something goes wrong and they are not too many, else ruled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<SimulatedMembership>,
}

/// How nodes hear who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimulatedMembership {
    /// Lists follow what happens, after a moment.
    Ruled,
    /// By SWIM, records and polls.
    Swim,
}

impl Default for SimulatedNodes {
    fn default() -> Self {
        // What `p2pfaas cluster` and fn-work begin with.
        let (k, cores, speed) = (List(vec![4]), List(vec![2.0]), List(vec![1.0]));
        Self { count: None, k, cores, speed, membership: None }
    }
}

/// The network between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatedNetwork {
    /// One way between two nodes, in milliseconds.
    pub latency_ms: f64,
    /// Its standard deviation, in milliseconds.
    pub deviation_ms: f64,
    /// Of each way, in Mbit/s; 0: bodies take no time.
    pub bandwidth_mbit: f64,
    /// The share of messages that are lost and sent again, 0 to 0.9.
    pub loss: f64,
    /// One way between a client and its node, in milliseconds.
    pub client_latency_ms: f64,
    /// Lines of from,to,latency_ms and perhaps bandwidth_mbit, for pairs of nodes by their number from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PathBuf>,
}

/// What functions take, where the calls' queries do not say it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatedService {
    /// Recorded durations, drawn from by chance: lines with a column duration_s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durations: Option<PathBuf>,
    /// Whether each call takes its own time, whatever else runs, as under fn-sleep. Else calls share the board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone: Option<bool>,
}

/// What nodes and HTTP take, in milliseconds; `p2pfaas bench calibrate` measures it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatedOverheads {
    /// A call that does nothing, at the node that it is sent to.
    pub client_ms: f64,
    /// Asking a peer for its load.
    pub probe_ms: f64,
    /// Handing a call to a peer, there and back.
    pub forward_ms: f64,
    /// By how much timers end a function late.
    pub end_ms: f64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SimulatedFaultKind {
    /// Nodes are killed, and begin again when it ends.
    Kill,
    /// Nodes stand still.
    Stall,
    /// Nodes and all others do not hear each other.
    Part,
}

/// When it goes wrong, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedFault {
    /// What.
    pub kind: SimulatedFaultKind,
    /// Numbers of nodes, from 0.
    pub nodes: List<u32>,
    /// Seconds from the beginning of the run.
    pub at_s: f64,
    /// Seconds that it lasts; none: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<f64>,
}

/// Nodes of a simulation at most.
const NODES_MAX: u32 = 100_000;
/// Times in milliseconds at most: an hour.
const MS_MAX: f64 = 3.6e6;

/// Whether these numbers are within that range; else a problem with that key.
pub(super) fn numbers_within(
    key: &str,
    numbers: &[(&str, f64)],
    range: std::ops::RangeInclusive<f64>,
    problems: &mut Vec<Problem>,
) {
    for (name, number) in numbers.iter().filter(|(_, number)| !range.contains(number)) {
        let (least, most) = (range.start(), range.end());
        let why = format!("{name} is {number}, it must be within {least} to {most}");
        problems.push(Problem::of(key, why));
    }
}

impl SimulatedNodes {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        if let Some(count) = self.count {
            numbers_within(
                "nodes",
                &[("count", f64::from(count))],
                1.0..=f64::from(NODES_MAX),
                problems,
            );
        }
        let k = self.k.0.iter().map(|k| f64::from(*k)).collect();
        for (name, numbers) in
            [("k", &k), ("cores", &self.cores.0), ("speed", &self.speed.0)] as [(_, &Vec<f64>); 3]
        {
            let least = if name == "k" { 0.0 } else { 1e-3 };
            let named: Vec<_> = numbers.iter().map(|number| (name, *number)).collect();
            numbers_within("nodes", &named, least..=1e6, problems);
            if numbers.is_empty() {
                problems.push(Problem::of("nodes", format!("{name}: the list is empty")));
            }
        }
    }
}

impl SimulatedNetwork {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        let Self { latency_ms, deviation_ms, bandwidth_mbit, loss, client_latency_ms, .. } = *self;
        let times = [
            ("latency_ms", latency_ms),
            ("deviation_ms", deviation_ms),
            ("client_latency_ms", client_latency_ms),
        ];
        numbers_within("network", &times, 0.0..=MS_MAX, problems);
        numbers_within("network", &[("bandwidth_mbit", bandwidth_mbit)], 0.0..=1e6, problems);
        numbers_within("network", &[("loss", loss)], 0.0..=0.9, problems);
    }
}

impl SimulatedOverheads {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        let Self { client_ms, probe_ms, forward_ms, end_ms } = *self;
        let times = [
            ("client_ms", client_ms),
            ("probe_ms", probe_ms),
            ("forward_ms", forward_ms),
            ("end_ms", end_ms),
        ];
        numbers_within("overheads", &times, 0.0..=MS_MAX, problems);
    }
}

impl SimulatedFault {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        numbers_within("faults", &[("at_s", self.at_s)], 0.0..=1e6, problems);
        if let Some(for_s) = self.for_s {
            numbers_within("faults", &[("for_s", for_s)], 0.0..=1e6, problems);
        }
    }
}

/// Tables that check themselves.
macro_rules! tables {
    ($($type:ty),+) => { $(
        impl KeyValue for $type {
            const NOTATION: Notation = Notation::Table;
            const NOUN: &'static str = "";
        }
    )+ };
}

tables!(SimulatedNodes, SimulatedNetwork, SimulatedService, SimulatedOverheads, SimulatedFault);
