//! Asking a peer for its load.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use super::{PeerClient, ROUND_TRIPS};
use crate::actors::scheduler::Prober;
use crate::call::body::RequestBody;
use crate::client::SendFailure;
use crate::client::http1::OutgoingRequest;
use crate::time::limit::Expired;
use crate::types::{Cause, Load, Peer};
use crate::wire::{MACHINE_AGENT, headers};

/// Bytes of an answer to a probe; it has none.
const LOAD_BYTES_MAX: usize = 1 << 10;

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    headers::text(headers, name).trim().parse().ok()
}

impl PeerClient {
    async fn ask_load(&self, peer: &Peer) -> Result<Load, SendFailure> {
        let mut told = HeaderMap::with_capacity(1);
        told.insert(header::USER_AGENT, HeaderValue::from_static(MACHINE_AGENT));
        let request = OutgoingRequest {
            origin: self.scheduler_of(peer),
            method: Method::GET,
            target: "/monitoring/load".to_owned(),
            headers: told,
            body: RequestBody::EMPTY,
            upgrades: false,
            asks_first: false,
        };
        let answer = self.probes.send(request).await?;
        let (loads, status) = (&answer.headers, answer.status);
        let running = number(loads, &headers::LOAD).filter(|_| status.is_success());
        match running {
            Some(running) => {
                let waiting = number(loads, &headers::QUEUE_LENGTH).unwrap_or(0);
                // Then the connection is kept.
                let _ = answer.body.collect(LOAD_BYTES_MAX).await;
                Ok(Load { running, waiting })
            }
            None => Err(SendFailure::Broke(Cause::of("the answer tells no load"))),
        }
    }
}

impl Prober for PeerClient {
    fn probe(&self, peer: Peer) -> LocalBoxFuture<'_, Option<Load>> {
        Box::pin(async move {
            let asked = Box::pin(self.ask_load(&peer));
            let asked = match peer.far {
                // Those that are near share one timer.
                Duration::ZERO => self.probe_limit.hold(asked).await,
                far => {
                    let limit = self.probe_limit.length() + far * ROUND_TRIPS;
                    timeout(limit, asked).await.map_err(|_| Expired)
                }
            };
            let load = match asked {
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
