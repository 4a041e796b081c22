//! What a worker thread of the gateway serves requests with.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::HttpResponseBuilder;

use super::body::Uploads;
use crate::call::Dispatcher;
use crate::call::state::{NodePhase, NodeState};
use crate::error::Error;
use crate::faas::Functions;
use tokio::time::Instant;

/// A worker thread's share of the gateway.
pub struct GatewayWorker {
    /// What all threads share.
    pub node: Arc<NodeState>,
    /// What carries calls out.
    pub dispatcher: Dispatcher,
    /// This thread's backends.
    pub functions: Rc<Functions>,
    /// What bodies that arrive must keep to.
    pub uploads: Uploads,
}

impl GatewayWorker {
    /// For the current thread.
    pub fn new(node: Arc<NodeState>, dispatcher: Dispatcher, functions: Rc<Functions>) -> Self {
        let uploads = Uploads::new(&node.settings, node.call_bodies());
        Self { node, dispatcher, functions, uploads }
    }

    /// Whether the node stops: then answers end their connections, and clients go elsewhere.
    pub fn stops(&self) -> bool {
        *self.node.phase.borrow() != NodePhase::Serving
    }

    /// Has an answer end its connection if the node stops.
    pub fn end_if_stopping(&self, answer: &mut HttpResponseBuilder) {
        if self.stops() {
            answer.force_close();
        }
    }

    /// Counts a call that was refused before it was one.
    pub fn refused(&self, error: &Error, arrival: Instant) {
        let metrics = self.node.metrics.of_others();
        metrics.request("none", error.outcome(), arrival.elapsed());
        self.node.refused(error);
    }
}
