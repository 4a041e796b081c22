//! :19020, the learner: act, train, parameters, stats, weights, the model.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bit_by_bit::BitByBit;
use super::body::{Uploads, read_body};
use super::entries::{read_batch, read_eid, read_number, read_state};
use super::errors;
use super::node_api::{begin_change, changed, check_admin, check_training, internal, to_the_end};
use crate::actors::learner::{
    ChangeFailed, ChangeLearnerParameters, GetSnapshot, ImportFailed, ImportModel, PATIENCE,
    ResetLearner, SAVING_TIME, ToldEntry, Train,
};
use crate::call::state::NodeState;
use crate::config::Settings;
use crate::error::Error;
use crate::rl::BadEntry;
use crate::rl::learner::{Choice, Snapshot};
use crate::rl::model::Model;
use crate::rl::stats::LearnerStats;
use crate::wire::headers;
use crate::wire::json::Bounds;
use crate::wire::read_object;

/// Long answers under way at most; further ones wait.
const EXPORTS_MAX: usize = 4;
/// Bytes of a batch from which it is a long one.
const LONG_BATCH_BYTES: usize = 4 << 10;
/// Bytes of a batch from which it is parsed aside, so that others are not held up.
const PARSED_ASIDE_BYTES: usize = 64 << 10;

/// `bytes`, or what all bodies to the learner may hold if that is less: for a larger one there would
/// never be room, and its client would try again for ever.
fn within_bodies(bytes: u64, settings: &Settings) -> usize {
    usize::try_from(bytes.min(settings.learner_bodies_bytes_max)).unwrap_or(usize::MAX)
}

/// What a model that is imported may be: one that fits in the learner's memory is no longer than
/// that. What is made of it is bounded again as it is read.
pub fn model_bounds(settings: &Settings) -> Bounds {
    let bytes = within_bodies(settings.learner_memory_bytes_max, settings);
    Bounds {
        bytes,
        depth: 8,
        entries: bytes / 2,
        string_bytes: 256,
        values: bytes / 2 + 1,
        long: &[],
    }
}

/// A thread's share of the learner's servers.
pub struct LearnerWorker {
    /// The node.
    pub node: Arc<NodeState>,
    uploads: Uploads,
    rng: RefCell<SmallRng>,
    /// Long answers that are under way: each keeps a thread busy, and what is learnt as it was.
    exports: Arc<Semaphore>,
    /// Long batches and models are taken in one after the other: an entry takes several times the
    /// bytes that it has in its batch.
    batches: Arc<Semaphore>,
}

type Worker = web::Data<Rc<LearnerWorker>>;

impl LearnerWorker {
    /// For the current thread.
    pub fn new(node: Arc<NodeState>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the edge where decisions get their chance")]
        let rng = RefCell::new(SmallRng::seed_from_u64(rand::random()));
        let uploads = Uploads::new(&node.settings, node.learner_bodies());
        Self {
            uploads,
            node,
            rng,
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            batches: Arc::new(Semaphore::new(1)),
        }
    }

    /// Decides in `state`, all actions being possible.
    ///
    /// # Errors
    /// That cannot be a state.
    pub fn act(&self, state: &[f64]) -> Result<Choice, BadEntry> {
        let snapshot = self.node.learning.snapshot();
        snapshot.check(state)?;
        Ok(snapshot.decide(state, usize::MAX, &mut *self.rng.borrow_mut()))
    }

    async fn look(&self) -> Result<Arc<Snapshot>, Error> {
        let learner = &self.node.learning.learner;
        learner.ask_within(PATIENCE.stuck, || GetSnapshot).await.map_err(internal)
    }

    /// A turn for what takes much more memory than its body; others wait for theirs meanwhile.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.batches).acquire_owned().await.map_err(internal)
    }

    async fn train(&self, batch: Vec<ToldEntry>) -> Result<(), Error> {
        let batch = Arc::new(batch);
        let train = || Train(Arc::clone(&batch));
        let trained = self.node.learning.learner.ask_within(PATIENCE.stuck, train).await;
        trained.map_err(internal)?.map_err(malformed)
    }
}

fn malformed(why: impl fmt::Display) -> Error {
    Error::Malformed(why.to_string())
}

fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok")
}

fn answer(worker: &LearnerWorker, result: Result<HttpResponse, Error>) -> HttpResponse {
    result.unwrap_or_else(|error| {
        worker.node.refused(&error);
        errors::response(&error)
    })
}

/// `GET /`.
pub async fn greeting() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .body(format!("This is the learner service of p2pfaas {}\n", crate::VERSION))
}

/// `GET /act`.
pub async fn act(request: HttpRequest, worker: Worker) -> HttpResponse {
    let state = headers::text(request.headers(), &headers::TRAIN_STATE);
    let chosen = read_state(state)
        .map_err(malformed)
        .and_then(|state| worker.act(&state).map_err(malformed));
    answer(
        &worker,
        chosen.map(|Choice { action, epsilon }| {
            HttpResponse::Ok()
                .content_type("text/plain; charset=utf-8")
                // Debug keeps the decimal point of a whole number, as v1 does.
                .insert_header((headers::EPS.clone(), format!("{epsilon:?}")))
                .body(action.to_string())
        }),
    )
}

/// `GET /train`.
pub async fn train(request: HttpRequest, worker: Worker) -> HttpResponse {
    let read = || {
        let text = |name| headers::text(request.headers(), name);
        let of = |name: &header::HeaderName, why: String| format!("{name}: {why}");
        let number = |name| read_number(text(name)).map_err(|why| of(name, why));
        let eid = &headers::TRAIN_EID;
        Ok(ToldEntry {
            eid: read_eid(text(eid)).map_err(|why| of(eid, why))?,
            state: read_state(text(&headers::TRAIN_STATE))
                .map_err(|why| of(&headers::TRAIN_STATE, why))?,
            action: number(&headers::TRAIN_ACTION)?,
            reward: number(&headers::TRAIN_REWARD)?,
        })
    };
    let trained = async {
        check_training(&request, &worker.node)?;
        let told: Result<ToldEntry, String> = read();
        worker.train(vec![told.map_err(malformed)?]).await
    };
    answer(&worker, trained.await.map(|()| ok()))
}

/// `POST /train_batch`.
pub async fn train_batch(
    request: HttpRequest,
    payload: web::Payload,
    worker: Worker,
) -> HttpResponse {
    let trained = async {
        check_training(&request, &worker.node)?;
        let settings = &worker.node.settings;
        let limit_bytes = within_bodies(settings.whole_body_bytes_max() as u64, settings);
        let (body, held) = read_body(&request, payload, limit_bytes, &worker.uploads).await?;
        let alone = match body.len() {
            LONG_BATCH_BYTES.. => Some(worker.turn().await?),
            _ => None,
        };
        let of = Rc::clone(&worker);
        to_the_end((held, alone), async move {
            let batch = match body.len() {
                PARSED_ASIDE_BYTES.. => {
                    let read = actix_rt::task::spawn_blocking(move || read_batch(&body));
                    read.await.map_err(internal)?
                }
                _ => read_batch(&body),
            };
            of.train(batch.map_err(Error::Malformed)?).await
        })
        .await
    };
    answer(&worker, trained.await.map(|()| ok()))
}

/// `GET /learner/parameters`.
pub async fn parameters(worker: Worker) -> HttpResponse {
    answer(
        &worker,
        worker.look().await.map(|snapshot| {
            HttpResponse::Ok().json(serde_json::json!({
                "name": snapshot.running.learner_name(),
                "parameters": *snapshot.posted,
                "running": *snapshot.running,
            }))
        }),
    )
}

/// `POST /learner/parameters`.
pub async fn change_parameters(
    request: HttpRequest,
    payload: web::Payload,
    worker: Worker,
) -> HttpResponse {
    let change = async {
        check_admin(&request, &worker.node)?;
        let (body, held) =
            read_body(&request, payload, Bounds::SMALL.bytes, &worker.uploads).await?;
        let patch: Map<String, Value> =
            read_object(&body, &Bounds::SMALL).map_err(Error::Malformed)?;
        let (begun, node) = (begin_change(&worker.node)?, Arc::clone(&worker.node));
        to_the_end((held, begun), async move {
            let change = || ChangeLearnerParameters(patch.clone());
            let changed = node.learning.learner.ask_within(PATIENCE.stuck, change).await;
            changed.map_err(internal)?.map_err(|why| match why {
                ChangeFailed::Bad(why) => malformed(why),
                ChangeFailed::Storage(why) => internal(why),
            })
        })
        .await
    };
    changed(&worker.node, change.await)
}

/// `GET /learner/stats`.
pub async fn stats(worker: Worker) -> HttpResponse {
    let told = worker.look().await.map(|snapshot| {
        let active = worker.node.in_force.load();
        let memory = active.policy.memory();
        HttpResponse::Ok().json(StatsWithMemory {
            learner: worker.node.learning.stats(&snapshot),
            scheduler: memory.map(|memory| SchedulerMemory { name: &active.full_name, memory }),
        })
    });
    answer(&worker, told)
}

/// What the learner tells of itself, and what the algorithm in force has learnt without it.
#[derive(Serialize)]
struct StatsWithMemory<'a> {
    #[serde(flatten)]
    learner: LearnerStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler: Option<SchedulerMemory<'a>>,
}

#[derive(Serialize)]
struct SchedulerMemory<'a> {
    name: &'a str,
    memory: Value,
}

/// Answers JSON that may be long, without holding up decisions.
async fn bit_by_bit(
    worker: &Rc<LearnerWorker>,
    write: fn(&Snapshot, &mut dyn Write) -> serde_json::Result<()>,
) -> HttpResponse {
    let begun = async {
        let exports = Arc::clone(&worker.exports);
        let one = exports.acquire_owned().await.map_err(internal)?;
        let of = Rc::clone(worker);
        // A look that nobody waits for any more is made all the same.
        let look = async move { Ok((one, of.look().await?)) };
        let (one, snapshot) = to_the_end((), look).await?;
        Ok(BitByBit::of(worker.uploads.limit.length(), move |to| {
            let _one = one;
            write(&snapshot, to)
        }))
    };
    let json =
        |body: BitByBit| HttpResponse::Ok().content_type("application/json").body(body.boxed());
    answer(worker, begun.await.map(json))
}

/// `GET /learner/weights`.
pub async fn weights(worker: Worker) -> HttpResponse {
    bit_by_bit(&worker, |snapshot, to| serde_json::to_writer(to, &snapshot.values.weights())).await
}

/// `GET /learner/model`.
pub async fn model(worker: Worker) -> HttpResponse {
    bit_by_bit(&worker, |snapshot, to| serde_json::to_writer(to, &snapshot.model()?)).await
}

/// `POST /learner/model`.
pub async fn import_model(
    request: HttpRequest,
    payload: web::Payload,
    worker: Worker,
) -> HttpResponse {
    let import = async {
        check_admin(&request, &worker.node)?;
        let bounds = model_bounds(&worker.node.settings);
        let (body, held) = read_body(&request, payload, bounds.bytes, &worker.uploads).await?;
        let (alone, node) = (worker.turn().await?, Arc::clone(&worker.node));
        to_the_end((held, alone), async move {
            let read = actix_rt::task::spawn_blocking(move || read_object::<Model>(&body, &bounds));
            let model = Arc::new(read.await.map_err(internal)?.map_err(Error::Malformed)?);
            let import = || ImportModel(Arc::clone(&model));
            let imported = node.learning.learner.ask_within(SAVING_TIME, import).await;
            imported.map_err(internal)?.map_err(|why| match why {
                ImportFailed::Unfit(why) => malformed(why),
                ImportFailed::Storage(why) => internal(why),
            })
        })
        .await
    };
    changed(&worker.node, import.await)
}

/// `GET /learner/reset`.
pub async fn reset(request: HttpRequest, worker: Worker) -> HttpResponse {
    let reset = async {
        check_admin(&request, &worker.node)?;
        let learner = &worker.node.learning.learner;
        let reset = learner.ask_within(SAVING_TIME, || ResetLearner).await;
        reset.map_err(internal)?.map_err(internal)
    };
    changed(&worker.node, reset.await)
}
