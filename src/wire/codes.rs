//! The contract's error codes, each with its HTTP status: the one table. Which error has which code
//! says [`crate::error::Error::code`].

use actix_web::http::StatusCode;
use serde::{Deserialize, Serialize};

/// An error as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// The contract's code.
    pub code: u32,
    /// In words.
    pub message: String,
}

/// A code of the contract and the HTTP status that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// What stands in [`WireError::code`].
    pub code: u32,
    /// The status of the answer.
    pub status: StatusCode,
}

impl ErrorCode {
    const fn new(code: u32, status: StatusCode) -> Self {
        Self { code, status }
    }

    /// Any error of the node's own.
    pub const GENERIC: Self = Self::new(1, StatusCode::INTERNAL_SERVER_ERROR);
    /// A change without the token that it wants.
    pub const NO_TOKEN: Self = Self::new(1, StatusCode::UNAUTHORIZED);
    /// A change that this client may not make.
    pub const FORBIDDEN: Self = Self::new(1, StatusCode::FORBIDDEN);
    /// There is nothing of that name or path.
    pub const NOT_FOUND: Self = Self::new(3, StatusCode::NOT_FOUND);
    /// The request cannot be read.
    pub const MALFORMED: Self = Self::new(4, StatusCode::BAD_REQUEST);
    /// The path has other methods.
    pub const WRONG_METHOD: Self = Self::new(4, StatusCode::METHOD_NOT_ALLOWED);
    /// It is to be asked by TLS.
    pub const NOT_BY_TLS: Self = Self::new(4, StatusCode::UPGRADE_REQUIRED);
    /// The request is no WebSocket's handshake.
    pub const NO_HANDSHAKE: Self = Self::new(4, StatusCode::UPGRADE_REQUIRED);
    /// The body is too large.
    pub const TOO_LARGE: Self = Self::new(4, StatusCode::PAYLOAD_TOO_LARGE);
    /// The head is too large.
    pub const HEAD_TOO_LARGE: Self = Self::new(4, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    /// The request comes too slowly.
    pub const TOO_SLOW: Self = Self::new(4, StatusCode::REQUEST_TIMEOUT);
    /// The function did not answer properly.
    pub const FUNCTION_FAILED: Self = Self::new(5, StatusCode::BAD_GATEWAY);
    /// The function did not answer in time.
    pub const FUNCTION_TIMED_OUT: Self = Self::new(5, StatusCode::GATEWAY_TIMEOUT);
    /// The function's name is none, or not one that this node serves.
    pub const BAD_FUNCTION_NAME: Self = Self::new(100, StatusCode::BAD_REQUEST);
    /// Discovery: this machine has no address.
    pub const NO_MACHINE_IP: Self = Self::new(100, StatusCode::INTERNAL_SERVER_ERROR);
    /// OpenFaaS' gateway is not there, or fails.
    pub const GATEWAY: Self = Self::new(300, StatusCode::INTERNAL_SERVER_ERROR);
    /// There is no slot and no place in the line.
    pub const CANNOT_SCHEDULE: Self = Self::new(400, StatusCode::INTERNAL_SERVER_ERROR);
    /// The node has no room for the request now.
    pub const BUSY: Self = Self::new(400, StatusCode::TOO_MANY_REQUESTS);
    /// The scheduling algorithm rejected the call.
    pub const REJECTED: Self = Self::new(401, StatusCode::SERVICE_UNAVAILABLE);
    /// The call broke on its way to a peer.
    pub const FORWARD_BROKE: Self = Self::new(403, StatusCode::INTERNAL_SERVER_ERROR);
    /// A peer answered nothing that can be read.
    pub const PEER_ANSWERED_NOTHING: Self = Self::new(404, StatusCode::INTERNAL_SERVER_ERROR);
}
