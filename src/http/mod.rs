//! What comes in: the HTTP APIs of the wire contract, one file each. Header names and
//! error codes stand in [`crate::wire`].

pub mod accompanied;
pub(crate) mod bearer;
mod bit_by_bit;
pub mod body;
pub mod discovery_api;
pub(crate) mod entries;
pub mod errors;
mod framing;
pub mod function_api;
pub mod gateway_worker;
pub(crate) mod guarded;
mod health;
mod ignored;
pub(crate) mod incoming;
pub mod last_words;
pub mod learner_api;
pub mod learner_ws;
pub mod node_api;
pub mod origin;
pub mod peer_api;
pub(crate) mod peer_head;
pub mod routes;
pub mod server;
mod streamed_peer_api;
mod upload;
mod watched;
