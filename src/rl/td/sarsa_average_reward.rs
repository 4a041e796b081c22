//! `sarsa_average_reward`: differential semi-gradient Sarsa.
//!
//! ```text
//! δ ← R − R̄ + Q(S′, A′) − Q(S, A)
//! R̄ ← R̄ + β δ
//! Q(S, A) ← Q(S, A) + α δ
//! ```
//!
//! Source: Sutton & Barto, section 10.3, the box "Differential semi-gradient Sarsa for estimating
//! q̂ ≈ q*"; P2PFaaS, section 2.1.2, equations 1–3. On-policy: A′ is what was chosen next.
//!
//! v1 sets R̄ ← R + β δ, which forgets the average at every step; that form is kept for comparing
//! results. The order of its floating-point operations is the wire contract's.

use super::{Estimates, ListedTdForm, StepSizes, Transition};

/// As it is listed.
pub const LISTED: ListedTdForm = ListedTdForm {
    name: "sarsa_average_reward",
    title: "Sarsa",
    as_v1: Some(update_as_v1),
    update,
};

/// One update as in the book.
pub fn update(on: &mut Estimates, t: &Transition<'_>, rates: &StepSizes, _actions_n: usize) -> f64 {
    let delta = delta(on, t);
    on.average_reward += rates.beta * delta;
    on.learn(t, rates.alpha * delta);
    delta
}

/// One update as v1 does it.
pub fn update_as_v1(
    on: &mut Estimates,
    t: &Transition<'_>,
    rates: &StepSizes,
    _actions_n: usize,
) -> f64 {
    let delta = delta(on, t);
    on.average_reward = t.reward + rates.beta * delta;
    on.learn(t, rates.alpha * delta);
    delta
}

fn delta(on: &mut Estimates, t: &Transition<'_>) -> f64 {
    let next = on.values.visit(t.next_state, t.next_action);
    let now = on.values.visit(t.state, t.action);
    ((t.reward - on.average_reward) + next) - now
}

#[cfg(test)]
mod tests {
    use super::super::testing::{RATES, TRANSITION, estimates};
    use super::*;

    #[test]
    fn q_and_the_average_reward_move_by_the_td_error() {
        let mut on = estimates();
        let delta = update(&mut on, &TRANSITION, &RATES, 2);
        assert_eq!(delta, 3.0 - 0.5 + 2.0 - 1.0);
        assert_eq!(on.average_reward, 0.5 + 0.01 * 3.5);
        assert_eq!(on.values.value(&[0.0], 0), 1.0 + 0.1 * 3.5);
    }

    #[test]
    fn v1_forgets_the_average_reward_at_every_step() {
        let mut on = estimates();
        update_as_v1(&mut on, &TRANSITION, &RATES, 2);
        assert_eq!(on.average_reward, 3.0 + 0.01 * 3.5);
        assert_eq!(on.values.value(&[0.0], 0), 1.0 + 0.1 * 3.5);
    }
}
