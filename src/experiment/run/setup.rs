//! Making a fleet what a run needs.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::ExperimentError;
use super::inputs::Inputs;
use crate::experiment::design::about::NodeAbout;
use crate::experiment::design::scenario::{Learning, Point};
use crate::fleet::{Api, ApiError, Applied, Member, Wanted};
use crate::policy::registry::SchedulerSpec;
use crate::saved::LimitsPatch;

/// How often it is looked whether the fleet is quiet.
const LOOK: Duration = Duration::from_millis(200);
/// How often what failed is tried in all, and how long after.
const TRIES: u32 = 3;
const AGAIN: Duration = Duration::from_secs(1);

/// The nodes of an experiment and the way to them.
pub struct Setup<'a> {
    /// The way.
    pub api: &'a Api,
    /// What is wanted of them.
    pub inputs: &'a Inputs,
}

impl Setup<'_> {
    /// All runs. Where the scenario names no algorithm, the runs name what all nodes have, so that it
    /// is known whether they learn.
    pub async fn points(&self) -> Vec<Point> {
        let mut points = self.inputs.scenario.points();
        let told = self.all(async |member| self.api.scheduler(member.address).await).await;
        let specs = told.unwrap_or_default();
        let same = specs.iter().all(|spec| Some(spec) == specs.first());
        if let Some(spec) = specs.first().filter(|_| same) {
            for point in &mut points {
                point.scheduler.get_or_insert_with(|| spec.clone());
            }
        }
        points
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

    /// Makes the fleet what the run needs, and waits until nothing is left of the one before. A node
    /// that does not answer at once has two more tries.
    pub async fn prepare(&self, point: &Point) -> Result<(), ExperimentError> {
        self.become_quiet().await?;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.set_up(point).await {
                Err(ExperimentError::Fleet(_)) if tries < TRIES => tokio::time::sleep(AGAIN).await,
                done => return done,
            }
        }
    }

    async fn set_up(&self, point: &Point) -> Result<(), ExperimentError> {
        let applied = self
            .all(async |member| {
                let mut wanted = self.wanted(point, member.address).await?;
                if self.inputs.scenario.topology.is_some() {
                    wanted.machine.neighbours.clone_from(&member.wanted.machine.neighbours);
                }
                if wanted == Wanted::default() {
                    return Ok(Applied::default());
                }
                let dry = false;
                self.api.apply(member.address, &wanted, dry).await
            })
            .await?;
        let mut failed = Vec::new();
        for (member, applied) in self.inputs.fleet.0.iter().zip(applied) {
            let ip = member.address;
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

    /// What a node has to be for a run.
    ///
    /// # Errors
    /// Its learner answers, but not as one does.
    pub async fn wanted(&self, point: &Point, ip: IpAddr) -> Result<Wanted, ApiError> {
        let scenario = &self.inputs.scenario;
        let mut wanted = Wanted {
            limits: LimitsPatch {
                parallel_running_functions_max: scenario.k,
                queue_length_max: scenario.queue_length,
                queue_enabled: scenario.queue_enabled,
            },
            // What the nodes have by themselves stays as it is.
            scheduler: point.scheduler.clone().filter(|_| !scenario.schedulers.0.is_empty()),
            ..Wanted::default()
        };
        if point.learns() {
            wanted.learner = scenario.learner.clone();
            let deadlines_s = scenario.deadlines(point).0;
            let reward = match scenario.learning {
                Learning::Client | Learning::Off => json!({"source": "client"}),
                Learning::Node => json!({"source": "node", "deadlines_s": deadlines_s}),
            };
            // P2PFaaS v1's learners have clients that train them, and nothing to choose. Where no
            // learner answers, this is how it is found out.
            let found = self.api.learner_parameters(ip).await?;
            let chooses = found.as_ref().is_some_and(|found| found.contains_key("reward"));
            let must = match scenario.learning {
                Learning::Node => true,
                Learning::Client => found.is_none(),
                Learning::Off => false,
            };
            if chooses || must {
                wanted.learner.insert("reward".to_owned(), reward);
            }
        }
        Ok(wanted)
    }

    /// Waits until nothing runs or waits on any node, and all answer.
    ///
    /// # Errors
    /// They have not become so in time.
    pub async fn become_quiet(&self) -> Result<(), ExperimentError> {
        let scenario = &self.inputs.scenario;
        let patience = Duration::from_secs_f64(scenario.quiet_timeout_s);
        let deadline = Instant::now() + patience;
        let look = async |member: &Member| match self.api.load(member.address).await {
            // Any server can be loaded; not every one tells its load.
            Err(ApiError::Refused { .. }) if !scenario.checks => None,
            Err(why) => Some(why.to_string()),
            Ok(load) if load.running > 0 || load.waiting > 0 => {
                Some(format!("{} calls run and {} wait", load.running, load.waiting))
            }
            Ok(_) => None,
        };
        loop {
            let looks = self.inputs.fleet.0.iter().map(async |member| {
                look(member).await.map(|why| format!("{}: {why}", member.address))
            });
            let busy: Vec<String> = join_all(looks).await.into_iter().flatten().collect();
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

    /// What the nodes are now. Whether they answer as nodes do was a matter of the checks.
    pub async fn nodes(&self) -> Vec<NodeAbout> {
        let about = async |member: &Member| {
            let ip = member.address;
            NodeAbout {
                address: ip.to_string(),
                name: self.api.machines(ip).await.map(|told| told.0).unwrap_or_default(),
                version: self.api.version(ip).await.unwrap_or_default(),
                configuration: self.api.configuration(ip).await.unwrap_or_default(),
                scheduler: self.api.scheduler(ip).await.unwrap_or(SchedulerSpec::from_words("?")),
                learner: self.api.learner_parameters(ip).await.unwrap_or_default(),
                memory: None,
            }
        };
        join_all(self.inputs.fleet.0.iter().map(about)).await
    }

    /// What the nodes' algorithms have learnt by now.
    pub async fn remember(&self, nodes: &mut [NodeAbout]) {
        let asked = self.inputs.fleet.0.iter().map(|member| self.api.memory(member.address));
        for (node, memory) in nodes.iter_mut().zip(join_all(asked).await) {
            node.memory = memory;
        }
    }
}
