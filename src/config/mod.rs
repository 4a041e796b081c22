//! Every setting: name, unit, default, range. Layers, later wins: the defaults below, a TOML file,
//! the environment (`P2PFAAS_<KEY>`, v1's names included), flags. What is changed at run time is
//! kept apart; see [`crate::saved`].

mod allowed;
mod environment;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, ConfigError, File, FileFormat};
use serde::{Deserialize, Serialize};

use self::allowed::Allowed;
use self::environment::known_environment;
use crate::memory;
use crate::policy::registry::{DEFAULT_ALGORITHM, SchedulerSpec};
use crate::storage::{TEXT_BYTES_MAX, read_text};
use crate::telemetry::{LogFormat, LogSettings};
use crate::types::{FunctionName, InitServer, check_init_servers, check_machine, shortened};

/// Something wrong in the configuration, with the key that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the file, or the environment name.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

/// Who may change a node through its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// Whoever reaches the ports, as in v1.
    Any,
    /// Programs on the node's own machine.
    Loopback,
    /// Nobody.
    Off,
}

/// How the embedded functions draw their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeDistribution {
    /// Always the mean.
    Constant,
    /// Exponential with that mean.
    Exponential,
}

/// Function names with the URL that answers for them. Reads a table or a list of `NAME=URL`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RoutesText")]
pub struct Routes(pub BTreeMap<String, String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum RoutesText {
    Table(BTreeMap<String, String>),
    List(Vec<String>),
}

impl TryFrom<RoutesText> for Routes {
    type Error = String;

    fn try_from(text: RoutesText) -> Result<Self, String> {
        let pair = |route: String| match route.split_once('=') {
            Some((name, url)) => Ok((name.trim().to_owned(), url.trim().to_owned())),
            None => Err(format!("{route:?} is not NAME=URL")),
        };
        match text {
            RoutesText::Table(table) => Ok(Self(table)),
            RoutesText::List(list) => {
                list.into_iter().map(pair).collect::<Result<_, _>>().map(Self)
            }
        }
    }
}

macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr; )+) => {
        /// All settings of a node.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct Settings {
            $( $(#[doc = $doc])+ #[serde(skip_serializing_if = "is_unset")] pub $name: $type, )+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $( $name: $default, )+ }
            }
        }

        impl Settings {
            /// Every key with what it means, in order.
            pub const KEYS: &'static [(&'static str, &'static str)] =
                &[ $( (stringify!($name), concat!($($doc),+)), )+ ];

            /// Reads each key on its own, so that every wrong one is reported.
            fn read(from: &Config, problems: &mut Vec<Problem>) -> Self {
                let mut settings = Self::default();
                $( match from.get::<$type>(stringify!($name)) {
                    Ok(value) => settings.$name = value,
                    Err(ConfigError::NotFound(_)) => {}
                    Err(why) => {
                        let why = not_allowed::<$type>(from, stringify!($name), &why);
                        problems.push(problem(stringify!($name), why));
                    }
                } )+
                settings
            }
        }
    };
}

fn problem(key: &str, why: impl std::fmt::Display) -> Problem {
    Problem { key: key.to_owned(), why: why.to_string() }
}

/// What was given and what could be, of a setting that cannot be read.
fn not_allowed<T: Allowed>(from: &Config, key: &str, why: &ConfigError) -> String {
    match from.get::<config::Value>(key) {
        Ok(given) if !T::ALLOWED.is_empty() => {
            format!("{:?} is not {}", shortened(&given.to_string(), 64), T::ALLOWED)
        }
        _ => why.to_string(),
    }
}

/// TOML has no null: what is not set is left out when settings are printed.
fn is_unset<T: Serialize>(value: &T) -> bool {
    matches!(serde_json::to_value(value), Ok(serde_json::Value::Null))
}

settings! {
    /// Address that all listeners bind to.
    host: IpAddr = IpAddr::from([0, 0, 0, 0]);
    /// Port of the scheduler API; peers use the same. 0 turns it off.
    scheduler_port: u16 = 18080;
    /// Port of the discovery API; peers use the same. 0 turns it off.
    discovery_port: u16 = 19000;
    /// Port of the learner API. 0 turns it off.
    learner_port: u16 = 19020;
    /// Port of the learner's WebSocket. 0 turns it off.
    learner_ws_port: u16 = 8765;
    /// Threads that serve the scheduler API, 1 to 256.
    workers: usize = std::thread::available_parallelism().map_or(2, usize::from);
    /// Connections of clients on all ports at once, 1 to 1000000; beyond it the least useful ones end.
    connections_max: usize = 16384;
    /// Bytes that clients' connections hold together at most, their buffers included. Unset: an 8th of the memory, 512 MiB at most.
    connections_bytes_max: u64 = memory::share(8, 512 << 20);
    /// Folder that holds all the node's files.
    data_path: PathBuf = PathBuf::from("/data");

    /// The node's own IP address, as told to others. Unset: `host` if that is one address, else the interface's.
    machine_ip: String = String::new();
    /// The node's name. Unset: `p2pfaas-<ip>`.
    machine_id: String = String::new();
    /// The node's group, told to others.
    machine_group_name: String = String::new();
    /// Interface whose address is the node's own when none is configured.
    default_iface: String = "eth0".to_owned();
    /// Nodes to join through, at most 64: IP addresses, or host names, of which all addresses (at most 64) are asked at every poll.
    init_servers: Vec<String> = Vec::new();
    /// Seconds between polls of the known machines, 0.05 to 3600.
    poll_time_s: f64 = 1.5;
    /// Seconds that a poll may take, 0.01 to 600.
    poll_timeout_s: f64 = 1.0;
    /// Failed polls in a row after which a machine is dead, 1 to 1000.
    machine_dead_polls_threshold: u32 = 3;
    /// Seconds between polls of a dead machine, 0.05 to 86400.
    dead_poll_time_s: f64 = 30.0;
    /// Machines known at most, 1 to 100000.
    machines_max: usize = 1024;
    /// Host of another discovery service to use instead of our own; unset: our own.
    service_discovery_host: String = String::new();
    /// Port of that service.
    service_discovery_port: u16 = 19000;

    /// Host of another learner to use instead of our own, as P2PFaaS v1's; unset: our own.
    service_learning_host: String = String::new();
    /// Port of its WebSocket. 19020, which in v1 names the HTTP API beside it, stands for 8765.
    service_learning_port: u16 = 8765;
    /// WebSockets to that learner, 1 to 1000, shared out among the workers; each has one at least.
    learner_pool_size: usize = 20;
    /// Milliseconds that a decision of the learner may take before the call runs here, 1 to 60000.
    learner_timeout_ms: u64 = 200;
    /// Seconds between two saves of what was learnt, 0.05 to 86400.
    learner_save_time_s: f64 = 10.0;

    /// The scheduling algorithm and its parameters: `NAME P1 P2 …`.
    scheduler: String = DEFAULT_ALGORITHM.to_owned();
    /// K: functions that run at once. 0: none until it is raised.
    parallel_running_functions_max: u32 = 4;
    /// Calls that may wait for a slot.
    queue_length_max: u32 = 4;
    /// Whether calls may wait at all.
    queue_enabled: bool = true;
    /// Bytes that the bodies of waiting calls hold together at most. Unset: a 16th of the memory, 256 MiB at most.
    waiting_bytes_max: u64 = memory::share(16, 256 << 20);

    /// Functions that answer at a URL of their own: a table, or a list of NAME=URL.
    routes: Routes = Routes::default();
    /// Whether the embedded functions (fn-echo, fn-sleep, fn-spin, fn-work, fn-thumbnail) can be called.
    embedded_functions: bool = false;
    /// Whether functions run behind an OpenFaaS gateway, but those with routes and embedded ones.
    openfaas_enabled: bool = false;
    /// Host of the OpenFaaS gateway.
    openfaas_host: String = "gateway".to_owned();
    /// Port of the OpenFaaS gateway.
    openfaas_port: u16 = 8080;
    /// Folder with the gateway's credentials, the files basic-auth-user and basic-auth-password; none: it asks for none.
    openfaas_secrets_path: PathBuf = PathBuf::from("/run/secrets");
    /// The functions that this node serves; empty: any.
    fns_list: Vec<String> = Vec::new();
    /// Seconds that a function may take, 0.001 to 86400.
    function_timeout_s: f64 = 60.0;
    /// Seconds that may pass between two pieces of a function's answer, 0.001 to 604800.
    function_idle_timeout_s: f64 = 300.0;
    /// Seconds after which a connection to a function whose machine does not answer at all is given up, 1 to 3600.
    function_silence_timeout_s: f64 = 10.0;
    /// Milliseconds to connect to a function, 1 to 600000.
    function_connect_timeout_ms: u64 = 5000;
    /// Bytes of a call's body, and of a function's answer, at most. Unset: no limit, for they stream.
    body_bytes_max: Option<u64> = None;
    /// Bytes at most of a body that must be held whole: a call that is handed to a v1 node, its answer, and what an embedded function works on. Unset: a 32nd of the memory, 16 MiB at most.
    held_body_bytes_max: usize = memory::share(32, 16 << 20) as usize;
    /// Bytes that are held of an answer that streams faster than its client reads, 16384 to 16777216.
    window_bytes: usize = 256 << 10;
    /// Bytes of a call's body that are kept until its answer begins, so that the call can go elsewhere when it fails, 0 to 16777216.
    retry_body_bytes_max: usize = 64 << 10;
    /// How fn-sleep, fn-spin and fn-work draw their time unless the call says: constant or exponential.
    fn_time_distribution: TimeDistribution = TimeDistribution::Constant;
    /// Mean of that time in milliseconds, 0 to 3600000.
    fn_time_mean_ms: f64 = 100.0;
    /// Seed of the times drawn; unset: a random one.
    fn_seed: Option<u64> = None;
    /// Effective cores of the board that fn-work emulates, 0.01 to 1024.
    fn_work_cores: f64 = 2.0;

    /// Bytes a second that a body must come with at least, after some seconds of grace. 0: any rate will do.
    body_rate_min: u64 = 4096;
    /// Seconds that a body may take to arrive, 0.001 to 86400.
    body_timeout_s: f64 = 60.0;
    /// Bytes that the bodies of all calls on the node hold together at most. Unset: an 8th of the memory, 512 MiB at most.
    bodies_bytes_max: u64 = memory::share(8, 512 << 20);

    /// Bytes that the bodies of all requests to the learner hold together at most. Unset: a 16th of the memory, 256 MiB at most.
    learner_bodies_bytes_max: u64 = memory::share(16, 256 << 20);

    /// Bytes that what is learnt, entries held for reordering and rewards on their way may take, at least 1048576. Unset: an 8th of the memory, 1 GiB at most.
    learner_memory_bytes_max: u64 = memory::share(8, 1 << 30).max(1 << 20);

    /// Milliseconds to connect to a peer, 1 to 60000.
    peer_connect_timeout_ms: u64 = 250;
    /// Milliseconds that a probe may take, 1 to 60000.
    probe_timeout_ms: u64 = 200;
    /// Seconds to wait for a forwarded call's answer, 0.001 to 86400.
    forward_timeout_s: f64 = 120.0;
    /// Seconds after which a connection to a peer whose machine does not answer at all is given up, 1 to 3600.
    peer_silence_timeout_s: f64 = 10.0;

    /// Names of this node under which browsers may change it, beside its addresses and names of the local network.
    host_names: Vec<String> = Vec::new();
    /// Who may change the node through its routes: any, loopback or off.
    admin: Admin = Admin::Any;
    /// Seconds that running calls have to finish when the node is told to stop, 0 to 3600.
    drain_timeout_s: u64 = 30;
    /// How logs are written: text or json.
    log_format: LogFormat = LogFormat::Text;
    /// What is logged: production, development, or a filter such as `info,p2pfaas=debug`.
    log_env: String = "production".to_owned();
    /// Lines of one kind that are logged at once; then one a second, and what is left out is counted. 0: no limit.
    log_burst: u32 = 20;
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
                Err(why) => Err(vec![problem(&named, why)]),
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
        let (environment, warnings) = known_environment(environment);
        let mut layers = Config::builder();
        if let Some((named, text)) = file {
            check_text(named, text, &mut problems)?;
            layers = layers.add_source(File::from_str(text, FileFormat::Toml));
        }
        let flags = flags.iter().map(|(key, value)| (*key, value.clone()));
        for (key, value) in environment.into_iter().chain(flags) {
            match layers.clone().set_override(key, value) {
                Ok(with) => layers = with,
                Err(why) => problems.push(problem(key, why)),
            }
        }
        match layers.build() {
            Ok(layers) => {
                let settings = Self::read(&layers, &mut problems);
                settings.check(&mut problems);
                if problems.is_empty() { Ok(Loaded { settings, warnings }) } else { Err(problems) }
            }
            Err(why) => {
                problems.push(problem("configuration", why));
                Err(problems)
            }
        }
    }

    fn check(&self, problems: &mut Vec<Problem>) {
        let mut range = |key: &str, value: f64, low: f64, high: f64| {
            if !(low..=high).contains(&value) {
                problems.push(problem(key, format!("{value} is not within {low} to {high}")));
            }
        };
        range("workers", self.workers as f64, 1.0, 256.0);
        range("connections_max", self.connections_max as f64, 1.0, 1e6);
        range("poll_time_s", self.poll_time_s, 0.05, 3600.0);
        range("poll_timeout_s", self.poll_timeout_s, 0.01, 600.0);
        range("machine_dead_polls_threshold", self.machine_dead_polls_threshold.into(), 1.0, 1e3);
        range("dead_poll_time_s", self.dead_poll_time_s, 0.05, 86400.0);
        range("machines_max", self.machines_max as f64, 1.0, 1e5);
        range("function_timeout_s", self.function_timeout_s, 0.001, 86400.0);
        range("body_timeout_s", self.body_timeout_s, 0.001, 86400.0);
        range("function_connect_timeout_ms", self.function_connect_timeout_ms as f64, 1.0, 6e5);
        range("fn_time_mean_ms", self.fn_time_mean_ms, 0.0, 3.6e6);
        range("fn_work_cores", self.fn_work_cores, 0.01, 1024.0);
        range("peer_connect_timeout_ms", self.peer_connect_timeout_ms as f64, 1.0, 6e4);
        range("probe_timeout_ms", self.probe_timeout_ms as f64, 1.0, 6e4);
        range("forward_timeout_s", self.forward_timeout_s, 0.001, 86400.0);
        range("peer_silence_timeout_s", self.peer_silence_timeout_s, 1.0, 3600.0);
        range("learner_pool_size", self.learner_pool_size as f64, 1.0, 1e3);
        range("learner_timeout_ms", self.learner_timeout_ms as f64, 1.0, 6e4);
        range("learner_save_time_s", self.learner_save_time_s, 0.05, 86400.0);
        range("learner_memory_bytes_max", self.learner_memory_bytes_max as f64, 1048576.0, 1e15);
        range("drain_timeout_s", self.drain_timeout_s as f64, 0.0, 3600.0);
        // 1 GiB: base64 and JSON around it must still fit in memory several times over.
        range("function_idle_timeout_s", self.function_idle_timeout_s, 0.001, 604_800.0);
        range("function_silence_timeout_s", self.function_silence_timeout_s, 1.0, 3600.0);
        range("held_body_bytes_max", self.held_body_bytes_max as f64, 0.0, (1u64 << 30) as f64);
        range("window_bytes", self.window_bytes as f64, 16384.0, 16_777_216.0);
        range("retry_body_bytes_max", self.retry_body_bytes_max as f64, 0.0, 16_777_216.0);

        if self.forward_timeout_s < self.function_timeout_s {
            let why = format!(
                "{} is less than function_timeout_s, {}: a call that may take as long here would be given \
                 up where it is forwarded",
                self.forward_timeout_s, self.function_timeout_s
            );
            problems.push(problem("forward_timeout_s", why));
        }
        let machine = check_machine(&self.machine_ip, &self.machine_id, &self.machine_group_name);
        if let Err((key, why)) = machine {
            problems.push(problem(key, why));
        }
        if self.openfaas_enabled && self.openfaas_host.parse::<InitServer>().is_err() {
            let why = format!("{:?} is neither an IP address nor a host name", self.openfaas_host);
            problems.push(problem("openfaas_host", why));
        }
        for name in &self.host_names {
            if let Err(why) = name.parse::<InitServer>() {
                problems.push(problem("host_names", why));
            }
        }
        if let Err(why) = check_init_servers(&self.init_servers) {
            problems.push(problem("init_servers", why));
        }
        if let Err(why) = SchedulerSpec::from_words(&self.scheduler).build() {
            problems.push(problem("scheduler", why));
        }
        for name in self.routes.0.keys().chain(&self.fns_list) {
            if let Err(why) = FunctionName::parse_listed(name) {
                let key = if self.routes.0.contains_key(name) { "routes" } else { "fns_list" };
                problems.push(problem(key, format!("{name:?}: {why}")));
            }
        }
        for (name, url) in &self.routes.0 {
            let parsed = url.parse::<awc::http::Uri>();
            let good = parsed.is_ok_and(|u| u.scheme_str() == Some("http") && u.host().is_some());
            if !good {
                problems.push(problem("routes", format!("{name}: {url:?} is no http:// URL")));
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

    /// `poll_time_s` and its like, checked before, as durations.
    pub fn seconds(value: f64) -> Duration {
        Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
    }
}

/// Flags whose setting has another name.
const FLAGS: &[(&str, &str)] = &[
    ("k", "parallel_running_functions_max"),
    ("queue_length", "queue_length_max"),
    ("group", "machine_group_name"),
    ("init_server", "init_servers"),
    ("host_name", "host_names"),
    ("route", "routes"),
];

/// Keys that a file must not have, and whether it can be parsed at all.
fn check_text(named: &str, text: &str, problems: &mut Vec<Problem>) -> Result<(), Vec<Problem>> {
    match text.parse::<toml::Table>() {
        Ok(table) => {
            let unknown = table.keys().filter(|key| Settings::KEYS.iter().all(|(k, _)| k != key));
            problems.extend(unknown.map(|key| {
                let meant = FLAGS.iter().find(|(flag, _)| *flag == key.replace('-', "_"));
                let meant = meant.map(|(_, setting)| format!("; {setting} is meant?"));
                let why = format!("no such setting ({named}){}", meant.unwrap_or_default());
                problem(key, why)
            }));
            Ok(())
        }
        Err(why) => {
            problems.push(problem(named, why));
            Err(std::mem::take(problems))
        }
    }
}

#[cfg(test)]
mod tests;
