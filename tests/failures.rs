//! What a client sees when things fail or change under load: nothing, wherever that is possible.

#![expect(clippy::disallowed_methods, reason = "what is tested goes on in real time")]

mod common;

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::process::Process;
use common::raw::{RawServer, Reply, ok};
use common::*;
use futures_util::future::join_all;

/// How often each (status, code) came, code 0 for a success.
type Load = actix_rt::task::JoinHandle<HashMap<(u16, u64), usize>>;

/// Calls `url` over and over on `clients` connections until told to stop, and counts the answers.
fn load(url: String, clients: usize) -> (Rc<Cell<bool>>, Rc<Cell<usize>>, Load) {
    let (stop, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let (stopped, counter) = (Rc::clone(&stop), Rc::clone(&done));
    let all = actix_rt::spawn(async move {
        let one = || async {
            let client = client();
            let mut seen = HashMap::<(u16, u64), usize>::new();
            while !stopped.get() {
                let sent = client.post(&url).send_body("x").await;
                let mut answer = sent.expect("an answer");
                let body = answer.body().await.expect("a body");
                let status = answer.status().as_u16();
                let code = if status == 200 {
                    0
                } else {
                    let error: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                    error["code"].as_u64().expect("a code")
                };
                *seen.entry((status, code)).or_default() += 1;
                counter.set(counter.get() + 1);
            }
            seen
        };
        let mut total = HashMap::new();
        for seen in join_all((0..clients).map(|_| one())).await {
            seen.into_iter().for_each(|(key, n)| *total.entry(key).or_default() += n);
        }
        total
    });
    (stop, done, all)
}

async fn calls_reach(done: &Cell<usize>, wanted: usize) {
    eventually("the load goes on", || async { (done.get() >= wanted).then_some(()) }).await;
}

#[actix_rt::test]
async fn a_swap_under_load_loses_refuses_and_doubles_nothing() {
    let executed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&executed);
    let function = RawServer::start(fresh_ip(), 0, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        ok("x")
    });
    let nodes = cluster::<2>(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
        settings.parallel_running_functions_max = 2;
        settings.queue_length_max = 100;
        settings.workers = 2;
    })
    .await;
    let (stop, done, all) = load(nodes[0].url("/function/fn"), 8);
    for round in 0..60 {
        calls_reach(&done, round * 10).await;
        let words = [
            "NoScheduler false",
            "PowerOfNScheduler 1 1 true 1",
            "ForwardScheduler 1",
            "PowerOfNSchedulerTau 1 1 true 1 1ms",
        ];
        nodes[0].set_scheduler(words[round % words.len()]).await;
    }
    stop.set(true);
    let seen = all.await.expect("the load ends");
    let total: usize = seen.values().sum();
    assert_eq!(seen.get(&(200, 0)), Some(&total), "{seen:?}");
    assert_eq!(executed.load(Ordering::SeqCst), total, "each ran once");
}

#[actix_rt::test]
async fn k_changed_under_load_holds_at_once_and_loses_nothing() {
    let (running, executed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // The most that ran at once since the test last looked.
    let most = Arc::new(AtomicUsize::new(0));
    let counts = (Arc::clone(&running), Arc::clone(&executed), Arc::clone(&most));
    let function = RawServer::start(fresh_ip(), 0, move |_| {
        let (running, executed, most) = &counts;
        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        running.fetch_sub(1, Ordering::SeqCst);
        executed.fetch_add(1, Ordering::SeqCst);
        ok("x")
    });
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
        settings.queue_length_max = 100;
        settings.workers = 2;
    });
    let (stop, done, all) = load(node.url("/function/fn"), 16);
    for (round, k) in [1usize, 8, 2, 5, 1, 3].into_iter().cycle().take(24).enumerate() {
        let change = format!(r#"{{"parallel_running_functions_max":{k}}}"#);
        assert_eq!(post(&node.url("/configuration"), change).await.status, 200);
        // Those that ran when K was lowered finish; from then on K holds.
        eventually("the surplus finishes", || async {
            (node.state().gate.load().running as usize <= k).then_some(())
        })
        .await;
        most.store(0, Ordering::SeqCst);
        calls_reach(&done, (round + 1) * 10).await;
        // One may still be between the function's answer and its slot's return.
        assert!(most.load(Ordering::SeqCst) <= k, "K = {k}");
    }
    stop.set(true);
    let seen = all.await.expect("the load ends");
    let total: usize = seen.values().sum();
    assert_eq!(seen.get(&(200, 0)), Some(&total), "{seen:?}");
    assert_eq!(executed.load(Ordering::SeqCst), total);
}

/// Three node processes that know each other.
async fn processes(folder: &std::path::Path, more: &[&str]) -> Vec<(Ipv4Addr, Process)> {
    let ips = [fresh_ip(), fresh_ip(), fresh_ip()];
    let first = ips[0].to_string();
    let nodes: Vec<_> = ips
        .into_iter()
        .map(|ip| (ip, Process::node(ip, folder, &[&["--init-server", &first], more].concat())))
        .collect();
    for ip in ips {
        eventually("they know each other", || async {
            (listed(ip).await.len() == 2).then_some(())
        })
        .await;
    }
    nodes
}

async fn listed(ip: Ipv4Addr) -> Vec<String> {
    let list = get(&format!("http://{ip}:19000/list")).await.json();
    let machines = list.as_array().expect("a list").clone();
    machines.iter().map(|m| m["ip"].as_str().expect("an ip").to_owned()).collect()
}

#[actix_rt::test]
async fn a_killed_peer_costs_only_the_calls_that_ran_on_it_and_leaves_the_list_in_ten_seconds() {
    const CLIENTS: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let more = ["--scheduler", "ForwardScheduler 1", "--k", "100"];
    let mut nodes = processes(folder.path(), &more).await;
    let entry = nodes[0].0;
    let url = format!("http://{entry}:18080/function/fn-echo");
    let (stop, done, all) = load(url.clone(), CLIENTS);
    calls_reach(&done, 500).await;
    let killed = Instant::now();
    nodes[1].1.kill();
    let dead = nodes[1].0.to_string();
    calls_reach(&done, done.get() + 1000).await;
    eventually("it leaves the list", || async {
        (!listed(entry).await.contains(&dead)).then_some(())
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    stop.set(true);
    let mut seen = all.await.expect("the load ends");
    let fine = seen.remove(&(200, 0)).unwrap_or(0);
    // Those that ran on it; and since a dying process loses its sockets one by one, a client's next
    // call may still have been taken by one of them.
    let broken = seen.remove(&(500, 403)).unwrap_or(0);
    assert!(seen.is_empty() && broken <= 3 * CLIENTS, "{fine} fine, {broken} broken, {seen:?}");

    let (stop, done, all) = load(url, CLIENTS);
    calls_reach(&done, 500).await;
    stop.set(true);
    let seen = all.await.expect("the load ends");
    let total: usize = seen.values().sum();
    assert_eq!(seen.get(&(200, 0)), Some(&total), "from then on all is well: {seen:?}");
}

#[actix_rt::test]
async fn a_node_told_to_stop_finishes_what_runs_and_takes_nothing_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let ip = fresh_ip();
    let mut node = Process::node(ip, folder.path(), &["--k", "1"]);
    let url = |ms: u32| format!("http://{ip}:18080/function/fn-sleep?mean_ms={ms}");
    let (running, waiting) =
        (actix_rt::spawn(posted(url(1500))), actix_rt::spawn(posted(url(100))));
    eventually("one runs, one waits", || async {
        let load = get(&format!("http://{ip}:18080/monitoring/load")).await;
        (load.header("x-p2pfaas-load") == "1" && load.header("x-p2pfog-queue-length") == "1")
            .then_some(())
    })
    .await;
    node.signal("-TERM");
    eventually("it takes nothing new", || async {
        try_send("POST", &url(0), &[], "x").await.is_err().then_some(())
    })
    .await;
    assert_eq!(running.await.expect("joins").status, 200);
    assert_eq!(waiting.await.expect("joins").status, 200, "it was accepted, so it is served");
    assert_eq!(node.wait().code(), Some(0));
}

async fn posted(url: String) -> Answered {
    post(&url, "x").await
}

#[actix_rt::test]
async fn calls_that_outlast_the_drain_time_are_answered_not_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "drain_timeout_s = 1").expect("written");
    let ip = fresh_ip();
    let config = config.display().to_string();
    let mut node = Process::node(ip, folder.path(), &["--k", "1", "--config", &config]);
    let url = format!("http://{ip}:18080/function/fn-sleep?mean_ms=60000");
    let calls = [actix_rt::spawn(posted(url.clone())), actix_rt::spawn(posted(url))];
    eventually("one runs, one waits", || async {
        let load = get(&format!("http://{ip}:18080/monitoring/load")).await;
        (load.header("x-p2pfog-queue-length") == "1").then_some(())
    })
    .await;
    node.signal("-INT");
    let mut codes = Vec::new();
    for call in calls {
        let answered = call.await.expect("joins");
        assert_eq!(answered.status, 500);
        codes.push(answered.code());
    }
    codes.sort_unstable();
    assert_eq!(codes, [1, 400], "the running one was given up, the waiting one never started");
    assert_eq!(node.wait().code(), Some(0));
}

#[actix_rt::test]
async fn kill_9_at_any_moment_leaves_files_that_the_next_start_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let ip = fresh_ip();
    for round in 0..8u32 {
        let mut node = Process::node(ip, folder.path(), &[]);
        let url = format!("http://{ip}:18080/configuration");
        let (stop, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (stopped, counter) = (Rc::clone(&stop), Rc::clone(&done));
        let writes = actix_rt::spawn(async move {
            let mut k = 1;
            while !stopped.get() {
                k = k % 100 + 1;
                let change = format!(
                    r#"{{"parallel_running_functions_max":{k},"scheduler":{{"name":"ForwardScheduler","parameters":["{k}"]}}}}"#
                );
                if try_send("POST", &url, &[], change).await.is_err() {
                    break;
                }
                counter.set(counter.get() + 1);
            }
        });
        calls_reach(&done, 5).await;
        // A different point of the writing each time.
        tokio::time::sleep(Duration::from_micros(u64::from(round) * 700)).await;
        node.kill();
        stop.set(true);
        writes.await.expect("joins");
    }
    let _node = Process::node(ip, folder.path(), &[]);
    let config = get(&format!("http://{ip}:18080/configuration/scheduler")).await.json();
    assert_eq!(config["name"], "ForwardScheduler");
}

#[actix_rt::test]
async fn a_function_that_dies_in_the_middle_of_its_head_is_502_and_frees_its_slot() {
    // In the middle of its body, when the head is on its way to the client: see tests/streaming.rs.
    let function = RawServer::start(fresh_ip(), 0, |_| {
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnec".to_vec())
    });
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
        settings.function_timeout_s = 1.0;
    });
    let call = actix_rt::spawn(posted(node.url("/function/fn")));
    eventually("it was asked", || async { (!function.requests().is_empty()).then_some(()) }).await;
    drop(function);
    let answered = call.await.expect("joins");
    assert_eq!((answered.status, answered.code()), (502, 5));
    assert_eq!(node.state().gate.load().running, 0);
}

/// What a client gets that connects to a node, and sends its call when the node says that it stops; nothing, if
/// the connection was closed.
fn answer_at_the_stop(folder: &Path) -> String {
    let ip = fresh_ip();
    let mut node = Process::node(ip, folder, &[]);
    let mut connection = TcpStream::connect((ip, 18080)).expect("it listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("it can be");
    node.signal("-TERM");
    node.wait_for("stopping");
    let call = "POST /function/fn-echo HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let mut answer = String::new();
    if connection.write_all(call.as_bytes()).is_ok() {
        let _ = connection.read_to_string(&mut answer);
    }
    assert!(node.wait().success());
    answer
}

#[test]
fn a_connection_of_the_last_moment_may_bring_its_call_though_the_node_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    // The moment may be over before a busy machine has sent the call.
    let was_answered = (0..10).any(|_| {
        let answer = answer_at_the_stop(folder.path());
        let is_whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi");
        assert!(is_whole || answer.is_empty(), "{answer}");
        is_whole
    });
    assert!(was_answered);
}
