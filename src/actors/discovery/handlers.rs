//! What Discovery does with each message.

use std::rc::Rc;

use actix::{ActorFutureExt, AtomicResponse, Handler, MessageResult, ResponseFuture, WrapFuture};

use super::messages::{AskAgain, Polled, Resolved};
use super::{
    ChangeMachineConfig, Discovery, Flush, GetMachineConfig, Leave, ListMachines, Listing, Reset,
    Unreachable,
};
use futures_util::future::join_all;

use crate::actors::observe::{ActorState, Observe};
use crate::error::NoMachineIp;
use crate::lock;
use crate::membership::Standing;
use crate::saved::{Layered, MachinePatch};
use crate::storage::{self, StorageError};
use crate::types::Neighbours;

impl Handler<Polled> for Discovery {
    type Result = ();

    fn handle(&mut self, Polled { ip, ping, answer }: Polled, ctx: &mut Self::Context) {
        self.polled(ip, ping, answer, ctx);
        self.ask_newcomers(ctx);
    }
}

impl Handler<AskAgain> for Discovery {
    type Result = ();

    fn handle(&mut self, AskAgain(ip): AskAgain, ctx: &mut Self::Context) {
        let now = self.now();
        if self.swimming.asks_again(ip, &mut self.kept.membership.borrow_mut(), now) {
            self.ask(vec![ip], ctx);
        }
    }
}

impl Handler<Resolved> for Discovery {
    type Result = ();

    fn handle(&mut self, Resolved { name, addresses }: Resolved, ctx: &mut Self::Context) {
        for ip in self.joins.end(&name, addresses) {
            self.join(ip);
        }
        self.resolve(ctx);
        self.ask_newcomers(ctx);
    }
}

impl Handler<ListMachines> for Discovery {
    type Result = MessageResult<ListMachines>;

    fn handle(&mut self, message: ListMachines, ctx: &mut Self::Context) -> Self::Result {
        match message.caller {
            Some((ip, _)) if message.leaves => self.ask_whether_it_leaves(ip, ctx),
            Some((ip, is)) => {
                self.called(ip, is);
                self.ask_newcomers(ctx);
            }
            None => {}
        }
        let identity = self.kept.published.load().identity.clone();
        let membership = self.kept.membership.borrow();
        let machines = membership.listed(self.now().elapsed);
        MessageResult(Listing { identity, machines })
    }
}

impl Handler<GetMachineConfig> for Discovery {
    type Result = Result<MachinePatch, NoMachineIp>;

    fn handle(&mut self, _: GetMachineConfig, _: &mut Self::Context) -> Self::Result {
        let identity = self.kept.published.load().identity.clone();
        identity.ip.ok_or(NoMachineIp)?;
        let config = lock(&self.kept.config).running.clone();
        let neighbours = config.neighbours.filter(|neighbours| *neighbours != Neighbours::All);
        Ok(MachinePatch {
            machine_ip: Some(identity.ip_text()),
            machine_id: Some(identity.id),
            machine_group_name: Some(identity.group),
            init_servers: Some(config.init_servers),
            neighbours: neighbours.map(|neighbours| neighbours.to_string()),
        })
    }
}

impl Handler<ChangeMachineConfig> for Discovery {
    type Result = AtomicResponse<Self, Result<(), StorageError>>;

    fn handle(&mut self, change: ChangeMachineConfig, _: &mut Self::Context) -> Self::Result {
        let file = self.settings.data_path.join(storage::DISCOVERY_FILE);
        let kept = Rc::clone(&self.kept);
        let saved = async move {
            let _alone = kept.writing.lock().await;
            let old = lock(&kept.config).clone();
            let new = Layered {
                running: old.running.merged(&change.0),
                saved: old.saved.merged(&change.0),
            };
            crate::actors::save(file, new.saved.to_patch()).await?;
            *lock(&kept.config) = new;
            Ok(())
        };
        AtomicResponse::new(Box::pin(saved.into_actor(self).map(|saved, actor, ctx| {
            saved?;
            actor.configure();
            actor.swimming.has_news();
            actor.tell(ctx);
            actor.ask_init_servers(ctx);
            Ok(())
        })))
    }
}

impl Handler<Reset> for Discovery {
    type Result = ();

    fn handle(&mut self, _: Reset, _: &mut Self::Context) {
        self.kept.membership.borrow_mut().reset();
        self.joins.reset();
        // It takes part anew, and so hears again of all that are there.
        self.swimming.stop();
        self.publish(None);
    }
}

impl Handler<Unreachable> for Discovery {
    type Result = ();

    fn handle(&mut self, message: Unreachable, ctx: &mut Self::Context) {
        let Unreachable { ip, own_deadline } = message;
        // A short deadline of one's own proves nothing of a machine that is heard: it may be far.
        if own_deadline && self.kept.membership.borrow().is_swimming(ip) {
            return;
        }
        self.failed(ip, "a machine cannot be connected to any more", ctx);
    }
}

impl Handler<Leave> for Discovery {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) -> Self::Result {
        self.leaving = true;
        self.swim_away(ctx);
        let me = self.kept.published.load().identity.clone();
        if me.ip.is_none() {
            return Box::pin(async {});
        }
        let membership = self.kept.membership.borrow();
        // Those that speak v1's protocol alone would take it for a sign of life.
        let told = membership.list().into_iter().filter(|machine| machine.is.streams);
        let told: Vec<_> = told
            .map(|machine| self.poller.farewell(machine.ip, machine.is.tls_port, &me))
            .collect();
        Box::pin(async move {
            join_all(told).await;
        })
    }
}

impl Handler<Flush> for Discovery {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Flush, _: &mut Self::Context) -> Self::Result {
        match self.save() {
            Some(saved) => Box::pin(saved),
            None => Box::pin(async {}),
        }
    }
}

impl Handler<Observe> for Discovery {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let membership = self.kept.membership.borrow();
        MessageResult(ActorState::Discovery {
            alive: membership.count(Standing::Alive),
            hearsay: membership.count(Standing::Hearsay),
            dead: membership.count(Standing::Dead),
        })
    }
}
