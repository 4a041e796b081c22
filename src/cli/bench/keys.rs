//! Every key of a scenario as a flag. Lists: the flag is repeated; numbers also as `1,2,3`.

use std::path::{Path, PathBuf};

use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::{Table, Value};

use crate::experiment::design::scenario::Scenario;
use crate::keys::{Key, Notation};
use crate::storage;

/// The keys given as flags, which go before the file's.
#[derive(Clone, Debug, Default)]
pub(super) struct ScenarioKeys(Table);

/// A flag's text as a value: a text as it stands, all else as TOML where it reads as such.
fn value(key: &Key, text: &str) -> Value {
    if key.notation == Notation::Text {
        return Value::String(text.to_owned());
    }
    let read = |text: &str| format!("v = {text}").parse::<Table>().ok()?.remove("v");
    // A list may be written without its brackets, of numbers as of tables.
    let list = || read(&format!("[{text}]"));
    // Only of tables one alone does not stand for a list of one.
    let is_tables = key.list && key.notation == Notation::Table;
    let wrapped = |value| if is_tables { into_list(value) } else { value };
    read(text).map(wrapped).or_else(list).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn into_list(value: Value) -> Value {
    if value.is_array() { value } else { Value::Array(vec![value]) }
}

impl FromArgMatches for ScenarioKeys {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut keys = Self::default();
        keys.update_from_arg_matches(matches)?;
        Ok(keys)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for key in Scenario::KEYS {
            let given = matches.get_many::<String>(key.name).into_iter().flatten();
            let mut given: Vec<Value> = given.map(|text| value(key, text)).collect();
            match given.len() {
                0 => {}
                1 => self.0.extend(given.pop().map(|one| (key.name.to_owned(), one))),
                _ => {
                    let all = given.into_iter().flat_map(|value| match into_list(value) {
                        Value::Array(values) => values,
                        one => vec![one],
                    });
                    self.0.insert(key.name.to_owned(), Value::Array(all.collect()));
                }
            }
        }
        Ok(())
    }
}

impl Args for ScenarioKeys {
    fn augment_args(command: Command) -> Command {
        let flag = |key: &Key| {
            Arg::new(key.name)
                .long(key.name.replace('_', "-"))
                .value_name("VALUE")
                .action(ArgAction::Append)
                .allow_negative_numbers(true)
                .help(key.help())
                .help_heading(key.group)
        };
        command.args(Scenario::KEYS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Makes the paths that a table names relative to `folder`.
fn below(folder: &Path, table: &mut Table) {
    let moved = |value: &mut Value| {
        if let Value::String(path) = value {
            *path = folder.join(PathBuf::from(&*path)).display().to_string();
        }
    };
    if let Some(fleet) = table.get_mut("fleet") {
        moved(fleet);
    }
    match table.get_mut("traces") {
        Some(Value::Array(all)) => all.iter_mut().for_each(moved),
        Some(one) => moved(one),
        None => {}
    }
    for (key, name) in [("network", "pairs"), ("service", "durations"), ("recording", "file")] {
        table.get_mut(key).and_then(|table| table.get_mut(name)).into_iter().for_each(moved);
    }
    let payloads = table.get_mut("payloads").and_then(Value::as_array_mut);
    for payload in payloads.into_iter().flatten() {
        payload.get_mut("file").into_iter().for_each(moved);
    }
}

impl ScenarioKeys {
    /// The scenario in `file` with these over it. Paths in a file are relative to its folder, those
    /// of flags to the current one.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub(super) fn scenario(&self, file: Option<&Path>) -> Result<Scenario, String> {
        let mut table = Table::new();
        if let Some(file) = file {
            let named = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
            let text =
                storage::read_text(file, storage::TEXT_BYTES_MAX).map_err(|why| named(&why))?;
            table = text.parse().map_err(|why| named(&why))?;
            let folder = file.parent().unwrap_or(Path::new(""));
            // A key that is not in the file has its default beside it too.
            let fleet = Scenario::default().fleet.display().to_string();
            table.entry("fleet").or_insert(fleet.into());
            below(folder, &mut table);
        }
        // Rates, traces and a recording exclude each other; what is a flag takes the others' place.
        let others: [(&str, &[&str]); 3] = [
            ("rates", &["traces", "recording"]),
            ("traces", &["rates", "recording"]),
            ("recording", &Scenario::BY_RECORDING),
        ];
        for (_, others) in others.iter().filter(|(given, _)| self.0.contains_key(*given)) {
            others.iter().for_each(|other| drop(table.remove(*other)));
        }
        table.extend(self.0.clone());
        let whose = file.map_or(String::new(), |file| format!("{}: ", file.display()));
        Scenario::from_table(&table).map_err(|why| format!("{whose}{why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(arguments: &[&str]) -> ScenarioKeys {
        let command = ScenarioKeys::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).expect("good flags");
        ScenarioKeys::from_arg_matches(&matches).expect("keys")
    }

    #[test]
    fn every_key_is_a_flag_and_flags_go_before_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("s.toml");
        std::fs::write(&file, "duration_s = 5\ntraces = \"t_{n}.csv\"").expect("written");
        let keys = keys(&[
            "--rates",
            "8,9.5",
            "--schedulers",
            "NoScheduler false",
            "--schedulers",
            "RejectScheduler",
            "--payloads",
            "{ task_type = 1 }",
            "--payloads",
            "[{ task_type = 2 }]",
            "--name",
            "2026-07-01",
            "--checks",
            "false",
            "--fleet",
            "hosts.txt",
        ]);
        let scenario = keys.scenario(Some(&file)).expect("good");
        assert_eq!((scenario.duration_s, &*scenario.rates.0), (5.0, &[8.0, 9.5][..]));
        assert_eq!(scenario.schedulers.0, ["NoScheduler false", "RejectScheduler"]);
        assert_eq!((scenario.payloads[0].task_type, scenario.checks), (1, false));
        assert_eq!((&*scenario.name, scenario.payloads[1].task_type), ("2026-07-01", 2));
        // Relative to where it was written.
        assert_eq!(scenario.fleet, Path::new("hosts.txt"));
        assert!(scenario.traces.0.is_empty(), "rates were given instead");
        let alone = ScenarioKeys::default().scenario(Some(&file)).expect("good");
        assert_eq!(alone.fleet, folder.path().join("fleet.toml"));
        assert_eq!(alone.traces.0, [folder.path().join("t_{n}.csv")]);
        // A recording takes the place of both, and either that of a recording.
        let recorded = self::keys(&["--recording", "{ file = 'r.csv', speed = 2 }"]);
        let scenario = recorded.scenario(Some(&file)).expect("good");
        assert!(scenario.traces.0.is_empty());
        let recording = scenario.recording.expect("given");
        assert_eq!((&*recording.file, recording.from_s), (Path::new("r.csv"), 0.0));
        std::fs::write(&file, "recording = { file = \"r.csv\" }").expect("written");
        let alone = ScenarioKeys::default().scenario(Some(&file)).expect("good").recording;
        assert_eq!(alone.map(|one| one.file), Some(folder.path().join("r.csv")));
        let rates = self::keys(&["--rates", "8"]).scenario(Some(&file)).expect("good");
        assert_eq!(rates.recording, None);
    }

    #[test]
    fn help_stands_as_it_is_written() {
        // clap would break the line at it.
        assert!(Scenario::KEYS.iter().all(|key| !key.help().contains("{n}")));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file() {
        let why = keys(&["--rates", "fast"]).scenario(None).expect_err("bad");
        assert!(why.contains("rates"), "{why}");
        let why =
            ScenarioKeys::default().scenario(Some(Path::new("/no/such.toml"))).expect_err("bad");
        assert!(why.contains("/no/such.toml"), "{why}");
    }
}
