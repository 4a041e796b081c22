//! A file that grows line by line: what has changed since another file, its base, was written. So what
//! changes little is saved without being written as a whole.
//!
//! ```text
//! cbf43926 {"base_bytes":2411,"base_crc":928374}
//! 0b7c3a11 …
//! ```
//!
//! Each line begins with the CRC-32 of the rest of it. The first one names the base: a journal of
//! another base, which was written since, or put there by hand, has nothing to say. A line that a
//! crash has cut short ends what is read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::{StorageError, check_regular, io_error};

/// Hexadecimal digits before a line, and a space.
const PREFIX: usize = 9;

/// The first line.
#[derive(Deserialize, Serialize, PartialEq)]
struct Head {
    base_bytes: u64,
    base_crc: u32,
}

impl From<Digest> for Head {
    fn from(base: Digest) -> Self {
        Self { base_bytes: base.bytes, base_crc: base.crc }
    }
}

/// A journal that can be continued.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    base: Digest,
    /// Its length; 0: it is not there yet.
    bytes: u64,
}

/// How the reading of a journal ended.
#[derive(Debug)]
pub enum JournalEnd {
    /// All of it was read.
    Whole(Journal),
    /// There is none, or it is another base's.
    NoneOfBase,
    /// A line is not whole; those before it were read.
    Cut,
    /// Whoever reads it refused a line, for this reason.
    Refused(String),
}

/// The journal's file beside that of its base.
pub fn beside(base: &Path) -> PathBuf {
    base.with_extension("journal")
}

/// What stands on a line, without its end, if it is whole.
fn payload(line: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = line.split_at_checked(PREFIX)?;
    let rest = rest.strip_suffix(b"\n")?;
    let digits = std::str::from_utf8(prefix.strip_suffix(b" ")?).ok()?;
    (u32::from_str_radix(digits, 16).ok()? == Digest::of(rest).crc).then_some(rest)
}

impl Journal {
    /// One without lines yet, of the base at `path` with that digest.
    pub fn new(path: &Path, base: Digest) -> Self {
        Self { path: beside(path), base, bytes: 0 }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives each line of the journal of the base at `path` to `take`, in order. Of a file longer than
    /// `bytes_max` only as much is read.
    ///
    /// # Errors
    /// The file is there, and cannot be read.
    pub fn read(
        path: &Path,
        base: Digest,
        bytes_max: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<JournalEnd, StorageError> {
        let mut journal = Self::new(path, base);
        let path = journal.path.clone();
        let opened = check_regular(&path).and_then(|()| File::open(&path));
        let file = match opened {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(JournalEnd::NoneOfBase),
            Err(why) => return Err(io_error(&path)(why)),
        };
        let mut from = BufReader::new(file.take(bytes_max));
        let mut line = Vec::new();
        let mut next = |line: &mut Vec<u8>| {
            line.clear();
            from.read_until(b'\n', line).map_err(io_error(&path))
        };
        next(&mut line)?;
        let head = payload(&line).and_then(|head| serde_json::from_slice::<Head>(head).ok());
        if head != Some(base.into()) {
            return Ok(JournalEnd::NoneOfBase);
        }
        loop {
            journal.bytes += line.len() as u64;
            if next(&mut line)? == 0 {
                return Ok(JournalEnd::Whole(journal));
            }
            let Some(payload) = payload(&line) else { return Ok(JournalEnd::Cut) };
            if let Err(why) = take(payload) {
                return Ok(JournalEnd::Refused(why));
            }
        }
    }

    /// Adds a line, which has no line end in it. Blocks until it is on disk.
    ///
    /// # Errors
    /// It is not there, or only in part: then the journal must not be continued.
    pub fn append(&mut self, line: &[u8]) -> Result<(), StorageError> {
        let text = |payload: &[u8]| {
            let prefix = format!("{:08x} ", Digest::of(payload).crc);
            [prefix.as_bytes(), payload, b"\n"].concat()
        };
        let mut lines = text(line);
        let first = self.bytes == 0;
        if first {
            let head = serde_json::to_vec(&Head::from(self.base)).map_err(io::Error::from);
            let head = head.map_err(io_error(&self.path))?;
            lines = [text(&head), lines].concat();
        }
        let append = || {
            let mut options = OpenOptions::new();
            match first {
                // What stood there was another base's.
                true => options.write(true).create(true).truncate(true),
                false => options.append(true),
            };
            let mut file = options.open(&self.path)?;
            if file.metadata()?.len() != self.bytes {
                return Err(io::Error::other("somebody else has changed it"));
            }
            file.write_all(&lines)?;
            file.sync_data()?;
            if first {
                File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            }
            Ok(())
        };
        append().map_err(io_error(&self.path))?;
        self.bytes += lines.len() as u64;
        Ok(())
    }
}

/// Removes the journal of the base at `path`, which was written anew. One that stays is another base's,
/// and in nobody's way.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(beside(path));
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Digest = Digest { bytes: 5, crc: 7 };

    /// The lines of the journal in `folder`, and how the reading ended.
    fn read(folder: &Path, base: Digest, bytes_max: u64) -> (Vec<String>, JournalEnd) {
        let mut lines = Vec::new();
        let end = Journal::read(&folder.join("x.json"), base, bytes_max, |line| {
            lines.push(String::from_utf8(line.to_vec()).expect("text"));
            if line == b"bad" { Err("it is bad".to_owned()) } else { Ok(()) }
        });
        (lines, end.expect("readable"))
    }

    fn with(lines: &[&str]) -> (tempfile::TempDir, PathBuf, Journal) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::new(&folder.path().join("x.json"), BASE);
        lines.iter().for_each(|line| journal.append(line.as_bytes()).expect("written"));
        let path = folder.path().join("x.journal");
        (folder, path, journal)
    }

    #[test]
    fn what_is_appended_is_read_back_and_can_be_continued() {
        let (folder, path, journal) = with(&["one", "", "three"]);
        assert_eq!(journal.bytes(), path.metadata().expect("there").len());
        let (lines, end) = read(folder.path(), BASE, 1000);
        assert_eq!(lines, ["one", "", "three"]);
        let JournalEnd::Whole(mut again) = end else { panic!("{end:?}") };
        assert_eq!(again.bytes(), journal.bytes());
        again.append(b"four").expect("written");
        assert_eq!(read(folder.path(), BASE, 1000).0, ["one", "", "three", "four"]);
    }

    #[test]
    fn one_of_another_base_says_nothing_and_is_begun_anew() {
        let (folder, path, _) = with(&["one"]);
        let other = Digest { crc: 8, ..BASE };
        assert!(
            matches!(read(folder.path(), other, 1000), (none, JournalEnd::NoneOfBase) if none.is_empty())
        );
        Journal::new(&folder.path().join("x.json"), other).append(b"new").expect("written");
        assert_eq!(read(folder.path(), other, 1000).0, ["new"]);
        remove(&folder.path().join("x.json"));
        assert!(!path.exists());
        assert!(matches!(read(folder.path(), BASE, 1000).1, JournalEnd::NoneOfBase));
    }

    #[test]
    fn wherever_a_crash_cuts_it_the_lines_before_are_read() {
        let (folder, path, _) = with(&["one", "two"]);
        let whole = fs::read(&path).expect("there");
        let ends: Vec<usize> =
            (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).expect("written");
            let (lines, end) = read(folder.path(), BASE, 1000);
            let left = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(lines.len(), left.saturating_sub(1), "cut at {cut}");
            match left {
                0 => assert!(matches!(end, JournalEnd::NoneOfBase), "cut at {cut}: {end:?}"),
                _ if ends.contains(&cut) => assert!(matches!(end, JournalEnd::Whole(_))),
                _ => assert!(matches!(end, JournalEnd::Cut), "cut at {cut}: {end:?}"),
            }
        }
    }

    #[test]
    fn what_is_damaged_refused_or_too_long_ends_it() {
        let (folder, path, mut journal) = with(&["one", "two", "bad", "four"]);
        let (lines, end) = read(folder.path(), BASE, 1000);
        assert!(matches!(end, JournalEnd::Refused(why) if why == "it is bad"));
        assert_eq!(lines, ["one", "two", "bad"]);
        let (lines, end) = read(folder.path(), BASE, journal.bytes() - 20);
        assert_eq!((lines.len(), matches!(end, JournalEnd::Cut)), (2, true));
        let text = fs::read_to_string(&path).expect("text").replace("two", "twO");
        fs::write(&path, text).expect("written");
        let (lines, end) = read(folder.path(), BASE, 1000);
        assert_eq!((lines.len(), matches!(end, JournalEnd::Cut)), (1, true));
        fs::write(&path, "short").expect("written");
        assert!(journal.append(b"five").is_err(), "somebody else has changed it");
    }
}
