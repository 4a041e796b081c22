//! The Gateway actor: keeps the HTTP servers running.
//!
//! What survives a restart of the actor: the listening sockets, which belong to the node, so no
//! connection is refused meanwhile; and the connections being served, which the old servers finish
//! while the new ones already accept.

use std::io;
use std::rc::Rc;

use actix::{Actor, ActorContext, Context, Handler, Message, ResponseFuture};
use futures_util::future::{LocalBoxFuture, join_all};

use super::supervise::Guard;

/// A server that takes connections.
pub trait Server {
    /// Takes no new connections from this call on; resolves when those being served have ended or
    /// the servers' own limit has passed.
    fn stop(&self) -> LocalBoxFuture<'static, ()>;
}

/// How the Gateway starts its servers.
pub trait Serve {
    /// Starts all servers on the node's listening sockets.
    ///
    /// # Errors
    /// A server that cannot be started.
    fn start(&self) -> io::Result<Vec<Box<dyn Server>>>;

    /// Closes the listening sockets for good.
    fn close(&self);
}

/// Takes no new connections and waits until those being served have ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

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
        match self.serve.start() {
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

#[cfg(test)]
mod tests {
    use super::super::Crash;
    use super::*;
    use std::cell::Cell;

    /// Counts starts, stops and closings.
    #[derive(Clone, Default)]
    struct Counts {
        started: Rc<Cell<u32>>,
        stopped: Rc<Cell<u32>>,
        closed: Rc<Cell<bool>>,
    }

    impl Server for Counts {
        fn stop(&self) -> LocalBoxFuture<'static, ()> {
            self.stopped.set(self.stopped.get() + 1);
            Box::pin(async {})
        }
    }

    impl Serve for Counts {
        fn start(&self) -> io::Result<Vec<Box<dyn Server>>> {
            self.started.set(self.started.get() + 1);
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
    async fn draining_closes_the_sockets_and_stops_every_server_once() {
        let counts = Counts::default();
        let gateway = Gateway::new(Rc::new(counts.clone()), Guard::new(|_| ())).start();
        gateway.send(Drain).await.expect("it lives");
        assert!(counts.closed.get());
        drop(gateway);
        tokio::task::yield_now().await;
        assert_eq!(counts.stopped.get(), 1);
    }
}
