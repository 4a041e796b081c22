//! A value function of one's own, trained by differential Sarsa without a node.
//!
//! The learner of a node keeps Q(s, a), the value of action a in state s, in a value function. Anything
//! that implements [`ValueFunction`] can be one. This one gives every action a straight line over the
//! load: two weights per action instead of a row per state, so that it also has values for loads that
//! it never saw.
//!
//! The task: a node with a load from 0 to 9 gets a call. Action 0 runs it here, which ends in time with
//! a probability that falls by 0.1 with each call that is there already. Action 1 forwards it, which
//! ends in time with a probability of 0.55. The best a node can do is to run calls up to a load of 4 and
//! to forward the others.
//!
//! ```console
//! $ cargo run --example value_function
//! ```
//!
//! It prints what was learnt for each load, and the average reward R̄, which is the estimated share of
//! calls in time.
//!
//! To have it in a node, put the implementation into a file below `src/rl/value/` and a line into the
//! list of value functions in `src/rl/registry.rs`; CONTRIBUTING.md says how.

use std::error::Error;

use p2pfaas::rl::Transition;
use p2pfaas::rl::behaviour::choose;
use p2pfaas::rl::registry::TD_FORMS;
use p2pfaas::rl::td::{Estimates, StepSizes};
use p2pfaas::rl::value::ValueFunction;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::value::RawValue;

/// Loads that are told apart: 0 to 9.
const LOADS: u32 = 10;
const ACTIONS: [&str; 2] = ["run here", "forward"];
const STEPS: usize = 200_000;

/// Q(s, a) = w₀(a) + w₁(a) · x(s), where x is the load, scaled to −1 … 1.
#[derive(Clone)]
struct Lines(Vec<[f64; 2]>);

/// 1 and x: what the two weights are multiplied by.
fn features(state: &[f64]) -> [f64; 2] {
    let load = state.first().copied().unwrap_or(0.0);
    [1.0, 2.0 * load / f64::from(LOADS - 1) - 1.0]
}

impl ValueFunction for Lines {
    fn value(&self, state: &[f64], action: usize) -> f64 {
        let weights = self.0.get(action).copied().unwrap_or_default();
        weights.iter().zip(features(state)).map(|(weight, feature)| weight * feature).sum()
    }

    fn add(&mut self, state: &[f64], action: usize, amount: f64) {
        // The gradient of a linear function is its features.
        let Some(weights) = self.0.get_mut(action) else { return };
        for (weight, feature) in weights.iter_mut().zip(features(state)) {
            *weight += amount * feature;
        }
    }

    fn states_seen(&self) -> usize {
        // It remembers no states, only a line per action.
        self.0.len()
    }

    fn save(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(&self.0)
    }
}

/// 1 if a call that found `load` ends in time after `action`, else 0.
fn reward(load: u32, action: usize, rng: &mut SmallRng) -> f64 {
    let in_time = if action == 0 { 1.0 - 0.1 * f64::from(load) } else { 0.55 };
    f64::from(rng.random::<f64>() < in_time)
}

fn main() -> Result<(), Box<dyn Error>> {
    let sarsa = TD_FORMS.iter().find(|form| form.name == "sarsa_average_reward");
    let sarsa = sarsa.ok_or("there is no such TD form")?;
    let sizes = StepSizes { alpha: 0.01, beta: 0.001, gamma: 0.0 };
    let values = Box::new(Lines(vec![[0.0; 2]; ACTIONS.len()]));
    let mut learnt = Estimates { values, average_reward: 0.0 };

    let mut rng = SmallRng::seed_from_u64(1);
    let decide = |learnt: &Estimates, load: u32, epsilon: f64, rng: &mut SmallRng| {
        let mut values = [0.0; ACTIONS.len()];
        learnt.values.values(&[load.into()], &mut values);
        choose(&values, epsilon, rng)
    };
    let mut load = 0;
    let mut action = 0;
    for _ in 0..STEPS {
        let reward = reward(load, action, &mut rng);
        // The load that the next call finds does not depend on what was decided.
        let next_load = rng.random_range(0..LOADS);
        let next_action = decide(&learnt, next_load, 0.1, &mut rng);
        let transition = Transition {
            state: &[load.into()],
            action,
            reward,
            next_state: &[next_load.into()],
            next_action,
        };
        (sarsa.update)(&mut learnt, &transition, &sizes, ACTIONS.len());
        (load, action) = (next_load, next_action);
    }

    println!("load  Q(run here)  Q(forward)  learnt");
    for load in 0..LOADS {
        let [here, forward] = [0, 1].map(|action| learnt.values.value(&[load.into()], action));
        let best = ACTIONS[decide(&learnt, load, 0.0, &mut rng)];
        println!("{load:>4}  {here:>11.3}  {forward:>10.3}  {best}");
    }
    println!("average reward {:.3}", learnt.average_reward);
    Ok(())
}
