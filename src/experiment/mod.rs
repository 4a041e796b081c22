//! Experiments: what they are made of ([`design`]), how they are carried out on real nodes ([`run`]),
//! and how their results are told ([`report`]). Whoever carries out a design in another way, in
//! simulated time say, takes the place of [`run`] alone.

pub mod design;
pub mod report;
pub mod run;
