//! The JSON that nodes exchange, shared by who sends it (`peer`) and who receives it (`http`).
//! Every field may be missing or null on the way in: v1 leaves out what it does not know.

pub mod chunks;
pub mod codes;
pub mod content_type;
pub mod frames;
pub mod headers;
pub mod json;
mod numbers;
pub mod peer2;
pub mod v1_json;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use self::json::Bounds;
pub use self::numbers::{float_text, seconds, seconds_text, six_decimals};
use self::v1_json::read_as_v1;
use crate::types::Identity;
pub use crate::types::NAME_BYTES_MAX;

/// The user agent by which nodes know each other.
pub const MACHINE_AGENT: &str = "Machine";

/// The body of `POST /peer/function/{fn}`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerRequest {
    /// A number that the sender gives the call.
    pub service_id_request: Option<i128>,
    /// The client's tracing id.
    pub service_id_tracing: Option<String>,
    /// The function; the path says the same.
    pub function_name: Option<String>,
    /// Forwards so far, this one included.
    pub hops: Option<i128>,
    /// Ours: the nodes that the call passed, in order. v1 sends null.
    pub peers_list: Option<Vec<PeerHop>>,
    /// The body, base64.
    pub payload: Option<String>,
    /// The body's content type.
    pub content_type: Option<String>,
    /// Ours: the client's headers that a function may see. v1 sends null.
    pub headers: Option<BTreeMap<String, String>>,
    /// Ours: the client's method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Ours: the client's query string, without `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// The body of every answer to a peer call.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerAnswer {
    /// The node that executed the call first, then every node on the way back.
    pub peers_list: Option<Vec<PeerHop>>,
    /// The function's output or the error's JSON, base64.
    pub body: Option<String>,
    /// The status of both.
    pub status_code: Option<u16>,
    /// Ours: the function's content type, encoding, … and `X-…` headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// A node that a call passed, and what it took there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PeerHop {
    /// The machine's id.
    pub machine_id: String,
    /// The machine's address; empty while it has none.
    pub machine_ip: String,
    /// The times taken there.
    pub timings: Timings,
}

/// Times in seconds; those not taken are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Timings {
    /// The call to the function alone, queueing excluded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_time: Option<f64>,
    /// Arrival to completion at that node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_time: Option<f64>,
    /// Arrival to the decision being carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_time: Option<f64>,
    /// Time spent asking peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probing_time: Option<f64>,
}

impl PeerHop {
    /// This machine, with no times taken yet.
    pub fn at(machine: &Identity) -> Self {
        let (machine_id, machine_ip) = (machine.id.clone(), machine.ip_text());
        Self { machine_id, machine_ip, timings: Timings::default() }
    }
}

read_as_v1!(PeerRequest {
    service_id_request: i128,
    service_id_tracing: String,
    function_name: String,
    hops: i128,
    peers_list: Vec<PeerHop>,
    payload: String,
    content_type: String,
    headers: BTreeMap<String, String>,
    method: String,
    query: String,
});

read_as_v1!(PeerAnswer {
    peers_list: Vec<PeerHop>,
    body: String,
    status_code: u16,
    headers: BTreeMap<String, String>,
});

read_as_v1!(PeerHop { machine_id: String, machine_ip: String, timings: Timings });

read_as_v1!(Timings {
    execution_time: f64,
    total_time: f64,
    scheduling_time: f64,
    probing_time: f64,
});

/// A machine in discovery's list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WireMachine {
    /// A number that stays with the machine while the answering node knows it.
    #[serde(rename = "_id", default)]
    pub id: u64,
    /// Its address; text, since v1 may list what is no IP.
    pub ip: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its group.
    #[serde(default)]
    pub group_name: String,
    /// The last poll's round trip in seconds.
    #[serde(default)]
    pub ping: f64,
    /// Unix seconds of its last sign of life.
    #[serde(default)]
    pub last_update: u64,
    /// Whether it is believed alive.
    #[serde(default)]
    pub alive: bool,
    /// Failed polls in a row.
    #[serde(default)]
    pub dead_polls: u32,
    /// Ours, where two machines claim one thing: `name` or `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
}

impl WireMachine {
    /// Its address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.ip.parse().ok()
    }
}

/// Nodes that a call can have passed; no cluster forwards so often.
pub const HOPS_MAX: usize = 64;

/// Bytes of all headers in a message, names and values; as many as a head over HTTP may have.
pub const HEADERS_BYTES_MAX: usize = 128 << 10;

/// Values that a peer message has beside its hops and headers, which have bounds of their own.
const PEER_VALUES_MAX: usize = 4096;
/// Values of a machine in a list, keys included; v1's has sixteen, and later ones may have more.
const MACHINE_VALUES_MAX: usize = 32;
/// Bytes of a machine in a list: name and group at their longest, escaped, and all else.
const MACHINE_BYTES_MAX: usize = 2048;

/// Bytes of a string of a peer message: v1 takes heads of 1 MiB, and what stands there, a tracing id or
/// a content type, comes in its messages.
const PEER_STRING_BYTES_MAX: usize = (1 << 20) - 1;

/// Bounds of a peer message of at most `bytes`, question or answer.
fn peer_bounds(bytes: usize) -> Bounds {
    Bounds {
        bytes,
        depth: 6,
        entries: 512,
        string_bytes: PEER_STRING_BYTES_MAX,
        values: PEER_VALUES_MAX,
        long: &["payload", "body"],
    }
}

/// Reads a call that a peer hands on, of at most `bytes`.
///
/// # Errors
/// What is wrong with it.
pub fn read_peer_request(message: &[u8], bytes: usize) -> Result<PeerRequest, String> {
    let read: PeerRequest = v1_json::read_object(message, &peer_bounds(bytes))?;
    check_hops(read.peers_list.as_deref().unwrap_or_default())?;
    check_headers(read.headers.as_ref())?;
    Ok(read)
}

/// Reads what a peer answers, of at most `bytes`.
///
/// # Errors
/// What is wrong with it.
pub fn read_peer_answer(message: &[u8], bytes: usize) -> Result<PeerAnswer, String> {
    let read: PeerAnswer = v1_json::read_object(message, &peer_bounds(bytes))?;
    check_hops(read.peers_list.as_deref().unwrap_or_default())?;
    check_headers(read.headers.as_ref())?;
    Ok(read)
}

/// Bytes of a peer message that carries a body of `body_bytes` in base64, with headers to spare.
pub fn message_bytes_max(body_bytes: usize) -> usize {
    body_bytes / 3 * 4 + (2 << 20)
}

/// Bytes of header names and values together.
pub fn headers_bytes(headers: &BTreeMap<String, String>) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// What headers may be: all of them together become the head of a request or an answer.
fn check_headers(headers: Option<&BTreeMap<String, String>>) -> Result<(), String> {
    match headers.map_or(0, headers_bytes) {
        bytes if bytes > HEADERS_BYTES_MAX => {
            Err(format!("headers have {bytes} bytes, at most {HEADERS_BYTES_MAX} are taken"))
        }
        _ => Ok(()),
    }
}

/// What hops may be: they travel on in messages and end up in response headers.
fn check_hops(hops: &[PeerHop]) -> Result<(), String> {
    if hops.len() > HOPS_MAX {
        return Err(format!("peers_list has {} nodes, at most {HOPS_MAX} are taken", hops.len()));
    }
    let long = |hop: &&PeerHop| hop.machine_id.len().max(hop.machine_ip.len()) > NAME_BYTES_MAX;
    match hops.iter().find(long) {
        Some(_) => Err(format!("peers_list has a name of more than {NAME_BYTES_MAX} bytes")),
        None => Ok(()),
    }
}

/// Bytes that a list of `machines_max` machines may have.
pub fn list_bytes_max(machines_max: usize) -> usize {
    machines_max.saturating_mul(MACHINE_BYTES_MAX).saturating_add(4096)
}

/// Reads a list of at most `machines_max` machines. Those whose name or group is too long to be one
/// are left out.
///
/// # Errors
/// It is no such list, or a longer one.
pub fn read_machines(list: &[u8], machines_max: usize) -> Result<Vec<WireMachine>, String> {
    let bounds = Bounds {
        bytes: list_bytes_max(machines_max),
        depth: 4,
        entries: machines_max.max(MACHINE_VALUES_MAX),
        string_bytes: 8 << 10,
        values: machines_max.saturating_mul(MACHINE_VALUES_MAX).saturating_add(1),
        long: &[],
    };
    let mut machines: Vec<WireMachine> =
        json::read(list, &bounds).map_err(|why| why.to_string())?;
    machines.retain(|machine| machine.name.len().max(machine.group_name.len()) <= NAME_BYTES_MAX);
    Ok(machines)
}

/// Reads a JSON body that must be an object within `bounds`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_object<T: serde::de::DeserializeOwned>(
    body: &[u8],
    bounds: &Bounds,
) -> Result<T, String> {
    json::read_object(body, bounds).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_peer_request_may_be_missing_or_null() {
        read_peer_request(b"{}", 99).expect("all missing");
        let nulls = br#"{"service_id_request":null,"service_id_tracing":null,"function_name":null,
            "hops":null,"peers_list":null,"payload":null,"content_type":null,"headers":null}"#;
        let request = read_peer_request(nulls, 999).expect("all null");
        assert!(request.hops.is_none() && request.payload.is_none());
        let hop = br#"{"peers_list":[{"machine_id":null,"machine_ip":null,"timings":null},{}]}"#;
        let request = read_peer_request(hop, 999).expect("nulls inside");
        assert_eq!(request.peers_list.map(|list| list.len()), Some(2));
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in ["", "[]", "[1,2]", "7", "null", "\"x\"", "{bad"] {
            assert!(read_peer_request(body.as_bytes(), 99).is_err(), "{body}");
        }
        for wrong in [r#"{"hops":1.5}"#, r#"{"hops":"1"}"#, r#"{"headers":{"a":["b"]}}"#] {
            assert!(read_peer_request(wrong.as_bytes(), 99).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hops_are_few_and_have_short_names() {
        let hops = |n: usize, id: usize| {
            let hop = format!(r#"{{"machine_id":"{}"}}"#, "a".repeat(id));
            format!(r#"{{"peers_list":[{}]}}"#, vec![hop; n].join(","))
        };
        for (n, id, good) in [
            (HOPS_MAX, NAME_BYTES_MAX, true),
            (HOPS_MAX + 1, 1, false),
            (1, NAME_BYTES_MAX + 1, false),
            (200_000, 0, false),
        ] {
            let text = hops(n, id);
            assert_eq!(read_peer_request(text.as_bytes(), 16 << 20).is_ok(), good, "{n} {id}");
            assert_eq!(read_peer_answer(text.as_bytes(), 16 << 20).is_ok(), good, "{n} {id}");
        }
        let long = format!(r#"{{"payload":"{0}","body":"{0}"}}"#, "A".repeat(1 << 20));
        assert!(read_peer_request(long.as_bytes(), 16 << 20).is_ok());
        let long = "A".repeat(100_000);
        let headers = format!(r#"{{"headers":{{"a":"{long}"}}}}"#);
        assert!(read_peer_answer(headers.as_bytes(), 16 << 20).is_ok());
        let headers = format!(r#"{{"headers":{{"a":"{long}","b":"{long}"}}}}"#);
        assert!(read_peer_answer(headers.as_bytes(), 16 << 20).is_err());
        assert!(read_peer_request(headers.as_bytes(), 16 << 20).is_err());
        let long = format!(r#"{{"service_id_tracing":"{}"}}"#, "A".repeat(1 << 20));
        assert!(read_peer_request(long.as_bytes(), 16 << 20).is_err());
    }

    #[test]
    fn a_list_has_no_more_machines_than_are_kept_and_no_long_names() {
        let machine = |name: &str| format!(r#"{{"ip":"10.0.0.1","name":"{name}"}}"#);
        let list = |n, name: &str| format!("[{}]", vec![machine(name); n].join(","));
        let read = |text: String, max| read_machines(text.as_bytes(), max).map(|list| list.len());
        assert_eq!(read(list(40, "a"), 40), Ok(40));
        assert!(read(list(41, "a"), 40).is_err());
        assert_eq!(read(list(40, &"a".repeat(NAME_BYTES_MAX + 1)), 40), Ok(0));
        assert_eq!(read("[]".to_owned(), 1), Ok(0));
    }

    #[test]
    fn times_in_lists_have_no_trailing_zeros() {
        for (time, text) in [
            (0.0, "0"),
            (0.6, "0.6"),
            (0.001104942, "0.001104942"),
            (2.0, "2"),
            (f64::MAX, "1000000000"),
            (f64::NEG_INFINITY, "0"),
        ] {
            assert_eq!(seconds_text(time), text);
        }
    }

    #[test]
    fn times_have_six_decimals_rounded() {
        for (time, text) in [
            (0.0011137, "0.001114"),
            (0.0, "0.000000"),
            (12.5, "12.500000"),
            (1.9999996, "2.000000"),
            (-1.0, "0.000000"),
            (f64::NAN, "0.000000"),
        ] {
            assert_eq!(six_decimals(time), text);
        }
    }

    #[test]
    fn a_learners_number_has_six_decimals() {
        for (x, text) in
            [(0.0, "0.000000"), (14.0, "14.000000"), (0.891, "0.891000"), (-1.5, "-1.500000")]
        {
            assert_eq!(float_text(x), text);
        }
    }

    #[test]
    fn timings_not_taken_are_left_out() {
        let timings = Timings { total_time: Some(0.5), ..Timings::default() };
        assert_eq!(serde_json::to_string(&timings).expect("JSON"), r#"{"total_time":0.5}"#);
    }
}
