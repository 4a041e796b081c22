//! The program itself, as a process of the test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The program, without whatever the test's own environment says about it.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2pfaas"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("P2PFAAS_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    program(arguments).envs(environment.iter().copied()).output().expect("it runs")
}

/// Runs it to its end beside nodes that live on this thread; its exit code, what it prints and
/// what it says.
pub async fn told(arguments: &[&str]) -> (Option<i32>, String, String) {
    told_in(arguments, &[]).await
}

/// The same with an environment.
pub async fn told_in(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let arguments: Vec<String> = arguments.iter().copied().map(str::to_owned).collect();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: Vec<(String, String)> = environment.iter().map(owned).collect();
    let ended = actix_rt::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment = environment.iter().map(|(name, value)| (&**name, &**value));
        run(&arguments, &environment.collect::<Vec<_>>())
    })
    .await
    .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

/// A process that is killed when the test ends.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(arguments, &[])
    }

    /// The same with an environment.
    pub fn start_in(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = program(arguments);
        command.envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// The same, in a shell that has run `first` before.
    pub fn start_in_shell(first: &str, arguments: &[&str]) -> Self {
        let program = program(arguments);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]);
        shell.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Self::spawn(shell)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Any program.
    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (say, lines) = channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let say = say.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = say.send(line);
                }
            });
        }
        Self { child, lines }
    }

    /// A node on `ip` with its files below `folder`.
    pub fn node(ip: std::net::Ipv4Addr, folder: &Path, more: &[&str]) -> Self {
        let (host, path) = (ip.to_string(), folder.join(ip.to_string()).display().to_string());
        let mut arguments = vec!["node", "--host", &host, "--data-path", &path];
        arguments.extend(["--workers", "1", "--embedded-functions"]);
        arguments.extend(more);
        let mut node = Self::start(&arguments);
        node.wait_for("the node serves");
        node
    }

    /// Waits until it prints a line with `text` in it.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_all(text).pop().unwrap_or_default()
    }

    /// The same; answers all that it has printed until then.
    pub fn wait_for_all(&mut self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let last = line.contains(text);
                    seen.push(line);
                    if last {
                        return seen;
                    }
                }
                Err(why) => panic!("{text:?} was not printed ({why}):\n{}", seen.join("\n")),
            }
        }
    }

    /// What it printed since, to its end.
    pub fn rest(&mut self) -> Vec<String> {
        self.lines.iter().collect()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it ran");
        self.child.wait().expect("it ended");
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it ran") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
