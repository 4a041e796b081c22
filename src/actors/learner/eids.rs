//! The EIDs of a node's decisions: each is given once, restarts included. They are given from a
//! counter, below a mark that is on disk; the mark is moved ahead of need, on a thread of its own, so
//! neither deciding nor training waits for the disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lock;
use crate::rl::{EID_MAX, Eid};
use crate::saved::eids::ReservedEids;
use crate::storage;

/// EIDs reserved on disk at once. As many may be lost with a restart; a learner elsewhere that is
/// trained on this node's decisions takes such a leap, and several (`eids_ahead_max`).
const EIDS_RESERVED: u64 = 1 << 17;
/// How long a disk that failed is left alone.
const RESERVE_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Eids {
    next: AtomicU64,
    /// EIDs below are reserved on disk.
    below: AtomicU64,
    file: PathBuf,
    reserving: AtomicBool,
    reserved: Notify,
    /// When the disk failed last; it is not asked again at once.
    failed: Mutex<Option<Instant>>,
    /// Whether it was said that none is left.
    end_told: AtomicBool,
}

impl Eids {
    /// Goes on after those that were reserved before, with their file in `data_path`; 1 is the first.
    pub fn after(reserved: ReservedEids, data_path: &Path) -> Arc<Self> {
        let first = reserved.reserved_below.max(1);
        Arc::new(Self {
            next: AtomicU64::new(first),
            below: AtomicU64::new(first),
            file: data_path.join(storage::EIDS_FILE),
            reserving: AtomicBool::new(false),
            reserved: Notify::new(),
            failed: Mutex::default(),
            end_told: AtomicBool::new(false),
        })
    }

    /// The next one, if any is reserved.
    pub fn take(self: &Arc<Self>) -> Option<Eid> {
        let below = self.below.load(Ordering::Acquire);
        let next = |eid| (eid < below).then_some(eid + 1);
        let eid = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        let left = below - eid;
        // Looked at once in a while.
        if left < EIDS_RESERVED / 2 && left.is_multiple_of(1024) {
            self.reserve();
        }
        Some(eid)
    }

    /// The next one; waits for the disk if none is reserved. `None`: the disk fails, or none is
    /// left.
    pub async fn wait(self: &Arc<Self>) -> Option<Eid> {
        loop {
            let reserved = self.reserved.notified();
            tokio::pin!(reserved);
            // From here on it hears of an end, also of one before it is waited for.
            reserved.as_mut().enable();
            if let Some(eid) = self.take() {
                return Some(eid);
            }
            if !self.reserve() {
                return None;
            }
            reserved.await;
        }
    }

    /// The one that is given next.
    pub fn next(&self) -> Eid {
        self.next.load(Ordering::Relaxed)
    }

    /// Whether `eid` was given.
    pub fn gave(&self, eid: Eid) -> bool {
        (1..self.next()).contains(&eid)
    }

    /// What to reserve on disk, if half of what was reserved is used up.
    fn wanted(&self) -> Option<ReservedEids> {
        let (next, below) = (self.next.load(Ordering::Relaxed), self.below.load(Ordering::Relaxed));
        let reserved_below = next.max(below).saturating_add(EIDS_RESERVED).min(EID_MAX);
        (below - next < EIDS_RESERVED / 2).then_some(ReservedEids { reserved_below })
    }

    /// Has more reserved, unless that is under way. `false`: the disk failed a moment ago, or none
    /// is left.
    pub fn reserve(self: &Arc<Self>) -> bool {
        if self.below.load(Ordering::Acquire) >= EID_MAX {
            if !self.end_told.swap(true, Ordering::Relaxed) {
                tracing::error!("no EIDs are left: once those reserved are given, calls run here");
            }
            return false;
        }
        let failed = *lock(&self.failed);
        if failed.is_some_and(|at| at.elapsed() < RESERVE_AGAIN) {
            return false;
        }
        if !self.reserving.swap(true, Ordering::AcqRel) {
            let reserving = Reserving(Arc::clone(self));
            // It goes on though nobody waits for it any more.
            drop(actix_rt::task::spawn_blocking(move || reserving.0.write()));
        }
        true
    }

    fn write(&self) {
        let Some(wanted) = self.wanted() else { return };
        let written = storage::write(&self.file, &wanted);
        match &written {
            Ok(()) => {
                self.below.fetch_max(wanted.reserved_below, Ordering::Release);
            }
            Err(error) => tracing::error!(%error, "no EIDs can be reserved"),
        }
        *lock(&self.failed) = written.err().map(|_| Instant::now());
    }
}

/// While this lives, more are being reserved; also where the thread that was to do it is gone.
struct Reserving(Arc<Eids>);

impl Drop for Reserving {
    fn drop(&mut self) {
        self.0.reserving.store(false, Ordering::Release);
        self.0.reserved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn eids(data_path: &Path) -> Arc<Eids> {
        Eids::after(ReservedEids::default(), data_path)
    }

    #[actix_rt::test]
    async fn they_are_on_disk_before_they_are_given_and_ahead_of_need() {
        let folder = tempfile::tempdir().expect("a folder");
        let eids = eids(folder.path());
        assert_eq!(eids.take(), None, "nothing is reserved");
        assert_eq!(eids.wait().await, Some(1));
        let file = folder.path().join(storage::EIDS_FILE);
        let on_disk = || storage::read::<ReservedEids>(&file, "EIDs").expect("there").expect("one");
        let first = on_disk();
        while eids.wait().await.expect("reserved") < first.reserved_below + 10 {}
        assert!(on_disk().reserved_below > first.reserved_below);
    }

    #[actix_rt::test]
    async fn at_their_end_nobody_waits_and_nothing_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let last = ReservedEids { reserved_below: EID_MAX - 2 };
        assert!(last.check().is_err());
        let eids = Eids::after(last, folder.path());
        assert_eq!((eids.wait().await, eids.wait().await), (Some(EID_MAX - 2), Some(EID_MAX - 1)));
        std::fs::remove_file(folder.path().join(storage::EIDS_FILE)).expect("written once");
        assert_eq!((eids.wait().await, eids.take(), eids.reserve()), (None, None, false));
        assert!(!folder.path().join(storage::EIDS_FILE).exists());
    }

    #[actix_rt::test]
    async fn without_a_disk_none_is_given() {
        let eids = eids(Path::new("/nonexistent/folder"));
        assert_eq!((eids.wait().await, eids.wait().await), (None, None));
    }

    #[test]
    fn none_is_given_twice_by_any_thread_or_after_a_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let eids = eids(folder.path());
        eids.write();
        let given: Vec<Eid> = std::thread::scope(|scope| {
            let take = || (0..5000).filter_map(|_| eids.take()).collect::<Vec<_>>();
            let threads = [scope.spawn(take), scope.spawn(take), scope.spawn(take)];
            threads.into_iter().flat_map(|thread| thread.join().expect("joins")).collect()
        });
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 15_000);
        assert!(given.iter().all(|eid| eids.gave(*eid)) && !eids.gave(15_001));
        assert!(!eids.gave(0), "that one says that nobody decided");
        // After a crash all that was reserved counts as given.
        let file = folder.path().join(storage::EIDS_FILE);
        let reserved = storage::read(&file, "EIDs").expect("there").expect("one");
        let again = Eids::after(reserved, folder.path());
        again.write();
        let next = again.take().expect("reserved");
        assert!(given.iter().all(|eid| *eid < next));
    }
}
