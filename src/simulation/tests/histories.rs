//! Histories under seeded faults, with the laws that hold in all of them. A history that breaks one is named by its
//! seed: `HISTORY_SEED=n cargo test --lib histories` runs it alone, `HISTORIES=n` makes so many.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use crate::policy::registry::SchedulerSpec;
use crate::queue::Limits;
use crate::rl::parameters::Parameters;

/// Histories of each `cargo test`. In each tenth of them nodes hear of each other by SWIM.
const HISTORIES: u64 = 300;
const SWIM_EACH: u64 = 10;
/// A client's last call there, long after everything else: when it ends, all lists are right again. (Two of eleven
/// that are parted from the others miss them one by one, for 20 s: they take themselves for slow.)
const LATE_S: u64 = 45;
const LATE_TAG: u64 = 600;
/// One way, of some networks: polls and probes do not come through.
const SLOW: Duration = Duration::from_millis(1500);
const ALGORITHMS: [&str; 7] = [
    "NoScheduler false",
    "ForwardScheduler 2",
    "PowerOfNScheduler 1 1 true 1",
    "PowerOfNScheduler 2 0 true 3",
    "PowerOfNSchedulerTau 2 1 true 1 20ms",
    "RoundRobinWithMasterScheduler false 10.0.0.1 true",
    "LearningScheduler 2",
];

/// A world, its faults and its requests, all drawn from a seed.
fn drawn(seed: u64) -> (World, Vec<Request>) {
    let random = &mut SmallRng::seed_from_u64(seed);
    let nodes = random.random_range(2..12);
    let limits = Limits {
        k: random.random_range(1..5),
        queue_length_max: random.random_range(0..6),
        queue_enabled: random.random(),
    };
    let words = ALGORITHMS[random.random_range(0..ALGORITHMS.len())];
    let mut world = World::of(nodes, limits, SchedulerSpec::from_words(words));
    world.seed = seed;
    let ms =
        |random: &mut SmallRng, most: u64| Duration::from_millis(random.random_range(0..=most));
    world.network.link =
        Link { latency: ms(random, 20), deviation: ms(random, 5), ..Link::default() };
    if random.random_range(0..10) == 0 {
        // Longer than anybody waits for a poll, or a probe.
        world.network.link.latency = SLOW;
    }
    world.network.loss = if random.random() { 0.1 } else { 0.0 };
    world.overheads =
        Overheads { probe: ms(random, 3), forward: ms(random, 3), ..Overheads::default() };
    world.patience.client = Duration::from_secs(5);
    world.board = if random.random() { BoardUse::Shared } else { BoardUse::Alone };
    if words.starts_with("Learning") {
        let parameters = Parameters { actions_n: 3 + nodes as usize, ..Parameters::default() };
        let rewarding = Rewarding::Client { deadlines_s: vec![0.2], batch: 5 };
        world.learning = Some(LearningSetup { parameters, rewarding });
    }
    for _ in 0..random.random_range(0..4) {
        world.faults.push(fault(random, nodes));
    }
    let rate = f64::from(nodes * limits.k) * random.random_range(2.0..12.0);
    let mut at = 0.0;
    let requests = (0..LATE_TAG).map(|tag| {
        at += -(1.0 - random.random::<f64>()).ln() / rate;
        Request {
            at: Duration::from_secs_f64(at),
            node: random.random_range(0..nodes),
            tag,
            task_type: random.random_range(0..2),
            work: ms(random, 200),
            bytes: 0,
            deadline: None,
        }
    });
    let mut requests: Vec<Request> = requests.collect();
    if seed.is_multiple_of(SWIM_EACH) {
        world.membership = SimMembership::Swim;
        let at = Duration::from_secs(LATE_S).max(requests.last().expect("some").at);
        requests.push(Request { at, tag: LATE_TAG, ..Request::default() });
    }
    (world, requests)
}

fn fault(random: &mut SmallRng, nodes: u32) -> SimFault {
    let kinds = [FaultKind::Kill, FaultKind::Stall, FaultKind::Part];
    let count = random.random_range(1..=nodes / 2);
    let from = Duration::from_millis(random.random_range(0..8000));
    let lasts = Duration::from_millis(random.random_range(1..4000));
    SimFault {
        kind: kinds[random.random_range(0..3)].clone(),
        nodes: (0..count)
            .map(|_| random.random_range(0..nodes))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect(),
        from,
        until: if random.random_range(0..5) == 0 { Duration::MAX } else { from + lasts },
    }
}

/// Whether a node runs in the end: who is killed while it stands still is another process when it is back.
fn runs_in_the_end(world: &World, node: u32) -> bool {
    let faults = world.faults.iter().filter(|fault| fault.nodes.contains(&node));
    let mut moments: Vec<(Duration, &SimFault)> =
        faults.flat_map(|fault| [(fault.from, fault), (fault.until, fault)]).collect();
    moments.sort_by_key(|(at, _)| *at);
    let (mut downs, mut still_until) = (0, Duration::ZERO);
    for (at, fault) in moments.into_iter().filter(|(at, _)| *at < Duration::MAX) {
        match fault.kind {
            FaultKind::Kill if at == fault.from => {
                (downs, still_until) = (downs + 1, Duration::ZERO)
            }
            FaultKind::Kill => downs -= 1,
            FaultKind::Stall if at == fault.from && downs == 0 => {
                still_until = still_until.max(fault.until);
            }
            FaultKind::Stall | FaultKind::Part => {}
        }
    }
    downs == 0 && still_until < Duration::MAX
}

/// Whom each node is to list in the end; `None`: it does not run any more, or the network is too slow for polls.
fn lists_in_the_end(world: &World) -> Vec<Option<Vec<u32>>> {
    let lasting = |fault: &&SimFault| fault.kind == FaultKind::Part && fault.until == Duration::MAX;
    let side = |node: u32| {
        let parts = world.faults.iter().filter(lasting);
        parts.map(|fault| fault.nodes.contains(&node)).collect::<Vec<_>>()
    };
    let nodes = 0..u32::try_from(world.nodes.len()).expect("few");
    let list = |own: u32| {
        let others = nodes.clone().filter(|other| *other != own && runs_in_the_end(world, *other));
        others.filter(|other| side(*other) == side(own)).collect()
    };
    let is_told = |own: u32| world.network.link.latency < SLOW && runs_in_the_end(world, own);
    nodes.clone().map(|own| is_told(own).then(|| list(own))).collect()
}

/// Runs one, and says which law it breaks.
fn broken_law(seed: u64) -> Option<String> {
    let (world, requests) = drawn(seed);
    let all = requests.len();
    let (k, nodes, words) = (world.nodes[0].setup_k(), world.nodes.len(), world.scheduler.words());
    let kills = world.faults.iter().filter(|fault| fault.kind == FaultKind::Kill);
    let killed: HashSet<u32> = kills.flat_map(|fault| fault.nodes.clone()).collect();
    let parts = world.faults.iter().filter(|fault| fault.kind == FaultKind::Part);
    let parts: Vec<HashSet<u32>> =
        parts.map(|fault| fault.nodes.iter().copied().collect()).collect();
    let lists = lists_in_the_end(&world);
    let mut simulation = Simulation::new(world, requests.into_iter()).expect("a good world");
    let (mut ends, mut before) = (BTreeMap::new(), Duration::ZERO);
    loop {
        for node in 0..nodes {
            let load = simulation.load(u32::try_from(node).expect("few")).expect("it is there");
            if load.running > k {
                return Some(format!("node {node} runs {} with K {k}", load.running));
            }
        }
        let call = match simulation.advance() {
            SimProgress::Finished(call) => call,
            SimProgress::Asks => return Some("it asks outside".to_owned()),
            SimProgress::Ended => break,
        };
        if simulation.now() < before {
            return Some(format!("time goes back from {before:?} to {:?}", simulation.now()));
        }
        before = simulation.now();
        let first = call.path.first().map(|passed| passed.node);
        if first != Some(call.request.node) {
            return Some(format!("call {} began at {first:?}", call.request.tag));
        }
        if call.path.len() > 1 && words.starts_with("NoScheduler") {
            return Some(format!("call {} was forwarded", call.request.tag));
        }
        if call.end == CallEnd::Served && call.execution.is_none() {
            return Some(format!("call {} was served and never ran", call.request.tag));
        }
        if call.end == CallEnd::NodeLost && !killed.contains(&call.request.node) {
            return Some(format!("call {} lost its node", call.request.tag));
        }
        let passed_a_killed = call.path.iter().any(|passed| killed.contains(&passed.node));
        let sides = |nodes: &HashSet<u32>| -> HashSet<bool> {
            call.path.iter().map(|passed| nodes.contains(&passed.node)).collect()
        };
        let was_parted = parts.iter().any(|nodes| sides(nodes).len() == 2);
        if call.end == CallEnd::PeerLost && !passed_a_killed && !was_parted {
            return Some(format!("call {} lost its peer", call.request.tag));
        }
        for (node, list) in (0u32..).zip(&lists).filter(|_| call.request.tag == LATE_TAG) {
            let mut listed = simulation.listed(node);
            listed.sort_unstable();
            if list.as_ref().is_some_and(|list| *list != listed) {
                return Some(format!("node {node} lists {listed:?} in the end, not {list:?}"));
            }
        }
        if ends.insert(call.request.tag, call.end).is_some() {
            return Some(format!("call {} ended twice", call.request.tag));
        }
    }
    (ends.len() != all).then(|| format!("{} of {all} calls ended", ends.len()))
}

impl NodeSetup {
    fn setup_k(&self) -> u32 {
        self.limits.k
    }
}

#[test]
fn whatever_goes_wrong_the_laws_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("HISTORY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HISTORIES").unwrap_or(HISTORIES),
    };
    let broken: Vec<String> = seeds
        .filter_map(|seed| Some(format!("HISTORY_SEED={seed}: {}", broken_law(seed)?)))
        .collect();
    assert_eq!(broken, [""; 0]);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    // Every other with SWIM.
    for seed in (0..20).map(|n| n * SWIM_EACH / 2) {
        let told = || {
            let (world, requests) = drawn(seed);
            let mut told = Vec::new();
            let mut simulation =
                Simulation::new(world, requests.into_iter()).expect("a good world");
            simulation.run(|call| {
                let path: Vec<u32> = call.path.iter().map(|passed| passed.node).collect();
                told.push((call.request.tag, call.end, call.total, path));
            });
            (told, simulation.events())
        };
        assert_eq!(told(), told(), "seed {seed}");
    }
}
