//! What can go wrong with a call, as types. The wire codes and HTTP statuses of these errors
//! stand in one table, [`crate::http::errors`].

use std::time::Duration;

use crate::metrics::Refused;
use crate::policy::params::BadParameters;
use crate::queue::Refusal;
use crate::types::{BadFunctionName, FunctionName};

/// Why a request was not answered as its sender wished.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The request does not say what it must, or not in the form it must.
    #[error("Passed input is not correct or malformed: {0}")]
    Malformed(String),
    /// A body over the limit.
    #[error("The body is larger than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The limit that it broke.
        limit_bytes: usize,
    },
    /// A body that did not come to its end in time.
    #[error("The body did not arrive within {} s", limit.as_secs_f64())]
    BodyTimedOut {
        /// The time that it had.
        limit: Duration,
    },
    /// A body that comes more slowly than the least rate.
    #[error("The body came too slowly")]
    BodyTooSlow,
    /// There is no room now for a request like this; others needed it more.
    #[error("The node has no room for this now: try again")]
    Busy,
    /// A change that a page of another site asks for, or that goes to a name which is none of this
    /// node's: a browser may have been led here.
    #[error("This node is not changed from another site: {0}")]
    Foreign(String),
    /// No route has this path.
    #[error("There is nothing at this path")]
    UnknownPath,
    /// The path has other methods only.
    #[error("This path does not take this method")]
    WrongMethod,
    /// A port for WebSockets was called otherwise.
    #[error("This port takes WebSockets only: the request is no handshake")]
    NotAWebSocket,
    /// The function's name is none.
    #[error("Function name is not valid: {0}")]
    BadFunctionName(#[from] BadFunctionName),
    /// The node serves a list of functions and this is not among them.
    #[error("Function name is not valid: {0} is not among the functions that this node serves")]
    FunctionNotServed(FunctionName),
    /// The function's name resolves to nothing.
    #[error("Function {0} was not found: no route, embedded function, gateway or host has it")]
    UnknownFunction(FunctionName),
    /// The function's server does not take connections. It did not run.
    #[error("Function {name} cannot be contacted: {why}")]
    FunctionUnreachable {
        /// The function.
        name: FunctionName,
        /// What the connection said.
        why: String,
    },
    /// The connection to the function ended before its answer did. It may have run.
    #[error("Function {name} did not answer properly: {why}")]
    FunctionBroke {
        /// The function.
        name: FunctionName,
        /// What the connection said.
        why: String,
    },
    /// The function took longer than it may. It may have run.
    #[error("Function {name} did not answer within {} s", limit.as_secs_f64())]
    FunctionTimedOut {
        /// The function.
        name: FunctionName,
        /// The time that it had.
        limit: Duration,
    },
    /// No slot, no place in the line.
    #[error("Job cannot be scheduled: {0}")]
    CannotSchedule(#[from] Refusal),
    /// The scheduling algorithm takes no such call on this node.
    #[error("Job cannot be scheduled: a master takes no calls from clients")]
    RefusedByScheduler,
    /// The scheduling algorithm rejected the call.
    #[error("Job has been deliberately rejected")]
    Rejected,
    /// The connection to the peer broke after the call was sent. It may have run there.
    #[error("Job cannot be forwarded to neighbor {peer}: {why}")]
    ForwardBroke {
        /// The peer.
        peer: String,
        /// What the connection said.
        why: String,
    },
    /// The peer answered, but not with a peer answer.
    #[error("Neighbor {peer} answered with nothing: {why}")]
    PeerAnsweredNothing {
        /// The peer.
        peer: String,
        /// What was wrong with its answer.
        why: String,
    },
    /// A peer route was called by somebody who is no node.
    #[error("Generic Error: only nodes call this, with the user agent Machine")]
    NotAMachine,
    /// A scheduler that cannot be set.
    #[error("Bad passed parameters for scheduler: {0}")]
    BadScheduler(#[from] BadParameters),
    /// An OpenFaaS route without a gateway behind it.
    #[error("No OpenFaaS gateway is configured for this node")]
    NoGateway,
    /// The OpenFaaS gateway does not answer, or not as its API says.
    #[error("OpenFaaS gateway error: {0}")]
    Gateway(String),
    /// The operator closed the routes that change the node.
    #[error("This node does not let itself be changed from here")]
    AdminClosed,
    /// The node stopped before the call was through.
    #[error("Generic Error: the node is stopping")]
    Stopped,
    /// A part of the node failed.
    #[error("Generic Error: {0}")]
    Internal(String),
}

impl Error {
    /// How the metrics count a call that ended so.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::CannotSchedule(_) | Self::RefusedByScheduler => "full",
            Self::Rejected => "rejected",
            Self::ForwardBroke { .. } | Self::PeerAnsweredNothing { .. } => "forward_failed",
            Self::FunctionTimedOut { .. } => "timed_out",
            Self::UnknownFunction(_)
            | Self::FunctionUnreachable { .. }
            | Self::FunctionBroke { .. }
            | Self::Gateway(_) => "function_failed",
            Self::Stopped | Self::Internal(_) => "node_failed",
            Self::Busy => "full",
            _ => "bad_request",
        }
    }
}

impl Error {
    /// Under which kind the metrics count a refusal, if this is one.
    pub fn refusal(&self) -> Option<Refused> {
        Some(match self {
            Self::Malformed(_) => Refused::Malformed,
            Self::BodyTooLarge { .. } => Refused::LargeBody,
            Self::BodyTimedOut { .. } => Refused::LateBody,
            Self::CannotSchedule(Refusal::BytesFull) => Refused::Bytes,
            Self::Foreign(_) => Refused::Foreign,
            Self::AdminClosed => Refused::Closed,
            // Those that were ended for it were counted then.
            _ => return None,
        })
    }
}

/// Why discovery's configuration cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("No IP address is configured for this machine and its interface has none")]
pub struct NoMachineIp;
