//! An outgoing connection that is honest about its end.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::{ActixStream, TcpStream};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Ready};
use tokio_rustls::client::TlsStream;

thread_local! {
    /// Whether a stream of this thread reported its end since this was last cleared.
    pub(super) static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// Ends the connection once the kernel at the other end has for `silence` acknowledged nothing,
/// neither what was sent nor, while nothing is, being asked whether it is there; or has had no room
/// for what is to be sent. Whole seconds.
///
/// # Errors
/// As the system says.
pub(super) fn end_when_silent(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    end_unacknowledged(stream, silence)?;
    // The kernel counts in seconds and takes no 0.
    let at_least = |part: Duration| part.max(Duration::from_secs(1));
    let ask =
        TcpKeepalive::new().with_time(at_least(silence / 2)).with_interval(at_least(silence / 8));
    SockRef::from(stream).set_tcp_keepalive(&ask)
}

/// Ends the connection once for `silence` nothing that was sent was acknowledged, or there was no room for
/// it at the other end.
///
/// # Errors
/// As the system says.
pub(super) fn end_unacknowledged(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(silence))
}

/// What a socket's bytes go through.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// The connection below it all.
    fn tcp(&self) -> &TcpStream;
}

impl Carrier for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Carrier for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A TCP stream, or TLS over one, that notices at once when it is idle and the other side has closed it.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: S,
    /// Something was written and nothing has come back yet.
    sent: bool,
    /// Not to be used again.
    spoiled: bool,
    /// Whether it may become a WebSocket, which begins with an interim answer.
    may_upgrade: bool,
}

impl<S: Carrier> Socket<S> {
    /// A connection as it was just made.
    pub(super) fn new(stream: S, may_upgrade: bool) -> Self {
        Self { stream, sent: false, spoiled: false, may_upgrade }
    }

    /// Whether the system knows of an end that the event loop has not reported yet.
    ///
    /// # Errors
    /// The connection's error, which the system tells only once.
    fn ended(&self) -> io::Result<bool> {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(self.stream.tcp()).peek(&mut byte) {
            Ok(read) => Ok(read == 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Looks at the first bytes of an answer.
    fn begins(&mut self, bytes: &[u8]) {
        // `awc` takes an interim answer (1xx) for the final one and would use the connection
        // again; the next call on it would read this call's real answer.
        let interim = bytes.starts_with(b"HTTP/1.1 1") || bytes.starts_with(b"HTTP/1.0 1");
        self.spoiled |= interim && !self.may_upgrade;
    }
}

impl<S: Carrier> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.spoiled && !self.sent {
            ENDED.set(true);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match polled {
            Poll::Ready(_) => {
                let read = buf.filled().get(before..).unwrap_or_default();
                // Reading nothing is the end of a stream.
                ENDED.set(ENDED.get() || read.is_empty());
                if std::mem::take(&mut self.sent) {
                    self.begins(read);
                }
            }
            Poll::Pending if !self.sent => match self.ended() {
                Ok(false) => {}
                // The pool drops a connection that reports its end.
                Ok(true) => {
                    ENDED.set(true);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => return Poll::Ready(Err(error)),
            },
            Poll::Pending => {}
        }
        polled
    }
}

impl<S: Carrier> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sent = true;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sent = true;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Carrier> ActixStream for Socket<S> {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.stream.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.stream.tcp(), cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn every_silence_that_can_be_set_is_taken_by_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("connects");
        for silence_s in [1, 2, 5, 10, 3600] {
            end_when_silent(&stream, Duration::from_secs(silence_s)).expect("it takes them");
        }
    }
}
