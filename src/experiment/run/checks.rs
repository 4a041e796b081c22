//! What would spoil a run, looked for before it: each finding says which node and what to do.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::ExperimentError;
use super::setup::Setup;
use crate::experiment::design::scenario::{Point, Scenario};
use crate::fleet::{Api, ApiError, Fleet, Member, Wanted};
use crate::policy::registry::SchedulerSpec;
use crate::wire::WireMachine;

/// How long machines have to find each other.
const DISCOVERY: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);

/// Machines that are not in the file and are told of, of each node.
const STRANGERS_TOLD: usize = 16;

/// What is looked at, and against what.
pub struct Checks<'a> {
    /// The nodes, what is going to be run and sent.
    pub setup: &'a Setup<'a>,
    /// The runs.
    pub points: &'a [Point],
}

/// What a node tells about itself.
struct Told {
    version: String,
    configuration: Map<String, Value>,
    scheduler: SchedulerSpec,
    learner: Option<Map<String, Value>>,
}

/// What most have; of equals the first.
fn most<T: Clone + Eq + Hash>(values: impl Iterator<Item = T> + Clone) -> Option<T> {
    let mut counts = HashMap::<T, usize>::new();
    values.clone().for_each(|value| *counts.entry(value).or_default() += 1);
    let most = counts.values().copied().max()?;
    values.into_iter().find(|value| counts.get(value) == Some(&most))
}

impl Checks<'_> {
    fn api(&self) -> &Api {
        self.setup.api
    }

    fn scenario(&self) -> &Scenario {
        &self.setup.inputs.scenario
    }

    fn fleet(&self) -> &Fleet {
        &self.setup.inputs.fleet
    }

    /// Where the fleet stands, for messages.
    fn file(&self) -> std::path::Display<'_> {
        self.scenario().fleet.display()
    }

    /// Everything that is wrong, a line each; nothing: all is well.
    pub async fn findings(&self) -> Vec<String> {
        let told = join_all(self.fleet().0.iter().map(|member| self.told(member.address))).await;
        let mut findings = Vec::new();
        let mut nodes = Vec::new();
        for (member, told) in self.fleet().0.iter().zip(told) {
            match told {
                Ok(told) => nodes.push((member, told)),
                Err(why) => findings.push(format!(
                    "{}: does not answer as a node ({why}): start it, or take it out of {}",
                    member.address,
                    self.file()
                )),
            }
        }
        self.versions(&nodes, &mut findings);
        findings.extend(self.against_the_file(&nodes).await);
        self.alike(&nodes, &mut findings);
        findings.extend(self.possible(&nodes).await);
        findings.extend(self.lists(&nodes).await);
        // A function can be called where there is room; what is left of others gets time to go.
        if findings.is_empty()
            && let Err(ExperimentError::Fleet(busy)) = self.setup.become_quiet().await
        {
            findings.extend(busy);
        }
        findings.extend(self.functions(&nodes).await);
        findings
    }

    async fn told(&self, ip: IpAddr) -> Result<Told, ApiError> {
        Ok(Told {
            version: self.api().version(ip).await?,
            configuration: self.api().configuration(ip).await?,
            scheduler: self.api().scheduler(ip).await?,
            learner: self.api().learner_parameters(ip).await?,
        })
    }

    fn versions(&self, nodes: &[(&Member, Told)], findings: &mut Vec<String>) {
        let Some(most) = most(nodes.iter().map(|(_, told)| &told.version)) else { return };
        for (member, told) in nodes.iter().filter(|(_, told)| told.version != *most) {
            findings.push(format!(
                "{}: has version {}, most have {most}: install the same on all",
                member.address, told.version
            ));
        }
    }

    /// What the fleet file says of a node, as far as the scenario does not set it itself.
    fn wanted(&self, member: &Member) -> Wanted {
        let mut wanted = Wanted { machine: Default::default(), ..member.wanted.clone() };
        let learns = self.points.iter().any(Point::learns);
        wanted.learner.retain(|key, _| learns && !self.scenario().learner.contains_key(key));
        let limits = &mut wanted.limits;
        let scenario = self.scenario();
        limits.parallel_running_functions_max.take_if(|_| scenario.k.is_some());
        limits.queue_length_max.take_if(|_| scenario.queue_length.is_some());
        limits.queue_enabled.take_if(|_| scenario.queue_enabled.is_some());
        wanted.scheduler.take_if(|_| !scenario.schedulers.0.is_empty());
        wanted
    }

    async fn against_the_file(&self, nodes: &[(&Member, Told)]) -> Vec<String> {
        let look = async |member: &Member| {
            let dry = true;
            self.api().apply(member.address, &self.wanted(member), dry).await.map(|told| told.plan)
        };
        let plans = join_all(nodes.iter().map(|(member, _)| look(member))).await;
        let file = self.file();
        let mut findings = Vec::new();
        for ((member, _), plan) in nodes.iter().zip(plans) {
            // Those that do not answer were found before.
            for change in plan.map(|plan| plan.changes).unwrap_or_default() {
                findings.push(format!(
                    "{}: {} is {}, and {} by {file}: run p2pfaas fleet apply {file}",
                    member.address, change.what, change.before, change.after
                ));
            }
        }
        findings
    }

    /// Whether each node can become what each run needs of it.
    async fn possible(&self, nodes: &[(&Member, Told)]) -> Vec<String> {
        let look = async |ip: IpAddr, point: &Point| {
            let wanted = self.setup.wanted(point, ip).await?;
            let dry = true;
            Ok::<_, ApiError>(self.api().apply(ip, &wanted, dry).await?.plan.impossible)
        };
        let learning = self.points.iter().find(|point| point.learns());
        let (mut points, mut findings) = (Vec::from_iter(learning), Vec::new());
        points.extend(self.points.first());
        for point in points {
            let looks = nodes
                .iter()
                .map(async |(member, _)| (member.address, look(member.address, point).await));
            for (ip, found) in join_all(looks).await {
                let why = found.unwrap_or_else(|why| vec![why.to_string()]);
                findings.extend(why.into_iter().map(|why| {
                    format!("{ip}: {why}; what the scenario asks for cannot be set there")
                }));
            }
        }
        findings.sort();
        findings.dedup();
        findings
    }

    /// Where neither the file nor the scenario says what a node should be, all should be the same.
    fn alike(&self, nodes: &[(&Member, Told)], findings: &mut Vec<String>) {
        let scenario = self.scenario();
        type Said = fn(&Wanted) -> bool;
        let keys: [(&str, bool, Said); 3] = [
            ("parallel_running_functions_max", scenario.k.is_some(), |wanted| {
                wanted.limits.parallel_running_functions_max.is_some()
            }),
            ("queue_length_max", scenario.queue_length.is_some(), |wanted| {
                wanted.limits.queue_length_max.is_some()
            }),
            ("queue_enabled", scenario.queue_enabled.is_some(), |wanted| {
                wanted.limits.queue_enabled.is_some()
            }),
        ];
        for (key, set, said) in keys {
            let value = |told: &Told| told.configuration.get(key).map(Value::to_string);
            let free = nodes.iter().filter(|(member, _)| !set && !said(&member.wanted));
            differing(key, free.map(|(m, told)| (m.address, value(told).unwrap_or_default())))
                .into_iter()
                .for_each(|finding| findings.push(finding));
        }
        let free = nodes.iter().filter(|(member, _)| {
            scenario.schedulers.0.is_empty() && member.wanted.scheduler.is_none()
        });
        let words = free.map(|(m, told)| (m.address, told.scheduler.words()));
        findings.extend(differing("scheduler", words));
        self.learners_alike(nodes, findings);
    }

    /// Learners differ by what neither the scenario nor the fleet file says only if somebody changed
    /// one by hand.
    fn learners_alike(&self, nodes: &[(&Member, Told)], findings: &mut Vec<String>) {
        if !self.points.iter().any(Point::learns) {
            return;
        }
        let mut keys: Vec<&String> = nodes
            .iter()
            .filter_map(|(_, told)| told.learner.as_ref())
            .flat_map(Map::keys)
            .collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| *key != "reward" && !self.scenario().learner.contains_key(*key));
        for key in keys {
            let value = |told: &Told| Some(told.learner.as_ref()?.get(key)?.to_string());
            let free = nodes.iter().filter(|(member, _)| !member.wanted.learner.contains_key(key));
            let values = free.filter_map(|(member, told)| Some((member.address, value(told)?)));
            findings.extend(differing(&format!("learner {key}"), values));
        }
    }

    /// Machines hear of each other within seconds; they get that long.
    async fn lists(&self, nodes: &[(&Member, Told)]) -> Vec<String> {
        if self.fleet().0.len() < 2 {
            return Vec::new();
        }
        let here: Vec<IpAddr> = nodes.iter().map(|(member, _)| member.address).collect();
        let patience = Instant::now() + DISCOVERY;
        loop {
            let looks = here.iter().map(|ip| self.list(*ip, &here));
            let findings: Vec<String> = join_all(looks).await.concat();
            if findings.is_empty() || Instant::now() >= patience {
                return findings;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether a node lists all others that are `here`, and nobody whom the file does not name.
    async fn list(&self, ip: IpAddr, here: &[IpAddr]) -> Vec<String> {
        let listed = match self.api().machines(ip).await {
            Ok((_, listed)) => listed,
            Err(why) => return vec![format!("{ip}: its discovery does not answer ({why})")],
        };
        let listed: Vec<IpAddr> = listed.iter().filter_map(WireMachine::address).collect();
        let missing = here.iter().filter(|other| **other != ip && !listed.contains(other));
        let missing = missing.map(|other| {
            format!("{ip}: does not list {other}: give both the same init server, and wait")
        });
        let named = |other: &IpAddr| self.fleet().0.iter().any(|member| member.address == *other);
        let strangers = listed.iter().filter(|other| !named(other)).take(STRANGERS_TOLD);
        let strangers = strangers.map(|other| {
            let file = self.file();
            format!("{ip}: lists {other}, which may get its calls: add it to {file}, or part them")
        });
        missing.chain(strangers).collect()
    }

    async fn functions(&self, nodes: &[(&Member, Told)]) -> Vec<String> {
        let function = &self.scenario().function;
        let call = async |ip: IpAddr| {
            for payload in &self.setup.inputs.payloads {
                // For a recorded duration a short one stands.
                let path = payload.path(function, 1, Some(0.001));
                let limit = Duration::from_secs_f64(self.scenario().request_timeout_s);
                let Err(why) = self.api().call_there(ip, &path, &payload.body, limit).await else {
                    continue;
                };
                // The contract's code for a node without a free slot.
                let full = matches!(why, ApiError::Refused { code: 400, status: 500, .. });
                let what = if full { "let it become quiet, or raise K" } else { "deploy it there" };
                return Some(format!(
                    "{ip}: {function} does not answer {} with 200 ({why}): {what}",
                    payload.title
                ));
            }
            None
        };
        let called = join_all(nodes.iter().map(|(member, _)| call(member.address))).await;
        called.into_iter().flatten().collect()
    }
}

fn differing(key: &str, values: impl Iterator<Item = (IpAddr, String)> + Clone) -> Vec<String> {
    let Some(most) = most(values.clone().map(|(_, value)| value)) else { return Vec::new() };
    values
        .filter(|(_, value)| *value != most)
        .map(|(ip, value)| {
            format!("{ip}: {key} is {value}, most have {most}: say in the fleet file what it should be, and apply it")
        })
        .collect()
}
