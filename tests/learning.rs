//! `LearningScheduler` on real nodes: the four headers, the actions, the node's own rewards,
//! deadlines, EIDs, and another learner in the place of ours.

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use common::process::Process;
use common::raw::{self, RawServer};
use common::websocket::{Learner, Reply};
use common::*;
use serde_json::{Value, json};

const TYPE: &str = "X-P2pfaas-Scheduler-Learning-Task-Type";
const DEADLINE: &str = "X-P2pfaas-Deadline-Seconds";

/// What the learner's four headers say: EID, state, action, ε.
fn learnt(answer: &Answered) -> (u64, String, String, String) {
    let header = |name: &str| {
        let value = answer.header(&format!("x-p2pfaas-scheduler-learning-{name}"));
        assert!(!value.is_empty(), "{name}: {}", answer.text());
        value.to_owned()
    };
    (header("eid").parse().expect("an EID"), header("state"), header("action"), header("eps"))
}

/// A node that always chooses `action`, under `LearningScheduler 2`.
async fn node_choosing(
    action: usize,
    change: impl FnOnce(&mut p2pfaas::config::Settings),
) -> TestNode {
    let node = TestNode::start(change);
    choose(&node, action, json!({})).await;
    node
}

/// Makes `node` choose `action` always: the best in every state it will see.
async fn choose(node: &TestNode, action: usize, more: Value) {
    let mut parameters = json!({
        "actions_n": 8, "epsilon_start": 0.0, "epsilon_min": 0.0, "window_size": 2, "alpha": 0.0,
        // One centroid: one row for all states.
        "value_function": "kmeans", "clusters": 1,
    });
    parameters.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
    node.set_learner(parameters).await;
    get(&node.learner("/learner/reset")).await;
    let mut model = get(&node.learner("/learner/model")).await.json();
    let mut row = [0.0; 8];
    row[action] = 1.0;
    model["values"] = json!({"centroids": [[0.0, 0.0, 0.0, 0.0, 0.0]], "table": [row]});
    let taken = post(&node.learner("/learner/model"), model.to_string()).await;
    assert_eq!((taken.status, taken.text()), (200, String::new()));
    node.set_scheduler("LearningScheduler 2").await;
}

async fn call(node: &TestNode, path: &str, headers: &[(&str, &str)]) -> Answered {
    send("POST", &node.url(&format!("/function/{path}")), headers, "x").await
}

/// The stats once that many entries were taken.
async fn trained(node: &TestNode, entries: u64) -> Value {
    eventually("the entries are there", || async {
        let stats = node.learner_stats().await;
        let count = |key: &str| stats[key].as_u64().expect("a count");
        (count("trained_items") + count("pending_entries") >= entries).then_some(stats)
    })
    .await
}

#[actix_rt::test]
async fn a_rejection_looks_as_v1_s() {
    let node = node_choosing(0, |_| {}).await;
    let answer = call(&node, "fn-echo", &[(TYPE, "1")]).await;
    let recorded = golden("104-learning-1.txt");
    assert_eq!((answer.status, answer.code()), (503, 401));
    assert!(recorded.ends_with(&answer.text()), "{}", answer.text());
    assert_eq!(answer.header("x-p2pfaas-scheduler"), "LearningScheduler(2)");
    let (_, state, action, eps) = learnt(&answer);
    for text in [state, action] {
        assert!(recorded.contains(&text), "{text}");
    }
    assert_eq!(eps, "0.000000");
}

#[actix_rt::test]
async fn a_call_run_here_looks_as_v1_s_and_an_unreadable_type_counts_as_0() {
    let node = node_choosing(1, |_| {}).await;
    let answer = call(&node, "fn-echo", &[(TYPE, "zz")]).await;
    assert_eq!((answer.status, answer.text()), (200, "x".to_owned()));
    let recorded = golden("108-learning-5-badtype.txt").to_lowercase();
    for name in recorded.lines().filter_map(|line| Some(line.split_once(": ")?.0)) {
        if name.starts_with("x-p2pfaas") {
            assert!(!answer.header(name).is_empty(), "{name}");
        }
    }
    let (_, state, action, _) = learnt(&answer);
    for text in [state, action] {
        assert!(recorded.contains(&text), "{text}");
    }
}

#[actix_rt::test]
async fn eids_follow_one_another_and_never_repeat_across_restarts() {
    let mut node = node_choosing(1, |_| {}).await;
    let mut eids = Vec::new();
    for _ in 0..3 {
        eids.push(learnt(&call(&node, "fn-echo", &[]).await).0);
        // Neither these nor calls of peers take an EID.
        call(&node, "fn-echo", &[BYPASS]).await;
        let peer = send("POST", &node.url("/peer/function/fn-echo"), &[MACHINE], "{}").await;
        assert_eq!((peer.status, peer.header("x-p2pfaas-scheduler-learning-eid")), (200, ""));
    }
    assert_eq!(eids, [eids[0], eids[0] + 1, eids[0] + 2]);
    node.stop().await;
    node.start_again();
    assert!(learnt(&call(&node, "fn-echo", &[]).await).0 > eids[2]);
}

#[actix_rt::test]
async fn the_state_tells_running_and_waiting_calls_by_type() {
    let node = node_choosing(1, |settings| {
        settings.parallel_running_functions_max = 1;
        settings.queue_length_max = 5;
    })
    .await;
    let url = node.url("/function/fn-sleep?mean_ms=300");
    let start = |task_type: &'static str| {
        let url = url.clone();
        actix_rt::spawn(async move { send("POST", &url, &[(TYPE, task_type)], "x").await })
    };
    let holds = |running, waiting| {
        let state = node.state();
        eventually("the calls are there", move || async move {
            (state.gate.load() == p2pfaas::types::Load { running, waiting }).then_some(())
        })
    };
    let first = start("1");
    holds(1, 0).await;
    let second = start("0");
    holds(1, 1).await;
    let third = start("1");
    holds(1, 2).await;
    let fourth = call(&node, "fn-echo", &[(TYPE, "0")]).await;
    let states: Vec<String> = {
        let mut states = Vec::new();
        for call in [first, second, third] {
            states.push(learnt(&call.await.expect("joins")).1);
        }
        states.push(learnt(&fourth).1);
        states
    };
    let text = |digits: [u8; 5]| digits.map(|d| format!("{d}.000000")).join(",");
    assert_eq!(
        states,
        [
            text([1, 0, 0, 0, 0]),
            text([0, 0, 1, 0, 0]),
            text([1, 0, 1, 1, 0]),
            text([0, 0, 1, 1, 1]),
        ]
    );
}

#[actix_rt::test]
async fn errors_carry_the_four_headers_too() {
    let node = node_choosing(1, |settings| {
        settings.parallel_running_functions_max = 0;
        settings.queue_enabled = false;
        settings.fns_list = Vec::new();
    })
    .await;
    let full = call(&node, "fn-echo", &[]).await;
    assert_eq!((full.status, full.code()), (500, 400));
    learnt(&full);
    post(&node.url("/configuration"), r#"{"parallel_running_functions_max":4}"#).await;
    let unknown = call(&node, "no-such-function", &[]).await;
    assert_eq!((unknown.status, unknown.code()), (404, 3));
    learnt(&unknown);
}

#[actix_rt::test]
async fn a_chosen_machine_gets_the_call_and_one_that_is_gone_does_not() {
    let [one, two, three] = cluster::<3>(|_| {}).await;
    // The list is ordered by name.
    let mut peers = [&two, &three];
    peers.sort_by_key(|node| node.id());
    for (at, peer) in peers.iter().enumerate() {
        choose(&one, 3 + at, json!({})).await;
        let answer = call(&one, "fn-echo", &[]).await;
        assert_eq!(answer.names("x-p2pfaas-peers-list-id"), [one.id(), peer.id()]);
        assert_eq!(learnt(&answer).2, format!("{}.000000", 3 + at));
    }
    // Best of all would be a machine that is not there: it is not chosen.
    choose(&one, 5, json!({})).await;
    for _ in 0..20 {
        let answer = call(&one, "fn-echo", &[]).await;
        assert_ne!(learnt(&answer).2, "5.000000");
    }
}

#[actix_rt::test]
async fn a_probed_peer_gets_the_call_if_it_is_less_loaded() {
    let [one, two] = cluster::<2>(|settings| settings.parallel_running_functions_max = 1).await;
    choose(&one, 2, json!({})).await;
    let idle = call(&one, "fn-echo", &[]).await;
    assert_eq!((idle.header("x-p2pfaas-hops"), &*learnt(&idle).2), ("", "2.000000"));
    let url = one.url("/function/fn-sleep?mean_ms=400");
    let busy = actix_rt::spawn(async move { send("POST", &url, &[BYPASS], "x").await });
    eventually("it runs", || async { (one.state().gate.load().running == 1).then_some(()) }).await;
    let forwarded = call(&one, "fn-echo", &[]).await;
    assert_eq!(forwarded.names("x-p2pfaas-peers-list-id"), [one.id(), two.id()]);
    assert_eq!(busy.await.expect("joins").status, 200);
}

#[actix_rt::test]
async fn the_node_rewards_what_was_answered_2xx_within_the_deadline_of_its_type() {
    let node = TestNode::start(|_| {});
    let reward = json!({"reward": {"source": "node", "deadlines_s": [10.0, 0.05]}});
    choose(&node, 1, reward).await;
    let rewards =
        |stats: &Value| (stats["rewards"]["in_time"].clone(), stats["rewards"]["missed"].clone());
    assert_eq!(call(&node, "fn-echo", &[]).await.status, 200);
    trained(&node, 1).await;
    assert_eq!(call(&node, "fn-sleep?mean_ms=100", &[(TYPE, "1")]).await.status, 200, "too late");
    trained(&node, 2).await;
    assert_eq!(call(&node, "fn-sleep?mean_ms=x", &[]).await.status, 400, "not 2xx");
    trained(&node, 3).await;
    assert_eq!(call(&node, "no-such-function", &[]).await.status, 404);
    trained(&node, 4).await;
    // A deadline of its own goes before that of its type.
    let own = [(TYPE, "1"), (DEADLINE, "10")];
    assert_eq!(call(&node, "fn-sleep?mean_ms=100", &own).await.status, 200);
    let stats = trained(&node, 5).await;
    assert_eq!(rewards(&stats), (json!({"0": 1, "1": 1}), json!({"0": 2, "1": 1})));
    assert_eq!(stats["rewards"]["recent_share_in_time"], 0.4);
    assert_eq!((&stats["trained_items"], &stats["skipped"]), (&json!(5), &json!(0)));
    let wrong = call(&node, "fn-echo", &[(DEADLINE, "soon")]).await;
    assert_eq!((wrong.status, wrong.code()), (400, 4));
}

#[actix_rt::test]
async fn every_eid_yields_exactly_one_entry_whatever_becomes_of_its_call() {
    let node = TestNode::start(|settings| {
        settings.parallel_running_functions_max = 2;
        settings.queue_length_max = 2;
        settings.function_timeout_s = 0.05;
    });
    let reward = json!({"reward": {"source": "node", "deadlines_s": [10.0]}, "epsilon_start": 1.0,
        "epsilon_min": 1.0, "actions_n": 2, "value_function": "qtable"});
    // A window as long as the calls: whatever order they end in, nobody is overtaken by W others.
    let mut parameters = json!({"window_size": 60});
    parameters.as_object_mut().expect("one").extend(reward.as_object().expect("one").clone());
    node.set_learner(parameters).await;
    get(&node.learner("/learner/reset")).await;
    node.set_scheduler("LearningScheduler 1").await;
    let mut calls = Vec::new();
    for n in 0..60 {
        // Echoes, calls that time out, functions that are not there; some are hung up on.
        let path = ["fn-echo", "fn-sleep?mean_ms=60000", "no-such-function"][n % 3];
        let url = node.url(&format!("/function/{path}"));
        calls.push(actix_rt::spawn(async move {
            let sent = send("POST", &url, &[], "x");
            if n % 5 == 1 {
                let patience = std::time::Duration::from_millis(10);
                return tokio::time::timeout(patience, sent).await.is_ok();
            }
            sent.await.status != 0
        }));
    }
    for call in calls {
        call.await.expect("joins");
    }
    let stats = eventually("every decision has its entry", || async {
        let stats = node.learner_stats().await;
        let of = |key: &str| stats[key].as_u64().expect("a count");
        let done = of("trained_items") + of("pending_entries") == of("inferences");
        (done && node.state().gate.load().total() == 0).then_some(stats)
    })
    .await;
    let count = |key: &str| stats[key].as_u64().expect("a count");
    assert!(count("inferences") >= 55, "{stats}");
    assert_eq!([count("late"), count("duplicate"), count("skipped")], [0, 0, 0], "{stats}");
}

#[actix_rt::test]
async fn a_node_that_rewards_itself_takes_no_entries_with_numbers_it_never_gave() {
    let node = node_choosing(1, |_| {}).await;
    let entry = |eid: u64| {
        json!([{"eid": eid, "state": "0,0,0,0,0", "action": 1, "reward": 1}]).to_string()
    };
    let train = node.learner("/train_batch");
    let before = learnt(&call(&node, "fn-echo", &[]).await).0;
    assert_eq!(post(&train, entry(before + 1000)).await.status, 200, "clients number themselves");
    node.set_learner(json!({"reward": {"source": "node", "deadlines_s": [1.0]}})).await;
    let refused = post(&train, entry(before + 2000)).await;
    assert_eq!((refused.status, refused.code()), (400, 4));
    assert_eq!(post(&train, entry(before)).await.status, 200, "its client still trains on it");
    let rewarded = learnt(&call(&node, "fn-echo", &[]).await).0;
    let refused = post(&train, entry(rewarded)).await;
    assert_eq!((refused.status, refused.code()), (400, 4), "{}", refused.text());
    assert!(refused.text().contains("reward.source"), "{}", refused.text());
    // Calls of that time may be under way still.
    node.set_learner(json!({"reward": {"source": "client"}})).await;
    assert_eq!(post(&train, entry(rewarded)).await.status, 400);
    let after = learnt(&call(&node, "fn-echo", &[]).await).0;
    assert_eq!(post(&train, entry(after)).await.status, 200);
}

#[actix_rt::test]
async fn a_state_that_the_learner_cannot_tell_means_run_here() {
    // One centroid of five features; now the state has one.
    let node = node_choosing(0, |_| {}).await;
    node.set_scheduler("LearningScheduler 0").await;
    let answer = call(&node, "fn-echo", &[]).await;
    assert_eq!((answer.status, answer.header(FALLBACK)), (200, "True"));
    assert_eq!((learnt(&answer).0, &*learnt(&answer).2), (0, "1.000000"), "no decision, no number");
}

#[actix_rt::test]
async fn what_is_left_of_a_deadline_travels_with_a_forwarded_call() {
    let ip = fresh_ip();
    let peer = RawServer::start(ip, 18080, |request| match request.path() {
        "/monitoring/load" => raw::answer("200 OK", "X-P2PFaaS-Load: 0\r\n", b""),
        _ => raw::ok(
            r#"{"peers_list":[{"machine_id":"p","machine_ip":"10.0.0.1"}],"body":"","status_code":200}"#,
        ),
    });
    let node = TestNode::start(|settings| settings.init_servers = vec![ip.to_string()]);
    let discovery = RawServer::start(ip, 19000, |_| raw::ok("[]"));
    eventually("the peer is listed", || async {
        node.listed().await.contains(&ip.to_string()).then_some(())
    })
    .await;
    let answer = call(&node, "fn-echo", &[FORWARD, (DEADLINE, "5"), (TYPE, "1")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = peer.requests();
    let forwarded = requests.iter().find(|r| r.path().starts_with("/peer")).expect("forwarded");
    let left: f64 = forwarded.header("x-p2pfaas-deadline-seconds").parse().expect("seconds");
    assert!(left < 5.0 && left > 3.0, "{left}");
    drop(discovery);
}

#[actix_rt::test]
async fn a_node_learns_to_run_what_it_answers_in_time() {
    let node = TestNode::start(|settings| settings.parallel_running_functions_max = 100);
    node.set_learner(json!({
        "reward": {"source": "node", "deadlines_s": [5.0]}, "alpha": 0.3, "beta": 0.01,
        "epsilon_decay": 0.98, "epsilon_min": 0.05,
    }))
    .await;
    node.set_scheduler("LearningScheduler 0").await;
    for _ in 0..400 {
        call(&node, "fn-echo", &[]).await;
    }
    let stats = trained(&node, 400).await;
    assert_eq!(stats["epsilon"].as_f64().map(|e| e < 0.06), Some(true), "{stats}");
    let share = stats["rewards"]["recent_share_in_time"].as_f64().expect("a share");
    assert!(share > 0.7, "it learnt to run them: {stats}");
    assert!(stats["decisions"]["1"].as_u64() > stats["decisions"]["0"].as_u64(), "{stats}");
}

/// A node that asks another learner.
fn asking(ip: std::net::Ipv4Addr, change: impl FnOnce(&mut p2pfaas::config::Settings)) -> TestNode {
    TestNode::start(|settings| {
        settings.service_learning_host = ip.to_string();
        // As v1's configuration says it.
        settings.service_learning_port = 19020;
        settings.scheduler = "LearningScheduler 2".to_owned();
        settings.learner_timeout_ms = 2000;
        change(settings);
    })
}

const FALLBACK: &str = "x-p2pfaas-scheduler-learning-fallback";

#[actix_rt::test]
async fn another_learner_is_asked_over_twenty_sockets() {
    let ip = fresh_ip();
    let learner = Learner::start(SocketAddr::new(ip.into(), 8765), |_| {
        Reply::Text("0.00000,0.89100".to_owned())
    });
    let node = asking(ip, |_| {});
    let answer = call(&node, "fn-echo", &[(TYPE, "1")]).await;
    assert_eq!((answer.status, answer.code()), (503, 401));
    let (eid, state, action, eps) = learnt(&answer);
    assert_eq!((&*action, &*eps), ("0.000000", "0.891000"));
    assert_eq!(answer.header(FALLBACK), "");
    assert_eq!(learner.asked(), [format!("[{state}]")]);
    assert_eq!(learnt(&call(&node, "fn-echo", &[]).await).0, eid + 1);
    eventually("all sockets are open", || async { (learner.open() == 20).then_some(()) }).await;
    // Our own is not served meanwhile.
    assert!(try_send("GET", &node.learner("/"), &[], "").await.is_err());
}

#[actix_rt::test]
async fn without_a_decision_in_time_a_call_runs_here_and_says_so() {
    let ip = fresh_ip();
    let learner = Learner::start(SocketAddr::new(ip.into(), 8765), |_| Reply::Hang);
    let node = asking(ip, |settings| settings.learner_timeout_ms = 50);
    let answer = call(&node, "fn-echo", &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "x".to_owned()));
    assert_eq!((answer.header(FALLBACK), &*learnt(&answer).2), ("True", "1.000000"));
    drop(learner);
    // Nobody there at all.
    let answer = call(&node, "fn-echo", &[]).await;
    assert_eq!((answer.status, answer.header(FALLBACK)), (200, "True"));
    learnt(&answer);
    let metrics = get(&node.url("/metrics")).await.text();
    assert!(metrics.contains("p2pfaas_learner_fallbacks_total 2"), "{metrics}");
}

#[actix_rt::test]
async fn sockets_that_end_are_opened_again_and_their_questions_asked_again() {
    let ip = fresh_ip();
    let address = SocketAddr::new(ip.into(), 8765);
    let first = std::sync::Arc::new(AtomicBool::new(true));
    let once = first.clone();
    let learner = Learner::start(address, move |_| match once.swap(false, Ordering::SeqCst) {
        true => Reply::Close,
        false => Reply::Text("0.00000,0.10000".to_owned()),
    });
    let node = asking(ip, |settings| settings.learner_pool_size = 2);
    let answer = call(&node, "fn-echo", &[]).await;
    assert_eq!((answer.status, answer.header(FALLBACK)), (503, ""), "asked again on another");
    drop(learner);
    let fallen = eventually("the sockets are known to be gone", || async {
        let answer = call(&node, "fn-echo", &[]).await;
        (answer.header(FALLBACK) == "True").then_some(answer)
    })
    .await;
    assert_eq!(fallen.status, 200);
    let again = Learner::start(address, |_| Reply::Text("0.00000,0.10000".to_owned()));
    eventually("they are opened again", || async {
        (call(&node, "fn-echo", &[]).await.header(FALLBACK).is_empty()).then_some(())
    })
    .await;
    assert!(again.accepted() >= 1);
}

#[actix_rt::test]
async fn an_answer_that_makes_no_sense_is_no_decision() {
    let ip = fresh_ip();
    let nonsense =
        Learner::start(SocketAddr::new(ip.into(), 8765), |_| Reply::Text("maybe".to_owned()));
    let node = asking(ip, |_| {});
    let answer = call(&node, "fn-echo", &[]).await;
    assert_eq!((answer.status, answer.header(FALLBACK)), (200, "True"));
    drop(nonsense);
    // A machine that is not there is none either: the call runs here, as decided.
    let far = fresh_ip();
    let _learner = Learner::start(SocketAddr::new(far.into(), 8765), |_| {
        Reply::Text("9.00000,0.1".to_owned())
    });
    let node = asking(far, |_| {});
    let answer = call(&node, "fn-echo", &[]).await;
    assert_eq!(
        (answer.status, &*learnt(&answer).2, answer.header(FALLBACK)),
        (200, "9.000000", "")
    );
}

#[actix_rt::test]
async fn training_clients_that_are_slow_crowd_out_neither_others_nor_calls() {
    use std::io::Write;
    let node = node_choosing(1, |settings| {
        settings.learner_bodies_bytes_max = 1 << 20;
        settings.bodies_bytes_max = 1 << 20;
    })
    .await;
    let slow = "POST /train_batch HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n[";
    let mut socket = std::net::TcpStream::connect((node.ip, 19020)).expect("it listens");
    socket.write_all(slow.as_bytes()).expect("sent");
    let many = vec![json!({"eid": 1, "state": "0,0,0,0,0", "action": 1, "reward": 1}); 2000];
    // Who announces much and sends nothing makes room for those who do.
    let trained = post(&node.learner("/train_batch"), Value::from(many).to_string()).await;
    assert_eq!(trained.status, 200, "{}", trained.text());
    assert_eq!(call(&node, "fn-echo", &[]).await.status, 200);
    drop(socket);
}

#[actix_rt::test]
async fn a_kill_loses_no_saved_model_and_no_eid_is_given_again() {
    let (ip, folder) = (fresh_ip(), tempfile::tempdir().expect("a folder"));
    let toml = folder.path().join("node.toml");
    std::fs::write(&toml, "learner_save_time_s = 0.05").expect("written");
    let config = toml.display().to_string();
    let flags = ["--config", &config, "--scheduler", "LearningScheduler 0"];
    let url = |port: u16, path: &str| format!("http://{ip}:{port}{path}");
    let parameters = json!({"window_size": 2, "reward": {"source": "node", "deadlines_s": [9]}});

    let mut node = Process::node(ip, folder.path(), &flags);
    let posted = post(&url(19020, "/learner/parameters"), parameters.to_string()).await;
    assert_eq!(posted.status, 200);
    let mut last = 0;
    for _ in 0..20 {
        last = learnt(&post(&url(18080, "/function/fn-echo"), "x").await).0;
    }
    let saved = folder.path().join(ip.to_string());
    eventually("all of it is saved", || async {
        last_saved(&saved).filter(|model| model["counters"]["trained_items"] == 20)
    })
    .await;
    let weights = get(&url(19020, "/learner/weights")).await.json();
    node.kill();

    let _again = Process::node(ip, folder.path(), &flags);
    assert_eq!(get(&url(19020, "/learner/weights")).await.json(), weights);
    assert_eq!(get(&url(19020, "/learner/stats")).await.json()["trained_items"], 20);
    assert!(learnt(&post(&url(18080, "/function/fn-echo"), "x").await).0 > last);
}
