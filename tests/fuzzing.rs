//! Every reader of bytes from outside, over valid examples that were changed here and there and over
//! random bytes. The same targets are fuzzed for longer with `cargo fuzz`, see CONTRIBUTING.md.

use std::path::Path;

use p2pfaas::fuzzing::{TARGETS, run};
use proptest::prelude::*;

const CASES: u32 = 10_000;
/// Bytes of what is given to a target at most, but for the examples as they stand.
const BYTES_MAX: usize = 4096;

/// What breaks readers: the ends of numbers, and the marks of the forms that are read.
const PIECES: &[&str] = &[
    "0",
    "-1",
    "1e308",
    "1e-308",
    "-0.0",
    "NaN",
    "inf",
    "255",
    "256",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999999",
    "{",
    "}",
    "[",
    "]",
    "[[],[]]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "\r\n",
    "\n\n",
    "\r\n\r\n",
    "\0",
    "é",
    "\u{feff}",
    " ",
    "=",
    "&",
    "%",
    "#",
    ".",
    "::",
    "/",
    "..",
];

/// One change to an example.
#[derive(Clone, Debug)]
struct Change {
    what: u8,
    at: prop::sample::Index,
    length: usize,
    byte: u8,
    piece: &'static str,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = if bytes.is_empty() { 0 } else { self.at.index(bytes.len()) };
        let end = (at + self.length).min(bytes.len());
        match self.what {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (self.byte % 8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = self.byte),
            2 => bytes.insert(at, self.byte),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..end, self.piece.bytes())),
            5 => drop(bytes.splice(at..at, self.piece.bytes())),
            6 => {
                let again = bytes[at..end].repeat(usize::from(self.byte % 16));
                bytes.splice(at..at, again);
            }
            _ => bytes.truncate(at),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop::sample::select(PIECES);
    (0..8_u8, any::<prop::sample::Index>(), 1..24_usize, any::<u8>(), piece)
        .prop_map(|(what, at, length, byte, piece)| Change { what, at, length, byte, piece })
}

/// The examples of a target.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{name}: {why}"));
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).expect("readable")).collect()
}

fn input(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changed = (prop::sample::select(seeds), prop::collection::vec(change(), 0..6));
    let changed = changed.prop_map(|(mut bytes, changes)| {
        for change in changes {
            change.apply(&mut bytes);
            bytes.truncate(BYTES_MAX);
        }
        bytes
    });
    prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                let seeds = seeds(stringify!($name));
                seeds.iter().for_each(|seed| run(stringify!($name), seed));
                let mut config = ProptestConfig::with_cases(CASES);
                config.source_file = Some(file!());
                let mut runner = prop::test_runner::TestRunner::new(config);
                let law = |bytes: Vec<u8>| {
                    run(stringify!($name), &bytes);
                    Ok(())
                };
                if let Err(why) = runner.run(&input(seeds), law) {
                    panic!("{why}\n{runner}");
                }
            }
        )+

        #[test]
        fn every_target_is_tested_here_and_has_a_file_to_be_fuzzed_by() {
            let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("a manifest");
            for name in names {
                let file = fuzz.join(format!("fuzz_targets/{name}.rs"));
                let text = std::fs::read_to_string(file).expect(name);
                assert!(text.contains(&format!("\"{name}\"")), "{name}");
                assert!(manifest.contains(&format!("fuzz_targets/{name}.rs")), "{name}");
            }
        }
    };
}

targets! {
    addresses
    cgroup
    cluster_key
    config_toml
    experiment_answer
    fleet_file
    function_name
    function_query
    guarded_phases
    guarded_requests
    http_headers
    http_origin
    http_token
    init_server
    json
    learner_batch
    learner_changes
    learner_model
    learner_numbers
    learner_parameters
    learner_pool_answer
    learner_ws
    machines
    numbers_shown
    patches
    peer_answer
    peer_head
    peer_request
    program_answer
    saved_files
    scenario
    scheduler_json
    scheduler_words
    sealed_datagrams
    swim_datagrams
    thumbnail
    trace
    ws_frames
}
