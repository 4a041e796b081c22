//! The model: all that was learnt, as it stands in its file and travels between nodes.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::parameters::ACTIONS_MAX;
use super::parameters::Parameters;
use super::{EID_MAX, Eid, LEARNT_MAX};

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
pub struct Model<V = Box<RawValue>> {
    /// [`FORMAT`].
    pub format: u32,
    /// What it was learnt under: [`Parameters::shape`].
    #[serde(deserialize_with = "read_shape")]
    pub shape: Map<String, Value>,
    /// R̄.
    pub average_reward: f64,
    /// ε.
    pub epsilon: f64,
    /// Decisions taken.
    #[serde(default)]
    pub inferences: u64,
    /// Decisions taken in the process, by action.
    #[serde(default, deserialize_with = "read_decisions")]
    pub decisions: Vec<u64>,
    /// What else was counted.
    #[serde(default, deserialize_with = "crate::types::object")]
    pub counters: Counters,
    /// Entries with EIDs below this were learnt from or given up.
    #[serde(default)]
    pub expected_eid: Eid,
    /// The largest that `expected_eid` was, resets included.
    #[serde(default)]
    pub reached_eid: Eid,
    /// The value function's own.
    pub values: V,
}

/// Keys of a shape at most.
const SHAPE_KEYS_MAX: usize = 32;
/// Bytes of each key and each text in it.
const SHAPE_TEXT_BYTES_MAX: usize = 64;

/// A value of a shape: a text, a number, or true or false.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PlainVisitor;

        impl Visitor<'_> for PlainVisitor {
            type Value = Plain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number, true or false, or a text of {SHAPE_TEXT_BYTES_MAX} bytes")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Plain, E> {
                Ok(Plain(value.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Plain, E> {
                match text.len() <= SHAPE_TEXT_BYTES_MAX {
                    true => Ok(Plain(text.into())),
                    false => Err(E::custom(format!("shape has a text of {} bytes", text.len()))),
                }
            }
        }

        from.deserialize_any(PlainVisitor)
    }
}

fn read_shape<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Value>, D::Error> {
    struct ShapeVisitor;

    impl<'de> Visitor<'de> for ShapeVisitor {
        type Value = Map<String, Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the parameters that it was learnt under")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut shape = Map::new();
            while let Some((key, Plain(value))) = map.next_entry::<String, Plain>()? {
                if shape.len() >= SHAPE_KEYS_MAX || key.len() > SHAPE_TEXT_BYTES_MAX {
                    return Err(A::Error::custom("shape has too many keys, or one too long"));
                }
                shape.insert(key, value);
            }
            Ok(shape)
        }
    }

    from.deserialize_map(ShapeVisitor)
}

fn read_decisions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    struct DecisionsVisitor;

    impl<'de> Visitor<'de> for DecisionsVisitor {
        type Value = Vec<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {ACTIONS_MAX} counts")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u64>, A::Error> {
            let mut decisions = Vec::new();
            while let Some(count) = list.next_element()? {
                if decisions.len() >= ACTIONS_MAX {
                    return Err(A::Error::custom(format!("decisions has more than {ACTIONS_MAX}")));
                }
                decisions.push(count);
            }
            Ok(decisions)
        }
    }

    from.deserialize_seq(DecisionsVisitor)
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
        let (epsilon, average) = (self.epsilon, self.average_reward);
        let learnt = -LEARNT_MAX..=LEARNT_MAX;
        if !(0.0..=1.0).contains(&epsilon) || !learnt.contains(&average) {
            return Err(Unfit(format!("its epsilon is {epsilon}, its average reward {average}")));
        }
        for (key, eid) in [("expected", self.expected_eid), ("reached", self.reached_eid)] {
            if eid > EID_MAX {
                return Err(Unfit(format!("its {key}_eid is {eid}, above {EID_MAX}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_has_beside_its_values_is_small() {
        let read = |shape: &str, decisions: &str| {
            let text = format!(
                r#"{{"format":1,"shape":{shape},"average_reward":0,"epsilon":0.5,
                "decisions":{decisions},"values":[]}}"#
            );
            serde_json::from_str::<Model>(&text).map_err(|why| why.to_string())
        };
        let model = read(r#"{"actions_n":2,"td_form":"x","y":0.5,"z":true}"#, "[1,2]");
        assert_eq!(model.expect("good").decisions, [1, 2]);
        let long = "x".repeat(SHAPE_TEXT_BYTES_MAX + 1);
        let keys: Vec<String> = (0..=SHAPE_KEYS_MAX).map(|n| format!("\"{n}\":0")).collect();
        let counts = vec!["0"; ACTIONS_MAX + 1].join(",");
        for (shape, decisions) in [
            (r#"{"a":[0,0]}"#, "[]"),
            (r#"{"a":{}}"#, "[]"),
            (r#"{"a":null}"#, "[]"),
            (&format!(r#"{{"a":"{long}"}}"#), "[]"),
            (&format!(r#"{{"{long}":1}}"#), "[]"),
            (&format!("{{{}}}", keys.join(",")), "[]"),
            ("{}", &format!("[{counts}]")),
            ("{}", "[-1]"),
        ] {
            let why = read(shape, decisions).expect_err(shape);
            assert!(why.len() < 300, "{why}");
        }
    }
}
