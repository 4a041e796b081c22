//! Waiting for a time, and giving up after one.

pub mod limit;
pub mod timer;
