//! The command line, as scripts use it.

mod common;

use common::process::{Process, run, told};
use common::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_is_complete_on_every_subcommand() {
    let top = text(&run(&["--help"], &[]).stdout);
    for subcommand in ["node", "cluster", "function", "health"] {
        assert!(top.contains(subcommand), "{top}");
    }
    let node = text(&run(&["node", "--help"], &[]).stdout);
    for flag in [
        "--host",
        "--machine-ip",
        "--machine-id",
        "--group",
        "--data-path",
        "--init-server",
        "--route",
        "--embedded-functions",
        "--workers",
        "--scheduler",
        "--k",
        "--queue-length",
        "--config",
        "--print-config",
        "--admin",
    ] {
        assert!(node.contains(flag), "{flag}");
    }
    assert!(node.contains("PowerOfNSchedulerTau fan_out threshold loss max_hops tau"));
    assert!(node.contains("function_timeout_s"));
    let cluster = text(&run(&["cluster", "--help"], &[]).stdout);
    for flag in ["--base", "--data-path", "--scheduler", "--k", "--queue-length"] {
        assert!(cluster.contains(flag), "{flag}");
    }
}

#[test]
fn the_printed_configuration_has_every_layer_and_reads_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    std::fs::write(folder.path().join("p2p_faas-scheduler.json"), r#"{"queue_length_max":77}"#)
        .expect("written");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "poll_time_s = 9.0\nworkers = 3").expect("written");
    let config = config.display().to_string();
    let arguments = [
        "node",
        "--config",
        &config,
        "--data-path",
        &path,
        "--print-config",
        "--k",
        "11",
        "--workers",
        "2",
        "--route",
        "fn-a=http://10.0.0.1:1/",
        "--scheduler",
        "NoScheduler T",
        "--init-server",
        "10.0.0.1",
        "--init-server",
        "10.0.0.2",
    ];
    let printed = run(&arguments, &[("P2PFAAS_POLL_TIMEOUT", "3")]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let printed: toml::Table = text(&printed.stdout).parse().expect("TOML");
    for (key, value) in [
        ("poll_time_s", "9.0"),
        ("poll_timeout_s", "3.0"),
        ("workers", "2"),
        ("parallel_running_functions_max", "11"),
        ("queue_length_max", "77"),
        ("scheduler", "\"NoScheduler true\""),
        ("init_servers", "[\"10.0.0.1\", \"10.0.0.2\"]"),
    ] {
        assert_eq!(printed[key].to_string(), value, "{key}");
    }
    std::fs::write(folder.path().join("again.toml"), printed.to_string()).expect("written");
    let again = folder.path().join("again.toml").display().to_string();
    let again = run(&["node", "--config", &again, "--print-config"], &[]);
    assert!(again.status.success(), "{}", text(&again.stderr));
}

#[test]
fn bad_configuration_ends_with_a_telling_code_and_names_every_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let bad = run(
        &["node", "--data-path", &path, "--workers", "0"],
        &[("P2PFAAS_POLL_TIME", "never"), ("P2PFAAS_SCHEDULER", "Nope")],
    );
    assert_eq!(bad.status.code(), Some(78));
    let why = text(&bad.stderr);
    for key in ["workers", "poll_time_s", "scheduler"] {
        assert!(why.contains(key), "{key} is not in {why}");
    }
    assert_eq!(run(&["node", "--scheduler", "Nope 1"], &[]).status.code(), Some(2));
    assert_eq!(run(&["node", "--no-such-flag"], &[]).status.code(), Some(2));

    let file = folder.path().join("p2p_faas-scheduler.json");
    std::fs::write(&file, "{nope").expect("written");
    let unreadable = run(&["node", "--data-path", &path], &[]);
    assert_eq!(unreadable.status.code(), Some(78));
    assert!(text(&unreadable.stderr).contains("p2p_faas-scheduler.json"));
    assert_eq!(std::fs::read_to_string(file).expect("there"), "{nope", "left as it is");

    let nowhere = run(&["node", "--data-path", "/proc/nowhere"], &[]);
    assert_eq!(nowhere.status.code(), Some(78));
    assert!(text(&nowhere.stderr).contains("/proc/nowhere"));
}

#[test]
fn an_address_that_cannot_be_listened_on_ends_with_69() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    let ended = run(&["node", "--data-path", &path, "--host", "192.0.2.1"], &[]);
    assert_eq!(ended.status.code(), Some(69));
    assert!(text(&ended.stderr).contains("192.0.2.1:18080"));
}

#[test]
fn a_second_node_on_a_data_path_does_not_start_and_names_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, other] = [fresh_ip(), fresh_ip()];
    let mut first = Process::node(one, folder.path(), &[]);
    let (ip, path) = (other.to_string(), folder.path().display().to_string());
    let path = format!("{path}/{one}");
    let second = run(&["node", "--host", &ip, "--data-path", &path], &[]);
    assert_eq!(second.status.code(), Some(69));
    let told = text(&second.stderr);
    assert!(told.contains(&path) && told.contains(&first.id().to_string()), "{told}");
    // Killed without a word, it leaves nothing that keeps the next one out.
    first.kill();
    Process::node(one, folder.path(), &[]).kill();
}

#[actix_rt::test]
async fn a_cluster_prints_a_curl_line_that_works_and_its_nodes_know_each_other() {
    let ips = fresh_ips::<3>();
    let base = ips[0];
    let mut cluster = Process::start(&["cluster", "3", "--base", &base.to_string(), "--k", "2"]);
    let line = cluster.wait_for("curl ");
    let arguments: Vec<&str> = line.split_whitespace().skip(1).collect();
    let answered = std::process::Command::new("curl").args(&arguments).output().expect("curl runs");
    let answered = text(&answered.stdout);
    assert!(answered.starts_with("HTTP/1.1 200 OK") && answered.ends_with("hello"), "{answered}");
    for ip in ips {
        let list = get(&format!("http://{ip}:19000/list")).await.json();
        assert_eq!(list.as_array().expect("a list").len(), 2);
        let config = get(&format!("http://{ip}:18080/configuration")).await.json();
        assert_eq!(config["parallel_running_functions_max"], 2);
    }
    cluster.signal("-INT");
    assert_eq!(cluster.wait().code(), Some(0));
}

#[actix_rt::test]
async fn a_clusters_data_path_keeps_what_was_configured() {
    let folder = tempfile::tempdir().expect("a folder");
    let (base, path) = (fresh_ip().to_string(), folder.path().display().to_string());
    let arguments = ["cluster", "1", "--base", &base, "--data-path", &path];
    let url = format!("http://{base}:18080/configuration");
    let mut cluster = Process::start(&arguments);
    cluster.wait_for("curl ");
    assert_eq!(post(&url, r#"{"queue_length_max":9}"#).await.status, 200);
    cluster.signal("-TERM");
    assert_eq!(cluster.wait().code(), Some(0));
    let mut again = Process::start(&arguments);
    again.wait_for("curl ");
    assert_eq!(get(&url).await.json()["queue_length_max"], 9);
}

#[actix_rt::test]
async fn a_node_writes_nothing_outside_its_data_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let ip = fresh_ip();
    let node = Process::node(ip, folder.path(), &[]);
    post(&format!("http://{ip}:18080/configuration"), "{}").await;
    drop(node);
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, [ip.to_string().as_str()]);
}

#[actix_rt::test]
async fn an_embedded_function_runs_as_a_program_of_its_own_behind_a_node() {
    let (function_ip, folder) = (fresh_ip(), tempfile::tempdir().expect("a folder"));
    let listen = format!("{function_ip}:8080");
    let mut function = Process::start(&["function", "fn-echo", "--listen", &listen]);
    eventually("it answers", || async {
        let health = try_send("GET", &format!("http://{listen}/_/health"), &[], "").await;
        health.is_ok_and(|answered| answered.status == 200).then_some(())
    })
    .await;
    let (ip, route) = (fresh_ip(), format!("mine=http://{listen}/"));
    let _node = Process::node(ip, folder.path(), &["--route", &route]);
    let answered = post(&format!("http://{ip}:18080/function/mine"), "hello").await;
    assert_eq!((answered.status, &*answered.text()), (200, "hello"));
    function.signal("-TERM");
    assert_eq!(function.wait().code(), Some(0));
}

#[test]
fn logs_are_text_or_json_and_carry_the_tracing_id_across_nodes() {
    let (folder, ips) = (tempfile::tempdir().expect("a folder"), [fresh_ip(), fresh_ip()]);
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "log_format = \"json\"\nlog_env = \"development\"").expect("written");
    let config = config.display().to_string();
    let start = |ip, other: std::net::Ipv4Addr| {
        let other = other.to_string();
        let more =
            ["--config", &config, "--init-server", &other, "--scheduler", "ForwardScheduler 1"];
        Process::node(ip, folder.path(), &more)
    };
    let mut nodes = [start(ips[0], ips[1]), start(ips[1], ips[0])];
    actix_rt::System::new().block_on(async {
        let url = format!("http://{}:18080/function/fn-echo", ips[0]);
        eventually("a call is forwarded", || async {
            let answered = send("POST", &url, &[(TRACING, "n7t42")], "x").await;
            (answered.header("x-p2pfaas-hops") == "1").then_some(())
        })
        .await;
    });
    for node in &mut nodes {
        let line = node.wait_for("n7t42");
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["span"]["tracing_id"], "n7t42");
    }
}

#[test]
fn strangers_fill_no_log() {
    use std::io::{Read, Write};
    let (folder, ip) = (tempfile::tempdir().expect("a folder"), fresh_ip());
    let mut node = Process::node(ip, folder.path(), &[]);
    for n in 0..300 {
        let mut stream = std::net::TcpStream::connect((ip, 18080)).expect("it listens");
        stream.write_all(b"GET / HTTP/9.9\r\nbad header\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // A machine that comes once is listed, which is worth a line.
        let mut stream = std::net::TcpStream::connect((ip, 19000)).expect("it listens");
        let call = format!(
            "GET /list HTTP/1.1\r\nHost: x\r\nUser-Agent: Machine\r\n\
             P2pfaas-Machine-Ip: 10.99.1.{}\r\nConnection: close\r\n\r\n",
            n % 250
        );
        stream.write_all(call.as_bytes()).expect("sent");
        let _ = stream.read_to_end(&mut answer);
    }
    let metrics = actix_rt::System::new()
        .block_on(async { get(&format!("http://{ip}:18080/metrics")).await.text() });
    let dropped = metrics.lines().find_map(|line| {
        line.strip_prefix("p2pfaas_log_lines_dropped_total ")?.parse::<u64>().ok()
    });
    assert!(dropped.expect("a metric") >= 200, "{metrics}");
    node.signal("-TERM");
    node.wait();
    let lines = node.rest();
    assert!(lines.len() < 150, "{} lines", lines.len());
    assert!(!lines.iter().any(|line| line.contains("stream error")), "{lines:?}");
}

#[test]
fn traces_are_written_one_a_node_and_the_same_again_for_the_same_seed() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, seed: &str| {
        let path = folder.path().join(name);
        let shown = path.display().to_string();
        let arguments =
            ["bench", "trace", "--nodes", "3", "--points", "10", "--seed", seed, &shown];
        let ended = run(&arguments, &[]);
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        let day = |node| std::fs::read_to_string(path.join(format!("traffic_node_{node}.csv")));
        [0, 1, 2].map(|node| day(node).expect("written"))
    };
    let [first, again, other] = [write("a", "1"), write("b", "1"), write("c", "2")];
    assert_eq!(first, again);
    assert!(first[0] != other[0] && first[0] != first[1]);
    assert_eq!(first[0].lines().count(), 10);
}

#[actix_rt::test]
async fn health_is_0_while_a_server_serves_and_69_when_there_is_none() {
    let node = TestNode::start(|_| {});
    let (code, _, complaint) = told(&["health", &node.url("/health")]).await;
    assert_eq!((code, &*complaint), (Some(0), ""));
    let (code, _, complaint) = told(&["health", &node.url("/nothing-here")]).await;
    assert_eq!(code, Some(69));
    assert!(complaint.contains("404"), "{complaint}");
    let nobody = format!("http://{}:18080/health", fresh_ip());
    let (code, _, complaint) = told(&["health", &nobody]).await;
    assert_eq!(code, Some(69));
    assert!(complaint.contains(&nobody), "{complaint}");
}

#[test]
fn health_asks_the_node_that_the_environment_describes() {
    let folder = tempfile::tempdir().expect("a folder");
    let ip = fresh_ip();
    let _node = Process::node(ip, folder.path(), &[]);
    let host = ip.to_string();
    let environment = [("P2PFAAS_HOST", &*host)];
    assert_eq!(run(&["health"], &environment).status.code(), Some(0));
    let other = [environment[0], ("P2PFAAS_SCHEDULER_PORT", "18081")];
    assert_eq!(run(&["health"], &other).status.code(), Some(69));
}
