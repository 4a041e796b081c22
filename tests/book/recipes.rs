//! The recipes for an algorithm, a TD form, a value function and a backend: their blocks, put into a copy
//! of the sources as the pages say, pass the formatting and the lints that a change must pass, and their
//! documentation is complete.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::pages::{self, Block, root};

/// What the copy needs, and where a page's changes may fall.
const COPIED: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "build.rs",
    "rustfmt.toml",
    "clippy.toml",
    "README.md",
    "src",
    "docs",
    "tests",
    "benches",
];

/// The version of the copy. Another one, so that its build and ours do not pass for each other in the
/// folder that they share.
const VERSION: &str = "1.0.0-recipes";

/// Copies a file or folder with its times, by which Cargo tells what is new.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).expect("made");
        for entry in std::fs::read_dir(from).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
        return;
    }
    std::fs::copy(from, to).unwrap_or_else(|why| panic!("{}: {why}", from.display()));
    let changed = from.metadata().and_then(|about| about.modified()).expect("it has a time");
    let file = std::fs::File::options().append(true).open(to).expect("it is there");
    file.set_modified(changed).expect("set");
}

/// The sources, to be changed.
struct Copy(PathBuf);

impl Copy {
    /// Always at the same place, so that what was built before is still good.
    fn make() -> Self {
        let copy_root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recipes");
        if copy_root.exists() {
            std::fs::remove_dir_all(&copy_root).expect("removed");
        }
        std::fs::create_dir_all(&copy_root).expect("made");
        for name in COPIED {
            copy(&root().join(name), &copy_root.join(name));
        }
        let copied = Self(copy_root);
        let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
        let of_copy = format!("version = \"{VERSION}\"");
        let name = "name = \"p2pfaas\"\n";
        for file in ["Cargo.toml", "Cargo.lock"] {
            copied.replace(file, &format!("{name}{version}"), &format!("{name}{of_copy}"));
        }
        // Our own crates stay where they are: as members of the copy they would be built anew by each
        // of the two in turn, with all that depends on them.
        let ours = format!("path = \"{}/crates/", root().display());
        copied.replace("Cargo.toml", "path = \"crates/", &ours);
        copied.replace("Cargo.toml", "\nmembers = [\"crates/httpdate\"]", "\nmembers = []");
        copied.replace("Cargo.toml", "[\".\", \"crates/httpdate\"]", "[\".\"]");
        copied
    }

    fn replace(&self, file: &str, before: &str, after: &str) {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{file}: {why}"));
        assert_eq!(text.matches(before).count(), 1, "{file} has once:\n{before}");
        std::fs::write(path, text.replacen(before, after, 1)).expect("written");
    }

    /// Runs Cargo in it. It shares our build's folder, where the dependencies are built already.
    fn cargo(&self, arguments: &[&str]) {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder");
        let ran = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", target)
            .output()
            .expect("cargo runs");
        let why = String::from_utf8_lossy(&ran.stderr);
        let shown = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "cargo {}:\n{shown}\n{why}", arguments.join(" "));
    }
}

/// The last name of a source file in `text`, `` `src/policy/idle.rs` ``.
fn source(text: &str) -> Option<String> {
    let at = text.rfind("`src/")?;
    let name = text.get(at + 1..)?.split('`').next()?;
    name.ends_with(".rs").then(|| name.to_owned())
}

/// A page's blocks of code, each with the file that it is for: the last one named before it.
fn changes(page: &str) -> Vec<(String, Block)> {
    let text = pages::read(page);
    let (mut found, mut before) = (Vec::new(), String::new());
    let mut blocks = pages::blocks(&text).into_iter();
    let mut inside = false;
    for line in text.lines() {
        if !line.starts_with("```") {
            if !inside {
                before.push_str(line);
                before.push('\n');
            }
            continue;
        }
        inside = !inside;
        if inside {
            let block = blocks.next().expect("as many as there are fences");
            if block.language.starts_with("rust") || block.language == "diff" {
                let file =
                    source(&before).unwrap_or_else(|| panic!("{page}: no file for {block:?}"));
                found.push((file, block));
            }
        }
    }
    found
}

/// Puts a page's blocks where it says: code into files of its own, or at their ends; lines that begin
/// with `+` beside those that begin with a space, which are there.
fn paste(copy: &Copy, page: &str) {
    let all = changes(page);
    assert!(all.iter().any(|(_, block)| block.language == "diff"), "{page} has no change");
    for (file, block) in all {
        if block.language == "diff" {
            let lines = |kept: &dyn Fn(&str) -> bool| {
                let lines = block.text.lines().filter(|line| kept(line));
                lines.map(|line| line.get(1..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
            };
            let before = lines(&|line| line.starts_with(' '));
            let after = lines(&|line| line.starts_with([' ', '+']));
            copy.replace(&file, &before, &after);
        } else {
            let path = copy.0.join(&file);
            let there = std::fs::read_to_string(&path).map_or(String::new(), |text| text + "\n");
            std::fs::write(path, there + &block.text).expect("written");
        }
    }
}

/// Whether this machine has that part of the toolchain.
fn has(part: &str) -> bool {
    let asked = Command::new(env!("CARGO")).args([part, "--version"]).output();
    asked.is_ok_and(|ran| ran.status.success())
}

#[test]
fn pasted_as_they_stand_the_recipes_pass_what_a_change_must_pass() {
    let copy = Copy::make();
    paste(&copy, "README.md");
    paste(&copy, "docs/write-a-scheduler.md");
    paste(&copy, "docs/write-a-value-function.md");
    paste(&copy, "docs/write-a-backend.md");
    // As `-D warnings` on the command line, but for the copy alone.
    let (warn, deny) = ("#![warn(missing_docs)]", "#![deny(warnings, missing_docs)]");
    copy.replace("src/lib.rs", warn, deny);
    if has("fmt") {
        copy.cargo(&["fmt", "--check"]);
    }
    let check = if has("clippy") { "clippy" } else { "check" };
    // There are no examples: they stand for the features that tests ask of dependencies, which are
    // those that everything else was built with.
    copy.cargo(&[check, "--frozen", "--lib", "--examples"]);
    copy.cargo(&[check, "--frozen", "--lib", "--profile", "test"]);
}
