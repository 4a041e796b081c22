//! The files of the data path, as they are read at the start.

use std::path::Path;

use serde_json::{Map, Value};

use super::mending::{self, Read};
use super::{Layered, MachineConfig, MachinePatch, unusable};
use crate::config::Settings;
use crate::policy::registry::SchedulerSpec;
use crate::queue::Limits;
use crate::rl::parameters::Parameters;
use crate::storage::{self, StorageError};
use crate::types::{Cause, INIT_SERVERS_MAX};
use crate::wire::v1_json;

/// One place of the program for each file, so that each has a burst of the log of its own.
macro_rules! warn {
    ($path:expr, $mended:expr) => {
        for mended in $mended {
            let (file, key) = ($path.display(), &mended.key);
            let (stood, taken) = (&mended.given, &mended.taken);
            tracing::warn!(%file, %key, %stood, %taken, "a saved value means nothing here");
        }
    };
}

/// The keys of a file, as v1 wrote them.
fn read(path: &Path, what: &'static str) -> Result<Option<Map<String, Value>>, StorageError> {
    let bytes = match storage::read_bounded(path, storage::CONFIGURATION.bytes) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StorageError::Io { path: path.to_owned(), source }),
    };
    let json = mending::as_json(&bytes);
    let read = v1_json::read_object(&json, &storage::CONFIGURATION);
    read.map(Some).map_err(|why| unusable(path, what, Cause::of(why)))
}

/// The limits of the queue over `base`.
pub(super) fn read_limits(path: &Path, base: Limits) -> Result<Limits, StorageError> {
    let Some(stored) = read(path, "the scheduler's configuration")? else { return Ok(base) };
    let Read { value, mended } = mending::limits(&stored, base);
    warn!(path, mended);
    Ok(value.over(base))
}

/// An address or a name that nobody saved stays unset on disk: those of the settings follow the
/// settings, as when a container gets another address.
pub(super) fn read_machine(
    path: &Path,
    settings: &Settings,
) -> Result<Layered<MachineConfig>, StorageError> {
    const WHAT: &str = "discovery's configuration";
    let base = MachineConfig {
        machine_ip: settings.machine_ip.clone(),
        machine_id: settings.machine_id.clone(),
        machine_group_name: settings.machine_group_name.clone(),
        init_servers: settings.init_servers.clone(),
        // Settings were checked.
        neighbours: settings.neighbours.parse().ok(),
    };
    let stored = read(path, WHAT)?.unwrap_or_default();
    let wrong = |why: String| unusable(path, WHAT, Cause::of(why));
    let Read { value: stored, mended } = mending::machine(&stored).map_err(wrong)?;
    warn!(path, mended);
    // v1 keeps whatever init servers it was told: one that cannot be found is only warned of.
    stored.check_identity().map_err(wrong)?;
    stored.neighbours().map_err(|why| wrong(format!("neighbours: {why}")))?;
    let set = |text: Option<String>| text.filter(|t| !t.is_empty());
    let mut init_servers = stored.init_servers;
    if let Some(servers) = init_servers.as_mut().filter(|servers| servers.len() > INIT_SERVERS_MAX)
    {
        let (file, given) = (path.display(), servers.len());
        tracing::warn!(%file, given, taken = INIT_SERVERS_MAX, "there are too many init servers");
        servers.truncate(INIT_SERVERS_MAX);
    }
    let stored = MachinePatch {
        machine_ip: set(stored.machine_ip),
        machine_id: set(stored.machine_id),
        machine_group_name: set(stored.machine_group_name),
        init_servers,
        neighbours: stored.neighbours,
    };
    let nobody = MachineConfig { init_servers: base.init_servers.clone(), ..Default::default() };
    Ok(Layered { running: base.merged(&stored), saved: nobody.merged(&stored) })
}

/// The algorithm, if one was saved.
pub(super) fn read_scheduler(path: &Path) -> Result<Option<SchedulerSpec>, StorageError> {
    const WHAT: &str = "a scheduler's name and parameters";
    let Some(stored) = read(path, WHAT)? else { return Ok(None) };
    let read = mending::scheduler(&stored);
    let Read { value, mended } = read.map_err(|why| unusable(path, WHAT, why))?;
    warn!(path, mended);
    Ok(Some(value))
}

/// The learner's parameters over the defaults.
pub(super) fn read_learner(path: &Path, memory_bytes: u64) -> Result<Parameters, StorageError> {
    const WHAT: &str = "the learner's parameters";
    let stored = read(path, WHAT)?.unwrap_or_default();
    let wrong = |why: String| unusable(path, WHAT, Cause::of(why));
    let stored = match stored.get("learner_parameters") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(parameters)) => parameters.clone(),
        Some(_) => return Err(wrong("learner_parameters is no object".to_owned())),
    };
    let memory_bytes = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
    let base = Parameters { memory_bytes, ..Parameters::default() };
    let (stored, mended) = base.mended(&stored);
    warn!(path, mended);
    base.merged(&stored).map_err(|why| unusable(path, WHAT, Cause::of(why)))
}
