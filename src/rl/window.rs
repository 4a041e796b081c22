//! The reordering window: entries come in the order in which tasks end and leave in the order in
//! which they were scheduled, by EID.
//!
//! - Before anything has left, it starts at the smallest EID from which W are consecutive. From
//!   then on the next expected EID is fixed: what comes below it is late, what comes twice is a
//!   duplicate.
//! - A window leaves when W consecutive entries are there. The last entry of a window is the first
//!   of the next, so every consecutive pair is learnt from once. (In v1 windows do not overlap:
//!   one pair in W is lost.)
//! - An EID that never comes holds nothing up for ever: after `attempts` arrivals beyond a gap, the
//!   oldest, it is skipped. What is held before it leaves, however short; no pair is made across it.
//! - At most `held_max` entries are held, fewer if they take more than `bytes_max` bytes: at that
//!   bound the oldest gap is skipped at once. Where there is no gap, W entries are always held,
//!   unless they take too many bytes: then those that are there leave as a short window.
//!
//! Law: every order of arrival in which no entry is overtaken by W or more later ones lets the same
//! entries leave in the same pairs as order by EID, provided that `attempts` ≥ W. (Entries without
//! a gap leave one after the other; where a window begins changes nothing about the pairs.)
//!
//! Source: P2PFaaS (see [`crate::rl`]), section 2.1.2. Entries are kept in pages of 64 EIDs, and how
//! far the run at the front reaches is remembered, so an arrival costs the search of a page,
//! O(log n) in the entries held.

use std::collections::{BTreeMap, VecDeque};

use super::{Eid, Entry};

/// How a window works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRules {
    /// W, at least 2.
    pub window: u64,
    /// Whether the last entry of a window is the first of the next.
    pub overlap: bool,
    /// Arrivals beyond a gap after which it is skipped.
    pub attempts: u64,
    /// Entries held at most, at least W.
    pub held_max: usize,
    /// Bytes that they take at most.
    pub bytes_max: usize,
}

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is held until its turn.
    Held,
    /// Its turn has passed.
    Late,
    /// One with this EID is held already.
    Duplicate,
}

/// What left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Whether the entries that left complete a window.
    pub window: bool,
    /// Whether the next entry to leave makes no pair with the last of these.
    pub cut: bool,
    /// EIDs given up after these.
    pub skipped: u64,
    /// Entries that were held and are late now, since the window starts above them.
    pub late: u64,
}

/// EIDs in a page.
const PAGE: u64 = 64;
/// Bytes that an entry takes beside its state's features, measured generously.
pub const ENTRY_BYTES: usize = 112;
/// Bytes that a page takes beside its entries.
const PAGE_BYTES: usize = 320;

/// Bytes that an entry with this state takes.
pub fn entry_bytes(state: &[f64]) -> usize {
    ENTRY_BYTES + size_of_val(state)
}

/// The entries of 64 consecutive EIDs.
#[derive(Debug, Default)]
struct Page {
    /// Bit i: EID page × 64 + i is held.
    bits: u64,
    /// The entries held, in order.
    entries: VecDeque<Entry>,
}

/// See the module.
#[derive(Debug)]
pub struct Window {
    rules: WindowRules,
    /// By EID / 64; none is empty.
    pages: BTreeMap<u64, Page>,
    held: usize,
    /// Bytes that all of it takes.
    bytes: usize,
    /// What comes below is late. Once `fixed`, the next expected EID.
    floor: Eid,
    fixed: bool,
    /// Once `fixed`, every EID from `floor` to below this one is held.
    reached: Eid,
    /// Until `fixed`, the runs of consecutive EIDs that are held: first to one past the last.
    runs: BTreeMap<Eid, Eid>,
    /// Whether the entry before `floor` makes a pair with the next to leave.
    follows: bool,
    /// Where to start: the first of W consecutive EIDs, found and not acted on yet.
    start: Option<Eid>,
}

impl Window {
    /// Nothing held. What comes below `floor` is late.
    pub fn new(rules: WindowRules, floor: Eid) -> Self {
        Self {
            rules,
            pages: BTreeMap::new(),
            held: 0,
            bytes: 0,
            floor,
            fixed: false,
            reached: floor,
            runs: BTreeMap::new(),
            follows: false,
            start: None,
        }
    }

    /// Entries held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The EID below which entries are late.
    pub fn expected(&self) -> Eid {
        self.floor
    }

    /// Goes on by other rules; what can leave by them leaves with the next
    /// [`release`](Self::release).
    pub fn set_rules(&mut self, rules: WindowRules) {
        self.follows &= rules.overlap;
        self.rules = rules;
        if !self.fixed {
            let long = self.runs.iter().find(|(first, end)| *end - *first >= rules.window);
            self.start = long.map(|(first, _)| *first);
        }
    }

    /// An entry comes. Its EID is at most [`super::EID_MAX`].
    pub fn arrive(&mut self, entry: Entry) -> Arrival {
        let eid = entry.eid;
        if eid < self.floor {
            return Arrival::Late;
        }
        let page = self.pages.entry(eid / PAGE).or_default();
        let bit = 1 << (eid % PAGE);
        if page.bits & bit != 0 {
            return Arrival::Duplicate;
        }
        let before = (page.bits & (bit - 1)).count_ones() as usize;
        self.bytes += entry_bytes(&entry.state);
        if page.bits == 0 {
            self.bytes += PAGE_BYTES;
        }
        page.entries.insert(before, entry);
        page.bits |= bit;
        self.held += 1;
        if !self.fixed {
            let (first, end) = self.join(eid);
            // No run was as long before, so this one is the only one and the smallest.
            if self.start.is_none() && end - first >= self.rules.window {
                self.start = Some(first);
            }
        }
        Arrival::Held
    }

    /// Moves what can leave next to the end of `out`, in order. Call it until it answers `None`.
    pub fn release(&mut self, out: &mut Vec<Entry>) -> Option<Release> {
        if let Some(start) = self.start.take() {
            let late = self.take(start, None);
            self.runs.clear();
            (self.floor, self.fixed, self.reached) = (start, true, start);
            return Some(Release { late, ..Release::default() });
        }
        let wanted = self.rules.window - u64::from(self.follows);
        let (front, end) = if self.fixed {
            let short = wanted.saturating_sub(self.reached - self.floor);
            self.reached = self.run_end(self.reached, short);
            (self.floor, self.reached)
        } else {
            self.runs.first_key_value().map(|(first, end)| (*first, *end))?
        };
        if self.fixed && end - front >= wanted {
            let end = front + wanted;
            self.take(end, Some(out));
            self.floor = end;
            self.follows = self.rules.overlap;
            return Some(Release { window: true, cut: !self.follows, ..Release::default() });
        }
        let beyond = self.held as u64 - (end - front);
        let heavy = self.bytes >= self.rules.bytes_max;
        let full = self.held >= self.rules.held_max || heavy;
        if beyond == 0 && heavy && end > front {
            self.take(end, Some(out));
            self.runs.clear();
            (self.floor, self.fixed, self.reached) = (end, true, end);
            self.follows = self.rules.overlap;
            return Some(Release { cut: !self.follows, ..Release::default() });
        }
        if beyond == 0 || (beyond < self.rules.attempts && !full) {
            return None;
        }
        let next = self.held_from(end)?;
        self.take(end, Some(out));
        self.runs.clear();
        (self.floor, self.fixed, self.follows) = (next, true, false);
        self.reached = next;
        Some(Release { cut: true, skipped: next - end, ..Release::default() })
    }

    /// Adds `eid` to the runs; answers the one that it is in now.
    fn join(&mut self, eid: Eid) -> (Eid, Eid) {
        let before = self.runs.range(..eid).next_back().map(|(first, end)| (*first, *end));
        let first = before.filter(|(_, end)| *end == eid).map_or(eid, |(first, _)| first);
        let end = self.runs.remove(&(eid + 1)).unwrap_or(eid + 1);
        self.runs.insert(first, end);
        (first, end)
    }

    /// Takes out all below `end`; answers how many.
    fn take(&mut self, end: Eid, mut out: Option<&mut Vec<Entry>>) -> u64 {
        let before = self.held;
        while let Some(mut first) = self.pages.first_entry() {
            let start = *first.key() * PAGE;
            if start >= end {
                break;
            }
            let page = first.get_mut();
            let taken = match end - start {
                below if below < PAGE => page.bits & ((1 << below) - 1),
                _ => page.bits,
            };
            for entry in page.entries.drain(..taken.count_ones() as usize) {
                self.held -= 1;
                self.bytes -= entry_bytes(&entry.state);
                if let Some(out) = &mut out {
                    out.push(entry);
                }
            }
            page.bits &= !taken;
            if page.bits != 0 {
                break;
            }
            first.remove();
            self.bytes -= PAGE_BYTES;
        }
        (before - self.held) as u64
    }

    /// The smallest EID held, from `from` on.
    fn held_from(&self, from: Eid) -> Option<Eid> {
        self.pages.range(from / PAGE..).find_map(|(page, held)| {
            let start = page * PAGE;
            let bits = match from.saturating_sub(start) {
                0 => held.bits,
                below => held.bits & !((1 << below) - 1),
            };
            (bits != 0).then(|| start + u64::from(bits.trailing_zeros()))
        })
    }

    /// The first EID from `from` on that is not held; counts no further than `limit` needs.
    fn run_end(&self, from: Eid, limit: u64) -> Eid {
        let mut at = from;
        while at - from < limit {
            let bits = self.pages.get(&(at / PAGE)).map_or(0, |page| page.bits) >> (at % PAGE);
            let ones = u64::from(bits.trailing_ones());
            at += ones;
            if ones == 0 || !at.is_multiple_of(PAGE) {
                break;
            }
        }
        // A run goes on only as far as was asked for: what lies beyond leaves later.
        at.min(from.saturating_add(limit))
    }
}

#[cfg(test)]
mod tests;
