//! The Learner alone, with entries that come as the test says, files in a folder of its own, and time
//! under control.

use super::hub::LocalLearner;
use super::*;
use crate::actors::Crash;
use crate::actors::scheduler::{Advice, Adviser};
use crate::metrics::Metrics;
use crate::policy::{LearnerDecision, Question, Task};
use crate::rl::reward::RewardSink;
use crate::saved::eids::ReservedEids;
use crate::saved::model_file::ModelFile;
use crate::types::TaskType;
use actix::Addr;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::json;

/// A Learner and what outlives it.
struct Stage {
    addr: Addr<LearnerActor>,
    hub: Arc<LearnerHub>,
    folder: tempfile::TempDir,
}

fn parameters(patch: Value) -> Parameters {
    let Value::Object(patch) = patch else { panic!("an object") };
    Parameters::default().merged(&patch).expect("good parameters")
}

fn actor(hub: &Arc<LearnerHub>, data_path: &Path, guard: Guard) -> LearnerActor {
    LearnerActor::new(Arc::clone(hub), data_path, Duration::from_secs(10), guard)
}

/// A Learner that has learnt nothing yet; `patch` sets its parameters.
fn start(patch: Value) -> Stage {
    tokio::time::pause();
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = Core::new(parameters(patch)).snapshot();
    let hub = LearnerHub::new(
        snapshot,
        ModelFile::new(folder.path()),
        ReservedEids::default(),
        folder.path(),
    );
    let addr = actor(&hub, folder.path(), Guard::new(|_| ())).start();
    hub.learner.set(addr.clone());
    Stage { addr, hub, folder }
}

impl Stage {
    async fn train(&self, batch: Vec<ToldEntry>) -> Result<(), BadEntry> {
        self.addr.send(Train(Arc::new(batch))).await.expect("it lives")
    }

    async fn look(&self) -> Arc<Snapshot> {
        self.addr.send(GetSnapshot).await.expect("it lives")
    }

    async fn save(&self) -> Result<(), StorageError> {
        self.addr.send(SaveModel).await.expect("it lives")
    }

    async fn change(&self, patch: Value) -> Result<(), ChangeFailed> {
        let Value::Object(patch) = patch else { panic!("an object") };
        self.addr.send(ChangeLearnerParameters(patch)).await.expect("it lives")
    }

    /// The next incarnation, over what the last one left.
    fn start_again(&mut self) {
        self.addr = actor(&self.hub, self.folder.path(), Guard::new(|_| ())).start();
        self.hub.learner.set(self.addr.clone());
    }

    fn model_file(&self) -> PathBuf {
        self.folder.path().join(storage::MODEL_FILE)
    }

    /// What a node that starts now would have learnt.
    fn on_disk(&self) -> Snapshot {
        let posted = Parameters::clone(&self.hub.snapshot().posted);
        ModelFile::load(self.folder.path(), posted).expect("it can be read").0.snapshot()
    }

    /// A decision of the node's own.
    async fn decide(&self) -> LearnerDecision {
        let metrics = Arc::new(Metrics::new());
        let patience = Duration::from_secs(5);
        let adviser = LocalLearner::new(Arc::clone(&self.hub), metrics, patience);
        let question = Question { state: [1.0].into(), possible: 2, here: 1 };
        match adviser.advise(question, &Task::default(), &mut SmallRng::seed_from_u64(1)) {
            Advice::Now(decision) => decision,
            Advice::Later(decision) => decision.await,
        }
    }
}

fn told(eid: Eid) -> ToldEntry {
    // Something that differs from entry to entry, so that their order matters.
    let state = [(eid % 3) as f64].into();
    ToldEntry { eid, state, action: (eid % 2) as f64, reward: (eid % 5) as f64 }
}

fn batch(eids: impl IntoIterator<Item = Eid>) -> Vec<ToldEntry> {
    eids.into_iter().map(told).collect()
}

/// What a learner without an actor makes of entries 1 to `last` in order.
fn in_order(patch: Value, last: Eid) -> Snapshot {
    let mut core = Core::new(parameters(patch));
    for told in batch(1..=last) {
        core.take(core.check(told.eid, told.state, told.action, told.reward).expect("good"));
    }
    core.snapshot()
}

/// What is saved of `snapshot`, read again.
fn model(snapshot: &Snapshot) -> Arc<Model> {
    let text = serde_json::to_string(&snapshot.model().expect("JSON")).expect("JSON");
    Arc::new(serde_json::from_str(&text).expect("a model"))
}

/// The same values, R̄ and counts, to the last bit.
fn assert_same(one: &Snapshot, other: &Snapshot) {
    assert_eq!(one.values.weights(), other.values.weights());
    assert_eq!(one.average_reward.to_bits(), other.average_reward.to_bits());
    assert_eq!(one.counters, other.counters);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_trains_in_the_order_of_eids_whatever_order_they_come_in_within_the_window(
        blocks in prop::collection::vec(Just([0, 1, 2, 3, 4]).prop_shuffle(), 6),
        sizes in prop::collection::vec(1usize..9, 1..40),
    ) {
        actix_rt::Runtime::new().expect("a runtime").block_on(async {
            let stage = start(json!({"window_size": 5}));
            let mut coming: Vec<Eid> = Vec::new();
            for (block, order) in blocks.iter().enumerate() {
                coming.extend(order.iter().map(|at| (block * 5 + at + 1) as Eid));
            }
            let mut coming = coming.into_iter();
            for size in sizes.into_iter().chain([30]) {
                let next = batch(coming.by_ref().take(size));
                stage.train(next).await.expect("good entries");
            }
            assert_same(&*stage.look().await, &in_order(json!({"window_size": 5}), 30));
        });
    }
}

#[actix::test]
async fn what_was_learnt_is_published_before_a_batch_is_answered() {
    let rules = || json!({"window_size": 3});
    let stage = start(rules());
    for (eids, last) in [(1..=2, 2), (3..=3, 3), (4..=4, 4), (5..=7, 7)] {
        stage.train(batch(eids)).await.expect("good entries");
        let (published, expected) = (stage.hub.snapshot(), in_order(rules(), last));
        assert_same(&published, &expected);
        assert_eq!(published.held, expected.held);
    }
    assert!(stage.hub.snapshot().counters.trained_items > 4);
}

#[actix::test]
async fn a_batch_with_one_bad_entry_is_refused_whole() {
    let stage = start(json!({"window_size": 2, "eids_ahead_max": 100, "reward_abs_max": 7.0}));
    stage.train(batch(1..=4)).await.expect("good entries");
    let before = stage.look().await;
    let bad = |change: fn(&mut ToldEntry)| {
        let mut batch = batch(5..=8);
        change(&mut batch[3]);
        batch
    };
    for (change, why) in [
        ((|told| told.eid = 1000) as fn(&mut ToldEntry), "eids_ahead_max"),
        (|told| told.eid = Eid::MAX, "EID"),
        (|told| told.reward = -7.5, "reward_abs_max"),
        (|told| told.reward = f64::NAN, "finite"),
        (|told| told.action = 2.0, "actions 0 to 1"),
        (|told| told.action = 0.5, "action"),
        (|told| told.state = [].into(), "features"),
        (|told| told.state = [f64::INFINITY].into(), "finite"),
    ] {
        let error = stage.train(bad(change)).await.expect_err(why).to_string();
        assert!(error.contains(why), "{error} does not tell of {why}");
        assert_same(&*stage.look().await, &before);
        assert_eq!(stage.look().await.held, before.held);
    }
    stage.train(batch(5..=8)).await.expect("good entries");
    assert_same(
        &*stage.look().await,
        &in_order(json!({"window_size": 2, "eids_ahead_max": 100, "reward_abs_max": 7.0}), 8),
    );
}

#[actix::test]
async fn after_a_panic_the_next_incarnation_goes_on_from_what_was_published() {
    let mut stage = start(json!({"window_size": 3}));
    stage.train(batch((1..=7).chain([9]))).await.expect("good entries");
    let before = stage.hub.snapshot();
    assert!(before.held > 0);
    stage.addr.send(Crash).await.expect_err("it panics");
    stage.start_again();
    let after = stage.look().await;
    assert_same(&after, &before);
    stage.train(batch([3])).await.expect("a good entry");
    let late = stage.look().await.counters.late;
    assert_eq!(late, before.counters.late + 1, "the window starts above what was learnt from");
    // What was held is gone, so it may come again.
    stage.train(batch(8..=12)).await.expect("good entries");
    let counters = stage.look().await.counters;
    assert_eq!((counters.duplicate, counters.eid_last_trained), (0, 12));
}

#[actix::test]
async fn the_model_is_saved_when_it_is_time_and_only_if_something_was_learnt() {
    let stage = start(json!({"window_size": 2}));
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(!stage.model_file().exists(), "there is nothing to save");
    stage.train(batch(1..=6)).await.expect("good entries");
    assert!(!stage.model_file().exists(), "not at once");
    tokio::time::sleep(Duration::from_secs(11)).await;
    stage.save().await.expect("saved");
    assert_same(&stage.on_disk(), &stage.hub.snapshot());
    std::fs::remove_file(stage.model_file()).expect("it is there");
    stage.save().await.expect("nothing to do");
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(!stage.model_file().exists(), "it was on disk already");
}

#[actix::test]
async fn a_reset_forgets_on_disk_too() {
    let stage = start(json!({"window_size": 2}));
    stage.train(batch(1..=6)).await.expect("good entries");
    stage.save().await.expect("saved");
    assert!(stage.on_disk().values.states_seen() > 0);
    stage.addr.send(ResetLearner).await.expect("it lives").expect("saved");
    let after = stage.look().await;
    assert_eq!((after.values.states_seen(), after.counters.trained_items), (0, 0));
    assert_eq!((after.generation, after.reached_eid), (1, stage.on_disk().reached_eid));
    assert_eq!(stage.on_disk().values.states_seen(), 0);
}

#[actix::test]
async fn a_model_that_cannot_be_saved_is_told_so_and_stays_in_use() {
    let stage = start(json!({"window_size": 2}));
    stage.train(batch(1..=6)).await.expect("good entries");
    std::fs::create_dir(stage.model_file()).expect("made");
    assert!(stage.save().await.is_err(), "a folder is in its place");
    assert_same(&*stage.look().await, &in_order(json!({"window_size": 2}), 6));
    std::fs::remove_dir(stage.model_file()).expect("removed");
    stage.save().await.expect("saved");
    assert_same(&stage.on_disk(), &stage.hub.snapshot());
}

#[actix::test]
async fn parameters_are_saved_before_they_are_in_force() {
    let stage = start(json!({}));
    stage.change(json!({"alpha": 0.5, "window_size": 3})).await.expect("good");
    let running = Arc::clone(&stage.hub.snapshot().running);
    assert_eq!((running.alpha, running.window_size), (0.5, 3));
    let file = stage.folder.path().join(storage::LEARNER_FILE);
    assert!(std::fs::read_to_string(&file).expect("saved").contains("\"alpha\":0.5"));
    let bad = stage.change(json!({"alpha": 1.5, "beta": 0.5})).await.expect_err("out of range");
    assert!(matches!(&bad, ChangeFailed::Bad(_)) && bad.to_string().contains("alpha"), "{bad}");
    std::fs::remove_file(&file).expect("it is there");
    std::fs::create_dir(&file).expect("made");
    let unsaved = stage.change(json!({"alpha": 0.25})).await.expect_err("a folder is there");
    assert!(matches!(unsaved, ChangeFailed::Storage(_)));
    let running = Arc::clone(&stage.hub.snapshot().running);
    assert_eq!((running.alpha, running.beta), (0.5, 0.01), "neither changed anything");
}

#[actix::test]
async fn a_model_of_another_learner_is_taken_over_if_it_fits() {
    let teacher = in_order(json!({"window_size": 2}), 40);
    let stage = start(json!({"window_size": 2}));
    stage.train(batch(1..=4)).await.expect("good entries");
    let counters = stage.look().await.counters;
    let import = stage.addr.send(ImportModel(model(&teacher))).await;
    import.expect("it lives").expect("it fits");
    let taken = stage.look().await;
    assert_eq!(taken.values.weights(), teacher.values.weights());
    assert_eq!(taken.average_reward.to_bits(), teacher.average_reward.to_bits());
    assert_eq!(taken.counters, counters, "what was counted here stays");
    assert_eq!(stage.on_disk().values.weights(), teacher.values.weights());
}

#[actix::test]
async fn a_model_that_does_not_fit_changes_nothing() {
    let stage = start(json!({"actions_n": 3}));
    stage.train(batch(1..=6)).await.expect("good entries");
    let before = stage.look().await;
    let unfit = stage.addr.send(ImportModel(model(&in_order(json!({}), 40)))).await;
    assert!(matches!(unfit.expect("it lives"), Err(ImportFailed::Unfit(_))));
    assert_same(&*stage.look().await, &before);
}

fn node_rewards() -> Value {
    json!({"source": "node", "deadlines_s": [1.0]})
}

#[actix::test]
async fn decisions_that_the_node_rewards_are_trained_on_once_each_and_by_nobody_else() {
    let stage = start(json!({"window_size": 2, "reward": node_rewards()}));
    let (first, second) = (stage.decide().await, stage.decide().await);
    assert_eq!((first.eid, second.eid), (1, 2));
    for eid in [1, 2, 3] {
        let refused = stage.train(batch([eid])).await.expect_err("it is the node's");
        assert!(matches!(refused, BadEntry::RewardedHere(_)), "{refused}");
    }
    first.pending.as_ref().expect("the node rewards").answered(Duration::from_millis(10));
    // A clone is the same decision.
    let again = first.clone();
    drop(first);
    drop(second);
    assert_eq!(stage.hub.stats(&*stage.look().await).rewards.missed[&0], 1);
    drop(again);
    // Nobody asks: it is woken up, gathers, and trains.
    tokio::time::sleep(GATHER * 2).await;
    let published = stage.hub.snapshot();
    assert_eq!(published.counters.trained_items, 2);
    let stats = stage.hub.stats(&published);
    assert_eq!((stats.rewards.in_time[&0], stats.rewards.missed[&0]), (1, 1));
    assert_eq!(stats.rewards.recent_share_in_time, Some(0.5));
}

#[actix::test]
async fn who_rewards_is_settled_when_a_decision_is_taken() {
    let stage = start(json!({"window_size": 2}));
    let clients = stage.decide().await;
    assert!(clients.pending.is_none());
    stage.change(json!({"reward": node_rewards()})).await.expect("good");
    let nodes = stage.decide().await;
    stage.train(batch([clients.eid])).await.expect("its client rewards it still");
    let refused = stage.train(batch([nodes.eid])).await.expect_err("the node rewards it");
    assert_eq!(refused, BadEntry::RewardedHere(nodes.eid));
    stage.change(json!({"reward": {"source": "client"}})).await.expect("good");
    let last = stage.decide().await;
    let refused = stage.train(batch([nodes.eid])).await.expect_err("it is under way still");
    assert_eq!(refused, BadEntry::RewardedHere(nodes.eid));
    stage.train(batch([last.eid])).await.expect("clients reward again");
    drop(nodes);
    assert_eq!(stage.look().await.counters.eid_max_seen, last.eid);
    assert_eq!(stage.look().await.counters.trained_items, 3);
}

#[actix::test]
async fn rewards_of_decisions_before_a_reset_teach_nothing() {
    let stage = start(json!({"window_size": 2, "reward": node_rewards()}));
    let before = [stage.decide().await, stage.decide().await];
    stage.addr.send(ResetLearner).await.expect("it lives").expect("saved");
    drop(before);
    let after = [stage.decide().await, stage.decide().await];
    assert_eq!(stage.look().await.counters, Default::default());
    drop(after);
    assert_eq!(stage.look().await.counters.trained_items, 2);
}

#[actix::test]
async fn rewards_that_came_while_nobody_was_there_are_trained_on_by_the_next_incarnation() {
    let mut stage = start(json!({"window_size": 2, "reward": node_rewards()}));
    let decisions = [stage.decide().await, stage.decide().await];
    stage.addr.send(Crash).await.expect_err("it panics");
    drop(decisions);
    stage.start_again();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.hub.snapshot().counters.trained_items, 2);
}

#[actix::test]
async fn one_that_was_replaced_publishes_nothing_takes_nothing_and_ends() {
    let mut stage = start(json!({"window_size": 2, "reward": node_rewards()}));
    let guard = Guard::new(|_| ());
    let charge = guard.charge();
    let old = actor(&stage.hub, stage.folder.path(), guard).start();
    old.send(Observe).await.expect("it lives");
    charge.end();
    stage.start_again();
    let entry = Entry { eid: 1, state: [1.0].into(), action: 0, reward: 1.0 };
    stage.hub.rewarded(0, TaskType(0.0), entry);
    // The second question is not handled any more: whoever asks goes on to the successor.
    let (first, second) = (old.send(GetSnapshot), old.send(GetSnapshot));
    assert!(first.await.is_ok() && second.await.is_err());
    assert!(!old.connected());
    assert_eq!(stage.look().await.counters.eid_max_seen, 1, "the successor has it");
}

#[actix::test]
async fn what_one_that_was_replaced_had_saved_at_last_is_put_in_force_by_its_successor() {
    let mut stage = start(json!({}));
    let guard = Guard::new(|_| ());
    let charge = guard.charge();
    let old = actor(&stage.hub, stage.folder.path(), guard).start();
    let hub = Arc::clone(&stage.hub);
    let writes = hub.changing.lock().await;
    let patch = json!({"alpha": 0.5}).as_object().expect("an object").clone();
    let change = actix_rt::spawn(old.send(ChangeLearnerParameters(patch)));
    tokio::time::sleep(Duration::from_secs(70)).await;
    charge.end();
    stage.start_again();
    drop(writes);
    let answer = change.await.expect("joins").expect("answered");
    assert!(matches!(answer, Err(ChangeFailed::Storage(_))), "{answer:?}");
    assert!(!old.connected());
    stage.change(json!({"beta": 0.5})).await.expect("good");
    stage.change(json!({"gamma": 0.5})).await.expect("good");
    let running = Arc::clone(&stage.hub.snapshot().running);
    assert_eq!((running.alpha, running.beta, running.gamma), (0.5, 0.5, 0.5));
}

#[actix::test]
async fn a_disk_that_hangs_keeps_it_from_nothing_and_gathers_few_that_wait() {
    let stage = start(json!({"window_size": 2}));
    let hangs = stage.hub.saving.lock().await;
    stage.train(batch(1..=4)).await.expect("good entries");
    let saves: Vec<_> =
        (0..SAVES_MAX).map(|_| actix_rt::spawn(stage.addr.send(SaveModel))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let error = stage.save().await.expect_err("too many wait").to_string();
    assert!(error.contains("too many"), "{error}");
    stage.train(batch(5..=6)).await.expect("good entries");
    let state = ActorState::Learner {
        learner: stage.hub.snapshot().running.learner_name(),
        states_seen: 3,
        entries_held: 0,
        entries_trained: 6,
    };
    assert_eq!(stage.addr.send(Observe).await, Ok(state));
    drop(hangs);
    for save in saves {
        save.await.expect("joins").expect("it lives").expect("saved");
    }
    assert_same(&stage.on_disk(), &stage.hub.snapshot());
    stage.save().await.expect("there is room again");
}

#[actix::test]
async fn a_long_batch_shows_that_it_is_worked_on() {
    let stage = start(json!({}));
    let guard = Guard::new(|_| ());
    let charge = guard.charge();
    let addr = actor(&stage.hub, stage.folder.path(), guard).start();
    addr.send(Train(Arc::new(batch(1..=50)))).await.expect("it lives").expect("good entries");
    assert_eq!(charge.pulses(), 50);
}
