//! Small JSON files that survive a crash at any instant: written beside their place, synced, then
//! renamed over it, so that a reader finds the old file or the new one, never a part. What is large and
//! changes little has a [`journal`] beside it.

pub mod digest;
pub mod journal;
pub mod lock;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::digest::{Digest, Digesting};
use crate::types::Cause;
use crate::wire::json::{Bounds, read_object};

/// The files of the wire contract, and our own beside them.
pub const QUEUE_FILE: &str = "p2p_faas-scheduler.json";
/// The algorithm and its parameters.
pub const SCHEDULER_FILE: &str = "p2p_faas-scheduler-config.json";
/// Who this machine is, and its init servers.
pub const DISCOVERY_FILE: &str = "p2p_faas-discovery.json";
/// The machines last known; ours, v1 has none.
pub const MACHINES_FILE: &str = "p2pfaas-machines.json";
/// The learner's parameters.
pub const LEARNER_FILE: &str = "p2pfaas_learner.json";
/// What was learnt; ours, v1 forgets.
pub const MODEL_FILE: &str = "p2pfaas_learner-model.json";
/// The EIDs that were given; ours.
pub const EIDS_FILE: &str = "p2pfaas_learner-eids.json";

/// A file that cannot be used, named.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not hold what it must. It is left as it is.
    #[error("{}: not readable as {what}: {cause}; mend it or move it away", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the parser said.
        #[source]
        cause: Cause,
    },
    /// Another node has the folder.
    #[error(
        "{}: another node uses this folder{}; each node needs one of its own (--data-path)",
        folder.display(), by.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other's process, if it says so.
        by: Option<u32>,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { path, source }
}

/// A saved configuration.
pub const CONFIGURATION: Bounds = Bounds {
    bytes: 1 << 20,
    depth: 16,
    entries: 10_000,
    string_bytes: 64 << 10,
    values: 100_000,
    long: &[],
};
/// A saved model, which has half of the memory at most. Its values are bounded when they are taken
/// over, by what the learner may hold.
pub const MODEL: Bounds = Bounds {
    bytes: 1 << 30,
    depth: 16,
    entries: usize::MAX,
    string_bytes: 64 << 10,
    values: usize::MAX,
    long: &[],
};
/// Bytes of a file with secrets.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
/// Bytes of a file of settings, of a fleet, or of a scenario.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// Bytes of a trace of traffic.
pub const TRACE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a recording of arrivals: the largest of those of Azure Functions have some 300 MiB.
pub const RECORDING_BYTES_MAX: usize = 512 << 20;
/// Bytes of a payload, as of the largest body that a node can be set to take.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// Files set aside that are kept of each.
const ASIDE_MAX: usize = 3;

/// All of a file of at most `max` bytes. It must be a regular one, or lead to one: a pipe or a device
/// may have no end.
///
/// # Errors
/// There is no such file, it is none of these, or it cannot be read.
pub fn read_bounded(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    check_regular(path)?;
    let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, format!("above {max} bytes"));
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let expected = usize::try_from(length).ok().filter(|length| *length <= max);
    let mut bytes = Vec::with_capacity(expected.ok_or_else(too_long)?);
    file.take((max as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > max { Err(too_long()) } else { Ok(bytes) }
}

/// Whether there is a regular file at `path`, or it leads to one. To be asked before a file is opened,
/// since opening a pipe waits for its other end.
///
/// # Errors
/// There is none.
pub fn check_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("this is no regular file")),
    }
}

/// As [`read_bounded`] for text.
///
/// # Errors
/// As there, and if it is no UTF-8.
pub fn read_text(path: &Path, max: usize) -> io::Result<String> {
    let text = String::from_utf8(read_bounded(path, max)?);
    text.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why.utf8_error()))
}

/// Reads `path`, which must hold a JSON object of that form within the bounds of a
/// [`CONFIGURATION`]. `None`: there is no such file.
///
/// # Errors
/// The file is there but cannot be read or parsed.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    what: &'static str,
) -> Result<Option<T>, StorageError> {
    read_within(path, what, &CONFIGURATION)
}

/// The same within other bounds.
///
/// # Errors
/// As [`read`].
pub fn read_within<T: DeserializeOwned>(
    path: &Path,
    what: &'static str,
    bounds: &Bounds,
) -> Result<Option<T>, StorageError> {
    let read = read_digested(path, what, bounds)?;
    Ok(read.map(|(value, _)| value))
}

/// The same, with the digest of the file.
///
/// # Errors
/// As [`read`].
pub fn read_digested<T: DeserializeOwned>(
    path: &Path,
    what: &'static str,
    bounds: &Bounds,
) -> Result<Option<(T, Digest)>, StorageError> {
    let bytes = match read_bounded(path, bounds.bytes) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    };
    let unreadable = |cause| StorageError::Unreadable { path: path.to_owned(), what, cause };
    let value = read_object(&bytes, bounds).map_err(|why| unreadable(Cause::of(why)))?;
    Ok(Some((value, Digest::of(&bytes))))
}

/// While this lives, one thread writes that file: writers would share its temporary name. Other files
/// do not wait for it, since a model may take minutes.
struct Writing<'a>(&'a Path);

/// The files that are being written.
static WRITTEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// One of them is done.
static DONE: Condvar = Condvar::new();

impl<'a> Writing<'a> {
    /// Waits until nobody else writes `path`.
    fn alone(path: &'a Path) -> Self {
        let mut written = crate::lock(&WRITTEN);
        while !written.insert(path.to_owned()) {
            written = DONE.wait(written).unwrap_or_else(PoisonError::into_inner);
        }
        Self(path)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        crate::lock(&WRITTEN).remove(self.0);
        DONE.notify_all();
    }
}

/// Replaces `path` by `value`, atomically. Blocks: not for an actor's thread.
///
/// # Errors
/// Nothing was replaced.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StorageError> {
    write_digested(path, value).map(drop)
}

/// The same; answers the digest of the file.
///
/// # Errors
/// Nothing was replaced.
pub fn write_digested<T: Serialize>(path: &Path, value: &T) -> Result<Digest, StorageError> {
    let _alone = Writing::alone(path);
    let folder = path.parent().unwrap_or(Path::new("."));
    // A fixed name: what a crash left behind is simply overwritten.
    let beside = path.with_extension("json.new");
    let replace = || {
        // As it is made: a model is long.
        let digesting = Digesting { to: File::create(&beside)?, digest: Digest::default() };
        let mut file = BufWriter::with_capacity(64 << 10, digesting);
        serde_json::to_writer(&mut file, value)?;
        let Digesting { to, digest } = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        to.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename itself must survive a power cut too.
        File::open(folder)?.sync_all()?;
        Ok(digest)
    };
    replace().map_err(|error| {
        // On a full disk, what was written so far would keep others from being saved.
        let _ = fs::remove_file(&beside);
        io_error(path)(error)
    })
}

/// Moves `path` out of the way, under a name that no file has had: `x.json` to `x.unfit-1.json`, its
/// journal along with it. The last three are kept. Answers the new name.
///
/// # Errors
/// It was not moved.
pub fn set_aside(path: &Path) -> Result<PathBuf, StorageError> {
    let named = |n: u64| path.with_extension(format!("unfit-{n}.json"));
    let numbers = aside(path).map_err(io_error(path))?;
    let free = named(numbers.last().map_or(1, |last| last.saturating_add(1)));
    let with_journal = journal::beside(path);
    if with_journal.exists() {
        fs::rename(&with_journal, journal::beside(&free)).map_err(io_error(&with_journal))?;
    }
    fs::rename(path, &free).map_err(io_error(path))?;
    for old in numbers.iter().take((numbers.len() + 1).saturating_sub(ASIDE_MAX)) {
        // What cannot be removed is in nobody's way.
        let _ = fs::remove_file(named(*old));
        journal::remove(&named(*old));
    }
    Ok(free)
}

/// The numbers under which files of that name were set aside, in order.
fn aside(path: &Path) -> io::Result<Vec<u64>> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let number = |name: &str| {
        let rest = name.strip_prefix(&*stem)?.strip_prefix(".unfit-")?;
        rest.strip_suffix(".json")?.parse::<u64>().ok()
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))? {
        numbers.extend(number(&entry?.file_name().to_string_lossy()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes sure that `folder` exists and can be written to.
///
/// # Errors
/// It cannot be made, or nothing can be written in it.
pub fn prepare_folder(folder: &Path) -> Result<(), StorageError> {
    if folder.exists() && !folder.is_dir() {
        let source = io::Error::other("this is no folder, and one is needed here");
        return Err(StorageError::Io { path: folder.to_owned(), source });
    }
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    tempfile::tempfile_in(folder).map(drop).map_err(io_error(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Numbers = BTreeMap<String, u32>;

    fn numbers(n: u32) -> Numbers {
        [("n".to_owned(), n)].into()
    }

    fn read_numbers(path: &Path) -> Result<Option<Numbers>, StorageError> {
        read(path, "numbers")
    }

    #[test]
    fn what_is_written_is_read_back_and_a_missing_file_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        assert_eq!(read_numbers(&path).expect("missing is fine"), None);
        write(&path, &numbers(1)).expect("writable");
        write(&path, &numbers(3)).expect("writable again");
        assert_eq!(read_numbers(&path).expect("readable"), Some(numbers(3)));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing left over");
    }

    #[test]
    fn writers_of_one_file_wait_for_each_other_and_for_no_other_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("x.json"), folder.path().join("y.json"));
        let first = Writing::alone(&path);
        write(&other, &numbers(1)).expect("nobody writes it");
        let second = {
            let path = path.clone();
            std::thread::spawn(move || write(&path, &numbers(2)))
        };
        write(&other, &numbers(3)).expect("nobody writes it");
        assert!(!path.exists());
        drop(first);
        second.join().expect("no panic").expect("it had its turn");
        assert_eq!(read_numbers(&path).expect("readable"), Some(numbers(2)));
    }

    #[test]
    fn a_file_cut_short_while_it_was_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        write(&path, &numbers(1)).expect("writable");
        fs::write(path.with_extension("json.new"), "{\"n\":2").expect("as a crash leaves it");
        assert_eq!(read_numbers(&path).expect("readable"), Some(numbers(1)));
        write(&path, &numbers(4)).expect("the leftover is in nobody's way");
        assert_eq!(read_numbers(&path).expect("readable"), Some(numbers(4)));
    }

    #[test]
    fn what_is_set_aside_overwrites_nothing_and_the_last_three_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        fs::write(folder.path().join("x.unfit-mine.json"), "other").expect("writable");
        for n in 1..=20 {
            fs::write(&path, n.to_string()).expect("writable");
            let aside = set_aside(&path).expect("moved");
            assert!(aside.ends_with(format!("x.unfit-{n}.json")), "{}", aside.display());
            assert_eq!(fs::read_to_string(aside).expect("there"), n.to_string());
            let kept = fs::read_dir(folder.path()).expect("a folder").count();
            assert_eq!(kept, n.min(3) + 1);
        }
        assert!(!path.exists());
    }

    #[test]
    fn an_unreadable_file_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        for text in ["{nope", "[]", "[1]", "null", ""] {
            fs::write(&path, text).expect("writable");
            let error = read_numbers(&path).expect_err("no object").to_string();
            assert!(error.contains("x.json") && error.contains("numbers"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("still there"), text);
        }
    }

    #[test]
    fn only_regular_files_are_read_and_no_more_of_them_than_may_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        fs::write(&path, "12345").expect("writable");
        assert_eq!(read_bounded(&path, 5).expect("at the bound"), b"12345");
        let why = read_bounded(&path, 4).expect_err("above it").to_string();
        assert!(why.contains("above 4 bytes"), "{why}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert_eq!(read_text(&link, 5).expect("as secrets are mounted"), "12345");
        for endless in ["/dev/zero", "/proc", "/dev/tty"] {
            assert!(read_bounded(Path::new(endless), 5).is_err(), "{endless}");
        }
        // Files of the kernel tell no length.
        let told = read_text(Path::new("/proc/self/status"), 64 << 10).expect("text");
        assert!(told.contains("Name:"));
        assert!(read_text(Path::new("/proc/self/status"), 10).is_err());
    }
}
