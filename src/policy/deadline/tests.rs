use std::sync::Arc;

use rand::{RngExt, SeedableRng};

use super::super::registry::SchedulerSpec;
use super::super::testing::*;
use super::super::{OutcomeKind, Peer};
use super::*;
use crate::queue::Limits;
use crate::simulation::{CallEnd, Finished, Overheads, Request, Simulation, World};
use crate::types::Load;

const MS: Duration = Duration::from_millis(1);

/// F peers in so many rounds.
fn policy(fan_out: u32, rounds: u32) -> DeadlineScheduler {
    DeadlineScheduler { fan_out, rounds, marks: Marks::default(), board: Mutex::default() }
}

fn due(deadline: Duration) -> Task {
    Task { deadline: Some(deadline), ..client() }
}

fn at(peers: &[Peer], now: Duration, running: u32) -> NodeView<'_> {
    NodeView { now, ..view(running, 0, peers) }
}

/// So many calls run here at once from `from` on, each for so long.
fn run(policy: &DeadlineScheduler, calls: u32, from: Duration, took: Duration) {
    let task = client();
    let marks: Vec<u64> = (0..calls).map(|_| policy.mark(&task, from)).collect();
    for (mark, running) in marks.iter().zip(0..) {
        let heard = Knowledge { mark: *mark, ..Knowledge::default() };
        run_here(&mut policy.board(), &task, at(&[], from, running), &heard);
    }
    for mark in marks {
        policy.outcome(&Outcome {
            task: &task,
            mark,
            now: from + took,
            kind: OutcomeKind::Served,
            peer: None,
            execution: Some(took),
            total: took,
        });
    }
}

/// One that has found out that calls take 100 ms alone, and that there is one core. The time after that.
fn with_one_core(fan_out: u32, rounds: u32) -> (DeadlineScheduler, Duration) {
    let (policy, mut now) = (policy(fan_out, rounds), Duration::ZERO);
    for (calls, took) in [(1, 100), (1, 100), (1, 100), (2, 200), (2, 200), (2, 200), (3, 300)] {
        run(&policy, calls, now, MS * took);
        now += MS * 1000;
    }
    (policy, now)
}

/// A call is asked about for the first time.
fn asks(policy: &DeadlineScheduler, task: &Task, node: NodeView<'_>) -> (Step, u64) {
    let mark = policy.mark(task, node.now);
    let heard = Knowledge { mark, ..Knowledge::default() };
    (policy.next(task, node, &heard, &mut rng(mark)), mark)
}

fn told(peer: &Peer, bid: Option<f64>) -> Probe {
    Probe { bid, ..Probe::of(peer.clone(), Load { running: 1, waiting: 0 }) }
}

#[test]
fn it_finds_out_how_long_calls_take_and_how_many_cores_there_are() {
    let (policy, _) = with_one_core(1, 1);
    let memory = policy.memory().expect("it has one");
    assert_eq!(memory["effective_cores"], 1.0);
    let alone_s = memory["seconds_by_type"][0].as_f64().expect("a number");
    assert!((alone_s - 0.1).abs() < 5e-3, "{alone_s}");
}

#[test]
fn what_cannot_be_in_time_is_rejected_and_what_can_is_run() {
    let (policy, now) = with_one_core(0, 0);
    assert_eq!(asks(&policy, &due(MS * 110), at(&[], now, 0)).0, Step::run_here());
    // Beside it a second one takes 200 ms.
    for (left, step) in
        [(190, Step::Decide(Decision::Reject)), (20, Step::Decide(Decision::Reject))]
    {
        assert_eq!(asks(&policy, &due(MS * left), at(&[], now, 1)).0, step, "{left} ms");
    }
}

#[test]
fn a_call_that_would_make_another_one_late_is_not_taken() {
    let (policy, now) = with_one_core(0, 0);
    assert_eq!(asks(&policy, &due(MS * 130), at(&[], now, 0)).0, Step::run_here());
    let late = due(MS * 5000);
    assert_eq!(policy.bid(&late, at(&[], now, 1)), None, "the first would end after 200 ms");
    assert_eq!(asks(&policy, &late, at(&[], now, 1)).0, Step::Decide(Decision::Reject));
    // When the first has little left to do, there is time for both of what is left.
    let (policy, now) = with_one_core(0, 0);
    assert_eq!(asks(&policy, &due(MS * 130), at(&[], now, 0)).0, Step::run_here());
    assert_eq!(asks(&policy, &late, at(&[], now + MS * 97, 1)).0, Step::run_here());
}

#[test]
fn new_peers_are_asked_round_by_round_and_the_best_bid_gets_the_call() {
    let (policy, now) = with_one_core(2, 2);
    let peers = peers(6);
    let task = due(MS * 20);
    let mut heard = Knowledge { mark: policy.mark(&task, now), ..Knowledge::default() };
    let ask = |heard: &Knowledge| policy.next(&task, at(&peers, now, 1), heard, &mut rng(1));
    for _ in 0..2 {
        let step = ask(&heard);
        let Step::Probe(drawn) = step else { panic!("{step:?}") };
        assert!(drawn.len() == 2 && drawn.iter().all(|peer| !heard.asked.contains(&peer.host)));
        let hosts = drawn.iter().map(|peer| Arc::clone(&peer.host)).collect();
        heard.answered(hosts, vec![told(&drawn[0], None), told(&drawn[1], Some(-0.001))]);
    }
    assert_eq!(ask(&heard), Step::Decide(Decision::Reject), "nobody can, and the rounds are over");
    // Nobody has more to spare than all of it.
    let answers = [(0, Some(0.002)), (1, Some(0.005)), (2, None), (3, Some(9.0))]
        .map(|(n, bid)| told(&peers[n], bid));
    heard.answered(Vec::new(), answers.to_vec());
    assert_eq!(ask(&heard), Step::forward(peers[1].clone()));
    heard.unreachable.push(peers[1].host.clone());
    assert_eq!(ask(&heard), Step::forward(peers[0].clone()), "the next best");
}

#[test]
fn a_peers_call_is_not_asked_about_again() {
    let (policy, now) = with_one_core(2, 2);
    let task = Task { deadline: Some(MS * 20), ..from_peer(1) };
    assert!(!policy.may_forward(&task));
    let step = asks(&policy, &task, at(&peers(6), now, 1)).0;
    assert_eq!(step, Step::Decide(Decision::Reject));
}

#[test]
fn calls_without_a_deadline_are_never_rejected() {
    let (policy, now) = with_one_core(2, 1);
    let peers = peers(3);
    for running in 0..40 {
        let mark = policy.mark(&client(), now);
        let mut heard = Knowledge { mark, ..Knowledge::default() };
        loop {
            match policy.next(&client(), at(&peers, now, running), &heard, &mut rng(mark)) {
                Step::Probe(drawn) => {
                    let hosts = drawn.iter().map(|peer| Arc::clone(&peer.host)).collect();
                    heard.answered(hosts, drawn.iter().map(|peer| told(peer, None)).collect());
                }
                step => break assert_eq!(step, Step::run_here(), "{running}"),
            }
        }
    }
    let heard = Knowledge {
        rounds: 1,
        probes: Some(vec![told(&peers[2], Some(-0.3))]),
        ..Knowledge::default()
    };
    let step = policy.next(&client(), at(&peers, now, 40), &heard, &mut rng(1));
    assert_eq!(step, Step::forward(peers[2].clone()), "it ends there sooner");
}

#[test]
fn of_those_that_wait_the_one_that_is_due_first_is_first() {
    let limits = Limits { k: 1, queue_length_max: 9, queue_enabled: true };
    let world = World::of(1, limits, SchedulerSpec::from_words("DeadlineScheduler 0 0"));
    let request = |at: u32, deadline: u32, tag| Request {
        at: MS * at,
        tag,
        work: MS * 100,
        deadline: Some(MS * deadline),
        ..Request::default()
    };
    let first = [0, 200, 400, 600, 800].map(|at| request(at, 150, 0));
    let waiting = [request(810, 1000, 1), request(820, 900, 2), request(830, 260, 3)];
    let mut ended = Vec::new();
    let requests = first.into_iter().chain(waiting);
    Simulation::new(world, requests).expect("a good world").run(|call| {
        assert_eq!(call.end, CallEnd::Served);
        assert!(call.total <= call.request.deadline.expect("it has one"));
        ended.push(call.request.tag);
    });
    assert_eq!(ended, [0, 0, 0, 0, 0, 3, 2, 1]);
    assert_eq!(policy(0, 0).line_order(0), LineOrder::EarliestDeadline);
}

/// Calls as in the scenario deadline-sweep-short, at that load factor, for so long.
fn sweep(factor: f64, seconds: f64) -> Vec<Request> {
    let rates = [8.0, 8.5, 9.0, 9.5, 10.0, 10.5, 11.0, 12.0, 12.5, 13.0, 13.5, 14.0];
    let mut random = rand::rngs::SmallRng::seed_from_u64(3);
    let mut all = Vec::new();
    for (node, rate) in (0..).zip(rates) {
        let mut at = 0.0;
        loop {
            at -= (1.0 - random.random::<f64>()).ln() / (rate * factor);
            if at > seconds {
                break;
            }
            let small = random.random::<bool>();
            let (work, deadline) = if small { (60, 75) } else { (150, 188) };
            all.push(Request {
                at: Duration::from_secs_f64(at),
                node,
                task_type: u32::from(small),
                work: MS * work,
                deadline: Some(MS * deadline),
                ..Request::default()
            });
        }
    }
    all.sort_by_key(|request| request.at);
    all
}

#[test]
fn on_twelve_boards_nearly_all_calls_are_in_time_and_those_that_are_taken_are_not_late() {
    let limits = Limits { k: 3, queue_length_max: 2, queue_enabled: true };
    let mut world = World::of(12, limits, SchedulerSpec::from_words("DeadlineScheduler 3 4"));
    let us = Duration::from_micros;
    world.overheads = Overheads { client: us(102), end: us(1259), forward: us(158), probe: us(70) };
    for node in &mut world.nodes {
        node.cores = 2.0;
    }
    let (mut calls, mut served, mut in_time) = (0.0, 0.0, 0.0);
    let mut simulation =
        Simulation::new(world, sweep(1.0, 45.0).into_iter()).expect("a good world");
    simulation.run(|call: Finished| {
        if call.request.at < Duration::from_secs(10) {
            return;
        }
        calls += 1.0;
        if call.end == CallEnd::Served {
            served += 1.0;
            in_time += f64::from(u8::from(Some(call.total) <= call.request.deadline));
        }
    });
    for node in 0..12 {
        let memory = simulation.memory(node).expect("it has one");
        assert_eq!(memory["effective_cores"], 2.0, "node {node}");
    }
    assert!(in_time / calls >= 0.95, "{}", in_time / calls);
    assert!(in_time / served >= 0.99, "{}", in_time / served);
}
