//! Against what is known: closed forms, published losses, and what must hold whatever happens.

mod algorithms;
mod histories;
mod oracle;

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::policy::registry::SchedulerSpec;
use crate::policy::{Decision, Step};
use crate::queue::Limits;

/// Poisson arrivals of that rate at each node and exponential service of a second in mean.
fn poisson(nodes: u32, rate: f64, seconds: f64, seed: u64) -> impl Iterator<Item = Request> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut at, mut tag) = (0.0, 0);
    std::iter::from_fn(move || {
        let mut drawn = |mean: f64| -mean * (1.0 - random.random::<f64>()).ln();
        at += drawn(1.0 / (rate * f64::from(nodes)));
        let work = Duration::from_secs_f64(drawn(1.0));
        tag += 1;
        let node = random.random_range(0..nodes);
        let at_time = Duration::from_secs_f64(at);
        (at < seconds).then_some(Request { at: at_time, node, tag, work, ..Request::default() })
    })
}

fn world(nodes: u32, limits: Limits, words: &str) -> World {
    World::of(nodes, limits, SchedulerSpec::from_words(words))
}

fn no_line(k: u32) -> Limits {
    Limits { k, queue_length_max: 0, queue_enabled: false }
}

/// The share of calls that find no slot, once the nodes have filled.
fn lost(world: World, requests: impl Iterator<Item = Request>) -> f64 {
    let (mut all, mut lost) = (0u32, 0u32);
    Simulation::new(world, requests).expect("a good world").run(|call| {
        if call.request.at > Duration::from_secs(20) {
            all += 1;
            lost += u32::from(call.end != CallEnd::Served);
        }
    });
    f64::from(lost) / f64::from(all)
}

/// Erlang's B formula, by its recursion.
fn erlang_b(servers: u32, offered: f64) -> f64 {
    (1..=servers).fold(1.0, |b, n| offered * b / (f64::from(n) + offered * b))
}

#[test]
fn without_forwarding_each_node_loses_what_erlangs_formula_says() {
    for offered in [2.0, 4.0, 8.0] {
        let share =
            lost(world(10, no_line(4), "NoScheduler true"), poisson(10, offered, 2000.0, 1));
        let known = erlang_b(4, offered);
        assert!((share - known).abs() < 0.01, "{offered}: {share} against {known}");
    }
}

#[test]
fn power_of_n_with_thresholds_loses_what_is_published() {
    // LL(F, T) at N = 200, K = 10, ρ = 0.9; the figures in benches/README.md are from longer runs.
    let (words, known) = ("PowerOfNScheduler 1 0 true 1", 0.0569);
    let share = lost(world(200, no_line(10), words), poisson(200, 9.0, 60.0, 3));
    assert!((share - known).abs() < 0.1 * known, "{words}: {share} against {known}");
}

#[test]
fn what_takes_time_on_a_calls_way_is_in_its_times() {
    let ms = Duration::from_millis;
    let limits = Limits { k: 1, queue_length_max: 4, queue_enabled: true };
    let mut world = world(2, limits, "PowerOfNScheduler 1 1 true 1");
    world.network.link.latency = ms(5);
    world.network.clients.latency = ms(2);
    world.overheads = Overheads { client: ms(2), probe: ms(4), forward: ms(6), end: ms(1) };
    let request = |at, tag| Request { at: ms(at), tag, work: ms(100), ..Request::default() };
    // The second finds one call at its node, and the other node idle.
    let mut ended = Vec::new();
    let requests = [request(0, 0), request(10, 1)].into_iter();
    Simulation::new(world, requests).expect("a good world").run(|call| ended.push(call));
    ended.sort_by_key(|call| call.request.tag);
    // 2 + 1 there, 100 + 1 of function, 1 + 2 back.
    assert_eq!((ended[0].total, ended[0].path.len()), (ms(107), 1));
    assert_eq!(ended[0].execution, Some(ms(101)));
    // Beside it, 4 + 2 · 5 of a probe and 6 + 2 · 5 for the other node.
    assert_eq!((ended[1].total, ended[1].path.len()), (ms(107 + 14 + 16), 2));
    let [here, there] = &ended[1].path[..] else { panic!("two nodes") };
    assert_eq!((here.scheduling, here.probing, here.total), (ms(14), Some(ms(14)), ms(131)));
    assert_eq!((there.scheduling, there.probing, there.total), (ms(0), None, ms(101)));
}

#[test]
fn calls_on_a_board_slow_each_other_and_faster_nodes_do_more() {
    let ms = Duration::from_millis;
    let limits = Limits { k: 4, queue_length_max: 0, queue_enabled: false };
    let took = |cores, speed, board| {
        let mut world = world(1, limits, "NoScheduler true");
        (world.nodes[0].cores, world.nodes[0].speed, world.board) = (cores, speed, board);
        let requests = (0..4).map(|tag| Request { tag, work: ms(100), ..Request::default() });
        let mut took = Vec::new();
        Simulation::new(world, requests).expect("a good world").run(|call| took.push(call.total));
        took
    };
    assert_eq!(took(2.0, 1.0, BoardUse::Shared), [ms(200); 4]);
    assert_eq!(took(2.0, 2.0, BoardUse::Shared), [ms(100); 4]);
    assert_eq!(took(2.0, 1.0, BoardUse::Alone), [ms(100); 4]);
}

#[test]
fn a_decision_can_be_taken_from_outside() {
    let limits = Limits { k: 1, queue_length_max: 0, queue_enabled: false };
    let requests = poisson(3, 0.5, 30.0, 7).collect::<Vec<_>>();
    let all = requests.len();
    let world = world(3, limits, "NoScheduler true");
    let mut simulation = Simulation::new(world, requests.into_iter()).expect("a good world");
    simulation = simulation.decided_outside();
    let (mut asked, mut ended, mut served) = (0, 0, 0);
    loop {
        match simulation.advance() {
            SimProgress::Asks => {
                asked += 1;
                let (task, node, view) = simulation.asked().expect("a call waits");
                assert!(!task.from_peer && node < 3 && view.peers.len() == 2);
                // Where this node is busy, another one is asked for the favour.
                let decision = match view.load.running {
                    0 => Decision::RunHere { may_wait: false },
                    _ => Decision::Forward(view.peers[0].clone()),
                };
                simulation.decide(decision);
            }
            SimProgress::Finished(call) => {
                ended += 1;
                served += u32::from(call.end == CallEnd::Served);
            }
            SimProgress::Ended => break,
        }
    }
    assert_eq!((asked, ended), (all, all));
    assert!(served > 0 && simulation.under_way() == 0);
    assert!(matches!(Step::run_here(), Step::Decide(_)));
}

#[test]
fn a_world_that_cannot_be_is_refused() {
    let bad = |change: &dyn Fn(&mut World)| {
        let mut world = world(2, no_line(1), "NoScheduler true");
        change(&mut world);
        let refused = Simulation::new(world, std::iter::empty());
        refused.map(|_| ()).expect_err("it cannot be").to_string()
    };
    let none = bad(&|world| world.scheduler = SchedulerSpec::from_words("Nobody"));
    assert!(none.contains("Nobody"), "{none}");
    let nowhere = bad(&|world| world.nodes[0].neighbours = Neighbourhood::Of(vec![2]));
    assert!(nowhere.contains("node 2, but there are 2"), "{nowhere}");
    let still = bad(&|world| world.nodes[1].speed = 0.0);
    assert!(still.contains("node 1: speed is 0"), "{still}");
    let twice = bad(&|world| world.nodes[1].host = world.nodes[0].host.clone());
    assert!(twice.contains("node 1: another one is \"10.0.0.1\""), "{twice}");
    let fault = |from, until| SimFault {
        kind: FaultKind::Kill,
        nodes: vec![0],
        from: Duration::from_secs(from),
        until: Duration::from_secs(until),
    };
    let backwards = bad(&|world| world.faults = vec![fault(1, 2), fault(2, 1)]);
    assert!(backwards.contains("fault 1 ends before it begins"), "{backwards}");
    for host in ["node-2", "FE80::1", "127.0.0.1", "169.254.0.1"] {
        let no_address = bad(&|world| {
            world.membership = SimMembership::Swim;
            world.nodes[1].host = host.into();
        });
        assert!(no_address.contains(host), "{no_address}");
    }
    let many = bad(&|world| {
        *world = World::of(501, no_line(1), SchedulerSpec::from_words("NoScheduler true"));
        world.membership = SimMembership::Swim;
    });
    assert!(many.contains("501 nodes"), "{many}");
}
