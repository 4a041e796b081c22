//! How many events a second of real time the simulator goes through, on one core: power-of-two choices with probes and a
//! network. `cargo bench --bench simulation`; figures stand in README.md.

use std::time::{Duration, Instant};

use p2pfaas::policy::registry::SchedulerSpec;
use p2pfaas::queue::Limits;
use p2pfaas::simulation::{CallEnd, Request, Simulation, World};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Seconds of work of a call in mean, calls under way a node, and calls of a run.
const WORK_S: f64 = 0.1;
const LOAD: f64 = 3.0;
const CALLS: u64 = 400_000;
const ROUNDS: usize = 5;

fn requests(nodes: u32) -> impl Iterator<Item = Request> {
    let mut random = SmallRng::seed_from_u64(1);
    let rate = f64::from(nodes) * LOAD / WORK_S;
    let mut at = 0.0;
    (0..CALLS).map(move |tag| {
        let mut exponential = |mean: f64| -mean * (1.0 - random.random::<f64>()).ln();
        at += exponential(1.0 / rate);
        let work = Duration::from_secs_f64(exponential(WORK_S));
        let (at, node) = (Duration::from_secs_f64(at), random.random_range(0..nodes));
        Request { at, node, tag, work, ..Request::default() }
    })
}

/// Events and calls a second, and the share of calls that were served.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn run(nodes: u32, words: &str) -> (f64, f64, f64) {
    let limits = Limits { k: 4, queue_length_max: 4, queue_enabled: true };
    let mut world = World::of(nodes, limits, SchedulerSpec::from_words(words));
    world.network.link.latency = Duration::from_millis(1);
    let requests: Vec<_> = requests(nodes).collect();
    let mut simulation = Simulation::new(world, requests.into_iter()).expect("a good world");
    let (began, mut served) = (Instant::now(), 0u64);
    simulation.run(|call| served += u64::from(call.end == CallEnd::Served));
    let took = began.elapsed().as_secs_f64();
    (simulation.events() as f64 / took, CALLS as f64 / took, served as f64 / CALLS as f64)
}

fn main() {
    println!("nodes scheduler                     M events/s   M calls/s   served");
    for nodes in [12, 100, 1000] {
        for words in
            ["PowerOfNScheduler 2 1 true 1", "PowerOfNScheduler 1 3 true 1", "NoScheduler false"]
        {
            let mut rounds: Vec<_> = (0..ROUNDS).map(|_| run(nodes, words)).collect();
            rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (events, calls, served) = rounds[ROUNDS / 2];
            println!(
                "{nodes:5} {words:30} {:8.2} {:11.2} {served:11.3}",
                events / 1e6,
                calls / 1e6
            );
        }
    }
}
