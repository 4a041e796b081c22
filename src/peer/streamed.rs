//! Handing a call on by peer protocol 2: plain HTTP, whose metadata are headers, and which streams.

use std::task::{Context, Poll};

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::PeerClient;
use super::forward::refused_for_size;
use crate::call::body::{AnswerBody, AnswerStream, NextPiece};
use crate::call::forward::{Forward, ForwardFailure, PeerReply};
use crate::call::function::Answer;
use crate::client::BodyFailure;
use crate::client::http1::{IncomingBody, OutgoingRequest};
use crate::error::Error;
use crate::types::{Cause, Peer};
use crate::wire::peer2::{EXECUTED, path_text, read_path, read_times};
use crate::wire::{PeerHop, headers, six_decimals};

impl PeerClient {
    /// Hands a call on to a node that speaks protocol 2.
    pub(super) async fn send_streamed(
        &self,
        peer: &Peer,
        call: &Forward<'_>,
    ) -> Result<PeerReply, ForwardFailure> {
        let invocation = call.invocation;
        let request = OutgoingRequest {
            origin: self.scheduler_of(peer),
            method: invocation.method.clone(),
            target: invocation.target(&format!("/peer/2/function/{}", invocation.name)),
            headers: metadata(call),
            body: invocation.body.clone(),
            upgrades: invocation.upgrades,
            asks_first: true,
        };
        let sent = self.calls.send(request).await;
        let mut answer = sent.inspect_err(|failure| self.report(&peer.host, failure))?;
        let peers = passed(&answer.headers).map_err(|why| match answer.status {
            // No handler has seen the call: with what goes along, its head was too much.
            StatusCode::BAD_REQUEST
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::URI_TOO_LONG
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ForwardFailure::Refused(Cause::of(format!("status {}", answer.status)))
            }
            _ => ForwardFailure::Nothing(Cause::of(why)),
        })?;
        let length_told = headers::length(&answer.headers);
        let headers = headers::from_function(answer.headers);
        let broke = |why| match why {
            BodyFailure::Request(why) => ForwardFailure::Body(why),
            why => ForwardFailure::Broke(Cause::of(why)),
        };
        let stream = |begun, body| {
            Box::new(PeerStream { begun, body, peer: peer.host.to_string() }) as Box<_>
        };
        let body = if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            AnswerBody::Upgraded(stream(None, answer.body))
        } else if answer.leaves_body_out {
            AnswerBody::LeftOut { length: length_told }
        } else {
            let length = answer.body.length();
            let (begun, whole) = answer.body.whole_or_begun().await.map_err(broke)?;
            let begin = Some(begun.clone()).filter(|begun| !begun.is_empty());
            match whole {
                true => AnswerBody::Whole(begun),
                false => AnswerBody::Streamed { stream: stream(begin, answer.body), length },
            }
        };
        let answer = Answer { status: answer.status, headers, body, held: None };
        refused_for_size(PeerReply { answer, peers })
    }
}

/// The call's headers, and what goes along between nodes.
fn metadata(call: &Forward<'_>) -> HeaderMap {
    let mut told = call.invocation.headers.clone();
    let mut tell = |name: &HeaderName, text: &str| {
        // What cannot be a header came by none.
        match HeaderValue::from_str(text) {
            Ok(value) if !text.is_empty() => drop(told.insert(name.clone(), value)),
            _ => drop(told.remove(name)),
        }
    };
    tell(&headers::PEER_TRACING_ID, call.tracing_id);
    tell(&headers::PEER_HOPS, &call.hops.to_string());
    tell(&headers::PEER_PATH, &path_text(call.path));
    tell(&headers::PEER_TASK_TYPE, call.task_type);
    let left = call.deadline.map(|left| six_decimals(left.as_secs_f64()));
    tell(&headers::PEER_DEADLINE, &left.unwrap_or_default());
    told
}

/// The nodes that an answer passed, with their times.
fn passed(told: &HeaderMap) -> Result<Vec<PeerHop>, String> {
    let outcome = headers::text(told, &headers::PEER_OUTCOME);
    if outcome != EXECUTED && outcome.parse::<u32>().is_err() {
        return Err(format!("its answer tells the outcome {outcome:?}"));
    }
    let mut peers = read_path(headers::text(told, &headers::PEER_PATH))?;
    if peers.is_empty() {
        return Err("its answer tells of no node that it has passed".to_owned());
    }
    read_times(headers::text(told, &headers::PEER_TIMES), &mut peers);
    Ok(peers)
}

/// What a peer says after its answer's head.
struct PeerStream {
    /// What came with the head.
    begun: Option<Bytes>,
    body: IncomingBody,
    peer: String,
}

impl AnswerStream for PeerStream {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(Ok(begun)));
        }
        let broke = |why| match why {
            BodyFailure::Request(why) => why,
            why => Error::ForwardBroke { peer: self.peer.clone(), cause: Cause::of(why) },
        };
        self.body.poll_piece(cx).map(|next| next.map(|piece| piece.map_err(broke)))
    }

    fn trailers(&mut self) -> HeaderMap {
        headers::from_function(self.body.trailers())
    }
}
