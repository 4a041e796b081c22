//! `p2pfaas fleet`: all nodes at once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use futures_util::future::join_all;

use super::credentials::TrustArgs;
use super::output::say;
use super::{Failure, table};
use crate::fleet::{Api, ApiError, Applied, Fleet, FleetAccess, Member, Wanted, look_up};
use crate::policy::registry::SchedulerSpec;
use crate::storage::{TEXT_BYTES_MAX, read_text};

#[derive(Args)]
pub(super) struct FleetArgs {
    #[command(subcommand)]
    command: Command,
}

/// Which nodes, and how all of them are reached.
#[derive(Args)]
struct Nodes {
    /// Fleet file (TOML), or a hosts file with one address or host name a line.
    #[arg(long, value_name = "FILE", default_value = "fleet.toml")]
    fleet: PathBuf,
    #[command(flatten)]
    ports: Ports,
}

/// The ports, which are the same on every node, and how they are asked.
#[derive(Args)]
struct Ports {
    /// Port of the scheduler API on every node.
    #[arg(long, value_name = "PORT", default_value_t = 18080)]
    scheduler_port: u16,
    /// Port of the discovery API on every node.
    #[arg(long, value_name = "PORT", default_value_t = 19000)]
    discovery_port: u16,
    /// Port of the learner API on every node.
    #[arg(long, value_name = "PORT", default_value_t = 19020)]
    learner_port: u16,
    /// Ask the scheduler API of every node by https, and not only of those that the file says so of.
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    trust: TrustArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Make every node what the file says, and show what was changed.
    ///
    /// Nodes that are that already are left alone. Learner parameters that act from the next reset
    /// on wait for `fleet reset-learners`.
    #[command(after_long_help = FILE_HELP)]
    Apply {
        /// Fleet file (TOML), or a hosts file with one address or host name a line.
        #[arg(value_name = "FILE", default_value = "fleet.toml")]
        fleet: PathBuf,
        /// Only show what would be changed.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        ports: Ports,
    },
    /// Show how every node is doing.
    Status(Nodes),
    /// Swap the scheduling algorithm on every node.
    Scheduler {
        /// The algorithm.
        name: String,
        /// Its parameters.
        #[arg(allow_negative_numbers = true)]
        parameters: Vec<String>,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Make every learner forget what it learnt; its parameters act from then on.
    ResetLearners(Nodes),
}

const FILE_HELP: &str = "\
A fleet file (what stands at the top is for all nodes, {n} in a name becomes the node's number):

  name = \"board-{n}\"
  group = \"lab\"
  init_server = \"10.0.0.1\"
  k = 3
  queue_length = 2
  scheduler = \"LearningScheduler 2\"
  nodes = [\"10.0.0.1\", \"10.0.0.2\", { address = \"10.0.0.3\", k = 1 }]

  [learner]
  actions_n = 5
  window_size = 10";

fn read(file: &Path) -> Result<Fleet, Failure> {
    let unusable =
        |why: &dyn std::fmt::Display| Failure::Configuration(format!("{}: {why}", file.display()));
    let text = read_text(file, TEXT_BYTES_MAX).map_err(|why| unusable(&why))?;
    Fleet::parse(&text, &look_up).map_err(|why| unusable(&why))
}

fn row(cells: &[&dyn std::fmt::Display]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

/// Asks all nodes at once; answers with each node's address or name, in the file's order.
async fn all<T>(
    fleet: &Fleet,
    ask: impl AsyncFn(&Member) -> Result<T, ApiError>,
) -> Vec<(&str, Result<T, ApiError>)> {
    let ask = &ask;
    join_all(fleet.0.iter().map(|member| async move { (&*member.host, ask(member).await) })).await
}

/// Ends well if nothing `failed`, of `all` nodes; else names what did.
fn outcome(failed: &[(&str, String)], all: usize) -> Result<(), Failure> {
    if failed.is_empty() {
        return Ok(());
    }
    let nodes = failed.iter().map(|(host, _)| host).collect::<HashSet<_>>().len();
    let lines: Vec<String> = failed.iter().map(|(host, why)| format!("  {host}: {why}")).collect();
    Err(Failure::Unavailable(format!("{nodes} of {all} nodes failed:\n{}", lines.join("\n"))))
}

/// The nodes that did not answer as they should.
fn silent<'a, T>(answers: &[(&'a str, Result<T, ApiError>)]) -> Vec<(&'a str, String)> {
    let failed = answers.iter().filter_map(|(host, answer)| Some((host, answer.as_ref().err()?)));
    failed.map(|(host, why)| (*host, why.to_string())).collect()
}

/// What was changed, node by node, and what was not as the file says.
fn changes<'a>(
    answers: &[(&'a str, Result<Applied, ApiError>)],
) -> (String, Vec<(&'a str, String)>) {
    let mut rows = vec![row(&[&"NODE", &"WHAT", &"BEFORE", &"AFTER"])];
    let mut failed = silent(answers);
    for (host, answer) in answers {
        let Ok(Applied { plan, failed: ended }) = answer else {
            rows.push(row(&[host, &"failed, see below"]));
            continue;
        };
        if plan.changes.is_empty() && plan.impossible.is_empty() {
            rows.push(row(&[host, &"nothing to change"]));
        }
        for change in &plan.changes {
            let done = ended.as_ref().is_none_or(|(step, _)| change.step < *step);
            let after = if done { &*change.after } else { "failed, see below" };
            rows.push(row(&[host, &change.what, &change.before, &after]));
        }
        failed.extend(ended.iter().map(|(_, why)| (*host, why.to_string())));
        failed.extend(plan.impossible.iter().map(|why| (*host, why.clone())));
    }
    (table(&rows), failed)
}

async fn apply(fleet: &Fleet, api: &Api, dry: bool) -> Result<(), Failure> {
    let ask = async |member: &Member| api.apply(member.address, &member.wanted, dry).await;
    let answers = all(fleet, ask).await;
    let (table, failed) = changes(&answers);
    say(&table)?;
    outcome(&failed, answers.len())
}

async fn status(fleet: &Fleet, api: &Api) -> Result<(), Failure> {
    let answers = all(fleet, async |member| api.status(member.address).await).await;
    let mut rows = vec![row(&[
        &"NODE",
        &"VERSION",
        &"SCHEDULER",
        &"K",
        &"RUNNING",
        &"WAITING",
        &"PEERS",
        &"NEIGHBOURS",
        &"EPSILON",
        &"MODEL AGE",
    ])];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for (host, answer) in &answers {
        rows.push(match answer {
            Err(_) => row(&[host, &"failed, see below"]),
            Ok(s) => {
                let epsilon = or_dash(s.epsilon.map(|epsilon| format!("{epsilon:.4}")));
                let age = or_dash(s.model_age_s.map(|age| format!("{age:.0} s")));
                row(&[
                    host,
                    &s.version,
                    &s.scheduler,
                    &s.load.k,
                    &s.load.running,
                    &s.load.waiting,
                    &s.peers,
                    &or_dash(s.neighbours.map(|count| count.to_string())),
                    &epsilon,
                    &age,
                ])
            }
        });
    }
    say(&table(&rows))?;
    outcome(&silent(&answers), answers.len())
}

async fn reset_learners(fleet: &Fleet, api: &Api) -> Result<(), Failure> {
    let answers = all(fleet, async |member| api.reset_learner(member.address).await).await;
    let reset = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    say(&format!("{reset} learners were reset\n"))?;
    outcome(&silent(&answers), answers.len())
}

pub(super) fn run(args: &FleetArgs) -> Result<(), Failure> {
    let (file, ports) = match &args.command {
        Command::Apply { fleet, ports, .. } => (fleet, ports),
        Command::Status(nodes)
        | Command::Scheduler { nodes, .. }
        | Command::ResetLearners(nodes) => (&nodes.fleet, &nodes.ports),
    };
    let mut fleet = read(file)?;
    fleet.0.iter_mut().for_each(|member| member.tls |= ports.tls);
    let access = FleetAccess::new(ports.trust.credentials()?, &fleet);
    let access = access.map_err(|why| Failure::Configuration(why.to_string()))?;
    if let Command::Scheduler { name, parameters, .. } = &args.command {
        let spec = SchedulerSpec { name: name.clone(), parameters: parameters.clone() };
        spec.build().map_err(|why| Failure::Configuration(why.to_string()))?;
        let wanted = Wanted { scheduler: Some(spec), ..Wanted::default() };
        fleet.0.iter_mut().for_each(|member| member.wanted = wanted.clone());
    }
    actix_rt::System::new().block_on(async {
        let Ports { scheduler_port, discovery_port, learner_port, .. } = *ports;
        let api = Api::new(scheduler_port, discovery_port, learner_port, &access);
        match &args.command {
            Command::Apply { dry_run, .. } => apply(&fleet, &api, *dry_run).await,
            Command::Scheduler { .. } => apply(&fleet, &api, false).await,
            Command::Status(_) => status(&fleet, &api).await,
            Command::ResetLearners(_) => reset_learners(&fleet, &api).await,
        }
    })
}
