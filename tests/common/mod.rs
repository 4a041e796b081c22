//! What the integration tests share: nodes on addresses of their own, calls to them, and servers
//! that say exactly what a test wants.
#![allow(dead_code)]
#![expect(clippy::disallowed_methods, reason = "what is tested goes on in real time")]

pub mod process;
pub mod raw;
pub mod tls;
pub mod websocket;
pub mod wire;

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use p2pfaas::config::Settings;
use p2pfaas::node::Node;
use p2pfaas::policy::registry::SchedulerSpec;
use p2pfaas::saved::FlagOverrides;

/// Nothing in a test takes longer unless the node is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A loopback address that no other test uses now: the middle is the process', the end is counted.
pub fn fresh_ip() -> Ipv4Addr {
    let [ip] = fresh_ips();
    ip
}

/// Such addresses, one after another.
pub fn fresh_ips<const N: usize>() -> [Ipv4Addr; N] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let end = NEXT.fetch_add(N as u8, Ordering::Relaxed);
    assert!(usize::from(end) + N < 255, "too many addresses in one test program");
    let process = std::process::id();
    let middle = [(process >> 8) as u8, process as u8];
    // 127.0.x.y is left to people and to other programs.
    let first = if middle[0] == 0 { 200 } else { middle[0] };
    std::array::from_fn(|n| Ipv4Addr::new(127, first, middle[1], end + n as u8))
}

/// Polls `look` until it gives something, or fails the test.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What was last saved of the model in a data path, its values aside: the journal's last line, or the
/// model where there is no journal. `None`: nothing, or it is being written.
pub fn last_saved(folder: &Path) -> Option<serde_json::Value> {
    let model = std::fs::read_to_string(folder.join("p2pfaas_learner-model.json")).ok()?;
    match std::fs::read_to_string(folder.join("p2pfaas_learner-model.journal")) {
        Ok(journal) => serde_json::from_str(journal.lines().last()?.split_once(' ')?.1).ok(),
        Err(_) => Some(serde_json::from_str(&model).expect("whole at any instant")),
    }
}

/// A node in this process, on an address of its own, with its files in a temporary folder.
pub struct TestNode {
    pub ip: Ipv4Addr,
    pub node: Option<Node>,
    pub settings: Settings,
    pub folder: tempfile::TempDir,
}

impl TestNode {
    /// Quick polls, embedded functions, one worker; `change` sets the rest.
    pub fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ip = fresh_ip();
        let mut settings = Settings {
            host: ip.into(),
            data_path: folder.path().to_owned(),
            workers: 1,
            embedded_functions: true,
            poll_time_s: 0.1,
            poll_timeout_s: 1.0,
            scheduler: "NoScheduler false".to_owned(),
            drain_timeout_s: 5,
            ..Settings::default()
        };
        change(&mut settings);
        let node = Node::start(settings.clone(), &FlagOverrides::default()).expect("it starts");
        Self { ip, node: Some(node), settings, folder }
    }

    /// The same node once more, after it was stopped.
    pub fn start_again(&mut self) {
        let node = Node::start(self.settings.clone(), &FlagOverrides::default());
        self.node = Some(node.expect("it starts again"));
    }

    pub async fn stop(&mut self) {
        self.node.take().expect("it runs").stop().await;
    }

    pub fn state(&self) -> &p2pfaas::call::state::NodeState {
        &self.node.as_ref().expect("it runs").state
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}:18080{path}", self.ip)
    }

    pub fn discovery(&self, path: &str) -> String {
        format!("http://{}:19000{path}", self.ip)
    }

    pub fn learner(&self, path: &str) -> String {
        format!("http://{}:19020{path}", self.ip)
    }

    /// Posts learner parameters, which must be good.
    pub async fn set_learner(&self, parameters: serde_json::Value) {
        let answer = post(&self.learner("/learner/parameters"), parameters.to_string()).await;
        assert_eq!((answer.status, answer.text()), (200, String::new()));
    }

    pub async fn learner_stats(&self) -> serde_json::Value {
        get(&self.learner("/learner/stats")).await.json()
    }

    pub fn id(&self) -> String {
        format!("p2pfaas-{}", self.ip)
    }

    /// The addresses that the node lists as alive.
    pub async fn listed(&self) -> Vec<String> {
        let machines = get(&self.discovery("/list")).await.json();
        let machines = machines.as_array().expect("a list").clone();
        machines.iter().map(|m| m["ip"].as_str().expect("an ip").to_owned()).collect()
    }

    pub async fn lists(&self, others: &[&TestNode]) {
        let mut want: Vec<String> = others.iter().map(|node| node.ip.to_string()).collect();
        want.sort();
        eventually("the nodes know each other", || async {
            let mut listed = self.listed().await;
            listed.sort();
            (listed == want).then_some(())
        })
        .await;
    }

    pub async fn set_scheduler(&self, words: &str) {
        let spec = serde_json::to_string(&SchedulerSpec::from_words(words)).expect("JSON");
        let answer = post(&self.url("/configuration/scheduler"), spec).await;
        assert_eq!((answer.status, answer.text()), (200, String::new()));
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

/// Nodes that all know each other.
pub async fn cluster<const N: usize>(change: impl Fn(&mut Settings)) -> [TestNode; N] {
    let mut known: Vec<String> = Vec::new();
    let nodes: [TestNode; N] = std::array::from_fn(|_| {
        let node = TestNode::start(|settings| {
            settings.init_servers = known.clone();
            change(settings);
        });
        known.push(node.ip.to_string());
        node
    });
    for node in &nodes {
        let others: Vec<&TestNode> = nodes.iter().filter(|other| other.ip != node.ip).collect();
        node.lists(&others).await;
    }
    nodes
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: awc::http::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answered {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.text()))
    }

    /// The error code of an error answer.
    pub fn code(&self) -> u64 {
        self.json()["code"].as_u64().unwrap_or_else(|| panic!("no code: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// A header that is a JSON list of numbers.
    pub fn times(&self, name: &str) -> Vec<f64> {
        serde_json::from_str(self.header(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// A header that is a JSON list of strings.
    pub fn names(&self, name: &str) -> Vec<String> {
        serde_json::from_str(self.header(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
    }
}

pub fn client() -> awc::Client {
    p2pfaas::client::client(Duration::from_secs(5), p2pfaas::client::Hosts::Any)
}

pub type Failed = Box<dyn std::error::Error>;

/// Sends a request and reads the answer.
pub async fn try_send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> Result<Answered, Failed> {
    send_patiently(method, url, headers, body, PATIENCE).await
}

/// The same with a time of its own until the answer begins.
pub async fn send_patiently(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
    patience: Duration,
) -> Result<Answered, Failed> {
    let method = awc::http::Method::from_bytes(method.as_bytes())?;
    let mut request = client().request(method, url);
    for header in headers {
        request = request.append_header(*header);
    }
    let sent = request.send_body(body.into());
    let mut response =
        tokio::time::timeout(patience, sent).await?.map_err(|why| why.to_string())?;
    let body = response.body().limit(64 << 20).await?.to_vec();
    Ok(Answered { status: response.status().as_u16(), headers: response.headers().clone(), body })
}

pub async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> Answered {
    try_send(method, url, headers, body).await.unwrap_or_else(|why| panic!("{method} {url}: {why}"))
}

pub async fn get(url: &str) -> Answered {
    send("GET", url, &[], "").await
}

pub async fn post(url: &str, body: impl Into<bytes::Bytes>) -> Answered {
    send("POST", url, &[], body).await
}

pub const BYPASS: (&str, &str) = ("X-P2pfaas-Scheduler-Bypass", "1");
pub const FORWARD: (&str, &str) = ("X-P2pfaas-Scheduler-Forward", "1");
pub const REJECT: (&str, &str) = ("X-P2pfaas-Scheduler-Reject", "1");
pub const TRACING: &str = "X-P2pfaas-Scheduler-Task-Tracing-Id";
pub const MACHINE: (&str, &str) = ("User-Agent", "Machine");

/// A recording as it is.
pub fn recording(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1-wire").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// The part of a recording that was answered, from its status line on, without curl's last line.
pub fn golden(name: &str) -> String {
    let text = recording(name);
    let start = text.find("HTTP/1.1 ").expect("a status line");
    text[start..].trim_end().trim_end_matches("[curl exit 0]").trim_end().to_owned()
}

/// The JSON body of a recording.
pub fn golden_json(name: &str) -> serde_json::Value {
    let text = golden(name);
    let body = text.lines().last().expect("a body");
    serde_json::from_str(body).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// The status of a recording.
pub fn golden_status(name: &str) -> u16 {
    golden(name)["HTTP/1.1 ".len()..][..3].parse().expect("a status")
}
