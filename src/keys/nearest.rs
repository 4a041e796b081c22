//! The value that is nearest to one that a key cannot have. For files of P2PFaaS v1, which saves values
//! that mean nothing; what people set or post is refused instead.

use serde_json::{Number, Value};

use super::Key;
use super::allowed::Allowed;
use super::value::{Notation, WHOLE};

impl Key {
    /// The value of this key that is nearest to `given`. `None`: none is, or this key has neither numbers
    /// nor truth values.
    pub fn nearest(&self, given: &Value) -> Option<Value> {
        match self.notation {
            _ if self.list => None,
            Notation::Number if self.noun == WHOLE => {
                let whole = self.allowed.nearest(number(given)?.round())?;
                // A cast saturates.
                Some(Value::from(whole as u64))
            }
            Notation::Number => {
                let nearest = self.allowed.nearest(number(given)?)?;
                Number::from_f64(nearest).map(Value::Number)
            }
            Notation::Boolean => truth(given).map(Value::Bool),
            Notation::Text | Notation::Table => None,
        }
    }
}

impl Allowed {
    /// The number of the range that is nearest to `number`; `None`: there is none.
    fn nearest(&self, number: f64) -> Option<f64> {
        let (low, high) = match *self {
            _ if number.is_nan() => return None,
            // The range has no least number.
            Self::Above(low, _) if number <= low => return None,
            Self::Within(low, high) | Self::Above(low, high) => (low, high),
            Self::AtLeast(low) => (low, f64::MAX),
            Self::Any => (f64::MIN, f64::MAX),
            Self::OneOf(_) | Self::Form(_) => return None,
        };
        Some(number.max(low).min(high))
    }
}

/// The number that `given` stands for: a text in which one is written, a truth value as 1 or 0.
fn number(given: &Value) -> Option<f64> {
    match given {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The truth value that `given` stands for: of a number whether it is another than 0.
fn truth(given: &Value) -> Option<bool> {
    match given {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Some(true),
            "false" | "f" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyValue, ShownDefault, above, at_least, within};
    use super::*;
    use serde_json::json;

    fn key<T: KeyValue>(allowed: Allowed) -> Key {
        let default = || ShownDefault::Words(String::new());
        Key { allowed, ..Key::new::<T>("", "", "", default) }
    }

    #[test]
    fn the_nearest_number_is_in_the_range_and_whole_where_it_must_be() {
        let window = key::<u64>(at_least(2.0));
        let alpha = key::<f64>(within(0.0, 1.0));
        let actions = key::<usize>(within(1.0, 4096.0));
        let scale = key::<f64>(above(0.0, 1e6));
        for (key, given, taken) in [
            (&window, json!(1), Some(json!(2))),
            (&window, json!(-3), Some(json!(2))),
            (&window, json!(1e30), Some(json!(u64::MAX))),
            (&actions, json!(3.0), Some(json!(3))),
            (&actions, json!("3"), Some(json!(3))),
            (&actions, json!(2.6), Some(json!(3))),
            (&actions, json!(null), None),
            (&actions, json!([3]), None),
            (&actions, json!("three"), None),
            (&alpha, json!(5), Some(json!(1.0))),
            (&alpha, json!(-1), Some(json!(0.0))),
            (&alpha, json!("inf"), Some(json!(1.0))),
            (&alpha, json!("NaN"), None),
            (&alpha, json!(true), Some(json!(1.0))),
            (&scale, json!(0), None),
            (&scale, json!(1e9), Some(json!(1e6))),
        ] {
            assert_eq!(key.nearest(&given), taken, "{given}");
        }
    }

    #[test]
    fn a_truth_value_may_be_written_as_a_number_or_a_text_and_texts_have_no_nearest() {
        let enabled = key::<bool>(Allowed::Any);
        for (given, taken) in [
            (json!(1), Some(json!(true))),
            (json!(0.0), Some(json!(false))),
            (json!("False"), Some(json!(false))),
            (json!("perhaps"), None),
            (json!(null), None),
        ] {
            assert_eq!(enabled.nearest(&given), taken, "{given}");
        }
        assert_eq!(key::<String>(Allowed::Any).nearest(&json!(3)), None);
        assert_eq!(key::<Vec<u32>>(within(0.0, 1.0)).nearest(&json!(3)), None);
    }
}
