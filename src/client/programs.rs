//! Programs outside that decide where calls go, asked over WebSockets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use crate::actors::scheduler::Programs;
use crate::client::socket_pool::{Greeting, SocketPool};
use crate::metrics::Metrics;
use crate::policy::external::Consultation;
use crate::policy::external::frames::BadAdvice;

/// Sockets to one program that a thread holds.
const SOCKETS: usize = 4;
/// Programs whose sockets a thread holds; there are several where an algorithm chooses among others.
const PROGRAMS_MAX: usize = 16;

/// Sockets to a program that nobody asks any more are closed after this time.
const UNUSED: Duration = Duration::from_secs(60);
/// Of the calls that a program did not decide on, one is logged in this time; the others are counted.
const LOGGED_EACH: Duration = Duration::from_secs(10);

/// A worker thread's way to programs.
pub struct OutsidePrograms {
    connect_timeout: Duration,
    greeting: Greeting,
    /// With the time at which it was used last; the one that was spoken to last is the last.
    pools: RefCell<VecDeque<(Rc<SocketPool>, Instant)>>,
    logged: Cell<Option<Instant>>,
    metrics: Arc<Metrics>,
}

impl OutsidePrograms {
    /// For the current thread; `greeting` tells a program which node speaks.
    pub fn new(connect_timeout: Duration, greeting: Greeting, metrics: Arc<Metrics>) -> Self {
        let (pools, logged) = (RefCell::default(), Cell::default());
        Self { connect_timeout, greeting, pools, logged, metrics }
    }

    fn pool(&self, url: &str, patience: Duration) -> Rc<SocketPool> {
        let mut pools = self.pools.borrow_mut();
        let is_it = |pool: &SocketPool| pool.url() == url && pool.patience() == patience;
        let known = pools.iter().position(|(pool, _)| is_it(pool));
        let known = known.and_then(|index| pools.remove(index));
        let pool = known.map(|(pool, _)| pool).unwrap_or_else(|| {
            let greeting = Rc::clone(&self.greeting);
            Rc::new(SocketPool::new(url, self.connect_timeout, SOCKETS, patience, greeting))
        });
        if pools.len() >= PROGRAMS_MAX {
            pools.pop_front();
        }
        pools.push_back((Rc::clone(&pool), Instant::now()));
        pool
    }
}

impl Programs for OutsidePrograms {
    fn consult(&self, consultation: &Consultation) -> LocalBoxFuture<'static, Option<Bytes>> {
        let pool = self.pool(&consultation.url, consultation.patience);
        self.metrics.outcomes_dropped(consultation.dropped + pool.lost());
        let frames = consultation.frames.clone();
        if !consultation.asks() {
            pool.tell(frames);
            return Box::pin(async { None });
        }
        let answer = pool.ask(frames);
        Box::pin(async move { answer.await.ok() })
    }

    fn in_vain(&self, url: &str, why: &BadAdvice) {
        self.metrics.program_fallback(why.label());
        if self.logged.get().is_none_or(|logged| logged.elapsed() >= LOGGED_EACH) {
            self.logged.set(Some(Instant::now()));
            tracing::warn!(url, %why, "a program has not decided on a call, which runs here");
        }
    }

    fn let_go(&self) {
        let is_used = |&(_, used): &(Rc<SocketPool>, Instant)| used.elapsed() < UNUSED;
        self.pools.borrow_mut().retain(is_used);
    }
}
