//! The nodes together, the network between them, and a place for clients from which all can be reached at any time.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::course::Course;
use super::function::Functions;
use super::http::{self, Message};
use super::keys::{self, Keys};
use super::network::Network;
use super::node::{Node, Start};
use super::relay::Relay;
use super::wait_for;

pub const CALL_PORT: u16 = 18080;
pub const LIST_PORT: u16 = 19000;
/// Each node joins through the first ones.
const JOIN_THROUGH: usize = 3;
/// What a request of the suite itself may take.
const ASK_TIME: Duration = Duration::from_secs(5);
/// Until nodes serve, and until all list all. It only keeps a broken node from holding the suite up.
pub const LONG: Duration = Duration::from_secs(60);

/// How a node was gone for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was killed, and what it held is lost.
    Killed,
    /// It was told to stop. It takes no new connections, and answers the calls that it has.
    Stopped,
    /// Between this address and the other nothing was carried, in one direction at least.
    CutFrom(Ipv4Addr),
}

/// When an address was gone, and how.
pub struct Outage {
    pub address: Ipv4Addr,
    pub gone: Gone,
    pub from: Instant,
    pub until: Option<Instant>,
}

/// All of it. What it has made is removed with it.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub relay: Relay,
    pub functions: Functions,
    pub client: Arc<Network>,
    pub outages: Vec<Outage>,
    /// Where the clients send calls: the nodes' present addresses.
    pub entries: Arc<Mutex<Vec<Ipv4Addr>>>,
    /// The cluster's keys, if it has one.
    pub keys: Option<Keys>,
    environment: Vec<(String, String)>,
    runtime: tokio::runtime::Runtime,
    work: tempfile::TempDir,
}

/// The address of the node with that number; moved ones are a hundred further.
pub fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 6, 0, u8::try_from(number + 1).expect("a small cluster"))
}

impl Cluster {
    /// Starts the nodes, with a key if there are some, and waits until all list all.
    pub fn start(course: &Course, keys: Option<Keys>) -> Result<Self, String> {
        let clients = Ipv4Addr::new(10, 6, 9, 1);
        let client = Arc::new(Network::new()?);
        let relay = Relay::start(clients, course.seed);
        relay.plug(clients, client.plug(clients)?);
        let work = tempfile::Builder::new().prefix("p2pfaas-chaos-").tempdir();
        let mut cluster = Self {
            nodes: Vec::new(),
            relay,
            functions: Functions::start(),
            client,
            outages: Vec::new(),
            entries: Arc::default(),
            keys,
            environment: course.environment.clone(),
            runtime: super::runtime(),
            work: work.map_err(|why| why.to_string())?,
        };
        for number in 0..course.nodes {
            let node = Node::new(number, address(number), cluster.work.path())?;
            cluster.relay.plug(node.address, node.network.plug(node.address)?);
            let served = node.network.inside(|| cluster.functions.serve(number));
            served.map_err(|why| why.to_string())?;
            if let Some(keys) = &cluster.keys {
                keys::write(&node.key_file, &[&keys.old]);
            }
            cluster.nodes.push(node);
        }
        for number in 0..course.nodes {
            cluster.begin(number, None);
        }
        cluster.note_entries();
        cluster.until_right();
        Ok(cluster)
    }

    fn note_entries(&self) {
        let addresses = self.nodes.iter().map(|node| node.address).collect();
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn begin(&mut self, number: usize, files_max: Option<u32>) {
        let own = self.nodes[number].address;
        let known = self.nodes.iter().map(|node| node.address);
        let through: Vec<_> = known.filter(|other| *other != own).take(JOIN_THROUGH).collect();
        let environment = &self.environment;
        let has_key = self.keys.is_some();
        let how = Start { through: &through, environment, has_key, files_max };
        self.nodes[number].start(&how);
    }

    /// Starts a node that does not run and waits until it serves; with a limit of open files, if there is one.
    pub fn begin_again(&mut self, number: usize, files_max: Option<u32>) {
        self.begin(number, files_max);
        self.until_serves(number);
    }

    /// The same of one that may refuse to start: whether it serves. If not, it has ended.
    pub fn try_to_begin(&mut self, number: usize) -> bool {
        self.begin(number, None);
        let served =
            wait_for("the node serves or ends", LONG, || match self.nodes[number].ended() {
                Some(_) => Some(false),
                None => self.serves(number).then_some(true),
            });
        if served {
            self.end_outage(number);
        }
        served
    }

    fn serves(&self, number: usize) -> bool {
        let at = (self.nodes[number].address, CALL_PORT);
        self.ask(at, "GET /health", b"").is_some_and(|answer| answer.status() == 200)
    }

    /// Waits until a node that was begun serves; its outage ends with that.
    fn until_serves(&mut self, number: usize) {
        wait_for("the node serves", LONG, || {
            let ended = self.nodes[number].ended();
            let told = || self.nodes[number].tail();
            assert!(ended.is_none(), "node {number} ended with {ended:?}:\n{}", told());
            self.serves(number).then_some(())
        });
        self.note_entries();
        self.end_outage(number);
    }

    fn end_outage(&mut self, number: usize) {
        let address = self.nodes[number].address;
        for outage in &mut self.outages {
            let is_of_process = matches!(outage.gone, Gone::Killed | Gone::Stopped);
            if outage.address == address && is_of_process && outage.until.is_none() {
                outage.until = Some(Instant::now());
            }
        }
    }

    pub fn kill(&mut self, number: usize) {
        self.note(self.nodes[number].address, Gone::Killed);
        self.nodes[number].kill();
    }

    pub fn stop(&mut self, number: usize) {
        self.note(self.nodes[number].address, Gone::Stopped);
        self.nodes[number].stop();
    }

    fn note(&mut self, address: Ipv4Addr, gone: Gone) {
        self.outages.push(Outage { address, gone, from: Instant::now(), until: None });
    }

    /// Gives a node that does not run another address.
    pub fn move_away(&mut self, number: usize) {
        let (old, new) = (self.nodes[number].address, address(number + 100));
        self.nodes[number].network.readdress(old, new).expect("the address can be changed");
        self.relay.readdress(old, new);
        self.nodes[number].address = new;
        // Clients hear of the new one once it serves there.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| *entry != old);
    }

    /// Cuts the way from each of the first to each of the second.
    pub fn cut(&mut self, from: &[Ipv4Addr], to: &[Ipv4Addr]) {
        for &one in from {
            for &other in to {
                self.relay.weather().cut.insert((one, other));
                self.note(one, Gone::CutFrom(other));
                self.note(other, Gone::CutFrom(one));
            }
        }
    }

    /// Good weather again: no cuts, no loss, no delay.
    pub fn clear(&mut self) {
        self.relay.weather().clear();
        let now = Instant::now();
        for outage in &mut self.outages {
            if matches!(outage.gone, Gone::CutFrom(_)) {
                outage.until.get_or_insert(now);
            }
        }
    }

    /// One request of a client; `None` where it is not answered.
    pub fn ask(&self, at: (Ipv4Addr, u16), what: &str, body: &[u8]) -> Option<Message> {
        let asked = async {
            tokio::time::timeout(ASK_TIME, http::ask(at, what, &[], body)).await.ok()?.ok()
        };
        self.client.inside(|| self.runtime.block_on(asked))
    }

    /// The same, of a node that must answer.
    pub fn told(&self, number: usize, port: u16, what: &str, body: &[u8]) -> Message {
        let answer = self.ask((self.nodes[number].address, port), what, body);
        answer.unwrap_or_else(|| panic!("node {number} does not answer {what}"))
    }

    /// The addresses that a node lists.
    pub fn listed(&self, number: usize) -> Option<BTreeSet<Ipv4Addr>> {
        let answer = self.ask((self.nodes[number].address, LIST_PORT), "GET /list", b"")?;
        let list: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        list.as_array()?.iter().map(|machine| machine["ip"].as_str()?.parse().ok()).collect()
    }

    /// Whether each node that runs lists all others that do, and nobody else.
    pub fn is_right(&self) -> bool {
        let living = || self.nodes.iter().filter(|node| node.runs());
        let all: BTreeSet<_> = living().map(|node| node.address).collect();
        living().all(|node| {
            let mut others = all.clone();
            others.remove(&node.address);
            self.listed(node.number) == Some(others)
        })
    }

    /// Waits for that; how long it took.
    pub fn until_right(&self) -> Duration {
        let since = Instant::now();
        let deadline = since + LONG;
        while !self.is_right() {
            if Instant::now() > deadline {
                let lists: Vec<_> =
                    self.nodes.iter().map(|node| self.listed(node.number)).collect();
                panic!("the lists do not become right: {lists:#?}");
            }
            super::pause(Duration::from_millis(50));
        }
        since.elapsed()
    }
}

impl Drop for Cluster {
    /// Keeps the logs where somebody wants them.
    fn drop(&mut self) {
        if let Ok(folder) = std::env::var("CHAOS_LOGS") {
            let _ = std::fs::create_dir_all(&folder);
            for node in &self.nodes {
                let _ = std::fs::write(format!("{folder}/node-{}.log", node.number), node.said());
            }
        }
    }
}
