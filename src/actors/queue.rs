//! The Queue actor: owns K and the queue's limits, their file, and the [`Gate`] that enforces them.
//!
//! Calls do not go through its mailbox: an answer from an actor on another thread costs more than
//! all else that a small call does here. They enter the gate directly ([`Gate::enter`]), a short
//! critical section around the sans-IO [`Discipline`], which decides on arrival, at once and in
//! order, who runs, who waits and who is refused.
//!
//! What survives a restart of the actor: everything. The gate with its slots and its line belongs
//! to the node; the next incarnation takes it over, so K holds across a restart and nobody in the
//! line notices one. So do the limits with their lock: a change that hung and comes back ends before
//! those after it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use actix::{Actor, AtomicResponse, Context, Handler, Message, MessageResult, WrapFuture};
use tokio::sync::{Notify, oneshot};

use super::observe::{ActorState, Observe};
use super::supervise::Guard;
use crate::lock;
use crate::queue::{Admission, Arriving, Discipline, Limits, Refusal, Started, Ticket};
use crate::saved::{Layered, LimitsPatch};
use crate::storage::{self, StorageError};
use crate::types::{Load, TaskType};

/// Changes K and the limits at once and saves them. Answers, when both is done, with what they
/// were.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<Layered<Limits>, StorageError>")]
pub struct ChangeLimits(pub LimitsPatch);

/// Puts limits back as [`ChangeLimits`] told they were.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct RestoreLimits(pub Layered<Limits>);

/// The place where calls become running functions. One per node, shared by all its threads.
pub struct Gate {
    line: Mutex<Discipline<oneshot::Sender<Slot>>>,
    /// The load, running in the upper half, written under the lock and read without it.
    load: AtomicU64,
    /// K, likewise.
    k: AtomicU32,
    /// Free places in the line, likewise.
    places: AtomicU32,
    idle: Notify,
    idle_watched: AtomicBool,
}

/// The right to run one function. Given back exactly once, when dropped: by a finished call, a
/// client that hangs up, a time-out, a panic.
pub struct Slot {
    /// `None` once it was given back.
    gate: Option<Arc<Gate>>,
    task_type: TaskType,
}

/// A place in the line; resolves to a slot. Dropping it leaves the line.
pub struct Place {
    gate: Arc<Gate>,
    ticket: Ticket,
    slot: oneshot::Receiver<Slot>,
}

/// What became of an arrival that was not refused.
pub enum Entrance {
    /// It may run.
    Slot(Slot),
    /// It must wait.
    Place(Place),
}

impl Gate {
    /// An empty gate. `waiting_bytes_max` bounds the bodies of all that wait together.
    pub fn new(limits: Limits, waiting_bytes_max: u64) -> Arc<Self> {
        let line = Discipline::new(limits, waiting_bytes_max);
        let (places, line) = (line.places(), Mutex::new(line));
        Arc::new(Self {
            line,
            load: AtomicU64::new(0),
            k: AtomicU32::new(limits.k),
            places: AtomicU32::new(places),
            idle: Notify::new(),
            idle_watched: AtomicBool::new(false),
        })
    }

    /// A call arrives.
    ///
    /// # Errors
    /// Turned away; nothing was changed.
    pub fn enter(self: &Arc<Self>, call: Arriving) -> Result<Entrance, Refusal> {
        let mut waiting_for = None;
        let admission = self.with(|line| {
            line.arrive(call, |_| {
                let (give, slot) = oneshot::channel();
                waiting_for = Some(slot);
                give
            })
        })?;
        Ok(match (admission, waiting_for) {
            (Admission::Waiting(ticket), Some(slot)) => {
                Entrance::Place(Place { gate: Arc::clone(self), ticket, slot })
            }
            _ => Entrance::Slot(self.slot(call.task_type)),
        })
    }

    fn slot(self: &Arc<Self>, task_type: TaskType) -> Slot {
        Slot { gate: Some(Arc::clone(self)), task_type }
    }

    /// What runs and waits now of the types 0 to `types` − 1.
    pub fn load_by_type(&self, types: usize) -> Vec<Load> {
        lock(&self.line).load_by_type(types)
    }

    /// The same of all types that came, at most so many.
    pub fn told_by_type(&self, types_max: usize) -> Vec<Load> {
        let line = lock(&self.line);
        line.load_by_type(line.types().min(types_max))
    }

    /// Whether those who wait for [`became_idle`](Self::became_idle) are to be told.
    pub fn watch_idle(&self, watched: bool) {
        self.idle_watched.store(watched, Ordering::Relaxed);
    }

    /// Waits until nothing runs and none waits any more, where that is [watched](Self::watch_idle). One of those who
    /// wait for it is woken.
    pub async fn became_idle(&self) {
        self.idle.notified().await;
    }

    /// What runs and waits now.
    pub fn load(&self) -> Load {
        let both = self.load.load(Ordering::Acquire);
        Load { running: (both >> 32) as u32, waiting: both as u32 }
    }

    /// The functions that may run at once.
    pub fn k(&self) -> u32 {
        self.k.load(Ordering::Acquire)
    }

    /// How many more calls may wait for a slot.
    pub fn places(&self) -> u32 {
        self.places.load(Ordering::Acquire)
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        lock(&self.line).limits()
    }

    /// Refuses everybody from now on and sends those in the line away.
    pub fn close(&self) {
        // Dropping what they wait for tells them.
        drop(self.with(Discipline::close));
    }

    fn set_limits(self: &Arc<Self>, limits: Limits) {
        self.k.store(limits.k, Ordering::Release);
        for Started { token, task_type } in self.with(|line| line.set_limits(limits)) {
            // Dropping the slot that nobody took any more starts the next in line.
            let _ = token.send(self.slot(task_type));
        }
    }

    /// A running call of that type ended; the next one starts.
    fn finish(self: &Arc<Self>, mut ended: TaskType) {
        while let Some(Started { token, task_type }) = self.with(|line| line.finish(ended)) {
            match token.send(self.slot(task_type)) {
                Ok(()) => break,
                // It hung up this very moment: its slot is finished too, here and not by `Drop`,
                // so that a row of such waiters does not nest.
                Err(mut slot) => slot.gate = None,
            }
            ended = task_type;
        }
        if self.idle_watched.load(Ordering::Relaxed) && self.load().total() == 0 {
            self.idle.notify_one();
        }
    }

    /// The one way to the discipline: under the lock, and the load is published.
    fn with<T>(&self, act: impl FnOnce(&mut Discipline<oneshot::Sender<Slot>>) -> T) -> T {
        let mut line = lock(&self.line);
        let result = act(&mut line);
        let load = line.load();
        self.places.store(line.places(), Ordering::Release);
        self.load.store(u64::from(load.running) << 32 | u64::from(load.waiting), Ordering::Release);
        result
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.finish(self.task_type);
        }
    }
}

impl Future for Place {
    type Output = Result<Slot, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        // A sender that is gone unused was cleared from the line.
        Pin::new(&mut self.slot).poll(cx).map(|slot| slot.map_err(|_| Refusal::Closed))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A slot that was given and not taken is in the channel and dropped with it.
        self.gate.with(|line| line.leave(self.ticket));
    }
}

/// The limits as they run and as they are saved. Held while they are changed, so that changes do not
/// overtake each other, whichever incarnation makes them.
pub type SavedLimits = tokio::sync::Mutex<Layered<Limits>>;

/// See the module.
pub struct Queue {
    gate: Arc<Gate>,
    saved: Arc<SavedLimits>,
    file: PathBuf,
    _guard: Guard,
}

impl Queue {
    /// Rules over `gate`. `limits` outlives the actor.
    pub fn new(
        gate: Arc<Gate>,
        limits: Arc<SavedLimits>,
        data_path: &std::path::Path,
        guard: Guard,
    ) -> Self {
        Self { gate, saved: limits, file: data_path.join(storage::QUEUE_FILE), _guard: guard }
    }
}

impl Queue {
    /// Saves what `make` makes of the limits and then puts it in force; gives what they were.
    fn change<F: FnOnce(&Layered<Limits>) -> Layered<Limits>>(
        &self,
        make: F,
    ) -> impl Future<Output = Result<Layered<Limits>, StorageError>> + use<F> {
        let (gate, saved, file) = (self.gate.clone(), self.saved.clone(), self.file.clone());
        async move {
            let mut saved = saved.lock().await;
            let new = make(&saved);
            super::save(file, LimitsPatch::from(new.saved)).await?;
            gate.set_limits(new.running);
            Ok(std::mem::replace(&mut *saved, new))
        }
    }
}

impl Actor for Queue {
    type Context = Context<Self>;
}

impl Handler<ChangeLimits> for Queue {
    type Result = AtomicResponse<Self, Result<Layered<Limits>, StorageError>>;

    fn handle(&mut self, ChangeLimits(patch): ChangeLimits, _: &mut Self::Context) -> Self::Result {
        let change = self.change(move |old| Layered {
            running: patch.over(old.running),
            saved: patch.over(old.saved),
        });
        AtomicResponse::new(Box::pin(change.into_actor(self)))
    }
}

impl Handler<RestoreLimits> for Queue {
    type Result = AtomicResponse<Self, Result<(), StorageError>>;

    fn handle(&mut self, RestoreLimits(old): RestoreLimits, _: &mut Self::Context) -> Self::Result {
        let restore = self.change(move |_| old);
        AtomicResponse::new(Box::pin(async { restore.await.map(drop) }.into_actor(self)))
    }
}

impl Handler<Observe> for Queue {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let (limits, load) = (self.gate.limits(), self.gate.load());
        MessageResult(ActorState::Queue {
            k: limits.k,
            queue_length_max: limits.queue_length_max,
            running: load.running,
            waiting: load.waiting,
        })
    }
}

#[cfg(test)]
mod tests;
