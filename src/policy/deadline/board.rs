//! What a node has found out about its own board: how long functions take, how many of them it can work on at
//! once, and what runs now.
//!
//! The board is taken to share c effective cores among n running calls, so that each works at the rate
//! min(1, c / n). For each c of a grid, the node sums up the work that its calls would have done at that rate. The c
//! that is right makes a call's work what calls of its type take alone:
//!
//! ```text
//! V_c(t) = ∫ min(1, c / n(t)) dt           e_c = V_c(end) − V_c(begin) − w(type)
//! ĉ      = the largest c of the grid up to which Σ e_c is nearer to what c says than to what the next
//!          smaller one says, over the calls for which the two differ
//! w      = mean time of calls that were alone; of others, V_ĉ(end) − V_ĉ(begin)
//! ```
//!
//! Calls that another algorithm let in are among the n, as many as were seen last. Nothing is learnt of a call that ran
//! beside one: when such calls came and how long they take is not known.

use std::time::Duration;

use serde_json::json;

use super::Prospect;
use crate::policy::{MemoryFigure, NodeView, Outcome, OutcomeKind, Task};
use crate::types::TaskType;

/// Task types that are told apart; all others count as one more.
const TYPES: usize = 16;
/// Effective cores that are told apart.
const CORES: [f64; 20] = [
    1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0,
    32.0, 64.0, 1e9,
];
/// Work that would have been done, by effective cores.
type Work = [f64; CORES.len()];
/// Calls that are foretold one by one.
const FORETOLD_MAX: usize = 64;
/// So many observations of a kind are something to go by.
const KNOWN: f64 = 3.0;
/// Calls of a type that was never alone that are enough to go by: for what ran at once with it, it takes as long as it
/// takes.
const SEEN: f64 = 20.0;
/// A call beside which fewer ran in mean was alone.
const ALONE: f64 = 1.05;
/// By how much of a call's work two numbers of cores must differ for it to tell them apart.
const APART: f64 = 0.02;
/// The weight of what was observed before, at each new observation: about the last 300 count.
const KEEP: f64 = 1.0 - 1.0 / 300.0;
/// How fast the mean of a type's times follows calls that were alone, at least, and all others.
const FOLLOW: f64 = 0.05;
const FOLLOW_BESIDE: f64 = 0.01;
/// Of the calls that would be late even alone, one in so many runs on an empty board: times change.
const TRIED_AGAIN: u64 = 32;
/// Times that vary by less are taken for always the same.
const VARIES: f64 = 0.05;
/// The share of a deadline that is left for what is not seen here: timers, and the way to the client.
const MARGIN: f64 = 0.02;
/// A call that took so much less than it was here has waited, in seconds.
const WAITED_S: f64 = 0.002;

/// A call that runs or waits here.
#[derive(Clone, Copy, Debug)]
struct Inside {
    mark: u64,
    /// Work that is left by what calls of its type take in mean, in seconds alone on the board.
    left_s: f64,
    /// Work that is left at least: calls that take long may take longer. Of exponential times, as much as ever.
    least_s: f64,
    /// Its deadline, on the node's clock in seconds.
    due_s: Option<f64>,
    /// When it was taken, and the sums then.
    came_s: f64,
    work: Work,
    crowd_s: f64,
}

/// Times of calls of one type, as if alone.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// How many there were, and how many of those were alone.
    seen: f64,
    alone: f64,
    mean_s: f64,
    /// By how much they differ: the variance in squares of the mean.
    variation: f64,
}

/// A call as it is foretold: work that is left, and its deadline.
#[derive(Clone, Copy, Debug)]
struct Foretold {
    left_s: f64,
    due_s: Option<f64>,
}

/// Of the calls that tell this number of cores from the next smaller one.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    count: f64,
    /// By how much more work they would have done than their type takes.
    over_s: f64,
    /// By how much more than with the next smaller one.
    apart_s: f64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BoardModel {
    /// The first K of them run, the others wait.
    inside: Vec<Inside>,
    /// Calls that others let in, such as an algorithm that was in force before: how many there were when it was looked
    /// last, and when there was one last, if ever.
    strangers: usize,
    strangers_s: Option<f64>,
    /// Up to when work was reckoned.
    reckoned_s: f64,
    k: u32,
    types: [Taken; TYPES + 1],
    told: [Told; CORES.len()],
    work: Work,
    /// The time of all running calls together.
    crowd_s: f64,
}

fn place(task_type: TaskType) -> usize {
    task_type.index().unwrap_or(TYPES).min(TYPES)
}

impl BoardModel {
    /// How long a call of that type takes alone, in seconds, and how long one still does that takes longer; 0 while
    /// nothing is known.
    fn expected(&self, task_type: TaskType) -> (f64, f64) {
        let taken = self.types.get(place(task_type)).copied().unwrap_or_default();
        let varies = taken.variation > VARIES;
        let least_s = if varies { taken.mean_s * taken.variation.min(1.0) } else { 0.0 };
        (taken.mean_s, least_s)
    }

    /// The place of ĉ in the grid. What was never told apart is believed to be more cores.
    fn cores_at(&self) -> usize {
        let is_wrong = |told: &Told| told.count >= KNOWN && told.over_s > told.apart_s / 2.0;
        self.told.iter().skip(1).position(is_wrong).unwrap_or(CORES.len() - 1)
    }

    fn cores(&self) -> f64 {
        CORES.get(self.cores_at()).copied().unwrap_or(1.0)
    }

    fn running(&self) -> usize {
        (self.inside.len() + self.strangers).min(self.k.max(1) as usize)
    }

    /// So many calls are here now.
    fn looks(&mut self, here: u32, now_s: f64) {
        self.strangers = (here as usize).saturating_sub(self.inside.len());
        if self.strangers > 0 {
            self.strangers_s = Some(now_s);
        }
    }

    /// Reckons up to that moment.
    fn advance(&mut self, now_s: f64) {
        let passed = now_s - self.reckoned_s;
        if passed <= 0.0 {
            return;
        }
        self.reckoned_s = now_s;
        let running = self.running();
        if running == 0 {
            return;
        }
        let done = passed * (self.cores() / running as f64).min(1.0);
        for call in self.inside.iter_mut().take(running) {
            call.left_s = (call.left_s - done).max(0.0);
        }
        for (work, cores) in self.work.iter_mut().zip(CORES) {
            *work += passed * (cores / running as f64).min(1.0);
        }
        self.crowd_s += passed * running as f64;
    }

    /// A call is taken.
    pub(super) fn admits(
        &mut self,
        mark: u64,
        task: &Task,
        now: Duration,
        left: Option<Duration>,
        k: u32,
    ) {
        let came_s = now.as_secs_f64();
        self.advance(came_s);
        self.k = k;
        let (left_s, least_s) = self.expected(task.task_type);
        let due_s = left.map(|left| came_s + left.as_secs_f64());
        let (work, crowd_s) = (self.work, self.crowd_s);
        // It may have been decided before, and not been carried out.
        self.inside.retain(|call| call.mark != mark);
        self.inside.push(Inside { mark, left_s, least_s, due_s, came_s, work, crowd_s });
    }

    /// A call that was decided here has ended.
    pub(super) fn ended(&mut self, outcome: &Outcome<'_>) {
        let now_s = outcome.now.as_secs_f64();
        self.advance(now_s);
        let Some(index) = self.inside.iter().position(|call| call.mark == outcome.mark) else {
            return;
        };
        let slots = self.k.max(1) as usize;
        let call = self.inside.remove(index);
        if index < slots && self.inside.len() >= slots {
            self.next_runs(slots - 1);
        }
        if let Some(execution) = outcome.execution
            && outcome.kind == OutcomeKind::Served
        {
            self.learn(outcome.task.task_type, &call, execution.as_secs_f64(), now_s);
        }
    }

    /// The slot at that place is free: of those that wait, the one that is due first has it now.
    fn next_runs(&mut self, free: usize) {
        let due_s = |call: &Inside| call.due_s.unwrap_or(f64::MAX);
        let waiting = self.inside.iter().enumerate().skip(free);
        let next = waiting.min_by(|(_, one), (_, other)| due_s(one).total_cmp(&due_s(other)));
        if let Some((index, _)) = next {
            let call = self.inside.remove(index);
            self.inside.insert(free, call);
        }
    }

    /// A call took so long here, up to now.
    fn learn(&mut self, task_type: TaskType, call: &Inside, took_s: f64, now_s: f64) {
        if now_s - call.came_s > took_s + WAITED_S || took_s <= 0.0 {
            return;
        }
        // How much work strangers had, and since when, nobody knows.
        if self.strangers_s.is_some_and(|seen_s| seen_s >= call.came_s) {
            return;
        }
        let mut done = self.work;
        for (work, before) in done.iter_mut().zip(call.work) {
            *work -= before;
        }
        let at = self.cores_at();
        let Some(taken) = self.types.get_mut(place(task_type)) else { return };
        taken.seen = (taken.seen + 1.0).min(SEEN);
        if (self.crowd_s - call.crowd_s) / took_s < ALONE {
            taken.alone = (taken.alone + 1.0).min(1.0 / FOLLOW);
            taken.follow(took_s, 1.0 / taken.alone);
            return;
        }
        let follow = if taken.mean_s > 0.0 { FOLLOW_BESIDE } else { 1.0 };
        taken.follow(done.get(at).copied().unwrap_or(took_s), follow);
        // Cores are found out by what the type takes alone.
        if taken.alone < KNOWN {
            return;
        }
        let alone_s = taken.mean_s;
        for (told, pair) in self.told.iter_mut().skip(1).zip(done.windows(2)) {
            let [less, more] = *pair else { continue };
            if more - less > APART * alone_s {
                told.count = told.count * KEEP + 1.0;
                told.over_s = told.over_s * KEEP + more - alone_s;
                told.apart_s = told.apart_s * KEEP + more - less;
            }
        }
    }

    /// Whether enough is known to say what becomes of a call of that type.
    fn can_tell(&self, task_type: TaskType) -> bool {
        let taken = self.types.get(place(task_type));
        taken.is_some_and(|taken| taken.alone >= KNOWN || taken.seen >= SEEN)
    }

    /// What would become of one more call, and of those that are here. `mark`: of a call that may be a trial; `None`: a
    /// peer asks, whose call nothing is tried on.
    pub(super) fn prospect(
        &mut self,
        task: &Task,
        node: NodeView<'_>,
        left: Option<Duration>,
        mark: Option<u64>,
    ) -> Prospect {
        let now_s = node.now.as_secs_f64();
        self.advance(now_s);
        self.k = node.k;
        self.looks(node.load.total(), now_s);
        // What has no room is refused, whenever it would end.
        if node.load.running >= node.k && node.places == 0 {
            return Prospect { ends_s: f64::MAX, harm: usize::MAX, is_unhindered: false };
        }
        let foretold =
            |call: &Inside| Foretold { left_s: call.left_s.max(call.least_s), due_s: call.due_s };
        // Of more than run and wait, some have ended, and their clients are still reading.
        let mut over = self.inside.len().saturating_sub(node.load.total() as usize);
        let is_inside = |call: &&Inside| {
            let has_ended = over > 0 && call.left_s <= 0.0;
            over -= usize::from(has_ended);
            !has_ended
        };
        let inside = self.inside.iter().filter(is_inside);
        let mut calls: Vec<Foretold> = inside.take(FORETOLD_MAX).map(foretold).collect();
        // Of calls that others let in nothing is known but that they are there.
        let usual = self.usual_s() / 2.0;
        for _ in 0..self.strangers.min(FORETOLD_MAX) {
            calls.push(Foretold { left_s: usual, due_s: None });
        }
        let is_trial = mark.is_some_and(|mark| mark.is_multiple_of(TRIED_AGAIN));
        let (can_tell, has_slot) = (self.can_tell(task.task_type), calls.len() < node.k as usize);
        if calls.is_empty() && (!can_tell || is_trial) || !can_tell && is_trial && has_slot {
            // This is how times are found out: on an empty board nobody is harmed, and seldom beside others.
            return Prospect { ends_s: 0.0, harm: 0, is_unhindered: true };
        }
        if !can_tell {
            // Without a deadline nothing is at stake: then the load has to do.
            let harm = if left.is_some() { calls.len() } else { 0 };
            let ends_s = calls.len() as f64 / f64::from(node.k.max(1));
            return Prospect { ends_s, harm, is_unhindered: false };
        }
        // What is not foretold one by one takes its time, too.
        let beyond = (node.load.total() as usize).saturating_sub(calls.len());
        let at_once = self.cores().min(f64::from(node.k.max(1)));
        let beyond_s = beyond as f64 * self.usual_s() / at_once;
        let before = self.ends(&calls, node.k);
        let due_s = left.map(|left| now_s + left.as_secs_f64() * (1.0 - MARGIN));
        let (left_s, _) = self.expected(task.task_type);
        calls.push(Foretold { left_s, due_s });
        let after = self.ends(&calls, node.k);
        let late = |end: f64, due: Option<f64>| due.is_some_and(|due| now_s + end > due);
        let harmed = |((before, after), call): &((&f64, &f64), &Foretold)| {
            !late(**before, call.due_s) && late(**after, call.due_s)
        };
        Prospect {
            ends_s: (after.last().copied().unwrap_or_default() + beyond_s) / (1.0 - MARGIN),
            is_unhindered: calls.len() as f64 <= self.cores().min(f64::from(node.k)),
            harm: before.iter().zip(&after).zip(&calls).filter(harmed).count(),
        }
    }

    fn usual_s(&self) -> f64 {
        let known = self.types.iter().filter(|taken| taken.mean_s > 0.0);
        let (count, sum) = known.fold((0.0, 0.0), |(n, sum), taken| (n + 1.0, sum + taken.mean_s));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// When each of these calls would end, from now: those in the first K places run at once and slow each
    /// other, the others follow, the one that is due first first.
    fn ends(&self, calls: &[Foretold], k: u32) -> Vec<f64> {
        let (k, cores) = (k.max(1) as usize, self.cores());
        let mut ends = vec![0.0; calls.len()];
        let mut running: Vec<(usize, f64)> =
            calls.iter().enumerate().take(k).map(|(index, call)| (index, call.left_s)).collect();
        let mut waiting: Vec<usize> = (k.min(calls.len())..calls.len()).collect();
        let due = |index: &usize| calls.get(*index).and_then(|call| call.due_s);
        // The first is at the end, from where it is taken.
        waiting.reverse();
        waiting.sort_by(|one, other| {
            due(other).unwrap_or(f64::MAX).total_cmp(&due(one).unwrap_or(f64::MAX))
        });
        let mut now = 0.0;
        while let Some(least) = running.iter().map(|(_, left)| *left).reduce(f64::min) {
            now += least * (running.len() as f64 / cores).max(1.0);
            for (_, left) in &mut running {
                *left -= least;
            }
            running.retain(|(index, left)| {
                let goes_on = *left > 0.0;
                if let Some(end) = ends.get_mut(*index).filter(|_| !goes_on) {
                    *end = now;
                }
                goes_on
            });
            while running.len() < k
                && let Some(index) = waiting.pop()
            {
                running.push((index, calls.get(index).map_or(0.0, |call| call.left_s)));
            }
        }
        ends
    }

    pub(super) fn figures(&self) -> Vec<MemoryFigure> {
        let what = "seconds_alone";
        let known = self.types.iter().enumerate().filter(|(_, taken)| taken.mean_s > 0.0);
        let types = known.map(|(index, taken)| {
            let of = if index < TYPES { format!("type {index}") } else { "others".to_owned() };
            MemoryFigure { what, of, value: taken.mean_s }
        });
        let cores = Some(self.cores()).filter(|cores| *cores < 1e6);
        let cores =
            cores.map(|value| MemoryFigure { what: "effective_cores", of: String::new(), value });
        types.chain(cores).collect()
    }

    pub(super) fn memory(&self) -> serde_json::Value {
        let types: Vec<_> = self.types.iter().map(|taken| taken.mean_s).collect();
        let known = types.iter().rposition(|mean| *mean > 0.0).map_or(0, |last| last + 1);
        let cores = Some(self.cores()).filter(|cores| *cores < 1e6);
        json!({
            "seconds_by_type": types.get(..known).unwrap_or_default(),
            "effective_cores": cores,
            "calls_here": self.inside.len(),
        })
    }
}

impl Taken {
    /// A call took so long.
    fn follow(&mut self, took_s: f64, weight: f64) {
        let off = took_s - self.mean_s;
        self.mean_s += off * weight;
        let off = off / self.mean_s.max(1e-9);
        // The first one is off nothing.
        let weight = if self.seen < 2.0 { 0.0 } else { weight };
        self.variation += (off * off - self.variation) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_that_wait_the_one_that_is_due_first_runs_next() {
        let (mut board, task) = (BoardModel::default(), Task::default());
        for (mark, left_s) in [(1, None), (2, None), (3, Some(9)), (4, Some(5))] {
            board.admits(mark, &task, Duration::ZERO, left_s.map(Duration::from_secs), 1);
        }
        let mut ran = Vec::new();
        while let Some(&Inside { mark, .. }) = board.inside.first() {
            ran.push(mark);
            board.ended(&Outcome {
                task: &task,
                mark,
                now: Duration::from_secs(mark),
                kind: OutcomeKind::Served,
                peer: None,
                execution: Some(Duration::from_secs(1)),
                total: Duration::from_secs(1),
            });
        }
        assert_eq!(ran, [1, 4, 3, 2]);
    }
}
