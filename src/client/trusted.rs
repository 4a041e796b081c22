//! Which servers are believed to be who they are, where requests go by TLS.
//!
//! There is no list of the world's authorities here: a fleet's certificates are its operator's own, and whose
//! they are says a file. A certificate that stands in the file itself is taken as it is, so that one that signed
//! itself does; else one from the file must have signed it. Either way it must name the server, but where a
//! server asks itself.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use actix_rt::net::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why a file with certificates cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCertificates(String);

/// Whom a client believes.
#[derive(Clone, Debug)]
pub struct ServerTrust {
    config: Arc<ClientConfig>,
    /// What servers are called that requests name by their address.
    names: Arc<HashMap<IpAddr, ServerName<'static>>>,
}

impl ServerTrust {
    /// Servers with a certificate of this file (PEM), or with one that one of the file has signed.
    ///
    /// # Errors
    /// There is none in it, or one cannot be read.
    pub fn of_authorities(pem: &[u8]) -> Result<Self, BadCertificates> {
        let listed = certificates(pem)?;
        let mut roots = RootCertStore::empty();
        for (certificate, number) in listed.iter().zip(1..) {
            let added = roots.add(certificate.clone());
            added.map_err(|why| BadCertificates(format!("certificate {number}: {why}")))?;
        }
        let provider = provider();
        let signed = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let signed = signed.build().map_err(|why| BadCertificates(why.to_string()))?;
        Self::of(Believed { listed, signed: Some(signed), provider })
    }

    /// The one server whose certificate is the first of this file (PEM), whatever it is called.
    ///
    /// # Errors
    /// As for [`Self::of_authorities`].
    pub fn of_itself(pem: &[u8]) -> Result<Self, BadCertificates> {
        let mut listed = certificates(pem)?;
        listed.truncate(1);
        Self::of(Believed { listed, signed: None, provider: provider() })
    }

    fn of(believed: Believed) -> Result<Self, BadCertificates> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&believed.provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| BadCertificates(why.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(believed))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), names: Arc::default() })
    }

    /// The same where the servers at these addresses have certificates for these names.
    pub fn knowing<'a>(self, named: impl IntoIterator<Item = (IpAddr, &'a str)>) -> Self {
        let names = named.into_iter().filter_map(|(address, name)| {
            Some((address.to_canonical(), ServerName::try_from(name).ok()?.to_owned()))
        });
        Self { names: Arc::new(names.collect()), ..self }
    }

    /// Whom the server at `host`, an address or a name, must prove to be.
    fn name_of(&self, host: &str) -> io::Result<ServerName<'static>> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let named = self.names.get(&address.to_canonical()).cloned();
            return Ok(named.unwrap_or_else(|| ServerName::IpAddress(address.into())));
        }
        let name = ServerName::try_from(bare.to_owned());
        name.map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// Agrees with the server at `host` on TLS.
    ///
    /// # Errors
    /// It is not believed, or does not speak it.
    pub(super) async fn secure(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = self.name_of(host)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// All certificates of a file.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadCertificates> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(BadCertificates("there is no certificate (PEM) in it".to_owned())),
        Err(why) => Err(BadCertificates(format!("it cannot be read as PEM: {why}"))),
    }
}

/// See the module.
#[derive(Debug)]
struct Believed {
    listed: Vec<CertificateDer<'static>>,
    /// `None`: only what is listed is believed, under whatever name.
    signed: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_listed = self.listed.contains(end_entity);
        match (&self.signed, is_listed) {
            (None, true) => Ok(ServerCertVerified::assertion()),
            (None, false) => Err(CertificateError::UnknownIssuer.into()),
            (Some(_), true) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            (Some(signed), false) => signed.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
