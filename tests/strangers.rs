//! What strangers may send to a small node: it stays inside 64 MiB, goes on answering others, and is
//! not changed. The node is a process of its own under that limit; its memory is read from outside.

#![expect(clippy::disallowed_methods, reason = "what is tested goes on in real time")]

mod common;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::process::Process;
use common::{fresh_ip, get, post, send};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const LIMIT_BYTES: u64 = 64 << 20;
/// How long each kind of stranger goes on.
const SIEGE: Duration = Duration::from_secs(4);
/// Calls a second of good clients, over kept connections and over new ones.
const KEPT_RATE: u64 = 150;
const FRESH_RATE: u64 = 50;
const KEPT: usize = 6;

/// One siege at a time: each takes what the machine has.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    ALONE.lock().await
}

/// A control group of this test's own with that limit, where the machine lets us make one.
fn limited_group(name: &str) -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let line = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()?.split(',').any(|c| c == wanted)).then(|| parts.next())?
        })
    };
    let (mount, file, path) = match line("memory") {
        Some(path) => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path),
        None => ("/sys/fs/cgroup", "memory.max", line("")?),
    };
    let group = Path::new(mount).join(path.trim_start_matches('/')).join(name);
    std::fs::create_dir(&group).ok()?;
    let limited = std::fs::write(group.join(file), LIMIT_BYTES.to_string());
    limited.map(|()| group.clone()).inspect_err(|_| drop(std::fs::remove_dir(&group))).ok()
}

/// A node that may have 64 MiB.
struct Small {
    ip: Ipv4Addr,
    node: Process,
    group: Option<PathBuf>,
    folder: tempfile::TempDir,
}

impl Small {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ip = fresh_ip();
        let group = limited_group(&format!("p2pfaas-{}-{}", std::process::id(), ip.octets()[3]));
        Self { node: Self::run(ip, group.as_deref(), folder.path()), ip, group, folder }
    }

    fn run(ip: Ipv4Addr, group: Option<&Path>, folder: &Path) -> Process {
        let enter = match group {
            Some(group) => format!("echo $$ > {}/cgroup.procs", group.display()),
            // Without groups the process' own limit stands in.
            None => format!("ulimit -d {}", LIMIT_BYTES >> 10),
        };
        let (host, path) = (ip.to_string(), folder.display().to_string());
        let mut node = Process::start_in_shell(
            &enter,
            &[
                "node",
                "--host",
                &host,
                "--data-path",
                &path,
                "--workers",
                "2",
                "--embedded-functions",
                "--scheduler",
                "NoScheduler false",
            ],
        );
        node.wait_for("the node serves");
        node
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}:18080{path}", self.ip)
    }

    /// Bytes of memory of its own that it holds now; `None`: it is gone.
    fn anonymous_bytes(pid: u32) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.node.kill();
        if let Some(group) = &self.group {
            // Its last process may take a moment to leave.
            let deadline = Instant::now() + common::PATIENCE;
            while std::fs::remove_dir(group).is_err() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }
}

/// How often a good client asks whose connection was closed before anything of an answer came, or who
/// was told to try again: a kept connection may be closed at any time, and a new one where thousands
/// wait before it.
const TRIES: usize = 3;

/// Good clients, who do as clients do.
struct Good {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Good {
    fn start(ip: Ipv4Addr) -> Self {
        let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |n: usize| {
            let (kept, rate) = match n < KEPT {
                true => (true, KEPT_RATE / KEPT as u64),
                false => (false, FRESH_RATE),
            };
            let (ends, answered) = (Arc::clone(&ends), Arc::clone(&answered));
            actix_rt::spawn(async move {
                let mut time = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
                let (mut stream, mut failures) = (None, Vec::new());
                while !ends.load(Ordering::Relaxed) {
                    time.tick().await;
                    let mut called = call(ip, &mut stream).await;
                    for _ in 1..TRIES {
                        let again = |why: &String| {
                            why.starts_with("closed") || why.starts_with("HTTP/1.1 429")
                        };
                        if called.as_ref().is_err_and(again) {
                            called = call(ip, &mut stream).await;
                        }
                    }
                    match called {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(why) => failures.push(why),
                    }
                    stream = stream.filter(|_| kept);
                }
                failures
            })
        };
        let clients = (0..=KEPT).map(client).collect();
        Self { ends, answered, clients }
    }

    async fn end(self) -> (u64, Vec<String>) {
        self.ends.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.expect("joins"));
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

/// One small call, on the connection that there is or a new one.
async fn call(ip: Ipv4Addr, kept: &mut Option<TcpStream>) -> Result<(), String> {
    let called = timeout(common::PATIENCE, async {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => TcpStream::connect((ip, 18080)).await.map_err(|why| why.to_string())?,
        };
        let request =
            "POST /function/fn-echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
        let closed = |why: std::io::Error| format!("closed: {why}");
        stream.write_all(request.as_bytes()).await.map_err(closed)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nhello") {
            if stream.read_buf(&mut answer).await.map_err(closed)? == 0 {
                let text = String::from_utf8_lossy(&answer).into_owned();
                return Err(if text.is_empty() { "closed".to_owned() } else { text });
            }
            if answer.len() > 4096 || answer.starts_with(b"HTTP/1.1 4") {
                return Err(String::from_utf8_lossy(&answer).into_owned());
            }
        }
        *kept = Some(stream);
        Ok(())
    });
    called.await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// What a stranger does on a connection.
#[derive(Clone)]
struct Stranger {
    port: u16,
    /// What it sends at first.
    sends: Arc<[u8]>,
    /// What it goes on sending, every so many milliseconds.
    drips: Option<(Arc<[u8]>, u64)>,
    reads: bool,
    hangs_up: bool,
}

impl Stranger {
    fn new(sends: impl Into<Vec<u8>>) -> Self {
        Self { port: 18080, sends: sends.into().into(), drips: None, reads: true, hangs_up: false }
    }

    fn dripping(self, byte: &str, every_ms: u64) -> Self {
        Self { drips: Some((byte.as_bytes().into(), every_ms)), ..self }
    }

    /// Comes back whenever its connection has ended, until `end`.
    async fn goes_on(self, ip: Ipv4Addr, end: Instant) {
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let _ = timeout(left, self.once(ip)).await;
            // A pause, as each of many on one machine has.
            let _ = timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
        }
    }

    async fn once(&self, ip: Ipv4Addr) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        if !self.reads {
            socket.set_recv_buffer_size(4096)?;
        }
        let mut stream = socket.connect((ip, self.port).into()).await?;
        stream.write_all(&self.sends).await?;
        if let Some((byte, every_ms)) = &self.drips {
            let mut time = tokio::time::interval(Duration::from_millis(*every_ms));
            loop {
                time.tick().await;
                stream.write_all(byte).await?;
            }
        }
        if self.hangs_up {
            return Ok(());
        }
        if !self.reads {
            std::future::pending::<()>().await;
        }
        let mut answer = [0; 4096];
        while stream.read(&mut answer).await? > 0 {}
        Ok(())
    }
}

/// Lays siege to a small node with that many of each kind; nobody else's calls may fail meanwhile.
/// Answers the most bytes of memory that it held.
async fn siege(strangers: Vec<(usize, Stranger)>) -> u64 {
    let small = Small::start();
    let pid = small.node.id();
    let good = Good::start(small.ip);
    let end = Instant::now() + SIEGE;
    // On threads of their own: what strangers do must not slow down those who watch.
    let ip = small.ip;
    let besiege = actix_rt::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let all: Vec<_> = strangers
                .into_iter()
                .flat_map(|(many, stranger)| std::iter::repeat_n(stranger, many))
                .map(|stranger| tokio::spawn(stranger.goes_on(ip, end)))
                .collect();
            for stranger in all {
                let _ = stranger.await;
            }
        });
    });
    let mut peak = 0;
    while !besiege.is_finished() {
        peak = peak.max(Small::anonymous_bytes(pid).expect("the node is gone"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    besiege.await.expect("joins");
    let (answered, failures) = good.end().await;
    assert!(failures.is_empty(), "{} of {answered}: {:?}", failures.len(), &failures[..1]);
    assert!(answered > 100, "{answered} calls");
    assert!(peak < LIMIT_BYTES, "{peak} bytes");
    // And it is as it was.
    assert_eq!(post(&small.url("/function/fn-echo"), "x").await.status, 200);
    assert_eq!(get(&small.url("/health")).await.status, 200);
    peak
}

fn upload(path: &str, bytes: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n")
}

fn chunked(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn half_head(bytes: usize) -> String {
    format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(bytes))
}

#[actix_rt::test]
async fn idle_connections_and_half_heads() {
    let _alone = alone().await;
    let kept = format!("GET / HTTP/1.1\r\nHost: x\r\n\r\n{}", half_head(100_000));
    siege(vec![
        (3000, Stranger::new("")),
        (300, Stranger::new(half_head(120_000))),
        (300, Stranger::new(kept)),
    ])
    .await;
}

#[actix_rt::test]
async fn bodies_that_are_announced_and_do_not_come() {
    let _alone = alone().await;
    let announced = upload("/function/fn-echo", 2 << 20) + &"x".repeat(70);
    siege(vec![
        (33, Stranger::new(announced.clone())),
        (33, Stranger::new(announced).dripping("x", 40)),
        (100, Stranger::new(upload("/configuration", 60_000)).dripping("x", 40)),
        (100, Stranger::new(upload("/function/fn-echo", 100 << 20)).dripping("x", 40)),
    ])
    .await;
}

#[actix_rt::test]
async fn bodies_in_chunks_that_do_not_end() {
    let _alone = alone().await;
    let one_byte_each = chunked("/configuration") + &"1\r\nx\r\n".repeat(20_000);
    siege(vec![
        (1000, Stranger::new(chunked("/function/fn-echo") + "5\r\nhello\r\n")),
        (50, Stranger::new(one_byte_each)),
        (200, Stranger::new(chunked("/") + "1\r\nx\r\n").dripping("1\r\nx\r\n", 100)),
    ])
    .await;
}

#[actix_rt::test]
async fn batches_whose_clients_hang_up_as_soon_as_they_are_sent() {
    let _alone = alone().await;
    let entry = r#"{"eid":1,"state":"1","action":0,"reward":1}"#;
    let batch = format!("[{}]", vec![entry; 47_000].join(","));
    let sends = upload("/train_batch", batch.len()) + &batch;
    let gone = Stranger { port: 19020, hangs_up: true, ..Stranger::new(sends) };
    let peak = siege(vec![(40, gone)]).await;
    // As many as there are turns, whoever is still there: some 33 MiB, and more than 50 without turns.
    assert!(peak < 44 << 20, "{peak} bytes");
}

#[actix_rt::test]
async fn answers_that_nobody_reads() {
    let _alone = alone().await;
    let large = upload("/function/fn-echo", 1 << 20) + &"x".repeat(1 << 20);
    let unread = |sends: String| Stranger { reads: false, ..Stranger::new(sends) };
    siege(vec![
        (100, unread(large)),
        (300, unread("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4))),
        (20, unread("GET /metrics HTTP/1.1\r\nHost:\r\n\r\n".repeat(3900))),
    ])
    .await;
}

#[actix_rt::test]
async fn sessions_that_are_idle_and_frames_without_end() {
    let _alone = alone().await;
    let session = |frames: &[u8]| {
        let stranger = Stranger::new([UPGRADE.as_bytes(), frames].concat());
        Stranger { port: 8765, ..stranger }
    };
    let huge = [&b"\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00mask"[..], &[0; 1 << 20]].concat();
    let pings = b"\x89\x80mask".repeat(20_000);
    siege(vec![
        (500, session(b"")),
        (8, session(&huge)),
        (50, Stranger { reads: false, ..session(&pings) }),
        (50, Stranger { reads: false, ..session(&b"\x81\x83mask6\x5d\x2e".repeat(20_000)) }),
    ])
    .await;
}

#[actix_rt::test]
async fn ten_thousand_of_all_kinds() {
    let _alone = alone().await;
    // As many as the test may open.
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
    let share = |of: usize| of.min(most as usize / 5);
    let large = upload("/function/fn-echo", 300 << 10) + &"x".repeat(300 << 10);
    siege(vec![
        (share(4000), Stranger::new("")),
        (share(2500), Stranger::new(half_head(60_000))),
        (share(2500), Stranger::new(upload("/function/fn-echo", 2000)).dripping("x", 500)),
        (share(1000), Stranger { reads: false, ..Stranger::new(large) }),
    ])
    .await;
}

#[actix_rt::test]
async fn messages_that_become_more_than_they_are() {
    let _alone = alone().await;
    let small = Small::start();
    let pid = small.node.id();
    let machine = [common::MACHINE];
    let objects = |n: usize| vec!["{}"; n].join(",");
    let peer = small.url("/peer/function/fn-echo");
    for body in [
        format!(r#"{{"peers_list":[{}]}}"#, objects(600_000)),
        format!(r#"{{"x":[{}]}}"#, objects(600_000)),
        format!(r#"{{"headers":{{{}}}}}"#, vec![r#""a":"""#; 200_000].join(",")),
        format!(r#"{{"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000)),
        format!(r#"{{"peers_list":"{}"}}"#, "\u{7f}".repeat(120_000)),
        format!(r#"{{"hops":{}}}"#, "1".repeat(1 << 20)),
    ] {
        for answered in futures_util::future::join_all(
            (0..4).map(|_| send("POST", &peer, &machine, body.clone())),
        )
        .await
        {
            assert!([400, 413, 500].contains(&answered.status), "{}", answered.status);
            assert!(answered.body.len() < 4096);
            let hops = answered.json()["peers_list"].as_array().map(Vec::len);
            assert_eq!(hops, Some(1), "a v1 node ends itself without");
        }
        assert!(Small::anonymous_bytes(pid).expect("alive") < LIMIT_BYTES);
    }
    // Names that are none: the list is told, but nobody is on it, neither now nor after a restart.
    let list = format!("http://{}:19000/list", small.ip);
    for n in 0..100 {
        let (name, ip) = (format!("{n}-{}", "a".repeat(100_000)), format!("10.1.0.{n}"));
        let headers = [
            common::MACHINE,
            ("p2pfaas-machine-ip", &*ip),
            ("p2pfaas-machine-name", &*name),
            ("p2pfaas-machine-group-name", "g"),
        ];
        let answered = send("GET", &list, &headers, "").await;
        assert_eq!((answered.status, answered.text()), (200, "[]".to_owned()));
    }
    assert!(Small::anonymous_bytes(pid).expect("alive") < LIMIT_BYTES);
    let saved = small.folder.path().join("p2pfaas-machines.json");
    assert!(std::fs::metadata(saved).map_or(0, |file| file.len()) < 1 << 20);
}
