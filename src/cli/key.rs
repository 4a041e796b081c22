//! `p2pfaas key`.

use clap::{Args, Subcommand};

use super::Failure;
use super::output::say;
use crate::trust::{ClusterKey, KEY_BYTES};

#[derive(Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    what: KeyCommand,
}

#[derive(Clone, Copy, Subcommand)]
enum KeyCommand {
    /// Make a cluster key by chance and print it. Whoever has it can join the cluster.
    New,
}

pub(super) fn run(args: &KeyArgs) -> Result<(), Failure> {
    match args.what {
        KeyCommand::New => say(&format!("{}\n", ClusterKey::new(chance()).text())),
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody is to guess it")]
fn chance() -> [u8; KEY_BYTES] {
    rand::random()
}
