//! Clients that call all nodes in open loop: when what is sent is drawn before, whatever the nodes do.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::cluster::{CALL_PORT, Cluster};
use super::function;
use super::http::{self, Failed, Message};
use super::network::Network;
use super::node::K;

/// A client waits as long as a node may be stopped, and for what waits there then.
const CLIENT_TIME: Duration = Duration::from_secs(60);
/// How often every node is asked how many functions run.
const LOOK_TIME: Duration = Duration::from_millis(200);
/// The embedded function's mean time.
const WORK_MS: u32 = 40;

/// What a client was answered.
#[derive(Debug)]
#[expect(dead_code, reason = "why is for people, who read it as Debug shows it")]
pub enum Answer {
    /// 200, and the call's own body.
    Good,
    /// An error: its status, code and message.
    Error(u16, u64, String),
    /// The connection broke or was refused. `taken`: it was not refused, nor reset.
    Broken { taken: bool, why: String },
    /// Nothing came in time.
    Silence,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    pub number: u64,
    pub entry: Ipv4Addr,
    pub began: Instant,
    pub took: Duration,
    pub answer: Answer,
    /// Whether it ran on another node than it came to.
    pub forwarded: bool,
}

impl Call {
    /// Even ones go to the suite's function, which writes them down; odd ones to the embedded one.
    pub fn is_counted(&self) -> bool {
        self.number.is_multiple_of(2)
    }
}

/// What came of a load.
#[derive(Default)]
pub struct Outcome {
    pub calls: Vec<Call>,
    /// More functions at once than K, as nodes told it.
    pub above_k: Vec<String>,
    /// By how much the clients were late at most: nobody on this machine had its turn meanwhile.
    pub late: Duration,
}

/// A load that goes on until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Load {
    /// So many calls a second, evenly over all nodes.
    pub fn start(cluster: &Cluster, rate: f64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = Clients {
            network: cluster.client.clone(),
            entries: cluster.entries.clone(),
            stop: stop.clone(),
        };
        let thread = std::thread::spawn(move || {
            clients.network.move_in();
            super::runtime().block_on(clients.run(rate, seed))
        });
        Self { stop, thread }
    }

    /// No further calls; waits for the answers to all.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the clients do not panic")
    }
}

struct Clients {
    network: Arc<Network>,
    entries: Arc<Mutex<Vec<Ipv4Addr>>>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    fn entries(&self) -> Vec<Ipv4Addr> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn run(self, rate: f64, seed: u64) -> Outcome {
        let mut random = StdRng::seed_from_u64(seed);
        let mut calls = JoinSet::new();
        let mut outcome = Outcome::default();
        let watch = async {
            while !self.stopped() {
                outcome.above_k.extend(self.look().await);
                tokio::time::sleep(LOOK_TIME).await;
            }
        };
        let send = async {
            let mut at = Instant::now();
            let mut number = 0;
            let mut late = Duration::ZERO;
            while !self.stopped() {
                at += Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / rate);
                tokio::time::sleep_until(at.into()).await;
                late = late.max(at.elapsed());
                let entries = self.entries();
                let entry = entries[random.random_range(0..entries.len())];
                number += 1;
                calls.spawn(call(number, entry));
            }
            late
        };
        let ((), late) = tokio::join!(watch, send);
        outcome.late = late;
        outcome.calls = calls.join_all().await;
        outcome
    }

    /// Nodes that run more than K.
    async fn look(&self) -> Vec<String> {
        let mut asked = JoinSet::new();
        for entry in self.entries() {
            asked.spawn(async move {
                let asked = http::ask((entry, CALL_PORT), "GET /monitoring/load", &[], b"");
                let answer = tokio::time::timeout(LOOK_TIME, asked).await.ok()?.ok()?;
                // One that stops tells nothing any more.
                if answer.status() != 200 {
                    return None;
                }
                let running = answer.header("X-P2pfaas-Load");
                let is_within = running.parse().is_ok_and(|running: u32| running <= K);
                (!is_within).then(|| format!("{entry} runs {running:?}, and K is {K}"))
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }
}

async fn call(number: u64, entry: Ipv4Addr) -> Call {
    let began = Instant::now();
    let what = if number.is_multiple_of(2) {
        format!("POST /function/{}", function::NAME)
    } else {
        format!("POST /function/fn-work?dist=exponential&mean_ms={WORK_MS}&seed={number}")
    };
    let body = number.to_string();
    let asked = http::ask((entry, CALL_PORT), &what, &[], body.as_bytes());
    let answered = tokio::time::timeout(CLIENT_TIME, asked).await;
    let took = began.elapsed();
    let mut forwarded = false;
    let answer = match answered {
        Err(_) => Answer::Silence,
        Ok(Err(Failed { connected, why })) => {
            let taken = connected && why.kind() != ErrorKind::ConnectionReset;
            Answer::Broken { taken, why: why.to_string() }
        }
        Ok(Ok(message)) => {
            forwarded = message.header("X-P2pfaas-Externally-Executed") == "True";
            judge(&message, body.as_bytes())
        }
    };
    Call { number, entry, began, took, answer, forwarded }
}

fn judge(message: &Message, wanted: &[u8]) -> Answer {
    if message.status() == 200 && message.body == wanted {
        return Answer::Good;
    }
    let told: serde_json::Value = serde_json::from_slice(&message.body).unwrap_or_default();
    let words = told["message"].as_str().map_or_else(|| message.text(), str::to_owned);
    Answer::Error(message.status(), told["code"].as_u64().unwrap_or(0), words)
}
