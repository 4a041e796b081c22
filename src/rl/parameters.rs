//! The learner's parameters: what `POST /learner/parameters` takes and the learner's file holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::behaviour::Decay;
use super::reward::RewardRule;
use super::window::{ENTRY_BYTES, WindowRules};
use crate::types::cut;

/// Whose learner it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compatibility {
    /// Ours.
    #[default]
    None,
    /// P2PFaaS v1's, to the last bit: R̄ ← R + β δ, windows that do not overlap, glued state keys.
    V1,
}

/// Actions at most.
pub const ACTIONS_MAX: usize = 4096;
/// 2^62: with it no sum of EIDs overflows.
const EIDS_AHEAD_MAX: f64 = 4_611_686_018_427_387_904.0;

/// Parameters that cannot be used; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct BadLearnerParameters(pub Vec<String>);

macro_rules! parameters {
    ($( $(#[doc = $doc:literal])+ $acts:ident $name:ident: $type:ty = $default:expr; )+) => {
        /// All of them. Those marked *reset* act from the next reset on, all others at once.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct Parameters {
            $( $(#[doc = $doc])+ pub $name: $type, )+
            /// Bytes that what is learnt and held may take. No parameter that is posted or saved: a
            /// setting of the node.
            #[serde(skip)]
            pub memory_bytes: usize,
        }

        impl Default for Parameters {
            fn default() -> Self {
                Self { $( $name: $default, )+ memory_bytes: 1 << 30 }
            }
        }

        impl Parameters {
            /// Takes over what `from` has, and notes what is of a wrong type.
            pub(super) fn read(&mut self, from: &Map<String, Value>, problems: &mut Vec<String>) {
                $( if let Some(value) = from.get(stringify!($name)) {
                    match <$type>::deserialize(value) {
                        // Serde takes a list for a struct, too.
                        _ if value.is_array() => {
                            problems.push(format!("{}: it is a list", stringify!($name)));
                        }
                        Ok(value) => self.$name = value,
                        Err(why) => {
                            let why = why.to_string();
                            problems.push(format!("{}: {}", stringify!($name), cut(&why)));
                        }
                    }
                } )+
            }

            /// These where they act at once, and `running` where they act from the next reset on.
            #[must_use]
            pub fn acting_on(&self, running: &Self) -> Self {
                let memory_bytes = self.memory_bytes;
                Self { $( $name: parameters!(@$acts self running $name), )+ memory_bytes }
            }
        }
    };
    (@once $new:ident $running:ident $name:ident) => { $new.$name.clone() };
    (@reset $new:ident $running:ident $name:ident) => { $running.$name.clone() };
}

parameters! {
    /// Actions, 1 to 4096. *reset*
    reset actions_n: usize = 2;
    /// α, the step size of the value function, 0 to 1.
    once alpha: f64 = 0.01;
    /// β, the step size of the average reward, 0 to 1.
    once beta: f64 = 0.01;
    /// W, entries in a window, 2 to `entries_held_max`.
    once window_size: u64 = 5;
    /// ε after a reset, 0 to 1. *reset*
    reset epsilon_start: f64 = 0.9;
    /// Where ε stops falling, 0 to 1.
    once epsilon_min: f64 = 0.1;
    /// The factor by which ε falls at every decision, 0 to 1.
    once epsilon_decay: f64 = 0.99;
    /// Whether ε falls.
    once epsilon_decay_enabled: bool = true;
    /// Arrivals beyond a gap of EIDs after which it is skipped.
    once entry_missing_max_attempts: u64 = 100;
    /// The name of a value function in the [registry](super::registry). *reset*
    reset value_function: String = "qtable".to_owned();
    /// The name of a TD form in the [registry](super::registry). *reset*
    reset td_form: String = "sarsa_average_reward".to_owned();
    /// γ of `q_learning`, 0 to 1.
    once gamma: f64 = 0.9;
    /// `none` or `v1`. *reset*, or at once while nothing was learnt yet.
    reset compatibility: Compatibility = Compatibility::None;
    /// Who rewards: `{"source":"client"}` or `{"source":"node","deadlines_s":[…]}`.
    once reward: RewardRule = RewardRule::Client;
    /// The magnitude of a reward that is told at most, above 0, at most 1e12.
    once reward_abs_max: f64 = 1e5;
    /// How far an EID that is told may be beyond all before, 1 to 4611686018427387904 (2^62).
    once eids_ahead_max: u64 = 1_000_000;
    /// Entries held for reordering at most, 2 to 10000000.
    once entries_held_max: usize = 100_000;
    /// `qtable`: states remembered at most, 1 to 10000000. *reset*
    reset states_max: usize = 100_000;
    /// `tiles`: tilings, 1 to 1024. *reset*
    reset tilings: usize = 8;
    /// `tiles`: weights, 1 to 10000000. *reset*
    reset tiles_size: usize = 65_536;
    /// `tiles`: tiles per unit of a feature, above 0, at most 1000000. *reset*
    reset tiles_scale: f64 = 1.0;
    /// `kmeans`: clusters at most, 1 to 4096. *reset*
    reset clusters: usize = 32;
    /// `kmeans`: states seen between two fits, 1 to 100000. *reset*
    reset refit_states: usize = 1000;
}

impl Parameters {
    /// Checks all that can be told without knowing what the registry lists; names every problem.
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut range = |key: &str, value: f64, low: f64, high: f64| {
            if !(low..=high).contains(&value) {
                problems.push(format!("{key}: {value} is not within {low} to {high}"));
            }
        };
        range("actions_n", self.actions_n as f64, 1.0, ACTIONS_MAX as f64);
        range("entries_held_max", self.entries_held_max as f64, 2.0, 1e7);
        range("window_size", self.window_size as f64, 2.0, self.entries_held_max.max(2) as f64);
        range("reward_abs_max", self.reward_abs_max, f64::MIN_POSITIVE, 1e12);
        range("eids_ahead_max", self.eids_ahead_max as f64, 1.0, EIDS_AHEAD_MAX);
        range("states_max", self.states_max as f64, 1.0, 1e7);
        range("tilings", self.tilings as f64, 1.0, 1024.0);
        range("tiles_size", self.tiles_size as f64, 1.0, 1e7);
        range("tiles_scale", self.tiles_scale, f64::MIN_POSITIVE, 1e6);
        range("clusters", self.clusters as f64, 1.0, 4096.0);
        range("refit_states", self.refit_states as f64, 1.0, 1e5);
        for (key, value) in [
            ("alpha", self.alpha),
            ("beta", self.beta),
            ("gamma", self.gamma),
            ("epsilon_start", self.epsilon_start),
            ("epsilon_min", self.epsilon_min),
            ("epsilon_decay", self.epsilon_decay),
        ] {
            range(key, value, 0.0, 1.0);
        }
        let window = usize::try_from(self.window_size).unwrap_or(usize::MAX);
        check_room(
            "window_size",
            window.saturating_mul(ENTRY_BYTES),
            self.window_bytes(),
            problems,
        );
        if let Err(why) = self.reward.check() {
            problems.push(format!("reward: {why}"));
        }
    }

    /// Bytes that the value function may take, its copies and its text when it is saved included:
    /// three quarters of the learner's memory.
    pub fn values_bytes(&self) -> usize {
        self.memory_bytes / 4 * 3
    }

    /// Bytes that entries held for reordering may take: an eighth of the learner's memory.
    pub fn window_bytes(&self) -> usize {
        self.memory_bytes / 8
    }

    /// Bytes that the node's own rewards may take until they are trained on: an eighth as well.
    pub fn waiting_bytes(&self) -> usize {
        self.memory_bytes / 8
    }

    /// How the window works by these.
    pub fn window_rules(&self) -> WindowRules {
        WindowRules {
            window: self.window_size,
            overlap: self.compatibility == Compatibility::None,
            attempts: self.entry_missing_max_attempts,
            held_max: self.entries_held_max,
            bytes_max: self.window_bytes(),
        }
    }

    /// How ε falls by these.
    pub fn decay(&self) -> Decay {
        Decay {
            min: self.epsilon_min,
            factor: self.epsilon_decay,
            enabled: self.epsilon_decay_enabled,
        }
    }
}

/// Notes a problem if what the parameter `key` asks for takes more memory than there is for it.
pub(super) fn check_room(key: &str, need: usize, there: usize, problems: &mut Vec<String>) {
    if need > there {
        problems.push(format!(
            "{key}: that takes {need} bytes of memory, and there are {there} for it, by the node's \
             setting learner_memory_bytes_max"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(patch: Value) -> Result<Parameters, String> {
        let Value::Object(patch) = patch else { panic!("an object") };
        Parameters::default().merged(&patch).map_err(|why| why.to_string())
    }

    #[test]
    fn defaults_are_those_of_v1_and_unknown_keys_are_ignored() {
        let Ok(Value::Object(shown)) = serde_json::to_value(merged(json!({"x": 1}))) else {
            panic!("an object")
        };
        let shown = &shown["Ok"];
        for (key, value) in [
            ("actions_n", json!(2)),
            ("alpha", json!(0.01)),
            ("beta", json!(0.01)),
            ("window_size", json!(5)),
            ("epsilon_start", json!(0.9)),
            ("epsilon_min", json!(0.1)),
            ("epsilon_decay", json!(0.99)),
            ("epsilon_decay_enabled", json!(true)),
            ("entry_missing_max_attempts", json!(100)),
            ("reward", json!({"source": "client"})),
            ("compatibility", json!("none")),
        ] {
            assert_eq!(shown[key], value, "{key}");
        }
        assert_eq!(Parameters::default().learner_name(), "SarsaQTable");
    }

    #[test]
    fn every_wrong_value_is_named() {
        for (patch, key) in [
            (json!({"alpha": "0.1"}), "alpha"),
            (json!({"alpha": 1.5}), "alpha"),
            (json!({"epsilon_decay": -0.1}), "epsilon_decay"),
            (json!({"window_size": 1}), "window_size"),
            (json!({"window_size": 2.5}), "window_size"),
            (json!({"window_size": 200_000}), "window_size"),
            (json!({"actions_n": 0}), "actions_n"),
            (json!({"actions_n": null}), "actions_n"),
            (json!({"epsilon_decay_enabled": 1}), "epsilon_decay_enabled"),
            (json!({"value_function": "net"}), "value_function"),
            (json!({"td_form": 3}), "td_form"),
            (json!({"reward": {"source": "node"}}), "reward"),
            (json!({"reward": {"source": "node", "deadlines_s": [0]}}), "reward"),
            (json!({"reward": "node"}), "reward"),
            (json!({"reward": {"source": "node", "deadlines_s": [1], "x": 1}}), "reward"),
            (json!({"reward_abs_max": 0.0}), "reward_abs_max"),
            (json!({"reward_abs_max": 2e12}), "reward_abs_max"),
            (json!({"eids_ahead_max": 0}), "eids_ahead_max"),
            (json!({"eids_ahead_max": u64::MAX}), "eids_ahead_max"),
            (json!({"compatibility": "v2"}), "compatibility"),
            (json!({"compatibility": "v1", "value_function": "tiles"}), "compatibility"),
            (json!({"compatibility": "v1", "td_form": "q_learning"}), "compatibility"),
        ] {
            let error = merged(patch.clone()).expect_err(key);
            assert!(error.starts_with(key), "{patch}: {error}");
        }
        let two = merged(json!({"alpha": 2, "beta": 2})).expect_err("two problems");
        assert!(two.contains("alpha") && two.contains("beta"), "{two}");
        assert!(merged(json!({"epsilon_start": 0.05})).is_ok(), "below epsilon_min is fine");
    }

    #[test]
    fn what_makes_a_learner_waits_for_a_reset_and_all_else_acts_at_once() {
        let posted = merged(json!({
            "actions_n": 5, "epsilon_start": 0.5, "value_function": "tiles", "td_form":
            "q_learning", "tilings": 4, "alpha": 0.2, "window_size": 9, "gamma": 0.5,
        }))
        .expect("good");
        let running = posted.acting_on(&Parameters::default());
        let once = Parameters { alpha: 0.2, window_size: 9, gamma: 0.5, ..Parameters::default() };
        assert_eq!(running, once);
    }

    #[test]
    fn the_shape_of_a_model_is_that_of_its_value_function() {
        let keys = |patch| merged(patch).expect("good").shape().keys().cloned().collect::<Vec<_>>();
        let common = ["actions_n", "compatibility", "td_form", "value_function"];
        assert_eq!(keys(json!({})), common);
        assert!(keys(json!({"value_function": "tiles"})).contains(&"tiles_scale".to_owned()));
    }
}
