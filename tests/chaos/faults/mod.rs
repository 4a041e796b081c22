//! The nemesis: each fault is a function that breaks something, lets it last, and mends it again.

mod disk;
mod evil;
mod keys;
mod network;
mod processes;

use std::net::Ipv4Addr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::cluster::Cluster;

/// A fault, and what it may cost.
pub struct Fault {
    /// Its name, for CHAOS_FAULT.
    pub name: &'static str,
    /// What it does, for the table.
    pub about: &'static str,
    /// The share of calls that may be lost, beside those that a lost node had.
    pub bar: f64,
    /// Whether `cargo test` has it.
    pub is_short: bool,
    pub needs: Needs,
    pub strike: fn(&mut Scene<'_>),
}

/// In which clusters a fault can strike.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// Anybody can join.
    NoKey,
    /// Nobody can without the key.
    Key,
}

impl Fault {
    const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
}

/// One in two hundred.
const SOME: f64 = 0.005;
/// One in five hundred: of the node that has room for eight connections, a few of a second's calls.
const FEW: f64 = 0.002;

const fn fault(
    name: &'static str,
    about: &'static str,
    bar: f64,
    is_short: bool,
    strike: fn(&mut Scene<'_>),
) -> Fault {
    Fault { name, about, bar, is_short, needs: Needs::Nothing, strike }
}

/// All of them, in the order in which they strike.
pub const ALL: &[Fault] = &[
    fault("kill", "a node is killed, and begins again later", 0.0, true, processes::kill),
    fault("pause", "a node is stopped (SIGSTOP), and goes on", 0.0, true, processes::pause),
    fault("halves", "the network parts in halves", 0.0, true, network::halves),
    fault("one-way", "one half is not heard by the other", 0.0, true, network::one_way),
    fault("loss-10", "10 % of packets are lost", 0.0, true, network::loss_10),
    fault("loss-30", "30 % of packets are lost", SOME, false, network::loss_30),
    fault("delay", "packets take 50 ± 20 ms", 0.0, false, network::delay),
    fault("disk-full", "a data path is full", 0.0, true, disk::full),
    fault("read-only", "a data path is read-only", 0.0, false, disk::read_only),
    fault("corrupt", "a node is killed, and its files are spoilt", 0.0, true, disk::corrupt),
    fault("descriptors", "a node has 64 file descriptors", FEW, false, processes::descriptors),
    fault("address", "a node moves to another address", 0.0, true, processes::address),
    fault("rolling", "all nodes are restarted in turn", 0.0, true, processes::rolling),
    fault("black-hole", "a peer is idle and fails all calls", SOME, true, evil::black_hole)
        .needs(Needs::NoKey),
    fault("garbage", "a peer answers calls with garbage", SOME, false, evil::garbage)
        .needs(Needs::NoKey),
    fault("endless", "a peer's answers have no end", SOME, false, evil::endless)
        .needs(Needs::NoKey),
    fault("huge", "a peer's answers are huge", SOME, false, evil::huge).needs(Needs::NoKey),
    fault("million", "a peer lists a million machines", SOME, true, evil::million)
        .needs(Needs::NoKey),
    fault("name", "a peer claims another node's name", SOME, false, evil::name).needs(Needs::NoKey),
    fault("rotation", "the cluster's key is changed", 0.0, true, keys::rotate).needs(Needs::Key),
];

/// Where a fault strikes.
pub struct Scene<'a> {
    pub cluster: &'a mut Cluster,
    pub random: StdRng,
    /// How long it lasts.
    pub lasts: Duration,
    /// What else is worth telling of it.
    pub notes: Vec<String>,
}

impl Scene<'_> {
    /// It lasts, while calls go on.
    fn hold(&self) {
        super::pause(self.lasts);
    }

    /// A node, by chance.
    fn victim(&mut self) -> usize {
        self.random.random_range(0..self.cluster.nodes.len())
    }

    /// All addresses, in two halves, by chance.
    fn two_halves(&mut self) -> (Vec<Ipv4Addr>, Vec<Ipv4Addr>) {
        let mut one: Vec<_> = self.cluster.nodes.iter().map(|node| node.address).collect();
        one.shuffle(&mut self.random);
        let other = one.split_off(one.len() / 2);
        (one, other)
    }

    fn note_time(&mut self, what: &str, time: Duration) {
        self.notes.push(format!("{what} after {:.1} s", time.as_secs_f64()));
    }
}
