//! Imports point down only. Each room of `src/` names the rooms that it may use; a room that is not in
//! the list, and a use that is not, fail. What each layer is for stands in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Layer, room, and the rooms that it may use: those that stand before it only, so that nothing goes in
/// circles.
const ROOMS: &[(u8, &str, &str)] = &[
    // The words that all speak.
    (0, "types", ""),
    // Ground: knows the standard library and crates.
    (0, "wire", "types"),
    (0, "telemetry", ""),
    (0, "time", ""),
    (0, "storage", "types wire"),
    (0, "memory", "storage"),
    (0, "keys", "types"),
    // Core: no IO, no clock, no chance of its own.
    (1, "service", ""),
    (1, "outliers", "types"),
    (1, "rl", "keys types"),
    (1, "queue", "types"),
    (1, "policy", "rl types wire"),
    (1, "membership", "types wire"),
    (1, "trust", ""),
    (1, "error", "policy queue trust types wire"),
    (1, "simulation", "membership outliers policy queue rl service types"),
    (1, "experiment::design", "keys policy service types"),
    (1, "experiment::report", "experiment::design policy"),
    // What a node is set to, keeps, counts and holds.
    (2, "tls", "storage trust types"),
    (2, "config", "keys memory policy service storage telemetry trust types"),
    (2, "saved", "config policy queue rl storage types wire"),
    (2, "metrics", "error policy rl telemetry types"),
    (2, "connections", "config error memory metrics"),
    // Actors: state, time and timers around the core.
    (3, "actors", "error membership metrics policy queue rl saved storage types wire"),
    // A call's way, speaking to ports.
    (
        4,
        "call",
        "actors config connections error memory metrics outliers policy queue tls types wire",
    ),
    // Edges: what comes in and what goes out.
    (
        5,
        "client",
        "actors call config connections error memory metrics policy rl time tls types wire",
    ),
    (5, "faas", "actors call client config error memory service storage time types wire"),
    (
        5,
        "peer",
        "actors call client config connections error membership memory metrics policy saved time tls trust types \
         wire",
    ),
    (
        5,
        "http",
        "actors call config connections error faas membership memory policy queue rl saved time tls types \
         wire",
    ),
    (5, "fleet", "client keys membership policy saved types wire"),
    (
        5,
        "experiment::run",
        "client experiment::design experiment::report fleet memory policy saved storage time types \
         wire",
    ),
    (
        5,
        "experiment::simulate",
        "client experiment::design experiment::report experiment::run fleet membership policy queue saved service \
         simulation types wire",
    ),
    // Assembly: a node is put together, started and stopped.
    (
        6,
        "node",
        "actors call client config faas http membership peer policy saved storage time tls trust types wire",
    ),
    // The program.
    (
        7,
        "cli",
        "call client config connections experiment::design experiment::report experiment::run experiment::simulate \
         faas fleet http keys membership memory metrics node policy saved storage telemetry trust types",
    ),
    // Everything that reads bytes from outside, for the fuzz targets.
    (
        8,
        "fuzzing",
        "actors client config connections experiment::design experiment::run faas fleet http keys membership memory \
         metrics peer policy queue rl saved service storage trust types wire",
    ),
];

/// Files that only declare rooms.
const DOORS: &[&str] = &["lib.rs", "main.rs", "experiment/mod.rs"];

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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The program's own lines of a file: no comments, no unit tests.
fn code(path: &Path) -> String {
    if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
        return String::new();
    }
    let text = std::fs::read_to_string(path).expect("a source");
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default().to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The room that a module path, such as `experiment::run::answer`, lies in.
fn room(path: &str) -> Option<&'static str> {
    let within = |room: &str| path == room || path.starts_with(&format!("{room}::"));
    ROOMS.iter().map(|(_, room, _)| *room).find(|room| within(room))
}

/// A file's module path.
fn module(file: &Path) -> String {
    let path = file.strip_prefix(root()).expect("below src").with_extension("");
    let path = path.to_str().expect("text").replace('/', "::");
    path.strip_suffix("::mod").unwrap_or(&path).to_owned()
}

/// The module paths after each `crate::` in `code`; of `crate::{a, b::c}` both.
fn uses(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect()
        };
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                found.extend(list.split(',').map(|part| word(part.trim())));
            }
            None => drop(found.insert(word(rest))),
        }
    }
    // `experiment::{design, run}` would hide which.
    assert!(!found.contains("experiment::"), "name the rooms of experiment one by one");
    found
}

#[test]
fn every_room_is_known_and_uses_only_what_it_may() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ROOMS.iter().map(|(_, room, may)| (*room, may.split_whitespace().collect())).collect();
    let mut breaches = Vec::new();
    let mut used = BTreeMap::<&str, BTreeSet<&str>>::new();
    for file in sources(&root()) {
        if DOORS.iter().any(|door| file == root().join(door)) {
            continue;
        }
        let module = module(&file);
        let Some(from) = room(&module) else {
            breaches.push(format!("{module} is in no room: name it in ROOMS"));
            continue;
        };
        for path in uses(&code(&file)) {
            // Items of the crate itself, such as `crate::lock`, are in no room.
            let Some(to) = room(&path) else { continue };
            used.entry(from).or_default().insert(to);
            if to != from && !allowed[from].contains(to) {
                breaches.push(format!("{module} uses {path}: {from} may not use {to}"));
            }
        }
    }
    for (from, may) in &allowed {
        for to in may.iter().filter(|to| !used.get(from).is_some_and(|used| used.contains(*to))) {
            breaches.push(format!("{from} does not use {to}: take it from the list"));
        }
    }
    assert_eq!(breaches, [""; 0]);
}

#[test]
fn each_room_may_use_only_such_as_stand_before_it() {
    let mut before = BTreeSet::new();
    let mut last = 0;
    for (layer, room, may) in ROOMS {
        assert!(last <= *layer, "{room} stands below its layer");
        last = *layer;
        for to in may.split_whitespace() {
            assert!(before.contains(to), "{room} may use {to}, which does not stand before it");
        }
        assert!(before.insert(*room), "{room} stands there twice");
    }
}

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
        // Of seeded generators (`rand::rngs`) none is chance of its own.
        "rand::rng(",
        "rand::rng;",
        "rand::random",
        "tracing",
    ];
    let core = ROOMS.iter().filter(|(layer, room, _)| *layer == 1 || *room == "types");
    let core: BTreeSet<&str> = core.map(|(_, room, _)| *room).collect();
    let mut breaches = Vec::new();
    for file in sources(&root()) {
        if !room(&module(&file)).is_some_and(|room| core.contains(room)) {
            continue;
        }
        let code = code(&file);
        for line in code.lines() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                breaches.push(format!("{}: {word}: {}", file.display(), line.trim()));
            }
        }
    }
    assert_eq!(breaches, [""; 0]);
}

/// The modules of `rl`, each with the code of its file.
type Modules = BTreeMap<String, String>;

/// The paths that a `use` tree stands for: of `a::{b, c::d}` `a::b` and `a::c::d`.
fn leaves(tree: &str) -> Vec<String> {
    let Some((stem, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in rest.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            _ if depth < 0 => break,
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.iter_mut().last().expect("one").push(c),
        }
    }
    let paths = parts.iter().flat_map(|part| leaves(part));
    paths.map(|path| format!("{}{path}", stem.trim())).collect()
}

/// `path`, as it stands in the module `from`, from the crate's root on; `None` for other crates.
fn absolute(from: &str, path: &str) -> Option<String> {
    let (first, rest) = path.split_once("::")?;
    let parent = from.rsplit_once("::").map_or("", |(parent, _)| parent);
    match first {
        "crate" => Some(rest.to_owned()),
        "self" => Some(format!("{from}::{rest}")),
        "super" => absolute(parent, rest).or_else(|| Some(format!("{parent}::{rest}"))),
        _ => None,
    }
}

/// The modules that `from` speaks of, by whole paths or by names that it imported.
fn spoken_of(from: &str, modules: &Modules) -> BTreeSet<String> {
    let owner = |path: &str| {
        let within = |module: &&String| {
            path.strip_prefix(module.as_str()).is_some_and(|r| r.is_empty() || r.starts_with("::"))
        };
        modules.keys().filter(within).max_by_key(|module| module.len()).cloned()
    };
    let code = &modules[from];
    let statements =
        code.split(';').filter_map(|part| part.split_once("use ").map(|(_, tree)| tree));
    let imported: Vec<String> = statements.flat_map(leaves).collect();
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let inline = code.split(|c| !word(c)).filter(|path| path.contains("::")).map(str::to_owned);
    // What the names of modules stand for here: those below this one, and those imported.
    let mut names: BTreeMap<String, String> = modules
        .keys()
        .filter_map(|module| Some((module.strip_prefix(from)?.strip_prefix("::")?, module)))
        .map(|(name, module)| (name.to_owned(), module.clone()))
        .collect();
    for path in imported.iter().filter_map(|path| absolute(from, path.trim_end_matches("::self"))) {
        if modules.contains_key(&path) {
            let name = path.rsplit("::").next().unwrap_or_default();
            names.insert(name.to_owned(), path.clone());
        }
    }
    let by_name = |path: &str| {
        let (first, rest) = path.split_once("::")?;
        names.get(first).map(|module| format!("{module}::{rest}"))
    };
    let all = imported.iter().cloned().chain(inline);
    let paths = all.filter_map(|path| absolute(from, &path).or_else(|| by_name(&path)));
    let mut found: BTreeSet<String> = paths.filter_map(|path| owner(&path)).collect();
    found.remove(from);
    found
}

#[test]
fn no_files_of_the_learner_go_in_circles() {
    let modules: Modules = sources(&root().join("rl"))
        .iter()
        .filter(|file| !file.ends_with("tests.rs"))
        .map(|file| (module(file), code(file)))
        .collect();
    let mut left: BTreeMap<String, BTreeSet<String>> =
        modules.keys().map(|from| (from.clone(), spoken_of(from, &modules))).collect();
    let lists = &left["rl::registry"];
    assert!(lists.contains("rl::value::qtable") && lists.contains("rl::td::q_learning"));
    assert!(left["rl::value::qtable"].contains("rl::parameters"));
    // Takes away whoever needs nobody that is left, until nobody is.
    while !left.is_empty() {
        let free: Vec<String> =
            left.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| from.clone()).collect();
        assert!(!free.is_empty(), "a circle, and what needs it: {left:#?}");
        left.retain(|from, _| !free.contains(from));
        left.values_mut().for_each(|to| to.retain(|to| !free.contains(to)));
    }
}

#[test]
fn actors_know_no_http() {
    let words = ["actix_web", "awc"];
    for file in sources(&root().join("actors")) {
        let code = code(&file);
        for word in words {
            assert!(!code.contains(word), "{}: {word}", file.display());
        }
    }
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
    for file in sources(&root().join("http")) {
        let code = code(&file);
        for word in words {
            assert!(!code.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn nothing_but_the_registry_names_an_algorithm() {
    // What an operator can copy from is no code.
    let examples = root().join("cli/fleet.rs");
    for file in sources(&root()) {
        if file.starts_with(root().join("policy")) || file == examples {
            continue;
        }
        let code = code(&file);
        for algorithm in p2pfaas::policy::registry::ALGORITHMS {
            let name = algorithm.name;
            assert!(!code.contains(name), "{} names {name}", file.display());
        }
    }
}

#[test]
fn header_names_stand_in_one_place() {
    for file in sources(&root()) {
        if !file.ends_with("wire/headers.rs") {
            let text = code(&file).to_lowercase();
            assert!(
                !text.contains("\"x-p2pf") && !text.contains("\"p2pfaas-machine-"),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn no_two_public_types_share_a_name() {
    let mut known = BTreeMap::<String, PathBuf>::new();
    for file in sources(&root()) {
        for line in code(&file).lines().map(str::trim) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [visible, "struct" | "enum" | "trait" | "type", name, ..] = words[..] else {
                continue;
            };
            // A macro's parameter stands for the name that each use of the macro has.
            if !visible.starts_with("pub") || name.starts_with('$') {
                continue;
            }
            let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
            if let Some(other) = known.insert(name[..end].to_owned(), file.clone()) {
                panic!("{} stands in {} and {}", &name[..end], other.display(), file.display());
            }
        }
    }
    assert!(known.len() > 200, "{} types are found", known.len());
}
