//! Connections as they are accepted: in the clear, or by TLS, from other members of the cluster or from clients.

use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_rt::net::TcpStream;
use actix_web::HttpRequest;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::guarded::Stream;
use crate::call::state::NodeTrust;
use crate::error::{Error, RefusalKind};
use crate::time::since_1970;
use crate::tls::{ClusterMember, LIFETIME, PeerTls, ServedTls};

/// Tells the address under which others know this node.
pub type TellAddress = Arc<dyn Fn() -> Option<IpAddr> + Send + Sync>;

/// Who comes in by a port, and how.
#[derive(Clone)]
pub enum PortUsers {
    /// Anybody, in the clear.
    Clear,
    /// Members of the cluster, by TLS.
    Members(Arc<PeerTls>, TellAddress),
    /// Clients, by TLS. What other nodes may ask in the clear they go on asking so.
    Clients(Arc<ServedTls>),
}

impl PortUsers {
    /// What it counts as when who came is not let in.
    pub fn refusal(&self) -> RefusalKind {
        match self {
            Self::Members(..) => RefusalKind::Stranger,
            Self::Clear | Self::Clients(_) => RefusalKind::BadHead,
        }
    }
}

/// What a handler may want to know of the other side of its connection.
#[derive(Clone, Debug, Default)]
pub struct OtherSide {
    /// Which member of the cluster it is, by its certificate.
    pub member: Option<Arc<ClusterMember>>,
    /// It came in the clear where clients are served by TLS.
    pub lacks_tls: bool,
}

/// Whether a request may be one of another node's: of a member's, or of one that is spoken to in the clear.
///
/// # Errors
/// It is neither.
pub fn check_member(
    request: &HttpRequest,
    trust: &NodeTrust,
) -> Result<Option<Arc<ClusterMember>>, Error> {
    let member = request.conn_data::<OtherSide>().and_then(|other| other.member.clone());
    let from = request.peer_addr().map(|from| from.ip());
    match member {
        Some(member) if trust.members.trusts(member.key) => Ok(Some(member)),
        Some(_) => Err(Error::NoMember("the key by which it came is no longer in force")),
        None if from.is_some_and(|ip| trust.clearance.covers(ip)) => Ok(None),
        None => Err(Error::NoMember("the machine has shown no certificate of one")),
    }
}

/// Whether a client asks in the way in which clients are served.
///
/// # Errors
/// It asks in the clear, and should not.
pub fn check_sealed(request: &HttpRequest) -> Result<(), Error> {
    let lacks_tls = request.conn_data::<OtherSide>().is_some_and(|other| other.lacks_tls);
    if lacks_tls { Err(Error::NotByTls) } else { Ok(()) }
}

/// An accepted connection.
pub enum Incoming {
    /// In the clear.
    Clear(TcpStream),
    /// By TLS.
    Sealed(Box<TlsStream<TcpStream>>, Option<VouchedMember>),
}

/// The membership of who is at the other end, and what tells whether it still is one.
pub struct VouchedMember {
    member: Arc<ClusterMember>,
    members: Arc<PeerTls>,
    /// When it showed its certificate, which is good for no longer than [`LIFETIME`] from then on.
    since: Instant,
}

/// What the first byte of a TLS connection is: that of a handshake's record.
const HANDSHAKE: u8 = 0x16;

impl Incoming {
    /// Lets a connection from `from` in by `users`, once both sides have agreed on TLS if that is to be.
    ///
    /// # Errors
    /// The other side does not speak as it must, or is none that may come in there: as what that counts.
    pub async fn let_in(
        tcp: TcpStream,
        from: IpAddr,
        users: &PortUsers,
    ) -> Result<(Self, OtherSide), RefusalKind> {
        let refused = |_: io::Error| users.refusal();
        match users {
            PortUsers::Clear => Ok((Self::Clear(tcp), OtherSide::default())),
            PortUsers::Clients(served) => {
                let mut first = [0];
                tcp.peek(&mut first).await.map_err(refused)?;
                if first != [HANDSHAKE] {
                    let other = OtherSide { lacks_tls: true, ..OtherSide::default() };
                    return Ok((Self::Clear(tcp), other));
                }
                let tls = TlsAcceptor::from(served.config()).accept(tcp).await.map_err(refused)?;
                Ok((Self::Sealed(Box::new(tls), None), OtherSide::default()))
            }
            PortUsers::Members(members, own) => {
                Self::let_member_in(tcp, from, members, own()).await
            }
        }
    }

    async fn let_member_in(
        tcp: TcpStream,
        from: IpAddr,
        members: &Arc<PeerTls>,
        own: Option<IpAddr>,
    ) -> Result<(Self, OtherSide), RefusalKind> {
        const STRANGER: RefusalKind = RefusalKind::Stranger;
        let epoch = members.epoch().ok_or(STRANGER)?;
        // Where addresses are translated, the one that was called is another than this.
        let here = tcp.local_addr().ok().map(|address| address.ip().to_canonical());
        let own: Vec<IpAddr> = own.into_iter().chain(here).collect();
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await;
        let hello = hello.map_err(|_| STRANGER)?;
        let greeted = members.hears(&epoch, &hello.client_hello(), &own, since_1970());
        if let Err(why) = greeted {
            match why.is_of_member() {
                true => tracing::warn!(%from, "a member is not let in: {why}"),
                false => tracing::debug!(%from, "somebody is not let in: {why}"),
            }
            let kind = RefusalKind::of(why);
            return Err(if kind == RefusalKind::Unsealed { STRANGER } else { kind });
        }
        let tls = hello.into_stream(Arc::clone(&epoch.server)).await.map_err(|why| {
            tracing::warn!(%from, %why, "TLS failed with a member");
            STRANGER
        })?;
        let member = epoch.member(tls.get_ref().1.peer_certificates());
        // A certificate that was taken from another node is of no use elsewhere.
        let member = member.filter(|member| member.is_at(from)).ok_or_else(|| {
            tracing::warn!(%from, "a certificate was shown from where its node is not");
            STRANGER
        })?;
        let member = Arc::new(member);
        let other = OtherSide { member: Some(Arc::clone(&member)), lacks_tls: false };
        let (members, since) = (Arc::clone(members), Instant::now());
        let vouched = VouchedMember { member, members, since };
        Ok((Self::Sealed(Box::new(tls), Some(vouched)), other))
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Clear(tcp) => tcp,
            Self::Sealed(tls, _) => tls.get_ref().0,
        }
    }

    /// Where it came from.
    ///
    /// # Errors
    /// As the system says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }
}

/// Writes as much as can be taken at once.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Incoming {
    fn say(&mut self, last: &[u8]) {
        match self {
            Self::Clear(tcp) => drop(tcp.try_write(last)),
            Self::Sealed(tls, _) => {
                let (tcp, agreed) = tls.get_mut();
                let _ = agreed.writer().write(last);
                while agreed.wants_write() && matches!(agreed.write_tls(&mut AtOnce(tcp)), Ok(1..))
                {
                }
            }
        }
    }

    fn is_welcome(&self) -> bool {
        match self {
            Self::Sealed(_, Some(vouched)) => {
                vouched.since.elapsed() < LIFETIME && vouched.members.trusts(vouched.member.key)
            }
            _ => true,
        }
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Sealed(tls, _) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Sealed(tls, _) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Sealed(tls, _) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Sealed(tls, _) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Sealed(tls, _) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
