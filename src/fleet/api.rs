//! A node's public HTTP API, from the outside.

use std::net::IpAddr;
use std::time::Duration;

use awc::http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::plan::{Found, Plan, Step, Wanted};
use crate::client::{Hosts, client, read_body};
use crate::http::errors::WireError;
use crate::http::headers;
use crate::policy::registry::SchedulerSpec;
use crate::saved::MachinePatch;
use crate::types::url_host;

/// What a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// What an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;
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
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The plan.
    pub plan: Plan,
    /// Where it ended, if it did: that step and those after it were not done.
    pub failed: Option<(Step, ApiError)>,
}

/// What `fleet status` shows of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its algorithm with parameters.
    pub scheduler: String,
    /// K.
    pub k: u32,
    /// Functions that run.
    pub running: u32,
    /// Calls that wait.
    pub waiting: u32,
    /// Machines that it lists.
    pub peers: usize,
    /// The learner's ε; `None`: no learner answers.
    pub epsilon: Option<f64>,
    /// Seconds since the learner's model was saved, as far as it tells.
    pub model_age_s: Option<f64>,
}

/// The way to every node of a fleet; the ports are the same on all.
pub struct Api {
    client: awc::Client,
    /// Of the scheduler.
    pub scheduler_port: u16,
    /// Of discovery.
    pub discovery_port: u16,
    /// Of the learner.
    pub learner_port: u16,
}

impl Api {
    /// For the current thread.
    pub fn new(scheduler_port: u16, discovery_port: u16, learner_port: u16) -> Self {
        let client = client(CONNECT, Hosts::Any);
        Self { client, scheduler_port, discovery_port, learner_port }
    }

    async fn ask(
        &self,
        method: Method,
        (ip, port): (IpAddr, u16),
        path: &str,
        body: Vec<u8>,
    ) -> Result<(awc::http::header::HeaderMap, Vec<u8>), ApiError> {
        let url = format!("http://{}:{port}{path}", url_host(&ip.to_string()));
        let silent = |why: String| ApiError::Silent { url: url.clone(), why };
        let request = self.client.request(method, &url).content_type("application/json");
        let answered = async {
            let mut answer =
                request.send_body(body).await.map_err(|why| silent(why.to_string()))?;
            let body = read_body(&mut answer, ANSWER_BYTES_MAX).await;
            Ok((answer, body.map_err(|why| silent(why.to_string()))?))
        };
        let late = || silent(format!("no answer within {} s", ANSWER.as_secs()));
        let (answer, body) = timeout(ANSWER, answered).await.map_err(|_| late())??;
        if answer.status().is_success() {
            return Ok((answer.headers().clone(), body.to_vec()));
        }
        let error: Option<WireError> = serde_json::from_slice(&body).ok();
        Err(ApiError::Refused {
            status: answer.status().as_u16(),
            code: error.as_ref().map_or(0, |error| error.code),
            message: error.map_or("which says nothing".to_owned(), |error| error.message),
            url,
        })
    }

    async fn get<T: DeserializeOwned>(&self, at: (IpAddr, u16), path: &str) -> Result<T, ApiError> {
        let (_, body) = self.ask(Method::GET, at, path, Vec::new()).await?;
        let url = format!("{}:{}{path}", at.0, at.1);
        serde_json::from_slice(&body)
            .map_err(|why| ApiError::Unreadable { url, why: why.to_string() })
    }

    async fn post(
        &self,
        at: (IpAddr, u16),
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), ApiError> {
        // Structs of numbers and texts always serialise.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.ask(Method::POST, at, path, body).await.map(drop)
    }

    /// What the node at `ip` is now, of what is `wanted` of it: a service that nothing is wanted of
    /// is not asked.
    ///
    /// # Errors
    /// It does not answer, or not as a node does. A missing learner is no error.
    async fn found(&self, ip: IpAddr, wanted: &Wanted) -> Result<Found, ApiError> {
        let scheduler = (ip, self.scheduler_port);
        let mut found = Found {
            limits: self.get(scheduler, "/configuration").await?,
            scheduler: self.get(scheduler, "/configuration/scheduler").await?,
            ..Found::default()
        };
        if wanted.machine != MachinePatch::default() {
            found.machine = match self.get((ip, self.discovery_port), "/configuration").await {
                Err(ApiError::Refused { code: NO_ADDRESS, .. }) => MachinePatch::default(),
                machine => machine?,
            };
        }
        if !wanted.learner.is_empty() {
            let at = (ip, self.learner_port);
            let told: Result<Map<String, Value>, _> = self.get(at, "/learner/parameters").await;
            found.learner = match told {
                Ok(mut told) => match told.remove("parameters") {
                    Some(Value::Object(parameters)) => Some(parameters),
                    _ => None,
                },
                Err(ApiError::Silent { .. }) => None,
                Err(why) => return Err(why),
            };
        }
        Ok(found)
    }

    /// Makes the node at `ip` what is `wanted`, as far as it is not yet; `dry`: only tells.
    ///
    /// # Errors
    /// It cannot be told what it is; nothing was changed.
    pub async fn apply(&self, ip: IpAddr, wanted: &Wanted, dry: bool) -> Result<Applied, ApiError> {
        let found = self.found(ip, wanted).await?;
        let mut wanted = wanted.clone();
        let nameless = found.machine.machine_ip.as_ref().is_none_or(String::is_empty);
        if nameless && wanted.machine != MachinePatch::default() {
            // It found no address of its own, and without one it can join nobody.
            wanted.machine.machine_ip = Some(ip.to_string());
        }
        let plan = Plan::new(&wanted, &found);
        let failed = if dry { None } else { self.carry_out(ip, &plan).await.err() };
        Ok(Applied { plan, failed })
    }

    async fn carry_out(&self, ip: IpAddr, plan: &Plan) -> Result<(), (Step, ApiError)> {
        let scheduler = (ip, self.scheduler_port);
        if let Some(machine) = &plan.machine {
            let posted = self.post((ip, self.discovery_port), "/configuration", machine).await;
            posted.map_err(|why| (Step::Machine, why))?;
        }
        if let Some(limits) = &plan.limits {
            let posted = self.post(scheduler, "/configuration", limits).await;
            posted.map_err(|why| (Step::Limits, why))?;
        }
        if !plan.learner.is_empty() {
            let at = (ip, self.learner_port);
            let posted = self.post(at, "/learner/parameters", &plan.learner).await;
            posted.map_err(|why| (Step::Learner, why))?;
        }
        if let Some(spec) = &plan.scheduler {
            let posted = self.post(scheduler, "/configuration/scheduler", spec).await;
            posted.map_err(|why| (Step::Scheduler, why))?;
        }
        Ok(())
    }

    /// Makes the learner at `ip` forget what it learnt; its parameters act from then on.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub async fn reset_learner(&self, ip: IpAddr) -> Result<(), ApiError> {
        let at = (ip, self.learner_port);
        self.ask(Method::GET, at, "/learner/reset", Vec::new()).await.map(drop)
    }

    /// How the node at `ip` is doing.
    ///
    /// # Errors
    /// It does not answer, or not as a node does. A missing learner is no error.
    pub async fn status(&self, ip: IpAddr) -> Result<Status, ApiError> {
        let scheduler = (ip, self.scheduler_port);
        let greeting: Map<String, Value> = self.get(scheduler, "/").await?;
        let spec: SchedulerSpec = self.get(scheduler, "/configuration/scheduler").await?;
        let load = self.ask(Method::GET, scheduler, "/monitoring/load", Vec::new()).await?.0;
        let number = |name| headers::text(&load, name).trim().parse().unwrap_or_default();
        let machines: Vec<Value> = self.get((ip, self.discovery_port), "/list").await?;
        let stats: Option<Map<String, Value>> =
            self.get((ip, self.learner_port), "/learner/stats").await.ok();
        let stat = |key: &str| stats.as_ref().and_then(|stats| stats.get(key)?.as_f64());
        let version = greeting.get("version").and_then(Value::as_str).unwrap_or("?");
        Ok(Status {
            version: version.to_owned(),
            scheduler: [vec![spec.name], spec.parameters].concat().join(" "),
            k: number(&headers::MAX_LOAD),
            running: number(&headers::LOAD),
            waiting: number(&headers::QUEUE_LENGTH),
            peers: machines.len(),
            epsilon: stat("epsilon"),
            model_age_s: stat("model_saved_s_ago"),
        })
    }
}
