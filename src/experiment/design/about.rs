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
    /// What the algorithm had learnt when the run ended; `None`: it has no memory, or the node was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Value>,
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

/// The least share of the planned calls, in per cent, that is sent in time in an undisturbed run.
const SENT_MIN: u64 = 99;
/// The most seconds late of one call in a hundred in an undisturbed run.
const LATE_MAX_S: f64 = 0.01;

impl LoadKept {
    /// Whether something beside the nodes had its part in the figures: fewer than 99 % of the calls
    /// were sent in time, or one in a hundred more than 10 ms late.
    ///
    /// A latency counts from the planned time, so that lateness is in every latency and shifts the
    /// shares in time; and calls that were not sent did not load the nodes. A machine with time to
    /// spare sends 99 % within 2 ms (`benches/README.md`). One beside other work was 17 ms late, and
    /// the shares that it measured were off by three points, more than a usual interval is wide.
    pub fn disturbed(&self) -> bool {
        let sent_in_time = u128::from(self.sent_in_time) * 100;
        sent_in_time < u128::from(self.planned) * u128::from(SENT_MIN)
            || self.planned > 0 && self.late_s[1] > LATE_MAX_S
    }
}

/// A run. What another version of this program wrote is read as far as both know it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The version of the program that measured.
    pub bench_version: String,
    /// Whether it was simulated. Then times count from 0.
    pub simulated: bool,
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
    fn a_run_is_disturbed_when_its_calls_were_sent_late_or_not_in_time() {
        let kept = |planned, sent_in_time, late_s| LoadKept {
            planned,
            sent_in_time,
            late_s: [0.0, late_s, 1.0],
            ..LoadKept::default()
        };
        for (of, disturbed) in [
            (kept(1000, 1000, 0.000_1), false),
            (kept(1000, 1000, 0.01), false),
            (kept(1000, 1000, 0.017), true),
            (kept(1000, 990, 0.0), false),
            (kept(1000, 989, 0.0), true),
            // It did not come to tell.
            (LoadKept::default(), false),
        ] {
            assert_eq!(of.disturbed(), disturbed, "{of:?}");
        }
    }

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
