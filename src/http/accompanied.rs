//! Answers that something goes along with until their last byte is handed on: only then is it known
//! whether a call was in time, or is memory given back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::{Version, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use tokio::time::Instant;

use super::errors;
use crate::call::body::{AnswerBody, AnswerStream};
use crate::connections::{Bodies, Connection, Phase};
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::rl::reward::Pending;
use crate::wire::chunks::{chunk, last_chunk};

/// A share of a budget up to which an answer is handed on alone.
const SMALL_BYTES: u64 = 16 << 10;

/// A decision that is to be rewarded. If the client goes away before the last byte was taken, its
/// call never counts as answered.
pub struct RewardOnDelivery {
    /// When the call arrived.
    pub arrival: Instant,
    /// The decision.
    pub pending: Arc<Pending>,
}

/// What goes along with an answer; dropped with it.
#[derive(Default)]
pub struct Along {
    /// Its share of a budget of bytes.
    pub held: Option<Reservation>,
    /// The decision that it rewards.
    pub rewarded: Option<RewardOnDelivery>,
}

/// Answers `body` with what goes along, to the client of `connection`.
pub fn respond(
    builder: &mut HttpResponseBuilder,
    body: impl Into<Bytes>,
    along: Along,
    connection: Option<&Arc<Connection>>,
) -> HttpResponse {
    let Along { held, rewarded } = along;
    let held = held.filter(|held| held.bytes() > SMALL_BYTES);
    if held.is_none() && rewarded.is_none() {
        return builder.body(body.into());
    }
    if let (Some(held), Some(connection)) = (&held, connection) {
        connection.holds_body(held.budget(), held.bytes());
    }
    builder.body(Accompanied::new(body, Along { held, rewarded }).boxed())
}

/// Answers a body that this node has made itself, within `bodies`.
pub async fn respond_within(
    builder: &mut HttpResponseBuilder,
    body: Vec<u8>,
    bodies: &Bodies,
    connection: Option<&Arc<Connection>>,
) -> HttpResponse {
    let bytes = body.len() as u64;
    if bytes <= SMALL_BYTES {
        return builder.body(body);
    }
    match bodies.take(bytes, connection.map(|connection| &**connection)).await {
        Some(held) => {
            let along = Along { held: Some(held), ..Along::default() };
            respond(builder, body, along, connection)
        }
        None => errors::response(&Error::Busy),
    }
}

/// Hands a function's answer on: whole, or as it comes, with the headers behind it where there is a
/// way to send them.
pub fn hand_on(
    builder: &mut HttpResponseBuilder,
    body: AnswerBody,
    along: Along,
    request: &HttpRequest,
) -> HttpResponse {
    let connection = request.conn_data::<Arc<Connection>>();
    let (stream, length, upgraded) = match body {
        AnswerBody::Whole(body) => return respond(builder, body, along, connection),
        AnswerBody::LeftOut { length } => {
            return builder.body(LeftOut(length).boxed());
        }
        AnswerBody::Streamed { stream, length } => (stream, length, false),
        AnswerBody::Upgraded(stream) => (stream, None, true),
    };
    if let Some(connection) = connection {
        connection.enter(if upgraded { Phase::Session } else { Phase::Streaming }, 0);
    }
    let in_chunks = !upgraded && length.is_none() && request.version() == Version::HTTP_11;
    if upgraded {
        builder.upgrade("websocket");
    } else if in_chunks {
        builder.insert_header((header::TRANSFER_ENCODING, "chunked"));
    } else if length.is_none() {
        builder.force_close();
    }
    let streaming = Streaming {
        stream,
        length,
        in_chunks,
        through: false,
        upgraded,
        connection: connection.cloned(),
        along,
    };
    let mut response = builder.body(streaming.boxed());
    // The chunks are made here: the server's own have no place for what comes behind them.
    response.head_mut().no_chunking(length.is_none() && !upgraded);
    response
}

/// A body that is not sent, though its length is told.
struct LeftOut(Option<u64>);

impl MessageBody for LeftOut {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0.map_or(BodySize::None, BodySize::Sized)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(None)
    }
}

/// An answer's body as it comes, with what goes along.
struct Streaming {
    stream: Box<dyn AnswerStream>,
    length: Option<u64>,
    /// Whether it goes out in chunks.
    in_chunks: bool,
    /// Whether it is one side of a session.
    upgraded: bool,
    through: bool,
    connection: Option<Arc<Connection>>,
    along: Along,
}

impl Streaming {
    /// It has come to its end: what is still to be sent.
    fn ends(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.through, true) {
            return None;
        }
        self.in_chunks.then(|| last_chunk(&self.stream.trailers()))
    }
}

impl MessageBody for Streaming {
    type Error = Error;

    fn size(&self) -> BodySize {
        self.length.map_or(BodySize::Stream, BodySize::Sized)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if !self.through {
            match ready!(self.stream.poll_piece(cx)) {
                Some(Ok(piece)) if self.in_chunks => return Poll::Ready(Some(Ok(chunk(&piece)))),
                Some(Ok(piece)) => return Poll::Ready(Some(Ok(piece))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    if let Some(last) = self.ends() {
                        return Poll::Ready(Some(Ok(last)));
                    }
                }
            }
        }
        self.along.taken();
        match &self.connection {
            Some(connection) if self.upgraded => connection.end_session(),
            Some(connection) => connection.enter(Phase::Answering, 0),
            None => {}
        }
        Poll::Ready(None)
    }
}

/// A body of one piece, with what goes along.
struct Accompanied {
    /// `None` once it was handed on.
    body: Option<Bytes>,
    along: Along,
}

impl Along {
    /// The connection has taken the last byte.
    fn taken(&self) {
        if let Some(RewardOnDelivery { arrival, pending }) = &self.rewarded {
            pending.answered(arrival.elapsed());
        }
    }
}

impl Accompanied {
    fn new(body: impl Into<Bytes>, along: Along) -> Self {
        Self { body: Some(body.into()), along }
    }
}

impl MessageBody for Accompanied {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.body.as_ref().map_or(0, Bytes::len) as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match self.body.take() {
            Some(body) if !body.is_empty() => Poll::Ready(Some(Ok(body))),
            // Asked for more only after the connection has taken what there was.
            _ => {
                self.along.taken();
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Accompanied {
    fn drop(&mut self) {
        // An empty body is never asked for.
        if self.body.as_ref().is_some_and(Bytes::is_empty) {
            self.along.taken();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::Entry;
    use crate::rl::reward::RewardSink;
    use crate::types::TaskType;
    use std::sync::Mutex;
    use std::time::Duration;

    #[derive(Default)]
    struct Kept(Mutex<Vec<f64>>);

    impl RewardSink for Kept {
        fn rewarded(&self, _: u64, _: TaskType, entry: Entry) {
            self.0.lock().expect("whole").push(entry.reward);
        }
    }

    fn body(text: &'static str, sink: &Arc<Kept>) -> Accompanied {
        let entry = Entry { eid: 1, state: [0.0].into(), action: 0, reward: 0.0 };
        let deadline = Duration::from_secs(1);
        let pending = Pending::new(entry, TaskType(0.0), 0, deadline, Arc::clone(sink) as _);
        let rewarded = Some(RewardOnDelivery { arrival: Instant::now(), pending });
        Accompanied::new(text, Along { rewarded, ..Along::default() })
    }

    fn poll(body: &mut Accompanied) -> Option<Bytes> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_next(&mut context) {
            Poll::Ready(next) => next.map(|chunk| chunk.unwrap_or_else(|never| match never {})),
            Poll::Pending => panic!("it is there"),
        }
    }

    #[tokio::test]
    async fn a_call_is_answered_when_its_last_byte_was_taken() {
        tokio::time::pause();
        let sink = Arc::new(Kept::default());
        let mut whole = body("hello", &sink);
        assert_eq!(whole.size(), BodySize::Sized(5));
        assert_eq!((poll(&mut whole), poll(&mut whole)), (Some(Bytes::from("hello")), None));
        drop(whole);
        drop(body("", &sink));
        let mut hung_up = body("hello", &sink);
        poll(&mut hung_up);
        drop(hung_up);
        drop(body("never asked for", &sink));
        let mut slow = body("hello", &sink);
        poll(&mut slow);
        tokio::time::advance(Duration::from_secs(2)).await;
        poll(&mut slow);
        drop(slow);
        assert_eq!(*sink.0.lock().expect("whole"), [1.0, 1.0, 0.0, 0.0, 0.0]);
    }
}
