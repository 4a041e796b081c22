//! A function behind HTTP: how a call goes out and its answer comes in. Shared by the backends
//! that only differ in where the function is.

use std::task::{Context, Poll};

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;

use crate::actors::queue::Slot;
use crate::call::body::{AnswerBody, AnswerStream, NextPiece};
use crate::call::function::{Answer, Invocation};
use crate::client::http1::{HttpClient, IncomingBody, Origin, OutgoingRequest};
use crate::client::{BodyFailure, SendFailure};
use crate::error::Error;
use crate::types::FunctionName;
use crate::wire::headers;

/// A worker thread's client for functions.
#[derive(Clone)]
pub struct Remote {
    client: HttpClient,
}

impl Remote {
    /// Calls go out through `client`.
    pub fn new(client: HttpClient) -> Self {
        Self { client }
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
        let request = OutgoingRequest { origin, method, target, headers, body, upgrades };
        let answer = self.client.send(request).await.map_err(|why| failed(&name, why))?;
        let mut body = answer.body;
        let length = body.length();
        let told = headers::from_function(answer.headers);
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            let stream = FunctionStream { begun: None, body, name, _slot: slot };
            let body = AnswerBody::Upgraded(Box::new(stream));
            return Ok(Answer { status: answer.status, headers: told, body, held: None });
        }
        let begun = body.whole_or_begun().await;
        let (begun, whole) = begun.map_err(|why| function_broke(&name, why))?;
        let body = match whole {
            true => AnswerBody::Whole(begun),
            false => {
                let begun = Some(begun).filter(|begun| !begun.is_empty());
                let stream = FunctionStream { begun, body, name, _slot: slot };
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
        SendFailure::NotConnected { why, .. } => Error::FunctionUnreachable { name, why },
        SendFailure::Invalid(why) => Error::Malformed(why),
        SendFailure::NoAnswer(limit) => Error::FunctionTimedOut { name, limit },
        SendFailure::RequestBody(why) => why,
        SendFailure::Broke(why) => Error::FunctionBroke { name, why },
    }
}

fn function_broke(name: &FunctionName, failure: BodyFailure) -> Error {
    match failure {
        BodyFailure::Request(why) => why,
        BodyFailure::Silent(limit) => Error::FunctionTimedOut { name: name.clone(), limit },
        failure => Error::FunctionBroke { name: name.clone(), why: failure.to_string() },
    }
}

/// What a function says after its answer's head. Its slot is given back with the last byte.
struct FunctionStream {
    /// What came with the head.
    begun: Option<bytes::Bytes>,
    body: IncomingBody,
    name: FunctionName,
    _slot: Slot,
}

impl AnswerStream for FunctionStream {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(Ok(begun)));
        }
        let polled = self.body.poll_piece(cx);
        polled.map(|next| next.map(|piece| piece.map_err(|why| function_broke(&self.name, why))))
    }

    fn trailers(&mut self) -> HeaderMap {
        headers::from_function(self.body.trailers())
    }
}
