//! Connections that are kept, and the addresses of the hosts that they lead to.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::net::TcpStream;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustls::pki_types::ServerName;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::stream::{Outgoing, Sealed};
use super::{HttpClient, Inner, Origin};
use crate::client::socket::end_when_silent;
use crate::client::{Hosts, SendFailure, is_near};
use crate::time::since_1970;
use crate::types::Cause;

/// Idle connections are given up before the servers at the other end (75 s here, unlimited in v1)
/// give them up.
const IDLE: Duration = Duration::from_secs(15);
/// How often idle connections are looked for that have been so for too long.
const SWEEP: Duration = Duration::from_secs(5);
/// How long an address that a name led to is taken for granted: the system's resolver does not tell how
/// long it may be.
const NAME_TIME: Duration = Duration::from_secs(5);
/// Idle connections kept to one host at most, and hosts that are remembered.
const IDLE_MAX: usize = 1024;
const HOSTS_MAX: usize = 4096;
/// Files that a node needs beside its connections, or nearly so, and which share of the others the idle connections of
/// a pool may be: a thread has pools for functions, for calls to peers and for probes.
const OTHER_FILES: u64 = 48;
const IDLE_SHARE: u64 = 16;
/// Pauses between two tries to connect to a host that refuses: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Pool {
    hosts: HashMap<Origin, Host>,
    sweeps: Cell<bool>,
    /// Idle connections to all hosts at most; without this, they could be all files that there may be.
    idle_max: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self::for_files(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }
}

#[derive(Default)]
struct Host {
    addresses: Rc<[SocketAddr]>,
    looked_up: Option<Instant>,
    idle: Vec<Idle>,
}

struct Idle {
    stream: Outgoing,
    address: SocketAddr,
    since: Instant,
}

impl Host {
    /// Its addresses, where they were looked up a short time ago.
    fn known(&self, now: Instant) -> Option<Rc<[SocketAddr]>> {
        let at = self.looked_up?;
        (now.duration_since(at) < NAME_TIME).then(|| Rc::clone(&self.addresses))
    }
}

impl Pool {
    /// Where so many files may be open.
    pub(super) fn for_files(files: u64) -> Self {
        let idle_max = usize::try_from(files.saturating_sub(OTHER_FILES) / IDLE_SHARE);
        let idle_max = idle_max.unwrap_or(usize::MAX);
        Self { hosts: HashMap::new(), sweeps: Cell::default(), idle_max }
    }

    fn host(&mut self, origin: &Origin) -> &mut Host {
        if self.hosts.len() >= HOSTS_MAX && !self.hosts.contains_key(origin) {
            // Clients type names; what is in use is not forgotten.
            self.hosts.retain(|_, host| !host.idle.is_empty());
        }
        self.hosts.entry(origin.clone()).or_default()
    }

    /// Drops what was idle for too long; `false`: nothing is left.
    fn sweep(&mut self, now: Instant) -> bool {
        self.hosts.retain(|_, host| {
            host.idle.retain(|idle| now.duration_since(idle.since) < IDLE);
            !host.idle.is_empty() || host.known(now).is_some()
        });
        !self.hosts.is_empty()
    }

    /// Whether another idle connection may be kept.
    pub(super) fn has_room(&self) -> bool {
        // Where there are files enough, nothing is counted.
        self.idle_max > IDLE_MAX
            || self.hosts.values().map(|host| host.idle.len()).sum::<usize>() < self.idle_max
    }

    /// Drops all idle connections; whether there were any.
    fn let_go(&mut self) -> bool {
        let idle = self.hosts.values_mut().map(|host| host.idle.drain(..).count());
        idle.sum::<usize>() > 0
    }
}

impl HttpClient {
    /// Looks the addresses of `origin` up, where they are not known. Costs nothing later, then: a call
    /// that waits for this holds no slot.
    ///
    /// # Errors
    /// It has none.
    pub async fn look_up(&self, origin: &Origin) -> Result<(), SendFailure> {
        self.addresses(origin).await.map(drop)
    }

    async fn addresses(&self, origin: &Origin) -> Result<Rc<[SocketAddr]>, SendFailure> {
        if let Ok(ip) = origin.host.parse::<IpAddr>() {
            return self.allowed(vec![SocketAddr::new(ip, origin.port)]);
        }
        let known = self.0.pool.borrow_mut().host(origin).known(Instant::now());
        if let Some(known) = known {
            return Ok(known);
        }
        let lookup = (self.0.look_up)(origin.host.to_string(), origin.port);
        let found = timeout(self.0.rules.connect / 2, lookup).await;
        let late = |_| SendFailure::UnknownHost(Cause::of("its name was not resolved in time"));
        let found = found.map_err(late)?;
        let found = found.map_err(|why| SendFailure::UnknownHost(Cause::of(why)))?;
        let found = self.allowed(found)?;
        let mut pool = self.0.pool.borrow_mut();
        let host = pool.host(origin);
        // A name that has moved: connections to where it was are not used again.
        host.idle.retain(|idle| found.contains(&idle.address));
        (host.addresses, host.looked_up) = (Rc::clone(&found), Some(Instant::now()));
        drop(pool);
        self.sweep_soon();
        Ok(found)
    }

    fn allowed(&self, mut found: Vec<SocketAddr>) -> Result<Rc<[SocketAddr]>, SendFailure> {
        if self.0.rules.hosts == Hosts::Others {
            let all = found.len();
            found.retain(|address| !is_near(address.ip()));
            if found.is_empty() && all > 0 {
                return Err(SendFailure::NearHost);
            }
        }
        match found.is_empty() {
            true => Err(SendFailure::UnknownHost(Cause::of("the name has no address"))),
            false => Ok(found.into()),
        }
    }

    /// A kept connection to `origin`, the one that was used last, where its name is not to be looked up
    /// anew.
    ///
    /// Whether it has ended without the event loop knowing is looked at with a system call, unless the
    /// request `may_be_repeated` in any case.
    pub(super) fn kept(
        &self,
        origin: &Origin,
        may_be_repeated: bool,
    ) -> Option<(Outgoing, SocketAddr)> {
        let mut pool = self.0.pool.borrow_mut();
        let host = pool.hosts.get_mut(origin)?;
        let now = Instant::now();
        if host.looked_up.is_some() && host.known(now).is_none() {
            return None;
        }
        while let Some(Idle { stream, address, since }) = host.idle.pop() {
            if now.duration_since(since) < IDLE
                && !stream.has_become_readable()
                && (may_be_repeated || !stream.has_ended())
                && self.is_present(&stream)
            {
                return Some((stream, address));
            }
        }
        None
    }

    /// Whether nothing has changed, since a connection was opened, of what is agreed on between nodes.
    fn is_present(&self, stream: &Outgoing) -> bool {
        let sealing = self.0.rules.sealing.as_ref();
        stream.epoch() == 0 || sealing.is_some_and(|tls| tls.number() == stream.epoch())
    }

    /// Keeps a connection for another request.
    pub(super) fn keep(&self, origin: &Origin, address: SocketAddr, stream: Outgoing) {
        let mut pool = self.0.pool.borrow_mut();
        if !pool.has_room() {
            return;
        }
        let host = pool.host(origin);
        let moved = host.looked_up.is_some() && !host.addresses.contains(&address);
        if host.idle.len() < IDLE_MAX && !moved && self.is_present(&stream) {
            host.idle.push(Idle { stream, address, since: Instant::now() });
        }
        drop(pool);
        self.sweep_soon();
    }

    /// Sweeps for as long as anything is kept.
    fn sweep_soon(&self) {
        if self.0.pool.borrow().sweeps.replace(true) {
            return;
        }
        let this = Rc::downgrade(&self.0);
        actix_rt::spawn(async move {
            loop {
                sleep(SWEEP).await;
                let Some(this) = this.upgrade() else { return };
                let mut pool = this.pool.borrow_mut();
                if !pool.sweep(Instant::now()) {
                    pool.sweeps.set(false);
                    return;
                }
            }
        });
    }

    /// A new connection to `origin`.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
    ) -> Result<(Outgoing, SocketAddr), SendFailure> {
        let limit = self.0.rules.connect + origin.longer;
        let failed = Cell::new(None);
        let connected = timeout(limit, self.0.connected(self, origin, &failed)).await;
        match (connected, failed.take()) {
            (Ok(connected), _) => connected,
            (Err(_), why) => {
                let why = why.unwrap_or_else(|| io::ErrorKind::TimedOut.into());
                Err(SendFailure::NotConnected(Cause::of(why)))
            }
        }
    }
}

impl Inner {
    /// Connects. Where files are short, idle connections make way, as they are files too.
    async fn connected_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let connected = TcpStream::connect(address).await;
        match connected {
            Err(why) if lacks_files(&why) && self.pool.borrow_mut().let_go() => {
                TcpStream::connect(address).await
            }
            connected => connected,
        }
    }

    /// Connects; while it goes on after a failure, that is in `failed`.
    async fn connected(
        &self,
        client: &HttpClient,
        origin: &Origin,
        failed: &Cell<Option<io::Error>>,
    ) -> Result<(Outgoing, SocketAddr), SendFailure> {
        let mut pause = PAUSE;
        loop {
            let mut last = io::Error::from(io::ErrorKind::NotConnected);
            for address in &*client.addresses(origin).await? {
                match self.connected_to(*address).await {
                    Ok(stream) => {
                        // Best effort: without these the connection works, only slower, or hangs
                        // for longer.
                        let _ = stream.set_nodelay(true);
                        let _ = end_when_silent(&stream, self.rules.machine_silence);
                        return Ok((self.sealed(origin, stream, *address).await?, *address));
                    }
                    Err(why) => last = why,
                }
            }
            let passes = last.kind() == io::ErrorKind::ConnectionRefused || lacks_files(&last);
            if !self.rules.insists || !passes {
                return Err(SendFailure::NotConnected(Cause::of(last)));
            }
            failed.set(Some(last));
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

impl Inner {
    /// The connection as `origin` wants it: agrees on TLS there, where that is to be.
    async fn sealed(
        &self,
        origin: &Origin,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<Outgoing, SendFailure> {
        if !origin.sealed {
            return Ok(Outgoing::Clear(stream));
        }
        let sealing = self.rules.sealing.as_ref().and_then(|tls| Some((tls, tls.epoch()?)));
        let no_key = || SendFailure::NotConnected(Cause::of("this node has no cluster key"));
        let (tls, epoch) = sealing.ok_or_else(no_key)?;
        let ip = address.ip().to_canonical();
        let greeting = tls.greeting(&epoch, ip, since_1970());
        let connector = TlsConnector::from(Arc::clone(&epoch.client));
        let connector = connector.with_alpn(vec![greeting]);
        let agreed = connector.connect(ServerName::IpAddress(ip.into()), stream).await;
        let tls = agreed.map_err(|why| SendFailure::NotConnected(Cause::of(why)))?;
        let member = epoch.member(tls.get_ref().1.peer_certificates());
        let nobody = || SendFailure::NotConnected(Cause::of("it has no certificate of a member"));
        let member = Arc::new(member.ok_or_else(nobody)?);
        Ok(Outgoing::Sealed(Box::new(Sealed { tls, epoch: epoch.number, member })))
    }
}

/// Whether more files are open than there may be, here or in the whole system.
fn lacks_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|lack| error.raw_os_error() == Some(lack.raw_os_error()))
}
