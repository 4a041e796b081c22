//! Calls to other nodes: probe, forward, poll. The wire of v1, from the caller's side.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderName};
use actix_web::http::{StatusCode, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use crate::actors::discovery::{Discovery, PollAnswer, Poller, Unreachable};
use crate::actors::scheduler::Prober;
use crate::actors::supervise::Handle;
use crate::call::forward::{Forward, ForwardFailure, Forwarder, PeerReply};
use crate::call::function::Answer;
use crate::client::{
    Hosts, Renewed, SendFailure, addresses, is_link_local, read_body, read_held_body,
};
use crate::config::Settings;
use crate::connections::Bodies;
use crate::membership::Introduction;
use crate::memory;
use crate::memory::budget::Budget;
use crate::metrics::Metrics;
use crate::saved::MachinePatch;
use crate::time::limit::{Expired, TimeLimit};
use crate::types::{Identity, Load, Peer, check_machine, url_host};
use crate::wire::headers;
use crate::wire::json::Bounds;
use crate::wire::{
    MACHINE_AGENT, PeerHop, list_bytes_max, message_bytes_max, read_machines, read_object,
    read_peer_answer, six_decimals,
};

/// Bytes that other machines' lists hold while they are read, at most a 32nd of the memory.
const LISTS_BYTES_MAX: u64 = 16 << 20;
/// How often the headers of a peer's answer are held until they are written.
const HEADERS_TIMES: usize = 3;

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

impl From<SendFailure> for ForwardFailure {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::UnknownHost(why)
            | SendFailure::NotConnected { why, .. }
            | SendFailure::Invalid(why) => Self::NotSent(why),
            SendFailure::Broke(why) => Self::Broke(why),
        }
    }
}

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

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    headers::text(headers, name).trim().parse().ok()
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

    async fn send(&self, peer: &Peer, call: &Forward<'_>) -> Result<PeerReply, ForwardFailure> {
        let path = format!("/peer/function/{}", call.function);
        let uri = self.url(&peer.host, self.settings.scheduler_port, &path)?;
        let mut request = self
            .client
            .get()
            .post(uri)
            .insert_header((header::USER_AGENT, MACHINE_AGENT))
            .insert_header((header::CONTENT_TYPE, "application/json"));
        if !call.tracing_id.is_empty() {
            request = request.insert_header((headers::TRACING_ID.clone(), call.tracing_id));
        }
        if !call.task_type.is_empty() {
            request = request.insert_header((headers::TASK_TYPE.clone(), call.task_type));
        }
        if let Some(left) = call.deadline {
            let left = six_decimals(left.as_secs_f64());
            request = request.insert_header((headers::DEADLINE.clone(), left));
        }
        let sent = request.send_body(call.message.clone()).await.map_err(SendFailure::from);
        let mut response = sent.inspect_err(|failure| self.report(&peer.host, failure))?;
        let limit = message_bytes_max(self.settings.body_bytes_max);
        let (message, held) = read_held_body(&mut response, limit, &self.bodies)
            .await
            .map_err(|why| ForwardFailure::Broke(why.to_string()))?;
        let http_headers = headers::from_function(response.headers());
        let mut forwarded = read_answer(&message, response.status(), http_headers)
            .map_err(ForwardFailure::Nothing)?;
        // Its headers are held several times until they are written.
        let headers: usize = forwarded
            .answer
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let bytes = forwarded.answer.body.len() + HEADERS_TIMES * headers;
        forwarded.answer.held = held.map(|held| held.for_answer(bytes));
        // Limits follow each node's memory. A function's own 413 has an execution time.
        let executed = |hop: &PeerHop| hop.timings.execution_time.is_some();
        let too_large = forwarded.answer.status == StatusCode::PAYLOAD_TOO_LARGE;
        match too_large && !forwarded.peers.iter().any(executed) {
            true => Err(ForwardFailure::Refused("its bodies are smaller".to_owned())),
            false => Ok(forwarded),
        }
    }

    async fn list(
        &self,
        host: &str,
        port: u16,
        me: Option<&Identity>,
    ) -> Result<PollAnswer, SendFailure> {
        let mut request = self.client.get().get(self.url(host, port, "/list")?);
        if let Some(me) = me {
            request = request
                .insert_header((header::USER_AGENT, MACHINE_AGENT))
                .insert_header((headers::MACHINE_IP.clone(), me.ip_text()))
                .insert_header((headers::MACHINE_NAME.clone(), me.id.as_str()))
                .insert_header((headers::MACHINE_GROUP.clone(), me.group.as_str()));
        }
        let mut response = request.send().await?;
        if !response.status().is_success() {
            return Err(SendFailure::Broke(format!("status {}", response.status())));
        }
        let broke = |why: &dyn std::fmt::Display| SendFailure::Broke(why.to_string());
        let machines_max = self.settings.machines_max;
        let (body, _held) =
            read_held_body(&mut response, list_bytes_max(machines_max), &self.lists)
                .await
                .map_err(|why| broke(&why))?;
        let machines = read_machines(&body, machines_max).map_err(|why| broke(&why))?;
        let told = response.headers();
        let introduction = |name: &str, group: &str| Introduction {
            name: name.to_owned(),
            group: group.to_owned(),
        };
        let knows = machines.iter().filter_map(|machine| {
            Some((machine.address()?, introduction(&machine.name, &machine.group_name)))
        });
        Ok(PollAnswer {
            is: introduction(
                headers::text(told, &headers::MACHINE_NAME),
                headers::text(told, &headers::MACHINE_GROUP),
            ),
            ip: headers::text(told, &headers::MACHINE_IP).parse().ok(),
            knows: knows.collect(),
        })
    }

    /// This node's identity as the other discovery service has it.
    async fn followed_identity(&self, host: &str, port: u16) -> Option<Identity> {
        let uri = self.url(host, port, "/configuration").ok()?;
        let mut response = self.client.get().get(uri).send().await.ok()?;
        let body = read_body(&mut response, Bounds::SMALL.bytes).await.ok()?;
        let config: MachinePatch = read_object(&body, &Bounds::SMALL).ok()?;
        let (ip, id) = (config.machine_ip?, config.machine_id.unwrap_or_default());
        let group = config.machine_group_name.unwrap_or_default();
        // What this node would not take as its own, it does not take from there.
        check_machine(&ip, &id, &group).ok()?;
        Some(Identity { ip: ip.parse().ok(), id, group })
    }
}

/// Reads a peer's answer. `http_headers` are those that v1 passes on by HTTP only.
pub(crate) fn read_answer(
    message: &[u8],
    status: StatusCode,
    http_headers: HeaderMap,
) -> Result<PeerReply, String> {
    let read = read_peer_answer(message, usize::MAX)?;
    if read.peers_list.is_none() && read.status_code.is_none() {
        return Err("the answer has neither peers_list nor status_code".to_owned());
    }
    let body = BASE64_STANDARD
        .decode(read.body.unwrap_or_default())
        .map_err(|why| format!("its body is no base64: {why}"))?;
    let status = match read.status_code {
        Some(code) => {
            StatusCode::from_u16(code).map_err(|_| format!("its status_code is {code}"))?
        }
        None => status,
    };
    if status.is_informational() {
        return Err(format!("its status is {status}, which is no final one"));
    }
    let headers = match &read.headers {
        Some(told) => headers::from_function(&headers::from_json(told)),
        None => guessed_type(http_headers, &body),
    };
    let answer = Answer { status, headers, body: body.into(), held: None };
    Ok(PeerReply { answer, peers: read.peers_list.unwrap_or_default() })
}

/// v1 does not say what type the function's output has; its own clients get a guess, too.
fn guessed_type(mut headers: HeaderMap, body: &[u8]) -> HeaderMap {
    let guess = match std::str::from_utf8(body) {
        Ok(_) => header::HeaderValue::from_static("text/plain; charset=utf-8"),
        Err(_) => header::HeaderValue::from_static("application/octet-stream"),
    };
    // The type that came by HTTP is that of the peer's own JSON.
    headers.insert(header::CONTENT_TYPE, guess);
    headers
}

impl Forwarder for PeerClient {
    fn forward<'a>(
        &'a self,
        peer: &'a Peer,
        call: Forward<'a>,
    ) -> LocalBoxFuture<'a, Result<PeerReply, ForwardFailure>> {
        Box::pin(async move {
            let result = match self.forward_limit.hold(Box::pin(self.send(peer, &call))).await {
                Ok(result) => result,
                Err(Expired) => Err(ForwardFailure::Broke(format!(
                    "no answer within {} s",
                    self.forward_limit.length().as_secs_f64()
                ))),
            };
            let label = match &result {
                Ok(_) => "answered",
                Err(ForwardFailure::NotSent(_)) => "unreachable",
                Err(ForwardFailure::Refused(_)) => "refused",
                Err(ForwardFailure::Broke(_)) => "broke",
                Err(ForwardFailure::Nothing(_)) => "nothing",
            };
            self.metrics.forward(&peer.host, label);
            result
        })
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

impl Poller for PeerClient {
    fn poll(&self, ip: IpAddr, me: &Identity) -> LocalBoxFuture<'static, Option<PollAnswer>> {
        let (this, me) = (self.clone(), me.clone());
        Box::pin(async move {
            // Without an address of our own there is nothing to introduce.
            let me = me.ip.is_some().then_some(&me);
            let limit = Settings::seconds(this.settings.poll_timeout_s);
            let port = this.settings.discovery_port;
            match timeout(limit, this.list(&ip.to_string(), port, me)).await {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(failure)) => {
                    tracing::debug!(%ip, ?failure, "a poll failed");
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn follow(&self) -> LocalBoxFuture<'static, Option<(Identity, PollAnswer)>> {
        let this = self.clone();
        Box::pin(async move {
            let (host, port) =
                (&this.settings.service_discovery_host, this.settings.service_discovery_port);
            let both = async {
                let identity = this.followed_identity(host, port).await?;
                Some((identity, this.list(host, port, None).await.ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &str) -> Result<PeerReply, String> {
        read_answer(message.as_bytes(), StatusCode::OK, HeaderMap::new())
    }

    #[test]
    fn an_answer_as_v1_gives_it_is_read_and_its_type_guessed() {
        let message = r#"{"peers_list":[{"machine_id":"ref-n0","machine_ip":"127.0.0.1",
            "timings":{"execution_time":0.002,"total_time":0.0021,"scheduling_time":0.000006}}],
            "body":"aGVsbG8=","status_code":200}"#;
        let forwarded = read(message).expect("readable");
        assert_eq!(&*forwarded.answer.body, b"hello");
        let content_type = forwarded.answer.headers.get("content-type").expect("guessed");
        assert_eq!(content_type, "text/plain; charset=utf-8");
        assert_eq!(forwarded.peers[0].timings.execution_time, Some(0.002));
    }

    #[test]
    fn our_own_answer_brings_status_and_headers() {
        let message = r#"{"peers_list":[],"body":"","status_code":201,
            "headers":{"content-type":"image/jpeg","x-mine":"1","x-p2pfaas-hops":"9"}}"#;
        let answer = read(message).expect("readable").answer;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.headers.get("content-type").expect("told"), "image/jpeg");
        assert!(answer.headers.contains_key("x-mine"));
        assert!(!answer.headers.contains_key("x-p2pfaas-hops"), "ours are not the peer's to say");
    }

    #[test]
    fn what_is_no_peer_answer_is_nothing() {
        for message in [
            "",
            "[]",
            "{}",
            r#"{"code":1,"message":"Generic Error"}"#,
            r#"{"peers_list":[],"body":"%%%","status_code":200}"#,
            r#"{"peers_list":[],"body":"","status_code":20}"#,
        ] {
            assert!(read(message).is_err(), "{message}");
        }
    }
}
