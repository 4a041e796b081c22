//! Simulated runs beside real ones: where do they differ by more than noise?
//!
//! Two means with half intervals h₁ and h₂ at 95 % differ beyond noise if they are further apart than
//! c · √(h₁² + h₂²). As many figures are compared, c is widened so that of all of them together none is named by chance 19
//! times in 20: c = √(2 ln(2n / 0.05)) / 1.96 for n figures (Bonferroni's inequality, with the normal tail bounded by
//! 2 exp(−z²/2)). Both worlds are sent the same calls, which makes them differ less, so the test is on the safe side.

use crate::experiment::report::stats::{Estimate, estimate};
use crate::experiment::report::summary::Summary;

/// A figure that is compared: what it is called, its value, and how it is shown.
type Compared = (&'static str, fn(&Summary) -> Option<Estimate>, fn(f64) -> String);

const FIGURES: [Compared; 5] = [
    ("in time", |run| run.in_time, share),
    ("forwarded", |run| run.forwarded, share),
    ("refused", |run| run.refused, share),
    ("failed", |run| run.failed, share),
    ("mean ms", |run| run.latency_s, milliseconds),
];

fn share(value: f64) -> String {
    format!("{value:.4}")
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.2}", seconds * 1000.0)
}

/// A figure in both worlds.
#[derive(Clone, Debug)]
struct Both {
    /// Of which runs.
    line: String,
    what: &'static str,
    simulated: Estimate,
    real: Estimate,
    shown: fn(f64) -> String,
}

impl Both {
    /// How far both are apart, and how far they may be by chance; `None`: that is not known.
    fn apart(&self, widened: f64) -> (f64, Option<f64>) {
        let noise = self.simulated.half.zip(self.real.half);
        let noise = noise.map(|(one, other)| widened * one.hypot(other));
        (self.simulated.mean - self.real.mean, noise)
    }
}

/// What both worlds say, side by side.
pub struct Worlds {
    /// The table, its first row being the columns' names.
    pub rows: Vec<Vec<String>>,
    /// What it comes to.
    pub words: String,
}

/// A figure of several runs that differ by their seed alone.
fn over_seeds(runs: &[&Summary], of: fn(&Summary) -> Option<Estimate>) -> Option<Estimate> {
    match runs {
        [one] => of(one),
        all => estimate(&all.iter().filter_map(|run| Some(of(run)?.mean)).collect::<Vec<_>>()),
    }
}

/// Of which runs a line is: what real and simulated ones have in common.
fn line(run: &Summary) -> String {
    let point = &run.about.point;
    let name = run.about.scheduler();
    format!("{name}, load × {}, deadlines × {}", point.load_factor, point.deadline_factor)
}

/// Compares the simulated ones of `runs` with the real ones; `None`: there are no two of the same algorithm, load and
/// deadlines.
pub fn compare(runs: &[Summary]) -> Option<Worlds> {
    let mut lines: Vec<String> = Vec::new();
    for run in runs {
        let line = line(run);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let mut all = Vec::new();
    for name in &lines {
        let of = |simulated: bool| -> Vec<&Summary> {
            let wanted = |run: &&Summary| run.about.simulated == simulated && line(run) == *name;
            runs.iter().filter(wanted).collect()
        };
        let (simulated, real) = (of(true), of(false));
        for (what, value, shown) in FIGURES {
            let both = over_seeds(&simulated, value).zip(over_seeds(&real, value));
            all.extend(both.map(|(simulated, real)| Both {
                line: name.clone(),
                what,
                simulated,
                real,
                shown,
            }));
        }
    }
    if all.is_empty() {
        return None;
    }
    let widened = (2.0 * (2.0 * all.len() as f64 / 0.05).ln()).sqrt() / 1.96;
    let names = ["runs", "figure", "simulated", "real", "difference", "noise", "beyond noise"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    let mut beyond = Vec::new();
    for both in &all {
        let (apart, noise) = both.apart(widened);
        // Equal values need no interval to be within it.
        let is_beyond = noise.is_some_and(|noise| apart.abs() > noise);
        if is_beyond {
            beyond.push(format!("{} of {}", both.what, both.line));
        }
        let shown = |estimate: Estimate| (both.shown)(estimate.mean);
        rows.push(vec![
            both.line.clone(),
            both.what.to_owned(),
            shown(both.simulated),
            shown(both.real),
            (both.shown)(apart),
            noise.map_or("?".to_owned(), both.shown),
            if is_beyond { "yes" } else { "no" }.to_owned(),
        ]);
    }
    let of = all.len();
    let words = match beyond.len() {
        0 => format!("Simulated and real runs differ beyond noise nowhere, in {of} figures."),
        some => format!(
            "Simulated and real runs differ beyond noise in {some} of {of} figures: {}.",
            beyond.join("; ")
        ),
    };
    Some(Worlds { rows, words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::design::about::{About, NodeAbout, RunEnd};
    use crate::experiment::design::job::Job;
    use crate::experiment::design::scenario::{Deadlines, Point};
    use crate::experiment::report::comparison::Differences;
    use crate::experiment::report::summary::Collector;
    use crate::policy::registry::SchedulerSpec;

    /// A run in which every `one_in`-th call is late.
    fn run(simulated: bool, words: &str, one_in: u32, seed: u64) -> Summary {
        let point = Point {
            scheduler: Some(SchedulerSpec::from_words(words)),
            load_factor: 1.0,
            deadline_factor: 1.0,
            seed,
        };
        let deadlines_s = Deadlines(vec![0.1]);
        let mut collector =
            Collector::new(About { simulated, point, deadlines_s, ..About::default() });
        for number in 0..4000u32 {
            // Not in step with the batches.
            let is_late = ((number * 7919 + seed as u32) % 4001).is_multiple_of(one_in);
            let total_s = if is_late { 0.2 } else { 0.05 };
            collector.add(&Job { status: 200, total_s, ..Job::default() });
        }
        collector.finish()
    }

    #[test]
    fn runs_of_both_worlds_are_told_apart_only_beyond_noise() {
        let real = run(false, "NoScheduler true", 10, 1);
        let like = run(true, "NoScheduler true", 10, 5);
        let worlds = compare(&[real.clone(), like]).expect("both");
        assert!(worlds.words.contains("nowhere, in 5 figures"), "{}", worlds.words);
        assert_eq!(worlds.rows.len(), 6);
        let unlike = run(true, "NoScheduler true", 4, 5);
        let worlds = compare(&[real, unlike]).expect("both");
        assert!(worlds.words.contains("in time of NoScheduler true"), "{}", worlds.words);
        assert!(worlds.words.contains("mean ms of"), "{}", worlds.words);
        assert!(!worlds.words.contains("failed of"), "{}", worlds.words);
    }

    #[test]
    fn a_line_tells_its_world_and_nothing_that_only_one_world_has() {
        let mut runs =
            [run(false, "NoScheduler true", 10, 1), run(true, "NoScheduler true", 10, 1)];
        for (run, version) in runs.iter_mut().zip(["1.0.0 (abc)", "1.0.0"]) {
            let node = NodeAbout { version: version.to_owned(), ..NodeAbout::default() };
            (run.about.nodes, run.about.end) = (vec![node], RunEnd::Complete);
        }
        runs[1].about.scenario.network.latency_ms = 20.0;
        let labels = |runs: &[Summary]| {
            let differences = Differences::of(runs);
            runs.iter().map(|run| differences.label(run)).collect::<Vec<_>>()
        };
        assert_eq!(labels(&runs), ["NoScheduler true, real", "NoScheduler true, simulated"]);
        let slower = run(true, "NoScheduler true", 10, 1);
        let all = labels(&[&runs[..], &[slower]].concat());
        assert!(all[1].contains(r#"network {"bandwidth_mbit":0.0"#), "{all:?}");
        assert!(!all[0].contains("network"), "{all:?}");
        runs[1].about.scenario.duration_s += 1.0;
        assert!(labels(&runs)[0].contains("real, duration_s"), "{:?}", labels(&runs));
    }

    #[test]
    fn without_runs_of_both_worlds_there_is_nothing_to_compare() {
        let real = run(false, "NoScheduler true", 10, 1);
        assert!(compare(&[real.clone(), real.clone()]).is_none());
        assert!(compare(&[real, run(true, "NoScheduler false", 10, 1)]).is_none());
    }
}
