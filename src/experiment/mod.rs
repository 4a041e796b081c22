//! Experiments on real nodes: open-loop load, a client that trains learners, results in SQLite. It
//! speaks only the nodes' public HTTP API.
//!
//! What is sent when, what it is worth and how it is told is core and stands in
//! [`mod@crate::bench`]; here is the clock, the network and the disk.

mod answer;
mod checks;
mod csv;
mod drive;
mod inputs;
mod load;
mod pacer;
mod results;
mod setup;
mod sweep;
mod training;

pub use self::inputs::Inputs;
pub use self::results::{BadResults, summary};
pub use self::sweep::{ExperimentError, Live, Progress, Sweep};
