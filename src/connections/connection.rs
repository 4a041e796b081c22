//! One connection, as the table of all knows it: what it is doing, how far it has come, what it holds.

mod usefulness;

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

pub(super) use self::usefulness::{RANK_RECENT, RANK_SLOW, Usefulness};
use super::{CONNECTION_BYTES, Connections, NoRoom};
use crate::error::RefusalKind;
use crate::lock;
use crate::memory::budget::{Budget, Reservation};

/// Answers closer together than this count as one.
const APART_MS: u64 = 10;
/// What a body may lag behind its least rate at first before it is given up.
const GRACE_MS: i64 = 2000;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: it is new, or kept for its next request.
    Idle,
    /// A request's head is coming.
    Head,
    /// A request's body waits for room.
    Waiting,
    /// A request's body is coming.
    Body,
    /// A request is being carried out. It is never ended from here.
    Running,
    /// An answer is going out.
    Answering,
    /// It is a WebSocket.
    Session,
    /// An answer goes out that streams, for as long as its function likes. It ends only for a client
    /// that does not read it.
    Streaming,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Idle,
        Self::Head,
        Self::Waiting,
        Self::Body,
        Self::Running,
        Self::Answering,
        Self::Session,
        Self::Streaming,
    ];

    fn of(code: u8) -> Self {
        Self::ALL.get(usize::from(code & !ENDED)).copied().unwrap_or(Self::Idle)
    }
}

/// The bit beside the phase: the connection is to end.
const ENDED: u8 = 0x80;

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Others need its room more.
    Room,
    /// It is too slow.
    Slow,
}

/// One connection. Shared by its socket, its requests and the table.
#[derive(Debug)]
pub struct Connection {
    table: Arc<Connections>,
    pub(super) number: u64,
    /// The client's address; of an IPv6 address the network of 64 bits.
    pub(super) from: IpAddr,
    /// A [`Phase`] and [`ENDED`].
    phase: AtomicU8,
    slow: AtomicBool,
    /// Whether its session is over: what is still to be written is the last.
    session_over: AtomicBool,
    /// Whether it was ended in the middle of a request: then nothing spares it any more.
    doomed: AtomicBool,
    /// When it last made progress: its phase began, or an answer moved on.
    since_ms: AtomicU64,
    /// Since when its client takes nothing of what is to be written; 0: it takes it.
    stalled_ms: AtomicU64,
    /// When its phase began.
    began_ms: AtomicU64,
    /// Bytes that came or went in this phase.
    moved: AtomicU64,
    /// Times at which requests were answered, those close together counted as one: a client that comes
    /// back is of use, one that sends many requests at once is not the more so.
    served: AtomicU32,
    served_ms: AtomicU64,
    /// Bytes that it holds of the connections' budget.
    held: AtomicU64,
    /// Bytes that its request and answer hold of a budget of bodies, and the number of that budget.
    body_held: AtomicU64,
    body_budget: AtomicU32,
    /// Of a body: milliseconds that it may still lag behind, and the bytes counted so far.
    credit_ms: AtomicI64,
    counted: AtomicU64,
    /// Whether it is known where the body of its request ends, or has.
    body_ended: AtomicBool,
    /// Whether its socket waits for the phase to change.
    held_back: AtomicBool,
    waker: AtomicWaker,
}

impl Connection {
    /// Opened at `now`, in milliseconds since the node began.
    pub(super) fn new(table: &Arc<Connections>, number: u64, from: IpAddr, now: u64) -> Self {
        Self {
            table: Arc::clone(table),
            number,
            from,
            phase: AtomicU8::new(Phase::Idle as u8),
            slow: AtomicBool::new(false),
            session_over: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            since_ms: AtomicU64::new(now),
            stalled_ms: AtomicU64::new(0),
            began_ms: AtomicU64::new(now),
            moved: AtomicU64::new(0),
            served: AtomicU32::new(0),
            served_ms: AtomicU64::new(0),
            held: AtomicU64::new(CONNECTION_BYTES),
            body_held: AtomicU64::new(0),
            body_budget: AtomicU32::new(0),
            credit_ms: AtomicI64::new(GRACE_MS),
            counted: AtomicU64::new(0),
            body_ended: AtomicBool::new(true),
            held_back: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Acquire))
    }

    /// Whether it is to end, and why.
    pub fn ended(&self) -> Option<EndReason> {
        let ended = self.phase.load(Ordering::Acquire) & ENDED != 0;
        ended.then(|| {
            if self.slow.load(Ordering::Relaxed) { EndReason::Slow } else { EndReason::Room }
        })
    }

    /// Resolves when it is to end.
    pub async fn until_ended(&self) {
        poll_fn(|cx| {
            self.waits(cx.waker());
            if self.ended().is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Where it is counted.
    pub fn table(&self) -> &Arc<Connections> {
        &self.table
    }

    /// Its socket's task, to be woken when it is to end or may read on.
    pub fn waits(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Has it woken, some time, when others have ended; `false`: no others are ending.
    pub fn waits_for_room(&self) -> bool {
        lock(&self.table.table).waits_for_room(self.number)
    }

    /// Wakes its socket's task.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Its socket reads nothing until the phase has changed; then it is woken.
    pub fn hold_back(&self) {
        self.held_back.store(true, Ordering::Release);
    }

    /// Goes over to `phase`, whose first `moved` bytes are there.
    pub fn enter(&self, phase: Phase, moved: u64) {
        let now = self.table.now_ms();
        self.since_ms.store(now, Ordering::Relaxed);
        self.began_ms.store(now, Ordering::Relaxed);
        self.moved.store(moved, Ordering::Relaxed);
        if phase == Phase::Body {
            self.credit_ms.store(GRACE_MS, Ordering::Relaxed);
            self.counted.store(0, Ordering::Relaxed);
        }
        let keep = |old: u8| Some(phase as u8 | old & ENDED);
        let old = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, keep).unwrap_or(0);
        if old & ENDED != 0 && phase == Phase::Running && !self.is_doomed() {
            self.spare();
        }
        if self.held_back.load(Ordering::Acquire) && self.held_back.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Whether it was ended in the middle of a request.
    pub fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
    }

    /// It is of use after all: what ended it is forgotten.
    pub fn spare(&self) {
        // Under the lock, or it might be ended again in between.
        let mut table = lock(&self.table.table);
        self.phase.fetch_and(!ENDED, Ordering::AcqRel);
        table.stays(self.number);
        // Somebody counts on what it would have given back.
        table.call_next();
    }

    /// It was ended in the middle of a body since nothing seemed to come, and something has.
    pub fn goes_on(&self) {
        self.doomed.store(false, Ordering::Release);
        self.spare();
    }

    /// A request begins to be carried out. `open`: its body ends by itself, and nobody knows where.
    pub fn begins(&self, open: bool) {
        self.body_ended.store(!open, Ordering::Relaxed);
        self.enter(Phase::Running, 0);
    }

    /// The body of its request was read to its end: the request is whole.
    pub fn body_ends(&self) {
        self.body_ended.store(true, Ordering::Relaxed);
        self.enter(Phase::Running, 0);
    }

    /// The other side of its session has ended it.
    pub fn end_session(&self) {
        self.session_over.store(true, Ordering::Relaxed);
    }

    /// Whether the other side of its session has ended it.
    pub fn session_is_over(&self) -> bool {
        self.session_over.load(Ordering::Relaxed)
    }

    /// Whether it is known where the body of its last request ends, or has.
    pub fn body_ended(&self) -> bool {
        self.body_ended.load(Ordering::Relaxed)
    }

    /// Its request is carried out, and the answer goes out.
    pub fn answers(&self) {
        // A WebSocket's answer is the session itself, and one that streams tells its end.
        if !matches!(self.phase(), Phase::Session | Phase::Streaming) {
            self.enter(Phase::Answering, 0);
        }
    }

    /// More is wanted of a request's body that streams. `first`: of its beginning.
    pub fn wants_body(&self, first: bool) {
        match self.phase() {
            Phase::Body | Phase::Session | Phase::Streaming => {}
            _ if first => self.enter(Phase::Body, 0),
            _ => {
                // What it lags behind its least rate is not forgotten.
                let (credit, counted) =
                    (self.credit_ms.load(Ordering::Relaxed), self.counted.load(Ordering::Relaxed));
                let moved = self.moved.load(Ordering::Relaxed);
                self.enter(Phase::Body, moved);
                self.credit_ms.store(credit, Ordering::Relaxed);
                self.counted.store(counted, Ordering::Relaxed);
            }
        }
    }

    /// No more of such a body is wanted for now: that it does not come is not its client's doing.
    pub fn has_enough(&self) {
        if self.phase() == Phase::Body {
            self.enter(Phase::Running, self.moved.load(Ordering::Relaxed));
        }
    }

    /// Such a body has come to its end.
    pub fn streamed_body_ends(&self) {
        self.body_ended.store(true, Ordering::Relaxed);
        self.has_enough();
    }

    /// `bytes` came or went.
    pub fn moved(&self, bytes: usize) -> u64 {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }

    /// Something was to be written, and the client took some of it, or nothing.
    pub fn wrote(&self, some: bool) {
        if some {
            self.stalled_ms.store(0, Ordering::Relaxed);
        } else if self.stalled_ms.load(Ordering::Relaxed) == 0 {
            self.stalled_ms.store(self.table.now_ms().max(1), Ordering::Relaxed);
        }
    }

    /// Bytes that came or went in this phase.
    pub fn bytes_moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// `bytes` of a body came, or of an answer went.
    pub fn progressed(&self, bytes: usize) {
        self.moved(bytes);
        self.since_ms.store(self.table.now_ms(), Ordering::Relaxed);
    }

    /// A request was answered to its end.
    pub fn served(&self) {
        let now = self.table.now_ms();
        let before = self.served_ms.load(Ordering::Relaxed);
        if self.served.load(Ordering::Relaxed) == 0 || now.saturating_sub(before) >= APART_MS {
            self.served.fetch_add(1, Ordering::Relaxed);
            self.served_ms.store(now, Ordering::Relaxed);
        }
        self.body_held.store(0, Ordering::Relaxed);
        self.enter(Phase::Idle, 0);
    }

    /// What it holds of `budget`.
    pub(super) fn holds_of(&self, budget: &Budget) -> u64 {
        match self.body_budget.load(Ordering::Relaxed) {
            number if number == budget.number() => self.body_held.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    /// Its request, or the answer to it, holds `bytes` of that budget of bodies.
    pub fn holds_body(&self, budget: &Budget, bytes: u64) {
        self.body_budget.store(budget.number(), Ordering::Relaxed);
        self.body_held.store(bytes, Ordering::Relaxed);
    }

    /// Makes `held`, this connection's share, at least `bytes`.
    ///
    /// # Errors
    /// There is no room yet, or nobody who would make any.
    pub fn grow(&self, held: &mut Reservation, bytes: u64) -> Result<(), NoRoom> {
        let before = self.held.load(Ordering::Relaxed);
        if bytes <= before {
            return Ok(());
        }
        let mut table = lock(&self.table.table);
        held.join(self.table.room(&mut table, bytes - before, 0, Some(self.number), 10)?);
        self.held.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Ends it unless it is of use; what it holds, if it ends by this.
    pub(super) fn end(&self, why: EndReason) -> Option<u64> {
        let mark = |old: u8| {
            let unread = self.stalled_ms.load(Ordering::Relaxed) > 0;
            let may = match Phase::of(old) {
                Phase::Running => false,
                Phase::Streaming => unread,
                _ => true,
            };
            let may = may && old & ENDED == 0;
            may.then_some(old | ENDED)
        };
        let old = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, mark).ok()?;
        self.slow.store(why == EndReason::Slow, Ordering::Relaxed);
        self.doomed.store(Phase::of(old) != Phase::Idle, Ordering::Release);
        self.table.refused(match (why, Phase::of(old)) {
            (EndReason::Room, _) => RefusalKind::Room,
            (EndReason::Slow, Phase::Head) => RefusalKind::SlowHead,
            (EndReason::Slow, Phase::Body) => RefusalKind::SlowBody,
            (EndReason::Slow, _) => RefusalKind::SlowAnswer,
        });
        self.waker.wake();
        Some(self.held.load(Ordering::Relaxed))
    }

    /// Sets its clocks, for tests.
    #[cfg(test)]
    pub(super) fn set_since(&self, since_ms: u64, began_ms: u64) {
        self.since_ms.store(since_ms, Ordering::Relaxed);
        self.began_ms.store(began_ms, Ordering::Relaxed);
    }

    /// As if it were not ended, while the table still counts on it, for tests.
    #[cfg(test)]
    pub(super) fn forget_end(&self) {
        self.phase.fetch_and(!ENDED, Ordering::AcqRel);
    }

    /// Sets how often it was of use, for tests.
    #[cfg(test)]
    pub(super) fn set_served(&self, times: u32) {
        self.served.store(times, Ordering::Relaxed);
    }
}
