//! `kmeans`: adaptive state aggregation. States are clustered by mini-batch k-means; a state's row
//! is that of its nearest centroid, so many states, also ones never seen, share what was learnt.
//!
//! Until there are `clusters` centroids, every state that training sees for the first time becomes
//! one. Every `refit_states` states that training has seen, the centroids are fitted to them in the
//! background, one mini-batch step (D. Sculley, *Web-scale k-means clustering*, WWW 2010, algorithm
//! 1): each centroid moves to the running mean of the states nearest to it, its row stays with it.
//! State aggregation: Sutton & Barto, section 9.3.
//!
//! All states have the same number of features; features should be of comparable scale.

use std::sync::Arc;

use linfa::DatasetBase;
use linfa::traits::FitWith;
use linfa_clustering::{IncrKMeansError, KMeans, KMeansInit, KMeansParams};
use linfa_nn::distance::L2Dist;
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Job, JobDone, ValueFunction, Weights, check_rows, state_name};
use crate::rl::check_state;
use crate::rl::cow::Rows;
use crate::rl::parameters::Parameters;

type Model = KMeans<f64, L2Dist>;

/// A feature's magnitude at most, so that squares stay finite.
const FEATURE_MAX: f64 = 1e100;

/// See the module. Shape: clusters × actions.
pub struct KMeansTable {
    actions_n: usize,
    clusters_max: usize,
    refit_states: usize,
    /// Features of a state; 0 until the first was seen.
    features: usize,
    /// The centroids, one after the other.
    centroids: Arc<Vec<f64>>,
    values: Rows<f64>,
    /// The states seen since the last fit, one after the other.
    recent: Vec<f64>,
    /// With the counts that make later steps smaller; away while a job works on it.
    model: Option<Model>,
    busy: bool,
}

/// As in the model file.
#[derive(Serialize, Deserialize)]
struct Saved {
    centroids: Vec<Vec<f64>>,
    table: Vec<Vec<f64>>,
}

impl KMeansTable {
    /// No centroids yet.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            actions_n: parameters.actions_n,
            clusters_max: parameters.clusters,
            refit_states: parameters.refit_states,
            features: 0,
            centroids: Arc::default(),
            values: Rows::new(parameters.actions_n),
            recent: Vec::new(),
            model: None,
            busy: false,
        }
    }

    /// From a model file.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn load(parameters: &Parameters, saved: &RawValue) -> Result<Self, String> {
        let Saved { centroids, table } =
            serde_json::from_str(saved.get()).map_err(|why| why.to_string())?;
        check_rows(&table, parameters.actions_n)?;
        if centroids.len() != table.len() || centroids.len() > parameters.clusters {
            return Err(format!("{} centroids, {} rows", centroids.len(), table.len()));
        }
        let mut loaded = Self::new(parameters);
        for (centroid, row) in centroids.iter().zip(&table) {
            check_state(centroid).map_err(|why| why.to_string())?;
            loaded.check(centroid)?;
            loaded.add_centroid(centroid, row);
        }
        Ok(loaded)
    }

    fn add_centroid(&mut self, state: &[f64], row: &[f64]) {
        self.features = state.len();
        Arc::make_mut(&mut self.centroids).extend_from_slice(state);
        self.values.push(row);
    }

    /// The nearest centroid and its squared distance.
    fn nearest(&self, state: &[f64]) -> Option<(usize, f64)> {
        if state.len() != self.features {
            return None;
        }
        let distance = |centroid: &[f64]| {
            centroid.iter().zip(state).map(|(c, x)| (c - x) * (c - x)).sum::<f64>()
        };
        self.centroids
            .chunks_exact(self.features.max(1))
            .map(distance)
            .enumerate()
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
    }
}

/// A clone begins without the states seen since the last fit, and without the model's counts.
impl Clone for KMeansTable {
    fn clone(&self) -> Self {
        Self {
            centroids: Arc::clone(&self.centroids),
            values: self.values.clone(),
            recent: Vec::new(),
            model: None,
            busy: false,
            ..*self
        }
    }
}

impl ValueFunction for KMeansTable {
    fn value(&self, state: &[f64], action: usize) -> f64 {
        let row = self.nearest(state).and_then(|(row, _)| self.values.get(row));
        row.and_then(|row| row.get(action)).copied().unwrap_or(0.0)
    }

    fn values(&self, state: &[f64], values: &mut [f64]) {
        let row = self.nearest(state).and_then(|(row, _)| self.values.get(row));
        match row.and_then(|row| row.get(..values.len())) {
            Some(row) => values.copy_from_slice(row),
            None => values.fill(0.0),
        }
    }

    fn visit(&mut self, state: &[f64], action: usize) -> f64 {
        let known = self.nearest(state).is_some_and(|(_, distance)| distance == 0.0);
        if !known && self.values.len() < self.clusters_max && self.check(state).is_ok() {
            self.add_centroid(state, &vec![0.0; self.actions_n]);
        }
        if self.recent.len() < self.refit_states * self.features && state.len() == self.features {
            self.recent.extend_from_slice(state);
        }
        self.value(state, action)
    }

    fn add(&mut self, state: &[f64], action: usize, amount: f64) {
        let nearest = self.nearest(state);
        if let Some((row, _)) = nearest
            && let Some(value) = self.values.get_mut(row).and_then(|row| row.get_mut(action))
        {
            *value += amount;
        }
    }

    fn check(&self, state: &[f64]) -> Result<(), String> {
        if self.features != 0 && state.len() != self.features {
            return Err(format!("it has {} features, others have {}", state.len(), self.features));
        }
        match state.iter().find(|x| x.abs() > FEATURE_MAX) {
            Some(x) => Err(format!("{x} is beyond ±{FEATURE_MAX:e}")),
            None => Ok(()),
        }
    }

    /// Centroids.
    fn states_seen(&self) -> usize {
        self.values.len()
    }

    fn weights(&self) -> Weights {
        let names = self.centroids.chunks_exact(self.features.max(1)).map(state_name);
        Weights {
            states_map: names.enumerate().map(|(row, name)| (name, row)).collect(),
            table: self.values.iter().map(<[f64]>::to_vec).collect(),
            ..Weights::new(self.actions_n)
        }
    }

    fn save(&self) -> serde_json::Result<Box<RawValue>> {
        let centroids = self.centroids.chunks_exact(self.features.max(1));
        serde_json::value::to_raw_value(&Saved {
            centroids: centroids.map(<[f64]>::to_vec).collect(),
            table: self.values.iter().map(<[f64]>::to_vec).collect(),
        })
    }

    fn job(&mut self) -> Option<Job> {
        let enough = self.features > 0 && self.recent.len() >= self.refit_states * self.features;
        if self.busy || !enough {
            return None;
        }
        self.busy = true;
        let batch = std::mem::take(&mut self.recent);
        let (centroids, features) = (Arc::clone(&self.centroids), self.features);
        // Grown since, it begins anew from where the centroids are.
        let rows = centroids.len() / features;
        let model = self.model.take().filter(|model| model.centroids().nrows() == rows);
        Some(Box::new(move || Box::new(fit(model, &centroids, batch, features))))
    }

    fn job_done(&mut self, done: JobDone) {
        self.busy = false;
        let Ok(fitted) = done.downcast::<Option<Model>>() else { return };
        let Some(model) = *fitted else { return };
        let fitted = model.centroids();
        if fitted.ncols() != self.features || fitted.iter().any(|x| !x.is_finite()) {
            return;
        }
        // Centroids added meanwhile come after those that were fitted.
        let places = Arc::make_mut(&mut self.centroids).iter_mut();
        places.zip(fitted).for_each(|(place, fitted)| *place = *fitted);
        self.model = Some(model);
    }
}

/// One mini-batch step from `model`, or from `centroids` where there is none.
fn fit(model: Option<Model>, centroids: &[f64], batch: Vec<f64>, features: usize) -> Option<Model> {
    let table = |flat: Vec<f64>| Array2::from_shape_vec((flat.len() / features, features), flat);
    let (start, batch) = (table(centroids.to_vec()).ok()?, table(batch).ok()?);
    let parameters: KMeansParams<f64, _, L2Dist> =
        KMeans::params(start.nrows()).init_method(KMeansInit::Precomputed(start));
    let parameters = linfa::ParamGuard::check(parameters).ok()?;
    match parameters.fit_with(model, &DatasetBase::from(batch)) {
        // "Not converged" is the usual case: states go on coming.
        Ok(model) | Err(IncrKMeansError::NotConverged(model)) => Some(model),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(clusters: usize, refit_states: usize) -> Parameters {
        Parameters { actions_n: 2, clusters, refit_states, ..Parameters::default() }
    }

    /// Visits, and does the background work at once.
    fn visit(table: &mut KMeansTable, state: &[f64]) {
        table.visit(state, 0);
        if let Some(job) = table.job() {
            table.job_done(job());
        }
    }

    #[test]
    fn a_states_row_is_that_of_its_nearest_centroid() {
        let mut table = KMeansTable::new(&parameters(2, 1000));
        visit(&mut table, &[0.0, 0.0]);
        visit(&mut table, &[10.0, 10.0]);
        visit(&mut table, &[1.0, 1.0]);
        assert_eq!(table.states_seen(), 2, "the third shares a row");
        table.add(&[1.0, 1.0], 0, 5.0);
        assert_eq!(table.value(&[2.0, 0.0], 0), 5.0, "never seen, but near");
        assert_eq!(table.value(&[9.0, 9.0], 0), 0.0);
        let mut values = [9.0; 2];
        table.values(&[0.5, 0.5], &mut values);
        assert_eq!(values, [5.0, 0.0]);
    }

    #[test]
    fn centroids_move_to_where_the_states_are_and_keep_their_rows() {
        let mut table = KMeansTable::new(&parameters(2, 100));
        visit(&mut table, &[0.0]);
        visit(&mut table, &[1.0]);
        table.add(&[0.0], 0, -1.0);
        table.add(&[1.0], 0, 1.0);
        // States live around 0 and around 100; the second centroid must find its way there.
        for n in 0..2000 {
            let near = f64::from(n % 5) * 0.1;
            visit(&mut table, &[if n % 2 == 0 { near } else { 100.0 + near }]);
        }
        let mut centroids = table.centroids.to_vec();
        centroids.sort_by(f64::total_cmp);
        assert!((centroids[0] - 0.2).abs() < 0.5, "{centroids:?}");
        assert!((centroids[1] - 100.2).abs() < 5.0, "{centroids:?}");
        assert_eq!([table.value(&[0.1], 0), table.value(&[100.0], 0)], [-1.0, 1.0]);
    }

    #[test]
    fn one_job_at_a_time_and_training_goes_on_meanwhile() {
        let mut table = KMeansTable::new(&parameters(4, 2));
        table.visit(&[1.0], 0);
        assert!(table.job().is_none(), "too few states");
        table.visit(&[2.0], 0);
        let job = table.job().expect("two states");
        for x in [3.0, 4.0, 5.0] {
            table.visit(&[x], 0);
        }
        table.add(&[4.0], 1, 7.0);
        assert!(table.job().is_none(), "one is under way");
        table.job_done(job());
        assert_eq!((table.states_seen(), table.value(&[4.0], 1)), (4, 7.0));
        assert!(table.job().is_some());
    }

    #[test]
    fn a_state_of_another_form_is_told_apart_by_check() {
        let mut table = KMeansTable::new(&parameters(4, 2));
        table.visit(&[1.0, 2.0], 0);
        assert!(table.check(&[1.0, 2.0]).is_ok());
        assert!(table.check(&[1.0]).is_err() && table.check(&[1e200, 0.0]).is_err());
        assert_eq!(table.value(&[1.0], 0), 0.0);
    }

    #[test]
    fn what_is_saved_is_loaded_to_the_last_bit() {
        let mut table = KMeansTable::new(&parameters(4, 3));
        for x in [1.0, 2.5, 3.1, 7.0, 1.2] {
            visit(&mut table, &[x, -x]);
            table.add(&[x, -x], 1, x / 3.0);
        }
        let saved = table.save().expect("JSON");
        let loaded = KMeansTable::load(&parameters(4, 3), &saved).expect("it fits");
        assert_eq!(loaded.weights(), table.weights());
        assert!(KMeansTable::load(&parameters(3, 3), &saved).is_err());
    }
}
