//! The value functions and the TD forms by name. This is the one place that knows them all, and the one
//! that checks parameters against them. What one is like stands in its own file.
//!
//! To add a value function: its file in `value/`, which says what it is in a `LISTED`, declared in
//! `value/mod.rs`, and its line in [`VALUE_FUNCTIONS`]. To add a TD form: the same in `td/`, with its
//! line in [`TD_FORMS`].

use serde_json::{Map, Value};

use super::parameters::{BadLearnerParameters, Compatibility, Parameters, check_room};
use super::td::{self, ListedTdForm};
use super::value::{self, ListedValueFunction};
use crate::keys::{Allowed, Column, Key, KeyValue, Problem, one_of, tables};

/// All value functions.
pub const VALUE_FUNCTIONS: &[ListedValueFunction] = &[
    // The default.
    value::qtable::LISTED,
    value::tiles::LISTED,
    value::kmeans::LISTED,
];

/// All TD forms.
pub const TD_FORMS: &[ListedTdForm] = &[
    // The default.
    td::sarsa_average_reward::LISTED,
    td::q_average_reward::LISTED,
    td::q_learning::LISTED,
];

/// What `value_function` can be.
const VALUE_FUNCTION: Allowed = one_of(|| VALUE_FUNCTIONS.iter().map(|l| l.name).collect());
/// What `td_form` can be.
const TD_FORM: Allowed = one_of(|| TD_FORMS.iter().map(|listed| listed.name).collect());

/// Names as a text lists them.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(" or ")
}

impl Parameters {
    /// These with those replaced that `patch` names; keys that are none are ignored.
    ///
    /// # Errors
    /// Every value that is of a wrong type or out of range, with its key.
    pub fn merged(&self, patch: &Map<String, Value>) -> Result<Self, BadLearnerParameters> {
        let (mut merged, mut problems) = (self.clone(), Vec::new());
        merged.read(patch, &mut problems);
        merged.check_together(&mut problems);
        merged.check_listed(&mut problems);
        if problems.is_empty() { Ok(merged) } else { Err(BadLearnerParameters(problems)) }
    }

    /// Checks what follows from the value function and the TD form; names every problem.
    fn check_listed(&self, problems: &mut Vec<Problem>) {
        let (value, td) = (self.value(), self.td());
        check_room(value.sized_by, (value.least_bytes)(self), self.values_bytes(), problems);
        for (key, name, allowed) in [
            ("value_function", &self.value_function, VALUE_FUNCTION),
            ("td_form", &self.td_form, TD_FORM),
        ] {
            problems.extend(name.check(&allowed).err().map(|why| Problem::of(key, why)));
        }
        let in_v1 = value.in_v1 && td.as_v1.is_some();
        if self.compatibility == Compatibility::V1 && !in_v1 {
            let values = VALUE_FUNCTIONS.iter().filter(|listed| listed.in_v1);
            let forms = TD_FORMS.iter().filter(|listed| listed.as_v1.is_some());
            let why = format!(
                "v1 has the value function {} and the TD form {} only",
                listed(values.map(|listed| listed.name)),
                listed(forms.map(|listed| listed.name)),
            );
            problems.push(Problem::of("compatibility", why));
        }
    }

    /// The value function that these name.
    pub fn value(&self) -> &'static ListedValueFunction {
        let named = VALUE_FUNCTIONS.iter().find(|listed| listed.name == self.value_function);
        named.unwrap_or(&VALUE_FUNCTIONS[0])
    }

    /// The TD form that these name.
    pub fn td(&self) -> &'static ListedTdForm {
        TD_FORMS.iter().find(|listed| listed.name == self.td_form).unwrap_or(&TD_FORMS[0])
    }

    /// What v1 calls the learner: `SarsaQTable`.
    pub fn learner_name(&self) -> String {
        format!("{}{}", self.td().title, self.value().title)
    }

    /// The values that a model must have been learnt under to fit these.
    pub fn shape(&self) -> Map<String, Value> {
        let of_all = ["actions_n", "value_function", "td_form", "compatibility"];
        self.values(of_all.iter().chain(self.value().shape).copied())
    }

    /// All parameters, for the book: a table of Markdown below each heading.
    pub fn reference() -> String {
        const ACTS: Column = Column {
            title: "acts",
            cell: |key| if key.at_reset { "↺" } else { "at once" }.to_owned(),
        };
        // The table of keys does not know what is listed here.
        let named = |key: &Key| match key.name {
            "value_function" => Key { allowed: VALUE_FUNCTION, ..*key },
            "td_form" => Key { allowed: TD_FORM, ..*key },
            _ => *key,
        };
        let keys: Vec<Key> = Self::KEYS.iter().map(named).collect();
        let (unit, range) = (Column::UNIT, Column::RANGE);
        tables(&keys, &[Column::NAME, ACTS, unit, range, Column::DEFAULT, Column::MEANING])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn the_first_of_each_list_is_the_default() {
        let default = Parameters::default();
        assert_eq!(default.value_function, VALUE_FUNCTIONS[0].name);
        assert_eq!(default.td_form, TD_FORMS[0].name);
    }

    #[test]
    fn no_two_have_a_name_or_a_title_in_common() {
        let values = VALUE_FUNCTIONS.iter().flat_map(|l| [l.name, l.title]);
        let forms = TD_FORMS.iter().flat_map(|l| [l.name, l.title]);
        let all: Vec<&str> = values.chain(forms).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }

    #[test]
    fn what_they_say_of_parameters_names_such_as_there_are() {
        let Ok(Value::Object(there)) = serde_json::to_value(Parameters::default()) else {
            panic!("an object")
        };
        for listed in VALUE_FUNCTIONS {
            for key in listed.shape.iter().chain([&listed.sized_by]) {
                assert!(there.contains_key(*key), "{}: {key}", listed.name);
            }
        }
    }

    #[test]
    fn v1_has_what_says_that_it_does_and_the_message_names_it() {
        for (value_function, value) in VALUE_FUNCTIONS.iter().map(|l| (l.name, l)) {
            for (td_form, td) in TD_FORMS.iter().map(|l| (l.name, l)) {
                let patch = json!({
                    "compatibility": "v1", "value_function": value_function, "td_form": td_form,
                });
                let Value::Object(patch) = patch else { panic!("an object") };
                let merged = Parameters::default().merged(&patch);
                assert_eq!(merged.is_ok(), value.in_v1 && td.as_v1.is_some(), "{patch:?}");
                if let Err(why) = merged {
                    let why = why.to_string();
                    assert!(why.contains("qtable and the TD form sarsa_average_reward"), "{why}");
                }
            }
        }
    }
}
