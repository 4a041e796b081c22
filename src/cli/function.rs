//! `p2pfaas function NAME`: an embedded function as a server of its own, in the manner of
//! of-watchdog: it answers at every path, and its health at `/_/health`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use clap::Args;

use super::{Failure, broken, load, told_to_stop};
use crate::config::Settings;
use crate::faas::embedded::{EmbeddedName, Shared};
use crate::http::errors;
use crate::http::function_api::read_body;
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

struct Server {
    function: EmbeddedName,
    shared: Arc<Shared>,
    settings: Settings,
}

async fn call(
    request: HttpRequest,
    payload: web::Payload,
    server: web::Data<Server>,
) -> HttpResponse {
    let body = match read_body(&request, payload, server.settings.body_bytes_max).await {
        Ok(body) => body,
        Err(error) => return errors::response(&error),
    };
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let query = request.query_string();
    let answer = server.shared.run(server.function, query, content_type, body, ()).await;
    let mut response = HttpResponse::build(answer.status);
    for (name, value) in &answer.headers {
        response.append_header((name.clone(), value.clone()));
    }
    response.body(answer.body)
}

pub(super) fn run(args: &FunctionArgs) -> Result<(), Failure> {
    // The embedded functions' settings (fn_…) come from the environment, as in a node.
    let loaded = load(None, &[("workers", args.workers.to_string().into())])?;
    telemetry::start(&loaded.settings).map_err(Failure::Configuration)?;
    let settings = loaded.settings;
    let (workers, drain_s) = (settings.workers, settings.drain_timeout_s);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shared = Shared::new(&settings);
    let server = web::Data::new(Server { function: args.name, shared, settings });
    let app = move || {
        App::new()
            .app_data(server.clone())
            .route("/_/health", web::get().to(HttpResponse::Ok))
            .default_service(web::to(call))
    };
    actix_rt::System::new().block_on(async {
        let server = HttpServer::new(app)
            .workers(workers)
            // Each picture that is worked on holds its pixels: no more at once than cores.
            .worker_max_blocking_threads(cores.div_ceil(workers).max(1))
            .tcp_nodelay(true)
            .h1_allow_half_closed(false)
            .keep_alive(Duration::from_secs(75))
            .shutdown_timeout(drain_s)
            .disable_signals()
            .bind(args.listen)
            .map_err(|why| {
                Failure::Unavailable(format!("cannot listen on {}: {why}", args.listen))
            })?
            .run();
        let handle = server.handle();
        actix_rt::spawn(async move {
            if told_to_stop().await.is_ok() {
                handle.stop(true).await;
            }
        });
        server.await.map_err(broken)
    })
}
