//! Measured over theory: refusals and times against M/M/K/(K+Q).

use serde_json::Value;

use super::Figure;
use super::comparison::{Group, groups};
use crate::experiment::report::formulas::{blocking, mean_wait};
use crate::experiment::report::plots::{Axes, Dot, Mark, Series, lines};
use crate::experiment::report::stats::Estimate;
use crate::experiment::report::summary::Summary;
use crate::policy::Decision;

/// Points of a theoretical curve.
const CURVE: usize = 100;

/// Servers and places to wait that the closed forms are worked out for.
const PLACES_MAX: u32 = 100_000;

/// Runs that differ by their seed alone, against the closed forms.
struct Compared {
    label: String,
    /// Offered load a = λ/μ.
    a: f64,
    k: u32,
    q: u32,
    service_s: f64,
    refused: Estimate,
    time_s: Estimate,
}

fn compared(group: &Group<'_>) -> Option<Compared> {
    let about = &group.runs.first()?.about;
    let service_s = about.scenario.theory_service_s?;
    let node = about.nodes.first()?;
    let configuration = &node.configuration;
    let number = |key: &str| u32::try_from(configuration.get(key)?.as_u64()?).ok();
    let enabled = configuration.get("queue_enabled").and_then(Value::as_bool).unwrap_or(false);
    let spec = about.point.scheduler.as_ref().unwrap_or(&node.scheduler);
    // Others hand calls on, which these forms do not know.
    let Some(Decision::RunHere { may_wait }) = spec.build().ok()?.always() else { return None };
    let k = number("parallel_running_functions_max")?;
    let q = if enabled && may_wait { number("queue_length_max")? } else { 0 };
    (k.saturating_add(q) <= PLACES_MAX).then_some(())?;
    Some(Compared {
        label: group.label.clone(),
        a: about.scenario.rates.0.first()? * about.point.load_factor * service_s,
        k,
        q,
        service_s,
        refused: group.figure(|run| run.refused)?,
        time_s: group.figure(|run| run.latency_s)?,
    })
}

impl Compared {
    fn blocking(&self, a: f64) -> f64 {
        blocking(a, self.k, self.q)
    }

    fn time_s(&self, a: f64) -> f64 {
        self.service_s * (1.0 + mean_wait(a, self.k, self.q))
    }
}

/// A table with a row per group of runs, and the figures; `None`: no run asks for it.
pub fn against(runs: &[Summary]) -> Option<(Vec<Vec<String>>, Vec<Figure>)> {
    let mut all: Vec<Compared> = groups(runs).iter().filter_map(compared).collect();
    all.sort_by(|one, other| one.a.total_cmp(&other.a));
    Some((table(&all), figures(&all)?))
}

fn table(all: &[Compared]) -> Vec<Vec<String>> {
    let names = [
        "run",
        "offered load λ/μ",
        "K",
        "Q",
        "refused, theory",
        "measured",
        "",
        "time s, theory",
        "measured",
        "",
    ];
    let mut table = vec![names.map(str::to_owned).to_vec()];
    let shown = |of: &Estimate| {
        format!("{:.4} ± {}", of.mean, of.half.map_or("?".to_owned(), |half| format!("{half:.4}")))
    };
    let within = |of: &Estimate, theory: f64| match of.half {
        None => "?",
        Some(_) if of.covers(theory) => "within",
        Some(_) => "outside",
    };
    for one in all {
        let (refused, time_s) = (one.blocking(one.a), one.time_s(one.a));
        table.push(vec![
            one.label.clone(),
            format!("{:.3}", one.a),
            one.k.to_string(),
            one.q.to_string(),
            format!("{refused:.4}"),
            shown(&one.refused),
            within(&one.refused, refused).to_owned(),
            format!("{time_s:.4}"),
            shown(&one.time_s),
            within(&one.time_s, time_s).to_owned(),
        ]);
    }
    table
}

/// `all`, of which there must be some, in the order of their load.
fn figures(all: &[Compared]) -> Option<Vec<Figure>> {
    let (first, last) = (all.first()?, all.last()?);
    // One curve needs one K, Q and service time.
    let same =
        |one: &&Compared| (one.k, one.q, one.service_s) == (first.k, first.q, first.service_s);
    let most = last.a * 1.1;
    let figure =
        |name: &str, what: &str, theory: &dyn Fn(f64) -> f64, of: fn(&Compared) -> Estimate| {
            let curve = (1..=CURVE).map(|i| most * i as f64 / CURVE as f64);
            let dot = |one: &Compared| {
                let Estimate { mean, half } = of(one);
                Dot { x: one.a, y: mean, half }
            };
            let curve = curve.map(|a| (a, theory(a)).into()).collect();
            let measured = all.iter().filter(same).map(dot).collect();
            let series = [("theory", Mark::Main, curve), ("measured", Mark::Dots, measured)]
                .map(|(name, mark, dots)| Series { name: name.to_owned(), mark, colour: 0, dots });
            let axes = Axes {
                x: "offered load λ/μ".to_owned(),
                y: what.to_owned(),
                y_max: None,
                x_range: Some((0.0, most)),
            };
            let caption = format!(
                "{what} against M/M/{}/{}, with 95 % confidence intervals",
                first.k,
                first.k.saturating_add(first.q)
            );
            Figure::new(name, caption, lines(&axes, &series))
        };
    Some(vec![
        figure("theory-refused", "share refused", &|a| first.blocking(a), |one| one.refused),
        figure("theory-time", "mean time in the system, s", &|a| first.time_s(a), |one| one.time_s),
    ])
}
