//! `p2pfaas cluster N`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::future::{join_all, select_all};

use super::output::say;
use super::{Failure, SchedulingArgs, broken, load, told_to_stop};
use crate::config::{Admin, Settings};
use crate::membership::topology::Topology;
use crate::node::Node;
use crate::telemetry;
use crate::types::Neighbours;

/// Nodes in one process at most.
const NODES_MAX: u8 = 250;

/// Nodes that each joins through at most; the others it hears of.
const JOINED_MAX: usize = 16;

#[derive(Args)]
pub(super) struct ClusterArgs {
    /// How many nodes, 1 to 250.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    nodes: u8,
    /// Address of the first node; the others take the next ones.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    base: Ipv4Addr,
    /// Who is whose neighbour: `all`, `ring`, `grid`, `tree` or `random D`.
    #[arg(long, value_name = "SHAPE", default_value = "all")]
    topology: Topology,
    /// Folder for the nodes' files, one folder a node in it [default: a temporary one, removed at
    /// the end].
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    /// Threads that serve calls, per node.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    #[command(flatten)]
    scheduling: SchedulingArgs,
    /// TOML file with settings for all nodes; `p2pfaas node --help` lists them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ClusterArgs {
    fn addresses(&self) -> Result<Vec<Ipv4Addr>, Failure> {
        let first = u32::from(self.base);
        (0..u32::from(self.nodes))
            .map(|n| first.checked_add(n).map(Ipv4Addr::from))
            .collect::<Option<_>>()
            .ok_or_else(|| {
                Failure::Configuration(format!("no {} addresses from {}", self.nodes, self.base))
            })
    }
}

/// One node's settings: as configured, but for where it is and whom it knows.
fn settings_of(base: &Settings, ip: Ipv4Addr, all: &[Ipv4Addr], folder: &Path) -> Settings {
    let others = all.iter().filter(|other| **other != ip).take(JOINED_MAX);
    Settings {
        host: ip.into(),
        machine_ip: ip.to_string(),
        machine_id: String::new(),
        data_path: folder.join(ip.to_string()),
        init_servers: others.map(Ipv4Addr::to_string).collect(),
        ..base.clone()
    }
}

pub(super) fn run(args: &ClusterArgs) -> Result<(), Failure> {
    let flags = [("workers", args.workers.to_string().into()), ("embedded_functions", true.into())];
    let mut loaded = load(args.config.as_ref(), &flags)?;
    if loaded.settings.log_env == Settings::default().log_env {
        // What is on the terminal is for the person who tries the cluster.
        loaded.settings.log_env = "warn".to_owned();
    }
    if args.base.is_loopback() && loaded.settings.admin == Admin::Any {
        loaded.settings.admin = Admin::Loopback;
    }
    telemetry::start(&loaded.settings.logs()).map_err(Failure::Configuration)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let addresses = args.addresses()?;
    let temporary = match &args.data_path {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(broken)?),
    };
    let chosen = args.data_path.as_deref();
    let folder =
        chosen.or(temporary.as_ref().map(tempfile::TempDir::path)).unwrap_or(Path::new("."));

    actix_rt::System::new().block_on(async {
        let told_to_stop = told_to_stop()?;
        let all: Vec<IpAddr> = addresses.iter().copied().map(IpAddr::from).collect();
        let start = |(ip, neighbours): (&Ipv4Addr, Neighbours)| {
            let mut settings = settings_of(&loaded.settings, *ip, &addresses, folder);
            if args.topology != Topology::All {
                settings.neighbours = neighbours.to_string();
            }
            Node::start(settings, &args.scheduling.overrides())
        };
        let told = addresses.iter().zip(args.topology.told(&all));
        let mut nodes = told.map(start).collect::<Result<Vec<_>, _>>()?;
        say(&welcome(&nodes, chosen))?;
        let broke = select_all(nodes.iter_mut().map(|node| Box::pin(node.broken())));
        tokio::select! {
            () = told_to_stop => {}
            _ = broke => return Err(broken("a node's supervisor ended")),
        }
        let stopping =
            "Stopping: no new calls, those that run may finish. Ctrl-C again ends at once.\n";
        let told = say(stopping);
        join_all(nodes.into_iter().map(Node::stop)).await;
        told
    })
}

/// How calls are made.
fn scheme(settings: &Settings) -> &'static str {
    if settings.tls_cert.is_some() { "https" } else { "http" }
}

/// What a person needs to go on.
fn welcome(nodes: &[Node], data_path: Option<&Path>) -> String {
    use std::fmt::Write;
    let mut text = format!("{} nodes are up and know each other:\n\n", nodes.len());
    for node in nodes {
        let (settings, published) = (&node.state.settings, node.state.published.load());
        let _ = writeln!(
            text,
            "  {:<24} calls {}://{}:{}   machines :{}/list   learner :{}/learner/stats",
            published.identity.id,
            scheme(settings),
            settings.host,
            settings.scheduler_port,
            settings.discovery_port,
            settings.learner_port
        );
    }
    let Some(first) = nodes.first() else { return text };
    let settings = &first.state.settings;
    let api = format!("{}://{}:{}", scheme(settings), settings.host, settings.scheduler_port);
    let _ = writeln!(
        text,
        "\nScheduler {}, K = {}. Files: {}.\n\nCall a function:\n\n  \
         curl -i -d hello {api}/function/fn-echo\n\nCtrl-C stops them.",
        first.state.in_force.load().full_name,
        first.state.gate.k(),
        data_path
            .map_or("temporary, see --data-path".to_owned(), |path| path.display().to_string()),
    );
    text
}
