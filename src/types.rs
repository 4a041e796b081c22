//! The nouns that every layer speaks of. No IO, no clock.

mod address;
mod cause;
mod clearance;
mod function_name;
mod mended;
mod neighbours;
mod record;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::address::{may_be_machine, may_be_own};
pub use self::cause::Cause;
pub use self::clearance::Clearance;
pub use self::function_name::{BadFunctionName, FunctionName};
pub use self::mended::Mended;
pub use self::neighbours::Neighbours;
pub use self::record::{
    NOTE_BYTES_MAX, NodeDescription, NodeRecord, RecordLoad, SAYING_BYTES_MAX, Saying,
};

/// The service class of a call, as clients send it: a number, 0 when none was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct TaskType(pub f64);

impl TaskType {
    /// Reads a client's text; what is no finite number counts as type 0, as in v1.
    pub fn from_text(text: &str) -> Self {
        match text.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => Self(value),
            _ => Self(0.0),
        }
    }
}

/// Task types that are told apart when load is counted.
pub const TASK_TYPES_MAX: usize = 256;

impl TaskType {
    /// Its place among those that are told apart: whole numbers from 0 up to
    /// [`TASK_TYPES_MAX`] − 1.
    pub fn index(self) -> Option<usize> {
        let told_apart = self.0.fract() == 0.0 && self.0 >= 0.0 && self.0 < TASK_TYPES_MAX as f64;
        told_apart.then_some(self.0 as usize)
    }
}

/// How much work a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Functions that run now.
    pub running: u32,
    /// Calls that wait for a slot.
    pub waiting: u32,
}

impl Load {
    /// Running and waiting together: the load that the papers compare.
    pub fn total(self) -> u32 {
        self.running.saturating_add(self.waiting)
    }
}

/// Another node, as a place to send calls to. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its IP address, or a host name where an operator configured one.
    pub host: Arc<str>,
    /// Its machine id; empty while not known.
    pub name: Arc<str>,
    /// Whether calls stream to it: it speaks peer protocol 2.
    pub streams: bool,
    /// The port on which it answers other members of its cluster by TLS; `None`: it is spoken to in the clear.
    pub tls_port: Option<u16>,
    /// Its round trip in coarse steps, where that is long; else zero. Deadlines of one's own are longer for
    /// it.
    pub far: Duration,
    /// What it says of itself; `None`: nothing was heard, as of a v1 node.
    pub record: Option<Arc<NodeRecord>>,
}

impl Peer {
    /// A peer of which only the address is known.
    pub fn at(host: &str) -> Self {
        Self {
            host: host.into(),
            name: "".into(),
            streams: false,
            tls_port: None,
            far: Duration::ZERO,
            record: None,
        }
    }
}

/// For fields that may be null as well as missing.
pub(crate) fn null_as_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(from)?.unwrap_or_default())
}

/// For structs that must be JSON objects: serde alone takes `[1, 2]` for one as well.
pub(crate) fn object<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    struct Object<T>(PhantomData<T>);

    impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    from.deserialize_map(Object(PhantomData))
}

/// A struct that must be a JSON object; see [`object`].
#[derive(Deserialize)]
#[serde(transparent, bound = "T: serde::Deserialize<'de>")]
pub(crate) struct Object<T>(#[serde(deserialize_with = "object")] pub(crate) T);

/// `host` as it stands in a URL's authority: an IPv6 address gets its brackets.
pub fn url_host(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    }
}

/// Bytes of a machine's name or group, of a call's tracing id in a message, and of a hop's id.
pub const NAME_BYTES_MAX: usize = 255;

/// Nodes to join through at most.
pub const INIT_SERVERS_MAX: usize = 64;

/// Whether these can be a machine's address, name and group; empty ones are unset. Names and groups
/// travel in headers, so they are printable ASCII, of at most [`NAME_BYTES_MAX`] bytes.
///
/// # Errors
/// The key of the first that cannot, and why.
pub fn check_machine(ip: &str, id: &str, group: &str) -> Result<(), (&'static str, String)> {
    if !ip.is_empty() {
        let not = |what| Err(("machine_ip", format!("{:?} is no {what}", shortened(ip, 64))));
        match ip.parse::<IpAddr>() {
            Err(_) => return not("IP address"),
            Ok(ip) if !may_be_own(ip) => return not("address that a machine can have"),
            Ok(_) => {}
        }
    }
    for (key, text) in [("machine_id", id), ("machine_group_name", group)] {
        if text.len() > NAME_BYTES_MAX {
            let bytes = text.len();
            return Err((key, format!("it has {bytes} bytes, at most {NAME_BYTES_MAX} are taken")));
        }
        if !text.bytes().all(|c| (b' '..=b'~').contains(&c)) {
            return Err((key, format!("{text:?} has characters other than printable ASCII")));
        }
    }
    Ok(())
}

/// Whether these can be the nodes to join through.
///
/// # Errors
/// They are too many, or one is neither an address nor a name.
pub fn check_init_servers(servers: &[String]) -> Result<(), String> {
    if servers.len() > INIT_SERVERS_MAX {
        return Err(format!("there are {}, at most {INIT_SERVERS_MAX} are taken", servers.len()));
    }
    servers.iter().try_for_each(|server| server.parse::<InitServer>().map(drop))
}

/// The first `max` characters of `text`, with an ellipsis where there are more: what strangers send
/// is told in messages and logs, but not at any length.
pub fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// The same for what is shown on a terminal: no control characters, which could move its cursor or
/// write over what else stands there.
pub fn printable(text: &str, max: usize) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    shortened(text, max).chars().map(shown).collect()
}

/// The text in printable ASCII that is nearest to `text`: `_` for each other character, and no more than
/// `max` in all.
pub fn as_printable(text: &str, max: usize) -> String {
    let shown = |c: char| if (' '..='~').contains(&c) { c } else { '_' };
    text.chars().take(max).map(shown).collect()
}

/// A node to join through, as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitServer {
    /// One node.
    Address(IpAddr),
    /// A host name; stands for all addresses that it has at the time.
    Name(String),
}

impl std::str::FromStr for InitServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Address(ip));
        }
        let label = |label: &str| {
            let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(allowed)
        };
        let labels = text.strip_suffix('.').unwrap_or(text);
        // What ends in a number is an address gone wrong, no name.
        let last = labels.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|c| c.is_ascii_digit());
        if text.len() > 253 || number || !labels.split('.').all(label) {
            let text = shortened(text, 64);
            return Err(format!("{text:?} is neither an IP address nor a host name"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// Who this node is, as it tells others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its own address; `None` while none is configured or found.
    pub ip: Option<IpAddr>,
    /// Its name: `machine_id`, or `p2pfaas-<ip>` when none was configured.
    pub id: String,
    /// Its group; may be empty.
    pub group: String,
}

impl Identity {
    /// The address as text, empty while there is none.
    pub fn ip_text(&self) -> String {
        self.ip.map(|ip| ip.to_string()).unwrap_or_default()
    }
}

/// Characters of what somebody sent that a message quotes at most.
const QUOTED_CHARACTERS: usize = 200;

/// The beginning of a text that somebody sent, to be quoted.
pub fn cut(text: &str) -> &str {
    text.char_indices().nth(QUOTED_CHARACTERS).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// The key of a value that JSON does not have: files that people write know `nan` and `inf`, which are
/// read as null.
pub fn beyond_json(values: &Map<String, Value>) -> Option<&str> {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(list) => list.iter().any(has_null),
            Value::Object(map) => map.values().any(has_null),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    values.iter().find(|(_, value)| has_null(value)).map(|(key, _)| key.as_str())
}

/// One value or a list of them, in files that people write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "OneOrMore<T>")]
pub struct List<T>(pub Vec<T>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    More(Vec<T>),
    One(T),
}

impl<T> From<OneOrMore<T>> for List<T> {
    fn from(given: OneOrMore<T>) -> Self {
        match given {
            OneOrMore::More(all) => Self(all),
            OneOrMore::One(one) => Self(vec![one]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_cut_between_characters() {
        assert_eq!((cut(""), cut("é")), ("", "é"));
        assert_eq!(cut(&"é".repeat(1000)), "é".repeat(QUOTED_CHARACTERS));
    }

    #[test]
    fn an_init_server_is_an_address_or_a_host_name() {
        for name in ["node-2", "p2pfaas-peers.edge.svc.cluster.local", "my_node", "a.example."] {
            assert_eq!(name.parse(), Ok(InitServer::Name(name.to_owned())));
        }
        for ip in ["10.0.0.1", "fd00::1"] {
            assert_eq!(ip.parse(), Ok(InitServer::Address(ip.parse().expect("an address"))));
        }
        let long = "a".repeat(64);
        for wrong in ["", ".", "10.0.0", "10.0.0.256", "node:19000", "http://node", "a..b", &long] {
            assert!(wrong.parse::<InitServer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_task_type_that_is_no_finite_number_counts_as_zero() {
        assert_eq!(TaskType::from_text("1.5"), TaskType(1.5));
        for text in ["zz", "", "NaN", "inf"] {
            assert_eq!(TaskType::from_text(text), TaskType(0.0), "{text:?}");
        }
    }

    #[test]
    fn what_must_be_an_object_is_no_list() {
        #[derive(Deserialize)]
        struct Pair {
            a: u8,
        }
        let read = |text| serde_json::from_str::<Object<Pair>>(text).map(|pair| pair.0.a);
        assert_eq!(read(r#"{"a":7}"#).ok(), Some(7));
        assert!(read("[7]").is_err() && read("7").is_err() && read("null").is_err());
    }

    #[test]
    fn what_strangers_send_is_shortened_between_characters() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("éèà", 2), "éè…");
        assert_eq!(printable("a\u{1b}[2J\nb", 99), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(as_printable("n\u{f8}de\n1", 5), "n_de_");
    }

    #[test]
    fn an_ipv6_host_gets_brackets_in_a_url() {
        assert_eq!(url_host("::1"), "[::1]");
        assert_eq!(url_host("10.0.0.1"), "10.0.0.1");
        assert_eq!(url_host("fog-1"), "fog-1");
    }
}
