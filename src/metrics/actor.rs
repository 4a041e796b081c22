//! How the actors of a node fare.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::register;

/// See the module.
pub(super) struct ActorMetrics {
    restarts: IntCounterVec,
    ok: IntGaugeVec,
    mailbox_age: GaugeVec,
}

impl ActorMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let restarts = Opts::new(
            "p2pfaas_actor_restarts_total",
            "Actors that ended unasked or were stuck, and were started again",
        );
        let ok = Opts::new("p2pfaas_actor_ok", "Whether an actor answers: 1, or 0 if it is stuck");
        let mailbox_age =
            Opts::new("p2pfaas_actor_mailbox_age_seconds", "How long a message to an actor waits");
        Self {
            restarts: register(registry, IntCounterVec::new(restarts, &["actor", "cause"])),
            ok: register(registry, IntGaugeVec::new(ok, &["actor"])),
            mailbox_age: register(registry, GaugeVec::new(mailbox_age, &["actor"])),
        }
    }

    pub(super) fn restarted(&self, actor: &str, cause: &str) {
        self.restarts.with_label_values(&[actor, cause]).inc();
    }

    pub(super) fn restarts(&self, actor: &str) -> u64 {
        let of_actor = |metric: &&Metric| {
            metric.get_label().iter().any(|l| l.name() == "actor" && l.value() == actor)
        };
        let families = self.restarts.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        metrics.filter(of_actor).map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    pub(super) fn observed(&self, actor: &str, ok: bool, mailbox_age: Duration) {
        self.ok.with_label_values(&[actor]).set(ok.into());
        self.mailbox_age.with_label_values(&[actor]).set(mailbox_age.as_secs_f64());
    }
}
