//! `POST /peer/function/{fn}`: calls that other nodes hand on.
//!
//! Every answer but the wrong user agent's has the shape of a peer answer with a non-empty
//! `peers_list`, errors included: without it a v1 node ends its process.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::ConnectionType;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tokio::time::Instant;

use super::accompanied::{self, Along};
use super::body::read_body;
use super::errors;
use super::function_api::function_and_path;
use super::gateway_worker::GatewayWorker;
use super::incoming::check_member;
use crate::call::body::{AnswerBody, RequestBody};
use crate::call::function::{Answer, Invocation};
use crate::call::{Call, CallReport};
use crate::connections::{Bodies, Connection};
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::policy::Task;
use crate::queue::Refusal;
use crate::types::{Cause, TaskType, cut};
use crate::wire::headers;
use crate::wire::message_bytes_max;
use crate::wire::v1_json::read_base64;
use crate::wire::{MACHINE_AGENT, NAME_BYTES_MAX, PeerAnswer, PeerHop, Timings, read_peer_request};

/// Serves one call that another node hands on.
pub async fn call(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Rc<GatewayWorker>>,
) -> HttpResponse {
    let arrival = Instant::now();
    if request.method() != Method::POST {
        let mut answer = refusal(&Error::WrongMethod, here(&worker));
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    if headers::text(request.headers(), &header::USER_AGENT) != MACHINE_AGENT {
        return errors::response(&Error::NotAMachine);
    }
    if let Err(error) = check_member(&request, &worker.node.trust) {
        worker.refused(&error, arrival);
        return refusal(&error, here(&worker));
    }
    match read(&request, payload, &worker, arrival).await {
        Ok(call) => {
            let CallReport { result, timings, elsewhere, .. } =
                worker.dispatcher.carry_out(call).await;
            let passed = elsewhere.unwrap_or_default();
            let limit_bytes = worker.node.settings.whole_body_bytes_max();
            let bodies = &worker.uploads.bodies;
            let result = match result {
                Ok(answer) => whole(answer, limit_bytes, bodies).await,
                Err(error) => Err(error),
            };
            respond(result, passed, timings, &worker, request.conn_data())
        }
        Err(error) => {
            worker.refused(&error, arrival);
            let total = Some(arrival.elapsed().as_secs_f64());
            let timings = Timings { total_time: total, ..Timings::default() };
            respond(Err(error), Vec::new(), timings, &worker, request.conn_data())
        }
    }
}

async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    worker: &GatewayWorker,
    arrival: Instant,
) -> Result<Call, Error> {
    let (name, path) = function_and_path(request, "/peer/function/", &worker.functions)?;
    if path != "/" || request.uri().path().ends_with('/') {
        return Err(Error::UnknownPath);
    }
    let limit_bytes = worker.node.settings.whole_body_bytes_max();
    let message_max = message_bytes_max(limit_bytes);
    let (message, held) = read_body(request, payload, message_max, &worker.uploads).await?;
    let read = read_peer_request(&message, message_max).map_err(Error::Malformed)?;
    drop(message);
    let body = read_base64(&read.payload.unwrap_or_default())
        .map_err(|why| Error::Malformed(format!("payload is no base64: {why}")))?;
    if body.len() > limit_bytes {
        return Err(Error::BodyTooLarge { limit_bytes });
    }
    let from = request.headers();
    // What came in JSON goes on as a header, so it must be able to be one.
    let as_header = |id: &String| id.len() <= NAME_BYTES_MAX && HeaderValue::from_str(id).is_ok();
    let tracing_id = match headers::text(from, &headers::TRACING_ID) {
        "" => read.service_id_tracing.filter(as_header).unwrap_or_default(),
        id => id.to_owned(),
    };
    let task_type = headers::text(from, &headers::TASK_TYPE);
    let deadline = headers::deadline(from).map_err(Error::Malformed)?;
    let asked = read.method.as_deref().unwrap_or("POST");
    let method = Method::from_bytes(asked.as_bytes())
        .map_err(|_| Error::Malformed(format!("method {:?} is none", cut(asked))))?;
    let query = read.query.unwrap_or_default();
    if !headers::may_be_target(&query) {
        let why = format!("query {:?} is none", cut(&query));
        return Err(Error::Malformed(why));
    }
    let hops = read.hops.unwrap_or(0).clamp(0, u32::MAX.into()) as u32;
    let invocation = Invocation {
        name,
        method,
        path,
        query,
        headers: for_function(read.headers, read.content_type, &tracing_id),
        body: RequestBody::Whole(body.into()),
        upgrades: false,
    };
    let task = Task {
        function: invocation.name.clone(),
        body_bytes: invocation.body.length(),
        task_type: TaskType::from_text(task_type),
        hops,
        from_peer: true,
        deadline,
    };
    Ok(Call {
        invocation,
        task,
        steer: None,
        tracing_id,
        task_type: task_type.to_owned(),
        path: read.peers_list.unwrap_or_default(),
        arrival,
        held,
    })
}

/// The headers that the function gets: the client's, as the message carries them.
fn for_function(
    told: Option<std::collections::BTreeMap<String, String>>,
    content_type: Option<String>,
    tracing_id: &str,
) -> HeaderMap {
    let mut headers = headers::for_function(&headers::from_json(&told.unwrap_or_default()));
    let mut set = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text)
            && !text.is_empty()
        {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, &content_type.unwrap_or_default());
    set(headers::TRACING_ID.clone(), tracing_id);
    headers
}

/// The answer to a path below `/peer` that leads nowhere.
pub async fn unknown_path(worker: web::Data<Rc<GatewayWorker>>) -> HttpResponse {
    refusal(&Error::UnknownPath, here(&worker))
}

/// This node, as one that a call has passed.
fn here(worker: &GatewayWorker) -> PeerHop {
    PeerHop::at(&worker.node.published.load().identity)
}

/// The answer to a call that is refused here before this node, `machine`, has looked at it.
pub fn refusal(error: &Error, machine: PeerHop) -> HttpResponse {
    answer_with(error_answer(error), vec![machine], None)
}

/// The status of that answer and its body.
pub fn refusal_message(error: &Error, machine: PeerHop) -> (StatusCode, Vec<u8>) {
    let answer = error_answer(error);
    // Strings, numbers and maps of strings always serialise.
    (answer.status, serde_json::to_vec(&message(&answer, vec![machine])).unwrap_or_default())
}

/// An answer of which all is there.
struct WholeAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    held: Option<Reservation>,
}

/// Waits for all of an answer: v1's message holds it whole.
async fn whole(answer: Answer, limit_bytes: usize, bodies: &Bodies) -> Result<WholeAnswer, Error> {
    let Answer { status, headers, body, mut held } = answer;
    if let AnswerBody::Streamed { length, .. } = &body {
        let bytes = length.unwrap_or(limit_bytes as u64).min(limit_bytes as u64);
        let more = bodies.take_for_answer(bytes).await.ok_or(Refusal::BytesFull)?;
        match &mut held {
            Some(held) => held.join(more),
            None => held = Some(more),
        }
    }
    let body = body.collect(limit_bytes).await?;
    let held = held.map(|held| held.for_answer(body.len()));
    Ok(WholeAnswer { status, headers, body, held })
}

fn respond(
    result: Result<WholeAnswer, Error>,
    mut passed: Vec<PeerHop>,
    timings: Timings,
    worker: &GatewayWorker,
    connection: Option<&Arc<Connection>>,
) -> HttpResponse {
    let answer = result.unwrap_or_else(|error| error_answer(&error));
    passed.push(PeerHop { timings, ..here(worker) });
    let mut response = answer_with(answer, passed, connection);
    if worker.stops() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

fn answer_with(
    answer: WholeAnswer,
    passed: Vec<PeerHop>,
    connection: Option<&Arc<Connection>>,
) -> HttpResponse {
    let message = message(&answer, passed);
    let mut response = HttpResponse::build(http_status(answer.status));
    for header in headers::through_v1(&answer.headers) {
        response.append_header(header);
    }
    response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    match serde_json::to_vec(&message) {
        Ok(message) => {
            let along = Along { held: answer.held, ..Along::default() };
            accompanied::respond(&mut response, message, along, connection)
        }
        Err(why) => errors::response(&Error::Internal(Cause::of(why))),
    }
}

/// An answer as v1 reads it.
fn message(answer: &WholeAnswer, passed: Vec<PeerHop>) -> PeerAnswer {
    PeerAnswer {
        peers_list: Some(passed),
        body: Some(BASE64_STANDARD.encode(&answer.body)),
        status_code: Some(answer.status.as_u16()),
        headers: Some(headers::to_json(&answer.headers)),
    }
}

/// The status of the HTTP answer itself: one that allows no body would cut the message off.
fn http_status(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED => {
            StatusCode::OK
        }
        status if status.is_informational() => StatusCode::OK,
        status => status,
    }
}

fn error_answer(error: &Error) -> WholeAnswer {
    let (status, body) = errors::status_and_body(error);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    WholeAnswer { status, headers, body: Bytes::from(body), held: None }
}
