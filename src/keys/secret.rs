//! Texts that are given and never shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::{KeyValue, Notation};

/// A text that nothing shows: not what is printed of settings, no message, no line of the log. It is written
/// as nothing at all, so what is written can be read again, without it. Empty: there is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The text, for whoever needs it and does not hand it on.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Secret(set)" } else { "Secret(not set)" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl KeyValue for Secret {
    const NOTATION: Notation = Notation::Text;
    const NOUN: &'static str = "a text that is not shown";
    const SECRET: bool = true;

    fn is_hidden(&self) -> bool {
        self.is_set()
    }
}
