//! `PortfolioScheduler EPOCH POLICY|POLICY|…`: learns which algorithm to run.
//!
//! The arms are other algorithms with their parameters. In each epoch one of them is in force on all nodes; its
//! worth is the share of clients' calls that were served, and in time where they have deadlines, pooled over the
//! node and its neighbours through their records. The next one is chosen by discounted UCB (Garivier, Moulines,
//! *On upper-confidence bound policies for switching bandit problems*, ALT 2011; Kocsis, Szepesvári 2006):
//!
//! ```text
//! N(a) = Σ over epochs e  γ^(now − e) · calls that arm a decided in e        in units of an epoch's calls
//! S(a) = the same of calls in time
//! next = the a with the largest  S(a) / N(a) + c · √(ln Σ N / N(a))          γ = 0.995, c = 0.03
//! ```
//!
//! No share is larger than 1, so an arm that was never tried has that as its bound. The best arm gives way to another
//! one only where that could be better by half a point, and where the trial can be paid for: trials have a budget, as
//! in conservative bandits (Wu, Shariff, Lattimore, Szepesvári, *Conservative bandits*, ICML 2016). It grows by 1 % of
//! an epoch's calls each epoch, and each trial takes from it what it lost against the best arm. Where the arm in force does far worse or
//! better than it used to, or clients send far more or fewer calls, all that was learnt is discounted at once by
//! a factor of ten: the load has changed, and what was best may not be any more. After such a change there is none for five
//! epochs, and for twice as many each time that the next one comes soon after that: who always forgets learns nothing.
//! A node's first two epochs are not counted, since algorithms that measure their board know nothing of it yet.
//!
//! There is no leader. Each node says in its record what it has counted (`portfolio/talk.rs`), which arm it has in force and
//! which one it would choose next; all of them choose by the same sums, and where records that were lost make them
//! differ, the majority of proposals decides; no neighbour's counts weigh more than those of four usual ones. Epochs have
//! numbers, and a node that hears that half of the others have begun the next one begins it, too: clocks need not agree,
//! and a node that joins does what the others do.

mod choice;
mod state;
mod talk;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::Rng;
use serde_json::json;

use self::choice::CountedCalls;
use self::state::PortfolioState;
use self::talk::Words;
use super::params::{BadParameters, Params, duration_text};
use super::registry::SchedulerSpec;
use super::{
    Consultation, Decision, Knowledge, LineOrder, MARK_BITS, MemoryFigure, NodeView, Note, Outcome,
    OutcomeKind, Policy, Step, Task,
};
use crate::lock;
use crate::types::Peer;

/// Arms at most.
pub const ARMS_MAX: usize = 16;
/// The arms where none are named.
pub const DEFAULT_ARMS: &str = "DeadlineScheduler 3 4|CapScheduler 2 3 4|PowerOfNScheduler 2 1 true 1|\
                                CapScheduler 1 3 4|CapScheduler 4 3 4|NoScheduler false";
/// How long an epoch is where nobody says.
const EPOCH: Duration = Duration::from_secs(5);
/// Bounds of an epoch: records need some seconds to be everywhere.
const EPOCH_MIN: Duration = Duration::from_secs(3);
const EPOCH_MAX: Duration = Duration::from_secs(3600);

const COUNTED: u64 = 1 << MARK_BITS;
const ARM_SHIFT: u32 = MARK_BITS + 1;

/// See the module.
pub struct PortfolioScheduler {
    epoch: Duration,
    arms: Vec<Arc<dyn Policy>>,
    /// Tells this portfolio from others with other arms, in what nodes say.
    tag: u32,
    state: Mutex<PortfolioState>,
}

/// An algorithm with all of its parameters, as it is configured.
fn words(arm: &dyn Policy) -> String {
    SchedulerSpec::of(arm).words()
}

impl PortfolioScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "PortfolioScheduler";

    /// Reads `EPOCH POLICY|POLICY|…`; without any, an epoch of 5 s and [`DEFAULT_ARMS`].
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        let wanted = "a duration from 3s to 1h, such as 5s";
        let epoch = match params.has_more() {
            true => params.duration_within("epoch", EPOCH_MIN, EPOCH_MAX, wanted)?,
            false => EPOCH,
        };
        let named = params.rest();
        let named = if named.is_empty() { DEFAULT_ARMS } else { &*named };
        let mut arms = Vec::new();
        for words in named.split('|') {
            let spec = SchedulerSpec::from_words(words);
            let arm = if spec.name == Self::NAME { None } else { Some(spec.build()?) };
            arms.extend(arm.filter(|arm| !arm.converses()));
            if arms.len() > ARMS_MAX || spec.name == Self::NAME {
                return Err(params.wrong("algorithms", named, "at most 16 others, with | between"));
            }
        }
        // FNV-1a of what is the same at all nodes of one portfolio.
        let all = arms.iter().map(|arm| words(&**arm)).chain([duration_text(epoch)]);
        let tag = all.flat_map(|text| format!("{text}|").into_bytes());
        let tag = tag.fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Ok(Self { epoch, state: Mutex::new(PortfolioState::new(arms.len())), arms, tag })
    }

    fn state(&self) -> MutexGuard<'_, PortfolioState> {
        lock(&self.state)
    }

    fn arm(&self, index: usize) -> Option<&dyn Policy> {
        self.arms.get(index).map(|arm| &**arm)
    }

    /// The arm that decides a call of that mark.
    fn marked(&self, mark: u64) -> Option<&dyn Policy> {
        self.arm((mark >> ARM_SHIFT) as usize % (ARMS_MAX * 2))
    }

    fn any(&self, is_so: impl Fn(&dyn Policy) -> bool) -> bool {
        self.arms.iter().any(|arm| is_so(&**arm))
    }

    fn settle(&self) -> Duration {
        (self.epoch / 5).min(Duration::from_secs(1))
    }
}

impl Policy for PortfolioScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        let arms: Vec<_> = self.arms.iter().map(|arm| words(&**arm)).collect();
        vec![duration_text(self.epoch), arms.join("|")]
    }

    fn mark(&self, task: &Task, now: Duration) -> u64 {
        let mut state = self.state();
        state.roll(now, self.epoch);
        let settles = state.switched && now.saturating_sub(state.began) < self.settle();
        let settles = settles || state.begun < state::NOT_COUNTED;
        let arm = state.arm;
        drop(state);
        let inner = self.arm(arm).map_or(0, |policy| policy.mark(task, now));
        let counted = if settles || task.from_peer { 0 } else { COUNTED };
        (arm as u64) << ARM_SHIFT | counted | inner & (COUNTED - 1)
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        match self.marked(heard.mark) {
            // A peer whose arms do not let calls go further may find another one in force here.
            Some(arm) => arm.next(task, node, heard, rng),
            None => Step::Decide(Decision::RunHere { may_wait: true }),
        }
    }

    fn task_types(&self) -> usize {
        self.arms.iter().map(|arm| arm.task_types()).max().unwrap_or_default()
    }

    fn learns(&self) -> bool {
        self.any(Policy::learns)
    }

    fn may_return(&self) -> bool {
        self.any(Policy::may_return)
    }

    fn may_forward(&self, task: &Task) -> bool {
        self.any(|arm| arm.may_forward(task))
    }

    fn line_order(&self, mark: u64) -> LineOrder {
        self.marked(mark).map_or(LineOrder::Arrival, |arm| arm.line_order(mark))
    }

    fn hears_outcomes(&self) -> bool {
        true
    }

    fn outcome(&self, outcome: &Outcome<'_>) {
        if let Some(arm) = self.marked(outcome.mark).filter(|arm| arm.hears_outcomes()) {
            arm.outcome(outcome);
        }
        // What clients do wrong, or give up before it is late, is nothing that an arm did.
        let is_clients = outcome.kind == OutcomeKind::Gone && !outcome.is_late();
        if outcome.mark & COUNTED == 0 || is_clients {
            return;
        }
        let index = (outcome.mark >> ARM_SHIFT) as usize;
        let one = CountedCalls { calls: 1.0, in_time: f64::from(u8::from(outcome.in_time())) };
        let mut state = self.state();
        if let Some(counted) = state.own.get_mut(index) {
            *counted = counted.plus(one);
        }
        if state.current.arm == index {
            state.current.counted = state.current.counted.plus(one);
        }
    }

    fn program(&self) -> Option<&str> {
        self.arms.iter().find_map(|arm| arm.program())
    }

    fn tells(&self) -> Option<Consultation> {
        self.arms.iter().find_map(|arm| arm.tells())
    }

    fn bids(&self) -> bool {
        self.any(Policy::bids)
    }

    fn bid(&self, task: &Task, node: NodeView<'_>) -> Option<f64> {
        let arm = self.state().arm;
        self.arm(arm)?.bid(task, node)
    }

    fn bidder(&self) -> &'static str {
        let arm = self.state().arm;
        self.arm(arm).map_or(Self::NAME, Policy::bidder)
    }

    fn hears_bids_of(&self, mark: u64) -> &'static str {
        self.marked(mark).map_or(Self::NAME, |arm| arm.hears_bids_of(mark))
    }

    fn notices_idle(&self) -> bool {
        self.any(Policy::notices_idle)
    }

    fn on_idle(&self, node: NodeView<'_>, rng: &mut dyn Rng) -> Option<Note> {
        let arm = self.state().arm;
        let mut note = self.arm(arm).filter(|arm| arm.notices_idle())?.on_idle(node, rng)?;
        note.text.insert(0, u8::try_from(arm).ok()?);
        Some(note)
    }

    fn noted(&self, from: &str, text: &[u8], now: Duration) {
        if let Some((arm, text)) = text.split_first()
            && let Some(arm) = self.arm(usize::from(*arm))
        {
            arm.noted(from, text, now);
        }
    }

    fn converses(&self) -> bool {
        true
    }

    fn says(&self, _: Duration) -> Vec<u8> {
        let state = self.state();
        let words = Words {
            number: state.number,
            arm: state.arm,
            proposal: state.proposal,
            last_arm: state.last.arm,
            last: state.last.counted,
            arms: state.told.clone(),
        };
        words.to_bytes(self.tag)
    }

    fn hears(&self, peers: &[Peer], now: Duration) {
        let said = peers.iter().filter_map(|peer| peer.record.as_ref());
        let words = said.filter_map(|record| Words::read(&record.saying, self.tag));
        let heard: Vec<Words> = words.filter(|words| words.arms.len() == self.arms.len()).collect();
        let mut state = self.state();
        state.heard = heard;
        state.roll(now, self.epoch);
        let is_half = now.saturating_sub(state.began) >= self.epoch / 2;
        if is_half && state.proposal.is_none() {
            state.propose();
        }
        state.follow(now, self.epoch);
    }

    fn improves(&self) -> bool {
        true
    }

    fn figures(&self) -> Vec<MemoryFigure> {
        let state = self.state();
        let figure = |what, of: &str, value| MemoryFigure { what, of: of.to_owned(), value };
        let mut all = vec![
            figure("epoch", "", f64::from(state.number)),
            figure("switches", "", state.switches as f64),
            figure("changes_of_load", "", state.changes as f64),
            figure("budget", "", state.budget),
        ];
        for (index, (arm, counted)) in self.arms.iter().zip(&state.pooled).enumerate() {
            let (name, in_force) = (words(&**arm), index == state.arm);
            let bound = choice::bound(*counted, &state.pooled, state.usual_calls);
            all.push(figure("in_force", &name, f64::from(u8::from(in_force))));
            all.push(figure("calls", &name, counted.calls));
            all.push(figure("share_in_time", &name, counted.share()));
            all.extend(bound.map(|bound| figure("bound", &name, bound)));
        }
        all
    }

    fn warning(&self) -> Option<String> {
        let all: Vec<String> = self.arms.iter().filter_map(|arm| arm.warning()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn memory(&self) -> Option<serde_json::Value> {
        let state = self.state();
        let arms = self.arms.iter().zip(&state.pooled).zip(&state.own);
        let arms: Vec<_> = arms
            .map(|((arm, pooled), own)| {
                json!({
                    "scheduler": words(&**arm),
                    "calls": pooled.calls,
                    "in_time": pooled.in_time,
                    "share": if pooled.calls > 0.0 { Some(pooled.share()) } else { None },
                    "bound": choice::bound(*pooled, &state.pooled, state.usual_calls),
                    "own_calls": own.calls,
                    "memory": arm.memory(),
                })
            })
            .collect();
        Some(json!({
            "epoch": state.number,
            "epoch_s": self.epoch.as_secs_f64(),
            "in_force": self.arm(state.arm).map(words),
            "in_force_arm": state.arm,
            "next_arm": state.proposal,
            "switches": state.switches,
            "changes_of_load": state.changes,
            "budget": state.budget,
            "calls_an_epoch": state.usual_calls,
            "neighbours_heard": state.heard.len(),
            "arms": arms,
        }))
    }
}

#[cfg(test)]
mod tests;
