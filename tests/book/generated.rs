//! Parts of pages that the program makes, of its tables of keys.

use p2pfaas::config::Settings;
use p2pfaas::experiment::design::scenario::Scenario;
use p2pfaas::rl::parameters::Parameters;

use super::pages::{read, root};

/// A page, the name of the part in it, and what the program makes of it.
type Part = (&'static str, &'static str, fn() -> String);

const PARTS: &[Part] = &[
    ("docs/settings.md", "settings", Settings::reference),
    ("docs/settings.md", "names of v1", Settings::v1_names),
    ("docs/learner-parameters.md", "learner's parameters", Parameters::reference),
    ("docs/scenario-keys.md", "scenario keys", Scenario::reference),
];

/// Set to anything in the environment, it lets this test write the parts anew.
const BLESS: &str = "BLESS";

/// The page with the part named `name` as it should be.
fn with_part(page: &str, name: &str, part: &str) -> String {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end: {name} -->\n"));
    for mark in [&begin, &end] {
        assert_eq!(page.matches(&**mark).count(), 1, "the page has once: {mark}");
    }
    let (before, rest) = page.split_once(&begin).expect("it is there");
    let (_, after) = rest.split_once(&end).expect("the end comes after the beginning");
    format!("{before}{begin}\n{part}\n{end}{after}")
}

#[test]
fn what_is_generated_is_what_the_program_makes() {
    let bless = std::env::var_os(BLESS).is_some();
    let mut stale = Vec::new();
    for (file, name, make) in PARTS {
        let page = read(file);
        let made = with_part(&page, name, &make());
        if bless && made != page {
            std::fs::write(root().join(file), made).expect("written");
        } else if made != page {
            stale.push(format!("{file}: {name}"));
        }
    }
    assert!(
        stale.is_empty(),
        "not as the program makes it: {}. `{BLESS}=1 cargo test --test book generated` writes it anew",
        stale.join(", ")
    );
}

#[test]
fn only_what_is_between_the_marks_is_replaced() {
    let page = "a\n<!-- generated: x -->\nold\n<!-- end: x -->\nb\n";
    let made = "a\n<!-- generated: x -->\n\nnew\n\n<!-- end: x -->\nb\n";
    assert_eq!(with_part(page, "x", "new\n"), made);
    assert_eq!(with_part(made, "x", "new\n"), made);
}
