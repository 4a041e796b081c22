//! A bound on what the bodies of all calls hold together, from the moment a body is announced.

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
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Held { budget: Arc::clone(self), bytes })
    }
}

impl Held {
    /// Gives back what turned out not to be needed.
    pub fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.held.fetch_sub(surplus, Ordering::AcqRel);
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
        let mut six = budget.take(6).expect("there is room");
        assert!(budget.take(5).is_none());
        six.shrink(2);
        six.shrink(9);
        let eight = budget.take(8).expect("there is room again");
        assert!(budget.take(1).is_none());
        drop((six, eight));
        assert!(budget.take(u64::MAX).is_none());
        assert!(budget.take(10).is_some());
    }
}
