//! :19020, the learner: act, train, parameters, stats, weights, the model.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::accompanied::{self, Along};
use super::body::{Uploads, read_body};
use super::node_api::{begin_change, changed, check_admin, internal};
use super::{errors, headers};
use crate::actors::learner::{
    ChangeFailed, ChangeLearnerParameters, ImportFailed, ImportModel, Look, ResetLearner, Told,
    Train,
};
use crate::error::Error;
use crate::json::{self, Bounds};
use crate::queue::Refusal;
use crate::rl::learner::{Choice, Snapshot};
use crate::rl::model::Model;
use crate::rl::{BadEntry, Eid, State};
use crate::state::NodeState;
use crate::wire::read_object;

/// A model that is imported. Its values are bounded again by the memory of the learner.
pub const MODEL: Bounds = Bounds {
    bytes: 128 << 20,
    depth: 8,
    entries: 16 << 20,
    string_bytes: 64 << 10,
    values: 64 << 20,
    long: &[],
};
/// Bytes of a batch from which it is parsed aside, so that others are not held up.
const PARSED_ASIDE_BYTES: usize = 64 << 10;

/// A thread's share of the learner's servers.
pub struct LearnerWorker {
    /// The node.
    pub node: Arc<NodeState>,
    uploads: Uploads,
    rng: RefCell<SmallRng>,
    /// Answers that are made aside, one at a time: each may be as large as the model.
    aside: Semaphore,
}

type Worker = web::Data<Rc<LearnerWorker>>;

impl LearnerWorker {
    /// For the current thread.
    pub fn new(node: Arc<NodeState>) -> Self {
        let rng = RefCell::new(SmallRng::seed_from_u64(rand::random()));
        let uploads = Uploads::new(&node.settings, node.learner_bodies());
        Self { uploads, node, rng, aside: Semaphore::new(1) }
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
        self.node.learning.learner.ask(|| Look).await.map_err(internal)
    }

    async fn train(&self, batch: Vec<Told>) -> Result<(), Error> {
        let batch: Arc<[Told]> = batch.into();
        let train = || Train(Arc::clone(&batch));
        self.node.learning.learner.ask(train).await.map_err(internal)?.map_err(malformed)
    }
}

fn malformed(why: impl fmt::Display) -> Error {
    Error::Malformed(why.to_string())
}

/// Reads `1.0,0.0,2.0`.
fn read_state(text: &str) -> Result<State, String> {
    text.split(',').map(read_number).collect()
}

fn read_number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no number"))
}

/// Reads `7` or `7.0`.
fn read_eid(text: &str) -> Result<Eid, String> {
    let whole = text.trim().parse().ok();
    let eid = whole.or_else(|| text.trim().parse().ok().and_then(eid_of));
    eid.ok_or_else(|| format!("{text:?} is no EID"))
}

fn eid_of(number: f64) -> Option<Eid> {
    // Beyond 2^53 a float is no longer one number.
    let is_one = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
    is_one.then_some(number as Eid)
}

/// A number as number or text.
struct Number(f64);
/// An EID likewise.
struct EidValue(Eid);
/// A state as text or list of numbers.
struct StateValue(State);

macro_rules! as_number_or_text {
    ($type:ident, $visitor:ident, $what:literal, $float:expr, $whole:expr, $text:expr) => {
        struct $visitor;

        impl Visitor<'_> for $visitor {
            type Value = $type;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<$type, E> {
                $float(number)
                    .map($type)
                    .ok_or_else(|| E::custom(format!("{number} is not {}", $what)))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                Ok($type($whole(number)))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                self.visit_f64(number as f64)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                $text(text).map($type).map_err(E::custom)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any($visitor)
            }
        }
    };
}

as_number_or_text!(Number, NumberVisitor, "a number", Some, |n| n as f64, read_number);
as_number_or_text!(EidValue, EidVisitor, "an EID", eid_of, |n| n, read_eid);

impl<'de> Deserialize<'de> for StateValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct StateVisitor;

        impl<'de> Visitor<'de> for StateVisitor {
            type Value = StateValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a state: numbers separated by commas, or a list of numbers")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StateValue, E> {
                read_state(text).map(StateValue).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StateValue, A::Error> {
                let mut state = Vec::new();
                while let Some(Number(feature)) = list.next_element()? {
                    if state.len() >= crate::rl::FEATURES_MAX {
                        return Err(A::Error::custom(BadEntry::Features(state.len() + 1)));
                    }
                    state.push(feature);
                }
                Ok(StateValue(state.into()))
            }
        }

        from.deserialize_any(StateVisitor)
    }
}

#[derive(serde::Deserialize)]
struct WireEntry {
    eid: EidValue,
    state: StateValue,
    action: Number,
    reward: Number,
}

impl From<WireEntry> for Told {
    fn from(entry: WireEntry) -> Self {
        let WireEntry { eid, state, action, reward } = entry;
        Self { eid: eid.0, state: state.0, action: action.0, reward: reward.0 }
    }
}

fn read_batch(body: &[u8]) -> Result<Vec<Told>, String> {
    let bounds = Bounds {
        bytes: body.len(),
        depth: 4,
        entries: 1 << 20,
        string_bytes: 64 << 10,
        values: body.len() / 2 + 1,
        long: &[],
    };
    let batch: Vec<WireEntry> = json::read(body, &bounds).map_err(|why| why.to_string())?;
    if batch.is_empty() {
        return Err("the batch is empty".to_owned());
    }
    Ok(batch.into_iter().map(Told::from).collect())
}

fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok")
}

fn answer(result: Result<HttpResponse, Error>) -> HttpResponse {
    result.unwrap_or_else(|error| errors::response(&error))
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
    answer(chosen.map(|Choice { action, epsilon }| {
        HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            // Debug keeps the decimal point of a whole number, as v1 does.
            .insert_header((headers::EPS.clone(), format!("{epsilon:?}")))
            .body(action.to_string())
    }))
}

/// `GET /train`.
pub async fn train(request: HttpRequest, worker: Worker) -> HttpResponse {
    let read = || {
        let text = |name| headers::text(request.headers(), name);
        let of = |name: &header::HeaderName, why: String| format!("{name}: {why}");
        let number = |name| read_number(text(name)).map_err(|why| of(name, why));
        let eid = &headers::TRAIN_EID;
        Ok(Told {
            eid: read_eid(text(eid)).map_err(|why| of(eid, why))?,
            state: read_state(text(&headers::TRAIN_STATE))
                .map_err(|why| of(&headers::TRAIN_STATE, why))?,
            action: number(&headers::TRAIN_ACTION)?,
            reward: number(&headers::TRAIN_REWARD)?,
        })
    };
    let trained = async {
        let told: Result<Told, String> = read();
        worker.train(vec![told.map_err(malformed)?]).await
    };
    answer(trained.await.map(|()| ok()))
}

/// `POST /train_batch`.
pub async fn train_batch(
    request: HttpRequest,
    payload: web::Payload,
    worker: Worker,
) -> HttpResponse {
    let trained = async {
        let limit_bytes = worker.node.settings.body_bytes_max;
        let (body, _held) = read_body(&request, payload, limit_bytes, &worker.uploads).await?;
        let batch = match body.len() {
            PARSED_ASIDE_BYTES.. => {
                actix_rt::task::spawn_blocking(move || read_batch(&body)).await.map_err(internal)?
            }
            _ => read_batch(&body),
        };
        worker.train(batch.map_err(Error::Malformed)?).await
    };
    answer(trained.await.map(|()| ok()))
}

/// `GET /learner/parameters`.
pub async fn parameters(worker: Worker) -> HttpResponse {
    answer(worker.look().await.map(|snapshot| {
        HttpResponse::Ok().json(serde_json::json!({
            "name": snapshot.running.learner_name(),
            "parameters": *snapshot.posted,
            "running": *snapshot.running,
        }))
    }))
}

/// `POST /learner/parameters`.
pub async fn change_parameters(
    request: HttpRequest,
    payload: web::Payload,
    worker: Worker,
) -> HttpResponse {
    let change = async {
        check_admin(&request, &worker.node)?;
        let (body, _held) =
            read_body(&request, payload, Bounds::SMALL.bytes, &worker.uploads).await?;
        let patch: Map<String, Value> =
            read_object(&body, &Bounds::SMALL).map_err(Error::Malformed)?;
        let _begun = begin_change(&worker.node)?;
        let change = || ChangeLearnerParameters(patch.clone());
        let changed = worker.node.learning.learner.ask(change).await.map_err(internal)?;
        changed.map_err(|why| match why {
            ChangeFailed::Bad(why) => malformed(why),
            ChangeFailed::Storage(why) => internal(why),
        })
    };
    changed(&worker.node, change.await)
}

/// `GET /learner/stats`.
pub async fn stats(worker: Worker) -> HttpResponse {
    answer(
        worker
            .look()
            .await
            .map(|snapshot| HttpResponse::Ok().json(worker.node.learning.stats(&snapshot))),
    )
}

/// Answers JSON that may take a while to make, without holding up decisions. What it holds counts
/// as a body until it is sent.
async fn made_aside(
    request: &HttpRequest,
    worker: &LearnerWorker,
    make: fn(&Snapshot) -> serde_json::Result<Vec<u8>>,
) -> HttpResponse {
    let made = async {
        let _one_at_a_time = worker.aside.acquire().await.map_err(internal)?;
        let snapshot = worker.look().await?;
        let made = actix_rt::task::spawn_blocking(move || make(&snapshot));
        let body = made.await.map_err(internal)?.map_err(internal)?;
        let held = worker.uploads.bodies.budget.take_up_to(body.len() as u64);
        let held = held.ok_or(Refusal::BytesFull)?;
        Ok((body, held))
    };
    let json = |(body, held)| {
        let along = Along { held: Some(held), ..Along::default() };
        let mut builder = HttpResponse::Ok();
        builder.content_type("application/json");
        accompanied::respond(&mut builder, body, along, request.conn_data())
    };
    answer(made.await.map(json))
}

/// `GET /learner/weights`.
pub async fn weights(request: HttpRequest, worker: Worker) -> HttpResponse {
    made_aside(&request, &worker, |snapshot| serde_json::to_vec(&snapshot.values.weights())).await
}

/// `GET /learner/model`.
pub async fn model(request: HttpRequest, worker: Worker) -> HttpResponse {
    made_aside(&request, &worker, |snapshot| serde_json::to_vec(&snapshot.model()?)).await
}

/// `POST /learner/model`.
pub async fn import_model(
    request: HttpRequest,
    payload: web::Payload,
    worker: Worker,
) -> HttpResponse {
    let import = async {
        check_admin(&request, &worker.node)?;
        let (body, _held) = read_body(&request, payload, MODEL.bytes, &worker.uploads).await?;
        let read = actix_rt::task::spawn_blocking(move || read_object::<Model>(&body, &MODEL));
        let model = Arc::new(read.await.map_err(internal)?.map_err(Error::Malformed)?);
        let import = || ImportModel(Arc::clone(&model));
        let imported = worker.node.learning.learner.ask(import).await.map_err(internal)?;
        imported.map_err(|why| match why {
            ImportFailed::Unfit(why) => malformed(why),
            ImportFailed::Storage(why) => internal(why),
        })
    };
    changed(&worker.node, import.await)
}

/// `GET /learner/reset`.
pub async fn reset(request: HttpRequest, worker: Worker) -> HttpResponse {
    let reset = async {
        check_admin(&request, &worker.node)?;
        worker.node.learning.learner.ask(|| ResetLearner).await.map_err(internal)?.map_err(internal)
    };
    changed(&worker.node, reset.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entry: &str) -> Result<Told, String> {
        serde_json::from_str::<WireEntry>(entry).map(Told::from).map_err(|why| why.to_string())
    }

    #[test]
    fn every_number_may_be_a_number_or_text() {
        let wanted = Ok(Told { eid: 7, state: [0.0, 1.5].into(), action: 1.0, reward: -0.5 });
        for entry in [
            r#"{"eid":7,"state":"0.0,1.5","action":1,"reward":-0.5}"#,
            r#"{"eid":"7","state":" 0, 1.5","action":"1.000000","reward":"-0.5","more":1}"#,
            r#"{"eid":"7.0","state":[0,1.5],"action":1.0,"reward":-5e-1}"#,
            r#"{"eid":7.0,"state":["0.0","1.5"],"action":"1","reward":-0.5}"#,
        ] {
            assert_eq!(read(entry), wanted, "{entry}");
        }
        let large = r#"{"eid":9223372036854775807,"state":"1","action":0,"reward":1}"#;
        assert_eq!(read(large).map(|told| told.eid), Ok(i64::MAX as u64), "no detour by floats");
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        for entry in [
            r#"{"eid":7,"state":"0","action":1}"#,
            r#"{"eid":-7,"state":"0","action":1,"reward":1}"#,
            r#"{"eid":7.5,"state":"0","action":1,"reward":1}"#,
            r#"{"eid":"x","state":"0","action":1,"reward":1}"#,
            r#"{"eid":7,"state":"0,,1","action":1,"reward":1}"#,
            r#"{"eid":7,"state":"","action":1,"reward":1}"#,
            r#"{"eid":7,"state":7,"action":1,"reward":1}"#,
            r#"{"eid":7,"state":"0","action":true,"reward":1}"#,
            r#"{"eid":7,"state":"0","action":1,"reward":null}"#,
            r#"{"eid":7,"state":"0","action":1,"reward":"much"}"#,
            "7",
        ] {
            assert!(read(entry).is_err(), "{entry}");
        }
    }
}
