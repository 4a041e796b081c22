//! One run by itself.

use super::Figure;
use crate::experiment::design::about::NodeAbout;
use crate::experiment::report::plots::{Axes, Dot, Mark, Series, lines, matrix};
use crate::experiment::report::summary::{ACTIONS, Bin, JobEnd, Summary, TypeSummary};

/// Values per bin over the time in its middle; bins without any are left out.
fn over_time(run: &Summary, of: impl Fn(&Bin) -> Option<f64>) -> Vec<Dot> {
    let middle = |index: usize| (index as f64 + 0.5) * run.bin_s;
    let dot = |(index, bin): (usize, &Bin)| Some((middle(index), of(bin)?).into());
    run.bins.iter().enumerate().filter_map(dot).collect()
}

fn ratio(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

fn series(name: impl Into<String>, mark: Mark, colour: usize, dots: Vec<Dot>) -> Series {
    Series { name: name.into(), mark, colour, dots }
}

/// Its figures; file names begin with its number.
pub fn figures(run: &Summary, number: usize) -> Vec<Figure> {
    let named = |name: &str| format!("run-{number:02}-{name}");
    let time = "time, s";
    let mut figures = vec![
        Figure::new(
            named("in-time"),
            if run.about.deadlines_s.0.is_empty() {
                "Share of calls answered 2xx, by the node they were sent to"
            } else {
                "Share of calls answered within their deadline, by the node they were sent to"
            },
            lines(&Axes::share(time, "share in time"), &in_time(run)),
        ),
        Figure::new(
            named("latency"),
            "Latency of answers 2xx by task type, and the types' deadlines",
            lines(&latency_axes(run), &latencies(run)),
        ),
        Figure::new(
            named("rates"),
            "Calls offered and answered 2xx per second, all nodes together",
            lines(
                &Axes { x: time.to_owned(), y: "calls per second".to_owned(), ..Axes::default() },
                &rates(run),
            ),
        ),
    ];
    let what = "What became of the calls: rejected by the algorithm, refused by a full node, failed \
                otherwise, run by another node";
    figures.push(Figure::new(named("outcomes"), what, lines(&outcome_axes(), &outcomes(run))));
    let names: Vec<String> = run.about.nodes.iter().map(|node| node.address.clone()).collect();
    if names.len() > 1 && !run.ran.is_empty() {
        let mut columns = names.clone();
        // A column of its own only where something ran there.
        if run.ran.iter().any(|row| row.last().is_some_and(|others| *others > 0)) {
            columns.push("elsewhere".to_owned());
        }
        figures.push(Figure::new(
            named("ran"),
            "Where the calls sent to each node ran, in per cent of those answered 2xx",
            matrix("sent to", "ran on", &names, &columns, &run.ran),
        ));
    }
    if run.actions().iter().sum::<u32>() > 0 {
        figures.push(Figure::new(
            named("actions"),
            "Shares of the learners' actions, and the mean ε they were taken with",
            lines(&Axes::share(time, "share"), &actions(run)),
        ));
    }
    figures
}

fn in_time(run: &Summary) -> Vec<Series> {
    let all = |bin: &Bin| {
        let (calls, in_time) =
            bin.in_time.iter().fold((0, 0), |sum, node| (sum.0 + node.0, sum.1 + node.1));
        ratio(in_time, calls)
    };
    let of_node = |(index, node): (usize, &NodeAbout)| {
        let dots = over_time(run, |bin| {
            let (calls, in_time) = bin.in_time.get(index)?;
            ratio(*in_time, *calls)
        });
        series(&node.address, Mark::Line, index, dots)
    };
    let nodes = run.about.nodes.iter().enumerate().map(of_node);
    // Drawn last, so that it lies above the others.
    nodes.chain([series("all nodes", Mark::Main, 0, over_time(run, all))]).collect()
}

/// To where nearly all answers have come: a few stragglers would squeeze the rest.
fn latency_axes(run: &Summary) -> Axes {
    let p99 = |of: &TypeSummary| of.quantiles_s.map(|all| all[3]);
    let most = run.types.iter().filter_map(p99).fold(0.0, f64::max);
    // A deadline far beyond all answers would squeeze them, too.
    let near = |deadline: &f64| *deadline < 3.0 * most;
    let deadlines = run.types.iter().filter_map(|of| of.deadline_s).filter(near);
    let end = deadlines.fold(most, f64::max);
    Axes { x_range: Some((0.0, end * 1.1)), ..Axes::share("latency, s", "share of answers") }
}

fn latencies(run: &Summary) -> Vec<Series> {
    let end = latency_axes(run).x_range.map_or(0.0, |range| range.1);
    let of_type = |(colour, of): (usize, &TypeSummary)| {
        let within = of.cdf.iter().filter(|(s, _)| *s <= end);
        let dots = within.map(|at| (*at).into()).collect();
        let cdf = series(format!("type {}", of.task_type), Mark::Line, colour, dots);
        let limit = of.deadline_s.filter(|at| *at <= end).map(|at| {
            let dots = vec![(at, 0.0).into(), (at, 1.0).into()];
            series(format!("deadline of type {}", of.task_type), Mark::Limit, colour, dots)
        });
        [Some(cdf), limit]
    };
    run.types.iter().enumerate().flat_map(of_type).flatten().collect()
}

fn rates(run: &Summary) -> Vec<Series> {
    let per_second = |n: u32| Some(f64::from(n) / run.bin_s);
    vec![
        series("offered", Mark::Line, 0, over_time(run, |bin| per_second(bin.offered))),
        series("answered 2xx", Mark::Line, 1, over_time(run, |bin| per_second(bin.served))),
    ]
}

fn outcome_axes() -> Axes {
    Axes { x: "time, s".to_owned(), y: "share of calls".to_owned(), ..Axes::default() }
}

fn outcomes(run: &Summary) -> Vec<Series> {
    let named = [JobEnd::Rejected, JobEnd::Full, JobEnd::Failed];
    let of = |outcome: JobEnd| {
        move |bin: &Bin| ratio(bin.outcomes.get(outcome as usize).copied()?, bin.offered)
    };
    let of_outcome = named.iter().zip(["rejected", "full", "failed"]).zip(0..);
    of_outcome
        .map(|((outcome, name), colour)| {
            series(name, Mark::Line, colour, over_time(run, of(*outcome)))
        })
        .chain([series(
            "forwarded",
            Mark::Line,
            4,
            over_time(run, |bin| ratio(bin.forwarded, bin.offered)),
        )])
        .collect()
}

fn actions(run: &Summary) -> Vec<Series> {
    let share = |index: usize| {
        move |bin: &Bin| ratio(bin.actions.get(index).copied()?, bin.actions.iter().sum())
    };
    let of_action = ACTIONS
        .iter()
        .enumerate()
        .map(|(index, name)| series(*name, Mark::Line, index, over_time(run, share(index))));
    let eps = over_time(run, |bin| {
        let decisions = bin.actions.iter().sum::<u32>();
        (decisions > 0).then(|| bin.eps / f64::from(decisions))
    });
    of_action.chain([series("ε", Mark::Main, 0, eps)]).collect()
}

/// Its task types, a row each.
pub fn types(run: &Summary) -> Vec<Vec<String>> {
    let names =
        ["task type", "deadline s", "calls", "in time", "p50 ms", "p90 ms", "p95 ms", "p99 ms"];
    let mut table = vec![names.map(str::to_owned).to_vec()];
    for of in &run.types {
        let ms = |which: usize| {
            let s = of.quantiles_s.and_then(|all| all.get(which).copied());
            s.map_or("-".to_owned(), |s| format!("{:.1}", s * 1000.0))
        };
        let mut row = vec![
            of.task_type.to_string(),
            of.deadline_s.map_or("-".to_owned(), |s| format!("{s:.4}")),
            of.calls.to_string(),
            of.in_time.map_or("-".to_owned(), |of| {
                let half = of.half.map_or(String::new(), |half| format!(" ± {half:.3}"));
                format!("{:.3}{half}", of.mean)
            }),
        ];
        row.extend((0..4).map(ms));
        table.push(row);
    }
    table
}

/// Its nodes, a row each.
pub fn nodes(run: &Summary) -> Vec<Vec<String>> {
    let names = ["node", "name", "version", "scheduler", "configuration", "calls", "in time"];
    let mut table = vec![names.map(str::to_owned).to_vec()];
    for (index, node) in run.about.nodes.iter().enumerate() {
        let add = |sum: (u32, u32), bin: &Bin| {
            let (calls, in_time) = bin.in_time.get(index).copied().unwrap_or_default();
            (sum.0 + calls, sum.1 + in_time)
        };
        let (calls, in_time) = run.bins.iter().fold((0, 0), add);
        let configuration: Vec<String> =
            node.configuration.iter().map(|(key, value)| format!("{key} {value}")).collect();
        table.push(vec![
            node.address.clone(),
            node.name.clone(),
            node.version.clone(),
            node.scheduler.words(),
            configuration.join(", "),
            calls.to_string(),
            ratio(in_time, calls).map_or("-".to_owned(), |share| format!("{share:.3}")),
        ]);
    }
    table
}

/// How the load was kept, and all that is needed to repeat it.
pub fn facts(run: &Summary) -> String {
    let about = &run.about;
    let kept = &about.kept;
    let [p50, p99, most] = kept.late_s.map(|s| s * 1000.0);
    let learner = about.nodes.first().and_then(|node| node.learner.as_ref());
    let learner =
        learner.map_or("none".to_owned(), |of| serde_json::Value::from(of.clone()).to_string());
    let scenario = about.scenario.written();
    let disturbed = if run.disturbed() { "this run was disturbed\n" } else { "" };
    format!(
        "{disturbed}measured with {}; {} of {} calls sent before the end, {} not at all; sent late by {p50:.3} ms (median), \
         {p99:.3} ms (99 %), {most:.3} ms (most)\nentries sent to learners: {}, failed: {}\n\
         seed {}, load factor {}, deadline factor {}\nlearner of the first node: {learner}\n\n{scenario}",
        about.bench_version,
        kept.sent_in_time,
        kept.planned,
        kept.not_sent,
        kept.trained,
        kept.training_failed,
        about.point.seed,
        about.point.load_factor,
        about.point.deadline_factor,
    )
}
