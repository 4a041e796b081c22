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
use crate::config::Settings;
use crate::faas::Functions;
use crate::faas::embedded;
use crate::faas::openfaas::Access;
use crate::http::gateway_worker::GatewayWorker;
use crate::http::server::MakeWorker;
use crate::peer::PeerClient;

/// Makes the workers of `node`. The embedded functions and the access to OpenFaaS' gateway are shared
/// by all of them.
pub fn workers(node: &Arc<NodeState>, openfaas: Option<Arc<Access>>) -> Arc<MakeWorker> {
    let node = Arc::clone(node);
    node.metrics.expect_functions(named_functions(&node.settings));
    let embedded = embedded::Shared::new(&node.settings);
    Arc::new(move || worker(&node, Arc::clone(&embedded), openfaas.clone()))
}

/// The functions that the settings name.
fn named_functions(settings: &Settings) -> Vec<String> {
    let routed = settings.routes.0.keys().cloned();
    let embedded = embedded::EmbeddedName::ALL.iter().map(|(name, _)| (*name).to_owned());
    let embedded = embedded.filter(|_| settings.embedded_functions);
    routed.chain(settings.fns_list.iter().cloned()).chain(embedded).collect()
}

/// A worker for the current thread.
fn worker(
    node: &Arc<NodeState>,
    embedded: Arc<embedded::Shared>,
    openfaas: Option<Arc<Access>>,
) -> GatewayWorker {
    let peers = Rc::new(PeerClient::new(
        Arc::clone(&node.settings),
        node.discovery.clone(),
        Arc::clone(&node.metrics),
        node.call_bodies(),
    ));
    let functions = Functions::new(&node.settings, embedded, openfaas, node.call_bodies());
    let functions = Rc::new(functions);
    let replicas = Replicas::new(
        Arc::clone(&node.in_force),
        node.source(),
        SchedulerPorts { prober: Rc::clone(&peers) as _, adviser: adviser(node) },
        Arc::clone(&node.metrics),
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
