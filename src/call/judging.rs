//! What the ends of calls say of peers and of this node, and which peers a call is not to go to.

use std::sync::Arc;

use actix_web::http::StatusCode;

use super::forward::{ForwardFailure, PeerReply};
use super::function::Answer;
use super::outliers::Away;
use super::{Call, Dispatcher};
use crate::error::{Error, Fault};
use crate::outliers::AtPeer;
use crate::policy::Policy;
use crate::types::{FunctionName, Peer};

impl Dispatcher {
    /// Peers to which this call is not to go under `policy`: calls like it fail there, or it has passed them
    /// already.
    pub(super) fn left_out(&self, call: &Call, policy: &dyn Policy) -> Vec<Arc<str>> {
        let published = self.node.published.load();
        let mut out = match self.node.settings.peer_ejection {
            true => self.node.outliers.left_out(
                &published.peers,
                &published.failing,
                &call.invocation.name,
            ),
            false => Vec::new(),
        };
        if !policy.may_return() {
            out.extend(call.path.iter().map(|hop| hop.machine_ip.as_str().into()));
        }
        out
    }

    /// What became of what ran here.
    pub(super) fn judge_here(&self, ran: &Result<Answer, Error>) {
        let failed = match ran {
            Ok(answer) => answer.status.is_server_error(),
            Err(error) if error.fault() == Fault::Function => true,
            // It did not come to an end, or never began.
            Err(_) => return,
        };
        self.node.outliers.ended_here(failed);
    }

    /// What became of a call of `function` at `peer` is remembered.
    pub(super) fn judge(
        &self,
        peer: &Peer,
        function: &FunctionName,
        away: Option<Away<'_>>,
        result: &Result<PeerReply, ForwardFailure>,
    ) {
        let Some((away, what)) = away.zip(at_peer(result)) else { return };
        if away.ended(what) {
            tracing::warn!(peer = %peer.host, %function, ?what, "calls fail at a peer: it is left out");
            self.node.metrics.left_out();
        }
    }
}

/// What a call that was handed to a peer says of that peer; `None`: nothing. That it is full, or rejects calls,
/// is no failure.
pub(super) fn at_peer(result: &Result<PeerReply, ForwardFailure>) -> Option<AtPeer> {
    let reply = match result {
        Ok(reply) => reply,
        Err(ForwardFailure::NotSent(_) | ForwardFailure::Broke(_) | ForwardFailure::Nothing(_)) => {
            return Some(AtPeer::PeerFailed);
        }
        Err(ForwardFailure::Refused(_) | ForwardFailure::Body(_)) => return None,
    };
    let executed = reply.peers.iter().any(|hop| hop.timings.execution_time.is_some());
    match reply.answer.status {
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Some(AtPeer::FunctionFailed),
        status if executed && status.is_server_error() => Some(AtPeer::FunctionFailed),
        _ if executed => Some(AtPeer::Served),
        _ => Some(AtPeer::Refused),
    }
}
