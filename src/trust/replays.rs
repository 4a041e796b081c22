//! Which of a sender's datagrams have come already.

/// Datagrams before the newest one of which it is known whether they have come. What is older counts as if it
/// had.
const REMEMBERED: u64 = 1024;
const WORD: u64 = u64::BITS as u64;

/// The numbers that have come of one sender, as in RFC 6479: a ring of bits below the highest.
#[derive(Clone, Debug, Default)]
pub(super) struct NumbersSeen {
    highest: Option<u64>,
    bits: [u64; (REMEMBERED / WORD) as usize],
}

impl NumbersSeen {
    /// Takes a number in; `false`: it has come before, or may have.
    pub(super) fn take(&mut self, number: u64) -> bool {
        match self.highest {
            Some(highest) if number <= highest => {
                // The word of the highest is not whole: what is that old may lie in it.
                if highest - number >= REMEMBERED - WORD {
                    return false;
                }
            }
            highest => {
                let before = highest.map_or(0, |highest| highest / WORD);
                let now = number / WORD;
                let passed = if highest.is_some() { now - before } else { REMEMBERED / WORD };
                for word in (0..passed.min(REMEMBERED / WORD)).map(|back| now - back.min(now)) {
                    self.set(word, 0);
                }
                self.highest = Some(number);
            }
        }
        let bit = 1 << (number % WORD);
        let word = self.word(number / WORD);
        self.set(number / WORD, word | bit);
        word & bit == 0
    }

    fn place(word: u64) -> usize {
        (word % (REMEMBERED / WORD)) as usize
    }

    fn word(&self, word: u64) -> u64 {
        self.bits.get(Self::place(word)).copied().unwrap_or(u64::MAX)
    }

    fn set(&mut self, word: u64, to: u64) {
        if let Some(bits) = self.bits.get_mut(Self::place(word)) {
            *bits = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_number_comes_once_in_whatever_order() {
        let mut seen = NumbersSeen::default();
        let takes =
            [(5, true), (3, true), (5, false), (0, true), (3, false), (900, true), (5, false)];
        for (number, new) in takes {
            assert_eq!(seen.take(number), new, "{number}");
        }
        assert!(seen.take(u64::MAX) && !seen.take(u64::MAX) && !seen.take(900), "too old to know");
        assert!(seen.take(u64::MAX - 900) && !seen.take(u64::MAX - 900));
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice_and_nothing_new_that_is_recent_is_refused(
            steps in prop::collection::vec((0u64..200, prop::bool::weighted(0.05)), 1..400),
        ) {
            let (mut seen, mut known) = (NumbersSeen::default(), BTreeSet::<u64>::new());
            let mut base = 0;
            for (step, leaps) in steps {
                base += if leaps { step * 50 } else { step / 20 };
                let number = base + step;
                let highest = known.last().copied().unwrap_or(0);
                let recent = highest.saturating_sub(number) < REMEMBERED - WORD;
                let taken = seen.take(number);
                prop_assert_eq!(taken, recent && known.insert(number));
                known.insert(number);
            }
        }
    }
}
