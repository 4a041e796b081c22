//! The Learner actor: owns what is learnt. It takes entries, from clients in batches and from the
//! node's own calls, trains, and publishes a snapshot after each batch; it saves the model and
//! reserves EIDs on disk. It lives on a thread of its own, so training never delays a call.
//!
//! Decisions do not go through its mailbox: whoever decides reads the published snapshot and takes
//! an EID from a counter ([`Learning::decide`]).
//!
//! What survives a restart of the actor: all that was published, ε and the EIDs among it; entries
//! that were held for reordering are gone, and the window starts anew above what was learnt from.
//! What survives a restart of the node: the model as last saved, every ten seconds and on stop.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture,
};
use serde_json::{Map, Value};

use super::learning::Learning;
use super::supervise::Guard;
use crate::lock;
use crate::rl::learner::{Learner as Core, Snapshot};
use crate::rl::model::{Model, Unfit};
use crate::rl::parameters::{BadLearnerParameters, Parameters};
use crate::rl::value::JobDone;
use crate::rl::{BadEntry, Eid, State};
use crate::saved::LearnerFile;
use crate::storage::{self, StorageError};

/// An entry as a client sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its EID.
    pub eid: Eid,
    /// The state decided in.
    pub state: State,
    /// The action chosen.
    pub action: f64,
    /// What it was worth.
    pub reward: f64,
}

/// Trains on a batch, taken whole or not at all. Answers when it has been.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), BadEntry>")]
pub struct Train(pub Arc<[Told]>);

/// The node has rewarded decisions of its own.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Rewarded;

/// The learner as it is now, all that was sent before included.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Arc<Snapshot>")]
pub struct Look;

/// Merges over the parameters, saves them, and takes them into use.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), ChangeFailed>")]
pub struct ChangeLearnerParameters(pub Map<String, Value>);

/// Forgets all that was learnt, on disk too.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct ResetLearner;

/// Takes over what another learner learnt, on disk too.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), ImportFailed>")]
pub struct ImportModel(pub Arc<Model>);

/// Reserves further EIDs on disk. Answers when they can be given.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct ReserveEids;

/// Saves what is not saved yet. Answers when it is.
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

/// The model's file, written in the order in which the models were taken.
struct ModelFile {
    path: PathBuf,
    /// The number of the model on disk.
    written: Mutex<u64>,
}

impl ModelFile {
    fn write(&self, number: u64, snapshot: &Snapshot) -> Result<(), StorageError> {
        let mut written = lock(&self.written);
        if number > *written {
            let model = snapshot
                .model()
                .map_err(|why| StorageError::Io { path: self.path.clone(), source: why.into() })?;
            storage::write(&self.path, &model)?;
            *written = number;
        }
        Ok(())
    }
}

/// See the module.
pub struct Learner {
    core: Core,
    shared: Arc<Learning>,
    data_path: PathBuf,
    save_time: Duration,
    model_file: Arc<ModelFile>,
    /// Models taken for saving so far.
    models: u64,
    /// Grows with everything that is learnt or forgotten; with the decisions, what was saved last.
    changes: u64,
    saved: (u64, u64),
    _guard: Guard,
}

impl Learner {
    /// Goes on from what `shared` has published.
    pub fn new(shared: Arc<Learning>, data_path: &Path, save_time: Duration, guard: Guard) -> Self {
        let snapshot = shared.snapshot();
        let path = data_path.join(storage::MODEL_FILE);
        Self {
            core: Core::resume(&snapshot),
            saved: (0, snapshot.live.inferences()),
            shared,
            data_path: data_path.to_owned(),
            save_time,
            model_file: Arc::new(ModelFile { path, written: Mutex::default() }),
            models: 0,
            changes: 0,
            _guard: guard,
        }
    }

    /// Shows what is learnt now to all who decide.
    fn publish(&self) {
        self.shared.publish(self.core.snapshot());
    }

    /// After training: shows it, and starts what the value function wants done.
    fn trained(&mut self, ctx: &Context<Self>) {
        self.changes += 1;
        self.publish();
        let Some((number, job)) = self.core.job() else { return };
        let Some(pool) = background() else { return };
        let me = ctx.address();
        pool.spawn(move || {
            // A job that panics has come to nothing, but it has ended.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            me.do_send(JobEnded(number, ended.unwrap_or_else(|_| Box::new(()))));
        });
    }

    /// Trains on what the node has rewarded.
    fn take_rewards(&mut self, ctx: &Context<Self>) {
        let rewarded = self.shared.take_rewards();
        if rewarded.is_empty() {
            return;
        }
        for (generation, entry) in rewarded {
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

    /// Writes the model if it is not on disk yet.
    fn save(&mut self) -> impl Future<Output = Result<(), StorageError>> + use<> {
        let snapshot = self.core.snapshot();
        let state = (self.changes, snapshot.live.inferences());
        let changed = state != self.saved;
        self.models += u64::from(changed);
        let (file, number) = (Arc::clone(&self.model_file), self.models);
        self.saved = state;
        async move {
            if !changed {
                return Ok(());
            }
            let path = file.path.clone();
            let written = actix_rt::task::spawn_blocking(move || file.write(number, &snapshot));
            written.await.unwrap_or_else(|ended| {
                Err(StorageError::Io { path, source: std::io::Error::other(ended) })
            })
        }
    }

    /// Writes the model; what cannot be written is tried again the next time.
    fn save_now(
        &mut self,
    ) -> impl actix::ActorFuture<Self, Output = Result<(), StorageError>> + use<> {
        self.save().into_actor(self).map(|saved, actor, _| {
            if saved.is_err() {
                actor.saved = (u64::MAX, u64::MAX);
            }
            saved
        })
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(self.save_now().map(|saved, _, _| {
            if let Err(error) = saved {
                tracing::error!(%error, "the model cannot be saved");
            }
        }));
    }
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

impl Actor for Learner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What came while nobody was there.
        self.take_rewards(ctx);
        ctx.run_interval(self.save_time, Self::tick);
    }
}

impl Handler<Train> for Learner {
    type Result = Result<(), BadEntry>;

    fn handle(&mut self, Train(batch): Train, ctx: &mut Self::Context) -> Self::Result {
        let check = |told: &Told| {
            self.core.check(told.eid, Arc::clone(&told.state), told.action, told.reward)
        };
        let entries = batch.iter().map(check).collect::<Result<Vec<_>, _>>()?;
        entries.into_iter().for_each(|entry| self.core.take(entry));
        self.trained(ctx);
        Ok(())
    }
}

impl Handler<Rewarded> for Learner {
    type Result = ();

    fn handle(&mut self, _: Rewarded, ctx: &mut Self::Context) {
        ctx.run_later(GATHER, |learner, ctx| learner.take_rewards(ctx));
    }
}

impl Handler<Look> for Learner {
    type Result = actix::MessageResult<Look>;

    fn handle(&mut self, _: Look, ctx: &mut Self::Context) -> Self::Result {
        self.take_rewards(ctx);
        actix::MessageResult(self.shared.snapshot())
    }
}

impl Handler<ChangeLearnerParameters> for Learner {
    type Result = AtomicResponse<Self, Result<(), ChangeFailed>>;

    fn handle(&mut self, message: ChangeLearnerParameters, _: &mut Self::Context) -> Self::Result {
        let posted = self.core.snapshot().posted.merged(&message.0);
        let file = self.data_path.join(storage::LEARNER_FILE);
        let save = async {
            let posted: Parameters = posted?;
            super::save(file, LearnerFile::of(&posted)).await?;
            Ok(posted)
        };
        AtomicResponse::new(Box::pin(save.into_actor(self).map(
            |saved: Result<Parameters, ChangeFailed>, actor, ctx| {
                actor.core.set_parameters(saved?);
                actor.trained(ctx);
                Ok(())
            },
        )))
    }
}

impl Handler<ResetLearner> for Learner {
    type Result = AtomicResponse<Self, Result<(), StorageError>>;

    fn handle(&mut self, _: ResetLearner, _: &mut Self::Context) -> Self::Result {
        self.core.reset();
        self.shared.forget_rewards();
        self.changes += 1;
        self.publish();
        AtomicResponse::new(Box::pin(self.save_now()))
    }
}

impl Handler<ImportModel> for Learner {
    type Result = AtomicResponse<Self, Result<(), ImportFailed>>;

    fn handle(&mut self, ImportModel(model): ImportModel, _: &mut Self::Context) -> Self::Result {
        if let Err(unfit) = self.core.import(&model) {
            return AtomicResponse::new(Box::pin(async { Err(unfit.into()) }.into_actor(self)));
        }
        self.changes += 1;
        self.publish();
        AtomicResponse::new(Box::pin(self.save_now().map(|saved, _, _| Ok(saved?))))
    }
}

impl Handler<ReserveEids> for Learner {
    type Result = AtomicResponse<Self, Result<(), StorageError>>;

    fn handle(&mut self, _: ReserveEids, _: &mut Self::Context) -> Self::Result {
        let shared = Arc::clone(&self.shared);
        let file = self.data_path.join(storage::EIDS_FILE);
        AtomicResponse::new(Box::pin(
            async move {
                let Some(reserved) = shared.eids.wanted() else { return Ok(()) };
                super::save(file, reserved).await?;
                shared.eids.reserved(reserved);
                Ok(())
            }
            .into_actor(self),
        ))
    }
}

impl Handler<SaveModel> for Learner {
    type Result = AtomicResponse<Self, Result<(), StorageError>>;

    fn handle(&mut self, _: SaveModel, ctx: &mut Self::Context) -> Self::Result {
        self.take_rewards(ctx);
        AtomicResponse::new(Box::pin(self.save_now()))
    }
}

impl Handler<JobEnded> for Learner {
    type Result = ();

    fn handle(&mut self, JobEnded(number, done): JobEnded, ctx: &mut Self::Context) {
        self.core.job_done(number, done);
        self.trained(ctx);
    }
}
