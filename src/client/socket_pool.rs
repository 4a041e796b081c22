//! A pool of WebSockets to one server that answers questions, such as another learner or a program that decides.
//!
//! Sockets are opened with the first question and opened again when they end. A socket carries one question at a
//! time: its answers come in order, so one that is late closes it, or it would be taken for the next one's. While
//! none is open, and none was just lost, nobody waits: the server is tried again after a rest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::Duration;

use awc::ws::{Frame, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::actors::supervise::Backoff;
use crate::client::bounded_socket::{BoundedSocket, answer, connect, sent};
use crate::client::websocket_client;

/// Questions of one pool that wait for a socket at most.
const WAITING_MAX: usize = 4096;
/// Sockets that may end on one question before it counts as not answered.
const TRIES_MAX: u32 = 3;
/// A socket that lived so long did its work: it is opened again at once.
const WORKED: Duration = Duration::from_secs(1);

/// What is to be sent to the server.
struct Job {
    frames: Vec<String>,
    /// Where the answer to the last frame goes, dropped where none can be had. `None`: none is wanted.
    reply: Option<oneshot::Sender<Bytes>>,
    tries: u32,
    /// Frames before it that were not sent yet.
    untold: usize,
    /// Where they are counted if they never are.
    lost: Rc<Cell<u64>>,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.lost.set(self.lost.get() + self.untold as u64);
    }
}

impl Job {
    /// Whether nobody waits for it any more.
    fn is_over(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// The questions that wait for a socket.
#[derive(Default)]
struct Jobs {
    waiting: RefCell<VecDeque<Job>>,
    came: Notify,
    /// Sockets that are open, or being opened for the first time.
    hopeful: Cell<usize>,
    /// Whether the pool is gone.
    over: Cell<bool>,
    /// Frames to which nothing is answered that were not sent.
    lost: Rc<Cell<u64>>,
}

impl Jobs {
    fn push(&self, job: Job) {
        let mut waiting = self.waiting.borrow_mut();
        while waiting.front().is_some_and(Job::is_over) {
            waiting.pop_front();
        }
        // One that is dropped is answered: its call runs here.
        if waiting.len() < WAITING_MAX {
            waiting.push_back(job);
            self.came.notify_one();
        }
    }

    /// The next question that somebody waits for; `None`: the pool is gone.
    async fn next(&self) -> Option<Job> {
        while !self.over.get() {
            let job = self.waiting.borrow_mut().pop_front();
            match job {
                Some(job) if !job.is_over() => return Some(job),
                Some(_) => {}
                None => self.came.notified().await,
            }
        }
        // The next one that waits ends, too.
        self.came.notify_one();
        None
    }

    /// The socket that `job` was sent on has ended.
    fn again(&self, mut job: Job) {
        job.tries += 1;
        if job.tries < TRIES_MAX && job.reply.is_some() {
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

/// What each socket says first, if anything.
pub type Greeting = Rc<dyn Fn() -> Option<String>>;

/// A thread's sockets to one server.
pub struct SocketPool {
    url: Rc<str>,
    connect_timeout: Duration,
    /// Sockets to hold open.
    size: usize,
    patience: Duration,
    greeting: Greeting,
    started: Cell<bool>,
    jobs: Rc<Jobs>,
}

impl SocketPool {
    /// Of `size` sockets to `url`, which open with the first question. An answer may take `patience`.
    pub fn new(
        url: &str,
        connect_timeout: Duration,
        size: usize,
        patience: Duration,
        greeting: Greeting,
    ) -> Self {
        let url = url.into();
        let (started, jobs) = (Cell::new(false), Rc::default());
        Self { url, connect_timeout, size, patience, greeting, started, jobs }
    }

    /// Where they lead.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Opens the sockets, if that was not done yet.
    pub fn start(&self) {
        if self.started.replace(true) {
            return;
        }
        let http = websocket_client(self.connect_timeout);
        for _ in 0..self.size {
            self.jobs.hope(true);
            let keeper = Keeper {
                http: http.clone(),
                url: Rc::clone(&self.url),
                patience: self.patience,
                greeting: Rc::clone(&self.greeting),
                jobs: Rc::downgrade(&self.jobs),
            };
            actix_rt::spawn(keeper.keep_open());
        }
    }

    /// Sends `frames`; the answer to the last comes to the receiver, which fails at once where none can be had.
    pub fn ask(&self, frames: Vec<String>) -> oneshot::Receiver<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.send(frames, Some(reply));
        answer
    }

    /// Sends `frames`, to which nothing is answered. Where no socket is, they are lost.
    pub fn tell(&self, frames: Vec<String>) {
        self.send(frames, None);
    }

    /// How many frames to which nothing is answered were lost since this was asked last.
    pub fn lost(&self) -> u64 {
        self.jobs.lost.take()
    }

    fn send(&self, frames: Vec<String>, reply: Option<oneshot::Sender<Bytes>>) {
        self.start();
        let untold = frames.len() - usize::from(reply.is_some() && !frames.is_empty());
        let job = Job { frames, reply, tries: 0, untold, lost: Rc::clone(&self.jobs.lost) };
        if self.jobs.hopeful.get() > 0 {
            self.jobs.push(job);
        }
    }
}

impl Drop for SocketPool {
    fn drop(&mut self) {
        self.jobs.over.set(true);
        self.jobs.came.notify_one();
    }
}

struct Keeper {
    http: awc::Client,
    url: Rc<str>,
    patience: Duration,
    greeting: Greeting,
    jobs: Weak<Jobs>,
}

impl Keeper {
    /// Keeps one socket open for as long as there is a pool.
    async fn keep_open(self) {
        let (url, mut backoff) = (&*self.url, Backoff::default());
        // Whether this one is among the hopeful: while it is open, and while it is opened for the first
        // time or again after it worked.
        let mut hopeful = true;
        loop {
            let connected = connect(&self.http, url).await;
            let Some(jobs) = self.jobs.upgrade().filter(|jobs| !jobs.over.get()) else { return };
            let lived = match connected {
                Ok(socket) => {
                    if !std::mem::replace(&mut hopeful, true) {
                        jobs.hope(true);
                    }
                    let opened = tokio::time::Instant::now();
                    self.serve(socket, &jobs).await;
                    tracing::debug!(url, "a socket ended");
                    opened.elapsed()
                }
                Err(why) => {
                    tracing::debug!(url, why, "no socket can be opened");
                    Duration::ZERO
                }
            };
            if lived >= WORKED {
                backoff = Backoff::default();
                continue;
            }
            if std::mem::replace(&mut hopeful, false) {
                jobs.hope(false);
            }
            drop(jobs);
            tokio::time::sleep(backoff.after(lived)).await;
        }
    }

    /// Asks over `socket` until it ends, or the pool does.
    async fn serve(&self, mut socket: BoundedSocket, jobs: &Jobs) {
        let patience = self.patience;
        if let Some(greeting) = (self.greeting)()
            && !sent(&mut socket, [Message::Text(greeting.into())], patience).await
        {
            return;
        }
        loop {
            let job = tokio::select! {
                // What came unasked is seen before the next question is sent.
                biased;
                frame = socket.next() => match frame {
                    Some(Ok(Frame::Ping(payload))) => {
                        if !sent(&mut socket, [Message::Pong(payload)], patience).await {
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
            let Some(mut job) = job else { return };
            if !job.sent_on(&mut socket, patience).await {
                return jobs.again(job);
            }
            let Some(reply) = job.reply.take() else { continue };
            match timeout(patience, answer(&mut socket)).await {
                // Nobody may be waiting any more.
                Ok(Some(text)) => drop(reply.send(text)),
                Ok(None) => {
                    job.reply = Some(reply);
                    return jobs.again(job);
                }
                Err(_) => return,
            }
        }
    }
}

impl Job {
    /// Whether its frames were sent in time. Those before the question are not sent again.
    async fn sent_on(&mut self, socket: &mut BoundedSocket, patience: Duration) -> bool {
        let last = self.frames.last().cloned();
        let mut frames = std::mem::take(&mut self.frames);
        if self.reply.is_some() {
            self.frames.extend(last);
        }
        let messages = frames.drain(..).map(|frame| Message::Text(frame.into()));
        let is_sent = sent(socket, messages, patience).await;
        if !is_sent {
            // They are not sent again.
            self.lost.set(self.lost.get() + self.untold as u64);
        }
        self.untold = 0;
        is_sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(frame: &str) -> (Job, oneshot::Receiver<Bytes>) {
        let (reply, answer) = oneshot::channel();
        let (frames, lost) = (vec![frame.to_owned()], Rc::default());
        (Job { frames, reply: Some(reply), tries: 0, untold: 0, lost }, answer)
    }

    #[tokio::test]
    async fn questions_beyond_the_bound_are_not_waited_for() {
        let jobs = Jobs::default();
        let push = |_| {
            let (job, answer) = job("1");
            jobs.push(job);
            answer
        };
        let waiting: Vec<_> = (0..WAITING_MAX).map(push).collect();
        assert!(push(0).await.is_err(), "dropped at once");
        assert_eq!(jobs.waiting.borrow().len(), waiting.len());
    }

    #[test]
    fn what_never_went_out_is_counted() {
        let jobs = Jobs::default();
        let job = || Job {
            frames: ["told", "told", "asked"].map(str::to_owned).to_vec(),
            reply: Some(oneshot::channel().0),
            tries: 0,
            untold: 2,
            lost: Rc::clone(&jobs.lost),
        };
        jobs.hope(true);
        jobs.push(job());
        assert_eq!(jobs.lost.get(), 0);
        jobs.hope(false);
        assert_eq!(jobs.lost.take(), 2, "nobody is there any more");
        let mut sent = job();
        sent.untold = 0;
        drop(sent);
        assert_eq!(jobs.lost.get(), 0);
    }

    #[tokio::test]
    async fn questions_nobody_waits_for_are_passed_over_and_broken_ones_come_first_again() {
        let jobs = Jobs::default();
        let ((first, gone), (second, _second), (third, _third)) = (job("1"), job("2"), job("3"));
        jobs.push(first);
        jobs.push(second);
        jobs.push(third);
        drop(gone);
        let mut taken = jobs.next().await.expect("there are some");
        for _ in 1..TRIES_MAX {
            assert_eq!(taken.frames, ["2"]);
            jobs.again(taken);
            taken = jobs.next().await.expect("there are some");
        }
        assert_eq!(taken.frames, ["2"]);
        jobs.again(taken);
        let next = jobs.next().await.expect("there are some");
        assert_eq!(next.frames, ["3"], "the second was tried often enough");
    }

    #[tokio::test]
    async fn nobody_waits_for_the_questions_of_a_pool_that_is_gone() {
        let jobs = Jobs::default();
        jobs.over.set(true);
        jobs.came.notify_one();
        let two = async { (jobs.next().await.is_none(), jobs.next().await.is_none()) };
        assert_eq!(two.await, (true, true));
    }
}
