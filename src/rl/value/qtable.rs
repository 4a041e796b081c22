//! `qtable`: one value per state and action. Sutton & Barto, chapter 6.
//!
//! States are told apart exactly, 1.5 from 1 and `1,12` from `11,2`. Values are zero until they
//! are trained. At most `states_max` states are remembered, fewer if they would take more than the
//! learner's memory; further ones stay at zero.
//!
//! v1 glues the features of a state, cut to whole numbers, into one text, so that `1,12` and
//! `11,2` are one state; [`Keys::Glued`] does the same.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::lists::{self, Form};
use super::{ListedValueFunction, Named, Saving, VALUE_BYTES, ValueFunction, Weights, state_name};
use crate::rl::cow::Rows;
use crate::rl::parameters::{Compatibility, Parameters};
use crate::rl::{FEATURES_MAX, State, check_state};

/// As it is listed.
pub const LISTED: ListedValueFunction = ListedValueFunction {
    name: "qtable",
    title: "QTable",
    in_v1: true,
    make: |p| Box::new(QTable::new(p)),
    sized_by: "actions_n",
    least_bytes: |p| row_bytes(1, p.actions_n),
    shape: &[],
    load: |p, saved| Ok(Box::new(QTable::load(p, saved)?)),
};

/// A feature's magnitude from which it is not glued any more: its text would be longer than any that
/// v1's clients send.
const GLUED_MAX: f64 = 1e18;
/// Characters of a feature in a glued key at most.
const GLUED_CHARACTERS: usize = 20;
/// Numbers of a state as it is saved, glued or not, at most.
const STATE_NUMBERS_MAX: usize = FEATURES_MAX * GLUED_CHARACTERS;

/// The beginning of a state's name, for messages.
fn shown(state: &[f64]) -> String {
    let first = state.get(..8).unwrap_or(state);
    state_name(first) + if first.len() < state.len() { ",…" } else { "" }
}

/// How states are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// By every feature.
    Exact,
    /// By the text that their whole parts make, as in v1.
    Glued,
}

impl Keys {
    /// Those of a learner with these parameters.
    pub fn of(parameters: &Parameters) -> Self {
        match parameters.compatibility {
            Compatibility::None => Self::Exact,
            Compatibility::V1 => Self::Glued,
        }
    }

    /// What stands for `state`: itself, or the bytes of its glued text.
    fn canonical(self, state: &[f64]) -> Cow<'_, [f64]> {
        match self {
            Self::Exact => Cow::Borrowed(state),
            Self::Glued => {
                let glue = |x: &f64| format!("{:.0}", x.trunc() + 0.0).into_bytes();
                Cow::Owned(state.iter().flat_map(glue).map(f64::from).collect())
            }
        }
    }

    /// Whether a saved key can be one of these.
    fn check(self, canonical: &[f64]) -> Result<(), String> {
        let is_text = |x: &f64| (0.0..256.0).contains(x) && matches!(*x as u8, b'0'..=b'9' | b'-');
        match self {
            Self::Exact => check_state(canonical).map_err(|why| why.to_string()),
            Self::Glued if !canonical.is_empty() && canonical.iter().all(is_text) => Ok(()),
            Self::Glued => Err(format!("{} is no key", shown(canonical))),
        }
    }

    /// What writes the name of a canonical state.
    fn names(self) -> fn(&[f64]) -> String {
        match self {
            Self::Exact => state_name,
            Self::Glued => |key| key.iter().map(|byte| char::from(*byte as u8)).collect(),
        }
    }
}

/// Bytes that a state takes beside its features and values: its allocation, its place in the index
/// and its reference, the latter two also in a copy that was published.
const ROW_BYTES: usize = 160;
/// Bytes that a feature may take: as a number, and as text while the model is saved. States are
/// shared by all copies.
const FEATURE_BYTES: usize = 8 + 24;

/// Bytes that a state of so many features and its values take.
fn row_bytes(features: usize, actions_n: usize) -> usize {
    ROW_BYTES + features * FEATURE_BYTES + actions_n * VALUE_BYTES
}

/// Keys of the index are hashes already.
#[derive(Clone, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Shard = HashMap<u64, u32, BuildHasherDefault<Hashed>>;

/// Shards of the index: a new state copies one of them after a snapshot was taken.
const SHARDS: usize = 64;

/// See the module. Shape: states seen × actions.
#[derive(Clone)]
pub struct QTable {
    keys: Keys,
    states_max: usize,
    actions_n: usize,
    /// Bytes that all states may take, and do.
    bytes_max: usize,
    bytes: usize,
    /// Keyed at random, so that nobody can choose states that share a hash. Nothing that is learnt
    /// depends on it.
    hasher: RandomState,
    /// From a state's hash to its row. Where two states have one hash, the second is filed under
    /// the next number.
    index: Vec<Arc<Shard>>,
    states: Rows<State>,
    values: Rows<f64>,
}

impl QTable {
    /// No states yet.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            keys: Keys::of(parameters),
            states_max: parameters.states_max,
            actions_n: parameters.actions_n,
            bytes_max: parameters.values_bytes(),
            bytes: 0,
            hasher: RandomState::new(),
            index: vec![Arc::default(); SHARDS],
            states: Rows::new(1),
            values: Rows::new(parameters.actions_n),
        }
    }

    /// From a model file.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn load(parameters: &Parameters, saved: &RawValue) -> Result<Self, String> {
        let mut table = Self::new(parameters);
        let (states, there) = (table.states_form(), table.bytes_max);
        let rows = Form::learnt("table", table.actions_n, states.lists_max);
        let [states, rows] = lists::read(saved, [states, rows])
            .map_err(|why| format!("{why} (states_max and the learner's memory bound it)"))?;
        if states.len() != rows.len() {
            return Err(format!("there are {} states and {} rows", states.len(), rows.len()));
        }
        for (state, row) in states.iter().zip(rows.iter()) {
            table.keys.check(state)?;
            if table.row(state).is_some() {
                return Err(format!("the state {} is there twice", shown(state)));
            }
            if !table.file(state, row) {
                return Err(format!(
                    "its {} states take more than the {there} bytes that there are for them, by \
                     learner_memory_bytes_max",
                    states.len()
                ));
            }
        }
        Ok(table)
    }

    /// What the states of a model may be.
    fn states_form(&self) -> Form {
        Form {
            key: "states",
            width: 1..=STATE_NUMBERS_MAX,
            lists_max: self.states_max.min(self.bytes_max / row_bytes(1, self.actions_n)),
            numbers_max: self.bytes_max / FEATURE_BYTES,
            magnitude_max: f64::MAX,
        }
    }

    fn hash(&self, state: &[f64]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        // −0 and 0 are one state.
        state.iter().for_each(|feature| hasher.write_u64((feature + 0.0).to_bits()));
        hasher.finish()
    }

    /// The row of a canonical state, if it has one.
    fn row(&self, state: &[f64]) -> Option<usize> {
        let hash = self.hash(state);
        let shard = self.index.get(hash as usize % SHARDS)?;
        let mut key = hash;
        loop {
            let row = *shard.get(&key)? as usize;
            if self.states.get(row)?.first().is_some_and(|known| **known == *state) {
                return Some(row);
            }
            key = key.wrapping_add(1);
        }
    }

    /// Gives a canonical state that has none a row, if there is room for one.
    fn file(&mut self, state: &[f64], values: &[f64]) -> bool {
        let row = self.states.len();
        let Ok(number) = u32::try_from(row) else { return false };
        let bytes = self.bytes + row_bytes(state.len(), self.actions_n);
        if row >= self.states_max || bytes > self.bytes_max {
            return false;
        }
        let hash = self.hash(state);
        let Some(shard) = self.index.get_mut(hash as usize % SHARDS) else { return false };
        let shard = Arc::make_mut(shard);
        let mut key = hash;
        while shard.contains_key(&key) {
            key = key.wrapping_add(1);
        }
        shard.insert(key, number);
        self.bytes = bytes;
        self.states.push(&[state.into()]);
        self.values.push(values);
        true
    }
}

impl ValueFunction for QTable {
    fn value(&self, state: &[f64], action: usize) -> f64 {
        let row = self.row(&self.keys.canonical(state));
        let values = row.and_then(|row| self.values.get(row));
        values.and_then(|values| values.get(action)).copied().unwrap_or(0.0)
    }

    fn values(&self, state: &[f64], values: &mut [f64]) {
        let row = self.row(&self.keys.canonical(state));
        match row.and_then(|row| self.values.get(row)?.get(..values.len())) {
            Some(known) => values.copy_from_slice(known),
            None => values.fill(0.0),
        }
    }

    fn visit(&mut self, state: &[f64], action: usize) -> f64 {
        let canonical = self.keys.canonical(state);
        match self.row(&canonical) {
            Some(row) => {
                self.values.get(row).and_then(|row| row.get(action)).copied().unwrap_or(0.0)
            }
            None => {
                self.file(&canonical, &vec![0.0; self.actions_n]);
                0.0
            }
        }
    }

    fn add(&mut self, state: &[f64], action: usize, amount: f64) {
        let row = self.row(&self.keys.canonical(state));
        if let Some(value) = row.and_then(|row| self.values.get_mut(row)?.get_mut(action)) {
            *value += amount;
        }
    }

    fn check(&self, state: &[f64]) -> Result<(), String> {
        match (self.keys, state.iter().find(|x| x.abs() >= GLUED_MAX)) {
            (Keys::Glued, Some(x)) => Err(format!("{x} is not below {GLUED_MAX:e}")),
            _ => Ok(()),
        }
    }

    fn states_seen(&self) -> usize {
        self.states.len()
    }

    fn weights(&self) -> Weights {
        Weights {
            actions_n: self.actions_n,
            states: Named::Rows(self.states.clone(), self.keys.names()),
            table: Some(self.values.clone()),
            weights: None,
        }
    }

    fn save(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(&self.saving()?)
    }

    fn saving(&self) -> serde_json::Result<Saving> {
        Ok(Saving::Table("states", self.weights()))
    }

    fn apply_changes(&mut self, changes: &RawValue) -> Result<(), String> {
        let states = Form { width: 2..=1 + STATE_NUMBERS_MAX, ..self.states_form() };
        let lists_max = self.bytes_max / VALUE_BYTES;
        let [states, cells] = lists::read(changes, [states, Form::learnt("cells", 3, lists_max)])?;
        for place in states.iter() {
            let Some((row, state)) = place.split_first() else { continue };
            self.keys.check(state)?;
            let next = self.states.len();
            if *row != next as f64 || self.row(state).is_some() {
                return Err(format!("the state {} cannot be in row {row}", shown(state)));
            }
            if !self.file(state, &vec![0.0; self.actions_n]) {
                return Err(format!("there is no room for the state {}", shown(state)));
            }
        }
        lists::put(&mut self.values, &cells)
    }
}

#[cfg(test)]
mod tests;
