//! A cluster in simulated time: the algorithms, queues, learners and ejection of real nodes, driven by events
//! instead of sockets and clocks. Core: no IO, and all chance comes from the world's seed, so that the same world and
//! the same requests give the same history.
//!
//! What is simulated and what is not, with the error against real nodes, stands in `docs/simulation.md`.
//!
//! [`Simulation::run`] goes to the end; [`Simulation::advance`] gives one ended call after the other. With
//! [`Simulation::decided_outside`] it stops at each decision on a client's call and takes it from its caller, without
//! threads: what an environment for reinforcement learning needs.

mod agenda;
mod calls;
mod engine;
mod learning;
mod members;
mod network;
mod node;
mod world;

pub use self::calls::{CallEnd, PassedNode};
pub use self::engine::{BadWorld, Finished, Oracle, SimProgress, Simulation};
pub use self::members::MEMBERS_MAX;
pub use self::network::{Link, Network};
pub use self::world::{
    BoardUse, FaultKind, LearningSetup, Neighbourhood, NodeSetup, Overheads, Request, Rewarding,
    SimFault, SimMembership, WaitTimes, World,
};

#[cfg(test)]
mod tests;
