//! Types of settings that are this module's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::keys::{DefaultOf, KeyValue, Notation, ShownDefault};
use crate::memory;
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

/// How the embedded functions draw their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeDistribution {
    /// Always the mean.
    Constant,
    /// Exponential with that mean.
    Exponential,
}

/// Function names with the URL that answers for them. Reads a table or a list of `NAME=URL`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RoutesText")]
pub struct Routes(pub BTreeMap<String, String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum RoutesText {
    Table(BTreeMap<String, String>),
    List(Vec<String>),
}

impl TryFrom<RoutesText> for Routes {
    type Error = String;

    fn try_from(text: RoutesText) -> Result<Self, String> {
        let pair = |route: String| match route.split_once('=') {
            Some((name, url)) => Ok((name.trim().to_owned(), url.trim().to_owned())),
            None => Err(format!("{route:?} is not NAME=URL")),
        };
        match text {
            RoutesText::Table(table) => Ok(Self(table)),
            RoutesText::List(list) => {
                list.into_iter().map(pair).collect::<Result<_, _>>().map(Self)
            }
        }
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

impl KeyValue for Routes {
    const NOTATION: Notation = Notation::Table;
    const LIST: bool = true;
    const NOUN: &'static str = "";
}

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
