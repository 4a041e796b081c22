//! The queue discipline is what the papers assume: with Poisson arrivals and exponential service
//! it blocks and delays as M/M/K/K (line off) and M/M/K/(K+Q) do. Simulated time, seeded.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use p2pfaas::experiment::report::formulas::{blocking, mean_wait};
use p2pfaas::queue::{Admission, Arriving, Discipline, Limits};
use p2pfaas::types::TaskType;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The mean of batch means and its 99.9 % confidence half-width (30 batches: t = 3.66).
fn interval(batches: &[f64]) -> (f64, f64) {
    let n = batches.len() as f64;
    let mean = batches.iter().sum::<f64>() / n;
    let variance = batches.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 3.66 * (variance / n).sqrt())
}

const BATCHES: usize = 30;
const PER_BATCH: usize = 20_000;

struct Observed {
    blocked: (f64, f64),
    /// Mean wait of those that were let in.
    wait: (f64, f64),
}

/// Drives the discipline with Poisson(λ) arrivals and exponential(1) service.
fn simulate(lambda: f64, limits: Limits, seed: u64) -> Observed {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut exponential = move |rate: f64| -(1.0 - rng.random::<f64>()).ln() / rate;
    let mut queue = Discipline::<u64>::new(limits, u64::MAX);
    // Ends of service, soonest first; times are positive, so their bits order as they do.
    let mut ends = BinaryHeap::<Reverse<u64>>::new();
    let mut arrived_at = HashMap::<u64, f64>::new();
    let (mut now, mut waits, mut blocks) = (0.0f64, Vec::new(), Vec::new());
    for batch in 0..=BATCHES {
        let (mut wait, mut served, mut blocked) = (0.0, 0u32, 0u32);
        for call in 0..PER_BATCH {
            now += exponential(lambda);
            while let Some(Reverse(bits)) = ends.peek().copied() {
                let end = f64::from_bits(bits);
                if end > now {
                    break;
                }
                ends.pop();
                if let Some(next) = queue.finish(TaskType(0.0)).map(|started| started.token) {
                    wait += end - arrived_at.remove(&next).expect("it waited");
                    served += 1;
                    ends.push(Reverse((end + exponential(1.0)).to_bits()));
                }
            }
            let id = (batch * PER_BATCH + call) as u64;
            let call = Arriving { bytes: 0, may_wait: true, task_type: TaskType(0.0), due: None };
            match queue.arrive(call, |_| id) {
                Ok(Admission::Started) => {
                    served += 1;
                    ends.push(Reverse((now + exponential(1.0)).to_bits()));
                }
                Ok(Admission::Waiting(_)) => {
                    arrived_at.insert(id, now);
                }
                Err(_) => blocked += 1,
            }
        }
        // The first batch fills the system.
        if batch > 0 {
            waits.push(wait / f64::from(served));
            blocks.push(f64::from(blocked) / PER_BATCH as f64);
        }
    }
    Observed { blocked: interval(&blocks), wait: interval(&waits) }
}

fn agrees(what: &str, (mean, half): (f64, f64), theory: f64) {
    assert!((mean - theory).abs() <= half, "{what}: {mean} ± {half}, theory {theory}");
    assert!(half < 0.1 * theory, "{what}: the interval {half} says nothing about {theory}");
}

#[test]
fn with_the_line_off_blocking_is_erlang_b() {
    for (k, lambda, seed) in [(1, 0.8, 1), (4, 3.0, 2), (10, 9.0, 3)] {
        let limits = Limits { k, queue_length_max: 9, queue_enabled: false };
        let observed = simulate(lambda, limits, seed);
        agrees("blocking", observed.blocked, blocking(lambda, k, 0));
        assert_eq!(observed.wait.0, 0.0, "nobody waits");
    }
}

#[test]
fn with_a_line_blocking_and_waiting_are_those_of_m_m_k_k_plus_q() {
    for (k, q, lambda, seed) in [(1, 4, 0.9, 4), (3, 2, 2.8, 5), (4, 4, 4.5, 6)] {
        let limits = Limits { k, queue_length_max: q, queue_enabled: true };
        let observed = simulate(lambda, limits, seed);
        agrees("blocking", observed.blocked, blocking(lambda, k, q));
        agrees("waiting", observed.wait, mean_wait(lambda, k, q));
    }
}
