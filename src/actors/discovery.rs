//! The Discovery actor: keeps the membership, polls every known machine, and publishes who is
//! alive as a snapshot that every call reads.
//!
//! With another discovery service configured it follows that one's list instead.
//!
//! What survives a restart of the actor: the membership and the configuration, which belong to the
//! node; polls that were under way are forgotten and made again. What survives a restart of the
//! node: the machines known, saved when they change; each is listed again once it answers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::{
    Actor, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message, ResponseFuture,
    WrapFuture,
};
use arc_swap::ArcSwap;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use super::supervise::Guard;
use crate::error::NoMachineIp;
use crate::lock;
use crate::membership::{At, Introduction, Membership, Standing};
use crate::metrics::Metrics;
use crate::saved::{Layered, MachineConfig, MachinePatch};
use crate::storage::{self, StorageError};
use crate::types::{Identity, Peer};
use crate::wire::WireMachine;

/// The machines known alive, in the wire's order. A caller that is a machine is added or
/// refreshed first: this is the gossip.
#[derive(Clone, Message)]
#[rtype(result = "Listing")]
pub struct ListMachines {
    /// The calling machine, if it is one.
    pub caller: Option<(IpAddr, Introduction)>,
}

/// The answer to [`ListMachines`].
pub struct Listing {
    /// Who answers.
    pub identity: Identity,
    /// Who is alive.
    pub machines: Vec<WireMachine>,
}

/// The configuration in force.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<MachinePatch, NoMachineIp>")]
pub struct GetMachineConfig;

/// Merges over the configuration, saves it, and takes it into use. Answers when all is done.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct ChangeMachineConfig(pub MachinePatch);

/// Forgets all machines.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Reset;

/// A forward or probe could not be connected: counts as a failed poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Unreachable(pub IpAddr);

/// Saves what is not saved yet. Answers when it is.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Flush;

/// A poll ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Polled {
    ip: IpAddr,
    ping: Duration,
    /// `None`: no good answer in time.
    answer: Option<PollAnswer>,
}

/// What everybody reads without asking the actor.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Who this node is.
    pub identity: Identity,
    /// The machines known alive, ordered by name, then address.
    pub peers: Vec<Peer>,
}

/// What a machine answered to a poll.
#[derive(Clone, Debug, Default)]
pub struct PollAnswer {
    /// What it says of itself.
    pub is: Introduction,
    /// The address that it says it has.
    pub ip: Option<IpAddr>,
    /// The machines that it knows alive.
    pub knows: Vec<(IpAddr, Introduction)>,
}

/// How Discovery asks other machines.
pub trait Poller {
    /// Asks the machine at `ip` for its list, introducing ourselves as `me`. `None`: no good
    /// answer in time.
    fn poll(&self, ip: IpAddr, me: &Identity) -> LocalBoxFuture<'static, Option<PollAnswer>>;

    /// Asks the other discovery service that is configured instead of our own for this node's
    /// identity and its machines. `None`: no good answer in time.
    fn follow(&self) -> LocalBoxFuture<'static, Option<(Identity, PollAnswer)>>;
}

/// What outlives the actor.
pub struct Kept {
    /// Who is known.
    pub membership: RefCell<Membership>,
    /// Who this node is and whom it joins through.
    pub config: Mutex<Layered<MachineConfig>>,
    /// What everybody reads.
    pub published: Arc<ArcSwap<Published>>,
}

/// How often the machines are saved if they have changed.
const SAVE_TIME: Duration = Duration::from_secs(1);

/// What is kept of a machine over a restart.
type Known = (IpAddr, Introduction);

/// How Discovery works.
#[derive(Clone, Debug)]
pub struct DiscoverySettings {
    /// Time between polls.
    pub poll_time: Duration,
    /// Whether another discovery service is followed.
    pub follows: bool,
    /// The address to take when none is configured.
    pub found_ip: Option<IpAddr>,
    /// Where the files are.
    pub data_path: PathBuf,
}

/// See the module.
pub struct Discovery {
    kept: Rc<Kept>,
    settings: DiscoverySettings,
    poller: Rc<dyn Poller>,
    metrics: Arc<Metrics>,
    start: Instant,
    /// The version of the membership that is published.
    published: Option<u64>,
    /// Init servers that say they have another address than the one configured.
    aliases: HashMap<IpAddr, IpAddr>,
    /// The machines as they are on disk.
    saved: Vec<Known>,
    saving: bool,
    _guard: Guard,
}

impl Discovery {
    /// Goes on with what is `kept`.
    pub fn new(
        kept: Rc<Kept>,
        settings: DiscoverySettings,
        poller: Rc<dyn Poller>,
        metrics: Arc<Metrics>,
        guard: Guard,
    ) -> Self {
        Self {
            kept,
            settings,
            poller,
            metrics,
            start: Instant::now(),
            published: None,
            aliases: HashMap::new(),
            saved: Vec::new(),
            saving: false,
            _guard: guard,
        }
    }

    fn now(&self) -> At {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        At { elapsed: self.start.elapsed(), unix_s: unix.as_secs() }
    }

    /// Takes the configuration in force into use.
    fn configure(&mut self) {
        let config = lock(&self.kept.config).running.clone();
        let identity = config.identity(self.settings.found_ip);
        let now = self.now();
        let mut membership = self.kept.membership.borrow_mut();
        membership.set_own(identity.ip);
        for server in &config.init_servers {
            match server.parse() {
                Ok(ip) => membership.configured(ip, now),
                Err(_) => tracing::warn!(%server, "an init server is no IP address, ignored"),
            }
        }
        drop(membership);
        self.publish(Some(identity));
    }

    /// Publishes what has changed; `identity` is given when that has.
    fn publish(&mut self, identity: Option<Identity>) {
        let membership = self.kept.membership.borrow();
        if identity.is_none() && self.published == Some(membership.version()) {
            return;
        }
        self.published = Some(membership.version());
        let old = self.kept.published.load();
        let identity = identity.unwrap_or_else(|| old.identity.clone());
        let peers = membership.peers();
        if peers != old.peers {
            let hosts: Vec<&str> = peers.iter().map(|peer| &*peer.host).collect();
            tracing::info!(machines = ?hosts, "the machines known alive changed");
        }
        if peers != old.peers || identity != old.identity {
            self.kept.published.store(Arc::new(Published { identity, peers }));
        }
        self.metrics.machines(
            membership.count(Standing::Alive),
            membership.count(Standing::Hearsay),
            membership.count(Standing::Dead),
        );
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.settings.follows {
            self.follow(ctx);
        } else {
            self.poll_all(ctx);
        }
    }

    fn poll_all(&mut self, ctx: &Context<Self>) {
        let now = self.now();
        let init: Vec<IpAddr> = lock(&self.kept.config)
            .running
            .init_servers
            .iter()
            .filter_map(|server| server.parse().ok())
            .collect();
        let due = {
            let mut membership = self.kept.membership.borrow_mut();
            // Forgotten, or pushed out by others: an init server is always worth asking.
            for ip in init {
                if self.aliases.get(&ip).is_some_and(|other| membership.is_alive(*other)) {
                    continue;
                }
                membership.hearsay(ip, Introduction::default(), now);
            }
            membership.due(now)
        };
        let me = self.kept.published.load().identity.clone();
        for ip in due {
            let asked = Instant::now();
            let (poll, report) = (self.poller.poll(ip, &me), ctx.address());
            // Tasks of their own: an actor looks at all its futures whenever one of them wakes it.
            actix_rt::spawn(async move {
                let answer = poll.await;
                report.do_send(Polled { ip, ping: asked.elapsed(), answer });
            });
        }
    }

    fn polled(&mut self, ip: IpAddr, ping: Duration, answer: Option<PollAnswer>) {
        let now = self.now();
        let me = self.kept.published.load().identity.clone();
        let mut membership = self.kept.membership.borrow_mut();
        match answer {
            // It is this very node, reached by another of its addresses.
            Some(answer) if answer.ip.is_some() && answer.ip == me.ip => membership.forget(ip),
            Some(answer) => {
                if let Some(told) = answer.ip.filter(|told| *told != ip) {
                    self.aliases.insert(ip, told);
                }
                membership.answered(ip, answer.is, ping, now);
                for (ip, is) in answer.knows {
                    membership.hearsay(ip, is, now);
                }
            }
            None => {
                if membership.failed(ip) {
                    tracing::warn!(%ip, "a machine does not answer any more");
                }
            }
        }
        drop(membership);
        self.publish(None);
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
                membership.heartbeat(ip, is, now);
            }
            drop(membership);
            actor.publish(Some(identity));
        });
        ctx.spawn(followed);
    }

    /// Writes the known machines, alive or not: whoever is silent now may answer after a restart.
    /// `None`: those on disk are the same.
    fn save(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        let membership = self.kept.membership.borrow();
        let known: Vec<Known> = membership.known().map(|m| (m.ip, m.is.clone())).collect();
        if known == self.saved || self.settings.follows {
            return None;
        }
        self.saved = known;
        let machines: Vec<_> = membership.known().map(WireMachine::from).collect();
        let file = self.settings.data_path.join(storage::MACHINES_FILE);
        Some(async {
            if let Err(error) = super::save(file, machines).await {
                tracing::error!(%error, "the known machines cannot be saved");
            }
        })
    }

    fn save_if_changed(&mut self, ctx: &mut Context<Self>) {
        if self.saving {
            return;
        }
        if let Some(saved) = self.save() {
            self.saving = true;
            ctx.spawn(saved.into_actor(self).map(|(), actor, _| actor.saving = false));
        }
    }
}

impl Actor for Discovery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.kept.membership.borrow_mut().forget_polls();
        if !self.settings.follows {
            self.configure();
        }
        self.tick(ctx);
        ctx.run_interval(self.settings.poll_time, Self::tick);
        ctx.run_interval(SAVE_TIME, Self::save_if_changed);
    }
}

impl Handler<Polled> for Discovery {
    type Result = ();

    fn handle(&mut self, Polled { ip, ping, answer }: Polled, _: &mut Self::Context) {
        self.polled(ip, ping, answer);
    }
}

impl Handler<ListMachines> for Discovery {
    type Result = actix::MessageResult<ListMachines>;

    fn handle(&mut self, message: ListMachines, _: &mut Self::Context) -> Self::Result {
        if let Some((ip, is)) = message.caller {
            let now = self.now();
            self.kept.membership.borrow_mut().heartbeat(ip, is, now);
            self.publish(None);
        }
        let identity = self.kept.published.load().identity.clone();
        let membership = self.kept.membership.borrow();
        let machines = membership.list().into_iter().map(WireMachine::from).collect();
        actix::MessageResult(Listing { identity, machines })
    }
}

impl Handler<GetMachineConfig> for Discovery {
    type Result = Result<MachinePatch, NoMachineIp>;

    fn handle(&mut self, _: GetMachineConfig, _: &mut Self::Context) -> Self::Result {
        let identity = self.kept.published.load().identity.clone();
        identity.ip.ok_or(NoMachineIp)?;
        Ok(MachinePatch {
            machine_ip: Some(identity.ip_text()),
            machine_id: Some(identity.id),
            machine_group_name: Some(identity.group),
            init_servers: Some(lock(&self.kept.config).running.init_servers.clone()),
        })
    }
}

impl Handler<ChangeMachineConfig> for Discovery {
    type Result = AtomicResponse<Self, Result<(), StorageError>>;

    fn handle(&mut self, change: ChangeMachineConfig, _: &mut Self::Context) -> Self::Result {
        let old = lock(&self.kept.config).clone();
        let new =
            Layered { running: old.running.merged(&change.0), saved: old.saved.merged(&change.0) };
        let file = self.settings.data_path.join(storage::DISCOVERY_FILE);
        let saved = super::save(file, new.saved.to_patch()).into_actor(self);
        AtomicResponse::new(Box::pin(saved.map(move |saved, actor, _| {
            saved?;
            *lock(&actor.kept.config) = new;
            actor.configure();
            Ok(())
        })))
    }
}

impl Handler<Reset> for Discovery {
    type Result = ();

    fn handle(&mut self, _: Reset, _: &mut Self::Context) {
        self.kept.membership.borrow_mut().reset();
        self.publish(None);
    }
}

impl Handler<Unreachable> for Discovery {
    type Result = ();

    fn handle(&mut self, Unreachable(ip): Unreachable, _: &mut Self::Context) {
        let died = self.kept.membership.borrow_mut().failed(ip);
        if died {
            tracing::warn!(%ip, "a machine cannot be connected to any more");
            self.publish(None);
        }
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

#[cfg(test)]
mod tests {
    use super::super::Crash;
    use super::*;
    use crate::membership::Rules;
    use std::collections::HashMap;

    /// Answers polls from a table that the test changes as it goes.
    #[derive(Default)]
    struct Machines {
        answers: RefCell<HashMap<IpAddr, PollAnswer>>,
        asked: RefCell<Vec<IpAddr>>,
        followed: RefCell<Option<(Identity, PollAnswer)>>,
    }

    impl Poller for Machines {
        fn poll(&self, ip: IpAddr, _: &Identity) -> LocalBoxFuture<'static, Option<PollAnswer>> {
            self.asked.borrow_mut().push(ip);
            let answer = self.answers.borrow().get(&ip).cloned();
            Box::pin(async move { answer })
        }

        fn follow(&self) -> LocalBoxFuture<'static, Option<(Identity, PollAnswer)>> {
            let answer = self.followed.borrow().clone();
            Box::pin(async move { answer })
        }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn named(name: &str) -> Introduction {
        Introduction { name: name.to_owned(), group: String::new() }
    }

    struct Node {
        addr: actix::Addr<Discovery>,
        kept: Rc<Kept>,
        machines: Rc<Machines>,
        settings: DiscoverySettings,
        folder: tempfile::TempDir,
    }

    fn start(init_servers: &[&str], follows: bool) -> Node {
        tokio::time::pause();
        let folder = tempfile::tempdir().expect("a folder");
        let rules = Rules {
            dead_polls_threshold: 3,
            dead_poll_time: Duration::from_secs(30),
            machines_max: 10,
        };
        let config = MachineConfig {
            init_servers: init_servers.iter().map(|s| (*s).to_owned()).collect(),
            ..MachineConfig::default()
        };
        let kept = Rc::new(Kept {
            membership: RefCell::new(Membership::new(rules, None)),
            config: Mutex::new(Layered { running: config.clone(), saved: config }),
            published: Arc::default(),
        });
        let settings = DiscoverySettings {
            poll_time: Duration::from_secs(2),
            follows,
            found_ip: Some(ip(99)),
            data_path: folder.path().to_owned(),
        };
        let machines = Rc::new(Machines::default());
        let addr = actor(&kept, &settings, &machines).start();
        Node { addr, kept, machines, settings, folder }
    }

    fn actor(kept: &Rc<Kept>, settings: &DiscoverySettings, machines: &Rc<Machines>) -> Discovery {
        let (kept, machines) = (Rc::clone(kept), Rc::clone(machines));
        Discovery::new(kept, settings.clone(), machines, Arc::default(), Guard::new(|_| ()))
    }

    impl Node {
        async fn list(&self) -> Vec<String> {
            let listing = self.addr.send(ListMachines { caller: None }).await.expect("it lives");
            listing.machines.into_iter().map(|machine| machine.ip).collect()
        }

        fn answers(&self, last: u8, knows: &[u8]) {
            let answer = PollAnswer {
                is: named(&format!("n{last}")),
                ip: Some(ip(last)),
                knows: knows.iter().map(|n| (ip(*n), Introduction::default())).collect(),
            };
            self.machines.answers.borrow_mut().insert(ip(last), answer);
        }
    }

    async fn seconds(n: u64) {
        tokio::time::sleep(Duration::from_secs(n)).await;
    }

    #[actix::test]
    async fn it_learns_of_others_through_an_init_server_and_publishes_them_by_name() {
        let node = start(&["10.0.0.2"], false);
        node.answers(2, &[1, 99]);
        node.answers(1, &[]);
        seconds(5).await;
        assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"]);
        let published = node.kept.published.load();
        let peers: Vec<&str> = published.peers.iter().map(|peer| &*peer.name).collect();
        assert_eq!((peers, &*published.identity.id), (vec!["n1", "n2"], "p2pfaas-10.0.0.99"));
    }

    #[actix::test]
    async fn a_machine_that_stops_answering_is_gone_within_ten_seconds_and_comes_back() {
        let node = start(&["10.0.0.1"], false);
        node.answers(1, &[]);
        seconds(3).await;
        node.machines.answers.borrow_mut().clear();
        seconds(7).await;
        assert!(node.list().await.is_empty());
        node.answers(1, &[]);
        seconds(31).await;
        assert_eq!(node.list().await, ["10.0.0.1"]);
    }

    #[actix::test]
    async fn failed_connections_count_as_failed_polls_at_once() {
        let node = start(&["10.0.0.1"], false);
        node.answers(1, &[]);
        seconds(1).await;
        for _ in 0..3 {
            node.addr.send(Unreachable(ip(1))).await.expect("it lives");
        }
        assert!(node.kept.published.load().peers.is_empty());
    }

    #[actix::test]
    async fn a_machine_that_calls_is_listed_at_once() {
        let node = start(&[], false);
        let caller = Some((ip(7), named("seven")));
        let listing = node.addr.send(ListMachines { caller }).await.expect("it lives");
        assert_eq!(listing.machines.len(), 1);
        assert_eq!((&*listing.machines[0].name, listing.machines[0].alive), ("seven", true));
    }

    #[actix::test]
    async fn an_init_server_that_is_this_node_is_not_listed() {
        let node = start(&["10.0.0.99", "10.0.0.50", "bad"], false);
        let me = PollAnswer { ip: Some(ip(99)), ..PollAnswer::default() };
        node.machines.answers.borrow_mut().insert(ip(50), me);
        seconds(1).await;
        assert!(node.list().await.is_empty());
    }

    #[actix::test]
    async fn an_init_server_known_by_another_of_its_addresses_is_listed_once_and_stays() {
        let node = start(&["10.0.0.50"], false);
        node.answers(1, &[]);
        let other_side = node.machines.answers.borrow()[&ip(1)].clone();
        node.machines.answers.borrow_mut().insert(ip(50), other_side);
        seconds(1).await;
        let caller = Some((ip(1), named("n1")));
        node.addr.send(ListMachines { caller }).await.expect("it lives");
        for _ in 0..5 {
            assert_eq!(node.list().await, ["10.0.0.1"]);
            seconds(2).await;
        }
    }

    #[actix::test]
    async fn a_reset_forgets_everybody_and_init_servers_are_found_again() {
        let node = start(&["10.0.0.1"], false);
        node.answers(1, &[]);
        seconds(1).await;
        node.addr.send(Reset).await.expect("it lives");
        assert!(node.list().await.is_empty());
        seconds(3).await;
        assert_eq!(node.list().await, ["10.0.0.1"]);
    }

    #[actix::test]
    async fn a_changed_configuration_is_saved_and_used_at_once() {
        let node = start(&[], false);
        let patch = MachinePatch {
            machine_ip: Some("10.0.0.5".to_owned()),
            init_servers: Some(vec!["10.0.0.1".to_owned(), "10.0.0.5".to_owned()]),
            ..MachinePatch::default()
        };
        node.addr.send(ChangeMachineConfig(patch)).await.expect("it lives").expect("saved");
        assert_eq!(node.list().await, ["10.0.0.1"], "listed at once, as in v1; never ourselves");
        let config = node.addr.send(GetMachineConfig).await.expect("it lives").expect("an IP");
        assert_eq!(config.machine_id.as_deref(), Some("p2pfaas-10.0.0.5"));
        let file = node.folder.path().join(storage::DISCOVERY_FILE);
        let saved: MachinePatch = storage::read(&file, "it").expect("readable").expect("there");
        assert_eq!(saved.machine_id.as_deref(), Some(""), "unset stays unset");
    }

    #[actix::test]
    async fn the_known_machines_are_saved_alive_or_not() {
        let node = start(&["10.0.0.1"], false);
        node.answers(1, &[]);
        seconds(1).await;
        node.machines.answers.borrow_mut().clear();
        seconds(20).await;
        assert!(node.list().await.is_empty());
        node.addr.send(Flush).await.expect("it lives");
        let file = node.folder.path().join(storage::MACHINES_FILE);
        let saved: Vec<WireMachine> = storage::read(&file, "it").expect("readable").expect("there");
        assert_eq!((&*saved[0].ip, &*saved[0].name), ("10.0.0.1", "n1"));
    }

    #[actix::test]
    async fn a_restart_of_the_actor_keeps_the_machines_and_goes_on_polling() {
        let node = start(&["10.0.0.1"], false);
        node.answers(1, &[]);
        seconds(1).await;
        node.addr.send(Crash).await.expect_err("it panics");
        let again = actor(&node.kept, &node.settings, &node.machines).start();
        let node = Node { addr: again, ..node };
        assert_eq!(node.list().await, ["10.0.0.1"]);
        let before = node.machines.asked.borrow().len();
        seconds(5).await;
        assert!(node.machines.asked.borrow().len() > before);
    }

    #[actix::test]
    async fn another_discovery_service_is_followed_where_one_is_configured() {
        let node = start(&[], true);
        let me = Identity { ip: Some(ip(3)), id: "me".to_owned(), group: "g".to_owned() };
        let knows = vec![(ip(3), named("me")), (ip(4), named("other"))];
        let list = PollAnswer { knows, ..PollAnswer::default() };
        *node.machines.followed.borrow_mut() = Some((me.clone(), list));
        seconds(3).await;
        let published = node.kept.published.load();
        assert_eq!(published.identity, me);
        assert_eq!(published.peers.len(), 1);
        assert!(node.machines.asked.borrow().is_empty(), "it polls nobody itself");
    }
}
