//! A function behind HTTP: how a call goes out and its answer comes in. Shared by the backends
//! that only differ in where the function is.

use actix_web::http::{Method, Uri};
use awc::ClientResponse;
use awc::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;

use crate::actors::queue::Slot;
use crate::call::function::{Answer, Invocation};
use crate::client::{BodyFailure, Renewed, SendFailure, read_held_body};
use crate::connections::Bodies;
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::types::FunctionName;
use crate::wire::headers;

/// A worker thread's client for functions.
#[derive(Clone)]
pub struct Remote {
    client: Renewed,
    answer_bytes_max: usize,
    bodies: Bodies,
}

impl Remote {
    /// `answer_bytes_max` bounds what a function may answer, `bodies` what all of them may hold.
    pub fn new(client: Renewed, answer_bytes_max: usize, bodies: Bodies) -> Self {
        Self { client, answer_bytes_max, bodies }
    }

    /// Reads an answer's body, of at most `limit_bytes`.
    ///
    /// # Errors
    /// It is larger, not whole, or there is no room for it.
    pub async fn read<S>(
        &self,
        response: &mut ClientResponse<S>,
        limit_bytes: usize,
    ) -> Result<(Bytes, Option<Reservation>), BodyFailure>
    where
        S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    {
        read_held_body(response, limit_bytes, &self.bodies).await
    }

    /// Calls the function at `uri`; dropping the future closes the connection, so the slot is
    /// free again whichever way this ends.
    pub async fn call(&self, uri: Uri, call: Invocation, slot: Slot) -> Result<Answer, Error> {
        let Invocation { name, method, headers, body, .. } = call;
        let bodiless = body.is_empty() && method == Method::GET;
        let mut request = self.client.get().request(method, uri);
        *request.headers_mut() = headers;
        let sent = if bodiless { request.send() } else { request.send_body(body) };
        let mut response = sent.await.map_err(|why| failed(&name, why.into()))?;
        let passed = headers::from_function(response.headers());
        let (body, held) = self
            .read(&mut response, self.answer_bytes_max)
            .await
            .map_err(|why| Error::FunctionBroke { name, why: why.to_string() })?;
        drop(slot);
        Ok(Answer { status: response.status(), headers: passed, body, held })
    }
}

fn failed(name: &FunctionName, failure: SendFailure) -> Error {
    let name = name.clone();
    match failure {
        SendFailure::UnknownHost(_) => Error::UnknownFunction(name),
        SendFailure::NotConnected { why, .. } => Error::FunctionUnreachable { name, why },
        SendFailure::Invalid(why) => Error::Malformed(why),
        SendFailure::Broke(why) => Error::FunctionBroke { name, why },
    }
}
