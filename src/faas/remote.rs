//! A function behind HTTP: how a call goes out and its answer comes in. Shared by the backends
//! that only differ in where the function is.

use std::task::{Context, Poll, ready};

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use bytes::Bytes;

use crate::actors::queue::Slot;
use crate::call::body::{AnswerBody, AnswerStream, NextPiece};
use crate::call::function::{Answer, Invocation};
use crate::client::http1::{HttpClient, IncomingBody, Origin, OutgoingRequest};
use crate::client::{BodyFailure, SendFailure};
use crate::error::Error;
use crate::types::{Cause, FunctionName};
use crate::wire::headers;

/// A worker thread's client for functions.
#[derive(Clone)]
pub struct Remote {
    client: HttpClient,
    answer_bytes_max: Option<u64>,
}

impl Remote {
    /// Calls go out through `client`; a function answers at most so many bytes, where there is a limit.
    pub fn new(client: HttpClient, answer_bytes_max: Option<u64>) -> Self {
        Self { client, answer_bytes_max }
    }

    /// Looks up where the function is.
    ///
    /// # Errors
    /// Its host's name leads nowhere, or to where it must not.
    pub async fn prepare(&self, origin: &Origin, name: &FunctionName) -> Result<(), Error> {
        self.client.look_up(origin).await.map_err(|why| failed(name, why))
    }

    /// Calls the function at `target` of `origin`. Dropping the future or the answer closes the
    /// connection, so the slot is free again whichever way this ends.
    ///
    /// # Errors
    /// The function did not answer.
    pub async fn call(
        &self,
        origin: Origin,
        target: String,
        call: Invocation,
        slot: Slot,
    ) -> Result<Answer, Error> {
        let Invocation { name, method, headers, body, upgrades, .. } = call;
        let request =
            OutgoingRequest { origin, method, target, headers, body, upgrades, asks_first: false };
        let answer = self.client.send(request).await.map_err(|why| failed(&name, why))?;
        let mut body = answer.body;
        let length = body.length();
        let length_told = headers::length(&answer.headers);
        let told = headers::from_function(answer.headers);
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            let stream = FunctionStream { begun: None, body, name, left: None, _slot: slot };
            let body = AnswerBody::Upgraded(Box::new(stream));
            return Ok(Answer { status: answer.status, headers: told, body, held: None });
        }
        if answer.leaves_body_out {
            return Ok(Answer {
                status: answer.status,
                headers: told,
                body: AnswerBody::LeftOut { length: length_told },
                held: None,
            });
        }
        let limit = self.answer_bytes_max;
        let within = |bytes: u64| match limit.filter(|limit| bytes > *limit) {
            None => Ok(()),
            Some(limit) => Err(too_large(limit)),
        };
        within(length.unwrap_or(0))?;
        let begun = body.whole_or_begun().await;
        let (begun, whole) = begun.map_err(|why| function_broke(&name, why))?;
        within(begun.len() as u64)?;
        let body = match whole {
            true => AnswerBody::Whole(begun),
            false => {
                let begun = Some(begun).filter(|begun| !begun.is_empty());
                let stream = FunctionStream { begun, body, name, left: limit, _slot: slot };
                AnswerBody::Streamed { stream: Box::new(stream), length }
            }
        };
        Ok(Answer { status: answer.status, headers: told, body, held: None })
    }
}

fn failed(name: &FunctionName, failure: SendFailure) -> Error {
    let name = name.clone();
    match failure {
        SendFailure::UnknownHost(_) => Error::UnknownFunction(name),
        SendFailure::NearHost => Error::NearFunction(name),
        SendFailure::NotConnected(cause) => Error::FunctionUnreachable { name, cause },
        SendFailure::Invalid(why) => Error::Malformed(why.to_string()),
        SendFailure::NoAnswer(limit) => Error::FunctionTimedOut { name, limit },
        SendFailure::RequestBody(why) => why,
        failure @ SendFailure::Unreadable(_) => {
            Error::FunctionBroke { name, cause: Cause::of(failure) }
        }
        SendFailure::Broke(cause) => Error::FunctionBroke { name, cause },
    }
}

fn function_broke(name: &FunctionName, failure: BodyFailure) -> Error {
    match failure {
        BodyFailure::Request(why) => why,
        BodyFailure::Silent(limit) => Error::FunctionTimedOut { name: name.clone(), limit },
        failure => Error::FunctionBroke { name: name.clone(), cause: Cause::of(failure) },
    }
}

/// What a function says after its answer's head. Its slot is given back with the last byte.
struct FunctionStream {
    /// What came with the head.
    begun: Option<Bytes>,
    body: IncomingBody,
    name: FunctionName,
    /// Bytes that may still come, where there is a limit.
    left: Option<u64>,
    _slot: Slot,
}

impl FunctionStream {
    fn within(&mut self, piece: Bytes) -> Result<Bytes, Error> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(piece.len() as u64).ok_or_else(|| too_large(*left))?;
        }
        Ok(piece)
    }
}

fn too_large(limit: u64) -> Error {
    Error::AnswerTooLarge { limit_bytes: usize::try_from(limit).unwrap_or(usize::MAX) }
}

impl AnswerStream for FunctionStream {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(self.within(begun)));
        }
        let next = ready!(self.body.poll_piece(cx));
        let next = next.map(|piece| piece.map_err(|why| function_broke(&self.name, why)));
        Poll::Ready(next.map(|piece| self.within(piece?)))
    }

    fn trailers(&mut self) -> HeaderMap {
        headers::from_function(self.body.trailers())
    }
}
