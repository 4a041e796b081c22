//! Saved values that mean nothing here, and what is taken for them.

use std::fmt::Display;

use super::shortened;

/// Characters of what stood there that are told.
const GIVEN_SHOWN_MAX: usize = 64;

/// A value of a saved file that means nothing here, and the one that is taken instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Its key, or its place where it has none.
    pub key: String,
    /// What stood there, or how that begins.
    pub given: String,
    /// What is taken.
    pub taken: String,
}

impl Mended {
    /// That `given` stood at `key`, and `taken` is taken.
    pub fn of(key: impl Display, given: impl Display, taken: impl Display) -> Self {
        let given = given.to_string();
        let given = shortened(&given, GIVEN_SHOWN_MAX).into_owned();
        Self { key: key.to_string(), given, taken: taken.to_string() }
    }
}
