//! Bodies on their way through nodes, both ways at once: what runs here, and what a peer runs for the
//! entry node by protocol 2.

mod common;

use std::cell::Cell;
use std::io::Write;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use common::raw::{RawServer, Reply, Request, answer, ok};
use common::wire::{Scripted, Wire};
use common::*;
use p2pfaas::config::Settings;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
/// More than this is in nobody's buffers.
const FLOOD: usize = 128 << 20;

/// A word from one thread to another; what waits for it fails if it never comes.
struct Word(Mutex<Receiver<()>>);

fn word() -> (Sender<()>, Arc<Word>) {
    let (say, heard) = channel();
    (say, Arc::new(Word(Mutex::new(heard))))
}

impl Word {
    fn wait(&self) {
        self.0.lock().unwrap().recv_timeout(PATIENCE).expect("the word comes");
    }
}

/// Where a call comes in, and where it runs.
struct Place {
    entry: TestNode,
    worker: Option<TestNode>,
}

impl Place {
    /// The head of a request that runs where it should.
    fn head(&self, line: &str, more: &str) -> String {
        head(if self.worker.is_some() { FORWARD.0 } else { BYPASS.0 }, line, more)
    }

    fn running(&self) -> u32 {
        self.worker.as_ref().unwrap_or(&self.entry).state().gate.load().running
    }

    async fn runs(&self, wanted: u32) {
        let name = if self.worker.is_some() { "elsewhere" } else { "here" };
        eventually(&format!("{wanted} run {name}"), || async {
            (self.running() == wanted).then_some(())
        })
        .await;
    }

    fn client(&self) -> Wire {
        Wire::to(self.entry.ip, 18080)
    }
}

/// The head of a request that a header steers.
fn head(steer: &str, line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: entry.example\r\n{steer}: 1\r\n{more}\r\n")
}

/// Does what may wait beside the nodes that live on this thread.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    actix_rt::task::spawn_blocking(work).await.expect("it went well")
}

/// A node that calls the function `fn` at `url`, and two of which one calls it for the other.
async fn places(url: String, change: impl Fn(&mut Settings)) -> [Place; 2] {
    let settings = |settings: &mut Settings| {
        settings.routes.0.insert("fn".to_owned(), url.clone());
        change(settings);
    };
    let here = TestNode::start(settings);
    let [entry, worker] = cluster(settings).await;
    knows_to_stream(&entry, 1).await;
    [Place { entry: here, worker: None }, Place { entry, worker: Some(worker) }]
}

/// Waits until a node knows of so many peers that they speak protocol 2.
async fn knows_to_stream(node: &TestNode, wanted: usize) {
    eventually("it is known that peers stream", || async {
        let published = node.state().published.load();
        (published.peers.iter().filter(|peer| peer.streams).count() == wanted).then_some(())
    })
    .await;
}

/// Whether an answer's head says that another node ran the call.
fn ran_elsewhere(head: &str) -> bool {
    head.to_ascii_lowercase().contains("x-p2pfaas-externally-executed: true\r\n")
}

#[actix_rt::test]
async fn an_answer_reaches_its_client_as_the_function_says_it() {
    let (go, goes) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        wire.head();
        wire.say(CHUNKED);
        for piece in ["one", "two", "three"] {
            wire.say_chunk(piece);
            goes.wait();
        }
        wire.say("0\r\n\r\n");
        goes.wait();
    });
    for place in places(function.url(), |_| {}).await {
        let (mut client, go) = (place.client(), go.clone());
        client.say(place.head("GET /function/fn", ""));
        let (head, client) = beside(move || {
            let head = client.head();
            for piece in ["one", "two", "three"] {
                client.chunks_of(piece);
                go.send(()).expect("the function waits");
            }
            assert_eq!(client.chunk(), None);
            assert_eq!(client.until("\r\n"), "\r\n", "no trailers");
            go.send(()).expect("the function waits");
            (head, client)
        })
        .await;
        assert_eq!(ran_elsewhere(&head), place.worker.is_some(), "{head}");
        place.runs(0).await;
        drop(client);
    }
}

#[actix_rt::test]
async fn a_body_reaches_the_function_as_its_client_sends_it() {
    let (say, seen) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        let head = wire.head();
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            wire.chunks_of("one");
            say.send(()).expect("the client waits");
            wire.chunks_of("two");
            assert_eq!(wire.chunk(), None);
        } else {
            assert!(head.contains("content-length: 1000000\r\n"), "{head}");
            wire.take(200_000);
            say.send(()).expect("the client waits");
            wire.take(800_000);
        }
        wire.say(OK);
    });
    for place in places(function.url(), |_| {}).await {
        for chunked in [true, false] {
            let (mut client, seen) = (place.client(), Arc::clone(&seen));
            let framing = match chunked {
                true => "Transfer-Encoding: chunked\r\n",
                false => "Content-Length: 1000000\r\n",
            };
            client.say(place.head("PUT /function/fn/x", framing));
            let head = beside(move || {
                if chunked {
                    client.say_chunk("one");
                    seen.wait();
                    client.say_chunk("two");
                    client.say("0\r\n\r\n");
                } else {
                    client.say(vec![b'x'; 200_000]);
                    seen.wait();
                    client.say(vec![b'x'; 800_000]);
                }
                let head = client.head();
                assert_eq!(client.take(2), b"ok", "{head}");
                head
            })
            .await;
            assert_eq!(ran_elsewhere(&head), place.worker.is_some(), "{head}");
        }
    }
}

#[actix_rt::test]
async fn request_and_answer_go_on_at_the_same_time() {
    let function = Scripted::start(fresh_ip(), |mut wire| {
        wire.head();
        wire.say(CHUNKED);
        while let Some(chunk) = wire.chunk() {
            wire.say_chunk(&format!("<{chunk}>"));
        }
        wire.say("0\r\n\r\n");
    });
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head("POST /function/fn", "Transfer-Encoding: chunked\r\n"));
        beside(move || {
            client.head();
            for word in ["a", "b", "c"] {
                client.say_chunk(word);
                client.chunks_of(&format!("<{word}>"));
            }
            client.say("0\r\n\r\n");
            assert_eq!(client.chunk(), None);
        })
        .await;
    }
}

#[actix_rt::test]
async fn every_method_reaches_the_function() {
    let function = RawServer::start(fresh_ip(), 0, |request| {
        let method = request.line().split(' ').next().unwrap_or_default().to_owned();
        let Reply::Bytes(mut bytes) = answer("200 OK", &format!("X-Method: {method}\r\n"), b"body")
        else {
            unreachable!("it is bytes")
        };
        if method == "HEAD" {
            bytes.truncate(bytes.len() - 4);
        }
        Reply::Bytes(bytes)
    });
    for place in places(function.url(), |_| {}).await {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE", "PROPFIND"] {
            let mut client = place.client();
            let line = format!("{method} /function/fn/sub");
            client.say(place.head(&line, "Content-Length: 2\r\n") + "in");
            let (head, body) = beside(move || (client.head(), client.take(4))).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{method}: {head}");
            assert!(head.contains(&format!("x-method: {method}\r\n")), "{method}: {head}");
            assert_eq!(body, b"body");
            let last = function.requests().pop().expect("it was called");
            assert_eq!(
                (last.line(), &*last.body),
                (&*format!("{method} /sub HTTP/1.1"), &b"in"[..])
            );
        }
        // What a HEAD is told of a body is what the function would send; and none comes.
        let mut client = place.client();
        client.say(place.head("HEAD /function/fn", ""));
        client.say(place.head("GET /function/fn", ""));
        let (head, next) = beside(move || (client.head(), client.head())).await;
        assert!(head.contains("x-method: HEAD\r\n"), "{head}");
        assert!(head.contains("content-length: 4\r\n"), "{head}");
        assert!(
            next.starts_with("HTTP/1.1 200 OK\r\n") && next.contains("x-method: GET"),
            "{next}"
        );
    }
}

#[actix_rt::test]
async fn what_follows_a_functions_name_reaches_it_byte_for_byte() {
    let function = RawServer::start(fresh_ip(), 0, |_| ok("x"));
    for place in places(function.url(), |_| {}).await {
        for (asked, got) in [
            ("", "/"),
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%61%20%c3%a9", "/%61%20%c3%a9"),
            ("//a//b", "//a//b"),
            ("//", "//"),
            ("/a/../b/.", "/a/../b/."),
            ("/a;v=1,2/~:@!$&'()*+=", "/a;v=1,2/~:@!$&'()*+="),
            ("?q", "/?q"),
            ("/a/?x=%2F&y=a+b&&z=/?", "/a/?x=%2F&y=a+b&&z=/?"),
        ] {
            let mut client = place.client();
            client.say(place.head(&format!("GET /function/fn{asked}"), ""));
            let head = beside(move || client.head()).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{asked}: {head}");
            let last = function.requests().pop().expect("it was called");
            assert_eq!(last.path(), got, "{asked}");
        }
    }
}

/// All lines of a head that have this name, in order.
fn lines<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let is = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
    head.lines().skip(1).filter(is).map(|line| line.split_once(": ").expect("a value").1).collect()
}

#[actix_rt::test]
async fn headers_of_the_call_pass_both_ways_and_those_of_a_connection_stay() {
    let told = "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nETag: \"x\"\r\n\
        Cache-Control: no-store\r\nCache-Control: private\r\nWWW-Authenticate: Basic\r\n\
        Retry-After: 7\r\nAccess-Control-Allow-Origin: *\r\nLocation: /there\r\nLink: <a>\r\n\
        Content-Type: text/mine\r\nContent-Language: it\r\nVary: Accept\r\nServer: fn\r\n\
        Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-P2pfaas-Hops: 9\r\n\
        P2pfaas-Outcome: forged\r\n";
    let function = RawServer::start(fresh_ip(), 0, move |_| answer("401 No", told, b"x"));
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head(
            "GET /function/fn",
            "Cookie: c=1\r\nAuthorization: Basic abc\r\nAccept: a\r\nAccept: b\r\n\
             If-None-Match: \"x\"\r\nUser-Agent: mine\r\nForwarded: for=192.0.2.1\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: front\r\n\
             Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\n\
             P2pfaas-Hops: 7\r\n",
        ));
        let head = beside(move || client.head()).await;
        assert!(head.starts_with("HTTP/1.1 401"), "{head}");
        for (name, want) in [
            ("set-cookie", &["a=1; Path=/", "b=2"][..]),
            ("etag", &["\"x\""]),
            ("cache-control", &["no-store", "private"]),
            ("www-authenticate", &["Basic"]),
            ("retry-after", &["7"]),
            ("access-control-allow-origin", &["*"]),
            ("location", &["/there"]),
            ("link", &["<a>"]),
            ("content-type", &["text/mine"]),
            ("content-language", &["it"]),
            ("vary", &["Accept"]),
            ("server", &["fn"]),
            ("content-length", &["1"]),
            ("x-hop", &[]),
            ("keep-alive", &[]),
            ("p2pfaas-outcome", &[]),
            ("p2pfaas-path", &[]),
            ("x-p2pfaas-hops", if place.worker.is_some() { &["1"] } else { &[] }),
        ] {
            assert_eq!(lines(&head, name), want, "{name}: {head}");
        }
        let got = function.requests().pop().expect("it was called").head;
        let of_client = place.client().stream.local_addr().expect("connected").ip();
        for (name, want) in [
            ("cookie", &["c=1"][..]),
            ("authorization", &["Basic abc"]),
            ("accept", &["a", "b"]),
            ("if-none-match", &["\"x\""]),
            ("user-agent", &["mine"]),
            ("forwarded", &["for=192.0.2.1"]),
            ("x-forwarded-for", &[&*format!("192.0.2.1, {of_client}")]),
            ("x-forwarded-proto", &["https, http"]),
            ("x-forwarded-host", &["front, entry.example"]),
            ("x-secret", &[]),
            ("te", &[]),
            ("p2pfaas-hops", &[]),
            ("p2pfaas-path", &[]),
            ("expect", &[]),
        ] {
            assert_eq!(lines(&got, name), want, "{name}: {got}");
        }
    }
}

#[actix_rt::test]
async fn headers_behind_a_functions_answer_reach_the_client() {
    let (go, goes) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        let slowly = wire.head().contains(" /slowly ");
        let end = "0\r\nX-Sum: 42\r\nX-Sum: 43\r\nConnection: x\r\n\r\n";
        match slowly {
            false => wire.say(format!("{CHUNKED}2\r\nok\r\n{end}")),
            true => {
                wire.say(format!("{CHUNKED}2\r\nok\r\n"));
                goes.wait();
                wire.say(end);
            }
        }
    });
    for place in places(function.url(), |_| {}).await {
        for path in ["slowly", "at-once"] {
            let (mut client, go) = (place.client(), go.clone());
            client.say(place.head(&format!("GET /function/fn/{path}"), ""));
            let trailers = beside(move || {
                client.head();
                client.chunks_of("ok");
                if path == "slowly" {
                    go.send(()).expect("the function waits");
                }
                assert_eq!(client.chunk(), None, "{path}");
                client.head()
            })
            .await;
            assert_eq!(trailers, "x-sum: 42\r\nx-sum: 43\r\n\r\n", "{path}");
        }
        place.runs(0).await;
    }
}

const OFFER: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// A client's frames are masked; a mask of zeros is one too.
const HI: &[u8] = b"\x81\x82\0\0\0\0hi";
const YO: &[u8] = b"\x81\x02yo";
const CLIENT_CLOSES: &[u8] = b"\x88\x80\0\0\0\0";
const SERVER_CLOSES: &[u8] = b"\x88\x00";

/// Takes a WebSocket as a function does.
fn shake(wire: &mut Wire) {
    let head = wire.head().to_ascii_lowercase();
    for line in
        ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-version: 13\r\n"]
    {
        assert!(head.contains(line), "{head}");
    }
    wire.say(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
}

#[actix_rt::test]
async fn a_websocket_goes_to_the_function_and_holds_its_slot_until_it_ends() {
    let (say, ended) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        shake(&mut wire);
        wire.say(YO);
        assert_eq!(wire.take(HI.len()), HI);
        wire.say(YO);
        let end = wire.rest();
        assert!(end.is_empty() || end == CLIENT_CLOSES, "{end:?}");
        if end == CLIENT_CLOSES {
            wire.say(SERVER_CLOSES);
        }
        say.send(()).expect("the test waits");
    });
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head("GET /function/fn/chat", OFFER));
        let client = beside(move || {
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
            let lower = head.to_ascii_lowercase();
            assert!(lower.contains("upgrade: websocket\r\n"), "{head}");
            assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
            assert_eq!(client.take(YO.len()), YO);
            client.say(HI);
            assert_eq!(client.take(YO.len()), YO);
            client
        })
        .await;
        assert_eq!(place.running(), 1);
        drop(client);
        let ended = Arc::clone(&ended);
        beside(move || ended.wait()).await;
        place.runs(0).await;
    }
}

#[actix_rt::test]
async fn a_websocket_that_is_closed_ends_at_both_ends() {
    let function = Scripted::start(fresh_ip(), |mut wire| {
        shake(&mut wire);
        assert_eq!(wire.take(CLIENT_CLOSES.len()), CLIENT_CLOSES);
        wire.say(SERVER_CLOSES);
    });
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head("GET /function/fn", OFFER));
        beside(move || {
            client.head();
            client.say(CLIENT_CLOSES);
            assert_eq!(client.rest(), SERVER_CLOSES, "and the connection ends");
        })
        .await;
        place.runs(0).await;
    }
}

#[actix_rt::test]
async fn an_offer_that_nobody_takes_is_passed_over_and_the_call_answered() {
    let function = RawServer::start(fresh_ip(), 0, |request| {
        ok(&format!("{} {}", request.header("upgrade"), request.body.len()))
    });
    for place in places(function.url(), |_| {}).await {
        for (line, offer, want) in [
            (
                "GET",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n",
                " 0",
            ),
            ("POST", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\nContent-Length: 2\r\n", " 2"),
            ("POST", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n", " 2"),
            ("GET", OFFER, "websocket 0"),
        ] {
            let mut client = place.client();
            let body = if line == "POST" { "in" } else { "" };
            client.say(place.head(&format!("{line} /function/fn"), offer) + body);
            let (head, body) = beside(move || {
                let head = client.head();
                let length = lines(&head, "content-length").concat().parse().expect("a length");
                (head, client.take(length))
            })
            .await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{offer}: {head}");
            assert_eq!(String::from_utf8_lossy(&body), want, "{offer}");
            place.runs(0).await;
        }
    }
}

#[actix_rt::test]
async fn a_client_that_hangs_up_ends_the_functions_request_and_frees_the_slot() {
    let (ask, asked) = word();
    let (say, ended) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        let head = wire.head();
        ask.send(()).expect("the test waits");
        if head.starts_with("GET /answer ") {
            wire.say(CHUNKED);
            wire.say_chunk("one");
        }
        wire.rest();
        say.send(()).expect("the test waits");
    });
    for place in places(function.url(), |_| {}).await {
        for (line, more, body) in [
            ("GET /function/fn/answer", "", ""),
            ("GET /function/fn/nothing", "", ""),
            ("POST /function/fn/upload", "Transfer-Encoding: chunked\r\n", "3\r\none\r\n"),
        ] {
            let mut client = place.client();
            client.say(place.head(line, more) + body);
            place.runs(1).await;
            let (answers, asked) = (line.ends_with("answer"), Arc::clone(&asked));
            let client = beside(move || {
                asked.wait();
                if answers {
                    client.head();
                    client.chunks_of("one");
                }
                client
            })
            .await;
            drop(client);
            let ended = Arc::clone(&ended);
            beside(move || ended.wait()).await;
            place.runs(0).await;
        }
    }
}

#[actix_rt::test]
async fn an_answer_that_breaks_off_does_not_look_whole_to_the_client() {
    let (go, goes) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        match wire.head().contains(" /chunks ") {
            true => {
                wire.say(CHUNKED);
                wire.say_chunk("half");
            }
            false => wire.say("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf"),
        }
        goes.wait();
    });
    for place in places(function.url(), |_| {}).await {
        for path in ["chunks", "length"] {
            let (mut client, go) = (place.client(), go.clone());
            client.say(place.head(&format!("GET /function/fn/{path}"), ""));
            let (head, rest) = beside(move || {
                let head = client.head();
                match path {
                    "chunks" => client.chunks_of("half"),
                    _ => assert_eq!(client.take(4), b"half"),
                }
                go.send(()).expect("the function waits");
                (head, client.rest())
            })
            .await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(path == "chunks" || head.contains("content-length: 100000\r\n"), "{head}");
            assert_eq!(
                String::from_utf8_lossy(&rest),
                "",
                "it ends, and nothing says that it does"
            );
            place.runs(0).await;
        }
    }
}

#[actix_rt::test]
async fn a_client_that_hangs_up_is_noticed_also_where_bytes_followed_its_request() {
    let (ask, asked) = word();
    let (say, ended) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        wire.head();
        ask.send(()).expect("the test waits");
        wire.rest();
        say.send(()).expect("the test waits");
    });
    for place in places(function.url(), |_| {}).await {
        for behind in ["\r\n", "GE", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", &"x".repeat(9000)] {
            let mut client = place.client();
            client.say(place.head("POST /function/fn", "Content-Length: 3\r\n") + "abc" + behind);
            let asked = Arc::clone(&asked);
            beside(move || asked.wait()).await;
            place.runs(1).await;
            drop(client);
            let ended = Arc::clone(&ended);
            beside(move || ended.wait()).await;
            place.runs(0).await;
        }
    }
}

#[actix_rt::test]
async fn a_call_that_a_peer_cannot_take_for_its_head_runs_here() {
    let function = RawServer::start(fresh_ip(), 0, |_| ok("x"));
    let [_, place] = places(function.url(), |_| {}).await;
    for count in [85, 92, 93] {
        let many: String = (0..count).map(|n| format!("x-q{n}: a\r\n")).collect();
        let mut client = place.client();
        client.say(place.head("GET /function/fn", &format!("{many}connection: close\r\n")));
        let answer = String::from_utf8(beside(move || client.rest()).await).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{count}: {answer}");
        assert_eq!(ran_elsewhere(&answer), count == 85, "{count}");
    }
}

#[actix_rt::test]
async fn an_offer_that_nobody_takes_ends_the_connection_and_says_so() {
    let function = Scripted::start(fresh_ip(), |mut wire| {
        let head = wire.head().to_ascii_lowercase();
        assert!(!head.contains("upgrade"), "{head}");
        let length: usize =
            lines(&head, "content-length").first().map_or(0, |l| l.parse().unwrap());
        assert!(wire.take(length).iter().all(|byte| *byte == b'x'));
        wire.say(OK);
    });
    for place in places(function.url(), |_| {}).await {
        for (line, offer, body) in [
            ("GET /function/fn", "h2c", 0),
            ("GET /function/fn", "TLS/1.2", 0),
            ("POST /function/fn", "h2c, websocket", 10),
            ("POST /function/fn", "websocket", 10),
            ("POST /function/fn", "websocket", 300_000),
            ("GET /function/fn", "websocket", 10),
        ] {
            let mut client = place.client();
            let more =
                format!("Connection: Upgrade\r\nUpgrade: {offer}\r\nContent-Length: {body}\r\n");
            client.say(place.head(line, &more) + &"x".repeat(body));
            let answer = String::from_utf8(beside(move || client.rest()).await).expect("text");
            let head = answer.to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{line} {offer} {body}: {answer}");
            assert_eq!(lines(&head, "connection"), ["close"], "{line} {offer} {body}: {answer}");
            assert!(answer.ends_with("ok"), "{answer}");
        }
    }
    // The parser would not see where its body ends.
    let node = TestNode::start(|_| {});
    let mut client = Wire::to(node.ip, 18080);
    let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n";
    client.say(head(BYPASS.0, "POST /function/fn-echo", more) + "1\r\nx\r\n0\r\n\r\n");
    let answer = beside(move || client.rest()).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}

#[actix_rt::test]
async fn a_function_that_switches_to_another_protocol_than_was_asked_for_is_502() {
    let function = Scripted::start(fresh_ip(), |mut wire| {
        wire.head();
        wire.say("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n");
        wire.rest();
    });
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head("GET /function/fn", OFFER));
        let head = beside(move || client.head()).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        place.runs(0).await;
    }
}

#[actix_rt::test]
async fn a_call_that_outlasts_its_total_time_is_ended_whatever_its_client_does() {
    let function =
        Scripted::start(fresh_ip(), |mut wire| match wire.head().contains(" /silent ") {
            true => drop(wire.rest()),
            false => {
                wire.say(CHUNKED);
                while wire.stream.write_all(b"4\r\ntick\r\n").is_ok() {}
            }
        });
    let change = |settings: &mut Settings| {
        settings.function_total_timeouts_s.0.insert("fn".to_owned(), 0.3);
    };
    for place in places(function.url(), change).await {
        for reads in [true, false] {
            let mut client = place.client();
            client.say(place.head("GET /function/fn/ticks", ""));
            let (head, client) = beside(move || {
                let head = client.head();
                if reads {
                    client.rest();
                }
                (head, client)
            })
            .await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            // A client that does not read keeps no slot either.
            place.runs(0).await;
            drop(client);
        }
        let mut client = place.client();
        client.say(place.head("GET /function/fn/silent", "connection: close\r\n"));
        let answer = beside(move || client.rest()).await;
        assert!(answer.starts_with(b"HTTP/1.1 504 "), "{}", String::from_utf8_lossy(&answer));
        place.runs(0).await;
    }
}

#[actix_rt::test]
async fn who_does_not_read_a_modest_answer_keeps_no_slot() {
    let function = Scripted::start(fresh_ip(), |mut wire| {
        let head = wire.head();
        let length = if head.contains(" /long ") { 8 << 20 } else { 200_000 };
        match head.contains(" /unknown ") {
            true => wire.say(format!("{CHUNKED}{length:x}\r\n")),
            false => wire.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")),
        }
        wire.say(vec![b'x'; length]);
        if head.contains(" /unknown ") {
            wire.say("\r\n0\r\n\r\n");
        }
    });
    let change = |settings: &mut Settings| {
        settings.parallel_running_functions_max = 1;
        settings.queue_length_max = 0;
        settings.held_body_bytes_max = 16 << 20;
        settings.bodies_bytes_max = 64 << 20;
    };
    for place in places(function.url(), change).await {
        let mut slow = Vec::new();
        for path in ["short", "unknown", "long"] {
            let mut client = place.client();
            client.say(place.head(&format!("GET /function/fn/{path}"), ""));
            // It reads that its function has run, and nothing of what that said.
            slow.push(
                beside(move || {
                    let head = client.head();
                    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
                    client
                })
                .await,
            );
            place.runs(0).await;
        }
        // And nothing was lost.
        for (mut client, bytes) in slow.into_iter().zip([200_000, 200_000, 8 << 20]) {
            let most = beside(move || client.take(bytes)).await;
            assert_eq!(most.len(), bytes);
        }
    }
}

#[actix_rt::test]
async fn a_function_can_send_no_more_than_its_client_reads_but_for_what_buffers_hold() {
    let (say, sent) = channel();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\n\r\n");
        say.send(wire.flood(FLOOD)).expect("the test waits");
    });
    let sent = Arc::new(Mutex::new(sent));
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head("GET /function/fn", ""));
        let sent = Arc::clone(&sent);
        let (client, sent) = beside(move || {
            client.head();
            let sent = sent.lock().unwrap().recv_timeout(PATIENCE).expect("it says how many");
            (client, sent)
        })
        .await;
        assert!(sent < FLOOD / 2, "{sent} bytes were taken of it");
        drop(client);
        place.runs(0).await;
    }
}

#[actix_rt::test]
async fn a_client_can_send_no_more_than_its_function_reads_but_for_what_buffers_hold() {
    let (go, goes) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        wire.head();
        goes.wait();
    });
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head("POST /function/fn", &format!("Content-Length: {}\r\n", 1u64 << 40)));
        let (client, sent) = beside(move || {
            let sent = client.flood(FLOOD);
            (client, sent)
        })
        .await;
        assert!(sent < FLOOD / 2, "{sent} bytes were taken of it");
        go.send(()).expect("the function waits");
        drop(client);
        place.runs(0).await;
    }
}

#[actix_rt::test]
async fn a_client_of_http_1_0_gets_an_answer_that_ends_with_its_connection() {
    let function = Scripted::start(fresh_ip(), |mut wire| {
        wire.head();
        wire.say(CHUNKED);
        wire.say_chunk("one");
        wire.say_chunk("two");
        wire.say("0\r\nX-Sum: 1\r\n\r\n");
        wire.rest();
    });
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(
            place.head("GET /function/fn", "Connection: keep-alive\r\n").replace("/1.1", "/1.0"),
        );
        let (head, body) = beside(move || (client.head(), client.rest())).await;
        assert!(lines(&head, "transfer-encoding").is_empty(), "{head}");
        assert!(lines(&head, "content-length").is_empty(), "{head}");
        assert_eq!(String::from_utf8_lossy(&body), "onetwo", "{head}");
    }
}

#[actix_rt::test]
async fn a_body_over_the_limit_is_413_whether_or_not_that_is_told_before() {
    let (say, ended) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        wire.head();
        let got = wire.rest();
        assert!(!got.ends_with(b"0\r\n\r\n"), "it looks whole");
        say.send(()).expect("the test waits");
    });
    let change = |settings: &mut Settings| settings.body_bytes_max = Some(1_000_000);
    for place in places(function.url(), change).await {
        let mut client = place.client();
        client.say(place.head("POST /function/fn", "Content-Length: 1000001\r\n"));
        let head = beside(move || client.head()).await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        assert_eq!(function.accepted(), usize::from(place.worker.is_some()), "nobody was called");

        let mut client = place.client();
        client.say(place.head("POST /function/fn", "Transfer-Encoding: chunked\r\n"));
        let ended = Arc::clone(&ended);
        let head = beside(move || {
            let piece = "x".repeat(100_000);
            (0..11).for_each(|_| client.say_chunk(&piece));
            let head = client.head();
            ended.wait();
            head
        })
        .await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        place.runs(0).await;
    }
}

#[actix_rt::test]
async fn a_function_may_answer_and_close_before_it_has_read_the_body() {
    let function = Scripted::start(fresh_ip(), |mut wire| {
        wire.head();
        wire.say("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        wire.say("HTTP/1.1 413 No\r\nX-Why: size\r\ncontent-length: 4\r\n\r\nsize");
    });
    for place in places(function.url(), |_| {}).await {
        let mut client = place.client();
        client.say(place.head("POST /function/fn", "Content-Length: 4000000\r\n"));
        let (head, body) = beside(move || {
            // The node may stop to read it once the answer is there.
            let piece = vec![0; 100_000];
            let _sent = (0..40).try_for_each(|_| client.stream.write_all(&piece));
            (client.head(), client.take(4))
        })
        .await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        assert_eq!(lines(&head, "x-why"), ["size"], "{head}");
        assert_eq!(body, b"size");
        place.runs(0).await;
    }
}

/// Stands in for the discovery of a node that speaks protocol 2.
fn discovery_of(ip: Ipv4Addr) -> RawServer {
    RawServer::start(ip, 19000, move |_: &Request| {
        let headers = format!("P2pfaas-Protocol: 2\r\nP2pfaas-Machine-Ip: {ip}\r\n");
        answer("200 OK", &headers, b"[]")
    })
}

#[actix_rt::test]
async fn a_body_that_streams_goes_elsewhere_when_a_peer_cannot_be_connected_to() {
    let (say, seen) = word();
    let function = Scripted::start(fresh_ip(), move |mut wire| {
        wire.head();
        wire.chunks_of("one");
        say.send(()).expect("the client waits");
        wire.chunks_of("two");
        assert_eq!(wire.chunk(), None);
        wire.say(OK);
    });
    // Who is listed and streams, but does not listen for calls.
    let dead: [Ipv4Addr; 2] = fresh_ips();
    let _discoveries = dead.map(discovery_of);
    let url = function.url();
    let route = |settings: &mut Settings| {
        settings.routes.0.insert("fn".to_owned(), url.clone());
    };
    let alive = TestNode::start(route);
    let alone = dead.map(|ip| ip.to_string()).to_vec();
    let with_other = [&alone[..], &[alive.ip.to_string()]].concat();
    for servers in [alone, with_other] {
        let wanted = servers.len();
        let entry = TestNode::start(|settings| {
            route(settings);
            settings.init_servers = servers;
        });
        knows_to_stream(&entry, wanted).await;
        for _ in 0..5 {
            let (mut client, seen) = (Wire::to(entry.ip, 18080), Arc::clone(&seen));
            client.say(head(FORWARD.0, "POST /function/fn", "Transfer-Encoding: chunked\r\n"));
            let (head, body) = beside(move || {
                client.say_chunk("one");
                seen.wait();
                client.say_chunk("two");
                client.say("0\r\n\r\n");
                (client.head(), client.take(2))
            })
            .await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert_eq!(body, b"ok");
            assert!(wanted > 2 || !ran_elsewhere(&head), "nobody else is there: {head}");
        }
    }
}

#[actix_rt::test]
async fn calls_handed_to_a_peer_that_is_started_again_are_answered_all_the_same() {
    let function = RawServer::start(fresh_ip(), 0, |_| ok("x"));
    let [Place { entry: here, .. }, mut place] = places(function.url(), |_| {}).await;
    drop(here);
    let running = Rc::new(Cell::new(true));
    let elsewhere = Rc::new(Cell::new(0));
    let callers: Vec<_> = std::iter::repeat_with(|| {
        let (running, elsewhere) = (Rc::clone(&running), Rc::clone(&elsewhere));
        let url = place.entry.url("/function/fn");
        actix_rt::spawn(async move {
            while running.get() {
                let answered = send("GET", &url, &[FORWARD], "").await;
                assert_eq!((answered.status, &*answered.text()), (200, "x"));
                let ran = answered.header("x-p2pfaas-externally-executed") == "True";
                elsewhere.set(elsewhere.get() + usize::from(ran));
            }
        })
    })
    .take(4)
    .collect();
    let worker = place.worker.as_mut().expect("there is one");
    for _ in 0..5 {
        let before = elsewhere.get();
        eventually("it gets calls", || async { (elsewhere.get() > before + 20).then_some(()) })
            .await;
        worker.stop().await;
        worker.start_again();
    }
    running.set(false);
    for caller in callers {
        caller.await.expect("all were answered");
    }
}
