//! `p2pfaas bench`: experiments.

mod keys;
mod progress;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use self::keys::Keys;
use self::progress::Bar;
use super::{Failure, broken, told_to_stop};
use crate::bench::trace;
use crate::experiment::{ExperimentError, Inputs, Sweep};

#[derive(Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the runs of a scenario: set up the fleet, send the load, keep the results.
    Run(Box<RunArgs>),
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
        /// Folder for the files, traffic_node_0.csv and so on; made if it is not there.
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
    keys: Keys,
}

fn trace(nodes: u32, points: u32, seed: u64, folder: &Path) -> Result<(), Failure> {
    let named = |path: &Path, why| broken(format!("{}: {why}", path.display()));
    std::fs::create_dir_all(folder).map_err(|why| named(folder, why))?;
    for node in 0..nodes {
        let path = folder.join(format!("traffic_node_{node}.csv"));
        // Each node's randomness is its own, so one more node changes no other's day.
        let own = seed ^ u64::from(node).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let day = trace::day(&mut SmallRng::seed_from_u64(own), points as usize);
        std::fs::write(&path, trace::csv(&day)).map_err(|why| named(&path, why))?;
    }
    println!("{nodes} traces of {points} points are in {}", folder.display());
    Ok(())
}

/// The folder for a scenario's results, made now.
fn folder(args: &RunArgs, name: &str) -> Result<PathBuf, Failure> {
    let unusable = |path: &Path, why: std::io::Error| {
        Failure::Configuration(format!("{}: {why}", path.display()))
    };
    if let Some(chosen) = &args.output {
        if let Some(above) = chosen.parent() {
            std::fs::create_dir_all(above).map_err(|why| unusable(above, why))?;
        }
        std::fs::create_dir(chosen).map_err(|why| unusable(chosen, why))?;
        return Ok(chosen.clone());
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
    let inputs = Inputs::load(scenario)?;
    let folder = folder(args, &inputs.scenario.name)?;
    let bar = Bar::new();
    let ended = actix_rt::System::new().block_on(async {
        let (stop, stopped) = watch::channel(false);
        actix_rt::spawn(async move {
            if told_to_stop().await.is_ok() {
                stop.send_replace(true);
            }
            // A sender that is gone would count as a word to stop.
            std::future::pending::<()>().await;
        });
        Sweep::new(&inputs, &folder, args.csv, &bar, stopped).run().await
    });
    drop(bar);
    // With nothing measured nothing is left behind.
    let _ = std::fs::remove_dir(&folder);
    ended?;
    Ok(())
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
        Command::Trace { nodes, points, seed, folder } => trace(*nodes, *points, *seed, folder),
    }
}
