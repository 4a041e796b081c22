//! Outgoing HTTP connections: one pooled client per worker thread and purpose.
//!
//! Two things differ from a plain `awc` client. `TCP_NODELAY` is set, or a streamed body waits
//! for the other side's delayed acknowledgement. And an idle connection is looked at with a
//! system call before it is used again: the pool asks the event loop, which may not have heard yet
//! that the other side is gone, and a call sent there could not be told from one that was taken.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_rt::net::{ActixStream, TcpStream};
use actix_service::ServiceExt;
use actix_tls::connect::Connector as TcpConnector;
use awc::error::{ConnectError, SendRequestError};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Ready};

/// Idle connections are given up before the servers at the other end (75 s here, unlimited in v1)
/// give them up.
const IDLE: Duration = Duration::from_secs(15);
/// No connection is retired for its age alone.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A client for the current thread. It follows no redirects, adds no headers and has no time
/// limit of its own but `connect_timeout` (name resolution included).
pub fn client(connect_timeout: Duration) -> awc::Client {
    let tcp = TcpConnector::default().service().map(|connection| {
        let (stream, uri): (TcpStream, _) = connection.into_parts();
        // Best effort: without it the connection works, only slower.
        let _ = stream.set_nodelay(true);
        actix_tls::connect::Connection::new(uri, Stream { stream, sent: false })
    });
    let connector = awc::Connector::new()
        .connector(tcp)
        .timeout(connect_timeout)
        .conn_keep_alive(IDLE)
        .conn_lifetime(LIFETIME)
        .limit(0);
    awc::Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .no_default_headers()
        .finish()
}

/// How far a request came that got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// The host's name resolves to nothing. Nothing was sent.
    UnknownHost(String),
    /// No connection. Nothing was sent; it is safe to try elsewhere.
    NotConnected(String),
    /// The connection ended after the request went out. It may have been acted on.
    Broke(String),
}

impl From<SendRequestError> for SendFailure {
    fn from(error: SendRequestError) -> Self {
        match error {
            // The client says "disconnected" when a connection it had ended without an answer.
            SendRequestError::Connect(ConnectError::Disconnected) => {
                Self::Broke("the connection was closed before an answer came".to_owned())
            }
            SendRequestError::Connect(ConnectError::Resolver(why)) => {
                Self::UnknownHost(why.to_string())
            }
            SendRequestError::Connect(ConnectError::NoRecords) => {
                Self::UnknownHost("the name has no address".to_owned())
            }
            SendRequestError::Connect(why) => Self::NotConnected(why.to_string()),
            SendRequestError::Url(why) => Self::NotConnected(why.to_string()),
            SendRequestError::Http(why) => Self::NotConnected(why.to_string()),
            SendRequestError::Send(why) => Self::Broke(why.to_string()),
            SendRequestError::Response(why) => Self::Broke(format!("unreadable answer: {why}")),
            why => Self::Broke(why.to_string()),
        }
    }
}

/// A TCP stream that notices at once when it is idle and the other side has closed it.
#[derive(Debug)]
struct Stream {
    stream: TcpStream,
    /// Something was written and nothing has come back yet.
    sent: bool,
}

impl Stream {
    /// Whether the system knows of an end that the event loop has not reported yet.
    fn ended(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(&self.stream).peek(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match polled {
            Poll::Ready(_) => self.sent = false,
            // Reading nothing is the end of a stream; the pool then drops the connection.
            Poll::Pending if !self.sent && self.ended() => return Poll::Ready(Ok(())),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Stream {
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

impl ActixStream for Stream {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(&self.stream, cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(&self.stream, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::JoinHandle;

    /// Answers one request on one connection for each of `answers`, closes it and says so.
    fn server(answers: Vec<&'static str>) -> (String, Receiver<()>, JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let (say, closed) = channel();
        let serve = move || {
            let mut requests = 0;
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut buffer = [0; 4096];
                requests += usize::from(stream.read(&mut buffer).expect("a request") > 0);
                stream.write_all(answer.as_bytes()).expect("an answer");
                drop(stream);
                say.send(()).expect("the test listens");
            }
            requests
        };
        (url, closed, std::thread::spawn(serve))
    }

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    #[actix_rt::test]
    async fn a_connection_that_the_server_closed_while_idle_is_not_used_again() {
        let (url, closed, served) = server(vec![OK; 20]);
        let client = client(Duration::from_secs(5));
        for _ in 0..20 {
            let mut answer = client.get(&url).send().await.expect("an answer");
            assert_eq!(answer.body().await.expect("a body"), "ok");
            // Holds the thread on purpose: the event loop cannot hear of the end before the reuse.
            closed.recv().expect("the server closes");
        }
        assert_eq!(served.join().expect("served"), 20);
    }

    #[actix_rt::test]
    async fn a_connection_that_ends_without_an_answer_may_have_been_acted_on() {
        let (url, _closed, served) = server(vec![""]);
        let sent = client(Duration::from_secs(5)).post(&url).send_body("x").await;
        let failure = SendFailure::from(sent.err().expect("no answer"));
        assert!(matches!(failure, SendFailure::Broke(_)), "{failure:?}");
        served.join().expect("served");
    }

    #[actix_rt::test]
    async fn a_refused_connection_and_an_unknown_host_sent_nothing() {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", free.local_addr().expect("bound"));
        drop(free);
        let client = client(Duration::from_secs(5));
        let refused = client.get(url).send().await.err().expect("nobody listens");
        assert!(matches!(refused.into(), SendFailure::NotConnected(_)));
        let unknown = client.get("http://no-such-host.invalid/").send().await;
        let failure = SendFailure::from(unknown.err().expect("no such host"));
        assert!(matches!(failure, SendFailure::UnknownHost(_)), "{failure:?}");
    }
}
