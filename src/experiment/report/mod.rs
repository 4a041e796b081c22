//! Runs side by side and one by one: figures with their captions, as one HTML file that needs
//! nothing else, and the figures by themselves for a paper.

mod comparison;
pub mod formulas;
mod one;
pub mod plots;
pub mod stats;
pub mod summary;
mod theory;
mod worlds;

pub use self::comparison::{disturbances, table};
use self::summary::Summary;
pub use self::worlds::{Worlds, compare};
use crate::experiment::design::scenario::Scenario;

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// A name for its file, unique in a report.
    pub name: String,
    /// What it shows.
    pub caption: String,
    /// The drawing.
    pub svg: String,
}

impl Figure {
    fn new(name: impl Into<String>, caption: impl Into<String>, svg: String) -> Self {
        let mut caption: String = caption.into();
        if let Some(first) = caption.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self { name: name.into(), caption, svg }
    }
}

/// A report.
#[derive(Clone, Debug)]
pub struct Report {
    /// The whole page.
    pub html: String,
    /// Its figures.
    pub figures: Vec<Figure>,
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn html_table(rows: &[Vec<String>]) -> String {
    let row = |(index, row): (usize, &Vec<String>)| {
        let tag = if index == 0 { "th" } else { "td" };
        let cells: String =
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.iter().enumerate().map(row).collect();
    format!("<div class=\"wide\"><table>\n{rows}</table></div>\n")
}

fn html_figure(figure: &Figure) -> String {
    let Figure { name, caption, svg } = figure;
    let caption = escaped(caption);
    format!("<figure id=\"{name}\">\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>\n")
}

const STYLE: &str = "\
body { font: 15px/1.45 sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em; color: #222 }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 13px } .wide { overflow-x: auto }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
figure { display: inline-block; margin: 1em 1em 1em 0; vertical-align: top; max-width: 46em }
figcaption { font-size: 13px; color: #555 } svg { max-width: 100%; height: auto }
summary { font-weight: bold; cursor: pointer; margin: .8em 0 } pre { font-size: 12px; overflow-x: auto }
p.disturbed { border-left: 4px solid #c60; padding-left: .8em }
@media print { details { display: block } figure { break-inside: avoid } }";

/// The part on simulated and real runs.
fn side_by_side(worlds: &Worlds) -> String {
    let (words, table) = (escaped(&worlds.words), html_table(&worlds.rows));
    format!(
        "<h2>Simulated beside real</h2>\n<p>{words}</p>\n{table}<p>Noise: how far two such means may be apart by \
         chance, all figures of the table looked at together, 19 times in 20.</p>\n"
    )
}

/// The report on these runs.
pub fn report(runs: &[Summary]) -> Report {
    let mut names: Vec<&str> = runs.iter().map(|run| &*run.about.scenario.name).collect();
    names.dedup();
    let title = escaped(&names.join(", "));
    let mut figures = comparison::figures(runs);
    let theory = theory::against(runs);
    let mut body = format!("<h1>{title}</h1>\n{}", html_table(&table(runs)));
    let moves = |scenario: &Scenario| !scenario.traces.0.is_empty() || scenario.recording.is_some();
    let moving = runs.iter().any(|run| moves(&run.about.scenario));
    body.push_str(
        "<p>Means with half their 95 % confidence intervals, by batch means over 20 batches of a \
         run, or over the runs where several differ by their seed alone. In time: answered 2xx \
         within the deadline of the call's type, counted from the planned time of sending. \
         Latencies are of answers 2xx. Late: 99 % of the \
         calls were sent no more than that after their planned time.</p>\n",
    );
    if let Some(words) = disturbances(runs) {
        body.push_str(&format!("<p class=\"disturbed\">{}</p>\n", escaped(&words)));
    }
    if moving {
        body.push_str(
            "<p>Where rates follow traces or a recording, a run's batches differ by the time of day, and its \
             interval holds that, too; several seeds give intervals over runs.</p>\n",
        );
    }
    body.extend(figures.iter().map(html_figure));
    if let Some((rows, drawn)) = theory {
        body.push_str("<h2>Measured over theory</h2>\n");
        body.push_str(&html_table(&rows));
        body.push_str(
            "<p>Of intervals at 95 %, one in twenty lies beside the truth though all is right.</p>\n",
        );
        body.extend(drawn.iter().map(html_figure));
        figures.extend(drawn);
    }
    body.extend(compare(runs).map(|worlds| side_by_side(&worlds)));
    body.push_str("<h2>Run by run</h2>\n");
    let open = if runs.len() <= 2 { " open" } else { "" };
    let differences = comparison::Differences::of(runs);
    for (run, number) in runs.iter().zip(1..) {
        let own = one::figures(run, number);
        body.push_str(&format!(
            "<details{open}><summary>{number}: {}</summary>\n",
            escaped(&format!(
                "{}, seed {}{}",
                differences.label(run),
                run.about.point.seed,
                comparison::mark([run].into_iter())
            ))
        ));
        body.extend(own.iter().map(html_figure));
        body.push_str(&html_table(&one::types(run)));
        body.push_str(&html_table(&one::nodes(run)));
        body.push_str(&format!("<pre>{}</pre>\n</details>\n", escaped(&one::facts(run))));
        figures.extend(own);
    }
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    );
    Report { html, figures }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::design::about::{About, NodeAbout, RunEnd};
    use crate::experiment::design::job::{DecisionShown, Job};
    use crate::experiment::design::scenario::{Deadlines, Point, Scenario};
    use crate::experiment::report::summary::Collector;
    use crate::policy::registry::SchedulerSpec;

    /// A run in which a share of the calls, one in `late`, comes too late.
    fn run(scheduler: &str, load_factor: f64, seed: u64, late: u64) -> Summary {
        let about = About {
            scenario: Scenario {
                name: "a<b".to_owned(),
                theory_service_s: Some(0.1),
                ..Scenario::default()
            },
            point: Point {
                scheduler: Some(SchedulerSpec::from_words(scheduler)),
                load_factor,
                deadline_factor: 1.0,
                seed,
            },
            deadlines_s: Deadlines(vec![0.1]),
            end: RunEnd::Complete,
            nodes: vec![NodeAbout {
                address: "10.0.0.1".to_owned(),
                configuration: [("parallel_running_functions_max".to_owned(), 4.into())]
                    .into_iter()
                    .collect(),
                ..NodeAbout::default()
            }],
            ..About::default()
        };
        let mut collector = Collector::new(about);
        for n in 0..600 {
            let total_s = if n % late == 0 { 0.2 } else { 0.05 };
            let learnt = Some(DecisionShown { action: 1.0, eps: 0.9, ..DecisionShown::default() });
            let start = n as f64 / 10.0;
            collector.add(&Job { start, status: 200, total_s, learnt, ..Job::default() });
        }
        collector.finish()
    }

    #[test]
    fn runs_stand_side_by_side_and_the_page_needs_nothing_else() {
        let runs = [run("NoScheduler true", 1.0, 1, 2), run("NoScheduler true", 2.0, 1, 4)];
        let report = report(&runs);
        for part in ["a&lt;b", "0.500", "0.750", "Measured over theory", "in-time-by-load"] {
            assert!(report.html.contains(part), "{part}");
        }
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!report.html.contains(outside), "{outside}");
        }
        let mut names: Vec<&str> = report.figures.iter().map(|figure| &*figure.name).collect();
        assert_eq!(report.html.matches("<figure").count(), names.len());
        names.sort_unstable();
        names.dedup();
        assert_eq!(report.html.matches("<figure").count(), names.len(), "names are unique");
        assert!(report.figures.iter().all(|figure| figure.svg.starts_with("<svg")));
    }

    #[test]
    fn runs_that_differ_by_their_seed_alone_become_one_row() {
        let runs = [
            run("NoScheduler true", 1.0, 1, 2),
            run("NoScheduler true", 1.0, 2, 4),
            run("RejectScheduler", 1.0, 1, 4),
        ];
        let table = table(&runs);
        assert_eq!(table.len(), 3, "{table:?}");
        // The mean of 0.5 and 0.75 with t(1) = 12.706 times 0.125.
        assert!(table[1].contains(&"0.625 ± 1.588".to_owned()), "{table:?}");
    }

    #[test]
    fn runs_that_differ_otherwise_or_were_cut_off_stand_by_themselves_and_say_why() {
        let first = || run("NoScheduler true", 1.0, 1, 2);
        let (mut other, mut cut, again) = (first(), first(), first());
        other.about.scenario.k = Some(6);
        other.about.point.seed = 2;
        cut.about.end = RunEnd::Unknown;
        cut.about.point.seed = 3;
        let table = table(&[first(), other, cut, again]);
        let labels: Vec<&str> = table.iter().skip(1).map(|row| &*row[0]).collect();
        let same = "NoScheduler true, k null";
        let [not_ended, twice] = [format!("{same} (not ended)"), format!("{same} #2")];
        assert_eq!(labels, [same, "NoScheduler true, k 6", &not_ended, &twice]);
    }

    #[test]
    fn disturbed_runs_are_marked_wherever_they_are_told_of() {
        let run = |load_factor, seed, late_s| {
            let mut run = run("NoScheduler true", load_factor, seed, 2);
            let kept = &mut run.about.kept;
            (kept.planned, kept.sent_in_time, kept.late_s[1]) = (600, 600, late_s);
            run
        };
        let labels = |runs: &[Summary]| -> Vec<String> {
            table(runs).into_iter().skip(1).map(|row| row[0].clone()).collect()
        };
        let runs = [run(1.0, 1, 0.001), run(1.0, 2, 0.017), run(2.0, 1, 0.001)];
        let [low, high] = ["NoScheduler true, load × 1", "NoScheduler true, load × 2"];
        // It does not leave its row: which runs belong together was said before they were made.
        let marked = format!("{low} (1 of 2 disturbed)");
        assert_eq!(labels(&runs), [&*marked, high]);
        let page = report(&runs).html;
        for (words, times) in [
            ("<p class=\"disturbed\">Disturbed: 1 of 3 runs.", 1),
            ("(1 of 2 disturbed)</td>", 2),
            ("load × 1, seed 2 (disturbed)</summary>", 1),
            ("seed 1 (disturbed)", 0),
            ("this run was disturbed", 1),
        ] {
            assert_eq!(page.matches(words).count(), times, "{words}");
        }
        let over = |runs: &[Summary]| {
            let all = report(runs).figures;
            let figure = all.into_iter().find(|figure| figure.name == "in-time-by-load");
            figure.expect("drawn").caption
        };
        assert!(over(&runs).ends_with("; some of the runs were disturbed"));
        let one = run(1.0, 1, 0.017);
        assert_eq!(labels(&[one]), ["NoScheduler true (disturbed)"]);
        let quiet = [run(1.0, 1, 0.001), run(2.0, 1, 0.01)];
        assert_eq!(labels(&quiet), [low, high]);
        let page = report(&quiet).html;
        assert!(!page.contains("(disturbed)") && !page.contains("Disturbed:"));
        assert!(!page.contains("was disturbed") && !over(&quiet).contains("disturbed"));
    }

    #[test]
    fn thousands_of_settings_are_compared_at_once() {
        let with = |value: u32| {
            let mut run = run("NoScheduler true", 1.0, 1, 2);
            let settings = (0..20_000).map(|n| (format!("key-{n}"), 7.into()));
            run.about.nodes[0].configuration = settings.collect();
            run.about.nodes[0].configuration.insert("key-5".to_owned(), value.into());
            run
        };
        let table = table(&[with(1), with(2), with(3)]);
        assert_eq!(table[3][0], "NoScheduler true, key-5 3");
    }

    #[test]
    fn measured_stands_beside_theory() {
        let (rows, figures) =
            theory::against(&[run("NoScheduler true", 1.0, 1, 2)]).expect("asked");
        // One erlang at four servers; nothing was refused in 600 calls, so at most 3/600.
        let cells = ["NoScheduler true", "1.000", "4", "0", "0.0154", "0.0000 ± 0.0050", "outside"];
        assert_eq!(rows[1][..7], cells);
        assert_eq!(figures.len(), 2);
        assert!(theory::against(&[run("ForwardScheduler 1", 1.0, 1, 2)]).is_none());
    }
}
