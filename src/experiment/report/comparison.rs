//! Runs side by side.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Figure;
use crate::experiment::design::about::{NodeAbout, RunEnd};
use crate::experiment::report::plots::{Axes, Dot, Mark, Series, lines, rows};
use crate::experiment::report::stats::{Estimate, estimate};
use crate::experiment::report::summary::Summary;

/// Whether a property is not the same for all runs.
fn differs<T: PartialEq>(runs: &[Summary], of: impl Fn(&Summary) -> T) -> bool {
    runs.iter().any(|run| Some(of(run)) != runs.first().map(&of))
}

/// Keys of a scenario that are told elsewhere, or that change nothing of what is measured.
const NOT_TOLD: [&str; 12] = [
    "name",
    "fleet",
    "scheduler_port",
    "discovery_port",
    "learner_port",
    "schedulers",
    "seeds",
    "load_factors",
    "deadline_factors",
    "deadlines_s",
    "quiet_timeout_s",
    "checks",
];

/// Keys that only a simulation goes by.
const SIMULATED: [&str; 5] = ["nodes", "network", "service", "overheads", "faults"];

/// Under which name the nodes' version is told.
const VERSION: &str = "version";

/// What else was set for a run, key by key, the nodes' settings among it.
fn settings(run: &Summary) -> Map<String, Value> {
    let about = &run.about;
    let all = serde_json::to_value(&about.scenario).unwrap_or_default();
    let mut settings = match all {
        Value::Object(all) => all,
        _ => Map::new(),
    };
    settings.retain(|key, _| !NOT_TOLD.contains(&key.as_str()));
    if !about.simulated {
        settings.retain(|key, _| !SIMULATED.contains(&key.as_str()));
    }
    settings.insert("base deadlines_s".to_owned(), about.scenario.deadlines_s.0.clone().into());
    let nodes = || about.nodes.iter();
    let first = |of: &dyn Fn(&NodeAbout) -> Value| nodes().next().map(of).unwrap_or_default();
    settings.insert("number of nodes".to_owned(), nodes().count().into());
    settings.insert(VERSION.to_owned(), first(&|node| node.version.clone().into()));
    settings.extend(nodes().next().into_iter().flat_map(|node| node.configuration.clone()));
    settings
}

/// What is not the same for all runs, looked at once: a run can have thousands of settings.
pub struct Differences {
    name: bool,
    load_factor: bool,
    deadline_factor: bool,
    world: bool,
    settings: BTreeSet<String>,
}

/// Keys that do not have the same value in both.
fn unlike<'a>(
    one: &'a Map<String, Value>,
    other: &'a Map<String, Value>,
) -> impl Iterator<Item = String> + use<'a> {
    let keys = one.keys().chain(other.keys());
    keys.filter(|key| one.get(*key) != other.get(*key)).cloned()
}

impl Differences {
    /// Those of `runs`.
    pub fn of(runs: &[Summary]) -> Self {
        let (mut keys, mut firsts) = (BTreeSet::new(), Vec::new());
        for simulated in [false, true] {
            let same_world = runs.iter().filter(|run| run.about.simulated == simulated);
            let mut all = same_world.map(settings);
            let Some(first) = all.next() else { continue };
            all.for_each(|other| keys.extend(unlike(&first, &other)));
            firsts.push(first);
        }
        if let [real, simulated] = &firsts[..] {
            // What only one of the worlds has tells nothing, and only nodes have another version than the bench.
            let in_both = |key: &String| real.contains_key(key) && simulated.contains_key(key);
            let told = |key: &String| in_both(key) && key != VERSION;
            keys.extend(unlike(real, simulated).filter(told));
        }
        Self {
            name: differs(runs, |run| run.about.scenario.name.clone()),
            load_factor: differs(runs, |run| run.about.point.load_factor),
            deadline_factor: differs(runs, |run| run.about.point.deadline_factor),
            world: differs(runs, |run| run.about.simulated),
            settings: keys,
        }
    }

    /// The algorithm of `run`, and what else tells its line from others: the scenario's name and
    /// every setting that is not the same for all runs.
    fn line(&self, run: &Summary) -> String {
        let mut text = run.about.scheduler();
        if self.name {
            text = format!("{}: {text}", run.about.scenario.name);
        }
        if self.world {
            text.push_str(if run.about.simulated { ", simulated" } else { ", real" });
        }
        if self.settings.is_empty() {
            return text;
        }
        for (key, value) in settings(run) {
            if self.settings.contains(&key) {
                text.push_str(&format!(", {key} {value}"));
            }
        }
        text
    }

    /// A line, and the factors that are not the same for all runs.
    pub fn label(&self, run: &Summary) -> String {
        let mut text = self.line(run);
        let point = &run.about.point;
        if self.load_factor {
            text.push_str(&format!(", load × {}", point.load_factor));
        }
        if self.deadline_factor {
            text.push_str(&format!(", deadlines × {}", point.deadline_factor));
        }
        text.push_str(match run.about.end {
            RunEnd::Complete => "",
            RunEnd::Interrupted => " (interrupted)",
            RunEnd::Unknown => " (not ended)",
        });
        text
    }
}

/// What a name of `runs` ends with if some of them were disturbed.
pub(super) fn mark<'a>(runs: impl ExactSizeIterator<Item = &'a Summary>) -> String {
    let all = runs.len();
    match runs.filter(|run| run.disturbed()).count() {
        0 => String::new(),
        _ if all == 1 => " (disturbed)".to_owned(),
        some => format!(" ({some} of {all} disturbed)"),
    }
}

/// How many of `runs` were disturbed, and what that means; `None`: none was.
pub fn disturbances(runs: &[Summary]) -> Option<String> {
    let all = runs.len();
    let some = runs.iter().filter(|run| run.disturbed()).count();
    (some > 0).then(|| {
        format!(
            "Disturbed: {some} of {all} runs. The bench sent fewer than 99 % of their calls in time, \
             or one in a hundred more than 10 ms late. Their shares and latencies are not the nodes' \
             alone; run them again on a machine that has nothing else to do."
        )
    })
}

/// Runs that differ by their seed alone.
pub(super) struct Group<'a> {
    pub(super) label: String,
    pub(super) runs: Vec<&'a Summary>,
}

pub(super) fn groups<'a>(runs: &'a [Summary]) -> Vec<Group<'a>> {
    let seed = |run: &Summary| run.about.point.seed;
    let differences = Differences::of(runs);
    let mut groups = Vec::<Group<'a>>::new();
    for run in runs {
        let label = differences.label(run);
        // The same seed once more is the same experiment once more, and stands by itself.
        let again = |group: &Group<'_>| group.runs.iter().any(|other| seed(other) == seed(run));
        let same = groups.iter().filter(|group| group.label == label).count();
        match groups.iter_mut().find(|group| group.label == label && !again(group)) {
            Some(group) if run.about.end == RunEnd::Complete => group.runs.push(run),
            _ => {
                let mark = if same > 0 { format!("{label} #{}", same + 1) } else { label };
                groups.push(Group { label: mark, runs: vec![run] });
            }
        }
    }
    groups.iter_mut().for_each(|group| {
        let mark = mark(group.runs.iter().copied());
        group.label.push_str(&mark);
    });
    groups
}

impl Group<'_> {
    /// A figure of all its runs: the one run's own, or the mean over the runs, which are
    /// independent.
    pub(super) fn figure(&self, of: impl Fn(&Summary) -> Option<Estimate>) -> Option<Estimate> {
        let all: Vec<Estimate> = self.runs.iter().filter_map(|run| of(run)).collect();
        match *all {
            [one] => Some(one),
            _ => estimate(&all.iter().map(|one| one.mean).collect::<Vec<_>>()),
        }
    }

    /// The mean over its runs of what has no interval of its own.
    fn mean(&self, of: impl Fn(&Summary) -> Option<f64>) -> Option<f64> {
        self.figure(|run| of(run).map(|mean| Estimate { mean, half: None })).map(|of| of.mean)
    }
}

fn shown(estimate: Option<Estimate>, scale: f64, digits: usize) -> String {
    let number = |x: f64| format!("{:.digits$}", x * scale);
    match estimate {
        Some(Estimate { mean, half: Some(half) }) => {
            format!("{} ± {}", number(mean), number(half))
        }
        Some(Estimate { mean, half: None }) => number(mean),
        None => "-".to_owned(),
    }
}

/// A latency that a share of all answers, whatever their type, took at most.
fn latency(run: &Summary, which: usize) -> Option<f64> {
    run.quantiles_s.and_then(|all| all.get(which).copied())
}

/// A row of names, then one per group of runs.
pub fn table(runs: &[Summary]) -> Vec<Vec<String>> {
    let names = [
        "scheduler",
        "calls",
        "rate /s",
        "sent %",
        "late ms",
        "in time",
        "rejected",
        "full",
        "failed",
        "forwarded",
        "mean ms",
        "p50 ms",
        "p90 ms",
        "p99 ms",
    ];
    let mut table = vec![names.map(str::to_owned).to_vec()];
    for group in groups(runs) {
        let calls: usize = group.runs.iter().map(|run| run.calls).sum();
        let mut row = vec![
            group.label.clone(),
            calls.to_string(),
            format!("{:.1}", group.mean(|run| Some(run.rate())).unwrap_or(0.0)),
            group
                .mean(Summary::sent)
                .map_or("-".to_owned(), |share| format!("{:.1}", 100.0 * share)),
            group
                .mean(|run| run.sent().map(|_| run.about.kept.late_s[1]))
                .map_or("-".to_owned(), |late| format!("{:.2}", 1000.0 * late)),
            shown(group.figure(|run| run.in_time), 1.0, 3),
            shown(group.figure(|run| run.rejected), 1.0, 3),
            shown(group.figure(|run| run.full), 1.0, 3),
            shown(group.figure(|run| run.failed), 1.0, 3),
            shown(group.figure(|run| run.forwarded), 1.0, 3),
            shown(group.figure(|run| run.latency_s), 1000.0, 1),
        ];
        row.extend([0, 1, 3].map(|which| {
            let mean = group.mean(|run| latency(run, which));
            mean.map_or("-".to_owned(), |s| format!("{:.1}", s * 1000.0))
        }));
        table.push(row);
    }
    table
}

type Of = fn(&Summary) -> Option<Estimate>;

/// What is compared: a name for the file, words for the axis, whether it is a share.
const COMPARED: [(&str, &str, bool, Of); 6] = [
    ("in-time", "share answered within the deadline", true, |run| run.in_time),
    ("rejected", "share rejected by the algorithm", true, |run| run.rejected),
    ("full", "share refused by a full node", true, |run| run.full),
    ("failed", "share failed otherwise", true, |run| run.failed),
    ("forwarded", "share run by another node", true, |run| run.forwarded),
    ("latency", "mean latency of answers, s", false, |run| run.latency_s),
];

/// A factor that runs may differ by: a name for the file, words for the axis.
type Factor = (&'static str, &'static str, fn(&Summary) -> f64);
const FACTORS: [Factor; 2] = [
    ("load", "load factor", |run| run.about.point.load_factor),
    ("deadline", "deadline factor", |run| run.about.point.deadline_factor),
];

/// Figures that compare; none for a single run.
pub fn figures(runs: &[Summary]) -> Vec<Figure> {
    let groups = groups(runs);
    let mut figures = Vec::new();
    if groups.len() < 2 {
        return figures;
    }
    for (name, what, is_share, of) in COMPARED {
        let values: Vec<(String, Estimate)> = groups
            .iter()
            .filter_map(|group| Some((group.label.clone(), group.figure(of)?)))
            .collect();
        // What never happens needs no figure.
        if values.iter().all(|(_, estimate)| estimate.mean == 0.0) {
            continue;
        }
        let deadlines = runs.iter().any(|run| !run.about.deadlines_s.0.is_empty());
        let what = if name == "in-time" && !deadlines { "share answered 2xx" } else { what };
        let x_max = (is_share && name == "in-time").then_some(1.0);
        let caption = format!("{what}, with 95 % confidence intervals");
        figures.push(Figure::new(name, caption, rows(what, x_max, &values)));
        let [load, deadline] = FACTORS;
        for (factor, other) in [(load, deadline), (deadline, load)] {
            figures.extend(over(runs, &groups, (name, what, of), is_share, factor, other));
        }
    }
    figures
}

/// Figures over a factor, if runs differ by it, with a line per algorithm; one figure per value of
/// the other factor.
fn over(
    runs: &[Summary],
    groups: &[Group<'_>],
    (name, what, of): (&str, &str, Of),
    is_share: bool,
    (factor_name, factor_words, factor): Factor,
    (other_name, other_words, other): Factor,
) -> Vec<Figure> {
    if !differs(runs, factor) {
        return Vec::new();
    }
    let mut values: Vec<f64> = runs.iter().map(other).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let differences = Differences::of(runs);
    let figure = |value: &f64| {
        let mut series = Vec::<Series>::new();
        let mut drawn = Vec::<&Summary>::new();
        for group in groups {
            let Some(first) = group.runs.first().filter(|run| other(run) == *value) else {
                continue;
            };
            // What did not come to its end is no point of a line.
            if first.about.end != RunEnd::Complete {
                continue;
            }
            let Some(Estimate { mean, half }) = group.figure(of) else { continue };
            let dot = Dot { x: factor(first), y: mean, half };
            drawn.extend(&group.runs);
            let name = differences.line(first);
            match series.iter_mut().find(|one| one.name == name) {
                Some(one) => one.dots.push(dot),
                None => {
                    let (colour, dots) = (series.len(), vec![dot]);
                    series.push(Series { name, mark: Mark::Dots, colour, dots });
                }
            }
        }
        series.iter_mut().for_each(|one| one.dots.sort_by(|a, b| a.x.total_cmp(&b.x)));
        let axes = Axes {
            x: factor_words.to_owned(),
            y: what.to_owned(),
            y_max: (is_share && name == "in-time").then_some(1.0),
            x_range: None,
        };
        let mut file = format!("{name}-by-{factor_name}");
        let mut caption = format!("{what} over the {factor_words}, with 95 % confidence intervals");
        if differs(runs, other) {
            file.push_str(&format!("-{other_name}-{value}"));
            caption.push_str(&format!("; {other_words} {value}"));
        }
        if drawn.iter().any(|run| run.disturbed()) {
            caption.push_str("; some of the runs were disturbed");
        }
        Figure::new(file, caption, lines(&axes, &series))
    };
    values.iter().map(figure).collect()
}
