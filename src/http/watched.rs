//! Around all routes: the table of connections hears when a request begins and when its answer is
//! there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_http::{HttpMessage, Request};
use actix_service::{Service, ServiceFactory};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;

use crate::connections::Connection;

/// See the module.
pub struct Watched<S> {
    /// What carries requests out.
    pub routes: S,
}

impl<F> ServiceFactory<Request> for Watched<F>
where
    F: ServiceFactory<Request, Config = ()>,
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

impl<S: Service<Request>> Service<Request> for Watched<S> {
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
        Carrying { request: self.routes.call(request), connection }
    }
}

pin_project! {
    /// A request that is being carried out.
    pub struct Carrying<F> {
        #[pin]
        request: F,
        connection: Option<Arc<Connection>>,
    }
}

impl<F: Future> Future for Carrying<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.request.poll(cx));
        if let Some(connection) = this.connection.take() {
            connection.answers();
        }
        Poll::Ready(answer)
    }
}
