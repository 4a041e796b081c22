use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::policy::registry::SchedulerSpec;
use crate::policy::testing::{client, peers, rng, view};
use crate::policy::{OutcomeKind, Probe};
use crate::types::{Load, NodeRecord, RecordLoad, TaskType};

const URL: &str = "ws://127.0.0.1:9090/decide";

fn policy() -> ExternalScheduler {
    let parameters = [URL.to_owned()];
    ExternalScheduler::parse(&mut Params::new(&parameters)).expect("good parameters")
}

fn asked(policy: &ExternalScheduler, peers: &[Peer], heard: &Knowledge) -> Consultation {
    match policy.next(&client(), view(1, 0, peers), heard, &mut rng(1)) {
        Step::Consult(consultation) => *consultation,
        step => panic!("it asks its program, not {step:?}"),
    }
}

fn marked(mark: u64) -> Knowledge {
    Knowledge { mark, ..Knowledge::default() }
}

fn frame(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn outcome(policy: &ExternalScheduler, mark: u64, kind: OutcomeKind) {
    let task = Task { deadline: Some(Duration::from_secs(1)), ..client() };
    policy.outcome(&Outcome {
        task: &task,
        mark,
        now: Duration::from_secs(9),
        kind,
        peer: None,
        execution: Some(Duration::from_millis(250)),
        total: Duration::from_millis(500),
    });
}

#[test]
fn its_parameters_are_a_url_and_a_time_out() {
    let full = |words: &str| match SchedulerSpec::from_words(words).build() {
        Ok(policy) => policy.full_name(),
        Err(why) => why.to_string(),
    };
    let shown = "ExternalScheduler(ws://[::1]:9/x?y=1, 1500ms)";
    assert_eq!(full("ExternalScheduler ws://[::1]:9/x?y=1 1.5s"), shown);
    assert_eq!(full("ExternalScheduler ws://host"), "ExternalScheduler(ws://host, 100ms)");
    assert_eq!(full("ExternalScheduler"), "parameter 1 (URL) is missing");
    for (url, why) in [
        ("wss://host/", "wss is not spoken"),
        ("http://host/", "begins with ws://"),
        ("ws:///path", "a host and a port"),
        ("ws://host:/", "a host and a port"),
        ("ws://host:0/", "a host and a port"),
        ("ws://host:65536/", "a host and a port"),
        ("ws://[::1/", "a host and a port"),
        ("ws://me:secret@host/", "without a user"),
        ("ws://host/#part", "a fragment"),
        ("ws://h\u{f6}st/", "printable ASCII"),
    ] {
        let refused = full(&format!("ExternalScheduler {url}"));
        assert!(refused.starts_with("parameter 1 (URL)") && refused.contains(why), "{refused}");
    }
    assert!(full(&format!("ExternalScheduler ws://{}", "h".repeat(300))).contains("253"));
    for timeout in ["0ms", "11s", "soon"] {
        let refused = full(&format!("ExternalScheduler ws://host {timeout}"));
        assert!(refused.contains("from 1ms to 10s"), "{refused}");
    }
}

#[test]
fn a_question_tells_all_that_is_known_of_a_call() {
    let policy = policy();
    let mut peers = peers(2);
    let load = Some(RecordLoad { k: 8, running: 3, waiting: 1, failing_percent: 0 });
    peers[0].record = Some(Arc::new(NodeRecord { load, ..NodeRecord::default() }));
    let by_type = [Load::default(), Load { running: 1, waiting: 0 }, Load::default()];
    let node = NodeView { now: Duration::from_secs(3), by_type: &by_type, ..view(1, 2, &peers) };
    let task = Task { task_type: TaskType(1.0), body_bytes: Some(5), ..client() };
    let probe = Probe { k: Some(6), ..Probe::of(peers[1].clone(), by_type[1]) };
    let mut heard = Knowledge { unreachable: vec!["10.0.0.9".into()], ..marked(7) };
    heard.answered(vec![peers[1].host.clone()], vec![probe]);
    heard.elapsed = Duration::from_millis(500);
    let Step::Consult(asked) = policy.next(&task, node, &heard, &mut rng(1)) else {
        panic!("it asks");
    };
    let wanted = json!({
        "type": "call", "id": 7,
        "task": {
            "function": task.function.as_str(), "task_type": 1.0, "hops": 0, "from_peer": false,
            "deadline_s": null, "body_bytes": 5,
        },
        "node": {"now_s": 3.0, "running": 1, "waiting": 2, "k": 4, "by_type": [[0, 0], [1, 0]]},
        "peers": [
            {"host": "10.0.0.1", "name": "n1", "record": {"k": 8, "running": 3, "waiting": 1}},
            {"host": "10.0.0.2", "name": "n2", "record": null},
        ],
        "heard": {
            "probes": [{"host": "10.0.0.2", "running": 1, "waiting": 0, "k": 6, "by_type": []}],
            "rounds": 1, "elapsed_s": 0.5, "unreachable": ["10.0.0.9"],
        },
    });
    assert_eq!((asked.frames.len(), frame(&asked.frames[0])), (1, wanted));
    let wanted = json!({"type": "node", "host": "10.0.0.1", "name": "n1"});
    assert_eq!(frame(&frames::node("10.0.0.1", "n1")), wanted);
}

#[test]
fn every_step_of_a_program_is_taken() {
    let (policy, peers) = (policy(), peers(3));
    let mut heard = marked(5);
    for (step, wanted) in [
        (r#""run""#, Step::run_here()),
        (r#""run_now""#, Step::Decide(Decision::RunHere { may_wait: false })),
        (r#""reject""#, Step::Decide(Decision::Reject)),
        (r#"{"forward":"10.0.0.2"}"#, Step::forward(peers[1].clone())),
        (
            r#"{"probe":["10.0.0.3","10.0.0.1","10.0.0.3"]}"#,
            Step::Probe(vec![peers[2].clone(), peers[0].clone()]),
        ),
    ] {
        let asked = asked(&policy, &peers, &marked(5));
        let said = format!(r#"{{"id":5,"step":{step}}}"#);
        heard.advised = Some(asked.read(Some(said.as_bytes())).expect("a step"));
        assert_eq!(policy.next(&client(), view(1, 0, &peers), &heard, &mut rng(1)), wanted);
    }
    // With the answers to its probes it is asked again, and so it is about a peer that is away.
    let mut probed = heard.clone();
    probed.answered(vec![peers[2].host.clone()], Vec::new());
    asked(&policy, &peers, &probed);
    asked(&policy, &peers, &Knowledge { unreachable: vec!["10.0.0.2".into()], ..heard });
}

#[test]
fn what_is_no_step_is_told_apart_and_means_run_here() {
    let (policy, peers) = (policy(), peers(2));
    let asked = asked(&policy, &peers, &marked(5));
    let long = format!(r#"{{"id":5,"step":"run","more":"{}"}}"#, "x".repeat(64 << 10));
    for (said, label) in [
        (None, "silent"),
        (Some(""), "unreadable"),
        (Some("[5,\"run\"]"), "unreadable"),
        (Some(r#"{"id":5}"#), "unreadable"),
        (Some(r#"{"id":-5,"step":"run"}"#), "unreadable"),
        (Some(r#"{"id":5,"step":"walk"}"#), "unreadable"),
        (Some(r#"{"id":5,"step":{"forward":7}}"#), "unreadable"),
        (Some(r#"{"id":5,"step":{"forward":"10.0.0.1","probe":[]}}"#), "unreadable"),
        (Some(&*long), "unreadable"),
        (Some(r#"{"id":6,"step":"run"}"#), "another_call"),
        (Some(r#"{"id":5,"step":{"forward":"10.0.0.3"}}"#), "no_such_peer"),
        (Some(r#"{"id":5,"step":{"probe":["10.0.0.1","nobody"]}}"#), "no_such_peer"),
        (Some(r#"{"id":5,"step":{"probe":[]}}"#), "probes"),
    ] {
        let why = asked.read(said.map(str::as_bytes)).expect_err("no step");
        assert_eq!(why.label(), label, "{said:?}");
        assert!(why.to_string().len() < 1024);
    }
    let heard = Knowledge { advised: Some(asked.fallback()), ..marked(5) };
    let step = policy.next(&client(), view(1, 0, &peers), &heard, &mut rng(1));
    assert_eq!(step, Step::run_here());
}

#[test]
fn peers_of_a_frame_and_probes_of_a_call_are_bounded() {
    let (policy, all) = (policy(), peers(1000));
    let mut heard = marked(1);
    heard.answered(vec![all[999].host.clone()], Vec::new());
    let asked = asked(&policy, &all, &heard);
    let frame = frame(&asked.frames[0]);
    let shown = frame["peers"].as_array().expect("a list");
    assert_eq!(shown.len(), PEERS_MAX);
    assert!(
        shown.iter().any(|peer| peer["host"].as_str() == Some(&*all[999].host)),
        "it was probed"
    );
    let probe_all: Vec<&Value> = shown.iter().map(|peer| &peer["host"]).collect();
    let said = |hosts: &[&Value]| json!({"id": 1, "step": {"probe": hosts}}).to_string();
    let too_many = asked.read(Some(said(&probe_all).as_bytes()));
    assert_eq!(too_many, Err(BadAdvice::Probes { asked: PEERS_MAX, left: PEERS_MAX - 1 }));
    assert!(asked.read(Some(said(&probe_all[1..]).as_bytes())).is_ok());
    heard.rounds = ROUNDS_MAX;
    let asked = self::asked(&policy, &all, &heard);
    assert!(asked.read(Some(said(&probe_all[..1]).as_bytes())).is_err(), "often enough");
}

#[test]
fn outcomes_go_out_with_the_next_question_the_oldest_first() {
    let policy = policy();
    assert_eq!(policy.tells(), None);
    let mark = policy.mark(&client(), Duration::ZERO);
    outcome(&policy, mark, OutcomeKind::Served);
    outcome(&policy, mark + 1, OutcomeKind::Lost);
    let asked = asked(&policy, &[], &marked(mark + 2));
    let wanted = json!({
        "type": "outcome", "id": mark, "kind": "served", "peer": null, "execution_s": 0.25,
        "total_s": 0.5, "in_time": true,
    });
    assert_eq!(frame(&asked.frames[0]), wanted);
    assert_eq!(frame(&asked.frames[1])["in_time"], false);
    assert_eq!((asked.frames.len(), asked.dropped), (3, 0));
    assert!(asked.asks() && policy.tells().is_none(), "they were taken along");
}

#[test]
fn outcomes_that_nobody_takes_are_bounded_and_counted() {
    let policy = policy();
    for mark in 0..OUTCOMES_MAX as u64 + 3 {
        outcome(&policy, mark, OutcomeKind::Full);
    }
    let mut told = policy.tells().expect("they wait");
    assert_eq!((told.frames.len(), told.dropped, told.asks()), (TAKEN_ALONG_MAX, 3, false));
    assert_eq!(frame(&told.frames[0])["id"], 3, "the oldest are gone");
    let mut all = told.frames.len();
    while let Some(more) = policy.tells() {
        told = more;
        all += told.frames.len();
    }
    assert_eq!((all, told.dropped), (OUTCOMES_MAX, 0));
}
