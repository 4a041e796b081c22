//! Polling other machines for what they know, following another discovery service, looking up names.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use actix_rt::net::TcpStream;
use actix_web::http::{Method, header};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::PeerClient;
use super::swim_socket::target;
use crate::actors::discovery::{PollAnswer, Poller};
use crate::client::{SendFailure, addresses, is_link_local, read_body, read_held_body};
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

impl PeerClient {
    async fn list(
        &self,
        host: &str,
        port: u16,
        me: Option<&Identity>,
        ask: ListAsk,
    ) -> Result<PollAnswer, SendFailure> {
        // What it says of itself stands in the head.
        let method = if ask == ListAsk::All { Method::GET } else { Method::HEAD };
        let mut request = self.polls.get().request(method, self.url(host, port, "/list")?);
        if let Some(me) = me {
            request = request
                .insert_header((header::USER_AGENT, MACHINE_AGENT))
                .insert_header((headers::MACHINE_IP.clone(), me.ip_text()))
                .insert_header((headers::MACHINE_NAME.clone(), me.id.as_str()))
                .insert_header((headers::MACHINE_GROUP.clone(), me.group.as_str()))
                .insert_header((headers::PROTOCOL.clone(), headers::OUR_PROTOCOL));
        }
        // Few are polled often then, and a connection kept to each would have to be asked whether it is
        // still there.
        if self.datagrams.is_some() {
            request = request.force_close();
        }
        if ask == ListAsk::Farewell {
            request = request.insert_header((headers::LEAVES.clone(), "1"));
        }
        let mut response = request.send().await?;
        if response.headers().contains_key(&headers::LEAVES) {
            return Ok(PollAnswer { leaves: true, ..PollAnswer::default() });
        }
        if !response.status().is_success() {
            return Err(SendFailure::Broke(Cause::of(format!("status {}", response.status()))));
        }
        let machines_max = self.settings.machines_max;
        let mut machines = Vec::new();
        if ask == ListAsk::All {
            let limit = list_bytes_max(machines_max);
            let read = read_held_body(&mut response, limit, &self.lists).await;
            let (body, _held) = read.map_err(|why| SendFailure::Broke(Cause::of(why)))?;
            machines = read_machines(&body, machines_max)
                .map_err(|why| SendFailure::Broke(Cause::of(why)))?;
        }
        let told = response.headers();
        let introduction = |name: &str, group: &str| Introduction {
            name: name.to_owned(),
            group: group.to_owned(),
            // Nobody can tell for another what it speaks.
            streams: false,
        };
        let knows = machines.iter().filter_map(|machine| {
            Some((machine.address()?, introduction(&machine.name, &machine.group_name)))
        });
        Ok(PollAnswer {
            is: Introduction {
                streams: headers::speaks_ours(told),
                ..introduction(
                    headers::text(told, &headers::MACHINE_NAME),
                    headers::text(told, &headers::MACHINE_GROUP),
                )
            },
            ip: headers::text(told, &headers::MACHINE_IP).parse().ok(),
            knows: knows.collect(),
            leaves: false,
        })
    }

    /// This node's identity as the other discovery service has it.
    async fn followed_identity(&self, host: &str, port: u16) -> Option<Identity> {
        let uri = self.url(host, port, "/configuration").ok()?;
        let mut response = self.polls.get().get(uri).send().await.ok()?;
        let body = read_body(&mut response, Bounds::SMALL.bytes).await.ok()?;
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
        me: &Identity,
        briefly: bool,
    ) -> LocalBoxFuture<'static, Option<PollAnswer>> {
        let (this, me) = (self.clone(), me.clone());
        let ask = if briefly { ListAsk::Brief } else { ListAsk::All };
        Box::pin(async move {
            // Without an address of our own there is nothing to introduce.
            let me = me.ip.is_some().then_some(&me);
            let limit = Settings::seconds(this.settings.poll_timeout_s);
            let port = this.settings.discovery_port;
            let host = ip.to_string();
            let list = || this.list(&host, port, me, ask);
            // The first packet of a connection that is lost is sent again after a second only.
            let tries = if briefly { TRIES } else { 1 };
            match timeout(limit, first_of(list, tries, limit / TRIES)).await {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(failure)) => {
                    tracing::debug!(%ip, ?failure, "a poll failed");
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn farewell(&self, ip: IpAddr, me: &Identity) -> LocalBoxFuture<'static, ()> {
        let (this, me) = (self.clone(), me.clone());
        Box::pin(async move {
            let host = ip.to_string();
            let told = this.list(&host, this.settings.discovery_port, Some(&me), ListAsk::Farewell);
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
            // One that is not taken at once is lost like others: SWIM bears that.
            let to = (target(self.settings.host, ip), self.settings.swim_port());
            let _ = socket.try_send_to(datagram, to.into());
        }
    }

    fn refuses(&self, ip: IpAddr) -> LocalBoxFuture<'static, bool> {
        let port = self.settings.discovery_port;
        Box::pin(async move {
            let connected = timeout(REFUSAL_TIME, TcpStream::connect((ip, port))).await;
            let refused = |why: std::io::Error| why.kind() == ErrorKind::ConnectionRefused;
            connected.is_ok_and(|connected| connected.is_err_and(refused))
        })
    }

    fn follow(&self) -> LocalBoxFuture<'static, Option<(Identity, PollAnswer)>> {
        let this = self.clone();
        Box::pin(async move {
            let (host, port) =
                (&this.settings.service_discovery_host, this.settings.service_discovery_port);
            let both = async {
                let identity = this.followed_identity(host, port).await?;
                Some((identity, this.list(host, port, None, ListAsk::All).await.ok()?))
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
