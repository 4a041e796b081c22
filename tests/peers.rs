//! Calls between nodes: `/peer/function/{fn}` both ways, probes, and peers that fail. Stand-ins for
//! v1 nodes say what was recorded of them.

mod common;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::raw::{RawServer, Reply, Request, answer, ok};
use common::*;
use serde_json::{Value, json};

async fn peer_call(node: &TestNode, function: &str, body: impl Into<bytes::Bytes>) -> Answered {
    let headers = [MACHINE, ("Content-Type", "application/json")];
    send("POST", &node.url(&format!("/peer/function/{function}")), &headers, body).await
}

fn decoded(answered: &Answered) -> String {
    let body = answered.json()["body"].as_str().expect("a body").to_owned();
    String::from_utf8(BASE64_STANDARD.decode(body).expect("base64")).expect("text")
}

/// The shape that every answer to a peer call must have, or a v1 node ends its process.
fn check_shape(answered: &Answered, node: &TestNode) {
    let message = answered.json();
    assert_eq!(message["status_code"], answered.status);
    let last = message["peers_list"].as_array().and_then(|list| list.last()).expect("a list");
    assert_eq!(last["machine_ip"], node.ip.to_string());
    assert_eq!(last["machine_id"], node.id());
    assert!(message["body"].is_string());
    let ours = answered.headers.keys().filter(|name| name.as_str().starts_with("x-p2pfaas-"));
    assert_eq!(ours.count(), 0, "v1 copies such headers over its own");
}

/// The keys of a JSON value, all the way down.
fn keys(value: &Value, prefix: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = format!("{prefix}/{key}");
                into.push(path.clone());
                keys(inner, &path, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| keys(inner, prefix, into)),
        _ => {}
    }
}

const REQUEST: &str = r#"{"service_id_request":7,"service_id_tracing":"n0t1","function_name":"fn-echo","hops":1,"peers_list":null,"payload":"aGVsbG8=","content_type":"text/plain","headers":null}"#;

#[actix_rt::test]
async fn a_peer_call_as_v1_sends_it_is_answered_as_v1_answers_it() {
    let node = TestNode::start(|_| {});
    let tracing = [MACHINE, (TRACING, "n0t1")];
    for (golden, headers) in
        [("089-peer-machine.txt", &[MACHINE][..]), ("090-peer-machine-tracing.txt", &tracing)]
    {
        let answered = send("POST", &node.url("/peer/function/fn-echo"), headers, REQUEST).await;
        assert_eq!(answered.status, golden_status(golden));
        assert_eq!(answered.header("content-type"), "application/json");
        check_shape(&answered, &node);
        let (mut got, mut want) = (Vec::new(), Vec::new());
        keys(&answered.json(), "", &mut got);
        keys(&golden_json(golden), "", &mut want);
        // Ours adds `headers`, which v1 ignores.
        got.retain(|key| !key.starts_with("/headers"));
        got.sort();
        want.sort();
        assert_eq!(got, want);
        assert_eq!(answered.json()["body"], golden_json(golden)["body"]);
    }
}

#[actix_rt::test]
async fn a_peer_call_without_the_machine_user_agent_is_refused_as_in_v1() {
    let node = TestNode::start(|_| {});
    let answered = post(&node.url("/peer/function/fn-echo"), REQUEST).await;
    let golden = "088-peer-not-machine.txt";
    assert_eq!(answered.status, golden_status(golden));
    assert_eq!(answered.code(), golden_json(golden)["code"].as_u64().expect("a code"));
}

#[actix_rt::test]
async fn every_field_of_a_peer_call_may_be_missing_or_null() {
    let node = TestNode::start(|_| {});
    for body in ["{}", r#"{"payload":null,"hops":null,"headers":null,"peers_list":null}"#] {
        let answered = peer_call(&node, "fn-echo", body).await;
        assert_eq!(answered.status, golden_status("092-peer-machine-emptyjson.txt"));
        check_shape(&answered, &node);
        assert_eq!(decoded(&answered), "");
    }
}

#[actix_rt::test]
async fn every_error_of_a_peer_call_has_the_shape_of_an_answer() {
    let broken = RawServer::start(fresh_ip(), 0, |_| Reply::Close);
    let slow = RawServer::start(fresh_ip(), 0, |_| Reply::Hang);
    let node = TestNode::start(|settings| {
        settings.body_bytes_max = Some(1000);
        settings.function_timeout_s = 0.1;
        settings.routes.0.insert("fn-broken".to_owned(), broken.url());
        settings.routes.0.insert("fn-slow".to_owned(), slow.url());
    });
    let large = json!({ "payload": BASE64_STANDARD.encode(vec![0; 1001]) }).to_string();
    let huge = vec![b' '; 3 << 20];
    for (function, body, status, code) in [
        ("fn-echo", "{bad".as_bytes(), golden_status("093-peer-machine-badjson.txt"), 4),
        ("fn-echo", b"[]", 400, 4),
        ("fn-echo", br#"{"payload":"%%%"}"#, 400, 4),
        ("fn-echo", br#"{"hops":"1"}"#, 400, 4),
        ("fn-echo", br#"{"headers":{"a":["b"]}}"#, 400, 4),
        ("fn-echo", br#"{"method":"DE LETE"}"#, 400, 4),
        ("fn-echo", large.as_bytes(), 413, 4),
        ("fn-echo", &huge, 413, 4),
        ("localhost", b"{}", 400, 100),
        ("fn-unknown", b"{}", 404, 3),
        ("fn-broken", b"{}", 502, 5),
        ("fn-slow", b"{}", 504, 5),
        ("a/b", b"{}", 404, 3),
    ] {
        let answered = peer_call(&node, function, body.to_vec()).await;
        assert_eq!(answered.status, status, "{function}");
        check_shape(&answered, &node);
        let error: Value = serde_json::from_str(&decoded(&answered)).expect("an error's JSON");
        assert_eq!(error["code"], code, "{function}");
    }
}

#[actix_rt::test]
async fn a_full_nodes_peer_answer_is_the_recorded_one() {
    let node = TestNode::start(|settings| {
        settings.parallel_running_functions_max = 0;
        settings.queue_length_max = 0;
    });
    let answered = peer_call(&node, "fn-echo", REQUEST).await;
    check_shape(&answered, &node);
    let recorded = golden("099-peer-queue-full.txt");
    let line = recorded.lines().find(|line| line.contains(r#""status_code":500"#)).expect("one");
    let want: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(answered.status, 500);
    let (mut got_keys, mut want_keys) = (Vec::new(), Vec::new());
    keys(&answered.json()["peers_list"], "", &mut got_keys);
    keys(&want["peers_list"], "", &mut want_keys);
    got_keys.sort();
    want_keys.sort();
    assert_eq!(got_keys, want_keys, "no execution time, since nothing ran");
    let want = BASE64_STANDARD.decode(want["body"].as_str().expect("a body")).expect("base64");
    let want: Value = serde_json::from_slice(&want).expect("JSON");
    let got: Value = serde_json::from_str(&decoded(&answered)).expect("JSON");
    assert_eq!(got["code"], want["code"]);
    assert!(got["message"].as_str().unwrap().starts_with(want["message"].as_str().unwrap()));
}

#[actix_rt::test]
async fn a_peer_answer_tells_the_functions_true_status_and_its_headers() {
    let function = RawServer::start(fresh_ip(), 0, |_| {
        answer("201 Created", "Content-Type: text/mine\r\nX-Fn: 1\r\nX-P2pfaas-Hops: 9\r\n", b"{}")
    });
    let node = TestNode::start(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
    });
    let answered = peer_call(&node, "fn", REQUEST).await;
    check_shape(&answered, &node);
    assert_eq!(answered.status, 201, "v1 turns it into 200");
    assert_eq!(answered.json()["headers"], json!({"content-type": "text/mine", "x-fn": "1"}));
    assert_eq!(answered.header("x-fn"), "1", "v1 passes these on by HTTP");
}

#[actix_rt::test]
async fn a_peer_answer_with_a_bodiless_status_still_arrives_whole() {
    let function = RawServer::start(fresh_ip(), 0, |_| {
        Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
    });
    let nodes = cluster::<2>(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
    })
    .await;
    let answered = send("POST", &nodes[0].url("/function/fn"), &[FORWARD], "").await;
    assert_eq!(answered.status, 204);
    assert_eq!(answered.header("x-p2pfaas-hops"), "1");
}

#[actix_rt::test]
async fn a_forwarded_call_sees_and_returns_what_a_local_one_does() {
    let function = RawServer::start(fresh_ip(), 0, |_| {
        answer("201 Created", "Content-Type: text/mine\r\nX-Fn: 1\r\n", b"out")
    });
    let nodes = cluster::<2>(|settings| {
        settings.routes.0.insert("fn".to_owned(), function.url());
    })
    .await;
    let headers = [("Content-Type", "text/in"), ("X-Own", "7"), (TRACING, "n0t3"), FORWARD];
    let answered = send("POST", &nodes[0].url("/function/fn?a=1"), &headers, "in").await;
    let plain = send("GET", &nodes[0].url("/function/fn"), &[FORWARD], "").await;
    assert_eq!((answered.status, plain.status), (201, 201));
    assert_eq!(answered.text(), "out");
    assert_eq!(answered.header("content-type"), "text/mine");
    assert_eq!(answered.header("x-fn"), "1");
    assert_eq!(answered.header("x-p2pfaas-externally-executed"), "True");
    assert_eq!(answered.header("x-p2pfaas-hops"), "1");
    let ips = nodes.each_ref().map(|node| node.ip.to_string());
    assert_eq!(answered.names("x-p2pfaas-peers-list-ip"), ips);
    assert_eq!(answered.names("x-p2pfaas-peers-list-id"), nodes.each_ref().map(TestNode::id));
    let total = answered.times("x-p2pfaas-timing-total-seconds-list");
    assert!(total.len() == 2 && total[0] > total[1], "{total:?}");
    assert_eq!(answered.times("x-p2pfaas-timing-scheduling-seconds-list").len(), 2);
    assert_eq!(answered.header("x-p2pfaas-timing-probing-seconds-list"), "[0,0]");
    let [call, get] = &function.requests()[..] else { panic!("two calls") };
    assert_eq!(call.line(), "POST /?a=1 HTTP/1.1");
    assert_eq!((call.header("content-type"), call.header("x-own")), ("text/in".into(), "7".into()));
    assert_eq!(call.header(&TRACING.to_lowercase()), "n0t3");
    assert_eq!(get.line(), "GET / HTTP/1.1");
}

/// A v1 scheduler: answers probes with `load` and peer calls as recorded.
fn v1_scheduler(
    ip: std::net::Ipv4Addr,
    load: u32,
    call: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> RawServer {
    RawServer::start(ip, 18080, move |request| match request.path() {
        "/monitoring/load" => {
            let headers = format!(
                "X-P2pfaas-Load: {load}\r\nX-P2pfaas-Maxload: 4\r\nX-P2pfog-Queue-Length: 0\r\n"
            );
            answer("200 OK", &headers, b"")
        }
        path if path.starts_with("/peer/function/") => call(request),
        _ => answer("404 Not Found", "", b""),
    })
}

/// A v1 discovery that knows nobody and never dies.
fn v1_discovery(ip: std::net::Ipv4Addr) -> RawServer {
    RawServer::start(ip, 19000, move |_| {
        let headers = format!(
            "Content-Type: application/json\r\nP2pfaas-Machine-Group-Name: cluster00\r\n\
             P2pfaas-Machine-Ip: {ip}\r\nP2pfaas-Machine-Name: {ip}\r\n"
        );
        answer("200 OK", &headers, b"[]")
    })
}

async fn node_knowing(ips: &[std::net::Ipv4Addr], scheduler: &str) -> TestNode {
    let node = TestNode::start(|settings| {
        settings.scheduler = scheduler.to_owned();
        settings.init_servers = ips.iter().map(ToString::to_string).collect();
    });
    eventually("the machines are listed", || async {
        (node.listed().await.len() == ips.len()).then_some(())
    })
    .await;
    node
}

#[actix_rt::test]
async fn a_call_forwarded_to_a_v1_node_is_sent_and_answered_as_recorded() {
    let v1 = fresh_ip();
    let recorded = golden_json("089-peer-machine.txt").to_string();
    let scheduler = v1_scheduler(v1, 0, move |_| {
        answer(
            "200 OK",
            "Content-Type: application/json\r\nX-Rec: 1\r\nConnection: close\r\n",
            recorded.as_bytes(),
        )
    });
    let _discovery = v1_discovery(v1);
    let node = node_knowing(&[v1], "ForwardScheduler 1").await;
    let headers = [(TRACING, "n0t9"), ("Content-Type", "text/plain")];
    let answered = send("POST", &node.url("/function/fn-echo"), &headers, "hello").await;

    assert_eq!((answered.status, &*answered.text()), (200, "hello"));
    assert_eq!(answered.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answered.header("x-rec"), "1", "as in 211: the peer's own X headers come through");
    let ids = [node.id(), "ref-n0".to_owned()];
    assert_eq!(answered.names("x-p2pfaas-peers-list-id"), ids);
    assert_eq!(answered.header("x-p2pfaas-timing-execution-time-seconds"), "0.002251");

    // 210 recorded what v1 sends; ours adds fields that v1 ignores.
    let sent = scheduler.requests().pop().expect("the call");
    assert_eq!(sent.line(), "POST /peer/function/fn-echo HTTP/1.1");
    assert_eq!(sent.header("user-agent"), "Machine");
    assert_eq!(sent.header("content-type"), "application/json");
    assert_eq!(sent.header(&TRACING.to_lowercase()), "n0t9");
    let recorded = recording("210-raw-requests-sent-by-reference.txt");
    let recorded = recorded.lines().find(|line| line.starts_with('{')).expect("a body");
    let recorded: Value = serde_json::from_str(recorded).expect("JSON");
    let message = sent.json();
    for (key, value) in recorded.as_object().expect("an object") {
        match key.as_str() {
            "service_id_request" => assert!(message[key].is_u64()),
            "peers_list" => assert_eq!(message[key][0]["machine_ip"], node.ip.to_string()),
            "headers" => assert!(message[key].as_object().unwrap().values().all(Value::is_string)),
            _ => assert_eq!(message[key], *value, "{key}"),
        }
    }
}

#[actix_rt::test]
async fn a_v1_peers_rejection_is_handed_to_the_client() {
    let v1 = fresh_ip();
    let recorded = golden("099-peer-queue-full.txt");
    let full = recorded
        .lines()
        .find(|line| line.contains(r#""status_code":500"#))
        .expect("one")
        .to_owned();
    let _scheduler = v1_scheduler(v1, 0, move |_| {
        answer("500 Internal Server Error", "Content-Type: application/json\r\n", full.as_bytes())
    });
    let _discovery = v1_discovery(v1);
    let node = node_knowing(&[v1], "ForwardScheduler 1").await;
    let answered = post(&node.url("/function/fn-echo"), "hello").await;
    // 203: status and body of the peer, and where it was decided.
    assert_eq!(answered.status, golden_status("203-cluster-forward-peer-full.txt"));
    assert_eq!(answered.json(), golden_json("203-cluster-forward-peer-full.txt"));
    assert_eq!(answered.header("x-p2pfaas-externally-executed"), "True");
    assert_eq!(answered.header("x-p2pfaas-hops"), "1");
    assert_eq!(answered.header("x-p2pfaas-timing-execution-time-seconds"), "");
    assert_eq!(answered.times("x-p2pfaas-timing-total-seconds-list").len(), 2);
}

#[actix_rt::test]
async fn a_v1_nodes_load_is_probed_as_v1_probes() {
    let (idle, busy) = (fresh_ip(), fresh_ip());
    let reply = |id: &str| {
        let message = json!({"peers_list": [{"machine_id": id, "machine_ip": "", "timings": {}}],
            "body": "", "status_code": 200});
        message.to_string()
    };
    let idle_reply = reply("idle");
    let idle_node = v1_scheduler(idle, 0, move |_| ok(&idle_reply));
    let _busy_node = v1_scheduler(busy, 9, |_| Reply::Close);
    let _discoveries = [v1_discovery(idle), v1_discovery(busy)];
    let node = node_knowing(&[idle, busy], "PowerOfNScheduler 2 0 true 1").await;
    // Something must run here, or nobody is less loaded than we are.
    let sleeper =
        actix_rt::spawn(send_owned(node.url("/function/fn-sleep?mean_ms=20000"), vec![BYPASS]));
    eventually("it runs", || async { (node.state().gate.load().running == 1).then_some(()) }).await;
    let answered = post(&node.url("/function/fn-echo"), "x").await;
    assert_eq!(answered.names("x-p2pfaas-peers-list-id")[1], "idle");
    assert!(answered.times("x-p2pfaas-timing-probing-seconds-list")[0] > 0.0);
    let probe = idle_node.requests().into_iter().find(|r| r.path() == "/monitoring/load");
    let probe = probe.expect("probed");
    assert_eq!(probe.line(), "GET /monitoring/load HTTP/1.1");
    assert_eq!(probe.header("user-agent"), "Machine");
    sleeper.abort();
}

async fn send_owned(url: String, headers: Vec<(&'static str, &'static str)>) -> Answered {
    send("POST", &url, &headers, "x").await
}

#[actix_rt::test]
async fn a_peer_that_cannot_be_connected_to_costs_the_client_nothing() {
    let (dead, alive) = (fresh_ip(), fresh_ip());
    let message = golden_json("089-peer-machine.txt").to_string();
    let _scheduler = v1_scheduler(alive, 0, move |_| ok(&message));
    // Both answer polls, so both stay listed; nobody listens at the dead one's scheduler port.
    let _discoveries = [v1_discovery(dead), v1_discovery(alive)];
    let node = node_knowing(&[dead, alive], "ForwardScheduler 1").await;
    for _ in 0..20 {
        let answered = post(&node.url("/function/fn-echo"), "hello").await;
        assert_eq!((answered.status, &*answered.text()), (200, "hello"));
    }
    let metrics = get(&node.url("/metrics")).await.text();
    let tried = format!(r#"p2pfaas_forwards_total{{peer="{dead}",result="unreachable"}}"#);
    assert!(metrics.contains(&tried), "{metrics}");
}

#[actix_rt::test]
async fn with_no_peer_left_to_connect_to_a_call_runs_here() {
    let dead = fresh_ip();
    let _discovery = v1_discovery(dead);
    let node = node_knowing(&[dead], "ForwardScheduler 1").await;
    let answered = post(&node.url("/function/fn-echo"), "hello").await;
    assert_eq!((answered.status, &*answered.text()), (200, "hello"));
    assert_eq!(answered.header("x-p2pfaas-externally-executed"), "");
}

#[actix_rt::test]
async fn a_connection_that_breaks_after_the_call_was_sent_is_403_and_no_second_run() {
    let (one, other) = (fresh_ip(), fresh_ip());
    let schedulers =
        [v1_scheduler(one, 0, |_| Reply::Close), v1_scheduler(other, 0, |_| Reply::Close)];
    let _discoveries = [v1_discovery(one), v1_discovery(other)];
    let node = node_knowing(&[one, other], "ForwardScheduler 1").await;
    let answered = post(&node.url("/function/fn-echo"), "hello").await;
    assert_eq!((answered.status, answered.code()), (500, 403));
    let message = answered.json()["message"].as_str().expect("text").to_owned();
    assert!(message.starts_with("Job cannot be forwarded to neighbor "), "{message}");
    let calls: usize = schedulers.iter().map(|scheduler| scheduler.requests().len()).sum();
    assert_eq!(calls, 1);
}

#[actix_rt::test]
async fn a_peer_that_answers_with_nothing_is_500_code_404() {
    for body in ["", "not json", r#"{"code":1,"message":"Generic Error"}"#] {
        let v1 = fresh_ip();
        let _scheduler = v1_scheduler(v1, 0, move |_| ok(body));
        let _discovery = v1_discovery(v1);
        let node = node_knowing(&[v1], "ForwardScheduler 1").await;
        let answered = post(&node.url("/function/fn-echo"), "hello").await;
        assert_eq!((answered.status, answered.code()), (500, 404), "{body:?}");
    }
}

#[actix_rt::test]
async fn a_peer_that_takes_too_long_is_500_code_403() {
    let v1 = fresh_ip();
    let _scheduler = v1_scheduler(v1, 0, |_| Reply::Hang);
    let _discovery = v1_discovery(v1);
    let node = TestNode::start(|settings| {
        settings.scheduler = "ForwardScheduler 1".to_owned();
        settings.init_servers = vec![v1.to_string()];
        settings.forward_timeout_s = 0.2;
    });
    let answered = post(&node.url("/function/fn-echo"), "hello").await;
    assert_eq!((answered.status, answered.code()), (500, 403));
}

#[actix_rt::test]
async fn hops_are_counted_truly_and_end_at_max_hops() {
    let nodes = cluster::<4>(|settings| settings.scheduler = "ForwardScheduler 3".to_owned()).await;
    let answered = post(&nodes[0].url("/function/fn-echo"), "hello").await;
    assert_eq!(answered.status, 200);
    let path = answered.names("x-p2pfaas-peers-list-ip");
    let hops: usize = answered.header("x-p2pfaas-hops").parse().expect("a number");
    assert_eq!(path.len(), hops + 1);
    assert_eq!(path[0], nodes[0].ip.to_string());
    assert!((1..=3).contains(&hops), "{path:?}");
    let at_the_end = json!({"hops": 3, "payload": "aGVsbG8="}).to_string();
    let answered = peer_call(&nodes[1], "fn-echo", at_the_end).await;
    assert_eq!(answered.json()["peers_list"].as_array().expect("a list").len(), 1, "not sent on");
}

#[actix_rt::test]
async fn a_call_that_was_here_before_is_not_sent_on_again() {
    let nodes = cluster::<2>(|settings| settings.scheduler = "ForwardScheduler 9".to_owned()).await;
    // By its list: it goes to no node that it has passed.
    let answered = post(&nodes[0].url("/function/fn-echo"), "hello").await;
    let path = answered.names("x-p2pfaas-peers-list-ip");
    let [one, other] = nodes.each_ref().map(|node| node.ip.to_string());
    assert_eq!(path, [one, other]);

    // By its tracing id: a v1 node in between drops the list, but carries the id.
    let v1 = fresh_ip();
    let node_ip = std::sync::Arc::new(std::sync::OnceLock::<std::net::Ipv4Addr>::new());
    let entry = std::sync::Arc::clone(&node_ip);
    let _scheduler = v1_scheduler(v1, 0, move |request| {
        let mut back = request.json();
        back["peers_list"] = Value::Null;
        back["headers"] = Value::Null;
        let url = format!("http://{}:18080/peer/function/fn-echo", entry.get().expect("set"));
        let tracing = request.header(&TRACING.to_lowercase());
        let returned = actix_rt::System::new().block_on(async move {
            send("POST", &url, &[MACHINE, (TRACING, &tracing)], back.to_string()).await
        });
        answer("200 OK", "", &returned.body)
    });
    let _discovery = v1_discovery(v1);
    let node = node_knowing(&[v1], "ForwardScheduler 9").await;
    node_ip.set(node.ip).expect("once");
    let answered = send("POST", &node.url("/function/fn-echo"), &[(TRACING, "n1t1")], "hi").await;
    assert_eq!((answered.status, &*answered.text()), (200, "hi"));
    assert_eq!(answered.header("x-p2pfaas-hops"), "1", "the v1 node adds nothing of its own here");
}

#[actix_rt::test]
async fn a_tracing_id_that_is_no_header_does_not_speak_against_the_peers() {
    let nodes = cluster::<2>(|settings| settings.scheduler = "ForwardScheduler 1".to_owned()).await;
    let message = json!({"service_id_tracing": "a\nb", "hops": 0, "payload": "aGVsbG8="});
    for _ in 0..5 {
        let answered = peer_call(&nodes[0], "fn-echo", message.to_string()).await;
        assert_eq!((answered.status, &*decoded(&answered)), (200, "hello"));
        assert_eq!(answered.json()["peers_list"].as_array().expect("a list").len(), 2, "forwarded");
    }
    assert_eq!(nodes[0].listed().await, [nodes[1].ip.to_string()]);
}

#[actix_rt::test]
async fn round_robin_goes_over_the_master_to_its_machines_in_turn() {
    let nodes = cluster::<3>(|_| {}).await;
    let master = nodes[0].ip;
    nodes[0].set_scheduler(&format!("RoundRobinWithMasterScheduler true {master} true")).await;
    for node in &nodes[1..] {
        node.set_scheduler(&format!("RoundRobinWithMasterScheduler false {master} true")).await;
    }
    let mut executing = Vec::new();
    for _ in 0..4 {
        let answered = post(&nodes[1].url("/function/fn-echo"), "hello").await;
        assert_eq!((answered.status, answered.header("x-p2pfaas-hops")), (200, "2"));
        let path = answered.names("x-p2pfaas-peers-list-ip");
        assert_eq!(path[..2], [nodes[1].ip.to_string(), master.to_string()]);
        assert_eq!(answered.header("x-p2pfaas-timing-probing-seconds-list"), "[0,0,0]");
        executing.push(path[2].clone());
    }
    let (one, other) = (nodes[1].ip.to_string(), nodes[2].ip.to_string());
    assert_eq!(executing, [one.clone(), other.clone(), one, other]);
    // As in 201: a client's own call to the master.
    let answered = post(&nodes[0].url("/function/fn-echo"), "hello").await;
    assert_eq!((answered.status, answered.code()), (500, 400));
}

#[actix_rt::test]
async fn a_master_that_cannot_be_reached_is_no_error() {
    for master in [fresh_ip().to_string(), "no.such.master.invalid".to_owned(), "%".to_owned()] {
        let node = TestNode::start(|_| {});
        node.set_scheduler(&format!("RoundRobinWithMasterScheduler false {master} true")).await;
        let answered = post(&node.url("/function/fn-echo"), "hello").await;
        assert_eq!((answered.status, &*answered.text()), (200, "hello"), "{master}");
    }
}

#[actix_rt::test]
async fn power_of_n_sends_calls_of_a_loaded_node_to_an_idle_one() {
    let nodes = cluster::<2>(|settings| {
        settings.scheduler = "PowerOfNScheduler 1 1 true 1".to_owned();
    })
    .await;
    let sleeper =
        actix_rt::spawn(send_owned(nodes[0].url("/function/fn-sleep?mean_ms=20000"), vec![BYPASS]));
    eventually("it runs", || async { (nodes[0].state().gate.load().running == 1).then_some(()) })
        .await;
    let answered = post(&nodes[0].url("/function/fn-echo"), "hello").await;
    let want = [nodes[0].ip.to_string(), nodes[1].ip.to_string()];
    assert_eq!(answered.names("x-p2pfaas-peers-list-ip"), want);
    sleeper.abort();
}

#[actix_rt::test]
async fn a_body_that_is_too_large_for_a_peer_runs_here() {
    let [small] = cluster::<1>(|settings| settings.body_bytes_max = Some(1 << 10)).await;
    let large = TestNode::start(|settings| {
        settings.init_servers = vec![small.ip.to_string()];
        settings.scheduler = "ForwardScheduler 1".to_owned();
    });
    large.lists(&[&small]).await;
    for bytes in [2 << 20, 8 << 20] {
        let body = vec![b'x'; bytes];
        let answered = post(&large.url("/function/fn-echo"), body.clone()).await;
        assert_eq!((answered.status, answered.body.len()), (200, bytes));
        assert_eq!(answered.header("x-p2pfaas-externally-executed"), "", "{bytes}");
    }
    assert_eq!(large.listed().await, [small.ip.to_string()], "nothing is said against the peer");
}
