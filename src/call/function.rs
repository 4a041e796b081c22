//! The port to where functions run: what a call asks of one, what it answers.

use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use futures_util::future::LocalBoxFuture;

use super::body::{AnswerBody, RequestBody};
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
    /// What follows the function's name in the client's path, byte for byte; `/` where nothing does.
    pub path: String,
    /// The client's query string, without `?`; may be empty.
    pub query: String,
    /// The client's headers that a function may see.
    pub headers: HeaderMap,
    /// The client's body; of one that asks for a WebSocket, what it says on it.
    pub body: RequestBody,
    /// Whether the client asks for a WebSocket.
    pub upgrades: bool,
}

impl Invocation {
    /// The path and the query, below `prefix`, as they stand in a request line.
    pub fn target(&self, prefix: &str) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        [prefix, &self.path, mark, &self.query].concat()
    }
}

/// What a function answered, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The function's status.
    pub status: StatusCode,
    /// Its headers that a client may see.
    pub headers: HeaderMap,
    /// Its body.
    pub body: AnswerBody,
    /// Its body's share of the node's budget, where it has one of its own. It goes along until the
    /// client has taken the last byte.
    pub held: Option<Reservation>,
}

/// A way to run functions.
pub trait Backend {
    /// Finds out where the function is, where that may take time: a call that waits for it holds no
    /// slot.
    ///
    /// # Errors
    /// There is no such function.
    fn prepare<'a>(&'a self, call: &'a Invocation) -> LocalBoxFuture<'a, Result<(), Error>>;

    /// Whether the function needs its input whole, of which `length` bytes are announced: then it is read
    /// before the call is scheduled, within what the node may hold.
    fn takes_whole(&self, _name: &FunctionName, _length: Option<u64>) -> bool {
        false
    }

    /// Runs the function. `slot` is given back when it has ended, and not before: with the last byte of
    /// its answer, or when the answer or the returned future is dropped. A backend that goes on working
    /// then keeps it.
    ///
    /// # Errors
    /// The function did not answer; an answer with a status of failure is no error.
    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>>;
}
