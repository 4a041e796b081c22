//! A simulated node: the queue discipline, the board, the algorithm and the learner of a real one.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::agenda::{CallId, Nanos};
use super::learning::SimLearner;
use super::members::Members;
use super::world::{BoardUse, Neighbourhood, NodeSetup, World};
use crate::outliers::Outliers;
use crate::policy::deciding::Found;
use crate::policy::{NodeView, Policy, Probe, Task};
use crate::queue::Discipline;
use crate::service::sharing::Sharing;
use crate::types::{NodeRecord, Peer, TaskType};

/// Calls' bodies take no memory here.
const BYTES_MAX: u64 = u64::MAX;

/// A call on a board, and the virtual time at which it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Working {
    pub(super) call: CallId,
    pub(super) task_type: TaskType,
    ends: f64,
}

pub(super) struct SimNode {
    pub(super) setup: NodeSetup,
    pub(super) policy: Arc<dyn Policy>,
    pub(super) queue: Discipline<CallId>,
    sharing: Sharing,
    working: Vec<Working>,
    /// Grows with every reckoning of who is done next: older ones do not hold any more.
    reckoning: u32,
    /// Its peers as it lists them.
    pub(super) peers: Vec<Peer>,
    /// Those of them at which calls fail by their own word.
    pub(super) failing: Vec<Arc<str>>,
    /// What it does to know them, where lists are not ruled.
    pub(super) members: Option<Box<Members>>,
    pub(super) outliers: Outliers,
    /// What its algorithm says in its record.
    pub(super) said: Option<Arc<NodeRecord>>,
    /// Boxed, as most nodes have none, and nodes are to lie close together.
    pub(super) learner: Option<Box<SimLearner>>,
    pub(super) rng: SmallRng,
    /// How many faults keep it from running.
    pub(super) downs: u32,
    /// It stands still until then.
    pub(super) still_until: Nanos,
}

impl SimNode {
    pub(super) fn new(
        index: u32,
        world: &World,
        policy: Arc<dyn Policy>,
        board: BoardUse,
    ) -> Option<Self> {
        let setup = world.nodes.get(index as usize)?.clone();
        // Randomness of its own, so that one more node changes no other's.
        let seed = world.seed ^ u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let learner = world.learning.as_ref().filter(|_| policy.learns());
        let cores = if board == BoardUse::Alone { f64::INFINITY } else { setup.cores };
        Some(Self {
            queue: Discipline::new(setup.limits, BYTES_MAX),
            sharing: Sharing::new(cores),
            working: Vec::new(),
            reckoning: 0,
            peers: Vec::new(),
            failing: Vec::new(),
            members: None,
            outliers: Outliers::default(),
            said: None,
            learner: learner.map(|setup| Box::new(SimLearner::new(setup))),
            rng: SmallRng::seed_from_u64(seed),
            downs: 0,
            still_until: 0,
            policy,
            setup,
        })
    }

    /// Whether it does not run.
    pub(super) fn is_down(&self) -> bool {
        self.downs > 0
    }

    /// Lists the neighbours that `is_there`, by name, then address.
    pub(super) fn list(&mut self, own: u32, all: &[NodeSetup], is_there: impl Fn(u32) -> bool) {
        let everybody: Vec<u32>;
        let of = match &self.setup.neighbours {
            Neighbourhood::Of(some) => some,
            Neighbourhood::All => {
                everybody = (0..all.len()).filter_map(|index| u32::try_from(index).ok()).collect();
                &everybody
            }
        };
        let mut listed: Vec<&NodeSetup> = of
            .iter()
            .filter(|index| **index != own && is_there(**index))
            .filter_map(|index| all.get(*index as usize))
            .collect();
        listed.sort_by(|one, other| (&one.name, &one.host).cmp(&(&other.name, &other.host)));
        let peer = |setup: &NodeSetup| Peer {
            name: Arc::clone(&setup.name),
            host: Arc::clone(&setup.host),
            streams: true,
            ..Peer::at("")
        };
        self.peers = listed.into_iter().map(peer).collect();
    }

    /// The load that a call finds.
    pub(super) fn found(&self, now: Duration) -> Found {
        let by_type = match self.policy.task_types() {
            0 => Vec::new(),
            types => self.queue.load_by_type(types),
        };
        Found { now, load: self.queue.load(), places: self.queue.places(), by_type }
    }

    /// What it answers to a peer that probes it about such a call; `peer` is it as the asker knows it.
    pub(super) fn answers_probe(
        &self,
        peer: &Peer,
        task: &Task,
        bidder: &str,
        now: Duration,
    ) -> Probe {
        let mut probe = Probe::of(peer.clone(), self.queue.load());
        probe.k = Some(self.setup.limits.k);
        // Nobody else looks at them, and they take time.
        if self.policy.bids() || self.policy.program().is_some() {
            let found = self.found(now);
            let (load, k, places) = (found.load, self.setup.limits.k, found.places);
            let (by_type, peers) = (&*found.by_type, &*self.peers);
            let view = NodeView { now, load, by_type, k, places, peers };
            if self.policy.bidder() == bidder {
                probe.bid = self.policy.bid(task, view);
            }
            probe.by_type = found.by_type;
        }
        probe
    }

    /// A call begins to work on the board.
    pub(super) fn begins(&mut self, call: CallId, task_type: TaskType, work: Duration, now: Nanos) {
        let work = work.div_f64(self.setup.speed);
        let ends = self.sharing.start(work, Duration::from_nanos(now));
        self.working.push(Working { call, task_type, ends });
    }

    /// When the next is done, as things are, and the number of this reckoning.
    pub(super) fn next_done(&mut self, now: Nanos) -> Option<(Duration, u32)> {
        let ends = self.working.iter().map(|working| working.ends).reduce(f64::min)?;
        self.reckoning = self.reckoning.wrapping_add(1);
        Some((self.sharing.left(ends, Duration::from_nanos(now)), self.reckoning))
    }

    /// The number of the last reckoning.
    pub(super) fn reckoning(&self) -> u32 {
        self.reckoning
    }

    /// The next is done.
    pub(super) fn done(&mut self, now: Nanos) -> Option<Working> {
        let all = self.working.iter().enumerate();
        let (index, _) = all.min_by(|one, other| one.1.ends.total_cmp(&other.1.ends))?;
        self.sharing.end(Duration::from_nanos(now));
        Some(self.working.remove(index))
    }

    /// It is killed: what it held is gone. Who was on the board or waited.
    pub(super) fn forget(&mut self) {
        self.queue = Discipline::new(self.setup.limits, BYTES_MAX);
        self.sharing = Sharing::new(self.setup.cores);
        self.working.clear();
        self.reckoning = self.reckoning.wrapping_add(1);
        self.outliers = Outliers::default();
    }
}
