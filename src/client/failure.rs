//! Why a request got no answer, and how far it came.

use std::io;
use std::time::Duration;

use awc::error::{ConnectError, SendRequestError};

use crate::error::Error;
use crate::types::Cause;

/// How far a request came that got no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SendFailure {
    /// The host's name resolves to nothing. Nothing was sent.
    #[error("the host is not known: {0}")]
    UnknownHost(#[source] Cause),
    /// No connection. Nothing was sent.
    #[error("{0}")]
    NotConnected(#[source] Cause),
    /// The host's name leads back to this machine, or to its link, which names that clients type may
    /// not. Nothing was sent.
    #[error("it is on this machine")]
    NearHost,
    /// There is no such request. Nothing was sent, and nothing is said about the host.
    #[error("{0}")]
    Invalid(#[source] Cause),
    /// No answer came for so long. It may have been acted on.
    #[error("no answer within {} s", .0.as_secs_f64())]
    NoAnswer(Duration),
    /// The request's own body failed, whose answer this is. Part of it may have been acted on.
    #[error("{0}")]
    RequestBody(#[source] Error),
    /// An answer came that is no HTTP/1. It may have been acted on.
    #[error("unreadable answer: {0}")]
    Unreadable(#[source] Cause),
    /// The connection ended after the request went out. It may have been acted on.
    #[error("{0}")]
    Broke(#[source] Cause),
}

impl SendFailure {
    /// Whether nothing was sent, so that the request may be sent elsewhere.
    pub fn retry_is_safe(&self) -> bool {
        match self {
            Self::UnknownHost(_) | Self::NotConnected(_) | Self::NearHost | Self::Invalid(_) => {
                true
            }
            Self::NoAnswer(_) | Self::RequestBody(_) | Self::Unreadable(_) | Self::Broke(_) => {
                false
            }
        }
    }

    /// Whether it was this side that did not wait any longer.
    pub fn is_own_deadline(&self) -> bool {
        let Self::NotConnected(cause) = self else { return false };
        // The system's own time-out has a number.
        let own = |e: &io::Error| e.kind() == io::ErrorKind::TimedOut && e.raw_os_error().is_none();
        cause.find().is_some_and(own)
    }

    /// Whether the other side was there, and did not agree on TLS.
    pub fn is_of_tls(&self) -> bool {
        use io::ErrorKind as K;
        let Self::NotConnected(cause) = self else { return false };
        let of_tls = |error: &io::Error| matches!(error.kind(), K::InvalidData | K::UnexpectedEof);
        cause.find().is_some_and(of_tls)
    }

    /// Whether a failed connection speaks against the host. Too few file descriptors or ports here do not.
    pub fn is_hosts_fault(&self) -> bool {
        use io::ErrorKind as K;
        let Self::NotConnected(cause) = self else { return false };
        let of_host = |error: &io::Error| {
            matches!(
                error.kind(),
                K::ConnectionRefused
                    | K::ConnectionReset
                    | K::ConnectionAborted
                    | K::HostUnreachable
                    | K::NetworkUnreachable
                    | K::TimedOut
            )
        };
        self.is_of_tls() || cause.find().is_some_and(of_host)
    }
}

impl From<SendRequestError> for SendFailure {
    fn from(error: SendRequestError) -> Self {
        match error {
            // The client says "disconnected" when a connection it had ended without an answer.
            SendRequestError::Connect(ConnectError::Disconnected) => {
                Self::Broke(Cause::of("the connection was closed before an answer came"))
            }
            // Some of this client's errors stay on their thread: of them the words are kept.
            SendRequestError::Connect(ConnectError::Resolver(why)) => {
                Self::UnknownHost(Cause::of(why.to_string()))
            }
            SendRequestError::Connect(ConnectError::NoRecords) => {
                Self::UnknownHost(Cause::of("the name has no address"))
            }
            SendRequestError::Connect(ConnectError::Io(why)) => Self::NotConnected(Cause::of(why)),
            SendRequestError::Connect(why @ ConnectError::Timeout) => Self::NotConnected(
                Cause::of(io::Error::new(io::ErrorKind::TimedOut, why.to_string())),
            ),
            SendRequestError::Connect(why) => Self::NotConnected(Cause::of(why.to_string())),
            SendRequestError::Url(why) => Self::Invalid(Cause::of(why)),
            SendRequestError::Http(why) => Self::Invalid(Cause::of(why)),
            SendRequestError::Send(why) => Self::Broke(Cause::of(why)),
            SendRequestError::Response(why) => {
                Self::Broke(Cause::of(format!("unreadable answer: {why}")))
            }
            why => Self::Broke(Cause::of(why.to_string())),
        }
    }
}
