//! `p2pfaas bench` against real nodes: a whole run, one that is interrupted, one whose node dies.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use common::process::{Process, told};
use common::raw::{self, RawServer};
use common::*;
use rusqlite::Connection;
use serde_json::{Value, json};

async fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    told(&[&["bench"], arguments].concat()).await
}

/// A folder with a fleet file of these nodes and a scenario.
fn scenario(nodes: &[&TestNode], text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let ips: Vec<String> = nodes.iter().map(|node| format!("{:?}", node.ip.to_string())).collect();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    write("fleet.toml", &format!("nodes = [{}]", ips.join(", ")));
    write("small.txt", "a payload");
    let path = write("scenario.toml", text);
    (folder, path)
}

fn open(path: &Path) -> Connection {
    Connection::open(path).expect("a database")
}

fn number(db: &Connection, sql: &str) -> f64 {
    db.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|why| panic!("{sql}: {why}"))
}

/// What the run's own table says of a key.
fn said(db: &Connection, key: &str) -> Value {
    let sql = "SELECT value FROM scenario WHERE key = ?";
    let text: String = db.query_row(sql, [key], |row| row.get(0)).expect(key);
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn output(folder: &tempfile::TempDir) -> (String, PathBuf) {
    let path = folder.path().join("out");
    (path.display().to_string(), path)
}

const SHORT: &str = r#"
    name = "short"
    function = "fn-sleep"
    payloads = [
        { file = "small.txt", content_type = "text/plain", mix = 3, query = "mean_ms=2" },
        { name = "slow", mix = 1, task_type = 1, query = "mean_ms=40&seed={seed}" },
    ]
    duration_s = 2
    rates = [40, 20]
    deadlines_s = [0.5, 0.01]
    schedulers = ["ForwardScheduler 1", "LearningScheduler 2"]
    learner = { actions_n = 4, alpha = 0.5 }
    learner_warm_up_s = 0.5
    train_batch = 5
"#;

#[actix_rt::test]
async fn a_run_from_scenario_to_report() {
    // Room for all calls, however slow the machine.
    let [one, other] = cluster::<2>(|settings| settings.queue_length_max = 200).await;
    let (folder, file) = scenario(&[&one, &other], SHORT);
    let (to, results) = output(&folder);
    let (code, table, log) = bench(&["run", &file, "--output", &to, "--csv"]).await;
    assert_eq!(code, Some(0), "{log}");
    for scheduler in ["ForwardScheduler 1", "LearningScheduler 2"] {
        assert!(table.lines().any(|line| line.starts_with(scheduler)), "{table}");
    }
    let db = open(&results.join("run-01.db"));
    // v1's columns, in v1's order.
    for (table, columns) in [
        (
            "jobs",
            "node_id, req_id, type_id, payload_name, requests_rate, time_total, time_execution, \
             times_parsed, res_status_code, res_error_code, req_net_error, req_net_error_message, \
             externally_executed, timestamp_start, timestamp_end, learning_state, \
             learning_action, learning_eps, learning_reward",
        ),
        ("timings", "node_id, req_id, payload_name, requests_rate, index_i, time_type, time_value"),
        (
            "values_strings",
            "node_id, req_id, payload_name, requests_rate, index_i, value_type, value_value",
        ),
    ] {
        let select = db.prepare(&format!("SELECT * FROM {table}")).expect("the table");
        let names: Vec<&str> = select.column_names().collect();
        assert_eq!(names.join(", "), columns);
    }
    // Poisson with mean 80 and 40; six standard deviations.
    let calls = |node: u8| number(&db, &format!("SELECT COUNT(*) FROM jobs WHERE node_id={node}"));
    assert!((calls(0) - 80.0).abs() < 54.0 && (calls(1) - 40.0).abs() < 38.0);
    let all = number(&db, "SELECT COUNT(*) FROM jobs");
    assert_eq!(number(&db, "SELECT COUNT(*) FROM jobs WHERE res_status_code = 200"), all);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM jobs WHERE externally_executed = 1"), all);
    assert_eq!(number(&db, "SELECT MIN(requests_rate) FROM jobs WHERE node_id = 0"), 40.0);
    assert!(number(&db, "SELECT MIN(time_total) FROM jobs WHERE payload_name = 'slow'") >= 0.04);
    let of = "SELECT COUNT(*) FROM jobs WHERE type_id = 1 AND payload_name = 'slow'";
    assert!(number(&db, of) > 0.0);
    let of = "SELECT COUNT(*) FROM jobs WHERE type_id = 0 AND payload_name = 'small.txt'";
    assert!(number(&db, of) > 0.0);
    // The entry node and the one that ran it, for every call.
    let early = "SELECT COUNT(*) FROM timings JOIN jobs USING (node_id, req_id, payload_name) \
        WHERE time_type = 'first_byte' AND time_value > 0 AND time_value <= time_total";
    assert_eq!(number(&db, early), all);
    let of = "SELECT COUNT(*) FROM timings WHERE time_type = 'service' AND index_i = 1";
    assert_eq!(number(&db, of), all);
    let of = format!(
        "SELECT COUNT(*) FROM values_strings v JOIN jobs j USING (node_id, req_id)
         WHERE node_id = 0 AND value_type = 'peer_ip' AND index_i = 1
         AND value_value = '{}'",
        other.ip
    );
    assert_eq!(number(&db, &of), calls(0));
    assert_eq!(said(&db, "end"), "complete");
    let version = said(&db, "nodes")[1]["version"].as_str().expect("text").to_owned();
    assert!(version.starts_with(p2pfaas::VERSION), "{version}");
    assert_eq!(said(&db, "nodes")[0]["configuration"]["queue_length_max"], 200);
    assert_eq!(said(&db, "scenario")["rates"], json!([40.0, 20.0]));
    assert_eq!(said(&db, "kept")["planned"], all);
    // The same requests under the next algorithm.
    let learnt = open(&results.join("run-02.db"));
    assert_eq!(number(&learnt, "SELECT COUNT(*) FROM jobs"), all);
    let sum = "SELECT SUM(timestamp_start - (SELECT MIN(timestamp_start) FROM jobs)) FROM jobs";
    assert!((number(&db, sum) - number(&learnt, sum)).abs() < 1e-2);
    let decided = "SELECT COUNT(*) FROM jobs WHERE learning_state LIKE '%,%' AND learning_eps > 0";
    assert_eq!(number(&learnt, decided), all);
    let right = "SELECT COUNT(*) FROM jobs WHERE learning_reward = (res_status_code = 200 AND
                 time_total <= CASE type_id WHEN 0 THEN 0.5 ELSE 0.01 END)";
    // Under an algorithm that does not learn, too.
    assert_eq!([number(&db, right), number(&learnt, right)], [all, all]);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM jobs WHERE learning_state = ''"), all);
    assert_eq!(said(&learnt, "kept")["trained"], all);
    assert_eq!(said(&learnt, "kept")["training_failed"], 0);
    // With what they decided before it was measured.
    let stats = [one.learner_stats().await, other.learner_stats().await];
    let decided: f64 = stats.iter().map(|of| of["inferences"].as_f64().expect("a number")).sum();
    assert!(decided > all, "{stats:?}");
    let parameters = get(&one.learner("/learner/parameters")).await.json();
    assert_eq!(parameters["running"]["actions_n"], 4);
    let csv = std::fs::read_to_string(results.join("run-01.jobs.csv")).expect("written");
    assert_eq!(csv.lines().count() as f64, all + 1.0);
    assert!(csv.starts_with("node_id,req_id,type_id,payload_name,"));
    // The same report once more, and its figures.
    let page = std::fs::read_to_string(results.join("report.html")).expect("written");
    let again = folder.path().join("again.html").display().to_string();
    let figures = folder.path().join("figures");
    let figures_text = figures.display().to_string();
    let arguments = ["report", &to, "--output", &again, "--figures", &figures_text];
    let (code, second, log) = bench(&arguments).await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(std::fs::read_to_string(&again).expect("written"), page);
    assert_eq!(second.lines().next(), table.lines().next());
    assert!(figures.join("run-02-actions.svg").exists() && figures.join("in-time.svg").exists());
    // Results are never written over.
    let (code, _, log) = bench(&["run", &file, "--output", &to]).await;
    assert_eq!(code, Some(78), "{log}");
}

#[actix_rt::test]
async fn nodes_that_reward_themselves_are_not_trained_by_the_bench() {
    let node = TestNode::start(|_| {});
    let (folder, file) = scenario(&[&node], SHORT);
    let (to, results) = output(&folder);
    let arguments = ["run", &file, "--output", &to, "--learning", "node", "--rates", "40"];
    let only = ["--schedulers", "LearningScheduler 2", "--learner-warm-up-s", "0"];
    let (code, _, log) = bench(&[&arguments[..], &only].concat()).await;
    assert_eq!(code, Some(0), "{log}");
    let db = open(&results.join("run-01.db"));
    assert_eq!(said(&db, "kept")["trained"], 0);
    let all = number(&db, "SELECT COUNT(*) FROM jobs");
    // What came of the calls is in the file whoever trains.
    let in_time = number(&db, "SELECT SUM(learning_reward) FROM jobs");
    assert!(0.0 < in_time && in_time < all, "{in_time} of {all}");
    let counted = eventually("all rewards are counted", || async {
        let rewards = node.learner_stats().await["rewards"].clone();
        let sum = |key: &str| -> f64 {
            let of = rewards[key].as_object().expect("by type");
            of.values().map(|n| n.as_f64().expect("a number")).sum()
        };
        (sum("in_time") + sum("missed") == all).then_some(rewards)
    })
    .await;
    assert!(counted["missed"]["1"].as_f64().is_some_and(|n| n > 0.0), "{counted}");
}

#[actix_rt::test]
async fn an_interrupted_run_keeps_what_it_has() {
    let node = TestNode::start(|_| {});
    for (signal, end) in [("-INT", "interrupted"), ("-KILL", "unknown")] {
        // Some calls are answered at once, some not before the end.
        let text = "rates = 50\nduration_s = 600\nfunction = \"fn-sleep\"\n\
                    payloads = [{ query = \"mean_ms=1\", mix = 99 }, { query = \"mean_ms=60000\" }]\n\
                    request_timeout_s = 600\nk = 1000\nchecks = false";
        let (folder, file) = scenario(&[&node], text);
        let (to, results) = output(&folder);
        let mut run = Process::start(&["bench", "run", &file, "--output", &to]);
        let path = results.join("run-01.db");
        let rows = |path: &Path| -> Option<f64> {
            let db = path.exists().then(|| open(path))?;
            db.query_row("SELECT COUNT(*) FROM jobs", [], |row| row.get(0)).ok()
        };
        let before =
            eventually("jobs are written", || async { rows(&path).filter(|rows| *rows > 200.0) })
                .await;
        run.signal(signal);
        let status = actix_rt::task::spawn_blocking(move || run.wait()).await.expect("it ends");
        assert_eq!(status.code(), (signal == "-INT").then_some(130));
        assert_eq!(results.join("report.html").exists(), signal == "-INT");
        let report = folder.path().join("later.html").display().to_string();
        let (code, table, log) = bench(&["report", &to, "--output", &report]).await;
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(rows(&path).is_some_and(|after| after >= before));
        let db = open(&path);
        assert_eq!(said(&db, "end"), end);
        if signal == "-INT" {
            // Those without an answer are told, too.
            let all = number(&db, "SELECT COUNT(*) FROM jobs");
            assert_eq!(said(&db, "kept")["planned"], all);
            let given_up =
                "SELECT COUNT(*) FROM jobs WHERE req_net_error_message LIKE 'interrupted%'";
            assert!(number(&db, given_up) > 0.0);
        }
    }
}

#[actix_rt::test]
async fn a_node_that_dies_midway_costs_its_own_calls_and_no_others() {
    let alive = TestNode::start(|_| {});
    let [ip] = fresh_ips();
    let folder = tempfile::tempdir().expect("a folder");
    let server = format!("{}", alive.ip);
    let below = folder.path().to_owned();
    let mut dying = actix_rt::task::spawn_blocking(move || {
        Process::node(ip, &below, &["--init-server", &server, "--scheduler", "NoScheduler false"])
    })
    .await
    .expect("it starts");
    let (_files, file) = scenario(&[&alive], "rates = 50\nduration_s = 8");
    let fleet = folder.path().join("hosts");
    std::fs::write(&fleet, format!("{}\n{ip}\n", alive.ip)).expect("written");
    let (to, results) = output(&folder);
    let hosts = fleet.display().to_string();
    let arguments = ["bench", "run", &file, "--output", &to, "--fleet", &hosts].map(str::to_owned);
    let run = actix_rt::task::spawn_blocking(move || {
        common::process::run(&arguments.each_ref().map(String::as_str), &[])
    });
    let path = results.join("run-01.db");
    eventually("it was called", || async {
        let db = path.exists().then(|| open(&path))?;
        let sql = "SELECT COUNT(*) FROM jobs WHERE node_id = 1 AND res_status_code = 200";
        let calls: Option<f64> = db.query_row(sql, [], |row| row.get(0)).ok();
        calls.filter(|calls| *calls > 0.0)
    })
    .await;
    dying.kill();
    let ended = run.await.expect("it ends");
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let db = open(&path);
    assert_eq!(said(&db, "end"), "complete");
    let calls = |node: u8, and: &str| {
        number(&db, &format!("SELECT COUNT(*) FROM jobs WHERE node_id = {node} AND {and}"))
    };
    assert_eq!(calls(0, "res_status_code != 200"), 0.0);
    let errors = calls(1, "req_net_error = 1 AND req_net_error_message != ''");
    assert!(errors > 0.0);
    assert_eq!(
        calls(1, "res_status_code = 200") + errors,
        calls(1, "1"),
        "each is one or the other"
    );
    assert_eq!(said(&db, "kept")["planned"], calls(0, "1") + calls(1, "1"));
}

#[actix_rt::test]
async fn what_would_spoil_a_run_is_found_before_it_with_the_node_and_what_to_do() {
    let [one, other] = cluster::<2>(|_| {}).await;
    let stranger = TestNode::start(|settings| settings.queue_length_max = 9);
    let (folder, file) = scenario(&[&one, &other, &stranger], "function = \"fn-none\"");
    let gone = fresh_ip();
    let fleet = folder.path().join("fleet.toml");
    let nodes = [one.ip, other.ip, stranger.ip, gone].map(|ip| format!("\"{ip}\"")).join(", ");
    std::fs::write(&fleet, format!("k = 3\nnodes = [{nodes}]")).expect("written");
    let (to, results) = output(&folder);
    let (code, _, log) = bench(&["run", &file, "--output", &to]).await;
    assert_eq!(code, Some(69), "{log}");
    let line = |ip: std::net::Ipv4Addr, part: &str| {
        log.lines().any(|line| line.starts_with(&format!("{ip}: ")) && line.contains(part))
    };
    assert!(line(gone, "start it"), "{log}");
    assert!(line(stranger.ip, "queue_length_max is 9, most have 4"), "{log}");
    assert!(line(one.ip, "K is 4, and 3 by") && log.contains("fleet apply"), "{log}");
    assert!(line(one.ip, &format!("does not list {}", stranger.ip)), "{log}");
    assert!(!line(one.ip, &format!("does not list {}", other.ip)), "{log}");
    assert!(!line(one.ip, &gone.to_string()), "one that is gone is not listed by anybody: {log}");
    assert!(line(other.ip, "fn-none does not answer") && log.contains("404"), "{log}");
    assert!(!results.exists(), "nothing is left behind");
}

#[actix_rt::test]
async fn a_stranger_in_the_cluster_and_parameters_no_learner_has_are_found_before_a_run() {
    let [one, other, stranger] = cluster::<3>(|_| {}).await;
    let text = "schedulers = [\"NoScheduler false\", \"LearningScheduler 1\"]\n\
                learner = { no_such_key = 1 }\n";
    let (folder, file) = scenario(&[&one, &other], text);
    let (to, results) = output(&folder);
    let (code, _, log) = bench(&["run", &file, "--output", &to]).await;
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains(&format!("{}: lists {}", one.ip, stranger.ip)), "{log}");
    assert!(log.contains(&format!("{}: learner no_such_key", other.ip)), "{log}");
    assert!(!results.exists(), "nothing is left behind");
}

#[actix_rt::test]
async fn a_learning_algorithm_that_the_nodes_have_by_themselves_is_trained_too() {
    let node = TestNode::start(|settings| settings.scheduler = "LearningScheduler 1".to_owned());
    let (folder, file) = scenario(&[&node], "rates = 60\nduration_s = 1\ndeadlines_s = 1");
    let (to, results) = output(&folder);
    let (code, _, log) = bench(&["run", &file, "--output", &to]).await;
    assert_eq!(code, Some(0), "{log}");
    let db = open(&results.join("run-01.db"));
    let all = number(&db, "SELECT COUNT(*) FROM jobs");
    assert_eq!(said(&db, "kept")["trained"], all);
    assert_eq!(said(&db, "point")["scheduler"]["name"], "LearningScheduler");
}

#[actix_rt::test]
async fn files_that_are_not_there_are_all_named_before_any_node_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("s.toml");
    let text = "payloads = [{ file = \"face.jpg\" }]\ntraces = \"t_{n}.csv\"\nfleet = \"hosts\"";
    std::fs::write(&file, text).expect("written");
    std::fs::write(folder.path().join("hosts"), "127.0.0.1\n").expect("written");
    let (code, _, log) = bench(&["run", &file.display().to_string()]).await;
    assert_eq!(code, Some(78));
    assert!(log.contains("face.jpg") && log.contains("t_0.csv"), "{log}");
    let (code, _, log) = bench(&["run", "--durations-s", "4"]).await;
    assert_eq!(code, Some(2), "{log}");
    let (code, _, log) = bench(&["report", &file.display().to_string()]).await;
    assert_eq!(code, Some(78), "{log}");
}

/// Loads what listens there with a hundred calls per second; answers with the results.
async fn load(ip: std::net::Ipv4Addr, more: &[&str]) -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, format!("{ip}\n")).expect("written");
    let hosts = hosts.display().to_string();
    let (to, results) = output(&folder);
    let flags = ["--checks", "false", "--rates", "100", "--arrivals", "deterministic"];
    let arguments = ["run", "--fleet", &hosts, "--output", &to];
    let (code, _, log) = bench(&[&arguments[..], &flags, more].concat()).await;
    assert_eq!(code, Some(0), "{log}");
    (folder, open(&results.join("run-01.db")))
}

#[actix_rt::test]
async fn a_slow_server_delays_no_call_and_those_beyond_the_bound_are_errors() {
    let ip = fresh_ip();
    let _server = RawServer::start(ip, 18080, |request| match request.path() {
        "/function/fn-echo" => raw::Reply::Hang,
        _ => raw::ok("{}"),
    });
    // A timeout far beyond the run, so that no call makes room for another.
    let flags = ["--duration-s", "0.4", "--in-flight-max", "5", "--request-timeout-s", "4"];
    let (folder, db) = load(ip, &flags).await;
    let like = |text: &str| {
        let sql = "SELECT COUNT(*) FROM jobs WHERE req_net_error_message LIKE '%";
        number(&db, &format!("{sql}{text}%'"))
    };
    assert_eq!((like("no answer within 4 s"), like("not sent: 5 calls")), (5.0, 35.0));
    let span = "SELECT MAX(timestamp_start) - MIN(timestamp_start) FROM jobs";
    assert!((number(&db, span) - 0.39).abs() < 1e-3, "as planned");
    assert!(number(&db, "SELECT MAX(time_total) FROM jobs") >= 4.0);
    let kept = said(&db, "kept");
    assert_eq!((&kept["planned"], &kept["not_sent"]), (&json!(40), &json!(35)));
    assert!(kept["sent_in_time"].as_u64() <= Some(5));
    // The load was not the planned one, and every way to look at the run says so.
    let (to, results) = output(&folder);
    let page = std::fs::read_to_string(results.join("report.html")).expect("written");
    assert!(page.contains("Disturbed: 1 of 1 runs."), "{page}");
    let again = folder.path().join("again.html").display().to_string();
    let (code, table, log) = bench(&["report", &to, "--output", &again]).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(table.lines().any(|line| line.contains("(disturbed)")), "{table}");
    assert!(log.contains("Disturbed: 1 of 1 runs."), "{log}");
}

#[actix_rt::test]
async fn any_server_can_be_loaded_with_calls_that_have_the_contracts_headers() {
    let ip = fresh_ip();
    let server = RawServer::start(ip, 18080, |_| raw::ok("{}"));
    let (_folder, db) = load(ip, &["--duration-s", "1"]).await;
    assert_eq!(number(&db, "SELECT COUNT(*) FROM jobs WHERE res_status_code = 200"), 100.0);
    let ids = server.requests();
    let id = |n: u8| format!("n0t{n}");
    let sent = |id: &str| {
        ids.iter().any(|request| request.header("x-p2pfaas-scheduler-task-tracing-id") == id)
    };
    assert!(sent(&id(0)) && sent(&id(99)) && !sent(&id(100)));
}

#[actix_rt::test]
async fn recorded_calls_come_when_and_where_they_should_and_take_what_they_took() {
    let [one, other] = cluster::<2>(|_| {}).await;
    // Functions go round the nodes; a second is five recorded ones, and the last call is beyond the run.
    let text = "function = \"fn-sleep\"\nduration_s = 1\n\
                recording = { file = \"recorded.csv\", from_s = 1, speed = 5 }\n\
                payloads = [{ name = \"recorded\", query = \"mean_ms={duration_ms}\" }]";
    let (folder, file) = scenario(&[&one, &other], text);
    let rows = "app,func,end_timestamp,duration\na,f,100.5,0.5\na,g,101.75,0.25\na,h,103.0625,0.0625\n\
                a,g,104.125,0.125\na,f,120,1\n";
    std::fs::write(folder.path().join("recorded.csv"), rows).expect("written");
    let (to, results) = output(&folder);
    let (code, _, log) = bench(&["run", &file, "--output", &to]).await;
    assert_eq!(code, Some(0), "{log}");
    let db = open(&results.join("run-01.db"));
    assert_eq!(said(&db, "kept")["planned"], 3);
    let started = said(&db, "started").as_f64().expect("a number");
    // Planned times, and times that a sleep is not shorter than; five times the rate of the recorded minute.
    for (at_s, node, took_s, rate) in
        [(0.1, 1, 0.25, 2.0 / 12.0), (0.4, 0, 0.0625, 3.0 / 12.0), (0.6, 1, 0.125, 2.0 / 12.0)]
    {
        let of = format!(
            "SELECT COUNT(*) FROM jobs WHERE node_id = {node} AND res_status_code = 200
             AND ABS(timestamp_start - {started} - {at_s}) < 1e-5 AND time_total >= {took_s}
             AND ABS(requests_rate - {rate}) < 1e-9"
        );
        assert_eq!(number(&db, &of), 1.0, "{at_s}");
    }
}

#[actix_rt::test]
async fn the_example_that_init_writes_is_not_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mine.toml").display().to_string();
    let (code, _, log) = bench(&["init", &file]).await;
    assert_eq!(code, Some(0), "{log}");
    let written = std::fs::read_to_string(&file).expect("written");
    assert!(written.contains("deadlines_s = "));
    std::fs::write(&file, "mine").expect("written");
    assert_eq!(bench(&["init", &file]).await.0, Some(78));
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "mine");
}

#[actix_rt::test]
async fn a_v1_node_is_loaded_and_trained_as_by_its_own_client() {
    let ip = fresh_ip();
    let eids = AtomicU64::new(1);
    let scheduler = RawServer::start(ip, 18080, move |request| match request.path() {
        "/" => raw::ok(r#"{"name":"p2p-faas","version":"0.3.0b","version_commit":""}"#),
        "/configuration" => raw::ok(
            r#"{"parallel_running_functions_max":4,"queue_length_max":4,"queue_enabled":true}"#,
        ),
        "/configuration/scheduler" => raw::ok(r#"{"name":"LearningScheduler","parameters":["1"]}"#),
        "/monitoring/load" => {
            raw::answer("200 OK", "X-P2PFaaS-Load: 0\r\nX-P2PFaaS-MaxLoad: 4\r\n", b"")
        }
        _ => {
            let eid = eids.fetch_add(1, Ordering::SeqCst);
            let head = format!(
                "X-P2pfaas-Scheduler-Learning-Eid: {eid}\r\n\
                 X-P2pfaas-Scheduler-Learning-State: 0.000000,1.000000,0.000000\r\n\
                 X-P2pfaas-Scheduler-Learning-Action: 1.000000\r\n\
                 X-P2pfaas-Scheduler-Learning-Eps: 0.900000\r\n"
            );
            raw::answer("200 OK", &head, b"")
        }
    });
    let _discovery = RawServer::start(ip, 19000, |_| raw::ok("[]"));
    let parameters = golden_json("146-learn-params-get.txt").to_string();
    let learner = RawServer::start(ip, 19020, move |request| match request.path() {
        "/learner/parameters" => raw::ok(&parameters),
        _ => raw::ok("ok"),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, format!("{ip}\n")).expect("written");
    let hosts = hosts.display().to_string();
    let (to, results) = output(&folder);
    let arguments = ["run", "--fleet", &hosts, "--output", &to, "--duration-s", "1"];
    let more = ["--rates", "60", "--deadlines-s", "5", "--train-batch", "7"];
    let (code, _, log) = bench(&[&arguments[..], &more].concat()).await;
    assert_eq!(code, Some(0), "{log}");
    let db = open(&results.join("run-01.db"));
    let all = number(&db, "SELECT COUNT(*) FROM jobs");
    let requests = learner.requests();
    let batches: Vec<Value> = requests
        .iter()
        .filter(|request| request.path() == "/train_batch")
        .map(|request| request.json())
        .collect();
    let entries: Vec<&Value> =
        batches.iter().flat_map(|batch| batch.as_array().expect("a list")).collect();
    assert_eq!(entries.len() as f64, all);
    assert!(batches.iter().all(|batch| batch.as_array().is_some_and(|all| all.len() <= 7)));
    let first = entries.iter().find(|entry| entry["eid"] == "2").expect("the call after the check");
    let state = "0.000000,1.000000,0.000000";
    assert_eq!(**first, json!({"eid": "2", "state": state, "action": "1.0", "reward": 1.0}));
    assert!(requests.iter().any(|request| request.path() == "/learner/reset"));
    // It has no reward to choose, and is asked for none.
    let posts = requests.iter().filter(|request| request.line().starts_with("POST"));
    assert!(posts.clone().all(|request| request.path() == "/train_batch"), "nothing else");
    let posts = scheduler.requests();
    let posts = posts.iter().filter(|request| request.line().starts_with("POST"));
    assert!(posts.clone().all(|request| request.path() == "/function/fn-echo"));
    assert_eq!(posts.count() as f64, all + 1.0, "and the check's");
}
