//! The Scheduler actor: runs one algorithm. It carries out the steps that the sans-IO policy asks
//! for (probes, questions to the learner and to programs outside, waits) until the policy has decided, and answers with the decision.
//!
//! There is one per algorithm and worker thread, on that thread, so that asking it wakes nobody up
//! (see [`super::replicas`]). What survives a restart: the policy with its shared state (a
//! rotation's cursor), which belongs to the node. Calls that were being decided are asked again.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, MessageResult, Response};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join_all};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, timeout};

use super::discovery::Published;
use super::observe::{ActorState, Observe};
use super::queue::Gate;
use crate::policy::deciding::{Deciding, Found};
use crate::policy::external::frames::BadAdvice;
use crate::policy::external::{Advised, Consultation};
use crate::policy::{Decision, Knowledge, LearnerDecision, Policy, Probe, Question, Step, Task};
use crate::types::Peer;

/// Decides where a call goes.
#[derive(Clone, Message)]
#[rtype(result = "Scheduled")]
pub struct Schedule {
    /// The call.
    pub task: Task,
    /// When it arrived here.
    pub arrival: Instant,
    /// What is known about it already; the default for a new call, the last answer's with the
    /// peer that failed it for one that could not be forwarded.
    pub heard: Knowledge,
    /// Gone once nobody waits for the answer, as its client has hung up: then the algorithm, which has been told that
    /// the call has ended, is asked no more.
    pub asker: Weak<()>,
}

/// The answer to [`Schedule`].
#[derive(Clone, Debug)]
pub struct Scheduled {
    /// Where the call goes.
    pub decision: Decision,
    /// What is known about it now.
    pub heard: Knowledge,
    /// Time spent asking peers.
    pub probing: Duration,
}

impl Scheduled {
    /// An answer that nobody waits for.
    fn for_nobody(heard: Knowledge) -> Self {
        Self { decision: Decision::Reject, heard, probing: Duration::ZERO }
    }
}

/// How a Scheduler asks a peer for its load.
pub trait Prober {
    /// What the peer answers, or `None` when it did not in time. `about`: what more it is asked than its load. `peer`
    /// may be reported to Discovery on the way.
    fn probe<'a>(
        &'a self,
        peer: Peer,
        about: Option<ProbeAbout<'a>>,
    ) -> LocalBoxFuture<'a, Option<Probe>>;
}

/// What a probe asks beside the load: the load by task type, and a bid.
#[derive(Clone, Copy)]
pub struct ProbeAbout<'a> {
    /// The call that is to be bid for.
    pub task: &'a Task,
    /// The algorithm whose bid is wanted.
    pub bidder: &'static str,
}

/// Whom a Scheduler asks for decisions that are learnt.
pub trait Adviser {
    /// Decides on `question` about `task`. Always answers: where no decision can be had, with one
    /// to run the call here ([`LearnerDecision::fallback`]).
    fn advise(&self, question: Question, task: &Task, rng: &mut dyn Rng) -> Advice;
}

/// A decision of the learner's.
pub enum Advice {
    /// Taken on the spot.
    Now(LearnerDecision),
    /// To be waited for.
    Later(LocalBoxFuture<'static, LearnerDecision>),
}

/// The way to programs outside that decide.
pub trait Programs {
    /// Sends the frames of `consultation` to its program; gives what that answers, if an answer is wanted. `None`: it
    /// cannot be had. Whoever asks waits no longer than the consultation's patience.
    fn consult(&self, consultation: &Consultation) -> LocalBoxFuture<'static, Option<Bytes>>;

    /// No step came of asking the program at `url`: the call runs here.
    fn in_vain(&self, url: &str, why: &BadAdvice);

    /// Ends what is kept for programs that were not asked for long. Called about once a second.
    fn let_go(&self) {}
}

/// What every Scheduler asks on behalf of its algorithm. Cheap to clone.
#[derive(Clone)]
pub struct SchedulerPorts {
    /// Peers, for their load.
    pub prober: Rc<dyn Prober>,
    /// The learner.
    pub adviser: Rc<dyn Adviser>,
    /// Programs outside.
    pub programs: Rc<dyn Programs>,
}

/// What every Scheduler reads of its node.
#[derive(Clone)]
pub struct NodeSource {
    /// The load and K.
    pub gate: Arc<Gate>,
    /// The known peers.
    pub published: Arc<ArcSwap<Published>>,
    /// When the node started: where its clock is zero.
    pub start: Instant,
}

/// See the module.
pub struct Scheduler(Rc<Inner>);

struct Inner {
    policy: Arc<dyn Policy>,
    node: NodeSource,
    ask: SchedulerPorts,
    rng: RefCell<SmallRng>,
}

impl Scheduler {
    /// Runs `policy` on what `node` says. `seed` is where its randomness starts.
    pub fn new(policy: Arc<dyn Policy>, node: NodeSource, ask: SchedulerPorts, seed: u64) -> Self {
        let rng = RefCell::new(SmallRng::seed_from_u64(seed));
        Self(Rc::new(Inner { policy, node, ask, rng }))
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;
}

impl Inner {
    fn found(&self, arrival: Instant) -> Found {
        let by_type = match self.policy.task_types() {
            0 => Vec::new(),
            types => self.node.gate.load_by_type(types),
        };
        let now = arrival.saturating_duration_since(self.node.start);
        Found { now, load: self.node.gate.load(), places: self.node.gate.places(), by_type }
    }

    fn advise(&self, question: Question, task: &Task) -> Advice {
        self.ask.adviser.advise(question, task, &mut *self.rng.borrow_mut())
    }

    /// Goes on as long as nothing needs to be waited for.
    fn at_once(&self, deciding: &mut Deciding) -> Next {
        loop {
            let step = {
                let (k, published) = (self.node.gate.k(), self.node.published.load());
                let mut rng = self.rng.borrow_mut();
                deciding.next(&*self.policy, k, &published.peers, &mut *rng)
            };
            match step {
                None => return Next::Undecided,
                Some(Step::Decide(decision)) => return Next::Decided(decision),
                Some(Step::Learn(question)) => match self.advise(question, &deciding.task) {
                    Advice::Now(learnt) => deciding.heard.learnt = Some(learnt),
                    Advice::Later(learnt) => return Next::Learn(learnt),
                },
                Some(Step::Consult(consultation)) => return Next::Consult(consultation),
                Some(Step::Probe(peers)) => return Next::Probe(peers),
                Some(Step::WaitUntil(after)) => return Next::WaitUntil(after),
            }
        }
    }

    /// Probes all at once; answers those that answered, in the order asked.
    async fn probe(&self, peers: Vec<Peer>, deciding: &Deciding) -> Vec<Probe> {
        let wants = self.policy.bids() || self.policy.program().is_some();
        let about = wants.then(|| ProbeAbout {
            task: &deciding.task,
            bidder: self.policy.hears_bids_of(deciding.heard.mark),
        });
        let ask = |peer: Peer| self.ask.prober.probe(peer, about);
        join_all(peers.into_iter().map(ask)).await.into_iter().flatten().collect()
    }

    /// What the program advises; to run the call here where that cannot be had.
    async fn consult(&self, consultation: &Consultation) -> Advised {
        let answer = self.ask.programs.consult(consultation);
        let answer = timeout(consultation.patience, answer).await.ok().flatten();
        consultation.read(answer.as_deref()).unwrap_or_else(|why| {
            self.ask.programs.in_vain(&consultation.url, &why);
            consultation.fallback()
        })
    }

    async fn carry_out(
        &self,
        mut deciding: Deciding,
        arrival: Instant,
        asker: Weak<()>,
        mut next: Next,
    ) -> Scheduled {
        let mut probing = Duration::ZERO;
        loop {
            match next {
                Next::Decided(decision) => {
                    return Scheduled { decision, heard: deciding.heard, probing };
                }
                Next::Probe(peers) => {
                    let start = Instant::now();
                    let asked = peers.iter().map(|peer| Arc::clone(&peer.host)).collect();
                    let answers = self.probe(peers, &deciding).await;
                    deciding.heard.answered(asked, answers);
                    probing += start.elapsed();
                }
                Next::Consult(consultation) => {
                    deciding.heard.advised = Some(self.consult(&consultation).await);
                }
                Next::Learn(learnt) => deciding.heard.learnt = Some(learnt.await),
                Next::WaitUntil(after) => {
                    tokio::time::sleep_until(arrival + after).await;
                    // The timer may wake a little early.
                    deciding.heard.elapsed = after;
                }
                Next::Undecided => break,
            }
            if asker.strong_count() == 0 {
                return Scheduled::for_nobody(deciding.heard);
            }
            deciding.heard.elapsed = arrival.elapsed().max(deciding.heard.elapsed);
            next = self.at_once(&mut deciding);
        }
        tracing::error!(scheduler = self.policy.full_name(), "the algorithm comes to no decision");
        let decision = Decision::RunHere { may_wait: true };
        Scheduled { decision, heard: deciding.heard, probing }
    }
}

/// What a Scheduler does next about a call.
enum Next {
    Decided(Decision),
    Probe(Vec<Peer>),
    Consult(Box<Consultation>),
    Learn(LocalBoxFuture<'static, LearnerDecision>),
    WaitUntil(Duration),
    Undecided,
}

impl Handler<Schedule> for Scheduler {
    type Result = Response<Scheduled>;

    fn handle(&mut self, message: Schedule, _: &mut Self::Context) -> Self::Result {
        let Schedule { task, arrival, mut heard, asker } = message;
        if asker.strong_count() == 0 {
            return Response::reply(Scheduled::for_nobody(heard));
        }
        heard.elapsed = arrival.elapsed();
        let mut deciding = Deciding::new(task, heard, self.0.found(arrival));
        match self.0.at_once(&mut deciding) {
            // Most calls are decided at once and cost no future.
            Next::Decided(decision) => Response::reply(Scheduled {
                decision,
                heard: deciding.heard,
                probing: Duration::ZERO,
            }),
            next => {
                let inner = Rc::clone(&self.0);
                Response::fut(async move { inner.carry_out(deciding, arrival, asker, next).await })
            }
        }
    }
}

impl Handler<Observe> for Scheduler {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(ActorState::Scheduler {
            algorithm: self.0.policy.full_name(),
            // Each call that is not decided yet holds on to what all share.
            deciding: Rc::strong_count(&self.0) - 1,
        })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::LazyLock;

    use super::*;
    use crate::queue::Limits;
    use crate::types::Load;

    /// Answers probes from a table; what is not in it does not answer.
    pub(crate) struct Loads(pub Vec<(&'static str, Load)>, pub Duration);

    impl Prober for Loads {
        fn probe<'a>(
            &'a self,
            peer: Peer,
            _: Option<ProbeAbout<'a>>,
        ) -> LocalBoxFuture<'a, Option<Probe>> {
            let found = self.0.iter().find(|(host, _)| *host == &*peer.host).map(|(_, load)| *load);
            Box::pin(async move {
                tokio::time::sleep(self.1).await;
                Some(Probe::of(peer, found?))
            })
        }
    }

    /// Always chooses the same action, on the spot or after a while.
    pub(crate) struct Always(pub usize, pub Option<Duration>);

    impl Adviser for Always {
        fn advise(&self, question: Question, _: &Task, _: &mut dyn Rng) -> Advice {
            let learnt = LearnerDecision {
                eid: 1,
                state: question.state,
                action: self.0,
                epsilon: 0.5,
                fallback: false,
                pending: None,
            };
            match self.1 {
                None => Advice::Now(learnt),
                Some(after) => Advice::Later(Box::pin(async move {
                    tokio::time::sleep(after).await;
                    learnt
                })),
            }
        }
    }

    /// Answers what it is made of after a while, and keeps why that was no step.
    pub(crate) struct Says(pub Option<&'static str>, pub Duration, pub RefCell<Vec<&'static str>>);

    impl Programs for Says {
        fn consult(&self, _: &Consultation) -> LocalBoxFuture<'static, Option<Bytes>> {
            let (text, after) = (self.0, self.1);
            Box::pin(async move {
                tokio::time::sleep(after).await;
                text.map(|text| Bytes::from_static(text.as_bytes()))
            })
        }

        fn in_vain(&self, _: &str, why: &BadAdvice) {
            self.2.borrow_mut().push(why.label());
        }
    }

    pub(crate) fn ask(prober: Loads) -> SchedulerPorts {
        let programs = Rc::new(Says(None, Duration::ZERO, RefCell::default()));
        SchedulerPorts { prober: Rc::new(prober), adviser: Rc::new(Always(0, None)), programs }
    }

    pub(crate) fn node(running: u32, hosts: &[&str]) -> NodeSource {
        let gate = Gate::new(Limits { k: 9, ..Limits::default() }, 100);
        for _ in 0..running {
            let task_type = crate::types::TaskType(1.0);
            let call = crate::queue::Arriving { bytes: 0, may_wait: true, task_type, due: None };
            std::mem::forget(gate.enter(call));
        }
        let peers = hosts.iter().map(|host| Peer::at(host)).collect();
        let published = Published { peers, ..Published::default() };
        let published = Arc::new(ArcSwap::from_pointee(published));
        NodeSource { gate, published, start: Instant::now() }
    }

    pub(crate) fn schedule() -> Schedule {
        static PATIENT: LazyLock<Arc<()>> = LazyLock::new(Arc::default);
        Schedule {
            task: Task::default(),
            arrival: Instant::now(),
            heard: Knowledge::default(),
            asker: Arc::downgrade(&PATIENT),
        }
    }
}

#[cfg(test)]
mod tests;
