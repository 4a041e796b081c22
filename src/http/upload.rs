//! A call's body on its way in: whole where it is small, else its beginning, and the rest as it comes.
//!
//! A small body is read before the call is scheduled, so that who sends it slowly holds no slot. Of a
//! longer one the beginning is awaited, for as long as it comes without a pause. What was read is kept
//! up to a bound, so that the call can be tried elsewhere ([`BodySource::rewind`]).

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bytes::Bytes;
use futures_util::StreamExt;

use super::body::{Uploads, check_announced, read_body};
use crate::call::body::{BodySource, NextPiece, RequestBody};
use crate::call::state::NodeState;
use crate::call::turns::UploadTurn;
use crate::connections::{Connection, EndReason, Phase};
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::queue::Refusal;
use crate::time::limit::{Silence, TimeLimit};
use crate::wire::headers;

/// What a body that streams takes of the budget of bodies, beside what is kept of it: what is on its
/// way from one connection to the other.
const ON_ITS_WAY_BYTES: u64 = 64 << 10;

/// How a call's body is taken.
#[derive(Clone, Copy, Debug)]
pub struct UploadRules {
    /// Bytes that it may have; `None`: any.
    pub bytes_max: Option<u64>,
    /// It must be whole, of so many bytes at most.
    pub whole_bytes_max: Option<usize>,
    /// Bytes that are kept for another try.
    pub kept_bytes_max: usize,
}

/// Takes the body of `request`, and its share of the budget.
///
/// # Errors
/// It is larger than it may be, comes too slowly, or there is no room for it.
pub async fn take_body(
    request: &HttpRequest,
    payload: web::Payload,
    uploads: &Uploads,
    node: &NodeState,
    rules: UploadRules,
) -> Result<(RequestBody, Reservation), Error> {
    let from = request.headers();
    let announced = headers::length(from);
    let chunked = from.contains_key(header::TRANSFER_ENCODING);
    let small = announced.unwrap_or(0) <= rules.kept_bytes_max as u64 && !chunked;
    let bytes_max = rules.bytes_max.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if small || rules.whole_bytes_max.is_some() {
        let limit =
            bytes_max.unwrap_or(usize::MAX).min(rules.whole_bytes_max.unwrap_or(usize::MAX));
        let (body, held) = read_body(request, payload, limit, uploads).await?;
        return Ok((RequestBody::Whole(body), held));
    }
    if let (Some(announced), Some(limit_bytes)) = (announced, bytes_max) {
        check_announced(announced, limit_bytes)?;
    }
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.enter(Phase::Waiting, 0);
    }
    let bytes = rules.kept_bytes_max as u64 + ON_ITS_WAY_BYTES;
    let room = uploads.bodies.take(bytes, connection.as_deref()).await;
    let held = room.ok_or(Refusal::BytesFull)?;
    if let Some(connection) = &connection {
        connection.holds_body(held.budget(), held.bytes());
    }
    let mut upload = Upload::new(payload, connection, uploads, rules, bytes_max);
    // Behind the offer of another protocol the parser sees no end.
    upload.ends_at = announced.filter(|_| request.head().upgrade());
    upload.begin(&uploads.pause).await?;
    if upload.ended {
        let body = Bytes::from(upload.kept.concat());
        return Ok((RequestBody::Whole(body), held));
    }
    upload.wait_for_turn(node).await?;
    let source = Rc::new(RefCell::new(upload));
    Ok((RequestBody::Streamed { source, length: announced }, held))
}

/// What a client says that asks for a WebSocket.
pub fn take_session(
    request: &HttpRequest,
    payload: web::Payload,
    uploads: &Uploads,
) -> RequestBody {
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    let rules = UploadRules { bytes_max: None, whole_bytes_max: None, kept_bytes_max: 0 };
    let upload = Upload::new(payload, connection, uploads, rules, None);
    let source = Rc::new(RefCell::new(upload));
    RequestBody::Streamed { source, length: None }
}

struct Upload {
    payload: web::Payload,
    connection: Option<Arc<Connection>>,
    limit: TimeLimit,
    /// How long nothing has come that was wanted.
    silence: Silence,
    bytes_max: Option<usize>,
    kept_bytes_max: usize,
    /// What was read and is kept, and which of its pieces is the next to be given.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    next: usize,
    read: usize,
    /// How many bytes it has, where only that tells its end.
    ends_at: Option<u64>,
    /// Some of it is not kept any more.
    lost: bool,
    ended: bool,
    turn: Option<UploadTurn>,
}

impl Upload {
    /// Nothing of it is read yet.
    fn new(
        payload: web::Payload,
        connection: Option<Arc<Connection>>,
        uploads: &Uploads,
        rules: UploadRules,
        bytes_max: Option<usize>,
    ) -> Self {
        Self {
            payload,
            connection,
            limit: uploads.limit.clone(),
            silence: uploads.limit.silence(),
            bytes_max,
            kept_bytes_max: rules.kept_bytes_max,
            kept: Vec::new(),
            kept_bytes: 0,
            next: 0,
            read: 0,
            ends_at: None,
            lost: false,
            ended: false,
            turn: None,
        }
    }

    /// Waits until it may take a slot though it is not whole.
    async fn wait_for_turn(&mut self, node: &NodeState) -> Result<(), Error> {
        if let Some(connection) = &self.connection {
            connection.enter(Phase::Waiting, self.read as u64);
        }
        let mut turn = pin!(node.uploads.take(|| node.gate.k()));
        let connection = self.connection.clone();
        let turn = poll_fn(|cx| {
            if let Some(why) = connection.as_ref().and_then(|connection| connection.ended()) {
                return Poll::Ready(Err(of_end(why)));
            }
            turn.as_mut().poll(cx).map(Ok)
        });
        self.turn = Some(turn.await?);
        if let Some(connection) = &self.connection {
            connection.enter(Phase::Running, self.read as u64);
        }
        Ok(())
    }

    /// Waits for as much as is kept, unless it pauses.
    async fn begin(&mut self, pause: &TimeLimit) -> Result<(), Error> {
        let mut pause = pause.silence();
        while self.kept_bytes < self.kept_bytes_max && !self.ended && !self.lost {
            let piece = poll_fn(|cx| match self.poll_piece(cx) {
                Poll::Ready(piece) => Poll::Ready(Some(piece)),
                Poll::Pending => pause.poll_expired(cx).map(|()| None),
            });
            match piece.await {
                None => break,
                Some(Some(Err(error))) => return Err(error),
                Some(_) => pause.broken(),
            }
        }
        if let Some(connection) = &self.connection {
            connection.has_enough();
        }
        self.next = 0;
        Ok(())
    }

    /// What its client is told if the connection is to end.
    fn is_to_end(&self) -> Option<Error> {
        let connection = self.connection.as_ref()?;
        let wanted = connection.phase() == Phase::Body;
        connection.ended().filter(|_| wanted).map(of_end)
    }

    fn took(&mut self, mut piece: Bytes) -> Result<Bytes, Error> {
        self.silence.broken();
        if let Some(left) = self.ends_at.map(|end| end.saturating_sub(self.read as u64)) {
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.ended = left <= piece.len() as u64;
        }
        self.read += piece.len();
        if let Some(limit_bytes) = self.bytes_max.filter(|limit| self.read > *limit) {
            return Err(Error::BodyTooLarge { limit_bytes });
        }
        // The last that is kept may go beyond the bound: of the beginning no piece may get lost.
        if !self.lost && self.kept_bytes < self.kept_bytes_max {
            self.kept_bytes += piece.len();
            self.kept.push(piece.clone());
            self.next = self.kept.len();
        } else {
            self.lost = true;
        }
        Ok(piece)
    }
}

/// What a client is told whose connection is to end.
fn of_end(why: EndReason) -> Error {
    match why {
        EndReason::Slow => Error::BodyTooSlow,
        EndReason::Room => Error::Busy,
    }
}

impl BodySource for Upload {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(piece) = self.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        if self.lost && !self.kept.is_empty() {
            (self.kept, self.kept_bytes, self.next) = (Vec::new(), 0, 0);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(error) = self.is_to_end() {
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(connection) = &self.connection {
            connection.wants_body(self.read == 0);
        }
        let polled = self.payload.poll_next_unpin(cx);
        let next = match polled {
            Poll::Pending => {
                let late = Error::BodyTimedOut { limit: self.limit.length() };
                let session = self.connection.as_ref().map(|c| c.phase()) == Some(Phase::Session);
                return match !session && self.silence.poll_expired(cx).is_ready() {
                    true => Poll::Ready(Some(Err(late))),
                    false => Poll::Pending,
                };
            }
            Poll::Ready(None) => {
                self.ended = true;
                self.turn = None;
                if let Some(connection) = &self.connection {
                    connection.streamed_body_ends();
                }
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Ok(piece))) => self.took(piece),
            Poll::Ready(Some(Err(why))) => {
                Err(Error::Malformed(format!("the body cannot be read: {why}")))
            }
        };
        self.ended |= next.is_err();
        if let Some(connection) = &self.connection {
            connection.has_enough();
        }
        Poll::Ready(Some(next))
    }

    fn rewind(&mut self) -> bool {
        if !self.lost {
            self.next = 0;
        }
        !self.lost
    }

    fn held_bytes(&self) -> usize {
        self.kept_bytes
    }
}
