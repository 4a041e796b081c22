//! :19000, the list of machines and its configuration.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::accompanied::respond_within;
use super::body::{Uploads, read_body};
use super::errors;
use super::ignored::Ignored;
use super::incoming::check_member;
use super::node_api::{CHANGE_TIME, begin_change, changed, check_admin, internal};
use crate::actors::discovery::{
    ChangeMachineConfig, GetMachineConfig, ListMachines, ListRecords, RecordListing, Reset,
};
use crate::call::state::{NodePhase, NodeState, NodeTrust};
use crate::error::Error;
use crate::membership::Introduction;
use crate::saved::MachinePatch;
use crate::types::{NodeDescription, RecordLoad};
use crate::wire::headers;
use crate::wire::json::Bounds;
use crate::wire::{MACHINE_AGENT, read_object};

/// Lists that are made at once at most.
const LISTS_MAX: usize = 4;

/// A thread's share of the discovery server.
pub struct DiscoveryWorker {
    node: Arc<NodeState>,
    uploads: Uploads,
    /// Lists that are made at once: each may be as long as the machines are many.
    lists: Semaphore,
}

impl DiscoveryWorker {
    /// For the current thread.
    pub fn new(node: Arc<NodeState>) -> Self {
        let uploads = Uploads::new(&node.settings, node.call_bodies());
        Self { node, uploads, lists: Semaphore::new(LISTS_MAX) }
    }
}

type Worker = web::Data<Rc<DiscoveryWorker>>;

/// `GET /`.
pub async fn greeting() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body(format!("This is the discovery service of p2pfaas {}\n", crate::VERSION))
}

/// The machine that calls, if the request comes from one and it says an address. With a certificate it can say
/// only what stands in that; without one, where there is a cluster key, only that it is where machines are spoken to
/// in the clear.
///
/// # Errors
/// It is a machine, and none that this node hears.
fn caller(
    request: &HttpRequest,
    trust: &NodeTrust,
) -> Result<Option<(IpAddr, Introduction)>, Error> {
    let from = request.headers();
    if headers::text(from, &header::USER_AGENT) != MACHINE_AGENT {
        return Ok(None);
    }
    let member = check_member(request, trust)?;
    let Ok(ip) = headers::text(from, &headers::MACHINE_IP).parse() else { return Ok(None) };
    let tls_port = headers::text(from, &headers::TLS_PORT).parse().ok();
    let introduction = Introduction {
        name: headers::text(from, &headers::MACHINE_NAME).to_owned(),
        group: headers::text(from, &headers::MACHINE_GROUP).to_owned(),
        streams: headers::speaks_ours(from),
        // In the clear anybody could say it of another.
        tls_port: tls_port.filter(|port| member.is_some() && *port != 0),
    };
    let may_say = match &member {
        Some(member) => member.is_at(ip) && member.is_named(&introduction.name),
        None => trust.clearance.covers(ip),
    };
    if !may_say {
        return Err(Error::NoMember("it says that it is another machine than it can be"));
    }
    Ok(Some((ip, introduction)))
}

/// `GET /list`.
pub async fn list(request: HttpRequest, worker: Worker) -> HttpResponse {
    if *worker.node.phase.borrow() != NodePhase::Serving {
        // It would be taken for a sign of life.
        let mut answer = errors::response(&Error::Stopped);
        answer.headers_mut().insert(headers::LEAVES.clone(), HeaderValue::from_static("1"));
        return answer;
    }
    let leaves = request.headers().contains_key(&headers::LEAVES);
    let caller = match caller(&request, &worker.node.trust) {
        Ok(caller) => caller,
        Err(error) => {
            worker.node.refused(&error);
            return errors::response(&error);
        }
    };
    let message = ListMachines { caller, leaves };
    let Ok(_turn) = worker.lists.acquire().await else {
        return errors::response(&Error::Stopped);
    };
    match worker.node.discovery.ask(|| message.clone()).await {
        Ok(listing) => {
            let mut builder = HttpResponse::Ok();
            builder
                .content_type("application/json")
                .insert_header((headers::MACHINE_IP.clone(), listing.identity.ip_text()))
                .insert_header((headers::MACHINE_NAME.clone(), listing.identity.id))
                .insert_header((headers::MACHINE_GROUP.clone(), listing.identity.group))
                .insert_header((headers::PROTOCOL.clone(), headers::OUR_PROTOCOL));
            if worker.node.trust.clearance.is_keyed() {
                let port = worker.node.settings.peer_tls_port;
                builder.insert_header((headers::TLS_PORT.clone(), port.to_string()));
            }
            let bodies = &worker.uploads.bodies;
            match serde_json::to_vec(&listing.machines) {
                Ok(list) => respond_within(&mut builder, list, bodies, request.conn_data()).await,
                Err(why) => errors::response(&internal(why)),
            }
        }
        Err(gone) => errors::response(&internal(gone)),
    }
}

/// A node's record, as it is shown.
#[derive(Serialize)]
struct ShownRecord {
    ip: String,
    /// Whether it is the answering node's own.
    own: bool,
    /// Whether calls may go there.
    neighbour: bool,
    /// Seconds; of datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_s: Option<f64>,
    /// How many seconds ago it said what it is, and how busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    about_age_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_age_s: Option<f64>,
    #[serde(flatten)]
    about: Option<NodeDescription>,
    #[serde(flatten)]
    load: Option<RecordLoad>,
    /// The functions for which calls do not go there now, since they fail there; `*`: all.
    left_out: Vec<String>,
}

/// `GET /records`.
pub async fn records(request: HttpRequest, worker: Worker) -> HttpResponse {
    let Ok(_turn) = worker.lists.acquire().await else {
        return errors::response(&Error::Stopped);
    };
    let listed = match worker.node.discovery.ask(|| ListRecords).await {
        Ok(listed) => listed,
        Err(gone) => return errors::response(&internal(gone)),
    };
    let (out, published) = (worker.node.outliers.all_left_out(), worker.node.published.load());
    let ms = |time: Duration| time.as_millis() as f64 / 1000.0;
    let shown = listed.into_iter().map(|RecordListing { aged, own, neighbour, round_trip }| {
        let ip = aged.owner.to_string();
        let mut left_out: Vec<String> = out
            .iter()
            .filter(|(host, _)| **host == *ip)
            .map(|(_, function)| function.as_ref().map_or("*".to_owned(), ToString::to_string))
            .collect();
        if published.failing.iter().any(|host| **host == *ip) && left_out.is_empty() {
            left_out.push("*".to_owned());
        }
        ShownRecord {
            ip,
            own,
            neighbour,
            round_trip_s: round_trip.map(|time| time.as_micros() as f64 / 1e6),
            about_age_s: aged.about_age.map(ms),
            load_age_s: aged.load_age.map(ms),
            about: aged.record.about.clone(),
            load: aged.record.load,
            left_out,
        }
    });
    let mut builder = HttpResponse::Ok();
    builder.content_type("application/json");
    match serde_json::to_vec(&shown.collect::<Vec<_>>()) {
        Ok(all) => {
            let bodies = &worker.uploads.bodies;
            respond_within(&mut builder, all, bodies, request.conn_data()).await
        }
        Err(why) => errors::response(&internal(why)),
    }
}

/// `GET /configuration`.
pub async fn configuration(worker: Worker) -> HttpResponse {
    match worker.node.discovery.ask(|| GetMachineConfig).await {
        Ok(Ok(config)) => HttpResponse::Ok().json(config),
        Ok(Err(no_ip)) => errors::no_machine_ip(no_ip),
        Err(gone) => errors::response(&internal(gone)),
    }
}

/// `POST /configuration`.
pub async fn change_configuration(
    request: HttpRequest,
    payload: web::Payload,
    worker: Worker,
) -> HttpResponse {
    let mut ignored = Ignored::default();
    let change = async {
        check_admin(&request, &worker.node)?;
        let (body, _held) =
            read_body(&request, payload, Bounds::SMALL.bytes, &worker.uploads).await?;
        let patch: MachinePatch = read_object(&body, &Bounds::SMALL).map_err(Error::Malformed)?;
        patch.check().map_err(Error::Malformed)?;
        ignored.keys(
            &body,
            &["machine_ip", "machine_id", "machine_group_name", "init_servers", "neighbours"],
        );
        let _begun = begin_change(&worker.node)?;
        let change = || ChangeMachineConfig(patch.clone());
        let discovery = &worker.node.discovery;
        discovery.ask_within(CHANGE_TIME, change).await.map_err(internal)?.map_err(internal)
    };
    let answer = changed(&worker.node, change.await);
    ignored.tell(answer)
}

/// `GET /reset`.
pub async fn reset(request: HttpRequest, worker: Worker) -> HttpResponse {
    let reset = async {
        check_admin(&request, &worker.node)?;
        worker.node.discovery.ask(|| Reset).await.map_err(internal)
    };
    changed(&worker.node, reset.await)
}
