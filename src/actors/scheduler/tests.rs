use super::testing::*;
use super::*;
use crate::policy::registry::SchedulerSpec;
use crate::types::Load;

fn start(words: &str, node: NodeSource, prober: Loads) -> actix::Addr<Scheduler> {
    let policy = SchedulerSpec::from_words(words).build().expect("a good scheduler");
    Scheduler::new(policy, node, ask(prober), 1).start()
}

fn load(running: u32) -> Load {
    Load { running, waiting: 0 }
}

const HERE: Decision = Decision::RunHere { may_wait: true };

#[actix::test]
async fn it_probes_all_at_once_and_forwards_to_the_least_loaded() {
    tokio::time::pause();
    let prober =
        Loads(vec![("a", load(2)), ("b", load(0)), ("c", load(1))], Duration::from_millis(50));
    let scheduler = start("PowerOfNScheduler 3 1 true 1", node(3, &["a", "b", "c"]), prober);
    let answer = scheduler.send(schedule()).await.expect("it lives");
    assert_eq!(answer.decision, Decision::Forward(Peer::at("b")));
    let probing = answer.probing.as_millis();
    assert!((50..60).contains(&probing), "in parallel: {probing} ms");
}

#[actix::test]
async fn a_probe_that_fails_never_counts_as_load_zero() {
    tokio::time::pause();
    let prober = Loads(vec![("a", load(3))], Duration::ZERO);
    let scheduler = start("PowerOfNScheduler 2 1 true 1", node(3, &["a", "dead"]), prober);
    let answer = scheduler.send(schedule()).await.expect("it lives");
    assert_eq!(answer.decision, HERE);
}

#[actix::test]
async fn a_call_asked_about_again_goes_to_another_candidate_without_new_probes() {
    tokio::time::pause();
    let prober = Loads(vec![("a", load(0)), ("b", load(1))], Duration::from_millis(50));
    let scheduler = start("PowerOfNScheduler 2 1 true 1", node(3, &["a", "b"]), prober);
    let first = scheduler.send(schedule()).await.expect("it lives");
    assert_eq!(first.decision, Decision::Forward(Peer::at("a")));
    let mut heard = first.heard;
    heard.unreachable.push("a".into());
    let again = Schedule { heard: heard.clone(), ..schedule() };
    let second = scheduler.send(again).await.expect("it lives");
    assert_eq!(second.decision, Decision::Forward(Peer::at("b")));
    assert_eq!(second.probing, Duration::ZERO);
    heard.unreachable.push("b".into());
    let third = scheduler.send(Schedule { heard, ..schedule() }).await.expect("it lives");
    assert_eq!(third.decision, HERE);
}

#[actix::test]
async fn tau_holds_a_probed_decision_back_until_tau_after_the_arrival() {
    tokio::time::pause();
    let prober = Loads(vec![("a", load(0))], Duration::from_millis(30));
    let scheduler = start("PowerOfNSchedulerTau 1 1 true 1 100ms", node(3, &["a"]), prober);
    let asked = Instant::now();
    let answer = scheduler.send(schedule()).await.expect("it lives");
    assert_eq!(answer.decision, Decision::Forward(Peer::at("a")));
    let (waited, probed) = (asked.elapsed().as_millis(), answer.probing.as_millis());
    assert!((100..110).contains(&waited) && (30..40).contains(&probed), "{waited}, {probed}");
}

#[actix::test]
async fn a_call_whose_client_is_gone_is_not_decided_any_more() {
    tokio::time::pause();
    let prober = Loads(vec![("a", load(9))], Duration::from_millis(50));
    let policy = SchedulerSpec::from_words("DeadlineScheduler 1 1").build().expect("good");
    let board = Arc::clone(&policy);
    // There is load, so that a peer is asked; its answer is no better, so the call is to run here.
    let scheduler = Scheduler::new(policy, node(3, &["a"]), ask(prober), 1).start();
    let inside = || board.memory().expect("it has one")["calls_here"].clone();
    let client = Arc::new(());
    let call = Schedule { asker: Arc::downgrade(&client), ..schedule() };
    let asked = scheduler.send(call.clone());
    drop(client);
    assert_eq!(asked.await.expect("it lives").decision, Decision::Reject);
    assert_eq!(scheduler.send(call).await.expect("it lives").decision, Decision::Reject);
    assert_eq!(inside(), 0, "it would stay for ever");
    assert_eq!(scheduler.send(schedule()).await.expect("it lives").decision, HERE);
    assert_eq!(inside(), 1);
}

#[actix::test]
async fn it_tells_its_algorithm_and_how_many_calls_are_not_decided_yet() {
    tokio::time::pause();
    let prober = Loads(vec![("a", load(0))], Duration::from_millis(50));
    let scheduler = start("PowerOfNScheduler 1 1 true 1", node(3, &["a"]), prober);
    let calls = [scheduler.send(schedule()), scheduler.send(schedule())];
    let state = |deciding| ActorState::Scheduler {
        algorithm: "PowerOfNScheduler(1, 1, true, 1)".to_owned(),
        deciding,
    };
    assert_eq!(scheduler.send(Observe).await, Ok(state(2)));
    for call in calls {
        call.await.expect("it lives");
    }
    assert_eq!(scheduler.send(Observe).await, Ok(state(0)));
}

#[actix::test]
async fn an_algorithm_that_never_decides_runs_the_call_here() {
    struct Undecided;
    impl Policy for Undecided {
        fn name(&self) -> &'static str {
            "Undecided"
        }
        fn parameters(&self) -> Vec<String> {
            Vec::new()
        }
        fn next(
            &self,
            _: &Task,
            _: crate::policy::NodeView<'_>,
            _: &Knowledge,
            _: &mut dyn rand::Rng,
        ) -> Step {
            Step::WaitUntil(Duration::ZERO)
        }
    }
    let ask = ask(Loads(Vec::new(), Duration::ZERO));
    let scheduler = Scheduler::new(Arc::new(Undecided), node(0, &[]), ask, 1).start();
    assert_eq!(scheduler.send(schedule()).await.expect("it lives").decision, HERE);
}

#[actix::test]
async fn the_learner_is_asked_once_with_the_load_by_type_and_its_decision_carried_out() {
    tokio::time::pause();
    for waits in [None, Some(Duration::from_millis(7))] {
        let policy = SchedulerSpec::from_words("LearningScheduler 2").build().expect("good");
        let adviser = Rc::new(Always(3, waits));
        let ask = SchedulerPorts { adviser, ..ask(Loads(Vec::new(), Duration::ZERO)) };
        let scheduler = Scheduler::new(policy, node(3, &["a"]), ask, 1).start();
        let first = scheduler.send(schedule()).await.expect("it lives");
        assert_eq!(first.decision, Decision::Forward(Peer::at("a")));
        let learnt = first.heard.learnt.clone().expect("it was asked");
        assert_eq!(*learnt.state, [0.0, 0.0, 3.0, 0.0, 0.0]);
        // Not to be connected to: the call runs here, by the decision that was taken.
        let heard = Knowledge { unreachable: vec!["a".into()], ..first.heard };
        let second = scheduler.send(Schedule { heard, ..schedule() }).await.expect("it lives");
        assert_eq!(second.decision, HERE);
        assert_eq!(second.heard.learnt.expect("still").eid, learnt.eid);
    }
}

/// Asks a program that says that after a while; gives the decision, what it took, and why it was none of the program's.
async fn asked_program(
    said: Option<&'static str>,
    after: Duration,
) -> (Scheduled, Duration, Vec<&'static str>) {
    let words = "ExternalScheduler ws://127.0.0.1:9/ 100ms";
    let policy = SchedulerSpec::from_words(words).build().expect("good");
    let programs = Rc::new(Says(said, after, RefCell::default()));
    let prober = Loads(vec![("a", load(0))], Duration::ZERO);
    let ask = SchedulerPorts { programs: Rc::clone(&programs) as _, ..ask(prober) };
    let scheduler = Scheduler::new(policy, node(3, &["a"]), ask, 1).start();
    let begins = Instant::now();
    let scheduled = scheduler.send(schedule()).await.expect("it lives");
    (scheduled, begins.elapsed(), programs.2.take())
}

#[actix::test]
async fn a_program_outside_decides() {
    tokio::time::pause();
    let forward = r#"{"id":0,"step":{"forward":"a"}}"#;
    let (scheduled, took, why) = asked_program(Some(forward), Duration::from_millis(7)).await;
    assert_eq!(scheduled.decision, Decision::Forward(Peer::at("a")));
    assert!(took < Duration::from_millis(20) && why.is_empty(), "{took:?} {why:?}");
}

#[actix::test]
async fn a_program_that_is_slow_gone_or_wrong_costs_its_time_out_and_no_call() {
    tokio::time::pause();
    let (run, ms) = (r#"{"id":0,"step":"reject"}"#, Duration::from_millis);
    for (said, after, label, most) in [
        (Some(run), ms(150), "silent", 110),
        (None, ms(0), "silent", 10),
        (Some("what?"), ms(0), "unreadable", 10),
        (Some(r#"{"id":0,"step":{"forward":"b"}}"#), ms(0), "no_such_peer", 10),
    ] {
        let (scheduled, took, why) = asked_program(said, after).await;
        assert_eq!(scheduled.decision, HERE);
        assert_eq!(why, [label]);
        assert!(took < ms(most), "{said:?} took {took:?}");
    }
}

#[actix::test]
async fn a_program_that_only_asks_for_probes_is_cut_off() {
    tokio::time::pause();
    let probe = r#"{"id":0,"step":{"probe":["a"]}}"#;
    let (scheduled, _, why) = asked_program(Some(probe), Duration::ZERO).await;
    assert_eq!((scheduled.decision, &*why), (HERE, &["probes"][..]));
    assert_eq!(scheduled.heard.rounds, 4);
}
