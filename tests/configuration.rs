//! The node's own routes, its files, and who may change it.

mod common;

use common::*;
use p2pfaas::config::{Admin, Settings};
use p2pfaas::node::Node;
use p2pfaas::saved::{FlagOverrides, LimitsPatch};
use serde_json::{Value, json};

#[actix_rt::test]
async fn the_greeting_names_the_version() {
    let node = TestNode::start(|_| {});
    for method in ["GET", "POST"] {
        let greeting = send(method, &node.url("/"), &[], "").await.json();
        assert_eq!(greeting["name"], "p2pfaas");
        assert_eq!(greeting["version"], p2pfaas::VERSION);
        assert!(greeting["version_commit"].is_string());
    }
}

#[actix_rt::test]
async fn the_configuration_has_v1s_defaults_and_is_merged_and_saved() {
    let mut node = TestNode::start(|_| {});
    let url = node.url("/configuration");
    let defaults =
        json!({"parallel_running_functions_max": 4, "queue_length_max": 4, "queue_enabled": true});
    assert_eq!(get(&url).await.json(), defaults);
    let change = json!({"queue_length_max": 0, "unknown": [1], "queue_enabled": false});
    let answered = post(&url, change.to_string()).await;
    assert_eq!((answered.status, answered.body.len()), (200, 0));
    let want =
        json!({"parallel_running_functions_max": 4, "queue_length_max": 0, "queue_enabled": false});
    assert_eq!(get(&url).await.json(), want);
    let saved = std::fs::read(node.file("p2p_faas-scheduler.json")).expect("saved");
    assert_eq!(serde_json::from_slice::<Value>(&saved).expect("JSON"), want);
    node.stop().await;
    node.start_again();
    assert_eq!(get(&url).await.json(), want, "after a restart");
}

#[actix_rt::test]
async fn a_configuration_that_is_wrong_is_400_code_4_and_changes_nothing() {
    let node = TestNode::start(|_| {});
    let url = node.url("/configuration");
    let before = get(&url).await.json();
    for bad in [
        "",
        "{bad",
        "[]",
        "[1,2,true]",
        "7",
        r#"{"queue_length_max":-1}"#,
        r#"{"queue_length_max":1.5}"#,
        r#"{"queue_length_max":"1"}"#,
        r#"{"queue_length_max":4294967296}"#,
        r#"{"queue_enabled":1}"#,
        r#"{"queue_length_max":9,"parallel_running_functions_max":-1}"#,
        r#"{"queue_length_max":9,"scheduler":7}"#,
    ] {
        let answered = post(&url, bad).await;
        assert_eq!((answered.status, answered.code()), (400, 4), "{bad}");
        assert_eq!(get(&url).await.json(), before, "{bad}");
    }
    assert_eq!(post(&url, vec![b' '; 65 << 10]).await.status, 413);
}

#[actix_rt::test]
async fn limits_and_scheduler_change_in_one_call_all_or_nothing() {
    let node = TestNode::start(|_| {});
    let url = node.url("/configuration");
    let change = |name: &str| {
        let scheduler = json!({"name": name, "parameters": ["1"]});
        json!({"queue_length_max": 9, "scheduler": scheduler}).to_string()
    };
    let before = get(&url).await.json();
    let answered = post(&url, change("Nope")).await;
    assert_eq!((answered.status, answered.code()), (500, 1));
    assert_eq!(get(&url).await.json(), before);
    assert_eq!(post(&url, change("ForwardScheduler")).await.status, 200);
    assert_eq!(get(&url).await.json()["queue_length_max"], 9);
    let scheduler = get(&node.url("/configuration/scheduler")).await.json();
    assert_eq!(scheduler, json!({"name": "ForwardScheduler", "parameters": ["1"]}));
}

#[actix_rt::test]
async fn when_one_half_of_a_change_cannot_be_saved_neither_is_made() {
    for file in ["p2p_faas-scheduler.json", "p2p_faas-scheduler-config.json"] {
        let node = TestNode::start(|_| {});
        // A folder in the file's place: it can be neither written nor replaced.
        std::fs::create_dir_all(node.file(file).join("x")).expect("made");
        let change = json!({"queue_length_max": 9, "scheduler": {"name": "RejectScheduler"}});
        let answered = post(&node.url("/configuration"), change.to_string()).await;
        assert_eq!((answered.status, answered.code()), (500, 1), "{file}");
        let scheduler = get(&node.url("/configuration/scheduler")).await.json();
        assert_eq!(scheduler["name"], "NoScheduler", "{file}");
        assert_eq!(get(&node.url("/configuration")).await.json()["queue_length_max"], 4, "{file}");
    }
}

#[actix_rt::test]
async fn the_scheduler_is_swapped_shown_in_normal_form_and_saved() {
    let mut node = TestNode::start(|_| {});
    let url = node.url("/configuration/scheduler");
    let change =
        json!({"name": "PowerOfNSchedulerTau", "parameters": ["1", "2", "T", "1", "1h2m", "x"]});
    let answered = post(&url, change.to_string()).await;
    assert_eq!((answered.status, answered.body.len()), (200, 0));
    let want =
        json!({"name": "PowerOfNSchedulerTau", "parameters": ["1", "2", "true", "1", "3720000ms"]});
    assert_eq!(get(&url).await.json(), want);
    let saved = std::fs::read(node.file("p2p_faas-scheduler-config.json")).expect("saved");
    assert_eq!(serde_json::from_slice::<Value>(&saved).expect("JSON"), want);
    node.stop().await;
    node.start_again();
    assert_eq!(get(&url).await.json(), want, "after a restart");
}

#[actix_rt::test]
async fn a_scheduler_that_cannot_be_set_is_500_code_1_and_malformed_json_400_code_4() {
    let node = TestNode::start(|_| {});
    let url = node.url("/configuration/scheduler");
    for bad in [
        r#"{"name":"Nope","parameters":[]}"#,
        r#"{"name":"ForwardScheduler","parameters":[]}"#,
        r#"{"name":"ForwardScheduler","parameters":["x"]}"#,
        r#"{"name":"LearningScheduler","parameters":["-1"]}"#,
    ] {
        let answered = post(&url, bad).await;
        assert_eq!((answered.status, answered.code()), (500, 1), "{bad}");
        let message = answered.json()["message"].as_str().expect("text").to_owned();
        assert!(message.starts_with("Bad passed parameters for scheduler: "), "{message}");
    }
    assert_eq!(post(&url, "{}").await.code(), 1, "no name is an unknown one");
    for bad in ["", "{", "[]", r#"{"name":7}"#, r#"{"name":"NoScheduler","parameters":[true]}"#] {
        let answered = post(&url, bad).await;
        assert_eq!((answered.status, answered.code()), (400, 4), "{bad}");
    }
    assert_eq!(get(&url).await.json()["name"], "NoScheduler");
}

#[actix_rt::test]
async fn openfaas_routes_without_a_gateway_are_500_code_300() {
    let node = TestNode::start(|_| {});
    for (method, path) in [
        ("GET", "/system/functions"),
        ("POST", "/system/functions"),
        ("PUT", "/system/functions"),
        ("DELETE", "/system/functions"),
        ("GET", "/system/function/fn"),
        ("POST", "/system/scale-function/fn"),
        ("GET", "/monitoring/scale-delay/fn"),
    ] {
        let answered = send(method, &node.url(path), &[], "").await;
        assert_eq!((answered.status, answered.code()), (500, 300), "{method} {path}");
    }
}

#[actix_rt::test]
async fn routes_that_change_a_node_can_be_turned_off() {
    for (admin, status) in [(Admin::Any, 200), (Admin::Loopback, 200), (Admin::Off, 403)] {
        let node = TestNode::start(|settings| settings.admin = admin);
        let scheduler = r#"{"name":"RejectScheduler"}"#;
        assert_eq!(post(&node.url("/configuration"), "{}").await.status, status, "{admin:?}");
        let swapped = post(&node.url("/configuration/scheduler"), scheduler).await;
        assert_eq!(swapped.status, status, "{admin:?}");
        assert_eq!(post(&node.discovery("/configuration"), "{}").await.status, status);
        assert_eq!(get(&node.discovery("/reset")).await.status, status);
        assert_eq!(get(&node.url("/configuration")).await.status, 200, "reading stays open");
        let name = get(&node.url("/configuration/scheduler")).await.json()["name"].clone();
        assert_eq!(name, if status == 200 { "RejectScheduler" } else { "NoScheduler" });
    }
}

#[actix_rt::test]
async fn flags_win_for_one_run_and_are_not_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let ip = fresh_ip();
    let settings = Settings {
        host: ip.into(),
        data_path: folder.path().to_owned(),
        workers: 1,
        queue_length_max: 7,
        ..Settings::default()
    };
    let limits = LimitsPatch { parallel_running_functions_max: Some(2), ..LimitsPatch::default() };
    let flags = FlagOverrides { limits, ..FlagOverrides::default() };
    let node = Node::start(settings.clone(), &flags).expect("it starts");
    let url = format!("http://{ip}:18080/configuration");
    assert_eq!(get(&url).await.json()["parallel_running_functions_max"], 2);
    assert_eq!(post(&url, r#"{"queue_length_max":9}"#).await.status, 200);
    assert_eq!(get(&url).await.json()["parallel_running_functions_max"], 2, "still");
    node.stop().await;
    let node = Node::start(settings, &FlagOverrides::default()).expect("it starts");
    let config = get(&url).await.json();
    assert_eq!(config["parallel_running_functions_max"], 4, "the flag was not saved");
    assert_eq!(config["queue_length_max"], 9, "what was posted was");
    node.stop().await;
}

#[actix_rt::test]
async fn flags_that_say_who_the_machine_is_are_not_saved_either() {
    let (folder, ip) = (tempfile::tempdir().expect("a folder"), fresh_ip());
    let url = format!("http://{ip}:19000/configuration");
    let mut node = process::Process::node(ip, folder.path(), &["--group", "of-the-flag"]);
    assert_eq!(post(&url, r#"{"machine_id":"posted"}"#).await.status, 200);
    assert_eq!(get(&url).await.json()["machine_group_name"], "of-the-flag");
    node.kill();
    let _node = process::Process::node(ip, folder.path(), &[]);
    let config = get(&url).await.json();
    assert_eq!(
        (&config["machine_group_name"], &config["machine_id"]),
        (&json!(""), &json!("posted"))
    );
}

#[actix_rt::test]
async fn a_v1_data_volume_is_read_as_it_is() {
    let node = TestNode::start(|settings| {
        let write = |name: &str, text: &str| {
            std::fs::write(settings.data_path.join(name), text).expect("written");
        };
        write(
            "p2p_faas-scheduler.json",
            r#"{"parallel_running_functions_max":3,"queue_length_max":2,"queue_enabled":true}"#,
        );
        write(
            "p2p_faas-scheduler-config.json",
            r#"{"name":"PowerOfNScheduler","parameters":["1","1","true","1"]}"#,
        );
        write(
            "p2p_faas-discovery.json",
            r#"{"machine_ip":"","machine_id":"ref-n0","machine_group_name":"cluster00","init_servers":[]}"#,
        );
    });
    let config = get(&node.url("/configuration")).await.json();
    assert_eq!(config["parallel_running_functions_max"], 3);
    let scheduler = get(&node.url("/configuration/scheduler")).await.json();
    assert_eq!(scheduler["parameters"], json!(["1", "1", "true", "1"]));
    let machine = get(&node.discovery("/configuration")).await.json();
    assert_eq!(machine["machine_id"], "ref-n0");
    assert_eq!(machine["machine_ip"], node.ip.to_string());
}

/// File, its content, and of each warning the key, what stood there, and what is taken.
const MEANINGLESS: [(&str, &str, &[[&str; 3]]); 4] = [
    (
        "p2p_faas-scheduler.json",
        r#"{"parallel_running_functions_max":18446744073709551615,"queue_length_max":4294967296,
            "queue_enabled":true}"#,
        &[
            ["parallel_running_functions_max", "18446744073709551615", "4294967295"],
            ["queue_length_max", "4294967296", "4294967295"],
        ],
    ),
    (
        "p2p_faas-discovery.json",
        r#"{"machine_ip":"node-1","machine_id":"nød-ノ","machine_group_name":"gr\u00fcn",
            "init_servers":null}"#,
        &[
            ["machine_ip", "node-1", "unset"],
            ["machine_id", "nød-ノ", "n_d-_"],
            ["machine_group_name", "grün", "gr_n"],
        ],
    ),
    (
        "p2p_faas-scheduler-config.json",
        r#"{"name":"LearningScheduler","parameters":["257"]}"#,
        &[["parameter 1 (number of task types)", "257", "256"]],
    ),
    (
        "p2pfaas_learner.json",
        r#"{"learner_name":"SarsaQTable","learner_parameters":{"actions_n":"3","alpha":5,"beta":-1,
            "window_size":1,"epsilon_start":2.0,"epsilon_min":NaN,"epsilon_decay":Infinity,
            "epsilon_decay_enabled":null,"entry_missing_max_attempts":-100}}"#,
        &[
            ["actions_n", "\"3\"", "3"],
            ["alpha", "5", "1.0"],
            ["beta", "-1", "0.0"],
            ["epsilon_start", "2.0", "1.0"],
            ["epsilon_min", "NaN", "0.1"],
            ["epsilon_decay", "Infinity", "1.0"],
            ["epsilon_decay_enabled", "null", "true"],
            ["entry_missing_max_attempts", "-100", "0"],
            ["window_size", "1", "2"],
        ],
    ),
];

#[actix_rt::test]
async fn a_v1_data_volume_with_values_that_mean_nothing_starts_a_node_that_says_what_it_took() {
    let (folder, ip) = (tempfile::tempdir().expect("a folder"), fresh_ip());
    for (name, text, _) in MEANINGLESS {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let path = folder.path().display().to_string();
    let arguments = ["node", "--host", &ip.to_string(), "--data-path", &path, "--workers", "1"];
    let mut node = process::Process::start(&[&arguments[..], &["--embedded-functions"]].concat());
    let told = node.wait_for_all("the node serves");
    for (file, _, warnings) in MEANINGLESS {
        for warning in warnings {
            let tells = |line: &&String| warning.iter().all(|part| line.contains(part));
            let line = told.iter().filter(|line| line.contains(file)).find(tells);
            let line = line.unwrap_or_else(|| panic!("{file}: {warning:?}\n{}", told.join("\n")));
            assert!(line.contains("WARN"), "{line}");
        }
        let warned = told.iter().filter(|line| line.contains(file)).count();
        assert_eq!(warned, warnings.len(), "{file}:\n{}", told.join("\n"));
    }

    let url = |port: u16, path: &str| format!("http://{ip}:{port}{path}");
    let scheduler = get(&url(18080, "/configuration/scheduler")).await.json();
    assert_eq!(scheduler["parameters"], json!(["256"]));
    let limits = get(&url(18080, "/configuration")).await.json();
    assert_eq!(limits["queue_length_max"], u32::MAX);
    let machine = get(&url(19000, "/configuration")).await.json();
    assert_eq!(machine["machine_id"], "n_d-_");
    assert_eq!(machine["machine_ip"], ip.to_string());
    let learner = get(&url(19020, "/learner/parameters")).await.json()["parameters"].clone();
    assert_eq!((&learner["window_size"], &learner["alpha"]), (&json!(2), &json!(1.0)));
    // The learner tries its actions by chance, and to reject a call is one of them.
    let mut served = 0;
    for _ in 0..50 {
        served += u32::from(post(&url(18080, "/function/fn-echo"), "x").await.status == 200);
    }
    assert!(served > 0, "no call is served");

    // Whoever posts is told, and nothing is taken for something else.
    for (url, body, status) in [
        (url(18080, "/configuration"), r#"{"queue_length_max":4294967296}"#, 400),
        (url(18080, "/configuration/scheduler"), MEANINGLESS[2].1, 500),
        (url(19000, "/configuration"), r#"{"machine_id":"nød"}"#, 400),
        (url(19020, "/learner/parameters"), r#"{"window_size":1}"#, 400),
    ] {
        assert_eq!(post(&url, body).await.status, status, "{url}");
    }
    let unchanged = std::fs::read_to_string(folder.path().join(MEANINGLESS[3].0)).expect("there");
    assert_eq!(unchanged, MEANINGLESS[3].1, "left as it is");
}

#[actix_rt::test]
async fn metrics_and_health_tell_what_the_node_does() {
    let node = TestNode::start(|_| {});
    post(&node.url("/function/fn-echo"), "x").await;
    send("POST", &node.url("/function/fn-echo"), &[REJECT], "x").await;
    post(&node.url("/function/fn-none"), "x").await;
    let metrics = get(&node.url("/metrics")).await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    for line in [
        r#"p2pfaas_requests_total{function="fn-echo",outcome="executed",scheduler="NoScheduler"} 1"#,
        r#"p2pfaas_requests_total{function="fn-echo",outcome="rejected",scheduler="RejectScheduler"} 1"#,
        r#"p2pfaas_requests_total{function="other",outcome="function_failed",scheduler="NoScheduler"} 1"#,
        r#"p2pfaas_execution_seconds_count{function="fn-echo"} 1"#,
        r#"p2pfaas_queueing_seconds_count{function="fn-echo"} 1"#,
        r#"p2pfaas_total_seconds_count{function="fn-echo"} 2"#,
        "p2pfaas_k 4",
        "p2pfaas_running 0",
        "p2pfaas_waiting 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let health = get(&node.url("/health")).await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("serving")));
    let other = TestNode::start(|_| {});
    assert!(!get(&other.url("/metrics")).await.text().contains("fn-echo"), "one registry a node");
}

#[actix_rt::test]
async fn what_a_change_says_in_vain_is_named_and_the_rest_is_done() {
    let node = TestNode::start(|_| {});
    let changes = [
        (node.url("/configuration"), r#"{"queue_length_max":7,"queue_lenght":9}"#, "queue_lenght"),
        (
            node.url("/configuration/scheduler"),
            r#"{"name":"NoScheduler","parameters":["true","extra"]}"#,
            "extra",
        ),
        (node.discovery("/configuration"), r#"{"nope":1}"#, "nope"),
    ];
    for (url, body, ignored) in changes {
        let answer = post(&url, body).await;
        let warning = answer.header("warning");
        assert_eq!(answer.status, 200, "{url}");
        assert!(warning.starts_with("299 ") && warning.contains(ignored), "{url}: {warning}");
    }
    assert_eq!(get(&node.url("/configuration")).await.json()["queue_length_max"], 7);
    let good = post(&node.url("/configuration"), r#"{"queue_length_max":8}"#).await;
    assert_eq!((good.status, good.header("warning")), (200, ""));
}

#[actix_rt::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let node = TestNode::start(|_| {});
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { data_path: folder.path().to_owned(), ..node.settings.clone() };
    let error = Node::start(settings, &FlagOverrides::default()).err().expect("in use").to_string();
    assert!(error.contains(&format!("{}:18080", node.ip)), "{error}");
}
