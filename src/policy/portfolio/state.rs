//! What a portfolio knows at one node, and how its epochs go.

use std::collections::BTreeMap;
use std::time::Duration;

use super::choice::{self, CountedCalls, choose, has_changed};
use super::talk::Words;

/// What remains of the weight of what was counted, after each epoch.
const GAMMA: f64 = 0.995;
/// What remains of it when the load has changed.
pub(super) const FORGET: f64 = 0.1;
/// What trials may cost: at first, more with each epoch, at least after a change, and at most.
const BUDGET_START: f64 = 0.3;
const BUDGET_GROWS: f64 = 0.01;
const BUDGET_CHANGED: f64 = 1.0;
const BUDGET_MAX: f64 = 2.0;

/// Epochs in which a change of load that was noticed is not followed by another one: at first, and at most. They
/// double with each that comes soon after the one before: a load that always changes, or a neighbour that lies about
/// it, is no reason to forget again and again.
const REST: u32 = 5;
const REST_MAX: u32 = 1024;
/// A change after so many times that rest is the first one again.
const REST_OVER: u32 = 8;

/// Epochs at a node's start that are not counted: algorithms that measure their board know nothing of it yet, and would
/// be judged by that for long.
pub(super) const NOT_COUNTED: u64 = 2;

/// No neighbour counts for more than so many usual ones: it may tell whatever it likes.
const OUTWEIGHS: f64 = 4.0;

/// The lower one in the middle of those counts that are not zero; 0 without any.
fn usual(counts: impl Iterator<Item = f64>) -> f64 {
    let mut counts: Vec<f64> = counts.filter(|count| *count > 0.0).collect();
    counts.sort_by(f64::total_cmp);
    counts.get(counts.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// What makes that many calls no more than `most`.
fn weight(calls: f64, most: f64) -> f64 {
    if calls > most { most / calls } else { 1.0 }
}

/// What came of one epoch, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EpochCount {
    pub(super) arm: usize,
    pub(super) counted: CountedCalls,
    /// Whether its first moments are not counted, as another arm was in force before.
    pub(super) is_short: bool,
}

/// What a portfolio knows at one node.
#[derive(Debug)]
pub(super) struct PortfolioState {
    /// The number of the epoch, when it began here, and the arm that is in force.
    pub(super) number: u32,
    pub(super) began: Duration,
    pub(super) arm: usize,
    /// Whether another one was in force before.
    pub(super) switched: bool,
    /// How often that was so, and how many epochs have begun here since the first.
    pub(super) switches: u64,
    pub(super) begun: u64,
    /// What this node's clients' calls came to, by arm, discounted; and as others were last told.
    pub(super) own: Vec<CountedCalls>,
    pub(super) told: Vec<CountedCalls>,
    pub(super) current: EpochCount,
    pub(super) last: EpochCount,
    /// What the neighbours last said.
    pub(super) heard: Vec<Words>,
    /// Of all of them and this node.
    pub(super) pooled: Vec<CountedCalls>,
    /// Calls in an epoch, in all of the neighbourhood; 0 while not known.
    pub(super) usual_calls: f64,
    /// Whether that is from an epoch that is not counted from its beginning.
    pub(super) is_guess: bool,
    /// What this node would have in force next.
    pub(super) proposal: Option<usize>,
    /// How often it took the load for changed, in which epoch last, and for how many epochs after it not again.
    pub(super) changes: u64,
    changed: u32,
    rest: u32,
    /// What trials of other arms may still cost, in epochs of which all calls are late.
    pub(super) budget: f64,
}

impl PortfolioState {
    pub(super) fn new(arms: usize) -> Self {
        Self {
            number: 0,
            began: Duration::ZERO,
            arm: 0,
            switched: false,
            switches: 0,
            begun: 0,
            own: vec![CountedCalls::default(); arms],
            told: vec![CountedCalls::default(); arms],
            // Clients begin to call some time after it.
            current: EpochCount { is_short: true, ..EpochCount::default() },
            last: EpochCount::default(),
            heard: Vec::new(),
            pooled: vec![CountedCalls::default(); arms],
            usual_calls: 0.0,
            is_guess: true,
            proposal: None,
            changes: 0,
            changed: 0,
            rest: 0,
            budget: BUDGET_START,
        }
    }

    /// The next epoch begins if it is time.
    pub(super) fn roll(&mut self, now: Duration, epoch: Duration) {
        let passed = now.saturating_sub(self.began);
        if passed < epoch {
            return;
        }
        // Where nobody called for long, those in between are left out.
        let began = if passed < epoch * 2 { self.began + epoch } else { now };
        self.begin(self.number.wrapping_add(1), began);
    }

    /// An epoch begins, with the arm that most are for.
    pub(super) fn begin(&mut self, number: u32, began: Duration) {
        let arm = self.elected(number);
        (self.switched, self.arm) = (arm != self.arm, arm);
        self.switches += u64::from(self.switched);
        self.begun += 1;
        (self.number, self.began, self.proposal) = (number, began, None);
        for counted in &mut self.own {
            *counted = counted.times(GAMMA);
        }
        self.told.clone_from(&self.own);
        self.last = self.current;
        self.current =
            EpochCount { arm, counted: CountedCalls::default(), is_short: self.switched };
    }

    /// The arm that most are for; of equals the first of the list. Who has not said anything yet is for the one that is
    /// in force, lest a single voice decide before the others have spoken.
    pub(super) fn elected(&self, number: u32) -> usize {
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        let of_others = self.heard.iter().map(|words| words.vote(number));
        for vote in of_others.chain([self.proposal]) {
            let arm = vote.filter(|arm| *arm < self.own.len()).unwrap_or(self.arm);
            *votes.entry(arm).or_default() += 1;
        }
        let most = votes.into_iter().max_by_key(|(arm, votes)| (*votes, std::cmp::Reverse(*arm)));
        most.map_or(self.arm, |(arm, _)| arm)
    }

    /// Begins what others have begun: the next epoch a little early if half of them have, or that of most. No epoch here
    /// is shorter than half of one for what others say, but that of a node which has just started.
    pub(super) fn follow(&mut self, now: Duration, epoch: Duration) {
        let next = self.number.wrapping_add(1);
        let is_late = now.saturating_sub(self.began) >= epoch / 2;
        let ahead = self.heard.iter().filter(|words| words.number == next).count();
        if is_late && ahead > 0 && ahead * 2 >= self.heard.len() {
            return self.begin(next, now);
        }
        let mut numbers: Vec<u32> = self.heard.iter().map(|words| words.number).collect();
        numbers.push(self.number);
        numbers.sort_unstable();
        let of_most = numbers.get(numbers.len() / 2).copied().unwrap_or(self.number);
        let is_new = self.number <= 1;
        if of_most.abs_diff(self.number) > 1 && (is_late || is_new) {
            self.begin(of_most, now);
        }
    }

    /// All counts together, and of the last epoch those that had the same arm in force. Neighbours that have not told
    /// theirs yet are taken to be like the others, lest words that were lost look like calls that did not come; the
    /// second number is the share of those that have told.
    pub(super) fn pool(&mut self) -> (CountedCalls, f64) {
        self.pooled.clone_from(&self.told);
        let (mut last, mut told) = (self.last.counted, 1.0);
        let calls = |arms: &[CountedCalls]| arms.iter().map(|arm| arm.calls).sum::<f64>();
        let totals = self.heard.iter().map(|words| calls(&words.arms));
        let most = OUTWEIGHS * usual(totals.chain([calls(&self.told)]));
        let lasts = self.heard.iter().map(|words| words.last.calls);
        let last_most = OUTWEIGHS * usual(lasts.chain([self.last.counted.calls]));
        for words in &self.heard {
            let by = weight(calls(&words.arms), most);
            for (sum, counted) in self.pooled.iter_mut().zip(&words.arms) {
                *sum = sum.plus(counted.times(by));
            }
            if words.number == self.number && words.last_arm == self.last.arm {
                let counted = words.last.times(weight(words.last.calls, last_most));
                (last, told) = (last.plus(counted), told + 1.0);
            }
        }
        let told = told / (self.heard.len() as f64 + 1.0);
        (last.times(1.0 / told), told)
    }

    /// Whether a change of the load is to be believed now. Then the next one is not for some time.
    fn may_change(&mut self) -> bool {
        let since = self.number.abs_diff(self.changed);
        if self.changes > 0 && since < self.rest {
            return false;
        }
        let is_first = self.changes == 0 || since >= self.rest.saturating_mul(REST_OVER);
        self.rest = if is_first { REST } else { (self.rest * 2).min(REST_MAX) };
        (self.changes, self.changed) = (self.changes + 1, self.number);
        true
    }

    /// What this node is for next, once most have said what the last epoch came to.
    pub(super) fn propose(&mut self) {
        let (last, told) = self.pool();
        let arm = self.pooled.get(self.last.arm).copied().unwrap_or_default();
        let usual_calls = (!self.is_guess).then_some(self.usual_calls);
        // What few have told is nothing to go by, and what is left of the arm before weighs on a first epoch.
        let is_sure = told > 0.5 && !self.last.is_short && has_changed(last, usual_calls, arm);
        if is_sure && self.may_change() {
            self.usual_calls = last.calls;
            self.budget = self.budget.max(BUDGET_CHANGED);
            for counted in self.own.iter_mut().chain(&mut self.told).chain(&mut self.pooled) {
                *counted = counted.times(FORGET);
            }
        }
        if self.is_guess || self.usual_calls <= 0.0 {
            self.usual_calls = last.calls;
            self.is_guess = self.last.is_short;
        } else if !self.last.is_short {
            self.usual_calls += 0.2 * (last.calls - self.usual_calls);
        }
        let best = choice::best(&self.pooled, self.usual_calls);
        if let Some((best, share)) = best.filter(|_| last.calls > 0.0) {
            let lost = if best == self.last.arm { 0.0 } else { share - last.share() };
            self.budget = (self.budget + BUDGET_GROWS - lost.max(0.0)).min(BUDGET_MAX);
        }
        self.proposal = Some(choose(&self.pooled, self.usual_calls, self.budget, self.arm));
    }
}
