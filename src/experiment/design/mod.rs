//! What is sent when: scenarios, generated traffic, arrivals, plans of calls, and what a run is and was.
//! No IO; randomness is passed in.

pub mod about;
pub mod arrivals;
pub mod job;
pub mod plan;
pub mod scenario;
pub mod trace;
