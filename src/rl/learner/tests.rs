use super::*;
use crate::rl::registry::{TD_FORMS, VALUE_FUNCTIONS};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

fn parameters(patch: Value) -> Parameters {
    let Value::Object(patch) = patch else { panic!("an object") };
    Parameters::default().merged(&patch).expect("good parameters")
}

fn entry(eid: Eid, state: &[f64], action: usize, reward: f64) -> Entry {
    Entry { eid, state: state.into(), action, reward }
}

/// What is saved of `snapshot`, read again.
fn model(snapshot: &Snapshot) -> Model {
    let text = serde_json::to_string(&snapshot.model().expect("JSON")).expect("JSON");
    serde_json::from_str(&text).expect("all numbers are finite")
}

/// Replays a recording of v1's learner.
fn replay(recording: &str) {
    let recording: Value = serde_json::from_str(recording).expect("JSON");
    let mut patch = recording["parameters"].clone();
    patch["compatibility"] = json!("v1");
    let mut learner = Learner::new(parameters(patch));
    for e in recording["entries"].as_array().expect("entries") {
        let state: Vec<f64> = serde_json::from_value(e["state"].clone()).expect("a state");
        let number = |key: &str| e[key].as_f64().expect("a number");
        let eid = e["eid"].as_u64().expect("an EID");
        let checked = learner.check(eid, state.into(), number("action"), number("reward"));
        learner.take(checked.expect("a good entry"));
    }
    let weights = serde_json::to_value(learner.values().weights()).expect("JSON");
    // `==` on floats: equal, not close.
    assert_eq!(weights, recording["weights"]);
    let (snapshot, stats) = (learner.snapshot(), &recording["stats"]);
    let counters = snapshot.counters;
    for (key, value) in [
        ("trained_items", counters.trained_items),
        ("episodes", counters.windows_trained),
        ("pending_entries", snapshot.held as u64),
        ("eid_max_seen", counters.eid_max_seen),
        ("eid_last_trained", counters.eid_last_trained),
    ] {
        assert_eq!(stats[key], json!(value), "{key}");
    }
    assert_eq!(stats["epsilon"], json!(snapshot.live.epsilon.get()));
}

#[test]
fn entries_in_order_give_the_weights_of_v1_to_the_last_bit() {
    replay(include_str!("../../../tests/golden/sarsa-v1-in-order.json"));
}

#[test]
fn entries_out_of_order_give_the_weights_of_v1_to_the_last_bit() {
    replay(include_str!("../../../tests/golden/sarsa-v1-reordered.json"));
}

/// The access-control queuing task: Sutton & Barto, example 10.2.
mod access_control {
    use super::*;

    const SERVERS: usize = 10;
    const PRIORITIES: [f64; 4] = [1.0, 2.0, 4.0, 8.0];
    const FREED: f64 = 0.06;

    /// Binomial(n, p) probabilities of 0 to n.
    fn binomial(n: usize, p: f64) -> Vec<f64> {
        let mut probabilities = vec![1.0];
        for _ in 0..n {
            let mut next = vec![0.0; probabilities.len() + 1];
            for (k, q) in probabilities.iter().enumerate() {
                next[k] += q * (1.0 - p);
                next[k + 1] += q * p;
            }
            probabilities = next;
        }
        probabilities
    }

    /// The mean reward of the best ε-greedy policy, by relative value iteration: each decision takes
    /// the better action with probability 1 − ε/2. With no server free, accepting is rejecting.
    pub fn best_epsilon_greedy(epsilon: f64) -> f64 {
        let mut h = [[0.0; PRIORITIES.len()]; SERVERS + 1];
        let mut gain = 0.0;
        for _ in 0..20_000 {
            // Of the state with `free` servers after the decision: the mean over who comes next.
            let after: Vec<f64> = (0..=SERVERS)
                .map(|free| {
                    let freed = binomial(SERVERS - free, FREED);
                    let of = |row: &[f64; 4]| row.iter().sum::<f64>() / PRIORITIES.len() as f64;
                    freed.iter().enumerate().map(|(k, p)| p * of(&h[free + k])).sum()
                })
                .collect();
            let mut next = h;
            for (free, row) in next.iter_mut().enumerate() {
                for (priority, value) in row.iter_mut().enumerate() {
                    let reject = after[free];
                    let accept = match free {
                        0 => reject,
                        free => PRIORITIES[priority] + after[free - 1],
                    };
                    let (best, worst) = (accept.max(reject), accept.min(reject));
                    *value = (1.0 - epsilon / 2.0) * best + epsilon / 2.0 * worst;
                }
            }
            let step = next[0][0] - h[0][0];
            let reference = next[0][0];
            next.iter_mut().flatten().for_each(|value| *value -= reference);
            let moved = next.iter().flatten().zip(h.iter().flatten());
            let largest = moved.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            (h, gain) = (next, step);
            if largest < 1e-12 {
                break;
            }
        }
        gain
    }

    #[test]
    fn the_book_s_task_is_learnt_as_well_as_an_epsilon_greedy_policy_can() {
        let mut learner = Learner::new(parameters(json!({
            "actions_n": 2, "alpha": 0.01, "beta": 0.01, "window_size": 2,
            "epsilon_start": 0.1, "epsilon_min": 0.1,
        })));
        let mut rng = SmallRng::seed_from_u64(1);
        let (mut free, mut late_rewards) = (SERVERS, 0.0);
        const STEPS: u64 = 2_000_000;
        for step in 0..STEPS {
            let priority = rng.random_range(0..PRIORITIES.len());
            let state = [free as f64, priority as f64];
            let mut values = [0.0; 2];
            learner.values().values(&state, &mut values);
            let action = choose(&values, 0.1, &mut rng);
            let accepted = action == 1 && free > 0;
            let reward = if accepted { PRIORITIES[priority] } else { 0.0 };
            free -= usize::from(accepted);
            let busy = SERVERS - free;
            free += (0..busy).filter(|_| rng.random::<f64>() < FREED).count();
            learner.take(entry(step + 1, &state, action, reward));
            if step >= STEPS / 2 {
                late_rewards += reward;
            }
        }
        let best = best_epsilon_greedy(0.1);
        assert!((best - 2.647).abs() < 0.001, "relative value iteration says {best}");
        let mean = late_rewards / (STEPS / 2) as f64;
        assert!((mean / best - 1.0).abs() <= 0.01, "{mean} against {best}");
        let mut values = [0.0; 2];
        learner.values().values(&[1.0, 3.0], &mut values);
        assert!(values[1] > values[0], "priority 8 is accepted with one server free: {values:?}");
    }
}

/// A learner's fill of random decisions, in an order of one's own.
fn run(patch: Value, seed: u64, order: impl Fn(&mut Vec<Entry>)) -> (String, f64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut learner = Learner::new(parameters(patch));
    let mut entries: Vec<Entry> = (1..=500)
        .map(|eid| {
            let state: Vec<f64> = (0..3).map(|_| f64::from(rng.random_range(0..4u8))).collect();
            let action = learner.snapshot().decide(&state, 9, &mut rng).action;
            entry(eid, &state, action, rng.random_range(-1.0..1.0))
        })
        .collect();
    order(&mut entries);
    for entry in entries {
        learner.take(entry);
        if let Some((number, job)) = learner.job() {
            learner.job_done(number, job());
        }
    }
    let learnt = learner.values().save().expect("JSON").get().to_owned();
    (learnt, learner.snapshot().average_reward)
}

#[test]
fn with_a_fixed_seed_two_runs_are_equal_whatever_learns() {
    for value_function in VALUE_FUNCTIONS {
        for td_form in TD_FORMS {
            let patch = json!({
                "actions_n": 3, "value_function": value_function.name, "td_form": td_form.name,
                "refit_states": 50, "clusters": 7, "alpha": 0.1, "beta": 0.1,
            });
            let run = |seed| run(patch.clone(), seed, |_| ());
            assert_eq!(run(7), run(7), "{} {}", value_function.name, td_form.name);
            assert_ne!(run(7), run(8), "{} {}", value_function.name, td_form.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whoever_is_overtaken_by_fewer_than_w_teaches_as_in_order(
        seed: u64, window in 2u64..12, draws in prop::collection::vec(any::<u32>(), 500)
    ) {
        let patch = json!({"actions_n": 3, "window_size": window, "alpha": 0.1, "beta": 0.1});
        let in_order = run(patch.clone(), seed, |_| ());
        // Shuffled within blocks of W, nobody is overtaken by W.
        let shuffled = run(patch, seed, |entries| {
            for (block, draws) in entries
                .chunks_mut(window as usize)
                .zip(draws.chunks(window as usize))
            {
                for (at, draw) in draws.iter().enumerate().take(block.len()) {
                    block.swap(at, *draw as usize % block.len());
                }
            }
        });
        prop_assert_eq!(in_order, shuffled);
    }
}

/// Ten entries from EID 1 on, all in one state.
fn fed(patch: Value) -> Learner {
    let mut learner = Learner::new(parameters(patch));
    (1..=10).for_each(|eid| learner.take(entry(eid, &[1.0], 0, 1.0)));
    learner
}

#[test]
fn every_entry_is_counted_once_and_every_pair_trained() {
    let learner = fed(json!({"window_size": 4}));
    let snapshot = learner.snapshot();
    assert_eq!(snapshot.counters.trained_items, 10);
    assert_eq!((snapshot.counters.windows_trained, snapshot.held), (3, 0));
    assert_eq!((snapshot.counters.eid_last_trained, snapshot.expected_eid), (10, 11));
}

#[test]
fn a_learner_without_memory_of_its_own_is_made_again_from_its_snapshot() {
    let learner = fed(json!({"window_size": 2}));
    let mut again = Learner::resume(&learner.snapshot());
    assert_eq!(again.values().weights(), learner.values().weights());
    again.take(entry(10, &[1.0], 0, 1.0));
    assert_eq!(again.snapshot().counters.late, 1, "learnt from before");
    (11..=12).for_each(|eid| again.take(entry(eid, &[1.0], 0, 1.0)));
    assert_eq!(again.snapshot().counters.trained_items, 12);
}

#[test]
fn a_model_restores_all_that_was_learnt() {
    for value_function in VALUE_FUNCTIONS {
        let patch = json!({"window_size": 2, "value_function": value_function.name});
        let learner = fed(patch.clone());
        let before = learner.snapshot();
        before.decide(&[1.0], 2, &mut SmallRng::seed_from_u64(1));
        let model = model(&before);
        let mut restored = Learner::new(parameters(patch));
        restored.restore(&model).expect("it fits");
        let after = restored.snapshot();
        let saved = |of: &Snapshot| of.values.save().expect("JSON").get().to_owned();
        assert_eq!(saved(&after), saved(&before));
        assert_eq!(after.average_reward.to_bits(), before.average_reward.to_bits());
        assert_eq!(after.live.epsilon.get(), 0.9 * 0.99);
        assert_eq!((after.counters, after.live.inferences()), (before.counters, 1));
        assert_eq!(after.live.by_action().iter().sum::<u64>(), 1);
        restored.take(entry(3, &[1.0], 0, 1.0));
        assert_eq!(restored.snapshot().counters.late, 1, "learnt from before the restart");
    }
}

#[test]
fn a_model_that_does_not_fit_changes_nothing() {
    let model = model(&fed(json!({"window_size": 2})).snapshot());
    for patch in [
        json!({"actions_n": 3}),
        json!({"value_function": "tiles"}),
        json!({"td_form": "q_learning"}),
        json!({"compatibility": "v1"}),
    ] {
        let mut other = Learner::new(parameters(patch.clone()));
        let error = other.restore(&model).expect_err("another shape").to_string();
        let key = patch.as_object().expect("an object").keys().next().expect("one").clone();
        assert!(error.contains(&key), "{error}");
        assert_eq!(other.snapshot().counters, Counters::default());
    }
    let mut bad = model.clone();
    bad.epsilon = 7.0;
    assert!(Learner::new(Parameters::default()).restore(&bad).is_err());
}

#[test]
fn what_another_learner_learnt_is_taken_over_without_its_history() {
    let model = model(&fed(json!({"window_size": 2})).snapshot());
    let mut learner = Learner::new(Parameters::default());
    learner.take(entry(500, &[2.0], 1, 0.0));
    learner.import(&model).expect("it fits");
    let snapshot = learner.snapshot();
    assert_eq!(snapshot.values.states_seen(), 1);
    assert_eq!((snapshot.counters.trained_items, snapshot.held), (0, 1));
}

#[test]
fn structural_parameters_act_from_the_next_reset_on() {
    let mut learner = fed(json!({"window_size": 2}));
    learner.set_parameters(parameters(json!({"actions_n": 4, "alpha": 0.5, "epsilon_start": 0.3})));
    assert_eq!((learner.running.actions_n, learner.running.alpha), (2, 0.5));
    assert!(learner.check(99, [1.0].into(), 3.0, 0.0).is_err());
    let before = learner.generation();
    learner.reset();
    assert!(learner.check(99, [1.0].into(), 3.0, 0.0).is_ok());
    let snapshot = learner.snapshot();
    assert_eq!((snapshot.counters, snapshot.values.states_seen()), (Counters::default(), 0));
    assert_eq!((snapshot.generation, snapshot.live.epsilon.get()), (before + 1, 0.3));
}

#[test]
fn compatibility_acts_at_once_only_while_nothing_was_learnt() {
    let mut fresh = Learner::new(Parameters::default());
    fresh.set_parameters(parameters(json!({"compatibility": "v1"})));
    assert_eq!(fresh.running.compatibility, Compatibility::V1);
    let mut learnt = fed(json!({"window_size": 2}));
    learnt.set_parameters(parameters(json!({"compatibility": "v1"})));
    assert_eq!(learnt.running.compatibility, Compatibility::None);
    assert_eq!(learnt.snapshot().values.states_seen(), 1);
}

#[test]
fn what_cannot_be_learnt_from_is_named() {
    let learner = Learner::new(Parameters::default());
    let check = |eid, state: &[f64], action, reward| {
        learner.check(eid, state.into(), action, reward).map_err(|why| why.to_string())
    };
    assert!(check(1, &[1.0], 1.0, 0.5).is_ok());
    for (result, part) in [
        (check(u64::MAX, &[1.0], 0.0, 0.0), "EID"),
        (check(1, &[], 0.0, 0.0), "features"),
        (check(1, &[f64::NAN], 0.0, 0.0), "finite"),
        (check(1, &[1.0], 2.0, 0.0), "action"),
        (check(1, &[1.0], 0.5, 0.0), "action"),
        (check(1, &[1.0], -1.0, 0.0), "action"),
        (check(1, &[1.0], f64::NAN, 0.0), "action"),
        (check(1, &[1.0], 0.0, f64::INFINITY), "reward"),
    ] {
        let error = result.expect_err(part);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn rewards_beyond_all_measure_leave_a_model_that_can_be_saved_and_loaded() {
    for value_function in VALUE_FUNCTIONS {
        for td_form in TD_FORMS {
            let patch = json!({
                "value_function": value_function.name, "td_form": td_form.name, "alpha": 1.0,
                "beta": 1.0, "gamma": 1.0, "window_size": 2, "refit_states": 10,
            });
            let mut learner = Learner::new(parameters(patch.clone()));
            for eid in 1..100 {
                let reward = if eid % 3 == 0 { -f64::MAX } else { f64::MAX };
                learner.take(entry(eid, &[(eid % 4) as f64], (eid % 2) as usize, reward));
            }
            let model = model(&learner.snapshot());
            let name = (value_function.name, td_form.name);
            assert_eq!(Learner::new(parameters(patch)).restore(&model), Ok(()), "{name:?}");
        }
    }
}

#[test]
fn decisions_are_counted_and_only_possible_actions_taken() {
    let learner = Learner::new(parameters(json!({"actions_n": 5, "epsilon_start": 1.0})));
    let snapshot = learner.snapshot();
    let mut rng = SmallRng::seed_from_u64(3);
    for _ in 0..100 {
        assert!(snapshot.decide(&[0.0], 2, &mut rng).action < 2);
    }
    assert_eq!(snapshot.live.inferences(), 100);
    let by_action = snapshot.live.by_action();
    assert_eq!(by_action[..2].iter().sum::<u64>(), 100);
    assert_eq!(by_action[2..], [0, 0, 0]);
}
