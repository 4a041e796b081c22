//! A scenario: what is sent to which nodes, under which settings, how often. Several schedulers,
//! load factors, deadline factors or seeds make a sweep of all their combinations.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::Table;

use super::arrivals::{Process, Shape};
use crate::policy::Decision;
use crate::policy::registry::SchedulerSpec;
use crate::types::{FunctionName, List, beyond_json};

/// Runs of a scenario at most.
const RUNS_MAX: usize = 10_000;
/// Payloads, rates, traces and deadlines at most.
const LIST_MAX: usize = 10_000;

/// What is wrong with a scenario, each with its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BadScenario(pub Vec<String>);

/// Who trains the nodes' learners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Learning {
    /// The bench: reward 1 within the deadline, else 0, in batches to the node that was called.
    #[default]
    Client,
    /// The nodes themselves, by the same deadlines.
    Node,
    /// Nobody: what was learnt before is used, and nothing is reset.
    Off,
}

/// What requests carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Payload {
    /// What it is called in the results; its file's name when empty.
    pub name: String,
    /// The body; none: empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The body's type.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content_type: String,
    /// How often it is sent, in proportion to the others' (1 when not given).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<f64>,
    /// The calls' task type.
    pub task_type: u32,
    /// The calls' query; `{seed}` in it becomes a number of the request's own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
}

impl Payload {
    /// What it is called in the results.
    pub fn title(&self) -> String {
        let file = || Some(self.file.as_ref()?.file_name()?.to_string_lossy().into_owned());
        let given = Some(self.name.clone()).filter(|name| !name.is_empty());
        given.or_else(file).unwrap_or_else(|| format!("type-{}", self.task_type))
    }
}

macro_rules! scenario {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr; )+) => {
        /// All keys of a scenario.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Scenario { $( $(#[doc = $doc])+ pub $name: $type, )+ }

        impl Default for Scenario {
            fn default() -> Self {
                Self { $( $name: $default, )+ }
            }
        }

        impl Scenario {
            /// Every key with what it means, in order.
            pub const KEYS: &'static [(&'static str, &'static str)] =
                &[ $( (stringify!($name), concat!($($doc),+)), )+ ];
        }
    };
}

scenario! {
    /// What it is called: in the report, and the folder of its results.
    name: String = "experiment".to_owned();
    /// Fleet file (TOML), or a hosts file with one address or host name a line; relative to the scenario's folder.
    fleet: PathBuf = PathBuf::from("fleet.toml");
    /// Port of the scheduler API on every node.
    scheduler_port: u16 = 18080;
    /// Port of the discovery API on every node.
    discovery_port: u16 = 19000;
    /// Port of the learner API on every node.
    learner_port: u16 = 19020;

    /// The function that is called.
    function: String = "fn-echo".to_owned();
    /// What is sent: tables of name, file, content_type, mix (weights), task_type, query (`{seed}` in it becomes a number of the request's own).
    payloads: Vec<Payload> = vec![Payload::default()];
    /// Seconds that a run lasts, 0.001 to 1e6.
    duration_s: f64 = 60.0;
    /// How arrivals are spaced: poisson or deterministic.
    arrivals: Process = Process::Poisson;
    /// Requests per second to each node: one number for all, or one per node.
    rates: List<f64> = List(vec![10.0]);
    /// Files of index,value that the rate follows instead of rates: one per node, or one name in which an n in braces stands for the node's number, from 0.
    traces: List<PathBuf> = List(Vec::new());
    /// Requests per second where a trace is 0.
    min_load: f64 = 0.0;
    /// Requests per second where a trace is 1.
    max_load: f64 = 20.0;
    /// The point of the trace that a run begins with, from 0; after the last comes the first.
    trace_shift: u32 = 0;
    /// How many times the trace is gone through in a run.
    trace_repetitions: u32 = 1;
    /// The same seed gives the same requests at the same times; several: each in a run of its own.
    seeds: List<u64> = List(vec![1]);
    /// All rates are multiplied by this; several: each in a run of its own.
    load_factors: List<f64> = List(vec![1.0]);

    /// Seconds within which calls should be answered, one per task type; further types have the last one. None: calls have no deadline.
    deadlines_s: List<f64> = List(Vec::new());
    /// All deadlines are multiplied by this; several: each in a run of its own.
    deadline_factors: List<f64> = List(vec![1.0]);
    /// Scheduling algorithms with their parameters, each in a run of its own. None: as the nodes are.
    schedulers: List<String> = List(Vec::new());
    /// K of all nodes: functions that run at once. Not given: as the nodes are.
    k: Option<u32> = None;
    /// Calls that may wait on a node. Not given: as the nodes are.
    queue_length: Option<u32> = None;
    /// Whether calls may wait at all. Not given: as the nodes are.
    queue_enabled: Option<bool> = None;

    /// Who trains under LearningScheduler: client (the bench), node (the nodes), or off (nobody; learners are not reset).
    learning: Learning = Learning::Client;
    /// Parameters of all learners.
    learner: Map<String, Value> = Map::new();
    /// Entries that the bench sends to a node's learner at once, 1 to 10000; what is there goes after 5 s in any case.
    train_batch: usize = 20;
    /// Seconds of the same load before a run under LearningScheduler, to learn from; not measured.
    learner_warm_up_s: f64 = 0.0;

    /// Seconds after which a call without an answer is given up, 0.001 to 86400.
    request_timeout_s: f64 = 30.0;
    /// Calls under way at once, 1 to 60000; beyond it calls count as errors and are not sent.
    in_flight_max: usize = 10_000;
    /// Seconds that the fleet has to become quiet between runs, 0 to 86400.
    quiet_timeout_s: f64 = 60.0;
    /// Whether to look, before a run, for what would spoil it.
    checks: bool = true;
    /// Mean service time in seconds. When given, the report holds refusals and times against M/M/K/(K+Q).
    theory_service_s: Option<f64> = None;
}

/// One run of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// The algorithm; none: as the nodes are.
    pub scheduler: Option<SchedulerSpec>,
    /// Multiplies the rates.
    pub load_factor: f64,
    /// Multiplies the deadlines.
    pub deadline_factor: f64,
    /// Of the requests.
    pub seed: u64,
}

impl Point {
    /// Whether its algorithm asks the learner.
    pub fn learns(&self) -> bool {
        let policy = self.scheduler.as_ref().and_then(|spec| spec.build().ok());
        policy.is_some_and(|policy| policy.learns())
    }
}

impl Scenario {
    /// Reads and checks one.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn from_table(table: Table) -> Result<Self, BadScenario> {
        let one = |why: String| BadScenario(vec![why]);
        let mut problems = Vec::new();
        // Each key on its own, so that every wrong one is named.
        for (key, value) in &table {
            let alone = Table::from_iter([(key.clone(), value.clone())]);
            if let Err(why) = Self::deserialize(alone) {
                let why = why.message().trim().to_owned();
                problems.push(if why.contains(key) { why } else { format!("{key}: {why}") });
            }
        }
        if table.contains_key("traces") && table.contains_key("rates") {
            problems.push("rates: traces are given, too; a run follows one of them".to_owned());
        }
        if !problems.is_empty() {
            return Err(BadScenario(problems));
        }
        let scenario = Self::deserialize(table).map_err(|why| one(why.message().to_owned()))?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), BadScenario> {
        let mut problems = Vec::new();
        let mut range = |key: &str, values: &[f64], low: f64, high: f64| {
            for value in values.iter().filter(|value| !(low..=high).contains(*value)) {
                problems.push(format!("{key}: {value} is not within {low} to {high}"));
            }
        };
        range("duration_s", &[self.duration_s], 0.001, 1e6);
        range("rates", &self.rates.0, 0.0, 1e6);
        range("min_load", &[self.min_load], 0.0, 1e6);
        range("max_load", &[self.max_load], self.min_load, 1e6);
        range("trace_repetitions", &[f64::from(self.trace_repetitions)], 1.0, 1e4);
        range("load_factors", &self.load_factors.0, 0.0, 1e4);
        range("deadlines_s", &self.deadlines_s.0, 1e-6, 86400.0);
        range("deadline_factors", &self.deadline_factors.0, 1e-3, 1e4);
        range("train_batch", &[self.train_batch as f64], 1.0, 1e4);
        range("learner_warm_up_s", &[self.learner_warm_up_s], 0.0, 1e6);
        range("request_timeout_s", &[self.request_timeout_s], 0.001, 86400.0);
        range("in_flight_max", &[self.in_flight_max as f64], 1.0, 6e4);
        range("quiet_timeout_s", &[self.quiet_timeout_s], 0.0, 86400.0);
        range("theory_service_s", self.theory_service_s.as_slice(), 1e-6, 86400.0);
        let weights: Vec<f64> = self.payloads.iter().map(|p| p.mix.unwrap_or(1.0)).collect();
        range("payloads: mix", &weights, 0.0, 1e9);
        if weights.iter().sum::<f64>() <= 0.0 {
            problems.push("payloads: none is ever sent".to_owned());
        }
        for (key, empty) in [
            ("rates", self.rates.0.is_empty()),
            ("seeds", self.seeds.0.is_empty()),
            ("load_factors", self.load_factors.0.is_empty()),
            ("deadline_factors", self.deadline_factors.0.is_empty()),
        ] {
            if empty {
                problems.push(format!("{key}: the list is empty"));
            }
        }
        let lists = [
            self.schedulers.0.len().max(1),
            self.seeds.0.len(),
            self.load_factors.0.len(),
            self.deadline_factors.0.len(),
        ];
        let runs = lists.iter().fold(1usize, |runs, list| runs.saturating_mul(*list));
        if runs > RUNS_MAX {
            problems.push(format!(
                "schedulers, seeds, load_factors and deadline_factors make {runs} runs, at most \
                 {RUNS_MAX} are made"
            ));
        }
        for (key, length) in [
            ("payloads", self.payloads.len()),
            ("rates", self.rates.0.len()),
            ("traces", self.traces.0.len()),
            ("deadlines_s", self.deadlines_s.0.len()),
        ] {
            if length > LIST_MAX {
                problems
                    .push(format!("{key}: it has {length} entries, at most {LIST_MAX} are taken"));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !self.name.chars().all(plain) || self.name.trim_matches('.').is_empty() {
            problems.push(format!(
                "name: {:?} is no name of letters, digits, '-', '_' and '.'",
                self.name
            ));
        }
        if let Err(why) = FunctionName::parse_listed(&self.function) {
            problems.push(format!("function: {why}"));
        }
        for words in &self.schedulers.0 {
            if let Err(why) = SchedulerSpec::from_words(words).build() {
                problems.push(format!("schedulers: {words:?}: {why}"));
            }
        }
        if self.learning == Learning::Node && self.deadlines_s.0.is_empty() {
            problems.push(
                "learning: nodes reward themselves by deadlines_s, which is empty".to_owned(),
            );
        }
        if let Some(key) = beyond_json(&self.learner) {
            problems.push(format!("learner: {key} is no finite number"));
        }
        if self.learning == Learning::Off && !self.learner.is_empty() {
            let act = "which act from a reset on, and with learning = \"off\" nothing is reset";
            problems.push(format!("learner: there are parameters, {act}"));
        }
        let follows = self.arrivals == Process::Poisson && self.traces.0.is_empty();
        let runs_here = |words: &String| {
            let policy = SchedulerSpec::from_words(words).build().ok();
            matches!(policy.and_then(|policy| policy.always()), Some(Decision::RunHere { .. }))
        };
        let stays = self.schedulers.0.iter().all(runs_here);
        if self.theory_service_s.is_some() && !(follows && stays && self.rates.0.len() == 1) {
            let needs = "poisson arrivals at one rate, and a scheduler that runs every call here";
            problems.push(format!("theory_service_s: the closed forms need {needs}"));
        }
        if problems.is_empty() { Ok(()) } else { Err(BadScenario(problems)) }
    }

    /// As a scenario file has it, every key but `rates` or `traces`, of which a run follows one.
    pub fn written(&self) -> String {
        let mut table = Table::try_from(self).unwrap_or_default();
        table.remove(if self.traces.0.is_empty() { "traces" } else { "rates" });
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

/// Seconds within which calls should be answered, one per task type; further types have the last
/// one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Deadlines(pub Vec<f64>);

impl Deadlines {
    /// Of a task type; `None`: no deadline.
    pub fn of(&self, task_type: u32) -> Option<f64> {
        self.0.get(task_type as usize).or(self.0.last()).copied()
    }

    /// Whether a call was answered well (2xx) and in time: what its reward, 1 or 0, says.
    pub fn met(&self, task_type: u32, status: u16, total_s: f64) -> bool {
        (200..300).contains(&status) && self.of(task_type).is_none_or(|limit| total_s <= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Scenario, BadScenario> {
        Scenario::from_table(text.parse().expect("TOML"))
    }

    #[test]
    fn a_sweep_is_all_combinations_with_all_algorithms_on_the_same_requests_first() {
        let scenario = read(
            r#"
            schedulers = ["NoScheduler false", "LearningScheduler 2"]
            load_factors = [1.0, 1.5]
            deadline_factors = [1, 1.3]
            seeds = 7
            deadlines_s = [0.1, 0.2]
            "#,
        )
        .expect("good");
        let points = scenario.points();
        assert_eq!(points.len(), 8);
        assert!(!points[0].learns() && points[1].learns());
        assert_eq!((points[1].load_factor, points[1].deadline_factor), (1.0, 1.0));
        assert_eq!((points[2].load_factor, points[2].deadline_factor), (1.0, 1.3));
        assert_eq!((points[4].load_factor, points[7].seed), (1.5, 7));
        assert_eq!(scenario.deadlines(&points[2]).0, [0.1 * 1.3, 0.2 * 1.3]);
    }

    #[test]
    fn rewards_are_for_good_answers_within_the_types_deadline() {
        let deadlines = Deadlines(vec![0.1, 0.5]);
        assert!(deadlines.met(0, 200, 0.1) && !deadlines.met(0, 200, 0.100_001));
        assert!(deadlines.met(1, 204, 0.5) && deadlines.met(9, 200, 0.5), "the last one goes on");
        assert!(!deadlines.met(0, 500, 0.01) && !deadlines.met(0, 302, 0.01));
        assert!(!deadlines.met(0, 0, 0.01), "no answer");
        assert!(Deadlines::default().met(0, 200, 1e9) && !Deadlines::default().met(0, 503, 0.0));
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let problems = read(
            "duration_s = -1\nrates = []\nname = \"../x\"\nfunction = \"a.b\"\nschedulers = \"Nope\"",
        )
        .expect_err("bad")
        .0;
        for key in ["duration_s", "rates", "name", "function", "Nope"] {
            assert!(problems.iter().any(|why| why.contains(key)), "{key}: {problems:?}");
        }
        let problems = read("durations = 1\nrates = \"x\"\narrivals = 3").expect_err("bad").0;
        for key in ["durations", "rates", "arrivals"] {
            assert!(problems.iter().any(|why| why.contains(key)), "{key}: {problems:?}");
        }
        let problems = read("payloads = [{ mix = 0 }]").expect_err("bad").0;
        assert!(problems[0].contains("payloads"));
        assert!(read("theory_service_s = 0.1\nrates = [1, 2]").is_err());
        let seeds: Vec<u64> = (0..101).collect();
        let factors = vec![1.0; 100];
        let many = |seeds: &[u64]| read(&format!("seeds = {seeds:?}\nload_factors = {factors:?}"));
        assert!(many(&seeds[..100]).is_ok());
        assert!(many(&seeds).expect_err("too many").0[0].contains("10100 runs"));
        assert!(read("theory_service_s = 0.1\nschedulers = \"ForwardScheduler 1\"").is_err());
        assert!(read("traces = \"t.csv\"\nrates = 3").is_err());
        for learner in ["alpha = nan", "reward = { deadlines_s = [inf] }"] {
            let why = read(&format!("[learner]\n{learner}")).expect_err("no JSON").to_string();
            assert!(why.contains("no finite number"), "{why}");
        }
    }

    #[test]
    fn a_scenario_written_out_reads_the_same() {
        let scenario = read(
            r#"
            traces = "traffic_{n}.csv"
            k = 3
            payloads = [{ file = "a/b.jpg", mix = 2 }, { name = "x", task_type = 1 }]
            learner = { alpha = 0.5, reward = { source = "node", deadlines_s = [1] } }
            "#,
        )
        .expect("good");
        assert_eq!(read(&scenario.written()), Ok(scenario.clone()));
        let fixed = Scenario { rates: List(vec![3.0]), ..Scenario::default() };
        assert_eq!(read(&fixed.written()), Ok(fixed));
        assert_eq!(scenario.trace_of(3), Some(PathBuf::from("traffic_3.csv")));
        assert_eq!(scenario.payloads[0].title(), "b.jpg");
    }
}
