//! The table of all settings. An entry holds everything that is told of a setting; what several must be
//! together is in `check.rs`.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use super::admin_token::TOKEN_BYTES;
use super::value::{Admin, MemoryShare, Routes, TotalTimeouts};
use crate::keys::{Secret, Worded, form, key_table, one_of, within};
use crate::policy::registry::DEFAULT_ALGORITHM;
use crate::service::drawn::TimeDistribution;
use crate::telemetry::LogFormat;
use crate::types::{INIT_SERVERS_MAX, NAME_BYTES_MAX};

/// Who the node is, as a text that travels in headers.
fn named() -> String {
    format!("up to {NAME_BYTES_MAX} printable characters")
}

/// What a token is.
fn token() -> String {
    let (least, most) = (TOKEN_BYTES.start(), TOKEN_BYTES.end());
    format!("{least} to {most} visible ASCII characters without spaces")
}

key_table! {
    /// All settings of a node.
    #[derive(Clone, Debug, PartialEq, Serialize)]
    pub struct Settings {
        "Addresses and ports" {
            /// Address that all listeners bind to.
            host: IpAddr = IpAddr::from([0, 0, 0, 0]) => unit: "address", flag: Some("host");
            /// Port of the scheduler API; peers use the same. 0 turns it off.
            scheduler_port: u16 = 18080 => unit: "port";
            /// Port of the discovery API; peers use the same. 0 turns it off.
            discovery_port: u16 = 19000 => unit: "port";
            /// UDP port on which nodes tell each other who is there (SWIM); peers use the same. 0 turns it
            /// off: then every node polls every other.
            swim_port: Option<u16> = Worded(None, "the number of `discovery_port`") => unit: "port";
            /// Port of the learner API. 0 turns it off.
            learner_port: u16 = 19020 => unit: "port";
            /// Port of the learner's WebSocket. 0 turns it off.
            learner_ws_port: u16 = 8765 => unit: "port";
            /// Threads that serve calls.
            workers: usize = Worded(cores(), "one per core")
                => unit: "threads", allowed: within(1.0, 256.0), flag: Some("workers");
            /// Connections of clients on all ports at once; beyond it the least useful ones end.
            connections_max: usize = 16384 => unit: "connections", allowed: within(1.0, 1e6);
            /// What clients' connections hold together at most, their buffers included.
            connections_bytes_max: u64 = MemoryShare { parts: 8, mib_min: 0, mib_max: 512 }
                => unit: "bytes";
            /// Folder that holds all the node's files.
            data_path: PathBuf = PathBuf::from("/data") => unit: "folder", flag: Some("data-path");
        }

        "Who the node is, and whom it knows" {
            /// The node's own IP address, as told to others.
            machine_ip: String = Worded(String::new(), "that of `host`, else of `default_iface`")
                => unit: "address",
                   allowed: form(|| "an address that a machine can have".to_owned()),
                   flag: Some("machine-ip");
            /// The node's name.
            machine_id: String = Worded(String::new(), "p2pfaas- and the address")
                => allowed: form(named), flag: Some("machine-id");
            /// The node's group, told to others.
            machine_group_name: String = String::new() => allowed: form(named), flag: Some("group");
            /// Interface whose address is the node's own when none is configured.
            default_iface: String = "eth0".to_owned() => unit: "interface";
            /// Nodes to join through; of a host name, all addresses (at most 64) are asked at every
            /// poll.
            init_servers: Vec<String> = Vec::new()
                => allowed: form(|| format!("up to {INIT_SERVERS_MAX} IP addresses or host names")),
                   flag: Some("init-server");
            /// The machines that calls are handed to: all, those of the node's group, the N with the
            /// shortest round trips, or those at these addresses.
            neighbours: String = "all".to_owned()
                => allowed: form(|| "`all`, `group`, `nearest N`, or `list ADDRESS …`".to_owned()),
                   flag: Some("neighbours");
            /// Time between polls of the known machines.
            poll_time_s: f64 = 1.5
                => unit: "seconds", allowed: within(0.05, 3600.0), v1_names: &["P2PFAAS_POLL_TIME"];
            /// Time that a poll may take.
            poll_timeout_s: f64 = 1.0
                => unit: "seconds", allowed: within(0.01, 600.0),
                   v1_names: &["P2PFAAS_POLL_TIMEOUT"];
            /// Failed polls in a row after which a machine is dead.
            machine_dead_polls_threshold: u32 = 3 => unit: "polls", allowed: within(1.0, 1000.0);
            /// Time between polls of a dead machine.
            dead_poll_time_s: f64 = 30.0 => unit: "seconds", allowed: within(0.05, 86400.0);
            /// Machines known at most.
            machines_max: usize = 1024 => unit: "machines", allowed: within(1.0, 1e5);
            /// Host of another discovery service to use instead of the node's own.
            service_discovery_host: String = Worded(String::new(), "empty: the node's own")
                => unit: "host";
            /// Port of that service.
            service_discovery_port: u16 = 19000 => unit: "port";
        }

        "Who belongs to the cluster" {
            /// The secret of the cluster, as `p2pfaas key new` makes it. With it only nodes that have it are
            /// members, and they speak to each other by TLS. During a change of the key, two with a comma
            /// between them: the first seals, both open. It is never shown.
            cluster_key: Secret = Worded(Secret::default(), "none: whoever reaches the node can join")
                => allowed: form(|| "one key or two, each 32 bytes in hexadecimal or base64".to_owned());
            /// File with that key, or the two, in its place. It is read again when it changes.
            cluster_key_file: Option<PathBuf> = Worded(None, "none") => unit: "file";
            /// Name of the cluster: nodes of different names are no members of one another's even if they
            /// have the same key.
            cluster_name: String = "p2pfaas".to_owned() => allowed: form(named);
            /// Port on which members are answered by TLS where there is a cluster key.
            peer_tls_port: u16 = 18443 => unit: "port", allowed: within(1.0, 65535.0);
            /// Networks of machines that are spoken to in the clear though there is a cluster key: v1
            /// nodes, and nodes that are to get the key.
            v1_peers: Vec<IpNet> = Worded(Vec::new(), "none")
                => allowed: form(|| "networks such as 10.0.0.0/8 or 10.0.0.7/32".to_owned()),
                   flag: Some("v1-peers");
        }

        "Another learner" {
            /// Host of another learner to use instead of the node's own, as P2PFaaS v1's.
            service_learning_host: String = Worded(String::new(), "empty: the node's own")
                => unit: "host";
            /// Port of its WebSocket. 19020, which in v1 names the HTTP API beside it, stands for
            /// 8765.
            service_learning_port: u16 = 8765 => unit: "port";
            /// WebSockets to that learner, shared out among the workers; each has at least one.
            learner_pool_size: usize = 20 => unit: "sockets", allowed: within(1.0, 1000.0);
            /// Time that a decision of the learner may take before the call runs here.
            learner_timeout_ms: u64 = 200 => unit: "milliseconds", allowed: within(1.0, 60000.0);
            /// Time between two saves of what was learnt.
            learner_save_time_s: f64 = 10.0 => unit: "seconds", allowed: within(0.05, 86400.0);
        }

        "Scheduling and the queue" {
            /// The scheduling algorithm and its parameters.
            scheduler: String = DEFAULT_ALGORITHM.to_owned()
                => allowed: form(|| "NAME P1 P2 …".to_owned()), flag: Some("scheduler");
            /// K: functions that run at once. 0: none until it is raised.
            parallel_running_functions_max: u32 = 4 => unit: "calls", flag: Some("k");
            /// Calls that may wait for a slot.
            queue_length_max: u32 = 4 => unit: "calls", flag: Some("queue-length");
            /// Whether calls may wait at all.
            queue_enabled: bool = true;
            /// What the bodies of waiting calls hold together at most.
            waiting_bytes_max: u64 = MemoryShare { parts: 16, mib_min: 0, mib_max: 256 }
                => unit: "bytes";
        }

        "Functions" {
            /// Functions that answer at a URL of their own.
            routes: Routes = Routes::default()
                => allowed: form(|| "a table, or a list of NAME=URL; http only".to_owned()),
                   flag: Some("route");
            /// Whether the embedded functions (fn-echo, fn-sleep, fn-spin, fn-work, fn-thumbnail)
            /// can be called.
            embedded_functions: bool = false => flag: Some("embedded-functions");
            /// Whether functions run behind an OpenFaaS gateway, but those with routes and embedded
            /// ones.
            openfaas_enabled: bool = false;
            /// Host of the OpenFaaS gateway.
            openfaas_host: String = "gateway".to_owned()
                => unit: "host", allowed: form(|| "an IP address or a host name".to_owned());
            /// Port of the OpenFaaS gateway.
            openfaas_port: u16 = 8080 => unit: "port";
            /// Folder with the gateway's credentials, the files basic-auth-user and
            /// basic-auth-password. Without these files it is asked without credentials.
            openfaas_secrets_path: PathBuf = PathBuf::from("/run/secrets") => unit: "folder";
            /// The functions that this node serves.
            fns_list: Vec<String> = Worded(Vec::new(), "empty: any")
                => allowed: form(|| "function names".to_owned());
            /// Time that a function may take.
            function_timeout_s: f64 = 60.0 => unit: "seconds", allowed: within(0.001, 86400.0);
            /// Time that a call of a function may take in all, from its start to the last byte of
            /// its answer. Without one here, a stream may last for ever.
            function_total_timeouts_s: TotalTimeouts = TotalTimeouts::default()
                => unit: "seconds",
                   allowed: form(|| "a table, or a list of NAME=SECONDS, each 0.001–604800".to_owned());
            /// Time that may pass between two pieces of a function's answer.
            function_idle_timeout_s: f64 = 300.0
                => unit: "seconds", allowed: within(0.001, 604_800.0);
            /// Time after which a connection to a function whose machine does not answer at all is
            /// given up.
            function_silence_timeout_s: f64 = 10.0 => unit: "seconds", allowed: within(1.0, 3600.0);
            /// Time to connect to a function.
            function_connect_timeout_ms: u64 = 5000
                => unit: "milliseconds", allowed: within(1.0, 6e5);
            /// A call's body, and a function's answer, at most.
            body_bytes_max: Option<u64> = Worded(None, "no limit, for they stream")
                => unit: "bytes";
            // 1 GiB: base64 and JSON around it must still fit in memory several times over.
            /// A body that must be held whole, at most: a call that is handed to a v1 node, its
            /// answer, and what an embedded function works on.
            held_body_bytes_max: usize = MemoryShare { parts: 32, mib_min: 0, mib_max: 16 }
                => unit: "bytes", allowed: within(0.0, (1u64 << 30) as f64);
            /// What is held of an answer that streams faster than its client reads.
            window_bytes: usize = 256 << 10
                => unit: "bytes", allowed: within(16384.0, 16_777_216.0);
            /// What is kept of a call's body until its answer begins, so that the call can go
            /// elsewhere when it fails.
            retry_body_bytes_max: usize = 64 << 10
                => unit: "bytes", allowed: within(0.0, 16_777_216.0);
            /// How fn-sleep, fn-spin and fn-work draw their time unless the call says.
            fn_time_distribution: TimeDistribution = TimeDistribution::Constant
                => allowed: one_of(|| vec!["constant", "exponential"]);
            /// Mean of that time.
            fn_time_mean_ms: f64 = 100.0 => unit: "milliseconds", allowed: within(0.0, 3.6e6);
            /// Seed of the times drawn.
            fn_seed: Option<u64> = Worded(None, "a random one")
                => allowed: within(0.0, i64::MAX as f64);
            /// Effective cores of the board that fn-work emulates.
            fn_work_cores: f64 = 2.0 => unit: "cores", allowed: within(0.01, 1024.0);
        }

        "Bodies and memory" {
            /// Rate that a body must come with at least, after some seconds of grace. 0: any rate
            /// will do.
            body_rate_min: u64 = 4096 => unit: "bytes a second";
            /// Time that a body may take to arrive.
            body_timeout_s: f64 = 60.0 => unit: "seconds", allowed: within(0.001, 86400.0);
            /// What the bodies of all calls on the node hold together at most.
            bodies_bytes_max: u64 = MemoryShare { parts: 8, mib_min: 0, mib_max: 512 }
                => unit: "bytes";
            /// What the bodies of all requests to the learner hold together at most.
            learner_bodies_bytes_max: u64 = MemoryShare { parts: 16, mib_min: 0, mib_max: 256 }
                => unit: "bytes";
            /// What is learnt, entries held for reordering and rewards on their way take together
            /// at most.
            learner_memory_bytes_max: u64 = MemoryShare { parts: 8, mib_min: 1, mib_max: 1024 }
                => unit: "bytes", allowed: within((1u64 << 20) as f64, 1e15);
        }

        "Peers" {
            /// Time to connect to a peer.
            peer_connect_timeout_ms: u64 = 250
                => unit: "milliseconds", allowed: within(1.0, 60000.0);
            /// Time that a probe may take.
            probe_timeout_ms: u64 = 200 => unit: "milliseconds", allowed: within(1.0, 60000.0);
            /// Time to wait for a forwarded call's answer; not less than `function_timeout_s`.
            forward_timeout_s: f64 = 120.0 => unit: "seconds", allowed: within(0.001, 86400.0);
            /// Whether a peer at which calls fail is left out for a while.
            peer_ejection: bool = true;
            /// Time after which a connection to a peer whose machine does not answer at all is
            /// given up.
            peer_silence_timeout_s: f64 = 10.0 => unit: "seconds", allowed: within(1.0, 3600.0);
        }

        "Operation" {
            /// Names of this node under which browsers may change it, beside its addresses and
            /// names of the local network.
            host_names: Vec<String> = Vec::new()
                => allowed: form(|| "host names".to_owned()), flag: Some("host-name");
            /// Who may change the node through its routes: whoever reaches it, programs on its own
            /// machine, nobody.
            admin: Admin = Admin::Any
                => allowed: one_of(|| vec!["any", "loopback", "off"]), flag: Some("admin");
            /// What changes must bring, as `Authorization: Bearer TOKEN`. It is never shown.
            admin_token: Secret = Worded(Secret::default(), "none: changes need no token")
                => allowed: form(token);
            /// File with that token, in its place. It is read again when it changes.
            admin_token_file: Option<PathBuf> = Worded(None, "none") => unit: "file";
            /// Whether learners can be trained without the token.
            open_training: bool = false => flag: Some("open-training");
            /// File with the certificate (PEM, with those above it) by which clients are served on
            /// `scheduler_port` by TLS; needs `tls_key`.
            tls_cert: Option<PathBuf> = Worded(None, "none: by HTTP")
                => unit: "file", flag: Some("tls-cert");
            /// File with that certificate's key (PEM).
            tls_key: Option<PathBuf> = Worded(None, "none") => unit: "file", flag: Some("tls-key");
            /// Time that running calls have to finish when the node is told to stop.
            drain_timeout_s: u64 = 30 => unit: "seconds", allowed: within(0.0, 3600.0);
            /// How logs are written, on standard error.
            log_format: LogFormat = LogFormat::Text => allowed: one_of(|| vec!["text", "json"]);
            /// What is logged. The environment variable RUST_LOG wins over it.
            log_env: String = "production".to_owned()
                => allowed: form(|| "production, development, or a filter such as `info,p2pfaas=debug`".to_owned()),
                   v1_names: &["P2PFAAS_DEV_ENV"];
            /// Lines of one kind that are logged at once; then one a second, and what is left out
            /// is counted. 0: no limit.
            log_burst: u32 = 20 => unit: "lines";
        }
    }
}

/// Threads that can run at once on this machine.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
