//! Peer protocol 2: what goes along with a call between two of our nodes, in headers. Sans-IO.
//!
//! | header | on | what |
//! |---|---|---|
//! | `P2pfaas-Path` | call, answer | nodes passed, `name@address` each, percent-encoded, with commas between them; on an answer the executing node first |
//! | `P2pfaas-Times` | answer | of each of these nodes its seconds `total;scheduling;probing;execution`, `-` for none |
//! | `P2pfaas-Load-By-Type` | answer to a probe | running and waiting calls of task type 0, 1, …: `1/0,2/3` |
//! | `P2pfaas-Bid` | answer to a probe | if the probe names that algorithm in the same header: what it says of a call of the `P2pfaas-Task-Type` and `P2pfaas-Deadline-Seconds` that the probe names |
//! | `P2pfaas-Note` | `POST /peer/2/note/{algorithm}` | what an algorithm says to that of a peer, in hexadecimal digits |
//! | `P2pfaas-Outcome` | answer | `executed`, or the code of the error ([`super::codes`]) |

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::types::{Load, NOTE_BYTES_MAX};

use super::{HOPS_MAX, NAME_BYTES_MAX, PeerHop, Timings, seconds_text};

/// What a call's outcome is called that a function answered.
pub const EXECUTED: &str = "executed";

/// What stands in names and addresses as it is.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':');

/// Task types whose load a probe's answer tells at most.
pub const PROBED_TYPES_MAX: usize = 16;

/// Load by task type as it is told in answers to probes: `running/waiting` of each type from 0 on.
pub fn load_by_type_text(all: &[Load]) -> String {
    let one = |load: &Load| format!("{}/{}", load.running, load.waiting);
    all.iter().take(PROBED_TYPES_MAX).map(one).collect::<Vec<_>>().join(",")
}

/// The reverse of [`load_by_type_text`]; none where it is none.
pub fn load_by_type(text: &str) -> Vec<Load> {
    let one = |text: &str| {
        let (running, waiting) = text.split_once('/')?;
        Some(Load { running: running.parse().ok()?, waiting: waiting.parse().ok()? })
    };
    let all: Option<_> = text.split(',').take(PROBED_TYPES_MAX).map(one).collect();
    all.unwrap_or_default()
}

/// A note as it is told.
pub fn note_text(note: &[u8]) -> String {
    note.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reverse of [`note_text`]; `None`: it is none, or longer than notes are.
pub fn read_note(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > 2 * NOTE_BYTES_MAX || bytes.len() % 2 == 1 {
        return None;
    }
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    bytes.chunks(2).map(byte).collect()
}

/// The nodes of `hops`.
pub fn path_text(hops: &[PeerHop]) -> String {
    let node = |hop: &PeerHop| {
        let encode = |text| utf8_percent_encode(text, KEPT);
        format!("{}@{}", encode(&hop.machine_id), encode(&hop.machine_ip))
    };
    hops.iter().map(node).collect::<Vec<_>>().join(",")
}

/// The reverse of [`path_text`].
///
/// # Errors
/// It is none, or beyond the bounds that hops have.
pub fn read_path(text: &str) -> Result<Vec<PeerHop>, String> {
    let decode = |text: &str| {
        let decoded = percent_decode_str(text.trim()).decode_utf8();
        decoded.map(|text| text.into_owned()).map_err(|_| "a path is no text".to_owned())
    };
    let mut hops = Vec::new();
    for node in text.split(',').filter(|node| !node.trim().is_empty()) {
        let (id, ip) = node.split_once('@').ok_or("a path is name@address, with commas")?;
        let (machine_id, machine_ip) = (decode(id)?, decode(ip)?);
        if machine_id.len().max(machine_ip.len()) > NAME_BYTES_MAX {
            return Err(format!("a path has a name of more than {NAME_BYTES_MAX} bytes"));
        }
        if hops.len() == HOPS_MAX {
            return Err(format!("a path has more than {HOPS_MAX} nodes"));
        }
        hops.push(PeerHop { machine_id, machine_ip, timings: Timings::default() });
    }
    Ok(hops)
}

/// The times of `hops`.
pub fn times_text(hops: &[PeerHop]) -> String {
    let one = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), seconds_text);
    let node = |hop: &PeerHop| {
        let t = &hop.timings;
        [t.total_time, t.scheduling_time, t.probing_time, t.execution_time].map(one).join(";")
    };
    hops.iter().map(node).collect::<Vec<_>>().join(",")
}

/// Puts the times of `text` into `hops`, as far as it tells some.
pub fn read_times(text: &str, hops: &mut [PeerHop]) {
    for (hop, node) in hops.iter_mut().zip(text.split(',')) {
        let mut times = node.split(';').map(|time| {
            let time: f64 = time.trim().parse().ok()?;
            (time.is_finite() && time >= 0.0).then_some(time)
        });
        let mut next = || times.next().flatten();
        hop.timings = Timings {
            total_time: next(),
            scheduling_time: next(),
            probing_time: next(),
            execution_time: next(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            nodes in prop::collection::vec((".{0,30}", "[0-9a-f:.]{0,20}"), 0..6),
            times in prop::collection::vec(prop::option::of(0u32..1_000_000), 4),
        ) {
            let time = |i: usize| times[i].map(|micros| f64::from(micros) / 1e6);
            let timings = Timings {
                total_time: time(0),
                scheduling_time: time(1),
                probing_time: time(2),
                execution_time: time(3),
            };
            let hop = |(id, ip)| PeerHop { machine_id: id, machine_ip: ip, timings };
            let hops: Vec<PeerHop> = nodes.into_iter().map(hop).collect();
            let text = path_text(&hops);
            prop_assert!(text.is_ascii() && !text.contains(['\r', '\n']));
            let mut read = read_path(&text).expect("good");
            read_times(&times_text(&hops), &mut read);
            prop_assert_eq!(read, hops);
        }

        #[test]
        fn whatever_comes_is_read_or_refused(text in ".{0,200}") {
            if let Ok(mut hops) = read_path(&text) {
                read_times(&text, &mut hops);
                prop_assert!(hops.len() <= HOPS_MAX);
            }
        }
    }

    #[test]
    fn paths_have_bounds() {
        assert!(read_path(&vec!["a@1"; HOPS_MAX].join(",")).is_ok());
        assert!(read_path(&vec!["a@1"; HOPS_MAX + 1].join(",")).is_err());
        assert!(read_path(&format!("{}@1", "a".repeat(NAME_BYTES_MAX + 1))).is_err());
        assert!(read_path("a").is_err() && read_path("%ff@1").is_err());
    }
}
