//! The Docker engine, by its command: images as the pages on deployment build them, networks and
//! containers that end with the test that made them.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// What functions/README.md builds, in its order, with each one's folder.
const IMAGES: [(&str, &str); 4] = [
    ("p2pfaas", "."),
    ("fn-echo", "functions/fn-echo"),
    ("fn-thumbnail", "functions/fn-thumbnail"),
    ("fn-face", "functions/fn-face"),
];

/// Runs `docker`; its output, or what it complains of.
pub fn try_docker(arguments: &[&str]) -> Result<String, String> {
    let ran = Command::new("docker")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|why| why.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match ran.status.success() {
        true => Ok(text(&ran.stdout)),
        false => Err(text(&ran.stdout) + &text(&ran.stderr)),
    }
}

pub fn docker(arguments: &[&str]) -> String {
    try_docker(arguments).unwrap_or_else(|why| panic!("docker {}: {why}", arguments.join(" ")))
}

/// The engine with its images built, for one test at a time: the tests look at each other's load.
pub struct Engine(#[allow(dead_code)] MutexGuard<'static, ()>);

/// `None`, said aloud, where there is no engine; then P2PFAAS_REQUIRE_DOCKER=1 makes it an error.
pub fn engine() -> Option<Engine> {
    static ALONE: Mutex<()> = Mutex::new(());
    static BUILT: Once = Once::new();
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(why) = try_docker(&["info"]) {
        let required = std::env::var("P2PFAAS_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        assert!(!required, "P2PFAAS_REQUIRE_DOCKER is set and no Docker engine answers: {why}");
        // Not eprintln: the test runner hides that of tests that pass.
        let _ = writeln!(std::io::stderr(), "skipped: no Docker engine answers on this machine");
        return None;
    }
    BUILT.call_once(|| {
        for (name, folder) in IMAGES {
            docker(&["build", "-t", name, folder]);
        }
    });
    Some(Engine(alone))
}

/// A name that no other run of the tests uses now.
fn fresh_name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("p2pfaas-test-{}-{number}-{what}", std::process::id())
}

/// A private network. Nothing on it reaches further than this machine.
pub struct Network(String);

impl Network {
    pub fn new() -> Self {
        let name = fresh_name("net");
        docker(&["network", "create", "--internal", &name]);
        Self(name)
    }

    /// `docker`'s arguments that take `container` off the network.
    pub fn disconnect(&self, container: &Container) -> Vec<String> {
        ["network", "disconnect", &self.0, &container.name].map(str::to_owned).into()
    }

    /// And those that put it back.
    pub fn connect(&self, container: &Container) -> Vec<String> {
        let Container { name, alias } = container;
        ["network", "connect", "--alias", alias, &self.0, name].map(str::to_owned).into()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = try_docker(&["network", "rm", &self.0]);
    }
}

/// A container, removed with its own volumes when the test ends.
pub struct Container {
    pub name: String,
    alias: String,
}

impl Container {
    /// Not started yet, so that files can be put into its volume before. Others find it by `alias`.
    pub fn create(
        network: &Network,
        alias: &str,
        image: &str,
        flags: &[&str],
        command: &[&str],
    ) -> Self {
        let name = fresh_name(alias);
        // Every container as locked up as an operator could want it.
        let locked_up = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
        let named = ["--name", &name, "--network", &network.0, "--network-alias", alias];
        docker(&[&["create"], &locked_up[..], &named, flags, &[image], command].concat());
        Self { name, alias: alias.to_owned() }
    }

    pub fn started(self) -> Self {
        self.does("start");
        self
    }

    /// `start`, `stop`, `kill`, `pause`, `unpause`, `restart`.
    pub fn does(&self, what: &str) {
        docker(&[what, &self.name]);
    }

    pub fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "-f", format, &self.name]).trim().to_owned()
    }

    pub fn ip(&self) -> Ipv4Addr {
        let ip = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        ip.parse().unwrap_or_else(|_| panic!("{} has no address: {ip:?}", self.name))
    }

    pub fn put(&self, from: &Path, to: &str) {
        docker(&["cp", &from.display().to_string(), &format!("{}:{to}", self.name)]);
    }

    pub fn logs(&self) -> String {
        docker(&["logs", &self.name])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let state = try_docker(&["inspect", "-f", "{{json .State}}", &self.name]);
            eprintln!("{}: {}", self.name, state.unwrap_or_else(|why| why));
            // What a container says goes to the same streams here.
            let _ = Command::new("docker").args(["logs", "--tail", "40", &self.name]).status();
        }
        let _ = try_docker(&["rm", "-f", "-v", &self.name]);
    }
}
