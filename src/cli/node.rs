//! `p2pfaas node`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use ipnet::IpNet;

use super::output::say;
use super::{Failure, SchedulingArgs, broken, end_at_once, load, told_to_stop};
use crate::config::{Admin, Settings};
use crate::node::Node;
use crate::policy::registry::SchedulerSpec;
use crate::saved::{Dynamic, FlagOverrides, MachinePatch};
use crate::telemetry;
use crate::types::{InitServer, Neighbours};

// Flags that stand for a setting have no doc comments: those would be their help, which comes from the
// settings.
#[derive(Args)]
pub(super) struct NodeArgs {
    #[arg(long, value_name = "ADDR")]
    host: Option<IpAddr>,
    #[arg(long, value_name = "ADDR")]
    machine_ip: Option<IpAddr>,
    #[arg(long, value_name = "NAME")]
    machine_id: Option<String>,
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    #[arg(long, value_name = "DIR")]
    data_path: Option<PathBuf>,
    #[arg(long, value_name = "HOST", value_parser = parse_init_server)]
    init_server: Vec<String>,
    #[arg(long, value_name = "WHOM", value_parser = parse_neighbours)]
    neighbours: Option<String>,
    #[arg(long, value_name = "NAME=URL")]
    route: Vec<String>,
    #[arg(long)]
    embedded_functions: bool,
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    #[command(flatten)]
    scheduling: SchedulingArgs,
    #[arg(long, value_name = "NETWORK")]
    v1_peers: Vec<IpNet>,
    #[arg(long, value_name = "NAME", value_parser = parse_init_server)]
    host_name: Vec<String>,
    #[arg(long)]
    admin: Option<Admin>,
    #[arg(long)]
    open_training: bool,
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// TOML file with settings; --help lists them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings in force as TOML and exit.
    #[arg(long)]
    print_config: bool,
}

fn parse_init_server(text: &str) -> Result<String, String> {
    text.parse::<InitServer>().map(|_| text.to_owned())
}

fn parse_neighbours(text: &str) -> Result<String, String> {
    text.parse::<Neighbours>().map(|neighbours| neighbours.to_string())
}

impl NodeArgs {
    /// The flags that stand for settings. What can also be saved is not among them: it rules this
    /// run only, and as a setting it would be saved with the next change.
    fn settings(&self) -> Vec<(&'static str, config::Value)> {
        let mut flags: Vec<(&'static str, config::Value)> = Vec::new();
        let mut text = |key, value: Option<String>| {
            flags.extend(value.map(|value| (key, value.into())));
        };
        text("host", self.host.map(|ip| ip.to_string()));
        text("data_path", self.data_path.as_ref().map(|path| path.display().to_string()));
        text("workers", self.workers.map(|n| n.to_string()));
        text("admin", self.admin.map(|admin| format!("{admin:?}").to_lowercase()));
        text("open_training", self.open_training.then(|| "true".to_owned()));
        for (key, path) in [("tls_cert", &self.tls_cert), ("tls_key", &self.tls_key)] {
            text(key, path.as_ref().map(|path| path.display().to_string()));
        }
        text("embedded_functions", self.embedded_functions.then(|| "true".to_owned()));
        if !self.host_name.is_empty() {
            flags.push(("host_names", self.host_name.clone().into()));
        }
        if !self.v1_peers.is_empty() {
            let networks: Vec<String> = self.v1_peers.iter().map(ToString::to_string).collect();
            flags.push(("v1_peers", networks.into()));
        }
        if !self.route.is_empty() {
            flags.push(("routes", self.route.clone().into()));
        }
        flags
    }

    /// The flags that rule over saved values.
    fn overrides(&self) -> FlagOverrides {
        let machine = MachinePatch {
            machine_ip: self.machine_ip.map(|ip| ip.to_string()),
            machine_id: self.machine_id.clone(),
            machine_group_name: self.group.clone(),
            init_servers: (!self.init_server.is_empty()).then(|| self.init_server.clone()),
            neighbours: self.neighbours.clone(),
        };
        FlagOverrides { machine, ..self.scheduling.overrides() }
    }
}

/// What the node would run with, saved values and flags included, as TOML.
fn printed(settings: Settings, overrides: &FlagOverrides) -> Result<String, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::Configuration(why.to_string());
    let dynamic = Dynamic::load(&settings, overrides).map_err(|why| unusable(&why))?;
    let policy = dynamic.scheduler.build().map_err(|why| unusable(&why))?;
    let spec = SchedulerSpec::of(&*policy);
    let (limits, machine) = (dynamic.limits.running, dynamic.machine.running);
    let in_force = Settings {
        scheduler: [vec![spec.name], spec.parameters].concat().join(" "),
        parallel_running_functions_max: limits.k,
        queue_length_max: limits.queue_length_max,
        queue_enabled: limits.queue_enabled,
        machine_ip: machine.machine_ip,
        machine_id: machine.machine_id,
        machine_group_name: machine.machine_group_name,
        init_servers: machine.init_servers,
        neighbours: machine.neighbours.unwrap_or_default().to_string(),
        ..settings
    };
    let hidden = in_force.hidden().into_iter().map(|key| {
        format!("# {} is set and not shown; give it by {} as well\n", key.name, key.environment())
    });
    let shown = toml::to_string(&in_force).map_err(broken)?;
    Ok(hidden.chain([shown]).collect())
}

pub(super) fn run(args: &NodeArgs) -> Result<(), Failure> {
    let loaded = load(args.config.as_ref(), &args.settings())?;
    let (settings, overrides) = (loaded.settings, args.overrides());
    overrides.machine.check().map_err(Failure::Configuration)?;
    if args.print_config {
        return say(&printed(settings, &overrides)?);
    }
    telemetry::start(&settings.logs()).map_err(Failure::Configuration)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let system = actix_rt::System::new();
    let made = missing(&settings.data_path);
    let ended = system.block_on(async {
        let told_to_stop = told_to_stop()?;
        let mut node = Node::start(settings, &overrides).inspect_err(|_| remove(&made))?;
        announce(&node);
        tokio::select! {
            () = told_to_stop => {}
            () = node.broken() => return Err(broken("the supervisor ended")),
        }
        node.stop().await;
        Ok(())
    });
    end_at_once(system);
    ended
}

/// `folder` and those above it that are not there yet, the innermost first.
fn missing(folder: &Path) -> Vec<PathBuf> {
    let named = folder.ancestors().filter(|above| !above.as_os_str().is_empty());
    named.take_while(|above| !above.exists()).map(Path::to_owned).collect()
}

/// Removes the folders that a start made which failed. One that holds something stays.
fn remove(made: &[PathBuf]) {
    for folder in made {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn announce(node: &Node) {
    let settings = &node.state.settings;
    let identity = &node.state.published.load().identity;
    tracing::info!(
        version = crate::VERSION,
        host = %settings.host,
        scheduler_port = settings.scheduler_port,
        discovery_port = settings.discovery_port,
        learner_port = settings.learner_port,
        learner_ws_port = settings.learner_ws_port,
        machine_ip = identity.ip_text(),
        machine_id = identity.id,
        scheduler = %node.state.in_force.load().full_name,
        k = node.state.gate.k(),
        data_path = %settings.data_path.display(),
        "the node serves"
    );
}
