//! What a node is set to. Layers, later wins: the defaults, a TOML file, the environment
//! (`P2PFAAS_<KEY>`, v1's names included), flags. What is changed at run time is kept apart; see
//! [`crate::saved`].
//!
//! `settings.rs` has the table of all settings.

mod admin_token;
mod check;
mod cluster_key;
mod environment;
mod reference;
mod settings;
mod value;

use std::path::Path;
use std::time::Duration;

use config::{Config, ConfigError, File, FileFormat};

pub use self::admin_token::{AdminToken, BadToken, given_token};
pub use self::cluster_key::{BadGivenKey, GivenKey};
pub use self::environment::CA_FILE;
use self::environment::known_environment;
pub use self::settings::Settings;
pub use self::value::{Admin, Routes};
use crate::keys::{Key, KeySource, KeyValue, Problem, Unreadable};
use crate::storage::{TEXT_BYTES_MAX, read_text};
use crate::telemetry::LogSettings;
use crate::types::Clearance;

/// The layers of settings, one over the other.
struct Layers(Config);

impl KeySource for Layers {
    fn value<T: KeyValue>(&self, key: &Key) -> Option<Result<T, Unreadable>> {
        match self.0.get::<T>(key.name) {
            Ok(value) => Some(Ok(value)),
            Err(ConfigError::NotFound(_)) => None,
            Err(why) => {
                let given = self.0.get::<config::Value>(key.name).map(|given| given.to_string());
                let given = format!("{:?}", given.unwrap_or_default());
                Some(Err(Unreadable { given, why: why.to_string() }))
            }
        }
    }
}

/// Settings with what their reading left to say.
#[derive(Debug)]
pub struct Loaded {
    /// All checked.
    pub settings: Settings,
    /// Things that are not errors but that an operator should know.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Layers defaults, `file`, `environment` and `flags` (key to value) and checks the result.
    ///
    /// # Errors
    /// Every problem that was found, each with its key.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, config::Value)],
    ) -> Result<Loaded, Vec<Problem>> {
        let read = |path: &Path| {
            let named = path.display().to_string();
            match read_text(path, TEXT_BYTES_MAX) {
                Ok(text) => Ok((named, text)),
                Err(why) => Err(vec![Problem::of(&named, why)]),
            }
        };
        let file = file.map(read).transpose()?;
        Self::layered(file.as_ref().map(|(named, text)| (&**named, &**text)), environment, flags)
    }

    /// The same with a file's name and text.
    pub(crate) fn layered(
        file: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, config::Value)],
    ) -> Result<Loaded, Vec<Problem>> {
        let mut problems = Vec::new();
        let (environment, warnings) = known_environment(environment, &mut problems);
        let mut layers = Config::builder();
        if let Some((named, text)) = file {
            check_text(named, text, &mut problems)?;
            layers = layers.add_source(File::from_str(text, FileFormat::Toml));
        }
        let flags = flags.iter().map(|(key, value)| (*key, value.clone()));
        for (key, value) in environment.into_iter().chain(flags) {
            match layers.clone().set_override(key, value) {
                Ok(with) => layers = with,
                Err(why) => problems.push(Problem::of(key, why)),
            }
        }
        match layers.build() {
            Ok(layers) => {
                let mut settings = Self::default();
                settings.read_keys(&Layers(layers), &mut problems);
                settings.check_together(&mut problems);
                if problems.is_empty() { Ok(Loaded { settings, warnings }) } else { Err(problems) }
            }
            Err(why) => {
                problems.push(Problem::of("configuration", why));
                Err(problems)
            }
        }
    }

    /// Bytes at most of a body that must be held whole.
    pub fn whole_body_bytes_max(&self) -> usize {
        let limit = self.body_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        limit.map_or(self.held_body_bytes_max, |limit| limit.min(self.held_body_bytes_max))
    }

    /// Which lines of the log are written, and how.
    pub fn logs(&self) -> LogSettings<'_> {
        LogSettings { filter: &self.log_env, format: self.log_format, burst: self.log_burst }
    }

    /// Whether only those with the cluster key are members.
    pub fn has_cluster_key(&self) -> bool {
        self.cluster_key.is_set() || self.cluster_key_file.is_some()
    }

    /// Who is spoken to in the clear.
    pub fn clearance(&self) -> Clearance {
        match self.has_cluster_key() {
            true => Clearance::Networks(self.v1_peers.clone()),
            false => Clearance::All,
        }
    }

    /// The UDP port of SWIM; 0: none.
    pub fn swim_port(&self) -> u16 {
        self.swim_port.unwrap_or(self.discovery_port)
    }

    /// `poll_time_s` and its like, checked before, as durations.
    pub fn seconds(value: f64) -> Duration {
        Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
    }
}

/// Keys that a file must not have, and whether it can be parsed at all.
fn check_text(named: &str, text: &str, problems: &mut Vec<Problem>) -> Result<(), Vec<Problem>> {
    match text.parse::<toml::Table>() {
        Ok(table) => {
            let unknown = table.keys().filter(|key| Settings::KEYS.iter().all(|k| k.name != *key));
            problems.extend(unknown.map(|key| {
                // The name of a flag, perhaps.
                let flag = key.replace('_', "-");
                let meant = Settings::KEYS.iter().find(|key| key.flag == Some(&*flag));
                let meant = meant.map(|setting| format!("; {} is meant?", setting.name));
                let why = format!("no such setting ({named}){}", meant.unwrap_or_default());
                Problem::of(key, why)
            }));
            Ok(())
        }
        Err(why) => {
            problems.push(match may_have_a_secret(text) {
                false => Problem::of(named, why),
                true => Problem::of(named, without_the_line(text, &why)),
            });
            Err(std::mem::take(problems))
        }
    }
}

/// Whether a text that cannot be parsed names a setting that is never shown.
fn may_have_a_secret(text: &str) -> bool {
    Settings::KEYS.iter().any(|key| key.secret && text.contains(key.name))
}

/// What is wrong with `text`, and where, without the line itself.
fn without_the_line(text: &str, why: &toml::de::Error) -> String {
    let before = why.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line} cannot be read as TOML; it is not shown, since a secret may stand there")
}

#[cfg(test)]
mod tests;
