//! What the nodes of a fleet are asked with: the token that changes want, and TLS where a node's scheduler port
//! speaks it. (Discovery and the learner speak HTTP.)

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use awc::ClientRequest;
use awc::http::Method;
use awc::http::header::HeaderValue;

use super::Fleet;
use crate::client::{Hosts, ServerTrust, client, tls_client};
use crate::keys::Secret;
use crate::types::url_host;

/// What whoever asks brings along.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The token for changes, if there is one.
    pub token: Secret,
    /// Whose certificates are believed.
    pub trust: Option<ServerTrust>,
}

/// Nodes are to be asked by https, and nobody's certificates are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nodes are to be asked by https, and no certificates are known that they could have: \
     --ca FILE (P2PFAAS_CA_FILE) names a file of them, or of the authority that signed them"
)]
pub struct NoTrust;

/// How the nodes of a fleet are reached.
#[derive(Clone, Debug, Default)]
pub struct FleetAccess {
    credentials: Credentials,
    by_tls: HashSet<IpAddr>,
}

impl FleetAccess {
    /// Those of `fleet`, with these credentials.
    ///
    /// # Errors
    /// Some are asked by https and nobody is trusted.
    pub fn new(credentials: Credentials, fleet: &Fleet) -> Result<Self, NoTrust> {
        let secured = || fleet.0.iter().filter(|member| member.tls);
        let by_tls: HashSet<IpAddr> = secured().map(|member| member.address).collect();
        // A node that the file names by its host name has a certificate for that.
        let named = || secured().map(|member| (member.address, &*member.host));
        let trust = credentials.trust.map(|trust| trust.knowing(named()));
        if trust.is_none() && !by_tls.is_empty() {
            return Err(NoTrust);
        }
        Ok(Self { credentials: Credentials { trust, ..credentials }, by_tls })
    }

    /// What stands in `Authorization` of a change.
    pub fn bearer(&self) -> Option<HeaderValue> {
        let token = &self.credentials.token;
        let value = token.is_set().then(|| format!("Bearer {}", token.reveal()))?;
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The clients, for the current thread; `scheduler_port` is the same on all nodes.
    pub fn ways(&self, connect_timeout: Duration, scheduler_port: u16) -> Ways {
        let trust = self.credentials.trust.as_ref();
        let secured = trust.map(|trust| tls_client(connect_timeout, trust));
        Ways {
            scheduler_port,
            clear: client(connect_timeout, Hosts::Any),
            secured: secured.map(|client| (client, self.by_tls.clone())),
        }
    }
}

/// The clients by which nodes are asked.
pub struct Ways {
    scheduler_port: u16,
    clear: awc::Client,
    /// And who is asked by it, on the scheduler's port.
    secured: Option<(awc::Client, HashSet<IpAddr>)>,
}

impl Ways {
    /// The way to a port of the node at `ip`, and whether TLS is on it.
    fn to(&self, (ip, port): (IpAddr, u16)) -> (&awc::Client, bool) {
        match &self.secured {
            Some((client, by_tls)) if port == self.scheduler_port && by_tls.contains(&ip) => {
                (client, true)
            }
            _ => (&self.clear, false),
        }
    }

    /// The client for the scheduler port of the node at `ip`.
    pub fn to_scheduler(&self, ip: IpAddr) -> &awc::Client {
        self.to((ip, self.scheduler_port)).0
    }

    /// Where a path of a node is, for people.
    pub fn url_of(&self, at: (IpAddr, u16), path: &str) -> String {
        url(if self.to(at).1 { "https" } else { "http" }, at, path)
    }

    /// A request, and where it goes.
    pub fn request(
        &self,
        method: Method,
        at: (IpAddr, u16),
        path: &str,
    ) -> (String, ClientRequest) {
        (self.url_of(at, path), self.to(at).0.request(method, url("http", at, path)))
    }
}

fn url(scheme: &str, (ip, port): (IpAddr, u16), path: &str) -> String {
    format!("{scheme}://{}:{port}{path}", url_host(&ip.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(text: &str) -> Fleet {
        Fleet::parse(text, &|_| Ok([10, 0, 0, 9].into())).expect("a fleet")
    }

    #[test]
    fn a_node_that_speaks_tls_is_not_asked_without_knowing_whom_to_believe() {
        let fleet = fleet("nodes = [\"10.0.0.1\", { address = \"board-9\", tls = true }]");
        let refused = FleetAccess::new(Credentials::default(), &fleet);
        assert_eq!(refused.err(), Some(NoTrust));
        let all =
            self::fleet("tls = true\nnodes = [\"10.0.0.1\", { address = \"b\", tls = false }]");
        assert_eq!(all.0.iter().map(|member| member.tls).collect::<Vec<_>>(), [true, false]);
        let hosts = self::fleet("10.0.0.1\n10.0.0.2\n");
        assert!(FleetAccess::new(Credentials::default(), &hosts).is_ok());
    }

    #[test]
    fn the_token_goes_into_a_header_and_is_not_shown() {
        let token = Secret::new("0123456789abcdef");
        let credentials = Credentials { token, trust: None };
        let access = FleetAccess::new(credentials, &fleet("10.0.0.1\n")).expect("no TLS");
        let bearer = access.bearer().expect("a token");
        assert_eq!(bearer.as_bytes(), b"Bearer 0123456789abcdef");
        let shown = format!("{bearer:?} {access:?}");
        assert!(!shown.contains("0123"), "{shown}");
        assert_eq!(FleetAccess::default().bearer(), None);
    }
}
