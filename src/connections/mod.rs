//! All connections that a node holds, on all its ports, in one table with one budget of bytes: who
//! connects and then sends nothing, sends slowly, or reads nothing, costs memory all the same.
//!
//! When there is no room for one more, the least useful ones end, many at a time (`Usefulness`):
//! those that are idle and never asked anything, then the slowest of those that are sending a
//! request or not reading their answer, at last those that were of use a moment ago. A client address
//! that holds more than half of all goes before the others. A call that runs is never ended.
//!
//! The table knows no sockets: whoever serves a connection tells its [`Phase`] and what it holds,
//! looks at [`Connection::ended`], and is woken when that changes (`http/guarded.rs`).

mod bodies;
mod connection;
mod newcomers;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

pub use self::bodies::{Bodies, Room};
pub use self::connection::{Connection, EndReason, Phase};
use self::connection::{RANK_RECENT, RANK_SLOW, Usefulness};
use self::newcomers::Newcomers;
use crate::config::Settings;
use crate::error::RefusalKind;
use crate::lock;
use crate::memory::budget::{Budget, Reservation};
use crate::metrics::Metrics;

/// Files that a node has open, and a few connections to functions and peers; and of these, for each worker thread.
const OTHER_FILES: u64 = 50;
const WORKER_FILES: u64 = 6;
/// What a connection takes at least: its task, the buffers of the server, the kernel's part.
pub const CONNECTION_BYTES: u64 = 40 << 10;
/// Of the budget, for each new connection that may wait for room beside it.
const NEWCOMER_BYTES: u64 = 8 << 10;
/// What is not worth ending a request or an answer for.
const WORTH_BYTES: u64 = 4 << 10;
/// How long a new connection waits for room at most.
const ROOM_TIME: Duration = Duration::from_secs(5);
/// How often slow connections are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Connections {
    /// When the node began, in milliseconds of [`clock_ms`].
    start_ms: u64,
    count_max: usize,
    /// Bytes a second that a body must come with at least; 0: any rate will do.
    rate_min: u64,
    budget: Arc<Budget>,
    table: Mutex<Table>,
    /// How many new connections may wait for room.
    newcomers_max: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    /// Those that are to end and have not ended yet, with what they give back.
    going: HashMap<u64, u64>,
    going_bytes: u64,
    /// Those that want more room; woken, one by one, when others have ended.
    waiting: VecDeque<Arc<Connection>>,
    /// New connections that wait for room.
    newcomers: Newcomers,
}

impl Table {
    /// Ends `connection` unless it is of use; what it gives back, if it ends by this.
    fn end(&mut self, connection: &Connection, why: EndReason) -> Option<u64> {
        let held = connection.end(why)?;
        let before = self.going.insert(connection.number, held).unwrap_or(0);
        self.going_bytes = self.going_bytes + held - before;
        Some(held)
    }

    /// The connection of that number is to be woken when another has ended, if any is ending.
    fn waits_for_room(&mut self, number: u64) -> bool {
        if let Some(connection) = self.open.get(&number)
            && self.waiting.iter().all(|waiting| waiting.number != number)
        {
            self.waiting.push_back(Arc::clone(connection));
        }
        !self.going.is_empty()
    }

    /// It does not end any more, or has ended.
    fn stays(&mut self, number: u64) {
        self.going_bytes -= self.going.remove(&number).unwrap_or(0);
    }

    /// Lets one of those that wait for room try again.
    fn call_next(&mut self) {
        match self.waiting.pop_front() {
            Some(waiting) => waiting.wake(),
            None => self.newcomers.call(),
        }
    }
}

/// Why there is no room among the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Others are ending for it: it comes in a moment.
    Yet,
    /// Nobody is there who could end for it.
    AtAll,
}

/// How many connections there may be where so many files can be open: a quarter of these stays for all else, and at
/// least what a node needs. Otherwise none could be accepted long before the table is full, and idle ones would not
/// make way.
fn count_for(files: u64, workers: usize) -> usize {
    let others = OTHER_FILES + WORKER_FILES * workers as u64;
    usize::try_from(files.saturating_sub(others.max(files / 4))).unwrap_or(usize::MAX)
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
            start_ms: clock_ms(),
            count_max: count_max.max(1),
            rate_min,
            // One must fit, whatever the memory.
            budget: Budget::new(bytes_max.max(CONNECTION_BYTES)),
            table: Mutex::default(),
            newcomers_max: (count_max / 4)
                .min(usize::try_from(bytes_max / NEWCOMER_BYTES).unwrap_or(usize::MAX))
                .clamp(count_max.clamp(1, 64), 16_384),
            metrics,
        })
    }

    /// As the settings say: as many as configured, but some of the files that the process may open stay
    /// for all else.
    pub fn of(settings: &Settings, metrics: &Arc<Metrics>) -> Arc<Self> {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::new(
            settings.connections_max.min(count_for(files, settings.workers)),
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

    /// Connections that fit, if each takes no more than the least.
    pub fn capacity(&self) -> usize {
        let by_bytes = self.budget.max() / CONNECTION_BYTES;
        self.count_max.min(usize::try_from(by_bytes).unwrap_or(usize::MAX))
    }

    /// Milliseconds since the node began.
    pub fn now_ms(&self) -> u64 {
        clock_ms().saturating_sub(self.start_ms)
    }

    /// Connections that are open.
    pub fn count(&self) -> usize {
        lock(&self.table).open.len()
    }

    /// Counts what was refused.
    pub fn refused(&self, what: RefusalKind) {
        self.metrics.refused(what);
    }

    /// Takes in a connection from `from`, as one on which a whole request has come.
    ///
    /// # Errors
    /// There is no room yet, or nobody who would make any.
    pub fn open(self: &Arc<Self>, from: IpAddr) -> Result<(Arc<Connection>, Reservation), NoRoom> {
        self.open_in(&mut lock(&self.table), from, true)
    }

    /// `asks`: a whole request has come on it already.
    fn open_in(
        self: &Arc<Self>,
        table: &mut Table,
        from: IpAddr,
        asks: bool,
    ) -> Result<(Arc<Connection>, Reservation), NoRoom> {
        let now = self.now_ms();
        let full = table.open.len() - table.going.len() >= self.count_max;
        // The last of what may be held for a moment is for those that will be of use at once.
        let eighths = if asks { 10 } else { 9 };
        let places = usize::from(full);
        let held = self.room(table, CONNECTION_BYTES, places, None, eighths)?;
        let number = table.next;
        table.next += 1;
        let connection = Arc::new(Connection::new(self, number, network(from), now));
        table.open.insert(number, Arc::clone(&connection));
        Ok((connection, held))
    }

    /// The connection has ended.
    pub fn close(&self, connection: &Connection) {
        let mut table = lock(&self.table);
        table.open.remove(&connection.number);
        table.stays(connection.number);
        table.waiting.retain(|waiting| waiting.number != connection.number);
        table.call_next();
    }

    /// Takes in a connection from `from`, and waits for others to end that make room, for some seconds
    /// at most. `request` is there when a whole request has come on it. Those that ask come first, and
    /// of them the newest, whose clients are the likeliest to wait for an answer still.
    ///
    /// # Errors
    /// There is none in time, or too many others wait.
    pub async fn open_soon(
        self: &Arc<Self>,
        from: IpAddr,
        request: impl Future<Output = ()>,
    ) -> Result<(Arc<Connection>, Reservation), NoRoom> {
        let mut request = std::pin::pin!(request);
        let (mut asks, mut waited) = (false, false);
        let mut deadline = std::pin::pin!(tokio::time::sleep(ROOM_TIME));
        loop {
            let (no_room, told) = {
                let mut table = lock(&self.table);
                match self.open_in(&mut table, from, asks) {
                    Ok(opened) => {
                        // What came free may be enough for another.
                        if waited {
                            table.newcomers.call();
                        }
                        return Ok(opened);
                    }
                    Err(NoRoom::Yet) => {
                        (NoRoom::Yet, Some(table.newcomers.wait(asks, self.newcomers_max)))
                    }
                    Err(NoRoom::AtAll) => (NoRoom::AtAll, None),
                }
            };
            let again = match told {
                None => false,
                // Told first: its turn must not get lost.
                Some(told) => tokio::select! {
                    biased;
                    told = told => told.is_ok(),
                    () = &mut deadline => false,
                    () = &mut request, if !asks => {
                        asks = true;
                        true
                    }
                },
            };
            waited = true;
            if !again {
                self.refused(RefusalKind::Connection);
                return Err(no_room);
            }
        }
    }

    /// Takes `bytes` and `places` among the connections, at the cost of others but `but` if need be. What those
    /// give back comes a moment later; for that moment up to `eighths` of the budget are held.
    fn room(
        &self,
        table: &mut Table,
        bytes: u64,
        places: usize,
        but: Option<u64>,
        eighths: u64,
    ) -> Result<Reservation, NoRoom> {
        if places == 0
            && let Some(held) = self.budget.take(bytes)
        {
            return Ok(held);
        }
        let (held, max) = (self.budget.held(), self.budget.max());
        let lacking = (held + bytes).saturating_sub(table.going_bytes + max);
        let made = lacking == 0 && places == 0 || self.end_some(table, lacking, places, but);
        let beyond = held + bytes > max / 8 * eighths;
        match (made, beyond) {
            (true, false) => Ok(self.budget.take_anyway(bytes)),
            _ if !table.going.is_empty() => Err(NoRoom::Yet),
            _ => Err(NoRoom::AtAll),
        }
    }

    /// Ends the least useful, at least so many bytes' and connections' worth and a sixteenth of all;
    /// `false`: there are not as many.
    fn end_some(&self, table: &mut Table, bytes: u64, count: usize, but: Option<u64>) -> bool {
        let now = self.now_ms();
        let crowd = crowd(table);
        let mut candidates: Vec<(Usefulness, Arc<Connection>)> = table
            .open
            .values()
            .filter(|c| but != Some(c.number))
            .filter_map(|c| Some((c.usefulness(now, crowd)?, Arc::clone(c))))
            .collect();
        candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        // Who wants more for a request that is not whole ends none that were of use.
        let rank_max = if but.is_some() { RANK_SLOW } else { RANK_RECENT };
        candidates.retain(|(usefulness, _)| usefulness.rank <= rank_max);
        let batch = (table.open.len() / 16).max(count);
        let (mut freed, mut ended) = (0, 0);
        for (usefulness, connection) in candidates {
            let enough = freed >= bytes && ended >= count;
            // Those of use a moment ago end only for want of others.
            if enough && (ended >= batch || usefulness.rank == RANK_RECENT) {
                break;
            }
            if let Some(held) = table.end(&connection, EndReason::Room) {
                freed += held;
                ended += 1;
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
        let mut table = lock(&self.table);
        let crowd = crowd(&table);
        let holders: Vec<_> = table
            .open
            .values()
            .filter(|c| {
                c.holds_of(budget) >= WORTH_BYTES && but.is_none_or(|but| but.number != c.number)
            })
            .filter(|c| matches!(c.phase(), Phase::Body | Phase::Answering))
            .cloned()
            .collect();
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
            if table.end(connection, EndReason::Room).is_some() {
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
        let mut table = lock(&self.table);
        let slow = table.open.values().filter(|c| c.is_too_slow(now, self.rate_min));
        for connection in slow.cloned().collect::<Vec<_>>() {
            table.end(&connection, EndReason::Slow);
        }
    }
}

/// Milliseconds of a clock that never goes back; it moves on some hundred times a second, and costs
/// little to look at, as each call does several times.
fn clock_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

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

#[cfg(test)]
mod tests;
