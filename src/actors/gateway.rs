//! The Gateway actor: keeps the HTTP servers running.
//!
//! What survives a restart of the actor: the listening sockets, which belong to the node, so no
//! connection is refused meanwhile; and the connections being served, which the old servers finish
//! while the new ones already accept.

use std::io;
use std::rc::Rc;

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture,
};
use futures_util::future::{LocalBoxFuture, join_all};

use super::observe::{ActorState, Observe};
use super::supervise::Guard;

/// A server that takes connections.
pub trait Server {
    /// Takes no new connections from this call on; resolves when those being served have ended or
    /// the servers' own limit has passed.
    fn stop(&self) -> LocalBoxFuture<'static, ()>;
}

/// How the Gateway starts its servers.
pub trait Serve {
    /// Starts all servers on the node's listening sockets; a server that ends calls `ended`.
    ///
    /// # Errors
    /// A server that cannot be started; then none runs.
    fn start(&self, ended: Rc<dyn Fn()>) -> io::Result<Vec<Box<dyn Server>>>;

    /// Closes the listening sockets for good.
    fn close(&self);
}

/// Takes no new connections and waits until those being served have ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// A server is gone, asked or unasked.
#[derive(Message)]
#[rtype(result = "()")]
struct ServerEnded;

/// See the module.
pub struct Gateway {
    serve: Rc<dyn Serve>,
    servers: Vec<Box<dyn Server>>,
    _guard: Guard,
}

impl Gateway {
    /// Serves with what `serve` starts.
    pub fn new(serve: Rc<dyn Serve>, guard: Guard) -> Self {
        Self { serve, servers: Vec::new(), _guard: guard }
    }
}

impl Actor for Gateway {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let me = ctx.address();
        match self.serve.start(Rc::new(move || me.do_send(ServerEnded))) {
            Ok(servers) => self.servers = servers,
            Err(error) => {
                tracing::error!(%error, "the servers cannot be started");
                ctx.stop();
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for server in &self.servers {
            // The order to stop is given by the call; nobody waits for its end here.
            drop(server.stop());
        }
    }
}

impl Handler<ServerEnded> for Gateway {
    type Result = ();

    fn handle(&mut self, _: ServerEnded, ctx: &mut Self::Context) {
        // After `Drain` there are none left to miss; before, all are started anew.
        if !self.servers.is_empty() {
            tracing::error!("a server ended unasked");
            ctx.stop();
        }
    }
}

impl Handler<Drain> for Gateway {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        self.serve.close();
        let ended: Vec<_> = self.servers.drain(..).map(|server| server.stop()).collect();
        Box::pin(async move {
            join_all(ended).await;
        })
    }
}

impl Handler<Observe> for Gateway {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(ActorState::Gateway { servers: self.servers.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Crash;
    use super::*;
    use std::cell::{Cell, RefCell};

    type Ended = Rc<dyn Fn()>;

    /// Counts starts, stops and closings.
    #[derive(Clone, Default)]
    struct Counts {
        started: Rc<Cell<u32>>,
        stopped: Rc<Cell<u32>>,
        closed: Rc<Cell<bool>>,
        ended: Rc<RefCell<Option<Ended>>>,
    }

    impl Server for Counts {
        fn stop(&self) -> LocalBoxFuture<'static, ()> {
            self.stopped.set(self.stopped.get() + 1);
            Box::pin(async {})
        }
    }

    impl Serve for Counts {
        fn start(&self, ended: Rc<dyn Fn()>) -> io::Result<Vec<Box<dyn Server>>> {
            self.started.set(self.started.get() + 1);
            *self.ended.borrow_mut() = Some(ended);
            Ok(vec![Box::new(self.clone())])
        }

        fn close(&self) {
            self.closed.set(true);
        }
    }

    #[actix::test]
    async fn a_gateway_that_panics_tells_its_servers_to_end_and_leaves_the_sockets_open() {
        let counts = Counts::default();
        let gateway = Gateway::new(Rc::new(counts.clone()), Guard::new(|_| ())).start();
        gateway.send(Crash).await.expect_err("it panics");
        assert_eq!((counts.started.get(), counts.stopped.get()), (1, 1));
        assert!(!counts.closed.get());
    }

    #[actix::test]
    async fn a_server_that_ends_unasked_ends_the_gateway_to_be_started_anew() {
        let counts = Counts::default();
        let (say, told) = tokio::sync::oneshot::channel();
        let guard = Guard::new(move |ended| say.send(ended).expect("the test waits"));
        let gateway = Gateway::new(Rc::new(counts.clone()), guard).start();
        tokio::task::yield_now().await;
        let ended = counts.ended.borrow().clone().expect("it was started");
        ended();
        assert_eq!(told.await, Ok(super::super::supervise::EndCause::Stopped));
        assert_eq!(counts.stopped.get(), 1, "the other servers are told to end too");
        drop(gateway);
    }

    #[actix::test]
    async fn draining_closes_the_sockets_and_stops_every_server_once() {
        let counts = Counts::default();
        let gateway = Gateway::new(Rc::new(counts.clone()), Guard::new(|_| ())).start();
        assert_eq!(gateway.send(Observe).await, Ok(ActorState::Gateway { servers: 1 }));
        gateway.send(Drain).await.expect("it lives");
        assert!(counts.closed.get());
        assert_eq!(gateway.send(Observe).await, Ok(ActorState::Gateway { servers: 0 }));
        drop(gateway);
        tokio::task::yield_now().await;
        assert_eq!(counts.stopped.get(), 1);
    }
}
