//! One request and its answer on one connection. Both go on at the same time: an answer may come before
//! the request's body is through (RFC 9112, 9.3), and either may go on for as long as it likes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, StatusCode};
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{self, AnswerHead, BodyEnd};
use super::stream::Outgoing;
use super::{BodyFailure, SendFailure};
use crate::call::body::RequestBody;
use crate::error::Error;
use crate::tls::ClusterMember;
use crate::types::Cause;
use crate::wire::chunks::{CHUNK_END, ChunkPiece, Chunks, LAST_CHUNK, chunk_head};

/// Bytes of a request's body that are taken before they can be sent.
const AHEAD_BYTES: usize = 64 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// Pieces that are written at once.
const WRITTEN_PIECES: usize = 8;

thread_local! {
    /// What is read lands here first, so that a connection that waits has no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// How far a request is.
#[derive(Debug, PartialEq)]
enum Sending {
    /// Its body waits until the other side wants it.
    Asking,
    /// More of its body may come.
    Going,
    /// All of it is written or about to be.
    Done,
    /// The connection takes no more of it.
    Broken(Cause),
}

/// See the module.
pub(super) struct Exchange {
    stream: Outgoing,
    method: Method,
    upgrades: bool,
    body: RequestBody,
    /// What is to be written.
    out: VecDeque<Bytes>,
    out_bytes: usize,
    /// How the body is framed, and what is left of one of a known length.
    framing: BodyEnd,
    sending: Sending,
    /// Whether something was written that the kernel may not have yet.
    unflushed: bool,
    /// Bytes of the request that the kernel took.
    written: u64,
    /// Read and not taken yet.
    came: Bytes,
    /// Bytes that came of the answer, its head included.
    read: u64,
    end: BodyEnd,
    chunks: Chunks,
    keeps: bool,
}

/// An answer's head began, and did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("unreadable answer: {0}")]
struct UnreadableAnswer(#[source] Cause);

/// Why there is no head of an answer.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The connection ended before anything came. `sent`: bytes of the request that the kernel took.
    Ended { sent: u64, cause: Cause },
    /// It is none of HTTP/1.
    Unreadable(Cause),
    /// It is not whole.
    Cut(Cause),
    /// The request's own body failed.
    Body(Error),
}

impl NoHead {
    pub(super) fn into_failure(self) -> SendFailure {
        match self {
            Self::Ended { cause, .. } => SendFailure::Broke(cause),
            Self::Unreadable(cause) => SendFailure::Unreadable(cause),
            Self::Cut(cause) => SendFailure::Broke(Cause::of(UnreadableAnswer(cause))),
            Self::Body(why) => SendFailure::RequestBody(why),
        }
    }
}

impl Exchange {
    /// Sends `head`, and behind it `body` once the other side has agreed to what `head` asks for: to
    /// become a WebSocket.
    pub(super) fn upgrading(
        stream: Outgoing,
        method: Method,
        head: Bytes,
        body: RequestBody,
    ) -> Self {
        let mut this = Self::new(stream, method, head, body, BodyEnd::Length(0));
        (this.upgrades, this.sending) = (true, Sending::Done);
        this
    }

    /// Sends `head`, and `body` once the other side wants it.
    pub(super) fn asking(
        stream: Outgoing,
        method: Method,
        head: Bytes,
        body: RequestBody,
        framing: BodyEnd,
    ) -> Self {
        let mut this = Self::new(stream, method, head, body, framing);
        this.sending = Sending::Asking;
        this
    }

    /// Sends `head` and `body`, framed as `framing` says, on `stream`.
    pub(super) fn new(
        stream: Outgoing,
        method: Method,
        head: Bytes,
        body: RequestBody,
        framing: BodyEnd,
    ) -> Self {
        let mut this = Self {
            stream,
            method,
            upgrades: false,
            body,
            out: VecDeque::with_capacity(2),
            out_bytes: 0,
            framing,
            sending: Sending::Going,
            unflushed: false,
            written: 0,
            came: Bytes::new(),
            read: 0,
            end: BodyEnd::Length(0),
            chunks: Chunks::default(),
            keeps: false,
        };
        this.push(head);
        if let RequestBody::Whole(body) = &this.body {
            let body = body.clone();
            this.push(body);
            this.sending = Sending::Done;
        }
        this
    }

    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out_bytes += bytes.len();
            self.out.push_back(bytes);
        }
    }

    /// Which member of the cluster answers.
    pub(super) fn member(&self) -> Option<Arc<ClusterMember>> {
        self.stream.member().cloned()
    }

    /// Bytes that went and came so far.
    pub(super) fn moved(&self) -> u64 {
        self.written + self.read
    }

    /// Takes more of the request's body, as long as it is there and there is room.
    fn take_body(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while self.sending == Sending::Going && self.out_bytes < AHEAD_BYTES {
            match self.body.poll_piece(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    self.sending = Sending::Done;
                    match self.framing {
                        BodyEnd::Chunks => self.push(LAST_CHUNK),
                        BodyEnd::Length(1..) => {
                            return Err(Error::Malformed(
                                "the body is shorter than was announced".to_owned(),
                            ));
                        }
                        _ => {}
                    }
                }
                Poll::Ready(Some(Err(why))) => return Err(why),
                Poll::Ready(Some(Ok(piece))) if piece.is_empty() => {}
                Poll::Ready(Some(Ok(piece))) => self.frame(piece),
            }
        }
        Ok(())
    }

    fn frame(&mut self, mut piece: Bytes) {
        match &mut self.framing {
            BodyEnd::Chunks => {
                self.push(chunk_head(piece.len()));
                self.push(piece);
                self.push(CHUNK_END);
                return;
            }
            BodyEnd::Length(left) => {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
            }
            BodyEnd::Connection => {}
        }
        self.push(piece);
    }

    /// Sends as much as can be.
    ///
    /// # Errors
    /// The request's own body failed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        loop {
            self.take_body(cx)?;
            if self.out.is_empty() {
                self.flush(cx);
                return Ok(());
            }
            match self.poll_write(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(bytes)) => {
                    self.unflushed = true;
                    self.written += bytes as u64;
                    self.out_bytes -= bytes;
                    self.wrote(bytes);
                }
                // An answer may have come all the same: it is read.
                Poll::Ready(Err(why)) => {
                    self.sending = Sending::Broken(Cause::of(why));
                    self.out.clear();
                    self.out_bytes = 0;
                }
            }
        }
    }

    /// Has what is sealed go out, too. What stands in its way the next read tells.
    fn flush(&mut self, cx: &mut Context<'_>) {
        if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx).is_ready() {
            self.unflushed = false;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let bytes = match self.out.front() {
            Some(only) if self.out.len() == 1 => ready!(stream.poll_write(cx, only))?,
            _ => {
                let mut slices = [IoSlice::new(&[]); WRITTEN_PIECES];
                let count = self.out.len().min(WRITTEN_PIECES);
                for (slice, piece) in slices.iter_mut().zip(&self.out) {
                    *slice = IoSlice::new(piece);
                }
                let slices = slices.get(..count).unwrap_or_default();
                ready!(stream.poll_write_vectored(cx, slices))?
            }
        };
        match bytes {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            bytes => Poll::Ready(Ok(bytes)),
        }
    }

    fn wrote(&mut self, mut bytes: usize) {
        while let Some(first) = self.out.front_mut() {
            if first.len() > bytes {
                first.advance(bytes);
                return;
            }
            bytes -= first.len();
            self.out.pop_front();
        }
    }

    /// Reads what has come; 0: the connection has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            let new = read.filled();
            self.read += new.len() as u64;
            self.came = match self.came.is_empty() {
                true => Bytes::copy_from_slice(new),
                false => [&self.came[..], new].concat().into(),
            };
            Poll::Ready(Ok(new.len()))
        })
    }

    /// Waits for the final answer's head; interim ones are passed over.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, NoHead>> {
        loop {
            self.poll_send(cx).map_err(NoHead::Body)?;
            while !self.came.is_empty() {
                let read = head::read(&self.came, &self.method)
                    .map_err(|why| NoHead::Unreadable(Cause::of(why)))?;
                let Some((head, length)) = read else { break };
                self.came.advance(length);
                let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
                if head.status.is_informational() && !switches {
                    if head.status == StatusCode::CONTINUE && self.sending == Sending::Asking {
                        self.sending = Sending::Going;
                        self.poll_send(cx).map_err(NoHead::Body)?;
                    }
                    continue;
                }
                let to_ours = || head::tokens(&head.headers, &header::UPGRADE).eq(["websocket"]);
                if switches && !(self.upgrades && to_ours()) {
                    let why = "it switches to a protocol that nobody asked for";
                    return Poll::Ready(Err(NoHead::Unreadable(Cause::of(why))));
                }
                (self.end, self.keeps) = (head.end, head.keeps);
                if switches {
                    (self.end, self.keeps) = (BodyEnd::Connection, false);
                    (self.framing, self.sending) = (BodyEnd::Connection, Sending::Going);
                }
                return Poll::Ready(Ok(head));
            }
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                ended if self.read == 0 => {
                    let cause = match (ended, &self.sending) {
                        (_, Sending::Broken(cause)) => cause.clone(),
                        (Err(why), _) => Cause::of(why),
                        _ => Cause::of("the connection was closed before an answer came"),
                    };
                    return Poll::Ready(Err(NoHead::Ended { sent: self.written, cause }));
                }
                Ok(0) => {
                    return Poll::Ready(Err(NoHead::Cut(Cause::of("its head ends early"))));
                }
                Err(why) => return Poll::Ready(Err(NoHead::Cut(Cause::of(why)))),
            }
        }
    }

    /// The next piece of the answer's body; `None`: that was all.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyFailure>>> {
        loop {
            if let Err(why) = self.poll_send(cx) {
                return Poll::Ready(Some(Err(BodyFailure::Request(why))));
            }
            match self.take_piece() {
                Ok(ChunkPiece::Data(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(ChunkPiece::End) => return Poll::Ready(None),
                Ok(ChunkPiece::More) => {}
                Err(why) => {
                    return Poll::Ready(Some(Err(BodyFailure::Unreadable(Cause::of(why)))));
                }
            }
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) if self.end == BodyEnd::Connection => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(BodyFailure::Truncated))),
                Err(why) => {
                    return Poll::Ready(Some(Err(BodyFailure::Unreadable(Cause::of(why)))));
                }
            }
        }
    }

    /// What is there of the answer's body.
    fn take_piece(&mut self) -> Result<ChunkPiece, &'static str> {
        match &mut self.end {
            BodyEnd::Length(0) => Ok(ChunkPiece::End),
            BodyEnd::Chunks => self.chunks.take(&mut self.came),
            _ if self.came.is_empty() => Ok(ChunkPiece::More),
            BodyEnd::Connection => Ok(ChunkPiece::Data(std::mem::take(&mut self.came))),
            BodyEnd::Length(left) => {
                let bytes = (self.came.len() as u64).min(*left);
                *left -= bytes;
                Ok(ChunkPiece::Data(self.came.split_to(bytes as usize)))
            }
        }
    }

    /// Whether an answer of `status` tells of a body that does not come.
    pub(super) fn leaves_body_out(&self, status: StatusCode) -> bool {
        self.method == Method::HEAD || status == StatusCode::NOT_MODIFIED
    }

    /// Bytes of the body that are left, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self.end {
            BodyEnd::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The headers behind the body.
    pub(super) fn trailers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.chunks.trailers)
    }

    /// The connection, if it can be used again: request and answer have both come to their end.
    pub(super) fn into_idle(self) -> Option<Outgoing> {
        let through = self.sending == Sending::Done && self.out.is_empty() && !self.unflushed;
        (through && self.keeps && self.came.is_empty()).then_some(self.stream)
    }
}
