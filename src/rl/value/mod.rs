//! Value functions: what is known of Q(s, a), the value of action a in state s. One file each, and
//! each says at its beginning what the [registry](super::registry) lists of it.

pub mod changes;
pub mod kmeans;
mod lists;
pub mod qtable;
pub mod tiles;

use std::any::Any;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::value::RawValue;

use self::lists::{Pairs, Seq};
use super::State;
use super::cow::Rows;
use super::parameters::Parameters;

/// Work that a value function wants done away from those who train and decide.
pub type BackgroundJob = Box<dyn FnOnce() -> JobDone + Send>;
/// What a [`BackgroundJob`] came to.
pub type JobDone = Box<dyn Any + Send>;

/// Q(s, a). One owner trains it; whoever decides reads a [`snapshot`](Copies::snapshot), taken after
/// every batch, so a clone must be cheap: [`Rows`] share what did not change.
///
/// States passed [`check_state`](super::check_state) and [`check`](Self::check), actions are below
/// `actions_n`.
pub trait ValueFunction: Copies + Send + Sync {
    /// Q(s, a); 0 for what was never trained.
    fn value(&self, state: &[f64], action: usize) -> f64;

    /// Q(s, a) for a = 0, 1, … into `values`, whose length is at most `actions_n`.
    fn values(&self, state: &[f64], values: &mut [f64]) {
        let each = values.iter_mut().enumerate();
        each.for_each(|(action, value)| *value = self.value(state, action));
    }

    /// Q(s, a), asked for training: the moment to remember a state that comes for the first time.
    fn visit(&mut self, state: &[f64], action: usize) -> f64 {
        self.value(state, action)
    }

    /// Q(s, a) ← Q(s, a) + `amount`, for a state that was visited.
    fn add(&mut self, state: &[f64], action: usize, amount: f64);

    /// Whether it can tell `state`.
    ///
    /// # Errors
    /// Why not, in words.
    fn check(&self, _state: &[f64]) -> Result<(), String> {
        Ok(())
    }

    /// States, or what stands for them, that training has seen.
    fn states_seen(&self) -> usize;

    /// The weights as clients see them; none, unless told.
    fn weights(&self) -> Weights {
        Weights::default()
    }

    /// All that is learnt, as JSON for the model file; [`ListedValueFunction::load`] reads it.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    fn save(&self) -> serde_json::Result<Box<RawValue>>;

    /// The same, to be written bit by bit: as text it may be much longer than it is.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    fn saving(&self) -> serde_json::Result<Saving> {
        self.save().map(Saving::Text)
    }

    /// Takes over [`Changes`](changes::Changes) since a model was saved that this was loaded from. Only
    /// for those whose [`saving`](Self::saving) is no text.
    ///
    /// # Errors
    /// They do not fit, and some may have been taken over.
    fn apply_changes(&mut self, _changes: &RawValue) -> Result<(), String> {
        Err("this value function is only saved as a whole".to_owned())
    }

    /// Work to be done in the background, if it is time; until [`job_done`](Self::job_done) no
    /// further is handed out.
    fn job(&mut self) -> Option<BackgroundJob> {
        None
    }

    /// Takes what its last job came to.
    fn job_done(&mut self, _done: JobDone) {}
}

/// What every value function that can be cloned can.
pub trait Copies {
    /// What it is now, whatever is trained later.
    fn snapshot(&self) -> Arc<dyn ValueFunction>;

    /// The same for training on.
    fn to_trained(&self) -> Box<dyn ValueFunction>;
}

impl<T: ValueFunction + Clone + 'static> Copies for T {
    fn snapshot(&self) -> Arc<dyn ValueFunction> {
        Arc::new(self.clone())
    }

    fn to_trained(&self) -> Box<dyn ValueFunction> {
        Box::new(self.clone())
    }
}

/// Bytes that a value of a table may take: in the table, in a copy that was published, and as text
/// while the model is loaded; later, instead of the text, in a copy of what is on disk.
const VALUE_BYTES: usize = 8 + 8 + 24;

/// The states of [`Weights`], each with its name.
#[derive(Clone, Debug, Default)]
enum Named {
    /// There are none.
    #[default]
    None,
    /// One after the other.
    Rows(Rows<State>, fn(&[f64]) -> String),
    /// One after the other, each of so many features.
    Flat(Arc<Vec<f64>>, usize),
}

impl Named {
    fn iter(&self) -> Box<dyn Iterator<Item = &[f64]> + '_> {
        match self {
            Self::None => Box::new(std::iter::empty()),
            Self::Rows(states, _) => Box::new(states.iter().flatten().map(|state| &**state)),
            Self::Flat(states, features) => Box::new(states.chunks_exact((*features).max(1))),
        }
    }
}

/// `GET /learner/weights`: `{"actions_map":{"0":0,…},"states_map":{"1,2":0,…},"table":[[…],…]}`, a
/// row per state and a column per action; where there is no table, index and value of the weights
/// that are not zero, `"weights":[[7,0.5],…]`. It shares what the value function has, and copies
/// nothing when it is written.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    actions_n: usize,
    states: Named,
    table: Option<Rows<f64>>,
    weights: Option<Rows<f64>>,
}

impl Weights {
    /// The names of the states, in the order of the table's rows.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let name = match &self.states {
            Named::Rows(_, name) => *name,
            Named::None | Named::Flat(..) => state_name,
        };
        self.states.iter().map(name)
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.table.iter().flat_map(Rows::iter)
    }

    fn not_zero(&self) -> impl Iterator<Item = (usize, f64)> {
        let all = self.weights.iter().flat_map(Rows::iter).flatten().copied().enumerate();
        all.filter(|(_, weight)| *weight != 0.0)
    }
}

impl PartialEq for Weights {
    fn eq(&self, other: &Self) -> bool {
        self.actions_n == other.actions_n
            && self.names().eq(other.names())
            && self.rows().eq(other.rows())
            && self.not_zero().eq(other.not_zero())
    }
}

impl Serialize for Weights {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut all = to.serialize_struct("Weights", 4)?;
        let actions = || (0..self.actions_n).map(|action| (action, action));
        all.serialize_field("actions_map", &Pairs(actions))?;
        all.serialize_field("states_map", &Pairs(|| self.names().zip(0usize..)))?;
        all.serialize_field("table", &Seq(|| self.rows()))?;
        if self.not_zero().next().is_some() {
            all.serialize_field("weights", &Seq(|| self.not_zero()))?;
        }
        all.end()
    }
}

/// What [`ValueFunction::save`] writes, shared with the value function and not made to text yet.
pub enum Saving {
    /// Text after all.
    Text(Box<RawValue>),
    /// The states under a key of their own, and the table.
    Table(&'static str, Weights),
    /// The weights alone.
    Weights(Weights),
}

impl Serialize for Saving {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(to),
            Self::Table(key, table) => {
                let mut all = to.serialize_struct("Table", 2)?;
                all.serialize_field(key, &Seq(|| table.states.iter()))?;
                all.serialize_field("table", &Seq(|| table.rows()))?;
                all.end()
            }
            Self::Weights(weights) => {
                let mut all = to.serialize_struct("Weights", 1)?;
                all.serialize_field("weights", &Seq(|| weights.not_zero()))?;
                all.end()
            }
        }
    }
}

/// Makes an empty value function.
type Make = fn(&Parameters) -> Box<dyn ValueFunction>;
/// Reads what [`ValueFunction::save`] wrote under the same parameters.
type Load = fn(&Parameters, &RawValue) -> Result<Box<dyn ValueFunction>, String>;

/// A value function that can be configured: what its file says of it, for the registry's list.
pub struct ListedValueFunction {
    /// Its name in parameters.
    pub name: &'static str,
    /// Its part of the learner's name, after that of the TD form.
    pub title: &'static str,
    /// Whether P2PFaaS v1 has it.
    pub in_v1: bool,
    /// An empty one.
    pub make: Make,
    /// The parameter that says how much memory it takes at least.
    pub sized_by: &'static str,
    /// How much that is, in bytes, under these parameters.
    pub least_bytes: fn(&Parameters) -> usize,
    /// Further parameters that a model must agree with to fit.
    pub shape: &'static [&'static str],
    /// One from a model file.
    pub load: Load,
}

/// A state's name: its features, separated by commas, whole ones without decimals.
fn state_name(state: &[f64]) -> String {
    state.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
