//! Which path and method lead where, on each port.

use actix_web::body::MessageBody;
use actix_web::dev::{AppService, HttpServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::guard;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{FromRequest, Handler, HttpResponse, Resource, Responder, Route, web};

use super::incoming::check_sealed;
use super::{
    discovery_api, errors, function_api, health, learner_api, learner_ws, node_api, peer_api,
    streamed_peer_api,
};
use crate::error::Error;
use crate::wire::headers;

/// The scheduler's port.
pub fn scheduler(app: &mut web::ServiceConfig) {
    // Scopes match by prefix; a pattern would run a regular expression for every call.
    app.service(web::scope("/function").default_service(web::to(function_api::call)));
    of_peers(app);
    app.service(at("/").get(node_api::greeting).post(node_api::greeting))
        .service(
            at("/configuration").get(node_api::configuration).post(node_api::change_configuration),
        )
        .service(
            at("/configuration/scheduler")
                .get(node_api::scheduler)
                .post(node_api::change_scheduler),
        )
        .service(at("/metrics").get(node_api::metrics))
        .service(at("/health").get(health::health))
        .service(
            at("/system/functions")
                .get(node_api::openfaas_api)
                .post(node_api::openfaas_api)
                .put(node_api::openfaas_api)
                .delete(node_api::openfaas_api),
        )
        .service(at("/system/function/{fn}").get(node_api::openfaas_api))
        .service(at("/system/scale-function/{fn}").post(node_api::openfaas_api))
        .service(at("/monitoring/scale-delay/{fn}").changing_get(node_api::scale_delay));
}

/// What other nodes ask of this one's scheduler, in the clear or by TLS.
fn of_peers(app: &mut web::ServiceConfig) {
    app.service(web::scope("/peer/function").default_service(web::to(peer_api::call)))
        .service(web::scope("/peer/2/function").default_service(web::to(streamed_peer_api::call)))
        .service(at("/peer/2/note/{algorithm}").post(node_api::note))
        .service(web::scope("/peer").default_service(web::to(peer_api::unknown_path)))
        .service(At { in_the_clear: true, ..at("/monitoring/load") }.get(node_api::load));
}

/// The port for members of the cluster.
pub fn members(app: &mut web::ServiceConfig) {
    of_peers(app);
    app.service(at("/list").get(discovery_api::list));
}

/// Discovery's port.
pub fn discovery(app: &mut web::ServiceConfig) {
    app.service(at("/").get(discovery_api::greeting))
        .service(at("/list").get(discovery_api::list))
        .service(at("/records").get(discovery_api::records))
        .service(
            at("/configuration")
                .get(discovery_api::configuration)
                .post(discovery_api::change_configuration),
        )
        .service(at("/reset").changing_get(discovery_api::reset));
}

/// The learner's port.
pub fn learner(app: &mut web::ServiceConfig) {
    app.service(at("/").get(learner_api::greeting))
        .service(at("/act").get(learner_api::act))
        .service(at("/train").changing_get(learner_api::train))
        .service(at("/train_batch").post(learner_api::train_batch))
        .service(
            at("/learner/parameters")
                .get(learner_api::parameters)
                .post(learner_api::change_parameters),
        )
        .service(at("/learner/stats").get(learner_api::stats))
        .service(at("/learner/weights").get(learner_api::weights))
        .service(at("/learner/model").get(learner_api::model).post(learner_api::import_model))
        .service(at("/learner/reset").changing_get(learner_api::reset));
}

/// The learner's port for WebSockets.
pub fn learner_ws(app: &mut web::ServiceConfig) {
    app.default_service(web::to(learner_ws::connect));
}

/// A route for GET, and for HEAD, which is answered the same without the body.
pub fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// A path and the methods that it takes; others are 405, with these in `Allow`.
struct At {
    resource: Resource,
    allowed: Vec<&'static str>,
    /// Whether it can be asked in the clear though clients are served by TLS.
    in_the_clear: bool,
}

fn at(path: &str) -> At {
    At { resource: web::resource(path), allowed: Vec::new(), in_the_clear: false }
}

impl At {
    fn get<F: Handler<A>, A: FromRequest + 'static>(self, handler: F) -> Self
    where
        F::Output: Responder + 'static,
    {
        self.on(&["GET", "HEAD"], get().to(handler))
    }

    /// A GET that changes something, as v1 has them. HEAD must change nothing, so it is not taken.
    fn changing_get<F: Handler<A>, A: FromRequest + 'static>(self, handler: F) -> Self
    where
        F::Output: Responder + 'static,
    {
        self.on(&["GET"], web::get().to(handler))
    }

    fn post<F: Handler<A>, A: FromRequest + 'static>(self, handler: F) -> Self
    where
        F::Output: Responder + 'static,
    {
        self.on(&["POST"], web::post().to(handler))
    }

    fn put<F: Handler<A>, A: FromRequest + 'static>(self, handler: F) -> Self
    where
        F::Output: Responder + 'static,
    {
        self.on(&["PUT"], web::put().to(handler))
    }

    fn delete<F: Handler<A>, A: FromRequest + 'static>(self, handler: F) -> Self
    where
        F::Output: Responder + 'static,
    {
        self.on(&["DELETE"], web::delete().to(handler))
    }

    fn on(mut self, methods: &[&'static str], route: Route) -> Self {
        self.allowed.extend(methods);
        Self { resource: self.resource.route(route), ..self }
    }
}

impl HttpServiceFactory for At {
    fn register(self, config: &mut AppService) {
        let allowed = self.allowed.join(", ");
        let others = web::to(move || {
            let answer = with_version(wrong_method(&allowed));
            async move { answer }
        });
        let resource = self.resource.default_service(others);
        match self.in_the_clear {
            true => resource.register(config),
            false => resource.wrap(from_fn(by_tls)).register(config),
        }
    }
}

/// Lets nobody ask in the clear where clients are served by TLS.
async fn by_tls(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    match check_sealed(request.request()) {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(error) => {
            let answer = with_version(errors::response(&error));
            Ok(request.into_response(answer).map_into_right_body())
        }
    }
}

/// The answer to a method that a path does not take.
fn wrong_method(allowed: &str) -> HttpResponse {
    let mut answer = errors::response(&Error::WrongMethod);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(header::ALLOW, allowed);
    }
    answer
}

/// `answer` with this program's version, which all answers to clients have.
pub fn with_version(mut answer: HttpResponse) -> HttpResponse {
    let version = HeaderValue::from_static(crate::VERSION);
    answer.headers_mut().insert(headers::VERSION.clone(), version);
    answer
}

/// The answer to a path that leads nowhere.
pub async fn unknown_path() -> HttpResponse {
    with_version(errors::response(&Error::UnknownPath))
}
