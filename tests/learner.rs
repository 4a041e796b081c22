//! The learner's wire contract, row by row: HTTP, WebSocket, files, restarts.

mod common;

use common::websocket::{self, Client};
use common::*;
use serde_json::{Value, json};

/// Consecutive entries in one state, from `first` on.
fn batch(first: u64, n: u64) -> String {
    let entry = |eid| json!({"eid": eid, "state": "0.0,1.0", "action": "1.0", "reward": 1.0});
    Value::from((first..first + n).map(entry).collect::<Vec<_>>()).to_string()
}

async fn train(node: &TestNode, first: u64, n: u64) {
    let answer = post(&node.learner("/train_batch"), batch(first, n)).await;
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
}

/// A node that answers already: the clients by the byte block the thread that starts it.
async fn serving() -> TestNode {
    let node = TestNode::start(|_| {});
    node.learner_stats().await;
    node
}

async fn reset(node: &TestNode) {
    let answer = get(&node.learner("/learner/reset")).await;
    assert_eq!((answer.status, answer.text()), (200, String::new()));
}

#[actix_rt::test]
async fn what_v1_answered_to_this_batch_we_answer_in_its_mode() {
    let node = TestNode::start(|_| {});
    // The parameters that the recording was made under, read off its weights.
    node.set_learner(json!({
        "actions_n": 3, "alpha": 0.1, "beta": 0.1, "window_size": 3, "epsilon_start": 0.0,
        "compatibility": "v1",
    }))
    .await;
    reset(&node).await;
    let text = recording("159-learn-trainbatch-5.txt");
    let sent = text.lines().next().expect("a command").replace('\\', "");
    let body = &sent[sent.find('[').expect("a list")..=sent.rfind(']').expect("its end")];
    let answered = post(&node.learner("/train_batch"), body.to_owned()).await;
    assert_eq!((answered.status, answered.text()), (200, "ok".to_owned()));
    let stats = node.learner_stats().await;
    for (key, value) in golden_json("160-learn-stats-after-5.txt").as_object().expect("stats") {
        assert_eq!(&stats[key], value, "{key}");
    }
    let weights = get(&node.learner("/learner/weights")).await.json();
    assert_eq!(weights, golden_json("161-learn-weights-after-5.txt"));
    let state = [("X-P2pfaas-Learning-State", "0.0,1.0")];
    let acted = send("GET", &node.learner("/act"), &state, "").await;
    assert!(golden("165-learn-act-after.txt").ends_with("\n1"));
    assert_eq!(
        (acted.status, acted.text(), acted.header("x-p2pfaas-eps")),
        (200, "1".into(), "0.0")
    );
}

#[actix_rt::test]
async fn act_answers_the_action_and_the_epsilon_before_it_falls() {
    let node = TestNode::start(|_| {});
    let state = [("X-P2pfaas-Learning-State", "1.0,0.0,2.0")];
    let act = || async { send("GET", &node.learner("/act"), &state, "").await };
    assert!(golden("139-learn-act.txt").contains("X-P2pfaas-Eps: 0.9"));
    let first = act().await;
    assert_eq!((first.status, first.header("x-p2pfaas-eps")), (200, "0.9"));
    assert!(["0", "1"].contains(&&*first.text()), "{}", first.text());
    assert_eq!(act().await.header("x-p2pfaas-eps"), "0.891");
    assert_eq!(node.learner_stats().await["inferences"], 2);
}

#[actix_rt::test]
async fn train_takes_one_entry_by_headers() {
    let node = TestNode::start(|_| {});
    node.set_learner(json!({"window_size": 2})).await;
    for eid in ["1", "2"] {
        let headers = [
            ("X-P2pfaas-Learning-Eid", eid),
            ("X-P2pfaas-Learning-State", "1.0,0.0"),
            ("X-P2pfaas-Learning-Action", "1.0"),
            ("X-P2pfaas-Learning-Reward", "1.0"),
        ];
        let answered = send("GET", &node.learner("/train"), &headers, "").await;
        assert_eq!((answered.status, answered.text()), (200, "ok".to_owned()));
        assert!(golden("143-learn-train.txt").ends_with("\nok"));
    }
    assert_eq!(node.learner_stats().await["trained_items"], 2);
}

#[actix_rt::test]
async fn malformed_input_is_400_with_the_error_json_and_teaches_nothing() {
    let node = TestNode::start(|_| {});
    node.set_learner(json!({"window_size": 2})).await;
    let good = r#"{"eid":1,"state":"1","action":0,"reward":1},{"eid":2,"state":"1","action":0,"reward":1}"#;
    for bad in [
        "".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "[7]".to_owned(),
        format!("[{good},{{\"eid\":3}}]"),
        format!(r#"[{good},{{"eid":3,"state":"x","action":0,"reward":1}}]"#),
        format!(r#"[{good},{{"eid":3,"state":"1","action":9,"reward":1}}]"#),
        format!(r#"[{good},{{"eid":3,"state":"1","action":0.5,"reward":1}}]"#),
        format!(r#"[{good},{{"eid":3,"state":"1","action":0,"reward":"inf"}}]"#),
        format!(r#"[{good},{{"eid":3,"state":"NaN","action":0,"reward":1}}]"#),
    ] {
        let answered = post(&node.learner("/train_batch"), bad.clone()).await;
        assert_eq!((answered.status, answered.code()), (400, 4), "{bad}");
    }
    for headers in [vec![], vec![("X-P2pfaas-Learning-State", "a,b")]] {
        let answered = send("GET", &node.learner("/act"), &headers, "").await;
        assert_eq!((answered.status, answered.code()), (400, 4));
        let answered = send("GET", &node.learner("/train"), &headers, "").await;
        assert_eq!((answered.status, answered.code()), (400, 4));
    }
    let stats = node.learner_stats().await;
    assert_eq!((&stats["pending_entries"], &stats["inferences"]), (&json!(0), &json!(0)));
    assert_eq!(get(&node.learner("/nowhere")).await.code(), 3);
    assert_eq!(post(&node.learner("/act"), "").await.status, 405);
    assert!(get(&node.learner("/")).await.text().contains(p2pfaas::VERSION));
}

#[actix_rt::test]
async fn parameters_are_merged_saved_and_shown_as_posted_and_as_running() {
    let mut node = TestNode::start(|_| {});
    let url = node.learner("/learner/parameters");
    let shown = get(&url).await.json();
    let recorded = golden_json("146-learn-params-get.txt");
    assert_eq!(shown["name"], recorded["name"]);
    for (key, value) in recorded["parameters"].as_object().expect("parameters") {
        // The recording was made with other actions.
        let value = if key == "actions_n" { &json!(2) } else { value };
        assert_eq!(&shown["parameters"][key], value, "{key}");
        assert_eq!(&shown["running"][key], value, "{key}");
    }
    node.set_learner(json!({"alpha": 0.5, "actions_n": 7, "unknown": [1]})).await;
    for bad in ["", "[]", "{", r#"{"alpha":"x","beta":0.5}"#, r#"{"window_size":1}"#] {
        let answered = post(&url, bad).await;
        assert_eq!((answered.status, answered.code()), (400, 4), "{bad}");
    }
    let wrong = post(&url, r#"{"alpha":7,"beta":0.5}"#).await.json();
    assert!(wrong["message"].as_str().expect("text").contains("alpha"), "{wrong}");
    let both = |shown: &Value, key: &str| {
        (shown["parameters"][key].clone(), shown["running"][key].clone())
    };
    let shown = get(&url).await.json();
    assert_eq!(both(&shown, "alpha"), (json!(0.5), json!(0.5)));
    assert_eq!(both(&shown, "actions_n"), (json!(7), json!(2)), "from the next reset on");
    assert_eq!(both(&shown, "beta"), (json!(0.01), json!(0.01)), "nothing was changed");
    let file: Value =
        serde_json::from_slice(&std::fs::read(node.file("p2pfaas_learner.json")).expect("saved"))
            .expect("JSON");
    assert_eq!(
        (&file["learner_name"], &file["learner_parameters"]["alpha"]),
        (&json!("SarsaQTable"), &json!(0.5))
    );
    reset(&node).await;
    assert_eq!(both(&get(&url).await.json(), "actions_n"), (json!(7), json!(7)));
    node.stop().await;
    node.start_again();
    assert_eq!(both(&get(&url).await.json(), "actions_n"), (json!(7), json!(7)));
}

#[actix_rt::test]
async fn stats_keep_v1_s_keys_and_a_reset_forgets_everything() {
    let node = TestNode::start(|_| {});
    node.set_learner(json!({"window_size": 2})).await;
    train(&node, 1, 3).await;
    train(&node, 2, 1).await;
    train(&node, 9, 1).await;
    train(&node, 9, 1).await;
    let stats = node.learner_stats().await;
    for (key, value) in [
        ("inferences", json!(0)),
        ("trained_items", json!(3)),
        ("epsilon", json!(0.9)),
        ("episodes", json!(2)),
        ("pending_entries", json!(1)),
        ("eid_max_seen", json!(9)),
        ("eid_last_trained", json!(3)),
        ("late", json!(1)),
        ("duplicate", json!(1)),
        ("skipped", json!(0)),
        ("states_seen", json!(1)),
    ] {
        assert_eq!(stats[key], value, "{key}");
    }
    let metrics = get(&node.url("/metrics")).await.text();
    for line in [
        "p2pfaas_learner_epsilon 0.9",
        r#"p2pfaas_learner_count{what="windows_trained"} 2"#,
        r#"p2pfaas_learner_count{what="entries_held"} 1"#,
        r#"p2pfaas_learner_count{what="late"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    reset(&node).await;
    let stats = node.learner_stats().await;
    assert_eq!((&stats["trained_items"], &stats["states_seen"]), (&json!(0), &json!(0)));
    let weights = get(&node.learner("/learner/weights")).await.json();
    assert_eq!(weights, json!({"actions_map": {"0": 0, "1": 1}, "states_map": {}, "table": []}));
}

#[actix_rt::test]
async fn what_was_learnt_survives_a_stop_and_what_was_learnt_from_is_late() {
    let mut node = TestNode::start(|_| {});
    node.set_learner(json!({"window_size": 2})).await;
    train(&node, 1, 5).await;
    let weights = get(&node.learner("/learner/weights")).await.json();
    node.stop().await;
    node.start_again();
    assert_eq!(get(&node.learner("/learner/weights")).await.json(), weights);
    assert_eq!(node.learner_stats().await["trained_items"], 5);
    train(&node, 5, 1).await;
    assert_eq!(node.learner_stats().await["late"], 1);
    train(&node, 6, 2).await;
    assert_eq!(node.learner_stats().await["trained_items"], 7);
}

#[actix_rt::test]
async fn the_model_is_saved_when_it_changed_and_not_before_its_time() {
    let node = TestNode::start(|settings| settings.learner_save_time_s = 0.05);
    node.set_learner(json!({"window_size": 2})).await;
    train(&node, 1, 5).await;
    let saved = eventually("the model is saved", || async {
        last_saved(node.folder.path()).filter(|model| model["counters"]["trained_items"] == 5)
    })
    .await;
    assert_eq!(saved["expected_eid"], 6);
}

#[actix_rt::test]
async fn what_changes_is_saved_beside_the_model_and_at_the_stop_the_model_has_all_of_it() {
    let mut node = TestNode::start(|settings| settings.learner_save_time_s = 0.05);
    node.set_learner(json!({"window_size": 2})).await;
    let folder = node.folder.path().to_owned();
    let saved = |n: u64| {
        let folder = folder.clone();
        eventually("it is saved", move || {
            let saved = last_saved(&folder);
            async move { saved.filter(|model| model["counters"]["trained_items"] == n) }
        })
    };
    let (model, journal) =
        (node.file("p2pfaas_learner-model.json"), node.file("p2pfaas_learner-model.journal"));
    train(&node, 1, 5).await;
    saved(5).await;
    let whole = std::fs::read(&model).expect("saved");
    train(&node, 6, 3).await;
    saved(8).await;
    assert_eq!(std::fs::read(&model).expect("still there"), whole, "it is not written again");
    assert!(journal.exists());
    let weights = get(&node.learner("/learner/weights")).await.json();
    node.stop().await;
    assert!(!journal.exists());
    let stopped: Value =
        serde_json::from_slice(&std::fs::read(&model).expect("saved")).expect("JSON");
    assert_eq!(stopped["counters"]["trained_items"], 8);
    node.start_again();
    assert_eq!(get(&node.learner("/learner/weights")).await.json(), weights);
}

#[actix_rt::test]
async fn a_model_that_does_not_fit_is_set_aside_at_the_start() {
    let mut node = TestNode::start(|_| {});
    node.set_learner(json!({"window_size": 2})).await;
    train(&node, 1, 5).await;
    // Acts from the next reset on, or the next start: then the model no longer fits.
    node.set_learner(json!({"actions_n": 3})).await;
    node.stop().await;
    let saved = std::fs::read(node.file("p2pfaas_learner-model.json")).expect("saved");
    node.start_again();
    assert_eq!(node.learner_stats().await["trained_items"], 0);
    let aside = std::fs::read(node.file("p2pfaas_learner-model.unfit-1.json")).expect("kept");
    assert_eq!(aside, saved);
}

#[actix_rt::test]
async fn what_one_node_learnt_can_start_another() {
    let [teacher, pupil] = [TestNode::start(|_| {}), TestNode::start(|_| {})];
    teacher.set_learner(json!({"window_size": 2})).await;
    train(&teacher, 1, 5).await;
    let model = get(&teacher.learner("/learner/model")).await;
    assert_eq!(model.status, 200);
    let taken = post(&pupil.learner("/learner/model"), model.body.clone()).await;
    assert_eq!((taken.status, taken.text()), (200, String::new()));
    let weights = |node: &TestNode| node.learner("/learner/weights");
    assert_eq!(get(&weights(&pupil)).await.json(), get(&weights(&teacher)).await.json());
    for bad in ["", "{}", r#"{"format":1}"#, "[1]"] {
        let refused = post(&pupil.learner("/learner/model"), bad).await;
        assert_eq!((refused.status, refused.code()), (400, 4), "{bad}");
    }
    let other = TestNode::start(|_| {});
    other.set_learner(json!({"actions_n": 5})).await;
    reset(&other).await;
    let refused = post(&other.learner("/learner/model"), model.body).await;
    assert!(refused.text().contains("actions_n"), "{}", refused.text());
}

#[actix_rt::test]
async fn nobody_else_changes_or_trains_a_learner_that_is_closed_but_anybody_may_ask() {
    let node = TestNode::start(|settings| settings.admin = p2pfaas::config::Admin::Off);
    assert_eq!(post(&node.learner("/learner/parameters"), "{}").await.status, 403);
    assert_eq!(post(&node.learner("/learner/model"), "{}").await.status, 403);
    assert_eq!(get(&node.learner("/learner/reset")).await.status, 403);
    let refused = post(&node.learner("/train_batch"), batch(1, 1)).await;
    assert_eq!((refused.status, refused.code()), (403, 1), "{}", refused.text());
    assert_eq!(get(&node.learner("/train")).await.status, 403);
    let stats = node.learner_stats().await;
    assert_eq!(stats["pending_entries"], 0);
    let state = [("X-P2pfaas-Learning-State", "1")];
    assert_eq!(send("GET", &node.learner("/act"), &state, "").await.status, 200);
}

#[actix_rt::test]
async fn eids_far_ahead_and_rewards_beyond_all_others_are_refused_with_their_batch() {
    let mut node = TestNode::start(|_| {});
    node.set_learner(json!({"window_size": 2})).await;
    let url = node.learner("/train_batch");
    let with = |eid: u64, reward: f64| {
        let far = json!({"eid": eid, "state": "0", "action": 0, "reward": reward});
        let near = json!({"eid": 1, "state": "0", "action": 0, "reward": 1});
        json!([near, far]).to_string()
    };
    for (body, named) in [
        (with(9_000_000_000_000_000, 1.0), ["9000000000000000", "1000001", "eids_ahead_max"]),
        (with(2, -100_001.0), ["-100001", "100000", "reward_abs_max"]),
    ] {
        let refused = post(&url, body).await;
        assert_eq!((refused.status, refused.code()), (400, 4));
        named.iter().for_each(|part| assert!(refused.text().contains(part), "{}", refused.text()));
    }
    assert_eq!(node.learner_stats().await["pending_entries"], 0, "nor is the rest taken");
    train(&node, 900_000, 3).await;
    // Who counts by one goes on so, whatever was reset, and also where the node was restarted.
    reset(&node).await;
    train(&node, 1_500_000, 3).await;
    node.stop().await;
    node.start_again();
    train(&node, 2_400_000, 2).await;
    assert_eq!(post(&node.learner("/train_batch"), with(3_900_000, 1.0)).await.status, 400);
    node.set_learner(json!({"eids_ahead_max": 1u64 << 62, "reward_abs_max": 1e12})).await;
    assert_eq!(post(&node.learner("/train_batch"), with(1 << 62, 1e12)).await.status, 200);
}

#[actix_rt::test]
async fn a_model_that_would_become_much_memory_is_refused_with_a_short_message() {
    let node = TestNode::start(|settings| settings.learner_memory_bytes_max = 8 << 20);
    let model = get(&node.learner("/learner/model")).await.json();
    let with = |key: &str, value: String| {
        let mut model = model.clone();
        model[key] = json!("HERE");
        model.to_string().replace("\"HERE\"", &value)
    };
    let many = |one: &str, n: usize| vec![one; n].join(",");
    let table = |states: String, table: String| {
        with("values", format!(r#"{{"states":[{states}],"table":[{table}]}}"#))
    };
    let good = table("[1]".to_owned(), "[0,1e100]".to_owned());
    assert_eq!(post(&node.learner("/learner/model"), good).await.status, 200);
    for bad in [
        with("shape", format!(r#"{{"a":[{}]}}"#, many("0", 1 << 19))),
        with("decisions", format!("[{}]", many("0", 5000))),
        with("average_reward", "1e200".to_owned()),
        with("expected_eid", "9999999999999999999".to_owned()),
        with("format", format!("\"{}\"", "x".repeat(200_000))),
        table(many("[]", 1 << 18), many("[]", 1 << 18)),
        table(many("[1]", 300_000), many("[0,0]", 100_000)),
        table("[1]".to_owned(), "[0,1e101]".to_owned()),
        table("[1]".to_owned(), format!("[{}]", many("0", 1 << 19))),
        // More than the memory holds: not a part of it is taken.
        {
            let states: Vec<String> = (0..40_000).map(|n| format!("[{n},{n},{n}]")).collect();
            table(states.join(","), many("[0,0]", 40_000))
        },
    ] {
        let refused = post(&node.learner("/learner/model"), bad).await;
        assert_eq!((refused.status, refused.code()), (400, 4), "{}", refused.text());
        assert!(refused.text().len() < 500, "{}", refused.text());
    }
    assert_eq!(node.learner_stats().await["states_seen"], 1, "nothing was changed");
}

#[actix_rt::test]
async fn what_there_would_never_be_room_for_is_too_large_instead_of_to_be_tried_again() {
    let node = TestNode::start(|settings| settings.learner_bodies_bytes_max = 100_000);
    for route in ["/learner/model", "/train_batch"] {
        let refused = post(&node.learner(route), " ".repeat(100_001)).await;
        assert_eq!((refused.status, refused.code()), (413, 4), "{}", refused.text());
        assert!(refused.text().contains("100000"), "{}", refused.text());
        let read = post(&node.learner(route), " ".repeat(100_000)).await;
        assert_eq!(read.status, 400, "{}", read.text());
    }
}

#[actix_rt::test]
async fn what_cannot_be_read_is_quoted_in_short() {
    let node = TestNode::start(|_| {});
    let long = "y".repeat(50_000);
    for body in [
        format!(r#"[{{"eid":1,"state":"{long}","action":0,"reward":1}}]"#),
        format!(r#"[{{"eid":"{long}","state":"1","action":0,"reward":1}}]"#),
        format!(r#"[{{"eid":1,"state":[1,"{long}"],"action":0,"reward":1}}]"#),
    ] {
        let refused = post(&node.learner("/train_batch"), body).await;
        assert_eq!((refused.status, refused.code()), (400, 4));
        assert!(refused.text().len() < 500, "{}", refused.text());
    }
    for patch in [json!({"value_function": &long[..8000]}), json!({"alpha": &long[..8000]})] {
        let refused = post(&node.learner("/learner/parameters"), patch.to_string()).await;
        assert!(refused.status == 400 && refused.text().len() < 500, "{}", refused.text());
    }
}

#[actix_rt::test]
async fn parameters_that_the_memory_does_not_hold_are_refused_and_name_it() {
    let node = TestNode::start(|settings| settings.learner_memory_bytes_max = 8 << 20);
    for (patch, key) in [
        (json!({"value_function": "tiles", "tiles_size": 10_000_000}), "tiles_size"),
        (json!({"value_function": "kmeans", "clusters": 4096, "actions_n": 4096}), "clusters"),
        (json!({"window_size": 100_000}), "window_size"),
    ] {
        let refused = post(&node.learner("/learner/parameters"), patch.to_string()).await;
        assert_eq!(refused.status, 400);
        for part in [key, "learner_memory_bytes_max"] {
            assert!(refused.text().contains(part), "{}", refused.text());
        }
    }
}

#[actix_rt::test]
async fn the_websocket_answers_as_v1_s_does() {
    let node = TestNode::start(|_| {});
    node.set_learner(json!({"actions_n": 1, "epsilon_start": 0.0})).await;
    reset(&node).await;
    let recorded = recording("167-learn-ws-8765.txt");
    for path in ["/", "/socket"] {
        let (mut client, head) = Client::connect(node.ip, 8765, path);
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(recorded.contains(accept) && head.contains(accept));
        assert!(recorded.contains("b'0.00000,0.00000'"));
        for question in ["[1.0, 0.0, 2.0]", "[1,0,2]\n", "[0.000000,1.000000]"] {
            assert_eq!(client.ask(question), "0.00000,0.00000", "{question}");
        }
    }
    // Plain HTTP is told to upgrade, as there.
    assert!(recorded.contains("HTTP/1.1 426 Upgrade Required"));
    let plain = get(&format!("http://{}:8765/", node.ip)).await;
    assert_eq!((plain.status, plain.header("upgrade")), (426, "websocket"));
}

#[actix_rt::test]
async fn a_frame_that_is_no_list_of_numbers_closes_with_1003_and_the_reason() {
    let node = serving().await;
    for (kind, frame) in [
        (websocket::TEXT, &b"nope"[..]),
        (websocket::TEXT, b"5"),
        (websocket::TEXT, b"[]"),
        (websocket::TEXT, b"[1,\"2\"]"),
        (websocket::TEXT, b"[1e999]"),
        (websocket::BINARY, b"[1]"),
    ] {
        let (mut client, _) = Client::connect(node.ip, 8765, "/");
        client.send(kind, frame);
        let (kind, payload) = client.receive().expect("a closing frame");
        assert_eq!((kind, &payload[..2]), (websocket::CLOSE, &1003u16.to_be_bytes()[..]));
        assert!(payload.len() > 10, "with the reason");
        client.finish();
        assert_eq!(client.receive(), None, "and the connection ends");
    }
    assert_eq!(node.learner_stats().await["inferences"], 0);
}

#[actix_rt::test]
async fn a_message_in_parts_is_one_message_and_pings_are_answered() {
    let node = serving().await;
    let (mut client, _) = Client::connect(node.ip, 8765, "/");
    client.send(websocket::PING, b"hi");
    assert_eq!(client.receive(), Some((websocket::PONG, b"hi".to_vec())));
    client.send(0x01, b"[1.0,");
    client.send(websocket::PING, b"between");
    assert_eq!(client.receive().map(|(kind, _)| kind), Some(websocket::PONG));
    client.send(0x80, b"2.0]");
    let (kind, answer) = client.receive().expect("answered");
    assert_eq!((kind, answer.len()), (websocket::TEXT, "1.00000,0.90000".len()));
}

#[actix_rt::test]
async fn a_pool_of_sockets_such_as_v1_s_scheduler_holds_is_served_in_order() {
    let node = TestNode::start(|_| {});
    node.set_learner(json!({"epsilon_decay": 0.999, "epsilon_min": 0.0})).await;
    let mut pool: Vec<Client> = (0..20).map(|_| Client::connect(node.ip, 8765, "/").0).collect();
    let epsilon = |answer: &str| answer.split(',').nth(1).expect("two").to_owned();
    let mut wanted = 0.9;
    for _ in 0..3 {
        for client in &mut pool {
            let answer = client.ask("[1.000000,0.000000,0.000000]");
            assert_eq!(epsilon(&answer), format!("{wanted:.5}"));
            wanted *= 0.999;
        }
    }
    // Frames sent at once are answered one by one, in order.
    (0..50).for_each(|_| pool[7].send(websocket::TEXT, b"[0.0]"));
    for _ in 0..50 {
        let (_, answer) = pool[7].receive().expect("answered");
        assert_eq!(epsilon(&String::from_utf8(answer).expect("text")), format!("{wanted:.5}"));
        wanted *= 0.999;
    }
    assert_eq!(node.learner_stats().await["inferences"], 110);
}

#[actix_rt::test]
async fn a_stop_does_not_wait_for_idle_sockets_and_says_goodbye() {
    let mut node = TestNode::start(|settings| settings.drain_timeout_s = 3600);
    node.learner_stats().await;
    let (mut client, _) = Client::connect(node.ip, 8765, "/");
    let farewell = actix_rt::task::spawn_blocking(move || client.receive());
    let stopped = tokio::time::timeout(PATIENCE, node.stop()).await;
    assert!(stopped.is_ok(), "it waits for calls, not for sockets");
    let (kind, payload) = farewell.await.expect("joins").expect("a closing frame");
    assert_eq!((kind, &payload[..2]), (websocket::CLOSE, &1001u16.to_be_bytes()[..]));
}
