use super::super::Copies;
use super::*;

fn empty(actions_n: usize, states_max: usize, keys: Keys) -> QTable {
    let compatibility = match keys {
        Keys::Exact => Compatibility::None,
        Keys::Glued => Compatibility::V1,
    };
    QTable::new(&Parameters { actions_n, states_max, compatibility, ..Parameters::default() })
}

fn trained(keys: Keys) -> QTable {
    let mut table = empty(2, 1000, keys);
    for (state, action, amount) in
        [([1.0, 12.0], 0, 1.0), ([11.0, 2.0], 0, 2.0), ([1.0, 12.0], 1, 3.0)]
    {
        table.visit(&state, action);
        table.add(&state, action, amount);
    }
    table
}

#[test]
fn states_are_told_apart_by_every_feature() {
    let table = trained(Keys::Exact);
    let mut values = [9.0; 2];
    table.values(&[1.0, 12.0], &mut values);
    assert_eq!(values, [1.0, 3.0]);
    assert_eq!(table.value(&[11.0, 2.0], 0), 2.0);
    assert_eq!(table.value(&[1.0, 12.0, 0.0], 0), 0.0, "never seen");
    assert_eq!(table.states_seen(), 2);
    assert_eq!(table.weights().names().collect::<Vec<_>>(), ["1,12", "11,2"]);
}

#[test]
fn v1_glues_the_features_of_a_state() {
    let table = trained(Keys::Glued);
    assert_eq!(table.value(&[11.0, 2.0], 0), 3.0, "1 + 2: they are one state");
    assert_eq!(table.value(&[1.9, 12.5], 1), 3.0, "and so is what has the same whole part");
    assert_eq!(table.weights().names().collect::<Vec<_>>(), ["112"]);
}

#[test]
fn minus_zero_is_zero() {
    let mut table = empty(1, 10, Keys::Exact);
    table.visit(&[0.0], 0);
    table.add(&[-0.0], 0, 1.0);
    assert_eq!((table.value(&[0.0], 0), table.states_seen()), (1.0, 1));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut table = trained(Keys::Exact);
    let before = table.snapshot();
    table.add(&[1.0, 12.0], 0, 5.0);
    table.visit(&[3.0, 3.0], 0);
    assert_eq!((before.value(&[1.0, 12.0], 0), before.states_seen()), (1.0, 2));
    assert_eq!((table.value(&[1.0, 12.0], 0), table.states_seen()), (6.0, 3));
}

#[test]
fn states_beyond_the_bound_stay_at_zero() {
    let mut table = empty(1, 500, Keys::Exact);
    for n in 0..600 {
        table.visit(&[f64::from(n)], 0);
        table.add(&[f64::from(n)], 0, 1.0);
    }
    assert_eq!(table.states_seen(), 500);
    assert_eq!((table.value(&[499.0], 0), table.value(&[500.0], 0)), (1.0, 0.0));
}

#[test]
fn states_beyond_the_memory_stay_at_zero_and_a_model_of_so_many_is_refused() {
    let memory = |memory_bytes| Parameters { memory_bytes, ..Parameters::default() };
    let (small, large) = (memory(1 << 20), memory(1 << 24));
    let [mut few, mut all] = [QTable::new(&small), QTable::new(&large)];
    for n in 0..3000 {
        let state = [f64::from(n); 20];
        few.visit(&state, 0);
        all.visit(&state, 0);
        few.add(&state, 0, 1.0);
    }
    let room = small.values_bytes() / row_bytes(20, 2);
    assert_eq!((few.states_seen(), all.states_seen()), (room, 3000));
    assert_eq!((few.value(&[0.0; 20], 0), few.value(&[2999.0; 20], 0)), (1.0, 0.0));
    let [few, all] = [few, all].map(|table| table.save().expect("JSON"));
    assert!(QTable::load(&small, &few).is_ok() && QTable::load(&large, &all).is_ok());
    let why = QTable::load(&small, &all).err().expect("too much");
    assert!(why.contains("memory"), "{why}");
    // What is counted covers the text as well.
    assert!(few.get().len() < room * row_bytes(20, 2));
}

#[test]
fn states_with_one_hash_are_told_apart() {
    let mut table = empty(1, 10, Keys::Exact);
    table.visit(&[1.0], 0);
    // The first state's place in the index, under the hash of another.
    let other = [2.0];
    let hash = table.hash(&other);
    let shard = Arc::make_mut(&mut table.index[hash as usize % SHARDS]);
    shard.insert(hash, 0);
    assert_eq!(table.row(&other), None);
    table.visit(&other, 0);
    table.add(&other, 0, 1.0);
    assert_eq!((table.value(&[1.0], 0), table.value(&other, 0)), (0.0, 1.0));
}

#[test]
fn glued_keys_longer_than_any_state_are_loaded_too() {
    let parameters =
        Parameters { actions_n: 1, compatibility: Compatibility::V1, ..Parameters::default() };
    let mut table = empty(1, 10, Keys::Glued);
    table.visit(&[-10.0; 600], 0);
    table.add(&[-10.0; 600], 0, 1.0);
    let loaded = QTable::load(&parameters, &table.save().expect("JSON")).expect("it fits");
    assert_eq!(loaded.value(&[-10.0; 600], 0), 1.0);
    let letters = RawValue::from_string(r#"{"states":[[65]],"table":[[0]]}"#.to_owned());
    assert!(QTable::load(&parameters, &letters.expect("JSON")).is_err());
}

#[test]
fn what_is_saved_is_loaded_to_the_last_bit() {
    let parameters = Parameters { actions_n: 2, ..Parameters::default() };
    let mut table = trained(Keys::Exact);
    table.add(&[1.0, 12.0], 0, 0.1 + 0.2);
    let saved = table.save().expect("JSON");
    let loaded = QTable::load(&parameters, &saved).expect("it fits");
    assert_eq!(loaded.weights(), table.weights());
    let three = Parameters { actions_n: 3, ..Parameters::default() };
    assert!(QTable::load(&three, &saved).is_err());
    for bad in [
        r#"{"states":[[1]],"table":[]}"#,
        r#"{"states":[[1],[1]],"table":[[0,0],[0,0]]}"#,
        r#"{"states":[[]],"table":[[0,0]]}"#,
        r#"{"states":[[1]],"table":[[0,1e101]]}"#,
        "7",
    ] {
        let bad = RawValue::from_string(bad.to_owned()).expect("JSON");
        assert!(QTable::load(&parameters, &bad).is_err(), "{bad}");
    }
}
