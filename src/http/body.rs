//! Requests' bodies: one way to read them, on all ports and routes. A body has a largest size, a time
//! for all of it, a least rate, and a share of a budget from the moment it is announced; where the
//! budget is full, the slowest of those that hold it make room.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::config::Settings;
use crate::connections::{Bodies, Connection, EndReason, Phase};
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::queue::Refusal;
use crate::time::limit::{Expired, TimeLimit};
use crate::wire::headers;

/// Bytes of a refused body that are taken off the wire: a body of 16 MiB as base64, and some more.
const DRAINED_BYTES_MAX: usize = 32 << 20;
/// The longest pause in a refused body after which its sender is answered all the same.
const DRAINED_PAUSE: Duration = Duration::from_secs(1);
/// A pause in the beginning of a long body after which its call is scheduled all the same.
const PAUSE: Duration = Duration::from_millis(50);
/// A piece of a body that shows that its client sends: more than one that drips.
const MOVING_BYTES: usize = 4 << 10;
/// What a body in chunks takes of its budget at least: its chunks may be of one byte each.
const CHUNKED_BYTES_MIN: u64 = 64 << 10;

/// What bodies that arrive on one thread must keep to.
pub struct Uploads {
    /// The time that each may take.
    pub limit: TimeLimit,
    /// What all of them may hold.
    pub bodies: Bodies,
    /// How long the beginning of a long one may pause.
    pub pause: TimeLimit,
}

impl Uploads {
    /// For the current thread, within `bodies`.
    pub fn new(settings: &Settings, bodies: Bodies) -> Self {
        let limit = TimeLimit::new(Settings::seconds(settings.body_timeout_s));
        Self { limit, bodies, pause: TimeLimit::new(PAUSE) }
    }
}

/// Reads the body of `request`, of at most `limit_bytes`.
///
/// # Errors
/// It is larger, ends early, comes too slowly or not in time; or there is no room for it.
pub async fn read_body(
    request: &HttpRequest,
    payload: web::Payload,
    limit_bytes: usize,
    uploads: &Uploads,
) -> Result<(Bytes, Reservation), Error> {
    let from = request.headers();
    let announced = headers::text(from, &header::CONTENT_LENGTH).parse::<u64>().ok();
    let chunked = from.contains_key(header::TRANSFER_ENCODING);
    if announced.unwrap_or(0) == 0 && !chunked {
        // Most requests: nothing to wait for, and nobody to watch over it.
        let held = uploads.bodies.budget.take(0).ok_or(Refusal::BytesFull)?;
        return Ok((Bytes::new(), held));
    }
    let connection = request.conn_data::<Arc<Connection>>();
    let mut reading = Reading { payload, uploads, connection };
    reading.enter(Phase::Waiting);
    let late = |Expired| Error::BodyTimedOut { limit: uploads.limit.length() };
    let read = uploads.limit.hold(Box::pin(reading.read_or_drain(announced, limit_bytes)));
    let read = read.await.map_err(late).flatten();
    if let Some(connection) = connection {
        match &read {
            Ok(_) => connection.body_ends(),
            // It is answered, and then the connection ends.
            Err(_) => connection.enter(Phase::Running, 0),
        }
    }
    read
}

/// What a request with this many bytes announced would be told before it sends them.
///
/// # Errors
/// It is larger than its route takes.
pub fn check_announced(announced: u64, limit_bytes: usize) -> Result<(), Error> {
    match announced > limit_bytes as u64 {
        true => Err(Error::BodyTooLarge { limit_bytes }),
        false => Ok(()),
    }
}

struct Reading<'a> {
    payload: web::Payload,
    uploads: &'a Uploads,
    connection: Option<&'a Arc<Connection>>,
}

impl Reading<'_> {
    fn enter(&self, phase: Phase) {
        if let Some(connection) = self.connection {
            connection.enter(phase, 0);
        }
    }

    /// What its client is told if the connection is to end.
    fn ended(&self) -> Option<Error> {
        Some(match self.connection?.ended()? {
            EndReason::Slow => Error::BodyTooSlow,
            EndReason::Room => Error::Busy,
        })
    }

    /// The next piece; an error if the connection is to end.
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| {
            if let Some(error) = self.ended() {
                return Poll::Ready(Some(self.piece_after_all(cx).ok_or(error)));
            }
            self.payload.poll_next_unpin(cx).map(|next| {
                let unreadable =
                    |why: PayloadError| Error::Malformed(format!("the body cannot be read: {why}"));
                next.map(|piece| piece.map_err(unreadable))
            })
        })
        .await
    }

    /// What has come on a connection that was ended since nothing seemed to come: a node that is short of
    /// processor time has not looked for a while. Then the connection goes on.
    fn piece_after_all(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        let connection = self.connection.filter(|it| it.ended() == Some(EndReason::Room))?;
        match self.payload.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(piece))) if piece.len() >= MOVING_BYTES => {
                connection.goes_on();
                Some(piece)
            }
            _ => None,
        }
    }

    async fn read_or_drain(
        &mut self,
        announced: Option<u64>,
        limit_bytes: usize,
    ) -> Result<(Bytes, Reservation), Error> {
        let read = self.read(announced, limit_bytes).await;
        if let Err(Error::BodyTooLarge { .. } | Error::CannotSchedule(_)) = &read {
            self.enter(Phase::Body);
            if let Some(connection) = self.connection {
                connection.holds_body(&self.uploads.bodies.budget, 0);
            }
            self.drain().await;
        }
        read
    }

    async fn read(
        &mut self,
        announced: Option<u64>,
        limit_bytes: usize,
    ) -> Result<(Bytes, Reservation), Error> {
        // What announces no length takes a share to begin with, and more as it comes.
        let share =
            (limit_bytes as u64).min(self.uploads.bodies.budget.max() / 4).max(CHUNKED_BYTES_MIN);
        let at_first = announced.unwrap_or(share);
        check_announced(announced.unwrap_or(0), limit_bytes)?;
        let mut held = self.room(at_first).await?;
        self.enter(Phase::Body);
        self.holds(&held);
        let mut body = BytesMut::new();
        // One that offers to become a WebSocket ends nowhere by its parser, but has the length it tells.
        while announced.is_none_or(|all| (body.len() as u64) < all)
            && let Some(piece) = self.next().await
        {
            let piece = piece?;
            let bytes = body.len() + piece.len();
            if bytes > limit_bytes {
                return Err(Error::BodyTooLarge { limit_bytes });
            }
            if bytes as u64 > held.bytes() {
                held.join(self.room(bytes as u64 - held.bytes()).await?);
                self.holds(&held);
            }
            // Once, and not for those that announce a body and send none.
            if body.is_empty() {
                body.reserve(announced.map_or(piece.len(), |bytes| bytes as usize));
            }
            body.extend_from_slice(&piece);
        }
        held.shrink(body.len() as u64);
        self.holds(&held);
        Ok((body.freeze(), held))
    }

    fn holds(&self, held: &Reservation) {
        if let Some(connection) = self.connection {
            connection.holds_body(held.budget(), held.bytes());
        }
    }

    /// A share of the budget, at the cost of slower ones if need be.
    async fn room(&self, bytes: u64) -> Result<Reservation, Error> {
        let but = self.connection.map(|connection| &**connection);
        let mut taken = pin!(self.uploads.bodies.take(bytes, but));
        let held = poll_fn(|cx| match self.ended() {
            Some(error) => Poll::Ready(Err(error)),
            None => taken.as_mut().poll(cx).map(Ok),
        });
        Ok(held.await?.ok_or(Refusal::BytesFull)?)
    }

    /// Takes what is still coming off the wire and keeps nothing of it. A connection that is closed
    /// while its client sends is reset, and the client never reads why its call was refused.
    async fn drain(&mut self) {
        let mut bytes = 0;
        while bytes < DRAINED_BYTES_MAX
            && let Ok(Some(Ok(piece))) = timeout(DRAINED_PAUSE, self.next()).await
        {
            bytes += piece.len();
        }
    }
}
