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

    /// The bytes that may be held in all.
    pub fn max(&self) -> u64 {
        self.max
    }
}

impl Held {
    /// Takes as much more as makes it `bytes`, if there is so much left.
    pub fn grow_to(&mut self, bytes: u64) -> Option<()> {
        let more = bytes.saturating_sub(self.bytes);
        self.budget.reserve(more)?;
        self.bytes += more;
        Some(())
    }

    /// Gives back what is not needed for `bytes`.
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
        let mut held = budget.take(2).expect("there is room");
        held.grow_to(6).expect("there is room");
        assert!(budget.take(5).is_none() && held.grow_to(11).is_none());
        let rest = budget.take_up_to(9).expect("four are left");
        assert!(budget.take_up_to(1).is_none(), "nothing is left");
        held.shrink(5);
        held.shrink(9);
        drop((budget.take(1).expect("that came back"), held, rest));
        assert!(budget.take(u64::MAX).is_none());
        assert!(budget.take(10).is_some());
    }
}
