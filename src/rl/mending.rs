//! Parameters that P2PFaaS v1 saved: its learner takes any number, and keeps what it is given.

use serde_json::{Map, Value};

use super::parameters::Parameters;
use super::window::ENTRY_BYTES;
use crate::keys::{Key, Notation};
use crate::types::Mended;

impl Parameters {
    /// `saved` with each number and each truth value that means nothing at the nearest one that does, or
    /// without it where none is near: then that of these parameters holds. And what was taken for what.
    /// Words and tables stay as they are, since v1 has none.
    pub fn mended(&self, saved: &Map<String, Value>) -> (Map<String, Value>, Vec<Mended>) {
        let (mut values, mut all) = (saved.clone(), Vec::new());
        for key in Self::KEYS {
            let numbers = matches!(key.notation, Notation::Number | Notation::Boolean);
            let Some(given) = saved.get(key.name).filter(|_| numbers) else { continue };
            if self.takes(key, given) {
                continue;
            }
            let nearest = key.nearest(given).filter(|nearest| self.takes(key, nearest));
            let taken = match nearest {
                Some(nearest) => {
                    values.insert(key.name.to_owned(), nearest.clone()).map(|_| nearest)
                }
                None => values.remove(key.name).and_then(|_| self.own(key)),
            };
            all.push(Mended::of(key.name, given, taken.unwrap_or_default()));
        }
        self.mend_window(&mut values, &mut all);
        (values, all)
    }

    /// Whether `value` can be that key's.
    fn takes(&self, key: &Key, value: &Value) -> bool {
        let mut problems = Vec::new();
        let one = Map::from_iter([(key.name.to_owned(), value.clone())]);
        self.clone().read(&one, &mut problems);
        problems.is_empty()
    }

    /// The value that the key has here.
    fn own(&self, key: &Key) -> Option<Value> {
        self.values([key.name].into_iter()).remove(key.name)
    }

    /// Has the window be no larger than what may be held for it.
    fn mend_window(&self, values: &mut Map<String, Value>, all: &mut Vec<Mended>) {
        const WINDOW: &str = "window_size";
        let mut merged = self.clone();
        merged.read(values, &mut Vec::new());
        let held_max = merged.entries_held_max.min(merged.window_bytes() / ENTRY_BYTES) as u64;
        if merged.window_size <= held_max {
            return;
        }
        let given = values.insert(WINDOW.to_owned(), held_max.into());
        match all.iter_mut().find(|mended| mended.key == WINDOW) {
            Some(mended) => mended.taken = held_max.to_string(),
            None => {
                let given = given.unwrap_or_else(|| merged.window_size.into());
                all.push(Mended::of(WINDOW, given, held_max));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mended(saved: Value) -> (Parameters, Vec<String>) {
        let Value::Object(saved) = saved else { panic!("an object") };
        let base = Parameters::default();
        let (values, all) = base.mended(&saved);
        let told = all.iter().map(|m| format!("{}: {} → {}", m.key, m.given, m.taken));
        (base.merged(&values).expect("mended"), told.collect())
    }

    #[test]
    fn what_v1_s_learner_keeps_is_taken_at_the_nearest_that_means_something() {
        for (saved, told) in [
            (json!({"window_size": 1}), "window_size: 1 → 2"),
            (json!({"window_size": 0}), "window_size: 0 → 2"),
            (json!({"window_size": -7}), "window_size: -7 → 2"),
            (json!({"window_size": 200_000}), "window_size: 200000 → 100000"),
            (json!({"window_size": 1e300}), "window_size: 1e+300 → 100000"),
            (json!({"alpha": 5}), "alpha: 5 → 1.0"),
            (json!({"alpha": "NaN"}), "alpha: \"NaN\" → 0.01"),
            (json!({"beta": -1}), "beta: -1 → 0.0"),
            (json!({"epsilon_start": 2}), "epsilon_start: 2 → 1.0"),
            (json!({"epsilon_min": "-inf"}), "epsilon_min: \"-inf\" → 0.0"),
            (json!({"epsilon_decay": "1.5"}), "epsilon_decay: \"1.5\" → 1.0"),
            (json!({"epsilon_decay_enabled": 0}), "epsilon_decay_enabled: 0 → false"),
            (json!({"epsilon_decay_enabled": null}), "epsilon_decay_enabled: null → true"),
            (json!({"entry_missing_max_attempts": -1}), "entry_missing_max_attempts: -1 → 0"),
            (json!({"actions_n": 3.0}), "actions_n: 3.0 → 3"),
            (json!({"actions_n": "3"}), "actions_n: \"3\" → 3"),
            (json!({"actions_n": null}), "actions_n: null → 2"),
            (json!({"actions_n": 0}), "actions_n: 0 → 1"),
            (json!({"actions_n": 1_000_000}), "actions_n: 1000000 → 4096"),
            (json!({"actions_n": {"n": 3}}), "actions_n: {\"n\":3} → 2"),
        ] {
            assert_eq!(mended(saved.clone()).1, [told], "{saved}");
        }
        let (read, all) = mended(json!({"actions_n": "3", "alpha": 0.5, "of_v1_only": [null]}));
        assert_eq!((read.actions_n, read.alpha, all.len()), (3, 0.5, 1));
    }

    #[test]
    fn what_means_something_stays_as_it_is_and_words_are_nobody_s_to_guess() {
        let Ok(Value::Object(all)) = serde_json::to_value(Parameters::default()) else {
            panic!("an object")
        };
        assert_eq!(Parameters::default().mended(&all), (all, Vec::new()));
        let Value::Object(words) = json!({"td_form": 3, "reward": ["client"]}) else { return };
        let (values, told) = Parameters::default().mended(&words);
        assert_eq!((&values, told), (&words, Vec::new()));
        assert!(Parameters::default().merged(&values).is_err());
    }
}
