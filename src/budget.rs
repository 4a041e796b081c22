//! A bound on what the bodies of all calls hold together, byte by byte as they arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be held, and are.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    held: AtomicU64,
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Of `max` bytes.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, held: AtomicU64::new(0) })
    }

    /// Takes `bytes`, if there are as many left.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        self.reserve(bytes)?;
        Some(Held { budget: Arc::clone(self), bytes })
    }

    fn reserve(&self, bytes: u64) -> Option<()> {
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok().map(|_| ())
    }

    /// Takes `bytes`, or what is left if that is less but anything: for what is held already.
    pub fn take_up_to(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        let free = self.max.saturating_sub(self.held.load(Ordering::Acquire));
        self.take(bytes.min(free)).filter(|held| held.bytes > 0 || bytes == 0)
    }

    /// Whether `bytes` more would fit now.
    pub fn has_room(&self, bytes: u64) -> bool {
        let held = self.held.load(Ordering::Acquire);
        held.checked_add(bytes).is_some_and(|sum| sum <= self.max)
    }
}

impl Held {
    /// Takes `bytes` more, if there are as many left.
    pub fn grow(&mut self, bytes: u64) -> Option<()> {
        self.budget.reserve(bytes)?;
        self.bytes += bytes;
        Some(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_of_it_comes_back() {
        let budget = Budget::new(10);
        let mut held = budget.take(2).expect("there is room");
        held.grow(4).expect("there is room");
        assert!(budget.take(5).is_none() && held.grow(5).is_none());
        assert!(budget.has_room(4) && !budget.has_room(5) && !budget.has_room(u64::MAX));
        let rest = budget.take_up_to(9).expect("four are left");
        assert!(budget.take_up_to(1).is_none(), "nothing is left");
        drop((held, rest));
        assert!(budget.take(u64::MAX).is_none());
        assert!(budget.take(10).is_some());
    }
}
