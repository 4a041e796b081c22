//! A client's bytes on their way to the server's parser, through the guard of its connection. It may
//! hold them back, but not change, lose or reorder any; and while a request is carried out it hands
//! on none.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use actix_codec::{AsyncRead, AsyncWrite, Decoder, ReadBuf};
use actix_http::h1::{Codec, Message, MessageType};
use actix_http::{HttpMessage, Request, ServiceConfig, header};
use bytes::BytesMut;

use super::Bytes;
use crate::connections::{Connection, Connections, Phase};
use crate::http::guarded::{Guarded, Stream};
use crate::http::incoming::OtherSide;
use crate::metrics::Metrics;

/// A client's stream, as far as it has come.
struct Script {
    stream: Vec<u8>,
    /// Read so far.
    at: Cell<usize>,
    /// Come so far.
    come: Cell<usize>,
}

impl Script {
    fn comes(&self, bytes: usize) {
        self.come.set(self.come.get().saturating_add(bytes).min(self.stream.len()));
    }
}

/// The script as a socket. It takes whatever is written.
struct Socket(Rc<Script>);

impl Stream for Socket {
    fn say(&mut self, _last: &[u8]) {}
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (at, come) = (self.0.at.get(), self.0.come.get());
        let end = come.min(at + buf.remaining());
        if at == end {
            return Poll::Pending;
        }
        buf.put_slice(self.0.stream.get(at..end).unwrap_or_default());
        self.0.at.set(end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

thread_local! {
    static METRICS: Arc<Metrics> = Arc::default();
    /// With the runtime that its clock is at home in.
    static CONFIG: (actix_rt::Runtime, ServiceConfig) = {
        let runtime = actix_rt::Runtime::new().expect("a runtime");
        let config = runtime.block_on(async { ServiceConfig::default() });
        (runtime, config)
    };
}

/// A guarded connection and what the parser was given.
struct Given {
    script: Rc<Script>,
    guarded: Guarded<Socket>,
    given: usize,
}

/// What a read came to.
#[derive(PartialEq)]
enum Read {
    Some(Vec<u8>),
    Nothing,
    Ended,
}

impl Given {
    fn new(stream: Vec<u8>) -> Self {
        let script = Rc::new(Script { stream, at: Cell::new(0), come: Cell::new(0) });
        let table = Connections::new(8, 1 << 30, 0, METRICS.with(Arc::clone));
        let here = IpAddr::from([10, 0, 0, 1]);
        let (connection, held) = table.open(here).expect("there is room");
        let guarded =
            Guarded::new(Socket(Rc::clone(&script)), connection, held, OtherSide::default(), None);
        Self { script, guarded, given: 0 }
    }

    fn connection(&self) -> Arc<Connection> {
        Arc::clone(self.guarded.connection())
    }

    /// The server reads up to `most` bytes.
    fn read(&mut self, most: usize) -> Read {
        let mut buffer = vec![0; most.max(1)];
        let mut buf = ReadBuf::new(&mut buffer);
        let before = self.connection().phase();
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.guarded).poll_read(&mut cx, &mut buf) {
            Poll::Pending => Read::Nothing,
            Poll::Ready(Err(why)) => panic!("{why}"),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => Read::Ended,
            Poll::Ready(Ok(())) => {
                let held_back = [Phase::Waiting, Phase::Running, Phase::Answering];
                assert!(!held_back.contains(&before), "nothing comes while a request runs");
                let piece = buf.filled().to_vec();
                let end = self.given + piece.len();
                assert!(self.script.stream.get(self.given..end) == Some(&*piece), "as it came");
                self.given = end;
                Read::Some(piece)
            }
        }
    }

    /// The server has written its answer.
    fn answered(&mut self) {
        self.connection().answers();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut self.guarded).poll_flush(&mut cx).is_ready());
    }
}

/// Any stream, and a server that changes phases as it likes.
pub(super) fn phases(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let count = bytes.one_of(64);
    let steps = bytes.up_to(count).to_vec();
    let mut given = Given::new(bytes.0.to_vec());
    let connection = given.connection();
    for step in steps {
        let size = usize::from(step >> 3);
        match step & 7 {
            0 => given.script.comes(size + 1),
            1 => given.script.comes(size * 97),
            2 => drop(given.read(size + 1)),
            3 => drop(given.read(size * 300)),
            4 => connection.begins(size % 2 == 0),
            5 if size % 2 == 0 => connection.enter(Phase::Waiting, 0),
            5 | 6 => connection.enter(Phase::Body, 0),
            _ if size % 2 == 0 => connection.body_ends(),
            _ => given.answered(),
        }
    }
    // A session's bytes go through as they come.
    connection.enter(Phase::Session, 0);
    given.script.comes(usize::MAX);
    let mut still = 0;
    while still < 3 {
        still = if matches!(given.read(4096), Read::Some(_)) { 0 } else { still + 1 };
    }
}

/// A request as the parser sees it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    line: String,
    headers: usize,
    body: Vec<u8>,
    whole: bool,
}

/// The server's parser, and what it has seen.
struct Parser {
    codec: Codec,
    buffer: BytesMut,
    seen: Vec<Seen>,
}

/// What it comes to next.
enum Next {
    /// A request's head; whether a body follows, whether it ends by itself, and how long by its word.
    Head {
        has_body: bool,
        open: bool,
        length: u64,
    },
    Part,
    End,
    More,
    Broken,
}

impl Parser {
    fn new() -> Self {
        let codec = Codec::new(CONFIG.with(|(_, config)| config.clone()));
        Self { codec, buffer: BytesMut::new(), seen: Vec::new() }
    }

    fn next(&mut self) -> Next {
        match self.codec.decode(&mut self.buffer) {
            Ok(Some(Message::Item(request))) => {
                let line = format!("{} {}", request.method(), request.uri());
                let length = request.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|text| text.to_str().ok()?.parse().ok());
                let has_body = self.codec.message_type() != MessageType::None;
                let headers = request.headers().len();
                self.seen.push(Seen { line, headers, whole: !has_body, ..Seen::default() });
                let open = request.chunked().unwrap_or(true) || request.upgrade();
                Next::Head { has_body, open, length: length.unwrap_or(0) }
            }
            Ok(Some(Message::Chunk(part))) => {
                let Some(last) = self.seen.last_mut() else { return Next::Broken };
                match part {
                    Some(part) => {
                        last.body.extend_from_slice(&part);
                        Next::Part
                    }
                    None => {
                        last.whole = true;
                        Next::End
                    }
                }
            }
            Ok(None) => Next::More,
            Err(_) => Next::Broken,
        }
    }
}

/// The request that the parser reads of `head`.
pub(super) fn parsed(head: &[u8]) -> Option<Request> {
    let mut buffer = BytesMut::from(head);
    let mut codec = Codec::new(CONFIG.with(|(_, config)| config.clone()));
    match codec.decode(&mut buffer) {
        Ok(Some(Message::Item(request))) => Some(request),
        _ => None,
    }
}

/// What the parser sees of `stream` without a guard.
fn direct(stream: &[u8]) -> Vec<Seen> {
    let mut parser = Parser::new();
    parser.buffer.extend_from_slice(stream);
    loop {
        match parser.next() {
            Next::More | Next::Broken => return parser.seen,
            Next::Head { .. } | Next::Part | Next::End => {}
        }
    }
}

/// What it sees through the guard, when the stream comes in pieces of those sizes and every request
/// is carried out at once, its body read.
fn guarded(stream: &[u8], pieces: &[u8]) -> Vec<Seen> {
    let mut given = Given::new(stream.to_vec());
    let connection = given.connection();
    let mut parser = Parser::new();
    let mut sizes = pieces.iter().cycle();
    let mut still = 0;
    while still < 4 {
        let size = usize::from(*sizes.next().unwrap_or(&255));
        match given.read(1 + size * 16) {
            Read::Some(piece) => {
                still = 0;
                parser.buffer.extend_from_slice(&piece);
            }
            Read::Ended => break,
            Read::Nothing => {
                still += 1;
                if still > 1 && given.script.come.get() < given.script.stream.len() {
                    // No more than some hundred pieces.
                    given.script.comes(size / 4 + 1 + stream.len() / 256);
                    still = 0;
                }
                continue;
            }
        }
        loop {
            match parser.next() {
                Next::More => break,
                Next::Broken => return parser.seen,
                Next::Part => {}
                Next::Head { has_body, open, length } => {
                    let beyond = parser.buffer.len() as u64;
                    assert!(beyond <= length, "{beyond} bytes beyond a head");
                    connection.begins(open);
                    if has_body {
                        connection.enter(Phase::Waiting, 0);
                        assert!(given.read(1000) == Read::Nothing);
                        connection.enter(Phase::Body, 0);
                    } else {
                        given.answered();
                    }
                }
                Next::End => {
                    connection.body_ends();
                    given.answered();
                }
            }
        }
    }
    parser.seen
}

/// Bytes of a body that look like anything else.
fn body(length: usize) -> Vec<u8> {
    b"\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 5\r\n\n\n0\r\n"
        .iter()
        .cycle()
        .take(length)
        .copied()
        .collect()
}

/// Adds a request of some form to `stream`.
fn request(bytes: &mut Bytes<'_>, stream: &mut Vec<u8>) {
    let (form, number) = (bytes.one_of(8), bytes.number());
    let end = if form == 1 { "\n" } else { "\r\n" };
    let mut head = |method: &str, lines: &[String]| {
        let lines: String = lines.iter().map(|line| format!("{line}{end}")).collect();
        stream
            .extend_from_slice(format!("{method} /{number} HTTP/1.1{end}{lines}{end}").as_bytes());
    };
    let host = || "Host: a".to_owned();
    match form {
        0 | 1 => head("GET", &[host()]),
        2 => head("GET", &[host(), format!("X-Long: {}", "x".repeat(number % 12_000))]),
        3 => head("POST", &["Content-Length: 0".to_owned(), host()]),
        4 | 5 => {
            let length = number % if form == 4 { 40 } else { 900 };
            let name = if number % 2 == 0 { "content-LENGTH" } else { "Content-Length" };
            head("POST", &[format!("{name}:  {length} "), host()]);
            stream.extend(body(length));
        }
        6 => {
            let length = number % 900;
            head("POST", &[host(), "Accept: */*".to_owned(), format!("Content-Length: {length}")]);
            stream.extend(body(length));
        }
        _ => {
            head("POST", &["Transfer-Encoding: chunked".to_owned(), host()]);
            for chunk in body(number % 500).chunks(number % 90 + 1) {
                stream.extend(format!("{:x}\r\n", chunk.len()).bytes());
                stream.extend(chunk);
                stream.extend(b"\r\n");
            }
            stream.extend(b"0\r\n\r\n");
        }
    }
}

/// Requests, one after the other, in pieces.
pub(super) fn requests(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let (count, cuts) = (bytes.one_of(5), bytes.one_of(12));
    let pieces = bytes.up_to(cuts).to_vec();
    if count == 0 {
        // Any bytes: what is seen of them is the same, as far as it is seen.
        let (all, seen) = (direct(bytes.0), guarded(bytes.0, &pieces));
        for (direct, seen) in all.iter().zip(&seen) {
            let (line, headers) = (&direct.line, direct.headers);
            assert_eq!((&seen.line, seen.headers), (line, headers));
            assert!(direct.body.starts_with(&seen.body) && (direct.whole || !seen.whole));
        }
        return assert!(seen.len() <= all.len());
    }
    let mut stream = Vec::new();
    for _ in 0..count {
        request(&mut bytes, &mut stream);
    }
    let (all, seen) = (direct(&stream), guarded(&stream, &pieces));
    assert_eq!(all.len(), count, "{}", String::from_utf8_lossy(&stream));
    assert_eq!(seen, all, "in pieces by {pieces:?}: {}", String::from_utf8_lossy(&stream));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_length_that_is_cut_in_two_is_read_as_it_is() {
        let mut stream = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 512\r\n\r\n".to_vec();
        stream.extend(body(512));
        stream.extend(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
        for size in 0..=255 {
            let seen = guarded(&stream, &[size]);
            assert_eq!(seen.len(), 2, "{size}");
            assert_eq!(seen, direct(&stream), "{size}");
        }
    }

    #[test]
    fn empty_lines_before_a_request_hold_nothing_up() {
        let stream =
            b"\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
        for size in 0..=255 {
            let seen = guarded(stream, &[size]);
            assert_eq!(seen.len(), 2, "{size}: {seen:?}");
        }
    }

    #[test]
    fn requests_that_come_with_the_end_of_a_chunked_body_are_all_answered() {
        let stream = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
            GET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n";
        for size in 0..=255 {
            let seen = guarded(stream, &[size]);
            assert_eq!(seen.len(), 4, "{size}: {seen:?}");
            assert!(seen.iter().all(|seen| seen.whole));
        }
    }
}
