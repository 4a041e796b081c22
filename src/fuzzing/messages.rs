//! What nodes tell each other, and the JSON and the frames that it comes in.

use std::time::Duration;

use actix_codec::Decoder;
use actix_http::StatusCode;
use actix_http::header::HeaderMap;
use actix_http::ws::{Codec, ProtocolError};
use bytes::BytesMut;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value;

use super::{Bytes, rewritten};
use crate::peer;
use crate::policy::registry::{ALGORITHMS, SchedulerSpec};
use crate::policy::{Decision, Knowledge, NodeView, Step, Task};
use crate::types::{Load, NAME_BYTES_MAX, Peer};
use crate::wire::frames::{FrameWatch, HEAD_BYTES_MAX, check_next};
use crate::wire::headers;
use crate::wire::json::{self, Bounds};
use crate::wire::{self, HOPS_MAX, PeerHop};

const TIGHT: Bounds =
    Bounds { bytes: 4096, depth: 3, entries: 4, string_bytes: 10, values: 12, long: &["payload"] };
/// More than anything that is written of a message within [`Bounds::SMALL`].
const WIDE: Bounds = Bounds {
    bytes: usize::MAX,
    depth: 32,
    entries: usize::MAX,
    string_bytes: usize::MAX,
    values: usize::MAX,
    long: &[],
};

/// Lists and maps keep their bounds by what was made of them.
fn keeps(value: &Value, depth: usize, values: &mut usize, bounds: &Bounds) {
    *values += 1;
    match value {
        Value::Array(list) => {
            assert!(depth < bounds.depth && list.len() <= bounds.entries);
            list.iter().for_each(|value| keeps(value, depth + 1, values, bounds));
        }
        Value::Object(map) => {
            assert!(depth < bounds.depth && map.len() <= bounds.entries);
            *values += map.len();
            for (key, value) in map {
                assert!(key.len() <= bounds.string_bytes);
                let long =
                    depth == 0 && bounds.long.iter().any(|long| long.eq_ignore_ascii_case(key));
                assert!(long || value.as_str().is_none_or(|s| s.len() <= bounds.string_bytes));
                keeps(value, depth + 1, values, bounds);
            }
        }
        // Bounded where it stands, since a long one depends on its key.
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// [`json::read`].
pub(super) fn json(bytes: &[u8]) {
    for bounds in [TIGHT, Bounds::SMALL] {
        if let Ok(value) = json::read::<Value>(bytes, &bounds) {
            let mut values = 0;
            keeps(&value, 0, &mut values, &bounds);
            assert!(values <= bounds.values);
            let text = serde_json::to_vec(&value).expect("JSON");
            assert_eq!(json::read::<Value>(&text, &WIDE).as_ref(), Ok(&value));
        }
        if let Err(why) = json::read_object::<Value>(bytes, &bounds) {
            assert!(why.to_string().len() < 2048, "{why}");
        }
    }
}

fn check_hops(hops: Option<&[PeerHop]>) {
    let hops = hops.unwrap_or_default();
    assert!(hops.len() <= HOPS_MAX);
    for hop in hops {
        assert!(hop.machine_id.len() <= NAME_BYTES_MAX && hop.machine_ip.len() <= NAME_BYTES_MAX);
    }
}

/// [`wire::read_peer_request`].
pub(super) fn peer_request(bytes: &[u8]) {
    let Ok(request) = wire::read_peer_request(bytes, 1 << 16) else { return };
    check_hops(request.peers_list.as_deref());
    let again = rewritten(&request);
    let headers = headers::from_json(&again.headers.unwrap_or_default());
    headers::for_function(&headers);
}

/// [`wire::read_peer_answer`] and what is made of it.
pub(super) fn peer_answer(bytes: &[u8]) {
    if let Ok(answer) = wire::read_peer_answer(bytes, 1 << 16) {
        check_hops(answer.peers_list.as_deref());
        rewritten(&answer);
    }
    if let Ok(forwarded) = peer::read_answer(bytes, StatusCode::OK, HeaderMap::new()) {
        assert!(!forwarded.answer.status.is_informational());
        for hop in &forwarded.peers {
            let timings = hop.timings;
            for time in [timings.execution_time, timings.total_time, timings.probing_time] {
                time.into_iter().for_each(shown);
            }
        }
    }
}

/// [`wire::read_machines`].
pub(super) fn machines(bytes: &[u8]) {
    for max in [0, 1, 3, 1000] {
        let Ok(machines) = wire::read_machines(bytes, max) else { continue };
        assert!(machines.len() <= max.max(32), "{max}");
        for machine in &machines {
            assert!(machine.name.len().max(machine.group_name.len()) <= NAME_BYTES_MAX);
            let _ = machine.address();
        }
        rewritten(&machines);
    }
}

/// A number that a stranger told is shown short, and as one.
fn shown(number: f64) {
    let time = wire::seconds_text(number);
    assert!(time.len() <= 21 && time.parse::<f64>().is_ok_and(f64::is_finite), "{time}");
    let six = wire::six_decimals(number);
    assert!(six.len() <= 21 && six.parse::<f64>().is_ok_and(f64::is_finite), "{six}");
}

/// Numbers as answers show them.
pub(super) fn numbers_shown(bytes: &[u8]) {
    for eight in bytes.chunks(8) {
        let mut all = [0; 8];
        all.iter_mut().zip(eight).for_each(|(to, from)| *to = *from);
        let number = f64::from_bits(u64::from_le_bytes(all));
        shown(number);
        let text = wire::float_text(number);
        let read: f64 = text.parse().expect("a number");
        let same = (read - number).abs() <= 5.1e-7 || read == number || number.is_nan();
        assert!(same || (read / number - 1.0).abs() < 1e-9, "{number} as {text}");
    }
}

/// A WebSocket's frames, cut anywhere.
pub(super) fn frames(bytes: &[u8]) {
    const MAX: u64 = 1000;
    let mut bytes = Bytes(bytes);
    let cut = bytes.one_of(40) + 1;
    let stream = bytes.0;
    // Whatever the pieces, the same is seen.
    let mut whole = FrameWatch::new(MAX);
    let at_once = whole.came(stream);
    let mut watch = FrameWatch::new(MAX);
    assert_eq!(stream.chunks(cut).try_for_each(|piece| watch.came(piece)), at_once);
    // The protocol's own codec sees nothing too large where the watch has not.
    let mut codec = Codec::new().max_size(MAX as usize);
    let mut left = BytesMut::from(stream);
    loop {
        let next = check_next(&left, MAX);
        if let Err(why) = next {
            assert_eq!(at_once, Err(why));
        }
        match codec.decode(&mut left) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(ProtocolError::Overflow) => {
                // It refuses the largest before their head is whole.
                assert!(at_once.is_err() || left.len() < HEAD_BYTES_MAX);
                break;
            }
            Err(_) => break,
        }
    }
}

/// What a program outside answers: a step that can be taken, or a reason that can be told.
pub(super) fn program_answer(bytes: &[u8]) {
    let by_url = ALGORITHMS.iter().find(|algorithm| algorithm.usage.starts_with("URL"));
    let name = by_url.expect("one asks a program").name.to_owned();
    let spec = SchedulerSpec { name, parameters: vec!["ws://127.0.0.1:9/".to_owned()] };
    let policy = spec.build().expect("good");
    let peers = ["10.0.0.1", "10.0.0.2"].map(Peer::at);
    let node = NodeView {
        now: Duration::ZERO,
        load: Load::default(),
        by_type: &[],
        k: 4,
        places: 0,
        peers: &peers,
    };
    let mut heard = Knowledge { mark: 7, ..Knowledge::default() };
    let mut rng = SmallRng::seed_from_u64(7);
    let mut next = |heard: &Knowledge| policy.next(&Task::default(), node, heard, &mut rng);
    let Step::Consult(asked) = next(&heard) else { panic!("it asks") };
    heard.advised = Some(match asked.read(Some(bytes)) {
        Ok(advised) => advised,
        Err(why) => {
            assert!(!why.label().is_empty() && why.to_string().len() < 1 << 16);
            asked.fallback()
        }
    });
    match next(&heard) {
        Step::Decide(Decision::Forward(peer)) => assert!(peers.contains(&peer)),
        Step::Decide(_) => {}
        Step::Probe(probed) => {
            assert!(!probed.is_empty() && probed.iter().all(|peer| peers.contains(peer)));
        }
        step => panic!("{step:?} is no program's"),
    }
}
