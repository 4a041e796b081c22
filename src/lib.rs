//! A node runtime for Functions-as-a-Service on edge and fog machines that share their work as
//! peers, with no central orchestrator. One process is one node is one supervision tree of actors.
//!
//! # Layout
//!
//! Each module has a layer and uses only those below it (`tests/layers.rs` names what each may use).
//!
//! 0. **Words and ground**: [`types`]; [`keys`] (what people set by name); [`wire`] (what travels between
//!    nodes: header names, codes, JSON and its bounds), [`time`], [`memory`], [`storage`],
//!    [`telemetry`].
//! 1. **Core**, no IO, no clock, no randomness but what is passed in: [`policy`] (scheduling
//!    algorithms), [`rl`] (learning), [`queue`] (who waits and who is next), [`service`] (what calls take),
//!    [`outliers`] (who is left out), [`membership`] (who is alive), [`simulation`] (all of it in simulated
//!    time), [`experiment::design`] and [`experiment::report`], [`error`].
//! 2. **What a node is set to, keeps, counts and holds**: [`config`], [`saved`], [`metrics`],
//!    [`connections`].
//! 3. **Actors** ([`actors`]): own the state, the clock and the timers; turn messages into core
//!    calls and core effects into messages.
//! 4. **A call's way** ([`call`]): scheduled, run here or forwarded, tried again; functions and peers are
//!    behind ports.
//! 5. **Edges**: [`http`] (what comes in); [`faas`], [`peer`] and [`client`] (what goes out); [`fleet`]
//!    (other nodes from the outside) [`experiment::run`] (load and results) and
//!    [`experiment::simulate`] (the same in simulated time).
//! 6. **Assembly**: [`node`] puts a node together, starts and stops it.
//! 7. **The program**: [`cli`].
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

// So that the book's examples can be put into files of this crate as they stand.
extern crate self as p2pfaas;

pub mod actors;
pub mod call;
pub mod cli;
pub mod client;
pub mod config;
pub mod connections;
pub mod error;
pub mod experiment;
pub mod faas;
pub mod fleet;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod keys;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod outliers;
pub mod peer;
pub mod policy;
pub mod queue;
pub mod rl;
pub mod saved;
pub mod service;
pub mod simulation;
pub mod storage;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod trust;
pub mod types;
pub mod wire;

/// The README's example of an algorithm with a memory, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The examples of the page on algorithms, compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/write-a-scheduler.md")]
struct WriteAScheduler;

/// The examples of the page on value functions and TD forms, compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/write-a-value-function.md")]
struct WriteAValueFunction;

/// The version, as in `X-P2pfaas-Version`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that this was built from, `unknown` outside a checkout.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// Locks a mutex whose data stays consistent even if a holder panicked.
pub(crate) fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
