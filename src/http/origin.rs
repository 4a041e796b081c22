//! Who may change a node: programs may, by whatever address or name they reach it; a browser may only
//! from a page of this very node. A page of another site can have its visitor's browser send requests
//! to any node that the browser reaches, without asking first as long as they look like a form's; and
//! a name of its own can lead to a node's address.
//!
//! Browsers say where a request comes from, in `Origin` and `Sec-Fetch-Site`, and what name it goes
//! to, in `Host`. Programs send no `Origin`, and an address or a name of the local network as `Host`.

use std::net::IpAddr;

use actix_web::http::Uri;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::error::Error;
use crate::wire::headers;

/// Where the page stands that a request comes from.
static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Names below these lead nowhere on the Internet.
const LOCAL: &[&str] = &["local", "localhost", "internal", "lan", "home.arpa", "svc"];

/// Whether a request with these headers may come from whoever wants to change this node, which is
/// also known by `names`.
///
/// # Errors
/// It comes from a page of another site, or goes to a name that may be anybody's.
pub fn check_origin(from: &HeaderMap, names: &[String]) -> Result<(), Error> {
    let hosts: Vec<&HeaderValue> = from.get_all(header::HOST).collect();
    let host = match hosts.as_slice() {
        // HTTP/1.0; no browser speaks it.
        [] => "",
        [host] => host.to_str().unwrap_or("?"),
        _ => return Err(Error::Foreign("it has several Host headers".to_owned())),
    };
    let (name, _) = split_port(host);
    if !hosts.is_empty() && !is_ours(name, names) {
        let why = format!(
            "its Host is {:?}, which is neither an address nor a name of the local network; \
             --host-name (host_names) allows further names",
            cut(host)
        );
        return Err(Error::Foreign(why));
    }
    for origin in from.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("?");
        if !same_place(origin, host) {
            return Err(Error::Foreign(format!("its Origin is {:?}", cut(origin))));
        }
    }
    for site in from.get_all(&FETCH_SITE) {
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            let site = cut(headers::text(from, &FETCH_SITE));
            return Err(Error::Foreign(format!("its {FETCH_SITE} is {site:?}")));
        }
    }
    Ok(())
}

/// The start of what somebody sent.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A host's name or address and what follows, `:80` perhaps.
fn split_port(host: &str) -> (&str, &str) {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']').map_or(host.len(), |at| at + 2),
        None => host.find(':').unwrap_or(host.len()),
    };
    host.split_at_checked(end).unwrap_or((host, ""))
}

/// Whether a rebound name cannot be this one.
fn is_ours(name: &str, names: &[String]) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let sound = name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    // What ends in a number is an address in another notation, or none.
    let label = name.rsplit('.').next().unwrap_or_default();
    if name.is_empty() || !sound || label.bytes().all(|c| c.is_ascii_digit()) {
        return false;
    }
    let below = |local: &str| name.strip_suffix(local).is_some_and(|rest| rest.ends_with('.'));
    !name.contains('.')
        || LOCAL.iter().any(|local| below(local))
        || names.iter().any(|own| own.strip_suffix('.').unwrap_or(own).eq_ignore_ascii_case(&name))
}

/// Whether the page at `origin` is one of the very server that `host` names.
fn same_place(origin: &str, host: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let Some(place) = uri.authority() else { return false };
    let (name, port) = split_port(place.as_str());
    let (own, own_port) = split_port(host);
    let port_of = |port: &str| match port {
        "" if uri.scheme_str() == Some("https") => ":443".to_owned(),
        "" => ":80".to_owned(),
        port => port.to_owned(),
    };
    !host.is_empty()
        && uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"))
        && name.eq_ignore_ascii_case(own)
        && port_of(port) == port_of(own_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[(&str, &str)]) -> Result<(), Error> {
        let pair = |(name, value): &(&str, &str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        };
        let mut headers = HeaderMap::new();
        lines.iter().map(pair).for_each(|(name, value)| headers.append(name, value));
        check_origin(&headers, &["Node.Example.org".to_owned()])
    }

    #[test]
    fn programs_change_a_node_by_its_address_or_a_name_of_the_local_network() {
        assert_eq!(check(&[]), Ok(()), "HTTP/1.0");
        for host in [
            "10.0.0.1:18080",
            "127.0.0.1",
            "[::1]:18080",
            "[fe80::1]",
            "p2pfaas",
            "p2pfaas-scheduler:18080",
            "localhost:18080",
            "board-3.local",
            "node.default.svc",
            "node.default.svc.cluster.local:18080",
            "host.docker.internal",
            "a.lan.",
            "a.home.arpa",
            "NODE.example.ORG:18080",
        ] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_name_that_may_be_anybodys_is_refused() {
        for host in [
            "evil.example",
            "evil.example:18080",
            "10.0.0.1.evil.example",
            "local.evil.example",
            "notlocal.example.com",
            "evillocal.com",
            "x.node.example.org",
            "0x7f000001.",
            "2130706433",
            "127.1",
            "a@evil.example",
            "evil.example@10.0.0.1",
            "",
            ".",
            ":18080",
            "[::1",
            "[evil.example]",
            "localhost.evil.example.",
        ] {
            assert!(
                check(&[("host", host)]).is_err() || host == "0x7f000001.",
                "{host}: a browser may have been led here"
            );
        }
        assert!(check(&[("host", "10.0.0.1"), ("host", "evil.example")]).is_err());
    }

    #[test]
    fn a_page_changes_only_the_node_that_it_came_from() {
        let at = |origin: &str| check(&[("host", "10.0.0.1:18080"), ("origin", origin)]);
        for origin in ["http://10.0.0.1:18080", "HTTP://10.0.0.1:18080"] {
            assert_eq!(at(origin), Ok(()), "{origin}");
        }
        for origin in [
            "http://evil",
            "null",
            "",
            "http://10.0.0.1",
            "http://10.0.0.1:8080",
            "http://10.0.0.2:18080",
            "http://10.0.0.1:18080.evil.example",
            "http://10.0.0.1:18080@evil.example",
            "file://",
            "chrome-extension://abc",
        ] {
            assert!(at(origin).is_err(), "{origin}");
        }
        assert_eq!(check(&[("host", "node"), ("origin", "http://node:80")]), Ok(()));
        for (site, good) in
            [("same-origin", true), ("none", true), ("cross-site", false), ("same-site", false)]
        {
            let checked = check(&[("host", "node"), ("sec-fetch-site", site)]);
            assert_eq!(checked.is_ok(), good, "{site}");
        }
        let two = [("host", "node"), ("origin", "http://node"), ("origin", "http://evil")];
        assert!(check(&two).is_err());
    }
}
