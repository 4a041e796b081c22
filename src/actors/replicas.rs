//! A worker thread's Schedulers: one for the algorithm in force and one for each algorithm that a
//! request can ask for by header, all on this thread.
//!
//! A swap needs no message to the workers: each compares the generation of the algorithm in force
//! with that of its own replica when a call arrives, and starts a new one if they differ. The old
//! one finishes what it was asked and ends with its last address. A replica that panicked is
//! replaced at once by whoever finds it gone.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use actix::{Actor, Addr, WeakAddr};
use arc_swap::ArcSwap;

use super::scheduler::{NodeSource, Schedule, Scheduled, Scheduler, SchedulerPorts};
use super::supervise::EndCause;
use super::switch::Active;
use crate::lock;
use crate::metrics::Metrics;
use crate::policy::{Decision, Knowledge, registry};

/// What a request's headers ask for instead of the algorithm in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Run here: [`registry::bypassing`].
    Bypass,
    /// Forward: [`registry::forwarding`].
    Forward,
    /// Reject: [`registry::rejecting`].
    Reject,
}

/// The Schedulers of all threads of a node, for whoever watches them. It keeps none of them alive.
#[derive(Default)]
pub struct SchedulerRoster(Mutex<Roster>);

#[derive(Default)]
struct Roster {
    /// Numbers given so far.
    numbers: u64,
    /// With their numbers, each of which is given once.
    members: Vec<(u64, WeakAddr<Scheduler>)>,
}

impl SchedulerRoster {
    fn add(&self, addr: &Addr<Scheduler>) {
        let mut roster = lock(&self.0);
        roster.numbers += 1;
        let number = roster.numbers;
        roster.members.retain(|(_, member)| member.upgrade().is_some());
        roster.members.push((number, addr.downgrade()));
    }

    /// Those that run now.
    pub fn running(&self) -> Vec<(u64, Addr<Scheduler>)> {
        let roster = lock(&self.0);
        let there = |(number, addr): &(u64, WeakAddr<_>)| Some((*number, addr.upgrade()?));
        roster.members.iter().filter_map(there).collect()
    }

    /// Leaves out all that were added so far.
    pub fn forget(&self) {
        lock(&self.0).members.clear();
    }
}

struct Replica {
    active: Arc<Active>,
    addr: Addr<Scheduler>,
}

/// See the module. Belongs to one thread.
pub struct Replicas {
    in_force: Arc<ArcSwap<Active>>,
    steered: [Arc<Active>; 3],
    node: NodeSource,
    ask: SchedulerPorts,
    metrics: Arc<Metrics>,
    roster: Arc<SchedulerRoster>,
    /// The algorithm in force, then the steered ones; `None` until first needed.
    running: RefCell<[Option<Replica>; 4]>,
}

impl Replicas {
    /// With a Scheduler of the algorithm in force, so that the thread can be watched before its first
    /// call. All are entered into `roster`.
    pub fn new(
        in_force: Arc<ArcSwap<Active>>,
        node: NodeSource,
        ask: SchedulerPorts,
        metrics: Arc<Metrics>,
        roster: Arc<SchedulerRoster>,
    ) -> Self {
        let steered = [registry::bypassing(), registry::forwarding(), registry::rejecting()]
            .map(|policy| Arc::new(Active::new(0, policy)));
        let running = RefCell::default();
        let replicas = Self { in_force, steered, node, ask, metrics, roster, running };
        replicas.replica(None, &replicas.choose(None));
        replicas
    }

    /// The algorithm that a call arriving now is scheduled by, to the end.
    pub fn choose(&self, steer: Option<Steer>) -> Arc<Active> {
        let [bypass, forward, reject] = &self.steered;
        match steer {
            None => self.in_force.load_full(),
            Some(Steer::Bypass) => Arc::clone(bypass),
            Some(Steer::Forward) => Arc::clone(forward),
            Some(Steer::Reject) => Arc::clone(reject),
        }
    }

    /// Asks the Scheduler of `active`, as [`choose`](Self::choose) gave it.
    ///
    /// A Scheduler that dies while it decides loses nobody: nothing was started anywhere, so the
    /// call is asked about once more, and if that kills the next one too, it runs here.
    pub async fn ask(
        &self,
        steer: Option<Steer>,
        active: &Arc<Active>,
        call: Schedule,
    ) -> Scheduled {
        for _ in 0..2 {
            let addr = self.replica(steer, active);
            if let Ok(scheduled) = addr.send(call.clone()).await {
                return scheduled;
            }
            tracing::error!(scheduler = %active.full_name, "the scheduler ended while it decided");
            // Nobody tells it to end: what ends a Scheduler is a panic.
            self.metrics.restarted("scheduler", EndCause::Panicked.label());
        }
        let heard = Knowledge { probes: None, ..call.heard };
        Scheduled {
            decision: Decision::RunHere { may_wait: true },
            heard,
            probing: std::time::Duration::ZERO,
        }
    }

    fn replica(&self, steer: Option<Steer>, active: &Arc<Active>) -> Addr<Scheduler> {
        let place = match steer {
            None => 0,
            Some(Steer::Bypass) => 1,
            Some(Steer::Forward) => 2,
            Some(Steer::Reject) => 3,
        };
        let mut running = self.running.borrow_mut();
        let Some(held) = running.get_mut(place) else { unreachable!("there are four places") };
        if let Some(replica) = held
            && replica.addr.connected()
            && Arc::ptr_eq(&replica.active, active)
        {
            return replica.addr.clone();
        }
        let policy = Arc::clone(&active.policy);
        #[expect(clippy::disallowed_methods, reason = "the edge where schedulers get their chance")]
        let seed = rand::random();
        let addr = Scheduler::new(policy, self.node.clone(), self.ask.clone(), seed).start();
        self.roster.add(&addr);
        // A call that was overtaken by a swap still asks its own algorithm, but must not put it
        // back in its successor's place.
        if held.as_ref().is_none_or(|replica| replica.active.generation <= active.generation) {
            *held = Some(Replica { active: Arc::clone(active), addr: addr.clone() });
        }
        addr
    }
}

#[cfg(test)]
mod tests {
    use super::super::Crash;
    use super::super::scheduler::testing::{Loads, ask, node, schedule};
    use super::*;
    use crate::policy::registry::SchedulerSpec;
    use crate::policy::{NodeView, Policy, Step, Task};
    use crate::types::Peer;
    use std::time::Duration;

    fn active(generation: u64, words: &str) -> Active {
        Active::new(generation, SchedulerSpec::from_words(words).build().expect("good"))
    }

    fn replicas(first: Active) -> Replicas {
        let ask = ask(Loads(Vec::new(), Duration::ZERO));
        let in_force = Arc::new(ArcSwap::from_pointee(first));
        Replicas::new(in_force, node(0, &["a"]), ask, Arc::default(), Arc::default())
    }

    async fn decide(replicas: &Replicas, steer: Option<Steer>) -> Decision {
        let active = replicas.choose(steer);
        replicas.ask(steer, &active, schedule()).await.decision
    }

    #[actix::test]
    async fn headers_override_the_algorithm_in_force() {
        let replicas = replicas(active(1, "NoScheduler false"));
        assert_eq!(decide(&replicas, None).await, Decision::RunHere { may_wait: true });
        let bypass = decide(&replicas, Some(Steer::Bypass)).await;
        assert_eq!(bypass, Decision::RunHere { may_wait: false });
        let forward = decide(&replicas, Some(Steer::Forward)).await;
        assert_eq!(forward, Decision::Forward(Peer::at("a")));
        assert_eq!(decide(&replicas, Some(Steer::Reject)).await, Decision::Reject);
    }

    #[actix::test]
    async fn a_swap_takes_effect_for_the_next_call_and_old_calls_keep_their_algorithm() {
        let replicas = replicas(active(1, "NoScheduler false"));
        let old = replicas.choose(None);
        assert_eq!(decide(&replicas, None).await, Decision::RunHere { may_wait: true });
        replicas.in_force.store(Arc::new(active(2, "RejectScheduler")));
        assert_eq!(decide(&replicas, None).await, Decision::Reject);
        let overtaken = replicas.ask(None, &old, schedule()).await.decision;
        assert_eq!(overtaken, Decision::RunHere { may_wait: true });
        assert_eq!(decide(&replicas, None).await, Decision::Reject);
    }

    #[actix::test]
    async fn a_scheduler_that_panicked_is_replaced_and_its_caller_never_knows() {
        let replicas = replicas(active(1, "NoScheduler false"));
        let first = replicas.replica(None, &replicas.choose(None));
        first.send(Crash).await.expect_err("it panics");
        assert_eq!(decide(&replicas, None).await, Decision::RunHere { may_wait: true });
    }

    #[actix::test]
    async fn the_roster_has_those_that_run_and_no_others() {
        let replicas = replicas(active(1, "NoScheduler false"));
        let numbers = || {
            let running = replicas.roster.running();
            running.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(), [1], "before the first call");
        decide(&replicas, Some(Steer::Reject)).await;
        assert_eq!(numbers(), [1, 2]);
        let first = replicas.replica(None, &replicas.choose(None));
        first.send(Crash).await.expect_err("it panics");
        decide(&replicas, None).await;
        assert_eq!(numbers(), [2, 3]);
        replicas.roster.forget();
        decide(&replicas, None).await;
        assert!(numbers().is_empty());
    }

    #[actix::test]
    async fn an_algorithm_that_always_panics_runs_its_calls_here() {
        struct Broken;
        impl Policy for Broken {
            fn name(&self) -> &'static str {
                "Broken"
            }
            fn parameters(&self) -> Vec<String> {
                Vec::new()
            }
            fn next(
                &self,
                _: &Task,
                _: NodeView<'_>,
                _: &Knowledge,
                _: &mut dyn rand::Rng,
            ) -> Step {
                panic!("a researcher's slip")
            }
        }
        let replicas = replicas(Active::new(1, Arc::new(Broken)));
        assert_eq!(decide(&replicas, None).await, Decision::RunHere { may_wait: true });
        let text = replicas.metrics.render(Default::default(), 0, &Default::default(), &[]);
        let text = String::from_utf8(text).expect("text");
        assert!(
            text.contains(r#"p2pfaas_actor_restarts_total{actor="scheduler",cause="panicked"} 2"#),
            "{text}"
        );
    }
}
