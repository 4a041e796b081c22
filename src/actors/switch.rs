//! The Switch actor: owns which algorithm is in force, and its file.
//!
//! The algorithm is published as a shared snapshot that every worker reads for every call
//! ([`super::replicas`]), so a swap takes effect at once for new calls, and those in flight finish
//! on the algorithm that they began with: none is lost, refused or run twice.
//!
//! Algorithms that have something to say to those of other nodes are told every second what those say in
//! their records, and asked what they say.
//!
//! What survives a restart of the actor: everything; the snapshot belongs to the node. So does the
//! turn that each swap waits for: one that hung and comes back ends before those after it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, AsyncContext, AtomicResponse, Context, Handler, Message, MessageResult, WrapFuture,
};
use arc_swap::ArcSwap;

use super::observe::{ActorState, Observe};
use super::scheduler::NodeSource;
use super::supervise::Guard;
use crate::policy::Policy;
use crate::policy::registry::SchedulerSpec;
use crate::storage::{self, StorageError};
use crate::types::Saying;

/// Puts another algorithm in force and saves it. Answers when both is done.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct SwapScheduler(pub Arc<dyn Policy>);

/// The algorithm in force.
pub struct Active {
    /// Grows with every swap.
    pub generation: u64,
    /// The algorithm.
    pub policy: Arc<dyn Policy>,
    /// Its name with parameters, as answers carry it.
    pub full_name: Box<str>,
}

impl Active {
    /// `policy` as the `generation`th.
    pub fn new(generation: u64, policy: Arc<dyn Policy>) -> Self {
        let full_name = policy.full_name().into();
        Self { generation, policy, full_name }
    }
}

/// See the module.
pub struct Switch {
    in_force: Arc<ArcSwap<Active>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    node: NodeSource,
    saying: Arc<ArcSwap<Saying>>,
    file: PathBuf,
    _guard: Guard,
}

/// How often algorithms hear what those of other nodes say.
const CONVERSE_TIME: Duration = Duration::from_secs(1);

impl Switch {
    /// Rules over `in_force`, and over what that says in the record of `node`. One swap has its `turn` at a
    /// time, over all incarnations.
    pub fn new(
        in_force: Arc<ArcSwap<Active>>,
        node: NodeSource,
        saying: Arc<ArcSwap<Saying>>,
        turn: Arc<tokio::sync::Mutex<()>>,
        data_path: &Path,
        guard: Guard,
    ) -> Self {
        let file = data_path.join(storage::SCHEDULER_FILE);
        Self { in_force, node, saying, turn, file, _guard: guard }
    }

    fn converse(&mut self, _: &mut Context<Self>) {
        let active = self.in_force.load();
        self.node.gate.watch_idle(active.policy.notices_idle());
        let mut saying = Saying::default();
        if active.policy.converses() {
            let now = self.node.start.elapsed();
            active.policy.hears(&self.node.published.load().peers, now);
            saying = active.policy.says(now).into();
        }
        if **self.saying.load() != saying {
            self.saying.store(Arc::new(saying));
        }
    }
}

impl Actor for Switch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.converse(ctx);
        ctx.run_interval(CONVERSE_TIME, Self::converse);
    }
}

impl Handler<SwapScheduler> for Switch {
    type Result = AtomicResponse<Self, Result<(), StorageError>>;

    fn handle(
        &mut self,
        SwapScheduler(policy): SwapScheduler,
        _: &mut Self::Context,
    ) -> Self::Result {
        let (in_force, file) = (Arc::clone(&self.in_force), self.file.clone());
        let turn = Arc::clone(&self.turn);
        AtomicResponse::new(Box::pin(
            async move {
                let _turn = turn.lock().await;
                super::save(file, SchedulerSpec::of(&*policy)).await?;
                let generation = in_force.load().generation + 1;
                let active = Active::new(generation, policy);
                if let Some(warning) = active.policy.warning() {
                    tracing::warn!(scheduler = %active.full_name, "{warning}");
                }
                tracing::info!(scheduler = %active.full_name, "the scheduler was swapped");
                in_force.store(Arc::new(active));
                Ok(())
            }
            .into_actor(self),
        ))
    }
}

impl Handler<Observe> for Switch {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let active = self.in_force.load();
        MessageResult(ActorState::Switch {
            scheduler: active.full_name.clone(),
            swaps: active.generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules over `in_force`, with its file in `data_path`.
    fn start(in_force: &Arc<ArcSwap<Active>>, data_path: &Path) -> actix::Addr<Switch> {
        let guard = Guard::new(|_| ());
        let node = crate::actors::scheduler::testing::node(0, &[]);
        Switch::new(Arc::clone(in_force), node, Arc::default(), Arc::default(), data_path, guard)
            .start()
    }

    fn policy(words: &str) -> Arc<dyn Policy> {
        SchedulerSpec::from_words(words).build().expect("good")
    }

    #[actix::test]
    async fn a_swap_is_published_and_saved_in_normal_form() {
        let folder = tempfile::tempdir().expect("a folder");
        let in_force = Arc::new(ArcSwap::from_pointee(Active::new(0, policy("NoScheduler true"))));
        let switch = start(&in_force, folder.path());
        let swap = SwapScheduler(policy("ForwardScheduler 1"));
        switch.send(swap).await.expect("it lives").expect("saved");
        assert_eq!(&*in_force.load().full_name, "ForwardScheduler(1)");
        let state = ActorState::Switch { scheduler: "ForwardScheduler(1)".into(), swaps: 1 };
        assert_eq!(switch.send(Observe).await, Ok(state));
        let file = folder.path().join(storage::SCHEDULER_FILE);
        let text = std::fs::read_to_string(file).expect("saved");
        assert_eq!(text, r#"{"name":"ForwardScheduler","parameters":["1"]}"#);
    }

    #[actix::test]
    async fn a_swap_that_cannot_be_saved_changes_nothing() {
        let in_force = Arc::new(ArcSwap::from_pointee(Active::new(0, policy("NoScheduler true"))));
        let switch = start(&in_force, Path::new("/nonexistent/folder"));
        let swap = SwapScheduler(policy("ForwardScheduler 1"));
        assert!(switch.send(swap).await.expect("it lives").is_err());
        assert_eq!(&*in_force.load().full_name, "NoScheduler");
    }
}
