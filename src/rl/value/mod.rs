//! Value functions: what is known of Q(s, a), the value of action a in state s. One file each; this
//! one lists them.

pub mod kmeans;
pub mod qtable;
pub mod tiles;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use self::kmeans::KMeansTable;
use self::qtable::{Keys, QTable};
use self::tiles::Tiles;
use super::parameters::Parameters;

/// Work that a value function wants done away from those who train and decide.
pub type Job = Box<dyn FnOnce() -> JobDone + Send>;
/// What a [`Job`] came to.
pub type JobDone = Box<dyn Any + Send>;

/// Q(s, a). One owner trains it; whoever decides reads a [`snapshot`](Copies::snapshot), taken after
/// every batch, so a clone must be cheap: [`Rows`](super::cow::Rows) share what did not change.
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

    /// All that is learnt, as JSON for the model file; [`Listed::load`] reads it.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    fn save(&self) -> serde_json::Result<Box<RawValue>>;

    /// Work to be done in the background, if it is time; until [`job_done`](Self::job_done) no
    /// further is handed out.
    fn job(&mut self) -> Option<Job> {
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

/// `GET /learner/weights`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Weights {
    /// Actions by name, each with its column.
    pub actions_map: BTreeMap<usize, usize>,
    /// States by name, each with its row.
    pub states_map: BTreeMap<String, usize>,
    /// Q, a row per state and a column per action.
    pub table: Vec<Vec<f64>>,
    /// Where there is no table: index and value of the weights that are not zero.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<(usize, f64)>,
}

impl Weights {
    fn new(actions_n: usize) -> Self {
        let actions_map = (0..actions_n).map(|action| (action, action)).collect();
        Self { actions_map, ..Self::default() }
    }
}

/// Makes an empty value function.
type Make = fn(&Parameters) -> Box<dyn ValueFunction>;
/// Reads what [`ValueFunction::save`] wrote under the same parameters.
type Load = fn(&Parameters, &RawValue) -> Result<Box<dyn ValueFunction>, String>;

/// A value function that can be configured.
pub struct Listed {
    /// Its name in parameters.
    pub name: &'static str,
    /// Its part of the learner's name, after that of the TD form.
    pub title: &'static str,
    /// An empty one.
    pub make: Make,
    /// Further parameters that a model must agree with to fit.
    pub shape: &'static [&'static str],
    /// One from a model file.
    pub load: Load,
}

/// All of them; the first is the default.
pub const VALUE_FUNCTIONS: &[Listed] = &[
    Listed {
        name: "qtable",
        title: "QTable",
        make: |p| Box::new(QTable::new(p.actions_n, p.states_max, Keys::of(p))),
        shape: &[],
        load: |p, saved| Ok(Box::new(QTable::load(p, saved)?)),
    },
    Listed {
        name: "tiles",
        title: "Tiles",
        make: |p| Box::new(Tiles::new(p)),
        shape: &["tilings", "tiles_size", "tiles_scale"],
        load: |p, saved| Ok(Box::new(Tiles::load(p, saved)?)),
    },
    Listed {
        name: "kmeans",
        title: "KMeans",
        make: |p| Box::new(KMeansTable::new(p)),
        shape: &["clusters"],
        load: |p, saved| Ok(Box::new(KMeansTable::load(p, saved)?)),
    },
];

/// A state's name: its features, separated by commas, whole ones without decimals.
fn state_name(state: &[f64]) -> String {
    state.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Rows of a saved table, each as wide as there are actions and finite.
fn check_rows(rows: &[Vec<f64>], actions_n: usize) -> Result<(), String> {
    match rows.iter().find(|row| row.len() != actions_n || row.iter().any(|q| !q.is_finite())) {
        Some(row) => Err(format!("a row is {row:?}, where {actions_n} finite values must stand")),
        None => Ok(()),
    }
}
