//! Clients that are served by TLS: who may still ask in the clear, and certificates that are changed.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::process::told_in;
use common::tls::Certified;
use common::*;
use p2pfaas::client::{ServerTrust, tls_client};

/// Writes a certificate for that address, and its key, where the node reads them.
fn write(folder: &Path, ip: &str) -> (Certified, PathBuf, PathBuf) {
    let certified = Certified::new(&[ip]);
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, &certified.pem).expect("written");
    std::fs::write(&key, &certified.key_pem).expect("written");
    (certified, certificate, key)
}

/// Asks by https and trusts that certificate alone.
async fn ask(
    certified: &Certified,
    url: &str,
    body: &'static str,
) -> Result<(u16, String), String> {
    let trust = ServerTrust::of_authorities(certified.pem.as_bytes()).expect("a certificate");
    let sent = tls_client(Duration::from_secs(5), &trust).post(url).send_body(body).await;
    let mut answer = sent.map_err(|why| why.to_string())?;
    let body = answer.body().await.map_err(|why| why.to_string())?;
    Ok((answer.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
}

#[actix_rt::test]
async fn clients_are_served_by_tls_and_in_the_clear_only_what_nodes_ask_each_other() {
    let (ip, folder) = (fresh_ip(), tempfile::tempdir().expect("a folder"));
    let (certified, certificate, key) = write(folder.path(), &ip.to_string());
    let _node = TestNode::start(|settings| {
        settings.host = ip.into();
        (settings.tls_cert, settings.tls_key) = (Some(certificate), Some(key));
    });
    // The client of the tools writes `http` where a connection by TLS is below it.
    let url = |path: &str| format!("http://{ip}:18080{path}");
    let echoed = ask(&certified, &url("/function/fn-echo"), "hi").await;
    assert_eq!(echoed, Ok((200, "hi".to_owned())));
    for path in ["/function/fn-echo", "/health", "/metrics", "/configuration", "/"] {
        let answered = send("GET", &url(path), &[], "").await;
        assert_eq!((answered.status, answered.code()), (426, 4), "{path}");
    }
    assert_eq!(get(&url("/monitoring/load")).await.status, 200);
    let peer_call = r#"{"function_name":"fn-echo","payload":"aGk="}"#;
    let answered = send("POST", &url("/peer/function/fn-echo"), &[MACHINE], peer_call).await;
    assert_eq!(answered.status, 200);
    // Another certificate is there; the connections to come see it.
    let (renewed, ..) = write(folder.path(), &ip.to_string());
    eventually("the new certificate is served", || async {
        ask(&renewed, &url("/function/fn-echo"), "hi").await.ok()
    })
    .await;
    let why = ask(&certified, &url("/function/fn-echo"), "hi").await.expect_err("it is another");
    assert!(!why.is_empty());
    // What is no certificate changes nothing.
    std::fs::write(folder.path().join("certificate.pem"), "rubbish").expect("written");
    let environment = [("P2PFAAS_CA_FILE", folder.path().join("old.pem").display().to_string())];
    std::fs::write(folder.path().join("old.pem"), &renewed.pem).expect("written");
    let [(name, file)] = &environment;
    let health = format!("https://{ip}:18080/health");
    assert_eq!(told_in(&["health", &health], &[(name, file)]).await.0, Some(0));
}

#[actix_rt::test]
async fn a_certificate_that_cannot_be_used_is_told_before_anything_is_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let ip = fresh_ip().to_string();
    let (_, certificate, key) = write(folder.path(), &ip);
    let other = tempfile::tempdir().expect("a folder");
    let (_, _, other_key) = write(other.path(), &ip);
    let path = |path: &Path| path.display().to_string();
    let (certificate, key, other_key) = (path(&certificate), path(&key), path(&other_key));
    let data = path(&folder.path().join("data"));
    let node = ["node", "--host", &ip, "--data-path", &data, "--tls-cert"];
    for (more, told) in [
        (vec!["/nonexistent", "--tls-key", &*key], "/nonexistent"),
        (vec![&*key, "--tls-key", &key], "there is no certificate in it"),
        (vec![&*certificate, "--tls-key", &certificate], "there is no private key in it"),
        (vec![&*certificate, "--tls-key", &other_key], "certificate.pem: with the key"),
        (vec![&*certificate], "it needs tls_key beside it"),
    ] {
        let (code, _, said) = told_in(&[&node[..], &more].concat(), &[]).await;
        assert!(code == Some(78) && said.contains(told), "{more:?}: {code:?} {said}");
    }
}
