//! The load of one run, from its first call to its last answer.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use awc::http::header::HeaderValue;
use tokio::sync::watch;
use tokio::time::{self, Instant, interval};

use super::inputs::Inputs;
use super::load::{Pace, Sender};
use super::results::Jobs;
use super::training::Trainer;
use super::{ExperimentError, Progress, RunProgress};
use crate::experiment::design::about::{LoadKept, RunEnd};
use crate::experiment::design::job::Job;
use crate::experiment::design::scenario::{Deadlines, Learning, Point, Scenario};
use crate::experiment::report::stats;
use crate::experiment::report::summary::JobEnd;
use crate::fleet::Api;
use crate::types::url_host;
use crate::wire::six_decimals;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);
/// Ticks after which batches of training are sent though they are not full: five seconds.
const FLUSH: u32 = 20;
/// How long calls and entries under way are waited for when the run is interrupted.
const GRACE: Duration = Duration::from_secs(2);
/// How long entries are waited for else: longer than one request may take.
const SETTLE: Duration = Duration::from_secs(15);

/// What a run's load needs.
pub struct Drive<'a> {
    /// The way to the learners.
    pub api: &'a Rc<Api>,
    /// What is sent.
    pub inputs: &'a Inputs,
    /// Who is told how it goes.
    pub progress: &'a dyn Progress,
    /// Becomes true when it shall end.
    pub stop: watch::Receiver<bool>,
}

/// How a run's load ended.
pub struct Driven {
    /// Whether all was sent.
    pub end: RunEnd,
    /// How well.
    pub kept: LoadKept,
    /// When sending began, in Unix seconds.
    pub started: f64,
    /// Results came faster than they could be written.
    pub overrun: bool,
}

impl Drive<'_> {
    /// Sends the load of one run; jobs go to `jobs`.
    ///
    /// # Errors
    /// This machine has no timer.
    pub async fn run(
        &self,
        point: &Point,
        duration: Duration,
        warm_up: bool,
        jobs: Option<Jobs>,
    ) -> Result<Driven, ExperimentError> {
        let scenario = &self.inputs.scenario;
        let nodes: Vec<IpAddr> = self.inputs.fleet.0.iter().map(|member| member.address).collect();
        let deadlines = scenario.deadlines(point);
        let client_trains = point.learns() && scenario.learning == Learning::Client;
        let trainer = client_trains.then(|| {
            let (api, deadlines) = (Rc::clone(self.api), deadlines.clone());
            Rc::new(Trainer::new(api, &nodes, deadlines, scenario.train_batch))
        });
        let mut payloads = self.inputs.payloads.clone();
        for payload in &mut payloads {
            let deadline_s = deadlines.of(payload.task_type).map(six_decimals);
            payload.deadline = deadline_s.and_then(|text| HeaderValue::try_from(text).ok());
        }
        let ledger = Rc::new(Ledger::new(deadlines, trainer.clone(), jobs));
        let told = Rc::clone(&ledger);
        let urls: Vec<String> = nodes.iter().map(|ip| url(scenario, *ip)).collect();
        let timeout = Duration::from_secs_f64(scenario.request_timeout_s);
        let ways = self.inputs.access.ways(timeout, scenario.scheduler_port);
        let clients = nodes.iter().map(|ip| ways.to_scheduler(*ip).clone()).collect();
        let sender = Rc::new(Sender::new(
            &urls,
            clients,
            payloads,
            timeout,
            scenario.in_flight_max,
            Box::new(move |job| told.take(job)),
        ));
        let work = async {
            let plan = self.inputs.plan(point, duration.as_secs_f64(), warm_up);
            let sent = sender.send_all(plan, duration).await;
            sender.all_ended().await;
            sent
        };
        let mut stop = self.stop.clone();
        let end = tokio::select! {
            sent = work => {
                sent.map_err(|why| ExperimentError::Machine(why.to_string()))?;
                RunEnd::Complete
            }
            () = self.watch(&sender, &ledger) => RunEnd::Interrupted,
            _ = stop.wait_for(|stop| *stop) => RunEnd::Interrupted,
        };
        if end == RunEnd::Interrupted && time::timeout(GRACE, sender.all_ended()).await.is_err() {
            sender.give_up();
            sender.all_ended().await;
        }
        if let Some(trainer) = &trainer {
            trainer.settle(if end == RunEnd::Complete { SETTLE } else { GRACE }).await;
        }
        // The writer ends when nobody can tell it more.
        ledger.jobs.take();
        let counts = trainer.map(|trainer| trainer.counts()).unwrap_or_default();
        let pace = sender.pace();
        let overrun = ledger.overrun.get();
        Ok(Driven { end, started: pace.started, kept: kept(pace, counts), overrun })
    }

    /// Tells how it goes; ends when results come too fast.
    async fn watch(&self, sender: &Sender, ledger: &Ledger) {
        let start = Instant::now();
        let mut ticks = interval(TICK);
        for tick in 1u32.. {
            ticks.tick().await;
            let mut live = ledger.live.get();
            live.elapsed_s = start.elapsed().as_secs_f64();
            live.in_flight = sender.in_flight();
            self.progress.goes_on(&live);
            if let Some(trainer) = ledger.trainer.as_ref().filter(|_| tick.is_multiple_of(FLUSH)) {
                trainer.flush();
            }
            if ledger.overrun.get() {
                return;
            }
        }
    }
}

/// Written with `http://` in any case: TLS is below what a client knows of.
fn url(scenario: &Scenario, ip: IpAddr) -> String {
    let Scenario { scheduler_port, function, .. } = scenario;
    format!("http://{}:{scheduler_port}/function/{function}", url_host(&ip.to_string()))
}

fn kept(pace: Pace, (trained, training_failed): (u64, u64)) -> LoadKept {
    let mut late: Vec<f64> = pace.late_s.iter().map(|late| f64::from(*late)).collect();
    late.sort_by(f64::total_cmp);
    let at = |q| stats::quantile(&late, q).unwrap_or(0.0);
    LoadKept {
        planned: pace.planned,
        sent_in_time: pace.sent_in_time,
        not_sent: pace.not_sent,
        late_s: [at(0.5), at(0.99), at(1.0)],
        trained,
        training_failed,
    }
}

/// Where a run's jobs go: the learners, the live figures, the file.
struct Ledger {
    deadlines: Deadlines,
    trainer: Option<Rc<Trainer>>,
    jobs: RefCell<Option<Jobs>>,
    live: Cell<RunProgress>,
    overrun: Cell<bool>,
}

impl Ledger {
    fn new(deadlines: Deadlines, trainer: Option<Rc<Trainer>>, jobs: Option<Jobs>) -> Self {
        let (jobs, live) = (RefCell::new(jobs), Cell::default());
        Self { deadlines, trainer, jobs, live, overrun: Cell::new(false) }
    }

    fn take(&self, mut job: Job) {
        if let Some(trainer) = &self.trainer {
            trainer.learn(&mut job);
        }
        let mut live = self.live.get();
        live.ended += 1;
        live.in_time += u64::from(self.deadlines.met(job.task_type, job.status, job.total_s));
        live.failed += u64::from(JobEnd::of(&job) == JobEnd::Failed);
        self.live.set(live);
        if let Some(jobs) = &*self.jobs.borrow()
            && jobs.send(job).is_none()
        {
            self.overrun.set(true);
        }
    }
}
