//! Tells the program which commit it was built from: by the environment, where there is no checkout
//! to ask.

use std::process::Command;

fn of_checkout() -> Option<String> {
    let out = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(out.stdout).ok().filter(|_| out.status.success())?;
    Some(commit.trim().to_owned())
}

fn main() {
    let told = std::env::var("BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(of_checkout).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=BUILD_COMMIT");
    // Moves with every commit; absent outside a checkout, which is fine.
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
}
