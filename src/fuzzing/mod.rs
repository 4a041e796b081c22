//! Everything that reads bytes from outside, each under one name, for the fuzz targets in `fuzz/`
//! and the property tests in `tests/fuzzing.rs`. No part of the program's interface.
//!
//! A target takes any bytes and panics only where a law is broken: whatever comes, nothing panics;
//! what is accepted keeps its bounds; and what was read is read again from what is written of it.

mod connections;
mod functions;
mod heads;
mod http;
mod learning;
mod messages;
mod settings;
mod swimming;
mod trust;

/// A target: it takes any bytes.
pub type Target = fn(&[u8]);

/// All of them; each has a file in `fuzz/fuzz_targets/` and a folder in `fuzz/seeds/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("addresses", http::addresses),
    ("cgroup", settings::cgroup),
    ("cluster_key", trust::cluster_key),
    ("config_toml", settings::config_toml),
    ("experiment_answer", http::experiment_answer),
    ("fleet_file", settings::fleet_file),
    ("function_name", http::function_name),
    ("function_query", functions::query),
    ("guarded_phases", connections::phases),
    ("guarded_requests", connections::requests),
    ("http_headers", http::travelling),
    ("http_origin", http::origin),
    ("http_token", http::token),
    ("init_server", http::init_server),
    ("json", messages::json),
    ("learner_batch", learning::batch),
    ("learner_changes", learning::changes),
    ("learner_model", learning::model),
    ("learner_numbers", learning::numbers),
    ("learner_parameters", learning::parameters),
    ("learner_pool_answer", learning::pool_answer),
    ("learner_ws", learning::websocket),
    ("machines", messages::machines),
    ("numbers_shown", messages::numbers_shown),
    ("patches", settings::patches),
    ("peer_answer", messages::peer_answer),
    ("peer_head", heads::peer_head),
    ("peer_request", messages::peer_request),
    ("program_answer", messages::program_answer),
    ("saved_files", settings::saved_files),
    ("scenario", settings::scenario),
    ("scheduler_json", settings::scheduler_json),
    ("scheduler_words", settings::scheduler_words),
    ("sealed_datagrams", trust::sealed),
    ("swim_datagrams", swimming::datagrams),
    ("thumbnail", functions::thumbnail),
    ("trace", settings::trace),
    ("ws_frames", messages::frames),
];

/// Takes decisions off the front of the bytes; what is left is a target's text.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// The next byte; 0 at the end.
    fn byte(&mut self) -> u8 {
        self.up_to(1).first().copied().unwrap_or(0)
    }

    /// The next byte as one of `n`.
    fn one_of(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// The next two bytes as a number.
    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// The next `n` bytes, fewer at the end.
    fn up_to(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(n).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }
}

/// What can be written as JSON, read again, and written again is the same.
fn rewritten<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_vec(value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text).expect("what was written can be read");
    let second = serde_json::to_vec(&again).expect("and written again");
    assert_eq!(text, second, "{:?}", String::from_utf8_lossy(&text));
    again
}

/// Gives `bytes` to the target of that name.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target's name");
    target(bytes);
}
