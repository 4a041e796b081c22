//! What each worker thread of the gateway gets: its backends, its way to other nodes, its Schedulers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::actors::learner::hub::LocalLearner;
use crate::actors::replicas::Replicas;
use crate::actors::scheduler::{Adviser, Programs, SchedulerPorts};
use crate::call::Dispatcher;
use crate::call::state::NodeState;
use crate::client::programs::OutsidePrograms;
use crate::client::remote_learner::RemoteLearner;
use crate::faas::{Backends, Functions};
use crate::http::gateway_worker::GatewayWorker;
use crate::http::server::MakeWorker;
use crate::peer::PeerClient;
use crate::policy::NodeView;
use crate::policy::external::frames;

/// How often a program outside is told outcomes where no call asks it.
const TELL_PROGRAMS: Duration = Duration::from_secs(1);

/// Makes the workers of `node`, which share `backends`.
pub fn workers(node: &Arc<NodeState>, backends: Arc<Backends>) -> Arc<MakeWorker> {
    let node = Arc::clone(node);
    let named = node.settings.fns_list.iter().chain(backends.names());
    node.metrics.expect_functions(named.cloned());
    Arc::new(move || worker(&node, &backends))
}

/// A worker for the current thread.
fn worker(node: &Arc<NodeState>, backends: &Backends) -> GatewayWorker {
    let peers = Rc::new(PeerClient::new(
        Arc::clone(&node.settings),
        node.discovery.clone(),
        Arc::clone(&node.metrics),
        node.call_bodies(),
        Arc::clone(&node.trust.members),
    ));
    let functions = Rc::new(Functions::new(&node.settings, backends, Arc::clone(&node.bodies)));
    let programs: Rc<dyn Programs> = Rc::new(programs(node));
    actix_rt::spawn(tell_programs(Arc::clone(node), Rc::clone(&programs)));
    let replicas = Replicas::new(
        Arc::clone(&node.in_force),
        node.source(),
        SchedulerPorts { prober: Rc::clone(&peers) as _, adviser: adviser(node), programs },
        Arc::clone(&node.metrics),
        Arc::clone(&node.schedulers),
    );
    let backend = Rc::clone(&functions) as _;
    actix_rt::spawn(tell_idle(Arc::clone(node), Rc::clone(&peers)));
    let dispatcher = Dispatcher::new(Arc::clone(node), replicas, backend, peers);
    GatewayWorker::new(Arc::clone(node), dispatcher, functions)
}

/// Asks the algorithm in force, whenever this node becomes idle, whether it has anything to say to a
/// peer. Of all workers, one is asked at a time.
async fn tell_idle(node: Arc<NodeState>, peers: Rc<PeerClient>) {
    #[expect(clippy::disallowed_methods, reason = "the edge where algorithms get their chance")]
    let mut rng = SmallRng::seed_from_u64(rand::random());
    loop {
        node.gate.became_idle().await;
        let active = node.in_force.load_full();
        let published = node.published.load_full();
        let by_type = match active.policy.task_types() {
            0 => Vec::new(),
            types => node.gate.load_by_type(types),
        };
        let view = NodeView {
            now: node.start.elapsed(),
            load: node.gate.load(),
            by_type: &by_type,
            k: node.gate.k(),
            places: node.gate.places(),
            peers: &published.peers,
        };
        let note = active.policy.on_idle(view, &mut rng);
        // To v1 nodes nothing is said.
        if let Some(note) = note.filter(|note| note.to.streams) {
            let (peers, name) = (Rc::clone(&peers), active.policy.name());
            let own = published.identity.clone();
            actix_rt::spawn(async move { peers.note(&note, name, &own).await });
        }
    }
}

/// The way to programs outside, which are told whose sockets these are.
fn programs(node: &Arc<NodeState>) -> OutsidePrograms {
    let (connect, metrics) = (node.settings.peer_connect_timeout_ms, Arc::clone(&node.metrics));
    let node = Arc::clone(node);
    let greeting = move || {
        let own = &node.published.load().identity;
        Some(frames::node(&own.ip_text(), &own.id))
    };
    OutsidePrograms::new(Duration::from_millis(connect), Rc::new(greeting), metrics)
}

/// Tells programs outside what became of calls, also where no further call asks them. Of all workers, the one that
/// looks first does.
async fn tell_programs(node: Arc<NodeState>, programs: Rc<dyn Programs>) {
    loop {
        tokio::time::sleep(TELL_PROGRAMS).await;
        let told = node.in_force.load().policy.tells();
        if let Some(told) = told {
            // Nothing is answered.
            drop(programs.consult(&told));
        }
        programs.let_go();
    }
}

/// Who decides what is learnt: this node's Learner or another one.
fn adviser(node: &Arc<NodeState>) -> Rc<dyn Adviser> {
    let (learning, metrics) = (Arc::clone(&node.learning), Arc::clone(&node.metrics));
    if node.settings.service_learning_host.is_empty() {
        let patience = Duration::from_millis(node.settings.learner_timeout_ms);
        return LocalLearner::new(learning, metrics, patience);
    }
    RemoteLearner::new(&node.settings, learning, metrics)
}
