//! The client of the data path: calls to functions and to peers. HTTP/1.1 with bodies that stream both
//! ways at once, on kept connections, one client per worker thread and purpose.
//!
//! What is sent again, and what is not, follows from what is certain. Nothing has been processed while no
//! connection was there, or while the kernel took nothing of the request: then it is sent on another
//! connection. A request whose method is safe (RFC 9110, 9.2.1) may be sent twice in any case. Either is
//! done once on a new connection, and once more if that ends likewise. All else may have run, and is an error.

mod exchange;
mod head;
mod origin;
mod pool;
mod stream;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;

use self::exchange::{Exchange, NoHead};
use self::head::{AnswerHead, BodyEnd, RequestHead};
pub use self::origin::Origin;
use self::pool::Pool;
use self::stream::Outgoing;
use super::socket::end_unacknowledged;
use super::{BodyFailure, Hosts, SendFailure};
use crate::call::body::RequestBody;
use crate::connections::Bodies;
use crate::memory::budget::Reservation;
use crate::time::limit::{Silence, TimeLimit};
use crate::tls::{ClusterMember, PeerTls};
use crate::types::Cause;
use crate::wire::headers;

/// Bytes of an answer that is awaited whole where its length is known: its times are then those of its
/// last byte.
const WHOLE_BYTES: u64 = 16 << 10;
/// How long the rest of such an answer may take before its beginning is handed on.
const WHOLE_TIME: Duration = Duration::from_millis(2);

/// Bytes of a request's body that the kernels take though nobody reads them.
const BUFFERED_BYTES: u64 = 32 << 10;
/// Bytes up to which a body that is read whole takes no share of a budget.
const HELD_BYTES_MIN: u64 = 16 << 10;

/// How a client connects and how long it waits.
#[derive(Clone, Debug)]
pub struct ClientRules {
    /// Which hosts it connects to.
    pub hosts: Hosts,
    /// How long a connection may take, looking its host up included.
    pub connect: Duration,
    /// Whether a connection that is refused is tried again within that time: a server that starts
    /// listens soon.
    pub insists: bool,
    /// How long a machine may be silent, on a connection that is used or idle, before it is given up.
    /// While a long body is on its way, the two limits below stand for it.
    pub machine_silence: Duration,
    /// How long it may take from the last byte that went to the answer's head.
    pub first_byte: Duration,
    /// How long it may take from one piece of an answer's body to the next.
    pub next_byte: Duration,
    /// By what nodes of a cluster with a key are spoken to ([`Origin::sealed`]); `None`: they are not.
    pub sealing: Option<Arc<PeerTls>>,
}

/// A request.
pub struct OutgoingRequest {
    /// Where it goes.
    pub origin: Origin,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Its headers, without those of framing and connection.
    pub headers: HeaderMap,
    /// Its body.
    pub body: RequestBody,
    /// Whether it asks to become a WebSocket.
    pub upgrades: bool,
    /// Whether a body that streams waits until the other side wants it (`Expect: 100-continue`): one that
    /// is refused is then whole for another try. Only for servers that know this.
    pub asks_first: bool,
}

/// An answer whose head is there.
pub struct IncomingAnswer {
    /// Its status; 101 only where the request asked for it.
    pub status: StatusCode,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: IncomingBody,
    /// Whether its headers tell of a body that it leaves out, for the request asked for none (HEAD) or
    /// the client has it already (304).
    pub leaves_body_out: bool,
    /// Which member of the cluster answered; `None`: it was asked in the clear.
    pub member: Option<Arc<ClusterMember>>,
}

/// An answer's body. Dropping it before its end closes the connection.
pub struct IncomingBody {
    /// `None` once it has come to its end.
    exchange: Option<Exchange>,
    client: HttpClient,
    address: (Origin, SocketAddr),
    /// Whether its request was so long that the other side might have had no room for it.
    long: bool,
    silence: Silence,
    trailers: HeaderMap,
}

/// A client for the current thread. Clones share its connections.
#[derive(Clone)]
pub struct HttpClient(Rc<Inner>);

/// Finds the addresses of a host and its port.
type LookUp = dyn Fn(String, u16) -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>>;

struct Inner {
    rules: ClientRules,
    look_up: Box<LookUp>,
    pool: RefCell<Pool>,
    first_byte: TimeLimit,
    next_byte: TimeLimit,
    whole: TimeLimit,
}

impl HttpClient {
    /// A client that keeps to `rules`, and finds hosts by the system's resolver.
    pub fn new(rules: ClientRules) -> Self {
        Self::looking_up(rules, Box::new(|host, port| Box::pin(super::addresses(host, port))))
    }

    fn looking_up(rules: ClientRules, look_up: Box<LookUp>) -> Self {
        Self(Rc::new(Inner {
            look_up,
            first_byte: TimeLimit::new(rules.first_byte),
            next_byte: TimeLimit::new(rules.next_byte),
            whole: TimeLimit::new(WHOLE_TIME),
            pool: RefCell::default(),
            rules,
        }))
    }

    /// Sends `request` and waits for the answer's head.
    ///
    /// # Errors
    /// There is none; the failure says how far the request came.
    pub async fn send(&self, request: OutgoingRequest) -> Result<IncomingAnswer, SendFailure> {
        // Behind a space or a line end it would be another request.
        if !headers::may_be_target(&request.target) {
            let why = "its target has a space or a control character in it";
            return Err(SendFailure::Invalid(Cause::of(why)));
        }
        let framing = match &request.body {
            RequestBody::Whole(body) => BodyEnd::Length(body.len() as u64),
            // What a WebSocket's client says is no body.
            RequestBody::Streamed { .. } if request.upgrades => BodyEnd::Length(0),
            RequestBody::Streamed { length: Some(length), .. } => BodyEnd::Length(*length),
            RequestBody::Streamed { length: None, .. } => BodyEnd::Chunks,
        };
        let head = RequestHead {
            method: &request.method,
            target: &request.target,
            host: &request.origin.text,
            headers: &request.headers,
            end: framing,
            upgrades: request.upgrades,
            asks_first: request.asks_first && matches!(request.body, RequestBody::Streamed { .. }),
        };
        let asks_first = head.asks_first;
        let long = match &request.body {
            RequestBody::Whole(body) => body.len() as u64 > BUFFERED_BYTES,
            RequestBody::Streamed { length, .. } => {
                request.upgrades || length.is_none_or(|length| length > BUFFERED_BYTES)
            }
        };
        let head = Bytes::from(head.bytes());
        let may_be_repeated =
            is_safe(&request.method) && matches!(request.body, RequestBody::Whole(_));
        let mut kept = self.kept(&request.origin, may_be_repeated);
        // Whether the new connection is the first one.
        let mut first = true;
        loop {
            let reused = kept.is_some();
            let (stream, address) = match kept.take() {
                Some(kept) => kept,
                None => self.connect(&request.origin).await?,
            };
            if long {
                // The kernel also counts the time in which there is no room, and who does not read yet is
                // not gone: that has as long as an answer has.
                let rules = &self.0.rules;
                let _ = end_unacknowledged(stream.tcp(), rules.first_byte.max(rules.next_byte));
            }
            let exchange = self.begin(&request, head.clone(), framing, stream, asks_first);
            match self.exchange(exchange, &request.origin, (address, long)).await {
                Ok(answer) => return Ok(answer),
                // Who stops at this moment closes idle ones, and serves new ones no more.
                Err(Ok(NoHead::Ended { sent, .. }))
                    if (reused || std::mem::take(&mut first))
                        && (sent == 0 || is_safe(&request.method))
                        && request.body.rewind() => {}
                Err(Ok(no_head)) => return Err(no_head.into_failure()),
                Err(Err(failure)) => return Err(failure),
            }
        }
    }

    fn begin(
        &self,
        request: &OutgoingRequest,
        head: Bytes,
        framing: BodyEnd,
        stream: Outgoing,
        asks_first: bool,
    ) -> Exchange {
        let (method, body) = (request.method.clone(), request.body.clone());
        match (request.upgrades, asks_first) {
            (true, _) => Exchange::upgrading(stream, method, head, body),
            (false, true) => Exchange::asking(stream, method, head, body, framing),
            (false, false) => Exchange::new(stream, method, head, body, framing),
        }
    }

    async fn exchange(
        &self,
        mut exchange: Exchange,
        origin: &Origin,
        (address, long): (SocketAddr, bool),
    ) -> Result<IncomingAnswer, Result<NoHead, SendFailure>> {
        let mut silence = self.0.first_byte.silence();
        let mut moved = 0;
        let head = poll_fn(|cx| {
            if let Poll::Ready(head) = exchange.poll_head(cx) {
                return Poll::Ready(head.map_err(Ok));
            }
            if exchange.moved() != moved {
                moved = exchange.moved();
                silence.broken();
            }
            let late = SendFailure::NoAnswer(self.0.rules.first_byte);
            silence.poll_expired(cx).map(|()| Err(Err(late)))
        })
        .await?;
        let leaves_body_out = exchange.leaves_body_out(head.status);
        let member = exchange.member();
        let mut body = IncomingBody {
            exchange: Some(exchange),
            client: self.clone(),
            address: (origin.clone(), address),
            long,
            silence: self.0.next_byte.silence(),
            trailers: HeaderMap::new(),
        };
        // The connection is free with the last byte, and not when somebody asks for more.
        if body.length() == Some(0) {
            body.ended();
        }
        let AnswerHead { status, headers, .. } = head;
        Ok(IncomingAnswer { status, headers, body, leaves_body_out, member })
    }
}

/// Methods that change nothing, so that asking twice does no harm.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

impl IncomingBody {
    /// Bytes that are still to come, where that is known.
    pub fn length(&self) -> Option<u64> {
        self.exchange.as_ref().map_or(Some(0), Exchange::length)
    }

    /// The next piece; `None`: that was all.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFailure>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        let moved = exchange.moved();
        let polled = exchange.poll_body(cx);
        if polled.is_ready() || exchange.moved() != moved {
            self.silence.broken();
        }
        match polled {
            Poll::Ready(Some(Ok(piece))) => {
                if exchange.length() == Some(0) {
                    self.ended();
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(None) => {
                self.ended();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(why))) => {
                self.exchange = None;
                Poll::Ready(Some(Err(why)))
            }
            Poll::Pending => {
                let late = BodyFailure::Silent(self.client.0.rules.next_byte);
                let expired = self.silence.poll_expired(cx);
                if expired.is_ready() {
                    self.exchange = None;
                }
                expired.map(|()| Some(Err(late)))
            }
        }
    }

    fn ended(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            self.trailers = exchange.trailers();
            if let Some(stream) = exchange.into_idle() {
                if self.long {
                    let _ = end_unacknowledged(stream.tcp(), self.client.0.rules.machine_silence);
                }
                self.client.keep(&self.address.0, self.address.1, stream);
            }
        }
    }

    /// The headers that came behind it.
    pub fn trailers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.trailers)
    }

    /// All of it, if that is there or comes in a moment; else as much as has come, of one whose rest, or
    /// trailers, must still be asked for.
    ///
    /// # Errors
    /// It is not whole.
    pub async fn whole_or_begun(&mut self) -> Result<(Bytes, bool), BodyFailure> {
        let mut begun = Bytes::new();
        let waits = self.length().is_some_and(|length| length <= WHOLE_BYTES);
        let patience = self.client.0.whole.clone();
        let mut patience = patience.silence();
        poll_fn(|cx| {
            loop {
                match self.poll_piece(cx) {
                    Poll::Ready(None) => {
                        let whole = self.trailers.is_empty();
                        return Poll::Ready(Ok((std::mem::take(&mut begun), whole)));
                    }
                    Poll::Ready(Some(Err(why))) => return Poll::Ready(Err(why)),
                    Poll::Ready(Some(Ok(piece))) => {
                        begun = match begun.is_empty() {
                            true => piece,
                            false => [&begun[..], &piece].concat().into(),
                        };
                        if begun.len() as u64 > WHOLE_BYTES {
                            return Poll::Ready(Ok((std::mem::take(&mut begun), false)));
                        }
                    }
                    Poll::Pending if waits && patience.poll_expired(cx).is_pending() => {
                        return Poll::Pending;
                    }
                    Poll::Pending => return Poll::Ready(Ok((std::mem::take(&mut begun), false))),
                }
            }
        })
        .await
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// It is larger than `limit_bytes`, or not whole.
    pub async fn collect(self, limit_bytes: usize) -> Result<Bytes, BodyFailure> {
        self.read(limit_bytes, None).await.map(|(body, _)| body)
    }

    /// The same within a budget: what there is no room for is not read on until there is. Small bodies
    /// take no share.
    ///
    /// # Errors
    /// It is larger, not whole, or there is no room for it.
    pub async fn collect_held(
        self,
        limit_bytes: usize,
        bodies: &Bodies,
    ) -> Result<(Bytes, Option<Reservation>), BodyFailure> {
        self.read(limit_bytes, Some(bodies)).await
    }

    async fn read(
        mut self,
        limit_bytes: usize,
        bodies: Option<&Bodies>,
    ) -> Result<(Bytes, Option<Reservation>), BodyFailure> {
        let too_large = || BodyFailure::TooLarge(limit_bytes);
        let length = self.length();
        if length.is_some_and(|length| length > limit_bytes as u64) {
            return Err(too_large());
        }
        let take = async |bytes: u64| match bodies {
            Some(bodies) if bytes > HELD_BYTES_MIN => {
                bodies.take_for_answer(bytes).await.map(Some).ok_or(BodyFailure::NoRoom)
            }
            _ => Ok(None),
        };
        let mut held: Option<Reservation> = take(length.unwrap_or(0)).await?;
        let mut whole = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| self.poll_piece(cx)).await {
            let piece = piece?;
            let bytes = whole.len() + piece.len();
            if bytes > limit_bytes {
                return Err(too_large());
            }
            let has = held.as_ref().map_or(HELD_BYTES_MIN, Reservation::bytes);
            if bodies.is_some() && bytes as u64 > has {
                // As much again, for what tells no length may be long.
                let more = take((bytes as u64).max(HELD_BYTES_MIN + 1)).await?;
                match (&mut held, more) {
                    (Some(held), Some(more)) => held.join(more),
                    (held, more) => *held = more,
                }
            }
            whole.extend_from_slice(&piece);
        }
        Ok((whole.freeze(), held))
    }
}

#[cfg(test)]
mod tests;
