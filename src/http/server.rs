//! The HTTP servers: which path leads where, and the sockets they listen on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::BoxBody;
use actix_http::{HttpService, Request, Response};
use actix_rt::net::TcpStream;
use actix_server::{Server as ActixServer, ServerBuilder, ServerHandle};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{App, HttpResponse, Resource, web};
use futures_util::future::LocalBoxFuture;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::io::ReadBuf;

use super::body::check_announced;
use super::discovery_api::DiscoveryWorker;
use super::framing::Framing;
use super::gateway_worker::GatewayWorker;
use super::guarded::Guarded;
use super::learner_api::LearnerWorker;
use super::watched::Watched;
use super::{
    discovery_api, errors, function_api, health, learner_api, learner_ws, node_api, peer_api,
    streamed_peer_api,
};
use crate::actors::gateway::{Serve, Server};
use crate::call::state::NodeState;
use crate::config::Settings;
use crate::connections::{Connection, Connections};
use crate::error::Error;
use crate::wire::headers;
use crate::wire::json::Bounds;
use crate::wire::message_bytes_max;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a server keeps an idle connection; longer than our clients do.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Silence after which the kernel asks whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// What an answered client has to read its answer while it still sends what nobody wants.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of what a new connection brings that are looked at, where room is short.
const FIRST_BYTES: usize = 2048;
/// How long it waits after each of its looks at them.
const FIRST_LOOKS_MS: [u64; 4] = [10, 30, 100, 300];
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
            // With another discovery service configured, that one answers on this port.
            discovery: open(settings.discovery_port, settings.service_discovery_host.is_empty())?,
            // With another learner configured, likewise.
            learner: open(settings.learner_port, settings.service_learning_host.is_empty())?,
            learner_ws: open(settings.learner_ws_port, settings.service_learning_host.is_empty())?,
        })
    }
}

/// Makes a worker thread's share of the gateway, on that thread.
pub type MakeWorker = dyn Fn() -> GatewayWorker + Send + Sync;

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

    /// A server on `listener` whose threads each make their own share of the work and its routes.
    fn server<T: 'static>(
        &self,
        listener: &TcpListener,
        workers: usize,
        share: impl Fn() -> T + Clone + Send + 'static,
        routes: fn(&mut web::ServiceConfig),
    ) -> io::Result<ActixServer> {
        let app = move || {
            App::new()
                .app_data(web::Data::new(share()))
                // The last word where the routes have none.
                .default_service(web::to(unknown_path))
                .configure(routes)
        };
        let settings = Arc::clone(&self.node.settings);
        let limits = Arc::new(move |path: &str| body_bytes_max(path, &settings));
        let builder = ActixServer::build()
            .workers(workers)
            .shutdown_timeout(self.shutdown_timeout_s())
            .disable_signals();
        let connections = Arc::clone(&self.node.connections);
        Ok(serve(builder, listener.try_clone()?, connections, limits, app)?.run())
    }

    fn all(&self, listeners: &Listeners) -> io::Result<Vec<ActixServer>> {
        let workers = self.node.settings.workers;
        let Listeners { scheduler, discovery, learner, learner_ws } = listeners;
        let (worker, node) = (Arc::clone(&self.worker), Arc::clone(&self.node));
        let worker = move || Rc::new(worker());
        let of_learner = {
            let node = Arc::clone(&node);
            move || Rc::new(LearnerWorker::new(Arc::clone(&node)))
        };
        let of_discovery = move || Rc::new(DiscoveryWorker::new(Arc::clone(&node)));
        // Nothing runs before it is spawned, so a failure here leaves nothing behind.
        [
            scheduler.as_ref().map(|l| self.server(l, workers, worker, scheduler_routes)),
            discovery.as_ref().map(|l| self.server(l, 1, of_discovery, discovery_routes)),
            learner.as_ref().map(|l| self.server(l, 1, of_learner.clone(), learner_routes)),
            learner_ws.as_ref().map(|l| self.server(l, 1, of_learner, learner_ws_routes)),
        ]
        .into_iter()
        .flatten()
        .collect()
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

/// Has `builder` serve `app` on `listener`. Each connection is counted among `connections`; whoever
/// asks whether to send a body is told so only if `limits` allow it.
///
/// # Errors
/// As the system says.
pub fn serve<F, I, S, B>(
    builder: ServerBuilder,
    listener: TcpListener,
    connections: Arc<Connections>,
    limits: Arc<BodyLimits>,
    app: F,
) -> io::Result<ServerBuilder>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: actix_service::ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    B: actix_http::body::MessageBody + 'static,
{
    let stopping = builder.graceful_shutdown_signal();
    let name = format!("{:?}", listener.local_addr()?);
    // The table ends the least useful connections before this many are there; these are those that
    // are ending.
    let builder = builder.max_concurrent_connections(usize::MAX >> 1);
    builder.listen(name, listener, move || {
        let (connections, limits, stopping) =
            (Arc::clone(&connections), Arc::clone(&limits), stopping.clone());
        let app = app().into_factory().map_err(|error: S::Error| {
            let error: actix_web::Error = error.into();
            Response::<BoxBody>::from(error.error_response())
        });
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_disconnect_timeout(LINGER)
            // Without this a client that hangs up does not end its call.
            .h1_allow_half_closed(false)
            .expect(fn_service(move |request: Request| {
                let invited = invite(&request, &*limits);
                async { invited.map(|()| request) }
            }))
            .on_connect_ext(|guarded: &Guarded, data| {
                data.insert::<Arc<Connection>>(Arc::clone(guarded.connection()));
            })
            .h1(Watched { routes: map_config(app, |()| AppConfig::default()) });
        fn_service(move |stream: TcpStream| {
            let connections = Arc::clone(&connections);
            async move { open(stream, &connections).await }
        })
        .and_then(http)
    })
}

/// Takes a connection in, if there is room or soon will be.
async fn open(
    stream: TcpStream,
    connections: &Arc<Connections>,
) -> Result<(Guarded, Option<SocketAddr>), actix_http::error::DispatchError> {
    // Best effort: without it the connection works, only slower.
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr()?;
    match connections.open_soon(peer.ip(), whole_request(&stream)).await {
        Ok((connection, held)) => Ok((Guarded::new(stream, connection, held), Some(peer))),
        Err(_) => Err(io::Error::from(io::ErrorKind::QuotaExceeded).into()),
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
fn invite(request: &Request, limits: &BodyLimits) -> Result<(), Response<BoxBody>> {
    let length = headers::text(request.head().headers(), &header::CONTENT_LENGTH).parse::<u64>();
    let limit = limits(request.path());
    let (Ok(announced), Some(limit_bytes)) = (length, limit) else { return Ok(()) };
    check_announced(announced, limit_bytes).map_err(|error| {
        let answer = match request.path().starts_with("/peer/function/") {
            true => peer_api::refusal(&error),
            false => errors::response(&error),
        };
        with_version(answer).map_into_boxed_body().into()
    })
}

/// A path whose other methods are 405.
fn at(path: &str) -> Resource {
    web::resource(path).default_service(web::to(wrong_method))
}

fn scheduler_routes(app: &mut web::ServiceConfig) {
    // Scopes match by prefix; a pattern would run a regular expression for every call.
    app.service(web::scope("/function").default_service(web::to(function_api::call)))
        .service(web::scope("/peer/function").default_service(web::to(peer_api::call)))
        .service(web::scope("/peer/2/function").default_service(web::to(streamed_peer_api::call)))
        .service(at("/monitoring/load").route(web::get().to(node_api::load)))
        .service(
            at("/")
                .route(web::get().to(node_api::greeting))
                .route(web::post().to(node_api::greeting)),
        )
        .service(
            at("/configuration")
                .route(web::get().to(node_api::configuration))
                .route(web::post().to(node_api::change_configuration)),
        )
        .service(
            at("/configuration/scheduler")
                .route(web::get().to(node_api::scheduler))
                .route(web::post().to(node_api::change_scheduler)),
        )
        .service(at("/metrics").route(web::get().to(node_api::metrics)))
        .service(at("/health").route(web::get().to(health::health)))
        .service(
            at("/system/functions")
                .route(web::get().to(node_api::openfaas_api))
                .route(web::post().to(node_api::openfaas_api))
                .route(web::put().to(node_api::openfaas_api))
                .route(web::delete().to(node_api::openfaas_api)),
        )
        .service(at("/system/function/{fn}").route(web::get().to(node_api::openfaas_api)))
        .service(at("/system/scale-function/{fn}").route(web::post().to(node_api::openfaas_api)))
        .service(at("/monitoring/scale-delay/{fn}").route(web::get().to(node_api::scale_delay)));
}

fn discovery_routes(app: &mut web::ServiceConfig) {
    app.service(at("/").route(web::get().to(discovery_api::greeting)))
        .service(at("/list").route(web::get().to(discovery_api::list)))
        .service(
            at("/configuration")
                .route(web::get().to(discovery_api::configuration))
                .route(web::post().to(discovery_api::change_configuration)),
        )
        .service(at("/reset").route(web::get().to(discovery_api::reset)));
}

fn learner_routes(app: &mut web::ServiceConfig) {
    app.service(at("/").route(web::get().to(learner_api::greeting)))
        .service(at("/act").route(web::get().to(learner_api::act)))
        .service(at("/train").route(web::get().to(learner_api::train)))
        .service(at("/train_batch").route(web::post().to(learner_api::train_batch)))
        .service(
            at("/learner/parameters")
                .route(web::get().to(learner_api::parameters))
                .route(web::post().to(learner_api::change_parameters)),
        )
        .service(at("/learner/stats").route(web::get().to(learner_api::stats)))
        .service(at("/learner/weights").route(web::get().to(learner_api::weights)))
        .service(
            at("/learner/model")
                .route(web::get().to(learner_api::model))
                .route(web::post().to(learner_api::import_model)),
        )
        .service(at("/learner/reset").route(web::get().to(learner_api::reset)));
}

fn learner_ws_routes(app: &mut web::ServiceConfig) {
    app.default_service(web::to(learner_ws::connect));
}

fn with_version(mut response: HttpResponse) -> HttpResponse {
    let version = HeaderValue::from_static(crate::VERSION);
    response.headers_mut().insert(headers::VERSION.clone(), version);
    response
}

async fn unknown_path() -> HttpResponse {
    with_version(errors::response(&Error::UnknownPath))
}

async fn wrong_method() -> HttpResponse {
    with_version(errors::response(&Error::WrongMethod))
}
