//! A node runtime for Functions-as-a-Service on edge and fog machines that share their work as
//! peers, with no central orchestrator. One process is one node is one supervision tree of actors.
//!
//! # Layout
//!
//! Three layers; imports point down only (`tests/layers.rs` holds them to it).
//!
//! 1. **Core**, no IO, no clock, no randomness but what is passed in: [`policy`] (scheduling
//!    algorithms), [`rl`] (learning), [`queue`] (the queue discipline), [`membership`] (who is
//!    alive), [`mod@bench`] (experiments), [`types`], [`error`].
//! 2. **Actors** ([`actors`]): own the state, the clock and the timers; turn messages into core
//!    calls and core effects into messages.
//! 3. **Edges**: [`http`] (what comes in), [`faas`], [`peer`], [`learner_pool`] and [`client`] (what
//!    goes out), [`dispatch`] (a call's way through the node), [`fleet`] (other nodes from the
//!    outside), [`experiment`] (load and results), [`config`], [`saved`], [`storage`] and [`cli`].
//!
//! # What it must not become
//!
//! An orchestrator: nodes are equals and decide with what they know themselves. A proxy with
//! plugins: what is added is an algorithm or a backend, in one file, behind the trait that is
//! there for it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// They panic when the reader is gone; `cli::output` has what does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// So that the README's examples can be put into files of this crate as they stand.
extern crate self as p2pfaas;

pub mod actors;
pub mod bench;
pub mod budget;
pub mod cli;
pub mod client;
pub mod config;
pub mod connections;
pub mod dispatch;
pub mod error;
pub mod experiment;
pub mod faas;
pub mod fleet;
pub mod frames;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod json;
pub mod learner_pool;
pub mod limit;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod policy;
pub mod queue;
pub mod rl;
pub mod saved;
pub mod state;
pub mod storage;
pub mod telemetry;
pub mod timer;
pub mod types;
pub mod wire;

/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The version, as in `X-P2pfaas-Version`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that this was built from, `unknown` outside a checkout.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// Locks a mutex whose data stays consistent even if a holder panicked.
pub(crate) fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
