//! `p2pfaas bench simulate`: a scenario in simulated time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::keys::ScenarioKeys;
use super::{folder, tell};
use crate::cli::{Failure, broken, told_to_stop};
use crate::experiment::run::Inputs;
use crate::experiment::simulate::{KeptRows, Shard, Simulator, Watcher};
use crate::fleet::Credentials;

#[derive(Args)]
pub(super) struct SimulateArgs {
    /// Scenario (TOML); `p2pfaas bench init` writes an example. Without one, the flags are all.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Folder for the results, which must not be there yet [default: results/NAME-1, or the next
    /// number that is free].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Make only every N-th run, beginning with the I-th: a part of a sweep that several machines share. The report
    /// takes the files of all parts.
    #[arg(long, value_name = "I/N", value_parser = shard, default_value = "1/1")]
    shard: Shard,
    /// What is kept of each call: all that a real run keeps (files of some 400 bytes a call), the jobs that the report
    /// needs, or none, which leaves the report alone.
    #[arg(long, value_name = "WHAT", default_value = "jobs")]
    rows: KeptRows,
    /// Threads [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    #[command(flatten)]
    keys: ScenarioKeys,
}

/// Reads `I/N`.
fn shard(text: &str) -> Result<Shard, String> {
    let read =
        text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    match read {
        // Who counts from 0, as indexed Jobs do, means the last one by it.
        Some((0, of @ 1..)) => Ok(Shard { part: of, of }),
        Some((part, of)) if (1..=of).contains(&part) => Ok(Shard { part, of }),
        _ => Err("part I of N is wanted, such as 2/8, I from 0 to N".to_owned()),
    }
}

impl SimulateArgs {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let scenario = self.keys.scenario(self.file.as_deref()).map_err(Failure::Configuration)?;
        let inputs = Inputs::load(scenario, Credentials::default())?;
        let folder = folder(self.output.as_deref(), &inputs.scenario.name)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (told, over) = (Arc::clone(&stop), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&over);
        let (listens, is_listening) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            actix_rt::System::new().block_on(async {
                let told_to_stop = told_to_stop();
                // Who started the run may be gone, which then nobody has to know.
                let _ = listens.send(());
                if let Ok(word) = told_to_stop {
                    word.await;
                    if is_over.load(Ordering::Relaxed) {
                        // What is left is the report, which can be made again.
                        std::process::exit(130);
                    }
                    told.store(true, Ordering::Relaxed);
                    // A second signal is waited for as long as this runs.
                    std::future::pending::<()>().await;
                }
            });
        });
        // A signal that comes from now on leaves no half of a run.
        let _ = is_listening.recv();
        let simulator = Simulator {
            inputs: &inputs,
            folder: &folder,
            shard: self.shard,
            rows: self.rows,
            stop: &stop,
        };
        let bar = SimulationBar::new(&inputs.scenario.name, simulator.seconds());
        let threads = self.threads.map_or(0, |threads| threads as usize);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(broken)?;
        let runs = pool.install(|| simulator.run(&bar));
        drop(bar);
        over.store(true, Ordering::Relaxed);
        match runs {
            Ok(runs) => tell(&runs, &folder.join("report.html"), None),
            Err(why) => {
                // What was finished until then is there, unless nothing was.
                let _ = std::fs::remove_dir(&folder);
                Err(why.into())
            }
        }
    }
}

/// How far all runs are: simulated seconds, those a second, and an estimate of the end.
struct SimulationBar(ProgressBar);

impl SimulationBar {
    fn new(name: &str, seconds: f64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(seconds as u64), ProgressDrawTarget::stderr());
        let form = "{prefix}  [{bar:30}] {pos} of {len} simulated s  {per_sec}  {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(form) {
            let style = style.with_key(
                "per_sec",
                |state: &indicatif::ProgressState, to: &mut dyn std::fmt::Write| {
                    let _ = write!(to, "{:.0} simulated s/s", state.per_sec());
                },
            );
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.to_owned());
        Self(bar)
    }
}

impl Drop for SimulationBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Watcher for SimulationBar {
    fn simulated(&self, seconds: f64) {
        self.0.inc(seconds.round() as u64);
    }

    fn ended(&self, results: &Path) {
        let line = results.display().to_string();
        if self.0.is_hidden() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{line}");
        } else {
            self.0.println(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_a_part_of_all() {
        assert_eq!(shard("2/8"), Ok(Shard { part: 2, of: 8 }));
        assert_eq!(shard("0/8"), Ok(Shard { part: 8, of: 8 }), "as indexed Jobs count");
        for bad in ["", "1", "9/8", "1/0", "0/0", "a/b", "-1/2", "1/2/3"] {
            shard(bad).expect_err(bad);
        }
    }
}
