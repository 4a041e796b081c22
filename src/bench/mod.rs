//! What experiments are made of: generated traffic, arrivals, plans of requests, statistics, closed
//! forms, reports. No IO; randomness is passed in.

pub mod about;
pub mod arrivals;
pub mod job;
pub mod plan;
pub mod plots;
pub mod report;
pub mod scenario;
pub mod stats;
pub mod summary;
pub mod theory;
pub mod trace;
