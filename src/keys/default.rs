//! Defaults, and how they are shown.

use std::fmt;

use serde_json::Value;

use super::value::KeyValue;

/// A default as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum ShownDefault {
    /// The value, which is the same on every machine.
    Value(Value),
    /// What it is, in words.
    Words(String),
}

impl ShownDefault {
    /// Of a value.
    pub fn of(value: &impl KeyValue) -> Self {
        match serde_json::to_value(value) {
            Ok(Value::Null) | Err(_) => Self::Words("none".to_owned()),
            Ok(Value::String(text)) if text.is_empty() => Self::Words("empty".to_owned()),
            Ok(Value::Array(list)) if list.is_empty() => Self::Words("empty".to_owned()),
            Ok(Value::Object(table)) if table.is_empty() => Self::Words("empty".to_owned()),
            Ok(value) => Self::Value(value),
        }
    }
}

impl fmt::Display for ShownDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(Value::String(text)) | Self::Words(text) => f.write_str(text),
            Self::Value(value) => value.fmt(f),
        }
    }
}

/// What stands as the default of a key whose values are `T`.
pub trait DefaultOf<T> {
    /// The value.
    fn value(self) -> T;

    /// How it is shown.
    fn shown(self) -> ShownDefault;
}

impl<T: KeyValue> DefaultOf<T> for T {
    fn value(self) -> T {
        self
    }

    fn shown(self) -> ShownDefault {
        ShownDefault::of(&self)
    }
}

/// A default that words tell better: because it depends on the machine, or because what is not set stands
/// for something.
#[derive(Clone, Copy, Debug)]
pub struct Worded<T>(pub T, pub &'static str);

impl<T> DefaultOf<T> for Worded<T> {
    fn value(self) -> T {
        self.0
    }

    fn shown(self) -> ShownDefault {
        ShownDefault::Words(self.1.to_owned())
    }
}
