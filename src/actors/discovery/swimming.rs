//! SWIM in the Discovery actor: datagrams and timers in, its effects out.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use actix::{AsyncContext, Context, Handler};
use actix_rt::task::JoinHandle;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::messages::{SwimRefused, SwimWoken};
use super::{Discovery, SwimDatagram};
use crate::membership::swimming::SwimErrand;

impl Discovery {
    /// Takes part under this node's address, once it has one.
    pub(super) fn swim(&mut self, ctx: &Context<Self>) {
        let Some(ip) = self.kept.published.load().identity.ip else { return };
        if self.settings.follows || self.leaving || !self.poller.swims() {
            return;
        }
        let (elapsed, seed) = (self.start.elapsed(), self.settings.seed);
        // Later starts have later times. Where a clock was set back, the others tell.
        let rng = || Box::new(StdRng::seed_from_u64(seed)) as Box<_>;
        self.swimming.takes_part(ip, unix_ms(), rng, elapsed);
        self.carry_out(ctx);
    }

    /// Asks the machine at `ip`, which speaks our protocol, to be taken in, unless it has done so.
    pub(super) fn swim_with(&mut self, ip: IpAddr, ctx: &Context<Self>) {
        self.swimming.join(ip, &self.kept.membership.borrow(), self.start.elapsed());
        self.carry_out(ctx);
    }

    /// The others are to know that this node stops.
    pub(super) fn swim_away(&mut self, ctx: &Context<Self>) {
        self.swimming.leave(self.start.elapsed());
        self.carry_out(ctx);
        self.swimming.stop();
    }

    pub(super) fn carry_out(&mut self, ctx: &Context<Self>) {
        let (mut asks, now) = (Vec::new(), self.now());
        let errands = self.swimming.errands(&mut self.kept.membership.borrow_mut(), now);
        for errand in errands {
            match errand {
                SwimErrand::Send { to, datagram } => self.poller.datagram(to, &datagram),
                SwimErrand::Poll(ip) => asks.push(ip),
                SwimErrand::Try(ip) => {
                    let (refuses, report) = (self.poller.refuses(ip), ctx.address());
                    actix_rt::spawn(async move {
                        if refuses.await {
                            report.do_send(SwimRefused(ip));
                        }
                    });
                }
                SwimErrand::BeganAnew => {
                    tracing::warn!("strange datagrams: SWIM begins anew");
                }
            }
        }
        self.arm(ctx);
        self.publish(None);
        self.ask(asks, ctx);
    }

    /// Sees to it that this actor is woken for the next timer that cannot wait: one task for all of them, since
    /// each wake-up costs more than what is done in it.
    fn arm(&mut self, ctx: &Context<Self>) {
        let next = self.swimming.wakes_at();
        if next == self.waking.as_ref().map(|(due, _)| *due) {
            return;
        }
        self.waking = next.map(|due| {
            let (at, report) = (self.start + due, ctx.address());
            let task = actix_rt::spawn(async move {
                tokio::time::sleep_until(at).await;
                report.do_send(SwimWoken);
            });
            (due, Waking(task))
        });
    }
}

/// A task that ends when nobody waits for it any more.
pub(super) struct Waking(JoinHandle<()>);

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "starts are told apart by their time")]
pub(super) fn unix_ms() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(unix.as_millis()).unwrap_or_default()
}

impl Handler<SwimDatagram> for Discovery {
    type Result = ();

    fn handle(&mut self, datagram: SwimDatagram, ctx: &mut Self::Context) {
        if self.swimming.swim().is_none() {
            return;
        }
        match self.swimming.hears(datagram.from, &datagram.bytes, self.start.elapsed()) {
            Ok(()) => self.carry_out(ctx),
            Err(why) => {
                tracing::debug!(from = %datagram.from, %why, "a datagram is none of SWIM's");
            }
        }
    }
}

impl Handler<SwimWoken> for Discovery {
    type Result = ();

    fn handle(&mut self, _: SwimWoken, ctx: &mut Self::Context) {
        self.waking = None;
        if self.swimming.swim().is_none() {
            return;
        }
        self.swimming.wakes(self.start.elapsed());
        self.carry_out(ctx);
        // It is awake anyway.
        self.tell(ctx);
    }
}

impl Handler<SwimRefused> for Discovery {
    type Result = ();

    fn handle(&mut self, SwimRefused(ip): SwimRefused, ctx: &mut Self::Context) {
        if self.swimming.swim().is_some() {
            self.swimming.without(ip, self.start.elapsed());
            self.carry_out(ctx);
        }
    }
}
