//! Polls: who is asked when there are turns to wait for, and what follows from the answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::messages::{AskAgain, Polled};
use super::{Discovery, PollAnswer, warn_of_conflict};
use crate::membership::swimming::{ASK_AGAIN, AfterFailure};
use crate::types::may_be_machine;

impl Discovery {
    /// Polls the machines at `addresses`.
    pub(super) fn ask(&self, addresses: Vec<IpAddr>, ctx: &Context<Self>) {
        let me = self.kept.published.load().identity.clone();
        for ip in addresses {
            let briefly = self.kept.membership.borrow_mut().is_polled_briefly(ip, self.now());
            let port = self.tls_port_of(ip);
            let (poll, report) = (self.poller.poll(ip, port, &me, briefly), ctx.address());
            let turns = self.turns(ip);
            // Tasks of their own: an actor looks at all its futures whenever one of them wakes it.
            actix_rt::spawn(async move {
                let _turn = match turns {
                    Some(turns) => turns.acquire_owned().await.ok(),
                    None => None,
                };
                let asked = Instant::now();
                let answer = poll.await;
                report.do_send(Polled { ip, ping: asked.elapsed(), answer });
            });
        }
    }

    /// Where the machine at `ip` answers members by TLS, as far as that is known: by itself, or by its record.
    fn tls_port_of(&self, ip: IpAddr) -> Option<u16> {
        if let Some(port) = self.kept.membership.borrow().tls_port_of(ip) {
            return Some(port);
        }
        let record = self.swimming.swim().and_then(|swim| swim.records().of(ip).cloned())?;
        record.about.as_ref()?.tls_port
    }

    /// Whose turns a poll of the machine at `ip` waits for. Those that are not alive wait, since many nodes that
    /// begin at once would use up their connections on each other: the known for one another, those that SWIM
    /// tells of, and those that are only heard of, whose number strangers make.
    fn turns(&self, ip: IpAddr) -> Option<Arc<Semaphore>> {
        let membership = self.kept.membership.borrow();
        let class = match membership.alive_at(ip) {
            Some(_) => return None,
            None if membership.is_swimming(ip) => 1,
            None if membership.is_proven(ip) => 0,
            None => 2,
        };
        self.turns.get(class).cloned()
    }

    pub(super) fn ask_newcomers(&self, ctx: &Context<Self>) {
        let due = self.kept.membership.borrow_mut().due_first(self.now());
        self.ask(due, ctx);
    }

    pub(super) fn polled(
        &mut self,
        ip: IpAddr,
        ping: Duration,
        answer: Option<PollAnswer>,
        ctx: &Context<Self>,
    ) {
        let me = self.kept.published.load().identity.clone();
        // Who has a name that nobody can have does not answer well.
        match answer.filter(|answer| answer.leaves || answer.is.fits()) {
            Some(answer) if answer.leaves => self.left(ip),
            // It is this very node, reached by another of its addresses.
            Some(answer) if answer.ip.is_some() && answer.ip == me.ip => {
                let own = answer.ip.unwrap_or(ip);
                if self.joins.alias(ip, own, Instant::now()) {
                    tracing::info!(%ip, %own, "what answers there says it is this very node");
                }
                self.kept.membership.borrow_mut().forget(ip);
            }
            Some(answer) => {
                let (streams, is_keyed) = (answer.is.streams, answer.is.tls_port.is_some());
                self.answered(ip, ping, answer, me.ip);
                // Who has no key understands no datagram of those that have one.
                if streams && is_keyed == self.settings.about.tls_port.is_some() {
                    self.swim_with(ip, ctx);
                }
            }
            None => self.failed(ip, "a machine does not answer any more", ctx),
        }
        self.publish(None);
    }

    /// A poll of the machine at `ip`, or a call to it, did not come through. If it dies of it, that is said
    /// in the log by these `words`.
    pub(super) fn failed(&mut self, ip: IpAddr, words: &str, ctx: &Context<Self>) {
        let elapsed = self.start.elapsed();
        let after = self.swimming.failed(ip, &mut self.kept.membership.borrow_mut(), elapsed);
        match after {
            AfterFailure::Nothing => {}
            AfterFailure::Died => {
                tracing::warn!(%ip, "{words}");
                self.carry_out(ctx);
            }
            AfterFailure::AsksAgain => {
                let report = ctx.address();
                actix_rt::spawn(async move {
                    tokio::time::sleep(ASK_AGAIN).await;
                    report.do_send(AskAgain(ip));
                });
            }
        }
    }

    fn answered(&mut self, ip: IpAddr, ping: Duration, answer: PollAnswer, own: Option<IpAddr>) {
        let now = self.now();
        let mut membership = self.kept.membership.borrow_mut();
        let told = answer.ip.filter(|told| *told != ip && may_be_machine(*told, own));
        let mut is_alias = false;
        if let Some(told) = told {
            self.joins.alias(ip, told, Instant::now());
            // Known alive where it says it is, it is not listed a second time.
            is_alias = membership.alive_at(told).is_some_and(|is| is.name == answer.is.name);
        }
        if is_alias {
            membership.forget(ip);
        } else {
            let name = answer.is.name.clone();
            warn_of_conflict(membership.answered(ip, answer.is, ping, now), ip, &name);
        }
        membership.told(answer.knows, now);
        drop(membership);
        self.forget_aliases(ip);
    }
}
