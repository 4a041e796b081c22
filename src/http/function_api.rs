//! `GET`, `POST /function/{fn}`: clients' calls.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::accompanied::{self, Along, RewardOnDelivery};
use super::body::read_body;
use super::errors;
use super::gateway_worker::GatewayWorker;
use crate::actors::replicas::Steer;
use crate::call::function::{Answer, Invocation};
use crate::call::{Call, CallReport};
use crate::connections::Connection;
use crate::error::Error;
use crate::faas::Functions;
use crate::policy::{LearnerDecision, Task};
use crate::types::{FunctionName, TaskType};
use crate::wire::headers;
use crate::wire::{PeerHop, Timings, float_text, seconds_text, six_decimals};

/// The methods by which functions are called.
pub const FUNCTION_METHODS: [Method; 2] = [Method::GET, Method::POST];

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
    respond(outcome, &worker, request.conn_data())
}

/// The function that a path names: decoded once, then checked.
///
/// # Errors
/// The path names none, or one that is not valid, or not among those that the node serves.
pub fn function_name(
    request: &HttpRequest,
    prefix: &str,
    functions: &Functions,
) -> Result<FunctionName, Error> {
    let raw = request.uri().path().strip_prefix(prefix).unwrap_or_default();
    if raw.is_empty() || raw.contains('/') {
        return Err(Error::UnknownPath);
    }
    functions.check(&percent_decode_str(raw).decode_utf8_lossy())
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
    let name = function_name(request, "/function/", &worker.functions)?;
    if !FUNCTION_METHODS.contains(request.method()) {
        return Err(Error::WrongMethod);
    }
    let limit_bytes = worker.node.settings.body_bytes_max;
    let (body, held) = read_body(request, payload, limit_bytes, &worker.uploads).await?;
    let from = request.headers();
    let task_type = headers::text(from, &headers::TASK_TYPE);
    let deadline = headers::deadline(from).map_err(Error::Malformed)?;
    let invocation = Invocation {
        name,
        method: request.method().clone(),
        query: request.query_string().to_owned(),
        headers: headers::for_function(from),
        body,
    };
    Ok(Call {
        invocation,
        task: Task {
            task_type: TaskType::from_text(task_type),
            hops: 0,
            from_peer: false,
            deadline,
        },
        steer: steer(from),
        tracing_id: headers::text(from, &headers::TRACING_ID).to_owned(),
        task_type: task_type.to_owned(),
        path: Vec::new(),
        arrival,
        held,
    })
}

fn respond(
    outcome: CallReport,
    worker: &GatewayWorker,
    connection: Option<&Arc<Connection>>,
) -> HttpResponse {
    let CallReport { result, scheduler, timings, learnt, arrival, elsewhere } = outcome;
    let executed = result.is_ok();
    let success = result.as_ref().is_ok_and(|answer| answer.status.is_success());
    let mut along = Along::default();
    let mut response = match result {
        Ok(mut answer) => {
            along.held = answer.held.take();
            from_answer(&answer)
        }
        Err(error) => {
            let (status, body) = errors::status_and_body(&error);
            (errors::begin(status), Bytes::from(body))
        }
    };
    let builder = &mut response.0;
    builder.insert_header((headers::VERSION.clone(), HeaderValue::from_static(crate::VERSION)));
    builder.insert_header((headers::SCHEDULER.clone(), &*scheduler.full_name));
    match elsewhere {
        Some(passed) => executed_elsewhere(builder, passed, timings, worker),
        None if executed => executed_here(builder, timings),
        None => {}
    }
    if let Some(learnt) = learnt {
        decided_by_learner(builder, &learnt);
        let pending = learnt.pending.filter(|_| success);
        along.rewarded = pending.map(|pending| RewardOnDelivery { arrival, pending });
    }
    accompanied::respond(&mut response.0, response.1, along, connection)
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
pub fn from_answer(answer: &Answer) -> (HttpResponseBuilder, Bytes) {
    let mut builder = HttpResponse::build(answer.status);
    for (name, value) in &answer.headers {
        builder.append_header((name.clone(), value.clone()));
    }
    // A body after such a status would be read as the next answer.
    let bodiless = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    (builder, if bodiless { Bytes::new() } else { answer.body.clone() })
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
    let me = worker.node.published.load().identity.clone();
    let here = PeerHop { machine_ip: me.ip_text(), machine_id: me.id, timings };
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
