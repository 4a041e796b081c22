//! How it is seen whether actors still answer: the question that each answers with its state, and
//! what the [`Supervisor`](super::supervisor::Supervisor) made of the answers, for everybody to read.
//!
//! An actor whose thread or whose disk hangs is alive: it never ends, so no guard tells of it. The
//! Supervisor therefore asks each child every [`INTERVAL`]. How long a question has been waiting is
//! the age of the child's mailbox. Times are passed in: nothing here knows the clock.
//!
//! Whoever reads the result compares it with the clock itself ([`Observations::health`]), so a
//! Supervisor that hangs does not look well for ever.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::time::Instant;

/// Asks an actor for its state.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ActorState")]
pub struct Observe;

/// What an actor answers to [`Observe`]: a few figures, whatever the node holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ActorState {
    /// Of the root of the tree.
    Supervisor {
        /// Its children.
        children: usize,
    },
    /// Of the Queue.
    Queue {
        /// K.
        k: u32,
        /// Calls that wait at most.
        queue_length_max: u32,
        /// Functions that run.
        running: u32,
        /// Calls that wait.
        waiting: u32,
    },
    /// Of the Switch.
    Switch {
        /// The algorithm in force, with its parameters.
        scheduler: Box<str>,
        /// Swaps since the start.
        swaps: u64,
    },
    /// Of Discovery: the known machines by standing.
    Discovery {
        /// Those that answer.
        alive: usize,
        /// Those only heard of.
        hearsay: usize,
        /// Those that do not answer any more.
        dead: usize,
    },
    /// Of the Learner.
    Learner {
        /// Its TD form and value function.
        learner: String,
        /// States with values of their own.
        states_seen: usize,
        /// Entries held for reordering.
        entries_held: usize,
        /// Entries learnt from.
        entries_trained: u64,
    },
    /// Of the Gateway.
    Gateway {
        /// Its servers, one for each port.
        servers: usize,
    },
    /// Of one Scheduler.
    Scheduler {
        /// Its algorithm, with its parameters.
        algorithm: String,
        /// Calls that are not decided yet.
        deciding: usize,
    },
    /// Of the Schedulers of all threads together.
    Schedulers {
        /// Those that there are.
        replicas: usize,
        /// Their algorithms, each once.
        algorithms: Vec<String>,
        /// Calls that are not decided yet.
        deciding: usize,
    },
}

/// How often each actor is asked.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// How long an actor may be silent.
///
/// Between the two, `/health` says that it is stuck. That is short enough for a node that helps itself:
/// whoever looks every 10 s and restarts it after three times does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From then on it counts as stuck.
    pub late: Duration,
    /// From then on it is replaced.
    pub stuck: Duration,
}

impl Patience {
    /// For actors whose longest work is to wait for one small file to be synced: a second or two on
    /// an SD card that is busy.
    pub const USUAL: Self = Self { late: Duration::from_secs(5), stuck: Duration::from_secs(15) };
}

/// What is known of one actor's answers.
#[derive(Clone, Debug)]
pub struct ActorRecord {
    name: &'static str,
    patience: Patience,
    /// When the question was asked that is not answered yet.
    asked: Option<Instant>,
    /// When it last showed that it works on something long.
    worked: Option<Instant>,
    /// How long the last answer took.
    took: Duration,
    state: Option<ActorState>,
}

impl ActorRecord {
    /// Nothing is known yet.
    pub fn new(name: &'static str, patience: Patience) -> Self {
        let took = Duration::ZERO;
        Self { name, patience, asked: None, worked: None, took, state: None }
    }

    /// The actor's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A question is asked now, unless one waits already: then `false`.
    pub fn ask(&mut self, now: Instant) -> bool {
        let none_waits = self.asked.is_none();
        self.asked.get_or_insert(now);
        none_waits
    }

    /// It answered.
    pub fn answered(&mut self, now: Instant, state: ActorState) {
        if let Some(asked) = self.asked.take() {
            self.took = now - asked;
        }
        self.state = Some(state);
    }

    /// It does not answer, but it works.
    pub fn working(&mut self, now: Instant) {
        self.worked = Some(now);
    }

    /// Another incarnation has begun, and nobody has asked it yet.
    pub fn begun(&mut self) {
        self.asked = None;
        self.worked = None;
    }

    /// Whoever asks was late itself by so much: that is not the actor's.
    pub fn excuse(&mut self, lateness: Duration) {
        if let Some(asked) = &mut self.asked {
            *asked += lateness;
        }
    }

    /// How long the question that waits has been waiting; with none, how long the last one did.
    pub fn mailbox_age(&self, now: Instant) -> Duration {
        self.asked.map_or(self.took, |asked| now - asked)
    }

    /// How long it has neither answered a question nor shown that it works.
    fn silence(&self, now: Instant) -> Duration {
        self.asked.map_or(Duration::ZERO, |asked| now - self.worked.map_or(asked, |w| w.max(asked)))
    }

    /// Whether it answers soon enough.
    pub fn is_ok(&self, now: Instant) -> bool {
        self.silence(now) < self.patience.late
    }

    /// Whether it has been silent for so long that another should take its place.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.silence(now) >= self.patience.stuck
    }

    /// Several actors as one: the one that has been silent longest stands for all. `sum` makes one
    /// state of their states.
    pub fn together<'a>(
        name: &'static str,
        patience: Patience,
        records: impl Iterator<Item = &'a Self> + Clone,
        sum: impl FnOnce(Vec<&'a ActorState>) -> ActorState,
    ) -> Self {
        Self {
            name,
            patience,
            asked: records.clone().filter_map(|record| record.asked).min(),
            worked: None,
            took: records.clone().map(|record| record.took).max().unwrap_or_default(),
            state: Some(sum(records.filter_map(|record| record.state.as_ref()).collect())),
        }
    }
}

/// How one actor is.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorHealth {
    /// Its name, as in the metrics.
    pub name: &'static str,
    /// Whether it answers.
    pub ok: bool,
    /// How long the question that waits has been waiting; with none, how long the last one did.
    pub mailbox_age: Duration,
    /// Its last answer; `None`: there was none yet.
    pub state: Option<ActorState>,
}

/// What the Supervisor saw last.
struct Seen {
    at: Instant,
    records: Vec<ActorRecord>,
}

/// What the Supervisor sees of the node's actors, to be read on any thread.
pub struct Observations(ArcSwap<Seen>);

impl Observations {
    /// Nothing seen yet, at a node that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self(ArcSwap::from_pointee(Seen { at: now, records: Vec::new() }))
    }

    /// This is how it is at `now`.
    pub fn publish(&self, now: Instant, records: Vec<ActorRecord>) {
        self.0.store(Arc::new(Seen { at: now, records }));
    }

    /// How all are at `now`: the Supervisor first, then its children.
    ///
    /// The Supervisor itself is judged by the age of what it has seen. For as long as it is late,
    /// nothing is known of the others, and they are told as they were last seen.
    pub fn health(&self, now: Instant) -> Vec<ActorHealth> {
        let seen = self.0.load();
        let age = now.saturating_duration_since(seen.at).saturating_sub(INTERVAL);
        let root = ActorHealth {
            name: "supervisor",
            ok: age < Patience::USUAL.late,
            mailbox_age: age,
            state: Some(ActorState::Supervisor { children: seen.records.len() }),
        };
        let then = now.min(seen.at + INTERVAL);
        let children = seen.records.iter().map(|record| ActorHealth {
            name: record.name,
            ok: record.is_ok(then),
            mailbox_age: record.mailbox_age(then),
            state: record.state.clone(),
        });
        std::iter::once(root).chain(children).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const STATE: ActorState = ActorState::Gateway { servers: 4 };

    fn record() -> (ActorRecord, Instant) {
        (ActorRecord::new("gateway", Patience::USUAL), Instant::now())
    }

    #[test]
    fn a_question_that_waits_ages_and_an_answer_ends_that() {
        let (mut record, start) = record();
        assert!(record.is_ok(start + 99 * SECOND), "nobody has asked");
        assert!(record.ask(start) && !record.ask(start + SECOND), "one question at a time");
        let just = start + Patience::USUAL.late;
        assert!(record.is_ok(just - SECOND) && !record.is_ok(just));
        assert!(!record.is_stuck(start + 14 * SECOND) && record.is_stuck(start + 15 * SECOND));
        assert_eq!(record.mailbox_age(start + 7 * SECOND), 7 * SECOND);
        record.answered(start + 8 * SECOND, STATE);
        assert!(record.is_ok(start + 99 * SECOND));
        assert_eq!(record.mailbox_age(start + 99 * SECOND), 8 * SECOND, "that of the last one");
    }

    #[test]
    fn an_actor_that_works_is_not_stuck_though_its_mailbox_ages() {
        let (mut record, start) = record();
        record.ask(start);
        record.working(start + 14 * SECOND);
        let later = start + 18 * SECOND;
        assert!(record.is_ok(later) && !record.is_stuck(later));
        assert_eq!(record.mailbox_age(later), 18 * SECOND);
        assert!(record.is_stuck(start + 29 * SECOND));
    }

    #[test]
    fn what_the_asker_is_late_by_is_not_the_actors() {
        let (mut record, start) = record();
        record.ask(start);
        record.excuse(20 * SECOND);
        assert!(record.is_ok(start + 21 * SECOND) && !record.is_ok(start + 25 * SECOND));
    }

    #[test]
    fn of_several_the_one_that_is_silent_longest_stands_for_all() {
        let (mut quick, start) = record();
        let mut slow = quick.clone();
        quick.answered(start, STATE);
        slow.ask(start);
        let sum = |states: Vec<&ActorState>| ActorState::Gateway { servers: states.len() };
        let both = ActorRecord::together("both", Patience::USUAL, [&quick, &slow].into_iter(), sum);
        assert_eq!(both.mailbox_age(start + 6 * SECOND), 6 * SECOND);
        assert!(!both.is_ok(start + 6 * SECOND));
        assert_eq!(both.state, Some(ActorState::Gateway { servers: 1 }));
    }

    #[test]
    fn a_supervisor_that_sees_nothing_any_more_is_stuck_and_blames_nobody_else() {
        let (mut child, start) = record();
        child.ask(start);
        let observations = Observations::new(start);
        let health = |after| observations.health(start + after);
        assert_eq!(health(Duration::ZERO).len(), 1, "nothing was seen yet");
        observations.publish(start, vec![child]);
        assert!(health(6 * SECOND - SECOND / 2).iter().all(|actor| actor.ok));
        let [root, child] = &health(60 * SECOND)[..] else { panic!("there are two") };
        assert_eq!((root.name, root.ok, root.mailbox_age), ("supervisor", false, 59 * SECOND));
        assert_eq!((child.name, child.ok, child.mailbox_age), ("gateway", true, SECOND));
    }
}
