//! The table of a scenario's keys. An entry holds everything that is told of a key; what several must be
//! together is in `check.rs`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::values::{Learning, Payload, RecordedArrivals};
use super::world::{
    SimulatedFault, SimulatedNetwork, SimulatedNodes, SimulatedOverheads, SimulatedService,
};
use crate::experiment::design::arrivals::Process;
use crate::keys::{Worded, form, key_table, one_of, within};
use crate::types::List;

key_table! {
    /// All keys of a scenario.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Scenario {
        "The experiment and its fleet" {
            /// What it is called: in the report, and the folder of its results.
            name: String = "experiment".to_owned()
                => allowed: form(|| "letters, digits, '-', '_' and '.'".to_owned());
            /// Fleet file (TOML), or a hosts file with one address or host name a line; relative to
            /// the scenario's folder.
            fleet: PathBuf = PathBuf::from("fleet.toml") => unit: "file";
            /// Whether the scheduler API of every node is asked by https, and not only of those that the
            /// fleet file says so of. Whose certificates are believed, `--ca` says.
            tls: bool = false;
            /// Port of the scheduler API on every node.
            scheduler_port: u16 = 18080 => unit: "port";
            /// Port of the discovery API on every node.
            discovery_port: u16 = 19000 => unit: "port";
            /// Port of the learner API on every node.
            learner_port: u16 = 19020 => unit: "port";
        }

        "The load" {
            /// The function that is called.
            function: String = "fn-echo".to_owned()
                => allowed: form(|| "a function's name".to_owned());
            /// What is sent: tables of name, file (none: an empty body), content_type, mix (a
            /// weight), task_type, query (`{seed}` in it becomes a number of the request's own, and
            /// `{duration_ms}` the call's recorded duration).
            payloads: Vec<Payload> = Worded(vec![Payload::default()], "an empty body")
                => unit: "tables", allowed: form(|| format!("mix: {}", Payload::MIX));
            /// Time that a run lasts.
            duration_s: f64 = 60.0 => unit: "seconds", allowed: within(0.001, 1e6);
            /// How arrivals are spaced.
            arrivals: Process = Process::Poisson
                => allowed: one_of(|| vec!["poisson", "deterministic"]);
            /// Requests to each node: one number for all, or one per node.
            rates: List<f64> = List(vec![10.0])
                => unit: "requests a second", allowed: within(0.0, 1e6);
            /// Files of index,value that the rate follows instead of `rates`: one per node, or one name in
            /// which an n in braces stands for the node's number, from 0. `p2pfaas bench trace` makes
            /// some.
            traces: List<PathBuf> = List(Vec::new()) => unit: "files";
            /// Calls as somebody recorded them, instead of `rates`, `traces` and `arrivals`: file, from_s
            /// (the second of the recording that a run begins with, 0 when not given) and speed (recorded
            /// seconds that pass in one second of the run, 1 when not given). The file has invocations
            /// of a minute (Azure Functions 2019), an invocation a row (2021), or at_s,node and perhaps
            /// payload. A call whose node is not told goes to that of its function; functions go round
            /// the nodes. Load factors send each call as many times: a part of a time by chance, and all
            /// but the first somewhere in the same recorded minute.
            recording: Option<RecordedArrivals> = Worded(None, "none") => unit: "table";
            /// Rate where a trace is 0.
            min_load: f64 = 0.0 => unit: "requests a second", allowed: within(0.0, 1e6);
            /// Rate where a trace is 1; not less than `min_load`.
            max_load: f64 = 20.0 => unit: "requests a second", allowed: within(0.0, 1e6);
            /// The point of the trace that a run begins with, from 0; after the last comes the
            /// first.
            trace_shift: u32 = 0 => unit: "points";
            /// How many times the trace is gone through in a run.
            trace_repetitions: u32 = 1 => unit: "times", allowed: within(1.0, 1e4);
            /// Time after which a call without an answer is given up.
            request_timeout_s: f64 = 30.0 => unit: "seconds", allowed: within(0.001, 86400.0);
            /// Calls under way at once; beyond it calls count as errors and are not sent.
            in_flight_max: usize = 10_000 => unit: "calls", allowed: within(1.0, 6e4);
        }

        "The sweep: a run for every combination of these" {
            /// Scheduling algorithms with their parameters.
            schedulers: List<String> = Worded(List(Vec::new()), "as the nodes are")
                => allowed: form(|| "NAME P1 P2 …".to_owned());
            /// Factors by which all rates, or the calls of a recording, are multiplied.
            load_factors: List<f64> = List(vec![1.0]) => unit: "factors", allowed: within(0.0, 1e4);
            /// Factors by which all deadlines are multiplied.
            deadline_factors: List<f64> = List(vec![1.0])
                => unit: "factors", allowed: within(0.001, 1e4);
            /// Seeds; the same gives the same requests at the same times.
            seeds: List<u64> = List(vec![1]);
        }

        "What is asked of the nodes" {
            /// Who is whose neighbour: all, in a ring, a grid, a tree, or each with up to D others by
            /// chance.
            topology: Option<String> = Worded(None, "as the nodes are")
                => allowed: form(|| "`all`, `ring`, `grid`, `tree` or `random D`".to_owned());
            /// Times within which calls should be answered, one per task type; further types have the
            /// last one.
            deadlines_s: List<f64> = Worded(List(Vec::new()), "empty: no deadlines")
                => unit: "seconds", allowed: within(1e-6, 86400.0);
            /// K of all nodes: functions that run at once.
            k: Option<u32> = Worded(None, "as the nodes are") => unit: "calls";
            /// Calls that may wait on a node.
            queue_length: Option<u32> = Worded(None, "as the nodes are") => unit: "calls";
            /// Whether calls may wait at all.
            queue_enabled: Option<bool> = Worded(None, "as the nodes are");
            /// Who trains under LearningScheduler: the bench, which sends each call's reward to the
            /// node that it called; the nodes by themselves; or nobody, and learners are not reset.
            learning: Learning = Learning::Client
                => allowed: one_of(|| vec!["client", "node", "off"]);
            /// Parameters of all learners, for example `{ actions_n = 5, alpha = 0.1 }`.
            learner: Map<String, Value> = Map::new()
                => allowed: form(|| "parameters of the learner".to_owned());
            /// Entries that the bench sends to a node's learner at once; what is there goes after 5
            /// s in any case.
            train_batch: usize = 20 => unit: "entries", allowed: within(1.0, 1e4);
            /// Time of the same load before a run under an algorithm that learns; not measured. Of a
            /// recording it is the same calls, from `from_s` on.
            learner_warm_up_s: f64 = 0.0 => unit: "seconds", allowed: within(0.0, 1e6);
            /// Time that the fleet has to become quiet between runs.
            quiet_timeout_s: f64 = 60.0 => unit: "seconds", allowed: within(0.0, 86400.0);
            /// Whether to look, before the runs, for what would spoil them.
            checks: bool = true;
            /// Mean service time. When given, the report holds refusals and times against
            /// M/M/K/(K+Q).
            theory_service_s: Option<f64> = Worded(None, "not given")
                => unit: "seconds", allowed: within(1e-6, 86400.0);
        }

        "What a simulation knows and real nodes show" {
            /// The nodes: count (none: those of the fleet file, with its K and queue), k, cores and speed, each one
            /// number or a list that is gone through by turns, and membership, how they hear who is there: `ruled` or
            /// `swim` (none: `swim` if there are faults and 100 nodes at most).
            nodes: SimulatedNodes = SimulatedNodes::default() => unit: "table";
            /// The network: latency_ms one way, deviation_ms, bandwidth_mbit, loss, client_latency_ms, and pairs, a CSV
            /// file of from,to,latency_ms.
            network: SimulatedNetwork = Worded(SimulatedNetwork::default(), "messages take no time") => unit: "table";
            /// What functions take: durations, a CSV file of recorded ones, in place of what the queries and the
            /// recording say; alone, whether calls do not slow each other down (as under fn-sleep).
            service: SimulatedService = Worded(SimulatedService::default(), "as the queries say") => unit: "table";
            /// What nodes and HTTP take: client_ms, probe_ms, forward_ms, end_ms. `p2pfaas bench calibrate` measures
            /// them.
            overheads: SimulatedOverheads = SimulatedOverheads::default() => unit: "table";
            /// What goes wrong: tables of kind (`kill`, `stall` or `part`), nodes (numbers from 0), at_s, for_s.
            faults: Vec<SimulatedFault> = Worded(Vec::new(), "nothing") => unit: "tables";
        }
    }
}
