//! The results of a simulated run. They come as fast as they are written, and the file depends on nothing but what
//! is in it: all rows are one transaction.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::{BadResults, Writer, new_file, write_about};
use crate::experiment::design::about::About;
use crate::experiment::design::job::Job;

/// Jobs that are handed to the writer at once, and how often that many may wait.
const BATCH: usize = 1000;
const BATCHES: usize = 16;

/// A run's file while it is written, by a thread of its own.
pub struct SimulatedResults {
    path: PathBuf,
    to: SyncSender<Vec<Job>>,
    batch: Vec<Job>,
    writer: JoinHandle<rusqlite::Result<Connection>>,
}

impl SimulatedResults {
    /// A new file, which must not be there yet.
    ///
    /// # Errors
    /// It is there, or cannot be written.
    pub fn create(path: &Path, about: &About) -> Result<Self, BadResults> {
        let connection = new_file(path, about)?;
        // Whoever lost half a file makes the run again.
        let at = BadResults::sqlite(path);
        connection.pragma_update(None, "synchronous", "OFF").map_err(&at)?;
        connection.pragma_update(None, "journal_mode", "OFF").map_err(&at)?;
        let (to, queue) = sync_channel(BATCHES);
        let about = about.clone();
        let writer = std::thread::spawn(move || write_all(connection, &queue, &about));
        Ok(Self { path: path.to_owned(), to, batch: Vec::with_capacity(BATCH), writer })
    }

    /// Takes a job; waits where the writer is behind. Whether the writer is still there: if not,
    /// [`finish`](Self::finish) says why.
    pub fn take(&mut self, job: Job) -> bool {
        self.batch.push(job);
        self.batch.len() < BATCH || self.send()
    }

    fn send(&mut self) -> bool {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        self.to.send(batch).is_ok()
    }

    /// The run did not come to its end: there is no file of it.
    pub fn discard(self) {
        let Self { path, to, writer, .. } = self;
        drop(to);
        // Whatever it had to say, the file goes.
        let _ = writer.join();
        if let Err(why) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %why, "half a run is left");
        }
    }

    /// Writes what is left and how the run ended.
    ///
    /// # Errors
    /// Something could not be written.
    pub fn finish(mut self, about: &About) -> Result<(), BadResults> {
        let _ = self.send();
        let Self { path, to, writer, .. } = self;
        drop(to);
        let at = BadResults::sqlite(&path);
        let Ok(written) = writer.join() else {
            return Err(BadResults::unreadable(&path, "the writer panicked"));
        };
        write_about(&written.map_err(&at)?, about).map_err(&at)
    }
}

fn write_all(
    mut connection: Connection,
    queue: &Receiver<Vec<Job>>,
    about: &About,
) -> rusqlite::Result<Connection> {
    let transaction = connection.transaction()?;
    {
        let mut writer = Writer::new(&transaction, about)?;
        for job in queue.iter().flatten() {
            writer.write(&job)?;
        }
    }
    transaction.commit()?;
    Ok(connection)
}
