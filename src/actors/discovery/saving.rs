//! The known machines on disk.

use std::rc::Rc;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;

use super::{Discovery, Known, SAVE_REST};
use crate::storage;
use crate::wire::WireMachine;

impl Discovery {
    /// Writes the known machines, alive or not: whoever is silent now may answer after a restart.
    /// `None`: those on disk are the same.
    pub(super) fn save(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        let membership = self.kept.membership.borrow();
        let known: Vec<Known> = membership.known().map(|m| (m.ip, m.is.clone())).collect();
        if known == self.saved || self.settings.follows {
            return None;
        }
        self.saved = known;
        let machines: Vec<_> = membership.known().map(WireMachine::from).collect();
        let file = self.settings.data_path.join(storage::MACHINES_FILE);
        let kept = Rc::clone(&self.kept);
        Some(async move {
            let _alone = kept.writing.lock().await;
            if let Err(error) = crate::actors::save(file, machines).await {
                tracing::error!(%error, "the known machines cannot be saved");
            }
        })
    }

    pub(super) fn save_if_changed(&mut self, ctx: &mut Context<Self>) {
        let rests = self.saved_at.is_some_and(|at| at.elapsed() < SAVE_REST);
        if self.saving || rests {
            return;
        }
        if let Some(saved) = self.save() {
            self.saving = true;
            self.saved_at = Some(Instant::now());
            ctx.spawn(saved.into_actor(self).map(|(), actor, _| actor.saving = false));
        }
    }
}
