//! The HTTP servers: which path leads where, and the sockets they listen on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::{HttpService, Request, Response};
use actix_rt::net::TcpStream;
use actix_server::{Server as ActixServer, ServerBuilder, ServerHandle};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::header;
use actix_web::{App, web};
use futures_util::future::LocalBoxFuture;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::ReadBuf;

use super::body::check_announced;
use super::discovery_api::DiscoveryWorker;
use super::framing::Framing;
use super::gateway_worker::GatewayWorker;
use super::guarded::Guarded;
use super::incoming::{Incoming, OtherSide, PortUsers, TellAddress};
use super::last_words::{TellMachine, is_of_peers};
use super::learner_api::LearnerWorker;
use super::watched::Watched;
use super::{errors, learner_api, peer_api, routes};
use crate::actors::gateway::{Serve, Server};
use crate::call::state::{NodeState, NodeTrust};
use crate::config::Settings;
use crate::connections::{CONNECTION_BYTES, Connection, Connections, Phase};
use crate::memory::budget::Reservation;
use crate::wire::json::Bounds;
use crate::wire::{PeerHop, headers, message_bytes_max};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a server keeps an idle connection; longer than our clients do.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A connection that is younger than this when the node stops may still bring its first request: its client had no
/// sign of the stop.
const FIRST_REQUEST: Duration = Duration::from_millis(300);
/// Silence after which the kernel asks whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// What an answered client has to read its answer while it still sends what nobody wants.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of what a new connection brings that are looked at, where room is short.
const FIRST_BYTES: usize = 2048;
/// How long it waits after each of its looks at them.
const FIRST_LOOKS_MS: [u64; 4] = [10, 30, 100, 300];
/// What a connection takes beyond others for being by TLS.
const TLS_BYTES: u64 = 24 << 10;
/// What a connection may take beyond the drain time to be written out and closed.
const CLOSING_S: u64 = 2;

/// Binds a listening socket.
///
/// # Errors
/// As the system says; the address is in the text.
pub fn bind(host: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // Where all addresses are listened on, those of IPv4 are among them.
            socket.set_only_v6(false)?;
        }
        // Accepted connections inherit it: one whose other side was switched off ends some day.
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bound().map_err(|why: io::Error| io::Error::new(why.kind(), format!("{address}: {why}")))
}

/// A node's listening sockets; `None` where an API is turned off.
pub struct Listeners {
    scheduler: Option<TcpListener>,
    members: Option<TcpListener>,
    discovery: Option<TcpListener>,
    learner: Option<TcpListener>,
    learner_ws: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the settings ask for.
    ///
    /// # Errors
    /// The first that cannot be bound.
    pub fn bind(settings: &Settings) -> io::Result<Self> {
        let open = |port: u16, wanted: bool| {
            (port != 0 && wanted).then(|| bind(settings.host, port)).transpose()
        };
        Ok(Self {
            scheduler: open(settings.scheduler_port, true)?,
            members: open(settings.peer_tls_port, settings.has_cluster_key())?,
            // With another discovery service configured, that one answers on this port.
            discovery: open(settings.discovery_port, settings.service_discovery_host.is_empty())?,
            // With another learner configured, likewise.
            learner: open(settings.learner_port, settings.service_learning_host.is_empty())?,
            learner_ws: open(settings.learner_ws_port, settings.service_learning_host.is_empty())?,
        })
    }
}

thread_local! {
    /// This thread's share of the gateway, by whichever port it is called.
    static WORKER: RefCell<Weak<GatewayWorker>> = const { RefCell::new(Weak::new()) };
}

/// This thread's share of the gateway: the one that it has, or a new one.
fn of_this_thread(make: &MakeWorker) -> Rc<GatewayWorker> {
    let present = WORKER.with_borrow(Weak::upgrade);
    present.unwrap_or_else(|| {
        let new = Rc::new(make());
        WORKER.set(Rc::downgrade(&new));
        new
    })
}

/// Makes a worker thread's share of the gateway, on that thread.
pub type MakeWorker = dyn Fn() -> GatewayWorker + Send + Sync;

/// A listener by which anybody comes in, in the clear.
fn clear(listener: &Option<TcpListener>) -> (Option<&TcpListener>, PortUsers) {
    (listener.as_ref(), PortUsers::Clear)
}

/// A node's servers. The sockets stay open from one start to the next.
pub struct Servers {
    node: Arc<NodeState>,
    worker: Arc<MakeWorker>,
    listeners: RefCell<Option<Listeners>>,
}

impl Servers {
    /// Serves `node` on `listeners`; each thread of the gateway works with what `worker` makes.
    pub fn new(node: Arc<NodeState>, worker: Arc<MakeWorker>, listeners: Listeners) -> Self {
        Self { node, worker, listeners: RefCell::new(Some(listeners)) }
    }

    fn shutdown_timeout_s(&self) -> u64 {
        self.node.settings.drain_timeout_s + CLOSING_S
    }

    /// A server of so many threads that listens on nothing yet.
    fn builder(&self, workers: usize) -> ServerBuilder {
        ActixServer::build()
            .workers(workers)
            .shutdown_timeout(self.shutdown_timeout_s())
            .disable_signals()
    }

    /// Has a server listen on `listener`, if there is one. Its threads each make their own share of the work and
    /// its routes.
    fn listen(
        &self,
        builder: ServerBuilder,
        (listener, users): (Option<&TcpListener>, PortUsers),
        configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> io::Result<ServerBuilder> {
        let Some(listener) = listener else { return Ok(builder) };
        let app = move || {
            App::new()
                // The last word where the routes have none.
                .default_service(web::to(routes::unknown_path))
                .configure(configure.clone())
        };
        let (settings, node) = (Arc::clone(&self.node.settings), Arc::clone(&self.node));
        let rules = ServeRules {
            body_bytes_max: Box::new(move |path: &str| body_bytes_max(path, &settings)),
            machine: Some(Arc::new(move || PeerHop::at(&node.published.load().identity))),
            users,
        };
        let connections = Arc::clone(&self.node.connections);
        serve(builder, listener.try_clone()?, connections, rules, app)
    }

    /// The server of calls, from clients and from other nodes.
    fn calls(&self, listeners: &Listeners) -> io::Result<ServerBuilder> {
        let NodeTrust { clients, members, .. } = &self.node.trust;
        let (worker, node) = (Arc::clone(&self.worker), Arc::clone(&self.node));
        let (make, of_members) = (Arc::clone(&worker), Arc::clone(members));
        let users = clients.clone().map_or(PortUsers::Clear, PortUsers::Clients);
        let clients = (listeners.scheduler.as_ref(), users);
        let calls = self.listen(self.builder(self.node.settings.workers), clients, move |app| {
            app.app_data(web::Data::new(of_this_thread(&*make)));
            routes::scheduler(app);
        })?;
        let published = Arc::clone(&node.published);
        let own: TellAddress = Arc::new(move || published.load().identity.ip);
        let members = (listeners.members.as_ref(), PortUsers::Members(of_members, own));
        self.listen(calls, members, move |app| {
            app.app_data(web::Data::new(of_this_thread(&*worker)));
            app.app_data(web::Data::new(Rc::new(DiscoveryWorker::new(Arc::clone(&node)))));
            routes::members(app);
        })
    }

    fn all(&self, listeners: &Listeners) -> io::Result<Vec<ActixServer>> {
        let Listeners { scheduler, members, discovery, learner, learner_ws } = listeners;
        let node = Arc::clone(&self.node);
        let of_learner = {
            let node = Arc::clone(&node);
            move |app: &mut web::ServiceConfig| {
                app.app_data(web::Data::new(Rc::new(LearnerWorker::new(Arc::clone(&node)))));
            }
        };
        let of_sockets = of_learner.clone();
        let calls = self.calls(listeners)?;
        // Batches that train take long: nothing else shares their thread. The others share one, since each thread
        // wakes up several times a second even if nobody calls.
        let training = self.listen(self.builder(1), clear(learner), move |app| {
            of_learner(app);
            routes::learner(app);
        })?;
        let others = self.listen(self.builder(1), clear(discovery), move |app| {
            app.app_data(web::Data::new(Rc::new(DiscoveryWorker::new(Arc::clone(&node)))));
            routes::discovery(app);
        })?;
        let others = self.listen(others, clear(learner_ws), move |app| {
            of_sockets(app);
            routes::learner_ws(app);
        })?;
        // Nothing runs before it is spawned, so a failure above leaves nothing behind.
        let all = [
            scheduler.as_ref().or(members.as_ref()).map(|_| calls),
            learner.as_ref().map(|_| training),
            discovery.as_ref().or(learner_ws.as_ref()).map(|_| others),
        ];
        Ok(all.into_iter().flatten().map(ServerBuilder::run).collect())
    }
}

impl Server for ServerHandle {
    fn stop(&self) -> LocalBoxFuture<'static, ()> {
        // The order goes out with the call; the future only waits for its end.
        Box::pin(ServerHandle::stop(self, true))
    }
}

impl Serve for Servers {
    fn start(&self, ended: Rc<dyn Fn()>) -> io::Result<Vec<Box<dyn Server>>> {
        let listeners = self.listeners.borrow();
        let servers = listeners.as_ref().map_or_else(|| Ok(Vec::new()), |l| self.all(l))?;
        let spawn = |server: ActixServer| -> Box<dyn Server> {
            let (handle, ended) = (server.handle(), Rc::clone(&ended));
            actix_rt::spawn(async move {
                if let Err(error) = server.await {
                    tracing::error!(%error, "a server failed");
                }
                ended();
            });
            Box::new(handle)
        };
        Ok(servers.into_iter().map(spawn).collect())
    }

    fn close(&self) {
        self.listeners.borrow_mut().take();
    }
}

/// Bytes of a body that a path takes at most; `None`: it takes any, or none.
pub type BodyLimits = dyn Fn(&str) -> Option<usize> + Send + Sync;

/// The limits of a node's routes, on all its ports.
fn body_bytes_max(path: &str, settings: &Settings) -> Option<usize> {
    let bytes = settings.whole_body_bytes_max();
    Some(match path {
        _ if path.starts_with("/function/") || path.starts_with("/peer/2/") => {
            return settings.body_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        }
        _ if path.starts_with("/peer/function/") => message_bytes_max(bytes),
        "/train_batch" => bytes,
        "/learner/model" => learner_api::model_bounds(settings).bytes,
        _ => Bounds::SMALL.bytes,
    })
}

/// What holds for requests before any handler sees them.
pub struct ServeRules {
    /// Whoever asks whether to send a body is told so only if this allows it.
    pub body_bytes_max: Box<BodyLimits>,
    /// Who answers calls between nodes; `None`: no other node calls here.
    pub machine: Option<Arc<TellMachine>>,
    /// Who comes in, and how.
    pub users: PortUsers,
}

/// Has `builder` serve `app` on `listener` by `rules`. Each connection is counted among `connections`.
///
/// # Errors
/// As the system says.
pub fn serve<F, I, S, B>(
    builder: ServerBuilder,
    listener: TcpListener,
    connections: Arc<Connections>,
    rules: ServeRules,
    app: F,
) -> io::Result<ServerBuilder>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: actix_service::ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>>
        + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: std::fmt::Debug,
    B: actix_http::body::MessageBody + 'static,
{
    let rules = Arc::new(rules);
    let stopping = builder.graceful_shutdown_signal();
    let name = format!("{:?}", listener.local_addr()?);
    // The table ends the least useful connections before this many are there; these are those that
    // are ending.
    let builder = builder.max_concurrent_connections(usize::MAX >> 1);
    builder.listen(name, listener, move || {
        let (connections, rules, stopping) =
            (Arc::clone(&connections), Arc::clone(&rules), stopping.clone());
        let (machine, users) = (rules.machine.clone(), rules.users.clone());
        let app = app().into_factory().map_err(|error: S::Error| {
            let error: actix_web::Error = error.into();
            Response::<BoxBody>::from(error.error_response())
        });
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                let first = tokio::time::Instant::now() + FIRST_REQUEST;
                async move {
                    stopping.notified().await;
                    tokio::time::sleep_until(first).await;
                }
            })
            .keep_alive(KEEP_ALIVE)
            .client_disconnect_timeout(LINGER)
            // Without this a client that hangs up does not end its call.
            .h1_allow_half_closed(false)
            .expect(fn_service(move |request: Request| {
                let invited = invite(&request, &rules);
                async { invited.map(|()| request) }
            }))
            .on_connect_ext(|guarded: &Guarded, data| {
                data.insert::<Arc<Connection>>(Arc::clone(guarded.connection()));
                data.insert::<OtherSide>(guarded.other_side().clone());
                if let Some(client) = guarded.client() {
                    data.insert(client);
                }
            })
            .h1(Watched { routes: map_config(app, |()| AppConfig::default()) });
        fn_service(move |stream: TcpStream| {
            let (connections, machine) = (Arc::clone(&connections), machine.clone());
            let users = users.clone();
            async move { open(stream, &connections, &users, machine).await }
        })
        .and_then(http)
    })
}

/// Takes a connection in, if there is room or soon will be, and once both sides have agreed on TLS where that is
/// to be.
async fn open(
    stream: TcpStream,
    connections: &Arc<Connections>,
    users: &PortUsers,
    machine: Option<Arc<TellMachine>>,
) -> Result<(Guarded, Option<SocketAddr>), actix_http::error::DispatchError> {
    // Best effort: without it the connection works, only slower.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr()?;
    let from = peer.ip().to_canonical();
    let Ok((connection, held)) = connections.open_soon(from, whole_request(&stream)).await else {
        return Err(io::Error::from(io::ErrorKind::QuotaExceeded).into());
    };
    if let PortUsers::Clear = users {
        let (incoming, other) = (Incoming::Clear(stream), OtherSide::default());
        return Ok((Guarded::new(incoming, connection, held, other, machine), Some(peer)));
    }
    let mut agreeing = Agreeing { held: Some(held), connection: Arc::clone(&connection) };
    // As if it were a request's head, it must come in time and gives way to others.
    connection.enter(Phase::Head, 0);
    if let Some(held) = &mut agreeing.held {
        let _ = connection.grow(held, CONNECTION_BYTES + TLS_BYTES);
    }
    let let_in = tokio::select! {
        let_in = Incoming::let_in(stream, from, users) => let_in,
        () = connection.until_ended() => Err(users.refusal()),
    };
    let (incoming, other) = let_in.map_err(|kind| {
        connections.refused(kind);
        io::Error::from(io::ErrorKind::PermissionDenied)
    })?;
    connection.enter(Phase::Idle, 0);
    let held = agreeing.held.take().ok_or_else(|| io::Error::from(io::ErrorKind::Other))?;
    Ok((Guarded::new(incoming, connection, held, other, machine), Some(peer)))
}

/// A connection whose sides have not agreed on TLS yet. If they never do, it goes off the table.
struct Agreeing {
    connection: Arc<Connection>,
    /// What it holds; taken once they have agreed.
    held: Option<Reservation>,
}

impl Drop for Agreeing {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            // Before others are told that there is room.
            drop(held);
            self.connection.table().close(&self.connection);
        }
    }
}

/// Waits for what a client sends first; does not end unless that is a whole request. It looks a few times,
/// since head and body may come one after the other.
async fn whole_request(stream: &TcpStream) {
    for pause_ms in FIRST_LOOKS_MS {
        let looks = poll_fn(|cx| {
            // Not kept across a wait, for thousands may wait.
            let mut first = [0; FIRST_BYTES];
            let mut first = ReadBuf::new(&mut first);
            stream
                .poll_peek(cx, &mut first)
                .map(|came| came.is_ok() && Framing::holds_whole(first.filled()))
        });
        if looks.await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    std::future::pending().await
}

/// Whether a client may send the body that it asks about.
fn invite(request: &Request, rules: &ServeRules) -> Result<(), Response<BoxBody>> {
    let length = headers::text(request.head().headers(), &header::CONTENT_LENGTH).parse::<u64>();
    let limit = (rules.body_bytes_max)(request.path());
    let (Ok(announced), Some(limit_bytes)) = (length, limit) else { return Ok(()) };
    check_announced(announced, limit_bytes).map_err(|error| {
        let machine = rules.machine.as_deref().filter(|_| is_of_peers(request.path()));
        let answer = match machine {
            Some(machine) => peer_api::refusal(&error, machine()),
            None => routes::with_version(errors::response(&error)),
        };
        answer.map_into_boxed_body().into()
    })
}
