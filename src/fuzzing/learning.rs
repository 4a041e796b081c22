//! What a learner is told, and the models that it goes on from.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};

use super::Bytes;
use crate::actors::learner::ToldEntry;
use crate::client::remote_learner;
use crate::http::entries::{read_batch, read_eid, read_number, read_state};
use crate::http::learner_ws;
use crate::rl::learner::Learner;
use crate::rl::model::Model;
use crate::rl::parameters::Parameters;
use crate::rl::{FEATURES_MAX, LEARNT_MAX, check_state};
use crate::storage;
use crate::wire::json::{self, Bounds};

/// A small memory, so that its bounds are met.
const MEMORY_BYTES: usize = 1 << 20;

/// Parameters of each value function and TD form, small ones.
fn some(choice: usize) -> Parameters {
    let base = Parameters { memory_bytes: MEMORY_BYTES, ..Parameters::default() };
    let patch = match choice % 6 {
        0 => json!({"window_size": 2}),
        1 => json!({"value_function": "tiles", "tiles_size": 64, "tilings": 3, "alpha": 1.0}),
        2 => json!({"value_function": "kmeans", "clusters": 3, "refit_states": 4}),
        3 => json!({"td_form": "q_learning", "gamma": 1.0, "alpha": 1.0, "states_max": 3}),
        4 => json!({"td_form": "q_average_reward", "reward_abs_max": 1e12, "beta": 1.0}),
        _ => json!({"compatibility": "v1", "actions_n": 3, "reward_abs_max": 1e12}),
    };
    let Value::Object(patch) = patch else { return base };
    base.merged(&patch).expect("good parameters")
}

/// As the learner's actor takes it.
fn tell(learner: &mut Learner, told: ToldEntry) {
    let ToldEntry { eid, state, action, reward } = told;
    let told = learner.check_told(eid, reward, 1).is_ok();
    if let (Ok(entry), true) = (learner.check(eid, state, action, reward), told) {
        learner.take(entry);
    }
    if let Some((number, job)) = learner.job() {
        learner.job_done(number, job());
    }
}

/// Whatever a learner has learnt, it decides by it, and goes on from what is saved of it.
fn check_learner(learner: &Learner, state: &[f64]) {
    let snapshot = learner.snapshot();
    let mut rng = SmallRng::seed_from_u64(7);
    if snapshot.check(state).is_ok() {
        let choice = snapshot.decide(state, usize::MAX, &mut rng);
        assert!(choice.action < snapshot.running.actions_n);
        assert!((0.0..=1.0).contains(&choice.epsilon));
    }
    assert!(snapshot.average_reward.abs() <= LEARNT_MAX);
    serde_json::to_vec(&snapshot.values.weights()).expect("weights can be written");
    let saved = serde_json::to_vec(&snapshot.model().expect("a model")).expect("JSON");
    assert!(saved.len() <= snapshot.running.memory_bytes, "{} bytes", saved.len());
    let bounds = Bounds { bytes: snapshot.running.memory_bytes, ..storage::MODEL };
    let model: Model = json::read_object(&saved, &bounds).expect("it can be read");
    let mut other = Learner::new(Parameters::clone(&snapshot.running));
    other.restore(&model).expect("it can be gone on from");
    let again = serde_json::to_vec(&other.snapshot().model().expect("a model")).expect("JSON");
    assert!(saved == again, "{}\n{}", text(&saved), text(&again));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// [`read_batch`], and training on it.
pub(super) fn batch(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let choice = bytes.one_of(6);
    let Ok(batch) = read_batch(bytes.0) else { return };
    assert!(!batch.is_empty());
    let mut learner = Learner::new(some(choice));
    let mut state = vec![0.0];
    for told in batch {
        assert!(told.state.len() <= FEATURES_MAX + 1);
        state = told.state.to_vec();
        tell(&mut learner, told);
    }
    check_learner(&learner, &state);
}

/// A model from a file or from another node.
pub(super) fn model(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let choice = bytes.one_of(6);
    let bounds = Bounds { bytes: MEMORY_BYTES, ..storage::MODEL };
    let Ok(model) = json::read_object::<Model>(bytes.0, &bounds) else { return };
    let parameters = some(choice);
    let mut imported = Learner::new(parameters.clone());
    let mut restored = Learner::new(parameters);
    let fits = imported.import(&model).is_ok();
    assert_eq!(restored.restore(&model).is_ok(), fits);
    if !fits {
        return;
    }
    for mut learner in [imported, restored] {
        check_learner(&learner, &[0.0, 1.0]);
        let first = learner.snapshot().expected_eid;
        for n in 0..12 {
            let state = [(n % 3) as f64, 1.0];
            let told = ToldEntry {
                eid: first.saturating_add(n),
                state: state.as_slice().into(),
                action: (n % 2) as f64,
                reward: n as f64 * 1e5,
            };
            tell(&mut learner, told);
        }
        check_learner(&learner, &[1.0, 1.0]);
    }
}

/// The lines of a model's journal, on top of a few steps of training.
pub(super) fn changes(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut learner = Learner::new(some(bytes.one_of(6)));
    for n in 0..12 {
        let state: &[f64] = &[(n % 3) as f64, 1.0];
        let (action, reward) = ((n % 2) as f64, n as f64);
        tell(&mut learner, ToldEntry { eid: n, state: state.into(), action, reward });
    }
    let told = |learner: &Learner| {
        serde_json::to_vec(&learner.snapshot().model().expect("a model")).expect("JSON")
    };
    let bounds = Bounds { bytes: MEMORY_BYTES, ..storage::MODEL };
    for line in bytes.0.split(|byte| *byte == b'\n') {
        let Ok(changes) = json::read_object::<Model>(line, &bounds) else { continue };
        let before = told(&learner);
        if learner.restore_changes(&changes).is_err() {
            assert!(told(&learner) == before, "what is refused changes nothing");
        }
    }
    check_learner(&learner, &[1.0, 1.0]);
}

/// States, numbers and EIDs in headers.
pub(super) fn numbers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(state) = read_state(&text) {
        assert!((1..=FEATURES_MAX + 1).contains(&state.len()));
        let shown: Vec<String> = state.iter().map(ToString::to_string).collect();
        let again = read_state(&shown.join(",")).expect("a state");
        let same = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan();
        assert!(state.len() == again.len() && state.iter().zip(again.iter()).all(same));
    }
    let _ = read_number(&text);
    if let Ok(eid) = read_eid(&text) {
        assert_eq!(read_eid(&eid.to_string()), Ok(eid));
    }
}

/// Parameters, and the learner that they make.
pub(super) fn parameters(bytes: &[u8]) {
    let Ok(patch) = json::read_object::<Map<String, Value>>(bytes, &Bounds::SMALL) else { return };
    let base = Parameters { memory_bytes: MEMORY_BYTES, ..Parameters::default() };
    let merged = match base.merged(&patch) {
        Ok(merged) => merged,
        Err(why) => return assert!(why.to_string().len() < 1 << 16),
    };
    let Ok(Value::Object(all)) = serde_json::to_value(&merged) else { panic!("an object") };
    assert_eq!(base.merged(&all).as_ref(), Ok(&merged), "it is saved as it is");
    let mut learner = Learner::new(merged.clone());
    let state: std::sync::Arc<[f64]> = [0.5, -3.0].as_slice().into();
    for eid in 1..8 {
        let told = ToldEntry { eid, state: state.clone(), action: 0.0, reward: 1.0 };
        tell(&mut learner, told);
    }
    check_learner(&learner, &state);
    let mut changed = Learner::new(base);
    changed.set_parameters(merged);
    changed.reset();
    check_learner(&changed, &state);
}

/// What another learner answers.
pub(super) fn pool_answer(bytes: &[u8]) {
    if let Some((action, epsilon)) = remote_learner::read_answer(bytes) {
        assert!(action < 1 << 16 && epsilon.is_finite());
    }
}

/// A message over the learner's WebSocket.
pub(super) fn websocket(bytes: &[u8]) {
    let Ok(state) = learner_ws::read_state(bytes) else { return };
    assert!(state.len() <= FEATURES_MAX + 1);
    for choice in 0..6 {
        let snapshot = Learner::new(some(choice)).snapshot();
        if snapshot.check(&state).is_ok() {
            assert!(check_state(&state).is_ok());
            let choice = snapshot.decide(&state, usize::MAX, &mut SmallRng::seed_from_u64(7));
            assert!(choice.action < snapshot.running.actions_n);
        }
    }
}
