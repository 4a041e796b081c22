//! Dynamic configuration: what is changed over HTTP and survives a restart. And the model, which
//! changes by itself.
//!
//! Saved values win over defaults, TOML and environment. A flag given on the command line wins for
//! that run and is not saved: a [`Layered`] value keeps what runs and what is saved apart.

pub mod eids;
mod files;
mod mending;
pub mod model_file;

use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Settings;
use crate::policy::registry::SchedulerSpec;
use crate::queue::Limits;
use crate::rl::parameters::Parameters;
use crate::storage::{self, StorageError};
use crate::types::{Cause, Identity, Neighbours, check_init_servers, check_machine};

/// `GET /configuration`, and a partial one to be merged over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsPatch {
    /// K.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_running_functions_max: Option<u32>,
    /// Q.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_length_max: Option<u32>,
    /// Whether calls may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_enabled: Option<bool>,
}

impl LimitsPatch {
    /// `limits` with what this names replaced.
    pub fn over(&self, limits: Limits) -> Limits {
        Limits {
            k: self.parallel_running_functions_max.unwrap_or(limits.k),
            queue_length_max: self.queue_length_max.unwrap_or(limits.queue_length_max),
            queue_enabled: self.queue_enabled.unwrap_or(limits.queue_enabled),
        }
    }
}

impl From<Limits> for LimitsPatch {
    fn from(limits: Limits) -> Self {
        Self {
            parallel_running_functions_max: Some(limits.k),
            queue_length_max: Some(limits.queue_length_max),
            queue_enabled: Some(limits.queue_enabled),
        }
    }
}

/// Discovery's `GET /configuration`, and a partial one to be merged over it. Empty strings mean
/// unset; an empty list of init servers means nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachinePatch {
    /// The node's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_ip: Option<String>,
    /// The node's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// The node's group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_group_name: Option<String>,
    /// Nodes to join through; replaces the list as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_servers: Option<Vec<String>>,
    /// Whom the node hands calls to. Ours; v1 knows only `all`, and where that is so it is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<String>,
}

impl MachinePatch {
    /// Whether the address is one, name and group can be told to others in a header, and init
    /// servers can be found.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        check_init_servers(self.init_servers.as_deref().unwrap_or_default())
            .map_err(|why| format!("init_servers: {why}"))?;
        self.neighbours().map_err(|why| format!("neighbours: {why}"))?;
        self.check_identity()
    }

    /// Whom it hands calls to; `None`: that stays as it is.
    ///
    /// # Errors
    /// What stands there is none of the forms.
    pub fn neighbours(&self) -> Result<Option<Neighbours>, String> {
        self.neighbours.as_ref().map(|text| text.parse()).transpose()
    }

    fn check_identity(&self) -> Result<(), String> {
        let text = |text: &'_ Option<String>| text.clone().unwrap_or_default();
        let (ip, id) = (text(&self.machine_ip), text(&self.machine_id));
        check_machine(&ip, &id, &text(&self.machine_group_name))
            .map_err(|(key, why)| format!("{key}: {why}"))
    }
}

/// Who this node is and whom it joins through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineConfig {
    /// As configured; empty: unset.
    pub machine_ip: String,
    /// As configured; empty: unset.
    pub machine_id: String,
    /// As configured.
    pub machine_group_name: String,
    /// As configured.
    pub init_servers: Vec<String>,
    /// As configured; `None`: unset, which is all.
    pub neighbours: Option<Neighbours>,
}

impl MachineConfig {
    /// With what `patch` names replaced.
    #[must_use]
    pub fn merged(&self, patch: &MachinePatch) -> Self {
        let or = |new: &Option<String>, old: &String| new.as_ref().unwrap_or(old).clone();
        Self {
            machine_ip: or(&patch.machine_ip, &self.machine_ip),
            machine_id: or(&patch.machine_id, &self.machine_id),
            machine_group_name: or(&patch.machine_group_name, &self.machine_group_name),
            init_servers: patch.init_servers.as_ref().unwrap_or(&self.init_servers).clone(),
            // What is no form of it was refused.
            neighbours: patch.neighbours().ok().flatten().or_else(|| self.neighbours.clone()),
        }
    }

    /// As it stands on disk and on the wire.
    pub fn to_patch(&self) -> MachinePatch {
        MachinePatch {
            machine_ip: Some(self.machine_ip.clone()),
            machine_id: Some(self.machine_id.clone()),
            machine_group_name: Some(self.machine_group_name.clone()),
            init_servers: Some(self.init_servers.clone()),
            neighbours: self.neighbours.as_ref().map(Neighbours::to_string),
        }
    }

    /// The identity that follows from this; `found` is the address to take when none is set.
    pub fn identity(&self, found: Option<IpAddr>) -> Identity {
        let ip = self.machine_ip.parse().ok().or(found);
        let id = match (self.machine_id.as_str(), ip) {
            ("", Some(ip)) => format!("p2pfaas-{ip}"),
            (id, _) => id.to_owned(),
        };
        Identity { ip, id, group: self.machine_group_name.clone() }
    }
}

/// A value as it runs and as it is saved; they differ where a flag rules this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layered<T> {
    /// In force.
    pub running: T,
    /// On disk, or what would be there.
    pub saved: T,
}

/// What flags set for this run, on top of what is saved.
#[derive(Clone, Debug, Default)]
pub struct FlagOverrides {
    /// `--k`, `--queue-length`.
    pub limits: LimitsPatch,
    /// `--machine-ip`, `--machine-id`, `--group`, `--init-server`.
    pub machine: MachinePatch,
    /// `--scheduler`.
    pub scheduler: Option<SchedulerSpec>,
}

/// All dynamic configuration of a node as it starts.
#[derive(Clone, Debug)]
pub struct Dynamic {
    /// K and the queue.
    pub limits: Layered<Limits>,
    /// The algorithm.
    pub scheduler: SchedulerSpec,
    /// Who the node is.
    pub machine: Layered<MachineConfig>,
    /// The learner's parameters.
    pub learner: Parameters,
}

/// The learner's parameters as v1 has them on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LearnerFile {
    /// What v1 calls the learner; follows from the parameters.
    learner_name: String,
    /// All or some of the parameters.
    learner_parameters: Map<String, Value>,
}

impl LearnerFile {
    /// As it is written.
    pub fn of(parameters: &Parameters) -> Self {
        let learner_parameters = match serde_json::to_value(parameters) {
            Ok(Value::Object(all)) => all,
            _ => Map::new(),
        };
        Self { learner_name: parameters.learner_name(), learner_parameters }
    }
}

impl Dynamic {
    /// Reads the data path's files over `settings`, and `flags` over both. A value that v1 may have saved
    /// and that means nothing here is taken at the nearest that does, and the log says so.
    ///
    /// # Errors
    /// A file that is there but cannot be read, parsed, or used.
    pub fn load(settings: &Settings, flags: &FlagOverrides) -> Result<Self, StorageError> {
        let folder = &*settings.data_path;
        let file = |name: &str| folder.join(name);

        let base = Limits {
            k: settings.parallel_running_functions_max,
            queue_length_max: settings.queue_length_max,
            queue_enabled: settings.queue_enabled,
        };
        let limits = files::read_limits(&file(storage::QUEUE_FILE), base)?;

        let machine = files::read_machine(&file(storage::DISCOVERY_FILE), settings)?;
        let scheduler = files::read_scheduler(&file(storage::SCHEDULER_FILE))?;
        let configured = || SchedulerSpec::from_words(&settings.scheduler);
        Ok(Self {
            limits: Layered { running: flags.limits.over(limits), saved: limits },
            scheduler: flags.scheduler.clone().or(scheduler).unwrap_or_else(configured),
            machine: Layered {
                running: machine.running.merged(&flags.machine),
                saved: machine.saved,
            },
            learner: files::read_learner(
                &file(storage::LEARNER_FILE),
                settings.learner_memory_bytes_max,
            )?,
        })
    }
}

fn unusable(path: &Path, what: &'static str, cause: Cause) -> StorageError {
    StorageError::Unreadable { path: path.to_owned(), what, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path) -> Settings {
        Settings { data_path: folder.to_owned(), ..Settings::default() }
    }

    #[test]
    fn saved_values_win_over_settings_and_flags_win_for_this_run_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(storage::QUEUE_FILE);
        std::fs::write(&path, r#"{"parallel_running_functions_max":7,"other":1}"#)
            .expect("written");
        let limits = LimitsPatch { queue_length_max: Some(1), ..LimitsPatch::default() };
        let flags = FlagOverrides { limits, ..FlagOverrides::default() };
        let dynamic = Dynamic::load(&settings(folder.path()), &flags).expect("readable").limits;
        assert_eq!((dynamic.running.k, dynamic.running.queue_length_max), (7, 1));
        assert_eq!((dynamic.saved.k, dynamic.saved.queue_length_max), (7, 4));
    }

    #[test]
    fn empty_strings_on_disk_mean_unset_and_an_empty_list_means_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let text =
            r#"{"machine_ip":"","machine_id":"","machine_group_name":"g","init_servers":[]}"#;
        std::fs::write(folder.path().join(storage::DISCOVERY_FILE), text).expect("written");
        let settings = Settings {
            init_servers: vec!["10.0.0.1".to_owned()],
            machine_group_name: "other".to_owned(),
            ..settings(folder.path())
        };
        let machine = Dynamic::load(&settings, &FlagOverrides::default()).expect("good").machine;
        assert_eq!(machine.running.init_servers, [""; 0], "somebody posted that");
        let found = IpAddr::from([10, 0, 0, 9]);
        let identity = machine.running.identity(Some(found));
        assert_eq!((identity.ip, &*identity.id), (Some(found), "p2pfaas-10.0.0.9"));
        assert_eq!(identity.group, "g");
    }

    #[test]
    fn an_address_of_the_settings_is_not_saved_with_what_somebody_posts() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings { machine_ip: "10.0.0.1".to_owned(), ..settings(folder.path()) };
        let machine = Dynamic::load(&settings, &FlagOverrides::default()).expect("good").machine;
        assert_eq!(machine.running.machine_ip, "10.0.0.1");
        let posted =
            MachinePatch { machine_id: Some("board".to_owned()), ..MachinePatch::default() };
        let saved = machine.saved.merged(&posted);
        assert_eq!((&*saved.machine_ip, &*saved.machine_id), ("", "board"));
    }

    const TOO_LARGE: &str = r#"{"learner_parameters":{"actions_n":4096,"value_function":"kmeans",
        "clusters":4096}}"#;

    #[test]
    fn parameters_that_cannot_fit_in_the_memory_are_refused_with_what_there_is() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(storage::LEARNER_FILE), TOO_LARGE).expect("written");
        let load = |learner_memory_bytes_max| {
            let settings = Settings { learner_memory_bytes_max, ..settings(folder.path()) };
            Dynamic::load(&settings, &FlagOverrides::default()).map(|dynamic| dynamic.learner)
        };
        let error = load(8 << 20).expect_err("640 MiB").to_string();
        for part in ["clusters", "6291456", "learner_memory_bytes_max"] {
            assert!(error.contains(part), "{error}");
        }
        let patch = serde_json::from_str(r#"{"alpha":0.5}"#).expect("JSON");
        let merged = load(4 << 30).expect("fits").merged(&patch).expect("good");
        assert_eq!(merged.memory_bytes, 4 << 30, "it is no parameter, and is kept");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_an_error_at_start() {
        for (name, text) in [
            (storage::QUEUE_FILE, "nope"),
            (storage::QUEUE_FILE, ""),
            (storage::SCHEDULER_FILE, r#"{"name":"Nope","parameters":[]}"#),
            (storage::SCHEDULER_FILE, r#"{"name":"NoScheduler","parameters":["x"]}"#),
            (storage::DISCOVERY_FILE, r#"{"neighbours":"x"}"#),
            (storage::LEARNER_FILE, TOO_LARGE),
            (storage::LEARNER_FILE, r#"{"learner_parameters":[]}"#),
            (storage::LEARNER_FILE, r#"{"learner_parameters":{"reward":["client"]}}"#),
            (storage::QUEUE_FILE, "[]"),
            (storage::QUEUE_FILE, "[1,2,true]"),
            (storage::SCHEDULER_FILE, r#"["RejectScheduler",[]]"#),
            (storage::DISCOVERY_FILE, "[]"),
            (storage::LEARNER_FILE, "[]"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join(name), text).expect("written");
            let error = Dynamic::load(&settings(folder.path()), &FlagOverrides::default());
            let error = error.expect_err(text).to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_learner_s_file_of_v1_is_read_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = r#"{"learner_name":"SarsaQTable","learner_parameters":{"actions_n":14,
            "alpha":0.2,"epsilon_start":0.5,"of_v1_only":[1]}}"#;
        std::fs::write(folder.path().join(storage::LEARNER_FILE), text).expect("written");
        let read = Dynamic::load(&settings(folder.path()), &FlagOverrides::default());
        let learner = read.expect("readable").learner;
        assert_eq!((learner.actions_n, learner.alpha, learner.beta), (14, 0.2, 0.01));
    }
}
