//! The port to other nodes: how a call is handed to one, what comes back, and whether a call that did not
//! come back may be tried elsewhere.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::function::{Answer, Invocation};
use crate::error::Error;
use crate::types::{Cause, Peer};
use crate::wire::PeerHop;

/// A call as it is handed to a peer.
pub struct Forward<'a> {
    /// The function and what it gets.
    pub invocation: &'a Invocation,
    /// Forwards so far, this one included.
    pub hops: u32,
    /// The nodes that it passed, this one last.
    pub path: &'a [PeerHop],
    /// A number that this node gives it.
    pub number: u64,
    /// The client's tracing id; may be empty.
    pub tracing_id: &'a str,
    /// The client's task type, as it sent it; may be empty.
    pub task_type: &'a str,
    /// What is left of the call's own deadline, if it brought one.
    pub deadline: Option<Duration>,
}

/// What came back of a forwarded call.
#[derive(Debug)]
pub struct PeerReply {
    /// The function's answer, or the error that the peer gives the client.
    pub answer: Answer,
    /// The nodes that the call passed, the executing one first.
    pub peers: Vec<PeerHop>,
}

/// Hands calls to other nodes.
pub trait Forwarder {
    /// Whether bodies stream to `peer`; else they must be whole.
    fn streams_to(&self, peer: &Peer) -> bool;

    /// Hands `call` to `peer` and waits for what comes back.
    ///
    /// # Errors
    /// Nothing came back; the failure says whether the call may be tried elsewhere.
    fn forward<'a>(
        &'a self,
        peer: &'a Peer,
        call: Forward<'a>,
    ) -> LocalBoxFuture<'a, Result<PeerReply, ForwardFailure>>;
}

/// Why nothing came back, with what the connection said.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ForwardFailure {
    /// The peer was not connected to.
    #[error("it cannot be connected to: {0}")]
    NotSent(#[source] Cause),
    /// The peer takes no call as large as that. It did not run.
    #[error("it does not take the call: {0}")]
    Refused(#[source] Cause),
    /// The connection ended, or the time was up, after the call was sent. It may have run.
    #[error("the connection broke: {0}")]
    Broke(#[source] Cause),
    /// The peer answered, but nothing that could be read. It may have run.
    #[error("its answer cannot be read: {0}")]
    Nothing(#[source] Cause),
    /// The call's own body failed, which is the client's doing.
    #[error("{0}")]
    Body(#[source] Error),
}

impl ForwardFailure {
    /// Whether the call certainly did not run there, so that it may be tried elsewhere.
    pub fn retry_is_safe(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::Refused(_))
    }

    /// The error of a call that may not be tried elsewhere: `peer` was the last that had it.
    pub fn into_error(self, peer: &Peer) -> Error {
        let peer = peer.host.to_string();
        match self {
            Self::NotSent(cause) | Self::Refused(cause) | Self::Broke(cause) => {
                Error::ForwardBroke { peer, cause }
            }
            Self::Nothing(cause) => Error::PeerAnsweredNothing { peer, cause },
            Self::Body(why) => why,
        }
    }
}
