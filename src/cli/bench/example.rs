//! The example of a scenario that `p2pfaas bench init` writes: every key, with what it means and its
//! default, most of them in a comment.

use toml::Value;

use crate::experiment::design::scenario::Scenario;
use crate::keys::{Key, ShownDefault};

/// How the example begins.
const BEGINNING: &str = "\
# A scenario for p2pfaas bench run and bench simulate. Lines that begin with \"#= \" show keys with
# their defaults, or an example where there is none. Every key is also a flag, which goes before
# this file: --duration-s 10, --load-factors 1,1.5. Paths are relative to this file's folder.
";

/// Keys that the example sets, with blank lines between them.
const SET: &str = include_str!("example/set.toml");
/// Examples of keys whose default is nothing.
const SHOWN: &str = include_str!("example/shown.toml");

/// Characters of a line of comment at most.
const LINE_MAX: usize = 100;

/// The text as lines of comment.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= LINE_MAX => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

/// A key with what it means, set or shown.
fn entry(key: &Key) -> String {
    let named = |list: &'static str| {
        let mut entries = list.split("\n\n").filter_map(|entry| entry.trim().split_once(" = "));
        entries.find(|(name, _)| *name == key.name).map(|(_, value)| value)
    };
    let (told, mark, value) = match (named(SET), named(SHOWN), (key.default)()) {
        (Some(value), ..) => (key.help(), "", value.to_owned()),
        (None, Some(value), _) => (key.help(), "#= ", value.to_owned()),
        // A default that stands in the line itself is not told twice.
        (None, None, ShownDefault::Value(value)) => {
            let value = Value::try_from(value).map(|value| value.to_string());
            (key.described(), "#= ", value.unwrap_or_default())
        }
        (None, None, ShownDefault::Words(words)) => (key.help(), "#= ", words),
    };
    format!("{}{mark}{} = {value}\n", comment(&told), key.name)
}

/// The example, as a file.
pub(super) fn example() -> String {
    let mut text = BEGINNING.to_owned();
    for keys in Scenario::KEYS.chunk_by(|one, next| one.group == next.group) {
        let heading = keys.first().map_or("", |key| key.group);
        text.push_str(&format!("\n# --- {heading} ---\n\n"));
        text.extend(keys.iter().map(entry));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::Table;

    fn read(text: &str) -> Scenario {
        let table: Table = text.parse().unwrap_or_else(|why| panic!("{why}\n{text}"));
        Scenario::from_table(&table).unwrap_or_else(|why| panic!("{why}\n{text}"))
    }

    #[test]
    fn what_is_set_and_what_is_shown_are_keys() {
        for list in [SET, SHOWN] {
            let table: Table = list.parse().expect("TOML");
            assert!(table.keys().all(|name| Scenario::KEYS.iter().any(|key| key.name == name)));
            assert_eq!(list.split("\n\n").count(), table.len());
        }
    }

    #[test]
    fn the_example_is_a_scenario() {
        let example = read(&example());
        assert_eq!((&*example.name, example.payloads.len()), ("example", 2));
    }

    #[test]
    fn every_key_stands_there_once_and_what_is_in_a_comment_is_its_default() {
        let text = example();
        for key in Scenario::KEYS {
            let begins = [format!("\n{} = ", key.name), format!("\n#= {} = ", key.name)];
            let times: usize = begins.iter().map(|begin| text.matches(begin).count()).sum();
            assert_eq!(times, 1, "{}", key.name);
        }
        let shown = text.lines().filter_map(|line| line.strip_prefix("#= "));
        // The closed forms are not for traces, nor for recordings.
        let (other, shown): (Vec<&str>, Vec<&str>) =
            shown.partition(|line| ["traces", "recording"].iter().any(|key| line.starts_with(key)));
        assert!(other.iter().all(|line| read(line) != Scenario::default()), "{other:?}");
        let (shown, default) = (read(&shown.join("\n")), Scenario::default());
        // What has no default is shown with an example.
        let shows = Scenario {
            topology: shown.topology.clone(),
            k: shown.k,
            queue_length: shown.queue_length,
            queue_enabled: shown.queue_enabled,
            theory_service_s: shown.theory_service_s,
            network: shown.network.clone(),
            service: shown.service.clone(),
            faults: shown.faults.clone(),
            ..default
        };
        assert_eq!(shown, shows);
    }

    #[test]
    fn no_line_of_comment_is_too_long() {
        let text = example();
        assert!(text.lines().all(|line| line.chars().count() <= LINE_MAX), "{text}");
    }
}
