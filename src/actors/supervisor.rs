//! The root of the tree: starts the children in order and starts each again when it ends unasked.
//!
//! It holds no state that matters beyond that; what survives a child's restart is what its
//! factory gives the next incarnation, and stands in that child's own documentation.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use tokio::time::Instant;

use super::supervise::{Backoff, EndActor, EndCause, Guard, Handle};
use crate::metrics::Metrics;

/// A child is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct ChildEnded {
    child: usize,
    ended: EndCause,
}

/// From now on children end because they should, and are not started again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopRestarting;

struct Child {
    name: &'static str,
    start: Box<dyn FnMut(Guard)>,
    end: Box<dyn Fn()>,
    backoff: Backoff,
    started: Instant,
}

/// See the module.
pub struct Supervisor {
    children: Vec<Child>,
    metrics: Arc<Metrics>,
    stopping: bool,
    /// Tells whoever runs the node that the root itself is gone.
    _guard: Guard,
}

impl Supervisor {
    /// Without children yet. `guard` is dropped with the supervisor.
    pub fn new(metrics: Arc<Metrics>, guard: Guard) -> Self {
        Self { children: Vec::new(), metrics, stopping: false, _guard: guard }
    }

    /// Adds a child that `make` makes, now and at every restart; `handle` leads to it. Children
    /// start in the order in which they were added.
    #[must_use]
    pub fn child<A: Actor<Context = Context<A>> + Handler<EndActor>>(
        self,
        name: &'static str,
        handle: Handle<A>,
        mut make: impl FnMut(Guard) -> A + 'static,
    ) -> Self {
        self.child_started(name, handle, move |guard| make(guard).start())
    }

    /// The same for a child that `start` starts where it belongs, on a thread of its own.
    #[must_use]
    pub fn child_started<A: Actor<Context = Context<A>> + Handler<EndActor>>(
        mut self,
        name: &'static str,
        handle: Handle<A>,
        mut start: impl FnMut(Guard) -> Addr<A> + 'static,
    ) -> Self {
        let to_end = handle.clone();
        let start = Box::new(move |guard| handle.set(start(guard)));
        self.children.push(Child {
            name,
            start,
            end: Box::new(move || to_end.tell(EndActor)),
            backoff: Backoff::default(),
            started: Instant::now(),
        });
        self
    }

    fn start_child(&mut self, index: usize, ctx: &Context<Self>) {
        let Some(child) = self.children.get_mut(index) else { return };
        let parent = ctx.address();
        let guard = Guard::new(move |ended| parent.do_send(ChildEnded { child: index, ended }));
        child.started = Instant::now();
        (child.start)(guard);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for index in 0..self.children.len() {
            self.start_child(index, ctx);
        }
    }
}

impl Handler<ChildEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: ChildEnded, ctx: &mut Self::Context) {
        let Some(child) = self.children.get_mut(message.child) else { return };
        if self.stopping {
            return;
        }
        let wait: Duration = child.backoff.after(child.started.elapsed());
        tracing::error!(
            actor = child.name,
            ended = ?message.ended,
            restart_in_ms = wait.as_millis() as u64,
            "an actor ended unasked and is started again"
        );
        self.metrics.restarted(child.name, message.ended.label());
        ctx.run_later(wait, move |supervisor, ctx| {
            if !supervisor.stopping {
                supervisor.start_child(message.child, ctx);
            }
        });
    }
}

/// Ends all children, the last started first, and the supervisor.
impl Handler<EndActor> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: EndActor, ctx: &mut Self::Context) {
        self.stopping = true;
        self.children.iter().rev().for_each(|child| (child.end)());
        ctx.stop();
    }
}

impl Handler<StopRestarting> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: StopRestarting, _: &mut Self::Context) {
        self.stopping = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

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

    fn supervised() -> (actix::Addr<Supervisor>, Handle<Mortal>, Rc<Cell<u32>>) {
        let (handle, lives) = (Handle::default(), Rc::new(Cell::new(0)));
        let count = Rc::clone(&lives);
        let root = Supervisor::new(Arc::default(), Guard::new(|_| ()))
            .child("mortal", handle.clone(), move |guard| {
                count.set(count.get() + 1);
                Mortal { _guard: guard }
            })
            .start();
        (root, handle, lives)
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
        tokio::time::pause();
        let (_root, handle, lives) = supervised();
        lives_reach(&lives, 1).await;
        for (life, (how, wait_ms)) in
            [(Die::ByPanic, 100), (Die::ByStopping, 200), (Die::ByPanic, 400)]
                .into_iter()
                .enumerate()
        {
            handle.addr().expect("started").do_send(how);
            let waited = lives_reach(&lives, life as u32 + 2).await.as_millis();
            assert!((wait_ms..wait_ms + 10).contains(&waited), "{waited} ms");
        }
    }

    #[actix::test]
    async fn a_question_asked_during_a_restart_is_answered_by_the_next_incarnation() {
        tokio::time::pause();
        let (_root, handle, lives) = supervised();
        lives_reach(&lives, 1).await;
        handle.addr().expect("started").do_send(Die::ByPanic);
        // The second question is not answered by the dead: it stops the next incarnation.
        assert_eq!(handle.ask(|| Die::ByStopping).await, Ok(()));
        assert_eq!(lives.get(), 2);
    }

    #[actix::test]
    async fn at_the_end_all_children_end_and_stay_ended() {
        tokio::time::pause();
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
        tokio::time::pause();
        let (root, handle, lives) = supervised();
        lives_reach(&lives, 1).await;
        root.send(StopRestarting).await.expect("the root lives");
        handle.addr().expect("started").do_send(Die::ByPanic);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(lives.get(), 1);
    }
}
