//! Algorithms with a memory on real nodes: bids in the answers to probes, notes between nodes, what portfolios
//! say to each other in records, and what all of them tell of what they have learnt.

mod common;

use std::cell::Cell;

use common::{TestNode, cluster, eventually, get, post, send};
use p2pfaas::config::Settings;
use serde_json::Value;

fn with(scheduler: &'static str) -> impl Fn(&mut Settings) {
    move |settings| settings.scheduler = scheduler.to_owned()
}

async fn memory(node: &TestNode) -> Value {
    node.learner_stats().await["scheduler"]["memory"].clone()
}

#[actix_rt::test]
async fn a_node_that_is_probed_tells_its_load_by_type_and_bids_for_the_call() {
    let node = TestNode::start(with("DeadlineScheduler 2 1"));
    let url = node.url("/monitoring/load");
    let told = get(&url).await;
    assert_eq!((told.status, told.header("p2pfaas-load-by-type")), (200, ""), "no type came yet");
    assert_eq!(told.header("x-p2pfaas-maxload"), "4");
    let typed = [("x-p2pfaas-scheduler-learning-task-type", "1")];
    let answered = send("POST", &node.url("/function/fn-echo"), &typed, "hi").await;
    assert_eq!((answered.status, answered.text().as_str()), (200, "hi"));
    let about = [
        ("p2pfaas-bid", "DeadlineScheduler"),
        ("p2pfaas-task-type", "0"),
        ("p2pfaas-deadline-seconds", "0.5"),
    ];
    let told = send("GET", &url, &about, "").await;
    assert_eq!(told.header("p2pfaas-load-by-type"), "0/0,0/0");
    let bid: f64 = told.header("p2pfaas-bid").parse().expect("a number");
    assert!((0.0..=0.5).contains(&bid), "an empty board has all of the time to spare: {bid}");
    let others = [("p2pfaas-bid", "PrequalScheduler")];
    let told = send("GET", &url, &others, "").await;
    assert_eq!(told.header("p2pfaas-bid"), "", "what that means is another thing");
    assert_eq!(get(&url).await.header("p2pfaas-load-by-type"), "", "nobody asks for it");
    node.set_scheduler("NoScheduler true").await;
    assert_eq!(send("GET", &url, &about, "").await.header("p2pfaas-bid"), "");
}

#[actix_rt::test]
async fn a_deadline_that_nobody_can_meet_is_rejected_and_none_is_not() {
    let node = TestNode::start(with("DeadlineScheduler 2 1"));
    let url = node.url("/function/fn-sleep?mean_ms=30");
    // What it takes is found out first.
    for _ in 0..4 {
        assert_eq!(post(&url, "").await.status, 200);
    }
    let hopeless = [("x-p2pfaas-deadline-seconds", "0.001")];
    let answers = [(); 3].map(|()| send("POST", &url, &hopeless, ""));
    let rejected = futures_util::future::join_all(answers).await;
    // One in some runs all the same, on an empty board: times change.
    assert!(rejected.iter().any(|answer| (answer.status, answer.code()) == (503, 401)));
    let seconds = memory(&node).await["seconds_by_type"][0].as_f64().expect("a number");
    assert!(seconds >= 0.03, "{seconds}");
    assert_eq!(post(&url, "").await.status, 200);
}

#[actix_rt::test]
async fn a_node_that_becomes_idle_enlists_at_a_peer_which_hands_it_a_call() {
    let [busy, idle] = cluster(with("JoinIdleQueueScheduler 1")).await;
    // By chance alone half of the calls would go there, and hardly ever ten in a row. Nodes are asked once a second
    // whether they want to know that they are idle.
    let in_a_row = Cell::new(0);
    eventually("calls go from the busy one to the idle one", || async {
        let slow = busy.url("/function/fn-sleep?mean_ms=100");
        let slow = actix_rt::spawn(async move { post(&slow, "").await.status });
        assert_eq!(post(&idle.url("/function/fn-echo"), "x").await.status, 200);
        eventually("the slow call runs", || async {
            let load = get(&busy.url("/monitoring/load")).await;
            (load.header("x-p2pfaas-load") == "1").then_some(())
        })
        .await;
        let passed = post(&busy.url("/function/fn-echo"), "x").await;
        assert_eq!(slow.await.ok(), Some(200));
        let external = passed.header("x-p2pfaas-externally-executed").eq_ignore_ascii_case("true");
        in_a_row.set(if external { in_a_row.get() + 1 } else { 0 });
        (in_a_row.get() == 10).then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn notes_are_heard_of_neighbours_alone_and_bad_ones_are_400() {
    let node = TestNode::start(with("JoinIdleQueueScheduler 1"));
    let note = async |name: &str, path: &str, text: &str| {
        let headers = [("p2pfaas-path", path), ("p2pfaas-note", text)];
        let url = node.url(&format!("/peer/2/note/{name}"));
        send("POST", &url, &headers, "").await.status
    };
    assert_eq!(note("JoinIdleQueueScheduler", "n@10.0.0.9", "00ff").await, 204);
    assert_eq!(note("NoSuchScheduler", "n@10.0.0.9", "00ff").await, 204);
    let long = "00".repeat(65);
    for (path, text) in [("n@10.0.0.9", ""), ("n@10.0.0.9", "0"), ("n@10.0.0.9", "zz"), ("n", "00")]
        .into_iter()
        .chain([("n@10.0.0.9", &*long)])
    {
        assert_eq!(note("JoinIdleQueueScheduler", path, text).await, 400, "{path} {text}");
    }
    assert_eq!(get(&node.url("/peer/2/note/JoinIdleQueueScheduler")).await.status, 405);
}

#[actix_rt::test]
async fn portfolios_hear_each_other_and_count_in_the_same_epochs() {
    let nodes: [TestNode; 3] =
        cluster(with("PortfolioScheduler 3s NoScheduler true|PowerOfNScheduler 2 1 true 1")).await;
    eventually("each has heard both others, and counts the first one's calls", || async {
        // Those of its first epochs are not counted.
        assert_eq!(post(&nodes[0].url("/function/fn-echo"), "x").await.status, 200);
        let mut heard = Vec::new();
        for node in &nodes {
            let memory = memory(node).await;
            let arms = memory["arms"].as_array()?;
            let sum = |of: &str| arms.iter().filter_map(|arm| arm[of].as_f64()).sum::<f64>();
            let is_first = node.ip == nodes[0].ip;
            assert!(is_first || sum("own_calls") == 0.0, "{memory}");
            heard.push(memory["neighbours_heard"] == 2 && sum("calls") > 0.5);
        }
        heard.into_iter().all(|heard| heard).then_some(())
    })
    .await;
    let text = get(&nodes[0].url("/metrics")).await.text();
    for line in [
        r#"p2pfaas_scheduler_memory{of="",what="epoch"}"#,
        r#"p2pfaas_scheduler_memory{of="NoScheduler true",what="in_force"}"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
