//! Peers that lie. On an open cluster anybody can join; what comes of it is bounded.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::Scene;
use crate::cluster::{CALL_PORT, LIST_PORT, LONG};
use crate::network::Network;
use crate::{http, runtime, wait_for};

/// It calls on all nodes again and again, as a node of v1 does.
const CALL_AGAIN: Duration = Duration::from_secs(1);

/// More than any head needs.
const HUGE_HEAD: usize = 8 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    BlackHole = 1,
    Garbage,
    Endless,
    Huge,
    Million,
    Name,
}

/// Says that it is idle, and fails every call with an error.
pub fn black_hole(scene: &mut Scene<'_>) {
    let name = "evil".to_owned();
    join(scene, Kind::BlackHole, name);
}

/// Answers calls, and every other poll, with what is no HTTP.
pub fn garbage(scene: &mut Scene<'_>) {
    join(scene, Kind::Garbage, "evil".to_owned());
}

/// Answers calls with a head, and every other poll with a list, that never ends.
pub fn endless(scene: &mut Scene<'_>) {
    join(scene, Kind::Endless, "evil".to_owned());
}

/// Answers calls with a head, and every other poll with a body, that is huge.
pub fn huge(scene: &mut Scene<'_>) {
    join(scene, Kind::Huge, "evil".to_owned());
}

/// Lists a million machines, and closes the connections of calls.
pub fn million(scene: &mut Scene<'_>) {
    join(scene, Kind::Million, "evil".to_owned());
}

/// Says that its name is that of a node, and closes the connections of calls.
pub fn name(scene: &mut Scene<'_>) {
    let name = format!("node-{}", scene.victim());
    join(scene, Kind::Name, name);
}

/// It joins, stays for a time, and goes. All nodes list all nodes meanwhile, whoever else they list.
fn join(scene: &mut Scene<'_>, kind: Kind, name: String) {
    // Each kind has an address of its own: nodes remember at which one calls have failed.
    let address = Ipv4Addr::new(10, 6, 8, kind as u8);
    let network = Arc::new(Network::new().expect("a network namespace"));
    let tun = network.plug(address).expect("an interface");
    scene.cluster.relay.plug(address, tun);
    let listen = |port| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port");
        listener.set_nonblocking(true).expect("a setting");
        listener
    };
    let listeners = network.inside(|| [listen(CALL_PORT), listen(LIST_PORT)]);
    let nodes = scene.cluster.nodes.iter().map(|node| node.address).collect();
    let (polls, calls) = Default::default();
    let evil = Arc::new(Evil { kind, address, name, polls, calls });
    let (stop, stopped) = oneshot::channel();
    let (own, place) = (evil.clone(), network.clone());
    let thread = std::thread::spawn(move || {
        place.move_in();
        runtime().block_on(own.live(listeners, nodes, stopped));
    });
    scene.hold();
    all_are_listed(scene);
    drop(stop);
    thread.join().expect("it does not panic");
    scene.cluster.relay.unplug(address);
    let (polls, calls) = (evil.polls.load(Ordering::Relaxed), evil.calls.load(Ordering::Relaxed));
    assert!(polls > 0, "nobody has asked it for its list");
    scene.notes.push(format!("{calls} calls came to it"));
}

fn all_are_listed(scene: &Scene<'_>) {
    let all: BTreeSet<_> = scene.cluster.nodes.iter().map(|node| node.address).collect();
    wait_for("all nodes list all nodes", LONG, || {
        let lists = scene.cluster.nodes.iter().map(|node| {
            let mut listed = scene.cluster.listed(node.number)?;
            listed.insert(node.address);
            Some(listed.is_superset(&all))
        });
        lists.collect::<Option<Vec<_>>>()?.into_iter().all(|right| right).then_some(())
    });
}

struct Evil {
    kind: Kind,
    address: Ipv4Addr,
    name: String,
    polls: AtomicU32,
    calls: AtomicU32,
}

impl Evil {
    async fn live(
        self: Arc<Self>,
        listeners: [TcpListener; 2],
        nodes: Vec<Ipv4Addr>,
        stopped: oneshot::Receiver<()>,
    ) {
        for listener in listeners {
            let own = self.clone();
            tokio::spawn(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
                while let Ok((stream, _)) = listener.accept().await {
                    let own = own.clone();
                    tokio::spawn(async move {
                        let _ = own.serve(stream).await;
                    });
                }
            });
        }
        tokio::select! {
            _ = stopped => {}
            () = self.introduce(&nodes) => {}
        }
    }

    /// Asks every node for its list, under its own name.
    async fn introduce(&self, nodes: &[Ipv4Addr]) {
        let address = self.address.to_string();
        let me = [
            ("User-Agent", "Machine"),
            ("p2pfaas-machine-ip", &*address),
            ("p2pfaas-machine-name", &self.name),
            ("p2pfaas-machine-group-name", ""),
            ("p2pfaas-protocol", "2"),
        ];
        loop {
            for &node in nodes {
                let asked = http::ask((node, LIST_PORT), "GET /list", &me, b"");
                let _ = tokio::time::timeout(CALL_AGAIN, asked).await;
            }
            tokio::time::sleep(CALL_AGAIN).await;
        }
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut held = Vec::new();
        loop {
            let asked = http::read(&mut stream, &mut held).await?.first;
            if asked.contains(" /monitoring/load") {
                let idle = "X-P2pfaas-Load: 0\r\nX-P2pfaas-MaxLoad: 100\r\n\
                            X-P2pfog-Queue-Length: 0\r\n";
                stream.write_all(answer(200, idle, "").as_bytes()).await?;
            } else if asked.contains(" /list") {
                let polls = self.polls.fetch_add(1, Ordering::Relaxed);
                self.list(&mut stream, asked.starts_with("HEAD"), polls % 2 == 1).await?;
            } else {
                self.calls.fetch_add(1, Ordering::Relaxed);
                self.answer_call(&mut stream).await?;
            }
        }
    }

    fn about(&self) -> String {
        format!(
            "Content-Type: application/json\r\np2pfaas-machine-ip: {}\r\n\
             p2pfaas-machine-name: {}\r\np2pfaas-machine-group-name: \r\np2pfaas-protocol: 2\r\n",
            self.address, self.name
        )
    }

    async fn list(&self, stream: &mut TcpStream, is_head: bool, is_bad: bool) -> io::Result<()> {
        let good = answer(200, &self.about(), "[]");
        if is_head || !(is_bad || self.kind == Kind::Million) {
            let good = if is_head { good.trim_end_matches("[]") } else { &good };
            return stream.write_all(good.as_bytes()).await;
        }
        let about = self.about();
        let chunked = format!("HTTP/1.1 200 OK\r\n{about}Transfer-Encoding: chunked\r\n\r\n");
        match self.kind {
            Kind::Garbage => rubbish(stream).await,
            Kind::Endless => {
                stream.write_all(chunked.as_bytes()).await?;
                machines(stream, u32::MAX).await
            }
            Kind::Huge => {
                stream.write_all(tebibyte(&about).as_bytes()).await?;
                fill(stream, b" ").await
            }
            Kind::Million => {
                stream.write_all(chunked.as_bytes()).await?;
                machines(stream, 1_000_000).await
            }
            Kind::BlackHole | Kind::Name => stream.write_all(good.as_bytes()).await,
        }
    }

    async fn answer_call(&self, stream: &mut TcpStream) -> io::Result<()> {
        match self.kind {
            Kind::BlackHole => stream.write_all(answer(500, "", "no").as_bytes()).await,
            Kind::Garbage => rubbish(stream).await,
            Kind::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                fill(stream, b"X-More: and more\r\n").await
            }
            Kind::Huge => {
                let long = format!("X-Long: {}\r\n", "x".repeat(HUGE_HEAD));
                stream.write_all(answer(200, &long, "").as_bytes()).await
            }
            Kind::Million | Kind::Name => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} So\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn tebibyte(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", 1_u64 << 40)
}

async fn rubbish(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"\x00\x01\xff this is no HTTP\r\n\r\n").await?;
    Err(io::ErrorKind::InvalidData.into())
}

/// Sends this again and again, as long as it is taken; with pauses, for the machine's sake.
async fn fill(stream: &mut TcpStream, what: &[u8]) -> io::Result<()> {
    let piece = what.repeat((1 << 14) / what.len());
    loop {
        stream.write_all(&piece).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A list of so many machines, in chunks; none of them is there.
async fn machines(stream: &mut TcpStream, count: u32) -> io::Result<()> {
    let machine = |n: u32| {
        let [_, b, c, d] = n.to_be_bytes();
        let comma = if n == 0 { "[" } else { "," };
        format!(r#"{comma}{{"ip":"10.{b}.{c}.{d}","name":"m{n}","group_name":"","alive":true}}"#)
    };
    for first in (0..count).step_by(100) {
        let piece: String = (first..first + 100).map(machine).collect();
        stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await?;
    }
    stream.write_all(b"1\r\n]\r\n0\r\n\r\n").await
}
