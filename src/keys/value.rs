//! What types the values of keys can have.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::allowed::{Allowed, within};
use crate::types::List;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// As a text.
    Text,
    /// As a number.
    Number,
    /// As `true` or `false`.
    Boolean,
    /// As a table of its own.
    Table,
}

/// A type that the value of a key can have.
pub trait KeyValue: DeserializeOwned + Serialize {
    /// How one is written.
    const NOTATION: Notation;
    /// Whether several may be given, as a list.
    const LIST: bool = false;
    /// What one is, in words for messages. Empty: whoever reads it says better what is wrong.
    const NOUN: &'static str;
    /// What values there are, unless the key says less.
    const ALLOWED: Allowed = Allowed::Any;
    /// Whether values are never shown.
    const SECRET: bool = false;

    /// Whether this is one that is not shown, though it is there.
    fn is_hidden(&self) -> bool {
        false
    }

    /// Whether the value is among those.
    ///
    /// # Errors
    /// It is not; with what it is and what is allowed.
    fn check(&self, _allowed: &Allowed) -> Result<(), String> {
        Ok(())
    }
}

/// What a whole number is in words.
pub(super) const WHOLE: &str = "a whole number";

macro_rules! numbers {
    ($($type:ty: $noun:expr, $allowed:expr;)+) => { $(
        impl KeyValue for $type {
            const NOTATION: Notation = Notation::Number;
            const NOUN: &'static str = $noun;
            const ALLOWED: Allowed = $allowed;

            fn check(&self, allowed: &Allowed) -> Result<(), String> {
                allowed.number(*self as f64, self)
            }
        }
    )+ };
}

numbers! {
    f64: "a number", Allowed::Any;
    u16: WHOLE, within(0.0, u16::MAX as f64);
    u32: WHOLE, within(0.0, u32::MAX as f64);
    u64: WHOLE, Allowed::AtLeast(0.0);
    usize: WHOLE, Allowed::AtLeast(0.0);
}

impl KeyValue for bool {
    const NOTATION: Notation = Notation::Boolean;
    const NOUN: &'static str = "true or false";
}

impl KeyValue for String {
    const NOTATION: Notation = Notation::Text;
    const NOUN: &'static str = "a text";

    fn check(&self, allowed: &Allowed) -> Result<(), String> {
        allowed.text(self)
    }
}

impl KeyValue for PathBuf {
    const NOTATION: Notation = Notation::Text;
    const NOUN: &'static str = "a path";
}

impl KeyValue for IpAddr {
    const NOTATION: Notation = Notation::Text;
    const NOUN: &'static str = "an IP address";
}

impl KeyValue for IpNet {
    const NOTATION: Notation = Notation::Text;
    const NOUN: &'static str = "a network such as 10.0.0.0/8";
}

impl<T: KeyValue> KeyValue for Option<T> {
    const NOTATION: Notation = T::NOTATION;
    const LIST: bool = T::LIST;
    const NOUN: &'static str = T::NOUN;
    const ALLOWED: Allowed = T::ALLOWED;

    fn check(&self, allowed: &Allowed) -> Result<(), String> {
        self.iter().try_for_each(|value| value.check(allowed))
    }
}

impl<T: KeyValue> KeyValue for Vec<T> {
    const NOTATION: Notation = T::NOTATION;
    const LIST: bool = true;
    const NOUN: &'static str = T::NOUN;
    const ALLOWED: Allowed = T::ALLOWED;

    fn check(&self, allowed: &Allowed) -> Result<(), String> {
        self.iter().try_for_each(|value| value.check(allowed))
    }
}

/// One value stands for a list of one.
impl<T: KeyValue> KeyValue for List<T> {
    const NOTATION: Notation = T::NOTATION;
    const LIST: bool = true;
    const NOUN: &'static str = T::NOUN;
    const ALLOWED: Allowed = T::ALLOWED;

    fn check(&self, allowed: &Allowed) -> Result<(), String> {
        self.0.check(allowed)
    }
}
