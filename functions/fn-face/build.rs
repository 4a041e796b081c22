//! Tells the program where the package rustface keeps its model and its test picture, so that they
//! become part of the program and no binary file is kept here.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of the package rustface.
fn of_rustface() -> Result<PathBuf, Box<dyn Error>> {
    // Offline and for this target alone: Cargo has fetched just that before it runs this program.
    let out = Command::new(std::env::var("CARGO")?)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &std::env::var("TARGET")?])
        .output()?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into());
    }
    let metadata: Value = serde_json::from_slice(&out.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == "rustface")
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or("cargo metadata does not name rustface")?;
    Ok(Path::new(manifest).parent().ok_or("rustface is in no folder")?.to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = of_rustface()?;
    let files = [("FACE_MODEL", "model/seeta_fd_frontal_v1.0.bin"), ("TEST_PICTURE", "test.png")];
    for (name, file) in files {
        let path = folder.join(file);
        if !path.is_file() {
            return Err(format!("{} is not there", path.display()).into());
        }
        println!("cargo:rustc-env={name}={}", path.display());
        // A Cargo that was moved or emptied is asked again.
        println!("cargo:rerun-if-changed={}", path.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.lock");
    Ok(())
}
