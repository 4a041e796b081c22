//! The behaviour policy: ε-greedy, with ε falling by a factor at every decision.
//!
//! With probability ε an action is drawn uniformly from those possible; otherwise it is one with
//! the largest Q(s, a) among them, ties broken at random. After each decision, if ε > ε_min and
//! decay is on, ε ← ε · decay. Source: Sutton & Barto, sections 2.2 and 6.4; the decay is that of
//! the wire contract.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::{Rng, RngExt};

/// How ε falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decay {
    /// Where it stops, 0 to 1.
    pub min: f64,
    /// Its factor per decision, 0 to 1.
    pub factor: f64,
    /// Whether it falls at all.
    pub enabled: bool,
}

/// ε, shared by all who decide.
#[derive(Debug)]
pub struct Epsilon(AtomicU64);

impl Epsilon {
    /// Starting there, 0 to 1.
    pub fn new(epsilon: f64) -> Self {
        Self(AtomicU64::new(epsilon.to_bits()))
    }

    /// What the next decision uses.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Acquire))
    }

    /// Goes on from there.
    pub fn set(&self, epsilon: f64) {
        self.0.store(epsilon.to_bits(), Ordering::Release);
    }

    /// The ε of a decision that is being taken; later ones get it decayed.
    pub fn decide(&self, decay: &Decay) -> f64 {
        let decayed = |bits| {
            let epsilon = f64::from_bits(bits);
            let falls = decay.enabled && epsilon > decay.min;
            falls.then(|| (epsilon * decay.factor).to_bits())
        };
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, decayed);
        let (Ok(bits) | Err(bits)) = before;
        f64::from_bits(bits)
    }
}

/// Chooses among the actions whose values are given, ε-greedily; 0 when there are none.
pub fn choose(values: &[f64], epsilon: f64, rng: &mut dyn Rng) -> usize {
    if values.is_empty() {
        return 0;
    }
    if epsilon > 0.0 && rng.random::<f64>() < epsilon {
        return rng.random_range(0..values.len());
    }
    let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ties = values.iter().filter(|value| **value == best).count();
    if ties == 0 {
        // No value is a number: none is better than the others.
        return rng.random_range(0..values.len());
    }
    let nth = if ties > 1 { rng.random_range(0..ties) } else { 0 };
    let mut best_ones = values.iter().enumerate().filter(|(_, value)| **value == best);
    best_ones.nth(nth).map_or(0, |(action, _)| action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn counts(values: &[f64], epsilon: f64, n: usize) -> Vec<usize> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut counts = vec![0; values.len()];
        (0..n).for_each(|_| counts[choose(values, epsilon, &mut rng)] += 1);
        counts
    }

    #[test]
    fn without_epsilon_the_best_action_is_taken_and_ties_are_broken_at_random() {
        assert_eq!(counts(&[0.0, 2.0, 1.0], 0.0, 1000), [0, 1000, 0]);
        let tied = counts(&[1.0, 0.0, 1.0], 0.0, 10_000);
        assert_eq!(tied[1], 0);
        assert!((4_700..5_300).contains(&tied[0]), "{tied:?}");
        assert_eq!(counts(&[-1.0, -2.0], 0.0, 10), [10, 0], "zero is not assumed");
        assert_eq!(counts(&[f64::NAN, -2.0], 0.0, 10), [0, 10], "what is no number is not best");
        assert!(counts(&[f64::NAN; 2], 0.0, 100)[1] > 20, "nor is it better than its like");
    }

    #[test]
    fn with_probability_epsilon_any_action_is_taken() {
        let taken = counts(&[0.0, 1.0], 0.4, 10_000);
        assert!((1_800..2_200).contains(&taken[0]), "{taken:?}");
        let all = counts(&[0.0, 1.0, 2.0, 3.0], 1.0, 10_000);
        assert!(all.iter().all(|n| (2_300..2_700).contains(n)), "{all:?}");
    }

    #[test]
    fn epsilon_falls_at_every_decision_until_it_is_not_above_its_minimum() {
        let epsilon = Epsilon::new(0.9);
        let decay = Decay { min: 0.88, factor: 0.99, enabled: true };
        let told: Vec<f64> = (0..5).map(|_| epsilon.decide(&decay)).collect();
        let (once, twice) = (0.9 * 0.99, 0.9 * 0.99 * 0.99);
        // The one that first lies below is told from then on.
        assert_eq!(told, [0.9, once, twice, twice * 0.99, twice * 0.99]);
        let off = Decay { enabled: false, ..decay };
        epsilon.set(0.9);
        assert_eq!([epsilon.decide(&off), epsilon.decide(&off)], [0.9, 0.9]);
    }
}
