//! Whom a node trusts, from its start on: keys, tokens and certificates are read, and read again while it runs.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_rt::task::JoinHandle;
use tokio::signal::unix::{SignalKind, signal};

use super::StartError;
use crate::call::state::{NodeState, NodeTrust};
use crate::client::is_link_local;
use crate::config::{AdminToken, GivenKey, Settings};
use crate::peer::swim_socket::Seal;
use crate::time::since_1970;
use crate::tls::{CertifiedNames, PeerTls, ServedTls};
use crate::trust::ClusterKeys;
use crate::trust::sealed::SESSION_BYTES;
use crate::types::Identity;

/// How often it is looked whether a file, or this node's own address or name, has changed.
const LOOK: Duration = Duration::from_millis(500);

/// Reads what the settings name, for a node of that identity.
pub fn read(settings: &Settings, identity: &Identity) -> Result<NodeTrust, StartError> {
    let members = PeerTls::new(session());
    if let Some(given) = GivenKey::of(settings) {
        members.renew(&given.read()?, &names(identity), since_1970())?;
    }
    let clients = match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => Some(Arc::new(ServedTls::read(certificate, key)?)),
        _ => None,
    };
    Ok(NodeTrust {
        admin_token: AdminToken::load(settings)?,
        members: Arc::new(members),
        clearance: settings.clearance(),
        clients,
    })
}

#[expect(clippy::disallowed_methods, reason = "no session is to come twice")]
fn session() -> [u8; SESSION_BYTES] {
    rand::random()
}

/// What seals the datagrams of a node with a cluster key.
pub fn seal(state: &NodeState) -> Option<Seal> {
    let (members, published) = (Arc::clone(&state.trust.members), Arc::clone(&state.published));
    let new = || Seal::new(members, published, Arc::clone(&state.metrics), session());
    state.settings.has_cluster_key().then(new)
}

/// Who a node is in its certificate: at the address that others know, and at those from which it connects.
fn names(identity: &Identity) -> CertifiedNames {
    let own = identity.ip;
    let is_near = own.is_some_and(|ip| ip.is_loopback());
    let of_interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|i| i.ip());
    let near = is_near.then_some(IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut addresses: Vec<IpAddr> = of_interfaces
        .chain(near)
        .map(|ip| ip.to_canonical())
        .filter(|ip| !is_link_local(*ip) && (is_near || !ip.is_loopback()) && Some(*ip) != own)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    CertifiedNames {
        addresses: own.into_iter().chain(addresses).collect(),
        name: identity.id.clone(),
    }
}

/// Sees to it that what is in force is what the files say and what the node is, for as long as it lives.
pub struct TrustKeeper(JoinHandle<()>);

impl TrustKeeper {
    /// Looks now and then, and at once when the process is told to (SIGHUP). `None`: there is nothing to look
    /// at.
    pub fn start(state: &Arc<NodeState>) -> Option<Self> {
        let (settings, trust) = (&state.settings, &state.trust);
        let given = GivenKey::of(settings);
        let token = trust.admin_token.file();
        if given.is_none() && token.is_none() && trust.clients.is_none() {
            return None;
        }
        let mut keeper = Keeper {
            state: Arc::clone(state),
            keys: trust.members.epoch().map(|epoch| epoch.keys.clone()),
            given,
            certificates: [&settings.tls_cert, &settings.tls_key]
                .map(|file| WatchedFile::new(file.clone())),
            failed: [None, None],
        };
        keeper.show();
        let mut told = signal(SignalKind::hangup()).ok();
        Some(Self(actix_rt::spawn(async move {
            let mut time = tokio::time::interval(LOOK);
            time.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let is_told = tokio::select! {
                    _ = time.tick() => false,
                    Some(()) = async { told.as_mut()?.recv().await } => true,
                };
                keeper.look(is_told);
            }
        })))
    }
}

impl Drop for TrustKeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A file that may change, also by a link that leads elsewhere, as in a mounted secret.
struct WatchedFile {
    path: Option<PathBuf>,
    /// Its inode, times of change, and length when it was last taken over.
    taken: Option<(u64, i64, i64, SystemTime, u64)>,
}

impl WatchedFile {
    /// It is taken to have been looked at never.
    fn new(path: Option<PathBuf>) -> Self {
        Self { path, taken: None }
    }

    fn now(&self) -> Option<(u64, i64, i64, SystemTime, u64)> {
        let about = std::fs::metadata(self.path.as_ref()?).ok()?;
        let modified = about.modified().ok()?;
        Some((about.ino(), about.ctime(), about.ctime_nsec(), modified, about.len()))
    }

    /// Whether it is another one than was taken over.
    fn has_changed(&self) -> bool {
        self.path.is_some() && self.now() != self.taken
    }
}

/// Tells why something stays as it was, unless that was told last.
fn tell_once(told: &mut Option<String>, why: &dyn std::fmt::Display, what: &str) {
    let why = why.to_string();
    if told.as_ref() != Some(&why) {
        tracing::error!(why, "{what}");
        *told = Some(why);
    }
}

struct Keeper {
    state: Arc<NodeState>,
    given: Option<GivenKey>,
    /// The keys as they were last read.
    keys: Option<ClusterKeys>,
    certificates: [WatchedFile; 2],
    /// What was last wrong with the key, and with the certificate, so that it is told once.
    failed: [Option<String>; 2],
}

impl Keeper {
    fn look(&mut self, is_told: bool) {
        // Small files are read each time: what lies in them may be another thing though nothing else tells it.
        self.state.trust.admin_token.reload();
        self.read_key();
        if self.certificates.iter().any(WatchedFile::has_changed) || is_told {
            self.read_certificate();
        }
        self.renew();
    }

    fn read_certificate(&mut self) {
        let Some(clients) = &self.state.trust.clients else { return };
        // Before they are read: what changes meanwhile is read again.
        let now = self.certificates.each_ref().map(WatchedFile::now);
        let is_first = self.certificates.iter().all(|file| file.taken.is_none());
        let [_, failed] = &mut self.failed;
        match clients.read_again() {
            Ok(()) => {
                for (file, now) in self.certificates.iter_mut().zip(now) {
                    file.taken = now;
                }
                *failed = None;
                if !is_first {
                    tracing::info!("clients are served with the certificate as it is now");
                }
            }
            // It is tried again: its other half may come in a moment.
            Err(why) => {
                tell_once(failed, &why, "clients go on being served with the certificate as it was")
            }
        }
    }

    fn read_key(&mut self) {
        let Some(given) = self.given.as_ref().filter(|given| given.file().is_some()) else {
            return;
        };
        let [failed, _] = &mut self.failed;
        match given.read() {
            Ok(keys) => (self.keys, *failed) = (Some(keys), None),
            Err(why) => tell_once(failed, &why, "the cluster key stays as it was"),
        }
    }

    /// Tells which keys are in force.
    fn show(&self) {
        let epoch = self.state.trust.members.epoch();
        let ids = epoch.iter().flat_map(|epoch| epoch.keys.ids()).map(|id| id.to_string());
        self.state.metrics.cluster_keys(&ids.collect::<Vec<_>>());
    }

    /// Puts in force what was read, for this node as it is now.
    fn renew(&self) {
        let Some(keys) = &self.keys else { return };
        let names = names(&self.state.published.load().identity);
        let members = &self.state.trust.members;
        let before = members.epoch().map(|epoch| epoch.keys.ids());
        match members.renew(keys, &names, since_1970()) {
            Ok(true) if before != Some(keys.ids()) => {
                self.show();
                tracing::info!(keys = ?keys.ids(), "other cluster keys are in force; the first seals");
            }
            Ok(true) => tracing::debug!("this node has another certificate"),
            Ok(false) => {}
            Err(why) => tracing::error!(%why, "this node's certificate stays as it was"),
        }
    }
}
