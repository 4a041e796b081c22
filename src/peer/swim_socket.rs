//! The socket of SWIM's datagrams, and what reads it.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use arc_swap::ArcSwap;
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::actors::discovery::{Discovery, Published, SwimDatagram};
use crate::actors::supervise::Handle;
use crate::config::Settings;
use crate::error::RefusalKind;
use crate::membership::swim::DATAGRAM_BYTES_MAX;
use crate::metrics::Metrics;
use crate::time::since_1970;
use crate::tls::PeerTls;
use crate::trust::sealed::{Opener, SEAL_BYTES, SESSION_BYTES, Sealer};

/// After this a datagram that Discovery has not looked at is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long nothing is read after the system has reported a failure: some come again at once.
const PAUSE: Duration = Duration::from_millis(10);

/// Datagrams that wait to be read, in bytes.
const RECEIVED_BYTES: usize = 1 << 20;

/// Binds what the settings ask for; `None`: they ask for none.
///
/// # Errors
/// It cannot be bound.
pub fn bind(settings: &Settings) -> io::Result<Option<StdSocket>> {
    let address = SocketAddr::new(settings.host, settings.swim_port());
    if address.port() == 0 || !settings.service_discovery_host.is_empty() {
        return Ok(None);
    }
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Many may come at once. Where the system allows less, it gives less.
        socket.set_recv_buffer_size(RECEIVED_BYTES)?;
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        Ok(StdSocket::from(socket))
    };
    let named = |why: io::Error| io::Error::new(why.kind(), format!("{address}, UDP: {why}"));
    bound().map(Some).map_err(named)
}

/// Where a datagram to `ip` goes from a socket at `host`: one of IPv6 that takes IPv4, too, knows those addresses
/// in another form.
fn target(host: IpAddr, ip: IpAddr) -> IpAddr {
    match (host, ip) {
        (IpAddr::V6(_), IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
        _ => ip,
    }
}

/// The socket, and what seals what goes through it where there is a cluster key.
pub struct SwimSocket {
    udp: UdpSocket,
    host: IpAddr,
    port: u16,
    seal: Option<Seal>,
}

/// What seals datagrams, and opens those of others.
pub struct Seal {
    members: Arc<PeerTls>,
    published: Arc<ArcSwap<Published>>,
    metrics: Arc<Metrics>,
    sealer: RefCell<Sealer>,
    opener: RefCell<Opener>,
}

impl Seal {
    /// Seals with the keys in force among `members`. `session` is made by chance.
    pub fn new(
        members: Arc<PeerTls>,
        published: Arc<ArcSwap<Published>>,
        metrics: Arc<Metrics>,
        session: [u8; SESSION_BYTES],
    ) -> Self {
        let sealer = RefCell::new(Sealer::new(session));
        Self { members, published, metrics, sealer, opener: RefCell::default() }
    }

    fn seal(&self, to: IpAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let epoch = self.members.epoch()?;
        self.sealer.borrow_mut().seal(&epoch.keys, to, since_1970(), datagram)
    }

    /// What a member said. What is refused is counted, and told in the log where a member may be behind it.
    fn open(&self, from: IpAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let own = self.published.load().identity.ip?;
        let epoch = self.members.epoch()?;
        let opened = self.opener.borrow_mut().open(&epoch.keys, own, since_1970(), datagram);
        let why = match opened {
            Ok(said) => return Some(said),
            Err(why) => why,
        };
        self.metrics.refused(RefusalKind::of(why));
        match why.is_of_member() {
            true => tracing::warn!(%from, "a datagram of a member is refused: {why}"),
            false => tracing::debug!(%from, "a datagram is refused: {why}"),
        }
        None
    }
}

impl SwimSocket {
    /// Of a socket that was bound by `settings`.
    ///
    /// # Errors
    /// As the system says.
    pub fn new(udp: StdSocket, settings: &Settings, seal: Option<Seal>) -> io::Result<Self> {
        let (host, port) = (settings.host, settings.swim_port());
        Ok(Self { udp: UdpSocket::from_std(udp)?, host, port, seal })
    }

    /// Sends a datagram to the machine at `ip`. One that is not taken at once is lost like others: SWIM bears
    /// that.
    pub fn send(&self, ip: IpAddr, datagram: &[u8]) {
        let to = SocketAddr::new(target(self.host, ip), self.port);
        match &self.seal {
            None => drop(self.udp.try_send_to(datagram, to)),
            Some(seal) => {
                let sealed = seal.seal(ip, datagram);
                drop(sealed.map(|sealed| self.udp.try_send_to(&sealed, to)));
            }
        }
    }

    /// The next datagram that is one of the cluster's, and from where it came.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<SwimDatagram>> {
        let (bytes, from) = self.udp.recv_from(buffer).await?;
        let from = from.ip();
        let Some(datagram) = buffer.get(..bytes) else { return Ok(None) };
        let said = match &self.seal {
            None => Some(Bytes::copy_from_slice(datagram)),
            Some(seal) => seal.open(from.to_canonical(), datagram).map(Bytes::from),
        };
        // A longer one was cut off.
        let said = said.filter(|said| said.len() <= DATAGRAM_BYTES_MAX);
        Ok(said.map(|bytes| SwimDatagram { from, bytes }))
    }
}

/// Hands datagrams to Discovery until it is dropped.
pub struct DatagramReader {
    task: JoinHandle<()>,
    socket: Weak<SwimSocket>,
}

impl DatagramReader {
    /// Reads from `socket`, one datagram after the other: what comes faster than it is looked at, the system
    /// throws away.
    pub fn start(socket: Rc<SwimSocket>, discovery: Handle<Discovery>) -> Self {
        let weak = Rc::downgrade(&socket);
        let task = actix_rt::spawn(async move {
            let mut buffer = [0; DATAGRAM_BYTES_MAX + SEAL_BYTES + 1];
            loop {
                match socket.receive(&mut buffer).await {
                    Err(_) => tokio::time::sleep(PAUSE).await,
                    Ok(None) => {}
                    // Whether or not it was looked at, the next one comes.
                    Ok(Some(datagram)) => {
                        let _ = discovery.ask_within(PATIENCE, || datagram.clone()).await;
                    }
                }
            }
        });
        Self { task, socket: weak }
    }

    /// Ends it, and waits a little until nobody else holds the socket: then its port is free.
    pub async fn end(self) {
        self.task.abort();
        let freed = async {
            while self.socket.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, freed).await;
    }
}

impl Drop for DatagramReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
