//! `ExternalScheduler` on real nodes and in simulated time: a stand-in for the program decides, hears outcomes, says
//! what is no step, dies and comes back; and the program of `examples/`, where Python has what it needs.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::process::{self, Process};
use common::websocket::{Learner, Reply};
use common::*;
use serde_json::{Value, json};

const PORT: u16 = 9090;
const TYPE: &str = "X-P2pfaas-Scheduler-Learning-Task-Type";

/// A program at `ip` that answers questions with the step that `decide` has for them.
fn program(ip: Ipv4Addr, decide: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Learner {
    Learner::start(SocketAddr::new(ip.into(), PORT), move |text| {
        let frame: Value = serde_json::from_str(text).expect("JSON");
        match frame["type"].as_str() {
            Some("call") => {
                Reply::Text(json!({"id": frame["id"], "step": decide(&frame)}).to_string())
            }
            // Nothing is answered to these.
            _ => Reply::Hang,
        }
    })
}

/// The frames of that type that a program has heard.
fn heard(program: &Learner, kind: &str) -> Vec<Value> {
    let frames = program.asked();
    let frames = frames.iter().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    frames.filter(|frame| frame["type"] == kind).collect()
}

fn words(ip: Ipv4Addr, timeout: &str) -> String {
    format!("ExternalScheduler ws://{ip}:{PORT}/decide {timeout}")
}

async fn call(node: &TestNode, task_type: &str) -> Answered {
    send("POST", &node.url("/function/fn-echo"), &[(TYPE, task_type)], "x").await
}

async fn counted(node: &TestNode, line: &str) -> bool {
    get(&node.url("/metrics")).await.text().lines().any(|counted| counted == line)
}

#[actix_rt::test]
async fn it_decides_and_hears_what_became_of_each_call() {
    let [node, peer] = cluster::<2>(|_| {}).await;
    let ip = fresh_ip();
    let program = program(ip, |call| match call["task"]["task_type"].as_f64() {
        _ if call["task"]["from_peer"] == true => json!("run"),
        Some(1.0) => json!("reject"),
        Some(2.0) if call["heard"]["rounds"] == 0 => {
            json!({"probe": [call["peers"][0]["host"]]})
        }
        Some(2.0) => json!({"forward": call["heard"]["probes"][0]["host"]}),
        _ => json!("run_now"),
    });
    node.set_scheduler(&words(ip, "5s")).await;
    let here = call(&node, "0").await;
    assert_eq!((here.status, here.text()), (200, "x".to_owned()));
    assert!(here.header("x-p2pfaas-scheduler").starts_with("ExternalScheduler(ws://"));
    let rejected = call(&node, "1").await;
    assert_eq!((rejected.status, rejected.code()), (503, 401));
    let away = call(&node, "2").await;
    assert_eq!((away.status, away.text()), (200, "x".to_owned()));
    let peer_ip = peer.state().published.load().identity.ip_text();
    assert_eq!(away.names("x-p2pfaas-peers-list-ip").last(), Some(&peer_ip));

    // No further call comes, and it hears of all of them.
    let outcomes = eventually("it hears what became of them", || async {
        let outcomes = heard(&program, "outcome");
        (outcomes.len() >= 3).then_some(outcomes)
    })
    .await;
    let shown =
        |outcome: &Value| (outcome["id"].clone(), outcome["kind"].clone(), outcome["peer"].clone());
    let calls = heard(&program, "call");
    let ids: Vec<Value> = calls.iter().map(|call| call["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 3, 3], "the third was asked about twice");
    let mut all: Vec<_> = outcomes.iter().map(shown).collect();
    all.sort_by_key(|(id, ..)| id.as_u64());
    let wanted = [
        (json!(1), json!("served"), Value::Null),
        (json!(2), json!("rejected"), Value::Null),
        (json!(3), json!("served"), json!(peer_ip)),
    ];
    assert_eq!(all, wanted);
    assert!(outcomes.iter().all(|outcome| outcome["total_s"].as_f64() > Some(0.0)));
    let own = heard(&program, "node");
    let own_ip = node.state().published.load().identity.ip_text();
    assert!(!own.is_empty() && own.iter().all(|node| node["host"] == *own_ip), "{own:?}");
}

#[actix_rt::test]
async fn calls_are_answered_while_it_is_gone_and_it_decides_again_once_it_is_back() {
    let (node, ip) = (TestNode::start(|_| {}), fresh_ip());
    node.set_scheduler(&words(ip, "200ms")).await;
    // Nobody is there yet.
    assert_eq!(call(&node, "0").await.status, 200);
    for life in 0..2 {
        let program = program(ip, |_| json!("reject"));
        eventually("it decides", || async { (call(&node, "0").await.status == 503).then_some(()) })
            .await;
        drop(program);
        for _ in 0..20 {
            let begins = tokio::time::Instant::now();
            assert_eq!(call(&node, "0").await.status, 200, "in life {life}");
            let took = begins.elapsed();
            assert!(took < PATIENCE / 10, "{took:?}: it costs its time-out at most");
        }
    }
    let metrics = get(&node.url("/metrics")).await.text();
    assert!(metrics.contains(r#"p2pfaas_program_fallbacks_total{why="silent"}"#), "{metrics}");
}

#[actix_rt::test]
async fn what_is_no_step_is_counted_and_the_call_runs_here() {
    let (node, ip) = (TestNode::start(|_| {}), fresh_ip());
    let program = Learner::start(SocketAddr::new(ip.into(), PORT), |text| {
        let frame: Value = serde_json::from_str(text).expect("JSON");
        let id = &frame["id"];
        if frame["type"] != "call" {
            return Reply::Hang;
        }
        Reply::Text(match frame["task"]["task_type"].as_f64() {
            Some(1.0) => "what?".to_owned(),
            Some(2.0) => json!({"id": id, "step": {"forward": "10.9.9.9"}}).to_string(),
            Some(3.0) => json!({"id": 0, "step": "reject"}).to_string(),
            Some(4.0) => json!({"id": id, "step": {"probe": []}}).to_string(),
            Some(5.0) => return Reply::Hang,
            _ => json!({"id": id, "step": "reject"}).to_string(),
        })
    });
    node.set_scheduler(&words(ip, "300ms")).await;
    for (task_type, why) in [
        ("1", "unreadable"),
        ("2", "no_such_peer"),
        ("3", "another_call"),
        ("4", "probes"),
        ("5", "silent"),
    ] {
        let answer = call(&node, task_type).await;
        assert_eq!((answer.status, answer.text()), (200, "x".to_owned()), "{why}");
        let line = format!(r#"p2pfaas_program_fallbacks_total{{why="{why}"}} 1"#);
        assert!(counted(&node, &line).await, "{line}");
    }
    // The socket on which nothing came was closed; the others decide.
    eventually("it decides again", || async {
        (call(&node, "0").await.status == 503).then_some(())
    })
    .await;
    assert!(program.open() > 0);
}

/// A scenario that the program at `ip` decides.
fn scenario(folder: &Path, ip: Ipv4Addr) -> String {
    let path = folder.join("outside.toml");
    let scheduler = words(ip, "100ms");
    let text = format!(
        "name = \"outside\"\nnodes = {{ count = 5, k = 2 }}\nqueue_length = 2\n\
         function = \"fn-work\"\npayloads = [{{ name = \"one\", query = \"mean_ms=100\" }}]\n\
         deadlines_s = [0.5]\nduration_s = 5\nrates = [8]\nschedulers = [\"{scheduler}\"]\n"
    );
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

async fn simulate(folder: &Path, ip: Ipv4Addr) -> (Option<i32>, String, String) {
    let scenario = scenario(folder, ip);
    let fresh = tempfile::tempdir_in(folder).expect("a folder");
    let output = fresh.path().join("results").display().to_string();
    process::told(&["bench", "simulate", &scenario, "--rows", "none", "--output", &output]).await
}

#[actix_rt::test]
async fn a_simulation_asks_it_too_and_says_so_if_it_is_not_there() {
    let (folder, [ip, other]) = (tempfile::tempdir().expect("a folder"), fresh_ips());
    let (code, _, errors) = simulate(folder.path(), ip).await;
    assert_ne!(code, Some(0));
    assert!(errors.contains(&format!("the program at ws://{ip}:9090/decide")), "{errors}");

    let first = program(ip, |_| json!("reject"));
    let (code, shown, errors) = simulate(folder.path(), ip).await;
    assert_eq!(code, Some(0), "{shown}{errors}");
    let calls = heard(&first, "call").len();
    let outcomes = heard(&first, "outcome");
    assert!(calls > 100 && outcomes.len() + 5 >= calls, "{calls}, {}", outcomes.len());
    assert!(outcomes.iter().all(|outcome| outcome["kind"] == "rejected"));
    drop(first);

    // One that ends within a run leaves no results that are another algorithm's.
    let times = std::sync::atomic::AtomicUsize::new(0);
    let _dying = Learner::start(SocketAddr::new(other.into(), PORT), move |text| {
        let frame: Value = serde_json::from_str(text).expect("JSON");
        match frame["type"] == "call" {
            true if times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 20 => Reply::Close,
            true => Reply::Text(json!({"id": frame["id"], "step": "run"}).to_string()),
            false => Reply::Hang,
        }
    });
    let (code, _, errors) = simulate(folder.path(), other).await;
    assert_ne!(code, Some(0));
    assert!(errors.contains("it has ended, or does not answer"), "{errors}");
}

/// The program of the book, if this machine's Python has the library that it needs.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let has = Command::new(&python).args(["-c", "import websockets"]).output();
    has.is_ok_and(|ended| ended.status.success()).then_some(python)
}

#[actix_rt::test]
async fn the_program_of_the_book_decides_on_nodes_and_in_simulations() {
    let Some(python) = python() else {
        eprintln!("passed over: python3 has no websockets");
        return;
    };
    let ip = fresh_ip();
    let mut command = Command::new(python);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policy.py");
    command.arg(script).args([&ip.to_string(), "9090"]);
    let mut program = Process::spawn(command);
    program.wait_for("decides at");
    let nodes = cluster::<3>(|settings| settings.parallel_running_functions_max = 1).await;
    for node in &nodes {
        node.set_scheduler(&words(ip, "5s")).await;
    }
    let url = nodes[0].url("/function/fn-sleep?mean_ms=1000");
    let first = actix_rt::spawn({
        let url = url.clone();
        async move { send("POST", &url, &[], "x").await }
    });
    eventually("its one slot is taken", || async {
        (nodes[0].state().gate.load().running == 1).then_some(())
    })
    .await;
    let second = send("POST", &url, &[], "x").await;
    assert_eq!((first.await.expect("it ends").status, second.status), (200, 200));
    assert_eq!(second.names("x-p2pfaas-peers-list-ip").len(), 2, "it went elsewhere");
    for node in &nodes {
        let metrics = get(&node.url("/metrics")).await.text();
        assert!(!metrics.contains("p2pfaas_program_fallbacks_total{"), "{metrics}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (code, shown, errors) = simulate(folder.path(), ip).await;
    assert_eq!(code, Some(0), "{shown}{errors}");
}
