//! `/peer/2/function/{fn}` and what is below it: calls that other nodes hand on by peer protocol 2.

use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use tokio::time::Instant;

use super::accompanied::{self, Along};
use super::errors;
use super::function_api::{asks_for_websocket, call_body, from_answer, function_and_path};
use super::gateway_worker::GatewayWorker;
use super::incoming::check_member;
use crate::call::body::{AnswerBody, AnswerStream, NextPiece};
use crate::call::function::Invocation;
use crate::call::{Call, CallReport};
use crate::error::Error;
use crate::policy::Task;
use crate::types::TaskType;
use crate::wire::peer2::{EXECUTED, path_text, read_path, times_text};
use crate::wire::{PeerHop, Timings, headers};

/// Serves one call that another node hands on.
pub async fn call(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Rc<GatewayWorker>>,
) -> HttpResponse {
    let arrival = Instant::now();
    let (result, timings, elsewhere) = match read(&request, payload, &worker, arrival).await {
        Ok(call) => {
            let CallReport { result, timings, elsewhere, .. } =
                worker.dispatcher.carry_out(call).await;
            (result, timings, elsewhere)
        }
        Err(error) => {
            worker.refused(&error, arrival);
            let total = Some(arrival.elapsed().as_secs_f64());
            (Err(error), Timings { total_time: total, ..Timings::default() }, None)
        }
    };
    let mut along = Along::default();
    let (outcome, (mut builder, body)) = match result {
        Ok(mut answer) => {
            along.held = answer.held.take();
            (EXECUTED.to_owned(), from_answer(answer))
        }
        Err(error) => {
            let (status, body) = errors::status_and_body(&error);
            let code = error.code().code.to_string();
            (code, (errors::begin(status), AnswerBody::Whole(body.into())))
        }
    };
    let ran_here = outcome == EXECUTED && elsewhere.is_none();
    let mut passed = elsewhere.unwrap_or_default();
    passed.push(PeerHop { timings, ..PeerHop::at(&worker.node.published.load().identity) });
    builder
        .insert_header((headers::PEER_OUTCOME.clone(), outcome))
        .insert_header((headers::PEER_PATH.clone(), path_text(&passed)))
        .insert_header((headers::PEER_TIMES.clone(), times_text(&passed)));
    let body = match body {
        AnswerBody::Streamed { stream, length: None } => {
            let stream = Box::new(Timed { stream, passed, arrival, ran_here });
            AnswerBody::Streamed { stream, length: None }
        }
        body => body,
    };
    worker.end_if_stopping(&mut builder);
    accompanied::hand_on(&mut builder, body, along, &request)
}

/// An answer in chunks: behind it come the times up to its last byte.
struct Timed {
    stream: Box<dyn AnswerStream>,
    /// The nodes passed, this one last, with the times up to the answer's beginning.
    passed: Vec<PeerHop>,
    arrival: Instant,
    ran_here: bool,
}

impl AnswerStream for Timed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        self.stream.poll_piece(cx)
    }

    fn trailers(&mut self) -> HeaderMap {
        let mut trailers = self.stream.trailers();
        if let Some(here) = self.passed.last_mut() {
            let total = self.arrival.elapsed().as_secs_f64();
            let since = total - here.timings.total_time.unwrap_or(total);
            here.timings.total_time = Some(total);
            let execution = here.timings.execution_time.filter(|_| self.ran_here);
            here.timings.execution_time =
                execution.map(|time| time + since).or(here.timings.execution_time);
        }
        if let Ok(times) = HeaderValue::from_str(&times_text(&self.passed)) {
            trailers.insert(headers::PEER_TIMES.clone(), times);
        }
        trailers
    }
}

async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    worker: &GatewayWorker,
    arrival: Instant,
) -> Result<Call, Error> {
    check_member(request, &worker.node.trust)?;
    let (name, path) = function_and_path(request, "/peer/2/function/", &worker.functions)?;
    let from = request.headers();
    let hops = headers::text(from, &headers::PEER_HOPS);
    let wrong = |why: String| Error::Malformed(why);
    let hops: u32 = hops
        .trim()
        .parse()
        .map_err(|_| wrong(format!("{} is {hops:?}, which is no number", headers::PEER_HOPS)))?;
    let passed = read_path(headers::text(from, &headers::PEER_PATH)).map_err(wrong)?;
    let deadline = headers::time_left(from, &headers::PEER_DEADLINE).map_err(wrong)?;
    let task_type = headers::text(from, &headers::PEER_TASK_TYPE);
    let (body, held) = call_body(request, payload, worker, &name).await?;
    let task = Task {
        function: name.clone(),
        body_bytes: body.length(),
        task_type: TaskType::from_text(task_type),
        hops,
        from_peer: true,
        deadline,
    };
    Ok(Call {
        invocation: Invocation {
            name,
            method: request.method().clone(),
            path,
            query: request.query_string().to_owned(),
            headers: for_function(from),
            body,
            upgrades: asks_for_websocket(request),
        },
        task,
        steer: None,
        tracing_id: headers::text(from, &headers::PEER_TRACING_ID).to_owned(),
        task_type: task_type.to_owned(),
        path: passed,
        arrival,
        held,
    })
}

/// The headers that the function gets: those of the call, and the tracing id under its own name.
fn for_function(from: &HeaderMap) -> HeaderMap {
    let mut passed = headers::for_function(from);
    let mut tell = |name: &HeaderName, value: Option<&HeaderValue>| match value {
        Some(value) => drop(passed.insert(name.clone(), value.clone())),
        None => drop(passed.remove(name)),
    };
    tell(&headers::TRACING_ID, from.get(&headers::PEER_TRACING_ID));
    passed
}
