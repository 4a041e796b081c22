//! What experiments are made of: generated traffic, arrivals, plans of requests, statistics, closed
//! forms, reports. No IO; randomness is passed in.

pub mod arrivals;
pub mod plan;
pub mod stats;
pub mod theory;
pub mod trace;
