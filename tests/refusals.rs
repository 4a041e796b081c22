//! What is refused, how clients are told, and that what is not refused passes whole, however it comes.

mod common;

use common::raw::spoken as raw;
use common::{TestNode, get, send};
use serde_json::Value;

#[actix_rt::test]
async fn a_page_of_another_site_changes_nothing() {
    let node = TestNode::start(|_| {});
    let swap = r#"{"name":"NoScheduler","parameters":["true"]}"#;
    let batch = r#"[{"eid":1,"state":"1","action":0,"reward":1}]"#;
    let routes = [
        ("POST", node.url("/configuration/scheduler"), swap),
        ("POST", node.url("/configuration"), r#"{"queue_length_max":9}"#),
        ("POST", node.discovery("/configuration"), r#"{"machine_id":"evil"}"#),
        ("GET", node.discovery("/reset"), ""),
        ("POST", node.learner("/learner/parameters"), r#"{"alpha":0.5}"#),
        ("POST", node.learner("/learner/model"), "{}"),
        ("POST", node.learner("/train_batch"), batch),
        ("GET", node.learner("/train"), ""),
        ("GET", node.learner("/learner/reset"), ""),
    ];
    let own = format!("http://{}:18080", node.ip);
    for (method, url, body) in &routes {
        for headers in [
            &[("Host", "evil.example"), ("Content-Type", "text/plain")][..],
            &[("Origin", "http://evil.example")],
            &[("Origin", "null")],
            &[("Sec-Fetch-Site", "cross-site")],
            &[("Host", "evil.example"), ("Origin", "http://evil.example")],
        ] {
            let answered = send(method, url, headers, *body).await;
            assert_eq!((answered.status, answered.code()), (403, 1), "{url} {headers:?}");
        }
    }
    let scheduler = get(&node.url("/configuration/scheduler")).await.json();
    assert_eq!(scheduler["parameters"], serde_json::json!(["false"]));
    // Programs, and a page of the node's own, do.
    for headers in [&[][..], &[("Origin", &*own), ("Sec-Fetch-Site", "same-origin")]] {
        let answered = send("POST", &routes[0].1, headers, swap).await;
        assert_eq!(answered.status, 200);
    }
    let metrics = get(&node.url("/metrics")).await.text();
    assert!(metrics.contains(r#"p2pfaas_refusals_total{kind="foreign"} 45"#), "{metrics}");
}

#[actix_rt::test]
async fn what_is_too_large_is_refused_before_it_is_invited() {
    let node = TestNode::start(|settings| settings.body_bytes_max = Some(1000));
    let head = |path: &str, bytes: usize, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Length: {bytes}\r\n{more}\r\n"
        )
    };
    let refused = raw(node.ip, 18080, head("/function/fn-echo", 1001, ""), 999).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    assert!(refused.contains(r#""code":4"#), "{refused}");
    let peer = head("/peer/function/fn-echo", 8 << 20, "User-Agent: Machine\r\n");
    let refused = raw(node.ip, 18080, peer, 999).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let body = refused.split("\r\n\r\n").nth(1).expect("a body");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["peers_list"].as_array().map(Vec::len), Some(1));
    let refused = raw(node.ip, 19020, head("/learner/parameters", 1 << 20, ""), 999).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let invited = head("/function/fn-echo", 5, "") + "hello";
    let invited = raw(node.ip, 18080, invited, 999).await;
    assert!(invited.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), "{invited}");
    assert!(invited.ends_with("\r\n\r\nhello"), "{invited}");
}

#[actix_rt::test]
async fn requests_that_come_at_once_or_bit_by_bit_are_each_answered_in_order() {
    let node = TestNode::start(|_| {});
    let mut requests = String::new();
    let mut bodies = Vec::new();
    for n in 0..30 {
        let body = format!("<{n}>{}", "x".repeat(n * 37));
        let close = if n == 29 { "Connection: close\r\n" } else { "" };
        let start = format!("POST /function/fn-echo HTTP/1.1\r\nHost: x\r\n{close}");
        requests += &match n % 3 {
            0 => format!("{start}Content-Length: {}\r\n\r\n{body}", body.len()),
            1 => {
                let (a, b) = body.split_at(body.len() / 2);
                let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
                format!(
                    "{start}Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
                    chunk(a),
                    chunk(b)
                )
            }
            // The parser takes bare line ends, too.
            _ => format!("{start}content-length:{}\r\n\r\n{body}", body.len()).replacen(
                "Host: x\r\n",
                "Host: x\n",
                1,
            ),
        };
        requests += if n % 5 == 0 && n < 29 { "GET / HTTP/1.1\r\nHost: x\r\n\r\n" } else { "" };
        bodies.push(body);
    }
    for step in [1 << 20, 4096, 1000, 100, 7] {
        let answers = raw(node.ip, 18080, requests.clone(), step).await;
        let end = &answers[answers.len().saturating_sub(600)..];
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 36, "{step}: {end}");
        let mut rest = &*answers;
        for body in &bodies {
            let at = rest.find(body.as_str()).unwrap_or_else(|| panic!("{step}: {body}"));
            rest = &rest[at + body.len()..];
        }
    }
}

/// What stands in chunks, to their end.
fn dechunked(mut rest: &str) -> String {
    let mut whole = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a number");
        whole += &after[..size];
        rest = after[size..].strip_prefix("\r\n").expect("its end");
        if size == 0 {
            assert_eq!(rest, "");
            return whole;
        }
    }
}

#[actix_rt::test]
async fn large_bodies_pass_whole_whatever_their_framing_and_pieces() {
    let node = TestNode::start(|_| {});
    let body: String = (0..200_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let start = "POST /function/fn-echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let chunks: String = body
        .as_bytes()
        .chunks(3001)
        .map(|part| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)))
        .collect();
    for request in [
        format!("{start}Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("{start}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"),
    ] {
        for step in [1 << 20, 5000, 333] {
            let answer = raw(node.ip, 18080, request.clone(), step).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{step}");
            let (head, came) = answer.split_once("\r\n\r\n").expect("a head");
            let came = match head.contains("transfer-encoding: chunked") {
                true => dechunked(came),
                false => came.to_owned(),
            };
            assert!(came == body, "{step}: {}", came.len());
        }
    }
}

#[actix_rt::test]
async fn headers_of_a_connection_stay_behind_wherever_they_are_named() {
    use common::raw::{RawServer, ok};
    let function = RawServer::start(common::fresh_ip(), 0, |_| ok("done"));
    let route = function.url();
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn".to_owned(), route);
    });
    let request = "GET /function/fn HTTP/1.1\r\nHost: x\r\nConnection: x-first, close\r\n\
        Connection: X-Second\r\nX-First: 1\r\nX-Second: 2\r\nX-Third: 3\r\n\r\n";
    let answer = raw(node.ip, 18080, request, 999).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = function.requests().pop().expect("called").headers();
    assert!(!seen.contains_key("x-first") && !seen.contains_key("x-second"), "{seen:?}");
    assert!(seen.contains_key("x-third"), "{seen:?}");
}

#[actix_rt::test]
async fn a_head_that_stays_half_is_given_up_also_on_a_kept_connection() {
    let node = TestNode::start(|_| {});
    let kept = "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHo";
    for (request, answers) in [("GET / HTTP/1.1\r\nHo", 1), (kept, 2)] {
        let answer = raw(node.ip, 18080, request, 999).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), answers, "{answer}");
        assert!(answer.contains("HTTP/1.1 408"), "{answer}");
    }
}
