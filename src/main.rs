//! The `p2pfaas` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2pfaas::cli::run()
}
