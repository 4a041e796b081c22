//! `GET /health`: whether the node serves, and how each of its actors is.

use std::rc::Rc;

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::gateway_worker::GatewayWorker;
use crate::actors::observe::ActorHealth;
use crate::call::state::{NodePhase, NodeState};

/// `GET /health`: 200 while the node serves, 503 while one of its actors is stuck and while it stops.
pub async fn health(worker: web::Data<Rc<GatewayWorker>>) -> HttpResponse {
    let node = &worker.node;
    let actors = node.observations.health(Instant::now());
    let phase = *node.phase.borrow();
    let status = match phase {
        NodePhase::Serving if actors.iter().all(|actor| actor.ok) => "serving",
        NodePhase::Serving => "stuck",
        NodePhase::Draining | NodePhase::Stopped => "stopping",
    };
    let actors: Map<String, Value> = actors.into_iter().map(|actor| told(node, actor)).collect();
    let answer = json!({ "status": status, "actors": actors });
    match status {
        "serving" => HttpResponse::Ok().json(answer),
        _ => HttpResponse::ServiceUnavailable().json(answer),
    }
}

fn told(node: &NodeState, actor: ActorHealth) -> (String, Value) {
    let about = json!({
        "ok": actor.ok,
        "restarts": node.metrics.restarts(actor.name),
        "mailbox_age_s": actor.mailbox_age.as_secs_f64(),
        "state": actor.state,
    });
    (actor.name.to_owned(), about)
}
