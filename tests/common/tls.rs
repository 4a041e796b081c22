//! Servers that speak TLS in front of those that do not.

use std::net::Ipv4Addr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A certificate for one address that signed itself, and what a server needs to have it.
pub struct Certified {
    pub pem: String,
    pub key_pem: String,
    pub config: Arc<ServerConfig>,
}

impl Certified {
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("a certificate");
        Self {
            pem: pem("CERTIFICATE", made.cert.der()),
            key_pem: pem("PRIVATE KEY", &made.signing_key.serialize_der()),
            config: Arc::new(config),
        }
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}

type Place = (Ipv4Addr, u16);

/// Hands everything that comes at `from` on to `to`, by TLS if there is a certificate.
pub async fn front(from: Place, to: Place, certified: Option<&Certified>) {
    let listener = TcpListener::bind(from).await.expect("a free address");
    let tls = certified.map(|certified| TlsAcceptor::from(Arc::clone(&certified.config)));
    actix_rt::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let tls = tls.clone();
            actix_rt::spawn(async move {
                let Ok(mut server) = TcpStream::connect(to).await else { return };
                match tls {
                    None => drop(tokio::io::copy_bidirectional(&mut client, &mut server).await),
                    Some(tls) => {
                        let Ok(mut client) = tls.accept(client).await else { return };
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                }
            });
        }
    });
}
