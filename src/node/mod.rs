//! A whole node: its state, its actor tree, its start and its stop.

mod trust;
mod worker;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, Arbiter};
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use self::trust::TrustKeeper;
use self::worker::workers;
use crate::actors::discovery::{
    Discovery, DiscoverySettings, DiscoveryState, Flush, Leave, Published,
};
use crate::actors::gateway::{Drain, Gateway};
use crate::actors::learner::hub::LearnerHub;
use crate::actors::learner::{self, LearnerActor, SaveModel};
use crate::actors::queue::{Gate, Queue, SavedLimits};
use crate::actors::supervise::{EndActor, Guard, Handle};
use crate::actors::supervisor::{StopRestarting, Supervisor};
use crate::actors::switch::{Active, Switch};
use crate::call::state::{NodePhase, NodeState, NodeTrust};
use crate::config::{Admin, BadGivenKey, BadToken, Settings};
use crate::faas::{Backends, BadBackend};
use crate::http::server::{Listeners, Servers};
use crate::membership::{At, Introduction, Membership, Rules};
use crate::peer::swim_socket::{self, DatagramReader, SwimSocket};
use crate::peer::{PeerClient, own_address};
use crate::policy::params::BadParameters;
use crate::saved::eids::read_eids;
use crate::saved::model_file::ModelFile;
use crate::saved::{Dynamic, FlagOverrides};
use crate::storage::lock::FolderLock;
use crate::storage::{self, StorageError};
use crate::tls::TlsProblem;
use crate::types::{Identity, NodeDescription, RecordLoad, Saying};
use crate::wire::headers::OUR_PROTOCOL_NUMBER;
use crate::wire::{WireMachine, list_bytes_max, read_machines};

/// Why a node does not start. Nothing was changed or bound by it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file in the data path.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Where functions run, such as a gateway whose credentials cannot be read.
    #[error(transparent)]
    Backend(#[from] BadBackend),
    /// The token that changes want.
    #[error(transparent)]
    AdminToken(#[from] BadToken),
    /// The cluster key.
    #[error(transparent)]
    ClusterKey(#[from] BadGivenKey),
    /// A certificate.
    #[error("TLS: {0}")]
    Tls(#[from] TlsProblem),
    /// The scheduler that flags ask for.
    #[error("scheduler: {0}")]
    Scheduler(#[from] BadParameters),
    /// An address that cannot be listened on.
    #[error("cannot listen on {0}")]
    Bind(std::io::Error),
}

/// A running node.
pub struct Node {
    /// What its threads share.
    pub state: Arc<NodeState>,
    supervisor: Addr<Supervisor>,
    gateway: Handle<Gateway>,
    /// The Learner's.
    thread: LearnerThread,
    /// Resolves if the supervisor itself ends.
    broken: Option<oneshot::Receiver<()>>,
    /// While the node is there, keys and certificates are looked at.
    trust: Option<TrustKeeper>,
    /// While the node is there, it hears of others.
    datagrams: Option<DatagramReader>,
    /// While the node is there, its folder is its own.
    _folder: FolderLock,
}

impl Node {
    /// Starts a node on the current arbiter; its HTTP workers get threads of their own.
    ///
    /// # Errors
    /// A file that cannot be used, an address that cannot be bound.
    pub fn start(settings: Settings, flags: &FlagOverrides) -> Result<Self, StartError> {
        storage::prepare_folder(&settings.data_path)?;
        let folder = FolderLock::take(&settings.data_path)?;
        let dynamic = Dynamic::load(&settings, flags)?;
        let policy = dynamic.scheduler.build()?;
        let identity = dynamic.machine.running.identity(own_address(&settings));
        let settings = Settings { host: listened(settings.host, identity.ip), ..settings };
        let kept = keep(&settings, &dynamic, &identity);
        let learning = learning(&settings, &dynamic)?;
        let backends = Backends::prepare(&settings)?;
        let trust = trust::read(&settings, &identity)?;
        let listeners = Listeners::bind(&settings).map_err(StartError::Bind)?;
        let datagrams = swim_socket::bind(&settings).map_err(StartError::Bind)?;

        let settings = Arc::new(settings);
        let gate = Gate::new(dynamic.limits.running, settings.waiting_bytes_max);
        let active = Active::new(0, policy);
        warn_at_start(&settings, &active, &identity, &trust);
        let published = Arc::clone(&kept.published);
        let state = Arc::new(NodeState::new(settings, trust, gate, active, published, learning));

        let datagrams =
            datagrams.map(|udp| SwimSocket::new(udp, &state.settings, trust::seal(&state)));
        let datagrams = datagrams.transpose().map_err(StartError::Bind)?.map(Rc::new);

        actix_rt::spawn(state.connections.sweeping());
        let (say_broken, broken) = oneshot::channel();
        let root = Guard::new(move |_| {
            // Nobody listens any more when the node was stopped on purpose.
            let _ = say_broken.send(());
        });
        let gateway = Handle::default();
        let thread = LearnerThread::default();
        let handle = state.learning.learner.clone();
        let supervisor = tree(&state, &dynamic, kept, datagrams.clone(), root)
            .child_started("learner", learner::PATIENCE, handle, learner(&state, &thread))
            .child("gateway", gateway.clone(), {
                let worker = workers(&state, backends);
                let servers = Rc::new(Servers::new(Arc::clone(&state), worker, listeners));
                move |guard| Gateway::new(servers.clone(), guard)
            })
            .schedulers(Arc::clone(&state.schedulers))
            .start();
        let datagrams = datagrams.map(|s| DatagramReader::start(s, state.discovery.clone()));
        Ok(Self {
            trust: TrustKeeper::start(&state),
            state,
            supervisor,
            gateway,
            thread,
            broken: Some(broken),
            datagrams,
            _folder: folder,
        })
    }

    /// Resolves if the root of the tree is gone, which leaves nobody to restart the others.
    pub async fn broken(&mut self) {
        match self.broken.take() {
            // The sender is dropped with the guard, after it has spoken.
            Some(broken) => drop(broken.await),
            None => std::future::pending().await,
        }
    }

    /// Stops taking calls, lets those that run or wait finish within the drain time, saves what is
    /// not saved. Calls that do not finish in time are answered with an error.
    pub async fn stop(mut self) {
        let limit = Duration::from_secs(self.state.settings.drain_timeout_s);
        tracing::info!(?limit, "stopping: no new calls, those that run may finish");
        // A root that is gone restarts nobody anyway.
        let _ = self.supervisor.send(StopRestarting).await;
        self.state.phase.send_replace(NodePhase::Draining);
        self.say_farewell().await;
        // The gate stays open: a call that was taken may still be read, probed for, or come back
        // from a peer that is gone.
        let drained = async {
            if self.gateway.ask_within(limit, || Drain).await.is_err() {
                // It is gone or stuck: calls finish unwatched, for as long as they may.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = drained => {}
            () = tokio::time::sleep(limit) => {
                let load = self.state.gate.load();
                tracing::warn!(load.running, load.waiting, "time is up: calls are given up");
                self.state.gate.close();
                self.state.phase.send_replace(NodePhase::Stopped);
                // What is given up is answered; the servers end by themselves soon after.
                tokio::time::sleep(GIVEN_UP).await;
                let answered = async {
                    while self.state.gate.load().total() > 0 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                let _ = tokio::time::timeout(GIVEN_UP * 5, answered).await;
            }
        }
        if tokio::time::timeout(SAVING, self.save()).await.is_err() {
            tracing::error!("saving takes too long: what was not saved is lost");
        }
        self.supervisor.do_send(EndActor);
        drop(self.trust.take());
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
        if let Some(datagrams) = self.datagrams.take() {
            datagrams.end().await;
        }
        tracing::info!("stopped");
    }

    /// Tells the others that this node stops, and waits until what they had sent here already has come:
    /// meanwhile it goes on serving, and every answer ends its connection.
    async fn say_farewell(&self) {
        let told = self.state.discovery.ask_within(FAREWELL, || Leave);
        if told.await.is_err() {
            tracing::debug!("not all others know that this node stops");
        }
        if self.state.connections.count() > 0 {
            tokio::time::sleep(ON_THEIR_WAY).await;
        }
    }

    /// Saves what is not saved yet.
    async fn save(&self) {
        if self.state.discovery.ask_within(SAVING, || Flush).await.is_err() {
            tracing::error!("the known machines were not saved");
        }
        match self.state.learning.learner.ask_within(SAVING, || SaveModel).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "what was learnt was not saved"),
            Err(_) => tracing::error!("what was learnt was not saved"),
        }
    }
}

/// What the others have to hear that this node stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a call may take from another node's decision to this node.
const ON_THEIR_WAY: Duration = Duration::from_millis(300);
/// What calls that are given up have to be answered.
const GIVEN_UP: Duration = Duration::from_millis(200);
/// What the disk has at the end.
const SAVING: Duration = Duration::from_secs(10);

/// What the Learner begins with: the model and the EIDs of earlier runs.
fn learning(settings: &Settings, dynamic: &Dynamic) -> Result<Arc<LearnerHub>, StartError> {
    let (learner, file) = ModelFile::load(&settings.data_path, dynamic.learner.clone())?;
    let reserved = read_eids(&settings.data_path)?;
    Ok(LearnerHub::new(learner.snapshot(), file, reserved, &settings.data_path))
}

/// The thread on which the Learner's present incarnation runs.
type LearnerThread = Rc<Cell<Option<Arbiter>>>;

/// Starts the Learner, each time on a thread of its own: that of the incarnation before may hang. It
/// ends with what still waits there.
fn learner(
    state: &Arc<NodeState>,
    thread: &LearnerThread,
) -> impl FnMut(Guard) -> Addr<LearnerActor> + use<> {
    let (shared, settings) = (Arc::clone(&state.learning), Arc::clone(&state.settings));
    let thread = Rc::clone(thread);
    move |guard| {
        let (shared, settings) = (Arc::clone(&shared), Arc::clone(&settings));
        let next = Arbiter::new();
        let addr = LearnerActor::start_in_arbiter(&next.handle(), move |_| {
            let save_time = Settings::seconds(settings.learner_save_time_s);
            LearnerActor::new(shared, &settings.data_path, save_time, guard)
        });
        if let Some(before) = thread.replace(Some(next)) {
            before.stop();
        }
        addr
    }
}

/// The supervision tree's first half: what calls need before they can be served.
fn tree(
    state: &Arc<NodeState>,
    dynamic: &Dynamic,
    kept: Rc<DiscoveryState>,
    datagrams: Option<Rc<SwimSocket>>,
    root: Guard,
) -> Supervisor {
    let settings = Arc::clone(&state.settings);
    let limits = Arc::new(SavedLimits::new(dynamic.limits.clone()));
    let queue = {
        let (gate, settings) = (Arc::clone(&state.gate), Arc::clone(&settings));
        move |guard| Queue::new(gate.clone(), limits.clone(), &settings.data_path, guard)
    };
    let switch = {
        let (in_force, settings) = (Arc::clone(&state.in_force), Arc::clone(&settings));
        let (turn, node, saying) = (Arc::default(), state.source(), Arc::clone(&state.saying));
        move |guard| {
            let (turn, saying) = (Arc::clone(&turn), Arc::clone(&saying));
            Switch::new(in_force.clone(), node.clone(), saying, turn, &settings.data_path, guard)
        }
    };
    let discovery = {
        let metrics = Arc::clone(&state.metrics);
        let (bodies, handle) = (state.call_bodies(), state.discovery.clone());
        let members = Arc::clone(&state.trust.members);
        let poller =
            PeerClient::new(Arc::clone(&settings), handle, Arc::clone(&metrics), bodies, members);
        let poller = Rc::new(poller.sending(datagrams));
        let how = DiscoverySettings {
            poll_time: Settings::seconds(settings.poll_time_s),
            follows: !settings.service_discovery_host.is_empty(),
            data_path: settings.data_path.clone(),
            machines_max: settings.machines_max,
            seed: chance(),
            about: about(&settings),
            said: said(state),
        };
        move |guard| {
            Discovery::new(kept.clone(), how.clone(), poller.clone(), metrics.clone(), guard)
        }
    };
    Supervisor::new(Arc::clone(&state.metrics), Arc::clone(&state.observations), root)
        .child("queue", state.queue.clone(), queue)
        .child("switch", state.switch.clone(), switch)
        .child("discovery", state.discovery.clone(), discovery)
}

/// What is listened on so that the address that others are told is among it: all addresses of IPv4 are not
/// enough for one of IPv6.
fn listened(host: IpAddr, own: Option<IpAddr>) -> IpAddr {
    let is_all = host == IpAddr::from(Ipv4Addr::UNSPECIFIED);
    match own.filter(|_| is_all) {
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => host,
    }
}

/// What a node says of itself that no configuration changes.
fn about(settings: &Settings) -> NodeDescription {
    let functions = (!settings.fns_list.is_empty()).then(|| settings.fns_list.clone());
    NodeDescription {
        software: format!("p2pfaas {}", crate::VERSION),
        protocol: OUR_PROTOCOL_NUMBER,
        tls_port: settings.has_cluster_key().then_some(settings.peer_tls_port),
        functions,
        ..NodeDescription::default()
    }
}

/// How busy the node is and what its algorithm says, to be asked now and then.
fn said(state: &Arc<NodeState>) -> Rc<dyn Fn() -> (RecordLoad, Saying)> {
    let state = Arc::clone(state);
    Rc::new(move || {
        let load = state.gate.load();
        let load = RecordLoad {
            k: state.gate.k(),
            running: load.running,
            waiting: load.waiting,
            failing_percent: state.outliers.failing_here_percent(),
        };
        (load, Arc::clone(&state.saying.load()))
    })
}

#[expect(clippy::disallowed_methods, reason = "whom a node asks next is nobody's to foresee")]
fn chance() -> u64 {
    rand::random()
}

/// What Discovery begins with: the machines that were alive when the node last ran.
fn keep(settings: &Settings, dynamic: &Dynamic, identity: &Identity) -> Rc<DiscoveryState> {
    let rules = Rules {
        dead_polls_threshold: settings.machine_dead_polls_threshold,
        dead_poll_time: Settings::seconds(settings.dead_poll_time_s),
        machines_max: settings.machines_max,
    };
    let mut membership = Membership::new(rules, identity.ip);
    for machine in known_machines(settings) {
        if let Some(ip) = machine.address() {
            let (name, group) = (machine.name, machine.group_name);
            let is = Introduction { name, group, ..Introduction::default() };
            membership.remembered(ip, is, At::default());
        }
    }
    let published = Published { identity: identity.clone(), ..Published::default() };
    Rc::new(DiscoveryState {
        membership: RefCell::new(membership),
        config: Mutex::new(dynamic.machine.clone()),
        published: Arc::new(ArcSwap::from_pointee(published)),
        writing: Default::default(),
    })
}

/// The machines that were known when the node last ran. They are a hint: a file that cannot be used
/// is set aside, and the node starts without.
fn known_machines(settings: &Settings) -> Vec<WireMachine> {
    let file = settings.data_path.join(storage::MACHINES_FILE);
    let max = settings.machines_max;
    let read = match storage::read_bounded(&file, list_bytes_max(max)) {
        Ok(list) => read_machines(&list, max),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(why) => Err(why.to_string()),
    };
    read.unwrap_or_else(|why| {
        let aside = storage::set_aside(&file).map(|moved_to| moved_to.display().to_string());
        let moved_to = aside.unwrap_or_else(|why| why.to_string());
        let file = file.display();
        tracing::warn!(%file, why, moved_to, "the machines known before cannot be read: without");
        Vec::new()
    })
}

fn warn_at_start(settings: &Settings, active: &Active, identity: &Identity, trust: &NodeTrust) {
    if let Some(warning) = active.policy.warning() {
        tracing::warn!(scheduler = %active.full_name, "{warning}");
    }
    if settings.admin == Admin::Any && !trust.admin_token.is_wanted() {
        tracing::warn!(
            "whoever reaches the ports can change this node (--admin any, as in v1); \
             P2PFAAS_ADMIN_TOKEN, --admin loopback or off limit that"
        );
    }
    if !settings.has_cluster_key() {
        tracing::warn!(
            "whoever reaches the ports can join the cluster and is handed calls (as in v1); a cluster key \
             (P2PFAAS_CLUSTER_KEY_FILE) lets in only those that have it"
        );
    }
    if identity.ip.is_none() && settings.service_discovery_host.is_empty() {
        tracing::warn!(
            interface = settings.default_iface,
            "no machine IP is configured and the interface has none: other nodes cannot learn of \
             this one until it has, or one is set (--machine-ip)"
        );
    }
}

#[cfg(test)]
mod tests;
