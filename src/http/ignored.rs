//! What a change says and this node passes over, such as a mistyped key. As in v1 the change is made all
//! the same; the answer's `Warning` header (RFC 7234, 5.5) and a line in the log name what had no effect.

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use serde_json::{Map, Value};

use crate::policy::Policy;
use crate::policy::registry::SchedulerSpec;
use crate::types::shortened;
use crate::wire::json::Bounds;
use crate::wire::read_object;

/// Things that are named at most, and characters of each.
const NAMED_MAX: usize = 8;
const CHARACTERS_MAX: usize = 64;

/// What had no effect, each in words.
#[derive(Debug, Default)]
pub struct Ignored(Vec<String>);

impl Ignored {
    /// The keys of the object `body` that are not among `known`. What cannot be read is somebody else's to
    /// complain about.
    pub fn keys(&mut self, body: &[u8], known: &[&str]) {
        let read: Map<String, Value> = read_object(body, &Bounds::SMALL).unwrap_or_default();
        let unknown = read.keys().filter(|key| !known.contains(&key.as_str()));
        self.0.extend(unknown.map(|key| format!("key {key}")));
    }

    /// The parameters of `spec` beyond those that its algorithm has.
    pub fn parameters(&mut self, spec: &SchedulerSpec, policy: &dyn Policy) {
        let surplus = spec.parameters.iter().skip(policy.parameters().len());
        self.0.extend(surplus.map(|parameter| format!("parameter {parameter}")));
    }

    /// Tells of them in `answer`, if there are any.
    pub fn tell(&self, mut answer: HttpResponse) -> HttpResponse {
        if self.0.is_empty() {
            return answer;
        }
        let named: Vec<String> = self.0.iter().take(NAMED_MAX).map(|name| shown(name)).collect();
        let more = if self.0.len() > NAMED_MAX { ", and more" } else { "" };
        let named = named.join(", ") + more;
        tracing::warn!(ignored = %named, "a change says what means nothing to this node");
        if let Ok(warning) = HeaderValue::from_str(&format!("299 - \"ignored: {named}\"")) {
            answer.headers_mut().insert(header::WARNING, warning);
        }
        answer
    }
}

/// As it can stand in a quoted part of a header.
fn shown(name: &str) -> String {
    let plain =
        |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '?' };
    shortened(&name.chars().map(plain).collect::<String>(), CHARACTERS_MAX).replace('…', "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(ignored: &Ignored) -> Option<String> {
        let answer = ignored.tell(HttpResponse::Ok().finish());
        answer.headers().get(header::WARNING).map(|value| value.to_str().expect("text").to_owned())
    }

    #[test]
    fn unknown_keys_and_surplus_parameters_are_named() {
        let mut ignored = Ignored::default();
        ignored.keys(br#"{"k":1,"queue_length_max":3}"#, &["queue_length_max"]);
        let spec = SchedulerSpec::from_words("NoScheduler true extra");
        ignored.parameters(&spec, &*spec.build().expect("good"));
        assert_eq!(warning(&ignored).as_deref(), Some("299 - \"ignored: key k, parameter extra\""));
        let mut good = Ignored::default();
        good.keys(br#"{"queue_length_max":3}"#, &["queue_length_max"]);
        assert_eq!(warning(&good), None);
    }

    #[test]
    fn whatever_was_sent_makes_a_header_of_bounded_length() {
        let keys: Vec<String> =
            (0..1000).map(|n| format!("\"{n}é\\u0007{}\":1", "x".repeat(500))).collect();
        let mut ignored = Ignored::default();
        ignored.keys(format!("{{{}}}", keys.join(",")).as_bytes(), &[]);
        ignored.keys(b"no JSON", &[]);
        assert!(ignored.0.is_empty(), "longer than any change");
        ignored.keys(format!("{{{}}}", keys[..50].join(",")).as_bytes(), &[]);
        let told = warning(&ignored).expect("a header");
        assert!(told.len() < 1024 && told.contains("and more"), "{told}");
    }
}
