//! What has changed in a value function since it was saved, as JSON: a row for each state that is new,
//! or was moved, and a cell for each value that is another. [`ValueFunction::apply_changes`] reads it.
//!
//! ```text
//! {"states":[[row, feature, …], …], "cells":[[row, action, value], …]}
//! {"weights":[[index, weight], …]}
//! ```
//!
//! Both sides share what did not change, so that is not looked at ([`Rows::changed`]).
//!
//! [`ValueFunction::apply_changes`]: super::ValueFunction::apply_changes

use std::sync::Arc;

use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

use super::lists::Seq;
use super::{Named, Saving, Weights};
use crate::rl::State;
use crate::rl::cow::Rows;

/// Whether two numbers are the same to the last bit.
fn same(one: &f64, other: &f64) -> bool {
    one.to_bits() == other.to_bits()
}

fn same_all(one: &[f64], other: &[f64]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

/// See the module. It is worked out while it is written, and holds nothing.
#[derive(Clone, Copy)]
pub enum Changes<'a> {
    /// Of a table; the key of its states, and how it was and is.
    Table(&'static str, &'a Weights, &'a Weights),
    /// Of weights, how they were and are.
    Weights(&'a Weights, &'a Weights),
}

impl Saving {
    /// What has changed since `before`; `None`: that cannot be told, or is no such change, as after a
    /// reset.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Option<Changes<'a>> {
        match (before, self) {
            (Self::Table(key, before), Self::Table(now_key, now)) => {
                let grown = key == now_key && before.actions_n == now.actions_n;
                (grown && now.states.grew_from(&before.states))
                    .then_some(Changes::Table(key, before, now))
            }
            (Self::Weights(before), Self::Weights(now)) => {
                let count = |of: &Weights| of.weights.as_ref().map(Rows::len);
                (count(before) == count(now)).then_some(Changes::Weights(before, now))
            }
            _ => None,
        }
    }
}

impl Named {
    /// Whether these can have come of `before`: states are added at the end, and only centroids move.
    fn grew_from(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Rows(before, _), Self::Rows(now, _)) => {
                before.len() <= now.len()
                    && now.changed(before, same_state).all(|row| row >= before.len())
            }
            (Self::Flat(before, features), Self::Flat(now, now_features)) => {
                before.is_empty() || features == now_features && before.len() <= now.len()
            }
            _ => false,
        }
    }

    /// The rows of these that are not the same in `before`, with their features.
    fn changed<'a>(&'a self, before: &'a Self) -> Box<dyn Iterator<Item = Place<'a>> + 'a> {
        match (before, self) {
            (Self::Rows(before, _), Self::Rows(now, _)) => {
                let place = |row| Some(Place(row, now.get(row)?.first()?));
                Box::new(now.changed(before, same_state).filter_map(place))
            }
            _ => {
                let mut old = before.iter();
                let places = self.iter().enumerate().map(|(row, features)| Place(row, features));
                Box::new(places.filter(move |Place(_, features)| {
                    !old.next().is_some_and(|old| same_all(old, features))
                }))
            }
        }
    }
}

fn same_state(one: &State, other: &State) -> bool {
    Arc::ptr_eq(one, other) || same_all(one, other)
}

/// The row of a state, and its features.
struct Place<'a>(usize, &'a [f64]);

impl Serialize for Place<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(1 + self.1.len()))?;
        list.serialize_element(&self.0)?;
        self.1.iter().try_for_each(|feature| list.serialize_element(feature))?;
        list.end()
    }
}

/// The values of `now` that are others in `before`: row, column and value. What was not there was zero.
fn cells<'a>(
    before: Option<&'a Rows<f64>>,
    now: Option<&'a Rows<f64>>,
) -> impl Iterator<Item = (usize, usize, f64)> + 'a {
    let tables = now.and_then(|now| Some((before?, now)));
    tables.into_iter().flat_map(|(before, now)| {
        now.changed(before, same).flat_map(move |row| {
            let (old, new) = (before.get(row).unwrap_or(&[]), now.get(row).unwrap_or(&[]));
            new.iter().enumerate().filter_map(move |(column, value)| {
                let changed = !same(value, old.get(column).unwrap_or(&0.0));
                changed.then_some((row, column, *value))
            })
        })
    })
}

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Table(key, before, now) => {
                let mut all = to.serialize_struct("Changes", 2)?;
                all.serialize_field(key, &Seq(|| now.states.changed(&before.states)))?;
                let (old, new) = (before.table.as_ref(), now.table.as_ref());
                all.serialize_field("cells", &Seq(|| cells(old, new)))?;
                all.end()
            }
            Self::Weights(before, now) => {
                let (old, new) = (before.weights.as_ref(), now.weights.as_ref());
                let weights = || cells(old, new).map(|(index, _, weight)| (index, weight));
                let mut all = to.serialize_struct("Changes", 1)?;
                all.serialize_field("weights", &Seq(weights))?;
                all.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::parameters::Parameters;
    use crate::rl::registry::VALUE_FUNCTIONS;
    use crate::rl::value::ValueFunction;
    use proptest::prelude::*;
    use serde_json::value::{RawValue, to_raw_value};

    fn saving(values: &dyn ValueFunction) -> Saving {
        values.saving().expect("it can be saved")
    }

    fn text(of: &impl Serialize) -> String {
        serde_json::to_string(of).expect("JSON")
    }

    /// One step of training, and what is to be done after it.
    fn train(values: &mut dyn ValueFunction, (x, action, amount): (u8, usize, f64)) {
        let state = [f64::from(x), f64::from(x % 7) * 0.5];
        values.visit(&state, action);
        values.add(&state, action, amount);
        if let Some(job) = values.job() {
            values.job_done(job());
        }
    }

    fn steps(n: usize) -> impl Strategy<Value = Vec<(u8, usize, f64)>> {
        prop::collection::vec((any::<u8>(), 0..3usize, -1e3..1e3), 0..n)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_trained_its_changes_lead_from_what_was_saved_to_what_is(
            before in steps(200),
            after in steps(200),
            kind in 0..VALUE_FUNCTIONS.len(),
        ) {
            let parameters = Parameters {
                actions_n: 3, clusters: 5, refit_states: 9, tiles_size: 300, ..Parameters::default()
            };
            let mut trained = (VALUE_FUNCTIONS[kind].make)(&parameters);
            before.into_iter().for_each(|step| train(&mut *trained, step));
            let saved = saving(&*trained);
            let mut read =
                (VALUE_FUNCTIONS[kind].load)(&parameters, &to_raw_value(&saved).unwrap()).unwrap();
            after.into_iter().for_each(|step| train(&mut *trained, step));
            let now = saving(&*trained);
            let changes = now.changes_since(&saved).expect("it grew");
            read.apply_changes(&to_raw_value(&changes).unwrap()).expect("it fits");
            prop_assert_eq!(text(&saving(&*read)), text(&now));
            prop_assert_eq!(read.states_seen(), trained.states_seen());
            // Once they are made, there are none.
            let none = text(&now.changes_since(&now).expect("the same"));
            prop_assert!(!none.contains("[["), "{}", none);
        }
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut values = (VALUE_FUNCTIONS[0].make)(&Parameters::default());
        (0..100).for_each(|x| train(&mut *values, (x, 0, 1.0)));
        let before = saving(&*values);
        train(&mut *values, (7, 1, 0.5));
        train(&mut *values, (200, 0, 0.0));
        let now = saving(&*values);
        let changes = now.changes_since(&before).expect("it grew");
        assert_eq!(text(&changes), r#"{"states":[[100,200.0,2.0]],"cells":[[7,1,0.5]]}"#);
    }

    #[test]
    fn what_was_forgotten_or_is_of_another_kind_is_no_change() {
        for listed in VALUE_FUNCTIONS {
            let [mut old, mut new] = [(); 2].map(|()| (listed.make)(&Parameters::default()));
            train(&mut *old, (1, 0, 1.0));
            train(&mut *old, (2, 0, 1.0));
            train(&mut *new, (3, 0, 1.0));
            let tells = saving(&*new).changes_since(&saving(&*old)).is_some();
            // Weights have no states that could be others.
            assert_eq!(tells, listed.name == "tiles", "{}", listed.name);
        }
        let of = |name: &str| {
            let listed = VALUE_FUNCTIONS.iter().find(|l| l.name == name).expect("listed");
            saving(&*(listed.make)(&Parameters::default()))
        };
        assert!(of("qtable").changes_since(&of("kmeans")).is_none());
        assert!(of("tiles").changes_since(&of("qtable")).is_none());
    }

    #[test]
    fn changes_that_do_not_fit_are_refused() {
        let parameters = Parameters { states_max: 3, clusters: 3, ..Parameters::default() };
        for (kind, bad) in [
            (0, r#"{"states":[[2,9,9]],"cells":[]}"#),
            (0, r#"{"states":[[1,1,0.5]],"cells":[]}"#),
            (0, r#"{"states":[[1.5,9,9]],"cells":[]}"#),
            (0, r#"{"states":[[1,9],[2,10],[3,11]],"cells":[]}"#),
            (0, r#"{"states":[],"cells":[[1,0,1]]}"#),
            (0, r#"{"states":[],"cells":[[0,2,1]]}"#),
            (0, r#"{"states":[],"cells":[[0,0,1e101]]}"#),
            (0, r#"{"cells":[]}"#),
            (1, r#"{"weights":[[-1,1]]}"#),
            (1, r#"{"weights":[[65536,1]]}"#),
            (2, r#"{"centroids":[[2,9,9]],"cells":[]}"#),
            (2, r#"{"centroids":[[1,9]],"cells":[]}"#),
            (2, r#"{"centroids":[[0,1e200,9]],"cells":[]}"#),
            (2, r#"{"centroids":[],"cells":[[1,0,1]]}"#),
        ] {
            let mut values = (VALUE_FUNCTIONS[kind].make)(&parameters);
            train(&mut *values, (1, 0, 1.0));
            let changes = RawValue::from_string(bad.to_owned()).expect("JSON");
            assert!(values.apply_changes(&changes).is_err(), "{bad}");
        }
    }
}
