//! `q_learning`: discounted Q-learning.
//!
//! ```text
//! δ ← R + γ max_a Q(S′, a) − Q(S, A)
//! Q(S, A) ← Q(S, A) + α δ
//! ```
//!
//! Source: Sutton & Barto, section 6.5, equation 6.8. It has no average reward; β does nothing.

use super::{Estimates, ListedTdForm, StepSizes, Transition};

/// As it is listed.
pub const LISTED: ListedTdForm =
    ListedTdForm { name: "q_learning", title: "QLearning", as_v1: None, update };

/// One update.
pub fn update(on: &mut Estimates, t: &Transition<'_>, rates: &StepSizes, actions_n: usize) -> f64 {
    on.values.visit(t.next_state, t.next_action);
    let next = on.max(t.next_state, actions_n);
    let now = on.values.visit(t.state, t.action);
    let delta = t.reward + rates.gamma * next - now;
    on.learn(t, rates.alpha * delta);
    delta
}

#[cfg(test)]
mod tests {
    use super::super::testing::{RATES, TRANSITION, estimates};
    use super::*;

    #[test]
    fn the_best_next_value_is_discounted_and_there_is_no_average_reward() {
        let mut on = estimates();
        let delta = update(&mut on, &TRANSITION, &RATES, 2);
        assert_eq!(delta, 3.0 + 0.9 * 5.0 - 1.0);
        assert_eq!(on.average_reward, 0.5);
        assert_eq!(on.values.value(&[0.0], 0), 1.0 + 0.1 * delta);
    }
}
