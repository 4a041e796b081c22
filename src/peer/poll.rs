//! Polling other machines for what they know, following another discovery service, looking up names.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use actix_rt::net::TcpStream;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::PeerClient;
use crate::actors::discovery::{PollAnswer, Poller};
use crate::call::body::RequestBody;
use crate::client::http1::{IncomingAnswer, Origin, OutgoingRequest};
use crate::client::{SendFailure, addresses, is_link_local};
use crate::config::Settings;
use crate::membership::Introduction;
use crate::saved::MachinePatch;
use crate::types::{Cause, Identity, check_machine};
use crate::wire::json::Bounds;
use crate::wire::{MACHINE_AGENT, headers, list_bytes_max, read_machines, read_object};

/// How long another machine may take to hear that this node stops.
const FAREWELL_TIME: Duration = Duration::from_millis(500);
/// What a machine may take to refuse a connection.
const REFUSAL_TIME: Duration = Duration::from_millis(500);

/// This machine's address as it is now, for nodes that have none configured: the one we listen on, if it is one, else the
/// interface's, an IPv4 address before an IPv6 one.
pub fn own_address(settings: &Settings) -> Option<IpAddr> {
    if !settings.host.is_unspecified() {
        return Some(settings.host);
    }
    let mut found: Vec<IpAddr> = if_addrs::get_if_addrs()
        .inspect_err(|error| tracing::debug!(%error, "the network interfaces cannot be read"))
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| interface.name == settings.default_iface)
        .map(|interface| interface.ip())
        // Good on one link only, and there before DHCP has given a real one.
        .filter(|ip| !is_link_local(*ip))
        .collect();
    found.sort_by_key(|ip| !ip.is_ipv4());
    found.first().copied()
}

/// Connections that are tried for a poll that is to tell whether a machine can be reached.
const TRIES: u32 = 3;

/// What the first of some tries comes to; the next one begins `after` the last, while none has ended.
async fn first_of<F: Future>(make: impl Fn() -> F, tries: u32, after: Duration) -> F::Output {
    let mut under_way = FuturesUnordered::from_iter([make()]);
    for _ in 1..tries {
        if let Ok(Some(ended)) = timeout(after, under_way.next()).await {
            return ended;
        }
        under_way.push(make());
    }
    match under_way.next().await {
        Some(ended) => ended,
        // There was one at least.
        None => make().await,
    }
}

/// What a machine is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListAsk {
    /// Its list, and what it says of itself.
    All,
    /// What it says of itself.
    Brief,
    /// Nothing: it is told that this node stops.
    Farewell,
}

/// A question to a discovery service.
fn question(origin: Origin, method: Method, target: &str, headers: HeaderMap) -> OutgoingRequest {
    OutgoingRequest {
        origin,
        method,
        target: target.to_owned(),
        headers,
        body: RequestBody::EMPTY,
        upgrades: false,
        asks_first: false,
    }
}

impl PeerClient {
    /// Ways to ask the machine at `ip` for its list, each tried if those before fail. With a cluster key it is
    /// spoken to by TLS; those that need not have the key, in the clear unless they are known to have it.
    fn ways(&self, ip: IpAddr, tls_port: Option<u16>) -> Vec<Origin> {
        let host = ip.to_string();
        let clear = Origin::new(&host, self.settings.discovery_port);
        if !self.clearance.is_keyed() {
            return vec![clear];
        }
        let usual = self.settings.peer_tls_port;
        let sealed = |port| Origin::new(&host, port).sealed();
        match (self.clearance.covers(ip), tls_port.filter(|port| *port != usual)) {
            (false, Some(port)) => vec![sealed(port), sealed(usual)],
            (false, None) => vec![sealed(usual)],
            (true, Some(port)) => vec![sealed(port), clear],
            (true, None) if tls_port.is_some() => vec![sealed(usual), clear],
            (true, None) => vec![clear, sealed(usual)],
        }
    }

    /// Asks in each of these ways until one gives an answer.
    async fn list_by(
        &self,
        ways: &[Origin],
        me: Option<&Identity>,
        ask: ListAsk,
    ) -> Result<PollAnswer, SendFailure> {
        let mut last = SendFailure::NotConnected(Cause::of("there is no way to it"));
        for way in ways {
            match self.list(way, me, ask).await {
                Ok(answer) => return Ok(answer),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// What this node says of itself when it asks.
    fn introduction(&self, me: Option<&Identity>, ask: ListAsk) -> HeaderMap {
        let mut told = HeaderMap::new();
        let mut tell = |name: &HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                told.insert(name.clone(), value);
            }
        };
        if let Some(me) = me {
            tell(&header::USER_AGENT, MACHINE_AGENT);
            tell(&headers::MACHINE_IP, &me.ip_text());
            tell(&headers::MACHINE_NAME, &me.id);
            tell(&headers::MACHINE_GROUP, &me.group);
            tell(&headers::PROTOCOL, headers::OUR_PROTOCOL);
            if self.clearance.is_keyed() {
                tell(&headers::TLS_PORT, &self.settings.peer_tls_port.to_string());
            }
        }
        // Few are polled often then, and a connection kept to each would have to be asked whether it is
        // still there.
        if self.datagrams.is_some() {
            tell(&header::CONNECTION, "close");
        }
        if ask == ListAsk::Farewell {
            tell(&headers::LEAVES, "1");
        }
        told
    }

    async fn list(
        &self,
        origin: &Origin,
        me: Option<&Identity>,
        ask: ListAsk,
    ) -> Result<PollAnswer, SendFailure> {
        // What it says of itself stands in the head.
        let method = if ask == ListAsk::All { Method::GET } else { Method::HEAD };
        let request = question(origin.clone(), method, "/list", self.introduction(me, ask));
        let answer = self.polls.send(request).await?;
        if answer.headers.contains_key(&headers::LEAVES) {
            return Ok(PollAnswer { leaves: true, ..PollAnswer::default() });
        }
        if !answer.status.is_success() {
            return Err(SendFailure::Broke(Cause::of(format!("status {}", answer.status))));
        }
        let told = self.told(origin, &answer)?;
        let machines_max = self.settings.machines_max;
        let mut machines = Vec::new();
        if ask == ListAsk::All {
            let limit = list_bytes_max(machines_max);
            let read = answer.body.collect_held(limit, &self.lists).await;
            let (body, _held) = read.map_err(|why| SendFailure::Broke(Cause::of(why)))?;
            machines = read_machines(&body, machines_max)
                .map_err(|why| SendFailure::Broke(Cause::of(why)))?;
        }
        let knows = machines.into_iter().filter_map(|machine| {
            let ip = machine.address()?;
            let (name, group) = (machine.name, machine.group_name);
            // Nobody can tell for another what it speaks.
            Some((ip, Introduction { name, group, ..Introduction::default() }))
        });
        Ok(PollAnswer { knows: knows.collect(), ..told })
    }

    /// What a machine says of itself. Where it has a certificate, that must say the same.
    fn told(&self, origin: &Origin, answer: &IncomingAnswer) -> Result<PollAnswer, SendFailure> {
        let told = &answer.headers;
        let text = |name| headers::text(told, name).to_owned();
        let port = text(&headers::TLS_PORT).parse().ok();
        let is = Introduction {
            name: text(&headers::MACHINE_NAME),
            group: text(&headers::MACHINE_GROUP),
            streams: headers::speaks_ours(told),
            tls_port: match &answer.member {
                Some(_) => Some(origin.port()),
                None => port.filter(|_| self.clearance.is_keyed()),
            },
        };
        let mut ip: Option<IpAddr> = text(&headers::MACHINE_IP).parse().ok();
        if let Some(member) = &answer.member {
            if !member.is_named(&is.name) {
                let why = "its certificate has another name than it says";
                return Err(SendFailure::Broke(Cause::of(why)));
            }
            ip = ip.filter(|ip| member.is_at(*ip));
        }
        Ok(PollAnswer { is, ip, knows: Vec::new(), leaves: false })
    }

    /// This node's identity as the other discovery service has it.
    async fn followed_identity(&self, origin: &Origin) -> Option<Identity> {
        let asked = question(origin.clone(), Method::GET, "/configuration", HeaderMap::new());
        let answer = self.polls.send(asked).await.ok()?;
        let body = answer.body.collect(Bounds::SMALL.bytes).await.ok()?;
        let config: MachinePatch = read_object(&body, &Bounds::SMALL).ok()?;
        let (ip, id) = (config.machine_ip?, config.machine_id.unwrap_or_default());
        let group = config.machine_group_name.unwrap_or_default();
        // What this node would not take as its own, it does not take from there.
        check_machine(&ip, &id, &group).ok()?;
        Some(Identity { ip: ip.parse().ok(), id, group })
    }
}

impl Poller for PeerClient {
    fn poll(
        &self,
        ip: IpAddr,
        tls_port: Option<u16>,
        me: &Identity,
        briefly: bool,
    ) -> LocalBoxFuture<'static, Option<PollAnswer>> {
        let (this, me) = (self.clone(), me.clone());
        let ask = if briefly { ListAsk::Brief } else { ListAsk::All };
        Box::pin(async move {
            // Without an address of our own there is nothing to introduce.
            let me = me.ip.is_some().then_some(&me);
            let limit = Settings::seconds(this.settings.poll_timeout_s);
            let ways = this.ways(ip, tls_port);
            let list = || this.list_by(&ways, me, ask);
            // The first packet of a connection that is lost is sent again after a second only.
            let tries = if briefly { TRIES } else { 1 };
            match timeout(limit, first_of(list, tries, limit / TRIES)).await {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(failure)) if failure.is_of_tls() => {
                    // Whoever cannot join wonders why.
                    tracing::warn!(
                        %ip, why = %failure,
                        "no TLS with a machine: has it the cluster key, and the same time?"
                    );
                    None
                }
                Ok(Err(failure)) => {
                    tracing::debug!(%ip, ?failure, "a poll failed");
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn farewell(
        &self,
        ip: IpAddr,
        tls_port: Option<u16>,
        me: &Identity,
    ) -> LocalBoxFuture<'static, ()> {
        let (this, me) = (self.clone(), me.clone());
        Box::pin(async move {
            let ways = this.ways(ip, tls_port);
            let told = this.list_by(&ways, Some(&me), ListAsk::Farewell);
            if !matches!(timeout(FAREWELL_TIME, told).await, Ok(Ok(_))) {
                tracing::debug!(%ip, "a machine was not told that this node stops");
            }
        })
    }

    fn swims(&self) -> bool {
        self.datagrams.is_some()
    }

    fn datagram(&self, ip: IpAddr, datagram: &[u8]) {
        if let Some(socket) = &self.datagrams {
            socket.send(ip, datagram);
        }
    }

    fn refuses(&self, ip: IpAddr) -> LocalBoxFuture<'static, bool> {
        let port = match self.clearance.covers(ip) {
            true => self.settings.discovery_port,
            false => self.settings.peer_tls_port,
        };
        Box::pin(async move {
            let connected = timeout(REFUSAL_TIME, TcpStream::connect((ip, port))).await;
            let refused = |why: std::io::Error| why.kind() == ErrorKind::ConnectionRefused;
            connected.is_ok_and(|connected| connected.is_err_and(refused))
        })
    }

    fn follow(&self) -> LocalBoxFuture<'static, Option<(Identity, PollAnswer)>> {
        let this = self.clone();
        Box::pin(async move {
            let settings = &this.settings;
            let origin =
                Origin::new(&settings.service_discovery_host, settings.service_discovery_port);
            let both = async {
                let identity = this.followed_identity(&origin).await?;
                Some((identity, this.list(&origin, None, ListAsk::All).await.ok()?))
            };
            timeout(Settings::seconds(this.settings.poll_timeout_s), both).await.ok()?
        })
    }

    fn resolve(&self, name: String) -> LocalBoxFuture<'static, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let found = addresses(name, 0).await.map_err(|why| why.to_string())?;
            let mut found: Vec<IpAddr> = found.into_iter().map(|address| address.ip()).collect();
            found.sort_unstable();
            found.dedup();
            if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
        })
    }

    fn own_address(&self) -> Option<IpAddr> {
        own_address(&self.settings)
    }
}
