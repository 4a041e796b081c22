//! What holds always, and what a fault may cost.
//!
//! A call is *served* if it is answered with 200 and its own body. Else it is
//!
//! - *entry gone*, if the node that it was sent to had been killed, or had closed its port before it stopped: no node
//!   can answer for a connection that it does not have. (Those that the system had taken and the node had not yet are
//!   reset when a port is closed.);
//! - *on the lost node*, if the answer is 500 with code 403 and names a peer that was killed, or cut off from the
//!   entry node, while the call was there: it may have run, so nobody may run it again;
//! - *lost* otherwise, refusals for want of room among them.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::cluster::{CALL_PORT, Cluster, Gone, Outage};
use super::function::Runs;
use super::load::{Answer, Call, Outcome};
use super::node::K;
use super::wait_until;

/// What memory may grow by, in percent; and in KiB where that is more: such a node holds some 5 MiB of its own, and its
/// allocator, with an arena a thread, keeps a mebibyte or two of what was used once.
const GROWTH_PERCENT: u64 = 10;
const GROWTH_KIB: u64 = 3072;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    Served,
    EntryGone,
    OnLostNode,
    Lost,
}

/// The fate of a call; see above.
pub fn fate(call: &Call, outages: &[Outage]) -> Fate {
    let ended = call.began + call.took;
    let meanwhile = |outage: &&Outage| {
        outage.from <= ended && outage.until.is_none_or(|until| call.began <= until)
    };
    let mut outages = outages.iter().filter(meanwhile);
    match &call.answer {
        Answer::Good => Fate::Served,
        Answer::Broken { taken, .. } => {
            let gone = outages.any(|outage| {
                outage.address == call.entry
                    && match outage.gone {
                        Gone::Killed => true,
                        Gone::Stopped => !taken,
                        Gone::CutFrom(_) => false,
                    }
            });
            if gone { Fate::EntryGone } else { Fate::Lost }
        }
        Answer::Error(500, 403, message) => {
            let gone = outages.any(|outage| {
                names(message, outage.address)
                    && match outage.gone {
                        Gone::Killed => true,
                        Gone::Stopped => false,
                        Gone::CutFrom(other) => other == call.entry,
                    }
            });
            if gone { Fate::OnLostNode } else { Fate::Lost }
        }
        Answer::Error(..) | Answer::Silence => Fate::Lost,
    }
}

/// Whether a message names this address, and not one that only begins like it.
fn names(message: &str, address: Ipv4Addr) -> bool {
    let mut words = message.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.any(|word| word == address.to_string())
}

/// How many calls had each fate.
pub fn fates(outcome: &Outcome, outages: &[Outage]) -> HashMap<Fate, usize> {
    let mut counts = HashMap::new();
    for call in &outcome.calls {
        *counts.entry(fate(call, outages)).or_default() += 1;
    }
    counts
}

/// At most K run at once, by the nodes' own word and by what the functions saw.
pub fn k_is_kept(outcome: &Outcome, runs: &Runs, broken: &mut Vec<String>) {
    broken.extend(outcome.above_k.iter().cloned());
    let most = runs.most_at_once();
    if most > K {
        broken.push(format!("{most} functions ran at once on one node, and K is {K}"));
    }
}

/// No call ran twice; what was answered ran; what was said not to have run did not.
pub fn runs_are_true(outcome: &Outcome, runs: &Runs, broken: &mut Vec<String>) {
    for call in outcome.calls.iter().filter(|call| call.is_counted()) {
        let (times, node) = runs.of.get(&call.number).copied().unwrap_or_default();
        let wrong = match &call.answer {
            Answer::Good => times != 1,
            // These codes say that it did not run.
            Answer::Error(_, 3 | 4 | 100 | 300 | 400 | 401, _) => times != 0,
            _ => times > 1,
        };
        if wrong {
            broken.push(format!("it ran {times} times, on node {node} last: {call:?}"));
        }
    }
}

/// A node leaves a peer out after two failed calls, or three; one or two more are under way by then. Where some calls
/// may be lost, these may in a short run, of which they are more than a small share.
const LEFT_OUT_AFTER: usize = 4;

/// At most this share of the calls is lost.
pub fn few_are_lost(
    outcome: &Outcome,
    cluster: &Cluster,
    (bar, is_long): (f64, bool),
    broken: &mut Vec<String>,
) {
    let outages = &cluster.outages;
    let at_least = if bar > 0.0 && !is_long { LEFT_OUT_AFTER * cluster.nodes.len() } else { 0 };
    let lost = outcome.calls.iter().filter(|call| fate(call, outages) == Fate::Lost);
    let lost: Vec<_> = lost.collect();
    if lost.len() as f64 > (bar * outcome.calls.len() as f64).max(at_least as f64) {
        let of = outcome.calls.len();
        broken.push(format!("{} of {of} calls are lost, among them: {}", lost.len(), shown(&lost)));
    }
}

fn shown(lost: &[&Call]) -> String {
    let lines = lost.iter().take(10).map(|call| format!("\n    {call:?}"));
    lines.collect()
}

/// No node has panicked, or restarted a part of itself.
pub fn nobody_panics(cluster: &Cluster, broken: &mut Vec<String>) {
    for node in &cluster.nodes {
        let said = node.said();
        if let Some(line) = said.lines().find(|line| line.contains("panicked")) {
            broken.push(format!("node {}: {line}", node.number));
        }
        let metrics = cluster.told(node.number, CALL_PORT, "GET /metrics", b"").text();
        let restarts = metrics.lines().filter(|line| {
            line.starts_with("p2pfaas_actor_restarts_total{") && !line.ends_with(" 0")
        });
        broken.extend(restarts.map(|line| format!("node {}: {line}", node.number)));
    }
}

/// Memory of each node, in KiB.
pub type Memory = Vec<Option<u64>>;

pub fn memory(cluster: &Cluster) -> Memory {
    cluster.nodes.iter().map(super::node::Node::memory_kib).collect()
}

/// How long memory may take to come back.
const MEMORY_TIME: Duration = Duration::from_secs(20);

/// Waits until each node holds about what it held before. Returns by how many KiB one has grown at most, and which one
/// still holds too much.
pub fn memory_comes_back(cluster: &Cluster, before: &Memory) -> (i64, Option<String>) {
    let most_grown = || {
        let pairs = before.iter().zip(memory(cluster)).enumerate();
        let grown = pairs.filter_map(|(number, (before, now))| {
            let (before, now) = ((*before)?, now?);
            let most = before + (before * GROWTH_PERCENT / 100).max(GROWTH_KIB);
            Some((now as i64 - before as i64, number, now > most))
        });
        grown.max().unwrap_or_default()
    };
    wait_until(MEMORY_TIME, || !most_grown().2);
    let (by, number, is_much) = most_grown();
    (by, is_much.then(|| format!("node {number} holds {by} KiB more than before")))
}

/// The 99th percentile of the time that these of the served calls took, in milliseconds.
pub fn p99_ms(outcome: &Outcome, which: impl Fn(&Call) -> bool) -> Option<f64> {
    let served = outcome.calls.iter().filter(|call| matches!(call.answer, Answer::Good));
    let mut times: Vec<_> = served.filter(|call| which(call)).map(|call| call.took).collect();
    times.sort();
    let at = (times.len() * 99).div_ceil(100).checked_sub(1)?;
    times.get(at).map(|time| time.as_secs_f64() * 1000.0)
}

/// Calls are forwarded, or the suite would show nothing of that.
pub fn calls_are_forwarded(outcome: &Outcome, broken: &mut Vec<String>) {
    let forwarded = outcome.calls.iter().filter(|call| call.forwarded).count();
    if forwarded * 20 < outcome.calls.len() {
        broken.push(format!("only {forwarded} calls were forwarded"));
    }
}
