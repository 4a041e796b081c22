//! What P2PFaaS v1 saves and means nothing here: v1 checks little of what it is given, keeps it, and so a
//! volume of its may have a queue that is longer than any can be, or a name that no header can hold. Each
//! such value is taken at the nearest that means something. Only files are read like this: what is
//! posted or set is refused.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{LimitsPatch, MachinePatch};
use crate::config::Settings;
use crate::policy::registry::SchedulerSpec;
use crate::queue::Limits;
use crate::types::{Cause, Mended, NAME_BYTES_MAX, as_printable, check_machine};

/// What a file says, and what was taken for what.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) value: T,
    pub(super) mended: Vec<Mended>,
}

/// `text` as JSON. v1's learner is Python, which writes `NaN` and `Infinity`, and whole numbers that no
/// float can hold: each of these becomes a text.
pub(super) fn as_json(text: &[u8]) -> Cow<'_, [u8]> {
    let mut json: Vec<u8> = Vec::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(byte) = text.get(at) {
        let from = text.get(at..).unwrap_or_default();
        let length = match byte {
            b'"' => string_bytes(from),
            b'-' | b'0'..=b'9' | b'A'..=b'Z' => {
                let word =
                    from.iter().take_while(|c| c.is_ascii_alphanumeric() || b"+-.".contains(c));
                word.count()
            }
            _ => 1,
        };
        let word = from.get(..length).unwrap_or(from);
        if is_beyond_json(word) {
            json.extend_from_slice(text.get(copied..at).unwrap_or_default());
            json.push(b'"');
            json.extend_from_slice(word);
            json.push(b'"');
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    json.extend_from_slice(text.get(copied..).unwrap_or_default());
    Cow::Owned(json)
}

/// How long the string is that `text` begins with, quotes included.
fn string_bytes(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().skip(1).position(|c| {
        let ends = *c == b'"' && !escaped;
        escaped = *c == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Whether that is a number which Python writes and JSON does not have, or no reader of it.
fn is_beyond_json(word: &[u8]) -> bool {
    match word {
        b"NaN" | b"Infinity" | b"-Infinity" => true,
        [b'-' | b'0'..=b'9', ..] => {
            let number = std::str::from_utf8(word).ok().and_then(|word| word.parse::<f64>().ok());
            number.is_some_and(f64::is_infinite)
        }
        _ => false,
    }
}

/// The limits of the queue; `base` holds where nothing is near.
pub(super) fn limits(stored: &Map<String, Value>, base: Limits) -> Read<LimitsPatch> {
    let mut mended = Vec::new();
    let mut number = |name: &str, base: u32| {
        let given = stored.get(name).filter(|given| !given.is_null())?;
        let strict = given.as_u64().and_then(|given| u32::try_from(given).ok());
        strict.or_else(|| {
            let nearest = nearest(name, given).and_then(|nearest| nearest.as_u64());
            let nearest = nearest.and_then(|nearest| u32::try_from(nearest).ok());
            mended.push(Mended::of(name, given, nearest.unwrap_or(base)));
            nearest
        })
    };
    let parallel_running_functions_max = number("parallel_running_functions_max", base.k);
    let queue_length_max = number("queue_length_max", base.queue_length_max);
    let queue_enabled = stored.get("queue_enabled").filter(|given| !given.is_null());
    let queue_enabled = queue_enabled.and_then(|given| {
        given.as_bool().or_else(|| {
            let nearest = nearest("queue_enabled", given).and_then(|nearest| nearest.as_bool());
            mended.push(Mended::of("queue_enabled", given, nearest.unwrap_or(base.queue_enabled)));
            nearest
        })
    });
    let value = LimitsPatch { parallel_running_functions_max, queue_length_max, queue_enabled };
    Read { value, mended }
}

/// The value of that setting which is nearest to `given`.
fn nearest(name: &str, given: &Value) -> Option<Value> {
    Settings::KEYS.iter().find(|key| key.name == name)?.nearest(given)
}

/// The text that a value is near to; `None`: it is a list, or an object.
fn text(given: &Value) -> Option<String> {
    match given {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The text of `stored` with that name, where it can stand for one, as `usable` has it.
fn named(
    stored: &Map<String, Value>,
    name: &str,
    usable: impl Fn(&str) -> String,
    mended: &mut Vec<Mended>,
) -> Option<String> {
    let given = stored.get(name).filter(|given| !given.is_null())?;
    let taken = text(given).map(|text| usable(&text)).unwrap_or_default();
    if given.as_str() != Some(&taken) {
        let shown = if taken.is_empty() { "unset" } else { &taken };
        mended.push(Mended::of(name, given, shown));
    }
    Some(taken)
}

/// Who the machine is. An address that none can be is unset, so that the node finds its own. Other
/// characters of a name than printable ASCII become `_`, and what is beyond its length is cut off.
///
/// # Errors
/// What only we save, and cannot be used.
pub(super) fn machine(stored: &Map<String, Value>) -> Result<Read<MachinePatch>, String> {
    let mut mended = Vec::new();
    let usable = |ip: &str| match check_machine(ip.trim(), "", "") {
        Ok(()) => ip.trim().to_owned(),
        Err(_) => String::new(),
    };
    let machine_ip = named(stored, "machine_ip", usable, &mut mended);
    let usable = |name: &str| as_printable(name, NAME_BYTES_MAX);
    let machine_id = named(stored, "machine_id", usable, &mut mended);
    let machine_group_name = named(stored, "machine_group_name", usable, &mut mended);
    let init_servers = init_servers(stored, &mut mended);
    let neighbours = match stored.get("neighbours") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => return Err("neighbours: it is no text".to_owned()),
    };
    let value =
        MachinePatch { machine_ip, machine_id, machine_group_name, init_servers, neighbours };
    Ok(Read { value, mended })
}

/// The nodes to join through; those that are no text are left out.
fn init_servers(stored: &Map<String, Value>, mended: &mut Vec<Mended>) -> Option<Vec<String>> {
    const NAME: &str = "init_servers";
    let given = stored.get(NAME).filter(|given| !given.is_null())?;
    let all = given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice);
    let texts: Vec<String> = all.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if texts.len() < all.len() || !given.is_array() {
        mended.push(Mended::of(NAME, given, format!("{texts:?}")));
    }
    // What has nothing of a list is as if it were not there.
    (given.is_array() || !texts.is_empty()).then_some(texts)
}

/// The algorithm with its parameters.
///
/// # Errors
/// There is no such algorithm, or a parameter is near to nothing.
pub(super) fn scheduler(stored: &Map<String, Value>) -> Result<Read<SchedulerSpec>, Cause> {
    let mut mended = Vec::new();
    let name = match stored.get("name") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(name)) => name.clone(),
        Some(_) => return Err(Cause::of("name: it is no text")),
    };
    let given = match stored.get("parameters") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(list)) => list.as_slice(),
        Some(_) => return Err(Cause::of("parameters: it is no list")),
    };
    let mut parameters = Vec::with_capacity(given.len());
    for (place, given) in given.iter().enumerate() {
        let text = text(given).ok_or_else(|| {
            Cause::of(format!("parameters: number {} is neither a text nor a number", place + 1))
        })?;
        if !given.is_string() {
            mended.push(Mended::of(format!("parameter {}", place + 1), given, format!("{text:?}")));
        }
        parameters.push(text);
    }
    let spec = SchedulerSpec { name, parameters };
    let (value, more) = spec.mended().map_err(Cause::of)?;
    mended.extend(more);
    Ok(Read { value, mended })
}

#[cfg(test)]
mod tests;
