//! A bound on what the bodies of all calls hold together, from the moment a body is announced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes that may be held, and are.
#[derive(Debug)]
pub struct Budget {
    /// Tells budgets apart; above 0.
    number: u32,
    max: u64,
    held: AtomicU64,
    /// Those that wait for something to be given back.
    waiting: AtomicUsize,
    given_back: Notify,
}

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Of `max` bytes.
    pub fn new(max: u64) -> Arc<Self> {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        Arc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            max,
            held: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            given_back: Notify::new(),
        })
    }

    /// A number that no other budget of this process has.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Bytes that are not held.
    pub fn free(&self) -> u64 {
        self.max.saturating_sub(self.held.load(Ordering::Acquire))
    }

    /// Takes `bytes` whether or not there are as many left: for what is made up for at once.
    pub fn take_anyway(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        Reservation { budget: Arc::clone(self), bytes }
    }

    /// Waits until `bytes` could be taken, for at most `patience`.
    pub async fn wait_for(&self, bytes: u64, patience: Duration) {
        let _waits = Counted::of(&self.waiting);
        let _ = timeout(patience, async {
            loop {
                let given_back = self.given_back.notified();
                tokio::pin!(given_back);
                // From here on it hears of what is given back.
                given_back.as_mut().enable();
                if self.free() >= bytes {
                    return;
                }
                given_back.await;
            }
        })
        .await;
    }

    fn give_back(&self, bytes: u64) {
        // Most calls have no body.
        if bytes == 0 {
            return;
        }
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.given_back.notify_waiters();
        }
    }

    /// Takes `bytes`, if there are as many left.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.take_leaving(bytes, 0)
    }

    /// Takes `bytes`, if there are as many left and `left` more.
    pub fn take_leaving(self: &Arc<Self>, bytes: u64, left: u64) -> Option<Reservation> {
        self.reserve(bytes, left)?;
        Some(Reservation { budget: Arc::clone(self), bytes })
    }

    fn reserve(&self, bytes: u64, left: u64) -> Option<()> {
        if bytes == 0 {
            return Some(());
        }
        let most = self.max.saturating_sub(left);
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= most);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok().map(|_| ())
    }

    /// Takes `bytes`, or what is left if that is less but anything: for what is held already.
    pub fn take_up_to(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.take(bytes.min(self.free())).filter(|held| held.bytes > 0 || bytes == 0)
    }

    /// The bytes that may be held in all.
    pub fn max(&self) -> u64 {
        self.max
    }
}

/// One that waits; counted while it lives, for it may be dropped in the middle of it.
#[derive(Debug)]
pub struct Counted<'a> {
    waiting: &'a AtomicUsize,
    /// Those that waited already.
    pub others: usize,
}

impl<'a> Counted<'a> {
    /// One more of those that `waiting` counts.
    pub fn of(waiting: &'a AtomicUsize) -> Self {
        Self { others: waiting.fetch_add(1, Ordering::AcqRel), waiting }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Reservation {
    /// Takes as much more as makes it `bytes`, if there is so much left.
    pub fn grow_to(&mut self, bytes: u64) -> Option<()> {
        let more = bytes.saturating_sub(self.bytes);
        self.budget.reserve(more, 0)?;
        self.bytes += more;
        Some(())
    }

    /// Gives back what is not needed for `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(surplus);
    }

    /// The bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The budget that they are of.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The share of a call's body becomes that of its answer of `bytes`; what there is no room for
    /// is taken all the same, since the answer is there.
    #[must_use]
    pub fn for_answer(mut self, bytes: usize) -> Self {
        let bytes = bytes as u64;
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                self.budget.held.fetch_add(more, Ordering::AcqRel);
                self.bytes = bytes;
            }
            None => self.shrink(bytes),
        }
        self
    }

    /// Takes over what `other`, of the same budget, holds.
    pub fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
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
