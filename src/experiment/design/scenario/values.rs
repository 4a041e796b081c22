//! Types of a scenario's values that are its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::experiment::design::arrivals::Process;
use crate::keys::{Allowed, KeyValue, Notation, within};

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
    /// What `mix` can be.
    pub(super) const MIX: Allowed = within(0.0, 1e9);

    /// What it is called in the results.
    pub fn title(&self) -> String {
        let file = || Some(self.file.as_ref()?.file_name()?.to_string_lossy().into_owned());
        let given = Some(self.name.clone()).filter(|name| !name.is_empty());
        given.or_else(file).unwrap_or_else(|| format!("type-{}", self.task_type))
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

/// Parameters of learners, which check them.
impl KeyValue for Map<String, Value> {
    const NOTATION: Notation = Notation::Table;
    const NOUN: &'static str = "";
}
