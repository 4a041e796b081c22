//! What is to be run: how large, how long, which faults, with which seed.
//!
//! | environment | meaning |
//! |---|---|
//! | `CHAOS=long` | all faults, each for as long as it takes to show; else those that show something in seconds |
//! | `CHAOS_SEED` | the seed; without one, 1, and in the long run any |
//! | `CHAOS_FAULT` | the names of the faults, with blanks between them |
//! | `CHAOS_KEYED=1` | all clusters have a key; else those of faults that need one, if the program knows keys |
//! | `CHAOS_NODES` | how many nodes |
//! | `CHAOS_RATE` | calls a second |
//! | `CHAOS_ENVIRONMENT` | further environment of all nodes, `NAME=VALUE` with blanks between them |
//! | `CHAOS_TABLE` | a file that the table is written to as well |
//! | `CHAOS_LOGS` | a folder for the nodes' logs |
//! | `P2PFAAS_REQUIRE_CHAOS=1` | what is missing on this machine is an error |

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::faults::{ALL, Fault, Needs};
use super::keys::Keys;

const NODES: usize = 12;

/// How it is run.
pub struct Course {
    pub is_long: bool,
    pub seed: u64,
    faults: Vec<&'static Fault>,
    is_keyed: bool,
    pub nodes: usize,
    /// Calls a second.
    pub rate: f64,
    /// How long calls go on before the fault, how long it lasts, and how long calls go on from 6 s after it.
    pub before: Duration,
    pub lasts: Duration,
    pub after: Duration,
    pub environment: Vec<(String, String)>,
    pub table: Option<PathBuf>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = variable(name)?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value:?}")))
}

impl Course {
    /// As the environment says.
    pub fn of_environment() -> Self {
        let is_long = variable("CHAOS").is_some_and(|value| value == "long");
        let seconds = |long, short| Duration::from_secs(if is_long { long } else { short });
        Self {
            is_long,
            seed: number("CHAOS_SEED").unwrap_or_else(|| if is_long { any_seed() } else { 1 }),
            faults: chosen(is_long),
            is_keyed: variable("CHAOS_KEYED").is_some_and(|value| value == "1"),
            nodes: number("CHAOS_NODES").unwrap_or(NODES),
            rate: number("CHAOS_RATE").unwrap_or(200.0),
            before: seconds(10, 2),
            lasts: seconds(20, 4),
            after: seconds(10, 2),
            environment: environment(),
            table: variable("CHAOS_TABLE").map(PathBuf::from),
        }
    }

    /// The clusters that are needed, with the faults that strike there: one without a key, and one with a key if the
    /// program knows keys.
    pub fn clusters(&self) -> Vec<(Option<Keys>, Vec<&'static Fault>)> {
        let keys = Keys::make();
        assert!(
            !self.is_keyed || keys.is_some(),
            "CHAOS_KEYED is set, and the program knows no keys"
        );
        let can_strike = |has_key: bool| {
            let faults = self.faults.iter().copied().filter(|fault| match fault.needs {
                Needs::Nothing => has_key == self.is_keyed,
                Needs::NoKey => !has_key && !self.is_keyed,
                Needs::Key => has_key,
            });
            faults.collect::<Vec<_>>()
        };
        let with_key = keys.map(|keys| (Some(keys), can_strike(true)));
        let clusters = std::iter::once((None, can_strike(false))).chain(with_key);
        clusters.filter(|(_, faults)| !faults.is_empty()).collect()
    }

    /// The randomness of one fault. It is the same whether that fault is run alone or not.
    pub fn random(&self, fault: &Fault) -> StdRng {
        let mut hash = DefaultHasher::new();
        (self.seed, fault.name).hash(&mut hash);
        StdRng::seed_from_u64(hash.finish())
    }

    /// The command that runs one fault again.
    pub fn again(&self, fault: &Fault) -> String {
        let long = if self.is_long { "CHAOS=long " } else { "" };
        let keyed = if self.is_keyed { "CHAOS_KEYED=1 " } else { "" };
        format!(
            "{long}{keyed}CHAOS_SEED={} CHAOS_FAULT={} cargo test --locked --test chaos",
            self.seed, fault.name
        )
    }
}

fn chosen(is_long: bool) -> Vec<&'static Fault> {
    let Some(names) = variable("CHAOS_FAULT") else {
        return ALL.iter().filter(|fault| is_long || fault.is_short).collect();
    };
    let known = |name| ALL.iter().find(|fault| fault.name == name);
    let fault = |name| known(name).unwrap_or_else(|| panic!("there is no fault {name:?}"));
    names.split_whitespace().map(fault).collect()
}

fn environment() -> Vec<(String, String)> {
    let words = variable("CHAOS_ENVIRONMENT").unwrap_or_default();
    let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Small enough to be typed.
#[expect(clippy::disallowed_methods, reason = "any seed will do, and it is told")]
fn any_seed() -> u64 {
    rand::random_range(1..1_000_000)
}
