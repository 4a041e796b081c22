//! What goes on with a call until the last byte of its answer: its slot, its times, its outcome.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::{AnswerBody, AnswerStream, NextPiece};
use super::function::Answer;
use crate::actors::switch::Active;
use crate::error::{CallOutcome, Error};
use crate::metrics::FunctionMetrics;
use crate::policy::{Outcome, OutcomeKind, Task};

/// A call whose algorithm is to be told what became of it.
pub(super) struct FollowedCall {
    task: Task,
    mark: u64,
    /// The peer that has it.
    pub(super) peer: Option<Arc<str>>,
    /// When its function began here.
    pub(super) started: Option<Instant>,
    /// What an answer that says that something failed says.
    told: Option<OutcomeKind>,
    /// How long its function ran here, once that has ended.
    ran: Rc<Cell<Option<Duration>>>,
}

impl FollowedCall {
    pub(super) fn of(task: &Task, mark: u64) -> Self {
        Self { task: task.clone(), mark, peer: None, started: None, told: None, ran: Rc::default() }
    }

    /// It was answered with that status, and has run or not. A peer that rejects a call, or is full, answers as well; a
    /// function that says that its caller is wrong has served it.
    pub(super) fn heard(&mut self, status: Option<StatusCode>, has_run: bool) {
        let Some(status) = status else { return };
        self.told = match has_run {
            true if status.is_server_error() => Some(OutcomeKind::Failed),
            true => None,
            false if status.is_server_error() => Some(OutcomeKind::Full),
            false if status.is_client_error() => Some(OutcomeKind::Gone),
            false => None,
        };
    }

    /// Where it is noted when its function has ended, which may be long before its client has read the answer.
    pub(super) fn ended(&self) -> Rc<Cell<Option<Duration>>> {
        Rc::clone(&self.ran)
    }
}

fn kind(outcome: CallOutcome) -> OutcomeKind {
    match outcome {
        CallOutcome::Executed | CallOutcome::Forwarded => OutcomeKind::Served,
        CallOutcome::Full => OutcomeKind::Full,
        CallOutcome::Rejected => OutcomeKind::Rejected,
        CallOutcome::TimedOut | CallOutcome::FunctionFailed => OutcomeKind::Failed,
        CallOutcome::ForwardFailed | CallOutcome::NodeFailed => OutcomeKind::Lost,
        CallOutcome::HungUp | CallOutcome::BadRequest => OutcomeKind::Gone,
    }
}

/// Counts a call when dropped.
pub(super) struct Count {
    /// When the node started.
    pub(super) start: Instant,
    /// `None`: its algorithm does not want to know.
    pub(super) followed: Option<FollowedCall>,
    pub(super) metrics: Arc<FunctionMetrics>,
    pub(super) scheduler: Arc<Active>,
    pub(super) outcome: CallOutcome,
    pub(super) arrival: Instant,
}

impl Count {
    /// The beginning of the answer is there.
    pub(super) fn first_byte(&self) {
        self.metrics.first_byte(self.arrival.elapsed());
    }

    /// The call ended with `error`.
    pub(super) fn failed(mut self, span: &tracing::Span, error: &Error) {
        self.outcome = error.outcome();
        let (scheduler, total) = (&*self.scheduler.full_name, self.arrival.elapsed());
        // Clients type any name: that must not use up the lines of what really fails.
        let typed = matches!(error, Error::UnknownFunction(_) | Error::NearFunction(_));
        span.in_scope(|| match self.outcome.is_failure() && !typed {
            true => {
                let (outcome, fault) = (self.outcome.label(), error.fault().label());
                let retry_is_safe = error.retry_is_safe();
                tracing::warn!(
                    scheduler, outcome, fault, retry_is_safe, ?total, %error, "a call failed"
                );
            }
            false => self.ended(),
        });
    }

    fn ended(&self) {
        let (scheduler, total) = (&*self.scheduler.full_name, self.arrival.elapsed());
        tracing::debug!(scheduler, outcome = self.outcome.label(), ?total, "a call ended");
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let total = self.arrival.elapsed();
        self.metrics.request(self.scheduler.policy.name(), self.outcome, total);
        let Some(followed) = &self.followed else { return };
        self.scheduler.policy.outcome(&Outcome {
            task: &followed.task,
            mark: followed.mark,
            now: (self.arrival + total).saturating_duration_since(self.start),
            kind: match kind(self.outcome) {
                OutcomeKind::Served => followed.told.unwrap_or(OutcomeKind::Served),
                kind => kind,
            },
            peer: followed.peer.as_deref(),
            execution: followed
                .started
                .map(|started| followed.ran.get().unwrap_or_else(|| started.elapsed())),
            total,
        });
    }
}

/// A function that runs here.
pub(super) struct Running {
    pub(super) metrics: Arc<FunctionMetrics>,
    pub(super) queueing: Duration,
    pub(super) started: Instant,
    /// Where it is noted how long it ran; `None`: nobody wants to know.
    pub(super) ran: Option<Rc<Cell<Option<Duration>>>>,
}

impl Running {
    /// It has ended.
    pub(super) fn ended(self) {
        let took = self.started.elapsed();
        self.metrics.executed(self.queueing, took);
        if let Some(ran) = self.ran {
            ran.set(Some(took));
        }
    }

    /// It runs until `stream` has come to its end, or until it is given up.
    pub(super) fn until_end_of(
        self,
        stream: Box<dyn AnswerStream>,
        total: Option<TotalLimit>,
    ) -> Box<dyn AnswerStream> {
        let total = total.map(|total| (Box::pin(sleep_until(total.until)), total.error));
        Box::new(RunningStream { stream, running: Some(self), total })
    }
}

/// When a call of a function that may not take longer is given up.
pub(super) struct TotalLimit {
    pub(super) until: Instant,
    /// What it then ends with.
    pub(super) error: Error,
}

/// An answer of a function that runs here.
struct RunningStream {
    stream: Box<dyn AnswerStream>,
    /// `None` once it has ended.
    running: Option<Running>,
    total: Option<(Pin<Box<Sleep>>, Error)>,
}

impl AnswerStream for RunningStream {
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Some((sleep, error)) = &mut self.total else { return Poll::Pending };
        sleep.as_mut().poll(cx).map(|()| error.clone())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        if let Poll::Ready(error) = self.poll_given_up(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = self.stream.poll_piece(cx);
        if matches!(polled, Poll::Ready(None))
            && let Some(running) = self.running.take()
        {
            running.ended();
        }
        polled
    }

    fn trailers(&mut self) -> HeaderMap {
        self.stream.trailers()
    }
}

/// An answer that is followed to its last byte.
pub(super) struct Followed {
    stream: Box<dyn AnswerStream>,
    /// `None` once the call was counted.
    count: Option<Count>,
    /// What counts for one that ends well.
    outcome: CallOutcome,
    /// One of the calls that may be away at once.
    _away: Option<OwnedSemaphorePermit>,
    span: tracing::Span,
}

impl Followed {
    /// Counts the call of `answer` once that is through: now, if it is whole.
    pub(super) fn follow(
        answer: Answer,
        mut count: Count,
        away: Option<OwnedSemaphorePermit>,
        span: tracing::Span,
    ) -> Answer {
        let (stream, length, upgraded) = match answer.body {
            AnswerBody::Whole(_) | AnswerBody::LeftOut { .. } => {
                span.in_scope(|| count.ended());
                return answer;
            }
            AnswerBody::Streamed { stream, length } => (stream, length, false),
            AnswerBody::Upgraded(stream) => (stream, None, true),
        };
        // Until it is through, its client may still go away.
        let outcome = std::mem::replace(&mut count.outcome, CallOutcome::HungUp);
        let count = Some(count);
        let stream = Box::new(Self { stream, count, outcome, _away: away, span });
        let body = match upgraded {
            true => AnswerBody::Upgraded(stream),
            false => AnswerBody::Streamed { stream, length },
        };
        Answer { body, ..answer }
    }

    fn through(&mut self) {
        if let Some(mut count) = self.count.take() {
            count.outcome = self.outcome;
            self.span.in_scope(|| count.ended());
        }
    }
}

impl AnswerStream for Followed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        let polled = self.stream.poll_piece(cx);
        match &polled {
            Poll::Ready(None) => self.through(),
            Poll::Ready(Some(Err(error))) => {
                if let Some(count) = self.count.take() {
                    count.failed(&self.span, error);
                }
            }
            _ => {}
        }
        polled
    }

    fn trailers(&mut self) -> HeaderMap {
        self.stream.trailers()
    }
}
