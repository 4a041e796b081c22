//! The commands of a page, run one after another in a folder of the test's own. Addresses
//! 127.0.0.1 to 127.0.0.12 become those of the test, so that pages do not disturb each other.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::common::process::Process;
use super::common::{eventually, fresh_ips, try_send};
use super::pages;

/// Nodes that a page's cluster has at most.
const NODES: usize = 12;

/// What is not run here, by how it begins, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("docker ", "tests/docker builds these images and starts such containers"),
    ("for n in 1 2 3; do\n    docker ", "the same"),
    ("curl -i -d hello http://127.0.0.1:18081/", "calls one of these containers"),
    ("curl -i -H 'X-P2pfaas-Scheduler-Forward: 1' http://127.0.0.1:18081/", "the same"),
    ("curl 'http://127.0.0.1:18081/", "the same"),
    ("curl --data-binary @photo.jpg 'http://127.0.0.1:18081/", "the same"),
    ("cargo install ", "it would change the machine"),
    ("cargo test", "this is part of it"),
    ("cargo run --release -- cluster 12 --scheduler 'IdleScheduler", "recipes.rs compiles it"),
    ("cargo run --release -- cluster 12 --scheduler 'StickyScheduler", "the same"),
    ("cargo run --release -- bench simulate scenarios/deadline-sweep-short", "the same"),
    ("cargo run --release -- fleet apply scenarios/cluster-12.toml", "of that cluster"),
    ("cargo run --release -- bench run scenarios/deadline-sweep-short.toml", "the same"),
    ("p2pfaas bench run scenarios/deadline-sweep-short.toml", "it takes 45 minutes"),
    ("p2pfaas bench simulate scenarios/deadline-sweep", "without optimisation it takes minutes"),
    ("p2pfaas bench report results/simulated results/real", "it needs runs on real nodes"),
    ("sudo benches/membership.py", "it takes half an hour"),
    ("pip install websockets", "it would change the machine"),
    ("python3 examples/policy.py", "tests/external.rs runs it where Python has what it needs"),
    ("p2pfaas bench simulate outside.toml", "tests/external.rs makes such a run"),
    ("CHAOS=long CHAOS_SEED=1 cargo test", "it takes twenty minutes"),
];

/// What is made smaller.
const SHORTER: &[(&str, &str)] = &[("[1-1000]", "[1-40]")];

/// A command with the lines that it is said to answer.
#[derive(Debug, PartialEq)]
struct Told {
    command: String,
    answers: Vec<String>,
}

/// The commands of a block. A line that begins with two spaces, or follows one that ends with `\`,
/// goes on with the command before.
fn commands(block: &str) -> Vec<Told> {
    let mut all: Vec<Told> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            all.push(Told { command: command.to_owned(), answers: Vec::new() });
            continue;
        }
        let last = all.last_mut().unwrap_or_else(|| panic!("an answer to nothing: {line}"));
        if last.answers.is_empty() && (line.starts_with("  ") || last.command.ends_with('\\')) {
            last.command.push('\n');
            last.command.push_str(line);
        } else {
            last.answers.push(line.to_owned());
        }
    }
    all
}

/// What of an answer is the same in every run: not `…`, not times.
fn is_fixed(answer: &str) -> bool {
    let is_time = |word: &str| {
        word.split_once('.').is_some_and(|(_, decimals)| {
            decimals.len() >= 6 && decimals.bytes().take(6).all(|c| c.is_ascii_digit())
        })
    };
    answer != "…" && !answer.split_whitespace().any(is_time)
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A page that is being run.
struct Session {
    ips: [Ipv4Addr; NODES],
    /// What the page's commands work in, and what belongs to the test.
    folder: tempfile::TempDir,
    servers: Vec<Process>,
    /// Programs that the page starts beside them.
    beside: Vec<Process>,
}

impl Session {
    fn new() -> Self {
        let session = Self {
            ips: fresh_ips::<NODES>(),
            folder: tempfile::tempdir().expect("a folder"),
            servers: Vec::new(),
            beside: Vec::new(),
        };
        let program = session.aside("bin/p2pfaas");
        std::fs::create_dir_all(program.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_p2pfaas"), program).expect("linked");
        // A page says that a command works; an answer of 4xx or 5xx would not end curl with an error.
        let found = Command::new("sh").args(["-c", "command -v curl"]).output().expect("sh runs");
        let curl = String::from_utf8(found.stdout).expect("text");
        let script = format!("#!/bin/sh\nexec {} --fail \"$@\"\n", curl.trim());
        let wrapper = session.aside("bin/curl");
        std::fs::write(&wrapper, script).expect("written");
        let may_run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&wrapper, may_run).expect("set");

        std::fs::create_dir_all(session.work()).expect("made");
        std::fs::write(session.work().join("picture.jpg"), picture()).expect("written");
        for name in pages::below("scenarios", "toml") {
            let text = session.local(&pages::read(&name));
            session.write(&name, &text);
        }
        session
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.folder.path().join("aside").join(name)
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.work().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// `text` with the test's addresses.
    fn local(&self, text: &str) -> String {
        const PREFIX: &str = "127.0.0.";
        let mut parts = text.split(PREFIX);
        let mut local = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            let (number, rest) = part.split_at(end);
            let ip = number.parse::<usize>().ok().and_then(|n| self.ips.get(n.checked_sub(1)?));
            let ip = ip.map_or_else(|| format!("{PREFIX}{number}"), ToString::to_string);
            local.push_str(&ip);
            local.push_str(rest);
        }
        local
    }

    /// A block that begins with `# NAME` is the file of that name.
    fn keep(&self, block: &pages::Block) {
        let named = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
        if let Some(name) = named.filter(|name| !name.contains(' ')) {
            self.write(name, &self.local(&block.text));
        }
    }

    /// A server of the page, in the place of those before: they have the same addresses.
    async fn serve(&mut self, command: &str) {
        self.servers.clear();
        let split = Command::new("bash")
            .args(["-c", &format!("printf '%s\\n' {command}")])
            .output()
            .expect("bash runs");
        let split = String::from_utf8(split.stdout).expect("text");
        let mut arguments: Vec<&str> = split.lines().skip(1).collect();
        let base = self.ips[0].to_string();
        let nodes = match arguments.as_slice() {
            ["cluster", n, ..] => n.parse().expect("a number"),
            _ => 0,
        };
        if nodes > 0 {
            arguments.extend(["--base", &base]);
        }
        let first = format!("cd '{}'", self.work().display());
        self.servers.push(Process::start_in_shell(&first, &arguments));
        for ip in &self.ips[..nodes] {
            eventually("the nodes of the cluster know each other", || async {
                let list = try_send("GET", &format!("http://{ip}:19000/list"), &[], "").await;
                let machines = list.ok()?.json().as_array().map(Vec::len);
                (machines == Some(nodes - 1)).then_some(())
            })
            .await;
        }
        if let Some(at) = arguments.iter().position(|word| *word == "--listen") {
            let url = format!("http://{}/_/health", arguments[at + 1]);
            eventually("the function serves", || async {
                try_send("GET", &url, &[], "").await.ok()
            })
            .await;
        }
    }

    /// A program of the page that goes on; it says that it listens.
    fn start_beside(&mut self, command: &str) {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("exec {command}")]).current_dir(self.work());
        let mut program = Process::spawn(bash);
        program.wait_for("listens");
        self.beside.push(program);
    }

    /// Runs `command` to its end; what it printed.
    fn once(&self, command: &str) -> String {
        let (environment, work) = (self.aside("environment"), self.work());
        let script = format!(
            "touch '{environment}'; . '{environment}'; {command}\n\
             ended=$?; export -p | grep ' P2PFAAS_' >'{environment}'; exit $ended",
            environment = environment.display()
        );
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(work).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("P2PFAAS_")) {
            bash.env_remove(name);
        }
        bash.env("PATH", format!("{}:{path}", self.aside("bin").display()));
        let ended = bash.output().expect("bash runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&ended.stdout), text(&ended.stderr));
        assert!(ended.status.success(), "{command}\n{:?}\n{out}\n{err}", ended.status);
        out
    }

    async fn run(&mut self, told: &Told) {
        if ELSEWHERE.iter().any(|(begin, _)| told.command.starts_with(begin)) {
            return;
        }
        let mut command = self.local(&told.command);
        if let Some(arguments) = command.strip_prefix("cargo run --release -- ") {
            command = format!("p2pfaas {arguments}");
        }
        for (long, short) in SHORTER {
            command = command.replace(long, short);
        }
        let is = |begin| command.starts_with(begin);
        if is("p2pfaas cluster ") || is("p2pfaas function ") {
            self.serve(&command).await;
            return;
        }
        if let Some(script) = command.strip_suffix(" &") {
            self.start_beside(script);
            return;
        }
        // A node takes the ports of all addresses of the machine; what it is told is checked.
        if is("p2pfaas node ") && !command.contains("--print-config") {
            command.push_str(" --print-config");
        }
        let out = self.once(&command);
        let lines: Vec<String> = out.lines().map(words).collect();
        for answer in told.answers.iter().filter(|answer| is_fixed(answer)) {
            let wanted = words(&self.local(answer));
            assert!(lines.contains(&wanted), "{command}\nanswers no line {wanted:?}:\n{out}");
        }
    }
}

/// Whether there is what the functions of the book are written in.
fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|ended| ended.status.success())
}

/// A picture as anybody may have one.
fn picture() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_fn(400, 200, |x, y| image::Rgb([x as u8, y as u8, 7]));
    image::DynamicImage::from(picture)
        .write_to(&mut bytes, image::ImageFormat::Jpeg)
        .expect("encodes");
    bytes.into_inner()
}

/// Runs a page's commands in order.
pub async fn run(page: &str) {
    let mut session = Session::new();
    let text = pages::read(page);
    for block in pages::blocks(&text) {
        if block.language != "console" {
            session.keep(&block);
            continue;
        }
        let told = commands(&block.text);
        if told.iter().any(|told| told.command.starts_with("python3 ")) && !has_python() {
            eprintln!("{page}: the rest is passed over, for there is no python3");
            return;
        }
        for told in told {
            session.run(&told).await;
        }
    }
}

#[test]
fn commands_are_told_from_their_answers() {
    let told = |command: &str, answers: &[&str]| Told {
        command: command.to_owned(),
        answers: answers.iter().copied().map(str::to_owned).collect(),
    };
    let block = "$ a \\\n    b\n$ for x; do\n    c\n  done\n$ d\nHTTP/1.1 200 OK\n…\n  e\n";
    assert_eq!(
        commands(block),
        [
            told("a \\\n    b", &[]),
            told("for x; do\n    c\n  done", &[]),
            told("d", &["HTTP/1.1 200 OK", "…", "  e"]),
        ]
    );
    assert!(is_fixed("x: True") && is_fixed("127.0.0.1 nothing to change"));
    assert!(!is_fixed("…") && !is_fixed("x-time: 0.000005") && !is_fixed("x: [0.000062]"));
}

#[test]
fn what_is_not_run_stands_on_some_page() {
    let book = pages::book();
    let blocks = book.iter().flat_map(|(_, text)| pages::blocks(text));
    let all: Vec<Told> = blocks
        .filter(|block| block.language == "console")
        .flat_map(|block| commands(&block.text))
        .collect();
    for (begin, why) in ELSEWHERE {
        assert!(all.iter().any(|told| told.command.starts_with(begin)), "{begin}: {why}");
    }
}
