//! `/function/{fn}` of the wire contract, row by row.

#![expect(clippy::disallowed_methods, reason = "what is tested goes on in real time")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::raw::{RawServer, Reply, answer, ok};
use common::*;
use p2pfaas::config::Settings;

/// A node with the route `fn` to a server that answers by `handler`.
fn routed(
    handler: impl Fn(&raw::Request) -> Reply + Send + Sync + 'static,
    change: impl FnOnce(&mut Settings),
) -> (TestNode, RawServer) {
    let function = RawServer::start(fresh_ip(), 0, handler);
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
        change(settings);
    });
    (node, function)
}

#[actix_rt::test]
async fn a_call_that_runs_here_is_answered_with_the_headers_of_the_contract() {
    let (node, _function) = routed(
        |_| answer("200 OK", "Content-Type: text/x-mine\r\nX-Fn-Custom: abc\r\n", b"out"),
        |_| {},
    );
    let answered = post(&node.url("/function/fn"), "in").await;
    assert_eq!((answered.status, &*answered.text()), (200, "out"));
    assert_eq!(answered.header("content-type"), "text/x-mine");
    assert_eq!(answered.header("x-fn-custom"), "abc");
    assert_eq!(answered.header("x-p2pfaas-version"), p2pfaas::VERSION);
    assert_eq!(answered.header("x-p2pfaas-scheduler"), "NoScheduler");
    let execution = answered.header("x-p2pfaas-timing-execution-time-seconds");
    assert_eq!(execution.split_once('.').expect("decimals").1.len(), 6, "{execution}");
    let execution: f64 = execution.parse().expect("a number");
    let total = answered.times("x-p2pfaas-timing-total-seconds-list");
    let scheduling = answered.times("x-p2pfaas-timing-scheduling-seconds-list");
    assert_eq!((total.len(), scheduling.len()), (1, 1));
    assert!(scheduling[0] <= total[0] && execution <= total[0]);
    for absent in ["timing-probing-seconds-list", "externally-executed", "hops", "peers-list-ip"] {
        assert_eq!(answered.header(&format!("x-p2pfaas-{absent}")), "", "{absent}");
    }
}

#[actix_rt::test]
async fn a_function_gets_method_query_body_and_headers_without_the_connections_and_ours() {
    let (node, function) = routed(|_| ok("x"), |_| {});
    let headers = [
        ("Content-Type", "text/mine"),
        ("X-Own", "1"),
        ("Accept-Language", "it"),
        ("X-P2pfaas-Scheduler-Bypass", "1"),
        ("X-P2pfaas-Scheduler-Learning-Task-Type", "1"),
        ("Keep-Alive", "timeout=5"),
        (TRACING, "n0t1"),
    ];
    send("POST", &node.url("/function/fn?a=1&b=%20"), &headers, "in").await;
    send("GET", &node.url("/function/fn?c"), &[], "").await;
    let [call, get] = &function.requests()[..] else { panic!("two calls") };
    assert_eq!(call.line(), "POST /?a=1&b=%20 HTTP/1.1");
    assert_eq!(call.body, b"in");
    let got = call.headers();
    for (name, value) in [("content-type", "text/mine"), ("x-own", "1"), ("accept-language", "it")]
    {
        assert_eq!(got.get(name).map(String::as_str), Some(value));
    }
    assert_eq!(call.header(&TRACING.to_lowercase()), "n0t1");
    let ours: Vec<_> = got.keys().filter(|name| name.starts_with("x-p2pfaas-")).collect();
    assert_eq!(ours.len(), 1, "the tracing id alone: {ours:?}");
    assert!(!got.contains_key("keep-alive") && !got.contains_key("transfer-encoding"));
    assert_eq!(get.line(), "GET /?c HTTP/1.1");
}

#[actix_rt::test]
async fn a_functions_own_failure_reaches_the_client_as_it_is() {
    for (status, code) in
        [("404 Not Found", 404), ("422 X", 422), ("500 Oops", 500), ("503 X", 503)]
    {
        let (node, _function) =
            routed(move |_| answer(status, "X-Why: because\r\n", b"no luck"), |_| {});
        let answered = post(&node.url("/function/fn"), "in").await;
        assert_eq!((answered.status, &*answered.text()), (code, "no luck"));
        assert_eq!(answered.header("x-why"), "because");
        assert_ne!(answered.header("x-p2pfaas-timing-execution-time-seconds"), "");
    }
}

#[actix_rt::test]
async fn a_redirect_passes_through_and_is_never_followed() {
    let elsewhere = RawServer::start(fresh_ip(), 0, |_| ok("secret"));
    let location = format!("Location: {}\r\n", elsewhere.url());
    let (node, _function) = routed(move |_| answer("302 Found", &location, b""), |_| {});
    let answered = get(&node.url("/function/fn")).await;
    assert_eq!((answered.status, answered.header("location")), (302, &*elsewhere.url()));
    assert!(elsewhere.requests().is_empty());
}

#[actix_rt::test]
async fn a_compressed_answer_passes_through_unchanged() {
    let (node, _function) =
        routed(|_| answer("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8bnot really"), |_| {});
    let answered = get(&node.url("/function/fn")).await;
    assert_eq!(answered.header("content-encoding"), "gzip");
    assert_eq!(answered.body, b"\x1f\x8bnot really");
}

#[actix_rt::test]
async fn names_that_are_no_function_are_refused_with_code_100_and_nobody_is_called() {
    let node = TestNode::start(|_| {});
    for name in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f000001",
        "a.b",
        "-a",
        "a%2Fb",
        "%25",
    ] {
        let answered = post(&node.url(&format!("/function/{name}")), "x").await;
        assert_eq!((answered.status, answered.code()), (400, 100), "{name}");
        assert_eq!(answered.header("x-p2pfaas-scheduler"), "NoScheduler");
    }
    let encoded = post(&node.url("/function/fn%2Decho"), "x").await;
    assert_eq!((encoded.status, &*encoded.text()), (200, "x"), "decoded once, then checked");
    let twice = post(&node.url("/function/fn%252Decho"), "x").await;
    assert_eq!(twice.code(), 100, "decoded once only");
}

#[actix_rt::test]
async fn a_function_outside_the_list_of_those_served_is_refused() {
    let node = TestNode::start(|settings| settings.fns_list = vec!["fn-echo".to_owned()]);
    assert_eq!(post(&node.url("/function/fn-echo"), "x").await.status, 200);
    let answered = post(&node.url("/function/fn-sleep"), "x").await;
    assert_eq!((answered.status, answered.code()), (400, 100));
}

#[actix_rt::test]
async fn unknown_paths_are_404_and_wrong_methods_405() {
    let node = TestNode::start(|_| {});
    for path in ["/nope", "/function/", "/function", "/nope/x"] {
        let answered = post(&node.url(path), "x").await;
        assert_eq!((answered.status, answered.code()), (404, 3), "{path}");
        assert_eq!(answered.header("x-p2pfaas-version"), p2pfaas::VERSION);
    }
    for (method, path) in
        [("GET", "/peer/function/fn-echo"), ("POST", "/monitoring/load"), ("PUT", "/configuration")]
    {
        assert_eq!(send(method, &node.url(path), &[], "").await.status, 405, "{method} {path}");
    }
}

#[actix_rt::test]
async fn an_unknown_function_is_404_code_3() {
    let node = TestNode::start(|_| {});
    let answered = post(&node.url("/function/fn-does-not-exist"), "x").await;
    assert_eq!((answered.status, answered.code()), (404, 3));
}

#[actix_rt::test]
async fn a_function_that_cannot_be_connected_to_is_502_and_one_that_breaks_off_too() {
    let (node, function) = routed(|_| Reply::Close, |_| {});
    let answered = post(&node.url("/function/fn"), "x").await;
    assert_eq!((answered.status, answered.code()), (502, 5));
    assert_eq!(function.requests().len(), 1, "it may have run: not called again");
    drop(function);
    let answered = post(&node.url("/function/fn"), "x").await;
    assert_eq!((answered.status, answered.code()), (502, 5));
    assert_eq!(node.state().gate.load().running, 0);
}

#[actix_rt::test]
async fn a_route_whose_host_cannot_be_resolved_is_502_since_the_function_is_known() {
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn".to_owned(), "http://no-such-host.invalid/".to_owned());
    });
    let answered = post(&node.url("/function/fn"), "x").await;
    assert_eq!((answered.status, answered.code()), (502, 5));
}

#[actix_rt::test]
async fn an_answer_without_a_body_does_not_spoil_the_next_one_on_the_connection() {
    use std::io::{Read, Write};
    // A 304 may tell the length of what it leaves out.
    let (node, _function) = routed(
        |_| Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".to_vec()),
        |_| {},
    );
    let call = "GET /function/fn HTTP/1.1\r\nHost: x\r\n\r\n\
                GET /monitoring/load HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let ip = node.ip;
    let answers = actix_rt::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect((ip, 18080)).expect("connects");
        stream.write_all(call.as_bytes()).expect("sent");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).map(|_| answers)
    });
    let answers = answers.await.expect("joins").expect("text");
    assert!(answers.starts_with("HTTP/1.1 304"), "{answers}");
    let (_, second) = answers.split_once("\r\n\r\n").expect("two answers");
    assert!(second.starts_with("HTTP/1.1 200"), "{answers}");
}

#[actix_rt::test]
async fn a_function_over_its_time_limit_is_504_and_its_slot_is_free_again() {
    let (node, _function) = routed(|_| Reply::Hang, |settings| settings.function_timeout_s = 0.1);
    let answered = post(&node.url("/function/fn"), "x").await;
    assert_eq!((answered.status, answered.code()), (504, 5));
    assert_eq!(node.state().gate.load().running, 0);
}

#[actix_rt::test]
async fn a_function_may_take_longer_than_the_http_clients_own_defaults() {
    let (node, _function) = routed(
        |_| {
            std::thread::sleep(Duration::from_millis(5500));
            ok("late")
        },
        |_| {},
    );
    assert_eq!(post(&node.url("/function/fn"), "x").await.text(), "late");
}

#[actix_rt::test]
async fn a_body_over_the_limit_is_413_and_one_at_the_limit_is_taken() {
    let node = TestNode::start(|settings| settings.body_bytes_max = Some(1000));
    assert_eq!(post(&node.url("/function/fn-echo"), vec![b'x'; 1000]).await.body.len(), 1000);
    let answered = post(&node.url("/function/fn-echo"), vec![b'x'; 1001]).await;
    assert_eq!((answered.status, answered.code()), (413, 4));
}

#[actix_rt::test]
async fn an_answer_over_the_limit_is_502() {
    let (node, _function) = routed(
        |_| answer("200 OK", "", &[b'x'; 1001]),
        |settings| settings.body_bytes_max = Some(1000),
    );
    assert_eq!(post(&node.url("/function/fn"), "x").await.status, 502);
}

#[actix_rt::test]
async fn a_body_of_16_mib_goes_through_by_default() {
    let node = TestNode::start(|_| {});
    let body = vec![7u8; 16 << 20];
    assert!(post(&node.url("/function/fn-echo"), body.clone()).await.body == body);
}

#[actix_rt::test]
async fn headers_steer_a_call_bypass_before_forward_before_reject() {
    let node =
        TestNode::start(|settings| settings.scheduler = "PowerOfNScheduler 1 2 T 1".to_owned());
    let url = node.url("/function/fn-echo");
    let call = async |headers: &[(&str, &str)]| {
        let answered = send("POST", &url, headers, "x").await;
        (answered.status, answered.header("x-p2pfaas-scheduler").to_owned())
    };
    assert_eq!(call(&[]).await, (200, "PowerOfNScheduler(1, 2, true, 1)".to_owned()));
    assert_eq!(call(&[REJECT]).await, (503, "RejectScheduler".to_owned()));
    assert_eq!(call(&[REJECT, FORWARD]).await, (200, "ForwardScheduler(1)".to_owned()));
    assert_eq!(call(&[REJECT, FORWARD, BYPASS]).await, (200, "NoScheduler".to_owned()));
    let rejected = send("POST", &url, &[REJECT], "x").await;
    assert_eq!(rejected.code(), 401);
    assert_eq!(rejected.header("content-type"), "application/json");
}

#[actix_rt::test]
async fn a_full_node_answers_500_code_400() {
    let node = TestNode::start(|settings| {
        settings.parallel_running_functions_max = 0;
        settings.queue_length_max = 0;
    });
    let answered = post(&node.url("/function/fn-echo"), "x").await;
    assert_eq!((answered.status, answered.code()), (500, 400));
    let message = answered.json()["message"].as_str().expect("a message").to_owned();
    assert!(message.starts_with("Job cannot be scheduled: "), "{message}");
}

#[actix_rt::test]
async fn a_loss_scheduler_refuses_when_no_slot_is_free_whatever_the_queue() {
    let node = TestNode::start(|settings| {
        settings.parallel_running_functions_max = 0;
        settings.scheduler = "NoScheduler true".to_owned();
    });
    assert_eq!(post(&node.url("/function/fn-echo"), "x").await.code(), 400);
    let steered = send("POST", &node.url("/function/fn-echo"), &[BYPASS], "x").await;
    assert_eq!(steered.code(), 400);
}

/// Opens `n` calls of `path` and waits until they run or wait.
async fn open_calls(node: &TestNode, n: usize) -> Vec<std::net::TcpStream> {
    use std::io::Write;
    let mut calls = Vec::new();
    for _ in 0..n {
        let before = node.state().gate.load().total();
        let mut stream = std::net::TcpStream::connect((node.ip, 18080)).expect("connects");
        stream
            .write_all(b"POST /function/fn HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
            .expect("sent");
        calls.push(stream);
        eventually("the call has arrived", || async {
            (node.state().gate.load().total() > before).then_some(())
        })
        .await;
    }
    calls
}

#[actix_rt::test]
async fn a_client_that_hangs_up_leaves_the_line_and_a_running_one_gives_its_slot_back() {
    let (node, function) = routed(
        |_| Reply::Hang,
        |settings| {
            settings.parallel_running_functions_max = 1;
            settings.queue_length_max = 2;
        },
    );
    let mut calls = open_calls(&node, 3).await;
    let load = node.state().gate.load();
    assert_eq!((load.running, load.waiting), (1, 2));
    let headers = get(&node.url("/monitoring/load")).await;
    assert_eq!(headers.header("x-p2pfaas-load"), "1");
    assert_eq!(headers.header("x-p2pfaas-maxload"), "1");
    assert_eq!(headers.header("x-p2pfog-queue-length"), "2");

    drop(calls.remove(1));
    eventually("the line is shorter", || async {
        (node.state().gate.load().waiting == 1).then_some(())
    })
    .await;
    assert_eq!(function.requests().len(), 1, "nobody started for it");
    drop(calls.remove(0));
    eventually("the last in line runs", || async {
        (function.requests().len() == 2).then_some(())
    })
    .await;
    assert_eq!(node.state().gate.load().running, 1);
    drop(calls);
    eventually("all is quiet", || async { (node.state().gate.load().total() == 0).then_some(()) })
        .await;
}

#[actix_rt::test]
async fn waiting_calls_hold_a_bounded_number_of_bytes() {
    let (node, _function) = routed(
        |_| Reply::Hang,
        |settings| {
            settings.parallel_running_functions_max = 0;
            settings.queue_length_max = 100;
            settings.waiting_bytes_max = 10;
        },
    );
    let _two_of_four_bytes = open_calls(&node, 2).await;
    let answered = post(&node.url("/function/fn"), "more").await;
    assert_eq!((answered.status, answered.code()), (500, 400));
}

#[actix_rt::test]
async fn the_bodies_of_all_calls_hold_a_bounded_number_of_bytes() {
    let (node, _function) = routed(
        |_| Reply::Hang,
        |settings| {
            settings.parallel_running_functions_max = 100;
            settings.bodies_bytes_max = 10;
        },
    );
    let calls = open_calls(&node, 2).await;
    let answered = post(&node.url("/function/fn"), "more").await;
    assert_eq!((answered.status, answered.code()), (500, 400));
    drop(calls);
    eventually("the bytes come back", || async {
        (post(&node.url("/function/fn-echo"), "0123456789").await.status == 200).then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn a_client_whose_body_is_refused_while_it_sends_reads_why() {
    let node = TestNode::start(|settings| settings.bodies_bytes_max = 1 << 20);
    let body = bytes::Bytes::from(vec![b'x'; 700 << 10]);
    let (long, held) = (node.url("/function/fn-sleep?mean_ms=60000"), body.clone());
    let running = actix_rt::spawn(async move { try_send("POST", &long, &[], held).await.is_ok() });
    eventually("a call that runs holds its body", || async {
        (node.state().gate.load().running == 1).then_some(())
    })
    .await;
    let url = node.url("/function/fn-echo");
    for _ in 0..10 {
        let call = |_| post(&url, body.clone());
        for answered in futures_util::future::join_all((0..16).map(call)).await {
            assert_eq!((answered.status, answered.code()), (500, 400));
        }
    }
    running.abort();
    eventually("the room comes back", || async {
        (post(&url, body.clone()).await.status == 200).then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn a_body_that_does_not_arrive_in_time_is_408_and_holds_nothing() {
    use std::io::{Read, Write};
    let node = TestNode::start(|settings| {
        settings.body_timeout_s = 0.1;
        settings.bodies_bytes_max = 10;
    });
    let mut stream = std::net::TcpStream::connect((node.ip, 18080)).expect("connects");
    stream
        .write_all(b"POST /function/fn-echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        .expect("sent");
    let answer = actix_rt::task::spawn_blocking(move || {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).map(|()| answer)
    });
    let answer = answer.await.expect("joins").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(post(&node.url("/function/fn-echo"), "0123456789").await.status, 200);
}

#[actix_rt::test]
async fn calls_that_were_refused_or_hung_up_are_counted() {
    let (node, _function) = routed(|_| Reply::Hang, |_| {});
    post(&node.url("/function/localhost"), "x").await;
    drop(open_calls(&node, 1).await);
    eventually("both are counted", || async {
        let text = get(&node.url("/metrics")).await.text();
        let refused =
            r#"p2pfaas_requests_total{function="other",outcome="bad_request",scheduler="none"} 1"#;
        let hung_up =
            r#"p2pfaas_requests_total{function="fn",outcome="hung_up",scheduler="NoScheduler"} 1"#;
        (text.contains(refused) && text.contains(hung_up)).then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn never_more_than_k_functions_run_at_once_under_load() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, highest) = (Arc::clone(&running), Arc::clone(&most));
    let (node, _function) = routed(
        move |_| {
            let now = count.fetch_add(1, Ordering::SeqCst) + 1;
            highest.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            count.fetch_sub(1, Ordering::SeqCst);
            ok("x")
        },
        |settings| {
            settings.workers = 2;
            settings.parallel_running_functions_max = 3;
            settings.queue_length_max = 1000;
        },
    );
    let url = node.url("/function/fn");
    let calls = (0..200).map(|_| post(&url, "x"));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answered| answered.status == 200));
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[actix_rt::test]
async fn embedded_functions_answer_only_where_they_are_enabled() {
    let node = TestNode::start(|settings| settings.embedded_functions = false);
    assert_eq!(post(&node.url("/function/fn-echo"), "x").await.code(), 3);
}

#[actix_rt::test]
async fn a_route_wins_over_an_embedded_function() {
    let function = RawServer::start(fresh_ip(), 0, |_| ok("routed"));
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn-echo".to_owned(), function.url());
    });
    assert_eq!(post(&node.url("/function/fn-echo"), "x").await.text(), "routed");
}
