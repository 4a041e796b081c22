//! The learner's parameters: what `POST /learner/parameters` takes and the learner's file holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::behaviour::Decay;
use super::reward::RewardRule;
use super::window::{ENTRY_BYTES, WindowRules};
use crate::keys::{
    Key, KeySource, KeyValue, Notation, Problem, Unreadable, above, at_least, form, joined,
    key_table, one_of, within,
};

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
#[error("{}", joined(.0, "; "))]
pub struct BadLearnerParameters(pub Vec<Problem>);

key_table! {
    /// All of them.
    #[derive(Clone, Debug, PartialEq, Serialize)]
    pub struct Parameters {
        "What is learnt" {
            /// Actions: three, and one for each peer that the learner may choose by name.
            actions_n: usize = 2
                => unit: "actions", allowed: within(1.0, ACTIONS_MAX as f64), at_reset: true;
            /// How Q(s, a) is stored and generalised: a table of states, tile coding, or states
            /// clustered by k-means.
            value_function: String = "qtable".to_owned() => at_reset: true;
            /// What a transition teaches: differential Sarsa, the same with the best next action,
            /// or discounted Q-learning.
            td_form: String = "sarsa_average_reward".to_owned() => at_reset: true;
            /// α, the step size of the value function.
            alpha: f64 = 0.01 => allowed: within(0.0, 1.0);
            /// β, the step size of the average reward R̄.
            beta: f64 = 0.01 => allowed: within(0.0, 1.0);
            /// γ, the discount of `q_learning`.
            gamma: f64 = 0.9 => allowed: within(0.0, 1.0);
            /// With `v1` it is P2PFaaS v1's learner to the last bit, which has one value function
            /// and one TD form. Acts at once while nothing was learnt yet.
            compatibility: Compatibility = Compatibility::None
                => allowed: one_of(|| vec!["none", "v1"]), at_reset: true;
        }

        "Exploration" {
            /// ε after a reset.
            epsilon_start: f64 = 0.9 => allowed: within(0.0, 1.0), at_reset: true;
            /// Where ε stops falling.
            epsilon_min: f64 = 0.1 => allowed: within(0.0, 1.0);
            /// The factor by which ε falls at every decision.
            epsilon_decay: f64 = 0.99 => allowed: within(0.0, 1.0);
            /// Whether ε falls.
            epsilon_decay_enabled: bool = true;
        }

        "Rewards and their order" {
            /// Who tells what a decision was worth.
            reward: RewardRule = RewardRule::Client
                => allowed: form(|| "by clients, or by the node with its deadlines".to_owned());
            /// The largest magnitude of a reward that a client may tell.
            reward_abs_max: f64 = 1e5 => allowed: above(0.0, 1e12);
            /// W, entries in a window; not more than `entries_held_max`.
            window_size: u64 = 5 => unit: "entries", allowed: at_least(2.0);
            /// Entries beyond a gap of EIDs after which the gap is skipped.
            entry_missing_max_attempts: u64 = 100 => unit: "entries";
            /// How far an EID may be beyond all before; a client that counts by one never notices.
            eids_ahead_max: u64 = 1_000_000 => unit: "EIDs", allowed: within(1.0, EIDS_AHEAD_MAX);
            /// Entries held for reordering; at the bound the oldest gap is skipped.
            entries_held_max: usize = 100_000 => unit: "entries", allowed: within(2.0, 1e7);
        }

        "Parameters of one value function" {
            /// `qtable`: states remembered at most; further ones stay at zero.
            states_max: usize = 100_000
                => unit: "states", allowed: within(1.0, 1e7), at_reset: true;
            /// `tiles`: tilings.
            tilings: usize = 8 => unit: "tilings", allowed: within(1.0, 1024.0), at_reset: true;
            /// `tiles`: weights in all.
            tiles_size: usize = 65_536
                => unit: "weights", allowed: within(1.0, 1e7), at_reset: true;
            /// `tiles`: tiles per unit of a feature.
            tiles_scale: f64 = 1.0 => unit: "tiles", allowed: above(0.0, 1e6), at_reset: true;
            /// `kmeans`: clusters at most.
            clusters: usize = 32 => unit: "clusters", allowed: within(1.0, 4096.0), at_reset: true;
            /// `kmeans`: states seen between two fits.
            refit_states: usize = 1000 => unit: "states", allowed: within(1.0, 1e5), at_reset: true;
        }
    }
    beside {
        /// Bytes that what is learnt and held may take. No parameter that is posted or saved: a
        /// setting of
        /// the node.
        #[serde(skip)]
        memory_bytes: usize = 1 << 30;
    }
}

impl KeyValue for Compatibility {
    const NOTATION: Notation = Notation::Text;
    const NOUN: &'static str = "a word";
}

impl KeyValue for RewardRule {
    const NOTATION: Notation = Notation::Table;
    const NOUN: &'static str = "";
}

/// Parameters that somebody posted, or that were saved.
struct Posted<'a>(&'a Map<String, Value>);

impl KeySource for Posted<'_> {
    fn value<T: KeyValue>(&self, key: &Key) -> Option<Result<T, Unreadable>> {
        let value = self.0.get(key.name)?;
        let unreadable = |why: String| Unreadable { given: value.to_string(), why };
        Some(match value {
            // Serde takes a list for a struct, too.
            Value::Array(_) if !T::LIST => Err(unreadable("it is a list".to_owned())),
            _ => T::deserialize(value).map_err(|why| unreadable(why.to_string())),
        })
    }
}

impl Parameters {
    /// Takes over what `from` has, and notes what cannot be read or is out of range.
    pub(super) fn read(&mut self, from: &Map<String, Value>, problems: &mut Vec<Problem>) {
        self.read_keys(&Posted(from), problems);
    }

    /// The values of these keys.
    pub(super) fn values<'a>(&self, names: impl Iterator<Item = &'a str>) -> Map<String, Value> {
        let all = match serde_json::to_value(self) {
            Ok(Value::Object(all)) => all,
            _ => Map::new(),
        };
        let pairs = names.filter_map(|name| all.get_key_value(name));
        pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// These where they act at once, and `running` where they act from the next reset on.
    #[must_use]
    pub fn acting_on(&self, running: &Self) -> Self {
        let at_reset = Self::KEYS.iter().filter(|key| key.at_reset).map(|key| key.name);
        let mut acting = self.clone();
        // They were checked before.
        acting.read(&running.values(at_reset), &mut Vec::new());
        acting
    }

    /// Checks what several parameters must be together, as far as it can be told without knowing what the
    /// registry lists.
    pub(super) fn check_together(&self, problems: &mut Vec<Problem>) {
        let window = usize::try_from(self.window_size).unwrap_or(usize::MAX);
        if window > self.entries_held_max {
            let why = format!("{window} is more than entries_held_max, {}", self.entries_held_max);
            problems.push(Problem::of("window_size", why));
        }
        check_room(
            "window_size",
            window.saturating_mul(ENTRY_BYTES),
            self.window_bytes(),
            problems,
        );
        if let Err(why) = self.reward.check() {
            problems.push(Problem::of("reward", why));
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
pub(super) fn check_room(key: &str, need: usize, there: usize, problems: &mut Vec<Problem>) {
    if need > there {
        let why = format!(
            "that takes {need} bytes of memory, and there are {there} for it, by the node's setting \
             learner_memory_bytes_max"
        );
        problems.push(Problem::of(key, why));
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

    #[test]
    fn a_window_that_could_never_fill_is_refused_with_both_keys() {
        let why = merged(json!({"window_size": 9, "entries_held_max": 8})).expect_err("too large");
        assert_eq!(why, "window_size: 9 is more than entries_held_max, 8");
    }

    #[test]
    fn every_default_is_in_its_range() {
        let all = serde_json::to_value(Parameters::default()).expect("JSON");
        assert_eq!(merged(all), Ok(Parameters::default()));
    }
}
