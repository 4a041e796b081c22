//! What is sent when: scenarios, generated traffic, arrivals, plans of calls, and what a run is and was.
//! No IO; randomness is passed in.

pub mod about;
pub mod arrivals;
pub mod azure;
pub mod job;
pub mod plan;
pub mod recorded;
pub mod replay;
pub mod scenario;
mod table;
pub mod trace;
