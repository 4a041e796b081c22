//! All connections that a node holds, on all its ports, in one table with one budget of bytes: who
//! connects and then sends nothing, sends slowly, or reads nothing, costs memory all the same.
//!
//! When there is no room for one more, the least useful ones end, many at a time ([`Usefulness`]):
//! those that are idle and never asked anything, then the slowest of those that are sending a
//! request or not reading their answer, at last those that were of use a moment ago. A client address
//! that holds more than half of all goes before the others. A call that runs is never ended.
//!
//! The table knows no sockets: whoever serves a connection tells its [`Phase`] and what it holds,
//! looks at [`Connection::ended`], and is woken when that changes (`http/guarded.rs`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use rustix::process::{Resource, getrlimit};

use crate::budget::{Budget, Held};
use crate::config::Settings;
use crate::lock;
use crate::metrics::{Metrics, Refused};

/// What a connection takes at least: its task, the buffers of the server, the kernel's part.
pub const CONNECTION_BYTES: u64 = 24 << 10;
/// A connection that was of use within this time is no idle one yet.
const RECENT_MS: u64 = 5000;
/// What a body may lag behind its least rate before it is given up, at first and at most.
const GRACE_MS: i64 = 2000;
const CREDIT_MAX_MS: i64 = 10_000;
/// A body or an answer stands still after so long without a byte, or so long below that rate.
const STILL_MS: u64 = 20;
const HARDLY_MS: u64 = 250;
const HARDLY_RATE: u64 = 64 << 10;
/// From its first byte to its last, a request's head may take this long.
const HEAD_MS: u64 = 5000;
/// An answer of which the client takes nothing for so long is given up.
const ANSWER_MS: u64 = 30_000;
/// How often slow connections are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: it is new, or kept for its next request.
    Idle,
    /// A request's head is coming.
    Head,
    /// A request's body is coming.
    Body,
    /// A request is being carried out. It is never ended from here.
    Running,
    /// An answer is going out.
    Answering,
    /// It is a WebSocket.
    Session,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::Idle, Self::Head, Self::Body, Self::Running, Self::Answering, Self::Session];

    fn of(code: u8) -> Self {
        Self::ALL.get(usize::from(code & !ENDED)).copied().unwrap_or(Self::Idle)
    }
}

/// The bit beside the phase: the connection is to end.
const ENDED: u8 = 0x80;

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Others need its room more.
    Room,
    /// It is too slow.
    Slow,
}

/// One connection. Shared by its socket, its requests and the table.
#[derive(Debug)]
pub struct Connection {
    table: Arc<Connections>,
    number: u64,
    /// The client's address; of an IPv6 address the network of 64 bits.
    from: IpAddr,
    /// A [`Phase`] and [`ENDED`].
    phase: AtomicU8,
    slow: AtomicBool,
    /// When it last made progress: its phase began, or an answer moved on.
    since_ms: AtomicU64,
    /// When its phase began.
    began_ms: AtomicU64,
    /// Bytes that came or went in this phase.
    moved: AtomicU64,
    /// Requests answered.
    served: AtomicU32,
    /// Bytes that it holds of the connections' budget.
    held: AtomicU64,
    /// Bytes that its request and answer hold of a budget of bodies, and the number of that budget.
    body_held: AtomicU64,
    body_budget: AtomicU32,
    /// Of a body: milliseconds that it may still lag behind, and the bytes counted so far.
    credit_ms: AtomicI64,
    counted: AtomicU64,
    /// Whether the body of its request was read to its end.
    body_ended: AtomicBool,
    /// Whether its socket waits for the phase to change.
    held_back: AtomicBool,
    waker: AtomicWaker,
}

/// See the module.
#[derive(Debug)]
pub struct Connections {
    start: Instant,
    count_max: usize,
    /// Bytes a second that a body must come with at least; 0: any rate will do.
    rate_min: u64,
    budget: Arc<Budget>,
    table: Mutex<Table>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    /// Those that are to end and have not ended yet, with what they give back.
    going: HashMap<u64, u64>,
    going_bytes: u64,
}

/// Whether there will be room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Others end for it.
    Coming,
    /// Others hold it who may end by themselves, or stand still, in a moment.
    Perhaps,
    /// None: it is held by calls that run.
    None,
}

/// A budget of bodies and answers, with those who may have to make room in it.
#[derive(Clone, Debug)]
pub struct Bodies {
    /// What all of them may hold.
    pub budget: Arc<Budget>,
    /// Whose requests and answers hold it.
    pub connections: Arc<Connections>,
}

/// How long a body waits for those that make room for it, and how often it looks for some.
const ROOM_TIME: Duration = Duration::from_millis(120);
const ROOM_TRIES: u32 = 4;
/// How often an answer, which is there already, looks for room.
const ANSWER_TRIES: u32 = 32;

impl Bodies {
    /// A share of `bytes`, at the cost of those that stand still, if need be. `but` is the connection
    /// that asks. `None`: there is no room.
    pub async fn take(&self, bytes: u64, but: Option<&Connection>) -> Option<Held> {
        self.take_within(bytes, but, ROOM_TRIES).await
    }

    /// The same for what a function or a peer answers: while there is no room, it is not read on.
    pub async fn take_for_answer(&self, bytes: u64) -> Option<Held> {
        self.take_within(bytes, None, ANSWER_TRIES).await
    }

    async fn take_within(&self, bytes: u64, but: Option<&Connection>, tries: u32) -> Option<Held> {
        if let Some(held) = self.budget.take(bytes) {
            return Some(held);
        }
        if bytes > self.budget.max() {
            return None;
        }
        for _ in 0..tries {
            match self.connections.make_room_for_body(&self.budget, bytes, but) {
                Room::Coming => self.budget.wait_for(bytes, ROOM_TIME).await,
                Room::Perhaps => self.budget.wait_for(bytes, ROOM_TIME / ROOM_TRIES).await,
                Room::None if tries == ANSWER_TRIES => {
                    self.budget.wait_for(bytes, ROOM_TIME / ROOM_TRIES).await;
                }
                Room::None => break,
            }
            if let Some(held) = self.budget.take(bytes) {
                return Some(held);
            }
        }
        None
    }
}

/// How little a connection would be missed: the smallest ends first.
#[derive(Clone, Copy, Debug)]
pub struct Usefulness {
    /// 0 where its address holds more than half of all connections.
    modest: u8,
    /// 0: idle; 1: slow; 2: was of use a moment ago.
    rank: u8,
    /// Of the idle, the time since which; of the slow, their rate in bytes a second.
    value: f64,
}

impl Connections {
    /// At most `count_max` connections and `bytes_max` bytes; bodies come with at least `rate_min`
    /// bytes a second.
    pub fn new(
        count_max: usize,
        bytes_max: u64,
        rate_min: u64,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            count_max: count_max.max(1),
            rate_min,
            // One must fit, whatever the memory.
            budget: Budget::new(bytes_max.max(CONNECTION_BYTES)),
            table: Mutex::default(),
            metrics,
        })
    }

    /// As the settings say: as many as configured, but a quarter of the files that the process may
    /// open stay for all else.
    pub fn of(settings: &Settings, metrics: &Arc<Metrics>) -> Arc<Self> {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = usize::try_from(files / 4 * 3).unwrap_or(usize::MAX);
        Self::new(
            settings.connections_max.min(most),
            settings.connections_bytes_max,
            settings.body_rate_min,
            Arc::clone(metrics),
        )
    }

    /// Looks for slow connections for as long as anybody else has this table.
    pub fn sweeping(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        let this = Arc::downgrade(self);
        async move {
            let mut time = tokio::time::interval(SWEEP);
            time.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                time.tick().await;
                match this.upgrade() {
                    Some(this) => this.sweep(),
                    None => return,
                }
            }
        }
    }

    /// Milliseconds since the node began.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Connections that are open.
    pub fn count(&self) -> usize {
        lock(&self.table).open.len()
    }

    /// Counts what was refused.
    pub fn refused(&self, what: Refused) {
        self.metrics.refused(what);
    }

    /// Takes in a connection from `from`; `None`: there is no room, and nobody who would make any.
    pub fn open(self: &Arc<Self>, from: IpAddr) -> Option<(Arc<Connection>, Held)> {
        let now = self.now_ms();
        let mut table = lock(&self.table);
        let full = table.open.len() - table.going.len() >= self.count_max;
        let Some(held) = self.room(&mut table, CONNECTION_BYTES, usize::from(full)) else {
            drop(table);
            self.refused(Refused::Connection);
            return None;
        };
        let number = table.next;
        table.next += 1;
        let connection = Arc::new(Connection {
            table: Arc::clone(self),
            number,
            from: network(from),
            phase: AtomicU8::new(Phase::Idle as u8),
            slow: AtomicBool::new(false),
            since_ms: AtomicU64::new(now),
            began_ms: AtomicU64::new(now),
            moved: AtomicU64::new(0),
            served: AtomicU32::new(0),
            held: AtomicU64::new(CONNECTION_BYTES),
            body_held: AtomicU64::new(0),
            body_budget: AtomicU32::new(0),
            credit_ms: AtomicI64::new(GRACE_MS),
            counted: AtomicU64::new(0),
            body_ended: AtomicBool::new(false),
            held_back: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        table.open.insert(number, Arc::clone(&connection));
        Some((connection, held))
    }

    /// The connection has ended.
    pub fn close(&self, connection: &Connection) {
        let mut table = lock(&self.table);
        table.open.remove(&connection.number);
        if let Some(bytes) = table.going.remove(&connection.number) {
            table.going_bytes -= bytes;
        }
    }

    /// Takes `bytes` and `places` among the connections, at the cost of others if need be. What
    /// those give back comes a moment later, so for that moment a little more is held.
    fn room(&self, table: &mut Table, bytes: u64, places: usize) -> Option<Held> {
        let free = self.budget.free() + table.going_bytes;
        if places == 0
            && let Some(held) = self.budget.take(bytes)
        {
            return Some(held);
        }
        let lacking = bytes.saturating_sub(free);
        if (lacking > 0 || places > 0) && !self.end_some(table, lacking, places) {
            return None;
        }
        Some(self.budget.take_anyway(bytes))
    }

    /// Ends the least useful, at least so many bytes' and connections' worth and a sixteenth of all;
    /// `false`: there are not as many.
    fn end_some(&self, table: &mut Table, bytes: u64, count: usize) -> bool {
        let now = self.now_ms();
        let crowd = crowd(table);
        let mut candidates: Vec<(Usefulness, Arc<Connection>)> = table
            .open
            .values()
            .filter_map(|c| Some((c.usefulness(now, crowd)?, Arc::clone(c))))
            .collect();
        candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let batch = (table.open.len() / 16).max(count);
        let (mut freed, mut ended) = (0, 0);
        for (usefulness, connection) in candidates {
            let enough = freed >= bytes && ended >= count;
            // Those of use a moment ago end only for want of others.
            if enough && (ended >= batch || usefulness.rank == RANK_RECENT) {
                break;
            }
            if let Some(held) = connection.end(End::Room) {
                freed += held;
                ended += 1;
                table.going.insert(connection.number, held);
                table.going_bytes += held;
            }
        }
        freed >= bytes && ended >= count
    }

    /// Ends the slowest of those that hold a share of `budget` and do not move on, so that `bytes`
    /// come free; what they hold comes back a moment later. Who sends or reads steadily is left alone.
    pub fn make_room_for_body(
        &self,
        budget: &Budget,
        bytes: u64,
        but: Option<&Connection>,
    ) -> Room {
        let now = self.now_ms();
        let table = lock(&self.table);
        let crowd = crowd(&table);
        let holders: Vec<_> = table
            .open
            .values()
            .filter(|c| c.holds_of(budget) > 0 && but.is_none_or(|but| but.number != c.number))
            .filter(|c| matches!(c.phase(), Phase::Body | Phase::Answering))
            .cloned()
            .collect();
        drop(table);
        let mut candidates: Vec<_> = holders
            .iter()
            .filter(|c| c.stands_still(now))
            .filter_map(|c| Some((c.usefulness(now, crowd)?, c)))
            .collect();
        candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut freed = budget.free();
        for (_, connection) in candidates {
            if freed >= bytes {
                break;
            }
            let held = connection.holds_of(budget);
            if connection.end(End::Room).is_some() {
                freed += held;
            }
        }
        match freed >= bytes {
            true => Room::Coming,
            // Some may stand still in a moment, or be at their end.
            false if !holders.is_empty() => Room::Perhaps,
            false => Room::None,
        }
    }

    /// Looks for connections that are too slow. To be called every [`SWEEP`].
    fn sweep(&self) {
        let now = self.now_ms();
        let open: Vec<_> = lock(&self.table).open.values().cloned().collect();
        for connection in open {
            if connection.is_too_slow(now, self.rate_min) {
                connection.end(End::Slow);
            }
        }
    }

    /// Ends those that wait for a next request: the node stops.
    pub fn end_idle(&self) {
        let open: Vec<_> = lock(&self.table).open.values().cloned().collect();
        for connection in open.iter().filter(|c| c.phase() == Phase::Idle) {
            connection.end(End::Room);
        }
    }
}

impl Usefulness {
    fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
        let whole = (self.modest, self.rank).cmp(&(other.modest, other.rank));
        whole.then_with(|| self.value.total_cmp(&other.value))
    }
}

const RANK_IDLE: u8 = 0;
const RANK_SLOW: u8 = 1;
const RANK_RECENT: u8 = 2;

/// The address that holds more than half of all connections, if there is one and others are there
/// too.
fn crowd(table: &Table) -> Option<IpAddr> {
    let mut counts = HashMap::<IpAddr, usize>::new();
    for connection in table.open.values() {
        *counts.entry(connection.from).or_default() += 1;
    }
    let all = table.open.len();
    counts.into_iter().find(|(_, count)| *count > all / 2 && *count < all).map(|(from, _)| from)
}

/// Whom an address stands for: an IPv6 host has a whole network of 64 bits to itself.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[8..].fill(0);
            octets.into()
        }
        ip => ip,
    }
}

impl Connection {
    /// What it is doing.
    pub fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Acquire))
    }

    /// Whether it is to end, and why.
    pub fn ended(&self) -> Option<End> {
        let ended = self.phase.load(Ordering::Acquire) & ENDED != 0;
        ended.then(|| if self.slow.load(Ordering::Relaxed) { End::Slow } else { End::Room })
    }

    /// Where it is counted.
    pub fn table(&self) -> &Arc<Connections> {
        &self.table
    }

    /// Its socket's task, to be woken when it is to end or may read on.
    pub fn waits(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
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
        let keep = |old: u8| match phase {
            // It is of use after all: what ended it is forgotten.
            Phase::Running | Phase::Session => Some(phase as u8),
            _ => Some(phase as u8 | old & ENDED),
        };
        let old = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, keep).unwrap_or(0);
        if old & ENDED != 0 && matches!(phase, Phase::Running | Phase::Session) {
            self.spare();
        }
        if self.held_back.load(Ordering::Acquire) && self.held_back.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// It does not end after all.
    pub fn spare(&self) {
        self.phase.fetch_and(!ENDED, Ordering::AcqRel);
        let mut table = lock(&self.table.table);
        if let Some(bytes) = table.going.remove(&self.number) {
            table.going_bytes -= bytes;
        }
    }

    /// A request begins to be carried out.
    pub fn begins(&self) {
        self.body_ended.store(false, Ordering::Relaxed);
        self.enter(Phase::Running, 0);
    }

    /// The body of its request was read to its end: the request is whole.
    pub fn body_ends(&self) {
        self.body_ended.store(true, Ordering::Relaxed);
        self.enter(Phase::Running, 0);
    }

    /// Whether the body of its last request was read to its end.
    pub fn body_ended(&self) -> bool {
        self.body_ended.load(Ordering::Relaxed)
    }

    /// Its request is carried out, and the answer goes out.
    pub fn answers(&self) {
        // A WebSocket's answer is the session itself.
        if self.phase() != Phase::Session {
            self.enter(Phase::Answering, 0);
        }
    }

    /// `bytes` came or went.
    pub fn moved(&self, bytes: usize) -> u64 {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }

    /// `bytes` of a body came, or of an answer went.
    pub fn progressed(&self, bytes: usize) {
        self.moved(bytes);
        self.since_ms.store(self.table.now_ms(), Ordering::Relaxed);
    }

    /// A request was answered to its end.
    pub fn served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.enter(Phase::Idle, 0);
    }

    /// What it holds of `budget`.
    fn holds_of(&self, budget: &Budget) -> u64 {
        match self.body_budget.load(Ordering::Relaxed) {
            number if number == budget.number() => self.body_held.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    /// Whether nothing moved for a moment, or hardly anything for longer.
    fn stands_still(&self, now: u64) -> bool {
        let still = now.saturating_sub(self.since_ms.load(Ordering::Relaxed));
        let took = now.saturating_sub(self.began_ms.load(Ordering::Relaxed));
        let rate = self.moved.load(Ordering::Relaxed).saturating_mul(1000) / took.max(1);
        still >= STILL_MS || took >= HARDLY_MS && rate < HARDLY_RATE
    }

    /// Its request, or the answer to it, holds `bytes` of that budget of bodies.
    pub fn holds_body(&self, budget: &Budget, bytes: u64) {
        self.body_budget.store(budget.number(), Ordering::Relaxed);
        self.body_held.store(bytes, Ordering::Relaxed);
    }

    /// Makes `held`, this connection's share, at least `bytes`; `false`: there is no room.
    pub fn grow(&self, held: &mut Held, bytes: u64) -> bool {
        let before = self.held.load(Ordering::Relaxed);
        if bytes <= before {
            return true;
        }
        let more = bytes - before;
        let mut table = lock(&self.table.table);
        let Some(room) = self.table.room(&mut table, more, 0) else { return false };
        held.join(room);
        self.held.store(bytes, Ordering::Relaxed);
        true
    }

    /// Ends it unless it is of use; what it holds, if it ends by this.
    fn end(&self, why: End) -> Option<u64> {
        let mark = |old: u8| {
            let may = old & ENDED == 0 && Phase::of(old) != Phase::Running;
            may.then_some(old | ENDED)
        };
        let old = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, mark).ok()?;
        self.slow.store(why == End::Slow, Ordering::Relaxed);
        self.table.refused(match (why, Phase::of(old)) {
            (End::Room, _) => Refused::Room,
            (End::Slow, Phase::Head) => Refused::SlowHead,
            (End::Slow, Phase::Body) => Refused::SlowBody,
            (End::Slow, _) => Refused::SlowAnswer,
        });
        self.waker.wake();
        Some(self.held.load(Ordering::Relaxed))
    }

    /// `None`: it is never ended.
    fn usefulness(&self, now: u64, crowd: Option<IpAddr>) -> Option<Usefulness> {
        let code = self.phase.load(Ordering::Acquire);
        if code & ENDED != 0 {
            return None;
        }
        let since = self.since_ms.load(Ordering::Relaxed);
        let served = self.served.load(Ordering::Relaxed) > 0;
        let recent = served && now.saturating_sub(since) < RECENT_MS;
        let (rank, value) = match Phase::of(code) {
            Phase::Running => return None,
            Phase::Idle | Phase::Session if recent => (RANK_RECENT, since as f64),
            Phase::Idle | Phase::Session => (RANK_IDLE, since as f64),
            Phase::Head | Phase::Body | Phase::Answering => {
                let took = now.saturating_sub(self.began_ms.load(Ordering::Relaxed)).max(1);
                (RANK_SLOW, self.moved.load(Ordering::Relaxed) as f64 / took as f64)
            }
        };
        Some(Usefulness { modest: u8::from(crowd != Some(self.from)), rank, value })
    }

    /// Whether it is too slow, at `now`.
    fn is_too_slow(&self, now: u64, rate_min: u64) -> bool {
        let began = self.began_ms.load(Ordering::Relaxed);
        match self.phase() {
            Phase::Head => now.saturating_sub(began) > HEAD_MS,
            Phase::Answering => {
                now.saturating_sub(self.since_ms.load(Ordering::Relaxed)) > ANSWER_MS
            }
            Phase::Body if rate_min > 0 => {
                let moved = self.moved.load(Ordering::Relaxed);
                let more = moved.saturating_sub(self.counted.swap(moved, Ordering::Relaxed));
                let earned =
                    i64::try_from(more.saturating_mul(1000) / rate_min).unwrap_or(i64::MAX);
                // The sweep's own time; the first may come at once.
                let passed = now.saturating_sub(began).min(SWEEP.as_millis() as u64) as i64;
                let credit = self.credit_ms.load(Ordering::Relaxed);
                let left = credit.saturating_add(earned).saturating_sub(passed).min(CREDIT_MAX_MS);
                self.credit_ms.store(left, Ordering::Relaxed);
                left < 0
            }
            _ => false,
        }
    }
}
