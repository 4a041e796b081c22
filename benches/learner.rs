//! What learning costs: training, decisions, the WebSocket, whole calls. See benches/README.md.
//!
//! `cargo bench --bench learner` prints every figure beside its bar. Traffic stays on 127.0.0.1 at
//! ports of its own; `ROUNDS` (5) sets how many alternating rounds the medians are taken over.

#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, StreamHandler};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_web_actors::ws;
use p2pfaas::actors::learner::hub::LocalLearner;
use p2pfaas::actors::scheduler::{Advice, Adviser};
use p2pfaas::config::Settings;
use p2pfaas::node::Node;
use p2pfaas::policy::{Question, Task};
use p2pfaas::rl::Entry;
use p2pfaas::rl::learner::Learner;
use p2pfaas::rl::parameters::Parameters;
use p2pfaas::saved::FlagOverrides;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

const IP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SCHEDULER: u16 = 28080;
const LEARNER: u16 = 29020;
const WEBSOCKET: u16 = 28765;
const ECHO: u16 = 28766;
const HANDLER: u16 = 28767;

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

fn quantile(times: &mut [f64], q: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * q) as usize]
}

fn median(mut of: Vec<f64>) -> f64 {
    quantile(&mut of, 0.5)
}

fn show(what: &str, figure: String, bar: &str, met: bool) {
    let met = if met { "met" } else { "MISSED" };
    println!("{what:<66} {figure:>22}   bar {bar}: {met}");
}

/// Entries as a node's traffic gives them: 14 actions, 5 state features, 1024 states.
fn entries(n: u64, seed: u64) -> Vec<Entry> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let entry = |eid| Entry {
        eid,
        state: std::array::from_fn::<_, 5, _>(|_| f64::from(rng.random_range(0..4u8)))[..].into(),
        action: rng.random_range(0..14),
        reward: f64::from(rng.random_range(0..2u8)),
    };
    (1..=n).map(entry).collect()
}

/// Nanoseconds an entry for training on `entries` in the order given.
fn train(entries: Vec<Entry>) -> f64 {
    let parameters = Parameters {
        actions_n: 14,
        entry_missing_max_attempts: u64::MAX,
        entries_held_max: 1 << 20,
        ..Parameters::default()
    };
    let (n, mut learner) = (entries.len(), Learner::new(parameters));
    let start = Instant::now();
    entries.into_iter().for_each(|entry| learner.take(entry));
    let took = start.elapsed();
    let counters = learner.snapshot().counters;
    assert!(counters.trained_items + 10 >= n as u64 && counters.late == 0, "{counters:?}");
    took.as_nanos() as f64 / n as f64
}

/// Entries that come in order at first, so that the window has a start to hold others to.
const BEGINNING: usize = 10;

/// The first entry of each block of `held` + 1 comes last, so that `held` wait for it.
fn stragglers(mut entries: Vec<Entry>, held: usize) -> Vec<Entry> {
    entries[BEGINNING..].chunks_mut(held + 1).for_each(|block| block.rotate_left(1));
    entries
}

fn shuffled(mut entries: Vec<Entry>, held: usize) -> Vec<Entry> {
    let mut rng = SmallRng::seed_from_u64(9);
    entries[BEGINNING..].chunks_mut(held + 1).for_each(|block| block.shuffle(&mut rng));
    entries
}

fn library() {
    const N: u64 = 1_000_000;
    type Order = fn(Vec<Entry>, usize) -> Vec<Entry>;
    let mut costs: [Vec<f64>; 5] = Default::default();
    let orders: [(Order, usize); 5] = [
        (|entries, _| entries, 0),
        (stragglers, 10),
        (stragglers, 100_000),
        (shuffled, 10),
        (shuffled, 100_000),
    ];
    for round in 0..rounds() as u64 {
        for (costs, (order, held)) in costs.iter_mut().zip(orders) {
            costs.push(train(order(entries(N, round), held)));
        }
    }
    let [in_order, straggler_10, straggler_100k, shuffled_10, shuffled_100k] = costs.map(median);
    let rate = 1e3 / in_order;
    show(
        "training in the library, one core",
        format!("{rate:.2} M entries/s"),
        ">= 1",
        rate >= 1.0,
    );
    for (what, few, many) in [
        ("one straggler in", straggler_10, straggler_100k),
        ("shuffled within", shuffled_10, shuffled_100k),
    ] {
        let ratio = many / few;
        show(
            &format!("{what} 100 000 held against 10: {many:.0} ns, {few:.0} ns an entry"),
            format!("{ratio:.2} x"),
            "<= 1.5",
            ratio <= 1.5,
        );
    }
}

/// An HTTP client by the byte, so that it costs little beside what is measured.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(SocketAddr::new(IP.into(), port)).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        Self(BufReader::new(stream))
    }

    fn request(&mut self, request: &[u8]) -> Vec<u8> {
        self.0.get_mut().write_all(request).expect("sent");
        let (mut line, mut length, mut status) = (String::new(), 0, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("a head");
            if status.is_empty() {
                status.clone_from(&line);
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        assert!(status.starts_with("HTTP/1.1 200"), "{status}: {}", String::from_utf8_lossy(&body));
        body
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

fn once(port: u16, path: &str, body: &str) {
    Connection::open(port).request(&post(path, body));
}

/// Microseconds of each of `n` round trips.
fn timed(n: usize, mut trip: impl FnMut()) -> Vec<f64> {
    (0..n / 10).for_each(|_| trip());
    let one = |_| {
        let start = Instant::now();
        trip();
        start.elapsed().as_nanos() as f64 / 1e3
    };
    (0..n).map(one).collect()
}

/// Batches of 100 entries, as a training client sends them.
fn batches(n: u64, first: u64) -> Vec<Vec<u8>> {
    let mut all = entries(n * 100, 3);
    all.iter_mut().for_each(|entry| entry.eid += first);
    let text = |entry: &Entry| {
        let state: Vec<String> = entry.state.iter().map(|x| format!("{x:.6}")).collect();
        format!(
            r#"{{"eid":"{}","state":"{}","action":"{}.000000","reward":{:?}}}"#,
            entry.eid,
            state.join(","),
            entry.action,
            entry.reward,
        )
    };
    let batch = |entries: &[Entry]| {
        let texts: Vec<String> = entries.iter().map(text).collect();
        post("/train_batch", &format!("[{}]", texts.join(",")))
    };
    all.chunks(100).map(batch).collect()
}

/// Entries a second over HTTP from `clients` at once.
fn train_over_http(clients: u64) -> f64 {
    const BATCHES: u64 = 2000;
    // The flood has EIDs that no decision gave.
    let parameters = r#"{"actions_n":14,"window_size":5,"eids_ahead_max":4398046511104}"#;
    once(LEARNER, "/learner/parameters", parameters);
    Connection::open(LEARNER).request(b"GET /learner/reset HTTP/1.1\r\nHost: x\r\n\r\n");
    let bodies: Vec<_> = batches(BATCHES, 0);
    let next = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut connection = Connection::open(LEARNER);
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    connection.request(body);
                }
            });
        }
    });
    (BATCHES * 100) as f64 / start.elapsed().as_secs_f64()
}

/// A WebSocket client's round trips, in microseconds.
fn websocket(port: u16, n: usize) -> Vec<f64> {
    let mut stream = Connection::open(port).0;
    let shake = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.get_mut().write_all(shake.as_bytes()).expect("sent");
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a head");
    }
    let question = b"[1.000000,0.000000,2.000000,0.000000,1.000000]";
    let frame = [&[0x81, 0x80 | question.len() as u8, 0, 0, 0, 0][..], question].concat();
    timed(n, || {
        stream.get_mut().write_all(&frame).expect("sent");
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("answered");
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload).expect("answered");
    })
}

/// A bare echo on the same stack.
struct Echo;

impl Actor for Echo {
    type Context = ws::WebsocketContext<Self>;
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Echo {
    fn handle(&mut self, m: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match m {
            Ok(ws::Message::Text(text)) => ctx.text(text),
            _ => ctx.stop(),
        }
    }
}

async fn echo(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    ws::start(Echo, &request, payload).expect("a handshake")
}

/// What a decision takes inside an HTTP handler, in nanoseconds.
type Taken = Arc<Mutex<Vec<f64>>>;

struct Deciding {
    learner: Rc<LocalLearner>,
    rng: std::cell::RefCell<SmallRng>,
    taken: Taken,
}

async fn decide(deciding: web::Data<Rc<Deciding>>) -> HttpResponse {
    let (advice, took) = {
        let rng = &mut *deciding.rng.borrow_mut();
        let start = Instant::now();
        let state = [1.0, 0.0, 2.0, 0.0, 1.0][..].into();
        let question = Question { state, possible: 14, here: 1 };
        (deciding.learner.advise(question, &Task::default(), rng), start.elapsed())
    };
    if let Advice::Later(later) = advice {
        later.await;
    } else {
        deciding.taken.lock().expect("whole").push(took.as_nanos() as f64);
    }
    HttpResponse::Ok().body("ok")
}

/// Median and 99th percentile of decisions inside a handler, in microseconds.
fn decisions(taken: &Taken, n: usize) -> (f64, f64) {
    let mut connection = Connection::open(HANDLER);
    taken.lock().expect("whole").clear();
    for _ in 0..n {
        connection.request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let mut taken = std::mem::take(&mut *taken.lock().expect("whole"));
    (quantile(&mut taken, 0.5) / 1e3, quantile(&mut taken, 0.99) / 1e3)
}

/// Makes "run here" the best action in every state that calls find the node in.
fn learn_to_run_here(then_rewarded_by_the_node: bool) {
    let parameters = r#"{"actions_n":14,"td_form":"q_learning","gamma":0,"alpha":1,"window_size":2,
        "epsilon_start":0,"epsilon_min":0,"reward":{"source":"client"}}"#;
    once(LEARNER, "/learner/parameters", parameters);
    Connection::open(LEARNER).request(b"GET /learner/reset HTTP/1.1\r\nHost: x\r\n\r\n");
    let states = (0..9).flat_map(|running| (0..9).map(move |waiting| (running, waiting)));
    let entries: Vec<String> = states
        .enumerate()
        .map(|(n, (running, waiting))| {
            format!(
                r#"{{"eid":{},"state":[0,{running},0,{waiting},0],"action":1,"reward":1}}"#,
                n + 1
            )
        })
        .collect();
    once(LEARNER, "/train_batch", &format!("[{}]", entries.join(",")));
    if then_rewarded_by_the_node {
        let reward = r#"{"window_size":5,"reward":{"source":"node","deadlines_s":[10]}}"#;
        once(LEARNER, "/learner/parameters", reward);
    }
}

/// The median of whole calls, in microseconds, at `connections` at once.
fn calls(connections: usize, n: usize) -> f64 {
    let request = post("/function/fn-echo", "hello");
    let times: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(SCHEDULER);
                    timed(n / connections, || {
                        connection.request(&request);
                    })
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("joins")).collect()
    });
    median(times)
}

fn use_scheduler(name: &str, parameter: &str) {
    let body = format!(r#"{{"name":"{name}","parameters":["{parameter}"]}}"#);
    once(SCHEDULER, "/configuration/scheduler", &body);
}

#[expect(clippy::too_many_lines, reason = "a list of what is measured")]
fn over_the_network(taken: &Taken) {
    let rate = |clients| median((0..rounds()).map(|_| train_over_http(clients)).collect());
    for clients in [1, 4] {
        let rate = rate(clients) / 1e3;
        show(
            &format!("train_batch over HTTP, batches of 100, {clients} clients"),
            format!("{rate:.0} k entries/s"),
            ">= 200",
            rate >= 200.0,
        );
    }

    let quiet = decisions(taken, 20_000);
    show(
        &format!("decision inside an HTTP handler (99 %: {:.2} us)", quiet.1),
        format!("{:.2} us", quiet.0),
        "<= 5",
        quiet.0 <= 5.0,
    );
    let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (flooded, rate) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut connection = Connection::open(LEARNER);
            let (bodies, mut sent) = (batches(20_000, 1 << 40), 0.0);
            ready.store(true, Ordering::Release);
            let start = Instant::now();
            for body in bodies.iter().take_while(|_| !stop.load(Ordering::Relaxed)) {
                connection.request(body);
                sent += 100.0;
            }
            assert!(stop.load(Ordering::Relaxed), "the flood ended first");
            sent / start.elapsed().as_secs_f64()
        });
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let flooded = decisions(taken, 10_000);
        stop.store(true, Ordering::Relaxed);
        (flooded, flood.join().expect("joins"))
    });
    show(
        &format!(
            "the same while train_batch floods ({:.0} k/s; 99 %: {:.2} us)",
            rate / 1e3,
            flooded.1
        ),
        format!("{:.2} us", flooded.0),
        "<= 5",
        flooded.0 <= 5.0,
    );

    let trip = |port| median(websocket(port, 20_000));
    let (mut act, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        bare.push(trip(ECHO));
        act.push(trip(WEBSOCKET));
    }
    let (act, bare) = (median(act), median(bare));
    show(
        &format!("WebSocket round trip {act:.1} us, bare echo {bare:.1} us"),
        format!("{:.2} x", act / bare),
        "<= 1.3",
        act / bare <= 1.3,
    );

    for (connections, rewarded) in [(1, false), (8, false), (1, true), (8, true)] {
        learn_to_run_here(rewarded);
        let (mut no, mut learning) = (Vec::new(), Vec::new());
        for _ in 0..rounds() {
            use_scheduler("NoScheduler", "false");
            no.push(calls(connections, 20_000));
            use_scheduler("LearningScheduler", "2");
            learning.push(calls(connections, 20_000));
        }
        let (no, learning) = (median(no), median(learning));
        let by = if rewarded { ", node rewards" } else { "" };
        let what = format!(
            "{connections} connections{by}: LearningScheduler {learning:.1} us, NoScheduler {no:.1} us"
        );
        let ratio = learning / no;
        show(&what, format!("{ratio:.3} x"), "<= 1.1", ratio <= 1.1);
    }
}

fn main() {
    library();
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings {
        host: IP.into(),
        scheduler_port: SCHEDULER,
        discovery_port: 0,
        learner_port: LEARNER,
        learner_ws_port: WEBSOCKET,
        data_path: folder.path().to_owned(),
        embedded_functions: true,
        parallel_running_functions_max: 8,
        ..Settings::default()
    };
    actix_rt::System::new().block_on(async {
        let node = Node::start(settings, &FlagOverrides::default()).expect("it starts");
        let (state, taken) = (Arc::clone(&node.state), Taken::default());
        let for_handler = Arc::clone(&taken);
        let handler = HttpServer::new(move || {
            let (learning, metrics) = (Arc::clone(&state.learning), Arc::clone(&state.metrics));
            let deciding = Deciding {
                learner: LocalLearner::new(learning, metrics, Duration::from_secs(1)),
                rng: SmallRng::seed_from_u64(1).into(),
                taken: Arc::clone(&for_handler),
            };
            App::new().app_data(web::Data::new(Rc::new(deciding))).default_service(web::to(decide))
        });
        let handler = handler.workers(1).bind((IP, HANDLER)).expect("a free port").run();
        let echo = HttpServer::new(|| App::new().default_service(web::to(echo)));
        let echo = echo.workers(1).tcp_nodelay(true).bind((IP, ECHO)).expect("a free port").run();
        let stops = [handler.handle(), echo.handle()];
        actix_rt::spawn(handler);
        actix_rt::spawn(echo);
        let measured = actix_rt::task::spawn_blocking(move || over_the_network(&taken));
        measured.await.expect("measured");
        for server in stops {
            server.stop(false).await;
        }
        node.stop().await;
    });
}
