//! What the environment says of the settings.

use std::collections::{BTreeMap, HashMap};

use super::Settings;
use crate::policy::params::parse_bool;

/// v1's environment names whose keys have other names here.
const V1_NAMES: &[(&str, &str)] = &[
    // Both say production or development; the more particular one wins.
    ("P2PFAAS_DEV_ENV", "P2PFAAS_LOG_ENV"),
    ("P2PFAAS_POLL_TIME", "P2PFAAS_POLL_TIME_S"),
    ("P2PFAAS_POLL_TIMEOUT", "P2PFAAS_POLL_TIMEOUT_S"),
];

/// Keys whose values are lists, comma-separated in the environment.
const LISTS: &[&str] = &["init_servers", "fns_list", "routes", "host_names"];

/// Keys whose values are booleans, written as v1 takes them.
const BOOLEANS: &[&str] = &["queue_enabled", "embedded_functions", "openfaas_enabled"];

/// Picks what the node reads from the environment, v1's names translated; warns of the rest. Texts
/// stay texts here: a name such as `0042` is no number.
pub(super) fn known_environment(
    environment: impl IntoIterator<Item = (String, String)>,
) -> (BTreeMap<&'static str, config::Value>, Vec<String>) {
    let keys: HashMap<String, &'static str> =
        Settings::KEYS.iter().map(|(k, _)| (format!("P2PFAAS_{}", k.to_uppercase()), *k)).collect();
    let (mut known, mut warnings) = (BTreeMap::new(), Vec::new());
    // v1's names first, so that ours win where both are set.
    let is_ours = |name: &str| keys.contains_key(name);
    let mut environment: Vec<(String, String)> = environment.into_iter().collect();
    environment.sort_by_key(|(name, _)| is_ours(name));
    for (name, value) in environment {
        if !name.starts_with("P2PFAAS_") || value.is_empty() {
            continue;
        }
        let ours = V1_NAMES.iter().find(|(v1, _)| *v1 == name).map_or(&*name, |(_, ours)| ours);
        if let Some(key) = keys.get(ours) {
            let items = || value.split(',').map(str::trim).filter(|item| !item.is_empty());
            let value = match (LISTS.contains(key), BOOLEANS.contains(key)) {
                (true, _) => items().map(str::to_owned).collect::<Vec<_>>().into(),
                // What is none is left to be named as that.
                (_, true) => parse_bool(&value).map_or_else(|| value.into(), Into::into),
                _ => config::Value::from(value),
            };
            known.insert(*key, value);
        } else {
            warnings.push(format!("the environment has {name}, which means nothing to this node"));
        }
    }
    (known, warnings)
}
