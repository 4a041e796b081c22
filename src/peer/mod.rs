//! Calls to other nodes: probe, forward, poll. The wire of v1, from the caller's side.

mod forward;
mod poll;
mod probe;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Uri;

pub(crate) use self::forward::read_answer;
pub use self::poll::own_address;
use crate::actors::discovery::{Discovery, Unreachable};
use crate::actors::supervise::Handle;
use crate::client::{Hosts, Renewed, SendFailure};
use crate::config::Settings;
use crate::connections::Bodies;
use crate::memory;
use crate::memory::budget::Budget;
use crate::metrics::Metrics;
use crate::time::limit::TimeLimit;
use crate::types::url_host;

/// Bytes that other machines' lists hold while they are read, at most a 32nd of the memory.
const LISTS_BYTES_MAX: u64 = 16 << 20;

/// A worker thread's client for other nodes. Cheap to clone.
#[derive(Clone)]
pub struct PeerClient {
    client: Renewed,
    /// Gives up connecting within a probe's time, so that a host that is not there is noticed.
    probes: Renewed,
    settings: Arc<Settings>,
    discovery: Handle<Discovery>,
    metrics: Arc<Metrics>,
    probe_limit: TimeLimit,
    forward_limit: TimeLimit,
    bodies: Bodies,
    /// The budget of other machines' lists, all that are read at once; small ones take no share of it.
    lists: Bodies,
}

impl PeerClient {
    /// A client for the current thread. Peers that cannot be connected to are reported to
    /// `discovery`.
    pub fn new(
        settings: Arc<Settings>,
        discovery: Handle<Discovery>,
        metrics: Arc<Metrics>,
        bodies: Bodies,
    ) -> Self {
        let connect = Duration::from_millis(settings.peer_connect_timeout_ms);
        let probe = Duration::from_millis(settings.probe_timeout_ms);
        let silence = Settings::seconds(settings.peer_silence_timeout_s);
        let client = |connect| Renewed::giving_up_after(silence, connect, Hosts::Any);
        Self {
            client: client(connect),
            probes: client(connect.min(probe * 3 / 4)),
            probe_limit: TimeLimit::new(probe),
            forward_limit: TimeLimit::new(Settings::seconds(settings.forward_timeout_s)),
            settings,
            discovery,
            metrics,
            lists: Bodies {
                budget: Budget::new(memory::share(32, LISTS_BYTES_MAX)),
                connections: Arc::clone(&bodies.connections),
            },
            bodies,
        }
    }

    fn url(&self, host: &str, port: u16, path: &str) -> Result<Uri, SendFailure> {
        let url = format!("http://{}:{port}{path}", url_host(host));
        url.parse().map_err(|why| SendFailure::Invalid(format!("{url}: {why}")))
    }

    /// A failure at connection counts as a failed poll.
    fn report(&self, host: &str, failure: &SendFailure) {
        if matches!(failure, SendFailure::NotConnected { hosts_fault: true, .. })
            && let Ok(ip) = host.parse()
        {
            self.discovery.tell(Unreachable(ip));
        }
    }
}
