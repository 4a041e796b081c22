//! Time limits without a timer per call.
//!
//! A tokio timer costs a system call when it is started from a thread that is busy, and nearly all
//! of those that guard calls are dropped unused. Here all calls of a thread that share a limit
//! share one timer: their deadlines come in the order of their starts, so the timer needs to be
//! set for the first only, and for the then-first when it fires.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// One limit, for all calls on the current thread that it holds for.
#[derive(Clone)]
pub struct TimeLimit(Rc<Shared>);

struct Shared {
    limit: Duration,
    calls: RefCell<Calls>,
    timer_runs: Cell<bool>,
}

#[derive(Default)]
struct Calls {
    next: u64,
    /// Deadlines by the number of the call; later numbers have later deadlines. Holds live calls
    /// only.
    waiting: BTreeMap<u64, (Instant, Waker)>,
}

impl Calls {
    fn add(&mut self, deadline: Instant, waker: Waker) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, (deadline, waker));
        number
    }

    /// Takes those whose time is up at `now`.
    fn expire(&mut self, now: Instant) -> Vec<Waker> {
        let mut expired = Vec::new();
        while let Some(first) = self.waiting.first_entry()
            && first.get().0 <= now
        {
            expired.push(first.remove().1);
        }
        expired
    }
}

impl TimeLimit {
    /// A limit of that length.
    pub fn new(limit: Duration) -> Self {
        Self(Rc::new(Shared { limit, calls: RefCell::default(), timer_runs: Cell::new(false) }))
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        self.0.limit
    }

    /// Runs `call` for at most that long, from now on. Must be awaited within a local task set.
    pub fn hold<F: Future + Unpin>(&self, call: F) -> Limited<F> {
        Limited { call, silence: self.silence() }
    }

    /// A watch over something that must move at least once in that time, from now on. Must be polled
    /// within a local task set.
    pub fn silence(&self) -> Silence {
        Silence { shared: Rc::clone(&self.0), number: None }
    }
}

/// How long nothing has moved, counted from when it first had to wait; until then it costs nothing.
pub struct Silence {
    shared: Rc<Shared>,
    /// Its number among the waiting, once it has had to wait.
    number: Option<u64>,
}

impl Silence {
    /// Something moved: the time begins anew.
    pub fn broken(&mut self) {
        self.leave();
    }

    /// Ready once nothing has moved for as long as the limit.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut calls = self.shared.calls.borrow_mut();
        match self.number {
            Some(number) => match calls.waiting.get_mut(&number) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => return Poll::Ready(()),
            },
            None => {
                let number = calls.add(self.shared.deadline(), cx.waker().clone());
                drop(calls);
                self.number = Some(number);
                self.shared.run_timer();
            }
        }
        Poll::Pending
    }

    fn leave(&mut self) {
        if let Some(number) = self.number.take() {
            self.shared.calls.borrow_mut().waiting.remove(&number);
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A call that is held to a limit.
pub struct Limited<F> {
    call: F,
    silence: Silence,
}

impl<F: Future + Unpin> Future for Limited<F> {
    type Output = Result<F::Output, Expired>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.call).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        self.silence.poll_expired(cx).map(|()| Err(Expired))
    }
}

impl Shared {
    /// When a time that begins now ends.
    fn deadline(&self) -> Instant {
        // Far deadlines are clamped: an `Instant` has an end.
        let far = Duration::from_secs(10 * 365 * 24 * 3600);
        Instant::now() + self.limit.min(far)
    }

    /// Starts the one timer unless it runs.
    fn run_timer(self: &Rc<Self>) {
        if self.timer_runs.replace(true) {
            return;
        }
        let shared = Rc::clone(self);
        actix_rt::spawn(async move {
            loop {
                let first = shared.calls.borrow().waiting.first_key_value().map(|(_, call)| call.0);
                let Some(deadline) = first else { break };
                sleep_until(deadline).await;
                let expired = shared.calls.borrow_mut().expire(Instant::now());
                expired.into_iter().for_each(Waker::wake);
            }
            shared.timer_runs.set(false);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use tokio::time::sleep;

    async fn ends_ms(limit: &TimeLimit, start_ms: u64, takes_ms: u64) -> (bool, u128) {
        let zero = Instant::now();
        sleep(Duration::from_millis(start_ms)).await;
        let held = limit.hold(Box::pin(sleep(Duration::from_millis(takes_ms)))).await;
        (held.is_ok(), zero.elapsed().as_millis())
    }

    #[actix_rt::test]
    async fn a_call_ends_by_itself_or_at_its_limit_whatever_others_do() {
        tokio::time::pause();
        let limit = TimeLimit::new(Duration::from_millis(100));
        let calls = [(0, 50), (0, 500), (30, 90), (40, 500), (150, 100_000), (160, 20), (400, 500)];
        let ended = join_all(calls.map(|(start, takes)| ends_ms(&limit, start, takes))).await;
        let want = [
            (true, 50),
            (false, 100),
            (true, 120),
            (false, 140),
            (false, 250),
            (true, 180),
            (false, 500),
        ];
        for (got, want) in ended.iter().zip(want) {
            // The clock of the test moves in whole milliseconds, rounded up.
            assert!(got.0 == want.0 && got.1.abs_diff(want.1) <= 2, "{got:?}, not {want:?}");
        }
        assert!(limit.0.calls.borrow().waiting.is_empty());
    }

    #[actix_rt::test]
    async fn a_call_that_is_dropped_leaves_nothing_behind() {
        tokio::time::pause();
        let limit = TimeLimit::new(Duration::from_secs(1));
        for _ in 0..1000 {
            let held = limit.hold(std::future::pending::<()>());
            let given_up = tokio::time::timeout(Duration::from_millis(1), held).await;
            assert!(given_up.is_err());
        }
        assert!(limit.0.calls.borrow().waiting.is_empty());
    }
}
