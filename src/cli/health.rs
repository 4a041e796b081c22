//! `p2pfaas health`: asks a server on this machine whether it serves. For containers' health checks,
//! where there is no other program that could ask.

use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::Uri;
use clap::Args;

use super::credentials::{TrustArgs, trust_in};
use super::{Failure, end_at_once, load};
use crate::client::{Hosts, ServerTrust, client, tls_client};
use crate::config::Settings;
use crate::fleet::NoTrust;
use crate::types::url_host;

#[derive(Args)]
pub(super) struct HealthArgs {
    /// What to ask [default: the node that the environment and --config describe].
    url: Option<Uri>,
    /// The node's TOML file with settings.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Milliseconds that the answer may take.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    timeout_ms: u64,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Where the node of these settings answers: at the first of its APIs that is not turned off.
fn url(settings: &Settings) -> Result<String, String> {
    // An API whose work another service does is not there.
    let own = |port: u16, elsewhere: &str| if elsewhere.is_empty() { port } else { 0 };
    let apis = [
        (settings.scheduler_port, "/health"),
        (own(settings.discovery_port, &settings.service_discovery_host), "/"),
        (own(settings.learner_port, &settings.service_learning_host), "/"),
    ];
    let here = if settings.host.is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        url_host(&settings.host.to_string())
    };
    match apis.into_iter().find(|(port, _)| *port != 0) {
        Some((port, path)) => {
            let by_tls = settings.tls_cert.is_some() && port == settings.scheduler_port;
            let scheme = if by_tls { "https" } else { "http" };
            Ok(format!("{scheme}://{here}:{port}{path}"))
        }
        None => Err("all of the node's HTTP ports are turned off".to_owned()),
    }
}

/// Bytes of an answer that are read to say what is wrong.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The actors that a node's answer says are stuck, to be put behind its status.
fn stuck(body: &[u8]) -> String {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let actors = answer.get("actors").and_then(serde_json::Value::as_object);
    let stuck = |(name, actor): (&String, &serde_json::Value)| {
        (actor.get("ok") == Some(&serde_json::Value::Bool(false))).then(|| name.clone())
    };
    let names: Vec<String> = actors.into_iter().flatten().filter_map(stuck).collect();
    if names.is_empty() { String::new() } else { format!(": stuck: {}", names.join(", ")) }
}

/// What is asked, and whom it must prove to be if it is asked by https.
fn asked(args: &HealthArgs) -> Result<(String, Option<ServerTrust>), Failure> {
    if let Some(url) = &args.url {
        let is_https = url.scheme_str() == Some("https");
        let trust = args.trust.trust()?.filter(|_| is_https);
        if is_https && trust.is_none() {
            return Err(Failure::Configuration(NoTrust.to_string()));
        }
        return Ok((url.to_string(), trust));
    }
    let settings = load(args.config.as_ref(), &[])?.settings;
    let url = url(&settings).map_err(Failure::Configuration)?;
    // The node is asked under an address that its certificate need not name; but it has that very one.
    let certificate = settings.tls_cert.filter(|_| url.starts_with("https"));
    let trust = certificate.map(|file| trust_in(&file, ServerTrust::of_itself)).transpose()?;
    Ok((url, trust))
}

/// `url` as the client is told it that knows nothing of the TLS below it.
fn below_tls(url: &str) -> Result<Uri, String> {
    let parsed: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
    let host = parsed.host().unwrap_or_default();
    let port = parsed.port_u16().unwrap_or(443);
    let path = parsed.path_and_query().map_or("/", |path| path.as_str());
    format!("http://{host}:{port}{path}").parse().map_err(|_| format!("{url:?} is no URL"))
}

pub(super) fn run(args: &HealthArgs) -> Result<(), Failure> {
    let (url, trust) = asked(args)?;
    let limit = Duration::from_millis(args.timeout_ms);
    let unwell = |why: &dyn std::fmt::Display| Failure::Unavailable(format!("{url}: {why}"));
    let system = actix_rt::System::new();
    let told = system.block_on(async {
        let asked = match &trust {
            None => client(limit, Hosts::Any).get(&url),
            Some(trust) => {
                tls_client(limit, trust).get(below_tls(&url).map_err(Failure::Configuration)?)
            }
        };
        let asked = asked.send();
        let answer = tokio::time::timeout(limit, asked).await;
        let answer = answer.map_err(|_| unwell(&"no answer in time"))?;
        let mut answer = answer.map_err(|why| unwell(&why))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => {
                let body = answer.body().limit(BODY_BYTES_MAX).await.unwrap_or_default();
                Err(unwell(&format!("{status}{}", stuck(&body))))
            }
        }
    });
    end_at_once(system);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_actors_that_are_stuck_if_the_answer_does() {
        let body = br#"{"status":"stuck","actors":{"queue":{"ok":true},"switch":{"ok":false},
            "learner":{"ok":false}}}"#;
        assert_eq!(stuck(body), ": stuck: learner, switch");
        for nothing in [&b"not found"[..], br#"{"status":"stopping","actors":{}}"#, b"[1]", b""] {
            assert_eq!(stuck(nothing), "");
        }
    }

    #[test]
    fn a_url_keeps_its_port_and_path_below_tls() {
        for (url, want) in [
            ("https://node/", "http://node:443/"),
            ("https://[::1]:18080/health?x=1", "http://[::1]:18080/health?x=1"),
        ] {
            assert_eq!(below_tls(url).map(|url| url.to_string()), Ok(want.to_owned()));
        }
    }

    #[test]
    fn a_node_is_asked_at_the_first_of_its_ports_that_is_on() {
        let mut settings = Settings::default();
        assert_eq!(url(&settings), Ok("http://127.0.0.1:18080/health".to_owned()));
        settings.tls_cert = Some("cert.pem".into());
        assert_eq!(url(&settings), Ok("https://127.0.0.1:18080/health".to_owned()));
        settings.scheduler_port = 0;
        settings.host = "fd00::1".parse().expect("an address");
        assert_eq!(url(&settings), Ok("http://[fd00::1]:19000/".to_owned()));
        settings.service_discovery_host = "10.0.0.1".to_owned();
        assert_eq!(url(&settings), Ok("http://[fd00::1]:19020/".to_owned()));
        settings.learner_port = 0;
        assert!(url(&settings).is_err());
    }
}
