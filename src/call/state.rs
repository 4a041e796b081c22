//! What all threads of a node share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::outliers::SharedOutliers;
use super::turns::UploadTurns;
use crate::actors::discovery::{Discovery, Published};
use crate::actors::learner::hub::LearnerHub;
use crate::actors::observe::Observations;
use crate::actors::queue::{Gate, Queue};
use crate::actors::replicas::SchedulerRoster;
use crate::actors::scheduler::NodeSource;
use crate::actors::supervise::Handle;
use crate::actors::switch::{Active, Switch};
use crate::config::{AdminToken, Settings};
use crate::connections::{Bodies, Connections};
use crate::error::Error;
use crate::lock;
use crate::memory::budget::Budget;
use crate::metrics::Metrics;
use crate::tls::{PeerTls, ServedTls};
use crate::types::{Clearance, Saying};

/// Changes of the configuration under way at most: each waits for the disk.
const CHANGES_MAX: usize = 8;

/// How far the node is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePhase {
    /// It serves.
    Serving,
    /// It takes no new calls and finishes those it has.
    Draining,
    /// Time is up: what still runs is given up.
    Stopped,
}

/// Whom a node trusts, and with what.
pub struct NodeTrust {
    /// What changes must bring.
    pub admin_token: AdminToken,
    /// What is agreed on between members of the cluster; empty without a cluster key.
    pub members: Arc<PeerTls>,
    /// Who is spoken to in the clear.
    pub clearance: Clearance,
    /// How clients are served by TLS; `None`: they are not.
    pub clients: Option<Arc<ServedTls>>,
}

/// See the module.
pub struct NodeState {
    /// As it was started.
    pub settings: Arc<Settings>,
    /// Who may do what.
    pub trust: NodeTrust,
    /// K and the line.
    pub gate: Arc<Gate>,
    /// The algorithm in force.
    pub in_force: Arc<ArcSwap<Active>>,
    /// Who this node is and whom it knows.
    pub published: Arc<ArcSwap<Published>>,
    /// What the algorithm in force says in this node's record.
    pub saying: Arc<ArcSwap<Saying>>,
    /// When the node started: where its clock is zero.
    pub start: Instant,
    /// What is learnt.
    pub learning: Arc<LearnerHub>,
    /// The Queue actor.
    pub queue: Handle<Queue>,
    /// The Switch actor.
    pub switch: Handle<Switch>,
    /// The Discovery actor.
    pub discovery: Handle<Discovery>,
    /// The Schedulers of all threads.
    pub schedulers: Arc<SchedulerRoster>,
    /// How the actors are.
    pub observations: Arc<Observations>,
    /// This node's metrics.
    pub metrics: Arc<Metrics>,
    /// What the bodies of all calls may hold.
    pub bodies: Arc<Budget>,
    /// What the bodies of all requests to the learner may hold: they must not crowd out calls.
    pub learner_bodies: Arc<Budget>,
    /// All connections of clients.
    pub connections: Arc<Connections>,
    /// Calls that may be under way to others at once, peers and gateways: their clients' connections
    /// do not end meanwhile, and some must be left for all others.
    pub away: Arc<Semaphore>,
    /// Turns of calls whose bodies come while they run.
    pub uploads: Arc<UploadTurns>,
    /// Calls handed to peers right now.
    pub forwarding: Forwarding,
    /// Peers at which calls fail.
    pub outliers: SharedOutliers,
    /// How far the node is on its way out.
    pub phase: watch::Sender<NodePhase>,
    /// Changes that may wait for one another; those of clients that are gone, too.
    pub changes: Arc<Semaphore>,
    /// Held while limits or algorithm are changed, so that changes of both do not mix.
    pub changing: tokio::sync::Mutex<()>,
    requests: AtomicU64,
}

impl NodeState {
    /// A node that serves and has no actors yet.
    pub fn new(
        settings: Arc<Settings>,
        trust: NodeTrust,
        gate: Arc<Gate>,
        active: Active,
        published: Arc<ArcSwap<Published>>,
        learning: Arc<LearnerHub>,
    ) -> Self {
        let metrics: Arc<Metrics> = Arc::default();
        let connections = Connections::of(&settings, &metrics);
        Self {
            away: Arc::new(Semaphore::new(
                (connections.capacity() / 2).clamp(1, Semaphore::MAX_PERMITS),
            )),
            connections,
            bodies: Budget::new(settings.bodies_bytes_max),
            learner_bodies: Budget::new(settings.learner_bodies_bytes_max),
            settings,
            trust,
            gate,
            in_force: Arc::new(ArcSwap::from_pointee(active)),
            published,
            saying: Arc::default(),
            start: Instant::now(),
            learning,
            queue: Handle::default(),
            switch: Handle::default(),
            discovery: Handle::default(),
            schedulers: Arc::default(),
            observations: Arc::new(Observations::new(Instant::now())),
            metrics,
            uploads: Arc::default(),
            forwarding: Forwarding::default(),
            outliers: SharedOutliers::default(),
            phase: watch::Sender::new(NodePhase::Serving),
            changes: Arc::new(Semaphore::new(CHANGES_MAX)),
            changing: tokio::sync::Mutex::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// What the Schedulers read.
    pub fn source(&self) -> NodeSource {
        let (gate, published) = (Arc::clone(&self.gate), Arc::clone(&self.published));
        NodeSource { gate, published, start: self.start }
    }

    /// The budget of calls' bodies and answers.
    pub fn call_bodies(&self) -> Bodies {
        Bodies { budget: Arc::clone(&self.bodies), connections: Arc::clone(&self.connections) }
    }

    /// The budget of requests to the learner and of its answers.
    pub fn learner_bodies(&self) -> Bodies {
        let budget = Arc::clone(&self.learner_bodies);
        Bodies { budget, connections: Arc::clone(&self.connections) }
    }

    /// Counts what was refused, if `error` is a refusal.
    pub fn refused(&self, error: &Error) {
        if let Some(what) = error.refusal() {
            self.metrics.refused(what);
        }
    }

    /// A number for the next call that is handed to a peer.
    pub fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

/// The tracing ids of the calls that are being handed to peers, so that one that comes back is
/// known: v1 nodes drop the list of nodes passed, but carry the tracing id.
#[derive(Default)]
pub struct Forwarding(Mutex<HashMap<String, usize>>);

/// While this lives, its call is being handed to a peer.
pub struct ForwardingGuard<'a> {
    forwarding: &'a Forwarding,
    tracing_id: &'a str,
}

impl Forwarding {
    /// A call is handed to a peer until the answer is dropped. Without a tracing id there is
    /// nothing to know it by.
    pub fn begin<'a>(&'a self, tracing_id: &'a str) -> Option<ForwardingGuard<'a>> {
        if tracing_id.is_empty() {
            return None;
        }
        *lock(&self.0).entry(tracing_id.to_owned()).or_default() += 1;
        Some(ForwardingGuard { forwarding: self, tracing_id })
    }

    /// Whether a call with that tracing id is being handed to a peer.
    pub fn has(&self, tracing_id: &str) -> bool {
        !tracing_id.is_empty() && lock(&self.0).contains_key(tracing_id)
    }
}

impl Drop for ForwardingGuard<'_> {
    fn drop(&mut self) {
        let mut ids = lock(&self.forwarding.0);
        if let Some(count) = ids.get_mut(self.tracing_id) {
            *count -= 1;
            if *count == 0 {
                ids.remove(self.tracing_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracing_id_is_known_while_any_call_with_it_is_being_forwarded() {
        let forwarding = Forwarding::default();
        let (one, two) = (forwarding.begin("n0t1"), forwarding.begin("n0t1"));
        drop(one);
        assert!(forwarding.has("n0t1"));
        drop(two);
        assert!(!forwarding.has("n0t1"));
        assert!(forwarding.begin("").is_none() && !forwarding.has(""));
    }
}
