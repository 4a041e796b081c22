//! The JSON that nodes exchange, shared by who sends it (`peer`) and who receives it (`http`).
//! Every field may be missing or null on the way in: v1 leaves out what it does not know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::membership::{Machine, Standing};
use crate::types::null_as_default;

/// The user agent by which nodes know each other.
pub const MACHINE_AGENT: &str = "Machine";

/// The body of `POST /peer/function/{fn}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerHop {
    /// The machine's id.
    #[serde(deserialize_with = "null_as_default")]
    pub machine_id: String,
    /// The machine's address; empty while it has none.
    #[serde(deserialize_with = "null_as_default")]
    pub machine_ip: String,
    /// The times taken there.
    #[serde(deserialize_with = "null_as_default")]
    pub timings: Timings,
}

/// Times in seconds; those not taken are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
}

impl From<&Machine> for WireMachine {
    fn from(machine: &Machine) -> Self {
        Self {
            id: machine.id,
            ip: machine.ip.to_string(),
            name: machine.is.name.clone(),
            group_name: machine.is.group.clone(),
            ping: machine.ping.as_secs_f64(),
            last_update: machine.last_update,
            alive: machine.standing == Standing::Alive,
            dead_polls: machine.dead_polls,
        }
    }
}

impl WireMachine {
    /// Its address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.ip.parse().ok()
    }
}

/// A time as the wire's JSON lists show it: seconds with up to nine decimals, `0` for none.
pub fn seconds_text(seconds: f64) -> String {
    let text = format!("{seconds:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A time as clients see it: seconds with six decimals. (Integers are written several times
/// faster than floats, and every answer has three of these.)
pub fn six_decimals(seconds: f64) -> String {
    // A cast saturates, so no time that a peer may tell can go wrong here.
    let micros = (seconds * 1e6).round() as u64;
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A number as the learner's headers show it, with six decimals.
pub fn float_text(x: f64) -> String {
    // Most are small whole numbers, and integers are written several times faster.
    if x.fract() == 0.0 && (0.0..1e9).contains(&x) && x.is_sign_positive() {
        return format!("{}.000000", x as u32);
    }
    format!("{x:.6}")
}

/// A duration in the wire's unit.
pub fn seconds(duration: Duration) -> Option<f64> {
    Some(duration.as_secs_f64())
}

/// Reads a JSON body that must be an object; serde alone would take `[1, 2]` for a struct as well.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let first = body.iter().find(|c| !c.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err("the body is no JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_peer_request_may_be_missing_or_null() {
        read_object::<PeerRequest>(b"{}").expect("all missing");
        let nulls = br#"{"service_id_request":null,"service_id_tracing":null,"function_name":null,
            "hops":null,"peers_list":null,"payload":null,"content_type":null,"headers":null}"#;
        let request: PeerRequest = read_object(nulls).expect("all null");
        assert!(request.hops.is_none() && request.payload.is_none());
        let hop = br#"{"peers_list":[{"machine_id":null,"machine_ip":null,"timings":null},{}]}"#;
        let request: PeerRequest = read_object(hop).expect("nulls inside");
        assert_eq!(request.peers_list.map(|list| list.len()), Some(2));
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in ["", "[]", "[1,2]", "7", "null", "\"x\"", "{bad"] {
            assert!(read_object::<PeerRequest>(body.as_bytes()).is_err(), "{body}");
        }
        for wrong in [r#"{"hops":1.5}"#, r#"{"hops":"1"}"#, r#"{"headers":{"a":["b"]}}"#] {
            assert!(read_object::<PeerRequest>(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_in_lists_have_no_trailing_zeros() {
        for (time, text) in [(0.0, "0"), (0.6, "0.6"), (0.001104942, "0.001104942"), (2.0, "2")] {
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
