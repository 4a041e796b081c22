//! What the tools bring to the nodes that they ask: the admin token, which is in the environment or in a file,
//! since everybody on a machine sees the arguments of its programs; and whose certificates they believe.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::client::{BadCertificates, ServerTrust};
use crate::config::{CA_FILE, Settings, given_token};
use crate::fleet::Credentials;
use crate::keys::Secret;
use crate::storage::{TEXT_BYTES_MAX, read_bounded};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct TrustArgs {
    /// File with certificates (PEM) that are believed where nodes are asked by https: the nodes' own, or those
    /// of the authority that signed them [default: the one that P2PFAAS_CA_FILE names].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What the environment says under a name, if anything.
fn told(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|text| !text.is_empty())
}

/// What the environment says of a setting.
fn of_setting(name: &str) -> Option<OsString> {
    Settings::KEYS.iter().find(|key| key.name == name).and_then(|key| told(&key.environment()))
}

/// Makes of a file with certificates whom to believe.
pub(super) fn trust_in(
    file: &Path,
    believe: fn(&[u8]) -> Result<ServerTrust, BadCertificates>,
) -> Result<ServerTrust, Failure> {
    let unusable =
        |why: &dyn std::fmt::Display| Failure::Configuration(format!("{}: {why}", file.display()));
    let pem = read_bounded(file, TEXT_BYTES_MAX).map_err(|why| unusable(&why))?;
    believe(&pem).map_err(|why| unusable(&why))
}

impl TrustArgs {
    /// Whose certificates are believed; `None`: nobody's.
    pub(super) fn trust(&self) -> Result<Option<ServerTrust>, Failure> {
        let file = self.ca.clone().or_else(|| told(CA_FILE).map(PathBuf::from));
        file.map(|file| trust_in(&file, ServerTrust::of_authorities)).transpose()
    }

    /// That, and the token that the environment gives.
    pub(super) fn credentials(&self) -> Result<Credentials, Failure> {
        let token = of_setting("admin_token").unwrap_or_default();
        // What is no text is no token, which is then said.
        let token = Secret::new(token.to_string_lossy());
        let file = of_setting("admin_token_file").map(PathBuf::from);
        let token = given_token(&token, file.as_deref());
        let token = token.map_err(|why| Failure::Configuration(why.to_string()))?;
        Ok(Credentials { token, trust: self.trust()? })
    }
}
