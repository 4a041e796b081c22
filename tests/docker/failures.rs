//! A node of three is frozen, killed, cut off from the network, and comes back, while clients call
//! the other two under PowerOfN.

#![expect(clippy::disallowed_methods, reason = "containers live in real time")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::common::*;
use crate::engine::{Container, Network, docker, engine};
use crate::nodes::{Cluster, Node};
use crate::{FORWARD, RAN_ELSEWHERE};

/// Between two calls to one node. A call takes 50 ms in the mean, drawn from an exponential
/// distribution, so that the load is often at the threshold, 2, and seldom at K, 4.
const BETWEEN: Duration = Duration::from_millis(30);
/// How long clients call before the event, and after the time that it may be felt.
const WATCHED: Duration = Duration::from_secs(6);
/// Calls of one node in that time: the same ones again, so that times can be compared.
const DRAWN: u128 = WATCHED.as_millis() / BETWEEN.as_millis();
/// More than a frozen node's calls wait for it here.
const PATIENT: Duration = Duration::from_secs(60);
/// The time within which the others must have noticed.
const FELT: Duration = Duration::from_secs(6);

/// What a client was told, and when it asked.
struct Told {
    asked: Instant,
    took: Duration,
    result: Result<Answered, String>,
}

impl Told {
    fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|answer| answer.status == 200)
    }

    /// Whether the call was running on the node at `ip`: handed to it, and lost with it.
    fn was_lost_with(&self, ip: Ipv4Addr) -> bool {
        self.result.as_ref().is_ok_and(|answer| {
            answer.status == 500 && answer.code() == 403 && answer.text().contains(&ip.to_string())
        })
    }

    fn ran_on(&self, ip: Ipv4Addr) -> bool {
        self.result.as_ref().is_ok_and(|answer| {
            answer.header(RAN_ELSEWHERE) == "True"
                && answer.names("x-p2pfaas-peers-list-ip").contains(&ip.to_string())
        })
    }
}

async fn call(url: String, headers: &'static [(&'static str, &'static str)]) -> Told {
    let asked = Instant::now();
    let result = send_patiently("POST", &url, headers, "x", PATIENT).await;
    let result = result.map_err(|why| why.to_string());
    Told { asked, took: asked.elapsed(), result }
}

/// Calls `node` at a steady rate until told to stop, whatever becomes of earlier calls; waits for
/// them all.
async fn client(node: String, until: tokio::sync::watch::Receiver<bool>) -> Vec<Told> {
    let mut calls = Vec::new();
    let mut next = tokio::time::interval(BETWEEN);
    for number in 0.. {
        if *until.borrow() {
            break;
        }
        next.tick().await;
        let seed = number % DRAWN;
        let url = format!("{node}/function/fn-sleep?mean_ms=50&dist=exponential&seed={seed}");
        calls.push(actix_rt::spawn(call(url, &[])));
    }
    let ended = futures_util::future::join_all(calls).await;
    ended.into_iter().map(|call| call.expect("joins")).collect()
}

/// A call of nine seconds by a client of `node` that runs on `there` and not on `other`. Nobody else
/// calls meanwhile.
async fn long_call(node: &Node, there: &Node, other: &Node) -> actix_rt::task::JoinHandle<Told> {
    for _ in 0..20 {
        let url = node.url("/function/fn-sleep?mean_ms=9000");
        let task = actix_rt::spawn(call(url, FORWARD));
        let runs = |on: &Node| {
            let metrics = on.url("/metrics");
            async move { get(&metrics).await.text().contains("\np2pfaas_running 1\n") }
        };
        let landed = eventually("a peer runs the call", || async {
            if runs(there).await { Some(true) } else { runs(other).await.then_some(false) }
        });
        if landed.await {
            return task;
        }
        // A client that hangs up ends its call.
        task.abort();
        let over = || async { (!runs(other).await).then_some(()) };
        eventually("the call is over", over).await;
    }
    panic!("of two peers the same one was chosen at random twenty times");
}

/// Calls of `nodes` that waited for a node that is not there: probes that failed, and forwards that
/// could not be connected.
async fn waits_of(nodes: &[&Node]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        let text = get(&node.url("/metrics")).await.text();
        let counts = |line: &&str| {
            line.starts_with(r#"p2pfaas_probes_total{result="failed"}"#)
                || line.starts_with("p2pfaas_forwards_total{") && line.contains("unreachable")
        };
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        sum += text.lines().filter(counts).filter_map(value).sum::<f64>();
    }
    sum
}

fn share(told: &[&Told], share: f64) -> Duration {
    let mut times: Vec<Duration> = told.iter().map(|told| told.took).collect();
    times.sort();
    times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default()
}

/// Breaks the third node by `event`, watches, mends it by `mend`, watches again. A call that was
/// running there is lost, or `waits` until the node is back. Both are arguments for `docker`.
#[expect(clippy::too_many_lines, reason = "one course of events")]
async fn without_the_third(
    name: &str,
    waits: bool,
    event: impl Fn(&Network, &Container) -> Vec<String>,
    mend: impl Fn(&Network, &Container) -> Vec<String>,
) {
    let Some(_engine) = engine() else { return };
    let scheduler = ["-e", "P2PFAAS_SCHEDULER=PowerOfNScheduler 1 2 true 1"];
    let queue = ["-e", "P2PFAAS_QUEUE_LENGTH_MAX=20"];
    let mut cluster = Cluster::start(&["fn-sleep"], &[scheduler, queue].concat()).await;
    let [first, second, third] = &cluster.nodes;
    let gone = third.ip;
    let long = long_call(first, third, second).await;
    let (stop, until) = tokio::sync::watch::channel(false);
    let clients = [first, second].map(|node| actix_rt::spawn(client(node.url(""), until.clone())));
    tokio::time::sleep(WATCHED).await;

    let event_at = Instant::now();
    docker_beside(event(&cluster.network, &third.container)).await;
    // What the command itself takes is not the nodes'.
    tokio::time::sleep(FELT).await;
    let waited = waits_of(&[first, second]).await;
    let quiet_from = Instant::now();
    tokio::time::sleep(WATCHED).await;
    assert_eq!(
        waits_of(&[first, second]).await,
        waited,
        "{name}: calls wait for the node that is gone"
    );
    assert_eq!(first.listed().await, [second.ip]);
    let mended_at = Instant::now();
    docker_beside(mend(&cluster.network, &third.container)).await;
    let back = cluster.nodes[2].container.ip();
    cluster.nodes[2].ip = back;
    cluster.is_whole().await;
    let whole_at = Instant::now();
    tokio::time::sleep(WATCHED).await;
    stop.send_replace(true);
    let long = long.await.expect("joins");
    let as_it_must = if waits { long.is_good() } else { long.was_lost_with(gone) };
    assert!(as_it_must, "{name}: the call that ran there: {:?}", long.result);
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.expect("joins"));
    }

    for call in &told {
        let why = || {
            format!(
                "{name}: asked {:?} after the event: {:?}",
                call.asked.saturating_duration_since(event_at),
                call.result
            )
        };
        assert!(call.is_good() || call.was_lost_with(gone), "{}", why());
        let quiet = call.asked >= quiet_from && call.asked < mended_at;
        assert!(!quiet || call.is_good() && !call.ran_on(gone), "{}", why());
        assert!(call.asked < whole_at || call.is_good(), "{}", why());
    }
    assert!(
        told.iter().any(|call| call.asked < event_at && call.ran_on(gone)),
        "{name}: forwarded"
    );
    assert!(told.iter().any(|call| call.asked >= whole_at && call.ran_on(back)), "{name}: again");

    let during = |from: Instant, to: Instant| -> Vec<&Told> {
        told.iter().filter(|call| call.asked >= from && call.asked < to).collect()
    };
    let far = Instant::now();
    for (when, calls) in [
        ("before", during(event_at - WATCHED, event_at)),
        ("0 to 6 s after", during(event_at, quiet_from)),
        ("6 to 12 s after", during(quiet_from, mended_at)),
        ("back", during(whole_at, far)),
    ] {
        let lost = calls.iter().filter(|call| !call.is_good()).count();
        println!(
            "{name}, {when}: {} calls, {lost} lost, ms p50 {} p99 {} max {}",
            calls.len(),
            share(&calls, 0.5).as_millis(),
            share(&calls, 0.99).as_millis(),
            share(&calls, 0.9999).as_millis(),
        );
    }
}

/// Runs `docker` beside this thread, on which the clients are.
async fn docker_beside(arguments: Vec<String>) {
    let ran = actix_rt::task::spawn_blocking(move || {
        docker(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    });
    ran.await.expect("joins");
}

fn does(what: &'static str) -> impl Fn(&Network, &Container) -> Vec<String> {
    move |_, container| vec![what.to_owned(), container.name.clone()]
}

#[actix_rt::test]
async fn a_node_that_is_frozen_costs_only_the_calls_that_ran_on_it() {
    without_the_third("frozen", true, does("pause"), does("unpause")).await;
}

#[actix_rt::test]
async fn a_node_that_is_killed_costs_only_the_calls_that_ran_on_it() {
    without_the_third("killed", false, does("kill"), does("start")).await;
}

#[actix_rt::test]
async fn a_node_that_is_cut_off_costs_only_the_calls_that_ran_on_it() {
    without_the_third("cut off", false, Network::disconnect, Network::connect).await;
}
