//! The learner: window, value function and TD form tied together. One owner trains it; all who
//! decide read its [`Snapshot`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;

use super::behaviour::{Epsilon, choose};
use super::model::{Counters, FORMAT, Model, Unfit};
use super::parameters::{Compatibility, Parameters};
use super::td::{Estimates, StepSizes};
use super::value::{BackgroundJob, JobDone, Saving, ValueFunction};
use super::window::{Arrival, Window};
use super::{
    BadEntry, EID_MAX, Eid, Entry, LEARNT_MAX, State, Transition, check_action, check_state,
};

/// What deciding counts, and ε: shared by all who decide, from one reset to the next.
#[derive(Debug)]
pub struct DecisionCounts {
    /// ε.
    pub epsilon: Epsilon,
    inferences: AtomicU64,
    by_action: Box<[AtomicU64]>,
}

impl DecisionCounts {
    /// `decisions` by action, as far as they were counted before.
    fn new(epsilon: f64, inferences: u64, decisions: &[u64], actions_n: usize) -> Arc<Self> {
        let before = decisions.iter().copied().chain(std::iter::repeat(0));
        let by_action = before.take(actions_n).map(AtomicU64::new).collect();
        Arc::new(Self {
            epsilon: Epsilon::new(epsilon),
            inferences: AtomicU64::new(inferences),
            by_action,
        })
    }

    /// Decisions taken.
    pub fn inferences(&self) -> u64 {
        self.inferences.load(Ordering::Relaxed)
    }

    /// Decisions taken in this process, by action.
    pub fn by_action(&self) -> Vec<u64> {
        self.by_action.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// What was chosen.
    pub action: usize,
    /// The ε used.
    pub epsilon: f64,
}

/// The learner as it was at one moment, for reading and deciding. ε goes on falling in it.
#[derive(Clone)]
pub struct Snapshot {
    /// Grows with every reset.
    pub generation: u64,
    /// As posted.
    pub posted: Arc<Parameters>,
    /// In force.
    pub running: Arc<Parameters>,
    /// Q(s, a).
    pub values: Arc<dyn ValueFunction>,
    /// ε and the decisions.
    pub live: Arc<DecisionCounts>,
    /// R̄.
    pub average_reward: f64,
    /// What was counted.
    pub counters: Counters,
    /// Entries held for reordering.
    pub held: usize,
    /// Entries with EIDs below this were learnt from or given up.
    pub expected_eid: Eid,
    /// The largest that `expected_eid` was, resets included.
    pub reached_eid: Eid,
}

impl Snapshot {
    /// Chooses ε-greedily among the first `possible` actions.
    pub fn decide(&self, state: &[f64], possible: usize, rng: &mut dyn Rng) -> Choice {
        let mut values = vec![0.0; possible.clamp(1, self.running.actions_n)];
        self.values.values(state, &mut values);
        let epsilon = self.live.epsilon.decide(&self.running.decay());
        let action = choose(&values, epsilon, rng);
        self.live.inferences.fetch_add(1, Ordering::Relaxed);
        if let Some(count) = self.live.by_action.get(action) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Choice { action, epsilon }
    }

    /// Whether `state` can be decided on.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, state: &[f64]) -> Result<(), BadEntry> {
        check_state(state)?;
        self.values.check(state).map_err(BadEntry::State)
    }

    /// All that is learnt.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn model(&self) -> serde_json::Result<Model<Saving>> {
        Ok(self.model_with(self.values.saving()?))
    }

    /// The same with these in place of the values, such as their changes since another one.
    pub fn model_with<V>(&self, values: V) -> Model<V> {
        Model {
            format: FORMAT,
            shape: self.running.shape(),
            average_reward: self.average_reward,
            epsilon: self.live.epsilon.get(),
            inferences: self.live.inferences(),
            decisions: self.live.by_action(),
            counters: self.counters,
            expected_eid: self.expected_eid,
            reached_eid: self.reached_eid,
            values,
        }
    }
}

/// Counters begin where a file says: they stop at their end.
fn count(counter: &mut u64, more: u64) {
    *counter = counter.saturating_add(more);
}

/// See the module.
pub struct Learner {
    generation: u64,
    posted: Arc<Parameters>,
    running: Arc<Parameters>,
    estimates: Estimates,
    /// Grows with every value function that takes the place of another.
    values_number: u64,
    window: Window,
    /// The largest EID that the window expected, resets included: a client goes on counting.
    reached: Eid,
    live: Arc<DecisionCounts>,
    counters: Counters,
    /// The entry that left the window last, if it makes a pair with the next.
    last: Option<Entry>,
    /// Entries on their way from the window to training; empty between calls.
    leaving: Vec<Entry>,
}

impl Learner {
    /// Nothing learnt yet.
    pub fn new(parameters: Parameters) -> Self {
        let parameters = Arc::new(parameters);
        let values = (parameters.value().make)(&parameters);
        Self {
            generation: 0,
            estimates: Estimates { values, average_reward: 0.0 },
            values_number: 0,
            window: Window::new(parameters.window_rules(), 0),
            reached: 0,
            live: DecisionCounts::new(parameters.epsilon_start, 0, &[], parameters.actions_n),
            counters: Counters::default(),
            last: None,
            leaving: Vec::new(),
            running: Arc::clone(&parameters),
            posted: parameters,
        }
    }

    /// Goes on where `snapshot` was taken. The window starts anew: what was held is gone.
    pub fn resume(snapshot: &Snapshot) -> Self {
        Self {
            generation: snapshot.generation,
            posted: Arc::clone(&snapshot.posted),
            running: Arc::clone(&snapshot.running),
            estimates: Estimates {
                values: snapshot.values.to_trained(),
                average_reward: snapshot.average_reward,
            },
            values_number: 0,
            window: Window::new(snapshot.running.window_rules(), snapshot.expected_eid),
            reached: snapshot.reached_eid,
            live: Arc::clone(&snapshot.live),
            counters: snapshot.counters,
            last: None,
            leaving: Vec::new(),
        }
    }

    /// Goes on from a model that was saved by this learner: all of it. The window starts anew, above
    /// what was learnt from.
    ///
    /// # Errors
    /// It does not fit the parameters in force; nothing was changed.
    pub fn restore(&mut self, model: &Model) -> Result<(), Unfit> {
        self.import(model)?;
        self.go_on_from(model);
        Ok(())
    }

    /// Goes on from what has changed since the model that it was restored from was saved.
    ///
    /// # Errors
    /// It does not fit; nothing was changed.
    pub fn restore_changes(&mut self, changes: &Model) -> Result<(), Unfit> {
        changes.check(&self.running)?;
        let mut values = self.estimates.values.to_trained();
        values.apply_changes(&changes.values).map_err(Unfit)?;
        self.replace_values(values);
        self.estimates.average_reward = changes.average_reward;
        self.go_on_from(changes);
        Ok(())
    }

    /// Takes over what a model of this learner has beside values and R̄.
    fn go_on_from(&mut self, model: &Model) {
        let actions_n = self.running.actions_n;
        self.live =
            DecisionCounts::new(model.epsilon, model.inferences, &model.decisions, actions_n);
        self.counters = model.counters;
        self.window = Window::new(self.running.window_rules(), model.expected_eid);
        self.reached = model.reached_eid.max(model.expected_eid);
        self.last = None;
    }

    /// Takes over what another learner learnt: values, R̄ and ε. What was counted here and the
    /// window stay.
    ///
    /// # Errors
    /// It does not fit the parameters in force; nothing was changed.
    pub fn import(&mut self, model: &Model) -> Result<(), Unfit> {
        model.check(&self.running)?;
        let load = self.running.value().load;
        self.replace_values(load(&self.running, &model.values).map_err(Unfit)?);
        self.estimates.average_reward = model.average_reward;
        self.live.epsilon.set(model.epsilon);
        Ok(())
    }

    /// Whether an entry of these parts can be learnt from, and that entry.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(
        &self,
        eid: Eid,
        state: State,
        action: f64,
        reward: f64,
    ) -> Result<Entry, BadEntry> {
        if eid > EID_MAX {
            return Err(BadEntry::Eid(eid));
        }
        check_state(&state)?;
        self.estimates.values.check(&state).map_err(BadEntry::State)?;
        let action = check_action(action, self.running.actions_n)?;
        if !reward.is_finite() {
            return Err(BadEntry::NotFinite("the reward"));
        }
        Ok(Entry { eid, state, action, reward })
    }

    /// Whether an entry with this EID and reward is taken from whoever can send one. `given`: the
    /// EID that this node's next decision gets.
    ///
    /// Entries far ahead would make the window skip what lies between, and all of that late. So an
    /// EID is at most `eids_ahead_max` beyond what was given here, expected, or reached before a
    /// reset. Clients that count by one always pass, also where they count on beyond a reset or a
    /// restart. Whoever may train can still push the window on, one step of `eids_ahead_max` after
    /// the other, but not out of all reach: a reset brings it back to the EIDs that come then.
    ///
    /// # Errors
    /// It is too far ahead, or the reward too large.
    pub fn check_told(&self, eid: Eid, reward: f64, given: Eid) -> Result<(), BadEntry> {
        let reached = given.max(self.window.expected()).max(self.reached);
        let ahead_max = self.running.eids_ahead_max;
        let max = reached.saturating_add(ahead_max);
        if eid > max {
            return Err(BadEntry::FarAhead { eid, max, reached, ahead_max });
        }
        let max = self.running.reward_abs_max;
        match reward.abs() > max {
            true => Err(BadEntry::Reward { reward, max }),
            false => Ok(()),
        }
    }

    /// An entry comes, which was [`check`](Self::check)ed; whatever can be trained is.
    pub fn take(&mut self, entry: Entry) {
        let eid = entry.eid;
        match self.window.arrive(entry) {
            Arrival::Held => self.counters.eid_max_seen = self.counters.eid_max_seen.max(eid),
            Arrival::Late => count(&mut self.counters.late, 1),
            Arrival::Duplicate => count(&mut self.counters.duplicate, 1),
        }
        self.train();
    }

    /// Trains what the window lets go.
    fn train(&mut self) {
        let mut leaving = std::mem::take(&mut self.leaving);
        while let Some(release) = self.window.release(&mut leaving) {
            leaving.drain(..).for_each(|entry| self.follow(entry));
            if release.cut {
                self.last = None;
            }
            let counters = &mut self.counters;
            count(&mut counters.windows_trained, u64::from(release.window));
            count(&mut counters.skipped, release.skipped);
            count(&mut counters.late, release.late);
        }
        self.reached = self.reached.max(self.window.expected());
        self.leaving = leaving;
    }

    /// `entry` follows the last one.
    fn follow(&mut self, entry: Entry) {
        if let Some(last) = &self.last {
            let transition = Transition {
                state: &last.state,
                action: last.action,
                reward: last.reward,
                next_state: &entry.state,
                next_action: entry.action,
            };
            let td = self.running.td();
            let update = match self.running.compatibility {
                Compatibility::V1 => td.as_v1.unwrap_or(td.update),
                Compatibility::None => td.update,
            };
            let Parameters { alpha, beta, gamma, actions_n, .. } = *self.running;
            let rates = StepSizes { alpha, beta, gamma };
            let average = self.estimates.average_reward;
            let delta = update(&mut self.estimates, &transition, &rates, actions_n);
            // Nor is what is no number.
            let within = |x: f64| x.abs() <= LEARNT_MAX;
            if !within(self.estimates.average_reward) {
                self.estimates.average_reward = average;
            }
            let mean = &mut self.counters.mean_abs_delta;
            let moved = *mean + (delta.abs() - *mean) / 1000.0;
            *mean = if within(moved) { moved } else { *mean };
        }
        count(&mut self.counters.trained_items, 1);
        self.counters.eid_last_trained = entry.eid;
        self.last = Some(entry);
    }

    /// Takes other parameters. Those that make a learner act from the next reset on, all others at
    /// once.
    pub fn set_parameters(&mut self, posted: Parameters) {
        let mut running = posted.acting_on(&self.running);
        let pristine = self.counters == Counters::default()
            && self.window.held() == 0
            && self.estimates.values.states_seen() == 0;
        let fits = Parameters { compatibility: posted.compatibility, ..running.clone() };
        // Nothing was learnt that could be mistaken: no need to wait.
        if pristine && fits.merged(&serde_json::Map::new()).is_ok() {
            running = fits;
            self.replace_values((running.value().make)(&running));
        }
        self.window.set_rules(running.window_rules());
        (self.posted, self.running) = (Arc::new(posted), Arc::new(running));
        self.train();
    }

    /// Forgets all that was learnt; all parameters act from now on.
    pub fn reset(&mut self) {
        let fresh = Self::new(Parameters::clone(&self.posted));
        *self = Self {
            generation: self.generation + 1,
            reached: self.reached,
            values_number: self.values_number + 1,
            ..fresh
        };
    }

    /// The learner as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            generation: self.generation,
            posted: Arc::clone(&self.posted),
            running: Arc::clone(&self.running),
            values: self.estimates.values.snapshot(),
            live: Arc::clone(&self.live),
            average_reward: self.estimates.average_reward,
            counters: self.counters,
            held: self.window.held(),
            expected_eid: self.window.expected(),
            reached_eid: self.reached,
        }
    }

    /// The parameters in force.
    pub fn parameters(&self) -> &Parameters {
        &self.running
    }

    /// Q(s, a) as it is now.
    pub fn values(&self) -> &dyn ValueFunction {
        &*self.estimates.values
    }

    fn replace_values(&mut self, values: Box<dyn ValueFunction>) {
        self.estimates.values = values;
        self.values_number += 1;
    }

    /// See [`ValueFunction::job`]; with the number of the value function that wants it.
    pub fn job(&mut self) -> Option<(u64, BackgroundJob)> {
        Some((self.values_number, self.estimates.values.job()?))
    }

    /// What a job came to. If the value function that wanted it is gone, it is of no use any more.
    pub fn job_done(&mut self, values_number: u64, done: JobDone) {
        if values_number == self.values_number {
            self.estimates.values.job_done(done);
        }
    }

    /// Grows with every reset.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

#[cfg(test)]
mod tests;
