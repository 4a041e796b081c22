//! The Learner actor: owns what is learnt. It takes entries, from clients in batches and from the
//! node's own calls, trains, publishes a snapshot after each batch, and saves the model. It lives on
//! a thread of its own, so training never delays a call.
//!
//! Decisions do not go through its mailbox: whoever decides reads the published snapshot and takes
//! an EID from a counter ([`hub`]).
//!
//! What survives a restart of the actor: all that was published, ε and the EIDs among it; entries
//! that were held for reordering are gone, and the window starts anew above what was learnt from. An
//! incarnation that was replaced because it hung publishes nothing any more.
//! What survives a restart of the node: the model as last saved, every ten seconds and on stop.

pub mod eids;
pub mod hub;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message,
    MessageResult, ResponseActFuture, WrapFuture,
};
use serde_json::{Map, Value};

use self::hub::LearnerHub;
use super::observe::{ActorState, Observe, Patience};
use super::supervise::Guard;
use crate::rl::learner::{Learner as Core, Snapshot};
use crate::rl::model::{Model, Unfit};
use crate::rl::parameters::{BadLearnerParameters, Parameters};
use crate::rl::value::JobDone;
use crate::rl::{BadEntry, Eid, Entry, State};
use crate::saved::LearnerFile;
use crate::saved::model_file::SaveMode;
use crate::storage::{self, StorageError};

/// An entry as a client sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldEntry {
    /// Its EID.
    pub eid: Eid,
    /// The state decided in.
    pub state: State,
    /// The action chosen.
    pub action: f64,
    /// What it was worth.
    pub reward: f64,
}

/// Trains on a batch, taken whole or not at all. Answers when it has been, or what is wrong with
/// its first bad entry.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), BadEntry>")]
pub struct Train(pub Arc<Vec<ToldEntry>>);

/// The node has rewarded decisions of its own, to be trained on soon. Nothing is answered.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct RewardsWait;

/// Answers with the learner as it is now, all that was sent before included.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Arc<Snapshot>")]
pub struct GetSnapshot;

/// Merges over the parameters, saves them, and takes them into use. Answers when all is done, or
/// why nothing was changed.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), ChangeFailed>")]
pub struct ChangeLearnerParameters(pub Map<String, Value>);

/// Forgets all that was learnt. Answers when it is forgotten on disk too.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct ResetLearner;

/// Takes over what another learner learnt. Answers when it is on disk, or why it was not taken.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), ImportFailed>")]
pub struct ImportModel(pub Arc<Model>);

/// Saves what is not saved yet, so that one file has all of it. Answers when it does.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct SaveModel;

/// Why parameters were not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeFailed {
    /// They cannot be used.
    #[error(transparent)]
    Bad(#[from] BadLearnerParameters),
    /// They cannot be saved.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a model was not imported, or not saved.
#[derive(Debug, thiserror::Error)]
pub enum ImportFailed {
    /// It does not fit the parameters in force.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It is in use but not on disk yet.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A background job of the value function with that number has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct JobEnded(u64, JobDone);

/// How long rewards of the node's own are gathered before they are trained on: a wake-up of
/// another thread costs more than training.
const GATHER: Duration = Duration::from_millis(10);

/// How long the Learner may be silent.
///
/// It works on a thread of its own, and for long: on a batch, a window, a model. Of a batch it shows
/// after each entry that it works, so what counts is the longest piece: a window that leaves at once
/// (100,000 entries: 20 ms with a Q-table, some seconds with a thousand tilings or clusters), or a
/// model that is imported (of 1 GiB, ten to twenty seconds). A board is some three times slower.
pub const PATIENCE: Patience =
    Patience { late: Duration::from_secs(45), stuck: Duration::from_secs(60) };

/// How long it may take until a model is on disk: one of 1 GiB on an SD card, behind one that is
/// being written.
pub const SAVING_TIME: Duration = Duration::from_secs(300);

/// Requests that wait for the model to be saved at most, should the disk hang.
const SAVES_MAX: usize = 8;

/// See the module.
pub struct LearnerActor {
    core: Core,
    shared: Arc<LearnerHub>,
    data_path: PathBuf,
    save_time: Duration,
    /// Whether a save that nobody waits for is under way.
    saving: bool,
    /// Saves that somebody waits for.
    saves: usize,
    guard: Guard,
}

impl LearnerActor {
    /// Goes on from what `shared` has published.
    pub fn new(
        shared: Arc<LearnerHub>,
        data_path: &Path,
        save_time: Duration,
        guard: Guard,
    ) -> Self {
        let core = Core::resume(&shared.snapshot());
        let data_path = data_path.to_owned();
        Self { core, shared, data_path, save_time, saving: false, saves: 0, guard }
    }

    /// Does what only the incarnation in charge may do. One that was replaced ends, and takes no
    /// further message.
    fn while_in_charge<T>(&self, ctx: &mut Context<Self>, act: impl FnOnce() -> T) -> Option<T> {
        let done = self.guard.while_in_charge(act);
        if done.is_none() {
            ctx.stop();
        }
        done
    }

    /// Something was learnt or forgotten: shows it to all who decide. `None`: it was replaced.
    fn publish(&self, ctx: &mut Context<Self>) -> Option<()> {
        let snapshot = self.core.snapshot();
        self.while_in_charge(ctx, || {
            self.shared.model_file.changed();
            self.shared.publish(snapshot);
        })
    }

    /// After training: shows it, and starts what the value function wants done.
    fn trained(&mut self, ctx: &mut Context<Self>) {
        if self.publish(ctx).is_none() {
            return;
        }
        let Some((number, job)) = self.core.job() else { return };
        let Some(pool) = background() else { return };
        let me = ctx.address();
        pool.spawn(move || {
            // A job that panics has come to nothing, but it has ended.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            me.do_send(JobEnded(number, ended.unwrap_or_else(|_| Box::new(()))));
        });
    }

    /// Whether `told` can be learnt from, by its form alone.
    fn form(&self, told: &ToldEntry) -> Result<Entry, BadEntry> {
        self.core.check(told.eid, Arc::clone(&told.state), told.action, told.reward)
    }

    /// Whether `told` is taken from whoever sent it.
    fn check(&self, told: &ToldEntry) -> Result<(), BadEntry> {
        let eids = &self.shared.eids;
        // Others' numbers would make the node's own late, or be taken for them.
        if self.shared.rewards_itself(told.eid) {
            return Err(BadEntry::RewardedHere(told.eid));
        }
        if self.core.parameters().reward.is_node() && !eids.gave(told.eid) {
            return Err(BadEntry::NotGiven(told.eid));
        }
        self.form(told)?;
        self.core.check_told(told.eid, told.reward, eids.next())
    }

    /// Takes other parameters into use. Which decisions the node rewards from now on is settled
    /// before any is taken by them.
    fn set_parameters(&mut self, posted: Parameters, ctx: &mut Context<Self>) {
        let before = self.core.parameters().reward.is_node();
        self.core.set_parameters(posted);
        let now = self.core.parameters().reward.is_node();
        if now && !before {
            self.while_in_charge(ctx, || self.shared.begin_rewarding());
        }
        self.trained(ctx);
        if before && !now {
            self.while_in_charge(ctx, || self.shared.end_rewarding());
        }
    }

    /// Trains on what the node has rewarded.
    fn take_rewards(&mut self, ctx: &mut Context<Self>) {
        let rewarded = self.while_in_charge(ctx, || self.shared.take_rewards()).unwrap_or_default();
        if rewarded.is_empty() {
            return;
        }
        for (generation, entry) in rewarded {
            self.guard.pulse();
            // Of decisions that are forgotten, nothing is learnt.
            if generation != self.core.generation() {
                continue;
            }
            match self.core.check(entry.eid, entry.state, entry.action as f64, entry.reward) {
                Ok(entry) => self.core.take(entry),
                Err(why) => tracing::debug!(%why, "a decision of our own teaches nothing"),
            }
        }
        self.trained(ctx);
    }

    /// Writes what was published in that way, when its turn comes, unless it is on disk already.
    fn save(&self, mode: SaveMode) -> impl Future<Output = Result<(), StorageError>> + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let _alone = shared.saving.lock().await;
            let snapshot = shared.snapshot();
            let Some(number) = shared.model_file.number(&snapshot, mode) else { return Ok(()) };
            let shared = Arc::clone(&shared);
            let write = move || shared.model_file.write(number, &snapshot, mode);
            actix_rt::task::spawn_blocking(write).await.unwrap_or_else(|ended| {
                let path = PathBuf::from(storage::MODEL_FILE);
                Err(StorageError::Io { path, source: std::io::Error::other(ended) })
            })
        }
    }

    /// The same for somebody who waits for it. The actor goes on meanwhile.
    fn save_for<E: From<StorageError> + 'static>(
        &mut self,
    ) -> ResponseActFuture<Self, Result<(), E>> {
        if self.saves >= SAVES_MAX {
            let source = std::io::Error::other("too many wait for it to be saved");
            let path = PathBuf::from(storage::MODEL_FILE);
            return answer(self, Err(StorageError::Io { path, source }.into()));
        }
        self.saves += 1;
        Box::pin(self.save(SaveMode::Whole).into_actor(self).map(|saved, actor, _| {
            actor.saves -= 1;
            Ok(saved?)
        }))
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        // Should a wake-up have been lost in a restart.
        self.take_rewards(ctx);
        // A disk that hangs must not gather models that wait for it.
        if std::mem::replace(&mut self.saving, true) {
            return;
        }
        ctx.spawn(self.save(SaveMode::Changes).into_actor(self).map(|saved, actor, _| {
            actor.saving = false;
            if let Err(error) = saved {
                tracing::error!(%error, "the model cannot be saved");
            }
        }));
    }
}

/// What was decided on at once, where others wait.
fn answer<T: 'static>(actor: &LearnerActor, done: T) -> ResponseActFuture<LearnerActor, T> {
    Box::pin(std::future::ready(done).into_actor(actor))
}

/// The one thread on which value functions do their background work. `None`: it cannot be had.
fn background() -> Option<&'static rayon::ThreadPool> {
    static POOL: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    let start = || {
        rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(|_| "learner-background".to_owned())
            .build()
            .inspect_err(|error| tracing::error!(%error, "no thread for background work"))
            .ok()
    };
    POOL.get_or_init(start).as_ref()
}

impl Actor for LearnerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What came while nobody was there.
        self.take_rewards(ctx);
        // Before the first call needs one.
        self.shared.eids.reserve();
        ctx.run_interval(self.save_time, Self::tick);
    }
}

impl Handler<Train> for LearnerActor {
    type Result = Result<(), BadEntry>;

    fn handle(&mut self, Train(batch): Train, ctx: &mut Self::Context) -> Self::Result {
        // How far EIDs may go is that for the whole batch, and all of it is checked first.
        batch.iter().try_for_each(|told| self.check(told))?;
        for told in batch.iter() {
            self.guard.pulse();
            if let Ok(entry) = self.form(told) {
                self.core.take(entry);
            }
        }
        self.trained(ctx);
        Ok(())
    }
}

impl Handler<RewardsWait> for LearnerActor {
    type Result = ();

    fn handle(&mut self, _: RewardsWait, ctx: &mut Self::Context) {
        ctx.run_later(GATHER, |learner, ctx| learner.take_rewards(ctx));
    }
}

impl Handler<GetSnapshot> for LearnerActor {
    type Result = MessageResult<GetSnapshot>;

    fn handle(&mut self, _: GetSnapshot, ctx: &mut Self::Context) -> Self::Result {
        self.take_rewards(ctx);
        MessageResult(self.shared.snapshot())
    }
}

impl Handler<Observe> for LearnerActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let snapshot = self.shared.snapshot();
        MessageResult(ActorState::Learner {
            learner: snapshot.running.learner_name(),
            states_seen: snapshot.values.states_seen(),
            entries_held: snapshot.held,
            entries_trained: snapshot.counters.trained_items,
        })
    }
}

impl Handler<ChangeLearnerParameters> for LearnerActor {
    type Result = AtomicResponse<Self, Result<(), ChangeFailed>>;

    fn handle(&mut self, change: ChangeLearnerParameters, _: &mut Self::Context) -> Self::Result {
        let (shared, file) = (Arc::clone(&self.shared), self.data_path.join(storage::LEARNER_FILE));
        let posted = change.0.clone();
        let save = async move {
            let _alone = shared.changing.lock().await;
            let posted = shared.snapshot().posted.merged(&posted)?;
            super::save(file, LearnerFile::of(&posted)).await?;
            Ok(posted)
        };
        AtomicResponse::new(Box::pin(save.into_actor(self).map(
            |saved: Result<Parameters, ChangeFailed>, actor, ctx| {
                let posted = saved?;
                if actor.while_in_charge(ctx, || ()).is_none() {
                    // It is on disk, so it is to be in force.
                    actor.shared.learner.tell(change);
                    let file = actor.data_path.join(storage::LEARNER_FILE);
                    return Err(super::replaced(file).into());
                }
                actor.set_parameters(posted, ctx);
                Ok(())
            },
        )))
    }
}

impl Handler<ResetLearner> for LearnerActor {
    type Result = ResponseActFuture<Self, Result<(), StorageError>>;

    fn handle(&mut self, _: ResetLearner, ctx: &mut Self::Context) -> Self::Result {
        self.core.reset();
        self.while_in_charge(ctx, || self.shared.forget_rewards());
        if self.publish(ctx).is_none() {
            return answer(self, Err(super::replaced(storage::MODEL_FILE)));
        }
        self.save_for()
    }
}

impl Handler<ImportModel> for LearnerActor {
    type Result = ResponseActFuture<Self, Result<(), ImportFailed>>;

    fn handle(&mut self, ImportModel(model): ImportModel, ctx: &mut Self::Context) -> Self::Result {
        if let Err(unfit) = self.core.import(&model) {
            return answer(self, Err(unfit.into()));
        }
        if self.publish(ctx).is_none() {
            return answer(self, Err(super::replaced(storage::MODEL_FILE).into()));
        }
        self.save_for()
    }
}

impl Handler<SaveModel> for LearnerActor {
    type Result = ResponseActFuture<Self, Result<(), StorageError>>;

    fn handle(&mut self, _: SaveModel, ctx: &mut Self::Context) -> Self::Result {
        self.take_rewards(ctx);
        self.save_for()
    }
}

impl Handler<JobEnded> for LearnerActor {
    type Result = ();

    fn handle(&mut self, JobEnded(number, done): JobEnded, ctx: &mut Self::Context) {
        self.core.job_done(number, done);
        self.trained(ctx);
    }
}

#[cfg(test)]
mod tests;
