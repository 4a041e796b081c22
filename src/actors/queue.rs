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
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use actix::{Actor, AtomicResponse, Context, Handler, Message, MessageResult, WrapFuture};
use tokio::sync::oneshot;

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
        let line = Mutex::new(Discipline::new(limits, waiting_bytes_max));
        Arc::new(Self { line, load: AtomicU64::new(0), k: AtomicU32::new(limits.k) })
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

    /// What runs and waits now.
    pub fn load(&self) -> Load {
        let both = self.load.load(Ordering::Acquire);
        Load { running: (both >> 32) as u32, waiting: both as u32 }
    }

    /// The functions that may run at once.
    pub fn k(&self) -> u32 {
        self.k.load(Ordering::Acquire)
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
    }

    /// The one way to the discipline: under the lock, and the load is published.
    fn with<T>(&self, act: impl FnOnce(&mut Discipline<oneshot::Sender<Slot>>) -> T) -> T {
        let mut line = lock(&self.line);
        let result = act(&mut line);
        let load = line.load();
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::future::ready;
    use std::sync::atomic::AtomicI64;

    fn limits(k: u32, queue_length_max: u32) -> Limits {
        Limits { k, queue_length_max, queue_enabled: true }
    }

    fn call() -> Arriving {
        Arriving { bytes: 1, may_wait: true, task_type: TaskType(2.0) }
    }

    fn slot(gate: &Arc<Gate>) -> Slot {
        match gate.enter(call()) {
            Ok(Entrance::Slot(slot)) => slot,
            _ => panic!("a slot should be free"),
        }
    }

    fn place(gate: &Arc<Gate>) -> Place {
        match gate.enter(call()) {
            Ok(Entrance::Place(place)) => place,
            _ => panic!("there should be a place in the line"),
        }
    }

    /// The place's slot if it has been given.
    async fn given(place: &mut Place) -> Option<Slot> {
        tokio::select! {
            biased;
            slot = place => slot.ok(),
            () = ready(()) => None,
        }
    }

    fn queue(gate: &Arc<Gate>, folder: &std::path::Path) -> Queue {
        let limits = gate.limits();
        let layered = Layered { running: limits, saved: Limits::default() };
        Queue::new(gate.clone(), Arc::new(layered.into()), folder, Guard::new(|_| ()))
    }

    #[actix::test]
    async fn a_slot_that_is_given_back_starts_the_first_in_line() {
        let gate = Gate::new(limits(1, 2), 100);
        let running = slot(&gate);
        let (mut first, mut second) = (place(&gate), place(&gate));
        assert_eq!(gate.load(), Load { running: 1, waiting: 2 });
        assert_eq!(gate.load_by_type(3)[2], gate.load());
        drop(running);
        assert!(given(&mut second).await.is_none());
        assert!(given(&mut first).await.is_some());
        assert!(given(&mut second).await.is_some(), "the first's slot was dropped at once");
        assert_eq!((gate.load(), gate.load_by_type(3)[2]), (Load::default(), Load::default()));
    }

    #[actix::test]
    async fn a_client_that_hangs_up_while_it_waits_leaves_the_line() {
        let gate = Gate::new(limits(1, 2), 100);
        let running = slot(&gate);
        let (first, mut second) = (place(&gate), place(&gate));
        drop(first);
        assert_eq!(gate.load(), Load { running: 1, waiting: 1 });
        drop(running);
        assert!(given(&mut second).await.is_some());
    }

    #[actix::test]
    async fn a_slot_given_to_a_client_that_hangs_up_before_it_takes_it_is_not_lost() {
        let gate = Gate::new(limits(1, 2), 100);
        let running = slot(&gate);
        let (first, mut second) = (place(&gate), place(&gate));
        drop(running);
        drop(first);
        assert!(given(&mut second).await.is_some());
    }

    #[test]
    fn a_panic_gives_the_slot_back_once() {
        let gate = Gate::new(limits(1, 0), 100);
        let running = slot(&gate);
        let panicked = std::thread::spawn(move || {
            let _running = running;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(gate.load(), Load::default());
        let _again = slot(&gate);
        assert!(gate.enter(call()).is_err());
    }

    #[actix::test]
    async fn closing_tells_everybody_in_the_line() {
        let gate = Gate::new(limits(0, 2), 100);
        let waiting = place(&gate);
        gate.close();
        assert_eq!(waiting.await.err(), Some(Refusal::Closed));
        assert_eq!(gate.enter(call()).err(), Some(Refusal::Closed));
    }

    #[actix::test]
    async fn limits_change_at_once_both_ways_and_are_saved_without_the_flags() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = Gate::new(limits(1, 5), 100);
        let addr = queue(&gate, folder.path()).start();
        let running = slot(&gate);
        let mut waiting = place(&gate);
        let up = LimitsPatch { parallel_running_functions_max: Some(2), ..LimitsPatch::default() };
        addr.send(ChangeLimits(up)).await.expect("it lives").expect("saved");
        let second = given(&mut waiting).await.expect("the raised K starts it");
        let state = ActorState::Queue { k: 2, queue_length_max: 5, running: 2, waiting: 0 };
        assert_eq!(addr.send(Observe).await, Ok(state));
        let down =
            LimitsPatch { parallel_running_functions_max: Some(0), ..LimitsPatch::default() };
        addr.send(ChangeLimits(down)).await.expect("it lives").expect("saved");
        assert_eq!(gate.load().running, 2, "what runs goes on");
        let mut third = place(&gate);
        drop((running, second));
        assert!(given(&mut third).await.is_none(), "and nothing new starts");
        let saved: LimitsPatch = storage::read(&folder.path().join(storage::QUEUE_FILE), "limits")
            .expect("a file")
            .expect("one");
        assert_eq!(
            (saved.parallel_running_functions_max, saved.queue_length_max),
            (Some(0), Some(4))
        );
    }

    #[actix::test]
    async fn limits_that_cannot_be_saved_are_not_put_in_force() {
        let gate = Gate::new(limits(1, 5), 100);
        let addr = queue(&gate, std::path::Path::new("/nonexistent/folder")).start();
        let patch = LimitsPatch { queue_length_max: Some(9), ..LimitsPatch::default() };
        assert!(addr.send(ChangeLimits(patch)).await.expect("it lives").is_err());
        assert_eq!(gate.limits().queue_length_max, 5);
    }

    #[actix::test]
    async fn a_change_that_hung_in_one_that_was_replaced_ends_before_those_of_its_successor() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = Gate::new(limits(1, 5), 100);
        let first = queue(&gate, folder.path());
        let saved = Arc::clone(&first.saved);
        let second =
            Queue::new(gate.clone(), Arc::clone(&saved), folder.path(), Guard::new(|_| ()));
        let (first, second) = (first.start(), second.start());
        let hangs = saved.lock().await;
        let to = |length| LimitsPatch { queue_length_max: Some(length), ..LimitsPatch::default() };
        let old = actix_rt::spawn(first.send(ChangeLimits(to(8))));
        tokio::task::yield_now().await;
        first.do_send(super::super::supervise::EndActor);
        let new = actix_rt::spawn(second.send(ChangeLimits(to(9))));
        tokio::task::yield_now().await;
        drop(hangs);
        old.await.expect("joins").expect("it ends what it began").expect("saved");
        let before = new.await.expect("joins").expect("it lives").expect("saved");
        assert_eq!((before.running.queue_length_max, gate.limits().queue_length_max), (8, 9));
        assert!(!first.connected());
    }

    #[actix::test]
    async fn a_restart_of_the_actor_keeps_slots_line_and_limits() {
        let folder = tempfile::tempdir().expect("a folder");
        let gate = Gate::new(limits(1, 5), 100);
        let first = queue(&gate, folder.path()).start();
        let running = slot(&gate);
        let mut waiting = place(&gate);
        first.send(super::super::Crash).await.expect_err("it panics");
        let second = queue(&gate, folder.path()).start();
        assert!(given(&mut waiting).await.is_none(), "K still holds");
        let patch = LimitsPatch { queue_length_max: Some(9), ..LimitsPatch::default() };
        second.send(ChangeLimits(patch)).await.expect("it lives").expect("saved");
        drop(running);
        assert!(given(&mut waiting).await.is_some());
    }

    #[test]
    fn many_threads_never_run_more_than_k_and_lose_nobody() {
        const K: i64 = 3;
        let gate = Gate::new(limits(K as u32, 1000), 1 << 20);
        let (running, served) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (gate, running, served) = (gate.clone(), running.clone(), served.clone());
                std::thread::spawn(move || {
                    let runtime = actix_rt::Runtime::new().expect("a runtime");
                    runtime.block_on(async {
                        for round in 0..2000 {
                            let slot = match gate.enter(call()).expect("the line is long") {
                                Entrance::Slot(slot) => slot,
                                Entrance::Place(place) if (round + thread) % 5 == 0 => {
                                    drop(place);
                                    continue;
                                }
                                Entrance::Place(place) => place.await.expect("never closed"),
                            };
                            assert!(running.fetch_add(1, Ordering::SeqCst) < K);
                            std::thread::yield_now();
                            running.fetch_sub(1, Ordering::SeqCst);
                            served.fetch_add(1, Ordering::SeqCst);
                            drop(slot);
                        }
                    });
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no assertion failed");
        }
        assert_eq!(gate.load(), Load::default());
        assert!(served.load(Ordering::SeqCst) >= 4 * 1600);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Enter,
        Finish(usize),
        HangUp(usize),
        Limits(u32, u32),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            5 => Just(Event::Enter),
            4 => (0usize..6).prop_map(Event::Finish),
            2 => (0usize..6).prop_map(Event::HangUp),
            1 => (0u32..4, 0u32..5).prop_map(|(k, q)| Event::Limits(k, q)),
        ]
    }

    proptest! {
        #[test]
        fn slots_and_places_dropped_in_any_order_keep_k_order_and_count(
            events in prop::collection::vec(event(), 0..150)
        ) {
            actix_rt::Runtime::new().expect("a runtime").block_on(async {
                let gate = Gate::new(limits(2, 3), 100);
                let mut k = 2;
                let (mut slots, mut places) = (Vec::new(), VecDeque::new());
                for event in events {
                    match event {
                        Event::Enter => match gate.enter(call()) {
                            Ok(Entrance::Slot(slot)) => slots.push(slot),
                            Ok(Entrance::Place(place)) => places.push_back(place),
                            Err(_) => {}
                        },
                        Event::Finish(which) if which < slots.len() => drop(slots.swap_remove(which)),
                        Event::HangUp(which) => drop(places.remove(which)),
                        Event::Limits(new_k, q) => {
                            k = new_k as usize;
                            gate.set_limits(limits(new_k, q));
                        }
                        Event::Finish(_) => {}
                    }
                    // Whoever was started stands at the front; a gap would be a broken order.
                    let mut before = slots.len();
                    while let Some(place) = places.front_mut() {
                        let Some(slot) = given(place).await else { break };
                        prop_assert!(before < k, "never above K");
                        before += 1;
                        slots.push(slot);
                        places.pop_front();
                    }
                    for place in &mut places {
                        prop_assert!(given(place).await.is_none(), "first in first out");
                    }
                    let load = Load { running: slots.len() as u32, waiting: places.len() as u32 };
                    prop_assert_eq!(gate.load(), load);
                    prop_assert_eq!(gate.load_by_type(3)[2], load);
                }
                Ok(())
            })?;
        }
    }
}
