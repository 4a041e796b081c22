//! The Discovery actor: keeps the membership, carries out what SWIM asks for (`swimming.rs`), polls the
//! machines that are due, and publishes who is alive as a snapshot that every call reads.
//!
//! With another discovery service configured it follows that one's list instead.
//!
//! Init servers that are names are looked up at every poll, and all their addresses are asked:
//! that is how nodes find each other behind one name (`joins.rs`).
//!
//! What survives a restart of the actor: the membership and the configuration, which belong to the
//! node; polls that were under way are forgotten and made again, SWIM takes part anew, and with it the records of the
//! others are heard anew. What survives a restart of the node: the machines known, saved when they change; each is listed again once it answers.

mod handlers;
mod joins;
mod messages;
mod polling;
mod saving;
mod swimming;
mod telling;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::joins::Joins;
use self::messages::Resolved;
pub use self::messages::{
    ChangeMachineConfig, Flush, GetMachineConfig, Leave, ListMachines, ListRecords, Listing,
    PollAnswer, Poller, Published, RecordListing, Reset, SwimDatagram, Unreachable,
};
use self::swimming::Waking;
use super::supervise::Guard;
use crate::lock;
use crate::membership::swimming::Swimming;
use crate::membership::{At, Introduction, Membership};
use crate::metrics::Metrics;
use crate::saved::{Layered, MachineConfig};
use crate::types::{
    INIT_SERVERS_MAX, InitServer, Neighbours, NodeDescription, RecordLoad, Saying, shortened,
};

/// What outlives the actor.
pub struct DiscoveryState {
    /// Who is known.
    pub membership: RefCell<Membership>,
    /// Who this node is and whom it joins through.
    pub config: Mutex<Layered<MachineConfig>>,
    /// What everybody reads.
    pub published: Arc<ArcSwap<Published>>,
    /// Held while a file is written, by whichever incarnation: what hung and comes back ends before
    /// what came after it.
    pub writing: tokio::sync::Mutex<()>,
}

/// How often it is looked whether the machines have changed, to save them.
const SAVE_TIME: Duration = Duration::from_secs(1);
/// How long they are not saved again: whoever changes its name all the time must not wear out the
/// disk.
const SAVE_REST: Duration = Duration::from_secs(15);

/// How long a machine is not asked again whether it stops, whoever says so.
const LEAVE_REST: Duration = Duration::from_secs(1);

/// Machines that one line of the log names.
const LOGGED_MAX: usize = 16;

/// What is kept of a machine over a restart.
type Known = (IpAddr, Introduction);

/// How Discovery works.
#[derive(Clone)]
pub struct DiscoverySettings {
    /// Time between polls.
    pub poll_time: Duration,
    /// Whether another discovery service is followed.
    pub follows: bool,
    /// Where the files are.
    pub data_path: PathBuf,
    /// Machines known at most.
    pub machines_max: usize,
    /// Chance, for SWIM.
    pub seed: u64,
    /// What this node says of itself, but for its name and group.
    pub about: NodeDescription,
    /// How busy this node is now, and what its algorithm says.
    pub said: Rc<dyn Fn() -> (RecordLoad, Saying)>,
}

/// Polls of one class that are under way at once.
const POLLS_MAX: usize = 16;

/// See the module.
pub struct Discovery {
    kept: Rc<DiscoveryState>,
    settings: DiscoverySettings,
    poller: Rc<dyn Poller>,
    metrics: Arc<Metrics>,
    start: Instant,
    /// The versions of the membership and of the records that are published.
    published: Option<(u64, u64)>,
    /// Whom calls may go to, and the nearest if it is those.
    neighbours: Neighbours,
    nearest: BTreeSet<IpAddr>,
    /// This machine's address where none is configured.
    found_ip: Option<IpAddr>,
    joins: Joins,
    /// The machines as they are on disk.
    saved: Vec<Known>,
    /// When they were last saved because they had changed.
    saved_at: Option<Instant>,
    saving: bool,
    leaving: bool,
    /// What tells who is there of those that speak our protocol. Without an address of its own, this node does not
    /// take part.
    swimming: Swimming,
    /// Polls of those that are not alive, by class.
    turns: [Arc<Semaphore>; 3],
    /// What wakes this actor for SWIM's next timer, and when, since the start.
    waking: Option<(Duration, Waking)>,
    /// Machines of which it was said that they stop, and when they were asked for it.
    said_to_leave: BTreeMap<IpAddr, Instant>,
    _guard: Guard,
}

impl Discovery {
    /// Goes on with what is `kept`.
    pub fn new(
        kept: Rc<DiscoveryState>,
        settings: DiscoverySettings,
        poller: Rc<dyn Poller>,
        metrics: Arc<Metrics>,
        guard: Guard,
    ) -> Self {
        let machines_max = settings.machines_max;
        Self {
            kept,
            settings,
            poller,
            metrics,
            start: Instant::now(),
            published: None,
            neighbours: Neighbours::All,
            nearest: BTreeSet::new(),
            found_ip: None,
            joins: Joins::default(),
            saved: Vec::new(),
            saved_at: None,
            saving: false,
            leaving: false,
            swimming: Swimming::new(machines_max),
            turns: std::array::from_fn(|_| Arc::new(Semaphore::new(POLLS_MAX))),
            waking: None,
            said_to_leave: BTreeMap::new(),
            _guard: guard,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the edge where membership gets its time")]
    fn now(&self) -> At {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        At { elapsed: self.start.elapsed(), unix_s: unix.as_secs() }
    }

    /// Takes the configuration in force into use.
    fn configure(&mut self) {
        let config = lock(&self.kept.config).running.clone();
        let identity = config.identity(self.found_ip);
        let now = self.now();
        let mut membership = self.kept.membership.borrow_mut();
        membership.set_own(identity.ip);
        membership.set_own_name(&identity.id);
        for server in config.init_servers.iter().take(INIT_SERVERS_MAX) {
            match server.parse() {
                Ok(InitServer::Address(ip)) => membership.configured(ip, now),
                Ok(InitServer::Name(_)) => {}
                Err(why) => tracing::warn!(why, "an init server is ignored"),
            }
        }
        drop(membership);
        self.neighbours = config.neighbours.unwrap_or_default();
        self.find_nearest();
        self.publish(Some(identity));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.leaving {
            return;
        }
        if self.settings.follows {
            self.follow(ctx);
        } else {
            self.poll_all(ctx);
        }
        self.find_nearest();
        self.publish(None);
    }

    fn poll_all(&mut self, ctx: &Context<Self>) {
        self.find_own_address();
        self.swim(ctx);
        self.tell(ctx);
        self.ask_init_servers(ctx);
        let due = self.kept.membership.borrow_mut().due(self.now());
        self.ask(due, ctx);
    }

    /// Makes sure that init servers are asked: addresses with the next poll, names when they are
    /// found.
    fn ask_init_servers(&mut self, ctx: &Context<Self>) {
        let servers = lock(&self.kept.config).running.init_servers.clone();
        let mut names = Vec::new();
        for server in servers.iter().take(INIT_SERVERS_MAX) {
            match server.parse() {
                // Forgotten, pushed out by others, or dead: an init server is always worth asking.
                Ok(InitServer::Address(ip)) => self.join(ip),
                Ok(InitServer::Name(name)) => names.push(name),
                Err(_) => {}
            }
        }
        self.joins.wants(names);
        self.resolve(ctx);
    }

    /// Looks what address this machine has now: boards get theirs from DHCP, containers another
    /// one when they are taken from a network and put back. Without any the last one stays.
    fn find_own_address(&mut self) {
        let found = self.poller.own_address();
        if found.is_some() && found != self.found_ip {
            self.found_ip = found;
            self.configure();
        }
    }

    fn join(&mut self, ip: IpAddr) {
        let mut membership = self.kept.membership.borrow_mut();
        let own = self.kept.published.load().identity.ip;
        if self.joins.may_ask(ip, &membership, own, Instant::now()) {
            membership.init_server(ip, self.now());
        }
    }

    /// Begins the look-ups that may begin.
    fn resolve(&mut self, ctx: &Context<Self>) {
        while let Some(name) = self.joins.begin() {
            let (lookup, report) = (self.poller.resolve(name.clone()), ctx.address());
            actix_rt::spawn(async move {
                let addresses = lookup.await;
                report.do_send(Resolved { name, addresses });
            });
        }
    }

    /// A machine called from `ip`.
    fn called(&mut self, ip: IpAddr, is: Introduction) {
        let (now, name) = (self.now(), is.name.clone());
        let holder = self.kept.membership.borrow_mut().heartbeat(ip, is, now);
        warn_of_conflict(holder, ip, &name);
        self.forget_aliases(ip);
        self.publish(None);
    }

    /// Somebody says that the machine at `ip` stops. Behind a network that translates addresses, nobody
    /// can tell from a connection who that is: so the machine is asked itself.
    fn ask_whether_it_leaves(&mut self, ip: IpAddr, ctx: &Context<Self>) {
        let now = Instant::now();
        self.said_to_leave.retain(|_, asked| now.duration_since(*asked) < LEAVE_REST);
        let is_alive = self.kept.membership.borrow().alive_at(ip).is_some();
        if is_alive && self.said_to_leave.insert(ip, now).is_none() {
            self.ask(vec![ip], ctx);
        }
    }

    /// The machine at `ip` says that it stops: it is called no more until it is back.
    fn left(&self, ip: IpAddr) {
        if self.kept.membership.borrow_mut().left(ip) {
            tracing::info!(%ip, "a machine says that it stops");
        }
    }

    /// The machine at `ip` is there: where it answered under other addresses, it is not listed too.
    fn forget_aliases(&self, ip: IpAddr) {
        let mut membership = self.kept.membership.borrow_mut();
        let Some(name) = membership.alive_at(ip).map(|is| is.name.clone()) else { return };
        for other in self.joins.aliases_of(ip) {
            if membership.alive_at(other).is_some_and(|is| is.name == name) {
                membership.forget(other);
            }
        }
    }

    fn follow(&mut self, ctx: &mut Context<Self>) {
        let followed = self.poller.follow().into_actor(self).map(|answer, actor, _| {
            let Some((identity, list)) = answer else {
                tracing::warn!("the configured discovery service does not answer");
                return;
            };
            let now = actor.now();
            let mut membership = actor.kept.membership.borrow_mut();
            membership.reset();
            membership.set_own(identity.ip);
            for (ip, is) in list.knows {
                // Which names it gives twice is its own affair.
                let _ = membership.heartbeat(ip, is, now);
            }
            drop(membership);
            actor.publish(Some(identity));
        });
        ctx.spawn(followed);
    }
}

/// Tells the operator of a name that a living machine has already, at `holder`; or, where that is `ip` itself, of
/// an address that another one claims.
fn warn_of_conflict(holder: Option<IpAddr>, ip: IpAddr, name: &str) {
    if holder == Some(ip) {
        let name = shortened(name, 64);
        tracing::warn!(%ip, ?name, "a machine of another name says that it has this one's address");
    } else if let Some(holder) = holder {
        let name = shortened(name, 64);
        tracing::warn!(%ip, %holder, ?name, "two living machines have one name; both are listed");
    }
}

impl Actor for Discovery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.kept.membership.borrow_mut().forget_polls();
        if !self.settings.follows {
            self.found_ip = self.poller.own_address();
            self.configure();
        }
        self.tick(ctx);
        ctx.run_interval(self.settings.poll_time, Self::tick);
        ctx.run_interval(SAVE_TIME, Self::save_if_changed);
    }
}

#[cfg(test)]
mod tests;
