//! What the environment says of the settings.

use std::collections::{BTreeMap, HashMap};

use super::Settings;
use crate::keys::{Key, Notation};
use crate::policy::params::parse_bool;

/// A text of the environment as the value of a key. Lists are written with commas there, booleans as v1
/// takes them. Texts stay texts: a name such as `0042` is no number.
fn value(key: &Key, text: String) -> config::Value {
    if key.list {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(str::to_owned).collect::<Vec<_>>().into();
    }
    match key.notation {
        // What is no boolean is left to be named as that.
        Notation::Boolean => parse_bool(&text).map_or_else(|| text.into(), Into::into),
        Notation::Text | Notation::Number | Notation::Table => text.into(),
    }
}

/// Picks what the node reads from the environment, v1's names translated; warns of the rest.
pub(super) fn known_environment(
    environment: impl IntoIterator<Item = (String, String)>,
) -> (BTreeMap<&'static str, config::Value>, Vec<String>) {
    let mut keys = HashMap::<String, (bool, &'static Key)>::new();
    for key in Settings::KEYS {
        keys.extend(key.v1_names.iter().map(|name| ((*name).to_owned(), (false, key))));
        keys.insert(key.environment(), (true, key));
    }
    let (mut known, mut warnings) = (BTreeMap::new(), Vec::new());
    // v1's names first, so that ours win where both are set.
    let is_ours = |name: &str| keys.get(name).is_some_and(|(ours, _)| *ours);
    let mut environment: Vec<(String, String)> = environment.into_iter().collect();
    environment.sort_by_key(|(name, _)| is_ours(name));
    for (name, text) in environment {
        if !name.starts_with("P2PFAAS_") || text.is_empty() {
            continue;
        }
        if let Some((_, key)) = keys.get(&name) {
            known.insert(key.name, value(key, text));
        } else {
            warnings.push(format!("the environment has {name}, which means nothing to this node"));
        }
    }
    (known, warnings)
}
