//! Asking a peer for its load.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use super::{PeerClient, ROUND_TRIPS};
use crate::actors::scheduler::{ProbeAbout, Prober};
use crate::call::body::RequestBody;
use crate::client::SendFailure;
use crate::client::http1::OutgoingRequest;
use crate::policy::Probe;
use crate::time::limit::Expired;
use crate::types::{Cause, Load, Peer};
use crate::wire::peer2::load_by_type;
use crate::wire::{MACHINE_AGENT, headers, six_decimals};

/// Bytes of an answer to a probe; it has none.
const LOAD_BYTES_MAX: usize = 1 << 10;

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    headers::text(headers, name).trim().parse().ok()
}

impl PeerClient {
    async fn ask_load(
        &self,
        peer: &Peer,
        about: Option<ProbeAbout<'_>>,
    ) -> Result<Probe, SendFailure> {
        let mut told = HeaderMap::with_capacity(4);
        told.insert(header::USER_AGENT, HeaderValue::from_static(MACHINE_AGENT));
        if let Some(ProbeAbout { task, bidder }) = about {
            let mut tell = |name: &HeaderName, text: String| {
                // Numbers and names of algorithms can always be headers.
                if let Ok(value) = HeaderValue::from_str(&text) {
                    told.insert(name.clone(), value);
                }
            };
            tell(&headers::BID, bidder.to_owned());
            tell(&headers::PEER_TASK_TYPE, task.task_type.0.to_string());
            if let Some(deadline) = task.deadline {
                tell(&headers::PEER_DEADLINE, six_decimals(deadline.as_secs_f64()));
            }
        }
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
                let bid = headers::text(loads, &headers::BID).trim().parse().ok();
                let probe = Probe {
                    peer: peer.clone(),
                    load: Load { running, waiting },
                    k: number(loads, &headers::MAX_LOAD),
                    by_type: load_by_type(headers::text(loads, &headers::LOAD_BY_TYPE)),
                    bid: bid.filter(|bid: &f64| bid.is_finite()),
                };
                // Then the connection is kept.
                let _ = answer.body.collect(LOAD_BYTES_MAX).await;
                Ok(probe)
            }
            None => Err(SendFailure::Broke(Cause::of("the answer tells no load"))),
        }
    }
}

impl Prober for PeerClient {
    fn probe<'a>(
        &'a self,
        peer: Peer,
        about: Option<ProbeAbout<'a>>,
    ) -> LocalBoxFuture<'a, Option<Probe>> {
        Box::pin(async move {
            let asked = Box::pin(self.ask_load(&peer, about));
            let asked = match peer.far {
                // Those that are near share one timer.
                Duration::ZERO => self.probe_limit.hold(asked).await,
                far => {
                    let limit = self.probe_limit.length() + far * ROUND_TRIPS;
                    timeout(limit, asked).await.map_err(|_| Expired)
                }
            };
            let answer = match asked {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(failure)) => {
                    self.report(&peer.host, &failure);
                    tracing::debug!(peer = %peer.host, ?failure, "a probe failed");
                    None
                }
                Err(Expired) => None,
            };
            self.metrics.probe(answer.is_some());
            answer
        })
    }
}
