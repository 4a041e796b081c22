//! `p2pfaas completions` and `p2pfaas man`: what a shell and its `man` can know of the command line.
//! Both are made from the definition of the arguments, so they never say anything else.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::{Shell, generate};
use clap_mangen::{Man, generate_to};

use super::output::say;
use super::{Failure, broken};

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell that the script is for.
    shell: Shell,
}

#[derive(Args)]
pub(super) struct ManArgs {
    /// Folder to write one page to for the program and for each subcommand; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the script that completes `command` in a shell.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    generate(args.shell, &mut command, name, &mut script);
    say(&String::from_utf8(script).map_err(broken)?)
}

/// Prints the page of `command`, or writes the pages of it and of all its subcommands to a folder.
pub(super) fn man(args: &ManArgs, command: Command) -> Result<(), Failure> {
    // Nobody looks for a page on `p2pfaas help`.
    let command = command.disable_help_subcommand(true);
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(broken)?;
        return say(&String::from_utf8(page).map_err(broken)?);
    };
    let unwritable =
        |why: std::io::Error| Failure::Configuration(format!("{}: {why}", folder.display()));
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    generate_to(command, folder).map_err(unwritable)?;
    say(&format!("The manual pages are in {}\n", folder.display()))
}
