//! The rest of :18080: greeting, load, configuration, OpenFaaS passthrough, metrics.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::accompanied;
use super::bearer::check_token;
use super::body::read_body;
use super::errors;
use super::gateway_worker::GatewayWorker;
use super::ignored::Ignored;
use super::incoming::check_member;
use super::origin::check_origin;
use crate::actors::observe::Patience;
use crate::actors::queue::{ChangeLimits, RestoreLimits};
use crate::actors::supervise::NoAnswer;
use crate::actors::switch::SwapScheduler;
use crate::call::state::{NodePhase, NodeState};
use crate::config::Admin;
use crate::error::{Error, RefusalKind};
use crate::policy::Policy;
use crate::policy::registry::SchedulerSpec;
use crate::policy::{NodeView, Task};
use crate::saved::LimitsPatch;
use crate::tls::ClusterMember;
use crate::types::{Cause, FunctionName, TaskType};
use crate::wire::headers;
use crate::wire::json::Bounds;
use crate::wire::peer2::{PROBED_TYPES_MAX, load_by_type_text, read_note, read_path};
use crate::wire::read_object;

type Shared = web::Data<Rc<GatewayWorker>>;

/// `GET`, `POST /`.
pub async fn greeting() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": crate::VERSION,
        "version_commit": crate::COMMIT,
    }))
}

/// `GET /monitoring/load`.
pub async fn load(request: HttpRequest, worker: Shared) -> HttpResponse {
    if *worker.node.phase.borrow() != NodePhase::Serving {
        // A node that stops is not to be chosen.
        return failed(&worker.node, &Error::Stopped);
    }
    let node = &worker.node;
    let (load, k) = (node.gate.load(), node.gate.k());
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((headers::LOAD.clone(), load.running))
        .insert_header((headers::MAX_LOAD.clone(), k))
        .insert_header((headers::QUEUE_LENGTH.clone(), load.waiting));
    let from = request.headers();
    // Only those who want to know it: it takes a lock.
    let asked = from.contains_key(&headers::BID);
    if !asked {
        return answer.finish();
    }
    let by_type = node.gate.told_by_type(PROBED_TYPES_MAX);
    if !by_type.is_empty() {
        let text = load_by_type_text(&by_type);
        answer.insert_header((headers::LOAD_BY_TYPE.clone(), text));
    }
    let active = node.in_force.load();
    if active.policy.bids() && headers::text(from, &headers::BID) == active.policy.bidder() {
        let published = node.published.load();
        // What is no time is none: a probe is about the load in the first place.
        let deadline = headers::time_left(from, &headers::PEER_DEADLINE).unwrap_or_default();
        let task_type = TaskType::from_text(headers::text(from, &headers::PEER_TASK_TYPE));
        let task = Task { task_type, deadline, from_peer: true, hops: 1, ..Task::default() };
        let (now, places) = (node.start.elapsed(), node.gate.places());
        let (by_type, peers) = (&*by_type, &*published.peers);
        let view = NodeView { now, load, by_type, k, places, peers };
        if let Some(bid) = active.policy.bid(&task, view) {
            answer.insert_header((headers::BID.clone(), bid.to_string()));
        }
    }
    answer.finish()
}

/// `POST /peer/2/note/{algorithm}`: what the algorithm of a peer has to say to that of this node.
pub async fn note(
    request: HttpRequest,
    algorithm: web::Path<String>,
    worker: Shared,
) -> HttpResponse {
    let (from, node) = (request.headers(), &worker.node);
    let member = match check_member(&request, &node.trust) {
        Ok(member) => member,
        Err(error) => return failed(node, &error),
    };
    let text = read_note(headers::text(from, &headers::NOTE));
    let path = read_path(headers::text(from, &headers::PEER_PATH));
    let (text, path) = match (text, path) {
        (Some(text), Ok(path)) => (text, path),
        (None, _) => return failed(node, &Error::Malformed("the note is none".to_owned())),
        (_, Err(why)) => return failed(node, &Error::Malformed(why)),
    };
    let active = node.in_force.load();
    let published = node.published.load();
    let sender = path.last().map(|hop| hop.machine_ip.as_str()).unwrap_or_default();
    // Only those to whom calls may go have anything to say, and an algorithm listens to its like alone.
    // A member speaks for itself; where there is no key, nobody can be told from another.
    let is_own = |member: Arc<ClusterMember>| sender.parse().is_ok_and(|ip| member.is_at(ip));
    if active.policy.name() == *algorithm
        && member.is_none_or(is_own)
        && let Some(peer) = published.peers.iter().find(|peer| *peer.host == *sender)
    {
        active.policy.noted(&peer.host, &text, node.start.elapsed());
    }
    HttpResponse::NoContent().finish()
}

/// `GET /configuration`.
pub async fn configuration(worker: Shared) -> HttpResponse {
    HttpResponse::Ok().json(LimitsPatch::from(worker.node.gate.limits()))
}

/// `GET /configuration/scheduler`.
pub async fn scheduler(worker: Shared) -> HttpResponse {
    HttpResponse::Ok().json(SchedulerSpec::of(&*worker.node.in_force.load().policy))
}

/// Whether this request may change the node.
///
/// # Errors
/// The operator allows it to nobody, or only to programs on this machine; or a browser was led here
/// by another site; or it has not the token that the node wants.
pub fn check_admin(request: &HttpRequest, node: &NodeState) -> Result<(), Error> {
    check_place(request, node)?;
    check_token(request.headers(), &node.trust.admin_token)
}

/// The same for training the learner, which the operator can open to those without the token.
///
/// # Errors
/// As there.
pub fn check_training(request: &HttpRequest, node: &NodeState) -> Result<(), Error> {
    match node.settings.open_training {
        true => check_place(request, node),
        false => check_admin(request, node),
    }
}

/// Whether a change may come from where this one comes from.
fn check_place(request: &HttpRequest, node: &NodeState) -> Result<(), Error> {
    let from = request.peer_addr().map(|from| from.ip());
    if !may_change(node.settings.admin, from) {
        return Err(Error::AdminClosed);
    }
    check_origin(request.headers(), &node.settings.host_names)
}

/// Lets a change of the configuration begin, whole as it is now, of which only a few may be under way
/// at a time. What is answered goes along with the change to its end.
///
/// # Errors
/// There are too many.
pub fn begin_change(node: &NodeState) -> Result<OwnedSemaphorePermit, Error> {
    Arc::clone(&node.changes).try_acquire_owned().map_err(|_| {
        node.metrics.refused(RefusalKind::Busy);
        Error::Busy
    })
}

fn may_change(admin: Admin, from: Option<IpAddr>) -> bool {
    match admin {
        Admin::Any => true,
        // On an IPv6 socket, IPv4 neighbours have mapped addresses.
        Admin::Loopback => from.is_some_and(|ip| ip.to_canonical().is_loopback()),
        Admin::Off => false,
    }
}

/// Turns a change's outcome into an answer: empty 200, or what went wrong.
pub fn changed(node: &NodeState, result: Result<(), Error>) -> HttpResponse {
    match result {
        Ok(()) => HttpResponse::Ok().finish(),
        Err(error) => failed(node, &error),
    }
}

/// The answer that tells of `error`; it is counted if it is a refusal.
fn failed(node: &NodeState, error: &Error) -> HttpResponse {
    node.refused(error);
    errors::response(error)
}

/// What a change of a small file has: when it takes longer, the actor that makes it is replaced.
pub const CHANGE_TIME: Duration = Patience::USUAL.stuck;

/// An error of the node's own making.
pub fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Internal(Cause::of(error))
}

/// `POST /configuration`, with the optional algorithm beside the limits.
#[derive(Deserialize)]
struct Change {
    #[serde(flatten)]
    limits: LimitsPatch,
    #[serde(default)]
    scheduler: Option<SchedulerSpec>,
}

impl Change {
    /// All keys that it may have.
    const KEYS: [&str; 4] =
        ["parallel_running_functions_max", "queue_length_max", "queue_enabled", "scheduler"];
}

/// `POST /configuration`.
pub async fn change_configuration(
    request: HttpRequest,
    payload: web::Payload,
    worker: Shared,
) -> HttpResponse {
    let node = Arc::clone(&worker.node);
    let mut ignored = Ignored::default();
    let change = async {
        check_admin(&request, &node)?;
        let (body, _held) =
            read_body(&request, payload, Bounds::SMALL.bytes, &worker.uploads).await?;
        let change: Change = read_object(&body, &Bounds::SMALL).map_err(Error::Malformed)?;
        ignored.keys(&body, &Change::KEYS);
        let policy = change.scheduler.as_ref().map(|spec| build(spec, &mut ignored)).transpose()?;
        let begun = begin_change(&node)?;
        to_the_end(begun, change_all(change.limits, policy, Arc::clone(&node))).await
    };
    let answer = changed(&worker.node, change.await);
    ignored.tell(answer)
}

/// Goes on with a change though the client hangs up in the middle of it. What goes `along`, the
/// change's turn and its share of memory, is given back at its end and not before.
///
/// # Errors
/// Those of the change.
pub async fn to_the_end<T: 'static>(
    along: impl Sized + 'static,
    change: impl Future<Output = Result<T, Error>> + 'static,
) -> Result<T, Error> {
    let to_its_end = async move {
        let changed = change.await;
        drop(along);
        changed
    };
    actix_rt::spawn(to_its_end).await.map_err(internal)?
}

/// The algorithm that `spec` names; parameters that it does not have are `ignored`.
fn build(spec: &SchedulerSpec, ignored: &mut Ignored) -> Result<Arc<dyn Policy>, Error> {
    let policy = spec.build()?;
    ignored.parameters(spec, &*policy);
    Ok(policy)
}

/// All of a change or nothing: what can be wrong with it was checked before anything is touched,
/// and limits whose algorithm then cannot be saved are put back. One change at a time. A swap that is
/// late may still come true, and then the limits are to be those that came with it.
async fn change_all(
    limits: LimitsPatch,
    policy: Option<Arc<dyn Policy>>,
    node: Arc<NodeState>,
) -> Result<(), Error> {
    let _alone = node.changing.lock().await;
    let limits = || ChangeLimits(limits);
    let changed = node.queue.ask_within(CHANGE_TIME, limits).await;
    let before = changed.map_err(internal)?.map_err(internal)?;
    let Some(policy) = policy else { return Ok(()) };
    let swapped = swap(policy, &node).await;
    if matches!(swapped, Ok(Err(_)) | Err(NoAnswer::Gone)) {
        let back = || RestoreLimits(before.clone());
        let restored = node.queue.ask_within(CHANGE_TIME, back).await;
        restored.map_err(internal)?.map_err(internal)?;
    }
    swapped.map_err(internal)?.map_err(internal)
}

/// Swaps the algorithm; [`NodeState::changing`] is held meanwhile.
async fn swap(
    policy: Arc<dyn Policy>,
    node: &NodeState,
) -> Result<Result<(), impl std::error::Error + Send + Sync + 'static>, NoAnswer> {
    let swap = || SwapScheduler(Arc::clone(&policy));
    node.switch.ask_within(CHANGE_TIME, swap).await
}

/// `POST /configuration/scheduler`.
pub async fn change_scheduler(
    request: HttpRequest,
    payload: web::Payload,
    worker: Shared,
) -> HttpResponse {
    let mut ignored = Ignored::default();
    let change = async {
        check_admin(&request, &worker.node)?;
        let (body, _held) =
            read_body(&request, payload, Bounds::SMALL.bytes, &worker.uploads).await?;
        let spec: SchedulerSpec = read_object(&body, &Bounds::SMALL).map_err(Error::Malformed)?;
        ignored.keys(&body, &["name", "parameters"]);
        let (policy, node) = (build(&spec, &mut ignored)?, Arc::clone(&worker.node));
        to_the_end(begin_change(&node)?, async move {
            let _alone = node.changing.lock().await;
            swap(policy, &node).await.map_err(internal)?.map_err(internal)
        })
        .await
    };
    let answer = changed(&worker.node, change.await);
    ignored.tell(answer)
}

/// The routes of OpenFaaS's own API: passed on to the gateway, with this node's credentials.
pub async fn openfaas_api(
    request: HttpRequest,
    payload: web::Payload,
    worker: Shared,
) -> HttpResponse {
    let passed = async {
        // Of an answer to HEAD the server leaves the body out.
        let method = match request.method() {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        if method != Method::GET {
            check_admin(&request, &worker.node)?;
        }
        let gateway = worker.functions.gateway()?;
        let _away = worker.node.away.try_acquire().map_err(|_| Error::Busy)?;
        // A name that was checked, so that nobody gets elsewhere on the gateway by it.
        let path = match request.match_info().get("fn") {
            Some(name) => {
                let (folder, _) = request.path().rsplit_once('/').unwrap_or_default();
                format!("{folder}/{}", FunctionName::parse(name)?)
            }
            None => request.path().to_owned(),
        };
        let query = request.query_string();
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let (body, _held) =
            read_body(&request, payload, Bounds::SMALL.bytes, &worker.uploads).await?;
        gateway.api(method, &path, content_type, body).await
    };
    match passed.await {
        Ok((status, headers, body)) => {
            let mut response = HttpResponse::build(status);
            for header in headers {
                response.append_header(header);
            }
            response.body(body)
        }
        Err(error) => failed(&worker.node, &error),
    }
}

/// `GET /monitoring/scale-delay/{fn}`. It scales the function, so it is for whoever may change the
/// node, and it goes on to its end though the client hangs up; only a node that stops cuts it short.
pub async fn scale_delay(
    request: HttpRequest,
    name: web::Path<String>,
    worker: Shared,
) -> HttpResponse {
    let measured = async {
        check_admin(&request, &worker.node)?;
        let gateway = worker.functions.gateway()?.clone();
        let name = FunctionName::parse(&name)?;
        let begun = begin_change(&worker.node)?;
        let mut phase = worker.node.phase.subscribe();
        let stopping = async move {
            // An error means that the node is gone altogether.
            let _ = phase.wait_for(|phase| *phase > NodePhase::Serving).await;
        };
        to_the_end(begun, async move { gateway.scale_delay(&name, stopping).await }).await
    };
    match measured.await {
        Ok(delay) => HttpResponse::Ok().json(delay),
        Err(error) => failed(&worker.node, &error),
    }
}

/// `GET /metrics`.
pub async fn metrics(request: HttpRequest, worker: Shared) -> HttpResponse {
    let node = &worker.node;
    let learner = node.learning.stats(&node.learning.snapshot());
    for actor in node.observations.health(Instant::now()) {
        node.metrics.actor(actor.name, actor.ok, actor.mailbox_age);
    }
    let memory = node.in_force.load().policy.figures();
    let text = node.metrics.render(node.gate.load(), node.gate.k(), &learner, &memory);
    let mut builder = HttpResponse::Ok();
    builder.content_type("text/plain; version=0.0.4; charset=utf-8");
    let bodies = &worker.uploads.bodies;
    accompanied::respond_within(&mut builder, text, bodies, request.conn_data()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    #[actix_rt::test]
    async fn what_has_begun_keeps_its_share_to_its_end_though_nobody_waits_for_it() {
        let (go, told) = oneshot::channel::<()>();
        let share = Arc::new(());
        let change = async move { told.await.map_err(internal) };
        let mut begun = Box::pin(to_the_end(Arc::clone(&share), change));
        assert!((&mut begun).now_or_never().is_none());
        drop(begun);
        for _ in 0..9 {
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&share), 2, "it is under way");
        go.send(()).expect("it still waits");
        while Arc::strong_count(&share) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn only_this_machine_may_change_a_node_that_is_limited_to_loopback() {
        for (from, may) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            let from = from.parse().ok();
            assert_eq!(may_change(Admin::Loopback, from), may, "{from:?}");
            assert!(may_change(Admin::Any, from) && !may_change(Admin::Off, from));
        }
        assert!(!may_change(Admin::Loopback, None), "unknown is not this machine");
    }
}
