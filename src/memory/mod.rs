//! How much memory the node may use, so that its bounds fit small boards and containers: the least
//! of what the machine has, its control groups allow, and the process' own limits are.
//!
//! A control group is found by the process' own word, `/proc/self/cgroup`, and followed up to the
//! root, for the limit of any group above holds as well. In a container with a namespace of its own
//! that word is `/`, and the folder's root is the container's group.

pub mod budget;

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use crate::storage::read_text;

/// A share of the memory that this process may use, at most `most` bytes.
pub fn share(parts: u64, most: u64) -> u64 {
    all().map_or(most, |all| (all / parts).min(most))
}

/// The memory that this process may use in bytes; `None`: nothing tells.
fn all() -> Option<u64> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let of_groups = limit_of_groups(&groups, Path::new("/sys/fs/cgroup"));
    let machine = read("/proc/meminfo").and_then(|text| total(&text));
    let own = [Resource::As, Resource::Data].into_iter().filter_map(|r| getrlimit(r).current);
    own.chain(of_groups).chain(machine).min()
}

/// A file of the kernel's; they are short.
fn read(path: impl AsRef<Path>) -> Option<String> {
    read_text(path.as_ref(), 1 << 20).ok()
}

/// The least limit of the groups that `groups`, the content of `/proc/self/cgroup`, names, and of
/// all above them, with the control groups' files below `root`.
pub(crate) fn limit_of_groups(groups: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        // Version 2 names no controllers; beside version 1 it is mounted in a folder of its own.
        let (mounts, file): (&[&str], _) = match controllers {
            "" => (&["", "unified"], "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                (&["memory"], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let limits = mounts.iter().flat_map(|mount| limits_upwards(&root.join(mount), path, file));
        least = limits.chain(least).min();
    }
    least
}

/// The limits of the group at `path` below `mount` and of those above it.
fn limits_upwards(mount: &Path, path: &str, file: &str) -> Vec<u64> {
    // A group that is outside the namespace shows as `/../x`: what is mounted is all there is.
    let inside: PathBuf = Path::new(path.trim_start_matches('/'))
        .components()
        .take_while(|part| matches!(part, std::path::Component::Normal(_)))
        .collect();
    let folders = inside.ancestors().map(|above| mount.join(above).join(file));
    folders.filter_map(|file| bytes(&read(file)?)).collect()
}

/// A control group's limit; `None`: it has none ("max").
pub(crate) fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The machine's memory, of /proc/meminfo.
pub(crate) fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        assert_eq!(bytes("67108864\n"), Some(64 << 20));
        assert_eq!(bytes("max\n"), None);
        assert_eq!(total("MemTotal:        1048576 kB\nMemFree: 1 kB\n"), Some(1 << 30));
        assert_eq!(total(""), None);
    }

    #[test]
    fn a_share_is_of_what_there_is_and_never_more_than_asked_for() {
        assert_eq!(share(1, 1), 1);
        assert!((1..u64::MAX).contains(&share(2, u64::MAX)), "this machine tells its memory");
    }

    #[test]
    fn the_limit_that_holds_is_found_wherever_it_is_set() {
        let root = tempfile::tempdir().expect("a folder");
        let set = |path: &str, limit: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("writable");
            fs::write(file, limit).expect("writable");
        };
        set("memory/memory.limit_in_bytes", "9223372036854771712\n");
        set("memory/a/memory.limit_in_bytes", "1000\n");
        set("memory/a/b/memory.limit_in_bytes", "2000\n");
        set("memory/c/memory.limit_in_bytes", "700\n");
        set("memory.max", "max\n");
        set("x/memory.max", "500\n");
        set("x/y/memory.max", "max\n");
        set("unified/z/memory.max", "300\n");
        for (groups, limit) in [
            ("4:memory:/a/b\n0::/\n", Some(1000)),
            ("4:cpu,memory:/c\n", Some(700)),
            ("4:memory:/\n", Some(9_223_372_036_854_771_712)),
            ("4:memory:/gone/elsewhere\n", Some(9_223_372_036_854_771_712)),
            ("4:memory:/../a\n", Some(9_223_372_036_854_771_712)),
            ("0::/x/y\n", Some(500)),
            ("0::/z\n4:memory:/c\n", Some(300)),
            ("0::/\n", None),
            ("4:cpuset:/c\nnonsense\n\n4:memory\n", None),
        ] {
            assert_eq!(limit_of_groups(groups, root.path()), limit, "{groups}");
        }
    }
}
