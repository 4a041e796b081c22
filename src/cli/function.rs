//! `p2pfaas function NAME`: an embedded function as a server of its own, in the manner of
//! of-watchdog: it answers at every path, and its health at `/_/health`.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_server::Server as ActixServer;
use actix_web::http::header;
use actix_web::{App, HttpRequest, HttpResponse, web};
use clap::Args;

use super::{Failure, broken, load, told_to_stop};
use crate::call::body::AnswerBody;
use crate::connections::{Bodies, Connections};
use crate::faas::embedded::{EmbeddedName, Shared};
use crate::http::accompanied::{self, Along};
use crate::http::body::{Uploads, read_body};
use crate::http::errors;
use crate::http::function_api::from_answer;
use crate::http::incoming::PortUsers;
use crate::http::routes::get;
use crate::http::server::{ServeRules, bind, serve};
use crate::memory::budget::Budget;
use crate::metrics::Metrics;
use crate::telemetry;

#[derive(Args)]
pub(super) struct FunctionArgs {
    /// Which function.
    name: EmbeddedName,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Threads that serve calls.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
}

/// A thread's share of the server.
struct Server {
    function: EmbeddedName,
    shared: Arc<Shared>,
    uploads: Uploads,
    body_bytes_max: usize,
}

async fn call(
    request: HttpRequest,
    payload: web::Payload,
    server: web::Data<Server>,
) -> HttpResponse {
    let read = read_body(&request, payload, server.body_bytes_max, &server.uploads).await;
    let (body, held) = match read {
        Ok(read) => read,
        Err(error) => return errors::response(&error),
    };
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let query = request.query_string();
    let answer = server.shared.run(server.function, query, content_type, body, ()).await;
    let held = match &answer.body {
        AnswerBody::Whole(body) => held.for_answer(body.len()),
        _ => held,
    };
    let along = Along { held: Some(held), ..Along::default() };
    let (mut response, body) = from_answer(answer);
    accompanied::hand_on(&mut response, body, along, &request)
}

pub(super) fn run(args: &FunctionArgs) -> Result<(), Failure> {
    // The embedded functions' settings (fn_…) come from the environment, as in a node.
    let loaded = load(None, &[("workers", args.workers.to_string().into())])?;
    telemetry::start(&loaded.settings.logs()).map_err(Failure::Configuration)?;
    let settings = loaded.settings;
    let (workers, drain_s) = (settings.workers, settings.drain_timeout_s);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shared = Shared::new(&settings);
    let connections = Connections::of(&settings, &Arc::new(Metrics::new()));
    let bodies = Bodies {
        budget: Budget::new(settings.bodies_bytes_max),
        connections: Arc::clone(&connections),
    };
    let (function, body_bytes_max) = (args.name, settings.whole_body_bytes_max());
    let app = {
        move || {
            App::new()
                .app_data(web::Data::new(Server {
                    function,
                    shared: Arc::clone(&shared),
                    uploads: Uploads::new(&settings, bodies.clone()),
                    body_bytes_max,
                }))
                .route("/_/health", get().to(HttpResponse::Ok))
                .default_service(web::to(call))
        }
    };
    actix_rt::System::new().block_on(async {
        let told_to_stop = told_to_stop()?;
        let unavailable =
            |why: std::io::Error| Failure::Unavailable(format!("cannot listen on {why}"));
        let builder = ActixServer::build()
            .workers(workers)
            // Each picture that is worked on holds its pixels: no more at once than cores.
            .worker_max_blocking_threads(cores.div_ceil(workers).max(1))
            .shutdown_timeout(drain_s)
            .disable_signals();
        let listener = bind(args.listen.ip(), args.listen.port()).map_err(unavailable)?;
        let rules = ServeRules {
            body_bytes_max: Box::new(move |_| Some(body_bytes_max)),
            machine: None,
            users: PortUsers::Clear,
        };
        let server = serve(builder, listener, Arc::clone(&connections), rules, app)
            .map_err(unavailable)?
            .run();
        actix_rt::spawn(connections.sweeping());
        let handle = server.handle();
        actix_rt::spawn(async move {
            told_to_stop.await;
            handle.stop(true).await;
        });
        server.await.map_err(broken)
    })
}
