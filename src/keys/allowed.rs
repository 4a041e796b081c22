//! What the value of a key can be, as data: checks, messages and pages are made of it.

use std::fmt;

use crate::types::shortened;

/// Characters of a value that a message quotes at most.
pub(super) const QUOTED_CHARACTERS: usize = 64;

/// What the value of a key can be, beyond what its type can hold. In a list it holds for each value.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// Whatever the type can hold.
    Any,
    /// Numbers from the first to the second, both included.
    Within(f64, f64),
    /// Numbers above the first, up to the second.
    Above(f64, f64),
    /// Numbers from this one on.
    AtLeast(f64),
    /// One of these words.
    OneOf(fn() -> Vec<&'static str>),
    /// Values of a form that has words only; the table's `check_together` checks it.
    Form(fn() -> String),
}

/// Numbers from `low` to `high`, both included.
pub const fn within(low: f64, high: f64) -> Allowed {
    Allowed::Within(low, high)
}

/// Numbers above `low`, up to `high`.
pub const fn above(low: f64, high: f64) -> Allowed {
    Allowed::Above(low, high)
}

/// Numbers from `low` on.
pub const fn at_least(low: f64) -> Allowed {
    Allowed::AtLeast(low)
}

/// One of these words.
pub const fn one_of(words: fn() -> Vec<&'static str>) -> Allowed {
    Allowed::OneOf(words)
}

/// Values of a form that is told in words, and checked beside the table.
pub const fn form(words: fn() -> String) -> Allowed {
    Allowed::Form(words)
}

/// A number as people write it: whole ones without decimals.
fn plain(number: f64) -> String {
    // Casts saturate; what is no whole number, or beyond those, is shown as it is.
    let whole = number as i64;
    if whole as f64 == number { whole.to_string() } else { number.to_string() }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Within(low, high) => write!(f, "{} to {}", plain(*low), plain(*high)),
            Self::Above(low, high) => write!(f, "above {}, at most {}", plain(*low), plain(*high)),
            Self::AtLeast(low) => write!(f, "from {}", plain(*low)),
            Self::OneOf(words) => write!(f, "one of {}", words().join(", ")),
            Self::Form(words) => f.write_str(&words()),
        }
    }
}

impl Allowed {
    /// Whether a number is within the range; `written` is the number as it was given.
    ///
    /// # Errors
    /// It is not; with what it is and what is allowed.
    pub(super) fn number(&self, number: f64, written: &dyn fmt::Display) -> Result<(), String> {
        match *self {
            Self::Within(low, high) if !(low..=high).contains(&number) => {
                Err(format!("{written} is not within {} to {}", plain(low), plain(high)))
            }
            Self::Above(low, high) if !(number > low && number <= high) => {
                Err(format!("{written} is not above {} and at most {}", plain(low), plain(high)))
            }
            Self::AtLeast(low) if number.is_nan() || number < low => {
                Err(format!("{written} is not {} or more", plain(low)))
            }
            _ => Ok(()),
        }
    }

    /// Whether a text is one of the words.
    ///
    /// # Errors
    /// It is none; with what it is and what is allowed.
    pub(super) fn text(&self, text: &str) -> Result<(), String> {
        match self {
            Self::OneOf(words) if !words().contains(&text) => {
                let text = shortened(text, QUOTED_CHARACTERS);
                Err(format!("{text:?} is none of {}", words().join(", ")))
            }
            _ => Ok(()),
        }
    }
}
