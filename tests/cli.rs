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
    for subcommand in ["node", "cluster", "function", "health", "completions", "man"] {
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
    for default in ["[default: 4]", "[default: /data]", "[default: PowerOfNScheduler 1 2 true 1]"] {
        assert!(node.contains(default), "{default}: {node}");
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

#[test]
fn a_start_that_fails_leaves_no_folder_behind_that_it_made() {
    let above = tempfile::tempdir().expect("a folder");
    let start = |path: &std::path::Path| {
        let path = path.display().to_string();
        run(&["node", "--data-path", &path, "--host", "192.0.2.1"], &[]).status.code()
    };
    assert_eq!(start(&above.path().join("lib/p2pfaas")), Some(69));
    assert!(!above.path().join("lib").exists(), "nor what was made above it");
    let before = above.path().join("before");
    std::fs::create_dir(&before).expect("made");
    assert_eq!(start(&before), Some(69));
    assert!(before.exists(), "what was there stays");
}

/// Runs the program with both outputs into a pipe that nobody reads.
fn run_unread(arguments: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_p2pfaas"));
    let stderr = writer.try_clone().expect("a second end");
    command.args(arguments).stdin(std::process::Stdio::null()).stdout(writer).stderr(stderr);
    command.status().expect("it runs").code()
}

#[test]
fn a_reader_that_is_gone_ends_no_command_otherwise_than_its_work_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, scenario, traces, pages) =
        (path("data"), path("mine.toml"), path("traces"), path("man"));
    for (arguments, code) in [
        (&["node", "--data-path", &data, "--print-config"][..], 0),
        (&["bench", "init", &scenario], 0),
        (&["bench", "trace", "--nodes", "1", "--points", "4", &traces], 0),
        (&["completions", "bash"], 0),
        (&["man"], 0),
        (&["man", "--out", &pages], 0),
        (&["--help"], 0),
        // What failed is told by the code, though nobody reads why.
        (&["fleet", "status", "--fleet", "/nonexistent"], 78),
    ] {
        assert_eq!(run_unread(arguments), Some(code), "{arguments:?}");
    }
    assert!(std::path::Path::new(&scenario).exists(), "the work is done");
}

#[test]
fn an_output_that_cannot_be_written_for_another_reason_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_p2pfaas"));
    let ended = command.arg("man").stdout(full).output().expect("it runs");
    assert_eq!(ended.status.code(), Some(70));
    assert!(text(&ended.stderr).contains("cannot be written"), "{}", text(&ended.stderr));
}

/// A program that does not outlive the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[actix_rt::test]
async fn a_node_whose_logs_nobody_reads_any_more_serves_on() {
    use std::io::BufRead;
    use std::process::Stdio;
    let (ip, folder) = (fresh_ip(), tempfile::tempdir().expect("a folder"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_p2pfaas"));
    command.args(["node", "--host", &ip.to_string(), "--data-path"]).arg(folder.path());
    command.env("P2PFAAS_LOG_ENV", "development").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut node = Child(command.spawn().expect("it starts"));
    let logs = std::io::BufReader::new(node.0.stderr.take().expect("a pipe"));
    // As `head -1` does; the reader is dropped with the iterator.
    let first = logs.lines().next().expect("a line").expect("text");
    assert!(!first.is_empty());
    let url = format!("http://{ip}:18080");
    let health = format!("{url}/health");
    eventually("it serves", || async {
        let answered = try_send("GET", &health, &[], "").await;
        answered.is_ok_and(|answered| answered.status == 200).then_some(())
    })
    .await;
    // Each of these is worth a line.
    for length in 5..8 {
        let body = format!(r#"{{"queue_length_max":{length}}}"#);
        assert_eq!(post(&format!("{url}/configuration"), body).await.status, 200);
    }
    let scheduler = r#"{"name":"NoScheduler","parameters":["true"]}"#;
    let scheduler = post(&format!("{url}/configuration/scheduler"), scheduler).await;
    assert_eq!(scheduler.status, 200);
    let metrics = get(&format!("{url}/metrics")).await.text();
    let restarts = metrics.lines().filter(|line| line.starts_with("p2pfaas_actor_restarts_total"));
    assert!(restarts.clone().all(|line| line.ends_with(" 0")), "{metrics}");
}

#[test]
fn keys_are_lines_of_their_own_so_that_two_files_together_are_two_keys() {
    let new = || text(&run(&["key", "new"], &[]).stdout);
    let (one, other) = (new(), new());
    assert!(one != other && one.len() == 65 && one.ends_with('\n'), "{one:?}");
    let keys = p2pfaas::trust::read_keys(&format!("{one}{other}"));
    assert_eq!(keys.map(|keys| keys.len()), Ok(2));
}

#[test]
fn there_is_a_script_for_every_shell_and_a_manual_page_for_every_subcommand() {
    for (shell, part) in [
        ("bash", "complete -F _p2pfaas"),
        ("zsh", "#compdef p2pfaas"),
        ("fish", "complete -c p2pfaas"),
    ] {
        let script = text(&run(&["completions", shell], &[]).stdout);
        assert!(script.contains(part) && script.contains("queue-length"), "{shell}");
    }
    assert_eq!(run(&["completions", "no-such-shell"], &[]).status.code(), Some(2));
    let page = text(&run(&["man"], &[]).stdout);
    assert!(page.contains(".TH p2pfaas 1") && page.contains("cluster"), "{page}");
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("share/man1");
    let ended = run(&["man", "--out", &pages.display().to_string()], &[]);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    for (page, part) in [
        ("p2pfaas.1", "p2pfaas\\-node"),
        ("p2pfaas-node.1", "poll_time_s"),
        ("p2pfaas-cluster.1", "base"),
        ("p2pfaas-bench-run.1", "csv"),
        ("p2pfaas-fleet-reset-learners.1", "fleet"),
        ("p2pfaas-man.1", "out"),
    ] {
        let written = std::fs::read_to_string(pages.join(page)).expect(page);
        assert!(written.contains(part), "{page}: {written}");
    }
    let unwritable = run(&["man", "--out", "/proc/nowhere"], &[]);
    assert_eq!(unwritable.status.code(), Some(78));
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
