//! Keys: what people set by name. The settings of a node, the parameters of the learner and the keys of
//! an experiment's scenario are one table each, written with `key_table!`, and an entry of a table
//! holds every fact on its key. The struct, its defaults, the reading, the check of ranges, `--help` and
//! the pages of the book follow from the table.
//!
//! What several keys must be together is not the matter of one entry. Each struct has a function for it,
//! `check_together`, beside its table.

mod allowed;
mod default;
mod nearest;
mod page;
mod secret;
mod table;
mod value;

pub use self::allowed::{Allowed, above, at_least, form, one_of, within};
pub use self::default::{DefaultOf, ShownDefault, Worded};
pub use self::page::{Column, tables};
pub use self::secret::Secret;
pub use self::table::{KeySource, Problem, Unreadable, joined};
pub(crate) use self::table::{key_table, read};
pub use self::value::{KeyValue, Notation};

/// Every fact on one key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, which is the key in TOML and JSON.
    pub name: &'static str,
    /// The heading that it stands under.
    pub group: &'static str,
    /// What it does, in whole sentences.
    pub meaning: &'static str,
    /// The unit of its value; empty: it has none.
    pub unit: &'static str,
    /// What its value can be.
    pub allowed: Allowed,
    /// How its value is written.
    pub notation: Notation,
    /// Whether several values may be given, as a list.
    pub list: bool,
    /// What a value is in words, "a whole number". Empty: whoever reads it says better what is wrong.
    pub noun: &'static str,
    /// Its default, to be shown.
    pub default: fn() -> ShownDefault,
    /// The flag that stands for it, without its hyphens. `None`: it has none.
    pub flag: Option<&'static str>,
    /// Names of P2PFaaS v1 in the environment that stand for it.
    pub v1_names: &'static [&'static str],
    /// Whether a new value waits for the learner's next reset.
    pub at_reset: bool,
    /// Whether its value is never shown. Such a key has no flag, since everybody on a machine sees the
    /// arguments of its programs.
    pub secret: bool,
}

impl Key {
    /// A key without what only some have.
    pub const fn new<T: KeyValue>(
        group: &'static str,
        name: &'static str,
        meaning: &'static str,
        default: fn() -> ShownDefault,
    ) -> Self {
        Self {
            name,
            group,
            meaning,
            unit: "",
            allowed: T::ALLOWED,
            notation: T::NOTATION,
            list: T::LIST,
            noun: T::NOUN,
            default,
            flag: None,
            v1_names: &[],
            at_reset: false,
            secret: T::SECRET,
        }
    }

    /// Its name in the environment.
    pub fn environment(&self) -> String {
        format!("P2PFAAS_{}", self.name.to_uppercase())
    }

    /// The unit, or what kind of value it is where there is none.
    pub fn unit(&self) -> &'static str {
        match (self.unit, self.list, self.notation) {
            ("", true, _) => "list",
            ("", false, Notation::Text) => "text",
            ("", false, Notation::Number) => "number",
            ("", false, Notation::Boolean) => "boolean",
            ("", false, Notation::Table) => "table",
            (unit, ..) => unit,
        }
    }

    /// What its value can be, in words.
    pub fn range(&self) -> String {
        match self.allowed {
            Allowed::Any => self.noun.to_owned(),
            _ => self.allowed.to_string(),
        }
    }

    /// What it does, with its unit and range.
    pub fn described(&self) -> String {
        let range = self.range();
        let facts = match self.allowed {
            Allowed::Any if !self.unit.is_empty() => self.unit.to_owned(),
            Allowed::Any | Allowed::OneOf(_) | Allowed::Form(_) => range,
            Allowed::Within(..) | Allowed::Above(..) | Allowed::AtLeast(_) => {
                format!("{}, {range}", self.unit())
            }
        };
        format!("{} [{facts}]", self.meaning.trim())
    }

    /// The same with its default, for `--help`.
    pub fn help(&self) -> String {
        format!("{} [default: {}]", self.described(), (self.default)())
    }

    /// A problem with its value.
    pub fn problem(&self, why: impl std::fmt::Display) -> Problem {
        Problem::of(self.name, why)
    }
}

#[cfg(test)]
mod tests;
