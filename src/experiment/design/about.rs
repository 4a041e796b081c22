//! What a run was: everything needed to repeat it.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::scenario::{Deadlines, Point, Scenario};
use crate::policy::registry::SchedulerSpec;

/// A node as it was when the run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAbout {
    /// Where it was reached.
    pub address: String,
    /// What it is called.
    pub name: String,
    /// Its version.
    pub version: String,
    /// K and the queue, as the node's configuration has them.
    pub configuration: Map<String, Value>,
    /// The algorithm in force.
    pub scheduler: SchedulerSpec,
    /// The learner's parameters, if one answered.
    pub learner: Option<Map<String, Value>>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunEnd {
    /// It runs, or its program was killed.
    #[default]
    Unknown,
    /// All was sent.
    Complete,
    /// It was told to stop before that.
    Interrupted,
}

/// How well the load was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadKept {
    /// Calls whose planned time came.
    pub planned: u64,
    /// Of those, sent before the end of the run.
    pub sent_in_time: u64,
    /// Of those, never sent, because too many were under way.
    pub not_sent: u64,
    /// Seconds from planned time to sending: median, 99 % and the most.
    pub late_s: [f64; 3],
    /// Entries that the bench sent to learners.
    pub trained: u64,
    /// Entries that could not be sent.
    pub training_failed: u64,
}

/// A run. What another version of this program wrote is read as far as both know it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The version of the program that measured.
    pub bench_version: String,
    /// The scenario, all keys.
    #[serde(deserialize_with = "known_keys")]
    pub scenario: Scenario,
    /// Which of its combinations.
    pub point: Point,
    /// Seconds within which calls should be answered.
    pub deadlines_s: Deadlines,
    /// What payloads are called, in the scenario's order.
    pub payload_names: Vec<String>,
    /// The nodes, in the order of their numbers.
    pub nodes: Vec<NodeAbout>,
    /// When it began, in Unix seconds.
    pub started: f64,
    /// How it ended.
    pub end: RunEnd,
    /// How well the load was kept.
    pub kept: LoadKept,
}

/// A scenario as it was kept: keys that this version does not know are left out.
fn known_keys<'de, D: Deserializer<'de>>(from: D) -> Result<Scenario, D::Error> {
    let mut keys = Map::<String, Value>::deserialize(from)?;
    keys.retain(|name, _| Scenario::KEYS.iter().any(|key| key.name == name));
    Scenario::deserialize(Value::from(keys)).map_err(D::Error::custom)
}

impl About {
    /// The algorithm's words, as in the scenario; what the nodes have if it names none.
    pub fn scheduler(&self) -> String {
        let of_nodes = || Some(&self.nodes.first()?.scheduler);
        let spec = self.point.scheduler.as_ref().or_else(of_nodes);
        spec.map_or("?".to_owned(), SchedulerSpec::words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_kept_is_read_as_far_as_both_know_it() {
        let mut kept = serde_json::to_value(About::default()).expect("JSON");
        kept["scenario"]["a_key_to_come"] = 7.into();
        kept["scenario"]["duration_s"] = 9.into();
        kept["something"] = "new".into();
        kept.as_object_mut().expect("an object").remove("kept");
        let read: About = serde_json::from_value(kept).expect("readable");
        assert_eq!((read.scenario.duration_s, read.kept), (9.0, LoadKept::default()));
    }
}
