//! Entries as clients write them: each number as a number or as text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use crate::actors::learner::ToldEntry;
use crate::rl::{BadEntry, Eid, FEATURES_MAX, State};
use crate::types::cut;
use crate::wire::json::{self, Bounds};

/// Reads `1.0,0.0,2.0`.
///
/// # Errors
/// It is none, in words.
pub fn read_state(text: &str) -> Result<State, String> {
    // One more than it may have is for the learner to refuse.
    text.split(',').take(FEATURES_MAX + 1).map(read_number).collect()
}

/// Reads `7`.
///
/// # Errors
/// It is no number, in words.
pub fn read_number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| format!("{:?} is no number", cut(text)))
}

/// Reads `7` or `7.0`.
///
/// # Errors
/// It is no EID, in words.
pub fn read_eid(text: &str) -> Result<Eid, String> {
    let whole = text.trim().parse().ok();
    let eid = whole.or_else(|| text.trim().parse().ok().and_then(eid_of));
    eid.ok_or_else(|| format!("{:?} is no EID", cut(text)))
}

fn eid_of(number: f64) -> Option<Eid> {
    // Beyond 2^53 a float is no longer one number.
    let is_one = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
    is_one.then_some(number as Eid)
}

/// A number as number or text.
struct Number(f64);
/// An EID likewise.
struct EidValue(Eid);
/// A state as text or list of numbers.
struct StateValue(State);

macro_rules! as_number_or_text {
    ($type:ident, $visitor:ident, $what:literal, $float:expr, $whole:expr, $text:expr) => {
        struct $visitor;

        impl Visitor<'_> for $visitor {
            type Value = $type;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<$type, E> {
                $float(number)
                    .map($type)
                    .ok_or_else(|| E::custom(format!("{number} is not {}", $what)))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                Ok($type($whole(number)))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                self.visit_f64(number as f64)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                $text(text).map($type).map_err(E::custom)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any($visitor)
            }
        }
    };
}

as_number_or_text!(Number, NumberVisitor, "a number", Some, |n| n as f64, read_number);
as_number_or_text!(EidValue, EidVisitor, "an EID", eid_of, |n| n, read_eid);

impl<'de> Deserialize<'de> for StateValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct StateVisitor;

        impl<'de> Visitor<'de> for StateVisitor {
            type Value = StateValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a state: numbers separated by commas, or a list of numbers")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StateValue, E> {
                read_state(text).map(StateValue).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StateValue, A::Error> {
                let mut state = Vec::new();
                while let Some(Number(feature)) = list.next_element()? {
                    if state.len() >= FEATURES_MAX {
                        return Err(A::Error::custom(BadEntry::Features(state.len() + 1)));
                    }
                    state.push(feature);
                }
                Ok(StateValue(state.into()))
            }
        }

        from.deserialize_any(StateVisitor)
    }
}

#[derive(serde::Deserialize)]
struct WireEntry {
    eid: EidValue,
    state: StateValue,
    action: Number,
    reward: Number,
}

impl From<WireEntry> for ToldEntry {
    fn from(entry: WireEntry) -> Self {
        let WireEntry { eid, state, action, reward } = entry;
        Self { eid: eid.0, state: state.0, action: action.0, reward: reward.0 }
    }
}

/// Reads a list of entries.
///
/// # Errors
/// It is none, or an empty one, in words.
pub fn read_batch(body: &[u8]) -> Result<Vec<ToldEntry>, String> {
    let bounds = Bounds {
        bytes: body.len(),
        depth: 4,
        entries: 1 << 20,
        string_bytes: 64 << 10,
        values: body.len() / 2 + 1,
        long: &[],
    };
    let batch: Vec<WireEntry> = json::read(body, &bounds).map_err(|why| why.to_string())?;
    if batch.is_empty() {
        return Err("the batch is empty".to_owned());
    }
    Ok(batch.into_iter().map(ToldEntry::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entry: &str) -> Result<ToldEntry, String> {
        serde_json::from_str::<WireEntry>(entry).map(ToldEntry::from).map_err(|why| why.to_string())
    }

    #[test]
    fn every_number_may_be_a_number_or_text() {
        let wanted = Ok(ToldEntry { eid: 7, state: [0.0, 1.5].into(), action: 1.0, reward: -0.5 });
        for entry in [
            r#"{"eid":7,"state":"0.0,1.5","action":1,"reward":-0.5}"#,
            r#"{"eid":"7","state":" 0, 1.5","action":"1.000000","reward":"-0.5","more":1}"#,
            r#"{"eid":"7.0","state":[0,1.5],"action":1.0,"reward":-5e-1}"#,
            r#"{"eid":7.0,"state":["0.0","1.5"],"action":"1","reward":-0.5}"#,
        ] {
            assert_eq!(read(entry), wanted, "{entry}");
        }
        let large = r#"{"eid":9223372036854775807,"state":"1","action":0,"reward":1}"#;
        assert_eq!(read(large).map(|told| told.eid), Ok(i64::MAX as u64), "no detour by floats");
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        for entry in [
            r#"{"eid":7,"state":"0","action":1}"#,
            r#"{"eid":-7,"state":"0","action":1,"reward":1}"#,
            r#"{"eid":7.5,"state":"0","action":1,"reward":1}"#,
            r#"{"eid":"x","state":"0","action":1,"reward":1}"#,
            r#"{"eid":7,"state":"0,,1","action":1,"reward":1}"#,
            r#"{"eid":7,"state":"","action":1,"reward":1}"#,
            r#"{"eid":7,"state":7,"action":1,"reward":1}"#,
            r#"{"eid":7,"state":"0","action":true,"reward":1}"#,
            r#"{"eid":7,"state":"0","action":1,"reward":null}"#,
            r#"{"eid":7,"state":"0","action":1,"reward":"much"}"#,
            "7",
        ] {
            assert!(read(entry).is_err(), "{entry}");
        }
    }
}
