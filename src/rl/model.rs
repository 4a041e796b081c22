//! The model: all that was learnt, as it stands in its file and travels between nodes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Eid;
use super::parameters::Parameters;

/// The version of the form below.
pub const FORMAT: u32 = 1;

/// What was counted since the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Entries trained, each once.
    pub trained_items: u64,
    /// Windows trained.
    pub windows_trained: u64,
    /// Entries that came after their turn.
    pub late: u64,
    /// Entries whose EID was held already.
    pub duplicate: u64,
    /// EIDs given up.
    pub skipped: u64,
    /// The largest EID that came.
    pub eid_max_seen: Eid,
    /// The EID of the entry trained last.
    pub eid_last_trained: Eid,
    /// |δ|, averaged with weight 1/1000 for the newest.
    pub mean_abs_delta: f64,
}

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    /// [`FORMAT`].
    pub format: u32,
    /// What it was learnt under: [`Parameters::shape`].
    pub shape: Map<String, Value>,
    /// R̄.
    pub average_reward: f64,
    /// ε.
    pub epsilon: f64,
    /// Decisions taken.
    #[serde(default)]
    pub inferences: u64,
    /// Decisions taken in the process, by action.
    #[serde(default)]
    pub decisions: Vec<u64>,
    /// What else was counted.
    #[serde(default, deserialize_with = "crate::types::object")]
    pub counters: Counters,
    /// Entries with EIDs below this were learnt from or given up.
    #[serde(default)]
    pub expected_eid: Eid,
    /// The value function's own.
    pub values: Box<RawValue>,
}

/// Why a model cannot be used; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model does not fit: {0}")]
pub struct Unfit(pub String);

impl Model {
    /// Whether it was learnt under parameters like these, by all but its values.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self, parameters: &Parameters) -> Result<(), Unfit> {
        if self.format != FORMAT {
            return Err(Unfit(format!("its format is {}, not {FORMAT}", self.format)));
        }
        let shape = parameters.shape();
        // What the model does not have follows from what it has otherwise.
        let (both, missing) =
            shape.iter().partition::<Vec<_>, _>(|(key, _)| self.shape.contains_key(*key));
        for (key, wanted) in both.into_iter().chain(missing) {
            let has = self.shape.get(key).unwrap_or(&Value::Null);
            if has != wanted {
                return Err(Unfit(format!("its {key} is {has}, the learner's is {wanted}")));
            }
        }
        if !(0.0..=1.0).contains(&self.epsilon) || !self.average_reward.is_finite() {
            let (epsilon, average) = (self.epsilon, self.average_reward);
            return Err(Unfit(format!("its epsilon is {epsilon}, its average reward {average}")));
        }
        Ok(())
    }
}
