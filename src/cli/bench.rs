//! `p2pfaas bench`: experiments.

mod example;
mod keys;
mod progress;
mod simulate;

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::{Args, Subcommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use self::example::example;
use self::keys::ScenarioKeys;
use self::progress::Bar;
use self::simulate::SimulateArgs;
use super::credentials::TrustArgs;
use super::output::{complain, say};
use super::{Failure, broken, shown, table, told_to_stop};
use crate::experiment::design::trace;
use crate::experiment::report;
use crate::experiment::report::summary::Summary;
use crate::experiment::run::{ExperimentError, Inputs, Sweep, calibrate, summary};

#[derive(Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the runs of a scenario: set up the fleet, send the load, keep the results. A flag of a key
    /// whose value is a list may be repeated; lists of numbers may also be written as 1,2,3.
    Run(Box<RunArgs>),
    /// Make the runs of a scenario in simulated time, by the nodes' own code, on all cores. The results are as of `run`.
    Simulate(Box<SimulateArgs>),
    /// Measure on real, idle nodes what they and HTTP take beside functions, in a minute: the line `overheads` of a scenario
    /// that is to be simulated. Nothing is changed on the nodes.
    Calibrate {
        /// Scenario (TOML) that names the nodes.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        trust: TrustArgs,
        #[command(flatten)]
        keys: ScenarioKeys,
    },
    /// Write an example of a scenario with every key and what it means.
    Init {
        /// The file, which must not be there yet.
        #[arg(value_name = "FILE", default_value = "scenario.toml")]
        file: PathBuf,
    },
    /// Sum up runs: a table here, and a report as one HTML file with all figures.
    Report {
        /// Files of runs, or folders of them.
        #[arg(value_name = "RUN.db", required = true)]
        runs: Vec<PathBuf>,
        /// The report; an older one is replaced.
        #[arg(long, value_name = "FILE", default_value = "report.html")]
        output: PathBuf,
        /// Folder to write every figure to as an SVG file of its own; made if it is not there.
        #[arg(long, value_name = "DIR")]
        figures: Option<PathBuf>,
    },
    /// Write daily traffic traces, one a node: lines of index and load from 0 to 1.
    Trace {
        /// How many nodes.
        #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        nodes: u32,
        /// Points in a day.
        #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
        points: u32,
        /// The same seed gives the same traces.
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Folder for the files, traffic_node_0.csv and so on, none of which may be there yet.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Scenario (TOML); `p2pfaas bench init` writes an example. Without one, the flags are all.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Folder for the results, which must not be there yet [default: results/NAME-1, or the next
    /// number that is free].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write the tables as CSV too.
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    keys: ScenarioKeys,
}

fn trace(nodes: u32, points: u32, seed: u64, folder: &Path) -> Result<(), Failure> {
    let named = |path: &Path, why| broken(format!("{}: {why}", path.display()));
    std::fs::create_dir_all(folder).map_err(|why| named(folder, why))?;
    for node in 0..nodes {
        let path = folder.join(format!("traffic_node_{node}.csv"));
        // Each node's randomness is its own, so one more node changes no other's day.
        let own = seed ^ u64::from(node).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let day = trace::day(&mut SmallRng::seed_from_u64(own), points as usize);
        // Recorded traces have such names, too.
        let mut file = File::create_new(&path).map_err(|why| named(&path, why))?;
        file.write_all(trace::csv(&day).as_bytes()).map_err(|why| named(&path, why))?;
    }
    say(&format!("{nodes} traces of {points} points are in {}\n", folder.display()))
}

/// The folder for a scenario's results, made now.
fn folder(chosen: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    if let Some(chosen) = chosen {
        if let Some(above) = chosen.parent() {
            std::fs::create_dir_all(above).map_err(|why| unusable(above, why))?;
        }
        std::fs::create_dir(chosen).map_err(|why| unusable(chosen, why))?;
        return Ok(chosen.to_owned());
    }
    let results = Path::new("results");
    std::fs::create_dir_all(results).map_err(|why| unusable(results, why))?;
    for number in 1u32.. {
        let path = results.join(format!("{name}-{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(unusable(&path, why)),
        }
    }
    Err(broken("no number is free"))
}

fn experiment(args: &RunArgs) -> Result<(), Failure> {
    let scenario = args.keys.scenario(args.file.as_deref()).map_err(Failure::Configuration)?;
    if scenario.nodes.count.is_some() {
        let why = "nodes: count is for simulations; a run needs the nodes of a fleet file";
        return Err(Failure::Configuration(why.to_owned()));
    }
    let inputs = Inputs::load(scenario, args.trust.credentials()?)?;
    let folder = folder(args.output.as_deref(), &inputs.scenario.name)?;
    let bar = Bar::new();
    let (ended, told) = actix_rt::System::new().block_on(async {
        let told_to_stop = told_to_stop()?;
        let (stop, stopped) = watch::channel(false);
        let running = Rc::new(Cell::new(true));
        let runs = Rc::clone(&running);
        actix_rt::spawn(async move {
            told_to_stop.await;
            if !runs.get() {
                // What is left is the report, which can be made again.
                std::process::exit(130);
            }
            stop.send_replace(true);
            // A sender that is gone would count as a word to stop.
            std::future::pending::<()>().await;
        });
        let ended = Sweep::new(&inputs, &folder, args.csv, &bar, stopped).run().await;
        running.set(false);
        drop(bar);
        let told = actix_rt::task::spawn_blocking(move || conclude(&folder)).await;
        Ok::<_, Failure>((ended, told.unwrap_or_else(|why| Err(broken(why)))))
    })?;
    // Why the runs ended says more than why the report could not be made.
    ended?;
    told
}

fn measure(file: Option<&Path>, trust: &TrustArgs, keys: &ScenarioKeys) -> Result<(), Failure> {
    let scenario = keys.scenario(file).map_err(Failure::Configuration)?;
    let inputs = Inputs::load(scenario, trust.credentials()?)?;
    let overheads = actix_rt::System::new().block_on(calibrate(&inputs))?;
    let table = toml::Value::try_from(overheads).map_err(broken)?;
    say(&format!("overheads = {table}\n"))
}

/// The report on what there is; with nothing measured nothing is left behind.
fn conclude(folder: &Path) -> Result<(), Failure> {
    if runs_in(folder)?.is_empty() {
        return std::fs::remove_dir(folder).map_err(|why| unusable(folder, why));
    }
    report(&[folder.to_owned()], &folder.join("report.html"), None)
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::Configuration(format!("{}: {why}", path.display()))
}

/// The files of runs in a folder, by name.
fn runs_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|why| unusable(folder, why))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> =
        paths.collect::<Result<_, _>>().map_err(|why| unusable(folder, why))?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "db"));
    paths.sort();
    Ok(paths)
}

fn report(given: &[PathBuf], output: &Path, figures: Option<&Path>) -> Result<(), Failure> {
    let mut runs = Vec::new();
    for path in given {
        if !path.is_dir() {
            runs.push(summary(path).map_err(|why| Failure::Configuration(why.to_string()))?);
            continue;
        }
        for file in runs_in(path)? {
            // One that was cut off before it began must not hide all others.
            match summary(&file) {
                Ok(run) => runs.push(run),
                Err(why) => complain(&format!("p2pfaas: left out: {}", shown(&why.to_string()))),
            }
        }
    }
    tell(&runs, output, figures)
}

/// Tells of `runs`: a table here, and the report.
fn tell(runs: &[Summary], output: &Path, figures: Option<&Path>) -> Result<(), Failure> {
    if runs.is_empty() {
        return Err(Failure::Configuration("there are no runs to report on".to_owned()));
    }
    say(&table(&report::table(runs)))?;
    if let Some(words) = report::disturbances(runs) {
        complain(&words);
    }
    if let Some(worlds) = report::compare(runs) {
        say(&format!("{}\n", worlds.words))?;
    }
    let report = report::report(runs);
    std::fs::write(output, &report.html).map_err(|why| unusable(output, why))?;
    say(&format!("The report is {}\n", output.display()))?;
    if let Some(folder) = figures {
        std::fs::create_dir_all(folder).map_err(|why| unusable(folder, why))?;
        for figure in &report.figures {
            let path = folder.join(&figure.name).with_extension("svg");
            std::fs::write(&path, &figure.svg).map_err(|why| unusable(&path, why))?;
        }
        say(&format!("{} figures are in {}\n", report.figures.len(), folder.display()))?;
    }
    Ok(())
}

fn init(file: &Path) -> Result<(), Failure> {
    let mut written = File::create_new(file).map_err(|why| unusable(file, why))?;
    written.write_all(example().as_bytes()).map_err(|why| unusable(file, why))?;
    say(&format!("{} is an example; p2pfaas bench run {0} runs it\n", file.display()))
}

impl From<ExperimentError> for Failure {
    fn from(error: ExperimentError) -> Self {
        let why = error.to_string();
        match error {
            ExperimentError::Inputs(_) => Self::Configuration(why),
            ExperimentError::Checks(_) | ExperimentError::Fleet(_) => Self::Unavailable(why),
            ExperimentError::Results(_) | ExperimentError::Machine(_) => Self::Broken(why),
            ExperimentError::Interrupted => Self::Interrupted(why),
        }
    }
}

pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    match &args.command {
        Command::Run(args) => experiment(args),
        Command::Calibrate { file, trust, keys } => measure(file.as_deref(), trust, keys),
        Command::Simulate(args) => args.run(),
        Command::Init { file } => init(file),
        Command::Report { runs, output, figures } => report(runs, output, figures.as_deref()),
        Command::Trace { nodes, points, seed, folder } => trace(*nodes, *points, *seed, folder),
    }
}
