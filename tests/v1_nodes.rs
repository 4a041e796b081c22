//! v1 nodes beside this one: whatever they send, they read an answer that does not end them; what they
//! tell is read as they read it; what they leave out is told as they would tell it.

mod common;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::raw::{RawServer, Reply, Request, answer, ok, spoken};
use common::*;
use serde_json::{Value, json};

const CALL: &str = "POST /peer/function/fn-echo HTTP/1.1\r\nHost: x\r\nUser-Agent: Machine\r\n\
    Connection: close\r\nContent-Length: 22\r\n";
const MESSAGE: &str = r#"{"payload":"aGVsbG8="}"#;

/// The answer to a peer call as v1 reads it: its status, and what stands in its body.
fn read_as_v1(answered: &str, node: &TestNode) -> (u16, String) {
    let (head, body) = answered.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answered:?}"));
    let status: u16 = head["HTTP/1.1 ".len()..][..3].parse().expect("a status");
    let message: Value = serde_json::from_str(body).unwrap_or_else(|why| panic!("{why}: {body:?}"));
    let machine = &message["peers_list"][0];
    assert_eq!(machine["machine_ip"], node.ip.to_string(), "{answered}");
    assert_eq!(machine["machine_id"], node.id());
    assert_eq!(message["status_code"], status);
    let head = head.to_ascii_lowercase();
    assert!(!head.contains("x-p2pfaas-") && !head.contains("\r\nlocation:"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let body = BASE64_STANDARD.decode(message["body"].as_str().expect("a body")).expect("base64");
    (status, String::from_utf8(body).expect("text"))
}

/// The same of an error: its status and code.
fn refused_as_v1(answered: &str, node: &TestNode) -> (u16, u64) {
    let (status, body) = read_as_v1(answered, node);
    let error: Value = serde_json::from_str(&body).unwrap_or_else(|why| panic!("{why}: {body}"));
    assert!(!error["message"].as_str().expect("words").is_empty());
    (status, error["code"].as_u64().expect("a code"))
}

#[actix_rt::test]
async fn heads_up_to_v1s_own_limit_are_taken() {
    let node = TestNode::start(|_| {});
    let many = |count: usize, bytes: usize| {
        let header = |n: usize| format!("X-Header-{n}: {}\r\n", "y".repeat(bytes));
        (0..count).map(header).collect::<String>()
    };
    for (what, headers) in [
        ("a long tracing id", format!("{TRACING}: {}\r\n", "t".repeat(170_000))),
        ("95 headers", many(95, 10)),
        ("500 headers", many(500, 10)),
        ("1 MiB in many headers", many(200, 5200)),
        ("1 MiB in one header", format!("Cookie: {}\r\n", "c".repeat(1 << 20))),
    ] {
        let request = format!("{CALL}{headers}\r\n{MESSAGE}");
        for step in [1 << 20, 5000] {
            let answered = spoken(node.ip, 18080, request.clone(), step).await;
            assert_eq!(read_as_v1(&answered, &node), (200, "hello".to_owned()), "{what}");
        }
    }
    // A query, which no v1 node looks at.
    let request = format!("{CALL}\r\n{MESSAGE}");
    let long = request.replacen("fn-echo ", &format!("fn-echo?{} ", "q".repeat(100_000)), 1);
    let answered = spoken(node.ip, 18080, long, 1 << 20).await;
    assert_eq!(read_as_v1(&answered, &node), (200, "hello".to_owned()));
    // Byte by byte, and with another request behind it.
    let request = request.replacen("Connection: close\r\n", "", 1)
        + "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for step in [1, 7, 1000] {
        let answered = spoken(node.ip, 18080, request.clone(), step).await;
        assert_eq!(answered.matches("HTTP/1.1 200").count(), 2, "{step}: {answered}");
        assert!(answered.contains(r#""body":"aGVsbG8=""#), "{step}: {answered}");
    }
}

#[actix_rt::test]
async fn a_tracing_id_of_any_length_comes_with_a_message() {
    let node = TestNode::start(|_| {});
    let message = json!({"payload": "aGVsbG8=", "service_id_tracing": "t".repeat(900_000),
        "content_type": "text/plain", "function_name": "f".repeat(200_000)});
    let answered =
        send("POST", &node.url("/peer/function/fn-echo"), &[MACHINE], message.to_string()).await;
    assert_eq!(answered.status, 200, "{}", answered.text());
    assert_eq!(answered.json()["body"], "aGVsbG8=");
}

#[actix_rt::test]
async fn what_would_be_another_request_to_the_function_is_refused() {
    let function = RawServer::start(fresh_ip(), 0, |_| ok("x"));
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
    });
    let call = async |field: &str, text: &str| {
        let message = json!({"function_name": "fn", field: text}).to_string();
        send("POST", &node.url("/peer/function/fn"), &[MACHINE], message).await
    };
    for text in ["a b", "a\r\nX-Evil: 1", "a HTTP/1.1\r\n\r\nGET /x", "a\nb", "a\tb", "\u{7f}"] {
        for field in ["query", "method"] {
            let answered = call(field, text).await;
            assert_eq!(answered.status, 400, "{field} {text:?}");
            assert_eq!(answered.json()["status_code"], 400, "in the form of a peer's answer");
        }
    }
    // What cannot be a header is none.
    assert_eq!(call("content_type", "a\r\nX-Evil: 1").await.status, 200);
    assert_eq!(call("service_id_tracing", "a\r\nX-Evil: 1").await.status, 200);
    assert_eq!(call("query", "a=é&b=%20").await.status, 200);
    let requests = function.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| !request.head.contains("Evil")));
    assert_eq!(requests[2].path(), "/?a=é&b=%20");
}

#[actix_rt::test]
async fn what_no_handler_sees_is_refused_as_a_peers_answer() {
    let node = TestNode::start(|settings| settings.body_bytes_max = Some(1000));
    let name = |bytes: usize| CALL.replacen("fn-echo", &"a".repeat(bytes), 1);
    let path = |path: &str| CALL.replacen("/peer/function/fn-echo", path, 1);
    let large =
        CALL.replacen("Content-Length: 22", "Expect: 100-continue\r\nContent-Length: 9999999", 1);
    for (head, want) in [
        (name(66_000), (400, 100)),
        (name(70), (400, 100)),
        (name(500_000), (400, 100)),
        (name(1_100_000), (431, 4)),
        (format!("{CALL}Cookie: {}\r\n", "c".repeat(1_100_000)), (431, 4)),
        (path("/peer/function/fn%00echo"), (400, 100)),
        (path("/peer/function/..%2f..%2f"), (400, 100)),
        (path("/peer/function/a/b"), (404, 3)),
        (path("/peer/function/"), (404, 3)),
        (path("/peer/"), (404, 3)),
        (path("/peer/functions/f"), (404, 3)),
        (path("/peer/function/a\u{1}b"), (400, 4)),
        (CALL.replacen("HTTP/1.1", "HTTP/3.0", 1), (400, 4)),
        (CALL.replacen("Content-Length: 22", "Content-Length: x", 1), (400, 4)),
        (
            CALL.replacen("Content-Length: 22", "Content-Length: 1\r\nContent-Length: 2", 1),
            (400, 4),
        ),
        (CALL.replacen("Content-Length: 22", "Transfer-Encoding: gzip", 1), (400, 4)),
        (format!("{CALL}no header\r\n"), (400, 4)),
        (format!("{CALL}Bad Name: 1\r\n"), (400, 4)),
        (format!("{CALL}User-Agent: {}\r\n", "u".repeat(20_000)), (400, 4)),
        (large, (413, 4)),
    ] {
        for step in [1 << 21, 3000] {
            let answered = spoken(node.ip, 18080, format!("{head}\r\n"), step).await;
            let shown = &head[..head.len().min(200)];
            assert_eq!(refused_as_v1(&answered, &node), want, "{shown}");
        }
    }
    // A client's own gets the error as it is.
    let answered = spoken(node.ip, 18080, "GET / HTTP/1.1\r\nno header\r\n\r\n", 999).await;
    assert!(
        answered.starts_with("HTTP/1.1 400") && answered.contains(r#"{"code":4,"#),
        "{answered}"
    );
}

#[actix_rt::test]
async fn a_peers_head_that_does_not_end_is_refused_as_a_peers_answer() {
    let node = TestNode::start(|_| {});
    let half = format!("{CALL}X-More: ");
    let answered = spoken(node.ip, 18080, half.clone(), 999).await;
    assert_eq!(refused_as_v1(&answered, &node), (408, 4));
    // Behind a call that was answered.
    let first = CALL.replacen("Connection: close\r\n", "", 1);
    let answered = spoken(node.ip, 18080, format!("{first}\r\n{MESSAGE}{half}"), 999).await;
    let second = answered.rfind("HTTP/1.1 ").expect("two answers");
    assert_eq!(refused_as_v1(&answered[second..], &node), (408, 4));
}

#[actix_rt::test]
async fn a_node_with_no_room_for_a_peers_head_says_so_as_a_peers_answer() {
    // One connection at its least fits, and nothing beside it.
    let node = TestNode::start(|settings| settings.connections_bytes_max = 40 << 10);
    let head = format!("{CALL}{TRACING}: {}\r\n\r\n{MESSAGE}", "t".repeat(30_000));
    let answered = spoken(node.ip, 18080, head, 1 << 20).await;
    assert_eq!(refused_as_v1(&answered, &node), (431, 4));
}

#[actix_rt::test]
async fn other_methods_of_a_peers_path_are_405_as_a_peers_answer() {
    let node = TestNode::start(|_| {});
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request =
            CALL.replacen("POST", method, 1).replacen("Content-Length: 22\r\n", "\r\n", 1);
        let answered = spoken(node.ip, 18080, request, 999).await;
        assert_eq!(refused_as_v1(&answered, &node), (405, 4), "{method}");
        assert!(answered.contains("\r\nallow: POST\r\n"), "{answered}");
    }
}

#[actix_rt::test]
async fn every_path_names_its_methods_and_takes_head_where_it_takes_get() {
    let node = TestNode::start(|_| {});
    let both = "GET, HEAD, POST";
    for (url, allow) in [
        (node.url("/"), both),
        (node.url("/monitoring/load"), "GET, HEAD"),
        (node.url("/configuration"), both),
        (node.url("/configuration/scheduler"), both),
        (node.url("/metrics"), "GET, HEAD"),
        (node.url("/health"), "GET, HEAD"),
        (node.url("/system/functions"), "GET, HEAD, POST, PUT, DELETE"),
        (node.url("/system/function/f"), "GET, HEAD"),
        (node.url("/system/scale-function/f"), "POST"),
        (node.url("/monitoring/scale-delay/f"), "GET"),
        (node.discovery("/"), "GET, HEAD"),
        (node.discovery("/list"), "GET, HEAD"),
        (node.discovery("/records"), "GET, HEAD"),
        (node.discovery("/configuration"), both),
        (node.discovery("/reset"), "GET"),
        (node.learner("/"), "GET, HEAD"),
        (node.learner("/act"), "GET, HEAD"),
        (node.learner("/train"), "GET"),
        (node.learner("/train_batch"), "POST"),
        (node.learner("/learner/parameters"), both),
        (node.learner("/learner/stats"), "GET, HEAD"),
        (node.learner("/learner/weights"), "GET, HEAD"),
        (node.learner("/learner/model"), both),
        (node.learner("/learner/reset"), "GET"),
    ] {
        let wrong = send("PATCH", &url, &[], "").await;
        assert_eq!((wrong.status, wrong.code(), wrong.header("allow")), (405, 4, allow), "{url}");
        if !allow.contains("HEAD") {
            assert_eq!(send("HEAD", &url, &[], "").await.status, 405, "{url}");
            continue;
        }
        let (got, head) = (get(&url).await, send("HEAD", &url, &[], "").await);
        assert_eq!((head.status, head.body.len()), (got.status, 0), "{url}");
        let names = |answered: &Answered| {
            let names = answered.headers.keys().map(|name| name.as_str().to_owned());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(names(&head), names(&got), "{url}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{url}");
    }
    // Nothing comes behind the head of such an answer.
    let two =
        "HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answered = spoken(node.ip, 18080, two, 999).await;
    let (_, second) = answered.split_once("\r\n\r\n").expect("two answers");
    assert!(second.starts_with("HTTP/1.1 200"), "{answered}");
}

#[actix_rt::test]
async fn messages_are_read_as_gos_decoder_reads_them() {
    let node = TestNode::start(|_| {});
    for (message, echo) in [
        (&br#"{"Payload":"aGVsbG8="}"#[..], "hello"),
        (br#"{"PAYLOAD":"aGVsbG8=","Content_Type":"text/plain","HOPS":1}"#, "hello"),
        (br#"{"payload":"aGVsbG8=","payload":"Ynll"}"#, "bye"),
        (br#"{"payload":"aGVsbG8=","Payload":null}"#, "hello"),
        (br#"{"payload":"aGVs\nbG8=\r\n"}"#, "hello"),
        (b"{\"payload\":\"aGVsbG8=\",\"service_id_tracing\":\"\xFF\xE9\",\"\xFF\":1}", "hello"),
        (br#"{"payload":"aGVsbG8=","function_name":"\ud800"}"#, "hello"),
    ] {
        let answered =
            send("POST", &node.url("/peer/function/fn-echo"), &[MACHINE], message.to_vec()).await;
        let shown = message.escape_ascii();
        assert_eq!(answered.status, 200, "{shown}: {}", answered.text());
        assert_eq!(answered.json()["body"], BASE64_STANDARD.encode(echo), "{shown}");
    }
}

/// A v1 node that answers all calls so, and a node that forwards to it.
async fn node_before_v1(
    call: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> (TestNode, [RawServer; 2]) {
    let v1 = fresh_ip();
    let servers = [
        RawServer::start(v1, 18080, call),
        RawServer::start(v1, 19000, |_| answer("200 OK", "", b"[]")),
    ];
    let node = TestNode::start(|settings| {
        settings.scheduler = "ForwardScheduler 1".to_owned();
        settings.init_servers = vec![v1.to_string()];
    });
    eventually("the v1 node is listed", || async {
        (node.listed().await.len() == 1).then_some(())
    })
    .await;
    (node, servers)
}

#[actix_rt::test]
async fn the_content_type_of_a_v1_peers_answer_is_the_one_that_v1_would_tell() {
    // It answers what it is sent.
    let echo = |request: &Request| {
        let message = json!({"peers_list": [{"machine_id": "v1", "machine_ip": "", "timings": {}}],
            "body": request.json()["payload"], "status_code": 200});
        answer("200 OK", "Content-Type: application/json\r\n", message.to_string().as_bytes())
    };
    let (node, _v1) = node_before_v1(echo).await;
    for (body, content_type) in [
        (&b"hello"[..], "text/plain; charset=utf-8"),
        (b"\xFF\xD8\xFF\xE0\x00\x10JFIF", "image/jpeg"),
        (b"\x89PNG\r\n\x1A\n\x00\x00", "image/png"),
        (b"GIF89a\x01\x00", "image/gif"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"PK\x03\x04\x14\x00", "application/zip"),
        (b"\x1F\x8B\x08\x00", "application/x-gzip"),
        (b"<html><body>x", "text/html; charset=utf-8"),
        (b"<?xml version=\"1.0\"?><a/>", "text/xml; charset=utf-8"),
        (b"{\"a\":1}", "text/plain; charset=utf-8"),
        (b"\x00\x01\x02", "application/octet-stream"),
        (b"", ""),
    ] {
        let answered = post(&node.url("/function/fn-echo"), body).await;
        assert_eq!((answered.status, &*answered.body), (200, body));
        assert_eq!(answered.header("content-type"), content_type, "{}", body.escape_ascii());
        assert_eq!(answered.header("x-p2pfaas-hops"), "1");
    }
}

#[actix_rt::test]
async fn a_v1_peers_answer_is_read_as_v1_reads_it() {
    let message =
        b"{\"Peers_List\":[{\"Machine_ID\":\"v\xC31\",\"machine_ip\":\"\"}],\"body\":\"eA==\",\
        \"Body\":\"aGVs\\nbG8=\",\"Status_Code\":200}";
    let (node, _v1) = node_before_v1(move |_| answer("200 OK", "", message)).await;
    let answered = post(&node.url("/function/fn-echo"), "x").await;
    assert_eq!((answered.status, &*answered.text()), (200, "hello"));
    let ids = answered.headers.get("x-p2pfaas-peers-list-id").expect("ids").as_bytes();
    assert!(ids.ends_with("\"v\u{fffd}1\"]".as_bytes()), "{}", ids.escape_ascii());
}

#[actix_rt::test]
async fn a_functions_redirect_never_leads_a_v1_node_elsewhere() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let function = RawServer::start(fresh_ip(), 0, move |_| {
            answer(status, "Location: http://elsewhere.example/\r\nX-Own: 1\r\n", b"there")
        });
        let node = TestNode::start(|settings| {
            settings.routes.0.insert("fn".to_owned(), function.url());
        });
        let request = format!("{CALL}\r\n{MESSAGE}").replacen("fn-echo", "fn", 1);
        let answered = spoken(node.ip, 18080, request, 999).await;
        let (got, body) = read_as_v1(&answered, &node);
        assert_eq!((got.to_string(), &*body), (status[..3].to_owned(), "there"));
        let head = answered.to_ascii_lowercase();
        assert!(head.contains("\r\nx-location: http://elsewhere.example/\r\n"), "{head}");
        assert!(head.contains("\r\nx-own: 1\r\n"), "{head}");
        assert!(answered.contains(r#""location":"http://elsewhere.example/""#), "{answered}");
    }
}

#[actix_rt::test]
async fn a_name_with_dots_is_served_where_the_operator_lists_it() {
    const DOTTED: &str = "fn-echo.edge.local";
    let node = TestNode::start(|_| {});
    let answered = post(&node.url(&format!("/function/{DOTTED}")), "x").await;
    assert_eq!((answered.status, answered.code()), (400, 100));
    let why = answered.text();
    assert!(why.contains("P2PFAAS_FNS_LIST") && why.contains("P2PFAAS_ROUTES"), "{why}");

    let function = RawServer::start(fresh_ip(), 0, |_| answer("200 OK", "", b"hello"));
    let node = TestNode::start(|settings| {
        settings.routes.0.insert(DOTTED.to_owned(), function.url());
    });
    let answered = post(&node.url(&format!("/function/{DOTTED}")), "x").await;
    assert_eq!((answered.status, &*answered.text()), (200, "hello"));
    let request = format!("{CALL}\r\n{MESSAGE}").replacen("fn-echo", DOTTED, 1);
    let answered = spoken(node.ip, 18080, request, 999).await;
    assert_eq!(read_as_v1(&answered, &node), (200, "hello".to_owned()));

    // Listed, it is looked up as any other name.
    let node =
        TestNode::start(|settings| settings.fns_list = vec!["fn.no-such.invalid".to_owned()]);
    let answered = post(&node.url("/function/fn.no-such.invalid"), "x").await;
    assert_eq!((answered.status, answered.code()), (404, 3));
}

/// A name that leads to this machine by its table of hosts, if that has one.
fn near_name() -> Option<String> {
    let hosts = std::fs::read_to_string("/etc/hosts").ok()?;
    let names = hosts
        .lines()
        .filter(|line| line.starts_with("127."))
        .flat_map(|line| line.split_whitespace().skip(1));
    let mut single = names.filter(|name| !name.contains("local") && !name.contains('.'));
    single.next().map(str::to_owned)
}

#[actix_rt::test]
async fn a_name_that_leads_to_this_machine_is_served_where_the_operator_lists_it() {
    let Some(name) = near_name() else {
        eprintln!("passed over: no name leads to this machine");
        return;
    };
    let url = format!("/function/{name}");
    let node = TestNode::start(|_| {});
    let answered = post(&node.url(&url), "x").await;
    assert_eq!((answered.status, answered.code()), (404, 3));
    let why = answered.text();
    assert!(why.contains(&format!("P2PFAAS_FNS_LIST={name}")), "{why}");
    let node = TestNode::start(|settings| settings.fns_list = vec![name]);
    let answered = post(&node.url(&url), "x").await;
    // Whoever is at that port, or nobody, it was asked.
    assert!(![400, 404].contains(&answered.status), "{answered:?}");
}
