//! The certificate that clients see.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsProblem, provider};
use crate::storage::{TEXT_BYTES_MAX, read_bounded};

/// TLS for clients, with a certificate and its key from files, which can be read again.
pub struct ServedTls {
    certificate: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
}

impl fmt::Debug for ServedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedTls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl ServedTls {
    /// Reads both files, in PEM.
    ///
    /// # Errors
    /// One cannot be read, or they do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsProblem> {
        let config = ArcSwap::from(config(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), config })
    }

    /// Reads them again, for the connections to come.
    ///
    /// # Errors
    /// As for [`Self::read`]; then all stays as it is.
    pub fn read_again(&self) -> Result<(), TlsProblem> {
        self.config.store(config(&self.certificate, &self.key)?);
        Ok(())
    }

    /// How clients are answered now.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn problem(path: &Path, why: &dyn fmt::Display) -> TlsProblem {
    TlsProblem::File(format!("{}: {why}", path.display()))
}

fn text(path: &Path) -> Result<Vec<u8>, TlsProblem> {
    read_bounded(path, TEXT_BYTES_MAX).map_err(|why| problem(path, &why))
}

fn config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsProblem> {
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&text(certificate)?).collect();
    let chain = chain.map_err(|why| problem(certificate, &why))?;
    if chain.is_empty() {
        return Err(problem(certificate, &"there is no certificate in it"));
    }
    // What is wrong with a key is told without anything of it.
    let key_der = PrivateKeyDer::from_pem_slice(&text(key)?)
        .map_err(|_| problem(key, &"there is no private key in it"))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|why| problem(certificate, &format!("with the key {}: {why}", key.display())))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
