//! `GET /health` and the metrics of the actors, on real nodes: what is well, and what hangs.

#![expect(clippy::disallowed_methods, reason = "what is tested goes on in real time")]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use p2pfaas::actors::switch::Active;
use p2pfaas::policy::{Knowledge, NodeView, Policy, Step, Task};
use serde_json::{Value, json};

#[actix_rt::test]
async fn health_tells_of_every_actor_and_what_it_has() {
    let node = TestNode::start(|settings| settings.workers = 2);
    post(&node.url("/configuration"), r#"{"parallel_running_functions_max":3}"#).await;
    node.set_scheduler("ForwardScheduler 1").await;
    let health = eventually("every actor has answered twice", || async {
        let answer = get(&node.url("/health")).await;
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("serving")));
        let actors = answer.json()["actors"].clone();
        let seen = |name: &str, key: &str, value: Value| actors[name]["state"][key] == value;
        (seen("queue", "k", json!(3))
            && seen("switch", "scheduler", json!("ForwardScheduler(1)"))
            && seen("scheduler", "replicas", json!(2)))
        .then_some(actors)
    })
    .await;
    let names: Vec<&String> = health.as_object().expect("an object").keys().collect();
    let all = ["discovery", "gateway", "learner", "queue", "scheduler", "supervisor", "switch"];
    assert_eq!(names, all);
    for (name, actor) in health.as_object().expect("an object") {
        assert_eq!((&actor["ok"], &actor["restarts"]), (&json!(true), &json!(0)), "{name}");
        assert!(actor["mailbox_age_s"].is_number() && actor["state"].is_object(), "{name}");
    }
    assert_eq!(health["gateway"]["state"], json!({"servers": 3}));
    assert_eq!(health["supervisor"]["state"], json!({"children": 6}));
    let metrics = get(&node.url("/metrics")).await.text();
    for name in all {
        assert!(metrics.contains(&format!("p2pfaas_actor_ok{{actor=\"{name}\"}} 1")), "{metrics}");
        let age = format!("p2pfaas_actor_mailbox_age_seconds{{actor=\"{name}\"}} ");
        assert!(metrics.contains(&age), "{metrics}");
    }
}

/// `GET /health` from a thread that has no runtime: the status and the body.
fn health_of(ip: Ipv4Addr) -> (u16, Value) {
    let mut stream = TcpStream::connect((ip, 18080)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let request = b"GET /health HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, serde_json::from_str(body).expect("JSON"))
}

#[actix_rt::test]
async fn a_supervisor_whose_thread_hangs_shows_and_no_other_actor_is_blamed() {
    let node = TestNode::start(|_| {});
    let ip = node.ip;
    assert_eq!(get(&node.url("/health")).await.status, 200);
    let looks = std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, health) = health_of(ip);
            if status == 503 || Instant::now() > deadline {
                return (status, health);
            }
            std::thread::yield_now();
        }
    });
    // This thread is the Supervisor's.
    let (status, health) = looks.join().expect("it looks");
    assert_eq!((status, &health["status"]), (503, &json!("stuck")), "{health}");
    for (name, actor) in health["actors"].as_object().expect("an object") {
        assert_eq!(actor["ok"], json!(name != "supervisor"), "{health}");
    }
    eventually("it has come back", || async {
        let (status, health) = actix_rt::task::spawn_blocking(move || health_of(ip)).await.ok()?;
        let restarts = |actor: &Value| actor["restarts"] == 0;
        let all = health["actors"].as_object().expect("an object");
        assert!(all.values().all(restarts), "{health}");
        (status == 200).then_some(())
    })
    .await;
}

/// Does not come back from its first decision before the other end of the channel is dropped.
struct HangsOnce(Mutex<Option<Receiver<()>>>);

impl Policy for HangsOnce {
    fn name(&self) -> &'static str {
        "HangsOnce"
    }

    fn parameters(&self) -> Vec<String> {
        Vec::new()
    }

    fn next(&self, _: &Task, _: NodeView<'_>, _: &Knowledge, _: &mut dyn rand::Rng) -> Step {
        let until = self.0.lock().expect("nobody panics").take();
        until.map(|until| until.recv());
        Step::run_here()
    }
}

#[actix_rt::test]
async fn an_algorithm_that_hangs_with_its_thread_shows_and_the_node_gets_other_threads() {
    let node = TestNode::start(|settings| {
        settings.workers = 2;
        settings.drain_timeout_s = 1;
    });
    let (hangs, until) = channel();
    let policy = Arc::new(HangsOnce(Mutex::new(Some(until))));
    node.state().in_force.store(Arc::new(Active::new(1, policy)));
    let (url, call) = (node.url("/health"), node.url("/function/fn-echo"));
    let soon = Duration::from_secs(1);
    let _hung = send_patiently("POST", &call, &[], "x", soon).await;
    // Half of the questions come to the thread that hangs.
    let health = || send_patiently("GET", &url, &[], "", soon);
    eventually("it shows", || async {
        let answer = health().await.ok()?;
        let actors = answer.json()["actors"].clone();
        (answer.status == 503 && actors["scheduler"]["ok"] == false).then_some(())
    })
    .await;
    let actors = eventually("other threads serve", || async {
        let answer = health().await.ok()?;
        (answer.status == 200).then(|| answer.json()["actors"].clone())
    })
    .await;
    assert_eq!(
        (&actors["scheduler"]["restarts"], &actors["gateway"]["restarts"]),
        (&json!(1), &json!(0))
    );
    for _ in 0..8 {
        assert_eq!(post(&call, "x").await.status, 200, "none of them hangs");
    }
    drop(hangs);
}
