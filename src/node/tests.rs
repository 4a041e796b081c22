use super::*;
use crate::actors::Crash;
use crate::actors::switch::SwapScheduler;
use crate::client::{Hosts, client};
use crate::policy::{Knowledge, NodeView, Policy, Step, Task};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// A node on an address that no other test program uses.
fn node(last: u8) -> (Node, IpAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let process = std::process::id();
    let ip = IpAddr::from([127, 100 + (process >> 8) as u8 % 100, process as u8, last]);
    let settings = Settings {
        host: ip,
        data_path: folder.path().to_owned(),
        workers: 1,
        embedded_functions: true,
        ..Settings::default()
    };
    let node = Node::start(settings, &FlagOverrides::default()).expect("it starts");
    (node, ip, folder)
}

async fn serves(ip: IpAddr) {
    let http = client(Duration::from_secs(30), Hosts::Any);
    let calls = [
        (format!("http://{ip}:18080/function/fn-echo"), "x"),
        (format!("http://{ip}:18080/configuration"), "{\"queue_length_max\":5}"),
        (
            format!("http://{ip}:18080/configuration/scheduler"),
            "{\"name\":\"NoScheduler\",\"parameters\":[\"false\"]}",
        ),
        (format!("http://{ip}:19000/configuration"), "{}"),
    ];
    for (url, body) in calls {
        let answer = http.post(&url).send_body(body).await;
        let status = answer.map(|answer| answer.status().as_u16());
        assert_eq!(status.map_err(|why| why.to_string()), Ok(200), "{url}");
    }
}

async fn restarted(node: &Node, actor: &str) {
    let line = format!("p2pfaas_actor_restarts_total{{actor=\"{actor}\",cause=\"panicked\"}} 1");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = node.state.metrics.render(Default::default(), 0, &Default::default(), &[]);
        if String::from_utf8_lossy(&text).contains(&line) {
            return;
        }
        assert!(Instant::now() < deadline, "{actor} was not restarted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix::test]
async fn a_node_goes_on_serving_when_its_queue_panics() {
    let (node, ip, _folder) = node(1);
    serves(ip).await;
    node.state.queue.addr().expect("runs").send(Crash).await.expect_err("it panics");
    serves(ip).await;
    restarted(&node, "queue").await;
    node.stop().await;
}

#[actix::test]
async fn a_node_goes_on_serving_when_its_switch_panics() {
    let (node, ip, _folder) = node(2);
    serves(ip).await;
    node.state.switch.addr().expect("runs").send(Crash).await.expect_err("it panics");
    serves(ip).await;
    restarted(&node, "switch").await;
    node.stop().await;
}

#[actix::test]
async fn a_node_goes_on_serving_when_its_discovery_panics() {
    let (node, ip, _folder) = node(3);
    serves(ip).await;
    node.state.discovery.addr().expect("runs").send(Crash).await.expect_err("it panics");
    serves(ip).await;
    restarted(&node, "discovery").await;
    node.stop().await;
}

#[actix::test]
async fn a_node_goes_on_serving_and_keeps_what_it_learnt_when_its_learner_panics() {
    let (node, ip, _folder) = node(6);
    serves(ip).await;
    let http = client(Duration::from_secs(5), Hosts::Any);
    let batch = r#"[{"eid":1,"state":"1","action":0,"reward":1},
        {"eid":2,"state":"1","action":0,"reward":1}]"#;
    let ask = |path: &str| format!("http://{ip}:19020{path}");
    let two = http.post(ask("/learner/parameters")).send_body(r#"{"window_size":2}"#).await;
    assert_eq!(two.expect("answered").status(), 200);
    let trained = http.post(ask("/train_batch")).send_body(batch).await;
    assert_eq!(trained.expect("answered").status(), 200);
    let weights = || async {
        let mut answer = http.get(ask("/learner/weights")).send().await.expect("answered");
        answer.body().await.expect("a body")
    };
    let before = weights().await;
    assert!(before.windows(4).any(|four| four == b"0.01"), "{before:?}");
    let learner = node.state.learning.learner.clone();
    learner.addr().expect("runs").send(Crash).await.expect_err("it panics");
    assert_eq!(weights().await, before);
    serves(ip).await;
    restarted(&node, "learner").await;
    node.stop().await;
}

#[actix::test]
async fn a_node_goes_on_serving_when_its_gateway_panics() {
    let (node, ip, _folder) = node(4);
    serves(ip).await;
    let long = actix_rt::spawn(async move {
        let url = format!("http://{ip}:18080/function/fn-sleep?mean_ms=500");
        let http = client(Duration::from_secs(5), Hosts::Any);
        http.post(url).send_body("x").await.map(|answer| answer.status().as_u16()).ok()
    });
    while node.state.gate.load().running == 0 {
        tokio::task::yield_now().await;
    }
    node.gateway.addr().expect("runs").send(Crash).await.expect_err("it panics");
    // The socket stays open, so calls made meanwhile wait for the next incarnation.
    serves(ip).await;
    restarted(&node, "gateway").await;
    assert_eq!(long.await.expect("joins"), Some(200), "what ran goes on");
    node.stop().await;
}

#[actix::test]
async fn a_node_goes_on_serving_when_its_scheduler_panics() {
    struct PanicsOnce(AtomicBool);
    impl Policy for PanicsOnce {
        fn name(&self) -> &'static str {
            "PanicsOnce"
        }
        fn parameters(&self) -> Vec<String> {
            Vec::new()
        }
        fn next(&self, _: &Task, _: NodeView<'_>, _: &Knowledge, _: &mut dyn rand::Rng) -> Step {
            assert!(self.0.swap(true, Ordering::SeqCst), "on purpose, once");
            Step::run_here()
        }
    }
    let (node, ip, _folder) = node(5);
    let policy = Arc::new(PanicsOnce(AtomicBool::new(false)));
    let swap = || SwapScheduler(policy.clone());
    node.state.switch.ask(swap).await.expect("runs").expect("saved");
    serves(ip).await;
    restarted(&node, "scheduler").await;
    node.stop().await;
}

#[test]
fn a_node_listens_on_the_address_that_it_tells_others() {
    let (all, ours) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from([10, 0, 0, 1]));
    let six = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(listened(all, None), all);
    assert_eq!(listened(all, Some(ours)), all);
    assert_eq!(listened(all, Some(six)), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    assert_eq!(listened(ours, Some(six)), ours, "an operator's word");
    // All of IPv6 is all of IPv4, too.
    let listener = crate::http::server::bind(Ipv6Addr::UNSPECIFIED.into(), 0).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    for host in [IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)] {
        assert!(std::net::TcpStream::connect((host, port)).is_ok(), "{host}");
    }
}
