//! Every metric of a node, by name. One registry per node, also where several run in one process.

mod actor;
mod function;
mod learner;
mod program;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use self::actor::ActorMetrics;
use self::function::CallMetrics;
pub use self::function::FunctionMetrics;
use self::learner::LearnerMetrics;
use self::program::ProgramMetrics;
use crate::error::RefusalKind;
use crate::lock;
use crate::policy::MemoryFigure;
use crate::rl::stats::LearnerStats;
use crate::telemetry::lines_dropped;

/// Function names told apart at most; calls by further names count as `other`, since a name is
/// whatever a client types.
const FUNCTIONS_MAX: usize = 256;

/// Peers told apart at most, since machines come and go.
const PEERS_MAX: usize = 1024;

/// The metrics of one node.
pub struct Metrics {
    registry: Registry,
    running: IntGauge,
    waiting: IntGauge,
    k: IntGauge,
    forwards: IntCounterVec,
    probes: IntCounterVec,
    machines: IntGaugeVec,
    keys: IntGaugeVec,
    memory: GaugeVec,
    fallbacks: IntCounter,
    left_out: IntCounter,
    log_lines_dropped: IntCounter,
    calls: CallMetrics,
    actors: ActorMetrics,
    learner: LearnerMetrics,
    programs: ProgramMetrics,
    /// In the order of [`RefusalKind::KINDS`].
    refusals: Vec<IntCounter>,
    rendering: Mutex<()>,
    functions: Mutex<HashMap<String, Arc<FunctionMetrics>>>,
    others: OnceLock<Arc<FunctionMetrics>>,
    /// Functions that the operator has named.
    named: OnceLock<HashSet<String>>,
    peers: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| {
            register(&registry, IntGauge::with_opts(Opts::new(name, help)))
        };
        let gauges = |name: &str, help: &str, label: &str| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
        };
        let refusals = counter(
            "p2pfaas_refusals_total",
            "What was refused or ended so that others are served, by kind",
            &["kind"],
        );
        let single = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        Self {
            refusals: RefusalKind::KINDS
                .iter()
                .map(|(_, label)| refusals.with_label_values(&[label]))
                .collect(),
            running: gauge("p2pfaas_running", "Functions that run now"),
            waiting: gauge("p2pfaas_waiting", "Calls that wait for a slot"),
            k: gauge("p2pfaas_k", "Functions that may run at once"),
            forwards: counter(
                "p2pfaas_forwards_total",
                "Calls handed to peers, by peer and result",
                &["peer", "result"],
            ),
            probes: counter("p2pfaas_probes_total", "Probes of peers, by result", &["result"]),
            machines: gauges("p2pfaas_machines", "Known machines by standing", "standing"),
            keys: gauges("p2pfaas_cluster_key", "Cluster keys in force: 1 seals, 2 opens", "id"),
            memory: memory_gauges(&registry),
            fallbacks: single(
                "p2pfaas_learner_fallbacks_total",
                "Calls run here because the learner's decision could not be had",
            ),
            left_out: single(
                "p2pfaas_peers_left_out_total",
                "Times that a peer was left out for a while because calls failed there",
            ),
            log_lines_dropped: single(
                "p2pfaas_log_lines_dropped_total",
                "Lines that the process left out of its log, because there were too many alike",
            ),
            calls: CallMetrics::new(&registry),
            actors: ActorMetrics::new(&registry),
            learner: LearnerMetrics::new(&registry),
            programs: ProgramMetrics::new(&registry),
            rendering: Mutex::default(),
            functions: Mutex::default(),
            others: OnceLock::new(),
            named: OnceLock::new(),
            peers: Mutex::default(),
            registry,
        }
    }

    /// The metrics of calls of the function `name`, to be kept by whoever calls it often. `None`
    /// when there are too many names already: then those of all further ones, under `other`.
    pub fn of_function(&self, name: &str) -> Option<Arc<FunctionMetrics>> {
        let mut functions = lock(&self.functions);
        if let Some(known) = functions.get(name) {
            return Some(Arc::clone(known));
        }
        if functions.len() >= FUNCTIONS_MAX {
            return None;
        }
        let made = Arc::new(self.calls.labelled(name));
        functions.insert(name.to_owned(), Arc::clone(&made));
        Some(made)
    }

    /// The functions that the operator has named: they are told apart whether or not they ever ran.
    /// Those that were told first stay.
    pub fn expect_functions(&self, names: impl IntoIterator<Item = String>) {
        self.named.get_or_init(|| names.into_iter().collect());
    }

    /// The metrics of calls of the function `name`, if that is known to be one: it ran before, or the
    /// operator has named it.
    pub fn of_known_function(&self, name: &str) -> Option<Arc<FunctionMetrics>> {
        if self.named.get().is_some_and(|named| named.contains(name)) {
            return self.of_function(name);
        }
        lock(&self.functions).get(name).cloned()
    }

    /// The metrics of calls of functions whose names are not told apart.
    pub fn of_others(&self) -> Arc<FunctionMetrics> {
        Arc::clone(self.others.get_or_init(|| Arc::new(self.calls.labelled("other"))))
    }

    /// A call was handed to `peer`, with that result.
    pub fn forward(&self, peer: &str, result: &str) {
        let peer = {
            let mut peers = lock(&self.peers);
            let known = peers.contains(peer);
            if !known && peers.len() < PEERS_MAX {
                peers.insert(peer.to_owned());
            }
            if known || peers.contains(peer) { peer } else { "other" }
        };
        self.forwards.with_label_values(&[peer, result]).inc();
    }

    /// A probe ended.
    pub fn probe(&self, answered: bool) {
        self.probes.with_label_values(&[if answered { "answered" } else { "failed" }]).inc();
    }

    /// The known machines, counted by standing.
    pub fn machines(&self, alive: usize, hearsay: usize, dead: usize) {
        for (standing, count) in [("alive", alive), ("hearsay", hearsay), ("dead", dead)] {
            self.machines.with_label_values(&[standing]).set(count as i64);
        }
    }

    /// The cluster keys in force, by what tells them apart: the first seals, all open.
    pub fn cluster_keys(&self, ids: &[String]) {
        self.keys.reset();
        for (id, place) in ids.iter().zip(1..) {
            self.keys.with_label_values(&[id.as_str()]).set(place);
        }
    }

    /// A call runs here because the learner's decision could not be had.
    pub fn fallback(&self) {
        self.fallbacks.inc();
    }

    /// A call runs here because a program outside has not decided on it.
    pub fn program_fallback(&self, why: &str) {
        self.programs.fallback(why);
    }

    /// So many outcomes are never told to a program outside.
    pub fn outcomes_dropped(&self, count: u64) {
        self.programs.dropped(count);
    }

    /// A peer is left out for a while.
    pub fn left_out(&self) {
        self.left_out.inc();
    }

    /// Something was refused.
    pub fn refused(&self, what: RefusalKind) {
        if let Some(counter) = self.refusals.get(what as usize) {
            counter.inc();
        }
    }

    /// An actor was started again.
    pub fn restarted(&self, actor: &str, cause: &str) {
        self.actors.restarted(actor, cause);
    }

    /// How often an actor was started again, whatever the cause.
    pub fn restarts(&self, actor: &str) -> u64 {
        self.actors.restarts(actor)
    }

    /// Whether an actor answers, and how long a message to it waits.
    pub fn actor(&self, actor: &str, ok: bool, mailbox_age: Duration) {
        self.actors.observed(actor, ok, mailbox_age);
    }

    /// Everything in Prometheus' text format; the queue's and the learner's figures are those given.
    pub fn render(
        &self,
        load: crate::types::Load,
        k: u32,
        learner: &LearnerStats,
        memory: &[MemoryFigure],
    ) -> Vec<u8> {
        // What one sets, another must not clear before it is gathered.
        let _alone = lock(&self.rendering);
        self.memory.reset();
        for figure in memory {
            self.memory.with_label_values(&[figure.what, &figure.of]).set(figure.value);
        }
        self.learner.set(learner);
        let known = self.log_lines_dropped.get();
        self.log_lines_dropped.inc_by(lines_dropped().saturating_sub(known));
        self.running.set(load.running.into());
        self.waiting.set(load.waiting.into());
        self.k.set(k.into());
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

fn memory_gauges(registry: &Registry) -> GaugeVec {
    let about = Opts::new("p2pfaas_scheduler_memory", "What the algorithm in force has learnt");
    register(registry, GaugeVec::new(about, &["what", "of"]))
}

/// Registers a metric. Names and labels are constants, so what is wrong with them shows in every
/// test that starts a node.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    let registered = metric.and_then(|metric| {
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    });
    match registered {
        Ok(metric) => metric,
        Err(error) => unreachable!("a metric's constant name or labels are wrong: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CallOutcome;
    use crate::rl::stats::RewardStats;
    use crate::types::Load;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a list of all metrics")]
    fn every_metric_is_rendered_under_its_name() {
        let metrics = Metrics::new();
        let function = metrics.of_function("fn-a").expect("there is room");
        function.request("NoScheduler", CallOutcome::Executed, Duration::from_millis(3));
        function.executed(Duration::ZERO, Duration::from_millis(2));
        metrics.forward("10.0.0.1", "answered");
        metrics.probe(true);
        metrics.machines(2, 1, 0);
        metrics.restarted("queue", "panicked");
        metrics.restarted("queue", "stuck");
        metrics.restarted("switch", "stuck");
        assert_eq!((metrics.restarts("queue"), metrics.restarts("gateway")), (2, 0));
        metrics.actor("queue", false, Duration::from_millis(5500));
        metrics.fallback();
        metrics.program_fallback("silent");
        metrics.outcomes_dropped(2);
        for (kind, _) in RefusalKind::KINDS {
            metrics.refused(*kind);
        }
        metrics.cluster_keys(&["0a".to_owned(), "0b".to_owned()]);
        metrics.refused(RefusalKind::Busy);
        let rewards = RewardStats {
            in_time: [(1, 5)].into(),
            missed: [(0, 2)].into(),
            dropped: 0,
            recent_share_in_time: Some(0.75),
        };
        let learner = LearnerStats {
            epsilon: 0.5,
            average_reward: 0.25,
            mean_abs_delta: 0.125,
            late: 3,
            decisions: [(2, 7)].into(),
            rewards,
            ..LearnerStats::default()
        };
        let text = metrics.render(
            Load { running: 3, waiting: 1 },
            4,
            &learner,
            &[MemoryFigure { what: "effective_cores", of: String::new(), value: 2.5 }],
        );
        let text = String::from_utf8(text).expect("text");
        for line in [
            r#"p2pfaas_requests_total{function="fn-a",outcome="executed",scheduler="NoScheduler"} 1"#,
            "p2pfaas_running 3",
            "p2pfaas_waiting 1",
            "p2pfaas_k 4",
            r#"p2pfaas_forwards_total{peer="10.0.0.1",result="answered"} 1"#,
            r#"p2pfaas_probes_total{result="answered"} 1"#,
            r#"p2pfaas_execution_seconds_bucket{function="fn-a",le="0.0025"} 1"#,
            r#"p2pfaas_queueing_seconds_count{function="fn-a"} 1"#,
            r#"p2pfaas_total_seconds_count{function="fn-a"} 1"#,
            r#"p2pfaas_machines{standing="alive"} 2"#,
            r#"p2pfaas_actor_restarts_total{actor="queue",cause="panicked"} 1"#,
            r#"p2pfaas_actor_restarts_total{actor="queue",cause="stuck"} 1"#,
            r#"p2pfaas_actor_ok{actor="queue"} 0"#,
            r#"p2pfaas_actor_mailbox_age_seconds{actor="queue"} 5.5"#,
            "p2pfaas_learner_fallbacks_total 1",
            r#"p2pfaas_program_fallbacks_total{why="silent"} 1"#,
            "p2pfaas_program_outcomes_dropped_total 2",
            "p2pfaas_log_lines_dropped_total ",
            r#"p2pfaas_refusals_total{kind="connection"} 1"#,
            r#"p2pfaas_refusals_total{kind="slow_body"} 1"#,
            r#"p2pfaas_refusals_total{kind="busy"} 2"#,
            r#"p2pfaas_scheduler_memory{of="",what="effective_cores"} 2.5"#,
            "p2pfaas_learner_epsilon 0.5",
            "p2pfaas_learner_average_reward 0.25",
            "p2pfaas_learner_mean_abs_delta 0.125",
            "p2pfaas_learner_share_in_time 0.75",
            r#"p2pfaas_learner_count{what="late"} 3"#,
            r#"p2pfaas_learner_count{what="skipped"} 0"#,
            r#"p2pfaas_learner_decisions{action="2"} 7"#,
            r#"p2pfaas_learner_rewarded{in_time="true",task_type="1"} 5"#,
            r#"p2pfaas_learner_rewarded{in_time="false",task_type="0"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn function_names_are_bounded() {
        let metrics = Metrics::new();
        let names: Vec<String> = (0..300).map(|i| format!("fn-{i}")).collect();
        let told_apart = names.iter().filter(|name| metrics.of_function(name).is_some()).count();
        assert_eq!(told_apart, FUNCTIONS_MAX);
        assert!(metrics.of_function("fn-0").is_some(), "a known one stays known");
        metrics.of_others().request("NoScheduler", CallOutcome::Executed, Duration::ZERO);
        let text =
            String::from_utf8(metrics.render(Load::default(), 0, &LearnerStats::default(), &[]))
                .expect("text");
        assert!(text.contains(r#"p2pfaas_requests_total{function="other""#), "{text}");
    }
}
