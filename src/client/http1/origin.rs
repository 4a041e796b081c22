//! Where requests go.

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Origin {
    /// A name or an address, without brackets.
    pub(super) host: Rc<str>,
    pub(super) port: u16,
    /// Both, as they stand in a URL.
    pub(super) text: Rc<str>,
    /// Whether it is a node that is spoken to by TLS; its host is an address then.
    pub(super) sealed: bool,
    /// What connecting to it may take beyond the usual.
    pub(super) longer: Duration,
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.sealed == other.sealed
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Origin {
    /// Of a host as it stands in a URL.
    pub fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let text = format!("{}:{port}", crate::types::url_host(host));
        Self { host: host.into(), port, text: text.into(), sealed: false, longer: Duration::ZERO }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same, where a member of the cluster answers by TLS.
    pub fn sealed(self) -> Self {
        Self { sealed: true, ..self }
    }

    /// The same, where connecting may take so much longer.
    pub fn patiently(self, longer: Duration) -> Self {
        Self { longer, ..self }
    }
}
