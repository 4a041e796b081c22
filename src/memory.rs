//! How much memory the node may use, so that its bounds fit small boards and containers.

use std::fs;

/// Where the kernel tells the container's own limit: control groups version 2 and 1.
const LIMITS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// A share of the memory that this process may use, at most `most` bytes.
pub fn share(parts: u64, most: u64) -> u64 {
    let limits = LIMITS.iter().filter_map(|path| bytes(&fs::read_to_string(path).ok()?));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let all = limits.chain(machine).min();
    all.map_or(most, |all| (all / parts).min(most))
}

/// A control group's limit; `None`: it has none ("max").
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The machine's memory, of /proc/meminfo.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
