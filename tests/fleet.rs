//! `p2pfaas fleet` against real nodes, a stand-in for v1's, and one that is not there.

mod common;

use common::process::told;
use common::raw::{self, RawServer};
use common::*;
use serde_json::json;

async fn fleet(arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&[&["fleet"], arguments].concat()).await
}

fn file(folder: &tempfile::TempDir, text: &str) -> String {
    let path = folder.path().join("fleet.toml");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[actix_rt::test]
async fn apply_makes_every_node_what_the_file_says_and_then_changes_nothing_more() {
    let nodes: [TestNode; 2] = std::array::from_fn(|_| TestNode::start(|_| {}));
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(
        &folder,
        &format!(
            r#"
            name = "board-{{n}}"
            group = "lab"
            k = 3
            queue_length = 2
            init_server = "{0}"
            scheduler = "PowerOfNScheduler 1 1 T 1"
            nodes = ["{0}", {{ address = "{1}", k = 1 }}]
            [learner]
            actions_n = 4
            alpha = 0.5
            "#,
            nodes[0].ip, nodes[1].ip
        ),
    );
    let (code, dry, _) = fleet(&["apply", &path, "--dry-run"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(get(&nodes[0].url("/configuration")).await.json()["queue_length_max"], 4);
    let (code, changed, said) = fleet(&["apply", &path]).await;
    assert_eq!((code, &*said), (Some(0), ""));
    assert_eq!(dry, changed, "a dry run tells the same");
    assert!(
        changed.contains("learner alpha") && changed.contains("PowerOfNScheduler"),
        "{changed}"
    );
    for (node, k) in nodes.iter().zip([3, 1]) {
        let limits = get(&node.url("/configuration")).await.json();
        assert_eq!(
            (&limits["parallel_running_functions_max"], &limits["queue_length_max"]),
            (&json!(k), &json!(2))
        );
        let scheduler = get(&node.url("/configuration/scheduler")).await.json();
        assert_eq!(scheduler["parameters"], json!(["1", "1", "true", "1"]));
        let parameters = get(&node.learner("/learner/parameters")).await.json();
        assert_eq!(parameters["parameters"]["actions_n"], 4);
    }
    assert_eq!(get(&nodes[1].discovery("/configuration")).await.json()["machine_id"], "board-1");
    nodes[0].lists(&[&nodes[1]]).await;
    let (_, again, _) = fleet(&["apply", &path]).await;
    assert_eq!(again.matches("nothing to change").count(), 2, "{again}");
    // Another algorithm for all, and the parameters that wait for a reset.
    let (code, swapped, _) = fleet(&["scheduler", "--fleet", &path, "NoScheduler", "false"]).await;
    assert_eq!((code, swapped.matches("NoScheduler false").count()), (Some(0), 2), "{swapped}");
    let (code, reset, _) = fleet(&["reset-learners", "--fleet", &path]).await;
    assert_eq!((code, &*reset), (Some(0), "2 learners were reset\n"));
    let parameters = get(&nodes[0].learner("/learner/parameters")).await.json();
    assert_eq!(parameters["running"]["actions_n"], 4);
    let (code, status, _) = fleet(&["status", "--fleet", &path]).await;
    assert_eq!(code, Some(0));
    let line = status.lines().find(|line| line.starts_with(&nodes[1].ip.to_string()));
    let cells: Vec<&str> = line.expect("a line").split_whitespace().collect();
    let wanted = [
        p2pfaas::VERSION,
        &format!("({})", p2pfaas::COMMIT),
        "NoScheduler",
        "false",
        "1",
        "0",
        "0",
        "1",
        "1",
        "0.9000",
    ];
    assert_eq!(cells[1..11], wanted, "{status}");
}

#[actix_rt::test]
async fn a_node_that_is_not_there_is_named_and_holds_up_no_other() {
    let node = TestNode::start(|_| {});
    let (gone, folder) = (fresh_ip(), tempfile::tempdir().expect("a folder"));
    let hosts = file(&folder, &format!("# boards\n{gone}\n{}\n", node.ip));
    let (code, table, said) = fleet(&["scheduler", "--fleet", &hosts, "RejectScheduler"]).await;
    assert_eq!(code, Some(69));
    assert!(said.contains("1 of 2 nodes failed") && said.contains(&gone.to_string()), "{said}");
    assert!(table.contains("failed, see below"), "{table}");
    let scheduler = get(&node.url("/configuration/scheduler")).await.json();
    assert_eq!(scheduler["name"], "RejectScheduler");
    let (code, table, _) = fleet(&["status", "--fleet", &hosts]).await;
    assert_eq!(code, Some(69));
    assert!(table.contains("RejectScheduler"), "{table}");
}

#[actix_rt::test]
async fn a_node_that_the_file_names_is_shown_by_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    // Whether a node runs there does not matter: it has a line in any case.
    let (_, table, said) = fleet(&["status", "--fleet", &file(&folder, "localhost\n")]).await;
    assert!(table.lines().any(|line| line.starts_with("localhost ")), "{table}{said}");
    let hosts = file(&folder, "10.0.0.1\n10.0.0.2 board-2\n");
    let (code, _, said) = fleet(&["status", "--fleet", &hosts]).await;
    assert_eq!(code, Some(78));
    assert!(said.contains("line 2") && said.contains("one address or host name a line"), "{said}");
}

#[actix_rt::test]
async fn what_cannot_be_used_is_said_before_any_node_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(&folder, "nodes = [\"127.0.0.1\"]\nscheduler = \"Nope\"");
    let (code, _, said) = fleet(&["apply", &path]).await;
    assert_eq!(code, Some(78));
    assert!(said.contains("fleet.toml") && said.contains("Nope"), "{said}");
    let hosts = file(&folder, "127.0.0.1");
    let (code, _, said) = fleet(&["scheduler", "--fleet", &hosts, "ForwardScheduler", "x"]).await;
    assert_eq!(code, Some(78));
    assert!(said.contains("max hops"), "{said}");
    assert_eq!(fleet(&["status", "--fleet", "/nonexistent"]).await.0, Some(78));
}

#[actix_rt::test]
async fn a_v1_node_is_set_up_as_far_as_it_knows_what_is_asked() {
    let ip = fresh_ip();
    let scheduler = RawServer::start(ip, 18080, |request| {
        match (request.line().split(' ').next(), request.path()) {
            (Some("GET"), "/") => raw::ok(r#"{"name":"p2p-faas","version":"0.3.0b"}"#),
            (Some("GET"), "/configuration") => raw::ok(
                r#"{"parallel_running_functions_max":4,"queue_length_max":4,"queue_enabled":true}"#,
            ),
            (Some("GET"), "/configuration/scheduler") => {
                raw::ok(r#"{"name":"NoScheduler","parameters":["true"]}"#)
            }
            (Some("GET"), "/monitoring/load") => {
                raw::answer("200 OK", "X-P2PFaaS-Load: 1\r\nX-P2PFaaS-MaxLoad: 4\r\n", b"")
            }
            _ => raw::ok(""),
        }
    });
    let recorded = golden_json("119-disc-conf-get.txt").to_string();
    let discovery = RawServer::start(ip, 19000, move |request| match request.path() {
        "/configuration" => raw::ok(&recorded),
        _ => raw::ok("[]"),
    });
    let recorded = golden_json("146-learn-params-get.txt").to_string();
    let learner = RawServer::start(ip, 19020, move |request| match request.path() {
        "/learner/parameters" => raw::ok(&recorded),
        "/learner/stats" => raw::ok(r#"{"epsilon":0.5}"#),
        _ => raw::ok(""),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "k = 3\nscheduler = \"NoScheduler T\"\nnodes = [\"{ip}\"]\n[learner]\nalpha = 0.5\n\
         actions_n = 14\nvalue_function = \"tiles\"\n"
    );
    let (code, changed, said) = fleet(&["apply", &file(&folder, &text)]).await;
    assert_eq!(code, Some(69), "it is not all that the file says: {changed}");
    assert!(said.contains("value_function: this node has no such key"), "{said}");
    let posted = |server: &RawServer| {
        let posts = server.requests().into_iter().filter(|r| r.line().starts_with("POST"));
        posts.map(|request| (request.path().to_owned(), request.json())).collect::<Vec<_>>()
    };
    let limits = json!({"parallel_running_functions_max": 3});
    assert_eq!(posted(&scheduler), [("/configuration".to_owned(), limits)]);
    let alpha = json!({"alpha": 0.5});
    assert_eq!(posted(&learner), [("/learner/parameters".to_owned(), alpha)], "no other differs");
    assert!(posted(&discovery).is_empty());
    let (code, status, _) = fleet(&["status", "--fleet", &file(&folder, &ip.to_string())]).await;
    assert_eq!(code, Some(0));
    assert!(status.contains("0.3.0b") && status.contains("0.5000"), "{status}");
}

#[actix_rt::test]
async fn what_was_done_before_a_node_refused_is_told_apart_from_what_was_not() {
    let node = TestNode::start(|_| {});
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "k = 3\nscheduler = \"RejectScheduler\"\nnodes = [\"{}\"]\n[learner]\nalpha = -1\n",
        node.ip
    );
    let (code, table, said) = fleet(&["apply", &file(&folder, &text)]).await;
    assert_eq!(code, Some(69));
    assert!(said.contains("alpha: -1 is not within 0 to 1"), "{said}");
    let line = |what: &str| {
        let line = table.lines().find(|line| line.contains(what)).expect("a line");
        line.ends_with("failed, see below")
    };
    assert!(!line("K ") && line("learner alpha") && line("scheduler"), "{table}");
    assert_eq!(get(&node.url("/configuration")).await.json()["parallel_running_functions_max"], 3);
    assert_eq!(get(&node.url("/configuration/scheduler")).await.json()["name"], "NoScheduler");
}

/// A node whose answers at `path` are `told`, and else what a node says.
fn hostile(path: &'static str, told: raw::Reply) -> (std::net::Ipv4Addr, [RawServer; 3]) {
    let ip = fresh_ip();
    let start = |port| {
        let told = told.clone();
        RawServer::start(ip, port, move |request| match request.path() {
            asked if asked == path => told.clone(),
            "/configuration/scheduler" => {
                raw::ok(r#"{"name":"NoScheduler","parameters":["true"]}"#)
            }
            "/monitoring/load" => raw::answer("200 OK", "X-P2PFaaS-Load: 1\r\n", b""),
            "/list" => raw::ok("[]"),
            "/" => raw::ok(r#"{"version":"1"}"#),
            _ => raw::ok("{}"),
        })
    };
    (ip, [start(18080), start(19000), start(19020)])
}

#[actix_rt::test]
async fn what_nodes_tell_is_shown_within_bounds_and_commands_no_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = "x".repeat(100_000);
    let loads = |load: &str| raw::answer("200 OK", &format!("X-P2PFaaS-Load: {load}\r\n"), b"");
    for (path, told, code, part) in [
        ("/", raw::ok(&json!({"version": "\u{1b}[2Jred\n"}).to_string()), 0, "\u{fffd}[2Jred"),
        ("/", raw::ok(&json!({"version": "v".repeat(8000)}).to_string()), 0, "vvv…"),
        ("/", raw::ok(&json!({"version": long}).to_string()), 69, "a string of 100000 bytes"),
        ("/", raw::ok("[1,2]"), 69, "no JSON object"),
        ("/configuration/scheduler", raw::ok(r#"["NoScheduler",["true"]]"#), 69, "no JSON object"),
        ("/configuration/scheduler", raw::ok(&"[".repeat(1 << 20)), 69, "no JSON object"),
        ("/list", raw::ok(&format!("[{}]", vec!["[]"; 500_000].join(","))), 69, "more than"),
        ("/monitoring/load", loads("-1"), 69, "no number from 0 to 4294967295"),
        ("/monitoring/load", loads("1e99"), 69, "no number from 0 to 4294967295"),
        (
            "/monitoring/load",
            raw::answer(
                "500 Oh",
                "",
                json!({"code": 1, "message": "\u{1b}[2Jbad".repeat(500)}).to_string().as_bytes(),
            ),
            69,
            "\u{fffd}[2Jbad",
        ),
    ] {
        let (ip, servers) = hostile(path, told);
        let (ended, table, said) =
            fleet(&["status", "--fleet", &file(&folder, &ip.to_string())]).await;
        assert_eq!(ended, Some(code), "{path}: {table}{said}");
        assert!(format!("{table}{said}").contains(part), "{path}: {part}: {table}{said}");
        assert!(table.len() + said.len() < 3000, "{}", table.len() + said.len());
        assert!(!table.contains('\u{1b}') && !said.contains('\u{1b}'), "{table}{said}");
        drop(servers);
    }
}
