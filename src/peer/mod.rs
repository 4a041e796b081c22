//! Calls to other nodes: probe, forward, poll. The wire of v1 and peer protocol 2, from the caller's side.

mod forward;
mod message;
mod note;
mod poll;
mod probe;
mod streamed;
pub mod swim_socket;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::forward::read_answer;
pub use self::poll::own_address;
use self::swim_socket::SwimSocket;
use crate::actors::discovery::{Discovery, Unreachable};
use crate::actors::supervise::Handle;
use crate::client::http1::{ClientRules, HttpClient, Origin};
use crate::client::{Hosts, SendFailure};
use crate::config::Settings;
use crate::connections::Bodies;
use crate::memory;
use crate::memory::budget::Budget;
use crate::metrics::Metrics;
use crate::time::limit::TimeLimit;
use crate::tls::PeerTls;
use crate::types::{Clearance, Peer};

/// Bytes that other machines' lists hold while they are read, at most a 32nd of the memory.
const LISTS_BYTES_MAX: u64 = 16 << 20;

/// Round trips that a deadline is longer by, for a peer that is far: to connect and to be answered, and one
/// that is lost.
const ROUND_TRIPS: u32 = 3;
/// What a probe of a far peer may take beyond the usual, at most.
const PROBE_MAX: Duration = Duration::from_secs(6);

/// A worker thread's client for other nodes. Cheap to clone.
#[derive(Clone)]
pub struct PeerClient {
    /// Forwards calls.
    calls: HttpClient,
    /// Gives up connecting within a probe's time, so that a host that is not there is noticed.
    probes: HttpClient,
    /// Polls.
    polls: HttpClient,
    settings: Arc<Settings>,
    clearance: Clearance,
    discovery: Handle<Discovery>,
    metrics: Arc<Metrics>,
    probe_limit: TimeLimit,
    bodies: Bodies,
    /// Where SWIM's datagrams go out.
    datagrams: Option<Rc<SwimSocket>>,
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
        tls: Arc<PeerTls>,
    ) -> Self {
        let connect = Duration::from_millis(settings.peer_connect_timeout_ms);
        let probe = Duration::from_millis(settings.probe_timeout_ms);
        let poll = Settings::seconds(settings.poll_timeout_s);
        let silence = Settings::seconds(settings.peer_silence_timeout_s);
        let forward = Settings::seconds(settings.forward_timeout_s);
        // As long as the functions behind it may be silent.
        let idle = Settings::seconds(settings.function_idle_timeout_s).max(forward);
        let client = |connect, first_byte| {
            HttpClient::new(ClientRules {
                hosts: Hosts::Any,
                connect,
                insists: false,
                machine_silence: silence,
                first_byte,
                next_byte: idle,
                sealing: Some(Arc::clone(&tls)),
            })
        };
        Self {
            calls: client(connect, forward),
            // How long a probe may take is told with each.
            probes: client(connect.min(probe * 3 / 4), probe + PROBE_MAX),
            // A poll has its own time, and who is far is not known yet.
            polls: client(connect.max(poll), poll),
            probe_limit: TimeLimit::new(probe),
            datagrams: None,
            clearance: settings.clearance(),
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

    /// The same, for the one that also sends SWIM's datagrams.
    pub fn sending(self, datagrams: Option<Rc<SwimSocket>>) -> Self {
        Self { datagrams, ..self }
    }

    /// Where a peer's scheduler answers.
    fn scheduler_of(&self, peer: &Peer) -> Origin {
        // A host that is named, as a master may be, is a member, too.
        let clearly = || match peer.host.parse() {
            Ok(ip) => self.clearance.covers(ip),
            Err(_) => !self.clearance.is_keyed(),
        };
        let origin = match peer.tls_port {
            None if clearly() => Origin::new(&peer.host, self.settings.scheduler_port),
            port => Origin::new(&peer.host, port.unwrap_or(self.settings.peer_tls_port)).sealed(),
        };
        origin.patiently(peer.far * ROUND_TRIPS)
    }

    /// A failure at connection counts as a failed poll.
    fn report(&self, host: &str, failure: &SendFailure) {
        if failure.is_hosts_fault()
            && let Ok(ip) = host.parse()
        {
            let own_deadline = failure.is_own_deadline();
            self.discovery.tell(Unreachable { ip, own_deadline });
        }
    }
}
