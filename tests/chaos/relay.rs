//! Carries packets from namespace to namespace: at once, late, or not at all.
//!
//! Faults lie between nodes only. What goes from or to a client is always carried, so a client tells what a node does
//! with its call, and not what the network did to the client.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::File;
use std::future::pending;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The largest packet of IP.
const PACKET_MAX: usize = 1 << 16;

/// A delay, each way, that is drawn evenly around its mean.
#[derive(Clone, Copy)]
pub struct Delay {
    pub mean: Duration,
    pub spread: Duration,
}

/// What the network between the nodes is like.
pub struct Weather {
    /// From the first to the second nothing is carried.
    pub cut: HashSet<(Ipv4Addr, Ipv4Addr)>,
    /// The share of packets that are lost.
    pub loss: f64,
    pub delay: Option<Delay>,
    client: Ipv4Addr,
    random: StdRng,
    /// When the last packet of each link is due: a link keeps the order, as a queue does.
    due: HashMap<(Ipv4Addr, Ipv4Addr), Instant>,
}

/// What becomes of a packet.
enum Way {
    Now,
    At(Instant),
    Nowhere,
}

impl Weather {
    /// Good again.
    pub fn clear(&mut self) {
        self.cut.clear();
        self.loss = 0.0;
        self.delay = None;
    }

    fn way(&mut self, from: Ipv4Addr, to: Ipv4Addr, now: Instant) -> Way {
        if from == self.client || to == self.client {
            return Way::Now;
        }
        if self.cut.contains(&(from, to)) || self.random.random_bool(self.loss) {
            return Way::Nowhere;
        }
        let delay = self.delay.map_or(Duration::ZERO, |delay| {
            delay.mean - delay.spread + delay.spread.mul_f64(2.0 * self.random.random::<f64>())
        });
        let due = self.due.entry((from, to)).or_insert(now);
        *due = (*due).max(now + delay);
        if *due <= now { Way::Now } else { Way::At(*due) }
    }
}

/// A change of who is where.
enum Change {
    Plug(Ipv4Addr, File),
    Move(Ipv4Addr, Ipv4Addr),
    Unplug(Ipv4Addr),
}

/// A packet that is due later; packets that are due at once keep their order by the number.
type Late = (Reverse<(Instant, u64)>, Ipv4Addr, Vec<u8>);
type Plugs = Arc<Mutex<HashMap<Ipv4Addr, Arc<AsyncFd<File>>>>>;

/// The relay, on a thread of its own until it is dropped.
pub struct Relay {
    weather: Arc<Mutex<Weather>>,
    changes: Option<UnboundedSender<Change>>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    pub fn start(client: Ipv4Addr, seed: u64) -> Self {
        let weather = Arc::new(Mutex::new(Weather {
            cut: HashSet::new(),
            loss: 0.0,
            delay: None,
            client,
            random: StdRng::seed_from_u64(seed),
            due: HashMap::new(),
        }));
        let (changes, wanted) = unbounded_channel();
        let air = weather.clone();
        let thread = std::thread::spawn(move || {
            super::runtime().block_on(carry(air, wanted));
        });
        Self { weather, changes: Some(changes), thread: Some(thread) }
    }

    pub fn weather(&self) -> MutexGuard<'_, Weather> {
        lock(&self.weather)
    }

    fn change(&self, change: Change) {
        let changes = self.changes.as_ref().expect("until it is dropped");
        changes.send(change).expect("the relay runs");
    }

    /// What is sent to that address goes to this interface.
    pub fn plug(&self, address: Ipv4Addr, tun: File) {
        self.change(Change::Plug(address, tun));
    }

    /// An interface has another address.
    pub fn readdress(&self, old: Ipv4Addr, new: Ipv4Addr) {
        self.change(Change::Move(old, new));
    }

    pub fn unplug(&self, address: Ipv4Addr) {
        self.change(Change::Unplug(address));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Carries packets until nobody can change anything any more.
async fn carry(weather: Arc<Mutex<Weather>>, mut wanted: UnboundedReceiver<Change>) {
    let plugs = Plugs::default();
    let (later, late) = unbounded_channel();
    tokio::spawn(deliver_late(late, plugs.clone()));
    let mut readers = HashMap::new();
    while let Some(change) = wanted.recv().await {
        match change {
            Change::Plug(address, tun) => {
                // SAFETY: an open file owns its descriptor, and stays open until the `AsyncFd` is dropped.
                let tun = unsafe { AsyncFd::register(tun) };
                let tun = Arc::new(tun.expect("a TUN device can be waited for"));
                let read = read(tun.clone(), plugs.clone(), weather.clone(), later.clone());
                readers.insert(address, tokio::spawn(read));
                lock(&plugs).insert(address, tun);
            }
            Change::Move(old, new) => {
                let moved = lock(&plugs).remove(&old);
                lock(&plugs).extend(moved.map(|tun| (new, tun)));
                let reader = readers.remove(&old);
                readers.extend(reader.map(|reader| (new, reader)));
            }
            Change::Unplug(address) => {
                lock(&plugs).remove(&address);
                if let Some(reader) = readers.remove(&address) {
                    reader.abort();
                }
            }
        }
    }
}

/// Reads what one namespace sends.
async fn read(
    tun: Arc<AsyncFd<File>>,
    plugs: Plugs,
    weather: Arc<Mutex<Weather>>,
    later: UnboundedSender<Late>,
) {
    let mut packet = vec![0; PACKET_MAX];
    let mut number = 0;
    loop {
        let Ok(mut ready) = tun.readable().await else { return };
        let Ok(read) = ready.try_io(|tun| tun.get_ref().read(&mut packet)) else { continue };
        let Ok(length) = read else { return };
        let packet = &packet[..length];
        let Some((from, to)) = ends(packet) else { continue };
        let now = Instant::now();
        let way = lock(&weather).way(from, to, now);
        match way {
            Way::Now => write(&plugs, to, packet),
            Way::At(due) => {
                number += 1;
                let _ = later.send((Reverse((due, number)), to, packet.to_vec()));
            }
            Way::Nowhere => {}
        }
    }
}

/// Where a packet of IPv4 comes from and goes to.
fn ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let version = packet.first()? >> 4;
    let address = |at: usize| {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    if version == 4 { Some((address(12)?, address(16)?)) } else { None }
}

/// A packet that does not fit, or whose receiver is gone, is lost, as in any network.
fn write(plugs: &Plugs, to: Ipv4Addr, packet: &[u8]) {
    if let Some(tun) = lock(plugs).get(&to) {
        let _ = tun.get_ref().write(packet);
    }
}

async fn deliver_late(mut late: UnboundedReceiver<Late>, plugs: Plugs) {
    let mut waiting = BinaryHeap::<Late>::new();
    loop {
        let next = waiting.peek().map(|(Reverse((due, _)), ..)| (*due).into());
        let is_due = async {
            match next {
                Some(due) => tokio::time::sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            more = late.recv() => match more {
                Some(more) => waiting.push(more),
                None => return,
            },
            () = is_due => {
                if let Some((_, to, packet)) = waiting.pop() {
                    write(&plugs, to, &packet);
                }
            }
        }
    }
}
