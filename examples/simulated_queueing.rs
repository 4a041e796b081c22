//! Two scheduling algorithms in simulated time: no sockets, no clock, no actors.
//!
//! The algorithms and the queue of a node are plain functions and data, so a program can drive them
//! as it likes. Here six nodes with K = 2 get Poisson arrivals, the first node far more than it can
//! serve and the last hardly any. Service times are exponential with a mean of 100 ms. The network
//! takes no time. Both algorithms get the same arrivals and service times.
//!
//! ```console
//! $ cargo run --example simulated_queueing
//! ```
//!
//! It prints one line per algorithm: the share of calls that were refused, the share that another
//! node ran, and how long a call waited for a slot on average. `PowerOfNScheduler` refuses fewer
//! calls, because the busy nodes hand some of theirs to the idle ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::error::Error;

use p2pfaas::policy::registry::SchedulerSpec;
use p2pfaas::policy::{Decision, Knowledge, NodeView, Policy, Probe, Step, Task};
use p2pfaas::queue::{Admission, Arriving, Discipline, Limits};
use p2pfaas::types::{Peer, TaskType};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// Calls a second that arrive at each node. Two slots of 100 ms serve 20 a second.
const RATES: [f64; 6] = [30.0, 22.0, 16.0, 10.0, 6.0, 2.0];
const LIMITS: Limits = Limits { k: 2, queue_length_max: 4, queue_enabled: true };
const MEAN_SERVICE_S: f64 = 0.1;
const DURATION_S: f64 = 2000.0;

/// A call on its way through the simulation.
#[derive(Clone, Copy)]
struct Call {
    arrived_s: f64,
    service_s: f64,
}

/// What happens next: a call arrives at a node, or one ends there.
enum Event {
    Arrival { node: usize },
    End { node: usize },
}

/// A time that a heap can order; later events of one moment come later.
type Moment = (u64, u64);

struct Simulation {
    nodes: Vec<Discipline<Call>>,
    /// What each node knows of the others.
    peers: Vec<Vec<Peer>>,
    policy: std::sync::Arc<dyn Policy>,
    agenda: BinaryHeap<Reverse<(Moment, usize)>>,
    events: Vec<Event>,
    calls: u64,
    refused: u64,
    forwarded: u64,
    waited_s: f64,
}

fn exponential(mean: f64, rng: &mut impl Rng) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

impl Simulation {
    fn new(algorithm: &str) -> Result<Self, Box<dyn Error>> {
        let all: Vec<Peer> = (0..RATES.len())
            .map(|n| Peer { name: format!("node-{n}").into(), ..Peer::at(&n.to_string()) })
            .collect();
        let others = |me: usize| {
            let others = all.iter().enumerate().filter(|(n, _)| *n != me);
            others.map(|(_, peer)| peer.clone()).collect()
        };
        Ok(Self {
            nodes: RATES.map(|_| Discipline::new(LIMITS, u64::MAX)).into(),
            peers: (0..RATES.len()).map(others).collect(),
            policy: SchedulerSpec::from_words(algorithm).build()?,
            agenda: BinaryHeap::new(),
            events: Vec::new(),
            calls: 0,
            refused: 0,
            forwarded: 0,
            waited_s: 0.0,
        })
    }

    /// Puts `event` on the agenda for `at_s`.
    fn plan(&mut self, at_s: f64, event: Event) {
        let number = self.events.len();
        self.events.push(event);
        self.agenda.push(Reverse((((at_s * 1e9) as u64, number as u64), number)));
    }

    /// Asks the algorithm until it has decided. Probes are answered at once, with the truth.
    fn decide(&self, node: usize, hops: u32, rng: &mut SmallRng) -> Decision {
        let task = Task { hops, from_peer: hops > 0, ..Task::default() };
        let mut known = Knowledge::default();
        loop {
            let view = NodeView {
                now: std::time::Duration::ZERO,
                load: self.nodes[node].load(),
                by_type: &[],
                k: LIMITS.k,
                places: 0,
                peers: &self.peers[node],
            };
            match self.policy.next(&task, view, &known, rng) {
                Step::Decide(decision) => return decision,
                Step::Probe(asked) => {
                    let probe = |peer: Peer| {
                        let load = self.nodes[index(&peer)].load();
                        Probe::of(peer, load)
                    };
                    known.probes = Some(asked.into_iter().map(probe).collect());
                }
                Step::WaitUntil(elapsed) => known.elapsed = elapsed,
                // There is no learner here, and no program outside: such a call runs where it is.
                Step::Learn(_) | Step::Consult(_) => return Decision::RunHere { may_wait: true },
            }
        }
    }

    fn arrive(&mut self, mut node: usize, call: Call, rng: &mut SmallRng) {
        self.calls += 1;
        let mut hops = 0;
        let may_wait = loop {
            match self.decide(node, hops, rng) {
                Decision::RunHere { may_wait } => break may_wait,
                Decision::Forward(peer) => {
                    node = index(&peer);
                    hops += 1;
                }
                Decision::Reject | Decision::Refuse => {
                    self.refused += 1;
                    return;
                }
            }
        };
        let arriving = Arriving { bytes: 0, may_wait, task_type: TaskType(0.0), due: None };
        match self.nodes[node].arrive(arriving, |_| call) {
            Ok(Admission::Started) => self.start(node, call, call.arrived_s),
            Ok(Admission::Waiting(_)) => {}
            Err(_) => self.refused += 1,
        }
        self.forwarded += u64::from(hops > 0);
    }

    fn start(&mut self, node: usize, call: Call, now_s: f64) {
        self.waited_s += now_s - call.arrived_s;
        self.plan(now_s + call.service_s, Event::End { node });
    }

    /// Runs to the end and answers with the line to print.
    fn run(mut self, seed: u64) -> String {
        // The algorithm's chances are its own, so that the arrivals are the same for all.
        let mut chances = SmallRng::seed_from_u64(seed);
        let mut arrivals: Vec<SmallRng> =
            (1..=RATES.len() as u64).map(|n| SmallRng::seed_from_u64(seed + n)).collect();
        for node in 0..RATES.len() {
            self.plan(0.0, Event::Arrival { node });
        }
        while let Some(Reverse(((nanoseconds, _), number))) = self.agenda.pop() {
            let now_s = nanoseconds as f64 / 1e9;
            match self.events[number] {
                Event::Arrival { node } if now_s < DURATION_S => {
                    let service_s = exponential(MEAN_SERVICE_S, &mut arrivals[node]);
                    let next_s = now_s + exponential(1.0 / RATES[node], &mut arrivals[node]);
                    self.arrive(node, Call { arrived_s: now_s, service_s }, &mut chances);
                    self.plan(next_s, Event::Arrival { node });
                }
                Event::Arrival { .. } => {}
                Event::End { node } => {
                    if let Some(next) = self.nodes[node].finish(TaskType(0.0)) {
                        self.start(node, next.token, now_s);
                    }
                }
            }
        }
        let share = |part: u64| 100.0 * part as f64 / self.calls as f64;
        let waited_ms = 1e3 * self.waited_s / (self.calls - self.refused) as f64;
        format!(
            "refused {:>5.2} %   run elsewhere {:>5.2} %   mean wait {waited_ms:>5.1} ms",
            share(self.refused),
            share(self.forwarded)
        )
    }
}

/// A peer's host is its place in the list of nodes.
fn index(peer: &Peer) -> usize {
    peer.host.parse().expect("this program named it")
}

fn main() -> Result<(), Box<dyn Error>> {
    for algorithm in ["NoScheduler true", "PowerOfNScheduler 1 2 true 1"] {
        println!("{algorithm:<30} {}", Simulation::new(algorithm)?.run(7));
    }
    Ok(())
}
