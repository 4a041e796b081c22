//! The Schedulers of all threads, as the Supervisor watches them: one by one, told of as one.
//!
//! They are no children of its own. A Scheduler that hangs (an algorithm that never comes back)
//! hangs with the thread that serves calls, so what helps is other threads: those of another Gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Message, WeakAddr};
use tokio::time::Instant;

use super::{ABANDONED_MAX, Supervisor};
use crate::actors::observe::{ActorRecord, ActorState, Observe, Patience};
use crate::actors::replicas::SchedulerRoster;
use crate::actors::scheduler::Scheduler;

/// The Scheduler with that number answered.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SchedulerAnswered {
    number: u64,
    state: ActorState,
}

struct Watched {
    addr: WeakAddr<Scheduler>,
    record: ActorRecord,
}

/// See the module.
#[derive(Default)]
pub(super) struct Schedulers {
    roster: Option<Arc<SchedulerRoster>>,
    /// The child on whose threads they run.
    runner: usize,
    watched: BTreeMap<u64, Watched>,
    /// Those that were stuck when their threads were given up.
    abandoned: Vec<WeakAddr<Scheduler>>,
}

impl Schedulers {
    pub(super) const NAME: &str = "scheduler";

    /// Those in `roster`, which run on threads of the child `runner`.
    pub(super) fn of(roster: Arc<SchedulerRoster>, runner: usize) -> Self {
        Self { roster: Some(roster), runner, ..Self::default() }
    }

    /// See [`ActorRecord::excuse`].
    pub(super) fn excuse(&mut self, lateness: Duration) {
        self.watched.values_mut().for_each(|watched| watched.record.excuse(lateness));
    }

    /// Asks all that are there for their states; the answers go to `supervisor`.
    pub(super) fn ask(&mut self, now: Instant, supervisor: &Addr<Supervisor>) {
        let Some(roster) = &self.roster else { return };
        let there: BTreeMap<u64, Addr<Scheduler>> = roster.running().into_iter().collect();
        self.watched.retain(|number, _| there.contains_key(number));
        for (number, addr) in there {
            let watched = self.watched.entry(number).or_insert_with(|| Watched {
                addr: addr.downgrade(),
                record: ActorRecord::new(Self::NAME, Patience::USUAL),
            });
            if !watched.record.ask(now) {
                continue;
            }
            let (supervisor, answer) = (supervisor.clone(), addr.send(Observe));
            actix_rt::spawn(async move {
                if let Ok(state) = answer.await {
                    supervisor.do_send(SchedulerAnswered { number, state });
                }
            });
        }
    }

    pub(super) fn answered(&mut self, message: SchedulerAnswered, now: Instant) {
        if let Some(watched) = self.watched.get_mut(&message.number) {
            watched.record.answered(now, message.state);
        }
    }

    /// The child to replace because one of them is stuck, if other threads can help.
    pub(super) fn stuck_at(&mut self, now: Instant) -> Option<usize> {
        self.abandoned.retain(|addr| addr.upgrade().is_some());
        let helps = self.abandoned.len() < ABANDONED_MAX as usize;
        let stuck = self.watched.values().any(|watched| watched.record.is_stuck(now));
        (stuck && helps).then_some(self.runner)
    }

    /// Their threads are given up: those to come are watched in their place.
    pub(super) fn abandon(&mut self, now: Instant) {
        let watched = std::mem::take(&mut self.watched);
        let stuck = watched.into_values().filter(|watched| watched.record.is_stuck(now));
        self.abandoned.extend(stuck.map(|watched| watched.addr));
        if let Some(roster) = &self.roster {
            roster.forget();
        }
    }

    /// All of them as one.
    pub(super) fn record(&self) -> Option<ActorRecord> {
        self.roster.as_ref()?;
        let records = self.watched.values().map(|watched| &watched.record);
        let replicas = self.watched.len();
        Some(ActorRecord::together(Self::NAME, Patience::USUAL, records, |states| {
            let (mut all, mut deciding) = (BTreeSet::new(), 0);
            for state in states {
                if let ActorState::Scheduler { algorithm, deciding: more } = state {
                    all.insert(algorithm.clone());
                    deciding += more;
                }
            }
            let algorithms = all.into_iter().collect();
            ActorState::Schedulers { replicas, algorithms, deciding }
        }))
    }
}
