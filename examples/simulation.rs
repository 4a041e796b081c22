//! A cluster in simulated time: a hundred nodes under power-of-two choices, with a network of two milliseconds.
//!
//! `cargo run --release --example simulation`

use std::time::Duration;

use p2pfaas::policy::registry::SchedulerSpec;
use p2pfaas::queue::Limits;
use p2pfaas::simulation::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits { k: 4, queue_length_max: 4, queue_enabled: true };
    let mut world =
        World::of(100, limits, SchedulerSpec::from_words("PowerOfNScheduler 2 2 true 1"));
    world.network.link.latency = Duration::from_millis(2);

    let mut random = SmallRng::seed_from_u64(1);
    let mut exponential =
        move |mean: f64| Duration::from_secs_f64(-mean * (1.0 - random.random::<f64>()).ln());
    // Three calls a second for each of the hundred nodes, of a second each, for ten minutes.
    let mut at = Duration::ZERO;
    let requests = (0..180_000u64).map(move |tag| {
        at += exponential(1.0 / 300.0);
        Request { at, node: (tag % 100) as u32, tag, work: exponential(1.0), ..Request::default() }
    });

    let (mut calls, mut served, mut forwarded) = (0, 0, 0);
    Simulation::new(world, requests)?.run(|call| {
        calls += 1;
        served += u32::from(call.end == CallEnd::Served);
        forwarded += u32::from(call.path.len() > 1);
    });
    println!("{calls} calls: {served} served, {forwarded} of them by another node");
    Ok(())
}
