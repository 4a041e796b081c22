//! TLS: between nodes that have a cluster key, and for clients where the operator gives a certificate.
//!
//! Between nodes it is TLS 1.3 with certificates on both sides. Every node makes the cluster's authority of the
//! key ([`crate::trust`]) and signs itself a certificate (`certificates.rs`). What is in force changes with the
//! keys, with the node's own addresses and name, and with time: each time a new [`Epoch`] is made, and
//! connections of the one before are used for no new request.
//!
//! A node's first words on a connection hold a greeting (where the name of a protocol stands, ALPN): a sealed
//! datagram, which says nothing but who may have made it, when, and for whom, and is good once. Who cannot greet,
//! or says again what a member has said, is not worth computing any more for.

mod certificates;
mod served;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CipherSuite, ClientConfig, ServerConfig};

use self::certificates::{Authorities, issue};
pub use self::certificates::{CertifiedNames, ClusterMember, LIFETIME};
pub use self::served::ServedTls;
use crate::lock;
use crate::trust::sealed::{NotOpened, Opener, SESSION_BYTES, Sealer};
use crate::trust::{ClusterKeys, KeyId};
use crate::types::Cause;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsProblem {
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What rustls says of it.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// What a verifier cannot be made of.
    #[error("{0}")]
    Verifier(Cause),
    /// There is no key.
    #[error("there is no cluster key")]
    NoKey,
    /// A file that is none of the kind.
    #[error("{0}")]
    File(String),
}

/// The ciphers, the quickest on this machine first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let first = match has_aes() {
        true => CipherSuite::TLS13_AES_128_GCM_SHA256,
        // Small boards compute AES slowly, and in a time that tells of what is computed.
        false => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

/// Whether the processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// What is in force between nodes at a time.
pub struct Epoch {
    /// Tells it from those before.
    pub number: u64,
    /// The keys.
    pub keys: ClusterKeys,
    /// Who this node is, in its certificate.
    pub names: CertifiedNames,
    /// When it was made, since 1970.
    pub made: Duration,
    /// How this node answers others.
    pub server: Arc<ServerConfig>,
    /// How it calls them.
    pub client: Arc<ClientConfig>,
    authorities: Authorities,
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").field("number", &self.number).field("keys", &self.keys).finish()
    }
}

impl Epoch {
    fn new(
        number: u64,
        keys: ClusterKeys,
        names: CertifiedNames,
        unix: Duration,
    ) -> Result<Self, TlsProblem> {
        let authorities = Authorities::of(&keys)?;
        let roots = Arc::new(authorities.roots.clone());
        let own = issue(keys.sealing().ok_or(TlsProblem::NoKey)?, &names, unix)?;
        let chain: Vec<CertificateDer<'static>> = vec![own.cert.der().clone()];
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let wrong = |why| TlsProblem::Verifier(Cause::of(why));

        let provider = provider();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients.build().map_err(wrong)?)
            .with_single_cert(chain.clone(), key())?;
        // What was agreed on once must not outlive a key or a certificate.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});

        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(servers.build().map_err(wrong)?)
            .with_client_auth_cert(chain, key())?;
        client.resumption = Resumption::disabled();
        Ok(Self {
            number,
            keys,
            names,
            made: unix,
            server: Arc::new(server),
            client: Arc::new(client),
            authorities,
        })
    }

    /// Who is at the other end of a connection, whose certificates were found to be good.
    pub fn member(&self, certificates: Option<&[CertificateDer<'_>]>) -> Option<ClusterMember> {
        self.authorities.member(certificates?.first()?)
    }

    /// Whether it is time for another certificate.
    fn is_old(&self, unix: Duration) -> bool {
        self.made.abs_diff(unix) >= LIFETIME / 2
    }
}

/// What a greeting says: it is no datagram of SWIM's.
const GREETING: &[u8] = b"hello";

/// What a node has of its cluster's trust: all threads read it, one task sees to it. Without a key it is
/// empty, and the node is open.
pub struct PeerTls {
    epoch: ArcSwapOption<Epoch>,
    number: AtomicU64,
    greets: Mutex<Sealer>,
    hears: Mutex<Opener>,
}

impl PeerTls {
    /// Nothing yet. `session` is made by chance.
    pub fn new(session: [u8; SESSION_BYTES]) -> Self {
        Self {
            epoch: ArcSwapOption::empty(),
            number: AtomicU64::new(0),
            greets: Mutex::new(Sealer::new(session)),
            hears: Mutex::default(),
        }
    }

    /// How this node greets the member at `to`, at the time `unix`.
    pub fn greeting(&self, epoch: &Epoch, to: IpAddr, unix: Duration) -> Vec<u8> {
        let greeting = lock(&self.greets).seal(&epoch.keys, to, unix, GREETING);
        greeting.unwrap_or_default()
    }

    /// Whether who says `hello` is a member that says it now, to this node at one of these addresses.
    ///
    /// # Errors
    /// It is not.
    pub fn hears(
        &self,
        epoch: &Epoch,
        hello: &ClientHello<'_>,
        own: &[IpAddr],
        unix: Duration,
    ) -> Result<(), NotOpened> {
        let said = hello.alpn().and_then(|mut said| said.next()).unwrap_or_default();
        let mut hears = lock(&self.hears);
        let mut last = NotOpened::Open;
        for own in own {
            match hears.open(&epoch.keys, *own, unix, said) {
                Ok(said) if said == GREETING => return Ok(()),
                Ok(_) => return Err(NotOpened::Open),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// What is in force.
    pub fn epoch(&self) -> Option<Arc<Epoch>> {
        self.epoch.load_full()
    }

    /// The number of what is in force; 0: nothing is.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Whether one of the keys in force is the one of that id.
    pub fn trusts(&self, key: KeyId) -> bool {
        self.epoch.load().as_ref().is_some_and(|epoch| epoch.keys.of(key).is_some())
    }

    /// Puts `keys` and `names` in force at the time `unix`, unless they are so already and the certificate is
    /// still good for a while. Gives whether anything has changed.
    ///
    /// # Errors
    /// It cannot; then all stays as it is.
    pub fn renew(
        &self,
        keys: &ClusterKeys,
        names: &CertifiedNames,
        unix: Duration,
    ) -> Result<bool, TlsProblem> {
        let present = self.epoch();
        let same = |epoch: &Arc<Epoch>| {
            epoch.keys.ids() == keys.ids() && epoch.names == *names && !epoch.is_old(unix)
        };
        if present.as_ref().is_some_and(same) {
            return Ok(false);
        }
        let number = present.map_or(1, |epoch| epoch.number + 1);
        let epoch = Epoch::new(number, keys.clone(), names.clone(), unix)?;
        self.epoch.store(Some(Arc::new(epoch)));
        self.number.store(number, Ordering::Relaxed);
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
