//! The world that a scenario describes, and the requests that clients send to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::job::{WARM_UP, tag};
use crate::experiment::design::plan::Planned;
use crate::experiment::design::scenario::{
    Learning, Point, Scenario, SimulatedFault, SimulatedFaultKind, SimulatedMembership,
};
use crate::experiment::run::{ExperimentError, Inputs, SEED};
use crate::fleet::Member;
use crate::membership::topology::nearest;
use crate::queue::Limits;
use crate::saved::LimitsPatch;
use crate::service::drawn::{ServiceTime, TimeDistribution};
use crate::simulation::{
    BoardUse, FaultKind, LearningSetup, Link, Neighbourhood, Network, NodeSetup, Overheads,
    Request, Rewarding, SimFault, SimMembership, WaitTimes, World,
};
use crate::types::Neighbours;

/// What fn-work takes where nobody says otherwise: as a node's settings.
const USUAL: ServiceTime =
    ServiceTime { distribution: TimeDistribution::Constant, mean_ms: 100.0, seed: None };
/// Nodes at most that all know each other: their lists take memory by the square of their number.
const ALL_NODES_MAX: usize = 2000;
/// Nodes at most that speak SWIM where nobody has said so: a simulated minute of a hundred takes ten seconds, and more
/// of them by the square of their number.
const SWIM_UNASKED_MAX: usize = 100;
/// Partitions of a run at most: each has a bit of its own that tells a node's side.
const PARTS_MAX: usize = 32;
/// Between a warm-up and the run that is measured: calls under way end, and what is learnt comes to learners.
const PAUSE_S: f64 = 10.0;

/// What a payload's calls take.
#[derive(Clone, Copy, Debug)]
struct Taken {
    time: ServiceTime,
    /// Whether its seed is the request's.
    is_seeded: bool,
    /// Whether its mean is the duration that was recorded of the call.
    is_timed: bool,
    task_type: u32,
    bytes: u64,
}

/// Makes worlds and requests of a scenario's runs.
pub(super) struct Maker<'a> {
    inputs: &'a Inputs,
    payloads: Vec<Taken>,
    neighbours: Vec<Neighbourhood>,
    network: Network,
    durations: Arc<Vec<f64>>,
    board: BoardUse,
    takes_no_time: bool,
}

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1000.0)
}

/// The one of a list that is gone through by turns.
fn by_turns<T: Copy>(all: &[T], index: usize) -> Option<T> {
    all.get(index % all.len().max(1)).copied()
}

impl<'a> Maker<'a> {
    /// Of these inputs.
    ///
    /// # Errors
    /// Everything that cannot be simulated.
    pub(super) fn new(inputs: &'a Inputs) -> Result<Self, ExperimentError> {
        let scenario = &inputs.scenario;
        let mut problems = Vec::new();
        let board = match (scenario.service.alone, &*scenario.function) {
            (Some(true), _) | (None, "fn-sleep") => BoardUse::Alone,
            _ => BoardUse::Shared,
        };
        let longest = inputs.recording.as_ref().and_then(|recording| recording.longest_s());
        let recorded = scenario.service.durations.is_some() || longest.is_some();
        let takes_no_time = scenario.function == "fn-echo" && !recorded;
        if !recorded
            && !["fn-work", "fn-sleep", "fn-spin", "fn-echo"].contains(&&*scenario.function)
        {
            problems.push(format!(
                "function: what {} takes is not known: service.durations or a recording names times",
                scenario.function
            ));
        }
        let mut payloads = Vec::new();
        for payload in &inputs.payloads {
            let asked = |duration_s: Option<f64>| USUAL.asked(&payload.filled(0, duration_s));
            // The longest must be one that a query can ask for.
            match asked(longest).and_then(|time| Ok((time, asked(longest.and(Some(0.0)))?))) {
                Ok((time, shortest)) => payloads.push(Taken {
                    time,
                    is_seeded: payload.query.contains(SEED),
                    is_timed: time.mean_ms != shortest.mean_ms,
                    task_type: payload.task_type,
                    bytes: payload.body.bytes.len() as u64,
                }),
                Err(why) => problems.push(format!("payloads: {}: {why}", payload.title)),
            }
        }
        let network = network(inputs);
        let neighbours =
            neighbours(inputs, &network).map_err(|why| problems.push(why)).unwrap_or_default();
        let nodes = neighbours.len();
        if nodes > ALL_NODES_MAX && neighbours.contains(&Neighbourhood::All) {
            problems.push(format!(
                "nodes: there are {nodes}, and more than {ALL_NODES_MAX} cannot all know each other: topology says who \
                 is whose neighbour"
            ));
        }
        let parts = scenario.faults.iter().filter(|f| f.kind == SimulatedFaultKind::Part).count();
        if parts > PARTS_MAX {
            problems.push(format!("faults: {parts} of kind part, at most {PARTS_MAX} are taken"));
        }
        if !problems.is_empty() {
            return Err(ExperimentError::Inputs(problems));
        }
        let durations = Arc::new(inputs.durations.clone());
        Ok(Self { inputs, payloads, neighbours, network, durations, board, takes_no_time })
    }

    /// When the measured run begins, after a warm-up of so many seconds.
    pub(super) fn begins_s(&self, warm_up_s: f64) -> f64 {
        if warm_up_s > 0.0 { warm_up_s + PAUSE_S } else { 0.0 }
    }

    /// The world of a run.
    ///
    /// # Errors
    /// The learner's parameters are none.
    pub(super) fn world(&self, point: &Point) -> Result<World, ExperimentError> {
        let scenario = &self.inputs.scenario;
        let warm_up_s = if point.improves() { scenario.learner_warm_up_s } else { 0.0 };
        let overheads = scenario.overheads;
        let learning = match point.learns() {
            true => Some(
                learning(scenario, point)
                    .map_err(|why| ExperimentError::Inputs(vec![format!("learner: {why}")]))?,
            ),
            false => None,
        };
        Ok(World {
            nodes: self.nodes(),
            scheduler: point.scheduler.clone().unwrap_or_default(),
            network: self.network.clone(),
            board: self.board,
            overheads: Overheads {
                client: ms(overheads.client_ms),
                probe: ms(overheads.probe_ms),
                forward: ms(overheads.forward_ms),
                end: ms(overheads.end_ms),
            },
            patience: WaitTimes {
                client: Duration::from_secs_f64(scenario.request_timeout_s),
                ..WaitTimes::default()
            },
            learning,
            peer_ejection: true,
            membership: self.membership(),
            faults: scenario.faults.iter().map(|f| fault(f, self.begins_s(warm_up_s))).collect(),
            seed: point.seed,
        })
    }

    fn membership(&self) -> SimMembership {
        let Scenario { nodes, faults, .. } = &self.inputs.scenario;
        let are_few = self.inputs.fleet.0.len() <= SWIM_UNASKED_MAX;
        match nodes.membership {
            Some(SimulatedMembership::Swim) => SimMembership::Swim,
            None if are_few && !faults.is_empty() => SimMembership::Swim,
            Some(SimulatedMembership::Ruled) | None => SimMembership::Ruled,
        }
    }

    fn nodes(&self) -> Vec<NodeSetup> {
        let Scenario { nodes, k, queue_length, queue_enabled, .. } = &self.inputs.scenario;
        let wanted = LimitsPatch {
            parallel_running_functions_max: *k,
            queue_length_max: *queue_length,
            queue_enabled: *queue_enabled,
        };
        let members = self.inputs.fleet.0.iter().enumerate();
        let node = |(index, member): (usize, &Member)| {
            let usual = Limits { k: by_turns(&nodes.k.0, index).unwrap_or(4), ..Limits::default() };
            let host: Arc<str> = member.address.to_string().into();
            // As nodes are called that have no name of their own.
            let name = || format!("p2pfaas-{host}");
            NodeSetup {
                name: member.wanted.machine.machine_id.clone().unwrap_or_else(name).into(),
                host,
                limits: wanted.over(member.wanted.limits.over(usual)),
                cores: by_turns(&nodes.cores.0, index).unwrap_or(1.0),
                speed: by_turns(&nodes.speed.0, index).unwrap_or(1.0),
                neighbours: self.neighbours.get(index).cloned().unwrap_or(Neighbourhood::All),
            }
        };
        members.map(node).collect()
    }

    /// What clients send, first for the warm-up.
    pub(super) fn requests(
        &self,
        point: &Point,
        warm_up_s: f64,
    ) -> impl Iterator<Item = Request> + use<'_> {
        let inputs = self.inputs;
        let begins = Duration::from_secs_f64(self.begins_s(warm_up_s));
        let warm_up = (warm_up_s > 0.0).then(|| inputs.plan(point, warm_up_s, true));
        // For what has no seed in its query: each node's own stream, as in nodes.
        let mut streams: Vec<SmallRng> = (0..inputs.fleet.0.len() as u64)
            .map(|node| SmallRng::seed_from_u64(point.seed ^ (node << 32) ^ 0x7469_6d65))
            .collect();
        let warm = warm_up.into_iter().flatten().map(|planned| (planned, None));
        let deadlines = inputs.scenario.deadlines(point);
        let measured = inputs.plan(point, inputs.scenario.duration_s, false).zip(0u64..);
        let measured = measured.map(|(planned, number)| (planned, Some(number)));
        warm.chain(measured).filter_map(move |(planned, number)| {
            let stream = streams.get_mut(planned.node)?;
            let (payload, work) = self.work(&planned, stream)?;
            let begins = if number.is_some() { begins } else { Duration::ZERO };
            let tag = |number| tag(number, planned.payload, self.payloads.len());
            Some(Request {
                at: begins + Duration::from_secs_f64(planned.at_s),
                node: u32::try_from(planned.node).ok()?,
                tag: number.map_or(WARM_UP, tag),
                task_type: payload.task_type,
                work,
                bytes: payload.bytes,
                deadline: deadlines.of(payload.task_type).map(Duration::from_secs_f64),
            })
        })
    }

    fn work(&self, planned: &Planned, stream: &mut SmallRng) -> Option<(Taken, Duration)> {
        let payload = *self.payloads.get(planned.payload)?;
        let mut time = match payload.is_seeded {
            true => ServiceTime { seed: Some(planned.seed), ..payload.time },
            false => payload.time,
        };
        if let Some(duration_s) = planned.duration_s.filter(|_| payload.is_timed) {
            time.mean_ms = duration_s * 1000.0;
        }
        let work = match (self.durations.len(), planned.duration_s) {
            (0, Some(duration_s)) if !payload.is_timed => Duration::from_secs_f64(duration_s),
            (0, _) if self.takes_no_time => Duration::ZERO,
            (0, _) => time.draw(stream),
            (recorded, _) => {
                // The same for the same request under every algorithm.
                let at = SmallRng::seed_from_u64(planned.seed).random_range(0..recorded);
                Duration::from_secs_f64(*self.durations.get(at)?)
            }
        };
        Some((payload, work))
    }
}

/// Each node's neighbours, as the fleet and the topology say. The nearest are those with the shortest round trips by
/// the network's means.
fn neighbours(inputs: &Inputs, network: &Network) -> Result<Vec<Neighbourhood>, String> {
    let members = &inputs.fleet.0;
    let by_address: HashMap<IpAddr, u32> =
        members.iter().map(|member| member.address.to_canonical()).zip(0..).collect();
    let indices = |addresses: BTreeSet<IpAddr>| {
        addresses.iter().filter_map(|address| by_address.get(address).copied()).collect()
    };
    let group_of = |member: &Member| member.wanted.machine.machine_group_name.clone();
    let others = |own: usize| members.iter().enumerate().filter(move |(index, _)| *index != own);
    let of = |(own, member): (usize, &Member)| {
        let told = member.wanted.machine.neighbours();
        Ok(match told.map_err(|why| format!("neighbours: {why}"))? {
            None | Some(Neighbours::All) => Neighbourhood::All,
            Some(Neighbours::List(all)) => Neighbourhood::Of(indices(all.into_iter().collect())),
            Some(Neighbours::Group) => {
                let same = others(own).filter(|(_, other)| group_of(other) == group_of(member));
                Neighbourhood::Of(same.filter_map(|(index, _)| u32::try_from(index).ok()).collect())
            }
            Some(Neighbours::Nearest(count)) => {
                let round_trips = others(own).filter_map(|(index, other)| {
                    let pair = (u32::try_from(own).ok()?, u32::try_from(index).ok()?);
                    let there_and_back =
                        network.latency(pair.0, pair.1) + network.latency(pair.1, pair.0);
                    Some((other.address.to_canonical(), Some(there_and_back)))
                });
                Neighbourhood::Of(indices(nearest(count, round_trips, &BTreeSet::new())))
            }
        })
    };
    members.iter().enumerate().map(of).collect()
}

fn network(inputs: &Inputs) -> Network {
    let told = &inputs.scenario.network;
    let bytes_per_s = |mbit: f64| mbit * 1e6 / 8.0;
    let link = Link {
        latency: ms(told.latency_ms),
        deviation: ms(told.deviation_ms),
        bytes_per_s: bytes_per_s(told.bandwidth_mbit),
    };
    let pairs = inputs.pairs.iter().filter_map(|&(from, to, latency_ms, mbit)| {
        let bytes_per_s = mbit.map_or(link.bytes_per_s, bytes_per_s);
        let pair = (u32::try_from(from).ok()?, u32::try_from(to).ok()?);
        Some((pair, Link { latency: ms(latency_ms), bytes_per_s, ..link }))
    });
    let clients = Link { latency: ms(told.client_latency_ms), ..Link::default() };
    Network { link, links: pairs.collect::<BTreeMap<_, _>>(), clients, loss: told.loss }
}

fn fault(told: &SimulatedFault, begins_s: f64) -> SimFault {
    let from = Duration::from_secs_f64(begins_s + told.at_s);
    SimFault {
        kind: match told.kind {
            SimulatedFaultKind::Kill => FaultKind::Kill,
            SimulatedFaultKind::Stall => FaultKind::Stall,
            SimulatedFaultKind::Part => FaultKind::Part,
        },
        nodes: told.nodes.0.clone(),
        from,
        until: told.for_s.map_or(Duration::MAX, |for_s| from + Duration::from_secs_f64(for_s)),
    }
}

/// How the nodes of a run learn: as the bench sets real ones up.
fn learning(scenario: &Scenario, point: &Point) -> Result<LearningSetup, String> {
    let deadlines_s = scenario.deadlines(point).0;
    let (reward, rewarding) = match scenario.learning {
        Learning::Client => {
            let batch = scenario.train_batch;
            (json!({"source": "client"}), Rewarding::Client { deadlines_s, batch })
        }
        Learning::Node => (json!({"source": "node", "deadlines_s": deadlines_s}), Rewarding::Nodes),
        Learning::Off => (json!({"source": "client"}), Rewarding::Nobody),
    };
    let mut parameters = scenario.learner.clone();
    parameters.entry("reward").or_insert(reward);
    LearningSetup::new(&parameters, rewarding)
}
