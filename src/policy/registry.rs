//! Every algorithm by name. This is the one place that knows them all.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Policy;
use super::cap::CapScheduler;
use super::deadline::DeadlineScheduler;
use super::external::ExternalScheduler;
use super::forward::ForwardScheduler;
use super::join_idle_queue::JoinIdleQueueScheduler;
use super::latency::LatencyScheduler;
use super::learning::LearningScheduler;
use super::no::NoScheduler;
use super::params::{BadParameters, Params};
use super::portfolio::PortfolioScheduler;
use super::power_of_n::PowerOfNScheduler;
use super::power_of_n_tau::PowerOfNSchedulerTau;
use super::prequal::PrequalScheduler;
use super::reject::RejectScheduler;
use super::round_robin::RoundRobinWithMasterScheduler;
use super::second_decision::SecondDecisionScheduler;
use crate::types::{Mended, Object, null_as_default, shortened};

type Parse = fn(&mut Params<'_>) -> Result<Arc<dyn Policy>, BadParameters>;

/// Makes a policy's own `parse` fit the table.
macro_rules! algorithm {
    ($policy:ident, $usage:literal) => {
        Algorithm {
            name: $policy::NAME,
            usage: $usage,
            parse: |params| Ok(Arc::new($policy::parse(params)?)),
        }
    };
}

/// An algorithm that can be configured.
pub struct Algorithm {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its parameters, for help texts.
    pub usage: &'static str,
    parse: Parse,
}

/// All of them; the names are the wire's.
pub const ALGORITHMS: &[Algorithm] = &[
    algorithm!(NoScheduler, "loss"),
    algorithm!(RejectScheduler, ""),
    algorithm!(ForwardScheduler, "max_hops"),
    algorithm!(PowerOfNScheduler, "fan_out threshold loss max_hops"),
    algorithm!(PowerOfNSchedulerTau, "fan_out threshold loss max_hops tau"),
    algorithm!(RoundRobinWithMasterScheduler, "is_master master_ip loss"),
    algorithm!(LearningScheduler, "task_types [actions [state]]"),
    algorithm!(CapScheduler, "cap fan_out rounds"),
    algorithm!(DeadlineScheduler, "fan_out rounds"),
    algorithm!(ExternalScheduler, "URL [timeout]"),
    algorithm!(PortfolioScheduler, "epoch POLICY|POLICY|…"),
    algorithm!(JoinIdleQueueScheduler, "choices"),
    algorithm!(SecondDecisionScheduler, "fan_out threshold"),
    algorithm!(LatencyScheduler, "[decay]"),
    algorithm!(PrequalScheduler, "r_probe pool_max q_rif"),
];

/// The algorithm where none is set: v1's default.
pub const DEFAULT_ALGORITHM: &str = "PowerOfNScheduler 1 2 true 1";

/// The algorithm of a call that asks to run where it comes: it is refused if no slot is free.
pub fn bypassing() -> Arc<dyn Policy> {
    Arc::new(NoScheduler { loss: true })
}

/// The algorithm of a call that asks to be forwarded.
pub fn forwarding() -> Arc<dyn Policy> {
    Arc::new(ForwardScheduler { max_hops: 1 })
}

/// The algorithm of a call that asks to be rejected.
pub fn rejecting() -> Arc<dyn Policy> {
    Arc::new(RejectScheduler)
}

/// An algorithm and its parameters as they stand on the wire and on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Object<SpecObject>")]
pub struct SchedulerSpec {
    /// The algorithm's name; missing or null reads as empty, which no algorithm is called.
    pub name: String,
    /// Its parameters in order.
    pub parameters: Vec<String>,
}

#[derive(Deserialize)]
struct SpecObject {
    #[serde(default, deserialize_with = "null_as_default")]
    name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    parameters: Vec<String>,
}

impl From<Object<SpecObject>> for SchedulerSpec {
    fn from(Object(read): Object<SpecObject>) -> Self {
        Self { name: read.name, parameters: read.parameters }
    }
}

/// Bytes of an algorithm's name and parameters together. They stand in a header of every answer.
pub const SPEC_BYTES_MAX: usize = 1024;

impl SchedulerSpec {
    /// Splits `NAME P1 P2 …` at white space, as on the command line.
    pub fn from_words(text: &str) -> Self {
        let mut words = text.split_whitespace().map(str::to_owned);
        Self { name: words.next().unwrap_or_default(), parameters: words.collect() }
    }

    /// The name and the parameters, as on the command line.
    pub fn words(&self) -> String {
        [std::slice::from_ref(&self.name), &self.parameters].concat().join(" ")
    }

    /// The normal form of a policy.
    pub fn of(policy: &dyn Policy) -> Self {
        Self { name: policy.name().to_owned(), parameters: policy.parameters() }
    }

    /// The policy that this names.
    ///
    /// # Errors
    /// An unknown name, or parameters that are missing, do not read as what they must be, or are too
    /// long.
    pub fn build(&self) -> Result<Arc<dyn Policy>, BadParameters> {
        let bytes = self.bytes();
        if bytes > SPEC_BYTES_MAX {
            return Err(BadParameters::TooLong { bytes, max: SPEC_BYTES_MAX });
        }
        let policy = self.parse(&mut Params::new(&self.parameters))?;
        // What is saved and told is the normal form, which may be longer.
        let bytes = Self::of(&*policy).bytes();
        match bytes <= SPEC_BYTES_MAX {
            true => Ok(policy),
            false => Err(BadParameters::TooLong { bytes, max: SPEC_BYTES_MAX }),
        }
    }

    /// This as v1 may have saved it, with each parameter that means nothing here at the nearest value
    /// that does; and what was taken for what.
    ///
    /// # Errors
    /// An unknown name, or parameters that are missing or near to nothing.
    pub fn mended(&self) -> Result<(Self, Vec<Mended>), BadParameters> {
        let mut params = Params::saved(&self.parameters);
        let policy = self.parse(&mut params)?;
        let (mut spec, mut all) = (self.clone(), Vec::new());
        for (place, mended) in params.mended() {
            if let Some(parameter) = spec.parameters.get_mut(place) {
                parameter.clone_from(&mended.taken);
            }
            all.push(mended);
        }
        // What is never asked for, or has zeros in front, can be of any length.
        if spec.bytes() > SPEC_BYTES_MAX {
            let short = Self::of(&*policy);
            all.push(Mended::of("parameters", self.parameters.join(" "), short.words()));
            spec = short;
        }
        Ok((spec, all))
    }

    fn bytes(&self) -> usize {
        let all = std::iter::once(&self.name).chain(&self.parameters);
        all.fold(0, |sum: usize, text| sum.saturating_add(text.len()).saturating_add(1))
    }

    fn parse(&self, params: &mut Params<'_>) -> Result<Arc<dyn Policy>, BadParameters> {
        let found = ALGORITHMS.iter().find(|a| a.name == self.name);
        let unknown = || BadParameters::UnknownName {
            name: shortened(&self.name, 64).into_owned(),
            known: ALGORITHMS.iter().map(|a| a.name).collect::<Vec<_>>().join(", "),
        };
        (found.ok_or_else(unknown)?.parse)(params)
    }
}

impl Default for SchedulerSpec {
    /// [`DEFAULT_ALGORITHM`].
    fn default() -> Self {
        Self::from_words(DEFAULT_ALGORITHM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_name(words: &str) -> String {
        match SchedulerSpec::from_words(words).build() {
            Ok(policy) => policy.full_name(),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn full_names_are_those_of_v1() {
        for (words, shown) in [
            ("NoScheduler T", "NoScheduler"),
            ("RejectScheduler", "RejectScheduler"),
            ("ForwardScheduler 1", "ForwardScheduler(1)"),
            ("PowerOfNScheduler 1 2 1 1", "PowerOfNScheduler(1, 2, true, 1)"),
            ("PowerOfNSchedulerTau 1 2 t 1 100ms", "PowerOfNSchedulerTau(1, 2, true, 1, 100ms)"),
            (
                "RoundRobinWithMasterScheduler F 10.0.0.1 true",
                "RoundRobinWithMasterScheduler(false, 10.0.0.1, true)",
            ),
            ("LearningScheduler 2", "LearningScheduler(2)"),
            ("CapScheduler 2 3 4", "CapScheduler(2, 3, 4)"),
            ("DeadlineScheduler 3 4", "DeadlineScheduler(3, 4)"),
            (
                "PortfolioScheduler 5s NoScheduler T|CapScheduler 2 3 4",
                "PortfolioScheduler(5000ms, NoScheduler true|CapScheduler 2 3 4)",
            ),
            ("JoinIdleQueueScheduler 2", "JoinIdleQueueScheduler(2)"),
            ("SecondDecisionScheduler 1 2", "SecondDecisionScheduler(1, 2)"),
            ("LatencyScheduler", "LatencyScheduler(10000ms)"),
            ("PrequalScheduler 3 16 0.84", "PrequalScheduler(3, 16, 0.84)"),
        ] {
            assert_eq!(full_name(words), shown);
        }
    }

    #[test]
    fn the_normal_form_of_every_algorithm_builds_the_same_again() {
        for words in [
            "NoScheduler T",
            "RejectScheduler",
            "ForwardScheduler 3",
            "PowerOfNScheduler 1 2 f 1",
            "PowerOfNSchedulerTau 1 2 t 1 1h2m",
            "RoundRobinWithMasterScheduler 1 somewhere 0",
            "LearningScheduler 0",
            "CapScheduler 2 3 4",
            "DeadlineScheduler 3 4",
            "PortfolioScheduler",
            "PortfolioScheduler 3s RejectScheduler|PowerOfNScheduler 1 2 f 1",
            "JoinIdleQueueScheduler 1",
            "SecondDecisionScheduler 1 2",
            "LatencyScheduler 1.5s",
            "PrequalScheduler 2.5 16 0.84",
        ] {
            let policy = SchedulerSpec::from_words(words).build().expect(words);
            let spec = SchedulerSpec::of(&*policy);
            let again = spec.build().expect("a normal form is good");
            assert_eq!(SchedulerSpec::of(&*again), spec);
        }
        let tau = SchedulerSpec::from_words("PowerOfNSchedulerTau 1 2 T 1 1h2m").build();
        assert_eq!(
            tau.expect("good").parameters(),
            ["1", "2", "true", "1", "3720000ms"].map(str::to_owned)
        );
    }

    #[test]
    fn extra_parameters_are_ignored_and_missing_or_wrong_ones_are_named() {
        assert_eq!(full_name("ForwardScheduler 1 x y"), "ForwardScheduler(1)");
        assert_eq!(full_name("ForwardScheduler"), "parameter 1 (max hops) is missing");
        assert!(full_name("ForwardScheduler -1").starts_with("parameter 1 (max hops) is \"-1\""));
        assert!(full_name("LearningScheduler 257").contains("from 0 to 256"));
        assert!(full_name("Nope").starts_with("there is no scheduler named \"Nope\""));
    }

    #[test]
    fn names_and_parameters_are_bounded() {
        let master = |bytes| format!("RoundRobinWithMasterScheduler F {} true", "m".repeat(bytes));
        assert!(SchedulerSpec::from_words(&master(253)).build().is_ok());
        assert!(full_name(&master(254)).contains("at most 253 characters"));
        assert!(full_name(&format!("RejectScheduler {}", "x ".repeat(600))).contains("1024"));
        assert!(full_name(&"N".repeat(500)).len() < 500);
        let spec = r#"["NoScheduler",["true"]]"#;
        assert!(serde_json::from_str::<SchedulerSpec>(spec).is_err(), "it must be an object");
    }

    #[test]
    fn null_parameters_read_as_none() {
        let spec: SchedulerSpec =
            serde_json::from_str(r#"{"name":"RejectScheduler","parameters":null}"#).expect("valid");
        assert_eq!(spec, SchedulerSpec::from_words("RejectScheduler"));
    }

    #[test]
    fn what_v1_saved_is_mended_and_can_be_built_then() {
        for (words, taken, mended) in [
            ("LearningScheduler 257", "LearningScheduler 256", 1),
            ("LearningScheduler 3", "LearningScheduler 3", 0),
            (
                "PowerOfNSchedulerTau 18446744073709551615 -1 t 1.0 -5ms",
                "PowerOfNSchedulerTau 4294967295 0 t 1 0ms",
                4,
            ),
            (
                "RoundRobinWithMasterScheduler F n\u{f8}de true",
                "RoundRobinWithMasterScheduler F n_de true",
                1,
            ),
        ] {
            let (spec, all) = SchedulerSpec::from_words(words).mended().expect(words);
            assert_eq!((spec.words().as_str(), all.len()), (taken, mended));
            assert!(spec.build().is_ok(), "{words}");
        }
        let long = format!("ForwardScheduler {}1 unasked", "0".repeat(2000));
        let (spec, all) = SchedulerSpec::from_words(&long).mended().expect("a number");
        assert_eq!((spec.words().as_str(), all.len()), ("ForwardScheduler 1", 1));
        for wrong in ["Nope", "", "LearningScheduler", "LearningScheduler x", "NoScheduler maybe"] {
            assert!(SchedulerSpec::from_words(wrong).mended().is_err(), "{wrong}");
        }
    }
}
