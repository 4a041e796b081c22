//! The key of a cluster: a file for each node, which it reads anew at SIGHUP.

use std::fs;
use std::path::Path;

use super::network::run;

/// The setting that names the file.
pub const SETTING: &str = "P2PFAAS_CLUSTER_KEY_FILE";
/// What stands between two keys of a file. The first one is used, and all are understood.
const BETWEEN: &str = ",";

/// Two keys: that with which the nodes begin, and that to which they are rotated.
#[derive(Clone)]
pub struct Keys {
    pub old: String,
    pub new: String,
}

impl Keys {
    /// Made by the program; `None`: it knows no keys.
    pub fn make() -> Option<Self> {
        let key = || run(env!("CARGO_BIN_EXE_p2pfaas"), &["key", "new"]).ok();
        let [old, new] = [key()?, key()?].map(|key| key.trim().to_owned());
        Some(Self { old, new })
    }
}

/// Puts these keys into a file, at once and as a whole.
pub fn write(path: &Path, keys: &[&str]) {
    let beside = path.with_extension("new");
    fs::write(&beside, keys.join(BETWEEN) + "\n").expect("it can be written");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&beside, private).expect("it is ours");
    fs::rename(&beside, path).expect("it is there");
}
