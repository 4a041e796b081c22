//! Learning from finished tasks. Core: no IO, no clock, no randomness but what is passed in.
//!
//! A decision in state s chose action a; when its task has ended, its reward r is known, and the
//! four together are an [`Entry`]. Tasks end out of order; a [`window`] puts their entries back in
//! the order of their EIDs. A [`td`] form then learns from each consecutive pair, in a [`value`]
//! function, and [`behaviour`] chooses actions by what was learnt:
//!
//! ```text
//! entries → Window (by EID) → pairs → TD form: Q(s, a), R̄ → behaviour policy: next actions
//! ```
//!
//! [`learner::Learner`] ties them together. Source: G. Proietti Mattia, R. Beraldi, *P2PFaaS: A
//! framework for FaaS peer-to-peer scheduling and load balancing in Fog and Edge computing*,
//! SoftwareX 21 (2023) 101290, section 2.1.2; R. S. Sutton, A. G. Barto, *Reinforcement Learning*,
//! 2nd ed., chapters 6, 9, 10.
//!
//! [`registry`] lists the value functions and the TD forms, and says how to add one.

pub mod behaviour;
pub mod cow;
pub mod learner;
mod mending;
pub mod model;
pub mod parameters;
pub mod registry;
pub mod reward;
pub mod stats;
pub mod td;
pub mod value;
pub mod window;

use std::sync::Arc;

/// The number of a decision. Later decisions have larger ones; none is given twice.
pub type Eid = u64;

/// A state: finite numbers, 1 to [`FEATURES_MAX`].
pub type State = Arc<[f64]>;

/// The largest EID.
pub const EID_MAX: Eid = i64::MAX as u64;

/// The magnitude of what is learnt at most: larger values leave no step that could be told from
/// them, and such a learner would stand still.
pub const LEARNT_MAX: f64 = 1e100;

/// Features of a state at most.
pub const FEATURES_MAX: usize = 1024;

/// One decision and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number.
    pub eid: Eid,
    /// The state it was taken in.
    pub state: State,
    /// What was chosen, 0 to actions_n − 1.
    pub action: usize,
    /// What it was worth.
    pub reward: f64,
}

/// Two consecutive decisions, as a TD form sees them.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// S.
    pub state: &'a [f64],
    /// A.
    pub action: usize,
    /// R, the reward of A in S.
    pub reward: f64,
    /// S′.
    pub next_state: &'a [f64],
    /// A′.
    pub next_action: usize,
}

/// Why something cannot be a state, or an entry cannot be learnt from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadEntry {
    /// No features, or too many.
    #[error("a state has 1 to {FEATURES_MAX} features, this one has {0}")]
    Features(usize),
    /// An EID beyond the largest.
    #[error("the EID {0} is larger than {EID_MAX}")]
    Eid(Eid),
    /// An EID so far beyond all before that those in between would come too late.
    #[error(
        "the EID {eid} is larger than {max}, the largest that is taken now: decisions have come to \
         {reached}, and eids_ahead_max, a parameter of the learner, is {ahead_max}"
    )]
    FarAhead {
        /// As it came.
        eid: Eid,
        /// What may come at most.
        max: Eid,
        /// How far decisions have come.
        reached: Eid,
        /// The parameter.
        ahead_max: u64,
    },
    /// An EID that the node, which rewards its own decisions, never gave.
    #[error("the node rewards its own decisions, and never gave the EID {0}")]
    NotGiven(Eid),
    /// An EID of a decision that the node rewards itself.
    #[error("the node itself rewards the decision {0}: reward.source was node when it was taken")]
    RewardedHere(Eid),
    /// A reward that would outweigh all others.
    #[error("the reward {reward} is beyond ±{max}, by reward_abs_max, a parameter of the learner")]
    Reward {
        /// As it came.
        reward: f64,
        /// The parameter.
        max: f64,
    },
    /// A number that is not finite.
    #[error("{0} is not a finite number")]
    NotFinite(&'static str),
    /// An action that is none.
    #[error("the action is {action}, but there are actions 0 to {}", actions_n.saturating_sub(1))]
    Action {
        /// As it came.
        action: f64,
        /// How many there are.
        actions_n: usize,
    },
    /// The value function cannot tell states of this form.
    #[error("the state does not fit: {0}")]
    State(String),
}

/// Whether `state` can be one.
///
/// # Errors
/// It has no features or too many, or one that is not finite.
pub fn check_state(state: &[f64]) -> Result<(), BadEntry> {
    if state.is_empty() || state.len() > FEATURES_MAX {
        return Err(BadEntry::Features(state.len()));
    }
    match state.iter().all(|feature| feature.is_finite()) {
        true => Ok(()),
        false => Err(BadEntry::NotFinite("a feature of the state")),
    }
}

/// The index that `action` is, if it is one.
///
/// # Errors
/// It is no whole number from 0 to `actions_n` − 1.
pub fn check_action(action: f64, actions_n: usize) -> Result<usize, BadEntry> {
    if action.fract() == 0.0 && action >= 0.0 && action < actions_n as f64 {
        return Ok(action as usize);
    }
    Err(BadEntry::Action { action, actions_n })
}
