//! What comes in: the HTTP APIs of the wire contract, one file each. This is the only place that
//! knows header names, status codes and error codes.

pub mod accompanied;
mod bit_by_bit;
pub mod body;
pub mod discovery_api;
pub(crate) mod entries;
pub mod errors;
mod framing;
pub mod function_api;
pub(crate) mod guarded;
pub mod headers;
pub mod learner_api;
pub mod learner_ws;
pub mod node_api;
pub mod origin;
pub mod peer_api;
pub mod server;
mod watched;
