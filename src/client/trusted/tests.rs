//! Servers with certificates of every kind, and who believes them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::*;
use crate::client::{BodyFailure, read_body, tls_client};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

struct Own {
    certificate: Certificate,
    key: KeyPair,
}

impl Own {
    fn as_pem(&self) -> String {
        pem(&self.certificate)
    }
}

/// As files have it.
fn pem(certificate: &Certificate) -> String {
    let text = BASE64_STANDARD.encode(certificate.der());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    CertificateParams::new(names).expect("names")
}

/// A certificate that signed itself; `ca`: as authorities do, and as `openssl req -x509` makes them.
fn own(names: &[&str], ca: bool) -> Own {
    let mut params = params(names);
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().expect("a key");
    Own { certificate: params.self_signed(&key).expect("signed"), key }
}

/// A certificate for these names, and that of the authority that signed it.
fn signed(names: &[&str]) -> (Own, String) {
    let mut ca = params(&[]);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let authority = pem(&ca.self_signed(&ca_key).expect("signed"));
    let key = KeyPair::generate().expect("a key");
    let issuer = Issuer::new(ca, ca_key);
    let certificate = params(names).signed_by(&key, &issuer).expect("signed");
    (Own { certificate, key }, authority)
}

/// Answers a request on each of so many connections by TLS; its URL below TLS. A client that does not believe
/// it ends it early, which is fine.
fn server(own: &Own, answer: &'static str) -> (String, JoinHandle<()>) {
    let key = PrivateKeyDer::try_from(own.key.serialize_der()).expect("a key");
    // Whether the two belong together is looked at by nobody here.
    let key = ring::sign::any_supported_type(&key).expect("a key");
    let certified = CertifiedKey::new(vec![own.certificate.der().clone()], key);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let serve = move || {
        let (tcp, _) = listener.accept().expect("a connection");
        let session = rustls::ServerConnection::new(Arc::new(config)).expect("a session");
        let mut stream = rustls::StreamOwned::new(session, tcp);
        let mut buffer = [0; 4096];
        if stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            let _ = stream.write_all(answer.as_bytes());
        }
        stream.conn.send_close_notify();
        let _ = stream.flush();
    };
    (url, std::thread::spawn(serve))
}

async fn get(own: &Own, trust: &ServerTrust) -> Result<String, String> {
    let (url, served) = server(own, OK);
    let sent = tls_client(Duration::from_secs(5), trust).get(url).send().await;
    let said = match sent {
        Ok(mut answer) => read_body(&mut answer, 99).await.map_err(|why| why.to_string()),
        Err(why) => Err(why.to_string()),
    };
    served.join().expect("served");
    said.map(|body| String::from_utf8_lossy(&body).into_owned())
}

#[actix_rt::test]
async fn a_server_is_believed_that_the_files_authority_has_signed_for_where_it_is_asked() {
    let (here, authority) = signed(&["127.0.0.1"]);
    let trust = ServerTrust::of_authorities(authority.as_bytes()).expect("a certificate");
    assert_eq!(get(&here, &trust).await.as_deref(), Ok("ok"));
    let (_, other) = signed(&["127.0.0.1"]);
    let others = ServerTrust::of_authorities(other.as_bytes()).expect("a certificate");
    assert!(get(&here, &others).await.is_err(), "another authority");
    let both = ServerTrust::of_authorities(format!("{other}\n{authority}").as_bytes());
    assert_eq!(get(&here, &both.expect("two")).await.as_deref(), Ok("ok"));
    let (elsewhere, authority) = signed(&["127.0.0.2", "board-1"]);
    let trust = ServerTrust::of_authorities(authority.as_bytes()).expect("a certificate");
    let why = get(&elsewhere, &trust).await.expect_err("it is another's");
    assert!(why.contains("certificate"), "{why}");
    let here = "127.0.0.1".parse().expect("an address");
    let known = trust.clone().knowing([(here, "board-1")]);
    assert_eq!(get(&elsewhere, &known).await.as_deref(), Ok("ok"));
    assert!(get(&elsewhere, &trust.knowing([(here, "board-2")])).await.is_err());
}

#[actix_rt::test]
async fn a_certificate_that_signed_itself_is_believed_if_the_file_has_it_and_it_names_the_server() {
    for ca in [false, true] {
        let here = own(&["127.0.0.1"], ca);
        let trust = ServerTrust::of_authorities(here.as_pem().as_bytes());
        assert_eq!(get(&here, &trust.expect("one")).await.as_deref(), Ok("ok"), "{ca}");
        let elsewhere = own(&["127.0.0.2"], ca);
        let trust = ServerTrust::of_authorities(elsewhere.as_pem().as_bytes());
        assert!(get(&elsewhere, &trust.expect("one")).await.is_err(), "{ca}");
    }
}

#[actix_rt::test]
async fn a_server_that_asks_itself_needs_that_very_certificate_under_whatever_name() {
    let (node, authority) = signed(&["node.example"]);
    let chain = format!("{}{authority}", node.as_pem());
    let trust = ServerTrust::of_itself(chain.as_bytes()).expect("a certificate");
    assert_eq!(get(&node, &trust).await.as_deref(), Ok("ok"));
    assert!(get(&own(&["node.example"], false), &trust).await.is_err());
    // The certificate without its key.
    let thief =
        Own { certificate: node.certificate.clone(), key: KeyPair::generate().expect("a key") };
    assert!(get(&thief, &trust).await.is_err(), "it cannot sign the handshake");
}

#[actix_rt::test]
async fn a_body_that_ends_before_its_framing_says_so_is_truncated_though_tls_ends_well() {
    let here = own(&["127.0.0.1"], false);
    let pem = here.as_pem();
    let trust = ServerTrust::of_authorities(pem.as_bytes()).expect("a certificate");
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let (url, served) = server(&here, answer);
        let sent = tls_client(Duration::from_secs(5), &trust).get(url).send().await;
        let body = read_body(&mut sent.expect("a head"), 99).await;
        assert_eq!(body, Err(BodyFailure::Truncated), "{answer:?}");
        served.join().expect("served");
    }
}

#[test]
fn a_file_without_certificates_is_refused() {
    let pem = own(&["x"], false).as_pem();
    let broken = pem.replace("-----END", "-----EN");
    for bad in
        ["", "text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &broken]
    {
        assert!(ServerTrust::of_authorities(bad.as_bytes()).is_err(), "{bad}");
    }
    for bad in ["", "text", &broken] {
        assert!(ServerTrust::of_itself(bad.as_bytes()).is_err(), "{bad}");
    }
}
