//! What can go wrong with a call, as types, each with its code of the wire contract, whose fault it is, and
//! whether the call may be sent again without running twice.

use std::time::Duration;

use crate::policy::params::BadParameters;
use crate::queue::Refusal;
use crate::trust::sealed::NotOpened;
use crate::types::{BadFunctionName, Cause, FunctionName};
use crate::wire::codes::ErrorCode;

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
    /// A request's head that did not come to its end in time.
    #[error("The request's head came too slowly")]
    HeadTooSlow,
    /// A request's head over the limit, or for which there is no room.
    #[error("The request's head is too large")]
    HeadTooLarge,
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
    /// The function's name leads to this machine itself, or only to its link.
    #[error(
        "Function {0} was not called: its name leads to this machine itself or to an address of its \
         link; a list of functions with it (P2PFAAS_FNS_LIST={0}) or a route (P2PFAAS_ROUTES={0}=URL) \
         allows it"
    )]
    NearFunction(FunctionName),
    /// The function's server does not take connections. It did not run.
    #[error("Function {name} cannot be contacted: {cause}")]
    FunctionUnreachable {
        /// The function.
        name: FunctionName,
        /// What the connection said.
        #[source]
        cause: Cause,
    },
    /// The connection to the function ended before its answer did. It may have run.
    #[error("Function {name} did not answer properly: {cause}")]
    FunctionBroke {
        /// The function.
        name: FunctionName,
        /// What the connection said.
        #[source]
        cause: Cause,
    },
    /// An answer that is needed whole, and is larger than that can be.
    #[error("The answer is larger than {limit_bytes} bytes")]
    AnswerTooLarge {
        /// The limit that it broke.
        limit_bytes: usize,
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
    #[error("Job cannot be forwarded to neighbor {peer}: {cause}")]
    ForwardBroke {
        /// The peer.
        peer: String,
        /// What the connection said.
        #[source]
        cause: Cause,
    },
    /// The peer answered, but not with a peer answer.
    #[error("Neighbor {peer} answered with nothing: {cause}")]
    PeerAnsweredNothing {
        /// The peer.
        peer: String,
        /// What was wrong with its answer.
        #[source]
        cause: Cause,
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
    Gateway(#[source] Cause),
    /// The operator closed the routes that change the node.
    #[error("This node does not let itself be changed from here")]
    AdminClosed,
    /// A change without the token that this node wants for it.
    #[error("This change wants this node's admin token, as Authorization: Bearer TOKEN; {0}")]
    NoToken(&'static str),
    /// Somebody who is no member of this node's cluster called as if it were, or a member in the clear.
    #[error("This node hears only members of its cluster, by TLS: {0}")]
    NoMember(&'static str),
    /// Something for clients was asked in the clear where they are served by TLS.
    #[error("This node serves clients by TLS: ask by https")]
    NotByTls,
    /// The node stopped before the call was through.
    #[error("Generic Error: the node is stopping")]
    Stopped,
    /// A part of the node failed.
    #[error("Generic Error: {0}")]
    Internal(#[source] Cause),
}

impl Error {
    /// Its code on the wire, with the HTTP status.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotAMachine | Self::BadScheduler(_) | Self::Stopped | Self::Internal(_) => {
                ErrorCode::GENERIC
            }
            Self::NoToken(_) => ErrorCode::NO_TOKEN,
            Self::AdminClosed | Self::Foreign(_) | Self::NoMember(_) => ErrorCode::FORBIDDEN,
            Self::UnknownPath | Self::UnknownFunction(_) | Self::NearFunction(_) => {
                ErrorCode::NOT_FOUND
            }
            Self::Malformed(_) => ErrorCode::MALFORMED,
            Self::WrongMethod => ErrorCode::WRONG_METHOD,
            Self::NotByTls => ErrorCode::NOT_BY_TLS,
            Self::NotAWebSocket => ErrorCode::NO_HANDSHAKE,
            Self::BodyTooLarge { .. } => ErrorCode::TOO_LARGE,
            Self::BodyTimedOut { .. } | Self::BodyTooSlow | Self::HeadTooSlow => {
                ErrorCode::TOO_SLOW
            }
            Self::HeadTooLarge => ErrorCode::HEAD_TOO_LARGE,
            Self::Busy => ErrorCode::BUSY,
            Self::FunctionUnreachable { .. }
            | Self::FunctionBroke { .. }
            | Self::AnswerTooLarge { .. } => ErrorCode::FUNCTION_FAILED,
            Self::FunctionTimedOut { .. } => ErrorCode::FUNCTION_TIMED_OUT,
            Self::BadFunctionName(_) | Self::FunctionNotServed(_) => ErrorCode::BAD_FUNCTION_NAME,
            Self::NoGateway | Self::Gateway(_) => ErrorCode::GATEWAY,
            Self::CannotSchedule(_) | Self::RefusedByScheduler => ErrorCode::CANNOT_SCHEDULE,
            Self::Rejected => ErrorCode::REJECTED,
            Self::ForwardBroke { .. } => ErrorCode::FORWARD_BROKE,
            Self::PeerAnsweredNothing { .. } => ErrorCode::PEER_ANSWERED_NOTHING,
        }
    }

    /// Whose doing it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Malformed(_)
            | Self::BodyTooLarge { .. }
            | Self::BodyTimedOut { .. }
            | Self::BodyTooSlow
            | Self::HeadTooSlow
            | Self::HeadTooLarge
            | Self::Foreign(_)
            | Self::UnknownPath
            | Self::WrongMethod
            | Self::NotAWebSocket
            | Self::BadFunctionName(_)
            | Self::FunctionNotServed(_)
            | Self::UnknownFunction(_)
            | Self::NearFunction(_)
            | Self::NotAMachine
            | Self::BadScheduler(_)
            | Self::NoGateway
            | Self::NoMember(_)
            | Self::NotByTls
            | Self::NoToken(_)
            | Self::AdminClosed => Fault::Client,
            Self::FunctionUnreachable { .. }
            | Self::FunctionBroke { .. }
            | Self::FunctionTimedOut { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Gateway(_) => Fault::Function,
            Self::ForwardBroke { .. } | Self::PeerAnsweredNothing { .. } => Fault::Peer,
            Self::Busy
            | Self::CannotSchedule(_)
            | Self::RefusedByScheduler
            | Self::Rejected
            | Self::Stopped
            | Self::Internal(_) => Fault::Node,
        }
    }

    /// Whether the function certainly did not run, so that the same call may be sent again, here or
    /// elsewhere, and will not run twice.
    pub fn retry_is_safe(&self) -> bool {
        match self {
            // It was sent, or may have been.
            Self::FunctionBroke { .. }
            | Self::FunctionTimedOut { .. }
            | Self::AnswerTooLarge { .. }
            | Self::ForwardBroke { .. }
            | Self::PeerAnsweredNothing { .. }
            | Self::Gateway(_)
            | Self::Stopped
            | Self::Internal(_)
            // A body that streams ends so when the function has begun to read it.
            | Self::BodyTooLarge { .. }
            | Self::BodyTimedOut { .. }
            | Self::BodyTooSlow
            | Self::Malformed(_) => false,
            _ => true,
        }
    }

    /// What became of a call that ended so.
    pub fn outcome(&self) -> CallOutcome {
        match self {
            Self::CannotSchedule(_) | Self::RefusedByScheduler | Self::Busy => CallOutcome::Full,
            Self::Rejected => CallOutcome::Rejected,
            Self::ForwardBroke { .. } | Self::PeerAnsweredNothing { .. } => {
                CallOutcome::ForwardFailed
            }
            Self::FunctionTimedOut { .. } => CallOutcome::TimedOut,
            Self::UnknownFunction(_)
            | Self::NearFunction(_)
            | Self::FunctionUnreachable { .. }
            | Self::FunctionBroke { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Gateway(_) => CallOutcome::FunctionFailed,
            Self::Stopped | Self::Internal(_) => CallOutcome::NodeFailed,
            _ => CallOutcome::BadRequest,
        }
    }

    /// Under which kind the metrics count a refusal, if this is one.
    pub fn refusal(&self) -> Option<RefusalKind> {
        Some(match self {
            Self::Malformed(_) => RefusalKind::Malformed,
            Self::BodyTooLarge { .. } => RefusalKind::LargeBody,
            Self::BodyTimedOut { .. } => RefusalKind::LateBody,
            Self::CannotSchedule(Refusal::BytesFull) => RefusalKind::Bytes,
            Self::Foreign(_) => RefusalKind::Foreign,
            Self::AdminClosed => RefusalKind::Closed,
            Self::NoMember(_) => RefusalKind::Stranger,
            Self::NoToken(_) => RefusalKind::Token,
            // Those that were ended for it were counted then.
            _ => return None,
        })
    }
}

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever sent the request: it is wrong, or not allowed, or came too slowly.
    Client,
    /// The function, or what stands before it.
    Function,
    /// Another node.
    Peer,
    /// This node: it has no room, its algorithm does not want the call, or a part of it failed.
    Node,
}

impl Fault {
    /// Its label in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Function => "function",
            Self::Peer => "peer",
            Self::Node => "node",
        }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It ran here.
    Executed,
    /// It ran at a peer.
    Forwarded,
    /// Its client went away before it ended.
    HungUp,
    /// There was no room for it.
    Full,
    /// The scheduling algorithm rejected it.
    Rejected,
    /// It broke on its way to a peer.
    ForwardFailed,
    /// The function took too long.
    TimedOut,
    /// The function is not there, or did not answer properly.
    FunctionFailed,
    /// The node stopped, or a part of it failed.
    NodeFailed,
    /// It was none that can be carried out.
    BadRequest,
}

impl CallOutcome {
    /// Its label in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Forwarded => "forwarded",
            Self::HungUp => "hung_up",
            Self::Full => "full",
            Self::Rejected => "rejected",
            Self::ForwardFailed => "forward_failed",
            Self::TimedOut => "timed_out",
            Self::FunctionFailed => "function_failed",
            Self::NodeFailed => "node_failed",
            Self::BadRequest => "bad_request",
        }
    }

    /// Whether something failed that was to work: neither the client's mistake nor a refusal.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::ForwardFailed | Self::TimedOut | Self::FunctionFailed | Self::NodeFailed
        )
    }
}

/// What a node refuses or ends so that it goes on serving: the kinds that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// A connection, for want of room and of any that could end for it.
    Connection,
    /// A connection that made room for others.
    Room,
    /// A request whose head came too slowly.
    SlowHead,
    /// A body that came too slowly.
    SlowBody,
    /// An answer that its client does not read.
    SlowAnswer,
    /// A request that the parser refused: malformed, or its head too large.
    BadHead,
    /// A body larger than its route takes.
    LargeBody,
    /// A body that was not whole in time.
    LateBody,
    /// A body, or an answer, for which there was no room.
    Bytes,
    /// A message or header that cannot be read or is beyond its bounds.
    Malformed,
    /// A change that comes from a page of another site, or by a name that is none of this node's.
    Foreign,
    /// A change that the operator lets nobody make, or not from there.
    Closed,
    /// A change without the node's admin token.
    Token,
    /// Who is no member of the cluster and called, or connected, as if it were.
    Stranger,
    /// A datagram that no member sealed.
    Unsealed,
    /// A datagram of a member that has come before.
    Replayed,
    /// A datagram of a member whose clock is too far from this node's.
    Clock,
    /// One change too many at a time.
    Busy,
}

impl RefusalKind {
    /// What it counts as when something sealed is not opened.
    pub fn of(why: NotOpened) -> Self {
        match why {
            NotOpened::Replayed | NotOpened::Sessions => Self::Replayed,
            NotOpened::Time(_) => Self::Clock,
            NotOpened::Open | NotOpened::OtherKey | NotOpened::Forged => Self::Unsealed,
        }
    }

    /// All kinds, with the label of each.
    pub const KINDS: &'static [(Self, &'static str)] = &[
        (Self::Connection, "connection"),
        (Self::Room, "room"),
        (Self::SlowHead, "slow_head"),
        (Self::SlowBody, "slow_body"),
        (Self::SlowAnswer, "slow_answer"),
        (Self::BadHead, "bad_head"),
        (Self::LargeBody, "large_body"),
        (Self::LateBody, "late_body"),
        (Self::Bytes, "bytes"),
        (Self::Malformed, "malformed"),
        (Self::Foreign, "foreign"),
        (Self::Closed, "closed"),
        (Self::Token, "token"),
        (Self::Stranger, "stranger"),
        (Self::Unsealed, "unsealed"),
        (Self::Replayed, "replayed"),
        (Self::Clock, "clock"),
        (Self::Busy, "busy"),
    ];
}

/// Why discovery's configuration cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("No IP address is configured for this machine and its interface has none")]
pub struct NoMachineIp;
