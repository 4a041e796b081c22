//! Asking a peer for its load.

use actix_web::http::header::{self, HeaderMap, HeaderName};
use futures_util::future::LocalBoxFuture;

use super::PeerClient;
use crate::actors::scheduler::Prober;
use crate::client::SendFailure;
use crate::time::limit::Expired;
use crate::types::{Load, Peer};
use crate::wire::{MACHINE_AGENT, headers};

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    headers::text(headers, name).trim().parse().ok()
}

impl PeerClient {
    async fn ask_load(&self, peer: &Peer) -> Result<Load, SendFailure> {
        let uri = self.url(&peer.host, self.settings.scheduler_port, "/monitoring/load")?;
        let request = self.probes.get().get(uri).insert_header((header::USER_AGENT, MACHINE_AGENT));
        let answer = request.send().await?;
        let loads = answer.headers();
        let running = number(loads, &headers::LOAD).filter(|_| answer.status().is_success());
        match running {
            Some(running) => {
                let waiting = number(loads, &headers::QUEUE_LENGTH).unwrap_or(0);
                Ok(Load { running, waiting })
            }
            None => Err(SendFailure::Broke("the answer tells no load".to_owned())),
        }
    }
}

impl Prober for PeerClient {
    fn probe(&self, peer: Peer) -> LocalBoxFuture<'_, Option<Load>> {
        Box::pin(async move {
            let load = match self.probe_limit.hold(Box::pin(self.ask_load(&peer))).await {
                Ok(Ok(load)) => Some(load),
                Ok(Err(failure)) => {
                    self.report(&peer.host, &failure);
                    tracing::debug!(peer = %peer.host, ?failure, "a probe failed");
                    None
                }
                Err(Expired) => None,
            };
            self.metrics.probe(load.is_some());
            load
        })
    }
}
