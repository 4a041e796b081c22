//! The macro that makes a struct of a table of keys, and the reading of one.

use super::Key;
use super::allowed::{Allowed, QUOTED_CHARACTERS};
use super::value::KeyValue;
use crate::types::{cut, shortened};

/// Something wrong with a value, or with where values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the file, or the environment name. Empty: the text says it.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl Problem {
    /// With that key.
    pub fn of(key: &str, why: impl std::fmt::Display) -> Self {
        Self { key: key.to_owned(), why: why.to_string() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

/// All problems in one text.
pub fn joined(problems: &[Problem], between: &str) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// A value that is there and cannot be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The value, as it was written.
    pub given: String,
    /// What whoever tried to read it says.
    pub why: String,
}

/// Where values come from: a file, a request.
pub trait KeySource {
    /// The value of a key; `None`: the source does not have it.
    fn value<T: KeyValue>(&self, key: &Key) -> Option<Result<T, Unreadable>>;
}

/// Reads one key into `value`, if the source has it, and checks its range.
pub(crate) fn read<T: KeyValue>(
    key: &Key,
    source: &impl KeySource,
    value: &mut T,
    problems: &mut Vec<Problem>,
) {
    match source.value::<T>(key) {
        None => {}
        Some(Ok(given)) => {
            problems.extend(given.check(&key.allowed).err().map(|why| key.problem(why)));
            *value = given;
        }
        Some(Err(unreadable)) => problems.push(key.problem(refusal(key, &unreadable))),
    }
}

/// What was given and what could be.
fn refusal(key: &Key, unreadable: &Unreadable) -> String {
    if key.secret {
        // Neither what was given nor what the reader says of it, which may quote it.
        return "what was given is no text; it is not shown".to_owned();
    }
    if key.noun.is_empty() {
        return cut(&unreadable.why).to_owned();
    }
    let one = match key.allowed {
        Allowed::Any | Allowed::Form(_) => key.noun.to_owned(),
        Allowed::OneOf(_) => key.allowed.to_string(),
        Allowed::Within(..) => format!("{} from {}", key.noun, key.allowed),
        Allowed::Above(..) => format!("{} {}", key.noun, key.allowed),
        Allowed::AtLeast(_) => format!("{} {} on", key.noun, key.allowed),
    };
    let or_list = if key.list { ", or a list of such" } else { "" };
    format!("{} is not {one}{or_list}", shortened(&unreadable.given, QUOTED_CHARACTERS))
}

/// Makes a struct of a table. An entry is `/// What it does.`, then `name: Type = default;`, or
/// `name: Type = default => fact: value, …;` with the facts of [`Key`] that its type does not tell. The
/// struct gets its defaults, `KEYS`, `read_keys`, and `hidden`. `beside` it can have fields that are no keys.
macro_rules! key_table {
    (
        $(#[$about:meta])*
        pub struct $table:ident {
            $( $group:literal {
                $(
                    $(#[doc = $meaning:literal])+
                    $name:ident: $type:ty = $default:expr $(=> $($fact:ident: $value:expr),+)?;
                )+
            } )+
        }
        $( beside { $( $(#[$own:meta])+ $own_name:ident: $own_type:ty = $own_default:expr; )+ } )?
    ) => {
        $(#[$about])*
        pub struct $table {
            $($(
                $(#[doc = $meaning])+
                pub $name: $type,
            )+)+
            $($( $(#[$own])+ pub $own_name: $own_type, )+)?
        }

        impl Default for $table {
            fn default() -> Self {
                Self {
                    $($( $name: $crate::keys::DefaultOf::<$type>::value($default), )+)+
                    $($( $own_name: $own_default, )+)?
                }
            }
        }

        impl $table {
            /// Every key with all that is told of it, in order.
            pub const KEYS: &'static [$crate::keys::Key] = &[ $($(
                $crate::keys::Key {
                    $($( $fact: $value, )+)?
                    ..$crate::keys::Key::new::<$type>(
                        $group,
                        stringify!($name),
                        concat!($($meaning),+),
                        || $crate::keys::DefaultOf::<$type>::shown($default),
                    )
                },
            )+)+ ];

            /// Takes over what `source` has, each key on its own, so that every wrong one is told.
            pub(super) fn read_keys(
                &mut self,
                source: &impl $crate::keys::KeySource,
                problems: &mut Vec<$crate::keys::Problem>,
            ) {
                let mut keys = Self::KEYS.iter();
                $($(
                    if let Some(key) = keys.next() {
                        $crate::keys::read(key, source, &mut self.$name, problems);
                    }
                )+)+
            }

            /// The keys with a value that is never shown.
            pub fn hidden(&self) -> Vec<&'static $crate::keys::Key> {
                let is_hidden = [
                    $($( $crate::keys::KeyValue::is_hidden(&self.$name), )+)+
                ];
                let keys = Self::KEYS.iter().zip(is_hidden);
                keys.filter(|(_, is_hidden)| *is_hidden).map(|(key, _)| key).collect()
            }
        }
    };
}
pub(crate) use key_table;
