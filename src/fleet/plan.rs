//! What a node should be against what it is. No IO.

use serde_json::{Map, Value};

use crate::policy::registry::SchedulerSpec;
use crate::saved::{LimitsPatch, MachinePatch};
use crate::types::Neighbours;

/// What a node should be; what is `None` or empty is left as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Who it is and whom it joins.
    pub machine: MachinePatch,
    /// K and the queue.
    pub limits: LimitsPatch,
    /// The algorithm.
    pub scheduler: Option<SchedulerSpec>,
    /// Learner parameters.
    pub learner: Map<String, Value>,
}

/// What a node says it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeAsIs {
    /// Who it is and whom it joins.
    pub machine: MachinePatch,
    /// K and the queue.
    pub limits: LimitsPatch,
    /// The algorithm.
    pub scheduler: SchedulerSpec,
    /// Learner parameters; `None`: no learner answers.
    pub learner: Option<Map<String, Value>>,
}

/// What is posted at once, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeStep {
    /// To discovery.
    Machine,
    /// To the scheduler's configuration.
    Limits,
    /// To the learner.
    Learner,
    /// The algorithm.
    Scheduler,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is posted with.
    pub step: ChangeStep,
    /// Which.
    pub what: String,
    /// As it is.
    pub before: String,
    /// As it should be.
    pub after: String,
}

/// What has to be posted so that a node becomes what it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangePlan {
    /// The differences, one by one.
    pub changes: Vec<Change>,
    /// What cannot be, with the reason.
    pub impossible: Vec<String>,
    /// To discovery.
    pub machine: Option<MachinePatch>,
    /// To the scheduler's configuration.
    pub limits: Option<LimitsPatch>,
    /// The algorithm to swap to.
    pub scheduler: Option<SchedulerSpec>,
    /// To the learner.
    pub learner: Map<String, Value>,
}

/// Equal as numbers, whether written with a decimal point or not.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The normal form, where this program knows the algorithm.
fn normal(spec: &SchedulerSpec) -> SchedulerSpec {
    spec.build().map_or_else(|_| spec.clone(), |policy| SchedulerSpec::of(&*policy))
}

impl ChangePlan {
    /// What makes `found` what is `wanted`. Nothing, if it is that already.
    pub fn new(wanted: &Wanted, found: &NodeAsIs) -> Self {
        let mut plan = Self::default();
        plan.limits(&wanted.limits, &found.limits);
        plan.machine(&wanted.machine, &found.machine);
        if let Some(scheduler) = &wanted.scheduler
            && normal(scheduler) != normal(&found.scheduler)
        {
            plan.differs(
                ChangeStep::Scheduler,
                "scheduler",
                found.scheduler.words(),
                scheduler.words(),
            );
            plan.scheduler = Some(scheduler.clone());
        }
        match &found.learner {
            _ if wanted.learner.is_empty() => {}
            None => plan.impossible.push("learner: none answers".to_owned()),
            Some(learner) => plan.learner(&wanted.learner, learner),
        }
        plan
    }

    fn differs(
        &mut self,
        step: ChangeStep,
        what: &str,
        before: impl ToString,
        after: impl ToString,
    ) {
        let (before, after) = (before.to_string(), after.to_string());
        self.changes.push(Change { step, what: what.to_owned(), before, after });
    }

    fn limits(&mut self, wanted: &LimitsPatch, found: &LimitsPatch) {
        let shown = |n: Option<u32>| n.map_or("?".to_owned(), |n| n.to_string());
        let before = self.changes.len();
        for (what, wanted, found) in [
            ("K", wanted.parallel_running_functions_max, found.parallel_running_functions_max),
            ("queue length", wanted.queue_length_max, found.queue_length_max),
        ] {
            if wanted.is_some() && wanted != found {
                self.differs(ChangeStep::Limits, what, shown(found), shown(wanted));
            }
        }
        if let Some(on) = wanted.queue_enabled.filter(|on| found.queue_enabled != Some(*on)) {
            let shown = |on: bool| if on { "on" } else { "off" };
            self.differs(ChangeStep::Limits, "queue", shown(!on), shown(on));
        }
        // Merged over what is there, so what is as it should be may go along.
        self.limits = (self.changes.len() > before).then_some(*wanted);
    }

    fn machine(&mut self, wanted: &MachinePatch, found: &MachinePatch) {
        let before = self.changes.len();
        for (what, wanted, found) in [
            ("address", &wanted.machine_ip, &found.machine_ip),
            ("name", &wanted.machine_id, &found.machine_id),
            ("group", &wanted.machine_group_name, &found.machine_group_name),
        ] {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| Some(*wanted) != found.as_ref()) {
                self.differs(ChangeStep::Machine, what, found.clone().unwrap_or_default(), wanted);
            }
        }
        // Where it is all, nodes do not tell it.
        let all = || Neighbours::All.to_string();
        let are = found.neighbours.clone().unwrap_or_else(all);
        if let Some(wanted) = wanted.neighbours.as_ref().filter(|wanted| **wanted != are) {
            self.differs(ChangeStep::Machine, "neighbours", are, wanted);
        }
        let found = found.init_servers.clone().unwrap_or_default();
        if let Some(servers) = &wanted.init_servers
            && *servers != found
        {
            let listed = |servers: &[String]| match servers {
                [] => "none".to_owned(),
                servers => servers.join(" "),
            };
            self.differs(ChangeStep::Machine, "init servers", listed(&found), listed(servers));
        }
        self.machine = (self.changes.len() > before).then(|| wanted.clone());
    }

    fn learner(&mut self, wanted: &Map<String, Value>, found: &Map<String, Value>) {
        for (key, value) in wanted {
            match found.get(key) {
                Some(is) if same(is, value) => {}
                Some(is) => {
                    self.differs(ChangeStep::Learner, &format!("learner {key}"), is, value);
                    self.learner.insert(key.clone(), value.clone());
                }
                None => self.impossible.push(format!("learner {key}: this node has no such key")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found() -> NodeAsIs {
        NodeAsIs {
            machine: MachinePatch {
                machine_ip: Some("10.0.0.1".to_owned()),
                machine_id: Some("n1".to_owned()),
                machine_group_name: Some(String::new()),
                init_servers: Some(Vec::new()),
                neighbours: None,
            },
            limits: LimitsPatch {
                parallel_running_functions_max: Some(4),
                queue_length_max: Some(4),
                queue_enabled: Some(true),
            },
            scheduler: SchedulerSpec::from_words("PowerOfNScheduler 1 2 true 1"),
            learner: json!({"alpha": 0.01, "actions_n": 2, "reward": {"source": "node",
                "deadlines_s": [1, 2.0]}})
            .as_object()
            .cloned(),
        }
    }

    fn learner(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn a_node_that_is_as_it_should_be_is_left_alone_however_it_is_written() {
        let wanted = Wanted {
            limits: LimitsPatch {
                parallel_running_functions_max: Some(4),
                ..LimitsPatch::default()
            },
            scheduler: Some(SchedulerSpec::from_words("PowerOfNScheduler 1 2 T 1 extra")),
            learner: learner(json!({"actions_n": 2.0, "reward": {"source": "node",
                "deadlines_s": [1.0, 2]}})),
            machine: MachinePatch { init_servers: Some(Vec::new()), ..MachinePatch::default() },
        };
        assert_eq!(ChangePlan::new(&wanted, &found()), ChangePlan::default());
        assert_eq!(ChangePlan::new(&Wanted::default(), &found()), ChangePlan::default());
    }

    #[test]
    fn every_difference_is_listed_and_only_what_differs_is_posted() {
        let wanted = Wanted {
            machine: MachinePatch {
                machine_id: Some("board-1".to_owned()),
                init_servers: Some(vec!["10.0.0.9".to_owned()]),
                ..MachinePatch::default()
            },
            limits: LimitsPatch {
                parallel_running_functions_max: Some(3),
                queue_enabled: Some(false),
                ..LimitsPatch::default()
            },
            scheduler: Some(SchedulerSpec::from_words("NoScheduler false")),
            learner: learner(json!({"alpha": 0.5, "actions_n": 2})),
        };
        let plan = ChangePlan::new(&wanted, &found());
        let changes: Vec<String> = plan
            .changes
            .iter()
            .map(|c| format!("{}: {} to {}", c.what, c.before, c.after))
            .collect();
        assert_eq!(
            changes,
            [
                "K: 4 to 3",
                "queue: on to off",
                "name: n1 to board-1",
                "init servers: none to 10.0.0.9",
                "scheduler: PowerOfNScheduler 1 2 true 1 to NoScheduler false",
                "learner alpha: 0.01 to 0.5",
            ]
        );
        assert_eq!((plan.limits, plan.machine), (Some(wanted.limits), Some(wanted.machine)));
        assert_eq!(plan.learner, learner(json!({"alpha": 0.5})));
    }

    #[test]
    fn what_a_node_does_not_know_is_told_and_not_posted_again_and_again() {
        let wanted =
            Wanted { learner: learner(json!({"value_function": "tiles"})), ..Wanted::default() };
        let plan = ChangePlan::new(&wanted, &found());
        assert_eq!((plan.impossible.len(), plan.learner.len()), (1, 0));
        let none = NodeAsIs { learner: None, ..found() };
        assert_eq!(ChangePlan::new(&wanted, &none).impossible, ["learner: none answers"]);
    }
}
