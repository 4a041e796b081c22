//! Experiments on real nodes: open-loop load, a client that trains learners, results in SQLite. It
//! speaks only the nodes' public HTTP API.
//!
//! What is sent when, what it is worth and how it is told is core and stands in
//! [`super::design`]; here is the clock, the network and the disk.

pub(crate) mod answer;
mod calibrate;
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

pub use self::calibrate::calibrate;
pub use self::inputs::Inputs;
pub use self::load::{Ready, SEED};
pub use self::results::{BadResults, SimulatedResults, summary};
pub use self::sweep::Sweep;

use std::path::Path;
use std::time::Duration;

use crate::experiment::design::about::About;
use crate::types::printable;

/// Characters of a line on what is wrong with a node that are told; nodes tell what stands in it.
const LINE_CHARS_MAX: usize = 8192;

/// One below the other, each a line of its own whatever a node has told.
fn lines(told: &[String]) -> String {
    let shown: Vec<String> = told.iter().map(|line| printable(line, LINE_CHARS_MAX)).collect();
    shown.join("\n")
}

/// Why an experiment did not go to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// Files that it names cannot be used.
    #[error("{}", .0.join("\n"))]
    Inputs(Vec<String>),
    /// Something would spoil it.
    #[error("this would spoil the run (checks = false goes on all the same):\n{}", lines(.0))]
    Checks(Vec<String>),
    /// The nodes could not be set up, or did not become quiet.
    #[error("{}", lines(.0))]
    Fleet(Vec<String>),
    /// Results could not be written.
    #[error(transparent)]
    Results(#[from] BadResults),
    /// Something of this machine's failed.
    #[error("{0}")]
    Machine(String),
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunProgress {
    /// Seconds since its beginning.
    pub elapsed_s: f64,
    /// Calls that have ended.
    pub ended: u64,
    /// Of those, answered well and within their deadline.
    pub in_time: u64,
    /// Of those, failed: neither answered well nor refused.
    pub failed: u64,
    /// Calls under way.
    pub in_flight: usize,
}

/// Who is told how it goes.
pub trait Progress {
    /// A run, or a warm-up, of that title begins.
    fn begins(&self, title: &str, duration: Duration);
    /// It goes on.
    fn goes_on(&self, live: &RunProgress);
    /// It has ended, with its results there.
    fn ended(&self, about: &About, results: &Path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_tell_stays_on_its_line_in_what_is_wrong_with_them() {
        let told = vec!["10.0.0.1: has \u{1b}[2J\nall is well".to_owned(), "b".to_owned()];
        for error in [ExperimentError::Checks(told.clone()), ExperimentError::Fleet(told)] {
            let text = error.to_string();
            assert!(text.ends_with("[2J\u{fffd}all is well\nb"), "{text:?}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}
