//! Header names of the wire, and which headers travel where.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

macro_rules! names {
    ($( $(#[doc = $doc:literal])+ $name:ident = $text:literal; )+) => {
        $( $(#[doc = $doc])+ pub static $name: HeaderName = HeaderName::from_static($text); )+
    };
}

names! {
    /// Run here.
    BYPASS = "x-p2pfaas-scheduler-bypass";
    /// Forward once.
    FORWARD = "x-p2pfaas-scheduler-forward";
    /// Reject.
    REJECT = "x-p2pfaas-scheduler-reject";
    /// The tracing id, carried to peers, to the function and into logs.
    TRACING_ID = "x-p2pfaas-scheduler-task-tracing-id";
    /// The task type.
    TASK_TYPE = "x-p2pfaas-scheduler-learning-task-type";
    /// Seconds that the call has left; ours.
    DEADLINE = "x-p2pfaas-deadline-seconds";
    /// The number of the learner's decision on a call.
    LEARNT_EID = "x-p2pfaas-scheduler-learning-eid";
    /// The state that it was taken in.
    LEARNT_STATE = "x-p2pfaas-scheduler-learning-state";
    /// The action chosen.
    LEARNT_ACTION = "x-p2pfaas-scheduler-learning-action";
    /// The ε used.
    LEARNT_EPS = "x-p2pfaas-scheduler-learning-eps";
    /// Set when the decision could not be had and the call ran here; ours.
    LEARNT_FALLBACK = "x-p2pfaas-scheduler-learning-fallback";
    /// To the learner: a decision's number.
    TRAIN_EID = "x-p2pfaas-learning-eid";
    /// To the learner: a state.
    TRAIN_STATE = "x-p2pfaas-learning-state";
    /// To the learner: the action chosen.
    TRAIN_ACTION = "x-p2pfaas-learning-action";
    /// To the learner: what it was worth.
    TRAIN_REWARD = "x-p2pfaas-learning-reward";
    /// From the learner: the ε used.
    EPS = "x-p2pfaas-eps";
    /// The node's version.
    VERSION = "x-p2pfaas-version";
    /// The algorithm that scheduled the call.
    SCHEDULER = "x-p2pfaas-scheduler";
    /// Seconds of the call to the function alone.
    EXECUTION_TIME = "x-p2pfaas-timing-execution-time-seconds";
    /// Seconds from arrival to completion, per node.
    TOTAL_TIMES = "x-p2pfaas-timing-total-seconds-list";
    /// Seconds from arrival to the decision, per node.
    SCHEDULING_TIMES = "x-p2pfaas-timing-scheduling-seconds-list";
    /// Seconds spent asking peers, per node.
    PROBING_TIMES = "x-p2pfaas-timing-probing-seconds-list";
    /// Whether another node ran the call.
    EXTERNALLY_EXECUTED = "x-p2pfaas-externally-executed";
    /// Nodes passed, less one.
    HOPS = "x-p2pfaas-hops";
    /// Addresses of the nodes passed.
    PEERS_IP = "x-p2pfaas-peers-list-ip";
    /// Ids of the nodes passed.
    PEERS_ID = "x-p2pfaas-peers-list-id";
    /// Running functions.
    LOAD = "x-p2pfaas-load";
    /// K.
    MAX_LOAD = "x-p2pfaas-maxload";
    /// Waiting calls.
    QUEUE_LENGTH = "x-p2pfog-queue-length";
    /// Discovery: the sender's address.
    MACHINE_IP = "p2pfaas-machine-ip";
    /// Discovery: the sender's name.
    MACHINE_NAME = "p2pfaas-machine-name";
    /// Discovery: the sender's group.
    MACHINE_GROUP = "p2pfaas-machine-group-name";
    /// Discovery: the peer protocol that the sender speaks; v1 tells none. Ours.
    PROTOCOL = "p2pfaas-protocol";
    /// Discovery: the port on which the sender answers members of its cluster by TLS. Ours.
    TLS_PORT = "p2pfaas-tls-port";
    /// Discovery: the sender stops, and is to be called no more. Ours.
    LEAVES = "p2pfaas-leaves";
    /// Peer protocol 2: the tracing id.
    PEER_TRACING_ID = "p2pfaas-tracing-id";
    /// Peer protocol 2: forwards so far, this one included.
    PEER_HOPS = "p2pfaas-hops";
    /// Peer protocol 2: the nodes passed.
    PEER_PATH = "p2pfaas-path";
    /// Peer protocol 2: the task type.
    PEER_TASK_TYPE = "p2pfaas-task-type";
    /// Peer protocol 2: seconds that the call has left.
    PEER_DEADLINE = "p2pfaas-deadline-seconds";
    /// Peer protocol 2: in the answer to a probe, running and waiting calls by task type, as `1/0,2/3`.
    LOAD_BY_TYPE = "p2pfaas-load-by-type";
    /// Peer protocol 2: in the answer to a probe, what the algorithm in force says of such a call.
    BID = "p2pfaas-bid";
    /// Peer protocol 2: what the algorithm of that name has to say to a peer's, in hexadecimal digits.
    NOTE = "p2pfaas-note";
    /// Peer protocol 2: what became of the call.
    PEER_OUTCOME = "p2pfaas-outcome";
    /// Peer protocol 2: the times taken, of each node passed.
    PEER_TIMES = "p2pfaas-times";
    /// Proxies: the addresses that a request passed, the client's first.
    FORWARDED_FOR = "x-forwarded-for";
    /// Proxies: the host that the client asked.
    FORWARDED_HOST = "x-forwarded-host";
    /// Proxies: the scheme by which the client asked.
    FORWARDED_PROTO = "x-forwarded-proto";
    /// To v1 nodes: where a function's answer redirects its client to. Ours.
    LOCATION_BY_V1 = "x-location";
}

/// The prefix of headers that are between nodes and clients, not for functions.
pub(crate) const OURS: &str = "x-p2pfaas-";

/// Headers that belong to one connection or one message's framing, not to the call.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "expect",
];

/// The peer protocol that this node speaks beside v1's.
pub const OUR_PROTOCOL: &str = "2";
/// The same as a number, in records.
pub const OUR_PROTOCOL_NUMBER: u8 = 2;

/// The prefix of headers that are between nodes alone.
const BETWEEN_NODES: &str = "p2pfaas-";

/// Whether the sender of these speaks peer protocol 2.
pub fn speaks_ours(headers: &HeaderMap) -> bool {
    text(headers, &PROTOCOL).trim().parse::<u32>().is_ok_and(|version| version >= 2)
}

fn utf8(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// Whether a text can stand in a request line as it is: a path, a query, or both.
pub fn may_be_target(text: &str) -> bool {
    text.bytes().all(|byte| byte > b' ' && byte != 0x7f)
}

/// A header's text, empty when it is absent or no text.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(utf8).unwrap_or_default()
}

/// The length that a message's head tells of its body.
pub fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &header::CONTENT_LENGTH).parse().ok()
}

/// The time that a call has left by its client's word.
///
/// # Errors
/// It says one that is no time, in words.
pub fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    time_left(headers, &DEADLINE)
}

/// The time that a call has left, as `name` tells it.
///
/// # Errors
/// It says one that is no time, in words.
pub fn time_left(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = utf8(value).unwrap_or_default();
    let seconds = text.trim().parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let wrong = || format!("{name} is {text:?}, which is no number of seconds");
    seconds.map(Some).ok_or_else(wrong)
}

/// Whether a header is the call's own: neither of one connection nor ours.
fn is_end_to_end(name: &str) -> bool {
    !HOP_BY_HOP.contains(&name) && !name.starts_with(OURS) && !name.starts_with(BETWEEN_NODES)
}

/// The further headers of its connection that a sender names in `Connection`, in one line or several.
fn of_connection(from: &HeaderMap) -> Vec<String> {
    from.get_all(header::CONNECTION)
        .filter_map(utf8)
        .flat_map(|line| line.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .collect()
}

/// The headers of a client's request that the function gets, the tracing id among them.
pub fn for_function(from: &HeaderMap) -> HeaderMap {
    let named = of_connection(from);
    let of_connection = |name: &HeaderName| named.iter().any(|token| token == name.as_str());
    let mut headers = HeaderMap::with_capacity(from.len() + 3);
    for (name, value) in from {
        let goes = is_end_to_end(name.as_str()) && !of_connection(name) || *name == TRACING_ID;
        if goes {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// The headers of a function's answer that the client gets.
pub fn from_function(mut from: HeaderMap) -> HeaderMap {
    let named = of_connection(&from);
    from.retain(|name, _| {
        let name = name.as_str();
        is_end_to_end(name) && !named.iter().any(|token| token == name)
    });
    from
}

/// The headers of a function's answer that a v1 node hands on to its client: of those that come by HTTP
/// it knows the `X-…` alone, the first of each name. A `Location` would have it call there by itself, so
/// that travels by another name.
pub fn through_v1(from: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, value) in from.iter().filter(|(name, _)| name.as_str().starts_with("x-")) {
        passed.append(name.clone(), value.clone());
    }
    if let Some(location) = from.get(header::LOCATION)
        && !passed.contains_key(&LOCATION_BY_V1)
    {
        passed.insert(LOCATION_BY_V1.clone(), location.clone());
    }
    passed
}

/// Adds to a client's headers what proxies tell a server: whose request it is, and how it was asked.
/// What a front proxy has told stays before it.
pub fn add_forwarded(
    headers: &mut HeaderMap,
    client: Option<&HeaderValue>,
    host: Option<&HeaderValue>,
    scheme: &'static str,
) {
    let scheme = HeaderValue::from_static(scheme);
    for (name, own) in
        [(&FORWARDED_FOR, client), (&FORWARDED_HOST, host), (&FORWARDED_PROTO, Some(&scheme))]
    {
        let Some(own) = own.filter(|own| !own.is_empty()) else { continue };
        if !headers.contains_key(name) {
            headers.insert(name.clone(), own.clone());
            continue;
        }
        let told: Vec<&str> = headers.get_all(name).chain([own]).filter_map(utf8).collect();
        if let Ok(value) = HeaderValue::from_str(&told.join(", ")) {
            headers.insert(name.clone(), value);
        }
    }
}

/// The address of a client, as it stands in [`FORWARDED_FOR`].
pub fn client_address(ip: IpAddr) -> Option<HeaderValue> {
    HeaderValue::from_str(&ip.to_canonical().to_string()).ok()
}

/// Headers as a peer message carries them: repeated ones joined, what is no text left out.
pub fn to_json(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let Some(value) = utf8(value) else { continue };
        joined
            .entry(name.as_str().to_owned())
            .and_modify(|text| {
                text.push_str(", ");
                text.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    joined
}

/// The reverse of [`to_json`]; what is no header is left out.
pub fn from_json(headers: &BTreeMap<String, String>) -> HeaderMap {
    let pair = |(name, value): (&String, &String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    };
    headers.iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&str, &str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        };
        let mut map = HeaderMap::new();
        pairs.iter().map(pair).for_each(|(name, value)| map.append(name, value));
        map
    }

    fn names(map: &HeaderMap) -> Vec<String> {
        let mut names: Vec<String> = map.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_deadline_is_a_number_of_seconds_or_an_error() {
        let read = |text| deadline(&map(&[("x-p2pfaas-deadline-seconds", text)]));
        assert_eq!(read("0.25"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(read("0"), Ok(Some(Duration::ZERO)));
        assert_eq!(deadline(&map(&[])), Ok(None));
        for bad in ["", "soon", "-1", "NaN", "inf", "1e300"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_function_gets_the_clients_headers_without_the_connections_and_ours() {
        let from = map(&[
            ("content-type", "text/plain"),
            ("accept-encoding", "gzip"),
            ("x-mine", "1"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("host", "node"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("x-p2pfaas-scheduler-bypass", "1"),
            ("x-p2pfaas-scheduler-task-tracing-id", "n0t1"),
        ]);
        assert_eq!(
            names(&for_function(&from)),
            ["accept-encoding", "content-type", "x-mine", "x-p2pfaas-scheduler-task-tracing-id"]
        );
    }

    #[test]
    fn a_client_gets_all_headers_of_the_function_but_the_connections_and_ours() {
        let from = map(&[
            ("content-type", "text/plain"),
            ("location", "/there"),
            ("x-mine", "1"),
            ("x-p2pfaas-version", "forged"),
            ("p2pfaas-outcome", "forged"),
            ("server", "x"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("content-length", "9"),
        ]);
        let passed = from_function(from);
        assert_eq!(names(&passed), ["content-type", "location", "server", "set-cookie", "x-mine"]);
        let cookies: Vec<_> = passed.get_all(header::SET_COOKIE).collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
    }

    #[test]
    fn through_a_v1_node_the_functions_own_headers_travel_and_where_it_redirects_to() {
        let passed =
            through_v1(&map(&[("location", "/a"), ("x-fn", "1"), ("x-fn", "2"), ("etag", "e")]));
        assert_eq!(names(&passed), ["x-fn", "x-location"]);
        assert_eq!(passed.len(), 3, "both of the repeated ones");
        assert_eq!(text(&passed, &LOCATION_BY_V1), "/a");
        let passed = through_v1(&map(&[("location", "/a"), ("x-location", "/own")]));
        assert_eq!(text(&passed, &LOCATION_BY_V1), "/own");
        assert_eq!(passed.len(), 1);
    }

    #[test]
    fn what_a_front_proxy_told_stays_before_what_this_node_tells() {
        let mut headers = map(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")]);
        let client = client_address("::ffff:10.0.0.1".parse().expect("an address"));
        let host = HeaderValue::from_static("node:18080");
        add_forwarded(&mut headers, client.as_ref(), Some(&host), "http");
        for (name, want) in [
            (&FORWARDED_FOR, "192.0.2.1, 10.0.0.1"),
            (&FORWARDED_HOST, "node:18080"),
            (&FORWARDED_PROTO, "https, http"),
        ] {
            assert_eq!(text(&headers, name), want);
        }
    }

    #[test]
    fn repeated_headers_are_joined_in_a_peer_message() {
        let json = to_json(&map(&[("x-a", "1"), ("x-a", "2"), ("x-b", "3")]));
        assert_eq!(json.get("x-a").map(String::as_str), Some("1, 2"));
        assert_eq!(names(&from_json(&json)), ["x-a", "x-b"]);
        let accented = BTreeMap::from([("x-c".to_owned(), "é".to_owned())]);
        assert_eq!(to_json(&from_json(&accented)), accented, "UTF-8 travels as it is");
        let bad = BTreeMap::from([("no header".to_owned(), "x".to_owned())]);
        assert!(from_json(&bad).is_empty());
    }
}
