//! Types of settings that are this module's own.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keys::{DefaultOf, KeyValue, Notation, ShownDefault};
use crate::memory;
use crate::service::drawn::TimeDistribution;
use crate::telemetry::LogFormat;

/// Who may change a node through its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// Whoever reaches the ports, as in v1.
    Any,
    /// Programs on the node's own machine.
    Loopback,
    /// Nobody.
    Off,
}

/// Function names with the URL that answers for them. Reads a table or a list of `NAME=URL`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ByFunction<String>")]
pub struct Routes(pub BTreeMap<String, String>);

/// Function names with the seconds that a call of each may take in all, from its start to its last byte.
/// Reads a table or a list of `NAME=SECONDS`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ByFunction<f64>")]
pub struct TotalTimeouts(pub BTreeMap<String, f64>);

/// A table by function names, or a list of pairs.
#[derive(Deserialize)]
#[serde(untagged)]
enum ByFunction<T> {
    Table(BTreeMap<String, T>),
    List(Vec<String>),
}

impl<T: FromStr> ByFunction<T> {
    fn read(self, form: &str) -> Result<BTreeMap<String, T>, String> {
        let pair = |text: String| {
            let pair = text.split_once('=');
            let pair = pair.and_then(|(name, of)| Some((name, of.trim().parse().ok()?)));
            match pair {
                Some((name, of)) => Ok((name.trim().to_owned(), of)),
                None => Err(format!("{text:?} is not {form}")),
            }
        };
        match self {
            Self::Table(table) => Ok(table),
            Self::List(list) => list.into_iter().map(pair).collect(),
        }
    }
}

impl TryFrom<ByFunction<String>> for Routes {
    type Error = String;

    fn try_from(text: ByFunction<String>) -> Result<Self, String> {
        text.read("NAME=URL").map(Self)
    }
}

impl TryFrom<ByFunction<f64>> for TotalTimeouts {
    type Error = String;

    fn try_from(text: ByFunction<f64>) -> Result<Self, String> {
        text.read("NAME=SECONDS").map(Self)
    }
}

/// Which words these are, each setting of such a type says.
macro_rules! words {
    ($($type:ty),+) => { $(
        impl KeyValue for $type {
            const NOTATION: Notation = Notation::Text;
            const NOUN: &'static str = "a word";
        }
    )+ };
}

words!(Admin, LogFormat, TimeDistribution);

/// Tables by function names, which check themselves.
macro_rules! by_function {
    ($($type:ty),+) => { $(
        impl KeyValue for $type {
            const NOTATION: Notation = Notation::Table;
            const LIST: bool = true;
            const NOUN: &'static str = "";
        }
    )+ };
}

by_function!(Routes, TotalTimeouts);

/// A default that is a part of the memory that the node may use.
pub(super) struct MemoryShare {
    /// Into how many parts the memory is divided.
    pub(super) parts: u64,
    /// MiB at least.
    pub(super) mib_min: u64,
    /// MiB at most.
    pub(super) mib_max: u64,
}

impl DefaultOf<u64> for MemoryShare {
    fn value(self) -> u64 {
        memory::share(self.parts, self.mib_max << 20).max(self.mib_min << 20)
    }

    fn shown(self) -> ShownDefault {
        let least = match self.mib_min {
            0 => String::new(),
            mib => format!("at least {mib} and "),
        };
        let Self { parts, mib_max, .. } = self;
        ShownDefault::Words(format!("1/{parts} of the memory, {least}at most {mib_max} MiB"))
    }
}

impl DefaultOf<usize> for MemoryShare {
    fn value(self) -> usize {
        usize::try_from(DefaultOf::<u64>::value(self)).unwrap_or(usize::MAX)
    }

    fn shown(self) -> ShownDefault {
        DefaultOf::<u64>::shown(self)
    }
}
