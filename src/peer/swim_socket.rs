//! The socket of SWIM's datagrams, and what reads it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::rc::{Rc, Weak};
use std::time::Duration;

use actix_rt::task::JoinHandle;
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::actors::discovery::{Discovery, SwimDatagram};
use crate::actors::supervise::Handle;
use crate::config::Settings;
use crate::membership::swim::DATAGRAM_BYTES_MAX;

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
pub fn target(host: IpAddr, ip: IpAddr) -> IpAddr {
    match (host, ip) {
        (IpAddr::V6(_), IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
        _ => ip,
    }
}

/// Hands datagrams to Discovery until it is dropped.
pub struct DatagramReader {
    task: JoinHandle<()>,
    socket: Weak<UdpSocket>,
}

impl DatagramReader {
    /// Reads from `socket`, one datagram after the other: what comes faster than it is looked at, the system
    /// throws away.
    pub fn start(socket: Rc<UdpSocket>, discovery: Handle<Discovery>) -> Self {
        let weak = Rc::downgrade(&socket);
        let task = actix_rt::spawn(async move {
            let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
            loop {
                let Ok((bytes, from)) = socket.recv_from(&mut buffer).await else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let datagram = buffer.get(..bytes).filter(|datagram| {
                    // A longer one was cut off.
                    datagram.len() <= DATAGRAM_BYTES_MAX
                });
                let Some(bytes) = datagram.map(Bytes::copy_from_slice) else { continue };
                let datagram = SwimDatagram { from: from.ip(), bytes };
                // Whether or not it was looked at, the next one comes.
                let _ = discovery.ask_within(PATIENCE, || datagram.clone()).await;
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
