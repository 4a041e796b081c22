//! Imports point down only: the core knows no IO and no clock, actors know no HTTP, and whoever
//! serves HTTP knows the actors' messages, not their insides.

use std::path::{Path, PathBuf};

fn sources(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// The program's own lines of a file: no comments, no unit tests.
fn code(path: &Path) -> String {
    if path.ends_with("tests.rs") {
        return String::new();
    }
    let text = std::fs::read_to_string(path).expect("a source");
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Lines of the sources below `places` in which one of `words` stands.
fn breaches(places: &[&str], words: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for place in places {
        let path = root.join(place);
        let files = if path.is_dir() { sources(&path) } else { vec![path] };
        assert!(!files.is_empty());
        for file in files {
            for line in code(&file).lines() {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    found.push(format!("{}: {word}: {}", file.display(), line.trim()));
                }
            }
        }
    }
    found
}

const CORE: &[&str] =
    &["policy", "rl", "bench", "queue.rs", "membership.rs", "membership", "types.rs"];

#[test]
fn the_core_knows_no_io_no_clock_and_no_chance_but_what_is_passed_in() {
    let words = [
        "actix",
        "awc",
        "tokio",
        "std::net::Tcp",
        "std::fs",
        "std::io",
        "std::thread",
        "Instant",
        "SystemTime",
        "rand::rng",
        "rand::random",
        "tracing",
        "crate::actors",
        "crate::http",
        "crate::faas",
        "crate::peer",
        "crate::config",
        "crate::call::state",
        "crate::metrics",
    ];
    assert_eq!(breaches(CORE, &words), [""; 0]);
}

#[test]
fn actors_know_no_http() {
    let words = ["actix_web", "awc", "crate::http", "crate::faas", "crate::peer", "crate::call"];
    assert_eq!(breaches(&["actors"], &words), [""; 0]);
}

#[test]
fn whoever_serves_http_knows_the_actors_messages_and_not_their_insides() {
    let words = [
        "queue::Queue",
        "switch::Switch",
        "discovery::Discovery",
        "learner::Learner;",
        "supervisor",
        "membership::Membership",
    ];
    assert_eq!(breaches(&["http"], &words), [""; 0]);
}

#[test]
fn header_names_stand_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&root) {
        if !file.ends_with("http/headers.rs") {
            let text = code(&file).to_lowercase();
            assert!(
                !text.contains("\"x-p2pf") && !text.contains("\"p2pfaas-machine-"),
                "{}",
                file.display()
            );
        }
    }
}
