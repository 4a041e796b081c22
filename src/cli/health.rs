//! `p2pfaas health`: asks a server on this machine whether it serves. For containers' health checks,
//! where there is no other program that could ask.

use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::Uri;
use clap::Args;

use super::{Failure, end_at_once, load};
use crate::client::{Hosts, client};
use crate::config::Settings;
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
        Some((port, path)) => Ok(format!("http://{here}:{port}{path}")),
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

pub(super) fn run(args: &HealthArgs) -> Result<(), Failure> {
    let url = match &args.url {
        Some(url) => url.to_string(),
        None => {
            let settings = load(args.config.as_ref(), &[])?.settings;
            url(&settings).map_err(Failure::Configuration)?
        }
    };
    let limit = Duration::from_millis(args.timeout_ms);
    let unwell = |why: &dyn std::fmt::Display| Failure::Unavailable(format!("{url}: {why}"));
    let system = actix_rt::System::new();
    let told = system.block_on(async {
        let asked = client(limit, Hosts::Any).get(&url).send();
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
    fn a_node_is_asked_at_the_first_of_its_ports_that_is_on() {
        let mut settings = Settings::default();
        assert_eq!(url(&settings), Ok("http://127.0.0.1:18080/health".to_owned()));
        settings.scheduler_port = 0;
        settings.host = "fd00::1".parse().expect("an address");
        assert_eq!(url(&settings), Ok("http://[fd00::1]:19000/".to_owned()));
        settings.service_discovery_host = "10.0.0.1".to_owned();
        assert_eq!(url(&settings), Ok("http://[fd00::1]:19020/".to_owned()));
        settings.learner_port = 0;
        assert!(url(&settings).is_err());
    }
}
