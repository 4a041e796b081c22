//! Experiments: what they are made of ([`design`]), how they are carried out on real nodes ([`run`]),
//! and how their results are told ([`report`]). [`simulate`] carries a design out in simulated time, and takes
//! the place of [`run`] alone.

pub mod design;
pub mod report;
pub mod run;
pub mod simulate;
