//! Another learner, such as P2PFaaS v1's, asked for decisions over a pool of WebSockets.
//!
//! Each worker thread has its share of the pool. A decision that cannot be had in time is to run the call here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::timeout;

use crate::actors::learner::hub::LearnerHub;
use crate::actors::scheduler::{Advice, Adviser};
use crate::client::socket_pool::SocketPool;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::policy::{LearnerDecision, Question, Task};
use crate::rl::check_action;
use crate::types::{cut, url_host};
use crate::wire::float_text;

/// What v1's configuration names the HTTP port of its learner.
const V1_HTTP_PORT: u16 = 19020;
/// Where v1's learner listens for WebSockets.
const V1_WS_PORT: u16 = 8765;
/// Actions that an answer may name; there are never as many machines.
const ACTIONS_MAX: usize = 1 << 16;

/// A learner's answer: action and ε.
pub(crate) type RemoteAnswer = (usize, f64);

/// A worker thread's share of the pool.
pub struct RemoteLearner {
    pool: Rc<SocketPool>,
    learning: Arc<LearnerHub>,
    metrics: Arc<Metrics>,
}

impl RemoteLearner {
    /// For the current thread, one of `settings.workers`. EIDs are this node's own.
    pub fn new(settings: &Settings, learning: Arc<LearnerHub>, metrics: Arc<Metrics>) -> Rc<Self> {
        let port = match settings.service_learning_port {
            V1_HTTP_PORT => V1_WS_PORT,
            port => port,
        };
        let host = url_host(&settings.service_learning_host);
        let pool = SocketPool::new(
            &format!("ws://{host}:{port}/"),
            Duration::from_millis(settings.peer_connect_timeout_ms),
            share(
                settings.learner_pool_size,
                settings.workers,
                learning.place_among(settings.workers),
            ),
            Duration::from_millis(settings.learner_timeout_ms),
            // v1's learner takes all that it hears for a question.
            Rc::new(|| None),
        );
        Rc::new(Self { pool: Rc::new(pool), learning, metrics })
    }
}

/// The sockets of the thread at `place` among `threads`; one at least.
fn share(sockets: usize, threads: usize, place: usize) -> usize {
    (sockets / threads + usize::from(place < sockets % threads)).max(1)
}

impl Adviser for RemoteLearner {
    fn advise(&self, question: Question, _: &Task, _: &mut dyn Rng) -> Advice {
        self.pool.start();
        let (learning, metrics) = (Arc::clone(&self.learning), Arc::clone(&self.metrics));
        let features: Vec<String> = question.state.iter().map(|x| float_text(*x)).collect();
        let frame = format!("[{}]", features.join(","));
        let pool = Rc::clone(&self.pool);
        Advice::Later(Box::pin(async move {
            let mut eid = None;
            let decided = timeout(pool.patience(), async {
                eid = learning.eids.wait().await;
                let text = pool.ask(vec![frame]).await.ok()?;
                let answer = read_answer(&text);
                if answer.is_none() {
                    let text = String::from_utf8_lossy(&text);
                    tracing::warn!(text = cut(&text), "the learner's answer cannot be read");
                }
                answer
            });
            match (decided.await, eid) {
                (Ok(Some((action, epsilon))), Some(eid)) => LearnerDecision {
                    eid,
                    state: question.state,
                    action,
                    epsilon,
                    fallback: false,
                    pending: None,
                },
                (_, eid) => LearnerHub::fallback(eid, question, &metrics),
            }
        }))
    }
}

/// Reads `1.00000,0.89100`.
pub(crate) fn read_answer(text: &[u8]) -> Option<RemoteAnswer> {
    let (action, epsilon) = std::str::from_utf8(text).ok()?.split_once(',')?;
    let action = check_action(action.trim().parse().ok()?, ACTIONS_MAX).ok()?;
    Some((action, epsilon.trim().parse().ok().filter(|epsilon: &f64| epsilon.is_finite())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_shared_out_and_every_thread_has_a_socket() {
        for (sockets, threads, held) in [(20, 2, 20), (20, 3, 20), (20, 16, 20), (2, 4, 4)] {
            let all: usize = (0..threads).map(|place| share(sockets, threads, place)).sum();
            assert_eq!(all, held);
        }
    }

    #[test]
    fn an_answer_is_an_action_and_the_epsilon_used() {
        assert_eq!(read_answer(b"4.00000,0.89100"), Some((4, 0.891)));
        for bad in ["", "1", "1.5,0.1", "-1,0.1", "x,0.1", "1,NaN", "1e9,0.1"] {
            assert_eq!(read_answer(bad.as_bytes()), None, "{bad}");
        }
    }
}
