//! What nodes with the same portfolio say to each other in their records.
//!
//! ```text
//! tag of the arms u32 | epoch u32 | arm in force u8 | arm proposed u8, 255: none yet
//! arm of the epoch before u8 | its calls u32 | of them in time u32
//! arms u8 | for each: calls u32, of them in time u32, discounted, in tenths
//! ```

use bytes::{Buf, BufMut};

use super::ARMS_MAX;
use super::choice::CountedCalls;

const NONE: u8 = u8::MAX;
/// Counts of arms are told in tenths.
const TENTHS: f64 = 10.0;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Words {
    pub(super) number: u32,
    pub(super) arm: usize,
    pub(super) proposal: Option<usize>,
    pub(super) last_arm: usize,
    pub(super) last: CountedCalls,
    pub(super) arms: Vec<CountedCalls>,
}

fn byte(arm: usize) -> u8 {
    u8::try_from(arm).unwrap_or(NONE)
}

impl Words {
    pub(super) fn to_bytes(&self, tag: u32) -> Vec<u8> {
        let mut to = Vec::with_capacity(20 + 8 * self.arms.len());
        to.put_u32(tag);
        to.put_u32(self.number);
        to.put_u8(byte(self.arm));
        to.put_u8(self.proposal.map_or(NONE, byte));
        to.put_u8(byte(self.last_arm));
        put(&mut to, self.last.times(1.0 / TENTHS));
        to.put_u8(byte(self.arms.len()));
        for arm in &self.arms {
            put(&mut to, *arm);
        }
        to
    }

    /// Reads what a portfolio of that tag says; `None`: another one, or nothing that can be read.
    pub(super) fn read(mut from: &[u8], tag: u32) -> Option<Self> {
        let from = &mut from;
        if from.try_get_u32().ok()? != tag {
            return None;
        }
        let number = from.try_get_u32().ok()?;
        let arm = from.try_get_u8().ok()?.into();
        let proposal = Some(from.try_get_u8().ok()?).filter(|arm| *arm != NONE).map(usize::from);
        let last_arm = from.try_get_u8().ok()?.into();
        let last = get(from)?.times(TENTHS);
        let count = usize::from(from.try_get_u8().ok()?);
        if count > ARMS_MAX {
            return None;
        }
        let arms: Option<Vec<CountedCalls>> = (0..count).map(|_| get(from)).collect();
        Some(Self { number, arm, proposal, last_arm, last, arms: arms? })
    }

    /// The arm that its node has in force, or would have, in the epoch of that number.
    pub(super) fn vote(&self, number: u32) -> Option<usize> {
        match number.wrapping_sub(self.number) {
            0 => Some(self.arm),
            1 => self.proposal,
            _ => None,
        }
    }
}

fn put(to: &mut Vec<u8>, counted: CountedCalls) {
    // A cast saturates.
    to.put_u32((counted.calls * TENTHS).round() as u32);
    to.put_u32((counted.in_time * TENTHS).round() as u32);
}

fn get(from: &mut &[u8]) -> Option<CountedCalls> {
    let calls = f64::from(from.try_get_u32().ok()?) / TENTHS;
    let in_time = f64::from(from.try_get_u32().ok()?) / TENTHS;
    // More in time than there were is nobody's count.
    (in_time <= calls).then_some(CountedCalls { calls, in_time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SAYING_BYTES_MAX;

    fn words(arms: usize) -> Words {
        let counted = CountedCalls { calls: 12.5, in_time: 10.1 };
        Words {
            number: 7,
            arm: 1,
            proposal: None,
            last_arm: 2,
            last: CountedCalls { calls: 660.0, in_time: 600.0 },
            arms: vec![counted; arms],
        }
    }

    #[test]
    fn words_are_read_as_they_were_said_and_fit_into_a_record() {
        for proposal in [None, Some(3)] {
            let words = Words { proposal, ..words(ARMS_MAX) };
            let bytes = words.to_bytes(5);
            assert!(bytes.len() <= SAYING_BYTES_MAX);
            assert_eq!(Words::read(&bytes, 5), Some(words));
            assert_eq!(Words::read(&bytes, 6), None, "another portfolio");
            for end in 0..bytes.len() {
                assert_eq!(Words::read(&bytes[..end], 5), None);
            }
        }
    }

    #[test]
    fn counts_that_cannot_be_are_not_taken() {
        let strange = CountedCalls { calls: 1.0, in_time: 2.0 };
        let bytes = Words { arms: vec![strange], ..words(1) }.to_bytes(5);
        assert_eq!(Words::read(&bytes, 5), None);
        assert_eq!(Words::read(&words(ARMS_MAX + 1).to_bytes(5), 5), None);
    }

    #[test]
    fn a_vote_is_what_is_in_force_then_or_proposed_for_then() {
        let words = Words { proposal: Some(4), ..words(1) };
        assert_eq!([6, 7, 8, 9].map(|n| words.vote(n)), [None, Some(1), Some(4), None]);
    }
}
