//! Which arm comes next, by what all of them have come to, and whether that still holds.

/// How much an arm's share may be off after one epoch: the scale of the bounds.
const CONFIDENCE: f64 = 0.03;
/// A share in time that is by so much off what the arm in force used to reach says that something has changed; so
/// does a number of calls that is off by this factor.
const WORTH_STEP: f64 = 0.08;
const LOAD_STEP: f64 = 1.25;
/// Fewer calls in an epoch than this say nothing about a change.
const CALLS_MIN: f64 = 50.0;

/// Calls that were counted, discounted by their age.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CountedCalls {
    pub(super) calls: f64,
    /// Of those, served, and in time.
    pub(super) in_time: f64,
}

impl CountedCalls {
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
pub(super) fn bound(arm: CountedCalls, all: &[CountedCalls], calls_an_epoch: f64) -> Option<f64> {
    let epochs = arm.calls / calls_an_epoch.max(1.0);
    if epochs < 0.01 {
        return None;
    }
    let of_all: f64 = all.iter().map(|arm| arm.calls).sum::<f64>() / calls_an_epoch.max(1.0);
    Some(arm.share() + CONFIDENCE * (of_all.max(1.0).ln() / epochs).sqrt())
}

/// The arm with the largest bound; those that were never tried come first. Where nobody has called, `in_force`
/// stays.
pub(super) fn choose(all: &[CountedCalls], calls_an_epoch: f64, in_force: usize) -> usize {
    if calls_an_epoch < 1.0 {
        return in_force;
    }
    let bound = |arm: CountedCalls| bound(arm, all, calls_an_epoch).unwrap_or(f64::INFINITY);
    let bounds = all.iter().map(|arm| bound(*arm)).enumerate();
    let best = bounds.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.map_or(in_force, |(index, _)| index)
}

/// Whether the last epoch says that the load is another one than before: by its calls, if it is known how many there
/// usually are, and by their share in time, if the arm that was in force is known well enough.
pub(super) fn has_changed(last: CountedCalls, usual_calls: Option<f64>, arm: CountedCalls) -> bool {
    if last.calls < CALLS_MIN {
        return false;
    }
    let noise = 5.0 / last.calls.sqrt();
    let factor = usual_calls.filter(|usual| *usual > 0.0).map(|usual| last.calls / usual);
    let most = LOAD_STEP.max(1.0 + noise);
    let of_load = factor.is_some_and(|factor| factor.max(1.0 / factor) > most);
    let (now, usual) = (last.share(), arm.share());
    let noise = 5.0 * (usual * (1.0 - usual) / last.calls).sqrt();
    // What was in force once only has nothing to be compared with.
    let is_known = arm.calls > 3.0 * last.calls;
    of_load || is_known && (now - usual).abs() > WORTH_STEP.max(noise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(calls: f64, share: f64) -> CountedCalls {
        CountedCalls { calls, in_time: calls * share }
    }

    #[test]
    fn arms_that_were_never_tried_come_first_in_their_order() {
        let all = [counted(100.0, 0.9), CountedCalls::default(), CountedCalls::default()];
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
    #[test]
    fn more_or_fewer_calls_or_another_share_in_time_say_that_the_load_has_changed() {
        let arm = counted(5000.0, 0.9);
        for (calls, share, usual, known) in [
            (500.0, 0.9, Some(500.0), false),
            (500.0, 0.9, Some(390.0), true),
            (500.0, 0.9, Some(640.0), true),
            (500.0, 0.9, None, false),
            (500.0, 0.8, None, true),
            (500.0, 0.99, None, true),
            (100.0, 0.78, None, false),
            (49.0, 0.0, Some(500.0), false),
            (60.0, 0.9, Some(100.0), true),
            (60.0, 0.9, Some(80.0), false),
        ] {
            let changed = has_changed(counted(calls, share), usual, arm);
            assert_eq!(changed, known, "{calls} calls, {share} in time, usually {usual:?}");
        }
        assert!(!has_changed(counted(500.0, 0.1), None, counted(900.0, 0.9)), "little is known");
    }
}
