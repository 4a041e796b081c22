//! A node's public HTTP API, from the outside.

use std::net::IpAddr;
use std::time::Duration;

use awc::http::Method;
use awc::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::access::{FleetAccess, Ways};
use super::plan::{ChangePlan, ChangeStep, NodeAsIs, Wanted};
use crate::client::read_body;
use crate::policy::registry::SchedulerSpec;
use crate::saved::MachinePatch;
use crate::types::{NAME_BYTES_MAX, printable};
use crate::wire::codes::WireError;
use crate::wire::headers;
use crate::wire::json::{Bounds, read_object};
use crate::wire::{WireMachine, read_machines};

/// What a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// What an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// What a node tells of itself; learners' statistics are the longest.
const TOLD: Bounds = Bounds { bytes: ANSWER_BYTES_MAX, values: 16 << 10, ..Bounds::SMALL };
/// Machines of a list that are read.
const LISTED_MAX: usize = 20_000;
/// Characters of an error, or of a version, that are shown.
const SAID_CHARS_MAX: usize = 500;
/// The code of a discovery service that knows no address of its own.
const NO_ADDRESS: u32 = 100;

/// Why a node did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// It does not answer.
    #[error("{url}: {why}")]
    Silent {
        /// What was asked.
        url: String,
        /// What the connection said.
        why: String,
    },
    /// It answers with an error.
    #[error("{url}: status {status}, {message}")]
    Refused {
        /// What was asked.
        url: String,
        /// Its status.
        status: u16,
        /// Its code; 0 if it says none.
        code: u32,
        /// What it says.
        message: String,
    },
    /// Its answer cannot be read.
    #[error("{url}: the answer cannot be read: {why}")]
    Unreadable {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The plan.
    pub plan: ChangePlan,
    /// Where it ended, if it did: that step and those after it were not done.
    pub failed: Option<(ChangeStep, ApiError)>,
}

/// How busy a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// K.
    pub k: u32,
    /// Functions that run.
    pub running: u32,
    /// Calls that wait.
    pub waiting: u32,
}

/// What a call carries.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Their type; empty: none.
    pub content_type: String,
}

/// What `fleet status` shows of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its algorithm with parameters.
    pub scheduler: String,
    /// What it does.
    pub load: NodeLoad,
    /// Machines that it lists.
    pub peers: usize,
    /// Those of them that calls may go to; `None`: it does not tell.
    pub neighbours: Option<usize>,
    /// The learner's ε; `None`: no learner answers.
    pub epsilon: Option<f64>,
    /// Seconds since the learner's model was saved, as far as it tells.
    pub model_age_s: Option<f64>,
}

/// The way to every node of a fleet; the ports are the same on all.
pub struct Api {
    ways: Ways,
    bearer: Option<HeaderValue>,
    /// Of the scheduler.
    pub scheduler_port: u16,
    /// Of discovery.
    pub discovery_port: u16,
    /// Of the learner.
    pub learner_port: u16,
}

fn unreadable(url: &str, why: &str) -> ApiError {
    ApiError::Unreadable { url: url.to_owned(), why: printable(why, SAID_CHARS_MAX) }
}

impl Api {
    /// For the current thread.
    pub fn new(
        scheduler_port: u16,
        discovery_port: u16,
        learner_port: u16,
        access: &FleetAccess,
    ) -> Self {
        let (ways, bearer) = (access.ways(CONNECT, scheduler_port), access.bearer());
        Self { ways, bearer, scheduler_port, discovery_port, learner_port }
    }

    async fn ask(
        &self,
        method: Method,
        at: (IpAddr, u16),
        path: &str,
        body: Vec<u8>,
    ) -> Result<(awc::http::header::HeaderMap, Vec<u8>), ApiError> {
        let (url, request) = self.ways.request(method, at, path);
        let request = request.content_type("application/json");
        self.answered(&url, request.send_body(body), ANSWER).await
    }

    /// The same for a request that changes the node, with the token that this may want.
    async fn change(
        &self,
        method: Method,
        at: (IpAddr, u16),
        path: &str,
        body: Vec<u8>,
    ) -> Result<(), ApiError> {
        let (url, mut request) = self.ways.request(method, at, path);
        if let Some(bearer) = &self.bearer {
            request = request.insert_header((AUTHORIZATION, bearer.clone()));
        }
        let request = request.content_type("application/json");
        self.answered(&url, request.send_body(body), ANSWER).await.map(drop)
    }

    /// The head and the body of an answer that says 2xx.
    async fn answered(
        &self,
        url: &str,
        sent: awc::SendClientRequest,
        limit: Duration,
    ) -> Result<(awc::http::header::HeaderMap, Vec<u8>), ApiError> {
        let url = url.to_owned();
        let silent = |why: String| ApiError::Silent {
            url: url.clone(),
            why: printable(&why, SAID_CHARS_MAX),
        };
        let answered = async {
            let mut answer = sent.await.map_err(|why| silent(why.to_string()))?;
            let body = read_body(&mut answer, ANSWER_BYTES_MAX).await;
            Ok((answer, body.map_err(|why| silent(why.to_string()))?))
        };
        let late = || silent(format!("no answer within {} s", limit.as_secs_f64()));
        let (answer, body) = timeout(limit, answered).await.map_err(|_| late())??;
        if answer.status().is_success() {
            return Ok((answer.headers().clone(), body.to_vec()));
        }
        let error: Option<WireError> = read_object(&body, &Bounds::SMALL).ok();
        Err(ApiError::Refused {
            status: answer.status().as_u16(),
            code: error.as_ref().map_or(0, |error| error.code),
            message: error.map_or("which says nothing".to_owned(), |error| {
                printable(&error.message, SAID_CHARS_MAX)
            }),
            url,
        })
    }

    async fn get<T: DeserializeOwned>(&self, at: (IpAddr, u16), path: &str) -> Result<T, ApiError> {
        let (_, body) = self.ask(Method::GET, at, path, Vec::new()).await?;
        read_object(&body, &TOLD)
            .map_err(|why| unreadable(&self.ways.url_of(at, path), &why.to_string()))
    }

    async fn post(
        &self,
        at: (IpAddr, u16),
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ApiError> {
        // Structs of numbers and texts always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.change(Method::POST, at, path, body).await
    }

    /// What the node at `ip` is now, of what is `wanted` of it: a service that nothing is wanted of
    /// is not asked.
    ///
    /// # Errors
    /// It does not answer, or not as a node does. A missing learner is no error.
    async fn found(&self, ip: IpAddr, wanted: &Wanted) -> Result<NodeAsIs, ApiError> {
        let scheduler = (ip, self.scheduler_port);
        let mut found = NodeAsIs {
            limits: self.get(scheduler, "/configuration").await?,
            scheduler: self.get(scheduler, "/configuration/scheduler").await?,
            ..NodeAsIs::default()
        };
        if wanted.machine != MachinePatch::default() {
            found.machine = match self.get((ip, self.discovery_port), "/configuration").await {
                Err(ApiError::Refused { code: NO_ADDRESS, .. }) => MachinePatch::default(),
                machine => machine?,
            };
        }
        if !wanted.learner.is_empty() {
            found.learner = self.learner_parameters(ip).await?;
        }
        Ok(found)
    }

    /// The parameters of the learner at `ip`; `None`: none answers.
    ///
    /// # Errors
    /// It answers, but not as a learner does.
    pub async fn learner_parameters(
        &self,
        ip: IpAddr,
    ) -> Result<Option<Map<String, Value>>, ApiError> {
        let told: Result<Map<String, Value>, _> =
            self.get((ip, self.learner_port), "/learner/parameters").await;
        match told.map(|mut told| told.remove("parameters")) {
            Ok(Some(Value::Object(parameters))) => Ok(Some(parameters)),
            Ok(_) | Err(ApiError::Silent { .. }) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// What the algorithm of the node at `ip` has learnt; `None`: it has no memory, or the node does not say.
    pub async fn memory(&self, ip: IpAddr) -> Option<Value> {
        let told: Result<Map<String, Value>, _> =
            self.get((ip, self.learner_port), "/learner/stats").await;
        told.ok()?.remove("scheduler")?.get_mut("memory").map(Value::take)
    }

    /// K and the queue of the node at `ip`, as it tells them.
    ///
    /// # Errors
    /// It does not answer, or not as a node does.
    pub async fn configuration(&self, ip: IpAddr) -> Result<Map<String, Value>, ApiError> {
        self.get((ip, self.scheduler_port), "/configuration").await
    }

    /// The algorithm in force at `ip`.
    ///
    /// # Errors
    /// It does not answer, or not as a node does.
    pub async fn scheduler(&self, ip: IpAddr) -> Result<SchedulerSpec, ApiError> {
        self.get((ip, self.scheduler_port), "/configuration/scheduler").await
    }

    /// The version of the node at `ip`, with the commit that it was built from as far as it tells.
    ///
    /// # Errors
    /// It does not answer, or not as a node does.
    pub async fn version(&self, ip: IpAddr) -> Result<String, ApiError> {
        let greeting: Map<String, Value> = self.get((ip, self.scheduler_port), "/").await?;
        let text = |key: &str| {
            let told = greeting.get(key).and_then(Value::as_str).unwrap_or_default();
            printable(told, SAID_CHARS_MAX)
        };
        match (&*text("version"), &*text("version_commit")) {
            ("", _) => Ok("?".to_owned()),
            (version, "") => Ok(version.to_owned()),
            (version, commit) => Ok(format!("{version} ({commit})")),
        }
    }

    /// The machines that the node at `ip` lists, and its own name.
    ///
    /// # Errors
    /// It does not answer, or not as a node does.
    pub async fn machines(&self, ip: IpAddr) -> Result<(String, Vec<WireMachine>), ApiError> {
        let at = (ip, self.discovery_port);
        let (head, body) = self.ask(Method::GET, at, "/list", Vec::new()).await?;
        let listed = read_machines(&body, LISTED_MAX);
        let listed = listed.map_err(|why| unreadable(&self.ways.url_of(at, "/list"), &why))?;
        Ok((printable(headers::text(&head, &headers::MACHINE_NAME), NAME_BYTES_MAX), listed))
    }

    /// How many of the machines that the node at `ip` lists calls may go to, if it tells.
    async fn neighbours(&self, ip: IpAddr) -> Option<usize> {
        #[derive(Deserialize)]
        struct Told {
            #[serde(default)]
            neighbour: bool,
        }
        let (_, body) =
            self.ask(Method::GET, (ip, self.discovery_port), "/records", Vec::new()).await.ok()?;
        let told: Vec<Told> = serde_json::from_slice(&body).ok()?;
        Some(told.iter().filter(|told| told.neighbour).count())
    }

    /// What runs and waits at `ip`, and K.
    ///
    /// # Errors
    /// It does not answer, or not as a node does.
    pub async fn load(&self, ip: IpAddr) -> Result<NodeLoad, ApiError> {
        let at = (ip, self.scheduler_port);
        let (head, _) = self.ask(Method::GET, at, "/monitoring/load", Vec::new()).await?;
        let number = |name: &HeaderName| match headers::text(&head, name).trim() {
            "" => Ok(0),
            text => text.parse::<u32>().map_err(|_| {
                let why = format!("{name} is {text:?}, no number from 0 to {}", u32::MAX);
                unreadable(&self.ways.url_of(at, "/monitoring/load"), &why)
            }),
        };
        Ok(NodeLoad {
            k: number(&headers::MAX_LOAD)?,
            running: number(&headers::LOAD)?,
            waiting: number(&headers::QUEUE_LENGTH)?,
        })
    }

    /// Calls a function on the node at `ip` itself, whatever its algorithm says.
    ///
    /// # Errors
    /// It does not answer within `limit`, or with anything but 2xx.
    pub async fn call_there(
        &self,
        ip: IpAddr,
        path: &str,
        body: &Body,
        limit: Duration,
    ) -> Result<(), ApiError> {
        let (url, request) = self.ways.request(Method::POST, (ip, self.scheduler_port), path);
        let mut request = request.insert_header((headers::BYPASS.clone(), "true"));
        if !body.content_type.is_empty() {
            request = request.content_type(&*body.content_type);
        }
        self.answered(&url, request.send_body(body.bytes.clone()), limit).await.map(drop)
    }

    /// Trains the learner at `ip` with a batch of entries.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn train(&self, ip: IpAddr, entries: &[Value]) -> Result<(), ApiError> {
        self.post((ip, self.learner_port), "/train_batch", &entries).await
    }

    /// Makes the node at `ip` what is `wanted`, as far as it is not yet; `dry`: only tells.
    ///
    /// # Errors
    /// It cannot be told what it is; nothing was changed.
    pub async fn apply(&self, ip: IpAddr, wanted: &Wanted, dry: bool) -> Result<Applied, ApiError> {
        let found = self.found(ip, wanted).await?;
        let mut wanted = wanted.clone();
        let nameless = found.machine.machine_ip.as_ref().is_none_or(String::is_empty);
        if nameless && !ip.is_loopback() && wanted.machine != MachinePatch::default() {
            // It found no address of its own, and without one it can join nobody. (A machine's own host
            // name often leads to its loopback, which is no address for others.)
            wanted.machine.machine_ip = Some(ip.to_string());
        }
        let plan = ChangePlan::new(&wanted, &found);
        let failed = if dry { None } else { self.carry_out(ip, &plan).await.err() };
        Ok(Applied { plan, failed })
    }

    async fn carry_out(&self, ip: IpAddr, plan: &ChangePlan) -> Result<(), (ChangeStep, ApiError)> {
        let scheduler = (ip, self.scheduler_port);
        if let Some(machine) = &plan.machine {
            let posted = self.post((ip, self.discovery_port), "/configuration", machine).await;
            posted.map_err(|why| (ChangeStep::Machine, why))?;
        }
        if let Some(limits) = &plan.limits {
            let posted = self.post(scheduler, "/configuration", limits).await;
            posted.map_err(|why| (ChangeStep::Limits, why))?;
        }
        if !plan.learner.is_empty() {
            let at = (ip, self.learner_port);
            let posted = self.post(at, "/learner/parameters", &plan.learner).await;
            posted.map_err(|why| (ChangeStep::Learner, why))?;
        }
        if let Some(spec) = &plan.scheduler {
            let posted = self.post(scheduler, "/configuration/scheduler", spec).await;
            posted.map_err(|why| (ChangeStep::Scheduler, why))?;
        }
        Ok(())
    }

    /// Makes the learner at `ip` forget what it learnt; its parameters act from then on.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn reset_learner(&self, ip: IpAddr) -> Result<(), ApiError> {
        let at = (ip, self.learner_port);
        self.change(Method::GET, at, "/learner/reset", Vec::new()).await
    }

    /// How the node at `ip` is doing.
    ///
    /// # Errors
    /// It does not answer, or not as a node does. A missing learner is no error.
    pub async fn status(&self, ip: IpAddr) -> Result<Status, ApiError> {
        let spec = self.scheduler(ip).await?;
        let load = self.load(ip).await?;
        let (_, machines) = self.machines(ip).await?;
        let stats: Option<Map<String, Value>> =
            self.get((ip, self.learner_port), "/learner/stats").await.ok();
        let stat = |key: &str| stats.as_ref().and_then(|stats| stats.get(key)?.as_f64());
        Ok(Status {
            version: self.version(ip).await?,
            scheduler: spec.words(),
            load,
            peers: machines.len(),
            neighbours: self.neighbours(ip).await,
            epsilon: stat("epsilon"),
            model_age_s: stat("model_saved_s_ago"),
        })
    }
}
