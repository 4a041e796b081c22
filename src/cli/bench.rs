//! `p2pfaas bench`: what experiments need.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Failure, broken};
use crate::bench::trace;

#[derive(Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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

pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let Command::Trace { nodes, points, seed, folder } = &args.command;
    let named = |path: &std::path::Path, why| broken(format!("{}: {why}", path.display()));
    std::fs::create_dir_all(folder).map_err(|why| named(folder, why))?;
    for node in 0..*nodes {
        let path = folder.join(format!("traffic_node_{node}.csv"));
        // Each node's randomness is its own, so one more node changes no other's day.
        let own = seed ^ u64::from(node).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let day = trace::day(&mut SmallRng::seed_from_u64(own), *points as usize);
        std::fs::write(&path, trace::csv(&day)).map_err(|why| named(&path, why))?;
    }
    println!("{nodes} traces of {points} points are in {}", folder.display());
    Ok(())
}
