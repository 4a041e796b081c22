//! A scenario: what is sent to which nodes, under which settings, how often. Several schedulers,
//! load factors, deadline factors or seeds make a sweep of all their combinations.
//!
//! `table.rs` has the table of all keys.

mod check;
mod table;
mod values;
mod world;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use self::table::Scenario;
pub use self::values::{Deadlines, Learning, Payload, RecordedArrivals};
pub use self::world::{
    SimulatedFault, SimulatedFaultKind, SimulatedMembership, SimulatedNetwork, SimulatedNodes,
    SimulatedOverheads, SimulatedService,
};
use super::arrivals::Shape;
use crate::keys::{Column, Key, KeySource, KeyValue, Problem, Unreadable, joined, tables};
use crate::policy::Policy;
use crate::policy::registry::SchedulerSpec;

/// Runs of a scenario at most.
const RUNS_MAX: usize = 10_000;

/// What is wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", joined(.0, "\n"))]
pub struct BadScenario(pub Vec<Problem>);

/// The keys that a file and flags have.
struct Given<'a>(&'a Table);

impl KeySource for Given<'_> {
    fn value<T: KeyValue>(&self, key: &Key) -> Option<Result<T, Unreadable>> {
        let value = self.0.get(key.name)?;
        let unreadable = |why: toml::de::Error| {
            let why = why.message().trim().to_owned();
            Unreadable { given: value.to_string(), why }
        };
        Some(Value::try_into(value.clone()).map_err(unreadable))
    }
}

/// One run of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// The algorithm; none: as the nodes are.
    pub scheduler: Option<SchedulerSpec>,
    /// Multiplies the rates, or the calls of a recording.
    pub load_factor: f64,
    /// Multiplies the deadlines.
    pub deadline_factor: f64,
    /// Of the requests.
    pub seed: u64,
}

impl Point {
    /// Whether its algorithm asks the learner.
    pub fn learns(&self) -> bool {
        self.policy().is_some_and(|policy| policy.learns())
    }

    /// Whether its algorithm does better after a while.
    pub fn improves(&self) -> bool {
        self.policy().is_some_and(|policy| policy.improves())
    }

    fn policy(&self) -> Option<Arc<dyn Policy>> {
        self.scheduler.as_ref().and_then(|spec| spec.build().ok())
    }
}

impl Scenario {
    /// Keys in whose place a recording stands.
    pub const BY_RECORDING: [&str; 3] = ["rates", "traces", "arrivals"];

    /// Reads and checks one.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn from_table(table: &Table) -> Result<Self, BadScenario> {
        let (mut scenario, mut problems) = (Self::default(), Vec::new());
        let is_known = |name: &&String| Self::KEYS.iter().any(|key| key.name == **name);
        let unknown = table.keys().filter(|name| !is_known(name));
        problems.extend(unknown.map(|name| Problem::of(name, "a scenario has no such key")));
        scenario.read_keys(&Given(table), &mut problems);
        if table.contains_key("traces") && table.contains_key("rates") {
            problems.push(Problem::of("rates", "traces are given, too; a run follows one of them"));
        }
        let replaced = Self::BY_RECORDING.iter().filter(|name| table.contains_key(**name));
        if table.contains_key("recording") {
            let why = "a recording is given, too; a run follows one of them";
            problems.extend(replaced.map(|name| Problem::of(name, why)));
        }
        scenario.check_together(&mut problems);
        if problems.is_empty() { Ok(scenario) } else { Err(BadScenario(problems)) }
    }

    /// All keys, for the book: a table of Markdown below each heading.
    pub fn reference() -> String {
        let columns = [Column::NAME, Column::UNIT, Column::RANGE, Column::DEFAULT, Column::MEANING];
        tables(Self::KEYS, &columns)
    }

    /// As a scenario file has it, every key but those in whose place a run follows another: `rates`, or
    /// `traces`, or with a recording both and `arrivals`.
    pub fn written(&self) -> String {
        let mut table = Table::try_from(self).unwrap_or_default();
        let left_out = match (&self.recording, self.traces.0.is_empty()) {
            (Some(_), _) => &Self::BY_RECORDING[..],
            (None, true) => &["traces"],
            (None, false) => &["rates"],
        };
        left_out.iter().for_each(|name| drop(table.remove(*name)));
        toml::to_string(&table).unwrap_or_default()
    }

    /// All combinations, in the order in which they are run: all algorithms on the same requests
    /// before the next requests.
    pub fn points(&self) -> Vec<Point> {
        let mut schedulers: Vec<Option<SchedulerSpec>> =
            self.schedulers.0.iter().map(|words| Some(SchedulerSpec::from_words(words))).collect();
        if schedulers.is_empty() {
            schedulers.push(None);
        }
        let mut points = Vec::new();
        for &seed in &self.seeds.0 {
            for &load_factor in &self.load_factors.0 {
                for &deadline_factor in &self.deadline_factors.0 {
                    points.extend(schedulers.iter().map(|scheduler| Point {
                        scheduler: scheduler.clone(),
                        load_factor,
                        deadline_factor,
                        seed,
                    }));
                }
            }
        }
        points
    }

    /// The deadlines of a run, in seconds, one per task type; empty: none.
    pub fn deadlines(&self, point: &Point) -> Deadlines {
        Deadlines(self.deadlines_s.0.iter().map(|s| s * point.deadline_factor).collect())
    }

    /// How traces become rates.
    pub fn shape(&self) -> Shape {
        Shape {
            min_load: self.min_load,
            max_load: self.max_load,
            shift: self.trace_shift,
            repetitions: self.trace_repetitions,
        }
    }

    /// The trace of that node, if rates follow traces.
    pub fn trace_of(&self, node: usize) -> Option<PathBuf> {
        match &*self.traces.0 {
            [] => None,
            [one] => Some(PathBuf::from(one.to_string_lossy().replace("{n}", &node.to_string()))),
            all => all.get(node).cloned(),
        }
    }
}

#[cfg(test)]
mod tests;
