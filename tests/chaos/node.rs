//! A node: one process in a namespace of its own, with its files on a small disk of its own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::network::{Network, run};
use super::{function, keys, wait_for};

/// K of every node.
pub const K: u32 = 3;
/// A node that was stopped for seconds finds its calls waiting, all at once. None is to be refused.
const QUEUE_LENGTH: &str = "2000";
/// Fan-out 2 from one call on, one hop: about a third of all calls are forwarded.
const SCHEDULER: &str = "PowerOfNScheduler 2 1 true 1";
/// What a data path may hold.
const DISK: &str = "size=1m";
/// What a node may take to end once it is told to stop.
const STOP_TIME: Duration = Duration::from_secs(60);

/// A folder that is a disk of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&at).map_err(|why| why.to_string())?;
        run("mount", &["-t", "tmpfs", "-o", DISK, "chaos", &at.display().to_string()])?;
        Ok(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.0.display().to_string()]);
    }
}

/// What a node is started with.
pub struct Start<'a> {
    /// Nodes to join through.
    pub through: &'a [Ipv4Addr],
    /// Further environment.
    pub environment: &'a [(String, String)],
    /// Whether the cluster has a key.
    pub has_key: bool,
    /// The limit of open files, if it is not the usual one.
    pub files_max: Option<u32>,
}

/// A node, which runs or not.
pub struct Node {
    pub number: usize,
    pub address: Ipv4Addr,
    pub network: Network,
    disk: Disk,
    log: PathBuf,
    process: Option<Child>,
    /// Where the cluster's key stands, if it has one.
    pub key_file: PathBuf,
}

impl Node {
    /// A place for a node, where nothing runs yet.
    pub fn new(number: usize, address: Ipv4Addr, work: &Path) -> Result<Self, String> {
        Ok(Self {
            number,
            address,
            network: Network::new()?,
            disk: Disk::mount(work.join(format!("node-{number}")))?,
            log: work.join(format!("node-{number}.log")),
            process: None,
            key_file: work.join(format!("node-{number}.key")),
        })
    }

    /// The data path.
    pub fn folder(&self) -> &Path {
        &self.disk.0
    }

    /// Starts the process. It ends with the thread that calls this.
    pub fn start(&mut self, how: &Start<'_>) {
        assert!(self.process.is_none(), "node {} runs", self.number);
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.expect("the log can be written");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(most) = how.files_max {
            command.args(["prlimit", &format!("--nofile={most}"), "--"]);
        }
        command.arg(env!("CARGO_BIN_EXE_p2pfaas")).args(["node", "--host", "0.0.0.0"]);
        command.args(["--machine-ip", &self.address.to_string()]);
        command.args(["--machine-id", &format!("node-{}", self.number)]);
        command.arg("--data-path").arg(self.folder());
        command.args(["--workers", "1", "--embedded-functions", "--scheduler", SCHEDULER]);
        command.args(["--k", &K.to_string(), "--queue-length", QUEUE_LENGTH]);
        command.args(["--route", &format!("{}={}", function::NAME, function::url())]);
        for address in how.through {
            command.args(["--init-server", &address.to_string()]);
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("P2PFAAS_")) {
            command.env_remove(name);
        }
        // All of the log is wanted, also lines that come again and again.
        command.env_remove("RUST_LOG").env("P2PFAAS_LOG_BURST", "0");
        command.envs(how.environment.iter().map(|(name, value)| (name, value)));
        if how.has_key {
            command.env(keys::SETTING, &self.key_file);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        let started = self.network.inside(|| command.spawn());
        self.process = Some(started.expect("setpriv runs the node"));
    }

    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it has ended by itself; then it does not run any more.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().expect("its state is known")?;
        self.process = None;
        Some(status)
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("the signal is sent");
    }

    /// SIGKILL, and it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM, and it ends by itself, as it should.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = wait_for("the node stops", STOP_TIME, || self.ended());
        assert!(status.success(), "node {} stopped with {status}:\n{}", self.number, self.tail());
    }

    /// Memory of its own, in KiB: not the pages of the program, which are read again as they are needed.
    pub fn memory_kib(&self) -> Option<u64> {
        let id = self.process.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The end of it, for people.
    pub fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Writes until its disk is full; returns the file to be removed.
    pub fn fill_disk(&self) -> PathBuf {
        let path = self.folder().join("filler");
        let mut file = File::create(&path).expect("there is room yet");
        let (started, block) = (Instant::now(), [0; 4096]);
        while file.write_all(&block).is_ok() {
            assert!(started.elapsed() < STOP_TIME, "the disk has no end");
        }
        path
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
