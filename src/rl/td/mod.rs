//! TD forms: what one consecutive pair of decisions teaches. One file each, and each says at its
//! beginning what the [registry](super::registry) lists of it.

pub mod q_average_reward;
pub mod q_learning;
pub mod sarsa_average_reward;

use super::Transition;
use super::value::ValueFunction;

/// The step sizes and the discount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSizes {
    /// α, of the value function.
    pub alpha: f64,
    /// β, of the average reward.
    pub beta: f64,
    /// γ, the discount, where the form has one.
    pub gamma: f64,
}

/// What is estimated.
pub struct Estimates {
    /// Q(s, a).
    pub values: Box<dyn ValueFunction>,
    /// R̄, the average reward; stays 0 where the form has none.
    pub average_reward: f64,
}

/// The largest step of a value. Steps up to it never add up to more than
/// [`LEARNT_MAX`](super::LEARNT_MAX).
const STEP_MAX: f64 = 1e80;

impl Estimates {
    /// Q(S, A) ← Q(S, A) + `step`. One beyond all measure is left out: a value that is lost would
    /// spread to all others.
    pub fn learn(&mut self, t: &Transition<'_>, step: f64) {
        if step.abs() <= STEP_MAX {
            self.values.add(t.state, t.action, step);
        }
    }

    /// max over a of Q(s, a).
    pub fn max(&self, state: &[f64], actions_n: usize) -> f64 {
        (0..actions_n)
            .map(|action| self.values.value(state, action))
            .fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Learns from one transition; `actions_n` is how many actions there are. Answers the TD error δ.
pub type TdForm = fn(&mut Estimates, &Transition<'_>, &StepSizes, actions_n: usize) -> f64;

/// A TD form that can be configured: what its file says of it, for the registry's list.
pub struct ListedTdForm {
    /// Its name in parameters.
    pub name: &'static str,
    /// Its part of the learner's name, before that of the value function.
    pub title: &'static str,
    /// The form as P2PFaaS v1 computes it, if v1 has it.
    pub as_v1: Option<TdForm>,
    /// The form.
    pub update: TdForm,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::rl::parameters::Parameters;
    use crate::rl::value::qtable::QTable;

    /// Q(0, 0) = 1, Q(1, 0) = 2, Q(1, 1) = 5, R̄ = 0.5.
    pub(crate) fn estimates() -> Estimates {
        let mut values = QTable::new(&Parameters::default());
        for (state, action, value) in [(0.0, 0, 1.0), (1.0, 0, 2.0), (1.0, 1, 5.0)] {
            values.visit(&[state], action);
            values.add(&[state], action, value);
        }
        Estimates { values: Box::new(values), average_reward: 0.5 }
    }

    pub(crate) const TRANSITION: Transition<'static> =
        Transition { state: &[0.0], action: 0, reward: 3.0, next_state: &[1.0], next_action: 0 };

    pub(crate) const RATES: StepSizes = StepSizes { alpha: 0.1, beta: 0.01, gamma: 0.9 };
}
