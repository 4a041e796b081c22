//! What requests are sent on: a connection, with or without TLS.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use actix_rt::net::TcpStream;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::tls::ClusterMember;

/// A connection.
pub(super) enum Outgoing {
    /// In the clear.
    Clear(TcpStream),
    /// To another member of the cluster.
    Sealed(Box<Sealed>),
}

/// A connection to another member of the cluster.
pub(super) struct Sealed {
    pub(super) tls: TlsStream<TcpStream>,
    /// The number of the [`Epoch`](crate::tls::Epoch) with which it was opened.
    pub(super) epoch: u64,
    /// Who is at its other end.
    pub(super) member: Arc<ClusterMember>,
}

impl Outgoing {
    /// What it goes over.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Clear(tcp) => tcp,
            Self::Sealed(sealed) => sealed.tls.get_ref().0,
        }
    }

    /// With which epoch it was opened; 0: with none.
    pub(super) fn epoch(&self) -> u64 {
        match self {
            Self::Clear(_) => 0,
            Self::Sealed(sealed) => sealed.epoch,
        }
    }

    /// Which member of the cluster is at its other end.
    pub(super) fn member(&self) -> Option<&Arc<ClusterMember>> {
        match self {
            Self::Clear(_) => None,
            Self::Sealed(sealed) => Some(&sealed.member),
        }
    }

    /// Whether the event loop has heard that an idle connection has ended, or something came that nobody asked
    /// for. (Other nodes send nothing by themselves when TLS is agreed on.)
    pub(super) fn has_become_readable(&self) -> bool {
        let heard = self.tcp().poll_read_ready(&mut Context::from_waker(Waker::noop()));
        heard.is_ready()
    }

    /// Whether the system knows that an idle connection has ended, or something came that nobody asked for.
    pub(super) fn has_ended(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(self.tcp()).peek(&mut byte) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) => true,
        }
    }
}

impl AsyncRead for Outgoing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Sealed(sealed) => Pin::new(&mut sealed.tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Sealed(sealed) => Pin::new(&mut sealed.tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Sealed(sealed) => Pin::new(&mut sealed.tls).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The kernel has it.
            Self::Clear(_) => Poll::Ready(Ok(())),
            Self::Sealed(sealed) => Pin::new(&mut sealed.tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Sealed(sealed) => Pin::new(&mut sealed.tls).poll_shutdown(cx),
        }
    }
}
