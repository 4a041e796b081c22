//! What is retried, where a call runs, and what its client gets: with stand-ins for functions and
//! peers, and no sockets.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use rand::Rng;

use super::body::{AnswerStream, BodySource, NextPiece};
use super::judging::at_peer;
use super::*;
use crate::actors::discovery::Published;
use crate::actors::learner::hub::LearnerHub;
use crate::actors::observe::{ActorState, Observe};
use crate::actors::queue::{Gate, Slot};
use crate::actors::scheduler::testing;
use crate::call::state::NodeTrust;
use crate::config::{AdminToken, Settings};
use crate::outliers::AtPeer;
use crate::policy::forward::ForwardScheduler;
use crate::policy::registry::SchedulerSpec;
use crate::policy::{NodeView, Outcome, OutcomeKind, Step};
use crate::queue::Limits;
use crate::rl::learner::Learner;
use crate::rl::parameters::Parameters;
use crate::saved::model_file::ModelFile;
use crate::tls::PeerTls;
use crate::types::{Cause, Clearance, Identity, Load, TaskType};

/// A function that counts how often it ran.
#[derive(Default)]
struct Counted(RefCell<usize>);

impl Backend for Counted {
    fn prepare<'a>(&'a self, call: &'a Invocation) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            // As long as it takes to look a name up.
            tokio::task::yield_now().await;
            match call.name.as_str() {
                "nowhere" => Err(Error::UnknownFunction(call.name.clone())),
                _ => Ok(()),
            }
        })
    }

    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        *self.0.borrow_mut() += 1;
        Box::pin(async move {
            drop(slot);
            Ok(answer(call.body.collect(99).await?))
        })
    }
}

fn answer(body: Bytes) -> Answer {
    let body = AnswerBody::Whole(body);
    Answer { status: StatusCode::OK, headers: HeaderMap::new(), body, held: None }
}

/// Peers that fail as told, one failure a call, and then answer.
#[derive(Default)]
struct Failing {
    failures: RefCell<VecDeque<ForwardFailure>>,
    /// The hosts that were tried, in order.
    tried: RefCell<Vec<String>>,
}

impl Forwarder for Failing {
    fn streams_to(&self, peer: &Peer) -> bool {
        peer.streams
    }

    fn forward<'a>(
        &'a self,
        peer: &'a Peer,
        _: Forward<'a>,
    ) -> LocalBoxFuture<'a, Result<PeerReply, ForwardFailure>> {
        self.tried.borrow_mut().push(peer.host.to_string());
        let failure = self.failures.borrow_mut().pop_front();
        let timings = Timings { execution_time: Some(0.001), ..Timings::default() };
        let hop = PeerHop { machine_ip: peer.host.to_string(), timings, ..PeerHop::default() };
        let reply = PeerReply { answer: answer(Bytes::new()), peers: vec![hop] };
        Box::pin(async move { failure.map_or(Ok(reply), Err) })
    }
}

/// A node that forwards everything to one of `hosts` and is at 10.0.0.1.
struct Stage {
    dispatcher: Dispatcher,
    function: Rc<Counted>,
    peers: Rc<Failing>,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(hosts: &[&str], failures: impl IntoIterator<Item = ForwardFailure>) -> Self {
        Self::probing(hosts, failures, Duration::ZERO)
    }

    /// The same, where probes fail after that time.
    fn probing(
        hosts: &[&str],
        failures: impl IntoIterator<Item = ForwardFailure>,
        probes_take: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let learner = Learner::new(Parameters::default()).snapshot();
        let ip = "10.0.0.1".parse().ok();
        let published = Published {
            identity: Identity { ip, ..Identity::default() },
            peers: hosts.iter().map(|host| Peer::at(host)).collect(),
            failing: Vec::new(),
        };
        let node = Arc::new(NodeState::new(
            Arc::new(Settings::default()),
            NodeTrust {
                admin_token: AdminToken::load(&Settings::default()).expect("none"),
                members: Arc::new(PeerTls::new([0; 16])),
                clearance: Clearance::All,
                clients: None,
            },
            Gate::new(Limits::default(), 1 << 20),
            Active::new(0, Arc::new(ForwardScheduler { max_hops: 9 })),
            Arc::new(ArcSwap::from_pointee(published)),
            LearnerHub::new(
                learner,
                ModelFile::new(folder.path()),
                Default::default(),
                folder.path(),
            ),
        ));
        let replicas = Replicas::new(
            Arc::clone(&node.in_force),
            node.source(),
            testing::ask(testing::Loads(Vec::new(), probes_take)),
            Arc::clone(&node.metrics),
            Arc::clone(&node.schedulers),
        );
        let (function, peers) = (Rc::new(Counted::default()), Rc::new(Failing::default()));
        peers.failures.borrow_mut().extend(failures);
        let (backend, forwarder) = (Rc::clone(&function) as _, Rc::clone(&peers) as _);
        let dispatcher = Dispatcher::new(node, replicas, backend, forwarder);
        Self { dispatcher, function, peers, _folder: folder }
    }

    fn call(&self) -> Call {
        Call {
            invocation: Invocation {
                name: FunctionName::parse("fn-echo").expect("a name"),
                method: Method::POST,
                path: "/".to_owned(),
                query: String::new(),
                headers: HeaderMap::new(),
                body: RequestBody::Whole(Bytes::from("hello")),
                upgrades: false,
            },
            task: Task::default(),
            steer: None,
            tracing_id: String::new(),
            task_type: String::new(),
            path: Vec::new(),
            arrival: Instant::now(),
            held: self.dispatcher.bodies.budget.take(5).expect("there is room"),
        }
    }

    /// How often the function ran here, and how many peers were tried.
    fn counts(&self) -> (usize, usize) {
        (*self.function.0.borrow(), self.peers.tried.borrow().len())
    }
}

fn not_sent() -> ForwardFailure {
    ForwardFailure::NotSent(Cause::of("refused"))
}

#[actix_rt::test]
async fn a_peer_that_was_not_connected_to_is_not_tried_again_and_another_one_is() {
    let stage = Stage::new(&["10.0.0.2", "10.0.0.3"], [not_sent()]);
    let outcome = stage.dispatcher.carry_out(stage.call()).await;
    assert!(outcome.result.is_ok());
    assert_eq!(outcome.elsewhere.map(|passed| passed.len()), Some(1));
    let mut tried = stage.peers.tried.borrow().clone();
    tried.sort();
    assert_eq!(tried, ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(stage.counts(), (0, 2), "it did not run here");
}

#[actix_rt::test]
async fn a_call_that_no_peer_takes_runs_here_after_three_tries() {
    let hosts = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
    let refused = ForwardFailure::Refused(Cause::of("its bodies are smaller"));
    let stage = Stage::new(&hosts, [not_sent(), refused, not_sent(), not_sent()]);
    let outcome = stage.dispatcher.carry_out(stage.call()).await;
    let body = outcome.result.expect("it ran").body;
    assert_eq!(body.collect(99).await.expect("whole"), "hello");
    assert!(outcome.elsewhere.is_none());
    assert_eq!(stage.counts(), (1, FORWARDS_MAX));
}

#[actix_rt::test]
async fn a_call_that_may_have_run_elsewhere_never_runs_twice() {
    let broke = ForwardFailure::Broke(Cause::of("reset"));
    let nothing = ForwardFailure::Nothing(Cause::of("no JSON"));
    for (failure, code) in [(broke, 403), (nothing, 404)] {
        assert!(!failure.retry_is_safe());
        let stage = Stage::new(&["10.0.0.2", "10.0.0.3"], [failure]);
        let outcome = stage.dispatcher.carry_out(stage.call()).await;
        assert_eq!(outcome.result.expect_err("it failed").code().code, code);
        assert_eq!(stage.counts(), (0, 1));
    }
}

/// A call's mark, what became of it, the peer that had it, and whether it ran here.
type ToldOutcome = (u64, OutcomeKind, Option<String>, bool);

/// Forwards all, and keeps what it is told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<ToldOutcome>>);

impl Policy for Told {
    fn name(&self) -> &'static str {
        "Told"
    }

    fn parameters(&self) -> Vec<String> {
        Vec::new()
    }

    fn mark(&self, _: &Task, _: Duration) -> u64 {
        7
    }

    fn next(&self, _: &Task, node: NodeView<'_>, heard: &Knowledge, _: &mut dyn Rng) -> Step {
        assert_eq!(heard.mark, 7);
        node.peers.first().map_or_else(Step::run_here, |peer| Step::forward(peer.clone()))
    }

    fn hears_outcomes(&self) -> bool {
        true
    }

    fn outcome(&self, outcome: &Outcome<'_>) {
        let peer = outcome.peer.map(str::to_owned);
        let ran = outcome.execution.is_some();
        crate::lock(&self.0).push((outcome.mark, outcome.kind, peer, ran));
    }
}

#[actix_rt::test]
async fn an_algorithm_is_told_once_what_became_of_each_call_that_it_decided() {
    let (peer, second) = (|| Some("10.0.0.2".to_owned()), || Some("10.0.0.3".to_owned()));
    let broke = || ForwardFailure::Broke(Cause::of("reset"));
    for (hosts, failures, told) in [
        (&[][..], vec![], (7, OutcomeKind::Served, None, true)),
        // No peer has run it: its answer tells of no execution.
        (&["10.0.0.2"], vec![], (7, OutcomeKind::Served, peer(), false)),
        (&["10.0.0.2", "10.0.0.3"], vec![not_sent()], (7, OutcomeKind::Served, second(), false)),
        (&["10.0.0.2"], vec![not_sent()], (7, OutcomeKind::Served, None, true)),
        (&["10.0.0.2"], vec![broke()], (7, OutcomeKind::Lost, peer(), false)),
    ] {
        let stage = Stage::new(hosts, failures);
        let policy = Arc::new(Told::default());
        let active = Active::new(1, Arc::clone(&policy) as _);
        stage.dispatcher.node.in_force.store(Arc::new(active));
        drop(stage.dispatcher.carry_out(stage.call()).await);
        assert_eq!(*crate::lock(&policy.0), [told], "{hosts:?}");
    }
}

/// Polls a call until it waits for a slot.
async fn eventually_waits(gate: &Gate, mut carried: std::pin::Pin<&mut impl Future>) {
    for _ in 0..1000 {
        let polled = std::future::poll_fn(|cx| Poll::Ready(carried.as_mut().poll(cx).is_ready()));
        assert!(!polled.await, "no slot is free");
        if gate.load().waiting > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to the line");
}

#[actix_rt::test]
async fn an_algorithm_is_told_of_a_client_that_hangs_up_while_its_call_waits() {
    let stage = Stage::new(&[], []);
    let policy = Arc::new(Told::default());
    let active = Active::new(1, Arc::clone(&policy) as _);
    stage.dispatcher.node.in_force.store(Arc::new(active));
    let arriving =
        || Arriving { bytes: 0, may_wait: true, task_type: TaskType::default(), due: None };
    let gate = &stage.dispatcher.node.gate;
    let taken: Vec<_> = (0..gate.k()).map(|_| gate.enter(arriving())).collect();
    {
        let mut carried = std::pin::pin!(stage.dispatcher.carry_out(stage.call()));
        eventually_waits(gate, carried.as_mut()).await;
        assert!(crate::lock(&policy.0).is_empty(), "it is not over");
    }
    assert_eq!(*crate::lock(&policy.0), [(7, OutcomeKind::Gone, None, false)]);
    assert_eq!(gate.load().waiting, 0);
    drop(taken);
}

#[actix_rt::test]
async fn a_client_that_hangs_up_while_peers_are_asked_leaves_nothing_behind() {
    tokio::time::pause();
    let stage = Stage::probing(&["10.0.0.2"], [], Duration::from_millis(50));
    let node = &stage.dispatcher.node;
    let policy = SchedulerSpec::from_words("DeadlineScheduler 1 1").build().expect("good");
    node.in_force.store(Arc::new(Active::new(1, Arc::clone(&policy))));
    let busy = Arriving { bytes: 0, may_wait: true, task_type: TaskType::default(), due: None };
    let taken = node.gate.enter(busy).expect("there is a slot");
    let deciding = || async {
        let mut sum = 0;
        for (_, scheduler) in node.schedulers.running() {
            if let Ok(ActorState::Scheduler { deciding, .. }) = scheduler.send(Observe).await {
                sum += deciding;
            }
        }
        sum
    };
    {
        let mut carried = std::pin::pin!(stage.dispatcher.carry_out(stage.call()));
        while deciding().await == 0 {
            let polled = std::future::poll_fn(|cx| Poll::Ready(carried.as_mut().poll(cx)));
            assert!(polled.await.is_pending(), "a peer is to be asked first");
        }
    }
    while deciding().await > 0 {
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!(policy.memory().expect("it has one")["calls_here"], 0);
    assert_eq!(stage.counts(), (0, 0));
    drop(taken);
}

#[actix_rt::test]
async fn a_call_that_passed_this_node_before_runs_here() {
    let stage = Stage::new(&["10.0.0.2"], []);
    let here = PeerHop { machine_ip: "10.0.0.1".to_owned(), ..PeerHop::default() };
    let mut call = stage.call();
    call.task.from_peer = true;
    call.path = vec![here];
    assert!(stage.dispatcher.carry_out(call).await.result.is_ok());
    assert_eq!(stage.counts(), (1, 0));
}

#[actix_rt::test]
async fn with_too_many_calls_away_one_more_runs_here() {
    let stage = Stage::new(&["10.0.0.2"], []);
    let away = &stage.dispatcher.node.away;
    let all = away.available_permits() as u32;
    let taken = away.acquire_many(all).await.expect("open");
    assert!(stage.dispatcher.carry_out(stage.call()).await.result.is_ok());
    assert_eq!(stage.counts(), (1, 0));
    drop(taken);
    assert!(stage.dispatcher.carry_out(stage.call()).await.result.is_ok());
    assert_eq!(stage.counts(), (1, 1));
}

#[actix_rt::test]
async fn what_the_node_steers_by_header_goes_before_the_algorithm_in_force() {
    let stage = Stage::new(&["10.0.0.2"], []);
    let mut call = stage.call();
    call.steer = Some(Steer::Reject);
    let outcome = stage.dispatcher.carry_out(call).await;
    assert_eq!(outcome.result.expect_err("rejected"), Error::Rejected);
    let mut call = stage.call();
    call.steer = Some(Steer::Bypass);
    assert!(stage.dispatcher.carry_out(call).await.result.is_ok());
    assert_eq!(stage.counts(), (1, 0));
    assert_eq!(stage.dispatcher.node.gate.load(), Load::default(), "the slot was given back");
}

/// What the metrics say of `stage`.
fn shown(stage: &Stage) -> String {
    let text = stage.dispatcher.node.metrics.render(Load::default(), 1, &Default::default(), &[]);
    String::from_utf8(text).expect("text")
}

#[actix_rt::test]
async fn only_functions_that_ran_are_told_apart_in_the_metrics() {
    let stage = Stage::new(&[], []);
    let run = async |name: &str, steer| {
        let mut call = stage.call();
        call.invocation.name = FunctionName::parse(name).expect("a name");
        call.steer = steer;
        stage.dispatcher.carry_out(call).await
    };
    for n in 0..300 {
        run(&format!("guess-{n}"), Some(Steer::Reject)).await.result.expect_err("rejected");
    }
    run("fn-echo", None).await.result.expect("it ran");
    let text = shown(&stage);
    assert!(!text.contains("guess-"), "{text}");
    let (others, own) = (
        r#"p2pfaas_requests_total{function="other",outcome="rejected",scheduler="RejectScheduler"} 300"#,
        r#"p2pfaas_requests_total{function="fn-echo",outcome="executed",scheduler="ForwardScheduler"} 1"#,
    );
    assert!(text.contains(others) && text.contains(own), "{text}");
}

/// A body in pieces of which only the first `kept` are held.
struct Pieces {
    pieces: VecDeque<&'static str>,
    given: usize,
    kept: usize,
}

impl BodySource for Pieces {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<NextPiece> {
        let piece = self.pieces.get(self.given);
        self.given += 1;
        Poll::Ready(piece.map(|piece| Ok(Bytes::from(*piece))))
    }

    fn rewind(&mut self) -> bool {
        let all = self.given <= self.kept;
        self.given = if all { 0 } else { self.given };
        all
    }

    fn held_bytes(&self) -> usize {
        0
    }
}

fn streamed(kept: usize, given: usize) -> RequestBody {
    let pieces = Pieces { pieces: ["hel", "lo"].into(), given, kept };
    RequestBody::Streamed { source: Rc::new(RefCell::new(pieces)), length: Some(5) }
}

#[actix_rt::test]
async fn a_body_that_streams_goes_elsewhere_as_long_as_all_that_has_left_is_held() {
    for (given, ran) in [(0, true), (1, true), (2, false)] {
        let stage = Stage::new(&[], []);
        let mut published = (**stage.dispatcher.node.published.load()).clone();
        published.peers = vec![Peer { streams: true, ..Peer::at("10.0.0.2") }];
        stage.dispatcher.node.published.store(Arc::new(published));
        stage.peers.failures.borrow_mut().push_back(not_sent());
        let mut call = stage.call();
        call.invocation.body = streamed(1, given);
        let outcome = stage.dispatcher.carry_out(call).await;
        match ran {
            true => {
                let body = outcome.result.expect("it ran here").body;
                assert_eq!(body.collect(99).await.expect("whole"), "hello");
            }
            false => assert_eq!(outcome.result.expect_err("lost").code().code, 403),
        }
    }
}

#[actix_rt::test]
async fn a_peer_of_v1_gets_a_body_whole_or_not_at_all() {
    for (length, tried) in [(Some(5), 1), (Some(u64::MAX), 0), (None, 0)] {
        let stage = Stage::new(&["10.0.0.2"], []);
        let mut call = stage.call();
        let RequestBody::Streamed { source, .. } = streamed(9, 0) else { unreachable!() };
        call.invocation.body = RequestBody::Streamed { source, length };
        assert!(stage.dispatcher.carry_out(call).await.result.is_ok());
        assert_eq!(stage.counts(), (1 - tried, tried), "{length:?}");
    }
}

/// An answer in one piece, and then an error or its end.
struct Piecewise(VecDeque<NextPiece>);

impl AnswerStream for Piecewise {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<NextPiece> {
        Poll::Ready(self.0.pop_front().unwrap_or(None))
    }
}

#[actix_rt::test]
async fn an_answer_that_streams_is_counted_when_it_is_through() {
    let broke = || Error::ForwardBroke { peer: "p".to_owned(), cause: Cause::of("reset") };
    for (end, outcome) in [(None, "executed"), (Some(Err(broke())), "forward_failed")] {
        let stage = Stage::new(&[], []);
        let count = Count {
            start: Instant::now(),
            followed: None,
            metrics: stage.dispatcher.metrics_of(&FunctionName::parse("f").expect("a name"), true),
            scheduler: stage.dispatcher.scheduler(None),
            outcome: CallOutcome::Executed,
            arrival: Instant::now(),
        };
        let pieces = Piecewise([Some(Ok(Bytes::from("x"))), end.clone()].into());
        let mut begun = answer(Bytes::new());
        begun.body = AnswerBody::Streamed { stream: Box::new(pieces), length: None };
        let followed = Followed::follow(begun, count, None, tracing::Span::none());
        assert!(!shown(&stage).contains(outcome), "not yet");
        assert_eq!(followed.body.collect(99).await.is_ok(), end.is_none());
        let line = format!(r#"function="f",outcome="{outcome}",scheduler="ForwardScheduler"}} 1"#);
        assert!(shown(&stage).contains(&line), "{}", shown(&stage));
    }
}

#[actix_rt::test]
async fn a_name_that_leads_nowhere_here_may_lead_somewhere_elsewhere_and_takes_no_slot() {
    for (hosts, runs) in [(&["10.0.0.2"][..], true), (&[][..], false)] {
        let stage = Stage::new(hosts, []);
        let mut call = stage.call();
        call.invocation.name = FunctionName::parse("nowhere").expect("a name");
        let outcome = stage.dispatcher.carry_out(call).await;
        assert_eq!(outcome.result.is_ok(), runs);
        assert_eq!(stage.counts(), (0, usize::from(runs)));
    }
}

#[actix_rt::test]
async fn a_peer_at_which_calls_fail_is_left_out_for_a_while_and_then_tried_once() {
    tokio::time::pause();
    let broke = || ForwardFailure::Broke(Cause::of("reset"));
    let stage = Stage::new(&["10.0.0.2"], [broke(), broke(), broke()]);
    let carry_out = async || stage.dispatcher.carry_out(stage.call()).await.result.is_ok();
    for tried in 1..=2 {
        assert!(!carry_out().await);
        assert_eq!(stage.counts(), (0, tried));
    }
    // It is left out: calls run here.
    assert!(carry_out().await && carry_out().await);
    assert_eq!(stage.counts(), (2, 2));
    // The one on trial fails, too.
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(!carry_out().await);
    assert!(carry_out().await);
    assert_eq!(stage.counts(), (3, 3));
    // The next one is served.
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(carry_out().await && carry_out().await);
    assert_eq!(stage.counts(), (3, 5), "it is back");
}

#[test]
fn what_a_call_says_of_a_peer() {
    let reply = |status: u16, executed: bool| {
        let status = StatusCode::from_u16(status).expect("a status");
        let execution_time = executed.then_some(0.001);
        let timings = Timings { execution_time, ..Timings::default() };
        let answer = Answer { status, ..answer(Bytes::new()) };
        Ok(PeerReply { answer, peers: vec![PeerHop { timings, ..PeerHop::default() }] })
    };
    let cause = || Cause::of("x");
    for (result, want) in [
        (reply(200, true), Some(AtPeer::Served)),
        (reply(404, true), Some(AtPeer::Served)),
        (reply(500, true), Some(AtPeer::FunctionFailed)),
        (reply(502, false), Some(AtPeer::FunctionFailed)),
        (reply(504, false), Some(AtPeer::FunctionFailed)),
        // Full, and rejected.
        (reply(500, false), Some(AtPeer::Refused)),
        (reply(503, false), Some(AtPeer::Refused)),
        (reply(404, false), Some(AtPeer::Refused)),
        (Err(ForwardFailure::NotSent(cause())), Some(AtPeer::PeerFailed)),
        (Err(ForwardFailure::Broke(cause())), Some(AtPeer::PeerFailed)),
        (Err(ForwardFailure::Nothing(cause())), Some(AtPeer::PeerFailed)),
        (Err(ForwardFailure::Refused(cause())), None),
        (Err(ForwardFailure::Body(Error::BodyTooSlow)), None),
    ] {
        assert_eq!(at_peer(&result), want, "{result:?}");
    }
}
