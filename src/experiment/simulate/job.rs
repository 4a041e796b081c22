//! What a simulated call comes to in the results: as a real one would.

use std::time::Duration;

use super::KeptRows;
use crate::experiment::design::job::{DecisionShown, Job, JobTimes};
use crate::experiment::design::replay::RunRates;
use crate::experiment::design::scenario::Point;
use crate::experiment::run::Inputs;
use crate::policy::LearnerDecision;
use crate::simulation::{CallEnd, Finished, PassedNode, World};
use crate::wire::codes::ErrorCode;
use crate::wire::float_text;

/// The tag of calls that are not measured.
pub(super) const WARM_UP: u64 = u64::MAX;

/// Makes jobs of the calls of a run.
pub(super) struct JobMaker {
    hosts: Vec<String>,
    names: Vec<String>,
    rates: RunRates,
    /// How many calls each node was sent.
    sent: Vec<u64>,
    payloads: u64,
    /// When the run begins, in the simulation.
    begins: Duration,
    rows: KeptRows,
}

/// A call's tag: its number among all of the run, and its payload.
pub(super) fn tag(number: u64, payload: usize, payloads: usize) -> u64 {
    number * payloads.max(1) as u64 + payload as u64
}

impl JobMaker {
    /// Of a run that begins so long after the simulation.
    pub(super) fn new(
        world: &World,
        inputs: &Inputs,
        point: &Point,
        begins: Duration,
        rows: KeptRows,
    ) -> Self {
        let duration_s = inputs.scenario.duration_s;
        let nodes = world.nodes.len();
        Self {
            hosts: world.nodes.iter().map(|node| node.host.to_string()).collect(),
            names: world.nodes.iter().map(|node| node.name.to_string()).collect(),
            rates: inputs.rates(point, duration_s),
            sent: vec![0; nodes],
            payloads: inputs.payloads.len().max(1) as u64,
            begins,
            rows,
        }
    }

    /// The number of the call among all of the run, and the job without its number at the node; `None`: it is not
    /// measured.
    pub(super) fn job(&self, call: &Finished) -> Option<(u64, Job)> {
        let request = &call.request;
        if request.tag == WARM_UP {
            return None;
        }
        let start = request.at.saturating_sub(self.begins).as_secs_f64();
        let (status, code, net_error) = ended(call.end);
        let total_s = call.total.as_secs_f64();
        let was_answered = net_error.is_none();
        let external = call.path.len() > 1 && was_answered;
        let is_whole = self.rows == KeptRows::All;
        let passed = |all: &[String]| -> Vec<String> {
            let of = |passed: &PassedNode| all.get(passed.node as usize).cloned();
            let skipped = if is_whole { 0 } else { call.path.len() - 1 };
            match external {
                true => call.path.iter().skip(skipped).filter_map(of).collect(),
                false => Vec::new(),
            }
        };
        let times = |time: fn(&PassedNode) -> Option<Duration>| -> Vec<f64> {
            let told = call.path.iter().filter(|_| was_answered && is_whole).filter_map(time);
            told.map(|time| time.as_secs_f64()).collect()
        };
        let rate = self.rates.at(request.node as usize, start);
        let ran = call.execution.filter(|_| call.end == CallEnd::Served);
        let job = Job {
            node: request.node,
            request: 0,
            task_type: request.task_type,
            payload: usize::try_from(request.tag % self.payloads).unwrap_or(0),
            rate,
            total_s,
            first_byte_s: (was_answered && is_whole).then_some(total_s),
            execution_s: ran.map(|ran| ran.as_secs_f64()),
            status,
            error_code: code,
            net_error: net_error.map(str::to_owned),
            external,
            start,
            timings: JobTimes {
                total: times(|passed| Some(passed.total)),
                scheduling: times(|passed| Some(passed.scheduling)),
                probing: times(|passed| passed.probing),
            },
            peers_ip: passed(&self.hosts),
            peers_id: if is_whole { passed(&self.names) } else { Vec::new() },
            learnt: call.learnt.as_ref().filter(|_| was_answered).and_then(shown),
        };
        Some((request.tag / self.payloads, job))
    }

    /// Gives a job its number at its node; jobs come in the order of their sending.
    pub(super) fn number(&mut self, job: &mut Job) {
        if let Some(sent) = self.sent.get_mut(job.node as usize) {
            job.request = *sent;
            *sent += 1;
        }
    }
}

/// The status, the error's code, and why there was no answer.
fn ended(end: CallEnd) -> (u16, u32, Option<&'static str>) {
    let error = |code: ErrorCode| (code.status.as_u16(), code.code, None);
    match end {
        CallEnd::Served => (200, 0, None),
        CallEnd::Rejected => error(ErrorCode::REJECTED),
        CallEnd::Refused | CallEnd::Full(_) => error(ErrorCode::CANNOT_SCHEDULE),
        CallEnd::PeerLost => error(ErrorCode::FORWARD_BROKE),
        CallEnd::NodeLost => (0, 0, Some("the node is gone")),
        CallEnd::GivenUp => (0, 0, Some("no answer in time")),
    }
}

/// A decision as answers tell it; decision 0 is none.
fn shown(learnt: &LearnerDecision) -> Option<DecisionShown> {
    let state: Vec<String> = learnt.state.iter().map(|x| float_text(*x)).collect();
    (learnt.eid > 0).then(|| DecisionShown {
        eid: learnt.eid,
        state: state.join(","),
        action: learnt.action as f64,
        eps: learnt.epsilon,
        reward: None,
    })
}
