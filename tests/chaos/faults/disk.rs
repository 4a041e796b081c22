//! What becomes of a data path. A node goes on with its calls, and says what it could not save.

use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt};

use super::Scene;
use crate::cluster::{CALL_PORT, LIST_PORT};
use crate::network::run;

/// Changes a setting of a node to what it is; whether it says that this is saved.
fn saves(scene: &Scene<'_>, victim: usize) -> bool {
    let change = br#"{"queue_enabled": true}"#;
    scene.cluster.told(victim, CALL_PORT, "POST /configuration", change).status() == 200
}

/// No byte more fits on the disk.
pub fn full(scene: &mut Scene<'_>) {
    let victim = scene.victim();
    let filler = scene.cluster.nodes[victim].fill_disk();
    scene.hold();
    assert!(!saves(scene, victim), "what cannot be saved is not taken");
    fs::remove_file(filler).expect("it is there");
    assert!(saves(scene, victim), "there is room again");
}

/// A folder on which everything is read-only; what was opened before can still be written.
struct ReadOnly(String);

impl ReadOnly {
    fn make(folder: &Path) -> Result<Self, String> {
        let folder = folder.display().to_string();
        run("mount", &["--bind", &folder, &folder])?;
        let made = Self(folder);
        run("mount", &["-o", "remount,bind,ro", &made.0])?;
        Ok(made)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.0]);
    }
}

/// Nothing can be written.
pub fn read_only(scene: &mut Scene<'_>) {
    let victim = scene.victim();
    let made = ReadOnly::make(scene.cluster.nodes[victim].folder()).expect("it can be mounted");
    scene.hold();
    assert!(!saves(scene, victim), "what cannot be saved is not taken");
    drop(made);
    assert!(saves(scene, victim), "it can be written again");
}

/// SIGKILL, and all files of the data path are spoilt. A file that is only a hint is set aside; for any other the
/// node does not start, and names it. Whoever takes that file away gets a node.
pub fn corrupt(scene: &mut Scene<'_>) {
    let victim = scene.victim();
    let cluster = &scene.cluster;
    let scheduler = cluster.told(victim, CALL_PORT, "GET /configuration/scheduler", b"").body;
    for (port, what, change) in [
        (CALL_PORT, "POST /configuration", &br#"{"queue_enabled": true}"#[..]),
        (CALL_PORT, "POST /configuration/scheduler", &scheduler),
        (LIST_PORT, "POST /configuration", br#"{"machine_group_name": ""}"#),
    ] {
        assert_eq!(cluster.told(victim, port, what, change).status(), 200, "{what}");
    }
    scene.cluster.kill(victim);
    scene.hold();
    let spoilt = spoil(scene.cluster.nodes[victim].folder(), &mut scene.random);
    for _ in 0..=spoilt.len() {
        let had_said = scene.cluster.nodes[victim].said().len();
        if scene.cluster.try_to_begin(victim) {
            return;
        }
        let said = scene.cluster.nodes[victim].said().split_off(had_said);
        // What it has set aside is not there any more.
        let named = |path: &&PathBuf| path.exists() && said.contains(&path.display().to_string());
        let named = spoilt.iter().find(named);
        let named = named.unwrap_or_else(|| panic!("it names no file:\n{said}"));
        scene.notes.push(format!("names {}", named.file_name().unwrap_or_default().display()));
        fs::remove_file(named).expect("it is there");
    }
    panic!("it does not start, though the files that it named are gone");
}

/// Spoils each file: it ends in the middle, is empty, or is anything. Returns them all.
fn spoil(folder: &Path, random: &mut impl Rng) -> Vec<PathBuf> {
    let files =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
    files.sort();
    for path in &files {
        let mut bytes = fs::read(path).expect("it can be read");
        match random.random_range(0..3) {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.clear(),
            _ => random.fill_bytes(&mut bytes),
        }
        fs::write(path, bytes).expect("it can be written");
    }
    files
}
