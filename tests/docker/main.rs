//! The images, started as operators start them: one container per node, functions as containers.
//! Needs a Docker engine; see `engine.rs` for what happens without.

#[path = "../common/mod.rs"]
mod common;

mod engine;
mod failures;
mod nodes;

use std::collections::BTreeSet;
use std::process::Command;

use common::process::told;
use common::*;
use engine::{Container, Network, docker, engine};
use nodes::{Cluster, Node};

const RAN_ELSEWHERE: &str = "x-p2pfaas-externally-executed";
const FORWARD: &[(&str, &str)] = &[("X-P2pfaas-Scheduler-Forward", "1")];

/// A picture with nobody in it.
fn picture() -> Vec<u8> {
    let picture = image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8, y as u8, 0]));
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).expect("encoded");
    png.into_inner()
}

#[actix_rt::test]
async fn three_nodes_find_each_other_and_each_runs_every_function() {
    let Some(_engine) = engine() else { return };
    let cluster = Cluster::start(&["fn-echo", "fn-thumbnail", "fn-face"], &[]).await;
    for node in &cluster.nodes {
        let echoed = post(&node.url("/function/fn-echo"), "hello").await;
        assert_eq!((echoed.status, &*echoed.text()), (200, "hello"));
        let small = post(&node.url("/function/fn-thumbnail?width=16"), picture()).await;
        let decoded = image::load_from_memory(&small.body).expect("a picture");
        assert_eq!((small.status, decoded.width(), decoded.height()), (200, 16, 12));
        let nobody = post(&node.url("/function/fn-face"), picture()).await;
        assert_eq!(nobody.json()["faces"], serde_json::json!([]), "{}", nobody.text());
    }
}

#[actix_rt::test]
async fn a_forwarded_call_finds_the_faces_in_a_picture() {
    let Some(_engine) = engine() else { return };
    let cluster = Cluster::start(&["fn-face"], &[]).await;
    // Without a picture the function takes the one that it brings along.
    let found = send("GET", &cluster.nodes[0].url("/function/fn-face"), FORWARD, "").await;
    assert_eq!((found.status, found.header(RAN_ELSEWHERE)), (200, "True"));
    let faces = found.json()["faces"].as_array().expect("faces").clone();
    assert!(!faces.is_empty() && faces.iter().all(|face| face["width"].as_f64() > Some(0.0)));
    let url = cluster.nodes[0].url("/function/fn-face?answer=picture");
    let framed = send("GET", &url, FORWARD, "").await;
    assert_eq!(framed.header(RAN_ELSEWHERE), "True");
    image::load_from_memory(&framed.body).expect("a picture");
}

#[actix_rt::test]
async fn under_load_power_of_n_forwards_and_a_swap_on_all_nodes_ends_that() {
    let Some(_engine) = engine() else { return };
    let cluster = Cluster::start(&["fn-sleep"], &[]).await;
    let busy = &cluster.nodes[0];
    let burst = || async {
        let call = |_| async { post(&busy.url("/function/fn-sleep?mean_ms=300"), "x").await };
        futures_util::future::join_all((0..6).map(call)).await
    };
    let forwarded = |answers: &[Answered]| {
        assert!(answers.iter().all(|answer| answer.status == 200));
        answers.iter().filter(|answer| answer.header(RAN_ELSEWHERE) == "True").count()
    };
    assert!(forwarded(&burst().await) >= 2, "of six calls at once, each node can take some");

    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    let ips: String = cluster.nodes.iter().map(|node| format!("{}\n", node.ip)).collect();
    std::fs::write(&hosts, ips).expect("written");
    let hosts = hosts.display().to_string();
    let swap = ["fleet", "scheduler", "--fleet", &hosts, "NoScheduler", "false"];
    let (code, _, complaint) = told(&swap).await;
    assert_eq!(code, Some(0), "{complaint}");
    for node in &cluster.nodes {
        let name = get(&node.url("/configuration/scheduler")).await.json()["name"].clone();
        assert_eq!(name, "NoScheduler");
    }
    assert_eq!(forwarded(&burst().await), 0);
}

#[actix_rt::test]
async fn a_container_runs_as_any_user_and_says_when_it_is_healthy() {
    let Some(_engine) = engine() else { return };
    let network = Network::new();
    let node = Node::start(&network, &["--user", "12345:54321", "--health-interval", "1s"]);
    node.serves().await;
    assert_eq!(post(&node.url("/configuration"), r#"{"queue_length_max":9}"#).await.status, 200);
    eventually("docker calls it healthy", || async {
        (node.container.inspect("{{.State.Health.Status}}") == "healthy").then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn nodes_with_the_secrets_that_the_script_makes_keep_others_out() {
    let Some(_engine) = engine() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/secrets.sh");
    let made = Command::new(script).arg(folder.path()).status().expect("it runs");
    assert!(made.success());
    // As Compose does with files: each by itself, with the mode that it has. The image's user is not root.
    let mounted = ["cluster-key", "admin-token"]
        .map(|name| format!("{}:/run/secrets/{name}:ro", folder.path().join(name).display()));
    let [key, token] = &mounted;
    let named = [
        "P2PFAAS_CLUSTER_KEY_FILE=/run/secrets/cluster-key",
        "P2PFAAS_ADMIN_TOKEN_FILE=/run/secrets/admin-token",
    ];
    let flags = ["-v", key, "-v", token, "-e", named[0], "-e", named[1], "--health-interval", "1s"];
    let cluster = Cluster::start(&["fn-echo"], &flags).await;
    let stranger = Node::start(&cluster.network, &[]);
    stranger.serves().await;
    let [node, ..] = &cluster.nodes;
    let echoed = send("POST", &node.url("/function/fn-echo"), FORWARD, "hello").await;
    assert_eq!((echoed.status, echoed.header(RAN_ELSEWHERE)), (200, "True"));
    eventually("the stranger was refused", || async {
        let refused = node.metric("p2pfaas_refusals_total{kind=\"stranger\"}").await;
        (refused > 0.0).then_some(())
    })
    .await;
    cluster.is_whole().await;
    eventually("the stranger hears of nobody", || async {
        let known = stranger.listed().await;
        cluster.nodes.iter().all(|node| !known.contains(&node.ip)).then_some(())
    })
    .await;

    let change = |headers: Vec<(&'static str, String)>| async move {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let url = node.url("/configuration");
        send("POST", &url, &headers, r#"{"queue_length_max":9}"#).await.status
    };
    let token = std::fs::read_to_string(folder.path().join("admin-token")).expect("made");
    assert_eq!(change(Vec::new()).await, 401);
    assert_eq!(change(vec![("Authorization", format!("Bearer {}", token.trim()))]).await, 200);
    eventually("docker calls it healthy", || async {
        (node.container.inspect("{{.State.Health.Status}}") == "healthy").then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn a_volume_of_v1s_files_is_read_as_it_is() {
    let Some(_engine) = engine() else { return };
    let network = Network::new();
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in [
        (
            "p2p_faas-scheduler.json",
            r#"{"parallel_running_functions_max":7,"queue_length_max":3,"queue_enabled":true}"#,
        ),
        (
            "p2p_faas-scheduler-config.json",
            r#"{"name":"PowerOfNScheduler","parameters":["2","3","false","1"]}"#,
        ),
        (
            "p2p_faas-discovery.json",
            r#"{"machine_ip":"","machine_id":"board-1","machine_group_name":"lab",
                "init_servers":["10.99.0.1"]}"#,
        ),
        (
            "p2pfaas_learner.json",
            r#"{"learner_name":"RLS","learner_parameters":{"alpha":0.5,"window_size":9}}"#,
        ),
    ] {
        std::fs::write(folder.path().join(name), content).expect("written");
    }
    // As v1 leaves it, root's and closed to others: what is copied keeps its owner and its modes.
    let container = Container::create(&network, "node", "p2pfaas", &["--user", "0:0"], &[]);
    container.put(&folder.path().join("."), "/data");
    let node = Node::of(container.started());
    node.serves().await;
    assert_eq!(get(&node.url("/configuration")).await.json()["parallel_running_functions_max"], 7);
    let scheduler = get(&node.url("/configuration/scheduler")).await.json();
    assert_eq!(scheduler["parameters"], serde_json::json!(["2", "3", "false", "1"]));
    let machine = get(&node.discovery("/configuration")).await.json();
    assert_eq!(
        (&machine["machine_id"], &machine["machine_group_name"]),
        (&"board-1".into(), &"lab".into())
    );
    assert_eq!(machine["machine_ip"], node.ip.to_string(), "unset, so its interface's");
    let learner = get(&node.learner("/learner/parameters")).await.text();
    assert!(learner.contains("\"window_size\":9"), "{learner}");
    assert_eq!(post(&node.url("/configuration"), r#"{"queue_length_max":9}"#).await.status, 200);
}

#[actix_rt::test]
async fn a_restart_keeps_the_configuration_and_what_was_learnt() {
    let Some(_engine) = engine() else { return };
    let network = Network::new();
    let mut node = Node::start(&network, &[]);
    node.serves().await;
    node.set_scheduler("LearningScheduler 2").await;
    let limits = r#"{"parallel_running_functions_max":6,"queue_length_max":11}"#;
    assert_eq!(post(&node.url("/configuration"), limits).await.status, 200);
    let two = r#"{"window_size":2}"#;
    assert_eq!(post(&node.learner("/learner/parameters"), two).await.status, 200);
    let batch = r#"[{"eid":1,"state":"1","action":0,"reward":1},
        {"eid":2,"state":"1","action":0,"reward":1}]"#;
    assert_eq!(post(&node.learner("/train_batch"), batch).await.status, 200);
    let all = |node: &Node| {
        let urls = [
            node.url("/configuration"),
            node.url("/configuration/scheduler"),
            node.learner("/learner/parameters"),
            node.learner("/learner/weights"),
        ];
        async move {
            let mut answers = Vec::new();
            for url in urls {
                answers.push(get(&url).await.text());
            }
            answers
        }
    };
    let before = all(&node).await;
    assert!(before[3].contains("0.01"), "something was learnt: {}", before[3]);
    node.container.does("restart");
    node.ip = node.container.ip();
    node.serves().await;
    assert_eq!(all(&node).await, before);
}

#[actix_rt::test]
async fn a_container_that_is_told_to_stop_finishes_its_calls_and_exits_with_0() {
    let Some(_engine) = engine() else { return };
    let network = Network::new();
    let flags = ["-e", "P2PFAAS_EMBEDDED_FUNCTIONS=true", "--stop-timeout", "35"];
    let node = Node::start(&network, &flags);
    node.serves().await;
    let url = node.url("/function/fn-sleep?mean_ms=2000");
    let call = actix_rt::spawn(async move { post(&url, "to the end").await });
    eventually("the call runs", || async {
        (node.metric("p2pfaas_running").await == 1.0).then_some(())
    })
    .await;
    let name = node.container.name.clone();
    let stopped = actix_rt::task::spawn_blocking(move || docker(&["stop", &name]));
    let answered = call.await.expect("joins");
    assert_eq!((answered.status, &*answered.text()), (200, "to the end"));
    stopped.await.expect("joins");
    assert_eq!(node.container.inspect("{{.State.ExitCode}}"), "0", "{}", node.container.logs());
}

#[actix_rt::test]
async fn limits_of_memory_and_cores_hold_under_load() {
    let Some(_engine) = engine() else { return };
    let network = Network::new();
    let flags = ["--memory", "64m", "--cpus", "0.5", "-e", "P2PFAAS_EMBEDDED_FUNCTIONS=true"];
    let node = Node::start(&network, &flags);
    node.serves().await;
    let url = node.url("/function/fn-echo");
    // Far more than fits at once: what does not is refused, and nothing else happens to it.
    let body = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let mut answered = 0;
    for _ in 0..10 {
        let call = |_| post(&url, body.clone());
        for answer in futures_util::future::join_all((0..64).map(call)).await {
            match answer.status {
                200 => {
                    assert_eq!(answer.body.len(), body.len());
                    answered += 1;
                }
                _ => assert_eq!((answer.status, answer.code()), (500, 400)),
            }
        }
    }
    assert!(answered >= 10, "some of each round: {answered}");
    assert_eq!(node.container.inspect("{{.State.OOMKilled}} {{.State.Running}}"), "false true");
    assert_eq!(post(&url, "still here").await.text(), "still here");
}

#[test]
fn the_image_is_small_and_holds_only_the_nodes_own_files() {
    let Some(_engine) = engine() else { return };
    let bytes: u64 =
        docker(&["image", "inspect", "-f", "{{.Size}}", "p2pfaas"]).trim().parse().expect("a size");
    assert!(bytes <= 20 << 20, "{bytes} bytes");
    let network = Network::new();
    let container = Container::create(&network, "node", "p2pfaas", &[], &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let tar = folder.path().join("image.tar").display().to_string();
    docker(&["export", "-o", &tar, &container.name]);
    let listed = Command::new("tar").args(["-tf", &tar]).output().expect("tar runs").stdout;
    let listed = String::from_utf8(listed).expect("text");
    let files: BTreeSet<&str> = listed.lines().filter(|path| !path.ends_with('/')).collect();
    let ours = ["etc/nsswitch.conf", "etc/ssl/certs/ca-certificates.crt", "p2pfaas"];
    // What the engine puts into every container.
    let engines =
        [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
    let strangers: Vec<_> =
        files.iter().filter(|file| !ours.contains(file) && !engines.contains(file)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert!(ours.iter().all(|file| files.contains(file)), "{files:?}");
}
