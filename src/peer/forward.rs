//! Handing a call to a peer, and reading what comes back.

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use futures_util::future::LocalBoxFuture;

use super::{PeerClient, message};
use crate::call::body::{AnswerBody, RequestBody};
use crate::call::forward::{Forward, ForwardFailure, Forwarder, PeerReply};
use crate::call::function::Answer;
use crate::client::SendFailure;
use crate::client::http1::OutgoingRequest;
use crate::types::{Cause, Peer};
use crate::wire::content_type::sniffed;
use crate::wire::v1_json::read_base64;
use crate::wire::{
    MACHINE_AGENT, PeerHop, headers, message_bytes_max, read_peer_answer, six_decimals,
};

impl From<SendFailure> for ForwardFailure {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::RequestBody(why) => Self::Body(why),
            failure @ SendFailure::Unreadable(_) => Self::Nothing(Cause::of(failure)),
            failure if failure.retry_is_safe() => Self::NotSent(Cause::of(failure)),
            failure => Self::Broke(Cause::of(failure)),
        }
    }
}

impl PeerClient {
    /// Hands a call on as v1 takes it.
    async fn send_message(
        &self,
        peer: &Peer,
        call: &Forward<'_>,
    ) -> Result<PeerReply, ForwardFailure> {
        let (message, _held) = message::of(call, &self.bodies).await?;
        let mut told = HeaderMap::new();
        told.insert(header::USER_AGENT, HeaderValue::from_static(MACHINE_AGENT));
        told.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let left = call.deadline.map(|left| six_decimals(left.as_secs_f64()));
        for (name, text) in [
            (&headers::TRACING_ID, call.tracing_id),
            (&headers::TASK_TYPE, call.task_type),
            (&headers::DEADLINE, left.as_deref().unwrap_or_default()),
        ] {
            // What cannot be a header came by none.
            if let Ok(value) = HeaderValue::from_str(text)
                && !text.is_empty()
            {
                told.insert(name.clone(), value);
            }
        }
        let request = OutgoingRequest {
            origin: self.scheduler_of(peer),
            method: Method::POST,
            target: format!("/peer/function/{}", call.invocation.name),
            headers: told,
            body: RequestBody::Whole(message),
            upgrades: false,
            asks_first: false,
        };
        let sent = self.calls.send(request).await;
        let answer = sent.inspect_err(|failure| self.report(&peer.host, failure))?;
        let limit = message_bytes_max(self.settings.whole_body_bytes_max());
        let (message, held) = answer
            .body
            .collect_held(limit, &self.bodies)
            .await
            .map_err(|why| ForwardFailure::Broke(Cause::of(why)))?;
        let http_headers = headers::from_function(answer.headers);
        let mut forwarded = read_answer(&message, answer.status, http_headers)
            .map_err(|why| ForwardFailure::Nothing(Cause::of(why)))?;
        forwarded.answer.held = held.map(|held| held.for_answer(message.len()));
        refused_for_size(forwarded)
    }
}

/// Limits follow each node's memory. A function's own 413 has an execution time.
pub(super) fn refused_for_size(reply: PeerReply) -> Result<PeerReply, ForwardFailure> {
    let executed = |hop: &PeerHop| hop.timings.execution_time.is_some();
    let too_large = reply.answer.status == StatusCode::PAYLOAD_TOO_LARGE;
    match too_large && !reply.peers.iter().any(executed) {
        true => Err(ForwardFailure::Refused(Cause::of("its bodies are smaller"))),
        false => Ok(reply),
    }
}

impl Forwarder for PeerClient {
    fn streams_to(&self, peer: &Peer) -> bool {
        peer.streams
    }

    fn forward<'a>(
        &'a self,
        peer: &'a Peer,
        call: Forward<'a>,
    ) -> LocalBoxFuture<'a, Result<PeerReply, ForwardFailure>> {
        Box::pin(async move {
            let result = match peer.streams {
                true => self.send_streamed(peer, &call).await,
                false => self.send_message(peer, &call).await,
            };
            let label = match &result {
                Ok(_) => "answered",
                Err(ForwardFailure::NotSent(_)) => "unreachable",
                Err(ForwardFailure::Refused(_)) => "refused",
                Err(ForwardFailure::Broke(_)) => "broke",
                Err(ForwardFailure::Nothing(_)) => "nothing",
                Err(ForwardFailure::Body(_)) => "body",
            };
            self.metrics.forward(&peer.host, label);
            result
        })
    }
}

/// Reads a peer's answer. `http_headers` are those that v1 passes on by HTTP only.
pub(crate) fn read_answer(
    message: &[u8],
    status: StatusCode,
    http_headers: HeaderMap,
) -> Result<PeerReply, String> {
    let read = read_peer_answer(message, usize::MAX)?;
    if read.peers_list.is_none() && read.status_code.is_none() {
        return Err("the answer has neither peers_list nor status_code".to_owned());
    }
    let body = read_base64(&read.body.unwrap_or_default())
        .map_err(|why| format!("its body is no base64: {why}"))?;
    let status = match read.status_code {
        Some(code) => {
            StatusCode::from_u16(code).map_err(|_| format!("its status_code is {code}"))?
        }
        None => status,
    };
    if status.is_informational() {
        return Err(format!("its status is {status}, which is no final one"));
    }
    let headers = match &read.headers {
        Some(told) => headers::from_function(headers::from_json(told)),
        None => guessed_type(http_headers, &body),
    };
    let answer = Answer { status, headers, body: AnswerBody::Whole(body.into()), held: None };
    Ok(PeerReply { answer, peers: read.peers_list.unwrap_or_default() })
}

/// v1 does not say what type the function's output has; its own clients are told a guess, too.
fn guessed_type(mut headers: HeaderMap, body: &[u8]) -> HeaderMap {
    // The type that came by HTTP is that of the peer's own JSON.
    headers.remove(header::CONTENT_TYPE);
    if let Some(guess) = sniffed(body) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(guess));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &str) -> Result<PeerReply, String> {
        read_answer(message.as_bytes(), StatusCode::OK, HeaderMap::new())
    }

    #[test]
    fn an_answer_as_v1_gives_it_is_read_and_its_type_guessed() {
        let message = r#"{"peers_list":[{"machine_id":"ref-n0","machine_ip":"127.0.0.1",
            "timings":{"execution_time":0.002,"total_time":0.0021,"scheduling_time":0.000006}}],
            "body":"aGVsbG8=","status_code":200}"#;
        let forwarded = read(message).expect("readable");
        assert!(matches!(&forwarded.answer.body, AnswerBody::Whole(body) if body == "hello"));
        let content_type = forwarded.answer.headers.get("content-type").expect("guessed");
        assert_eq!(content_type, "text/plain; charset=utf-8");
        assert_eq!(forwarded.peers[0].timings.execution_time, Some(0.002));
    }

    #[test]
    fn our_own_answer_brings_status_and_headers() {
        let message = r#"{"peers_list":[],"body":"","status_code":201,
            "headers":{"content-type":"image/jpeg","x-mine":"1","x-p2pfaas-hops":"9"}}"#;
        let answer = read(message).expect("readable").answer;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.headers.get("content-type").expect("told"), "image/jpeg");
        assert!(answer.headers.contains_key("x-mine"));
        assert!(!answer.headers.contains_key("x-p2pfaas-hops"), "ours are not the peer's to say");
    }

    #[test]
    fn what_is_no_peer_answer_is_nothing() {
        for message in [
            "",
            "[]",
            "{}",
            r#"{"code":1,"message":"Generic Error"}"#,
            r#"{"peers_list":[],"body":"%%%","status_code":200}"#,
            r#"{"peers_list":[],"body":"","status_code":20}"#,
        ] {
            assert!(read(message).is_err(), "{message}");
        }
    }
}
