//! `q_average_reward`: differential Q-learning.
//!
//! ```text
//! δ ← R − R̄ + max_a Q(S′, a) − Q(S, A)
//! R̄ ← R̄ + β δ
//! Q(S, A) ← Q(S, A) + α δ
//! ```
//!
//! Source: Y. Wan, A. Naik, R. S. Sutton, *Learning and planning in average-reward Markov decision
//! processes*, ICML 2021, Differential Q-learning; β is their η α. Off-policy: it estimates the
//! values of the greedy policy whatever was chosen, over all actions.

use super::{Estimates, ListedTdForm, StepSizes, Transition};

/// As it is listed.
pub const LISTED: ListedTdForm =
    ListedTdForm { name: "q_average_reward", title: "QAverageReward", as_v1: None, update };

/// One update.
pub fn update(on: &mut Estimates, t: &Transition<'_>, rates: &StepSizes, actions_n: usize) -> f64 {
    on.values.visit(t.next_state, t.next_action);
    let next = on.max(t.next_state, actions_n);
    let now = on.values.visit(t.state, t.action);
    let delta = t.reward - on.average_reward + next - now;
    on.average_reward += rates.beta * delta;
    on.learn(t, rates.alpha * delta);
    delta
}

#[cfg(test)]
mod tests {
    use super::super::testing::{RATES, TRANSITION, estimates};
    use super::*;

    #[test]
    fn the_target_is_the_best_next_action_not_the_one_chosen() {
        let mut on = estimates();
        let delta = update(&mut on, &TRANSITION, &RATES, 2);
        assert_eq!(delta, 3.0 - 0.5 + 5.0 - 1.0);
        assert_eq!(on.average_reward, 0.5 + 0.01 * 6.5);
        assert_eq!(on.values.value(&[0.0], 0), 1.0 + 0.1 * 6.5);
    }
}
