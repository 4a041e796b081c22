//! The command line: arguments to one subcommand. What is wrong with them, or with the
//! configuration, ends the program with a telling exit code before a port is bound.

mod bench;
mod cluster;
mod credentials;
mod fleet;
mod function;
mod health;
mod key;
mod node;
mod output;
mod shell;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use self::output::complain;
use crate::config::Settings;
use crate::keys::{Key, Problem, joined};
use crate::memory;
use crate::node::StartError;
use crate::policy::registry::{ALGORITHMS, SchedulerSpec};
use crate::saved::{FlagOverrides, LimitsPatch};
use crate::storage::StorageError;
use crate::types::printable;

/// A node runtime for Functions-as-a-Service on edge and fog machines that share their work as
/// peers.
#[derive(Parser)]
#[command(name = "p2pfaas", version = VERSION, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")");

#[derive(Subcommand)]
enum Command {
    /// Run one node.
    Node(Box<node::NodeArgs>),
    /// Run a cluster of local nodes in this process, with embedded functions to call.
    Cluster(cluster::ClusterArgs),
    /// Run an embedded function as a server of its own.
    Function(function::FunctionArgs),
    /// Ask a server on this machine whether it serves: exit code 0 if so.
    Health(health::HealthArgs),
    /// Make the secret that keeps strangers out of a cluster.
    Key(key::KeyArgs),
    /// Set up or look at all nodes of a fleet at once, over HTTP.
    Fleet(fleet::FleetArgs),
    /// Make experiments on a fleet: load, results, reports.
    Bench(bench::BenchArgs),
    /// Print the script that completes this program's arguments in a shell.
    Completions(shell::CompletionsArgs),
    /// Print this program's manual page, or write one page for each subcommand.
    Man(shell::ManArgs),
}

// No doc comments on the fields: they would be the flags' help, which comes from the settings.
/// The flags of the scheduler, K and the queue. They win over saved values for this run and are
/// not saved.
#[derive(Args, Clone, Debug, Default)]
struct SchedulingArgs {
    #[arg(long, value_name = "'NAME P1 P2 …'", value_parser = parse_scheduler)]
    scheduler: Option<SchedulerSpec>,
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    k: Option<u32>,
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    queue_length: Option<u32>,
}

fn parse_scheduler(text: &str) -> Result<SchedulerSpec, String> {
    let spec = SchedulerSpec::from_words(text);
    spec.build().map_err(|why| why.to_string())?;
    Ok(spec)
}

impl SchedulingArgs {
    fn overrides(&self) -> FlagOverrides {
        FlagOverrides {
            limits: LimitsPatch {
                parallel_running_functions_max: self.k,
                queue_length_max: self.queue_length,
                queue_enabled: None,
            },
            scheduler: self.scheduler.clone(),
            ..FlagOverrides::default()
        }
    }
}

/// How a subcommand ends otherwise than well.
enum Failure {
    /// Something is wrong with the configuration.
    Configuration(String),
    /// An address cannot be listened on, or a node does not do as it is asked.
    Unavailable(String),
    /// The node, or something of this machine, broke.
    Broken(String),
    /// Told to stop in the middle.
    Interrupted(String),
}

impl Failure {
    /// The exit code, after sysexits.h.
    fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) => 78,
            Self::Unavailable(_) => 69,
            Self::Broken(_) => 70,
            // As shells count an end by SIGINT.
            Self::Interrupted(_) => 130,
        }
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        let lines = joined(&problems, "\n  ");
        Self::Configuration(format!("the configuration cannot be used:\n  {lines}"))
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Bind(_) | StartError::Storage(StorageError::InUse { .. }) => {
                Self::Unavailable(error.to_string())
            }
            StartError::Storage(_)
            | StartError::Backend(_)
            | StartError::AdminToken(_)
            | StartError::ClusterKey(_)
            | StartError::Tls(_)
            | StartError::Scheduler(_) => Self::Configuration(error.to_string()),
        }
    }
}

/// Lets the program have as many connections as it may: each is an open file, and many systems
/// begin with 1024 of them though they allow far more.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is not allowed, what there is has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The heap's settings for little memory: large blocks go back to the system at once, and few are kept.
/// By itself the heap keeps the more of what is given back the larger the blocks were, up to tens of
/// mebibytes for each thread, which a node of 64 MiB does not have.
const SMALL_HEAP: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("MALLOC_ARENA_MAX", "2"),
];
/// Memory up to which they are set.
const LITTLE_MEMORY_BYTES: u64 = 512 << 20;

/// Begins the program anew with the heap's settings for little memory, if there is little and nobody
/// has set any: the heap reads them once, from the environment, before anything runs.
fn settle_heap() {
    let set = |(name, _): &(&str, &str)| std::env::var_os(name).is_some();
    if memory::share(1, u64::MAX) > LITTLE_MEMORY_BYTES || SMALL_HEAP.iter().any(set) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let arguments = std::env::args_os().skip(1);
        // It only comes back if that fails; then the program runs as it is.
        let _ = process::Command::new(program).args(arguments).envs(SMALL_HEAP).exec();
    }
}

/// Runs the program.
pub fn run() -> ExitCode {
    settle_heap();
    raise_open_files();
    let cli = match Cli::from_arg_matches(&command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Node(args) => node::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Function(args) => function::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Fleet(args) => fleet::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => shell::completions(&args, command()),
        Command::Man(args) => shell::man(&args, command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.code();
            let (Failure::Configuration(why)
            | Failure::Unavailable(why)
            | Failure::Broken(why)
            | Failure::Interrupted(why)) = failure;
            complain(&format!("p2pfaas: {}", shown(&why)));
            ExitCode::from(code)
        }
    }
}

/// The definition of all arguments. A flag that stands for a setting has the setting's help, if it has
/// none of its own.
fn command() -> clap::Command {
    let with_help = |arg: clap::Arg| {
        let stands_for = |key: &&Key| key.flag.is_some() && key.flag == arg.get_long();
        match Settings::KEYS.iter().find(stands_for) {
            Some(key) if arg.get_help().is_none() => {
                let repeated = matches!(arg.get_action(), ArgAction::Append);
                let may_be = if repeated { " [may be repeated]" } else { "" };
                arg.help(format!("{}{may_be}", key.help()))
            }
            _ => arg,
        }
    };
    Cli::command()
        .mut_subcommand("node", |node| node.mut_args(with_help).after_long_help(settings_help()))
        .mut_subcommand("cluster", |cluster| cluster.mut_args(with_help))
}

/// Every algorithm and every setting, for `p2pfaas node --help`.
fn settings_help() -> String {
    use std::fmt::Write;
    let mut text = String::from("Scheduling algorithms and their parameters:\n");
    for algorithm in ALGORITHMS {
        let _ = writeln!(text, "  {} {}", algorithm.name, algorithm.usage);
    }
    text.push_str(
        "\nSettings, for --config FILE (TOML) and the environment (P2PFAAS_<KEY>, upper case). \
         Later wins:\ndefaults, file, environment, values changed over HTTP and saved in the data \
         path, flags.\n",
    );
    let mut group = "";
    for key in Settings::KEYS {
        if group != key.group {
            group = key.group;
            let _ = writeln!(text, "\n{group}:");
        }
        let _ = writeln!(text, "  {}\n         {}", key.name, key.help());
    }
    text.push_str(
        "\nExit codes: 0 stopped as told, 2 wrong arguments, 69 an address cannot be listened on or \
         another node uses the data path, \
         \n70 the node broke, 78 the configuration or a file in the data path cannot be used.\n",
    );
    text
}

/// Loads the settings; `flags` are those that stand for settings.
fn load(
    file: Option<&PathBuf>,
    flags: &[(&str, config::Value)],
) -> Result<crate::config::Loaded, Failure> {
    let is_secret =
        |name: &str| Settings::KEYS.iter().any(|key| key.secret && key.environment() == name);
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        // A secret that is no text must not count as none: without one the node is open.
        let value = match value.into_string() {
            Err(value) if is_secret(&name) => value.to_string_lossy().into_owned(),
            value => value.ok()?,
        };
        Some((name, value))
    });
    Ok(Settings::load(file.map(PathBuf::as_path), environment, flags)?)
}

fn broken(why: impl std::fmt::Display) -> Failure {
    Failure::Broken(why.to_string())
}

/// Ends `system` without waiting for its blocking threads: a look-up of a name can hang in the
/// system's resolver for many seconds, and nobody needs its answer any more.
fn end_at_once(system: actix_rt::SystemRunner) {
    std::mem::forget(system);
}

/// Characters of a line on a failure that are shown; nodes and files tell what stands in it.
const LINE_CHARS_MAX: usize = 8192;

/// A failure's lines without anything that would command the terminal.
fn shown(why: &str) -> String {
    let lines: Vec<String> = why.lines().map(|line| printable(line, LINE_CHARS_MAX)).collect();
    lines.join("\n")
}

/// Characters of a cell that are shown; nodes tell what stands in it.
const CELL_CHARS_MAX: usize = 200;

/// Rows of cells, each column as wide as its widest.
fn table(rows: &[Vec<String>]) -> String {
    let shown = |row: &Vec<String>| -> Vec<String> {
        row.iter().map(|cell| printable(cell, CELL_CHARS_MAX)).collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Listens for SIGINT and SIGTERM from now on. What it gives resolves at the first; a second one ends the program
/// at once.
///
/// Whoever says that it serves must listen before: a signal that comes earlier ends the program without a word, or
/// is lost where it is the first process of a container.
fn told_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        actix_rt::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("told to stop again: ending at once");
            std::process::exit(130);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed_and_every_setting_is_in_the_help() {
        command().debug_assert();
        let help = settings_help();
        for key in Settings::KEYS {
            assert!(help.contains(&format!("\n  {}\n", key.name)), "{}", key.name);
        }
        let told = "Port of the learner API. 0 turns it off. [port, 0 to 65535] [default: 19020]";
        assert!(help.contains(told), "{help}");
    }

    #[test]
    fn every_argument_has_help_and_every_flag_of_a_setting_is_an_argument() {
        let all = command();
        for subcommand in all.get_subcommands() {
            for arg in subcommand.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {arg:?}", subcommand.get_name());
            }
        }
        let node = all.find_subcommand("node").expect("it is there");
        let help = |flag: &str| {
            let arg = node.get_arguments().find(|arg| arg.get_long() == Some(flag));
            arg.unwrap_or_else(|| panic!("--{flag}")).get_help().expect("help").to_string()
        };
        for key in Settings::KEYS {
            if let Some(flag) = key.flag {
                assert!(help(flag).starts_with(&key.help()), "{flag}");
            }
        }
        let workers = "Threads that serve calls. [threads, 1 to 256] [default: one per core]";
        assert_eq!(help("workers"), workers);
        assert!(help("route").ends_with(" [may be repeated]"));
    }

    #[test]
    fn a_tables_columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = [row(["NODE", "K"]), row(["10.0.0.1", "4"]), row(["é", "failed"])];
        assert_eq!(table(&rows), "NODE      K\n10.0.0.1  4\né         failed\n");
    }

    #[test]
    fn what_a_node_tells_neither_fills_the_terminal_nor_commands_it() {
        let rows = [vec!["x".repeat(100_000), "\u{1b}[31mred\r\n".to_owned()]];
        let table = table(&rows);
        assert!(table.len() < 300 && table.lines().count() == 1, "{table:?}");
        assert!(!table.contains('\u{1b}') && table.contains('…'));
        let failure = shown("two nodes failed:\n  10.0.0.1: \u{1b}]0;x\u{7}\r\n  10.0.0.2: no");
        assert_eq!(failure, "two nodes failed:\n  10.0.0.1: \u{fffd}]0;x\u{fffd}\n  10.0.0.2: no");
    }
}
