//! Types of a scenario's values that are its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::world::numbers_within;
use crate::experiment::design::arrivals::Process;
use crate::experiment::design::azure::SECONDS_MAX;
use crate::keys::{Allowed, KeyValue, Notation, Problem, within};

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
    /// The calls' query; `{seed}` in it becomes a number of the request's own, and `{duration_ms}` what the
    /// call took where it was recorded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
}

impl Payload {
    /// What `mix` can be.
    pub(super) const MIX: Allowed = within(0.0, 1e9);

    /// What it is called in the results.
    pub fn title(&self) -> String {
        let file = || Some(self.file.as_ref()?.file_name()?.to_string_lossy().into_owned());
        let given = Some(self.name.clone()).filter(|name| !name.is_empty());
        given.or_else(file).unwrap_or_else(|| format!("type-{}", self.task_type))
    }
}

/// Arrivals from a recording, in place of rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedArrivals {
    /// The recording, in one of the layouts of [`azure`](crate::experiment::design::azure).
    pub file: PathBuf,
    /// The second of the recording that a run begins with, 0 to 10⁹.
    #[serde(default)]
    pub from_s: f64,
    /// Recorded seconds that pass in one second of a run, 10⁻⁶ to 10⁶.
    #[serde(default = "as_recorded")]
    pub speed: f64,
}

fn as_recorded() -> f64 {
    1.0
}

impl RecordedArrivals {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        numbers_within("recording", &[("from_s", self.from_s)], 0.0..=SECONDS_MAX, problems);
        numbers_within("recording", &[("speed", self.speed)], 1e-6..=1e6, problems);
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

    /// The reward of a call, 1 or 0; 0 where there are no deadlines.
    pub fn reward(&self, task_type: u32, status: u16, total_s: f64) -> f64 {
        let in_time = !self.0.is_empty() && self.met(task_type, status, total_s);
        f64::from(u8::from(in_time))
    }
}

/// Which words these are, each key of such a type says.
macro_rules! words {
    ($($type:ty),+) => { $(
        impl KeyValue for $type {
            const NOTATION: Notation = Notation::Text;
            const NOUN: &'static str = "a word";
        }
    )+ };
}

words!(Process, Learning);

impl KeyValue for Payload {
    const NOTATION: Notation = Notation::Table;
    const NOUN: &'static str = "";
}

impl KeyValue for RecordedArrivals {
    const NOTATION: Notation = Notation::Table;
    const NOUN: &'static str = "";
}

/// Parameters of learners, which check them.
impl KeyValue for Map<String, Value> {
    const NOTATION: Notation = Notation::Table;
    const NOUN: &'static str = "";
}
