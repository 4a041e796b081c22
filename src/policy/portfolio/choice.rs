//! Which arm comes next, by what all of them have come to, and whether that still holds.

/// How much an arm's share may be off after one epoch: the scale of the bounds.
const CONFIDENCE: f64 = 0.03;
/// A share in time that is by so much off what the arm in force used to reach says that something has changed; so
/// does a number of calls that is off by this factor.
const WORTH_STEP: f64 = 0.08;
const LOAD_STEP: f64 = 1.25;
/// Fewer calls in an epoch than this say nothing about a change.
const CALLS_MIN: f64 = 50.0;

/// No arm is tried for less than this: what it may be better by does not pay for the trial.
const WORTH_TRYING: f64 = 0.005;

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

/// The arm with the largest share of those that were tried, and its share; `None`: none was.
pub(super) fn best(all: &[CountedCalls], calls_an_epoch: f64) -> Option<(usize, f64)> {
    let known =
        all.iter().enumerate().filter(|(_, arm)| bound(**arm, all, calls_an_epoch).is_some());
    known.map(|(index, arm)| (index, arm.share())).reduce(first)
}

/// The larger one, the first of equals.
fn first(one: (usize, f64), other: (usize, f64)) -> (usize, f64) {
    if other.1 > one.1 { other } else { one }
}

/// What a trial of that arm would lose against one of that `share`, as far as is known: half of all where nothing
/// is.
fn cost(arm: CountedCalls, bound: Option<f64>, share: f64) -> f64 {
    let expected = bound.map_or(share / 2.0, |_| arm.share());
    (share - expected).max(0.0)
}

/// The arm that comes next: the best one, or the one with the largest bound, which is 1 for those that were never
/// tried, if it can be better by [`WORTH_TRYING`] and `budget` pays for a trial. Where nobody has called, `in_force`
/// stays.
pub(super) fn choose(
    all: &[CountedCalls],
    calls_an_epoch: f64,
    budget: f64,
    in_force: usize,
) -> usize {
    if calls_an_epoch < 1.0 {
        return in_force;
    }
    let Some((best, share)) = best(all, calls_an_epoch) else { return in_force };
    let others = all.iter().enumerate().filter(|(index, _)| *index != best);
    let bounds = others.filter_map(|(index, arm)| {
        let bound = bound(*arm, all, calls_an_epoch);
        let is_paid_for = cost(*arm, bound, share) <= budget;
        is_paid_for.then(|| (index, bound.unwrap_or(1.0).min(1.0)))
    });
    let own = bound(all.get(best).copied().unwrap_or_default(), all, calls_an_epoch).unwrap_or(1.0);
    match bounds.reduce(first) {
        Some((other, bound)) if bound > own.min(1.0) && bound > share + WORTH_TRYING => other,
        _ => best,
    }
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
    fn an_arm_that_was_never_tried_is_tried_when_that_can_be_paid_for_and_can_be_worth_it() {
        let all = [counted(5000.0, 0.9), CountedCalls::default(), CountedCalls::default()];
        assert_eq!(choose(&all, 100.0, 0.5, 0), 1, "in their order");
        assert_eq!(choose(&all, 100.0, 0.4, 0), 0, "too dear");
        assert_eq!(choose(&all, 0.0, 0.5, 2), 2, "nobody calls");
        let all = [counted(5000.0, 0.998), CountedCalls::default()];
        assert_eq!(choose(&all, 100.0, 2.0, 0), 0, "nothing can be better by much");
        assert_eq!(choose(&[CountedCalls::default(); 3], 100.0, 2.0, 1), 1, "nothing is known");
    }

    #[test]
    fn the_best_is_in_force_and_others_are_tried_again_when_little_is_known_of_them() {
        let all = [counted(5000.0, 0.9), counted(100.0, 0.7)];
        assert_eq!(choose(&all, 100.0, 1.0, 1), 0);
        let all = [counted(5000.0, 0.9), counted(2.0, 0.7)];
        assert_eq!(choose(&all, 100.0, 1.0, 0), 1);
        assert_eq!(choose(&all, 100.0, 0.1, 0), 0, "it is known to lose a fifth");
        let all = [counted(5000.0, 0.9), counted(100.0, 0.88)];
        assert_eq!(
            choose(&all, 100.0, 0.1, 0),
            1,
            "one that is nearly as good is tried more often"
        );
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
