//! The queue discipline: at most K functions run, the rest stand in a bounded line, first in
//! first out. Core: no IO, no clock, no threads; whoever holds a [`Discipline`] serialises access.
//!
//! Laws, which the property tests below hold against random histories:
//!
//! - *never above K*: nothing starts while `running ≥ K`. Lowering K stops nothing that runs; it
//!   only lets nothing start until enough has finished.
//! - *nothing is lost*: whoever is told to wait is later started or leaves by itself, once.
//! - *FIFO*: starts follow the order of arrival, and nobody starts ahead of the line; where calls are
//!   due at some time, the one that is due first starts first.
//! - *work conserving*: no slot is free while somebody waits.
//!
//! With exponential service and Poisson arrivals this is M/M/K/K with the line off and
//! M/M/K/(K+Q) with a line of Q (see `tests/queueing_theory.rs`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Load, TaskType};

/// The limits that can be changed at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// K: functions that may run at once. 0: nothing starts until it is raised.
    pub k: u32,
    /// Q: calls that may wait.
    pub queue_length_max: u32,
    /// `false`: nobody new may wait.
    pub queue_enabled: bool,
}

impl Default for Limits {
    /// v1's defaults.
    fn default() -> Self {
        Self { k: 4, queue_length_max: 4, queue_enabled: true }
    }
}

/// A place in the line. Those that are due earlier are before others; of equal ones, and of those that are
/// due at no time, the one that came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    due: Duration,
    number: u64,
}

/// Why a call was turned away; nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No slot is free and this call may not wait.
    #[error("no slot is free")]
    NoSlot,
    /// The line is full.
    #[error("the queue is full")]
    LineFull,
    /// The bodies of those that are here already take all the memory set aside for them.
    #[error("the calls that are here hold too many bytes")]
    BytesFull,
    /// The node is stopping.
    #[error("the node is stopping")]
    Closed,
}

/// A call that arrives.
#[derive(Clone, Copy, Debug)]
pub struct Arriving {
    /// What its body holds.
    pub bytes: u64,
    /// Whether it may stand in line.
    pub may_wait: bool,
    /// What it counts as.
    pub task_type: TaskType,
    /// When it should have ended, by a clock of its owner's: it gets a slot before those that are due later.
    /// `None`: after all that have such a time.
    pub due: Option<Duration>,
}

/// What becomes of an arrival that was not turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has a slot.
    Started,
    /// It waits.
    Waiting(Ticket),
}

struct Waiter<T> {
    bytes: u64,
    task_type: TaskType,
    token: T,
}

/// A waiting call that starts now.
#[derive(Debug, PartialEq)]
pub struct Started<T> {
    /// What its owner gave it.
    pub token: T,
    /// What it counts as; to be told when it has finished.
    pub task_type: TaskType,
}

/// The state of a queue. `T` is whatever the owner needs to tell a waiter that it may start.
pub struct Discipline<T> {
    limits: Limits,
    waiting_bytes_max: u64,
    closed: bool,
    running: u32,
    waiting_bytes: u64,
    next_ticket: u64,
    line: BTreeMap<Ticket, Waiter<T>>,
    /// The load by task type, as far as types came.
    by_type: Vec<Load>,
}

impl<T> Discipline<T> {
    /// An empty queue. `waiting_bytes_max` bounds the bodies of all that wait together.
    pub fn new(limits: Limits, waiting_bytes_max: u64) -> Self {
        Self {
            limits,
            waiting_bytes_max,
            closed: false,
            running: 0,
            waiting_bytes: 0,
            next_ticket: 0,
            line: BTreeMap::new(),
            by_type: Vec::new(),
        }
    }

    /// A call arrives. `token` is made only if it has to wait.
    ///
    /// # Errors
    /// Turned away; see [`Refusal`].
    pub fn arrive(
        &mut self,
        call: Arriving,
        token: impl FnOnce(Ticket) -> T,
    ) -> Result<Admission, Refusal> {
        let Arriving { bytes, may_wait, task_type, due } = call;
        if self.closed {
            return Err(Refusal::Closed);
        }
        if self.running < self.limits.k {
            self.running += 1;
            self.count(task_type, |load| load.running += 1);
            return Ok(Admission::Started);
        }
        if !may_wait || !self.limits.queue_enabled {
            return Err(Refusal::NoSlot);
        }
        if self.line.len() >= self.limits.queue_length_max as usize {
            return Err(Refusal::LineFull);
        }
        let held = self.waiting_bytes.saturating_add(bytes);
        if held > self.waiting_bytes_max {
            return Err(Refusal::BytesFull);
        }
        let ticket = Ticket { due: due.unwrap_or(Duration::MAX), number: self.next_ticket };
        self.next_ticket += 1;
        self.waiting_bytes = held;
        self.line.insert(ticket, Waiter { bytes, task_type, token: token(ticket) });
        self.count(task_type, |load| load.waiting += 1);
        Ok(Admission::Waiting(ticket))
    }

    /// A running call of that type ended, however it ended. Answers who starts in its place.
    #[must_use = "whoever starts must be told"]
    pub fn finish(&mut self, task_type: TaskType) -> Option<Started<T>> {
        self.running = self.running.saturating_sub(1);
        self.count(task_type, |load| load.running = load.running.saturating_sub(1));
        self.start_next()
    }

    /// A waiting call leaves the line. `false`: it was not waiting any more.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let left = self.line.remove(&ticket);
        if let Some(waiter) = &left {
            self.waiting_bytes -= waiter.bytes;
            let task_type = waiter.task_type;
            self.count(task_type, |load| load.waiting -= 1);
        }
        left.is_some()
    }

    /// Changes the limits at once. Answers who starts because of it, first come first.
    #[must_use = "whoever starts must be told"]
    pub fn set_limits(&mut self, limits: Limits) -> Vec<Started<T>> {
        self.limits = limits;
        std::iter::from_fn(|| self.start_next()).collect()
    }

    /// Takes no further arrivals and sends everybody in the line away. Answers their tokens.
    #[must_use = "whoever is sent away must be told"]
    pub fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.waiting_bytes = 0;
        self.by_type.iter_mut().for_each(|load| load.waiting = 0);
        std::mem::take(&mut self.line).into_values().map(|waiter| waiter.token).collect()
    }

    fn start_next(&mut self) -> Option<Started<T>> {
        if self.running >= self.limits.k {
            return None;
        }
        let (_, Waiter { bytes, task_type, token }) = self.line.pop_first()?;
        self.waiting_bytes -= bytes;
        self.running += 1;
        self.count(task_type, |load| {
            load.waiting -= 1;
            load.running += 1;
        });
        Some(Started { token, task_type })
    }

    /// Types that are not told apart count in the whole only.
    fn count(&mut self, task_type: TaskType, change: impl FnOnce(&mut Load)) {
        let Some(index) = task_type.index() else { return };
        if index >= self.by_type.len() {
            self.by_type.resize(index + 1, Load::default());
        }
        if let Some(load) = self.by_type.get_mut(index) {
            change(load);
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many more calls may wait for a slot.
    pub fn places(&self) -> u32 {
        let waiting = u32::try_from(self.line.len()).unwrap_or(u32::MAX);
        match self.limits.queue_enabled && !self.closed {
            true => self.limits.queue_length_max.saturating_sub(waiting),
            false => 0,
        }
    }

    /// Task types that were counted so far: 0 up to this, without it.
    pub fn types(&self) -> usize {
        self.by_type.len()
    }

    /// What runs and waits now of the types 0 to `types` − 1.
    pub fn load_by_type(&self, types: usize) -> Vec<Load> {
        (0..types).map(|index| self.by_type.get(index).copied().unwrap_or_default()).collect()
    }

    /// What runs and waits now.
    pub fn load(&self) -> Load {
        Load { running: self.running, waiting: u32::try_from(self.line.len()).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn limits(k: u32, queue_length_max: u32) -> Limits {
        Limits { k, queue_length_max, queue_enabled: true }
    }

    /// Of a type that follows from its size.
    fn call(bytes: u64, may_wait: bool) -> Arriving {
        Arriving { bytes, may_wait, task_type: TaskType(bytes as f64), due: None }
    }

    /// A call of type 1 ends.
    fn finish(queue: &mut Discipline<u64>) -> Option<u64> {
        queue.finish(TaskType(1.0)).map(|started| started.token)
    }

    fn tokens(started: Vec<Started<u64>>) -> Vec<u64> {
        started.into_iter().map(|started| started.token).collect()
    }

    fn arrive(queue: &mut Discipline<u64>, id: u64) -> Result<Admission, Refusal> {
        queue.arrive(call(1, true), |_| id)
    }

    #[test]
    fn k_zero_starts_nothing_until_it_is_raised() {
        let mut queue = Discipline::new(limits(0, 2), 100);
        assert!(matches!(arrive(&mut queue, 1), Ok(Admission::Waiting(_))));
        assert!(matches!(arrive(&mut queue, 2), Ok(Admission::Waiting(_))));
        assert_eq!(arrive(&mut queue, 3), Err(Refusal::LineFull));
        assert_eq!(tokens(queue.set_limits(limits(1, 2))), [1]);
        assert_eq!(finish(&mut queue), Some(2));
    }

    #[test]
    fn what_is_due_first_starts_first_and_all_else_as_it_came() {
        let mut queue = Discipline::new(limits(1, 9), 100);
        let due = |seconds| Some(std::time::Duration::from_secs(seconds));
        for (id, due) in [(0, None), (1, None), (2, due(9)), (3, due(3)), (4, None), (5, due(3))] {
            queue.arrive(Arriving { due, ..call(1, true) }, |_| id).expect("there is room");
        }
        let started: Vec<_> = std::iter::from_fn(|| finish(&mut queue)).collect();
        assert_eq!(started, [3, 5, 2, 1, 4]);
        assert_eq!(queue.places(), 9);
    }

    #[test]
    fn with_the_line_off_a_call_is_refused_when_no_slot_is_free() {
        let off = Limits { queue_enabled: false, ..limits(1, 5) };
        let mut queue = Discipline::new(off, 100);
        assert_eq!(arrive(&mut queue, 1), Ok(Admission::Started));
        assert_eq!(arrive(&mut queue, 2), Err(Refusal::NoSlot));
    }

    #[test]
    fn a_call_that_may_not_wait_is_refused_whatever_the_queue_settings() {
        let mut queue = Discipline::new(limits(1, 5), 100);
        assert_eq!(queue.arrive(call(1, false), |_| 1), Ok(Admission::Started));
        assert_eq!(queue.arrive(call(1, false), |_| 2), Err(Refusal::NoSlot));
    }

    #[test]
    fn turning_the_line_off_or_shortening_it_keeps_those_who_wait() {
        let mut queue = Discipline::new(limits(1, 5), 100);
        for id in 0..4 {
            arrive(&mut queue, id).expect("there is room");
        }
        let short = Limits { k: 1, queue_length_max: 1, queue_enabled: false };
        assert!(queue.set_limits(short).is_empty());
        assert_eq!(queue.load(), Load { running: 1, waiting: 3 });
        let finished = [(); 3].map(|()| finish(&mut queue));
        assert_eq!(finished, [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn waiting_bodies_are_bounded_in_bytes_and_leaving_gives_them_back() {
        let mut queue = Discipline::new(limits(0, 9), 10);
        let Ok(Admission::Waiting(first)) = queue.arrive(call(8, true), |_| 1) else {
            panic!("there is room")
        };
        assert_eq!(queue.arrive(call(3, true), |_| 2), Err(Refusal::BytesFull));
        assert!(queue.leave(first));
        assert!(!queue.leave(first), "a place is left once");
        assert!(queue.arrive(call(10, true), |_| 3).is_ok());
    }

    #[test]
    fn a_closed_queue_hands_back_everybody_in_line_and_takes_nobody_new() {
        let mut queue = Discipline::new(limits(1, 9), 10);
        for id in 0..4 {
            arrive(&mut queue, id).expect("there is room");
        }
        assert_eq!(queue.close(), [1, 2, 3]);
        assert_eq!(arrive(&mut queue, 4), Err(Refusal::Closed));
        assert_eq!(finish(&mut queue), None);
        assert_eq!(queue.load(), Load::default());
    }

    #[test]
    fn types_that_are_not_told_apart_count_in_the_whole_only() {
        let mut queue = Discipline::new(limits(9, 0), 10);
        for task_type in [0.5, -1.0, 1e300, 256.0, 2.0] {
            let call = Arriving { task_type: TaskType(task_type), ..call(1, true) };
            queue.arrive(call, |_| 0).expect("there is room");
        }
        let of_two = Load { running: 1, waiting: 0 };
        assert_eq!(
            queue.load_by_type(4),
            [Load::default(), Load::default(), of_two, Load::default()]
        );
        assert_eq!(queue.load().running, 5);
        assert!(queue.finish(TaskType(2.0)).is_none());
        assert_eq!(queue.load_by_type(3)[2], Load::default());
    }

    #[derive(Clone, Debug)]
    enum Event {
        Arrive { bytes: u64, may_wait: bool },
        Finish,
        Leave(usize),
        Limits(Limits),
    }

    fn event() -> impl Strategy<Value = Event> {
        let some_limits = (0u32..5, 0u32..6, prop::bool::weighted(0.8)).prop_map(|(k, q, on)| {
            Event::Limits(Limits { k, queue_length_max: q, queue_enabled: on })
        });
        prop_oneof![
            6 => (0u64..4, prop::bool::weighted(0.8))
                .prop_map(|(bytes, may_wait)| Event::Arrive { bytes, may_wait }),
            5 => Just(Event::Finish),
            2 => (0usize..8).prop_map(Event::Leave),
            1 => some_limits,
        ]
    }

    proptest! {
        #[test]
        fn never_above_k_nothing_lost_and_first_in_first_out(
            events in prop::collection::vec(event(), 0..300)
        ) {
            const BYTES: u64 = 8;
            let start = limits(2, 3);
            let mut queue = Discipline::new(start, BYTES);
            // The model: who runs, and who waits in order of arrival with ticket and bytes.
            let mut running = VecDeque::<u64>::new();
            let mut line = VecDeque::<(u64, Ticket, u64)>::new();
            let (mut k, mut started_last) = (start.k, None);
            for (id, event) in events.into_iter().enumerate() {
                let id = id as u64;
                let mut started = Vec::new();
                match event {
                    Event::Arrive { bytes, may_wait } => {
                        let before = queue.load();
                        match queue.arrive(call(bytes, may_wait), |_| id) {
                            Ok(Admission::Started) => {
                                prop_assert!(line.is_empty(), "nobody starts ahead of the line");
                                prop_assert!((running.len() as u32) < k);
                                running.push_back(bytes);
                            }
                            Ok(Admission::Waiting(ticket)) => line.push_back((id, ticket, bytes)),
                            Err(_) => prop_assert_eq!(queue.load(), before, "a refusal changes nothing"),
                        }
                    }
                    Event::Finish => {
                        if let Some(bytes) = running.pop_front() {
                            started.extend(queue.finish(TaskType(bytes as f64)));
                        }
                    }
                    Event::Leave(place) => {
                        if let Some((_, ticket, _)) = line.remove(place) {
                            prop_assert!(queue.leave(ticket));
                            prop_assert!(!queue.leave(ticket));
                        }
                    }
                    Event::Limits(limits) => {
                        k = limits.k;
                        started = queue.set_limits(limits);
                    }
                }
                for Started { token: id, task_type } in started {
                    let first = line.pop_front();
                    let bytes = task_type.0 as u64;
                    prop_assert_eq!(first.map(|(id, ..)| id), Some(id), "in order of arrival");
                    prop_assert_eq!(first.map(|(.., bytes)| bytes), Some(bytes));
                    prop_assert!(started_last < Some(id));
                    started_last = Some(id);
                    prop_assert!((running.len() as u32) < k, "never above K");
                    running.push_back(bytes);
                }
                let load = Load { running: running.len() as u32, waiting: line.len() as u32 };
                prop_assert_eq!(queue.load(), load);
                let of_type = |bytes: &u64| Load {
                    running: running.iter().filter(|b| *b == bytes).count() as u32,
                    waiting: line.iter().filter(|(.., b)| b == bytes).count() as u32,
                };
                let by_type: Vec<Load> = [0, 1, 2, 3].iter().map(of_type).collect();
                prop_assert_eq!(queue.load_by_type(4), by_type);
                prop_assert!(load.running >= k || line.is_empty(), "no slot is free while somebody waits");
                prop_assert!(line.iter().map(|(.., bytes)| bytes).sum::<u64>() <= BYTES);
            }
        }
    }
}
