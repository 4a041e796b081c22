//! Results on disk: one SQLite file a run, with the tables that P2PFaaS v1's analysis scripts read
//! and one more, `scenario`, of keys and values, which says what the run was. Where there is nothing
//! to say, v1 writes 0.0 or an empty text and never NULL, which its scripts do not expect.
//!
//! Rows are written by a thread of its own in transactions of about a second, so that a run whose
//! program is killed loses at most that.

mod simulated;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Row, params};
use serde_json::{Map, Value};

use crate::experiment::design::about::About;
use crate::experiment::design::job::{DecisionShown, Job};
use crate::experiment::report::summary::{Collector, Summary};
use crate::memory::budget::{Budget, Reservation};
use crate::storage::check_regular;

/// Bytes of jobs that may wait to be written: some hundred thousand usual ones, and fewer where nodes
/// tell much.
const BACKLOG_BYTES: u64 = 256 << 20;
/// How long whoever reads a file may hold up the writer; jobs wait in memory meanwhile.
const PATIENCE: Duration = Duration::from_secs(600);
/// How much the writer's thread gives way to the one that keeps time.
const NICE: i32 = 5;
/// How long a transaction is open.
const COMMIT: Duration = Duration::from_secs(1);

/// The tables with their columns; v1's.
pub const TABLES: [(&str, &[&str]); 3] = [
    (
        "jobs",
        &[
            "node_id INTEGER",
            "req_id INTEGER",
            "type_id INTEGER",
            "payload_name TEXT",
            "requests_rate REAL",
            "time_total REAL",
            "time_execution REAL",
            "times_parsed INTEGER",
            "res_status_code INTEGER",
            "res_error_code INTEGER",
            "req_net_error INTEGER",
            "req_net_error_message TEXT",
            "externally_executed INTEGER",
            "timestamp_start REAL",
            "timestamp_end REAL",
            "learning_state TEXT",
            "learning_action REAL",
            "learning_eps REAL",
            "learning_reward REAL",
        ],
    ),
    (
        "timings",
        &[
            "node_id INTEGER",
            "req_id INTEGER",
            "payload_name TEXT",
            "requests_rate REAL",
            "index_i INTEGER",
            "time_type TEXT",
            "time_value REAL",
        ],
    ),
    (
        "values_strings",
        &[
            "node_id INTEGER",
            "req_id INTEGER",
            "payload_name TEXT",
            "requests_rate REAL",
            "index_i INTEGER",
            "value_type TEXT",
            "value_value TEXT",
        ],
    ),
];

pub use self::simulated::SimulatedResults;

/// Why a file is no result of a run, or could not become one.
#[derive(Debug, thiserror::Error)]
pub enum BadResults {
    /// SQLite says so.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// It does not hold what a run leaves.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Jobs came faster than they could be written.
    #[error("{}: results cannot be written as fast as they come", path.display())]
    TooSlow {
        /// The file.
        path: PathBuf,
    },
}

impl BadResults {
    fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Sqlite { path: path.clone(), source }
    }

    fn unreadable(path: &Path, why: impl ToString) -> Self {
        Self::Unreadable { path: path.to_owned(), why: why.to_string() }
    }
}

/// The way of jobs to the writer of a run's file.
#[derive(Clone)]
pub struct Jobs {
    to: Sender<(Job, Reservation)>,
    room: Arc<Budget>,
}

impl Jobs {
    /// A way, and its end.
    fn new(backlog_bytes: u64) -> (Self, Receiver<(Job, Reservation)>) {
        let (to, queue) = channel();
        (Self { to, room: Budget::new(backlog_bytes) }, queue)
    }

    /// Sends a job; `None`: the writer is gone or too far behind.
    pub fn send(&self, job: Job) -> Option<()> {
        let held = self.room.take(job.bytes())?;
        self.to.send((job, held)).ok()
    }
}

/// A run's file while it is written.
pub struct Results {
    path: PathBuf,
    jobs: Jobs,
    writer: JoinHandle<rusqlite::Result<Connection>>,
}

impl Results {
    /// A new file, which must not be there yet.
    ///
    /// # Errors
    /// It is there, or cannot be written.
    pub fn create(path: &Path, about: &About) -> Result<Self, BadResults> {
        let connection = new_file(path, about)?;
        let (jobs, queue) = Jobs::new(BACKLOG_BYTES);
        let about = about.clone();
        let writer = std::thread::spawn(move || {
            // On Linux this is the thread's own; where it is not allowed, it is no worse than before.
            let _ = rustix::process::nice(NICE);
            write_all(connection, &queue, &about)
        });
        Ok(Self { path: path.to_owned(), jobs, writer })
    }

    /// Where jobs go.
    pub fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }

    /// Writes what is left and how the run ended. All other senders must be gone.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn finish(self, about: &About, overrun: bool) -> Result<(), BadResults> {
        let Self { path, jobs, writer } = self;
        drop(jobs);
        let at = BadResults::sqlite(&path);
        let Ok(written) = writer.join() else {
            return Err(BadResults::unreadable(&path, "the writer panicked"));
        };
        write_about(&written.map_err(&at)?, about).map_err(&at)?;
        if overrun { Err(BadResults::TooSlow { path: path.clone() }) } else { Ok(()) }
    }
}

/// A new file with its tables.
fn new_file(path: &Path, about: &About) -> Result<Connection, BadResults> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    if path.exists() {
        return Err(BadResults::unreadable(path, "it is there already"));
    }
    let at = BadResults::sqlite(path);
    let mut connection = Connection::open_with_flags(path, flags).map_err(&at)?;
    // Whoever reads the file meanwhile holds the writer up, which must not end the run for it.
    let begun = connection.busy_timeout(PATIENCE).and_then(|()| begin(&mut connection, about));
    if let Err(why) = begun {
        drop(connection);
        // Half a file would only be in the way.
        let _ = std::fs::remove_file(path);
        return Err(at(why));
    }
    Ok(connection)
}

/// The tables and what the run is, all or nothing.
fn begin(connection: &mut Connection, about: &About) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (table, columns) in TABLES {
        transaction.execute_batch(&format!("CREATE TABLE {table} ({})", columns.join(", ")))?;
    }
    transaction.execute_batch("CREATE TABLE scenario (key TEXT PRIMARY KEY, value TEXT)")?;
    write_about(&transaction, about)?;
    transaction.commit()
}

/// A row per key; texts as they are, all else as JSON.
fn write_about(to: &Connection, about: &About) -> rusqlite::Result<()> {
    // Structs of numbers and texts always serialise.
    let all = serde_json::to_value(about).unwrap_or_default();
    let mut insert = to.prepare("INSERT OR REPLACE INTO scenario VALUES (?, ?)")?;
    for (key, value) in all.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        insert.execute((key, text))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which waits in real time")]
fn write_all(
    mut connection: Connection,
    queue: &Receiver<(Job, Reservation)>,
    about: &About,
) -> rusqlite::Result<Connection> {
    loop {
        let transaction = connection.transaction()?;
        let ended = {
            let mut writer = Writer::new(&transaction, about)?;
            writer.until(Instant::now() + COMMIT, queue)?
        };
        transaction.commit()?;
        if ended {
            return Ok(connection);
        }
    }
}

struct Writer<'a> {
    about: &'a About,
    job: rusqlite::Statement<'a>,
    timing: rusqlite::Statement<'a>,
    text: rusqlite::Statement<'a>,
}

impl<'a> Writer<'a> {
    fn new(to: &'a Connection, about: &'a About) -> rusqlite::Result<Self> {
        let insert = |index: usize| {
            let (table, columns) = TABLES.get(index).copied().unwrap_or_default();
            let places = vec!["?"; columns.len()].join(", ");
            to.prepare(&format!("INSERT INTO {table} VALUES ({places})"))
        };
        Ok(Self { about, job: insert(0)?, timing: insert(1)?, text: insert(2)? })
    }

    /// Writes what comes until then; answers whether nothing more will come.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, which waits in real time")]
    fn until(
        &mut self,
        end: Instant,
        queue: &Receiver<(Job, Reservation)>,
    ) -> rusqlite::Result<bool> {
        loop {
            match queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((job, _held)) => self.write(&job)?,
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => return Ok(true),
            }
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }

    fn write(&mut self, job: &Job) -> rusqlite::Result<()> {
        let payload = self.about.payload_names.get(job.payload).map_or("", String::as_str);
        let learnt = job.learnt.as_ref();
        let by_deadline = || self.about.deadlines_s.reward(job.task_type, job.status, job.total_s);
        let given = learnt.and_then(|learnt| learnt.reward);
        self.job.execute(params![
            job.node,
            job.request,
            job.task_type,
            payload,
            job.rate,
            job.total_s,
            job.execution_s.unwrap_or(0.0),
            job.execution_s.is_some(),
            job.status,
            job.error_code,
            job.net_error.is_some(),
            job.net_error.as_deref().unwrap_or(""),
            job.external,
            job.start,
            job.start + job.total_s,
            learnt.map_or("", |learnt| &learnt.state),
            learnt.map_or(0.0, |learnt| learnt.action),
            learnt.map_or(0.0, |learnt| learnt.eps),
            given.unwrap_or_else(by_deadline),
        ])?;
        for (kind, times) in [
            ("first_byte", job.first_byte_s.as_slice()),
            ("service", &job.timings.total),
            ("scheduling", &job.timings.scheduling),
            ("probing", &job.timings.probing),
        ] {
            for (time, index) in times.iter().zip(0u32..) {
                self.timing.execute((
                    job.node,
                    job.request,
                    payload,
                    job.rate,
                    index,
                    kind,
                    time,
                ))?;
            }
        }
        for (kind, texts) in [("peer_ip", &job.peers_ip), ("peer_id", &job.peers_id)] {
            for (text, index) in texts.iter().zip(0u32..) {
                self.text.execute((job.node, job.request, payload, job.rate, index, kind, text))?;
            }
        }
        Ok(())
    }
}

/// Reads a run and sums it up. Of the nodes passed only the last matters.
///
/// # Errors
/// The file is no result of a run.
pub fn summary(path: &Path) -> Result<Summary, BadResults> {
    check_regular(path).map_err(|why| BadResults::unreadable(path, why))?;
    let at = BadResults::sqlite(path);
    let connection = open(path).map_err(&at)?;
    let about = read_about(&connection, path)?;
    let payloads = about.payload_names.clone();
    let mut collector = Collector::new(about);
    // Releases up to 1.0.0 wrote `peers_list_ip`.
    let sql = "SELECT j.*, v.value_value FROM jobs j LEFT JOIN (
            SELECT node_id, req_id, value_value, MAX(index_i) FROM values_strings
            WHERE value_type IN ('peer_ip', 'peers_list_ip') GROUP BY node_id, req_id
        ) v ON v.node_id = j.node_id AND v.req_id = j.req_id ORDER BY j.timestamp_start";
    let mut jobs = connection.prepare(sql).map_err(&at)?;
    let mut rows = jobs.query([]).map_err(&at)?;
    while let Some(row) = rows.next().map_err(&at)? {
        collector.add(&job(row, &payloads).map_err(&at)?);
    }
    Ok(collector.finish())
}

/// Opens a run's file to read it. Writable where it can be: what a killed program left half written
/// has to be taken back first.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn read_about(connection: &Connection, path: &Path) -> Result<About, BadResults> {
    let at = BadResults::sqlite(path);
    let mut select = connection.prepare("SELECT key, value FROM scenario").map_err(&at)?;
    let pair = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let pairs: Vec<(String, String)> =
        select.query_map([], pair).and_then(Iterator::collect).map_err(&at)?;
    let value = |(key, text): (String, String)| {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (key, value)
    };
    let all: Map<String, Value> = pairs.into_iter().map(value).collect();
    serde_json::from_value(all.into()).map_err(|why| BadResults::unreadable(path, why))
}

/// A row of `jobs`, and the address of the last node passed. Where nothing was measured or learnt,
/// releases up to 1.0.0 wrote NULL.
fn job(row: &Row<'_>, payloads: &[String]) -> rusqlite::Result<Job> {
    let payload: String = row.get(3)?;
    let (timed, no_answer): (bool, bool) = (row.get(7)?, row.get(10)?);
    let state: Option<String> = row.get(15)?;
    let learnt = |state| {
        Ok::<_, rusqlite::Error>(DecisionShown {
            eid: 0,
            state,
            action: row.get(16)?,
            eps: row.get(17)?,
            // The row has one by the deadlines, too, where nobody gave it to the learner.
            reward: None,
        })
    };
    Ok(Job {
        node: row.get(0)?,
        request: row.get(1)?,
        task_type: row.get(2)?,
        payload: payloads.iter().position(|name| *name == payload).unwrap_or(0),
        rate: row.get(4)?,
        total_s: row.get(5)?,
        execution_s: row.get::<_, Option<f64>>(6)?.filter(|_| timed),
        status: row.get(8)?,
        error_code: row.get(9)?,
        net_error: row.get::<_, Option<String>>(11)?.filter(|_| no_answer),
        external: row.get(12)?,
        start: row.get(13)?,
        learnt: state.filter(|state| !state.is_empty()).map(learnt).transpose()?,
        peers_ip: row.get::<_, Option<String>>(19)?.into_iter().collect(),
        ..Job::default()
    })
}

#[cfg(test)]
mod tests;
