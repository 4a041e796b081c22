//! Open-loop load: each request is sent at its planned time, whatever became of those before it,
//! and its latency counts from that time. Whoever waits for answers before asking again measures a
//! slow server too kindly, because it asks less while the server is slow.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use awc::http::Uri;
use awc::http::header::HeaderValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer;
use super::pacer::Pacer;
use crate::client::read_start;
use crate::experiment::design::job::Job;
use crate::experiment::design::plan::Planned;
use crate::fleet::Body;
use crate::time::limit::TimeLimit;
use crate::wire::headers;

/// Bytes of an answer that are kept, for the error in it; many answers are read at once.
const ANSWER_BYTES_KEPT: usize = 64 << 10;

impl Pace {
    fn sent(&mut self, late: Duration, in_time: bool) {
        self.sent_in_time += u64::from(in_time);
        self.late_s.push(late.as_secs_f32());
    }
}

/// A payload ready to be sent.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What it is called.
    pub title: String,
    /// What it carries.
    pub body: Body,
    /// The calls' task type.
    pub task_type: u32,
    /// The calls' query; `{seed}` in it becomes a number of the request's own, and `{duration_ms}` what the
    /// call took where it was recorded.
    pub query: String,
    /// The deadline that the calls tell, in seconds as text.
    pub deadline: Option<HeaderValue>,
}

/// `text` with a call's own seed and recorded duration in it.
fn filled(text: &str, seed: u64, duration_s: Option<f64>) -> String {
    let seeded = text.replace(SEED, &seed.to_string());
    match duration_s {
        Some(duration_s) => seeded.replace(DURATION, &(duration_s * 1000.0).to_string()),
        None => seeded,
    }
}

impl Ready {
    /// The query of a call with that number for `{seed}`, and those seconds for `{duration_ms}`.
    pub fn filled(&self, seed: u64, duration_s: Option<f64>) -> String {
        filled(&self.query, seed, duration_s)
    }

    /// The path of such a call of `function`.
    pub fn path(&self, function: &str, seed: u64, duration_s: Option<f64>) -> String {
        let query = self.filled(seed, duration_s);
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/function/{function}{mark}{query}")
    }
}

/// Where the calls of a payload go, as far as it is known beforehand.
enum Address {
    Fixed(Uri),
    /// The query depends on the request.
    Filled(String),
}

/// How many calls were planned, sent and late.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// When sending began, in Unix seconds.
    pub started: f64,
    /// Calls whose planned time came.
    pub planned: u64,
    /// Of those, sent before the end of the run.
    pub sent_in_time: u64,
    /// Calls that were not sent, because too many were under way.
    pub not_sent: u64,
    /// Seconds between planned time and sending, of every call sent.
    pub late_s: Vec<f32>,
}

/// When a call should go out, and when the run ends.
#[derive(Clone, Copy)]
struct Times {
    planned: Instant,
    end: Instant,
}

/// Sends calls and tells what became of them.
pub struct Sender {
    /// By node.
    clients: Vec<awc::Client>,
    /// By node, then payload.
    addresses: Vec<Vec<Address>>,
    payloads: Vec<Ready>,
    limit: TimeLimit,
    in_flight: Cell<usize>,
    in_flight_max: usize,
    ended: Notify,
    given_up: Notify,
    tell: Box<dyn Fn(Job)>,
    pace: RefCell<Pace>,
}

impl Sender {
    /// Calls `urls` (one per node, the function's path included) by `clients` (likewise) and gives every job to `tell`.
    pub fn new(
        urls: &[String],
        clients: Vec<awc::Client>,
        payloads: Vec<Ready>,
        timeout: Duration,
        in_flight_max: usize,
        tell: Box<dyn Fn(Job)>,
    ) -> Self {
        let address = |url: &String, payload: &Ready| {
            let whole = match &*payload.query {
                "" => url.clone(),
                query => format!("{url}?{query}"),
            };
            match whole.parse() {
                Ok(fixed) if !whole.contains(SEED) && !whole.contains(DURATION) => {
                    Address::Fixed(fixed)
                }
                _ => Address::Filled(whole),
            }
        };
        let of_node = |url| payloads.iter().map(|payload| address(url, payload)).collect();
        Self {
            clients,
            addresses: urls.iter().map(of_node).collect(),
            limit: TimeLimit::new(timeout),
            in_flight: Cell::new(0),
            in_flight_max,
            ended: Notify::new(),
            given_up: Notify::new(),
            tell,
            pace: RefCell::default(),
            payloads,
        }
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// So far.
    pub fn pace(&self) -> Pace {
        self.pace.borrow().clone()
    }

    /// Sends all of `plan`, beginning now, for a run of that length. Ends when the last is sent.
    ///
    /// # Errors
    /// There is no timer.
    pub async fn send_all(
        self: &Rc<Self>,
        plan: impl Iterator<Item = Planned>,
        duration: Duration,
    ) -> io::Result<()> {
        let mut pacer = Pacer::new()?;
        let start = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "results say when a run was made")]
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.pace.borrow_mut().started = unix;
        for planned in plan {
            let at = start + Duration::from_secs_f64(planned.at_s);
            pacer.until(at).await?;
            self.pace.borrow_mut().planned += 1;
            let payload = self.payloads.get(planned.payload);
            let job = Job {
                node: u32::try_from(planned.node).unwrap_or(u32::MAX),
                request: planned.request,
                payload: planned.payload,
                task_type: payload.map_or(0, |payload| payload.task_type),
                rate: planned.rate,
                start: unix + planned.at_s,
                ..Job::default()
            };
            if self.in_flight.get() >= self.in_flight_max {
                self.pace.borrow_mut().not_sent += 1;
                let why = format!("not sent: {} calls were under way", self.in_flight_max);
                let total_s = at.elapsed().as_secs_f64();
                (self.tell)(Job { net_error: Some(why), total_s, ..job });
                continue;
            }
            self.in_flight.set(self.in_flight.get() + 1);
            let when = Times { planned: at, end: start + duration };
            actix_rt::spawn(Rc::clone(self).call(job, planned, when));
        }
        pacer.until(start + duration).await
    }

    async fn call(self: Rc<Self>, mut job: Job, call: Planned, when: Times) {
        // Taken here, where the call really goes out, behind what was spawned before it.
        let late = when.planned.elapsed();
        let in_time = Instant::now() <= when.end + EVEN;
        self.pace.borrow_mut().sent(late, in_time);
        if let Err(why) = self.ask(&mut job, call, when.planned).await {
            job.net_error = Some(why);
        }
        job.total_s = when.planned.elapsed().as_secs_f64();
        (self.tell)(job);
        self.in_flight.set(self.in_flight.get() - 1);
        self.ended.notify_waiters();
    }

    /// Ends all calls under way without their answers.
    pub fn give_up(&self) {
        self.given_up.notify_waiters();
    }

    /// Writes the answer into `job`, or says why there is none.
    async fn ask(&self, job: &mut Job, call: Planned, planned: Instant) -> Result<(), String> {
        let place = self.addresses.get(job.node as usize).and_then(|of| of.get(job.payload));
        let client = self.clients.get(job.node as usize);
        let payload = self.payloads.get(job.payload);
        let (Some(place), Some(payload), Some(client)) = (place, payload, client) else {
            return Err("there is no such node or payload".to_owned());
        };
        let mut request = match place {
            Address::Fixed(uri) => client.post(uri.clone()),
            Address::Filled(text) => client.post(filled(text, call.seed, call.duration_s)),
        };
        let body = &payload.body;
        if !body.content_type.is_empty() {
            request = request.content_type(&*body.content_type);
        }
        let tracing = HeaderValue::try_from(format!("n{}t{}", job.node, job.request));
        let request = request
            .insert_header((headers::TASK_TYPE.clone(), HeaderValue::from(job.task_type)))
            .insert_header((headers::TRACING_ID.clone(), tracing.map_err(|why| why.to_string())?));
        let request = match &payload.deadline {
            Some(deadline) => request.insert_header((headers::DEADLINE.clone(), deadline.clone())),
            None => request,
        };
        let answered = async {
            let sent = request.send_body(body.bytes.clone()).await;
            let mut answer = sent.map_err(|why| why.to_string())?;
            let first_byte = planned.elapsed();
            let body = read_start(&mut answer, ANSWER_BYTES_KEPT).await;
            Ok::<_, String>((body.map_err(|why| why.to_string())?, answer, first_byte))
        };
        let answered = std::pin::pin!(answered);
        let answered = tokio::select! {
            answered = self.limit.hold(answered) => answered,
            () = self.given_up.notified() => {
                return Err("interrupted before an answer came".to_owned());
            }
        };
        let late = |_| format!("no answer within {} s", self.limit.length().as_secs_f64());
        let (body, answer, first_byte) = answered.map_err(late)??;
        job.first_byte_s = Some(first_byte.as_secs_f64());
        answer::note(job, answer.status().as_u16(), answer.headers(), &body);
        Ok(())
    }

    /// Waits until nothing is under way.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.in_flight.get() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// Becomes a number of the request's own in a query.
pub const SEED: &str = "{seed}";
/// Becomes the call's recorded duration, in milliseconds, in a query.
pub const DURATION: &str = "{duration_ms}";
/// What the clock may be off at the end of a run.
const EVEN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_gets_the_calls_own_seed_and_recorded_duration() {
        let query = "mean_ms={duration_ms}&seed={seed}".to_owned();
        let (title, body) =
            (String::new(), Body { bytes: Vec::new().into(), content_type: String::new() });
        let ready = Ready { title, body, task_type: 0, query, deadline: None };
        assert_eq!(ready.filled(7, Some(0.171)), "mean_ms=171&seed=7");
        assert_eq!(ready.path("f", 7, Some(0.0625)), "/function/f?mean_ms=62.5&seed=7");
        assert_eq!(ready.filled(7, None), "mean_ms={duration_ms}&seed=7");
    }
}
