//! What was learnt, on disk: the model as a whole, and a journal beside it of what has changed since.
//!
//! A model of many states is long, and little of it changes in ten seconds; a card that is written as
//! a whole every time wears out. So a save adds a line to the journal. When that is as long as the
//! model itself, or `JOURNAL_BYTES_MIN`, the model is written as a whole again, and the journal begins
//! anew. A reset, an import and the stop of the node write the whole as well.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::lock;
use crate::rl::learner::{Learner, Snapshot};
use crate::rl::model::{Model, Unfit};
use crate::rl::parameters::Parameters;
use crate::rl::value::Saving;
use crate::storage::digest::Digest;
use crate::storage::journal::{self, Journal, JournalEnd};
use crate::storage::{self, StorageError};
use crate::wire::json::{self, Bounds};

/// Up to this length a journal grows beside a small model as well: a line costs less than a file.
const JOURNAL_BYTES_MIN: u64 = 4 << 20;

/// How far a learner is: what it was taught, and what it decided.
pub type LearntSoFar = (u64, u64);

/// How a model is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveMode {
    /// What has changed, if that is less than the whole.
    Changes,
    /// As a whole, so that one file has all of it.
    Whole,
}

/// See the module. The models are written in the order in which they were taken.
pub struct ModelFile {
    path: PathBuf,
    /// Grows with everything that is learnt or forgotten, restarts of the Learner included.
    changes: AtomicU64,
    taken: AtomicU64,
    written: Mutex<Written>,
    /// When what is on disk was written, by an earlier run perhaps.
    saved_at: Mutex<Option<SystemTime>>,
}

/// What is on disk.
#[derive(Default)]
struct Written {
    /// The number of the model, and how far it had come.
    number: u64,
    progress: LearntSoFar,
    /// What a journal can go on from; `None`: nothing is there, or it is not known what.
    known: Option<Known>,
}

/// Model and journal as they are on disk, together.
struct Known {
    shape: Map<String, Value>,
    values: Saving,
    model: Digest,
    journal: Journal,
}

impl Known {
    /// How long a journal beside this model becomes.
    fn journal_bytes_max(&self) -> u64 {
        self.model.bytes.max(JOURNAL_BYTES_MIN)
    }
}

/// A line that becomes no longer than it may.
struct Line {
    text: Vec<u8>,
    bytes_max: usize,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.text.len() + bytes.len() <= self.bytes_max {
            true => self.text.write(bytes),
            false => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ModelFile {
    /// In `folder`, of which nothing is known: the first save writes the whole.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join(storage::MODEL_FILE);
        let saved_at = written_at(&path).max(written_at(&journal::beside(&path)));
        Self {
            changes: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            written: Mutex::default(),
            saved_at: Mutex::new(saved_at),
            path,
        }
    }

    /// A learner that goes on from the model in `folder`, if there is one, and that file. A model that
    /// was learnt under other parameters, or is larger than the learner's memory, is set aside, not
    /// overwritten.
    ///
    /// # Errors
    /// The model cannot be read, or not be set aside.
    pub fn load(folder: &Path, parameters: Parameters) -> Result<(Learner, Self), StorageError> {
        let file = Self::new(folder);
        let mut learner = Learner::new(parameters.clone());
        let journal = match restore(&file.path, &mut learner)? {
            Ok(journal) => journal,
            Err(unfit) => {
                let aside = storage::set_aside(&file.path)?;
                tracing::warn!(
                    %unfit,
                    moved_to = %aside.display(),
                    "learning starts anew: the saved model does not fit the parameters or the memory; \
                     it is kept"
                );
                learner = Learner::new(parameters);
                None
            }
        };
        let snapshot = learner.snapshot();
        let mut written = lock(&file.written);
        written.progress = file.progress(&snapshot);
        written.known = journal.and_then(|(model, journal)| {
            let (shape, values) = (snapshot.running.shape(), snapshot.values.saving().ok()?);
            Some(Known { shape, values, model, journal })
        });
        drop(written);
        Ok((learner, file))
    }

    /// Something was learnt or forgotten.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// The age of what is on disk; `None`: nothing is.
    #[expect(
        clippy::disallowed_methods,
        reason = "the age of a file is told by the clock of files"
    )]
    pub fn saved_ago(&self) -> Option<Duration> {
        let written = *lock(&self.saved_at);
        Some(SystemTime::now().duration_since(written?).unwrap_or_default())
    }

    fn progress(&self, snapshot: &Snapshot) -> LearntSoFar {
        (self.changes.load(Ordering::Relaxed), snapshot.live.inferences())
    }

    /// The number by which `snapshot` is written; `None`: what is on disk is the same.
    pub fn number(&self, snapshot: &Snapshot, mode: SaveMode) -> Option<(u64, LearntSoFar)> {
        let progress = self.progress(snapshot);
        // One that is being written at this moment counts as not there yet.
        let unchanged = self.written.try_lock().is_ok_and(|written| {
            let journal = written.known.as_ref().is_some_and(|known| known.journal.bytes() > 0);
            written.progress == progress && !(journal && mode == SaveMode::Whole)
        });
        (!unchanged).then(|| (self.taken.fetch_add(1, Ordering::Relaxed) + 1, progress))
    }

    /// Writes `snapshot` unless a later one is there already. Blocks, also for one that is being
    /// written.
    ///
    /// # Errors
    /// It is not on disk.
    pub fn write(
        &self,
        (number, progress): (u64, LearntSoFar),
        snapshot: &Snapshot,
        mode: SaveMode,
    ) -> Result<(), StorageError> {
        let mut written = lock(&self.written);
        if number <= written.number {
            return Ok(());
        }
        let values = snapshot.values.saving();
        let values = values
            .map_err(|why| StorageError::Io { path: self.path.clone(), source: why.into() })?;
        // Until all of it is there, nobody knows what is on disk.
        let known = written.known.take();
        let known = match known.filter(|_| mode == SaveMode::Changes) {
            Some(known) => append(known, snapshot, &values)?,
            None => None,
        };
        let (model, journal) = match known {
            Some(both) => both,
            None => {
                let model = storage::write_digested(&self.path, &snapshot.model_with(&values))?;
                journal::remove(&self.path);
                (model, Journal::new(&self.path, model))
            }
        };
        let shape = snapshot.running.shape();
        let known = Some(Known { shape, values, model, journal });
        *written = Written { number, progress, known };
        #[expect(clippy::disallowed_methods, reason = "the clock of files")]
        let now = SystemTime::now();
        *lock(&self.saved_at) = Some(now);
        Ok(())
    }
}

/// Adds what has changed to the journal, and answers it and its model; `None`: the whole is to be
/// written, since it is less, or no change of what is there.
fn append(
    known: Known,
    snapshot: &Snapshot,
    values: &Saving,
) -> Result<Option<(Digest, Journal)>, StorageError> {
    if known.shape != snapshot.running.shape() {
        return Ok(None);
    }
    let left = known.journal_bytes_max().saturating_sub(known.journal.bytes());
    // It is written from memory, which the learner's bound has to cover.
    let bytes_max = usize::try_from(left).unwrap_or(usize::MAX);
    let bytes_max = bytes_max.min(snapshot.running.memory_bytes / 8);
    let Some(changes) = values.changes_since(&known.values) else { return Ok(None) };
    let mut line = Line { text: Vec::new(), bytes_max };
    if serde_json::to_writer(&mut line, &snapshot.model_with(changes)).is_err() {
        return Ok(None);
    }
    let Known { model, mut journal, .. } = known;
    journal.append(&line.text)?;
    Ok(Some((model, journal)))
}

/// Brings `learner` to where the model at `path` and its journal are; answers both, if they can be
/// continued.
fn restore(
    path: &Path,
    learner: &mut Learner,
) -> Result<Result<Option<(Digest, Journal)>, Unfit>, StorageError> {
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    let memory_bytes = learner.parameters().memory_bytes;
    // One that fits is no longer than the memory: what is longer is not even read.
    if bytes > memory_bytes as u64 {
        let why = format!("it has {bytes} bytes, the learner's memory {memory_bytes}");
        return Ok(Err(Unfit(why)));
    }
    let bounds = Bounds { bytes: memory_bytes, ..storage::MODEL };
    let read = storage::read_digested::<Model>(path, "a learner's model", &bounds)?;
    let Some((model, digest)) = read else { return Ok(Ok(None)) };
    if let Err(unfit) = learner.restore(&model) {
        return Ok(Err(unfit));
    }
    drop(model);
    let line_bounds = Bounds { bytes: usize::MAX, ..bounds };
    let bytes_max = digest.bytes.max(JOURNAL_BYTES_MIN).saturating_mul(2);
    let end = Journal::read(path, digest, bytes_max, |line| {
        let changes = json::read_object::<Model<Box<RawValue>>>(line, &line_bounds);
        let changes = changes.map_err(|why| why.to_string())?;
        learner.restore_changes(&changes).map_err(|why| why.to_string())
    })?;
    Ok(match end {
        JournalEnd::Whole(journal) => Ok(Some((digest, journal))),
        JournalEnd::NoneOfBase => Ok(Some((digest, Journal::new(path, digest)))),
        JournalEnd::Cut => {
            tracing::info!("the last save of what was learnt was cut short: the one before counts");
            Ok(None)
        }
        JournalEnd::Refused(why) => Err(Unfit(format!("its journal: {why}"))),
    })
}

fn written_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

#[cfg(test)]
mod tests;
