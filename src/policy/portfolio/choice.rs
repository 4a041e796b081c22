//! Which arm comes next, by what all of them have come to.

/// How much an arm's share may be off after one epoch: the scale of the bounds.
const CONFIDENCE: f64 = 0.03;

/// No arm is tried for less than this: what it may be better by does not pay for the trial.
const WORTH_TRYING: f64 = 0.005;

/// Calls that were counted, discounted by their age.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counted {
    pub(super) calls: f64,
    /// Of those, served, and in time.
    pub(super) in_time: f64,
}

impl Counted {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, in_time: self.in_time + other.in_time }
    }

    pub(super) fn times(self, factor: f64) -> Self {
        Self { calls: self.calls * factor, in_time: self.in_time * factor }
    }

    /// The share in time; 0 where nothing was counted.
    pub(super) fn share(self) -> f64 {
        if self.calls > 0.0 { self.in_time / self.calls } else { 0.0 }
    }
}

/// The upper bound of an arm's share: `S / N + c · √(ln Σ N / N)`, N in epochs of so many calls. `None`: it was never
/// tried.
pub(super) fn bound(arm: Counted, all: &[Counted], calls_an_epoch: f64) -> Option<f64> {
    let epochs = arm.calls / calls_an_epoch.max(1.0);
    if epochs < 0.01 {
        return None;
    }
    let of_all: f64 = all.iter().map(|arm| arm.calls).sum::<f64>() / calls_an_epoch.max(1.0);
    Some(arm.share() + CONFIDENCE * (of_all.max(1.0).ln() / epochs).sqrt())
}

/// The arm with the largest bound, which is 1 for those that were never tried: no share is larger. The one that
/// is best as far as is known stays where no other one can be better by [`WORTH_TRYING`]. Where nobody has called,
/// `in_force` stays.
pub(super) fn choose(all: &[Counted], calls_an_epoch: f64, in_force: usize) -> usize {
    if calls_an_epoch < 1.0 {
        return in_force;
    }
    let first =
        |best: (usize, f64), other: (usize, f64)| if other.1 > best.1 { other } else { best };
    let bounds = all.iter().map(|arm| bound(*arm, all, calls_an_epoch));
    let known = bounds.clone().zip(all).map(|(bound, arm)| bound.map_or(-1.0, |_| arm.share()));
    let Some((best, share)) = known.enumerate().reduce(first) else { return in_force };
    let bounds = bounds.map(|bound| bound.unwrap_or(1.0).min(1.0)).enumerate();
    match bounds.reduce(first) {
        Some((other, bound)) if bound > share + WORTH_TRYING => other,
        _ => best,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(calls: f64, share: f64) -> Counted {
        Counted { calls, in_time: calls * share }
    }

    #[test]
    fn arms_that_were_never_tried_come_first_in_their_order() {
        let all = [counted(100.0, 0.9), Counted::default(), Counted::default()];
        assert_eq!(choose(&all, 100.0, 0), 1);
        assert_eq!(choose(&all, 0.0, 2), 2, "nobody calls");
    }

    #[test]
    fn the_best_is_in_force_and_others_are_tried_again_when_little_is_known_of_them() {
        let all = [counted(5000.0, 0.9), counted(100.0, 0.7)];
        assert_eq!(choose(&all, 100.0, 0), 0);
        let all = [counted(5000.0, 0.9), counted(2.0, 0.7)];
        assert_eq!(choose(&all, 100.0, 0), 1);
        let all = [counted(5000.0, 0.9), counted(100.0, 0.88)];
        assert_eq!(choose(&all, 100.0, 0), 1, "one that is nearly as good is tried more often");
    }
}
