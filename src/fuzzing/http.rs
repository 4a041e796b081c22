//! Headers, names and addresses.

use std::net::IpAddr;

use actix_http::Uri;
use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::{AdminToken, Settings};
use crate::experiment::design::job::Job;
use crate::experiment::run::answer;
use crate::http::bearer::check_token;
use crate::http::function_api::steer;
use crate::http::origin::check_origin;
use crate::keys::Secret;
use crate::types::{FunctionName, InitServer, TaskType, url_host};
use crate::types::{may_be_machine, may_be_own};
use crate::wire::headers;
use crate::wire::{HOPS_MAX, NAME_BYTES_MAX};

/// Lines `name: value`, as far as they are headers, and what comes after an empty line.
fn head(bytes: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|c| *c == b'\n').unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        rest = tail.get(1..).unwrap_or_default();
        if line.is_empty() {
            break;
        }
        let mut parts = line.splitn(2, |c| *c == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let name = HeaderName::from_bytes(name.trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}

/// What travels on, and what headers say of a call.
pub(super) fn travelling(bytes: &[u8]) {
    let (from, _) = head(bytes);
    let _ = (steer(&from), headers::deadline(&from));
    TaskType::from_text(headers::text(&from, &headers::TASK_TYPE)).index();
    for passed in [headers::for_function(&from), headers::from_function(from.clone())] {
        assert!(passed.len() <= from.len());
        for (name, value) in &passed {
            assert!(from.get_all(name).any(|sent| sent == value));
            assert!(![header::CONNECTION, header::TRANSFER_ENCODING, header::HOST].contains(name));
            let ours = name.as_str().starts_with(headers::OURS);
            assert!(!ours || *name == headers::TRACING_ID, "{name}");
        }
    }
    let told = headers::to_json(&from);
    let read = headers::from_json(&told);
    assert_eq!(read.len(), told.len(), "{told:?}");
    assert_eq!(headers::to_json(&read), told);
}

/// [`check_origin`].
pub(super) fn origin(bytes: &[u8]) {
    let (from, _) = head(bytes);
    if check_origin(&from, &["node.example.org".to_owned()]).is_err() {
        return;
    }
    let hosts: Vec<_> = from.get_all(header::HOST).collect();
    assert!(hosts.len() <= 1);
    for origin in from.get_all(header::ORIGIN) {
        // A page of this server: its name is in both.
        let uri: Uri = origin.to_str().expect("text").parse().expect("a URI");
        let host = hosts.first().and_then(|host| host.to_str().ok()).expect("a host");
        let name = uri.host().expect("a name").to_ascii_lowercase();
        assert!(host.to_ascii_lowercase().starts_with(&name), "{origin:?} {host}");
        assert!(!matches!(name.as_str(), "evil.example.com" | "example.org"), "{name}");
    }
}

/// [`check_token`].
pub(super) fn token(bytes: &[u8]) {
    const TOKEN: &str = "0123456789abcdef";
    let (from, _) = head(bytes);
    let settings = Settings { admin_token: Secret::new(TOKEN), ..Settings::default() };
    let wanted = AdminToken::load(&settings).expect("a token");
    if check_token(&from, &wanted).is_err() {
        return;
    }
    let given: Vec<_> = from.get_all(header::AUTHORIZATION).collect();
    let [given] = given[..] else { panic!("{given:?}") };
    let text = given.to_str().expect("text").trim();
    assert!(text.ends_with(TOKEN) && text.to_ascii_lowercase().starts_with("bearer"), "{text}");
    assert!(text["bearer".len()..text.len() - TOKEN.len()].trim().is_empty(), "{text}");
}

/// What an answer tells an experiment.
pub(super) fn experiment_answer(bytes: &[u8]) {
    let (from, body) = head(bytes);
    let mut job = Job::default();
    let status = if body.first().is_some_and(|c| *c == b'{') { 500 } else { 200 };
    answer::note(&mut job, status, &from, body);
    for times in [&job.timings.total, &job.timings.scheduling, &job.timings.probing] {
        assert!(times.len() <= HOPS_MAX && times.iter().all(|t| (0.0..=1e9).contains(t)));
    }
    for names in [&job.peers_ip, &job.peers_id] {
        assert!(names.len() <= HOPS_MAX && names.iter().all(|name| name.len() <= NAME_BYTES_MAX));
    }
    assert!(job.execution_s.is_none_or(|time| (0.0..=1e9).contains(&time)));
    if let Some(learnt) = job.learnt {
        assert!(learnt.eid > 0 && learnt.action.is_finite() && learnt.eps.is_finite());
    }
}

/// What is accepted as a name stands in a URL as its host, and is no address.
pub(super) fn function_name(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let listed = FunctionName::parse_listed(&text);
    if let Ok(name) = &listed {
        let uri: Uri = format!("http://{name}:8080/").parse().expect("a URL");
        assert_eq!(uri.host(), Some(name.as_str()));
        assert!(name.as_str().parse::<IpAddr>().is_err());
    }
    let Ok(name) = FunctionName::parse(&text) else { return };
    assert_eq!(listed.as_ref(), Ok(&name));
    assert_eq!(FunctionName::parse(name.as_str()).as_ref(), Ok(&name));
    let uri: Uri = format!("http://{name}:8080/").parse().expect("a URL");
    assert_eq!((uri.host(), uri.port_u16()), (Some(name.as_str()), Some(8080)));
    assert!(name.as_str().parse::<IpAddr>().is_err() && !name.as_str().contains('.'));
}

/// Likewise for a node to join through.
pub(super) fn init_server(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(server) = text.parse::<InitServer>() else { return };
    let host = match &server {
        InitServer::Address(ip) => url_host(&ip.to_string()),
        InitServer::Name(name) => url_host(name),
    };
    let uri: Uri = format!("http://{host}:19000/list").parse().expect("a URL");
    assert_eq!((uri.host(), uri.port_u16()), (Some(&*host), Some(19000)));
    let again = match &server {
        InitServer::Address(ip) => ip.to_string().parse(),
        InitServer::Name(name) => name.parse(),
    };
    assert_eq!(again, Ok(server));
}

/// Which addresses can be those of another machine.
pub(super) fn addresses(bytes: &[u8]) {
    let mut octets = [0; 16];
    octets.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let [a, b, c, d, ..] = octets;
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<IpAddr>().ok());
    for ip in [Some(IpAddr::from(octets)), Some(IpAddr::from([a, b, c, d])), text] {
        let Some(ip) = ip else { continue };
        for own in [None, Some(IpAddr::from([127, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 1]))] {
            if may_be_machine(ip, own) {
                assert_eq!(ip.to_canonical(), ip, "no IPv4 address in another's guise");
                assert!(!ip.is_multicast() && !ip.is_unspecified());
                assert!(!ip.is_loopback() || own.is_some_and(|own| own.is_loopback()));
            }
        }
        assert!(may_be_own(ip) || !may_be_machine(ip, None));
    }
}
