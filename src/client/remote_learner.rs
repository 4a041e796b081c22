//! Another learner, such as P2PFaaS v1's, asked for decisions over a pool of WebSockets.
//!
//! Each worker thread has its share of the pool; sockets are opened with the first decision and
//! opened again when they end. A socket carries one question at a time: its answers come in order,
//! so one that is late closes it, or it would be taken for the next one's. A decision that cannot
//! be had in time is to run the call here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use actix_codec::{Decoder, Encoder, Framed};
use awc::BoxedSocket;
use awc::error::WsProtocolError as ProtocolError;
use awc::ws::{Codec, Frame, Message};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::actors::learner::hub::LearnerHub;
use crate::actors::scheduler::{Advice, Adviser};
use crate::actors::supervise::Backoff;
use crate::client::websocket_client;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::policy::{LearnerDecision, Question, Task};
use crate::rl::check_action;
use crate::types::{cut, url_host};
use crate::wire::float_text;
use crate::wire::frames::check_next;

/// What v1's configuration names the HTTP port of its learner.
const V1_HTTP_PORT: u16 = 19020;
/// Where v1's learner listens for WebSockets.
const V1_WS_PORT: u16 = 8765;
/// Actions that an answer may name; there are never as many machines.
const ACTIONS_MAX: usize = 1 << 16;
/// Questions of one thread that wait for a socket at most.
const WAITING_MAX: usize = 4096;
/// Sockets that may end on one question before it counts as not answered.
const TRIES_MAX: u32 = 3;
/// A socket that lived so long did its work: it is opened again at once.
const WORKED: Duration = Duration::from_secs(1);
/// What a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Bytes of a frame that a learner sends at most.
const FRAME_BYTES_MAX: u64 = 64 << 10;

type Socket = Framed<BoxedSocket, BoundedCodec>;

/// The protocol's codec, which waits for no frame that is too large.
struct BoundedCodec(Codec);

impl Decoder for BoundedCodec {
    type Item = Frame;
    type Error = ProtocolError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        // What is there begins with a frame's head: whole frames are taken off.
        check_next(from, FRAME_BYTES_MAX).map_err(|_| ProtocolError::Overflow)?;
        self.0.decode(from)
    }
}

impl Encoder<Message> for BoundedCodec {
    type Error = ProtocolError;

    fn encode(&mut self, message: Message, to: &mut BytesMut) -> Result<(), ProtocolError> {
        self.0.encode(message, to)
    }
}

/// A learner's answer: action and ε.
pub(crate) type RemoteAnswer = (usize, f64);

struct Job {
    frame: String,
    /// Dropped where no answer can be had.
    reply: oneshot::Sender<RemoteAnswer>,
    tries: u32,
}

/// The questions that wait for a socket.
#[derive(Default)]
struct Jobs {
    waiting: RefCell<VecDeque<Job>>,
    came: Notify,
    /// Sockets that are open, or being opened for the first time.
    hopeful: Cell<usize>,
}

impl Jobs {
    fn push(&self, job: Job) {
        let mut waiting = self.waiting.borrow_mut();
        // Nobody waits for these any more.
        while waiting.front().is_some_and(|job| job.reply.is_closed()) {
            waiting.pop_front();
        }
        // One that is dropped is answered: its call runs here.
        if waiting.len() < WAITING_MAX {
            waiting.push_back(job);
            self.came.notify_one();
        }
    }

    /// The next question that somebody waits for.
    async fn next(&self) -> Job {
        loop {
            let job = self.waiting.borrow_mut().pop_front();
            match job {
                Some(job) if !job.reply.is_closed() => return job,
                Some(_) => {}
                None => self.came.notified().await,
            }
        }
    }

    /// The socket that `job` was sent on has ended.
    fn again(&self, mut job: Job) {
        job.tries += 1;
        if job.tries < TRIES_MAX {
            self.waiting.borrow_mut().push_front(job);
            self.came.notify_one();
        }
    }

    /// A socket is open, or no longer. Without any, nobody needs to wait.
    fn hope(&self, more: bool) {
        let hopeful = self.hopeful.get();
        self.hopeful.set(if more { hopeful + 1 } else { hopeful.saturating_sub(1) });
        if self.hopeful.get() == 0 {
            self.waiting.borrow_mut().clear();
        }
    }
}

/// A worker thread's share of the pool.
pub struct RemoteLearner {
    url: String,
    connect_timeout: Duration,
    /// Sockets to hold open.
    size: usize,
    patience: Duration,
    started: Cell<bool>,
    jobs: Rc<Jobs>,
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
        Rc::new(Self {
            url: format!("ws://{host}:{port}/"),
            connect_timeout: Duration::from_millis(settings.peer_connect_timeout_ms),
            size: share(
                settings.learner_pool_size,
                settings.workers,
                learning.place_among(settings.workers),
            ),
            patience: Duration::from_millis(settings.learner_timeout_ms),
            started: Cell::new(false),
            jobs: Rc::default(),
            learning,
            metrics,
        })
    }

    fn start(&self) {
        if self.started.replace(true) {
            return;
        }
        let http = websocket_client(self.connect_timeout);
        for _ in 0..self.size {
            self.jobs.hope(true);
            let (jobs, url) = (Rc::downgrade(&self.jobs), self.url.clone());
            actix_rt::spawn(keep_open(http.clone(), url, self.patience, jobs));
        }
    }
}

/// The sockets of the thread at `place` among `threads`; one at least.
fn share(sockets: usize, threads: usize, place: usize) -> usize {
    (sockets / threads + usize::from(place < sockets % threads)).max(1)
}

impl Adviser for RemoteLearner {
    fn advise(&self, question: Question, _: &Task, _: &mut dyn Rng) -> Advice {
        self.start();
        let (learning, metrics) = (Arc::clone(&self.learning), Arc::clone(&self.metrics));
        let features: Vec<String> = question.state.iter().map(|x| float_text(*x)).collect();
        let frame = format!("[{}]", features.join(","));
        let (jobs, patience) = (Rc::clone(&self.jobs), self.patience);
        Advice::Later(Box::pin(async move {
            let mut eid = None;
            let decided = timeout(patience, async {
                eid = learning.eids.wait().await;
                let (reply, answer) = oneshot::channel();
                if jobs.hopeful.get() > 0 {
                    jobs.push(Job { frame, reply, tries: 0 });
                } else {
                    drop(reply);
                }
                answer.await
            });
            match (decided.await, eid) {
                (Ok(Ok((action, epsilon))), Some(eid)) => LearnerDecision {
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

/// Keeps one socket open for as long as there is a pool.
async fn keep_open(http: awc::Client, url: String, patience: Duration, jobs: Weak<Jobs>) {
    let mut backoff = Backoff::default();
    // Whether this one is among the hopeful: while it is open, and while it is opened for the first
    // time or again after it worked.
    let mut hopeful = true;
    loop {
        let connected = timeout(HANDSHAKE, http.ws(&url).connect()).await;
        let Some(jobs) = jobs.upgrade() else { return };
        let lived = match connected {
            Ok(Ok((_, socket))) => {
                if !std::mem::replace(&mut hopeful, true) {
                    jobs.hope(true);
                }
                let opened = tokio::time::Instant::now();
                serve(socket.into_map_codec(BoundedCodec), patience, &jobs).await;
                tracing::debug!(url, "a socket to the learner ended");
                opened.elapsed()
            }
            Ok(Err(why)) => {
                tracing::debug!(url, %why, "the learner cannot be connected to");
                Duration::ZERO
            }
            Err(_) => {
                tracing::debug!(url, "the learner does not answer the handshake");
                Duration::ZERO
            }
        };
        if lived >= WORKED {
            continue;
        }
        if std::mem::replace(&mut hopeful, false) {
            jobs.hope(false);
        }
        drop(jobs);
        tokio::time::sleep(backoff.after(lived)).await;
    }
}

/// Asks over `socket` until it ends.
async fn serve(mut socket: Socket, patience: Duration, jobs: &Jobs) {
    loop {
        let job = tokio::select! {
            // What came unasked is seen before the next question is sent.
            biased;
            frame = socket.next() => match frame {
                Some(Ok(Frame::Ping(payload))) => {
                    if !sent(&mut socket, Message::Pong(payload), patience).await {
                        return;
                    }
                    continue;
                }
                Some(Ok(Frame::Pong(_))) => continue,
                // Closed, broken, or an answer that nobody asked for.
                _ => return,
            },
            job = jobs.next() => job,
        };
        if !sent(&mut socket, Message::Text(job.frame.clone().into()), patience).await {
            return jobs.again(job);
        }
        match timeout(patience, answer(&mut socket)).await {
            Ok(Some(text)) => match read_answer(&text) {
                // Nobody may be waiting any more.
                Some(answer) => drop(job.reply.send(answer)),
                None => {
                    let text = String::from_utf8_lossy(&text);
                    tracing::warn!(text = cut(&text), "the learner's answer cannot be read");
                }
            },
            Ok(None) => return jobs.again(job),
            Err(_) => return,
        }
    }
}

/// Whether `message` was sent in time. A learner that reads nothing is given up like one that is
/// gone.
async fn sent(socket: &mut Socket, message: Message, patience: Duration) -> bool {
    matches!(timeout(patience, socket.send(message)).await, Ok(Ok(())))
}

/// The next text that comes. `None`: the socket has ended.
async fn answer(socket: &mut Socket) -> Option<bytes::Bytes> {
    loop {
        match socket.next().await?.ok()? {
            Frame::Text(text) => return Some(text),
            Frame::Ping(payload) => socket.send(Message::Pong(payload)).await.ok()?,
            Frame::Pong(_) => {}
            Frame::Binary(_) | Frame::Continuation(_) | Frame::Close(_) => return None,
        }
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

    #[tokio::test]
    async fn questions_beyond_the_bound_are_not_waited_for() {
        let jobs = Jobs::default();
        let push = |_| {
            let (reply, answer) = oneshot::channel();
            jobs.push(Job { frame: "1".to_owned(), reply, tries: 0 });
            answer
        };
        let waiting: Vec<_> = (0..WAITING_MAX).map(push).collect();
        assert!(push(0).await.is_err(), "dropped at once");
        assert_eq!(jobs.waiting.borrow().len(), waiting.len());
    }

    #[tokio::test]
    async fn a_learner_that_reads_nothing_is_given_up() {
        let (ours, _theirs) = tokio::net::UnixStream::pair().expect("sockets");
        let socket: BoxedSocket = Box::new(ours);
        let mut socket = Framed::new(socket, BoundedCodec(Codec::new().client_mode()));
        let frame = || Message::Binary(vec![0; 1 << 16].into());
        let patience = Duration::from_millis(10);
        let mut taken = 0;
        while sent(&mut socket, frame(), patience).await {
            taken += 1;
            assert!(taken < 1000, "the kernel's buffers are full by now");
        }
    }

    #[tokio::test]
    async fn questions_nobody_waits_for_are_passed_over_and_broken_ones_come_first_again() {
        let jobs = Jobs::default();
        let job = |frame: &str| {
            let (reply, answer) = oneshot::channel();
            (Job { frame: frame.to_owned(), reply, tries: 0 }, answer)
        };
        let ((first, gone), (second, _second), (third, _third)) = (job("1"), job("2"), job("3"));
        jobs.push(first);
        jobs.push(second);
        jobs.push(third);
        drop(gone);
        let mut taken = jobs.next().await;
        for _ in 1..TRIES_MAX {
            assert_eq!(taken.frame, "2");
            jobs.again(taken);
            taken = jobs.next().await;
        }
        assert_eq!(taken.frame, "2");
        jobs.again(taken);
        assert_eq!(jobs.next().await.frame, "3", "the second was tried often enough");
    }
}
