//! Functions inside the node: to try it, to measure it, to emulate boards. They are also a program
//! of their own (`p2pfaas function NAME`).
//!
//! | name | what it does |
//! |---|---|
//! | `fn-echo` | answers its input |
//! | `fn-sleep` | waits for a drawn time, answers its input |
//! | `fn-spin` | keeps one core busy for a drawn time, answers its input |
//! | `fn-work` | does drawn work on an emulated board ([`board`]), answers its input |
//! | `fn-thumbnail` | answers the JPEG or PNG it gets, scaled down, as JPEG ([`mod@thumbnail`]) |
//!
//! Drawn times: see [`times`].

pub mod board;
pub mod thumbnail;
pub mod times;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, ready};
use tokio::time::Instant;

use self::board::Board;
use self::times::Times;
use super::{BadBackend, FunctionBackend, PreparedBackend};
use crate::actors::queue::Slot;
use crate::call::body::{AnswerBody, AnswerStream, NextPiece, RequestBody};
use crate::call::function::{Answer, Backend, Invocation};
use crate::config::Settings;
use crate::error::Error;
use crate::memory;
use crate::memory::budget::{Budget, Reservation};
use crate::time::limit::{Expired, TimeLimit};
use crate::time::timer::Timer;
use crate::types::FunctionName;

/// How long the function was to take, on its answer.
static SECONDS: HeaderName = HeaderName::from_static("x-function-seconds");

/// Which embedded function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EmbeddedName {
    /// Answers its input.
    #[value(name = "fn-echo")]
    Echo,
    /// Waits.
    #[value(name = "fn-sleep")]
    Sleep,
    /// Keeps one core busy.
    #[value(name = "fn-spin")]
    Spin,
    /// Works on an emulated board.
    #[value(name = "fn-work")]
    Work,
    /// Scales a picture down.
    #[value(name = "fn-thumbnail")]
    Thumbnail,
}

impl EmbeddedName {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("fn-echo", Self::Echo),
        ("fn-sleep", Self::Sleep),
        ("fn-spin", Self::Spin),
        ("fn-work", Self::Work),
        ("fn-thumbnail", Self::Thumbnail),
    ];

    /// The function of that name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }
}

/// Memory for pictures that are worked on, at most a quarter of what there is.
const PICTURES_BYTES_MAX: u64 = 256 << 20;
/// How long one waits for others before it looks again.
const PICTURE_TIME: Duration = Duration::from_secs(1);

/// What all threads of a node share: the stream of drawn times and the emulated board.
pub struct Shared {
    times: Times,
    board: Board,
    /// What pictures may take that are worked on.
    pictures: Arc<Budget>,
}

impl Shared {
    /// As configured.
    #[expect(clippy::disallowed_methods, reason = "without a seed, times are drawn at random")]
    pub fn new(settings: &Settings) -> Arc<Self> {
        let times = Times::new(
            settings.fn_time_distribution,
            settings.fn_time_mean_ms,
            settings.fn_seed.unwrap_or_else(rand::random),
        );
        let pictures = Budget::new(memory::share(4, PICTURES_BYTES_MAX));
        Arc::new(Self { times, board: Board::new(settings.fn_work_cores), pictures })
    }

    /// Runs a function. `hold` is dropped when the work has ended, which for a function on a
    /// blocking thread can be later than the drop of this future.
    pub async fn run<H: Send + 'static>(
        &self,
        function: EmbeddedName,
        query: &str,
        content_type: Option<HeaderValue>,
        body: Bytes,
        hold: H,
    ) -> Answer {
        match function {
            EmbeddedName::Echo => {
                drop(hold);
                echo(content_type, body, None)
            }
            EmbeddedName::Thumbnail => self.thumbnail(query, body, hold).await,
            EmbeddedName::Sleep | EmbeddedName::Spin | EmbeddedName::Work => {
                let time = match self.times.draw(query) {
                    Ok(time) => time,
                    Err(why) => return refusal(&why),
                };
                match function {
                    EmbeddedName::Spin => spin(time, hold).await,
                    EmbeddedName::Work => self.board.work(time).await,
                    _ => sleep(time).await,
                }
                echo(content_type, body, Some(time))
            }
        }
    }
}

fn echo(content_type: Option<HeaderValue>, body: Bytes, time: Option<Duration>) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(value) = content_type {
        headers.insert(header::CONTENT_TYPE, value);
    }
    if let Some(time) = time {
        headers.insert(SECONDS.clone(), seconds(time));
    }
    Answer { status: StatusCode::OK, headers, body: AnswerBody::Whole(body), held: None }
}

/// An input that streams, as an answer. The slot is given back with its last byte.
struct Echoed {
    begun: VecDeque<Bytes>,
    input: RequestBody,
    held: Option<Reservation>,
    _slot: Slot,
}

impl Echoed {
    /// Takes up to `bytes_max` of `input` before it begins to answer, as far as there is room: there are
    /// clients that read nothing before they have sent all.
    async fn of(
        input: RequestBody,
        bytes_max: usize,
        bodies: &Arc<Budget>,
        slot: Slot,
    ) -> Result<Self, Error> {
        let (mut begun, mut bytes, mut held) = (VecDeque::new(), 0, bodies.take(0));
        while bytes < bytes_max
            && let Some(held) = &mut held
            && let Some(more) = bodies.take(64 << 10)
            && let Some(piece) = poll_fn(|cx| input.poll_piece(cx)).await
        {
            let piece = piece?;
            bytes += piece.len();
            if held.bytes() < bytes as u64 {
                held.join(more);
            }
            begun.push_back(piece);
        }
        Ok(Self { begun, input, held, _slot: slot })
    }
}

impl AnswerStream for Echoed {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        if let Some(piece) = self.begun.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        self.held = None;
        self.input.poll_piece(cx)
    }
}

fn seconds(time: Duration) -> HeaderValue {
    // Digits and a dot are always a header value.
    HeaderValue::from_str(&format!("{:.6}", time.as_secs_f64()))
        .unwrap_or(HeaderValue::from_static("0"))
}

/// An embedded function's own 400.
fn refusal(why: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let body = Bytes::from(format!("{why}\n"));
    let body = AnswerBody::Whole(body);
    Answer { status: StatusCode::BAD_REQUEST, headers, body, held: None }
}

/// Sets a flag when dropped, so that work on a blocking thread ends with whoever asked for it.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for `time`. Its timer is the kernel's: the runtime's is up to a millisecond late and more,
/// which is a per cent of a tenth of a second.
async fn sleep(time: Duration) {
    let start = Instant::now();
    let exact = match Timer::new() {
        Ok(timer) => timer.sleep(time).await,
        Err(why) => Err(why),
    };
    if exact.is_err() {
        tokio::time::sleep_until(start + time).await;
    }
}

/// Keeps one core busy for `time`, on a blocking thread.
async fn spin<H: Send + 'static>(time: Duration, hold: H) {
    let cancel = Cancel(Arc::default());
    let cancelled = Arc::clone(&cancel.0);
    let busy = actix_rt::task::spawn_blocking(move || {
        let start = Instant::now();
        while start.elapsed() < time && !cancelled.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        drop(hold);
    });
    // It neither panics nor is it aborted.
    let _ = busy.await;
}

impl Shared {
    async fn thumbnail<H: Send + 'static>(&self, query: &str, body: Bytes, hold: H) -> Answer {
        let asked = thumbnail::Size::from_query(query)
            .and_then(|size| Ok((size, thumbnail::cost_bytes(&body)?)));
        let (size, cost) = match asked {
            Ok(asked) => asked,
            Err(why) => return refusal(&why),
        };
        if cost > self.pictures.max() {
            let max = self.pictures.max();
            return refusal(&format!("the picture takes {cost} bytes of memory, above {max}"));
        }
        // As long as the call may take: it has its slot.
        let held = loop {
            match self.pictures.take(cost) {
                Some(held) => break held,
                None => self.pictures.wait_for(cost, PICTURE_TIME).await,
            }
        };
        let scaled = actix_rt::task::spawn_blocking(move || {
            let scaled = thumbnail::scale(&body, size, cost);
            drop((held, hold));
            scaled
        });
        match scaled.await {
            Ok(Ok(jpeg)) => echo(Some(HeaderValue::from_static("image/jpeg")), jpeg.into(), None),
            Ok(Err(why)) => refusal(&why),
            Err(_) => refusal("the picture cannot be decoded"),
        }
    }
}

/// On if embedded functions are enabled. All threads draw from one stream of times and share one
/// board.
///
/// # Errors
/// None.
pub fn prepare(settings: &Settings) -> Result<Option<PreparedBackend>, BadBackend> {
    Ok(settings.embedded_functions.then(|| {
        let shared = Shared::new(settings);
        PreparedBackend {
            names: EmbeddedName::ALL.iter().map(|(name, _)| (*name).to_owned()).collect(),
            make: Box::new(move |thread| {
                Box::new(Embedded::new(thread.settings(), Arc::clone(&shared), thread.bodies()))
            }),
        }
    }))
}

/// The embedded functions as a backend of a worker thread.
struct Embedded {
    shared: Arc<Shared>,
    limit: TimeLimit,
    input_bytes_max: usize,
    bodies: Arc<Budget>,
}

impl Embedded {
    fn new(settings: &Settings, shared: Arc<Shared>, bodies: Arc<Budget>) -> Self {
        Self {
            shared,
            bodies,
            limit: TimeLimit::new(Settings::seconds(settings.function_timeout_s)),
            input_bytes_max: settings.whole_body_bytes_max(),
        }
    }

    async fn run(
        &self,
        function: EmbeddedName,
        call: Invocation,
        slot: Slot,
    ) -> Result<Answer, Error> {
        let content_type = call.headers.get(header::CONTENT_TYPE).cloned();
        // None of them takes WebSockets: the offer is passed over.
        let call = match call.upgrades {
            true => Invocation { body: RequestBody::EMPTY, ..call },
            false => call,
        };
        if let (EmbeddedName::Echo, RequestBody::Streamed { length, .. }) = (function, &call.body) {
            let length = *length;
            let mut answer = echo(content_type, Bytes::new(), None);
            let echoed = Echoed::of(call.body, self.input_bytes_max, &self.bodies, slot).await?;
            answer.body = AnswerBody::Streamed { stream: Box::new(echoed), length };
            return Ok(answer);
        }
        let body = call.body.collect(self.input_bytes_max).await?;
        Ok(self.shared.run(function, &call.query, content_type, body, slot).await)
    }
}

impl FunctionBackend for Embedded {
    fn serves(&self, name: &FunctionName) -> bool {
        EmbeddedName::parse(name.as_str()).is_some()
    }
}

impl Backend for Embedded {
    fn prepare<'a>(&'a self, _: &'a Invocation) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(ready(Ok(())))
    }

    fn takes_whole(&self, name: &FunctionName, length: Option<u64>) -> bool {
        let fits = length.is_some_and(|length| length <= self.input_bytes_max as u64);
        EmbeddedName::parse(name.as_str()) != Some(EmbeddedName::Echo) || fits
    }

    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let name = call.name.clone();
            let Some(function) = EmbeddedName::parse(name.as_str()) else {
                return Err(Error::UnknownFunction(name));
            };
            match self.limit.hold(Box::pin(self.run(function, call, slot))).await {
                Ok(result) => result,
                Err(Expired) => Err(Error::FunctionTimedOut { name, limit: self.limit.length() }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::queue::{Entrance, Gate};
    use crate::queue::{Arriving, Limits};
    use crate::types::TaskType;

    fn shared() -> Arc<Shared> {
        Shared::new(&Settings { fn_seed: Some(1), ..Settings::default() })
    }

    async fn run(function: EmbeddedName, query: &str, body: &'static [u8]) -> Answer {
        let text = Some(HeaderValue::from_static("text/plain"));
        shared().run(function, query, text, Bytes::from_static(body), ()).await
    }

    #[actix_rt::test]
    async fn echo_answers_its_input_with_its_type() {
        let answer = run(EmbeddedName::Echo, "", b"hello").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers.get("content-type").expect("a type"), "text/plain");
        assert_eq!(answer.body.collect(5).await.expect("whole"), "hello");
    }

    #[actix_rt::test]
    async fn sleep_waits_for_the_time_that_the_query_says_and_tells_it() {
        let start = Instant::now();
        let answer = run(EmbeddedName::Sleep, "mean_ms=12.5", b"x").await;
        assert!(start.elapsed() >= Duration::from_micros(12_500));
        assert_eq!(answer.headers.get("x-function-seconds").expect("told"), "0.012500");
    }

    #[actix_rt::test]
    async fn a_query_that_cannot_be_read_is_the_functions_own_400() {
        for query in ["mean_ms=x", "dist=normal", "mean_ms=-1"] {
            let answer = run(EmbeddedName::Sleep, query, b"x").await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        }
        let answer = run(EmbeddedName::Thumbnail, "", b"no picture").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }

    #[actix_rt::test]
    async fn spinning_work_keeps_its_slot_until_its_thread_has_ended_though_the_caller_left() {
        let gate = Gate::new(Limits { k: 1, ..Limits::default() }, 1);
        let call = Arriving { bytes: 0, may_wait: true, task_type: TaskType(0.0), due: None };
        let Ok(Entrance::Slot(slot)) = gate.enter(call) else { panic!("a slot is free") };
        {
            let shared = shared();
            let spin = shared.run(EmbeddedName::Spin, "mean_ms=60000", None, Bytes::new(), slot);
            tokio::select! {
                biased;
                _ = spin => panic!("a minute cannot be over"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while gate.load().running > 0 {
            assert!(Instant::now() < deadline, "the thread was not told to end");
            tokio::task::yield_now().await;
        }
    }
}
