//! The file of the EIDs that are used up.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::unusable;
use crate::rl::{EID_MAX, Eid};
use crate::storage::{self, StorageError};
use crate::types::Cause;

/// The largest EID that a file may reserve: what is left above outlasts any node.
const RESERVED_MAX: Eid = EID_MAX - (1 << 40);

/// EIDs that a node may give: those below are used or were lost with a crash. The file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedEids {
    /// No EID from here on was given yet.
    pub reserved_below: Eid,
}

impl ReservedEids {
    /// Whether a node can go on after these.
    ///
    /// # Errors
    /// Too few are left above.
    pub fn check(self) -> Result<Self, String> {
        match self.reserved_below > RESERVED_MAX {
            true => Err(format!(
                "reserved_below is {}, at most {RESERVED_MAX} leaves EIDs to give",
                self.reserved_below
            )),
            false => Ok(self),
        }
    }
}

/// The EIDs that earlier runs reserved.
///
/// # Errors
/// Their file cannot be read, or leaves none to give.
pub fn read_eids(folder: &Path) -> Result<ReservedEids, StorageError> {
    const WHAT: &str = "the reserved EIDs";
    let path = folder.join(storage::EIDS_FILE);
    let reserved: Option<ReservedEids> = storage::read(&path, WHAT)?;
    reserved.unwrap_or_default().check().map_err(|why| unusable(&path, WHAT, Cause::of(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_leaves_no_eids_stops_the_start_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(read_eids(folder.path()).expect("none yet"), ReservedEids::default());
        assert!(ReservedEids { reserved_below: RESERVED_MAX }.check().is_ok());
        let text = format!(r#"{{"reserved_below":{}}}"#, i64::MAX);
        std::fs::write(folder.path().join(storage::EIDS_FILE), text).expect("written");
        let error = read_eids(folder.path()).expect_err("too large").to_string();
        assert!(error.contains(storage::EIDS_FILE) && error.contains("reserved_below"), "{error}");
    }
}
