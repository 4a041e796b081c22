//! The simulation itself: takes one event after the other and does what a node would do.

mod faults;
mod members;
mod memory;
mod oracle;
mod probes;
mod way;

use std::collections::{HashMap, HashSet, VecDeque};
use std::iter::Peekable;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::oracle::AskedPrograms;
pub use self::oracle::Oracle;
use super::agenda::{Agenda, CallId, Event, Nanos};
use super::calls::{CallEnd, Calls, PassedNode};
use super::members::{Letter, Places};
use super::node::SimNode;
use super::world::{Request, World};
use crate::policy::params::BadParameters;
use crate::policy::{Decision, LearnerDecision, NodeView, Task};
use crate::types::FunctionName;

/// Indices of nodes. Names come from the world, not from strangers, so their hashes need no secret.
type ByName<T> = HashMap<T, u32, FixedState>;

/// Clients send entries to learners at least that often.
const FLUSH: Duration = Duration::from_secs(5);

/// What became of a call.
#[derive(Clone, Debug)]
pub struct Finished {
    /// As it was sent.
    pub request: Request,
    /// What became of it.
    pub end: CallEnd,
    /// From its sending to its answer, at the client.
    pub total: Duration,
    /// How long its function ran; `None`: it did not, or was lost.
    pub execution: Option<Duration>,
    /// The nodes that it passed, the first being the one that it was sent to. Those that could not be reached are not
    /// among them.
    pub path: Vec<PassedNode>,
    /// What the learner of the first decided.
    pub learnt: Option<LearnerDecision>,
}

/// What a simulation has come to.
#[derive(Clone, Debug)]
pub enum SimProgress {
    /// A call has ended.
    Finished(Finished),
    /// A client's call wants a decision from outside: see [`Simulation::asked`].
    Asks,
    /// All is over: no request is left, and no call is under way.
    Ended,
}

/// A world cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWorld {
    /// Its algorithm cannot be had.
    #[error("the scheduler: {0}")]
    Scheduler(#[from] BadParameters),
    /// Something names a node that is not there.
    #[error("{what} names node {node}, but there are {nodes}")]
    NoSuchNode {
        /// What names it.
        what: &'static str,
        /// The node.
        node: u32,
        /// How many there are.
        nodes: usize,
    },
    /// Nodes speak SWIM to addresses that machines can have, on loopback all or none.
    #[error(
        "node {node}: nodes that speak SWIM have addresses like each other's, and {host:?} is none"
    )]
    NoAddress {
        /// The node.
        node: usize,
        /// What it has.
        host: String,
    },
    /// What they say to each other would take too long.
    #[error("there are {nodes} nodes, and SWIM is simulated among at most {most}")]
    TooManyMembers {
        /// How many there are.
        nodes: usize,
        /// How many there may be.
        most: usize,
    },
    /// Nodes are told apart by their hosts.
    #[error("node {node}: another one is {host:?}, too")]
    SameHost {
        /// The node.
        node: usize,
        /// What both have.
        host: String,
    },
    /// A fault would end before it begins.
    #[error("fault {fault} ends before it begins")]
    Backwards {
        /// Its index.
        fault: usize,
    },
    /// Numbers that no node can have.
    #[error("node {node}: {what} is {value}, it must be above 0 and finite")]
    Number {
        /// The node.
        node: usize,
        /// Which number.
        what: &'static str,
        /// As it was given.
        value: String,
    },
}

/// See the module. `R` gives the clients' requests in the order of their times.
pub struct Simulation<R: Iterator<Item = Request>> {
    world: World,
    requests: Peekable<R>,
    nodes: Vec<SimNode>,
    by_host: ByName<Arc<str>>,
    calls: Calls,
    agenda: Agenda,
    /// Of the network.
    rng: SmallRng,
    now: Nanos,
    /// When the last request was sent.
    last_sent: Nanos,
    finished: VecDeque<Finished>,
    events: u64,
    /// Whether clients' calls are decided from outside, and which one waits for that.
    is_outside: bool,
    asks: Option<CallId>,
    /// The side of each node, while some are parted.
    sides: Vec<u32>,
    /// All calls are of one function.
    function: FunctionName,
    /// Addresses by index and the other way, and what nodes say to each other, where lists are not ruled.
    addresses: Vec<IpAddr>,
    by_address: ByName<IpAddr>,
    letters: Places<Letter>,
    /// Notes between algorithms that are on their way: from whom, to whom, what they say.
    notes: Places<(u32, u32, Vec<u8>)>,
    /// The way to programs outside.
    programs: AskedPrograms,
}

/// Longer times than can be told are for ever.
pub(super) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether two nodes do not hear each other, by the sides that nodes are on.
fn are_parted(sides: &[u32], one: u32, other: u32) -> bool {
    sides.get(one as usize) != sides.get(other as usize)
}

impl<R: Iterator<Item = Request>> Simulation<R> {
    /// A simulation of `world`, to which clients send `requests`, in the order of their times. Requests to nodes that
    /// are not there are lost.
    ///
    /// # Errors
    /// The world cannot be simulated.
    pub fn new(world: World, requests: R) -> Result<Self, BadWorld> {
        check(&world)?;
        let addresses = members::addresses(&world)?;
        let mut world = world;
        for fault in &mut world.faults {
            fault.nodes.sort_unstable();
            fault.nodes.dedup();
        }
        let mut nodes = Vec::with_capacity(world.nodes.len());
        for index in 0..world.nodes.len() {
            // Each has an algorithm of its own, whose state is its own, too.
            let policy = world.scheduler.build()?;
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            nodes.extend(SimNode::new(index, &world, policy, world.board));
        }
        let hosts = world.nodes.iter().map(|setup| Arc::clone(&setup.host));
        let mut simulation = Self {
            by_host: hosts.zip(0..).collect(),
            calls: Calls::default(),
            agenda: Agenda::default(),
            rng: SmallRng::seed_from_u64(world.seed ^ 0x6e65_7477_6f72_6b00),
            now: 0,
            last_sent: 0,
            finished: VecDeque::new(),
            events: 0,
            is_outside: false,
            asks: None,
            sides: vec![0; nodes.len()],
            function: FunctionName::any(),
            by_address: addresses.iter().copied().zip(0..).collect(),
            addresses,
            letters: Places::default(),
            notes: Places::default(),
            programs: AskedPrograms::default(),
            requests: requests.peekable(),
            nodes,
            world,
        };
        simulation.list_all();
        simulation.begin_members();
        simulation.begin_conversing();
        for (fault, number) in simulation.world.faults.iter().zip(0u32..) {
            simulation.agenda.add(nanos(fault.from), Event::FaultBegins(number));
        }
        for (node, index) in simulation.nodes.iter().zip(0u32..) {
            if node.learner.as_ref().is_some_and(|learner| learner.hears_clients()) {
                simulation.agenda.add(nanos(FLUSH), Event::Flush(index));
            }
        }
        Ok(simulation)
    }

    /// Clients' calls are decided from outside: [`advance`](Self::advance) gives [`SimProgress::Asks`] for each, and goes on after
    /// [`decide`](Self::decide). Calls from other nodes, and calls that could not be handed to a peer, are decided by
    /// the world's scheduler.
    #[must_use]
    pub fn decided_outside(mut self) -> Self {
        self.is_outside = true;
        self
    }

    /// Programs outside are asked through `oracle`. Without one, calls on which they decide run where they come.
    #[must_use]
    pub fn asking(mut self, oracle: Box<dyn Oracle>) -> Self {
        self.programs.oracle = Some(oracle);
        self
    }

    /// Calls that ran where they came because a program outside did not decide on them.
    pub fn fallbacks(&self) -> u64 {
        self.programs.fallbacks
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Calls under way.
    pub fn under_way(&self) -> usize {
        self.calls.count()
    }

    /// What runs and waits at a node; `None`: there is no such node.
    pub fn load(&self, node: u32) -> Option<crate::types::Load> {
        Some(self.nodes.get(node as usize)?.queue.load())
    }

    /// What the algorithm of a node has learnt; `None`: nothing that it shows, or there is no such node.
    pub fn memory(&self, node: u32) -> Option<serde_json::Value> {
        self.nodes.get(node as usize)?.policy.memory()
    }

    /// The nodes that a node lists as its peers now, by their index; none: there is no such node.
    pub fn listed(&mut self, node: u32) -> Vec<u32> {
        self.refresh(node);
        let peers = self.nodes.get(node as usize).map_or(&[][..], |node| &node.peers);
        peers.iter().filter_map(|peer| self.by_host.get(&peer.host).copied()).collect()
    }

    /// Goes on until a call has ended, a decision is wanted from outside, or all is over.
    pub fn advance(&mut self) -> SimProgress {
        loop {
            if let Some(finished) = self.finished.pop_front() {
                return SimProgress::Finished(finished);
            }
            if self.asks.is_some() {
                return SimProgress::Asks;
            }
            if !self.one_event() {
                self.give_up_all();
                if self.finished.is_empty() {
                    return SimProgress::Ended;
                }
            }
        }
    }

    /// Goes on to the end; every call that ends is told to `tell`. Decisions that are wanted from outside are taken by
    /// the world's scheduler.
    pub fn run(&mut self, mut tell: impl FnMut(Finished)) {
        loop {
            match self.advance() {
                SimProgress::Finished(finished) => tell(finished),
                SimProgress::Asks => self.decide_here(),
                SimProgress::Ended => return,
            }
        }
    }

    /// The call that waits for a decision, where it is, and what its node knows.
    pub fn asked(&mut self) -> Option<(Task, u32, NodeView<'_>)> {
        let call = self.calls.get(self.asks?)?;
        let (index, deciding) = (call.node()?, call.deciding.as_ref()?);
        let node = self.nodes.get(index as usize)?;
        Some((deciding.task.clone(), index, deciding.view(node.setup.limits.k, &node.peers)))
    }

    /// Decides on the call that waits for it.
    pub fn decide(&mut self, decision: Decision) {
        if let Some(id) = self.asks.take() {
            self.carry_out(id, decision);
        }
    }

    /// Leaves the call that waits to the world's scheduler.
    pub fn decide_here(&mut self) {
        if let Some(id) = self.asks.take() {
            self.schedule(id);
        }
    }

    /// Takes the next event; `false`: there is none.
    fn one_event(&mut self) -> bool {
        let arrives = self.requests.peek().map(|request| nanos(request.at));
        let happens = self.agenda.next_at();
        if arrives.is_some_and(|arrives| happens.is_none_or(|happens| arrives <= happens)) {
            if let Some(request) = self.requests.next() {
                self.now = self.now.max(nanos(request.at));
                self.events += 1;
                self.last_sent = self.now;
                self.send(request);
            }
            return true;
        }
        let Some((at, event)) = self.agenda.pop() else { return false };
        // What never ends would be waited for without end.
        if at == Nanos::MAX {
            return true;
        }
        self.now = self.now.max(at);
        self.events += 1;
        self.happens(event);
        true
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Comes(id) => self.comes(id),
            Event::ProbeComes(id, index) => self.probe_comes(id, index),
            Event::ProbeBack(id, index) => self.probe_back(id, index),
            Event::Woken(id) => self.schedule(id),
            Event::BoardDue(node, reckoning) => self.board_due(node, reckoning),
            Event::Done(id) => self.done_alone(id),
            Event::Back(id) => self.back(id),
            Event::Unreached(id, in_vain) => self.unreached(id, in_vain),
            Event::Flush(node) => self.flush(node),
            Event::Trains(node) => {
                if let Some(learner) = self.learner(node) {
                    learner.takes_batch();
                }
            }
            Event::FaultBegins(number) => self.fault_begins(number),
            Event::FaultEnds(number) => self.fault_ends(number),
            Event::Noticed => self.list_all(),
            Event::SwimBegins(node) => self.swim_begins(node),
            Event::SwimWakes(node) => self.swim_wakes(node),
            Event::Polls(node, start) => self.polls(node, start),
            Event::AsksAgain(node, other) => self.asks_again(node, other),
            Event::Letter(index) => self.letter_comes(index),
            Event::Converse => self.converse(),
            Event::Note(number) => self.note_comes(number),
        }
    }

    fn are_parted(&self, one: u32, other: u32) -> bool {
        are_parted(&self.sides, one, other)
    }

    fn after(&mut self, time: Duration, event: Event) {
        self.agenda.add(self.now.saturating_add(nanos(time)), event);
    }

    fn learner(&mut self, node: u32) -> Option<&mut super::learning::SimLearner> {
        self.nodes.get_mut(node as usize)?.learner.as_deref_mut()
    }

    fn flush(&mut self, node: u32) {
        if self.learner(node).is_some_and(|learner| learner.send()) {
            self.after(self.world.overheads.client / 2, Event::Trains(node));
        }
        if self.goes_on() {
            self.after(FLUSH, Event::Flush(node));
        }
    }

    /// Whether anything may come; clients that wait longer have given up.
    fn goes_on(&mut self) -> bool {
        let waits = self.now < self.last_sent.saturating_add(nanos(self.world.patience.client));
        self.requests.peek().is_some() || self.calls.count() > 0 && waits
    }

    /// What has not ended by now never will: its client gives it up.
    fn give_up_all(&mut self) {
        for id in self.calls.ids() {
            self.finish(id, CallEnd::GivenUp);
        }
    }
}

/// Whether all that a world names is there.
fn check(world: &World) -> Result<(), BadWorld> {
    let nodes = world.nodes.len();
    let there = |what, all: &[u32]| match all.iter().find(|node| **node as usize >= nodes) {
        Some(node) => Err(BadWorld::NoSuchNode { what, node: *node, nodes }),
        None => Ok(()),
    };
    for (fault, index) in world.faults.iter().zip(0..) {
        there("a fault", &fault.nodes)?;
        if fault.until < fault.from {
            return Err(BadWorld::Backwards { fault: index });
        }
    }
    let mut hosts = HashSet::new();
    for (node, setup) in world.nodes.iter().enumerate() {
        if !hosts.insert(&*setup.host) {
            return Err(BadWorld::SameHost { node, host: setup.host.to_string() });
        }
    }
    for (setup, node) in world.nodes.iter().zip(0..) {
        if let super::world::Neighbourhood::Of(some) = &setup.neighbours {
            there("a list of neighbours", some)?;
        }
        for (what, value) in [("cores", setup.cores), ("speed", setup.speed)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(BadWorld::Number { node, what, value: value.to_string() });
            }
        }
    }
    Ok(())
}
