//! The Supervisor with children that end or hang as the test says, and time under control.

use super::*;
use crate::actors::observe::ActorHealth;
use crate::actors::replicas::Replicas;
use crate::actors::scheduler::testing::{Loads, ask, node};
use crate::actors::supervise::NoAnswer;
use crate::actors::switch::Active;
use crate::actors::{Crash, Hang};
use crate::policy::registry::SchedulerSpec;
use actix::{ActorFutureExt, AtomicResponse, MessageResult, WrapFuture};
use arc_swap::ArcSwap;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::oneshot;

/// Counts its incarnations; ends on demand in one way or the other.
struct Mortal {
    _guard: Guard,
}

#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
enum Die {
    ByPanic,
    ByStopping,
}

impl Actor for Mortal {
    type Context = Context<Self>;
}

impl Handler<EndActor> for Mortal {
    type Result = ();
    fn handle(&mut self, _: EndActor, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Die> for Mortal {
    type Result = ();
    fn handle(&mut self, how: Die, ctx: &mut Self::Context) {
        match how {
            Die::ByPanic => panic!("told to"),
            Die::ByStopping => ctx.stop(),
        }
    }
}

impl Handler<Hang> for Mortal {
    type Result = AtomicResponse<Self, ()>;
    fn handle(&mut self, Hang(until): Hang, _: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(Box::pin(until.into_actor(self).map(|_, _, _| ())))
    }
}

impl Handler<Observe> for Mortal {
    type Result = MessageResult<Observe>;
    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(ActorState::Gateway { servers: 7 })
    }
}

/// Counts how often it is handled.
#[derive(Clone, Message)]
#[rtype(result = "()")]
struct Count(Arc<AtomicU32>);

impl Handler<Count> for Mortal {
    type Result = ();
    fn handle(&mut self, Count(handled): Count, _: &mut Self::Context) {
        handled.fetch_add(1, Ordering::Relaxed);
    }
}

/// A Supervisor with one child, and what can be seen of it.
struct Tree {
    root: Addr<Supervisor>,
    handle: Handle<Mortal>,
    lives: Rc<Cell<u32>>,
    metrics: Arc<Metrics>,
    observations: Arc<Observations>,
    roster: Arc<SchedulerRoster>,
}

fn tree() -> Tree {
    tokio::time::pause();
    let (handle, lives) = (Handle::default(), Rc::new(Cell::new(0)));
    let (metrics, roster): (Arc<Metrics>, Arc<SchedulerRoster>) = Default::default();
    let observations = Arc::new(Observations::new(Instant::now()));
    let count = Rc::clone(&lives);
    let root = Supervisor::new(metrics.clone(), observations.clone(), Guard::new(|_| ()))
        .child("mortal", handle.clone(), move |guard| {
            count.set(count.get() + 1);
            Mortal { _guard: guard }
        })
        .schedulers(Arc::clone(&roster))
        .start();
    Tree { root, handle, lives, metrics, observations, roster }
}

fn supervised() -> (Addr<Supervisor>, Handle<Mortal>, Rc<Cell<u32>>) {
    let tree = tree();
    (tree.root, tree.handle, tree.lives)
}

impl Tree {
    /// Makes the present incarnation hang until what is given is dropped.
    fn hang(&self) -> oneshot::Sender<()> {
        let (hangs, until) = oneshot::channel();
        self.handle.addr().expect("started").do_send(Hang(until));
        hangs
    }

    fn health(&self, name: &str) -> ActorHealth {
        let all = self.observations.health(Instant::now());
        all.into_iter().find(|actor| actor.name == name).expect("it is watched")
    }

    fn stuck(&self, actor: &str) -> u64 {
        self.metrics.restarts(actor)
    }
}

async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

async fn lives_reach(lives: &Cell<u32>, wanted: u32) -> Duration {
    let start = Instant::now();
    while lives.get() < wanted {
        assert!(start.elapsed() < Duration::from_secs(60), "not restarted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

#[actix::test]
async fn a_child_that_ends_is_started_again_after_a_growing_wait() {
    let (_root, handle, lives) = supervised();
    lives_reach(&lives, 1).await;
    for (life, (how, wait_ms)) in
        [(Die::ByPanic, 100), (Die::ByStopping, 200), (Die::ByPanic, 400)].into_iter().enumerate()
    {
        handle.addr().expect("started").do_send(how);
        let waited = lives_reach(&lives, life as u32 + 2).await.as_millis();
        assert!((wait_ms..wait_ms + 10).contains(&waited), "{waited} ms");
    }
}

#[actix::test]
async fn a_question_asked_during_a_restart_is_answered_by_the_next_incarnation() {
    let (_root, handle, lives) = supervised();
    lives_reach(&lives, 1).await;
    handle.addr().expect("started").do_send(Die::ByPanic);
    // The second question is not answered by the dead: it stops the next incarnation.
    assert_eq!(handle.ask(|| Die::ByStopping).await, Ok(()));
    assert_eq!(lives.get(), 2);
}

#[actix::test]
async fn at_the_end_all_children_end_and_stay_ended() {
    let (root, handle, lives) = supervised();
    lives_reach(&lives, 1).await;
    let child = handle.addr().expect("started");
    root.send(EndActor).await.expect("the root lives");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!child.connected() && !root.connected());
    assert_eq!(lives.get(), 1);
}

#[actix::test]
async fn once_told_to_stop_it_restarts_nobody() {
    let (root, handle, lives) = supervised();
    lives_reach(&lives, 1).await;
    root.send(StopRestarting).await.expect("the root lives");
    handle.addr().expect("started").do_send(Die::ByPanic);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(lives.get(), 1);
}

#[actix::test]
async fn a_child_that_hangs_shows_and_is_replaced_once() {
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    seconds(1).await;
    let health = tree.health("mortal");
    assert_eq!((health.ok, health.state), (true, Some(ActorState::Gateway { servers: 7 })));
    let hangs = tree.hang();
    seconds(4).await;
    assert!(tree.health("mortal").ok, "late, but not too late");
    seconds(3).await;
    let health = tree.health("mortal");
    assert!(!health.ok && health.mailbox_age >= Duration::from_secs(5), "{health:?}");
    assert!(tree.health("supervisor").ok);
    let hung = tree.handle.addr().expect("still there");
    seconds(11).await;
    assert_eq!((tree.lives.get(), tree.stuck("mortal")), (2, 1));
    assert!(tree.health("mortal").ok && hung.connected());
    // It comes back, ends, and nobody is started for it.
    drop(hangs);
    seconds(60).await;
    assert!(!hung.connected() && tree.handle.addr().expect("there").connected());
    assert_eq!((tree.lives.get(), tree.stuck("mortal")), (2, 1));
}

#[actix::test]
async fn a_child_whose_incarnations_all_hang_is_replaced_three_times_and_then_again_when_one_ends()
{
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    let mut hung = Vec::new();
    for _ in 0..4 {
        hung.push(tree.hang());
        seconds(20).await;
    }
    seconds(60).await;
    assert_eq!((tree.lives.get(), tree.health("mortal").ok), (4, false));
    drop(hung.remove(0));
    seconds(2).await;
    assert_eq!((tree.lives.get(), tree.health("mortal").ok), (5, true));
}

#[actix::test]
async fn a_child_that_ended_is_started_again_and_not_replaced_too() {
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    let hangs = tree.hang();
    seconds(10).await;
    drop(hangs);
    tree.handle.addr().expect("started").do_send(Die::ByPanic);
    seconds(60).await;
    assert_eq!((tree.lives.get(), tree.stuck("mortal"), tree.health("mortal").ok), (2, 1, true));
}

#[actix::test]
async fn the_time_that_the_supervisor_is_away_is_not_its_childrens() {
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    let hangs = tree.hang();
    seconds(2).await;
    // As if its thread had hung: no timer fires meanwhile.
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(!tree.health("supervisor").ok && tree.health("mortal").ok);
    seconds(1).await;
    assert!(tree.health("supervisor").ok && tree.health("mortal").ok);
    assert_eq!(tree.lives.get(), 1);
    seconds(15).await;
    assert_eq!(tree.lives.get(), 2, "since then it had its own time");
    drop(hangs);
}

#[actix::test]
async fn while_the_node_stops_nobody_is_replaced() {
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    tree.root.send(StopRestarting).await.expect("the root lives");
    let _hangs = tree.hang();
    seconds(60).await;
    assert_eq!((tree.lives.get(), tree.health("mortal").ok), (1, false));
}

#[actix::test]
async fn an_answer_that_is_late_is_an_error_and_nothing_is_done_twice() {
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    let hangs = tree.hang();
    let (handled, asked) = (Arc::new(AtomicU32::new(0)), Instant::now());
    let count = || Count(Arc::clone(&handled));
    assert_eq!(tree.handle.ask(count).await, Err(NoAnswer::Late));
    assert_eq!(asked.elapsed().as_secs(), 5);
    let seven = Duration::from_secs(7);
    assert_eq!(tree.handle.ask_within(seven, count).await, Err(NoAnswer::Late));
    assert_eq!(asked.elapsed().as_secs(), 12);
    assert_eq!(handled.load(Ordering::Relaxed), 0);
    drop(hangs);
    assert_eq!(tree.handle.ask(count).await, Ok(()));
    assert_eq!(handled.load(Ordering::Relaxed), 1, "what nobody waited for any more was not begun");
}

#[actix::test]
async fn an_actor_that_does_not_come_back_is_gone() {
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    tree.root.send(StopRestarting).await.expect("the root lives");
    tree.handle.addr().expect("started").do_send(Die::ByStopping);
    let asked = Instant::now();
    let answer = tree.handle.ask(|| Count(Arc::default())).await;
    assert_eq!((answer, asked.elapsed().as_secs()), (Err(NoAnswer::Gone), 5));
}

#[actix::test]
async fn a_scheduler_that_hangs_has_the_child_replaced_on_whose_threads_it_runs() {
    let tree = tree();
    lives_reach(&tree.lives, 1).await;
    let policy = SchedulerSpec::from_words("NoScheduler true").build().expect("good");
    let in_force = Arc::new(ArcSwap::from_pointee(Active::new(0, policy)));
    let replicas = || {
        let ports = ask(Loads(Vec::new(), Duration::ZERO));
        let roster = Arc::clone(&tree.roster);
        Replicas::new(in_force.clone(), node(0, &[]), ports, Arc::default(), roster)
    };
    let (_first, _second) = (replicas(), replicas());
    seconds(2).await;
    let health = tree.health("scheduler");
    let algorithms = vec!["NoScheduler".to_owned()];
    let state = ActorState::Schedulers { replicas: 2, algorithms, deciding: 0 };
    assert_eq!((health.ok, health.state), (true, Some(state)));
    let (hangs, until) = oneshot::channel();
    let [(_, first), (_, second)] = &tree.roster.running()[..] else { panic!("there are two") };
    first.do_send(Hang(until));
    // One that ends is not stuck: its thread starts another when it needs one.
    second.send(Crash).await.expect_err("it panics");
    seconds(8).await;
    assert!(!tree.health("scheduler").ok && tree.health("mortal").ok);
    seconds(10).await;
    assert_eq!((tree.lives.get(), tree.stuck("scheduler"), tree.stuck("mortal")), (2, 1, 0));
    assert!(tree.health("scheduler").ok, "those of the new threads count");
    seconds(60).await;
    assert_eq!(tree.lives.get(), 2);
    drop(hangs);
}
