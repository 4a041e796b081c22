//! Small JSON files that survive a crash at any instant: written beside their place, synced, then
//! renamed over it, so that a reader finds the old file or the new one, never a part.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;
use serde::de::DeserializeOwned;

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
    #[error("{}: not readable as {what}: {why}; mend it or move it away", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the parser said.
        why: String,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { path, source }
}

/// Reads `path`, which must hold a JSON value of that form. `None`: there is no such file.
///
/// # Errors
/// The file is there but cannot be read or parsed.
pub fn read<T: DeserializeOwned>(
    path: &Path,
    what: &'static str,
) -> Result<Option<T>, StorageError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    };
    let unreadable = |why: String| StorageError::Unreadable { path: path.to_owned(), what, why };
    serde_json::from_slice(&bytes).map(Some).map_err(|why| unreadable(why.to_string()))
}

/// Replaces `path` by `value`, atomically. Blocks: not for an actor's thread.
///
/// # Errors
/// Nothing was replaced.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StorageError> {
    // Writers of one file would share its temporary name.
    static WRITING: Mutex<()> = Mutex::new(());
    let _alone = crate::lock(&WRITING);
    let folder = path.parent().unwrap_or(Path::new("."));
    // A fixed name: what a crash left behind is simply overwritten.
    let beside = path.with_extension("json.new");
    let replace = || {
        // As it is made: a model is long.
        let mut file = BufWriter::with_capacity(64 << 10, File::create(&beside)?);
        serde_json::to_writer(&mut file, value)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename itself must survive a power cut too.
        File::open(folder)?.sync_all()
    };
    replace().map_err(|error| {
        // On a full disk, what was written so far would keep others from being saved.
        let _ = fs::remove_file(&beside);
        io_error(path)(error)
    })
}

/// Moves `path` out of the way, under a name that no file has yet: `x.json` to `x.unfit-1.json`.
/// Answers the new name.
///
/// # Errors
/// It was not moved.
pub fn set_aside(path: &Path) -> Result<PathBuf, StorageError> {
    let names = (1..).map(|n: u64| path.with_extension(format!("unfit-{n}.json")));
    let free = names.into_iter().find(|name| !name.exists()).unwrap_or_default();
    fs::rename(path, &free).map_err(io_error(path))?;
    Ok(free)
}

/// Makes sure that `folder` exists and can be written to.
///
/// # Errors
/// It cannot be made, or nothing can be written in it.
pub fn prepare_folder(folder: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    tempfile::tempfile_in(folder).map(drop).map_err(io_error(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_a_missing_file_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        assert_eq!(read::<Vec<u32>>(&path, "numbers").expect("missing is fine"), None);
        write(&path, &vec![1, 2]).expect("writable");
        write(&path, &vec![3]).expect("writable again");
        assert_eq!(read::<Vec<u32>>(&path, "numbers").expect("readable"), Some(vec![3]));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing left over");
    }

    #[test]
    fn a_file_cut_short_while_it_was_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        write(&path, &vec![1]).expect("writable");
        fs::write(path.with_extension("json.new"), "[2,").expect("as a crash leaves it");
        assert_eq!(read::<Vec<u32>>(&path, "numbers").expect("readable"), Some(vec![1]));
        write(&path, &vec![4]).expect("the leftover is in nobody's way");
        assert_eq!(read::<Vec<u32>>(&path, "numbers").expect("readable"), Some(vec![4]));
    }

    #[test]
    fn what_is_set_aside_overwrites_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        for (n, text) in ["first", "second"].into_iter().enumerate() {
            fs::write(&path, text).expect("writable");
            let aside = set_aside(&path).expect("moved");
            assert!(aside.ends_with(format!("x.unfit-{}.json", n + 1)));
            assert_eq!(fs::read_to_string(aside).expect("there"), text);
        }
        assert!(!path.exists());
    }

    #[test]
    fn an_unreadable_file_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.json");
        fs::write(&path, "{nope").expect("writable");
        let error = read::<Vec<u32>>(&path, "numbers").expect_err("not JSON").to_string();
        assert!(error.contains("x.json") && error.contains("numbers"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "{nope");
    }
}
