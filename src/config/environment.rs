//! What the environment says of the settings.

use std::collections::{BTreeMap, HashMap};

use super::Settings;
use crate::keys::{Key, Notation, Problem};
use crate::policy::params::parse_bool;

/// Names the file with the certificates that the tools believe; a node needs none.
pub const CA_FILE: &str = "P2PFAAS_CA_FILE";

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

/// Whether Kubernetes sets this for a service that is named like the node's settings: of `p2pfaas-scheduler`,
/// `P2PFAAS_SCHEDULER_PORT` is `tcp://…`, and there are six more.
fn is_service_link(name: &str, text: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    let of_port = || {
        let (_, rest) = name.rsplit_once("_PORT_")?;
        let (number, rest) = rest.split_once('_')?;
        let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
        let protocol = ["TCP", "UDP", "SCTP"].iter().any(|protocol| rest.starts_with(protocol));
        Some(is_number && protocol)
    };
    (is_url && name.contains("_PORT"))
        || of_port().unwrap_or_default()
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
}

/// What keeps strangers out. Given as nothing, it is a variable that somebody forgot to set.
const KEEPING_OUT: [&str; 4] =
    ["cluster_key", "cluster_key_file", "admin_token", "admin_token_file"];

/// Picks what the node reads from the environment, v1's names translated; warns of the rest.
pub(super) fn known_environment(
    environment: impl IntoIterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
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
    let mut links = Vec::new();
    for (name, text) in environment {
        if !name.starts_with("P2PFAAS_") || name == CA_FILE {
            continue;
        }
        if text.is_empty() {
            let key = keys.get(&name).map(|(_, key)| key.name);
            if key.is_some_and(|key| KEEPING_OUT.contains(&key)) {
                let why = "it is set to nothing: a node without one has no such variable";
                problems.push(Problem::of(&name, why));
            }
            continue;
        }
        let is_key = keys.contains_key(&name);
        if is_service_link(&name, &text) && (!is_key || text.contains("://")) {
            links.push(name);
        } else if let Some((_, key)) = keys.get(&name) {
            known.insert(key.name, value(key, text));
        } else {
            warnings.push(format!("the environment has {name}, which means nothing to this node"));
        }
    }
    if !links.is_empty() {
        links.sort_unstable();
        let links = links.join(", ");
        warnings.push(format!(
            "the environment has service links of Kubernetes, which are ignored: {links}"
        ));
    }
    (known, warnings)
}
