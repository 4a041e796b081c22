//! Outgoing HTTP connections: one pooled client per worker thread and purpose.
//!
//! Some things differ from a plain `awc` client. `TCP_NODELAY` is set, or a streamed body waits
//! for the other side's delayed acknowledgement. And an idle connection is looked at with a
//! system call before it is used again: the pool asks the event loop, which may not have heard yet
//! that the other side is gone, and a call sent there could not be told from one that was taken.
//!
//! And a body that ends before its framing says so is an error ([`read_body`]); `awc` takes the end
//! of the connection for the end of any body.

mod body;
pub mod bounded_socket;
mod failure;
pub mod http1;
pub mod programs;
pub mod remote_learner;
mod socket;
pub mod socket_pool;
mod trusted;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use actix_rt::net::{ActixStream, TcpStream};
use actix_service::{Service, ServiceExt, fn_service};
use actix_tls::connect::{
    ConnectError, ConnectInfo, Connection, Connector as TcpConnector, Resolve, Resolver,
};
use awc::http::Uri;
use futures_util::future::LocalBoxFuture;

pub use self::body::{BodyFailure, read_body, read_held_body, read_start};
pub use self::failure::SendFailure;
use self::socket::Socket;
pub use self::trusted::{BadCertificates, ServerTrust};

/// Idle connections are given up before the servers at the other end (75 s here, unlimited in v1)
/// give them up.
const IDLE: Duration = Duration::from_secs(15);
/// No connection is retired for its age alone.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Which hosts a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any that an operator or a machine named.
    Any,
    /// None by a name that leads back to this machine or to its link, for names that clients type.
    Others,
}

/// A client for the current thread. It follows no redirects, adds no headers and has no time
/// limit of its own but `connect_timeout` (name resolution included).
pub fn client(connect_timeout: Duration, hosts: Hosts) -> awc::Client {
    built(connect_timeout, hosts, false)
}

/// The same for opening WebSockets to any host.
pub fn websocket_client(connect_timeout: Duration) -> awc::Client {
    built(connect_timeout, Hosts::Any, true)
}

/// A client for servers that speak TLS and that `trust` believes; the handshake is part of connecting. Its
/// requests are written with `http://` all the same: TLS is below what it knows of, so that it hears of ends as
/// without.
pub fn tls_client(connect_timeout: Duration, trust: &ServerTrust) -> awc::Client {
    let trust = trust.clone();
    let resolver = Resolver::custom(Names { limit: connect_timeout / 2, hosts: Hosts::Any });
    let tcp = TcpConnector::new(resolver).service();
    let tls = tcp.and_then(fn_service(move |connection: Connection<Uri, TcpStream>| {
        let trust = trust.clone();
        async move {
            let (stream, uri) = connection.into_parts();
            let _ = stream.set_nodelay(true);
            let secured = trust.secure(uri.host().unwrap_or_default(), stream).await;
            let socket = Socket::new(secured.map_err(ConnectError::Io)?, false);
            Ok(Connection::new(uri, socket))
        }
    }));
    over(tls, connect_timeout)
}

fn built(connect_timeout: Duration, hosts: Hosts, may_upgrade: bool) -> awc::Client {
    let resolver = Resolver::custom(Names { limit: connect_timeout / 2, hosts });
    let tcp = TcpConnector::new(resolver).service().map(move |connection| {
        let (stream, uri): (TcpStream, _) = connection.into_parts();
        // Best effort: without it the connection works, only slower.
        let _ = stream.set_nodelay(true);
        Connection::new(uri, Socket::new(stream, may_upgrade))
    });
    over(tcp, connect_timeout)
}

/// A client over these connections.
fn over<S, Io>(connections: S, connect_timeout: Duration) -> awc::Client
where
    S: Service<ConnectInfo<Uri>, Response = Connection<Uri, Io>, Error = ConnectError>
        + Clone
        + 'static,
    Io: ActixStream + fmt::Debug + 'static,
{
    let connector = awc::Connector::new()
        .connector(connections)
        .timeout(connect_timeout)
        .conn_keep_alive(IDLE)
        .conn_lifetime(LIFETIME)
        // Not awc's own "no limit", which is more than a 32-bit machine's semaphore takes.
        .limit(1 << 20);
    awc::Client::builder()
        .connector(connector)
        .disable_timeout()
        .disable_redirects()
        .no_default_headers()
        .finish()
}

/// All addresses that the system's resolver finds for a host. It takes as long as that does, on a
/// thread of its own.
///
/// # Errors
/// It finds none, for whatever reason.
pub async fn addresses(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let lookup = move || (host, port).to_socket_addrs().map(Vec::from_iter);
    actix_rt::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
}

/// The system's resolver with a time limit of its own, so that a name that cannot be resolved in
/// time is told from a host that cannot be connected to.
struct Names {
    limit: Duration,
    hosts: Hosts,
}

/// Whether an address is only good on one of this machine's links.
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Whether an address is this machine's loopback, or only good on one of its links.
fn is_near(ip: IpAddr) -> bool {
    let canonical = ip.to_canonical();
    canonical.is_loopback() || canonical.is_unspecified() || is_link_local(ip)
}

impl Resolve for Names {
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> LocalBoxFuture<'a, Result<Vec<SocketAddr>, Box<dyn std::error::Error>>> {
        // An IPv6 address stands in brackets in a URL.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let lookup = addresses(bare.unwrap_or(host).to_owned(), port);
        Box::pin(async move {
            let mut found = tokio::time::timeout(self.limit, lookup).await??;
            if self.hosts == Hosts::Others {
                found.retain(|address| !is_near(address.ip()));
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
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
        let client = client(Duration::from_secs(5), Hosts::Any);
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
        let sent = client(Duration::from_secs(5), Hosts::Any).post(&url).send_body("x").await;
        let failure = SendFailure::from(sent.expect_err("no answer"));
        assert!(matches!(failure, SendFailure::Broke(_)), "{failure:?}");
        served.join().expect("served");
    }

    #[actix_rt::test]
    async fn a_body_that_ends_before_its_framing_says_so_is_truncated() {
        for (rest, want) in [
            ("content-length: 9\r\n\r\nhalf", Err(BodyFailure::Truncated)),
            ("content-length: 9\r\n\r\n", Err(BodyFailure::Truncated)),
            ("transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", Err(BodyFailure::Truncated)),
            ("transfer-encoding: chunked\r\n\r\n4\r\nall.\r\n0\r\n\r\n", Ok("all.".into())),
            ("content-length: 4\r\n\r\nall.", Ok("all.".into())),
            ("content-length: 0\r\n\r\n", Ok("".into())),
            ("connection: close\r\n\r\nall.", Err(BodyFailure::NoLength)),
            // An HTTP/1.0 server may end a body by closing.
            ("\r\nall.", Ok("all.".into())),
            ("content-length: 11\r\n\r\ntwelve byte", Err(BodyFailure::TooLarge(10))),
        ] {
            let version = i32::from(rest.contains(':'));
            let answer = Box::leak(format!("HTTP/1.{version} 200 OK\r\n{rest}").into_boxed_str());
            let (url, _closed, served) = server(vec![answer]);
            let sent = client(Duration::from_secs(5), Hosts::Any).get(&url).send().await;
            let got: Result<Bytes, _> = read_body(&mut sent.expect("a head"), 10).await;
            assert_eq!(got, want, "{rest:?}");
            served.join().expect("served");
        }
    }

    #[actix_rt::test]
    async fn the_start_of_a_body_is_kept_and_all_of_it_is_read() {
        for (rest, want) in [
            ("content-length: 12\r\n\r\ntwelve bytes", Ok("twelve".into())),
            (
                "transfer-encoding: chunked\r\n\r\n4\r\ntwel\r\n2\r\nve\r\n3\r\n...\r\n0\r\n\r\n",
                Ok("twelve".into()),
            ),
            ("content-length: 4\r\n\r\nfour", Ok("four".into())),
            ("content-length: 99\r\n\r\ntwelve bytes", Err(BodyFailure::Truncated)),
        ] {
            let answer = Box::leak(format!("HTTP/1.1 200 OK\r\n{rest}").into_boxed_str());
            let (url, _closed, served) = server(vec![answer]);
            let sent = client(Duration::from_secs(5), Hosts::Any).get(&url).send().await;
            let got: Result<Bytes, _> = read_start(&mut sent.expect("a head"), 6).await;
            assert_eq!(got, want, "{rest:?}");
            served.join().expect("served");
        }
    }

    #[actix_rt::test]
    async fn an_interim_answer_is_an_error_and_its_connection_is_not_used_again() {
        let interim =
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst";
        let (url, _closed, served) = server(vec![interim, OK]);
        let client = client(Duration::from_secs(5), Hosts::Any);
        let mut first = client.get(&url).send().await.expect("a head");
        assert_eq!(read_body(&mut first, 99).await, Err(BodyFailure::Interim));
        drop(first);
        let mut second = client.get(&url).send().await.expect("a head");
        assert_eq!(read_body(&mut second, 99).await, Ok("ok".into()), "not the first's answer");
        served.join().expect("served");
    }

    #[actix_rt::test]
    async fn a_not_modified_answer_has_no_body_whatever_length_it_tells() {
        let (url, _closed, served) = server(vec!["HTTP/1.1 304 X\r\ncontent-length: 9\r\n\r\n"]);
        let client = client(Duration::from_secs(5), Hosts::Any);
        let mut answer = client.get(&url).send().await.expect("a head");
        assert_eq!(read_body(&mut answer, 99).await, Ok("".into()));
        served.join().expect("served");
    }

    #[actix_rt::test]
    async fn an_ipv6_address_is_found_in_its_brackets() {
        let names = Names { limit: Duration::from_secs(5), hosts: Hosts::Any };
        let found = names.lookup("[::1]", 80).await.expect("it resolves");
        assert_eq!(found, ["[::1]:80".parse().expect("an address")]);
    }

    #[actix_rt::test]
    async fn a_name_that_clients_type_does_not_lead_back_to_this_machine() {
        for (hosts, found) in [(Hosts::Any, true), (Hosts::Others, false)] {
            let names = Names { limit: Duration::from_secs(5), hosts };
            let addresses = names.lookup("localhost", 80).await.expect("it resolves");
            assert_eq!(!addresses.is_empty(), found, "{hosts:?}");
        }
    }

    #[actix_rt::test]
    async fn a_refused_connection_and_an_unknown_host_sent_nothing() {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", free.local_addr().expect("bound"));
        drop(free);
        let client = client(Duration::from_secs(5), Hosts::Any);
        let refused = client.get(url).send().await.expect_err("nobody listens");
        assert!(SendFailure::from(refused).is_hosts_fault());
        let unknown = client.get("http://no-such-host.invalid/").send().await;
        let failure = SendFailure::from(unknown.expect_err("no such host"));
        assert!(matches!(failure, SendFailure::UnknownHost(_)), "{failure:?}");
    }
}
