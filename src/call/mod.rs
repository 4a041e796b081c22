//! A call's way through the node: scheduled, then run here in a slot or handed to a peer.
//!
//! What is lost to failures: nothing that was not started. A peer that cannot be connected to has
//! not taken the call, so another candidate is tried, or the call runs here. A connection that
//! breaks after the call was sent may have run it: that is an error (403), never a second run.

pub mod state;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tokio::time::Instant;
use tracing::Instrument;

use crate::actors::learner::hub::OwnLearner;
use crate::actors::queue::Entry;
use crate::actors::replicas::{Replicas, Steer};
use crate::actors::scheduler::{Adviser, Askable, Schedule};
use crate::actors::switch::Active;
use crate::call::state::{NodeState, Phase};
use crate::client::remote_learner::LearnerPool;
use crate::error::Error;
use crate::faas::{Answer, Functions, Invocation};
use crate::http::body::Uploads;
use crate::http::headers;
use crate::memory::budget::Held;
use crate::metrics::FunctionMetrics;
use crate::peer::{Forward, ForwardFailure, PeerClient};
use crate::policy::{Decision, Heard, Learnt, Task};
use crate::queue::{Arriving, Refusal};
use crate::types::{FunctionName, Peer, shortened};
use crate::wire::{PeerHop, PeerRequest, Timings, seconds};

/// Peers that are tried for one call before it runs here; each costs up to the connection
/// time-out.
const FORWARDS_MAX: usize = 3;
/// Bytes of headers that a forwarded call may have before they take a share of the bodies' budget, and
/// how often those beyond are held while it is under way.
const HEADERS_COVERED: usize = 8 << 10;
const HEADERS_TIMES: usize = 3;

/// A worker thread's share of the node.
pub struct Worker {
    /// What all threads share.
    pub node: Arc<NodeState>,
    /// This thread's Schedulers.
    pub replicas: Replicas,
    /// This thread's backends.
    pub functions: Functions,
    /// What bodies that arrive must keep to.
    pub uploads: Uploads,
    peers: Rc<PeerClient>,
    /// The metrics of the functions that this thread has called.
    metrics: RefCell<HashMap<FunctionName, Arc<FunctionMetrics>>>,
}

impl Worker {
    /// For the current thread.
    pub fn new(node: Arc<NodeState>) -> Self {
        let peers = Rc::new(PeerClient::new(
            Arc::clone(&node.settings),
            node.discovery.clone(),
            Arc::clone(&node.metrics),
            node.call_bodies(),
        ));
        let functions = Functions::new(
            &node.settings,
            Arc::clone(&node.embedded),
            node.openfaas.clone(),
            node.call_bodies(),
        );
        let replicas = Replicas::new(
            Arc::clone(&node.in_force),
            node.source(),
            Askable { prober: Rc::clone(&peers) as _, adviser: adviser(&node) },
            Arc::clone(&node.metrics),
        );
        let uploads = Uploads::new(&node.settings, node.call_bodies());
        Self { node, replicas, functions, uploads, peers, metrics: RefCell::default() }
    }
}

/// Who decides what is learnt: this node's Learner or another one.
fn adviser(node: &Arc<NodeState>) -> Rc<dyn Adviser> {
    let (learning, metrics) = (Arc::clone(&node.learning), Arc::clone(&node.metrics));
    if node.settings.service_learning_host.is_empty() {
        let patience = Duration::from_millis(node.settings.learner_timeout_ms);
        return OwnLearner::new(learning, metrics, patience);
    }
    LearnerPool::new(&node.settings, learning, metrics)
}

/// A call, read and checked.
pub struct Call {
    /// The function and what it gets.
    pub invocation: Invocation,
    /// What the scheduler sees of it.
    pub task: Task,
    /// The scheduler that its headers ask for.
    pub steer: Option<Steer>,
    /// The client's tracing id; may be empty.
    pub tracing_id: String,
    /// The client's task type, as it sent it; may be empty.
    pub task_type: String,
    /// The nodes that it passed before.
    pub path: Vec<PeerHop>,
    /// When it arrived here.
    pub arrival: Instant,
    /// Its body's share of the node's budget.
    pub held: Held,
}

/// What became of a call.
pub struct Outcome {
    /// The function's answer, or why there is none.
    pub result: Result<Answer, Error>,
    /// The algorithm that scheduled it.
    pub scheduler: Arc<Active>,
    /// The times taken here.
    pub timings: Timings,
    /// The learner's decision, if there was one.
    pub learnt: Option<Learnt>,
    /// When the call arrived here.
    pub arrival: Instant,
    /// Where it ran elsewhere: the nodes it passed after this one, the executing one first.
    pub elsewhere: Option<Vec<PeerHop>>,
}

/// What is known of a call on its way through, filled in as it goes.
#[derive(Default)]
struct Course {
    scheduling: Option<Duration>,
    probing: Option<Duration>,
    execution: Option<Duration>,
    learnt: Option<Learnt>,
    elsewhere: Option<Vec<PeerHop>>,
}

/// Counts a call when dropped.
struct Count {
    metrics: Arc<FunctionMetrics>,
    scheduler: &'static str,
    outcome: &'static str,
    arrival: Instant,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.metrics.request(self.scheduler, self.outcome, self.arrival.elapsed());
    }
}

impl Worker {
    /// Carries a call out, to its end or the node's.
    pub async fn carry_out(&self, call: Call) -> Outcome {
        let scheduler = self.replicas.choose(call.steer);
        let name = call.invocation.name.clone();
        let arrival = call.arrival;
        let span = if call.tracing_id.is_empty() {
            tracing::debug_span!("call", function = %name)
        } else {
            let tracing_id = &*shortened(&call.tracing_id, 128);
            tracing::info_span!("call", function = %name, tracing_id)
        };
        // Counts the call also if its client hangs up, which drops this future.
        let mut count = Count {
            metrics: self.metrics_of(&name),
            scheduler: scheduler.policy.name(),
            outcome: "hung_up",
            arrival,
        };
        let mut course = Course::default();
        let mut phase = self.node.phase.subscribe();
        let result = {
            let carried = self.run_or_forward(call, &scheduler, &mut course);
            tokio::select! {
                biased;
                result = carried.instrument(span.clone()) => result,
                _ = phase.wait_for(|phase| *phase == Phase::Stopped) => Err(Error::Stopped),
            }
        };
        let total = arrival.elapsed();
        count.outcome = match &result {
            Ok(_) if course.elsewhere.is_some() => "forwarded",
            Ok(_) => "executed",
            Err(error) => error.outcome(),
        };
        let outcome = count.outcome;
        drop(count);
        span.in_scope(|| {
            tracing::debug!(scheduler = %scheduler.full_name, outcome, ?total, "a call ended");
        });
        let timings = Timings {
            execution_time: course.execution.and_then(seconds),
            total_time: seconds(total),
            scheduling_time: course.scheduling.and_then(seconds),
            probing_time: course.probing.and_then(seconds),
        };
        let Course { learnt, elsewhere, .. } = course;
        Outcome { result, scheduler, timings, learnt, arrival, elsewhere }
    }

    /// Counts a call that was refused before it was one.
    pub fn refused(&self, error: &Error, arrival: Instant) {
        let metrics = self.node.metrics.of_others();
        metrics.request("none", error.outcome(), arrival.elapsed());
        self.node.refused(error);
    }

    async fn run_or_forward(
        &self,
        call: Call,
        scheduler: &Arc<Active>,
        course: &mut Course,
    ) -> Result<Answer, Error> {
        let been_here = self.been_here(&call);
        let mut heard = Heard::default();
        let mut message = None;
        for _ in 0..FORWARDS_MAX {
            let ask = Schedule { task: call.task, arrival: call.arrival, heard };
            let scheduled = self.replicas.ask(call.steer, scheduler, ask).await;
            heard = scheduled.heard;
            if heard.probes.is_some() {
                *course.probing.get_or_insert_default() += scheduled.probing;
            }
            course.learnt.clone_from(&heard.learnt);
            course.scheduling = Some(call.arrival.elapsed());
            let peer = match scheduled.decision {
                Decision::Reject => return Err(Error::Rejected),
                Decision::Refuse => return Err(Error::RefusedByScheduler),
                Decision::RunHere { may_wait } => {
                    return self.run_here(call, may_wait, course).await;
                }
                Decision::Forward(_) if been_here => break,
                Decision::Forward(peer) => peer,
            };
            // Too many are away already: their connections wait, and none may be left for others.
            let Ok(_away) = self.node.away.try_acquire() else { break };
            let (message, _held) = match &message {
                Some(made) => made,
                None => message.insert(self.message(&call).await?),
            };
            match self.forward(&call, &peer, message.clone()).await {
                Ok(forwarded) => {
                    course.elsewhere = Some(forwarded.peers);
                    return Ok(forwarded.answer);
                }
                Err(ForwardFailure::NotSent(why) | ForwardFailure::Refused(why)) => {
                    tracing::debug!(peer = %peer.host, %why, "a peer did not take a call");
                    heard.unreachable.push(peer.host);
                }
                Err(ForwardFailure::Broke(why)) => {
                    return Err(Error::ForwardBroke { peer: peer.host.to_string(), why });
                }
                Err(ForwardFailure::Nothing(why)) => {
                    return Err(Error::PeerAnsweredNothing { peer: peer.host.to_string(), why });
                }
            }
        }
        self.run_here(call, true, course).await
    }

    fn metrics_of(&self, name: &FunctionName) -> Arc<FunctionMetrics> {
        if let Some(known) = self.metrics.borrow().get(name) {
            return Arc::clone(known);
        }
        let Some(found) = self.node.metrics.of_function(name.as_str()) else {
            return self.node.metrics.of_others();
        };
        self.metrics.borrow_mut().insert(name.clone(), Arc::clone(&found));
        found
    }

    /// Whether a call that a peer sent has passed this node already: then it is not sent on again,
    /// or nodes that cannot see how far it came could pass it round in circles.
    fn been_here(&self, call: &Call) -> bool {
        let me = self.node.published.load().identity.ip_text();
        call.task.from_peer
            && (call.path.iter().any(|hop| !me.is_empty() && hop.machine_ip == me)
                || self.node.forwarding.has(&call.tracing_id))
    }

    async fn run_here(
        &self,
        call: Call,
        may_wait: bool,
        course: &mut Course,
    ) -> Result<Answer, Error> {
        let arrived = Instant::now();
        let bytes = call.invocation.body.len() as u64;
        let arriving = Arriving { bytes, may_wait, task_type: call.task.task_type };
        let slot = match self.node.gate.enter(arriving)? {
            Entry::Slot(slot) => slot,
            Entry::Place(place) => place.await?,
        };
        let name = call.invocation.name.clone();
        let started = Instant::now();
        let mut answer = self.functions.run(call.invocation, slot).await?;
        let bytes = answer.body.len();
        answer.held.get_or_insert_with(|| call.held.for_answer(bytes));
        let execution = started.elapsed();
        course.execution = Some(execution);
        self.metrics_of(&name).executed(started - arrived, execution);
        Ok(answer)
    }

    async fn forward(
        &self,
        call: &Call,
        peer: &Peer,
        message: Bytes,
    ) -> Result<crate::peer::Forwarded, ForwardFailure> {
        let _known = self.node.forwarding.begin(&call.tracing_id);
        let forward = Forward {
            function: &call.invocation.name,
            message,
            tracing_id: &call.tracing_id,
            task_type: &call.task_type,
            deadline: call
                .task
                .deadline
                .map(|deadline| deadline.saturating_sub(call.arrival.elapsed())),
        };
        self.peers.forward(peer, &forward).await
    }

    /// The call as a peer message. Made once, whoever it is sent to.
    async fn message(&self, call: &Call) -> Result<(Bytes, Held), Error> {
        let invocation = &call.invocation;
        let me = self.node.published.load().identity.clone();
        let mut path = call.path.clone();
        path.push(PeerHop {
            machine_ip: me.ip_text(),
            machine_id: me.id,
            timings: Timings::default(),
        });
        let mut passed = headers::to_json(&invocation.headers);
        let content_type = passed.remove("content-type");
        let request = PeerRequest {
            service_id_request: Some(self.node.next_request().into()),
            service_id_tracing: Some(call.tracing_id.clone()),
            function_name: Some(invocation.name.to_string()),
            hops: Some(i128::from(call.task.hops) + 1),
            peers_list: Some(path),
            payload: Some(BASE64_STANDARD.encode(&invocation.body)),
            content_type: Some(content_type.unwrap_or_default()),
            headers: Some(passed),
            method: (invocation.method != Method::POST).then(|| invocation.method.to_string()),
            query: (!invocation.query.is_empty()).then(|| invocation.query.clone()),
        };
        let body_bytes = request.payload.as_ref().map_or(0, String::len);
        let message = serde_json::to_vec(&request);
        let message = message.map_err(|why| Error::Internal(why.to_string()))?;
        // What the body takes, its own share stands for; its headers are held several times as well.
        let headers = message.len().saturating_sub(body_bytes);
        let bytes = headers.saturating_sub(HEADERS_COVERED).saturating_mul(HEADERS_TIMES);
        let held = self.uploads.bodies.take(bytes as u64, None).await;
        Ok((Bytes::from(message), held.ok_or(Refusal::BytesFull)?))
    }
}
