//! What would spoil a run, looked for before it: each finding says which node and what to do.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::load::Ready;
use crate::bench::scenario::Scenario;
use crate::fleet::{Api, ApiError, Fleet, Member, Wanted};
use crate::policy::registry::SchedulerSpec;

/// How long machines have to find each other.
const DISCOVERY: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);

/// What is looked at, and against what.
pub struct Checks<'a> {
    /// The way to the nodes.
    pub api: &'a Api,
    /// The nodes.
    pub fleet: &'a Fleet,
    /// Where that stands, for messages.
    pub file: &'a Path,
    /// What is going to be run.
    pub scenario: &'a Scenario,
    /// What is going to be sent.
    pub payloads: &'a [Ready],
}

/// What a node tells about itself.
struct Told {
    version: String,
    configuration: Map<String, Value>,
    scheduler: SchedulerSpec,
}

/// What most have; of equals the first.
fn most<T: Clone + Eq + Hash>(values: impl Iterator<Item = T> + Clone) -> Option<T> {
    let mut counts = HashMap::<T, usize>::new();
    values.clone().for_each(|value| *counts.entry(value).or_default() += 1);
    let most = counts.values().copied().max()?;
    values.into_iter().find(|value| counts.get(value) == Some(&most))
}

impl Checks<'_> {
    /// Everything that is wrong, a line each; nothing: all is well.
    pub async fn findings(&self) -> Vec<String> {
        let told = join_all(self.fleet.0.iter().map(|member| self.told(member.address))).await;
        let mut findings = Vec::new();
        let mut nodes = Vec::new();
        for (member, told) in self.fleet.0.iter().zip(told) {
            match told {
                Ok(told) => nodes.push((member, told)),
                Err(why) => findings.push(format!(
                    "{}: does not answer as a node ({why}): start it, or take it out of {}",
                    member.address,
                    self.file.display()
                )),
            }
        }
        self.versions(&nodes, &mut findings);
        findings.extend(self.against_the_file(&nodes).await);
        self.alike(&nodes, &mut findings);
        findings.extend(self.lists(&nodes).await);
        findings.extend(self.functions(&nodes).await);
        findings
    }

    async fn told(&self, ip: IpAddr) -> Result<Told, ApiError> {
        Ok(Told {
            version: self.api.version(ip).await?,
            configuration: self.api.configuration(ip).await?,
            scheduler: self.api.scheduler(ip).await?,
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
        let mut wanted =
            Wanted { machine: Default::default(), learner: Map::new(), ..member.wanted.clone() };
        let limits = &mut wanted.limits;
        let scenario = self.scenario;
        limits.parallel_running_functions_max.take_if(|_| scenario.k.is_some());
        limits.queue_length_max.take_if(|_| scenario.queue_length.is_some());
        limits.queue_enabled.take_if(|_| scenario.queue_enabled.is_some());
        wanted.scheduler.take_if(|_| !scenario.schedulers.0.is_empty());
        wanted
    }

    async fn against_the_file(&self, nodes: &[(&Member, Told)]) -> Vec<String> {
        let look = async |member: &Member| {
            let dry = true;
            self.api.apply(member.address, &self.wanted(member), dry).await.map(|told| told.plan)
        };
        let plans = join_all(nodes.iter().map(|(member, _)| look(member))).await;
        let file = self.file.display();
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

    /// Where neither the file nor the scenario says what a node should be, all should be the same.
    fn alike(&self, nodes: &[(&Member, Told)], findings: &mut Vec<String>) {
        let scenario = self.scenario;
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
    }

    /// Machines hear of each other within seconds; they get that long.
    async fn lists(&self, nodes: &[(&Member, Told)]) -> Vec<String> {
        let patience = Instant::now() + DISCOVERY;
        loop {
            let unknown = |member: &Member| self.unknown_to(member.address);
            let findings: Vec<String> =
                join_all(nodes.iter().map(|(member, _)| unknown(member))).await.concat();
            if findings.is_empty() || Instant::now() >= patience {
                return findings;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn unknown_to(&self, ip: IpAddr) -> Vec<String> {
        let listed = match self.api.machines(ip).await {
            Ok((_, listed)) => listed,
            Err(why) => return vec![format!("{ip}: its discovery does not answer ({why})")],
        };
        let listed: Vec<IpAddr> =
            listed.iter().filter_map(|machine| machine.get("ip")?.as_str()?.parse().ok()).collect();
        let others = self.fleet.0.iter().map(|member| member.address);
        others
            .filter(|other| *other != ip && !listed.contains(other))
            .map(|other| {
                format!("{ip}: does not list {other}: give both the same init server, and wait")
            })
            .collect()
    }

    async fn functions(&self, nodes: &[(&Member, Told)]) -> Vec<String> {
        let function = &self.scenario.function;
        let call = async |ip: IpAddr| {
            for payload in self.payloads {
                let path = payload.path(function, 1);
                if let Err(why) = self.api.call_there(ip, &path, &payload.body).await {
                    return Some(format!(
                        "{ip}: {function} does not answer {} with 200 ({why}): deploy it there",
                        payload.title
                    ));
                }
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
