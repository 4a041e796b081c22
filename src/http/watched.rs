//! Around all routes: the table of connections hears when a request begins and when its answer is
//! there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_http::{ConnectionType, HttpMessage, Request};
use actix_service::{Service, ServiceFactory};
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;

use crate::connections::Connection;

/// See the module.
pub struct Watched<S> {
    /// What carries requests out.
    pub routes: S,
}

impl<F, B> ServiceFactory<Request> for Watched<F>
where
    F: ServiceFactory<Request, Config = (), Response = ServiceResponse<B>>,
    F::Future: 'static,
{
    type Response = F::Response;
    type Error = F::Error;
    type Config = ();
    type Service = Watched<F::Service>;
    type InitError = F::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        self.routes.new_service(()).map(|made| made.map(|routes| Watched { routes })).boxed_local()
    }
}

impl<S, B> Service<Request> for Watched<S>
where
    S: Service<Request, Response = ServiceResponse<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Carrying<S::Future>;

    actix_service::forward_ready!(routes);

    fn call(&self, request: Request) -> Self::Future {
        let connection = request.conn_data::<Arc<Connection>>().cloned();
        if let Some(connection) = &connection {
            let open = request.chunked().unwrap_or(true) || request.head().upgrade();
            connection.begins(open);
        }
        let offers = request.head().upgrade();
        Carrying { request: self.routes.call(request), connection, offers }
    }
}

pin_project! {
    /// A request that is being carried out.
    pub struct Carrying<F> {
        #[pin]
        request: F,
        connection: Option<Arc<Connection>>,
        // It offers to speak another protocol.
        offers: bool,
    }
}

impl<F, B, E> Future for Carrying<F>
where
    F: Future<Output = Result<ServiceResponse<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.request.poll(cx));
        if let Ok(answer) = &mut answer
            && *this.offers
            && answer.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            // The server would say that it speaks that now, and end the connection without a word.
            answer.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        if let Some(connection) = this.connection.take() {
            connection.answers();
        }
        Poll::Ready(answer)
    }
}
