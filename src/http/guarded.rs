//! A client's connection as the HTTP server reads and writes it, under guard: the table of
//! connections ([`crate::connections`]) hears what it does and holds, and may end it.
//!
//! The server's parser takes what it is given: hundreds of requests that come in one piece would all
//! be parsed at once, and a head may grow for as long as its client likes. So it is given one request
//! at a time: what comes after a head waits here until the request wants its body or is answered. And of
//! another node's head it is given what a call between nodes needs ([`super::peer_head`]).

mod writing;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::http::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Framing;
use super::incoming::{Incoming, OtherSide};
use super::last_words::{self, TellMachine};
use super::peer_head::{HEAD_BYTES_MAX, KEPT_BYTES_MAX, PeerHead};
use crate::connections::{CONNECTION_BYTES, Connection, EndReason, NoRoom, Phase};
use crate::error::{Error, RefusalKind};
use crate::memory::budget::Reservation;
use crate::wire::headers;

/// Bytes of a body that ends by itself that the parser is given at once.
const OPEN_BYTES: usize = 4 << 10;
/// Bytes of a request's head, or of an answer that waits, which each connection's share covers.
const COVERED_BYTES: usize = 8 << 10;
/// Bytes of the server's buffer for answers that it keeps from one to the next.
const WRITE_BUFFER_MAX: usize = 128 << 10;
/// Bytes of any body that the parser is given before it has a look.
const TURN_BYTES: usize = 16 << 10;
/// Bytes that wait at most while it is watched whether their client is still there.
const WATCHED_BYTES: usize = TURN_BYTES;
/// What the parser may make of such a piece: a chunk of one byte, or a whole request behind the last
/// one, takes many times as many bytes in memory as on the wire.
const OPEN_MEMORY: u64 = 192 << 10;

/// Why the parser is given nothing of a head.
enum NotGiven {
    /// There will be room for it in a moment.
    Yet,
    /// It is too large for the room that there is.
    TooLarge,
}

thread_local! {
    /// What is read from a socket lands here first: the parser's buffer would grow with what it is
    /// offered, and keeps the size that it once had.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; TURN_BYTES]);
}

/// What is under guard; a socket, but in tests.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Writes as much of `last` as can be taken at once.
    fn say(&mut self, last: &[u8]);

    /// Whether more requests may come from the other side.
    fn is_welcome(&self) -> bool {
        true
    }
}

/// See the module.
pub struct Guarded<S: Stream = Incoming> {
    io: S,
    connection: Arc<Connection>,
    held: Reservation,
    other: OtherSide,
    /// Read and not given to the parser yet.
    carry: Vec<u8>,
    /// What the parser is given before that, of a head that was cut down.
    ready: Vec<u8>,
    /// Whether it stands for what was read last.
    is_instead: bool,
    /// The parser was given something to look at: it gets nothing more before it has.
    paused: bool,
    /// What came waits for the request under way.
    watches: bool,
    /// Bytes of a body that it was given since it last had.
    given: usize,
    framing: Framing,
    peer_head: PeerHead,
    /// Who answers calls between nodes; `None`: no other node calls here.
    machine: Option<Arc<TellMachine>>,
}

/// The address of a connection's client, as functions are told it: written once for all its calls.
pub struct ClientAddress(pub HeaderValue);

impl Guarded {
    /// Who is at the other end, if that is known.
    pub fn client(&self) -> Option<ClientAddress> {
        let address = self.io.peer_addr().ok()?;
        headers::client_address(address.ip()).map(ClientAddress)
    }
}

impl<S: Stream> Guarded<S> {
    /// A connection just accepted, and its share of the budget. Other nodes that call are answered by
    /// `machine`, if there is one.
    pub fn new(
        io: S,
        connection: Arc<Connection>,
        held: Reservation,
        other: OtherSide,
        machine: Option<Arc<TellMachine>>,
    ) -> Self {
        Self {
            io,
            connection,
            held,
            other,
            carry: Vec::new(),
            ready: Vec::new(),
            is_instead: false,
            paused: false,
            watches: false,
            given: 0,
            framing: Framing::default(),
            peer_head: PeerHead::default(),
            machine,
        }
    }

    /// What is known of who is at its other end.
    pub fn other_side(&self) -> &OtherSide {
        &self.other
    }

    /// The connection, as the table knows it.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Writes a last word, as far as the kernel takes it at once.
    fn say(&mut self, last: &Error) {
        let machine = self.machine.as_ref().filter(|_| self.peer_head.is_of_peer());
        self.io.say(&last_words::written(last, machine.map(|machine| machine())));
    }

    /// What a read comes to on a connection that is to end; `None`: it is read as ever.
    fn ending(&mut self, why: EndReason) -> Option<Poll<io::Result<()>>> {
        match self.connection.phase() {
            // One that asks again at this moment is served: nothing of it is lost.
            Phase::Idle if self.carry.is_empty() && !self.connection.is_doomed() => None,
            Phase::Idle | Phase::Session => Some(Poll::Ready(Ok(()))),
            Phase::Head => {
                self.say(if why == EndReason::Slow { &Error::HeadTooSlow } else { &Error::Busy });
                Some(Poll::Ready(Ok(())))
            }
            // Its handler answers.
            Phase::Waiting | Phase::Body | Phase::Running => None,
            // What is left of its answer is tried once more, and then given up.
            Phase::Answering | Phase::Streaming => None,
        }
    }

    /// How much of `came` the parser is given now.
    fn share(&mut self, came: &[u8]) -> Result<usize, NotGiven> {
        match self.connection.phase() {
            Phase::Body | Phase::Session | Phase::Streaming => Ok(self.share_of_body(came)),
            Phase::Waiting | Phase::Running | Phase::Answering => Ok(0),
            // The parser has the whole head and has not looked at it yet.
            Phase::Head if self.framing.head_ended() => match self.framing.has_length() {
                true => Ok(self.share_of_body(came)),
                false => Ok(0),
            },
            // What nobody has asked for of the last request's body is still on its way.
            Phase::Idle if self.framing.has_length_left() => Ok(self.share_of_body(came)),
            Phase::Idle | Phase::Head => self.share_of_head(came),
        }
    }

    fn share_of_body(&mut self, came: &[u8]) -> usize {
        let known = self.framing.has_length();
        // Of a body that ends by itself bit by bit, with a look in between.
        let most = if known { came.len() } else { came.len().min(OPEN_BYTES) };
        let given = self.framing.body(came.get(..most).unwrap_or(came));
        self.given += given;
        if self.given >= TURN_BYTES || !known {
            (self.paused, self.given) = (true, 0);
        }
        self.connection.progressed(given);
        given
    }

    fn share_of_head(&mut self, came: &[u8]) -> Result<usize, NotGiven> {
        if self.connection.phase() == Phase::Idle {
            self.framing.begin();
            self.peer_head.begin();
            self.connection.enter(Phase::Head, 0);
        }
        self.room_for_head(came.len() as u64)?;
        let of_head = self.framing.head(came);
        self.connection.moved(of_head);
        if self.machine.is_some()
            && let Some(instead) = self.peer_head.take(came.get(..of_head).unwrap_or(came))
        {
            self.ready.extend(instead);
            self.is_instead = true;
            if self.framing.head_ended() && !self.framing.has_length() {
                let _ = self.connection.grow(&mut self.held, CONNECTION_BYTES + OPEN_MEMORY);
            }
            return Ok(of_head);
        }
        if !self.framing.head_ended() {
            return Ok(of_head);
        }
        let rest = came.get(of_head..).unwrap_or_default();
        let of_body = if self.framing.has_length() { self.framing.body(rest) } else { 0 };
        if !self.framing.has_length() {
            // Where there is no room it is not refused for that: its body has a share of its own.
            let _ = self.connection.grow(&mut self.held, CONNECTION_BYTES + OPEN_MEMORY);
        }
        self.paused = of_body < rest.len();
        Ok(of_head + of_body)
    }

    /// Makes room for `more` bytes of the head under way.
    fn room_for_head(&mut self, more: u64) -> Result<(), NotGiven> {
        let length = self.connection.bytes_moved() + more;
        let held = match self.peer_head.kept() {
            Some(kept) if length > HEAD_BYTES_MAX || kept > KEPT_BYTES_MAX => {
                return Err(NotGiven::TooLarge);
            }
            Some(kept) => kept as u64 + more,
            None => length,
        };
        if held <= COVERED_BYTES as u64 {
            return Ok(());
        }
        // The parser's buffer doubles as it grows.
        let wanted = CONNECTION_BYTES + held.next_power_of_two();
        self.connection.grow(&mut self.held, wanted).map_err(|no_room| match no_room {
            NoRoom::Yet => NotGiven::Yet,
            NoRoom::AtAll => NotGiven::TooLarge,
        })
    }

    /// What is too large is answered here, and then nothing more is read.
    fn too_large(&mut self) -> Poll<io::Result<()>> {
        self.connection.table().refused(RefusalKind::BadHead);
        self.say(&Error::HeadTooLarge);
        Poll::Ready(Ok(()))
    }

    /// Tries again when others have ended: then it is woken.
    fn in_a_moment(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.connection.waits(cx.waker());
        // All may have ended before there was anybody to wake.
        if !self.connection.waits_for_room() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Gives the parser what waited, if it is its turn.
    fn poll_carry(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut carry = std::mem::take(&mut self.carry);
        let rest = carry.split_off(carry.len().min(buf.remaining()));
        let polled = self.hand_on(&carry, cx, buf);
        self.carry.extend_from_slice(&rest);
        polled
    }

    /// Gives the parser what it may have of `came`, which fits into `buf`; the rest waits.
    fn hand_on(
        &mut self,
        came: &[u8],
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = self.share(came);
        let (given, rest) =
            came.split_at_checked(*shared.as_ref().unwrap_or(&0)).unwrap_or((came, &[]));
        self.carry.extend_from_slice(rest);
        let is_instead = std::mem::take(&mut self.is_instead);
        if !is_instead {
            buf.put_slice(given);
        }
        match shared {
            Err(NotGiven::Yet) => self.in_a_moment(cx),
            Err(NotGiven::TooLarge) => self.too_large(),
            Ok(0) => self.wait(cx),
            Ok(_) if is_instead => self.poll_ready(cx, buf),
            Ok(_) => Poll::Ready(Ok(())),
        }
    }

    /// Gives the parser what stands for a head that was cut down; it is asked again where that is nothing
    /// yet.
    fn poll_ready(&mut self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ready.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let rest = self.ready.split_off(self.ready.len().min(buf.remaining()));
        buf.put_slice(&std::mem::replace(&mut self.ready, rest));
        Poll::Ready(Ok(()))
    }

    /// Reads nothing until the request under way has changed its phase.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.waits(cx.waker());
        self.connection.hold_back();
        self.watches = true;
        Poll::Pending
    }

    /// What a read has come to. While what has come waits for the request under way, more is read, within a
    /// bound, to see whether the client is still there.
    fn watched(
        &mut self,
        polled: Poll<io::Result<()>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !std::mem::take(&mut self.watches) {
            return polled;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            while self.carry.len() < WATCHED_BYTES {
                let room = WATCHED_BYTES - self.carry.len();
                let most = scratch.len().min(room);
                let mut read = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
                if read.filled().is_empty() {
                    // It has hung up; what it sent ahead nobody asks for any more.
                    return Poll::Ready(Ok(()));
                }
                self.carry.extend_from_slice(read.filled());
            }
            Poll::Pending
        })
    }
}

impl<S: Stream> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let ended = this.connection.ended();
        if let Some(ending) = ended.and_then(|why| this.ending(why)) {
            return ending;
        }
        if std::mem::take(&mut this.paused) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.connection.phase() == Phase::Idle && !this.io.is_welcome() {
            // Who is at the other end was a member once: nothing more is asked, whatever has come already.
            this.carry.clear();
            return Poll::Ready(Ok(()));
        }
        if !this.ready.is_empty() {
            return this.poll_ready(cx, buf);
        }
        if !this.carry.is_empty() {
            let polled = this.poll_carry(cx, buf);
            return this.watched(polled, cx);
        }
        let phase = this.connection.phase();
        if phase == Phase::Idle && !this.connection.body_ended() {
            // A body may still come that nobody wanted, and of which nobody knows where it ends.
            return Poll::Ready(Ok(()));
        }
        let polled = SCRATCH.with_borrow_mut(|scratch| {
            let most = scratch.len().min(buf.remaining());
            let mut read = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
            match Pin::new(&mut this.io).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if read.filled().is_empty() => Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    if ended.is_some() && phase == Phase::Idle {
                        this.connection.spare();
                    }
                    this.hand_on(read.filled(), cx, buf)
                }
                Poll::Ready(Err(why)) => Poll::Ready(Err(why)),
                Poll::Pending if ended.is_some() && phase == Phase::Idle => Poll::Ready(Ok(())),
                Poll::Pending => {
                    this.connection.waits(cx.waker());
                    // It may have been ended just before there was anybody to wake.
                    if ended.is_none() && this.connection.ended().is_some() {
                        cx.waker().wake_by_ref();
                    }
                    Poll::Pending
                }
            }
        });
        this.watched(polled, cx)
    }
}
