//! What is simulated: nodes, the network between them, what takes how long, what goes wrong when.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::network::Network;
use crate::policy::registry::SchedulerSpec;
use crate::queue::Limits;
use crate::rl::parameters::Parameters;

/// A node as it begins.
#[derive(Clone, Debug)]
pub struct NodeSetup {
    /// Its address, by which the others know it.
    pub host: Arc<str>,
    /// Its name: nodes order their peers by name, then address.
    pub name: Arc<str>,
    /// K and the queue.
    pub limits: Limits,
    /// Effective cores of its board.
    pub cores: f64,
    /// How fast it works: seconds of work a second, with a core of its own.
    pub speed: f64,
    /// The nodes that it may hand calls to, by their index.
    pub neighbours: Neighbourhood,
}

/// The nodes that a node may hand calls to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Neighbourhood {
    /// All others.
    All,
    /// These, by their index.
    Of(Vec<u32>),
}

/// How calls use a node's board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoardUse {
    /// They share its cores, as `fn-work` and `fn-spin` do.
    #[default]
    Shared,
    /// Each takes its own time, whatever else runs, as `fn-sleep` does.
    Alone,
}

/// What nodes and HTTP take beside network and functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overheads {
    /// From a client's sending to the node's decision, and from the node's answer to the client, together.
    pub client: Duration,
    /// Asking a peer for its load and hearing the answer.
    pub probe: Duration,
    /// Handing a call to a peer and its answer back.
    pub forward: Duration,
    /// By how much timers end a function late.
    pub end: Duration,
}

/// How long nodes wait for one another, and what they need to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimes {
    /// A probe that is not answered by then counts as failed.
    pub probe: Duration,
    /// A peer that cannot be connected to by then has not taken the call.
    pub connect: Duration,
    /// A node that is gone, or parted, is off the lists of the others after that, where these are
    /// [ruled](SimMembership::Ruled); and a call that is at a parted node is lost after that.
    pub notice: Duration,
    /// A client gives a call up after that. Not for ever where a node may stand still for ever: nothing would end then.
    pub client: Duration,
}

impl Default for WaitTimes {
    fn default() -> Self {
        Self {
            probe: Duration::from_millis(250),
            connect: Duration::from_millis(500),
            notice: Duration::from_millis(400),
            client: Duration::from_secs(30),
        }
    }
}

/// Who rewards the decisions of learners.
#[derive(Clone, Debug, PartialEq)]
pub enum Rewarding {
    /// The client, by the deadline of each task type in seconds; entries go to the node in batches of so many, and
    /// every five seconds.
    Client {
        /// Seconds by task type; further types have the last.
        deadlines_s: Vec<f64>,
        /// Entries in a batch.
        batch: usize,
    },
    /// The nodes themselves, as their parameters say.
    Nodes,
    /// Nobody.
    Nobody,
}

/// How nodes learn.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningSetup {
    /// Of every node's learner.
    pub parameters: Parameters,
    /// Who rewards.
    pub rewarding: Rewarding,
}

impl LearningSetup {
    /// The learner's own parameters with these in their place.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(changed: &Map<String, Value>, rewarding: Rewarding) -> Result<Self, String> {
        let parameters = Parameters::default().merged(changed).map_err(|why| why.to_string())?;
        Ok(Self { parameters, rewarding })
    }
}

/// How nodes hear who is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimMembership {
    /// Their lists are right all the time, but for [`WaitTimes::notice`] after something goes wrong, or is over.
    #[default]
    Ruled,
    /// By SWIM, records and polls, as real nodes: up to [`MEMBERS_MAX`](super::MEMBERS_MAX) nodes, whose hosts are
    /// addresses.
    Swim,
}

/// What goes wrong at a node or between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The node is killed: what it holds is lost. It begins again, empty, when the fault ends.
    Kill,
    /// The node stands still, and goes on when the fault ends.
    Stall,
    /// The nodes of the fault and all others do not hear each other.
    Part,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimFault {
    /// What.
    pub kind: FaultKind,
    /// The nodes, by their index.
    pub nodes: Vec<u32>,
    /// When, since the beginning.
    pub from: Duration,
    /// When it ends; `Duration::MAX`: never.
    pub until: Duration,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct World {
    /// The nodes.
    pub nodes: Vec<NodeSetup>,
    /// The algorithm of all of them.
    pub scheduler: SchedulerSpec,
    /// The network.
    pub network: Network,
    /// How calls use boards.
    pub board: BoardUse,
    /// What nodes and HTTP take.
    pub overheads: Overheads,
    /// How long nodes wait.
    pub patience: WaitTimes,
    /// How nodes learn, where the algorithm asks a learner.
    pub learning: Option<LearningSetup>,
    /// Whether peers at which calls fail are left out.
    pub peer_ejection: bool,
    /// How nodes hear who is there.
    pub membership: SimMembership,
    /// What goes wrong.
    pub faults: Vec<SimFault>,
    /// All chance comes from it.
    pub seed: u64,
}

impl World {
    /// So many nodes alike, each with a core for each of its slots, all of which know each other; nothing takes time but
    /// functions.
    pub fn of(nodes: u32, limits: Limits, scheduler: SchedulerSpec) -> Self {
        let node = |index: u32| {
            // The private network 10.0.0.0/8, from 10.0.0.1 on.
            let host = Ipv4Addr::from_bits(0x0a00_0001_u32.wrapping_add(index)).to_string().into();
            NodeSetup {
                name: Arc::clone(&host),
                host,
                limits,
                cores: f64::from(limits.k.max(1)),
                speed: 1.0,
                neighbours: Neighbourhood::All,
            }
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
            scheduler,
            network: Network::default(),
            board: BoardUse::default(),
            overheads: Overheads::default(),
            patience: WaitTimes::default(),
            learning: None,
            peer_ejection: true,
            membership: SimMembership::default(),
            faults: Vec::new(),
            seed: 1,
        }
    }
}

/// A client's call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Request {
    /// When the client sends it, since the beginning.
    pub at: Duration,
    /// The node that it is sent to, by its index.
    pub node: u32,
    /// Whatever its sender knows it by.
    pub tag: u64,
    /// Its task type.
    pub task_type: u32,
    /// The work of its function, at speed 1 with a core of its own.
    pub work: Duration,
    /// Bytes of its body.
    pub bytes: u64,
    /// Its deadline, which its client tells; `None`: it has none.
    pub deadline: Option<Duration>,
}
