//! The root of the tree: starts the children in order, starts each again when it ends unasked, and
//! replaces each that does not answer any more.
//!
//! It holds no state that matters beyond that; what survives a child's restart is what its
//! factory gives the next incarnation, and stands in that child's own documentation.
//!
//! Every second it asks each child for its state ([`super::observe`]) and publishes what it knows. A
//! child that has been silent for too long is left to itself: its next incarnation begins behind the
//! same [`Handle`], and it ends once it comes back. Incarnations have numbers, so that its end is not
//! taken for that of its successor. Where three incarnations of a child hang, a further
//! one would hang as well: then it stays stuck, which `/health` shows to whoever can restart the node.
//!
//! A Supervisor whose own thread hangs can replace nobody. That shows too: what it has published
//! grows old. When it comes back it blames no child for the time that it was away.

mod schedulers;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use self::schedulers::{SchedulerAnswered, Schedulers};
use super::observe::{ActorRecord, ActorState, INTERVAL, Observations, Observe, Patience};
use super::replicas::SchedulerRoster;
use super::supervise::{Backoff, Charge, EndActor, EndCause, Guard, Handle};
use crate::metrics::Metrics;

/// Incarnations of one child that may hang at a time, each with its thread or its message.
const ABANDONED_MAX: u32 = 3;

/// An incarnation of a child is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct ChildEnded {
    child: usize,
    incarnation: u64,
    ended: EndCause,
}

/// An incarnation of a child answered.
#[derive(Message)]
#[rtype(result = "()")]
struct ChildAnswered {
    child: usize,
    incarnation: u64,
    state: ActorState,
}

/// From now on children end because they should, and are not started again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopRestarting;

/// Asks a child for its state; `None`: there is none to ask.
type Question = dyn Fn() -> Option<LocalBoxFuture<'static, Option<ActorState>>>;

struct Child {
    start: Box<dyn FnMut(Guard)>,
    end: Box<dyn Fn()>,
    observe: Box<Question>,
    record: ActorRecord,
    backoff: Backoff,
    started: Instant,
    /// The number of the incarnation in charge, the first being 1.
    incarnation: u64,
    charge: Charge,
    /// How far its pulses were when it was last looked at.
    pulses: u64,
    /// Whether it ended and is about to be started again.
    ended: bool,
    /// Incarnations that were replaced and have not ended yet.
    abandoned: u32,
}

/// See the module.
pub struct Supervisor {
    children: Vec<Child>,
    schedulers: Schedulers,
    metrics: Arc<Metrics>,
    observations: Arc<Observations>,
    /// When the children were last looked at.
    looked: Instant,
    stopping: bool,
    /// Tells whoever runs the node that the root itself is gone.
    _guard: Guard,
}

impl Supervisor {
    /// Without children yet. It publishes `observations`. `guard` is dropped with the supervisor.
    pub fn new(metrics: Arc<Metrics>, observations: Arc<Observations>, guard: Guard) -> Self {
        Self {
            children: Vec::new(),
            schedulers: Schedulers::default(),
            metrics,
            observations,
            looked: Instant::now(),
            stopping: false,
            _guard: guard,
        }
    }

    /// Adds a child that `make` makes, now and at every restart; `handle` leads to it. Children
    /// start in the order in which they were added.
    #[must_use]
    pub fn child<A: Actor<Context = Context<A>> + Handler<EndActor> + Handler<Observe>>(
        self,
        name: &'static str,
        handle: Handle<A>,
        mut make: impl FnMut(Guard) -> A + 'static,
    ) -> Self {
        self.child_started(name, Patience::USUAL, handle, move |guard| make(guard).start())
    }

    /// The same for a child that `start` starts where it belongs, on a thread of its own, and that
    /// may be silent for other times.
    #[must_use]
    pub fn child_started<A: Actor<Context = Context<A>> + Handler<EndActor> + Handler<Observe>>(
        mut self,
        name: &'static str,
        patience: Patience,
        handle: Handle<A>,
        mut start: impl FnMut(Guard) -> Addr<A> + 'static,
    ) -> Self {
        let (to_end, to_ask) = (handle.clone(), handle.clone());
        let start = Box::new(move |guard| handle.set(start(guard)));
        let end = move || {
            if let Some(addr) = to_end.addr() {
                // Also where the mailbox is full.
                addr.do_send(EndActor);
            }
        };
        let observe = move || -> Option<LocalBoxFuture<'static, Option<ActorState>>> {
            let answer = to_ask.addr()?.send(Observe);
            Some(Box::pin(async { answer.await.ok() }))
        };
        self.children.push(Child {
            start,
            end: Box::new(end),
            observe: Box::new(observe),
            record: ActorRecord::new(name, patience),
            backoff: Backoff::default(),
            started: Instant::now(),
            incarnation: 0,
            charge: Charge::default(),
            pulses: 0,
            ended: false,
            abandoned: 0,
        });
        self
    }

    /// Watches the Schedulers in `roster`, which run on threads of the child that was added last: it
    /// is replaced, with all its threads, where one of them is stuck.
    #[must_use]
    pub fn schedulers(mut self, roster: Arc<SchedulerRoster>) -> Self {
        self.schedulers = Schedulers::of(roster, self.children.len().saturating_sub(1));
        self
    }

    fn start_child(&mut self, index: usize, ctx: &Context<Self>) {
        let Some(child) = self.children.get_mut(index) else { return };
        child.incarnation += 1;
        let (parent, incarnation) = (ctx.address(), child.incarnation);
        let guard = Guard::new(move |ended| {
            parent.do_send(ChildEnded { child: index, incarnation, ended });
        });
        child.started = Instant::now();
        child.charge = guard.charge();
        child.pulses = 0;
        child.ended = false;
        child.record.begun();
        (child.start)(guard);
        self.ask_child(index, ctx);
    }

    /// Asks a child for its state, unless a question waits already.
    fn ask_child(&mut self, index: usize, ctx: &Context<Self>) {
        let Some(child) = self.children.get_mut(index) else { return };
        if child.ended || !child.record.ask(Instant::now()) {
            return;
        }
        let Some(answer) = (child.observe)() else { return };
        let (me, incarnation) = (ctx.address(), child.incarnation);
        // A task of its own: an actor looks at all its futures whenever one of them wakes it.
        actix_rt::spawn(async move {
            if let Some(state) = answer.await {
                me.do_send(ChildAnswered { child: index, incarnation, state });
            }
        });
    }

    /// Replaces who is stuck, asks everybody again, and publishes.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let lateness = (now - self.looked).saturating_sub(INTERVAL);
        self.looked = now;
        for child in &mut self.children {
            child.record.excuse(lateness);
            let pulses = child.charge.pulses();
            if pulses != child.pulses {
                child.pulses = pulses;
                child.record.working(now);
            }
        }
        self.schedulers.excuse(lateness);
        if !self.stopping {
            self.replace_the_stuck(now, ctx);
        }
        for index in 0..self.children.len() {
            self.ask_child(index, ctx);
        }
        self.schedulers.ask(now, &ctx.address());
        self.publish();
    }

    fn replace_the_stuck(&mut self, now: Instant, ctx: &Context<Self>) {
        for index in 0..self.children.len() {
            let stuck = |child: &Child| !child.ended && child.record.is_stuck(now);
            if let Some(child) = self.children.get(index).filter(|child| stuck(child)) {
                self.replace(index, child.record.name(), ctx);
            }
        }
        if let Some(runner) = self.schedulers.stuck_at(now)
            && self.replace(runner, Schedulers::NAME, ctx)
        {
            self.schedulers.abandon(now);
        }
    }

    /// Starts another incarnation of a child in the place of the one that is there, because `stuck`
    /// is. Gives whether it did.
    fn replace(&mut self, index: usize, stuck: &'static str, ctx: &Context<Self>) -> bool {
        let Some(child) = self.children.get_mut(index) else { return false };
        if child.ended || child.abandoned >= ABANDONED_MAX {
            return false;
        }
        tracing::error!(actor = stuck, "an actor does not answer any more and is replaced");
        self.metrics.restarted(stuck, EndCause::Stuck.label());
        child.charge.end();
        child.abandoned += 1;
        (child.end)();
        self.start_child(index, ctx);
        true
    }

    fn publish(&self) {
        let children = self.children.iter().map(|child| child.record.clone());
        let records = children.chain(self.schedulers.record()).collect();
        self.observations.publish(self.looked, records);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.looked = Instant::now();
        for index in 0..self.children.len() {
            self.start_child(index, ctx);
        }
        self.publish();
        ctx.run_interval(INTERVAL, Self::look);
    }
}

impl Handler<ChildEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ChildEnded, ctx: &mut Self::Context) {
        let Some(child) = self.children.get_mut(message.child) else { return };
        let actor = child.record.name();
        if message.incarnation != child.incarnation {
            child.abandoned = child.abandoned.saturating_sub(1);
            tracing::info!(actor, "an incarnation that was replaced has ended");
            return;
        }
        child.ended = true;
        // From here on it is silent, until it was started again and has answered.
        child.record.ask(Instant::now());
        if self.stopping {
            return;
        }
        let wait: Duration = child.backoff.after(child.started.elapsed());
        tracing::error!(
            actor,
            ended = ?message.ended,
            restart_in_ms = wait.as_millis() as u64,
            "an actor ended unasked and is started again"
        );
        self.metrics.restarted(actor, message.ended.label());
        self.publish();
        ctx.run_later(wait, move |supervisor, ctx| {
            if !supervisor.stopping {
                supervisor.start_child(message.child, ctx);
            }
        });
    }
}

impl Handler<ChildAnswered> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ChildAnswered, _: &mut Self::Context) {
        let Some(child) = self.children.get_mut(message.child) else { return };
        if child.incarnation == message.incarnation {
            child.record.answered(Instant::now(), message.state);
            self.publish();
        }
    }
}

impl Handler<SchedulerAnswered> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: SchedulerAnswered, _: &mut Self::Context) {
        self.schedulers.answered(message, Instant::now());
        self.publish();
    }
}

/// Ends all children, the last started first, and the supervisor.
impl Handler<EndActor> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: EndActor, ctx: &mut Self::Context) {
        self.stopping = true;
        self.children.iter().rev().for_each(|child| (child.end)());
        ctx.stop();
    }
}

impl Handler<StopRestarting> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: StopRestarting, _: &mut Self::Context) {
        self.stopping = true;
    }
}

#[cfg(test)]
mod tests;
