//! The supervision tree.
//!
//! ```text
//! Supervisor ─┬─ Queue      K and the waiting line
//!             ├─ Switch     which algorithm is in force, and its file
//!             ├─ Discovery  membership, gossip, failure detection
//!             ├─ Learner    what is learnt: reordering, training, the model (a thread of its own)
//!             └─ Gateway    the HTTP servers ── per worker thread: one Scheduler per algorithm
//! ```
//!
//! Actors know the core and each other's messages. They know no HTTP: what they ask of the network
//! goes through a trait that the edge implements ([`scheduler::Prober`], [`discovery::Poller`],
//! [`gateway::Serve`]), so that each can be tested alone with time under control.
//!
//! Each answers [`observe::Observe`] with its state; the Supervisor replaces those that do not.

pub mod discovery;
pub mod gateway;
pub mod learner;
pub mod observe;
pub mod queue;
pub mod replicas;
pub mod scheduler;
pub mod supervise;
pub mod supervisor;
pub mod switch;

use actix::{ActorContext, Handler};

use self::supervise::EndActor;

/// Every child of the tree ends when it is told to.
macro_rules! ends {
    ($($actor:ty),+) => { $(
        impl Handler<EndActor> for $actor {
            type Result = ();
            fn handle(&mut self, _: EndActor, ctx: &mut Self::Context) {
                ctx.stop();
            }
        }
    )+ };
}

ends!(discovery::Discovery, gateway::Gateway, learner::LearnerActor, queue::Queue, switch::Switch);

/// Writes a small file without blocking the actor's thread.
async fn save<T: serde::Serialize + Send + 'static>(
    path: std::path::PathBuf,
    value: T,
) -> Result<(), crate::storage::StorageError> {
    let written = {
        let path = path.clone();
        actix_rt::task::spawn_blocking(move || crate::storage::write(&path, &value)).await
    };
    written.unwrap_or_else(|ended| {
        let source = std::io::Error::other(ended);
        Err(crate::storage::StorageError::Io { path, source })
    })
}

/// What an incarnation that was replaced answers to whoever still waits for it.
fn replaced(path: impl Into<std::path::PathBuf>) -> crate::storage::StorageError {
    let source = std::io::Error::other("the part of the node that was to save it was replaced");
    let path = path.into();
    crate::storage::StorageError::Io { path, source }
}

/// A message that makes any actor panic, to see that it is restarted.
#[cfg(test)]
pub(crate) struct Crash;

#[cfg(test)]
impl actix::Message for Crash {
    type Result = ();
}

/// A message that makes any actor hang until the other end of the channel is dropped, as one does
/// that waits for a disk.
#[cfg(test)]
pub(crate) struct Hang(pub tokio::sync::oneshot::Receiver<()>);

#[cfg(test)]
impl actix::Message for Hang {
    type Result = ();
}

#[cfg(test)]
mod faults {
    use super::*;
    use actix::{ActorFutureExt, AtomicResponse, WrapFuture};

    macro_rules! crashes {
        ($($actor:ty),+) => { $(
            impl Handler<Crash> for $actor {
                type Result = ();
                fn handle(&mut self, _: Crash, _: &mut Self::Context) {
                    panic!("told to crash");
                }
            }

            impl Handler<Hang> for $actor {
                type Result = AtomicResponse<Self, ()>;
                fn handle(&mut self, Hang(until): Hang, _: &mut Self::Context) -> Self::Result {
                    AtomicResponse::new(Box::pin(until.into_actor(self).map(|_, _, _| ())))
                }
            }
        )+ };
    }

    crashes!(
        discovery::Discovery,
        gateway::Gateway,
        learner::LearnerActor,
        queue::Queue,
        scheduler::Scheduler,
        switch::Switch
    );
}
