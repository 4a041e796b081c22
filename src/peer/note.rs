//! Short messages between the scheduling algorithms of two nodes.

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};

use super::PeerClient;
use crate::call::body::RequestBody;
use crate::client::http1::OutgoingRequest;
use crate::policy::Note;
use crate::types::Identity;
use crate::wire::peer2::{note_text, path_text};
use crate::wire::{MACHINE_AGENT, PeerHop, headers};

/// Bytes of an answer to a note; it has none.
const ANSWER_BYTES_MAX: usize = 1 << 10;

impl PeerClient {
    /// Tells the algorithm of that `name` at a peer what that of this node, which is `own`, has to say. What
    /// does not arrive is not said again.
    pub async fn note(&self, note: &Note, name: &str, own: &Identity) {
        let mut told = HeaderMap::with_capacity(3);
        told.insert(header::USER_AGENT, HeaderValue::from_static(MACHINE_AGENT));
        let path = path_text(&[PeerHop::at(own)]);
        for (name, text) in [(&headers::NOTE, note_text(&note.text)), (&headers::PEER_PATH, path)] {
            // Both are printable by what they are made of.
            if let Ok(value) = HeaderValue::from_str(&text) {
                told.insert(name.clone(), value);
            }
        }
        let request = OutgoingRequest {
            origin: self.scheduler_of(&note.to),
            method: Method::POST,
            target: format!("/peer/2/note/{name}"),
            headers: told,
            body: RequestBody::EMPTY,
            upgrades: false,
            asks_first: false,
        };
        let sent = async {
            match self.probes.send(request).await {
                // Then the connection is kept.
                Ok(answer) => drop(answer.body.collect(ANSWER_BYTES_MAX).await),
                Err(failure) => {
                    self.report(&note.to.host, &failure);
                    tracing::debug!(peer = %note.to.host, ?failure, "a note did not arrive");
                }
            }
        };
        // Whoever does not answer in the time of a probe has not heard it.
        let _ = self.probe_limit.hold(Box::pin(sent)).await;
    }
}
