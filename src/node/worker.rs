//! What each worker thread of the gateway gets: its backends, its way to other nodes, its Schedulers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::actors::learner::hub::LocalLearner;
use crate::actors::replicas::Replicas;
use crate::actors::scheduler::{Adviser, SchedulerPorts};
use crate::call::Dispatcher;
use crate::call::state::NodeState;
use crate::client::remote_learner::RemoteLearner;
use crate::faas::{Backends, Functions};
use crate::http::gateway_worker::GatewayWorker;
use crate::http::server::MakeWorker;
use crate::peer::PeerClient;

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
    let replicas = Replicas::new(
        Arc::clone(&node.in_force),
        node.source(),
        SchedulerPorts { prober: Rc::clone(&peers) as _, adviser: adviser(node) },
        Arc::clone(&node.metrics),
        Arc::clone(&node.schedulers),
    );
    let backend = Rc::clone(&functions) as _;
    let dispatcher = Dispatcher::new(Arc::clone(node), replicas, backend, peers);
    GatewayWorker::new(Arc::clone(node), dispatcher, functions)
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
