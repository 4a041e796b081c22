//! The token that changes want, on real nodes: every route that changes something, on every port, and the tools
//! that change nodes.

mod common;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::process::{Process, run, told_in};
use common::raw::{RawServer, ok};
use common::tls::{Certified, front};
use common::*;
use p2pfaas::config::{Admin, Settings};
use p2pfaas::keys::Secret;
use serde_json::json;

const TOKEN: &str = "a-token-that-opens-this-door";
/// What nothing that is shown may have.
const HIDDEN: &str = "that-opens";

fn with_token(settings: &mut Settings) {
    settings.admin_token = Secret::new(TOKEN);
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A route: port, method, path.
type RouteKey = (u16, String, String);

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file")
}

/// The routes of the reference that change something, and those that do not. (A test of the book holds the
/// reference to the program.)
fn routes() -> (BTreeSet<RouteKey>, BTreeSet<RouteKey>) {
    let text = read("docs/http.md");
    let (mut changing, mut reading) = (BTreeSet::new(), BTreeSet::new());
    for port in [18080, 19000, 19020] {
        let section = text.split(&format!("## Port {port}")).nth(1).expect("a section");
        let section = section.split("\n## ").next().expect("one");
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cell = row.split(" | ").next().expect("a cell");
            let pieces: Vec<&str> = cell.split('`').collect();
            for (piece, after) in pieces.iter().zip(&pieces[1..]).skip(1).step_by(2) {
                // Other tables of the section name other things.
                let Some((method, path)) = piece.split_once(" /") else { continue };
                let path = format!("/{}", path.replace("{fn}", "fn-echo"));
                let of = if after.starts_with(" ✎") { &mut changing } else { &mut reading };
                of.insert((port, method.to_owned(), path));
            }
        }
    }
    (changing, reading)
}

/// How many changing routes the program has: what it does not answer to GET, and GETs that change something.
fn changing_in_source() -> usize {
    let text = read("src/http/routes.rs");
    let text = text.split("/// A path and the methods").next().expect("the routes");
    let methods = [".changing_get(", ".post(", ".put(", ".delete("];
    let all: usize = methods.iter().map(|method| text.matches(method).count()).sum();
    // The greeting answers POST as well, and a note is between nodes, like a call.
    let others = [".post(node_api::greeting)", ".post(node_api::note)"];
    all - others.iter().map(|other| text.matches(other).count()).sum::<usize>()
}

#[actix_rt::test]
async fn every_change_wants_the_token_on_every_port_and_nothing_else_does() {
    let gateway = RawServer::start(fresh_ip(), 8080, |_| ok("done"));
    let host =
        gateway.url().trim_start_matches("http://").split(':').next().expect("one").to_owned();
    let node = TestNode::start(|settings| {
        with_token(settings);
        settings.openfaas_enabled = true;
        settings.openfaas_host = host;
    });
    let (changing, reading) = routes();
    assert_eq!(
        changing.len(),
        changing_in_source(),
        "docs/http.md marks all changes: {changing:?}"
    );
    let right = bearer(TOKEN);
    let (short, long) = (bearer(&TOKEN[1..]), bearer(&format!("{TOKEN}x")));
    for (port, method, path) in &changing {
        let url = format!("http://{}:{port}{path}", node.ip);
        for wrong in [None, Some(""), Some(TOKEN), Some(&*short), Some(&*long), Some("Basic eDp5")]
        {
            let headers: Vec<_> = wrong.iter().map(|wrong| ("Authorization", *wrong)).collect();
            let answered = send(method, &url, &headers, "{}").await;
            let told = (answered.status, answered.code(), answered.header("www-authenticate"));
            assert_eq!(told, (401, 1, "Bearer"), "{method} {url} {wrong:?}");
            assert!(!answered.text().contains(HIDDEN), "{}", answered.text());
        }
        let answered = send(method, &url, &[("Authorization", &right)], "{}").await;
        assert!(![401, 403].contains(&answered.status), "{method} {url}: {}", answered.text());
        assert_eq!(answered.header("www-authenticate"), "", "{method} {url}");
        let foreign = [("Authorization", &*right), ("Origin", "http://evil.example")];
        assert_eq!(send(method, &url, &foreign, "{}").await.status, 403, "{method} {url}");
    }
    for (port, method, path) in &reading {
        let answered = send(method, &format!("http://{}:{port}{path}", node.ip), &[], "").await;
        assert_ne!(answered.status, 401, "{method} {path} on {port}");
    }
    let (act, state) = (node.learner("/act"), [("X-P2pfaas-Learning-State", "1.0")]);
    assert_eq!(send("GET", &act, &state, "").await.status, 200);
    let (mut socket, _) = websocket::Client::connect(node.ip, 8765, "/");
    assert!(socket.ask("[1.0]").contains(','), "decisions stay open");
    let metrics = get(&node.url("/metrics")).await.text();
    let refused = 6 * changing.len();
    let line = format!("p2pfaas_refusals_total{{kind=\"token\"}} {refused}");
    assert!(metrics.contains(&line) && !metrics.contains(HIDDEN), "{metrics}");
    for seen in gateway.requests() {
        assert!(!seen.header("authorization").contains("Bearer"), "it went on to the gateway");
    }
    assert!(gateway.requests().len() > 4);
}

#[actix_rt::test]
async fn the_header_of_a_call_is_the_functions_own() {
    let function = RawServer::start(fresh_ip(), 0, |_| ok("done"));
    let route = function.url();
    let node = TestNode::start(|settings| {
        with_token(settings);
        settings.routes.0.insert("fn".to_owned(), route);
    });
    let answered =
        send("POST", &node.url("/function/fn"), &[("Authorization", "Bearer x")], "").await;
    assert_eq!(answered.status, 200);
    assert_eq!(function.requests().pop().expect("called").header("authorization"), "Bearer x");
}

#[actix_rt::test]
async fn whom_admin_closes_out_the_token_does_not_let_in() {
    for (admin, status) in [(Admin::Any, 200), (Admin::Loopback, 200), (Admin::Off, 403)] {
        let node = TestNode::start(|settings| {
            with_token(settings);
            settings.admin = admin;
            settings.open_training = true;
        });
        let right = bearer(TOKEN);
        let url = node.url("/configuration");
        let with = send("POST", &url, &[("Authorization", &right)], "{}").await.status;
        assert_eq!(with, status, "{admin:?}");
        let without = post(&url, "{}").await.status;
        assert_eq!(without, if status == 200 { 401 } else { 403 }, "{admin:?}");
        let batch = r#"[{"eid":1,"state":"1","action":0,"reward":1}]"#;
        let trained = post(&node.learner("/train_batch"), batch).await.status;
        assert_eq!(
            trained, status,
            "{admin:?}: training is open, but to those that --admin allows"
        );
        let reset = get(&node.learner("/learner/reset")).await.status;
        assert_eq!(
            reset,
            if status == 200 { 401 } else { 403 },
            "{admin:?}: a reset is no training"
        );
    }
    let node = TestNode::start(|settings| settings.open_training = false);
    let batch = r#"[{"eid":1,"state":"1","action":0,"reward":1}]"#;
    let trained = post(&node.learner("/train_batch"), batch).await.status;
    assert_eq!(trained, 200, "there is no token");
}

/// A file with the token.
fn token_file(folder: &Path) -> PathBuf {
    let path = folder.join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).expect("written");
    path
}

#[actix_rt::test]
async fn the_token_of_a_file_is_read_again_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = token_file(folder.path());
    let node = TestNode::start(|settings| settings.admin_token_file = Some(path.clone()));
    let status = async |token: &str| {
        let token = bearer(token);
        send("POST", &node.url("/configuration"), &[("Authorization", &token)], "{}").await.status
    };
    assert_eq!(status(TOKEN).await, 200);
    std::fs::write(&path, "the-next-token-of-this-node").expect("written");
    node.state().trust.admin_token.reload();
    assert_eq!((status(TOKEN).await, status("the-next-token-of-this-node").await), (401, 200));
    std::fs::write(&path, "short").expect("written");
    node.state().trust.admin_token.reload();
    assert_eq!((status("short").await, status("the-next-token-of-this-node").await), (401, 200));
}

/// What a node that is started so prints and says, until it ends or serves.
fn texts(output: &std::process::Output) -> String {
    [&output.stdout[..], &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

#[test]
fn nothing_that_is_printed_has_the_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, file) = (folder.path().join("data"), folder.path().join("node.toml"));
    let data = data.display().to_string();
    std::fs::write(&file, format!("admin_token = \"{TOKEN}\"\nworkers = 3\n")).expect("written");
    let file = file.display().to_string();
    let arguments = ["node", "--data-path", &data, "--config", &file, "--print-config"];
    let printed = run(&arguments, &[]);
    assert!(printed.status.success(), "{}", texts(&printed));
    let text = texts(&printed);
    assert!(
        text.starts_with("# admin_token is set and not shown") && !text.contains(HIDDEN),
        "{text}"
    );
    let again = folder.path().join("again.toml");
    std::fs::write(&again, &printed.stdout).expect("written");
    let again = again.display().to_string();
    let arguments = ["node", "--data-path", &data, "--config", &again, "--print-config"];
    let printed_again = run(&arguments, &[("P2PFAAS_ADMIN_TOKEN", TOKEN)]);
    assert_eq!(texts(&printed_again), text, "what is printed can be read again");
    let no_text = std::ffi::OsStr::from_bytes(b"that-opens-but-is-no-text-\xff");
    let node = std::process::Command::new(env!("CARGO_BIN_EXE_p2pfaas"))
        .args(["node", "--data-path", &data])
        .env("P2PFAAS_ADMIN_TOKEN", no_text)
        .output()
        .expect("it runs");
    assert_eq!(node.status.code(), Some(78), "it does not begin without one: {}", texts(&node));
    for (name, value) in [
        ("P2PFAAS_ADMIN_TOKEN", "that-opens"),
        ("P2PFAAS_ADMIN_TOKEN", "that-opens that-opens"),
        ("P2PFAAS_ADMIN_TOKEN_FILE", "/nonexistent/token"),
    ] {
        let output = run(&["node", "--data-path", &data], &[(name, value)]);
        let said = texts(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("admin_token") && !said.contains(HIDDEN), "{said}");
    }
    let both = [("P2PFAAS_ADMIN_TOKEN", TOKEN), ("P2PFAAS_ADMIN_TOKEN_FILE", "/run/token")];
    let said = texts(&run(&["node", "--data-path", &data], &both));
    assert!(said.contains("only one of them") && !said.contains(HIDDEN), "{said}");
    let flag = run(&["node", "--admin-token", TOKEN], &[]);
    assert_eq!(flag.status.code(), Some(2), "everybody would see it: {}", texts(&flag));
}

#[actix_rt::test]
async fn the_log_has_not_the_token_however_much_is_logged() {
    let (folder, ip) = (tempfile::tempdir().expect("a folder"), fresh_ip());
    let (host, data) = (ip.to_string(), folder.path().join("data").display().to_string());
    let arguments = ["node", "--host", &host, "--data-path", &data, "--workers", "1"];
    let environment = [("P2PFAAS_ADMIN_TOKEN", TOKEN), ("RUST_LOG", "trace")];
    let mut node = Process::start_in(&arguments, &environment);
    node.wait_for("the node serves");
    let url = format!("http://{ip}:18080/configuration");
    for token in [TOKEN, "another-that-opens-nothing"] {
        let token = bearer(token);
        let answered = send("POST", &url, &[("Authorization", &token)], "{}").await;
        assert_eq!(answered.status, if token.ends_with("door") { 200 } else { 401 });
    }
    node.signal("-TERM");
    node.wait();
    let said = node.rest().join("\n");
    assert!(!said.is_empty() && !said.contains(HIDDEN), "{said}");
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[actix_rt::test]
async fn fleet_changes_nodes_with_the_token_of_the_environment_or_of_a_file() {
    let node = TestNode::start(with_token);
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("nodes = [\"{}\"]\nk = 3\ngroup = \"lab\"\n[learner]\nalpha = 0.5", node.ip);
    let file = written(folder.path(), "fleet.toml", &text);
    let apply = ["fleet", "apply", &*file];
    let (code, _, said) = told_in(&apply, &[]).await;
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("status 401") && said.contains("admin token"), "{said}");
    let (code, _, said) = told_in(&apply, &[("P2PFAAS_ADMIN_TOKEN", "another-that-opens")]).await;
    assert!(code == Some(69) && !said.contains(HIDDEN), "{said}");
    let (code, _, said) = told_in(&apply, &[("P2PFAAS_ADMIN_TOKEN", "short that-opens")]).await;
    assert!(code == Some(78) && !said.contains(HIDDEN), "{said}");
    let token = token_file(folder.path()).display().to_string();
    let (code, _, said) = told_in(&apply, &[("P2PFAAS_ADMIN_TOKEN_FILE", &token)]).await;
    assert_eq!((code, &*said), (Some(0), ""));
    assert_eq!(get(&node.url("/configuration")).await.json()["parallel_running_functions_max"], 3);
    let of_environment = [("P2PFAAS_ADMIN_TOKEN", TOKEN)];
    for arguments in [
        &["fleet", "scheduler", "--fleet", &file, "RejectScheduler"][..],
        &["fleet", "reset-learners", "--fleet", &file],
        &["fleet", "status", "--fleet", &file],
    ] {
        let (code, out, said) = told_in(arguments, &of_environment).await;
        assert_eq!((code, &*said), (Some(0), ""), "{out}");
    }
    let (code, status, _) = told_in(&["fleet", "status", "--fleet", &file], &[]).await;
    assert!(code == Some(0) && status.contains("RejectScheduler"), "looking needs none: {status}");
}

/// A node behind addresses of its own, whose scheduler port speaks TLS there, and the certificate.
async fn behind_tls(
    change: impl FnOnce(&mut Settings),
) -> (TestNode, std::net::Ipv4Addr, Certified) {
    let node = TestNode::start(change);
    let at = fresh_ip();
    let certified = Certified::new(&[&at.to_string()]);
    front((at, 18080), (node.ip, 18080), Some(&certified)).await;
    front((at, 19000), (node.ip, 19000), None).await;
    front((at, 19020), (node.ip, 19020), None).await;
    (node, at, certified)
}

#[actix_rt::test]
async fn fleet_asks_by_https_where_the_file_says_so_and_believes_what_it_is_given() {
    let (node, at, certified) = behind_tls(with_token).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = written(folder.path(), "ca.pem", &certified.pem);
    let other = written(folder.path(), "other.pem", &Certified::new(&[&at.to_string()]).pem);
    let text = format!("tls = true\nnodes = [\"{at}\"]\nk = 2\ngroup = \"lab\"");
    let file = written(folder.path(), "fleet.toml", &text);
    let token = ("P2PFAAS_ADMIN_TOKEN", TOKEN);
    let apply = ["fleet", "apply", &*file];
    let (code, _, said) = told_in(&apply, &[token]).await;
    assert!(code == Some(78) && said.contains("--ca FILE"), "{said}");
    let (code, _, said) = told_in(&apply, &[token, ("P2PFAAS_CA_FILE", &other)]).await;
    assert!(code == Some(69) && said.contains(&format!("https://{at}:18080")), "{said}");
    assert_eq!(get(&node.url("/configuration")).await.json()["parallel_running_functions_max"], 4);
    let (code, _, said) = told_in(&apply, &[token, ("P2PFAAS_CA_FILE", &ca)]).await;
    assert_eq!((code, &*said), (Some(0), ""));
    assert_eq!(get(&node.url("/configuration")).await.json()["parallel_running_functions_max"], 2);
    // A hosts file has no keys, so a flag says it.
    let hosts = written(folder.path(), "hosts", &format!("{at}\n"));
    let status = ["fleet", "status", "--fleet", &hosts, "--tls", "--ca", &ca];
    let (code, told, said) = told_in(&status, &[]).await;
    assert_eq!((code, &*said), (Some(0), ""), "{told}");
    let (code, _, _) = told_in(&["fleet", "status", "--fleet", &hosts], &[]).await;
    assert_eq!(code, Some(69), "by http nobody answers there");
}

#[actix_rt::test]
async fn bench_sets_up_trains_and_calls_nodes_with_a_token_by_https() {
    let (node, at, certified) = behind_tls(|settings| {
        with_token(settings);
        settings.scheduler = "LearningScheduler 2".to_owned();
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let ca = written(folder.path(), "ca.pem", &certified.pem);
    written(folder.path(), "hosts", &format!("{at}\n"));
    let scenario = "fleet = \"hosts\"\ntls = true\nduration_s = 1\nrates = 40\nk = 3\n\
        deadlines_s = [1]\nlearning = \"client\"\ntrain_batch = 5\n";
    let scenario = written(folder.path(), "s.toml", scenario);
    let output = folder.path().join("out").display().to_string();
    let arguments = ["bench", "run", &scenario, "--output", &output, "--ca", &ca];
    let (code, _, said) = told_in(&arguments, &[]).await;
    assert!(code == Some(69) && said.contains("status 401"), "{said}");
    let (code, out, said) = told_in(&arguments, &[("P2PFAAS_ADMIN_TOKEN", TOKEN)]).await;
    assert_eq!(code, Some(0), "{out}{said}");
    assert_eq!(get(&node.url("/configuration")).await.json()["parallel_running_functions_max"], 3);
    let trained = node.learner_stats().await["trained_items"].as_u64().expect("a number");
    assert!(trained > 5, "{trained}");
    let metrics = get(&node.url("/metrics")).await.text();
    assert!(metrics.contains("outcome=\"executed\""), "{metrics}");
    for entry in std::fs::read_dir(&output).expect("results") {
        let bytes = std::fs::read(entry.expect("one").path()).expect("readable");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(HIDDEN), "results do not have the token");
    }
}

#[actix_rt::test]
async fn health_asks_a_node_that_serves_by_tls_for_its_own_certificate() {
    let node = TestNode::start(|_| {});
    let at = fresh_ip();
    // A certificate for a name that has nothing to do with where it is asked.
    let certified = Certified::new(&["node.example"]);
    front((at, 18080), (node.ip, 18080), Some(&certified)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let cert = written(folder.path(), "cert.pem", &certified.pem);
    let key = written(folder.path(), "key.pem", &certified.key_pem);
    let other = written(folder.path(), "other.pem", &Certified::new(&["node.example"]).pem);
    let host = at.to_string();
    let at_node = |cert: &str| {
        [("P2PFAAS_HOST", &*host), ("P2PFAAS_TLS_CERT", cert), ("P2PFAAS_TLS_KEY", &*key)]
            .map(|(name, value)| (name, value.to_owned()))
    };
    for (cert, want) in [(&*cert, 0), (&other, 69), ("/nonexistent", 78)] {
        let environment = at_node(cert);
        let environment = environment.each_ref().map(|(name, value)| (*name, &**value));
        let (code, out, said) = told_in(&["health"], &environment).await;
        assert_eq!(code, Some(want), "{cert}: {out}{said}");
    }
    let named = Certified::new(&[&node.ip.to_string()]);
    front((at, 28080), (node.ip, 18080), Some(&named)).await;
    let url = format!("https://{at}:28080/health");
    let ca = written(folder.path(), "named.pem", &named.pem);
    let (code, _, said) = told_in(&["health", &url], &[]).await;
    assert!(code == Some(78) && said.contains("--ca FILE"), "{said}");
    let (code, _, _) = told_in(&["health", &url, "--ca", &ca], &[]).await;
    assert_eq!(code, Some(69), "the certificate is for another address");
    let right = Certified::new(&[&host]);
    front((at, 38080), (node.ip, 18080), Some(&right)).await;
    let url = format!("https://{at}:38080/health");
    let ca = written(folder.path(), "right.pem", &right.pem);
    assert_eq!(told_in(&["health", &url, "--ca", &ca], &[]).await.0, Some(0));
}

#[test]
fn a_cluster_takes_the_token_of_the_environment() {
    let base = fresh_ips::<2>()[0].to_string();
    let mut cluster =
        Process::start_in(&["cluster", "2", "--base", &base], &[("P2PFAAS_ADMIN_TOKEN", TOKEN)]);
    cluster.wait_for("Ctrl-C stops them");
    actix_rt::System::new().block_on(async {
        let url = format!("http://{base}:18080/configuration");
        assert_eq!(post(&url, "{}").await.status, 401);
        let right = bearer(TOKEN);
        assert_eq!(send("POST", &url, &[("Authorization", &right)], "{}").await.status, 200);
        assert_eq!(get(&url).await.json()["queue_enabled"], json!(true));
    });
}
