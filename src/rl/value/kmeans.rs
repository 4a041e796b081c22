//! `kmeans`: adaptive state aggregation. States are clustered by mini-batch k-means; a state's row
//! is that of its nearest centroid, so many states, also ones never seen, share what was learnt.
//!
//! Until there are `clusters` centroids, every state that training sees for the first time becomes
//! one. Every `refit_states` states that training has seen, the centroids are fitted to them in the
//! background, one mini-batch step (D. Sculley, *Web-scale k-means clustering*, WWW 2010, algorithm
//! 1): each centroid moves to the running mean of the states nearest to it, its row stays with it.
//! State aggregation: Sutton & Barto, section 9.3.
//!
//! What does not fit in the learner's memory: no further centroid is made, and the centroids are
//! fitted to fewer states.
//!
//! All states have the same number of features; features should be of comparable scale.

use std::sync::Arc;

use linfa::DatasetBase;
use linfa::traits::FitWith;
use linfa_clustering::{IncrKMeansError, KMeans, KMeansInit, KMeansParams};
use linfa_nn::distance::L2Dist;
use ndarray::Array2;
use serde_json::value::RawValue;

use super::lists::{self, Form};
use super::{
    BackgroundJob, JobDone, ListedValueFunction, Named, Saving, VALUE_BYTES, ValueFunction, Weights,
};
use crate::rl::cow::Rows;
use crate::rl::parameters::Parameters;
use crate::rl::{FEATURES_MAX, check_state};

/// As it is listed.
pub const LISTED: ListedValueFunction = ListedValueFunction {
    name: "kmeans",
    title: "KMeans",
    in_v1: false,
    make: |p| Box::new(KMeansTable::new(p)),
    sized_by: "clusters",
    // Centroids have three quarters of what there is; the rest is for states that wait for a fit.
    least_bytes: |p| p.clusters.saturating_mul(centroid_bytes(1, p.actions_n)) / 3 * 4,
    shape: &["clusters"],
    load: |p, saved| Ok(Box::new(KMeansTable::load(p, saved)?)),
};

type Model = KMeans<f64, L2Dist>;

/// A feature's magnitude at most, so that squares stay finite.
const FEATURE_MAX: f64 = 1e100;

/// Bytes that a feature of a centroid may take: in the table, in a copy that was published, twice
/// in a fit, and as text while the model is saved.
const FEATURE_BYTES: usize = 4 * 8 + 24;
/// Bytes that a feature of a state seen may take: gathered, and in a fit that is under way.
const SEEN_BYTES: usize = 3 * 8;

/// Bytes that a centroid of so many features and its values take.
fn centroid_bytes(features: usize, actions_n: usize) -> usize {
    features * FEATURE_BYTES + actions_n * VALUE_BYTES
}

/// See the module. Shape: clusters × actions.
pub struct KMeansTable {
    actions_n: usize,
    clusters_max: usize,
    refit_states: usize,
    /// Bytes that centroids and values may take, and states that wait for a fit.
    bytes_max: usize,
    seen_bytes_max: usize,
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

impl KMeansTable {
    /// No centroids yet.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            actions_n: parameters.actions_n,
            clusters_max: parameters.clusters,
            refit_states: parameters.refit_states,
            bytes_max: parameters.values_bytes() / 4 * 3,
            seen_bytes_max: parameters.values_bytes() / 4,
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
        let mut loaded = Self::new(parameters);
        let centroids = loaded.centroids_form();
        let table = Form::learnt("table", parameters.actions_n, centroids.lists_max);
        let [centroids, table] = lists::read(saved, [centroids, table])?;
        if centroids.len() != table.len() {
            return Err(format!("{} centroids, {} rows", centroids.len(), table.len()));
        }
        for (centroid, row) in centroids.iter().zip(table.iter()) {
            check_state(centroid).map_err(|why| why.to_string())?;
            loaded.check(centroid)?;
            if !loaded.has_room_for(centroid) {
                return Err(format!(
                    "its {} centroids take more than the {} bytes that there are for them, by \
                     learner_memory_bytes_max",
                    centroids.len(),
                    loaded.bytes_max
                ));
            }
            loaded.add_centroid(centroid, row);
        }
        Ok(loaded)
    }

    /// What the centroids of a model may be.
    fn centroids_form(&self) -> Form {
        Form {
            key: "centroids",
            width: 1..=FEATURES_MAX,
            lists_max: self.clusters_max,
            numbers_max: self.bytes_max / FEATURE_BYTES,
            magnitude_max: FEATURE_MAX,
        }
    }

    /// Whether one more centroid may be made, of `state`.
    fn has_room_for(&self, state: &[f64]) -> bool {
        let (made, each) = (self.values.len(), centroid_bytes(state.len(), self.actions_n));
        made < self.clusters_max && (made + 1).saturating_mul(each) <= self.bytes_max
    }

    /// Numbers of the states that a fit waits for.
    fn wanted(&self) -> usize {
        let states = self.seen_bytes_max / (SEEN_BYTES * self.features.max(1));
        self.refit_states.min(states).max(1) * self.features
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
        if !known && self.has_room_for(state) && self.check(state).is_ok() {
            self.add_centroid(state, &vec![0.0; self.actions_n]);
        }
        if self.recent.len() < self.wanted() && state.len() == self.features {
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
        Weights {
            actions_n: self.actions_n,
            states: Named::Flat(Arc::clone(&self.centroids), self.features),
            table: Some(self.values.clone()),
            weights: None,
        }
    }

    fn save(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(&self.saving()?)
    }

    fn saving(&self) -> serde_json::Result<Saving> {
        Ok(Saving::Table("centroids", self.weights()))
    }

    fn apply_changes(&mut self, changes: &RawValue) -> Result<(), String> {
        let centroids = Form { width: 2..=1 + FEATURES_MAX, ..self.centroids_form() };
        let lists_max = self.bytes_max / VALUE_BYTES;
        let [centroids, cells] =
            lists::read(changes, [centroids, Form::learnt("cells", 3, lists_max)])?;
        for place in centroids.iter() {
            let Some((row, centroid)) = place.split_first() else { continue };
            check_state(centroid).map_err(|why| why.to_string())?;
            self.check(centroid)?;
            match lists::whole(*row) {
                Some(row) if row < self.values.len() => {
                    let start = row * self.features;
                    let old = Arc::make_mut(&mut self.centroids);
                    let old = old.get_mut(start..start + self.features);
                    old.ok_or("a centroid is not there")?.copy_from_slice(centroid);
                }
                Some(row) if row == self.values.len() && self.has_room_for(centroid) => {
                    self.add_centroid(centroid, &vec![0.0; self.actions_n]);
                }
                _ => return Err(format!("there is no room for the centroid {row}")),
            }
        }
        lists::put(&mut self.values, &cells)
    }

    fn job(&mut self) -> Option<BackgroundJob> {
        let enough = self.features > 0 && self.recent.len() >= self.wanted();
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
    fn centroids_and_states_seen_keep_to_the_memory() {
        let small = Parameters { memory_bytes: 1 << 20, ..parameters(4096, 100_000) };
        let mut table = KMeansTable::new(&small);
        for n in 0..2000 {
            table.visit(&[f64::from(n); 20], 0);
        }
        assert_eq!(table.states_seen(), table.bytes_max / centroid_bytes(20, 2));
        assert!(table.recent.len() * SEEN_BYTES <= table.seen_bytes_max);
        assert!(table.job().is_some(), "a fit comes earlier");
        let saved = table.save().expect("JSON");
        assert!(KMeansTable::load(&small, &saved).is_ok());
        let smaller = Parameters { memory_bytes: 1 << 19, ..small };
        assert!(KMeansTable::load(&smaller, &saved).is_err());
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
