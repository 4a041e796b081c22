//! What an answer tells about its call.

use awc::http::header::{HeaderMap, HeaderName};
use serde::de::DeserializeOwned;

use crate::experiment::design::job::{DecisionShown, Job, JobTimes};
use crate::wire::codes::WireError;
use crate::wire::headers;
use crate::wire::json::{self, Bounds};
use crate::wire::{HOPS_MAX, NAME_BYTES_MAX};

/// Lists in headers: an entry a node that the call passed.
const LIST: Bounds = Bounds {
    bytes: HOPS_MAX * (NAME_BYTES_MAX + 8),
    depth: 1,
    entries: HOPS_MAX,
    string_bytes: NAME_BYTES_MAX,
    values: HOPS_MAX + 1,
    long: &[],
};
/// A longer time was not measured.
const SECONDS_MAX: f64 = 1e9;
/// Features of a state that are kept, and the bytes that each takes.
const FEATURES_MAX: usize = 1024;
const FEATURE_BYTES_MAX: usize = 32;

/// A header that is a JSON list; empty when it is absent, none, or beyond all bounds.
fn list<T: DeserializeOwned>(from: &HeaderMap, name: &HeaderName) -> Vec<T> {
    json::read(headers::text(from, name).as_bytes(), &LIST).unwrap_or_default()
}

/// The state of a decision; `None`: it is longer than any.
fn state(from: &HeaderMap) -> Option<String> {
    let text = headers::text(from, &headers::LEARNT_STATE);
    let fits = text.len() <= FEATURES_MAX * FEATURE_BYTES_MAX
        && text.bytes().filter(|c| *c == b',').count() < FEATURES_MAX;
    fits.then(|| text.to_owned())
}

/// Times that a node tells of a call; `None`: that is none.
fn time(seconds: f64) -> Option<f64> {
    (0.0..=SECONDS_MAX).contains(&seconds).then_some(seconds)
}

fn times(from: &HeaderMap, name: &HeaderName) -> Vec<f64> {
    let told = list::<f64>(from, name).into_iter().map(time);
    told.collect::<Option<_>>().unwrap_or_default()
}

fn number(from: &HeaderMap, name: &HeaderName) -> Option<f64> {
    headers::text(from, name).trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// The decision. An EID of 0 means that nobody took one.
fn learnt(from: &HeaderMap) -> Option<DecisionShown> {
    let eid = headers::text(from, &headers::LEARNT_EID).trim().parse().ok();
    Some(DecisionShown {
        eid: eid.filter(|eid| *eid > 0)?,
        state: state(from)?,
        action: number(from, &headers::LEARNT_ACTION)?,
        eps: number(from, &headers::LEARNT_EPS)?,
        reward: None,
    })
}

/// Writes what the answer tells into `job`.
pub fn note(job: &mut Job, status: u16, head: &HeaderMap, body: &[u8]) {
    job.status = status;
    if !(200..300).contains(&status) {
        let error: Option<WireError> = json::read_object(body, &Bounds::SMALL).ok();
        job.error_code = error.map_or(0, |error| error.code);
    }
    job.execution_s = number(head, &headers::EXECUTION_TIME).and_then(time);
    job.timings = JobTimes {
        total: times(head, &headers::TOTAL_TIMES),
        scheduling: times(head, &headers::SCHEDULING_TIMES),
        probing: times(head, &headers::PROBING_TIMES),
    };
    job.external = head.contains_key(&headers::EXTERNALLY_EXECUTED);
    job.peers_ip = list(head, &headers::PEERS_IP);
    job.peers_id = list(head, &headers::PEERS_ID);
    job.learnt = learnt(head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use awc::http::header::HeaderValue;

    fn head(lines: &[(&'static HeaderName, &'static str)]) -> HeaderMap {
        let value = |(name, text): &(&'static HeaderName, &'static str)| {
            ((*name).clone(), HeaderValue::from_static(text))
        };
        lines.iter().map(value).collect()
    }

    #[test]
    fn a_forwarded_calls_answer_tells_its_way_and_its_decision() {
        let head = head(&[
            (&headers::EXECUTION_TIME, "0.001114"),
            (&headers::TOTAL_TIMES, "[0.002,0.001]"),
            (&headers::PEERS_IP, "[\"10.0.0.1\",\"10.0.0.2\"]"),
            (&headers::EXTERNALLY_EXECUTED, "True"),
            (&headers::LEARNT_EID, "46"),
            (&headers::LEARNT_STATE, "1.000000,0.000000"),
            (&headers::LEARNT_ACTION, "3.000000"),
            (&headers::LEARNT_EPS, "0.900000"),
        ]);
        let mut job = Job::default();
        note(&mut job, 200, &head, b"anything");
        assert_eq!((job.status, job.error_code, job.external), (200, 0, true));
        assert_eq!(job.execution_s, Some(0.001_114));
        assert_eq!(job.timings.total, [0.002, 0.001]);
        assert_eq!(job.peers_ip, ["10.0.0.1", "10.0.0.2"]);
        let learnt = job.learnt.expect("a decision");
        assert_eq!((learnt.eid, learnt.action, learnt.eps), (46, 3.0, 0.9));
    }

    #[test]
    fn what_no_node_would_tell_is_not_kept() {
        let told = |name: &'static HeaderName, text: String| {
            let value = HeaderValue::try_from(text).expect("a header's text");
            let mut head = HeaderMap::new();
            head.insert(headers::LEARNT_EID.clone(), HeaderValue::from_static("46"));
            head.insert(headers::LEARNT_ACTION.clone(), HeaderValue::from_static("1"));
            head.insert(headers::LEARNT_EPS.clone(), HeaderValue::from_static("0.5"));
            head.insert(name.clone(), value);
            let mut job = Job::default();
            note(&mut job, 200, &head, b"");
            job
        };
        let times = |n: usize| format!("[{}]", vec!["0.1"; n].join(","));
        assert_eq!(told(&headers::TOTAL_TIMES, times(64)).timings.total.len(), 64);
        assert!(told(&headers::TOTAL_TIMES, times(65)).timings.total.is_empty());
        for bad in ["[1e300]", "[-1]", "[0.1,1e10]"] {
            assert!(told(&headers::TOTAL_TIMES, bad.to_owned()).timings.total.is_empty(), "{bad}");
        }
        assert_eq!(told(&headers::EXECUTION_TIME, "1e300".to_owned()).execution_s, None);
        let name = |bytes: usize| format!("[\"{}\"]", "n".repeat(bytes));
        assert_eq!(told(&headers::PEERS_ID, name(255)).peers_id.len(), 1);
        assert!(told(&headers::PEERS_ID, name(256)).peers_id.is_empty());
        let state = |n: usize| vec!["1.000000"; n].join(",");
        assert!(told(&headers::LEARNT_STATE, state(1024)).learnt.is_some());
        assert!(told(&headers::LEARNT_STATE, state(1025)).learnt.is_none());
        assert!(told(&headers::LEARNT_STATE, "1".repeat(40_000)).learnt.is_none());
    }

    #[test]
    fn an_errors_code_is_read_and_what_is_not_there_is_left_out() {
        let mut job = Job::default();
        note(&mut job, 503, &HeaderMap::new(), br#"{"code":401,"message":"rejected"}"#);
        assert_eq!((job.status, job.error_code), (503, 401));
        assert!(job.execution_s.is_none() && job.learnt.is_none());
        assert!(job.timings.total.is_empty() && !job.external);
        note(&mut job, 500, &HeaderMap::new(), b"no JSON");
        assert_eq!(job.error_code, 0);
    }
}
