//! The frames between a node and a program that decides: JSON objects, one a text frame.
//! `docs/external-scheduler.md` has them in a table.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PEERS_MAX;
use crate::policy::{Knowledge, NodeView, Outcome, OutcomeKind, Task};
use crate::types::{Load, Peer, shortened};
use crate::wire::json::{self, BadJson, Bounds};

/// Characters of a host that a message repeats.
const HOST_SHOWN_MAX: usize = 64;

/// Why a program's answer is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAdvice {
    /// There is none.
    #[error("no answer in time")]
    Silent,
    /// It is too long, or not of the form.
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] BadJson),
    /// It is about another call.
    #[error("the answer is about call {answered}, call {asked} was asked about")]
    AnotherCall {
        /// The call that was asked about.
        asked: u64,
        /// The one that was answered about.
        answered: u64,
    },
    /// It names a peer that is not there.
    #[error("no peer in the frame is {0:?}")]
    NoSuchPeer(String),
    /// It asks for no probes, or for too many.
    #[error("the answer asks for {asked} probes, from 1 to {left} are left of this call")]
    Probes {
        /// As many as it asks for.
        asked: usize,
        /// As many as it may ask for.
        left: usize,
    },
}

impl BadAdvice {
    pub(super) fn no_such_peer(host: &str) -> Self {
        Self::NoSuchPeer(shortened(host, HOST_SHOWN_MAX).into_owned())
    }

    /// Its label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Unreadable(_) => "unreadable",
            Self::AnotherCall { .. } => "another_call",
            Self::NoSuchPeer(_) => "no_such_peer",
            Self::Probes { .. } => "probes",
        }
    }
}

/// A step as a program says it.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepSaid {
    Run,
    RunNow,
    Reject,
    Forward(String),
    Probe(Vec<String>),
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    step: StepSaid,
}

/// What a program says of the call `id`.
pub(super) fn read_answer(text: &[u8], id: u64) -> Result<StepSaid, BadAdvice> {
    let answer: Answer = json::read_object(text, &Bounds::SMALL)?;
    match answer.id == id {
        true => Ok(answer.step),
        false => Err(BadAdvice::AnotherCall { asked: id, answered: answer.id }),
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum FrameOut<'a> {
    Node {
        host: &'a str,
        name: &'a str,
    },
    Call {
        id: u64,
        task: TaskOut<'a>,
        node: NodeOut,
        peers: Vec<PeerOut<'a>>,
        heard: HeardOut<'a>,
    },
    Outcome {
        id: u64,
        kind: &'static str,
        peer: Option<&'a str>,
        execution_s: Option<f64>,
        total_s: f64,
        in_time: bool,
    },
}

#[derive(Serialize)]
struct TaskOut<'a> {
    function: &'a str,
    task_type: f64,
    hops: u32,
    from_peer: bool,
    deadline_s: Option<f64>,
    body_bytes: Option<u64>,
}

/// Running and waiting.
type LoadOut = (u32, u32);

#[derive(Serialize)]
struct NodeOut {
    now_s: f64,
    running: u32,
    waiting: u32,
    k: u32,
    by_type: Vec<LoadOut>,
}

#[derive(Serialize)]
struct PeerOut<'a> {
    host: &'a str,
    name: &'a str,
    record: Option<RecordOut>,
}

#[derive(Serialize)]
struct RecordOut {
    k: u32,
    running: u32,
    waiting: u32,
}

#[derive(Serialize)]
struct HeardOut<'a> {
    probes: Vec<ProbeOut<'a>>,
    rounds: u32,
    elapsed_s: f64,
    unreachable: Vec<&'a str>,
}

#[derive(Serialize)]
struct ProbeOut<'a> {
    host: &'a str,
    running: u32,
    waiting: u32,
    k: Option<u32>,
    by_type: Vec<LoadOut>,
}

impl FrameOut<'_> {
    fn text(&self) -> String {
        // Numbers, strings and lists of them can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Without the zeros at the end.
fn by_type(loads: &[Load]) -> Vec<LoadOut> {
    let used = loads.iter().rposition(|load| load.total() > 0).map_or(0, |last| last + 1);
    loads.iter().take(used).map(|load| (load.running, load.waiting)).collect()
}

fn peer(peer: &Peer) -> PeerOut<'_> {
    let load = peer.record.as_ref().and_then(|record| record.load);
    let record =
        load.map(|load| RecordOut { k: load.k, running: load.running, waiting: load.waiting });
    PeerOut { host: &peer.host, name: &peer.name, record }
}

fn heard_out(heard: &Knowledge) -> HeardOut<'_> {
    let probes = heard.probes.iter().flatten().take(PEERS_MAX).map(|probe| ProbeOut {
        host: &probe.peer.host,
        running: probe.load.running,
        waiting: probe.load.waiting,
        k: probe.k,
        by_type: by_type(&probe.by_type),
    });
    HeardOut {
        probes: probes.collect(),
        rounds: heard.rounds,
        elapsed_s: heard.elapsed.as_secs_f64(),
        unreachable: heard.unreachable.iter().take(PEERS_MAX).map(|host| &**host).collect(),
    }
}

/// Of which node the frames are that follow. It is a carrier's, since an algorithm does not know where it runs.
pub fn node(host: &str, name: &str) -> String {
    FrameOut::Node { host, name }.text()
}

/// The question about a call.
pub(super) fn call(
    id: u64,
    task: &Task,
    node: NodeView<'_>,
    peers: &[Peer],
    heard: &Knowledge,
) -> String {
    let frame = FrameOut::Call {
        id,
        task: TaskOut {
            function: task.function.as_str(),
            task_type: task.task_type.0,
            hops: task.hops,
            from_peer: task.from_peer,
            deadline_s: task.deadline.map(|deadline| deadline.as_secs_f64()),
            body_bytes: task.body_bytes,
        },
        node: NodeOut {
            now_s: node.now.as_secs_f64(),
            running: node.load.running,
            waiting: node.load.waiting,
            k: node.k,
            by_type: by_type(node.by_type),
        },
        peers: peers.iter().map(peer).collect(),
        heard: heard_out(heard),
    };
    frame.text()
}

/// What became of a call.
pub(super) fn outcome(id: u64, outcome: &Outcome<'_>) -> String {
    let kind = match outcome.kind {
        OutcomeKind::Served => "served",
        OutcomeKind::Failed => "failed",
        OutcomeKind::Rejected => "rejected",
        OutcomeKind::Full => "full",
        OutcomeKind::Lost => "lost",
        OutcomeKind::Gone => "gone",
    };
    let peer = outcome.peer.map(|host| shortened(host, crate::types::NAME_BYTES_MAX));
    let frame = FrameOut::Outcome {
        id,
        kind,
        peer: peer.as_ref().map(Cow::as_ref),
        execution_s: outcome.execution.as_ref().map(Duration::as_secs_f64),
        total_s: outcome.total.as_secs_f64(),
        in_time: outcome.in_time(),
    };
    frame.text()
}
