//! One node per folder: a lock on a file in it, which the system lets go when its process ends,
//! however that ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{StorageError, io_error};

/// The file's name.
const FILE: &str = "p2pfaas.lock";
/// Another process may take its file away just as it is opened here, but not for ever.
const TRIES: usize = 16;

/// While this lives, no other node has the folder.
#[derive(Debug)]
pub struct FolderLock {
    path: PathBuf,
    /// `None`: this file system has no locks.
    file: Option<File>,
}

impl FolderLock {
    /// Takes `folder`, and writes the number of this process into the lock's file.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be written.
    pub fn take(folder: &Path) -> Result<Self, StorageError> {
        let path = folder.join(FILE);
        for _ in 0..TRIES {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(io_error(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let folder = folder.to_owned();
                    return Err(StorageError::InUse { folder, by: holder(&mut file) });
                }
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(
                        path = %path.display(), %error,
                        "no lock can be had here: take care that no other node uses this folder"
                    );
                    return Ok(Self { path, file: None });
                }
            }
            // Who had it before takes its file away when it ends, maybe after it was opened here.
            if is_at(&file, &path) {
                file.set_len(0).map_err(io_error(&path))?;
                write!(file, "{}", std::process::id()).map_err(io_error(&path))?;
                return Ok(Self { path, file: Some(file) });
            }
        }
        let source = io::Error::other("it comes and goes");
        Err(StorageError::Io { path, source })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Somebody may have taken it away, and another node may have made its own.
        if self.file.as_ref().is_some_and(|file| is_at(file, &self.path)) {
            // Best effort: a file without a lock is in nobody's way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The process that holds the lock, as far as its file tells.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether `file` is what lies at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(here), Ok(there)) => (here.dev(), here.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_nodes_at_a_time_and_whose_it_is_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = FolderLock::take(folder.path()).expect("free");
        let error = FolderLock::take(folder.path()).expect_err("taken").to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing is left");
        FolderLock::take(folder.path()).expect("free again");
    }

    #[test]
    fn a_file_that_a_killed_node_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE), "4294967295 and more").expect("written");
        let lock = FolderLock::take(folder.path()).expect("nobody has it");
        let text = fs::read_to_string(folder.path().join(FILE)).expect("there");
        assert_eq!(text, std::process::id().to_string());
        drop(lock);
    }
}
