//! What a scenario's keys must be beyond the range of each: forms that have words only, and what several
//! must be together.

use super::values::{Learning, Payload};
use super::{RUNS_MAX, Scenario};
use crate::experiment::design::arrivals::Process;
use crate::keys::{KeyValue, Problem};
use crate::policy::Decision;
use crate::policy::registry::SchedulerSpec;
use crate::types::{FunctionName, beyond_json};

/// Payloads, rates, traces and deadlines at most.
const LIST_MAX: usize = 10_000;

impl Scenario {
    /// Checks texts against their forms, and keys that belong together against one another.
    pub(super) fn check_together(&self, problems: &mut Vec<Problem>) {
        self.check_texts(problems);
        self.check_lists(problems);
        self.check_learning(problems);
        self.nodes.check(problems);
        self.network.check(problems);
        self.overheads.check(problems);
        self.faults.iter().for_each(|fault| fault.check(problems));
        self.recording.iter().for_each(|recording| recording.check(problems));
        if self.max_load < self.min_load {
            let why = format!("{} is less than min_load, {}", self.max_load, self.min_load);
            problems.push(Problem::of("max_load", why));
        }
        let follows = self.arrivals == Process::Poisson
            && self.traces.0.is_empty()
            && self.recording.is_none();
        let runs_here = |words: &String| {
            let policy = SchedulerSpec::from_words(words).build().ok();
            matches!(policy.and_then(|policy| policy.always()), Some(Decision::RunHere { .. }))
        };
        let stays = self.schedulers.0.iter().all(runs_here);
        if self.theory_service_s.is_some() && !(follows && stays && self.rates.0.len() == 1) {
            let needs = "poisson arrivals at one rate, and a scheduler that runs every call here";
            let why = format!("the closed forms need {needs}");
            problems.push(Problem::of("theory_service_s", why));
        }
    }

    /// The forms of texts.
    fn check_texts(&self, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, why: String| problems.push(Problem::of(key, why));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !self.name.chars().all(plain) || self.name.trim_matches('.').is_empty() {
            let name = &self.name;
            problem("name", format!("{name:?} is no name of letters, digits, '-', '_' and '.'"));
        }
        if let Err(why) = FunctionName::parse_listed(&self.function) {
            problem("function", why.to_string());
        }
        for words in &self.schedulers.0 {
            if let Err(why) = SchedulerSpec::from_words(words).build() {
                problem("schedulers", format!("{words:?}: {why}"));
            }
        }
    }

    /// How long lists are, and how many runs they make.
    fn check_lists(&self, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, why: String| problems.push(Problem::of(key, why));
        for payload in &self.payloads {
            if let Err(why) = payload.mix.check(&Payload::MIX) {
                problem("payloads", format!("mix: {why}"));
            }
        }
        if self.payloads.iter().map(|payload| payload.mix.unwrap_or(1.0)).sum::<f64>() <= 0.0 {
            problem("payloads", "none is ever sent".to_owned());
        }
        for (key, empty) in [
            ("rates", self.rates.0.is_empty()),
            ("seeds", self.seeds.0.is_empty()),
            ("load_factors", self.load_factors.0.is_empty()),
            ("deadline_factors", self.deadline_factors.0.is_empty()),
        ] {
            if empty {
                problem(key, "the list is empty".to_owned());
            }
        }
        for (key, length) in [
            ("payloads", self.payloads.len()),
            ("rates", self.rates.0.len()),
            ("traces", self.traces.0.len()),
            ("deadlines_s", self.deadlines_s.0.len()),
            ("faults", self.faults.len()),
        ] {
            if length > LIST_MAX {
                problem(key, format!("it has {length} entries, at most {LIST_MAX} are taken"));
            }
        }
        let lists = [
            self.schedulers.0.len().max(1),
            self.seeds.0.len(),
            self.load_factors.0.len(),
            self.deadline_factors.0.len(),
        ];
        let runs = lists.iter().fold(1usize, |runs, list| runs.saturating_mul(*list));
        if runs > RUNS_MAX {
            let with = "with seeds, load_factors and deadline_factors";
            problem("schedulers", format!("{with} {runs} runs, at most {RUNS_MAX} are made"));
        }
    }

    /// Who trains, and on what.
    fn check_learning(&self, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, why: String| problems.push(Problem::of(key, why));
        if self.learning == Learning::Node && self.deadlines_s.0.is_empty() {
            let why = "nodes reward themselves by deadlines_s, which is empty";
            problem("learning", why.to_owned());
        }
        if let Some(key) = beyond_json(&self.learner) {
            problem("learner", format!("{key} is no finite number"));
        }
        if self.learning == Learning::Off && !self.learner.is_empty() {
            let act = "which act from a reset on, and with learning = \"off\" nothing is reset";
            problem("learner", format!("there are parameters, {act}"));
        }
    }
}
