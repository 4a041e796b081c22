//! The client against servers that say exactly what a test wants, each connection by its own script.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use actix_web::http::header;
use futures_util::future::ready;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::call::body::{BodySource, NextPiece};
use crate::error::Error;

/// Nothing in these tests takes longer unless the client is broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that no buffers hold.
const LONG: usize = 64 << 20;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A connection at the server's end.
struct Wire {
    stream: TcpStream,
    /// Read and not looked at.
    came: Vec<u8>,
}

impl Wire {
    /// Reads more; `false`: the connection has ended.
    fn more(&mut self) -> bool {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(read) => {
                self.came.extend_from_slice(&piece[..read]);
                true
            }
            Err(why) if why.kind() == io::ErrorKind::ConnectionReset => false,
            Err(why) => panic!("nothing came: {why}"),
        }
    }

    /// Reads up to and with `end`.
    fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.came.windows(end.len()).position(|bytes| bytes == end.as_bytes());
            if let Some(at) = found {
                let rest = self.came.split_off(at + end.len());
                let part = std::mem::replace(&mut self.came, rest);
                return String::from_utf8(part).expect("text");
            }
            assert!(self.more(), "{end:?} never came");
        }
    }

    fn head(&mut self) -> String {
        self.until("\r\n\r\n")
    }

    fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("it is taken");
    }

    /// Answers a request without a body.
    fn answer(&mut self, text: &str) -> String {
        let head = self.head();
        self.say(text);
        head
    }

    /// Reads to the connection's end, and gives what came until then.
    fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8(std::mem::take(&mut self.came)).expect("text")
    }
}

type Script = Box<dyn FnOnce(Wire) + Send>;

/// A script as it stands in a list.
fn script(script: impl FnOnce(Wire) + Send + 'static) -> Script {
    Box::new(script)
}

/// Serves one connection after another by `scripts`; more are refused.
fn server(scripts: Vec<Script>) -> (SocketAddr, JoinHandle<()>) {
    server_on(TcpListener::bind("127.0.0.1:0").expect("a free port"), scripts)
}

fn server_on(listener: TcpListener, scripts: Vec<Script>) -> (SocketAddr, JoinHandle<()>) {
    let address = listener.local_addr().expect("bound");
    let served = std::thread::spawn(move || {
        for script in scripts {
            let (stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            script(Wire { stream, came: Vec::new() });
        }
    });
    (address, served)
}

fn rules() -> ClientRules {
    ClientRules {
        hosts: Hosts::Any,
        connect: Duration::from_secs(5),
        insists: false,
        machine_silence: Duration::from_secs(10),
        first_byte: PATIENCE,
        next_byte: PATIENCE,
        sealing: None,
    }
}

fn client() -> HttpClient {
    HttpClient::new(rules())
}

fn request(method: Method, address: SocketAddr, body: RequestBody) -> OutgoingRequest {
    OutgoingRequest {
        origin: Origin::new(&address.ip().to_string(), address.port()),
        method,
        target: "/".to_owned(),
        headers: HeaderMap::new(),
        body,
        upgrades: false,
        asks_first: false,
    }
}

/// What comes of a request: the status and the body, or how it failed.
async fn outcome(
    client: &HttpClient,
    method: Method,
    address: SocketAddr,
    body: RequestBody,
) -> Result<(u16, Bytes), SendFailure> {
    let answer = client.send(request(method, address, body)).await?;
    Ok((answer.status.as_u16(), answer.body.collect(1 << 20).await.expect("it is whole")))
}

async fn get(client: &HttpClient, address: SocketAddr) -> Result<(u16, Bytes), SendFailure> {
    outcome(client, Method::GET, address, RequestBody::EMPTY).await
}

async fn piece(body: &mut IncomingBody) -> Option<Result<Bytes, BodyFailure>> {
    poll_fn(|cx| body.poll_piece(cx)).await
}

fn ok() -> Result<(u16, Bytes), SendFailure> {
    Ok((200, "ok".into()))
}

fn broke<T>(result: &Result<T, SendFailure>) -> bool {
    matches!(result, Err(SendFailure::Broke(_)))
}

/// A body whose pieces a test gives one by one; it ends when the sender is dropped.
struct Fed {
    from: UnboundedReceiver<Bytes>,
    kept: Vec<Bytes>,
    next: usize,
    /// Whether what was taken is kept for another try.
    keeps: bool,
}

/// Its sender, and how it can be looked at meanwhile.
fn fed(keeps: bool) -> (UnboundedSender<Bytes>, Rc<RefCell<Fed>>) {
    let (to, from) = unbounded_channel();
    (to, Rc::new(RefCell::new(Fed { from, kept: Vec::new(), next: 0, keeps })))
}

/// As a request has it.
fn streamed(source: &Rc<RefCell<Fed>>, length: Option<u64>) -> RequestBody {
    RequestBody::Streamed { source: Rc::clone(source) as _, length }
}

impl BodySource for Fed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(piece) = self.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        let piece = std::task::ready!(self.from.poll_recv(cx));
        if let Some(piece) = &piece {
            self.kept.push(piece.clone());
            self.next += 1;
        }
        Poll::Ready(piece.map(Ok))
    }

    fn rewind(&mut self) -> bool {
        let can = self.keeps || self.kept.is_empty();
        if can {
            self.next = 0;
        }
        can
    }

    fn held_bytes(&self) -> usize {
        self.kept.iter().map(Bytes::len).sum()
    }
}

#[actix_rt::test]
async fn one_connection_serves_request_after_request_whatever_their_answers_have_of_bodies() {
    let cases = [
        (Method::GET, OK, 200, "ok"),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 200, ""),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, ""),
        (
            Method::POST,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\n",
            200,
            "abc",
        ),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, ""),
        (Method::POST, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, ""),
        (Method::DELETE, OK, 200, "ok"),
    ];
    let answers = cases.clone().map(|(_, answer, ..)| answer);
    let (address, served) = server(vec![script(move |mut wire| {
        for answer in answers {
            wire.answer(answer);
        }
    })]);
    let client = client();
    for (method, told, status, body) in cases {
        let answer = client.send(request(method.clone(), address, RequestBody::EMPTY)).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status.as_u16(), status, "{method} {told:?}");
        assert_eq!(answer.leaves_body_out, method == Method::HEAD || status == 304);
        // Who is told that there is no body does not ask for it.
        if !answer.leaves_body_out {
            assert_eq!(answer.body.collect(100).await, Ok(body.into()), "{method} {told:?}");
        }
    }
    served.join().expect("one connection was enough");
}

#[actix_rt::test]
async fn a_connection_that_the_server_closed_while_idle_is_not_used_again() {
    let (say, closed) = channel();
    let scripts = std::iter::repeat_with(|| {
        let say = say.clone();
        script(move |mut wire| {
            wire.answer(OK);
            drop(wire);
            say.send(()).expect("the test listens");
        })
    });
    let (address, served) = server(scripts.take(20).collect());
    let client = client();
    for _ in 0..20 {
        assert_eq!(outcome(&client, Method::POST, address, RequestBody::EMPTY).await, ok());
        // Holds the thread on purpose: the event loop cannot hear of the end before the reuse.
        closed.recv().expect("the server closes");
    }
    served.join().expect("served");
}

/// A connection that is kept and ends with the second request on it.
fn ends_at_reuse() -> Script {
    script(|mut wire| {
        wire.answer(OK);
        wire.head();
    })
}

#[actix_rt::test]
async fn what_a_connection_took_to_its_end_is_sent_again_if_its_method_is_safe() {
    let answers = || script(|mut wire| drop(wire.answer(OK)));
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let answer = match method {
            Method::HEAD => script(|mut wire| {
                wire.answer("HTTP/1.1 200 OK\r\n\r\n");
            }),
            _ => answers(),
        };
        let (address, served) = server(vec![ends_at_reuse(), answer]);
        let client = client();
        assert_eq!(get(&client, address).await, ok());
        let again = outcome(&client, method.clone(), address, RequestBody::EMPTY).await;
        assert_eq!(again.expect("sent again").0, 200, "{method}");
        served.join().expect("served");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let (address, served) = server(vec![ends_at_reuse()]);
        let client = client();
        assert_eq!(get(&client, address).await, ok());
        let once = outcome(&client, method.clone(), address, RequestBody::EMPTY).await;
        assert!(broke(&once), "{method}: {once:?}");
        served.join().expect("served");
    }
    let ends = || script(|mut wire| drop(wire.head()));
    // Who stops closes idle connections and has new ones that he accepts no more.
    for (scripts, answered) in [
        (vec![ends_at_reuse(), ends(), answers()], true),
        (vec![ends_at_reuse(), ends(), ends()], false),
    ] {
        let (address, served) = server(scripts);
        let client = client();
        assert_eq!(get(&client, address).await, ok());
        let again = get(&client, address).await;
        assert!(if answered { again == ok() } else { broke(&again) }, "{answered}: {again:?}");
        served.join().expect("served");
    }
    for (scripts, answered) in [(vec![ends(), answers()], true), (vec![ends(), ends()], false)] {
        let (address, served) = server(scripts);
        let got = get(&client(), address).await;
        assert!(if answered { got == ok() } else { broke(&got) }, "{answered}: {got:?}");
        served.join().expect("served");
    }
    let (address, served) = server(vec![ends()]);
    let once = outcome(&client(), Method::POST, address, RequestBody::EMPTY).await;
    assert!(broke(&once), "{once:?}");
    served.join().expect("served");
}

#[actix_rt::test]
async fn a_body_goes_along_again_where_all_of_it_is_still_held() {
    for keeps in [true, false] {
        let first = script(|mut wire| {
            wire.answer(OK);
            wire.until("0\r\n\r\n");
        });
        let again = script(|mut wire| {
            let got = wire.until("0\r\n\r\n");
            assert!(got.ends_with("\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "{got:?}");
            wire.say(OK);
        });
        let (address, served) = server(if keeps { vec![first, again] } else { vec![first] });
        let client = client();
        assert_eq!(get(&client, address).await, ok());
        let (to, source) = fed(keeps);
        for piece in ["abc", "de"] {
            to.send(piece.into()).expect("it is read");
        }
        drop(to);
        let sent = outcome(&client, Method::GET, address, streamed(&source, None)).await;
        match keeps {
            true => assert_eq!(sent, ok()),
            false => assert!(broke(&sent), "{sent:?}"),
        }
        served.join().expect("served");
    }
}

#[actix_rt::test]
async fn interim_answers_are_passed_over_in_whatever_pieces_they_come() {
    let (address, served) = server(vec![script(|mut wire| {
        wire.answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early");
        wire.say(" Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        wire.say(OK);
        wire.answer(&format!("HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\n{OK}"));
    })]);
    let client = client();
    assert_eq!(outcome(&client, Method::POST, address, RequestBody::EMPTY).await, ok());
    assert_eq!(get(&client, address).await, ok());
    served.join().expect("served");
}

#[actix_rt::test]
async fn an_answer_before_the_body_was_read_is_read_though_the_connection_then_ends() {
    /// A body that has no end.
    struct Endless;
    impl BodySource for Endless {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<NextPiece> {
            Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 16 << 10]))))
        }
        fn rewind(&mut self) -> bool {
            false
        }
        fn held_bytes(&self) -> usize {
            0
        }
    }
    for (length, closes) in [(None, true), (Some(1 << 30), true), (None, false)] {
        let (address, served) = server(vec![script(move |mut wire| {
            wire.head();
            wire.say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\n\r\ntoo large");
            if !closes {
                // Whoever reads on sees that the client gives up.
                while wire.more() {
                    wire.came.clear();
                }
            }
        })]);
        let source = Rc::new(RefCell::new(Endless));
        let body = RequestBody::Streamed { source, length };
        let answered = outcome(&client(), Method::POST, address, body).await;
        assert_eq!(answered, Ok((413, "too large".into())), "{length:?}");
        served.join().expect("served");
    }
}

#[actix_rt::test]
async fn answers_without_a_length_are_read_to_the_end_of_their_connection() {
    for (version, rest, want) in [
        ("1.1", "\r\nhello", "hello"),
        ("1.0", "\r\nhello", "hello"),
        ("1.1", "connection: close\r\n\r\n", ""),
        ("1.1", "transfer-encoding: identity\r\n\r\nzip", "zip"),
        ("1.0", "connection: close\r\ncontent-length: 5\r\n\r\nhello", "hello"),
    ] {
        let once = || {
            let answer = format!("HTTP/{version} 200 OK\r\n{rest}");
            script(move |mut wire| drop(wire.answer(&answer)))
        };
        let (address, served) = server(vec![once(), once()]);
        let client = client();
        for _ in 0..2 {
            let answered = outcome(&client, Method::POST, address, RequestBody::EMPTY).await;
            assert_eq!(answered, Ok((200, want.into())), "{rest:?}");
        }
        served.join().expect("served");
    }
}

#[actix_rt::test]
async fn a_body_that_is_not_whole_is_an_error() {
    for (rest, want) in [
        ("content-length: 9\r\n\r\nhalf", BodyFailure::Truncated),
        ("content-length: 9\r\n\r\n", BodyFailure::Truncated),
        ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", BodyFailure::Truncated),
        ("transfer-encoding: chunked\r\n\r\n4\r\nha", BodyFailure::Truncated),
        ("transfer-encoding: chunked\r\n\r\n0\r\n", BodyFailure::Truncated),
        ("content-length: 11\r\n\r\ntwelve byte", BodyFailure::TooLarge(10)),
        ("transfer-encoding: chunked\r\n\r\nb\r\ntwelve byte\r\n", BodyFailure::TooLarge(10)),
    ] {
        let (address, served) = server(vec![script(move |mut wire| {
            wire.answer(&format!("HTTP/1.1 200 OK\r\n{rest}"));
        })]);
        let sent = client().send(request(Method::GET, address, RequestBody::EMPTY)).await;
        assert_eq!(sent.expect("a head").body.collect(10).await, Err(want), "{rest:?}");
        served.join().expect("served");
    }
    let (address, served) = server(vec![script(|mut wire| {
        wire.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n");
    })]);
    let sent = client().send(request(Method::GET, address, RequestBody::EMPTY)).await;
    let read = sent.expect("a head").body.collect(10).await;
    assert!(matches!(read, Err(BodyFailure::Unreadable(_))), "{read:?}");
    served.join().expect("served");
}

#[actix_rt::test]
async fn a_head_that_is_not_whole_or_cannot_be_read_breaks_the_call() {
    for (head, is_of_http) in [
        ("HTTP/1.1 200", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", false),
        ("SSH-2.0\r\n", false),
    ] {
        let (address, served) = server(vec![script(move |mut wire| drop(wire.answer(head)))]);
        let got = get(&client(), address).await;
        let unreadable = matches!(got, Err(SendFailure::Unreadable(_)));
        assert_eq!((broke(&got), unreadable), (is_of_http, !is_of_http), "{head:?}: {got:?}");
        served.join().expect("served");
    }
}

#[actix_rt::test]
async fn an_answer_may_begin_before_the_requests_body_has_ended_and_both_go_on() {
    let (address, served) = server(vec![script(|mut wire| {
        wire.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nready\r\n");
        for word in ["one", "two"] {
            assert_eq!(wire.until("\r\n"), "3\r\n");
            assert_eq!(wire.until("\r\n"), format!("{word}\r\n"));
            wire.say(&format!("3\r\n{word}\r\n"));
        }
        wire.until("0\r\n\r\n");
        wire.say("0\r\n\r\n");
        wire.answer(OK);
    })]);
    let client = client();
    let (to, source) = fed(false);
    let sent = client.send(request(Method::POST, address, streamed(&source, None))).await;
    let mut body = sent.expect("a head").body;
    assert_eq!(piece(&mut body).await, Some(Ok("ready".into())));
    for word in ["one", "two"] {
        to.send(word.into()).expect("it is read");
        assert_eq!(piece(&mut body).await, Some(Ok(word.into())));
    }
    drop(to);
    assert_eq!(piece(&mut body).await, None);
    assert_eq!(get(&client, address).await, ok(), "and the connection serves another");
    served.join().expect("served");
}

#[actix_rt::test]
async fn a_body_shorter_than_announced_is_its_senders_error() {
    let (say, heard) = channel::<()>();
    let (address, served) = server(vec![script(move |mut wire| {
        wire.until("abc");
        say.send(()).expect("the test listens");
        assert_eq!(wire.rest(), "", "nothing that would make it look whole");
    })]);
    let (to, source) = fed(false);
    to.send("abc".into()).expect("it is read");
    let client = client();
    let sends = outcome(&client, Method::POST, address, streamed(&source, Some(5)));
    let ends = async {
        while heard.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        drop(to);
    };
    let (sent, ()) = tokio::join!(sends, ends);
    assert!(matches!(sent, Err(SendFailure::RequestBody(Error::Malformed(_)))), "{sent:?}");
    served.join().expect("served");
}

#[actix_rt::test]
async fn a_server_that_listens_late_is_waited_for_where_the_client_insists() {
    use socket2::{Domain, Socket, Type};
    for insists in [true, false] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let address = socket.local_addr().expect("bound").as_socket().expect("an address");
        let client = HttpClient::new(ClientRules { insists, ..rules() });
        // Time that stands still goes on only while nothing else happens: it was refused by then.
        tokio::time::pause();
        let listens = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            tokio::time::resume();
            socket.listen(8).expect("it listens");
            let answers = script(|mut wire| drop(wire.answer(OK)));
            let scripts = if insists { vec![answers] } else { vec![] };
            server_on(TcpListener::from(socket), scripts).1
        };
        let sends = outcome(&client, Method::POST, address, RequestBody::EMPTY);
        let (sent, served) = tokio::join!(sends, listens);
        match insists {
            true => assert_eq!(sent, ok()),
            false => {
                let refused = sent.as_ref().is_err_and(SendFailure::is_hosts_fault);
                assert!(refused, "{sent:?}");
            }
        }
        served.join().expect("served");
    }
}

#[actix_rt::test]
async fn a_server_that_never_listens_is_given_up_in_the_time_to_connect() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    drop(socket);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let client = HttpClient::new(ClientRules { insists: true, ..rules() });
    let sent = get(&client, address).await;
    let refused =
        sent.as_ref().is_err_and(|why| why.is_hosts_fault() && why.to_string().contains("refused"));
    assert!(refused, "{sent:?}");
    assert_eq!(began.elapsed().as_secs(), rules().connect.as_secs());
}

#[actix_rt::test]
async fn a_server_that_falls_silent_is_given_up() {
    let (address, served) = server(vec![
        script(|mut wire| drop(wire.rest())),
        script(|mut wire| {
            wire.answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
            wire.rest();
        }),
    ]);
    let limit = Duration::from_secs(7);
    let client =
        HttpClient::new(ClientRules { first_byte: limit, next_byte: limit * 2, ..rules() });
    tokio::time::pause();
    let silent = get(&client, address).await;
    assert_eq!(silent, Err(SendFailure::NoAnswer(limit)));
    tokio::time::resume();
    let sent = client.send(request(Method::GET, address, RequestBody::EMPTY)).await;
    let mut body = sent.expect("a head").body;
    assert_eq!(piece(&mut body).await, Some(Ok("half".into())));
    tokio::time::pause();
    assert_eq!(piece(&mut body).await, Some(Err(BodyFailure::Silent(limit * 2))));
    drop(body);
    served.join().expect("the connections were closed");
}

#[actix_rt::test]
async fn a_server_that_reads_nothing_of_a_body_yet_is_not_silent_for_the_kernel() {
    let (go, goes) = channel();
    let (address, served) = server(vec![script(move |mut wire| {
        goes.recv_timeout(PATIENCE).expect("the word comes");
        wire.head();
        let mut left = LONG;
        left -= wire.came.len();
        std::io::copy(&mut Read::by_ref(&mut wire.stream).take(left as u64), &mut io::sink())
            .expect("the body comes");
        wire.say(OK);
        wire.answer(OK);
    })]);
    let client =
        HttpClient::new(ClientRules { machine_silence: Duration::from_secs(1), ..rules() });
    let body = RequestBody::Whole(vec![b'x'; LONG].into());
    let mut sent = Box::pin(outcome(&client, Method::POST, address, body));
    // Longer than a kernel bears full buffers for that limit.
    let waited = tokio::time::timeout(Duration::from_secs(4), &mut sent).await;
    assert!(waited.is_err(), "it goes on: {waited:?}");
    go.send(()).expect("the server waits");
    assert_eq!(sent.await, ok());
    assert_eq!(get(&client, address).await, ok(), "on the same connection");
    served.join().expect("it went well");
}

#[actix_rt::test]
async fn an_answer_that_comes_bit_by_bit_is_not_silent_and_neither_is_a_body_that_goes() {
    let (say, heard) = channel::<()>();
    let (address, served) = server(vec![script(move |mut wire| {
        wire.head();
        heard.recv().expect("the test goes on");
        wire.until("two");
        heard.recv().expect("the test goes on");
        wire.say(OK);
    })]);
    let limit = Duration::from_secs(30);
    let client = HttpClient::new(ClientRules { first_byte: limit, ..rules() });
    let (to, source) = fed(false);
    let sends = outcome(&client, Method::POST, address, streamed(&source, Some(6)));
    // Each step takes two thirds of the limit: together they are more than it.
    let step = async || {
        tokio::time::pause();
        tokio::time::advance(limit * 2 / 3).await;
        tokio::time::resume();
    };
    let moves = async {
        for word in ["one", "two"] {
            step().await;
            to.send(word.into()).expect("it is read");
            say.send(()).expect("the server listens");
            while source.borrow().held_bytes() == 0 || !source.borrow().from.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    };
    let (sent, ()) = tokio::join!(sends, moves);
    assert_eq!(sent, ok());
    served.join().expect("served");
}

/// A client whose names lead where the cell says at the time.
fn led_to(address: &Rc<Cell<SocketAddr>>, hosts: Hosts) -> (HttpClient, Rc<Cell<usize>>) {
    let (address, asked) = (Rc::clone(address), Rc::new(Cell::new(0)));
    let count = Rc::clone(&asked);
    let look_up = move |_, _| -> LocalBoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        count.set(count.get() + 1);
        Box::pin(ready(Ok(vec![address.get()])))
    };
    (HttpClient::looking_up(ClientRules { hosts, ..rules() }, Box::new(look_up)), asked)
}

async fn get_named(client: &HttpClient) -> Result<(u16, Bytes), SendFailure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let named = OutgoingRequest {
        origin: Origin::new("fn", 80),
        ..request(Method::POST, any, RequestBody::EMPTY)
    };
    let answer = client.send(named).await?;
    Ok((answer.status.as_u16(), answer.body.collect(100).await.expect("whole")))
}

#[actix_rt::test]
async fn a_name_that_has_moved_is_followed_after_five_seconds() {
    let says = |text: &'static str| {
        script(move |mut wire| {
            for _ in 0..2 {
                let head = wire.answer(&OK.replace("ok", text));
                assert!(head.contains("host: fn:80\r\n"), "{head:?}");
            }
            assert_eq!(wire.rest(), "", "and it is closed");
        })
    };
    let (old, of_old) = server(vec![says("v1")]);
    let (new, of_new) = server(vec![says("v2")]);
    let at = Rc::new(Cell::new(old));
    let (client, asked) = led_to(&at, Hosts::Any);
    assert_eq!(get_named(&client).await, Ok((200, "v1".into())));
    at.set(new);
    assert_eq!(get_named(&client).await, Ok((200, "v1".into())), "it was looked up just now");
    assert_eq!(asked.get(), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    for _ in 0..2 {
        assert_eq!(get_named(&client).await, Ok((200, "v2".into())));
    }
    assert_eq!(asked.get(), 2);
    of_old.join().expect("the connection to where it was is closed");
    drop(client);
    of_new.join().expect("served");
}

#[actix_rt::test]
async fn a_name_that_stays_keeps_its_connections() {
    let (address, served) = server(vec![script(|mut wire| {
        wire.answer(OK);
        wire.answer(OK);
    })]);
    let (client, asked) = led_to(&Rc::new(Cell::new(address)), Hosts::Any);
    assert_eq!(get_named(&client).await, ok());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    client.look_up(&Origin::new("fn", 80)).await.expect("it is there");
    assert_eq!(get_named(&client).await, ok());
    assert_eq!(asked.get(), 2);
    served.join().expect("served");
}

#[actix_rt::test]
async fn an_answer_that_ends_after_its_name_has_moved_leaves_no_connection_to_be_used() {
    let (say, heard) = channel::<()>();
    let (old, of_old) = server(vec![script(move |mut wire| {
        wire.answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no");
        heard.recv().expect("the test goes on");
        wire.say("k");
        assert_eq!(wire.rest(), "", "no second request");
    })]);
    let (new, of_new) = server(vec![script(|mut wire| drop(wire.answer(OK)))]);
    let at = Rc::new(Cell::new(old));
    let (client, _) = led_to(&at, Hosts::Any);
    let first = OutgoingRequest {
        origin: Origin::new("fn", 80),
        ..request(Method::GET, old, RequestBody::EMPTY)
    };
    let first = client.send(first).await.expect("a head").body;
    at.set(new);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    client.look_up(&Origin::new("fn", 80)).await.expect("it is there");
    say.send(()).expect("the server listens");
    assert_eq!(first.collect(100).await, Ok("ok".into()));
    assert_eq!(get_named(&client).await, ok());
    of_old.join().expect("closed");
    of_new.join().expect("served");
}

#[actix_rt::test]
async fn names_that_lead_back_to_this_machine_are_refused_where_clients_type_them() {
    for near in
        ["127.0.0.1:80", "[::1]:80", "169.254.1.1:80", "0.0.0.0:80", "[::ffff:127.0.0.1]:80"]
    {
        let at = Rc::new(Cell::new(near.parse().expect("an address")));
        let (client, _) = led_to(&at, Hosts::Others);
        assert_eq!(get_named(&client).await, Err(SendFailure::NearHost), "{near}");
    }
    let client = HttpClient::new(ClientRules { hosts: Hosts::Others, ..rules() });
    let named = client.look_up(&Origin::new("localhost", 80)).await;
    assert_eq!(named, Err(SendFailure::NearHost));
    let there = Origin::new("203.0.113.1", 80);
    assert_eq!(client.look_up(&there).await, Ok(()), "others are not");
}

#[actix_rt::test]
async fn names_that_lead_nowhere_or_not_in_time_are_unknown() {
    type Found = io::Result<Vec<SocketAddr>>;
    let asked = |found: fn() -> LocalBoxFuture<'static, Found>| {
        HttpClient::looking_up(rules(), Box::new(move |_, _| found()))
    };
    tokio::time::pause();
    for client in [
        asked(|| Box::pin(ready(Ok(vec![])))),
        asked(|| Box::pin(ready(Err(io::ErrorKind::NotFound.into())))),
        asked(|| Box::pin(std::future::pending())),
    ] {
        let sent = get_named(&client).await;
        assert!(matches!(sent, Err(SendFailure::UnknownHost(_))), "{sent:?}");
    }
}

#[actix_rt::test]
async fn what_comes_behind_an_answer_is_not_taken_for_the_next_one() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    // A request that may be sent twice relies on what the event loop has heard, another one looks itself.
    for (at_once, method) in [true, false]
        .into_iter()
        .flat_map(|at_once| [(at_once, Method::GET), (at_once, Method::POST)])
    {
        let (say, heard) = channel::<()>();
        let (told, tell) = channel::<()>();
        let first = script(move |mut wire| {
            match at_once {
                true => drop(wire.answer(&format!("{OK}{evil}"))),
                false => {
                    wire.answer(OK);
                    heard.recv().expect("the test goes on");
                    wire.say(evil);
                }
            }
            told.send(()).expect("the test listens");
            assert_eq!(wire.rest(), "", "no second request");
        });
        let second = script(|mut wire| drop(wire.answer(OK)));
        let (address, served) = server(vec![first, second]);
        let client = client();
        assert_eq!(get(&client, address).await, ok());
        // The server ends whether or not it was waited for.
        let _ = say.send(());
        tell.recv().expect("it was said");
        if method == Method::GET {
            // One turn of the loop.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = outcome(&client, method.clone(), address, RequestBody::EMPTY).await;
        assert_eq!(second, ok(), "{at_once}, {method}");
        served.join().expect("served");
    }
}

#[actix_rt::test]
async fn who_asks_first_sends_the_body_once_it_is_wanted_and_has_it_whole_otherwise() {
    let (address, served) = server(vec![
        script(|mut wire| {
            let head = wire.head();
            assert!(head.contains("expect: 100-continue\r\n"), "{head:?}");
            wire.say("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(wire.until("abc"), "abc");
            wire.say(OK);
            let head = wire.answer("HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n");
            assert!(head.contains("expect: 100-continue\r\n"), "{head:?}");
            assert_eq!(wire.rest(), "", "the body never came, nor another request");
        }),
        script(|mut wire| {
            let head = wire.head();
            assert!(!head.contains("expect"), "what is whole goes at once: {head:?}");
            assert_eq!(wire.until("abc"), "abc");
            wire.say(OK);
        }),
    ]);
    let client = client();
    let (to, source) = fed(false);
    to.send("abc".into()).expect("it is read");
    drop(to);
    let asking =
        |body| OutgoingRequest { asks_first: true, ..request(Method::POST, address, body) };
    let answer = client.send(asking(streamed(&source, Some(3)))).await.expect("an answer");
    assert_eq!(answer.body.collect(10).await, Ok("ok".into()));

    let (to, source) = fed(false);
    to.send("abc".into()).expect("it is read");
    let body = streamed(&source, Some(3));
    let answer = client.send(asking(body.clone())).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    drop(answer);
    assert_eq!(source.borrow().held_bytes(), 0, "nobody took any of it");
    assert!(body.rewind());

    let whole = client.send(asking(RequestBody::Whole("abc".into()))).await.expect("an answer");
    assert_eq!(whole.body.collect(10).await, Ok("ok".into()));
    served.join().expect("served");
}

#[actix_rt::test]
async fn a_websocket_is_a_connection_of_its_own_and_only_for_who_asked() {
    let switches = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";
    let (address, served) = server(vec![
        script(move |mut wire| {
            let head = wire.head();
            assert!(head.contains("connection: upgrade\r\nupgrade: websocket\r\n"), "{head:?}");
            assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
            wire.say(&format!("{switches}early"));
            assert_eq!(wire.until("hello"), "hello");
            wire.say("there");
            wire.stream.shutdown(Shutdown::Write).expect("it is open");
            assert_eq!(wire.rest(), "", "and it is not used again");
        }),
        script(move |mut wire| {
            wire.answer(OK);
            wire.answer(switches);
        }),
    ]);
    let client = client();
    let (to, source) = fed(false);
    let asking = |body| OutgoingRequest { upgrades: true, ..request(Method::GET, address, body) };
    let answer = client.send(asking(streamed(&source, None))).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers.get(header::UPGRADE).expect("told"), "websocket");
    let mut body = answer.body;
    assert_eq!(piece(&mut body).await, Some(Ok("early".into())));
    to.send("hello".into()).expect("it is read");
    assert_eq!(piece(&mut body).await, Some(Ok("there".into())));
    assert_eq!(piece(&mut body).await, None);

    let (_to, source) = fed(false);
    let refused = client.send(asking(streamed(&source, None))).await.expect("an answer");
    assert_eq!(refused.body.collect(10).await, Ok("ok".into()), "it need not agree");
    let unasked = get(&client, address).await;
    assert!(matches!(unasked, Err(SendFailure::Unreadable(_))), "{unasked:?}");
    served.join().expect("served");
}

#[actix_rt::test]
async fn trailers_come_along_also_where_the_body_came_with_its_head() {
    let (address, served) = server(vec![script(|mut wire| {
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
        wire.answer(&format!("{answer}x-sum: 1\r\n\r\n"));
        wire.answer(&format!("{answer}\r\n"));
    })]);
    let client = client();
    for sum in [Some("1"), None] {
        let sent = client.send(request(Method::GET, address, RequestBody::EMPTY)).await;
        let mut body = sent.expect("a head").body;
        let (begun, whole) = body.whole_or_begun().await.expect("good");
        assert_eq!((&*begun, whole), (&b"ok"[..], sum.is_none()));
        assert_eq!(piece(&mut body).await, None);
        let trailers = body.trailers();
        assert_eq!(trailers.get("x-sum").map(|sum| sum.to_str().expect("text")), sum);
    }
    served.join().expect("served");
}

#[test]
fn where_files_are_short_few_connections_are_kept() {
    let pool = |files| super::pool::Pool::for_files(files);
    assert!(!pool(48).has_room(), "all are needed for what is under way");
    assert!(pool(64).has_room());
    assert!(pool(u64::MAX).has_room());
}
