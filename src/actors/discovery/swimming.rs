//! SWIM in the Discovery actor: datagrams and timers in, its effects out.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{AsyncContext, Context, Handler};
use actix_rt::task::JoinHandle;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::messages::{SwimRefused, SwimWoken};
use super::{Discovery, SwimDatagram};
use crate::membership::swim::{Swim, SwimEffect, SwimId};

/// Nodes that are asked between two polls to take this one in: while it knows nobody, and then. Each answer names
/// dozens of others.
const JOINS_FIRST: usize = 8;
const JOINS_MORE: usize = 2;
/// Timers of four times that time or more are due at multiples of it.
const GRID: Duration = Duration::from_millis(50);
/// Timers that may run at once: whatever the size, and for each machine that may be known.
const TIMERS_MIN: usize = 256;
const TIMERS_EACH: usize = 8;

impl Discovery {
    /// Takes part under this node's address, once it has one.
    pub(super) fn swim(&mut self, ctx: &Context<Self>) {
        let Some(ip) = self.kept.published.load().identity.ip else { return };
        if self.settings.follows || self.leaving || !self.poller.swims() || self.has_many_timers() {
            return;
        }
        let (elapsed, settings) = (self.start.elapsed(), &self.settings);
        match &mut self.swim {
            Some(swim) => swim.moved(ip, elapsed),
            None => {
                // What the one before was to be woken for is nothing to this one.
                self.timers.clear();
                // Later starts have later times. Where a clock was set back, the others tell.
                let id = SwimId { ip, generation: unix_ms() };
                let rng = Box::new(StdRng::seed_from_u64(settings.seed));
                self.swim = Some(Swim::new(id, settings.machines_max, rng));
            }
        }
        // Those that it knows then tell the rest.
        let knows_some = self.swim.as_ref().is_some_and(|swim| swim.alive().next().is_some());
        self.joins_left = if knows_some { JOINS_MORE } else { JOINS_FIRST };
        self.carry_out(ctx);
    }

    /// Asks the machine at `ip`, which speaks our protocol, to be taken in, unless it has done so.
    pub(super) fn swim_with(&mut self, ip: IpAddr, ctx: &Context<Self>) {
        let is_swimming = self.kept.membership.borrow().is_swimming(ip);
        let (elapsed, may_ask) = (self.start.elapsed(), self.joins_left > 0 && !is_swimming);
        if let Some(swim) = self.swim.as_mut().filter(|_| may_ask) {
            self.joins_left -= 1;
            swim.join(ip, elapsed);
            self.carry_out(ctx);
        }
    }

    /// The others are to know that this node stops.
    pub(super) fn swim_away(&mut self, ctx: &Context<Self>) {
        let elapsed = self.start.elapsed();
        if let Some(swim) = &mut self.swim {
            swim.leave(elapsed);
        }
        self.carry_out(ctx);
        self.swim = None;
    }

    /// What SWIM says that it cannot be reached: then it is not there for anybody.
    pub(super) fn swim_without(&mut self, ip: IpAddr, ctx: &Context<Self>) {
        let elapsed = self.start.elapsed();
        if let Some(swim) = &mut self.swim {
            swim.refused(ip, elapsed);
            self.carry_out(ctx);
        }
    }

    pub(super) fn carry_out(&mut self, ctx: &Context<Self>) {
        let mut asks = Vec::new();
        while let Some(effect) = self.swim.as_mut().and_then(Swim::effect) {
            match effect {
                SwimEffect::Send { to, datagram } => self.poller.datagram(to, &datagram),
                SwimEffect::Wake { after, timer } => {
                    self.timer_number += 1;
                    let due = on_grid(self.start.elapsed(), after);
                    self.timers.insert((due, self.timer_number), timer);
                }
                SwimEffect::Up(ip) => {
                    let now = self.now();
                    if self.kept.membership.borrow_mut().swims(ip, now) {
                        asks.push(ip);
                    }
                }
                SwimEffect::Down(ip) => {
                    if self.kept.membership.borrow_mut().swims_no_more(ip) {
                        asks.push(ip);
                    }
                }
                SwimEffect::Doubt(ip) => {
                    let (refuses, report) = (self.poller.refuses(ip), ctx.address());
                    actix_rt::spawn(async move {
                        if refuses.await {
                            report.do_send(SwimRefused(ip));
                        }
                    });
                }
            }
        }
        if self.has_many_timers() {
            tracing::warn!("strange datagrams: SWIM begins anew");
            self.swim = None;
            self.kept.membership.borrow_mut().nobody_swims();
        }
        self.arm(ctx);
        self.publish(None);
        self.ask(asks, ctx);
    }

    /// Whether more timers run than any cluster of that size needs: whoever sends datagrams could begin
    /// any number of them.
    fn has_many_timers(&self) -> bool {
        self.timers.len() > TIMERS_MIN + TIMERS_EACH * self.settings.machines_max
    }

    /// Sees to it that this actor is woken for the next timer that cannot wait: one task for all of them, since
    /// each wake-up costs more than what is done in it.
    fn arm(&mut self, ctx: &Context<Self>) {
        let Some(swim) = &self.swim else {
            self.timers.clear();
            self.waking = None;
            return;
        };
        let next = self.timers.iter().find(|(_, timer)| !swim.may_wait(timer));
        let next = next.map(|((due, _), _)| *due);
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

/// When a timer is due that begins now and has that long. The longer ones come on a grid, so that several come at
/// once.
fn on_grid(now: Duration, after: Duration) -> Duration {
    let due = now + after;
    if after < GRID * 4 {
        return due;
    }
    let steps = due.as_nanos().div_ceil(GRID.as_nanos());
    GRID * u32::try_from(steps).unwrap_or(u32::MAX)
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
        let elapsed = self.start.elapsed();
        let Some(swim) = &mut self.swim else { return };
        match swim.received(datagram.from, &datagram.bytes, elapsed) {
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
        let elapsed = self.start.elapsed();
        self.waking = None;
        let Some(swim) = &mut self.swim else { return };
        while let Some(first) = self.timers.first_entry().filter(|first| first.key().0 <= elapsed) {
            swim.woken(first.remove(), elapsed);
        }
        self.carry_out(ctx);
        // It is awake anyway.
        self.tell(ctx);
    }
}

impl Handler<SwimRefused> for Discovery {
    type Result = ();

    fn handle(&mut self, SwimRefused(ip): SwimRefused, ctx: &mut Self::Context) {
        self.swim_without(ip, ctx);
    }
}
