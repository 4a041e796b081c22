//! `/function/{fn}` and what is below it, by any method: clients' calls.

use std::rc::Rc;

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::accompanied::{self, Along, RewardOnDelivery};
use super::errors;
use super::gateway_worker::GatewayWorker;
use super::guarded::ClientAddress;
use super::incoming::check_sealed;
use super::upload::{UploadRules, take_body, take_session};
use crate::actors::replicas::Steer;
use crate::call::body::{AnswerBody, RequestBody};
use crate::call::function::{Answer, Backend, Invocation};
use crate::call::{Call, CallReport};
use crate::error::Error;
use crate::faas::Functions;
use crate::memory::budget::Reservation;
use crate::policy::{LearnerDecision, Task};
use crate::queue::Refusal;
use crate::types::{FunctionName, TaskType};
use crate::wire::headers;
use crate::wire::{PeerHop, Timings, float_text, seconds_text, six_decimals};

/// Serves one client's call.
pub async fn call(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Rc<GatewayWorker>>,
) -> HttpResponse {
    let arrival = Instant::now();
    let steer = steer(request.headers());
    let outcome = match read(&request, payload, &worker, arrival).await {
        Ok(call) => worker.dispatcher.carry_out(call).await,
        Err(error) => {
            worker.refused(&error, arrival);
            CallReport {
                result: Err(error),
                scheduler: worker.dispatcher.scheduler(steer),
                timings: Timings::default(),
                learnt: None,
                arrival,
                elsewhere: None,
            }
        }
    };
    respond(outcome, &worker, &request)
}

/// The function that a path names, decoded once and then checked, and the path that it gets: what
/// follows its name, byte for byte.
///
/// # Errors
/// The path names none, or one that is not valid, or not among those that the node serves.
pub fn function_and_path(
    request: &HttpRequest,
    prefix: &str,
    functions: &Functions,
) -> Result<(FunctionName, String), Error> {
    let below = request.uri().path().strip_prefix(prefix).unwrap_or_default();
    let (name, path) = below.split_at(below.find('/').unwrap_or(below.len()));
    if name.is_empty() {
        return Err(Error::UnknownPath);
    }
    let name = functions.check(&percent_decode_str(name).decode_utf8_lossy())?;
    Ok((name, if path.is_empty() { "/".to_owned() } else { path.to_owned() }))
}

/// Whether a request asks to become a WebSocket (RFC 6455, 4.1). Other offers to speak another protocol
/// are passed over.
pub fn asks_for_websocket(request: &HttpRequest) -> bool {
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && headers::length(request.headers()).unwrap_or(0) == 0
        && request.head().upgrade()
        && headers::text(request.headers(), &header::UPGRADE).eq_ignore_ascii_case("websocket")
}

/// What a call says, and its share of the budget of bodies.
///
/// # Errors
/// It is larger than it may be, comes too slowly, or there is no room for it.
pub async fn call_body(
    request: &HttpRequest,
    payload: web::Payload,
    worker: &GatewayWorker,
    name: &FunctionName,
) -> Result<(RequestBody, Reservation), Error> {
    let announced = headers::length(request.headers());
    // The parser takes what comes behind such an offer as it is.
    if request.head().upgrade() && request.headers().contains_key(header::TRANSFER_ENCODING) {
        let why = "a request that offers another protocol must tell the length of its body";
        return Err(Error::Malformed(why.to_owned()));
    }
    if asks_for_websocket(request) {
        let held = worker.uploads.bodies.budget.take(0).ok_or(Refusal::BytesFull)?;
        return Ok((take_session(request, payload, &worker.uploads), held));
    }
    let settings = &worker.node.settings;
    let whole = worker.functions.takes_whole(name, announced);
    let rules = UploadRules {
        bytes_max: settings.body_bytes_max,
        whole_bytes_max: whole.then(|| settings.whole_body_bytes_max()),
        kept_bytes_max: settings.retry_body_bytes_max,
    };
    take_body(request, payload, &worker.uploads, &worker.node, rules).await
}

/// Which scheduler the headers ask for: Bypass wins over Forward, Forward over Reject; any
/// non-empty value counts, even `false`.
pub fn steer(headers: &HeaderMap) -> Option<Steer> {
    let asks = |name| headers.get(name).is_some_and(|value: &HeaderValue| !value.is_empty());
    [
        (&headers::BYPASS, Steer::Bypass),
        (&headers::FORWARD, Steer::Forward),
        (&headers::REJECT, Steer::Reject),
    ]
    .into_iter()
    .find_map(|(name, steer)| asks(name).then_some(steer))
}

async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    worker: &GatewayWorker,
    arrival: Instant,
) -> Result<Call, Error> {
    check_sealed(request)?;
    let (name, path) = function_and_path(request, "/function/", &worker.functions)?;
    let (body, held) = call_body(request, payload, worker, &name).await?;
    let from = request.headers();
    let task_type = headers::text(from, &headers::TASK_TYPE);
    let deadline = headers::deadline(from).map_err(Error::Malformed)?;
    let mut passed = headers::for_function(from);
    let client = request.conn_data::<ClientAddress>().map(|address| &address.0);
    headers::add_forwarded(&mut passed, client, from.get(header::HOST), "http");
    let invocation = Invocation {
        name,
        method: request.method().clone(),
        path,
        query: request.query_string().to_owned(),
        headers: passed,
        body,
        upgrades: asks_for_websocket(request),
    };
    let task = Task {
        function: invocation.name.clone(),
        body_bytes: invocation.body.length(),
        task_type: TaskType::from_text(task_type),
        hops: 0,
        from_peer: false,
        deadline,
    };
    Ok(Call {
        invocation,
        task,
        steer: steer(from),
        tracing_id: headers::text(from, &headers::TRACING_ID).to_owned(),
        task_type: task_type.to_owned(),
        path: Vec::new(),
        arrival,
        held,
    })
}

fn respond(outcome: CallReport, worker: &GatewayWorker, request: &HttpRequest) -> HttpResponse {
    let CallReport { result, scheduler, timings, learnt, arrival, elsewhere } = outcome;
    let executed = result.is_ok();
    let success = result.as_ref().is_ok_and(|answer| answer.status.is_success());
    let mut along = Along::default();
    let (mut builder, body) = match result {
        Ok(mut answer) => {
            along.held = answer.held.take();
            from_answer(answer)
        }
        Err(error) => {
            let (status, body) = errors::status_and_body(&error);
            (errors::begin(status), AnswerBody::Whole(body.into()))
        }
    };
    builder.insert_header((headers::VERSION.clone(), HeaderValue::from_static(crate::VERSION)));
    builder.insert_header((headers::SCHEDULER.clone(), &*scheduler.full_name));
    match elsewhere {
        Some(passed) => executed_elsewhere(&mut builder, passed, timings, worker),
        None if executed => executed_here(&mut builder, timings),
        None => {}
    }
    if let Some(learnt) = learnt {
        decided_by_learner(&mut builder, &learnt);
        let pending = learnt.pending.filter(|_| success);
        along.rewarded = pending.map(|pending| RewardOnDelivery { arrival, pending });
    }
    worker.end_if_stopping(&mut builder);
    accompanied::hand_on(&mut builder, body, along, request)
}

fn decided_by_learner(builder: &mut HttpResponseBuilder, learnt: &LearnerDecision) {
    let state: Vec<String> = learnt.state.iter().map(|x| float_text(*x)).collect();
    builder
        .insert_header((headers::LEARNT_EID.clone(), learnt.eid.to_string()))
        .insert_header((headers::LEARNT_STATE.clone(), state.join(",")))
        .insert_header((headers::LEARNT_ACTION.clone(), float_text(learnt.action as f64)))
        .insert_header((headers::LEARNT_EPS.clone(), float_text(learnt.epsilon)));
    if learnt.fallback {
        builder.insert_header((headers::LEARNT_FALLBACK.clone(), "True"));
    }
}

/// An answer as it goes out to a client, begun, and its body.
pub fn from_answer(answer: Answer) -> (HttpResponseBuilder, AnswerBody) {
    let mut builder = HttpResponse::build(answer.status);
    for header in answer.headers {
        builder.append_header(header);
    }
    // A body after such a status would be read as the next answer.
    let bodiless = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    (builder, if bodiless { AnswerBody::EMPTY } else { answer.body })
}

fn executed_here(builder: &mut HttpResponseBuilder, timings: Timings) {
    let one = |time: f64| format!("[{}]", six_decimals(time));
    if let Some(time) = timings.execution_time {
        builder.insert_header((headers::EXECUTION_TIME.clone(), six_decimals(time)));
    }
    for (name, time) in [
        (&headers::TOTAL_TIMES, timings.total_time),
        (&headers::SCHEDULING_TIMES, timings.scheduling_time),
        (&headers::PROBING_TIMES, timings.probing_time),
    ] {
        if let Some(time) = time {
            builder.insert_header((name.clone(), one(time)));
        }
    }
}

/// `passed` holds the executing node first; clients get the entry node first, which is this one.
fn executed_elsewhere(
    builder: &mut HttpResponseBuilder,
    passed: Vec<PeerHop>,
    timings: Timings,
    worker: &GatewayWorker,
) {
    if let Some(time) = passed.first().and_then(|hop| hop.timings.execution_time) {
        builder.insert_header((headers::EXECUTION_TIME.clone(), six_decimals(time)));
    }
    let here = PeerHop { timings, ..PeerHop::at(&worker.node.published.load().identity) };
    let hops: Vec<&PeerHop> = std::iter::once(&here).chain(passed.iter().rev()).collect();
    let times = |pick: fn(&Timings) -> Option<f64>| {
        let texts: Vec<String> =
            hops.iter().map(|hop| seconds_text(pick(&hop.timings).unwrap_or(0.0))).collect();
        format!("[{}]", texts.join(","))
    };
    let texts = |pick: fn(&PeerHop) -> &str| {
        let texts: Vec<&str> = hops.iter().map(|hop| pick(hop)).collect();
        // Strings always serialise; of what can then stand in one, a header takes all but DEL.
        serde_json::to_string(&texts).unwrap_or_default().replace('\x7f', "")
    };
    builder
        .insert_header((headers::EXTERNALLY_EXECUTED.clone(), "True"))
        .insert_header((headers::HOPS.clone(), passed.len().to_string()))
        .insert_header((headers::PEERS_IP.clone(), texts(|hop| &hop.machine_ip)))
        .insert_header((headers::PEERS_ID.clone(), texts(|hop| &hop.machine_id)))
        .insert_header((headers::TOTAL_TIMES.clone(), times(|t| t.total_time)))
        .insert_header((headers::SCHEDULING_TIMES.clone(), times(|t| t.scheduling_time)))
        .insert_header((headers::PROBING_TIMES.clone(), times(|t| t.probing_time)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderName;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn bypass_wins_over_forward_and_forward_over_reject_whatever_the_value() {
        let all = [
            ("X-P2pfaas-Scheduler-Reject", "1"),
            ("X-P2pfaas-Scheduler-Forward", "0"),
            ("X-P2pfaas-Scheduler-Bypass", "false"),
        ];
        assert_eq!(steer(&map(&all)), Some(Steer::Bypass));
        assert_eq!(steer(&map(&all[..2])), Some(Steer::Forward));
        assert_eq!(steer(&map(&all[..1])), Some(Steer::Reject));
        assert_eq!(steer(&map(&[("X-P2pfaas-Scheduler-Bypass", "")])), None);
    }
}
