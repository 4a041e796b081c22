//! What experiments are made of. Core: no IO, no clock, no chance but what is passed in.

pub mod trace;
