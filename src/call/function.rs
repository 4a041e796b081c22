//! The port to where functions run: what a call asks of one, what it answers.

use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use crate::actors::queue::Slot;
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::types::FunctionName;

/// A call of a function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Which function.
    pub name: FunctionName,
    /// The client's method.
    pub method: Method,
    /// The client's query string, without `?`; may be empty.
    pub query: String,
    /// The client's headers that a function may see.
    pub headers: HeaderMap,
    /// The client's body.
    pub body: Bytes,
}

/// What a function answered, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The function's status.
    pub status: StatusCode,
    /// Its headers that a client may see.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its body's share of the node's budget, where it has one of its own. It goes along until the
    /// client has taken the last byte.
    pub held: Option<Reservation>,
}

/// A way to run functions.
pub trait Backend {
    /// Runs the function. `slot` is given back when it has ended, and not before, also when the
    /// returned future is dropped: a backend that goes on working then keeps it.
    ///
    /// # Errors
    /// The function did not answer; an answer with a status of failure is no error.
    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>>;
}
