//! A call's way through the node: scheduled, then run here in a slot or handed to a peer.
//!
//! What is lost to failures: nothing that was not started. A peer that cannot be connected to has
//! not taken the call, so another candidate is tried, or the call runs here. A connection that
//! breaks after the call was sent may have run it: that is an error (403), never a second run.
//! (A failure says of itself whether it may be retried: [`ForwardFailure::retry_is_safe`].)
//!
//! Functions and other nodes are behind ports ([`Backend`], [`Forwarder`]), so that these rules are
//! tested without sockets.

mod ahead;
pub mod body;
pub mod forward;
pub mod function;
mod judging;
pub mod outliers;
mod progress;
pub mod state;
pub mod turns;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use self::ahead::{AheadRules, read_ahead};
use self::body::{AnswerBody, RequestBody};
use self::forward::{Forward, ForwardFailure, Forwarder, PeerReply};
use self::function::{Answer, Backend, Invocation};
use self::progress::{Count, Followed, FollowedCall, Running, TotalLimit};
use self::state::{NodePhase, NodeState};
use crate::actors::queue::Entrance;
use crate::actors::replicas::{Replicas, Steer};
use crate::actors::scheduler::Schedule;
use crate::actors::switch::Active;
use crate::config::Settings;
use crate::connections::Bodies;
use crate::error::{CallOutcome, Error};
use crate::memory::budget::Reservation;
use crate::metrics::FunctionMetrics;
use crate::policy::deciding::FORWARDS_MAX;
use crate::policy::{Decision, Knowledge, LearnerDecision, LineOrder, Policy, Task};
use crate::queue::{Arriving, Refusal};
use crate::types::{FunctionName, Peer, shortened};
use crate::wire::{PeerHop, Timings, seconds};

/// Carries out the calls of a worker thread.
pub struct Dispatcher {
    node: Arc<NodeState>,
    replicas: Replicas,
    backend: Rc<dyn Backend>,
    forwarder: Rc<dyn Forwarder>,
    bodies: Bodies,
    /// The metrics of the functions that this thread has called.
    metrics: RefCell<HashMap<FunctionName, Arc<FunctionMetrics>>>,
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
    pub held: Reservation,
}

/// What became of a call.
pub struct CallReport {
    /// The function's answer, or why there is none.
    pub result: Result<Answer, Error>,
    /// The algorithm that scheduled it.
    pub scheduler: Arc<Active>,
    /// The times taken here.
    pub timings: Timings,
    /// The learner's decision, if there was one.
    pub learnt: Option<LearnerDecision>,
    /// When the call arrived here.
    pub arrival: Instant,
    /// Where it ran elsewhere: the nodes it passed after this one, the executing one first.
    pub elsewhere: Option<Vec<PeerHop>>,
}

/// What is known of a call on its way through, filled in as it goes.
struct Course<'a> {
    /// Where it stands in line, if it must wait.
    line_order: LineOrder,
    /// What its algorithm is to be told in the end.
    followed: &'a mut Option<FollowedCall>,
    scheduling: Option<Duration>,
    probing: Option<Duration>,
    execution: Option<Duration>,
    learnt: Option<LearnerDecision>,
    elsewhere: Option<Vec<PeerHop>>,
    away: Option<OwnedSemaphorePermit>,
}

impl Course<'_> {
    /// Of which nothing is known; what its algorithm is to be told is kept where it outlives a client that hangs up.
    fn of(followed: &mut Option<FollowedCall>) -> Course<'_> {
        Course {
            line_order: LineOrder::default(),
            followed,
            scheduling: None,
            probing: None,
            execution: None,
            learnt: None,
            elsewhere: None,
            away: None,
        }
    }

    /// It is handed to that peer; `None`: it could not be.
    fn goes_to(&mut self, peer: Option<&Peer>) {
        if let Some(followed) = self.followed.as_mut() {
            followed.peer = peer.map(|peer| Arc::clone(&peer.host));
        }
    }

    /// Whether the function ran, here or elsewhere: so it exists.
    fn has_run(&self) -> bool {
        let ran = |hop: &PeerHop| hop.timings.execution_time.is_some();
        self.execution.is_some() || self.elsewhere.as_ref().is_some_and(|hops| hops.iter().any(ran))
    }
}

impl Dispatcher {
    /// For the current thread, whose Schedulers are `replicas`.
    pub fn new(
        node: Arc<NodeState>,
        replicas: Replicas,
        backend: Rc<dyn Backend>,
        forwarder: Rc<dyn Forwarder>,
    ) -> Self {
        let bodies = node.call_bodies();
        Self { node, replicas, backend, forwarder, bodies, metrics: RefCell::default() }
    }

    /// The algorithm for a call whose headers ask for `steer`.
    pub fn scheduler(&self, steer: Option<Steer>) -> Arc<Active> {
        self.replicas.choose(steer)
    }

    /// Carries a call out, to its end or the node's.
    pub async fn carry_out(&self, call: Call) -> CallReport {
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
            metrics: self.metrics_of(&name, false),
            scheduler: Arc::clone(&scheduler),
            outcome: CallOutcome::HungUp,
            arrival,
            followed: None,
            start: self.node.start,
        };
        let mut course = Course::of(&mut count.followed);
        let mut phase = self.node.phase.subscribe();
        let result = {
            let carried = self.run_or_forward(call, &scheduler, &mut course);
            tokio::select! {
                biased;
                result = carried.instrument(span.clone()) => result,
                _ = phase.wait_for(|phase| *phase == NodePhase::Stopped) => Err(Error::Stopped),
            }
        };
        let total = arrival.elapsed();
        let has_run = course.has_run();
        if let Some(followed) = course.followed.as_mut() {
            followed.heard(result.as_ref().ok().map(|answer| answer.status), has_run);
        }
        let Course { learnt, elsewhere, scheduling, probing, execution, away, .. } = course;
        count.outcome = match &result {
            Ok(_) if elsewhere.is_some() => CallOutcome::Forwarded,
            Ok(_) => CallOutcome::Executed,
            Err(error) => error.outcome(),
        };
        if has_run {
            count.metrics = self.metrics_of(&name, true);
        }
        count.first_byte();
        let result = match result {
            Ok(answer) => Ok(Followed::follow(answer, count, away, span)),
            Err(error) => {
                count.failed(&span, &error);
                Err(error)
            }
        };
        let timings = Timings {
            execution_time: execution.and_then(seconds),
            total_time: seconds(total),
            scheduling_time: scheduling.and_then(seconds),
            probing_time: probing.and_then(seconds),
        };
        CallReport { result, scheduler, timings, learnt, arrival, elsewhere }
    }

    async fn run_or_forward(
        &self,
        mut call: Call,
        scheduler: &Arc<Active>,
        course: &mut Course<'_>,
    ) -> Result<Answer, Error> {
        // Before the decision, so that nothing comes between that and the slot: calls that arrive
        // together must see each other. And before there is a slot, for names that lead nowhere would keep
        // others waiting. A call that runs elsewhere does not need it to come to anything.
        let prepared = self.backend.prepare(&call.invocation).await;
        let been_here = self.been_here(&call);
        let learns = scheduler.policy.learns();
        let mut heard = self.begin(&call, &*scheduler.policy, course);
        let asker = Arc::new(());
        for _ in 0..FORWARDS_MAX {
            let (task, asker) = (call.task.clone(), Arc::downgrade(&asker));
            let ask = Schedule { task, arrival: call.arrival, heard, asker };
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
                    prepared?;
                    return self.run_here(call, may_wait, course).await;
                }
                Decision::Forward(_) if been_here => break,
                Decision::Forward(peer) => peer,
            };
            // Too many are away already: their connections wait, and none may be left for others.
            let Ok(away) = Arc::clone(&self.node.away).try_acquire_owned() else { break };
            if learns && self.left_out(&call, &*scheduler.policy).contains(&peer.host) {
                heard.unreachable.push(peer.host);
                continue;
            }
            if !self.forwarder.streams_to(&peer) && !self.hold_whole(&mut call).await? {
                tracing::debug!(peer = %peer.host, "a body is too large for a peer");
                heard.unreachable.push(peer.host);
                continue;
            }
            course.goes_to(Some(&peer));
            match self.forward(&mut call, &peer).await {
                Ok(forwarded) => {
                    course.elsewhere = Some(forwarded.peers);
                    course.away = Some(away);
                    let mut answer = forwarded.answer;
                    answer.held.get_or_insert(call.held);
                    return Ok(answer);
                }
                Err(failure) if failure.retry_is_safe() && call.invocation.body.rewind() => {
                    tracing::debug!(peer = %peer.host, why = %failure, "a peer did not take a call");
                    course.goes_to(None);
                    heard.unreachable.push(peer.host);
                }
                Err(failure) => return Err(failure.into_error(&peer)),
            }
        }
        prepared?;
        self.run_here(call, true, course).await
    }

    /// What is known of a call before `policy` is asked.
    fn begin(&self, call: &Call, policy: &dyn Policy, course: &mut Course<'_>) -> Knowledge {
        let mark = policy.mark(&call.task, call.arrival.saturating_duration_since(self.node.start));
        course.line_order = policy.line_order(mark);
        *course.followed = policy.hears_outcomes().then(|| FollowedCall::of(&call.task, mark));
        let mut heard = Knowledge { mark, ..Knowledge::default() };
        // A policy that learns has its own numbers for peers, so none may be missing.
        if !policy.learns() && policy.may_forward(&call.task) {
            heard.unreachable = self.left_out(call, policy);
        }
        heard
    }

    /// The metrics of a function: its own once it `exists`, for clients type any name.
    fn metrics_of(&self, name: &FunctionName, exists: bool) -> Arc<FunctionMetrics> {
        if let Some(known) = self.metrics.borrow().get(name) {
            return Arc::clone(known);
        }
        let found = match exists {
            true => self.node.metrics.of_function(name.as_str()),
            false => self.node.metrics.of_known_function(name.as_str()),
        };
        let Some(found) = found else { return self.node.metrics.of_others() };
        self.metrics.borrow_mut().insert(name.clone(), Arc::clone(&found));
        found
    }

    /// Whether a call that a peer sent has passed this node already: then it is not sent on again,
    /// or nodes that cannot see how far it came could pass it round in circles.
    fn been_here(&self, call: &Call) -> bool {
        call.task.from_peer && {
            let me = self.node.published.load().identity.ip_text();
            call.path.iter().any(|hop| !me.is_empty() && hop.machine_ip == me)
                || self.node.forwarding.has(&call.tracing_id)
        }
    }

    /// Reads the call's body whole, for a peer that takes it only so; `false`: it is known to be too
    /// large for that, and is left as it is.
    async fn hold_whole(&self, call: &mut Call) -> Result<bool, Error> {
        let RequestBody::Streamed { length, .. } = &call.invocation.body else { return Ok(true) };
        let limit_bytes = self.node.settings.whole_body_bytes_max();
        // What tells no length might be too large, and part of it would be gone then.
        let Some(length) = length.filter(|length| *length <= limit_bytes as u64) else {
            return Ok(false);
        };
        let more = self.bodies.take(length, None).await.ok_or(Refusal::BytesFull)?;
        let body = std::mem::replace(&mut call.invocation.body, RequestBody::EMPTY);
        call.invocation.body = RequestBody::Whole(body.collect(limit_bytes).await?);
        call.held.join(more);
        Ok(true)
    }

    async fn run_here(
        &self,
        call: Call,
        may_wait: bool,
        course: &mut Course<'_>,
    ) -> Result<Answer, Error> {
        let arrived = Instant::now();
        let bytes = call.invocation.body.held_bytes() as u64;
        let due = match course.line_order {
            LineOrder::Arrival => None,
            LineOrder::EarliestDeadline => {
                let came = call.arrival.saturating_duration_since(self.node.start);
                call.task.deadline.map(|deadline| came.saturating_add(deadline))
            }
        };
        let arriving = Arriving { bytes, may_wait, task_type: call.task.task_type, due };
        let slot = match self.node.gate.enter(arriving)? {
            Entrance::Slot(slot) => slot,
            Entrance::Place(place) => place.await?,
        };
        let name = call.invocation.name.clone();
        let started = Instant::now();
        if let Some(followed) = course.followed.as_mut() {
            followed.started = Some(started);
        }
        let total = self.total_limit(&name, started);
        let ran = self.backend.call(call.invocation, slot);
        let ran = match &total {
            None => ran.await,
            Some(total) => {
                let ran = timeout_at(total.until, ran).await;
                ran.unwrap_or_else(|_| Err(total.error.clone()))
            }
        };
        self.judge_here(&ran);
        let mut answer = ran?;
        answer.held.get_or_insert_with(|| match &answer.body {
            AnswerBody::Whole(body) => call.held.for_answer(body.len()),
            _ => call.held,
        });
        course.execution = Some(started.elapsed());
        let ran = course.followed.as_ref().map(FollowedCall::ended);
        let (metrics, queueing) = (self.metrics_of(&name, true), started - arrived);
        let running = Running { metrics, queueing, started, ran };
        answer.body = match answer.body {
            body @ (AnswerBody::Whole(_) | AnswerBody::LeftOut { .. }) => {
                running.ended();
                body
            }
            AnswerBody::Streamed { stream, length } => {
                let stream = running.until_end_of(stream, total);
                let stream = read_ahead(stream, length, &self.ahead());
                AnswerBody::Streamed { stream, length }
            }
            AnswerBody::Upgraded(stream) => {
                AnswerBody::Upgraded(running.until_end_of(stream, total))
            }
        };
        Ok(answer)
    }

    /// When a call of that function, which begins to run at `started`, is given up; `None`: never.
    fn total_limit(&self, name: &FunctionName, started: Instant) -> Option<TotalLimit> {
        let limits = &self.node.settings.function_total_timeouts_s.0;
        let limit = Settings::seconds(*limits.get(name.as_str())?);
        let error = Error::FunctionTimedOut { name: name.clone(), limit };
        Some(TotalLimit { until: started + limit, error })
    }

    fn ahead(&self) -> AheadRules {
        let settings = &self.node.settings;
        AheadRules {
            window_bytes: settings.window_bytes,
            whole_bytes_max: settings.whole_body_bytes_max(),
            budget: Arc::clone(&self.bodies.budget),
        }
    }

    async fn forward(&self, call: &mut Call, peer: &Peer) -> Result<PeerReply, ForwardFailure> {
        let _known = self.node.forwarding.begin(&call.tracing_id);
        let me = self.node.published.load().identity.clone();
        let mut path = call.path.clone();
        path.push(PeerHop {
            machine_ip: me.ip_text(),
            machine_id: me.id,
            timings: Timings::default(),
        });
        let forward = Forward {
            invocation: &call.invocation,
            hops: call.task.hops.saturating_add(1),
            path: &path,
            number: self.node.next_request(),
            tracing_id: &call.tracing_id,
            task_type: &call.task_type,
            deadline: call
                .task
                .deadline
                .map(|deadline| deadline.saturating_sub(call.arrival.elapsed())),
        };
        let name = &call.invocation.name;
        let ejects = self.node.settings.peer_ejection;
        let away = ejects.then(|| self.node.outliers.goes(&peer.host, name));
        let result = self.forwarder.forward(peer, forward).await;
        self.judge(peer, name, away, &result);
        result
    }
}

#[cfg(test)]
mod tests;
