//! All runs of a scenario, one after another: set the fleet up, wait until it is quiet, let it
//! learn, send the load, keep the results.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};

use super::checks::Checks;
use super::csv;
use super::load::{Pace, Ready, Sender};
use super::results::{BadResults, Results};
use super::training::Trainer;
use crate::bench::about::{About, End, Kept, NodeAbout};
use crate::bench::arrivals::{Arrivals, Rates};
use crate::bench::job::Job;
use crate::bench::plan::{Mix, Plan};
use crate::bench::scenario::{Deadlines, Learning, Point, Scenario};
use crate::bench::{stats, trace};
use crate::fleet::{Api, ApiError, Applied, Body, Fleet, Member, Wanted};
use crate::policy::registry::SchedulerSpec;
use crate::saved::LimitsPatch;
use crate::types::url_host;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);
/// Ticks after which batches of training are sent though they are not full.
const FLUSH: u32 = 4;
/// How long calls under way are waited for when the run is interrupted.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is looked whether the fleet is quiet.
const LOOK: Duration = Duration::from_millis(200);

/// Why an experiment did not go to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// Files that it names cannot be used.
    #[error("{}", .0.join("\n"))]
    Inputs(Vec<String>),
    /// Something would spoil it.
    #[error("this would spoil the run (checks = false goes on all the same):\n{}", .0.join("\n"))]
    Checks(Vec<String>),
    /// The nodes could not be set up, or did not become quiet.
    #[error("{}", .0.join("\n"))]
    Fleet(Vec<String>),
    /// Results could not be written.
    #[error(transparent)]
    Results(#[from] BadResults),
    /// Something of this machine's failed.
    #[error("{0}")]
    Machine(String),
    /// It was told to stop.
    #[error("interrupted; what was measured is kept")]
    Interrupted,
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// Seconds since its beginning.
    pub elapsed_s: f64,
    /// Calls that have ended.
    pub ended: u64,
    /// Of those, answered well and within their deadline.
    pub in_time: u64,
    /// Of those, without an answer.
    pub errors: u64,
    /// Calls under way.
    pub in_flight: usize,
}

/// Who is told how it goes.
pub trait Progress {
    /// The run of that number (from 1) of so many begins, a warm-up with that word in `what`.
    fn begins(&self, number: usize, of: usize, what: &str, duration: Duration);
    /// It goes on.
    fn goes_on(&self, live: &Live);
    /// It has ended, with its results there.
    fn ended(&self, about: &About, results: &Path);
}

/// A scenario with the files that it names.
pub struct Inputs {
    /// The scenario.
    pub scenario: Scenario,
    fleet: Fleet,
    payloads: Vec<Ready>,
    /// Values of each node's trace; empty: rates are fixed.
    traces: Vec<Vec<f64>>,
}

impl Inputs {
    /// Reads the files.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn load(scenario: Scenario) -> Result<Self, ExperimentError> {
        let mut problems = Vec::new();
        let mut text = |key: &str, path: &Path| {
            let read = std::fs::read_to_string(path);
            read.map_err(|why| problems.push(format!("{key}: {}: {why}", path.display()))).ok()
        };
        let fleet = text("fleet", &scenario.fleet).map(|text| Fleet::parse(&text));
        let nodes = fleet.iter().flatten().map(|fleet| fleet.0.len()).sum();
        let traces: Vec<(PathBuf, String)> = (0..nodes)
            .filter_map(|node| scenario.trace_of(node))
            .filter_map(|path| Some((path.clone(), text("traces", &path)?)))
            .collect();
        let fleet = match fleet {
            Some(Err(why)) => {
                problems.push(format!("fleet: {}: {why}", scenario.fleet.display()));
                Fleet::default()
            }
            fleet => fleet.and_then(Result::ok).unwrap_or_default(),
        };
        let parsed = traces.iter().map(|(path, text)| {
            trace::parse(text).map_err(|why| format!("traces: {}: {why}", path.display()))
        });
        let traces: Vec<Vec<f64>> =
            parsed.filter_map(|trace| trace.map_err(|why| problems.push(why)).ok()).collect();
        if !scenario.traces.0.is_empty() && problems.is_empty() && traces.len() != nodes {
            problems.push(format!("traces: there are {} for {nodes} nodes", traces.len()));
        }
        let rates = scenario.rates.0.len();
        if scenario.traces.0.is_empty() && rates != 1 && rates != nodes && nodes > 0 {
            problems.push(format!("rates: there are {rates} for {nodes} nodes"));
        }
        let mut payloads = Vec::new();
        for payload in &scenario.payloads {
            let bytes = payload.file.as_ref().map_or(Ok(Vec::new()), std::fs::read);
            match bytes {
                Ok(bytes) => payloads.push(Ready {
                    title: payload.title(),
                    body: Body { bytes: bytes.into(), content_type: payload.content_type.clone() },
                    task_type: payload.task_type,
                    query: payload.query.clone(),
                }),
                Err(why) => {
                    let path = payload.file.as_deref().unwrap_or(Path::new(""));
                    problems.push(format!("payloads: {}: {why}", path.display()));
                }
            }
        }
        if problems.is_empty() {
            Ok(Self { scenario, fleet, payloads, traces })
        } else {
            Err(ExperimentError::Inputs(problems))
        }
    }

    fn rates(&self, node: usize, point: &Point, duration_s: f64) -> Rates {
        let fixed = || match &*self.scenario.rates.0 {
            [one] => *one,
            all => all.get(node).copied().unwrap_or(0.0),
        };
        let rates = match self.traces.get(node) {
            Some(trace) => Rates::along(trace, self.scenario.shape(), duration_s),
            None => Rates::constant(fixed(), duration_s),
        };
        rates.scaled(point.load_factor)
    }

    /// All requests of a run; a warm-up has others.
    fn plan(&self, point: &Point, duration_s: f64, warm_up: bool) -> Plan<SmallRng> {
        let purpose = if warm_up { 2 } else { 0 };
        let rng = |node: usize, n: u64| stream(point.seed, node as u64, purpose + n);
        let node = |node: usize| {
            let rates = self.rates(node, point, duration_s);
            (Arrivals::new(rates, self.scenario.arrivals, rng(node, 0)), rng(node, 1))
        };
        let weight = |payload: &crate::bench::scenario::Payload| payload.mix.unwrap_or(1.0);
        let weights: Vec<f64> = self.scenario.payloads.iter().map(weight).collect();
        Plan::new((0..self.fleet.0.len()).map(node), Mix::new(&weights), duration_s)
    }
}

/// Randomness of a node's own for each purpose, so that one more node changes no other's.
fn stream(seed: u64, node: u64, purpose: u64) -> SmallRng {
    let node = node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let purpose = purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    SmallRng::seed_from_u64(seed ^ node ^ purpose)
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// An experiment about to be made, in the folder of its results.
pub struct Sweep<'a> {
    inputs: &'a Inputs,
    folder: &'a Path,
    csv: bool,
    progress: &'a dyn Progress,
    stop: watch::Receiver<bool>,
    api: Rc<Api>,
    nodes: Vec<IpAddr>,
}

impl<'a> Sweep<'a> {
    /// Of these inputs, results going to `folder`, which must be there. It ends early when `stop`
    /// becomes true.
    pub fn new(
        inputs: &'a Inputs,
        folder: &'a Path,
        csv: bool,
        progress: &'a dyn Progress,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let Scenario { scheduler_port, discovery_port, learner_port, .. } = inputs.scenario;
        let api = Rc::new(Api::new(scheduler_port, discovery_port, learner_port));
        let nodes = inputs.fleet.0.iter().map(|member| member.address).collect();
        Self { inputs, folder, csv, progress, stop, api, nodes }
    }

    /// Makes all runs.
    ///
    /// # Errors
    /// Why it ended before the last; what was measured until then is in the folder.
    pub async fn run(&self) -> Result<(), ExperimentError> {
        let scenario = &self.inputs.scenario;
        if scenario.checks {
            let checks = Checks {
                api: &self.api,
                fleet: &self.inputs.fleet,
                file: &scenario.fleet,
                scenario,
                payloads: &self.inputs.payloads,
            };
            let findings = self.unless_stopped(checks.findings()).await?;
            if !findings.is_empty() {
                return Err(ExperimentError::Checks(findings));
            }
        }
        let points = scenario.points();
        for (point, number) in points.iter().zip(1..) {
            let path = self.folder.join(format!("run-{number:02}.db"));
            self.unless_stopped(self.prepare(point)).await??;
            self.warm_up(number, points.len(), point).await?;
            self.measure(number, points.len(), point, &path).await?;
            if self.csv {
                csv::export(&path).map_err(ExperimentError::Machine)?;
            }
        }
        Ok(())
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, ExperimentError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            done = work => Ok(done),
            _ = stop.wait_for(|stop| *stop) => Err(ExperimentError::Interrupted),
        }
    }

    /// Asks all nodes at once; names those that do not do as asked.
    async fn all<T>(
        &self,
        ask: impl AsyncFn(&Member) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ExperimentError> {
        let ask = &ask;
        let asked = self.inputs.fleet.0.iter().map(async |member| {
            ask(member).await.map_err(|why| format!("{}: {why}", member.address))
        });
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for answer in join_all(asked).await {
            match answer {
                Ok(answer) => done.push(answer),
                Err(why) => failed.push(why),
            }
        }
        if failed.is_empty() { Ok(done) } else { Err(ExperimentError::Fleet(failed)) }
    }

    /// Makes the fleet what the run needs, and waits until nothing is left of the one before.
    async fn prepare(&self, point: &Point) -> Result<(), ExperimentError> {
        self.become_quiet().await?;
        let applied = self
            .all(async |member| {
                let wanted = self.wanted(point, member.address).await?;
                if wanted == Wanted::default() {
                    return Ok(Applied::default());
                }
                let dry = false;
                self.api.apply(member.address, &wanted, dry).await
            })
            .await?;
        let mut failed = Vec::new();
        for (ip, applied) in self.nodes.iter().zip(applied) {
            failed.extend(applied.plan.impossible.iter().map(|why| format!("{ip}: {why}")));
            failed.extend(applied.failed.iter().map(|(_, why)| format!("{ip}: {why}")));
        }
        if !failed.is_empty() {
            return Err(ExperimentError::Fleet(failed));
        }
        if point.learns() && self.inputs.scenario.learning != Learning::Off {
            self.all(async |member| self.api.reset_learner(member.address).await).await?;
        }
        Ok(())
    }

    async fn wanted(&self, point: &Point, ip: IpAddr) -> Result<Wanted, ApiError> {
        let scenario = &self.inputs.scenario;
        let mut wanted = Wanted {
            limits: LimitsPatch {
                parallel_running_functions_max: scenario.k,
                queue_length_max: scenario.queue_length,
                queue_enabled: scenario.queue_enabled,
            },
            scheduler: point.scheduler.clone(),
            ..Wanted::default()
        };
        if point.learns() {
            wanted.learner = scenario.learner.clone();
            let reward = match scenario.learning {
                Learning::Client => Some(json!({"source": "client"})),
                Learning::Node => {
                    Some(json!({"source": "node", "deadlines_s": scenario.deadlines(point).0}))
                }
                Learning::Off => None,
            };
            // P2PFaaS v1's learners have clients that train them and nothing to choose.
            let found = self.api.learner_parameters(ip).await?.unwrap_or_default();
            if let Some(reward) = reward.filter(|_| found.contains_key("reward")) {
                wanted.learner.insert("reward".to_owned(), reward);
            }
        }
        Ok(wanted)
    }

    async fn become_quiet(&self) -> Result<(), ExperimentError> {
        let patience = Duration::from_secs_f64(self.inputs.scenario.quiet_timeout_s);
        let deadline = Instant::now() + patience;
        loop {
            let loads = self.all(async |member| self.api.load(member.address).await).await?;
            let busy = self
                .nodes
                .iter()
                .zip(loads)
                .filter(|(_, load)| load.running > 0 || load.waiting > 0);
            let busy: Vec<String> = busy
                .map(|(ip, load)| {
                    format!("{ip}: {} calls run and {} wait", load.running, load.waiting)
                })
                .collect();
            if busy.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let why = format!("the fleet is not quiet after {} s", patience.as_secs_f64());
                return Err(ExperimentError::Fleet([vec![why], busy].concat()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the nodes are now.
    async fn about(&self, point: &Point) -> About {
        // Whether they answer as nodes do was a matter of the checks; any server can be loaded.
        let nodes = join_all(self.nodes.iter().map(async |ip| NodeAbout {
            address: ip.to_string(),
            name: self.api.machines(*ip).await.map(|told| told.0).unwrap_or_default(),
            version: self.api.version(*ip).await.unwrap_or_default(),
            configuration: self.api.configuration(*ip).await.unwrap_or_default(),
            scheduler: self.api.scheduler(*ip).await.unwrap_or(SchedulerSpec::from_words("?")),
            learner: self.api.learner_parameters(*ip).await.unwrap_or_default(),
        }))
        .await;
        let titles = self.inputs.payloads.iter().map(|payload| payload.title.clone());
        About {
            bench_version: format!("{} ({})", crate::VERSION, crate::COMMIT),
            scenario: self.inputs.scenario.clone(),
            point: point.clone(),
            deadlines_s: self.inputs.scenario.deadlines(point),
            payload_names: titles.collect(),
            nodes,
            started: unix_now(),
            end: End::Unknown,
            kept: Kept::default(),
        }
    }

    async fn warm_up(
        &self,
        number: usize,
        of: usize,
        point: &Point,
    ) -> Result<(), ExperimentError> {
        let seconds = self.inputs.scenario.learner_warm_up_s;
        if !point.learns() || seconds <= 0.0 {
            return Ok(());
        }
        let duration = Duration::from_secs_f64(seconds);
        self.progress.begins(number, of, &title(point, "warm-up"), duration);
        let driven = self.drive(point, duration, true, None).await?;
        if driven.end == End::Interrupted { Err(ExperimentError::Interrupted) } else { Ok(()) }
    }

    async fn measure(
        &self,
        number: usize,
        of: usize,
        point: &Point,
        path: &Path,
    ) -> Result<(), ExperimentError> {
        let duration = Duration::from_secs_f64(self.inputs.scenario.duration_s);
        let mut about = self.unless_stopped(self.about(point)).await?;
        self.progress.begins(number, of, &title(point, "run"), duration);
        let results = Results::create(path, &about)?;
        let driven = self.drive(point, duration, false, Some(results.jobs())).await?;
        about.end = driven.end;
        about.kept = driven.kept;
        results.finish(&about, driven.overrun)?;
        self.progress.ended(&about, path);
        if about.end == End::Interrupted { Err(ExperimentError::Interrupted) } else { Ok(()) }
    }

    /// Sends the load of one run; jobs go to `jobs`.
    async fn drive(
        &self,
        point: &Point,
        duration: Duration,
        warm_up: bool,
        jobs: Option<SyncSender<Job>>,
    ) -> Result<Driven, ExperimentError> {
        let scenario = &self.inputs.scenario;
        let deadlines = scenario.deadlines(point);
        let client_trains = point.learns() && scenario.learning == Learning::Client;
        let trainer = client_trains.then(|| {
            let (api, deadlines) = (Rc::clone(&self.api), deadlines.clone());
            Rc::new(Trainer::new(api, &self.nodes, deadlines, scenario.train_batch))
        });
        let ledger = Rc::new(Ledger::new(deadlines, trainer.clone(), jobs));
        let told = Rc::clone(&ledger);
        let urls: Vec<String> = self.nodes.iter().map(|ip| self.url(*ip)).collect();
        let sender = Rc::new(Sender::new(
            &urls,
            self.inputs.payloads.clone(),
            Duration::from_secs_f64(scenario.request_timeout_s),
            scenario.in_flight_max,
            Box::new(move |job| told.take(job)),
        ));
        let start = Instant::now();
        let work = async {
            let plan = self.inputs.plan(point, duration.as_secs_f64(), warm_up);
            let sent = sender.send_all(plan, duration).await;
            sender.all_ended().await;
            sent
        };
        let watch = async {
            let mut ticks = interval(TICK);
            for tick in 1u32.. {
                ticks.tick().await;
                let mut live = ledger.live.get();
                live.elapsed_s = start.elapsed().as_secs_f64();
                live.in_flight = sender.in_flight();
                self.progress.goes_on(&live);
                if let Some(trainer) = trainer.as_ref().filter(|_| tick % FLUSH == 0) {
                    trainer.flush();
                }
                if ledger.overrun.get() {
                    return;
                }
            }
        };
        let end = tokio::select! {
            sent = self.unless_stopped(work) => match sent {
                Ok(Ok(())) => End::Complete,
                Ok(Err(why)) => return Err(ExperimentError::Machine(why.to_string())),
                Err(_) => End::Interrupted,
            },
            () = watch => End::Interrupted,
        };
        if end == End::Interrupted {
            let _ = timeout(GRACE, sender.all_ended()).await;
        }
        if let Some(trainer) = &trainer {
            trainer.flush();
            let deadline = Instant::now() + GRACE;
            while !trainer.quiet() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // Calls that are still under way are told to nobody: the writer must end.
        ledger.jobs.take();
        let counts = trainer.map(|trainer| trainer.counts()).unwrap_or_default();
        Ok(Driven { end, kept: kept(&sender.pace(), counts), overrun: ledger.overrun.get() })
    }

    fn url(&self, ip: IpAddr) -> String {
        let Scenario { scheduler_port, function, .. } = &self.inputs.scenario;
        format!("http://{}:{scheduler_port}/function/{function}", url_host(&ip.to_string()))
    }
}

fn title(point: &Point, what: &str) -> String {
    let scheduler = point.scheduler.as_ref().map_or("as it is".to_owned(), |spec| spec.words());
    format!(
        "{what}: {scheduler}, load × {}, deadlines × {}",
        point.load_factor, point.deadline_factor
    )
}

/// How a run's load ended.
struct Driven {
    end: End,
    kept: Kept,
    /// Results came faster than they could be written.
    overrun: bool,
}

fn kept(pace: &Pace, (trained, training_failed): (u64, u64)) -> Kept {
    let mut late: Vec<f64> = pace.late_s.iter().map(|late| f64::from(*late)).collect();
    late.sort_by(f64::total_cmp);
    let at = |q| stats::quantile(&late, q).unwrap_or(0.0);
    Kept {
        planned: pace.planned,
        sent_in_time: pace.sent_in_time,
        late_s: [at(0.5), at(0.99), at(1.0)],
        trained,
        training_failed,
    }
}

/// Where a run's jobs go: the learners, the live figures, the file.
struct Ledger {
    deadlines: Deadlines,
    trainer: Option<Rc<Trainer>>,
    jobs: RefCell<Option<SyncSender<Job>>>,
    live: Cell<Live>,
    overrun: Cell<bool>,
}

impl Ledger {
    fn new(
        deadlines: Deadlines,
        trainer: Option<Rc<Trainer>>,
        jobs: Option<SyncSender<Job>>,
    ) -> Self {
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
        live.errors += u64::from(job.net_error.is_some());
        self.live.set(live);
        if let Some(jobs) = &*self.jobs.borrow()
            && jobs.try_send(job).is_err()
        {
            self.overrun.set(true);
        }
    }
}
