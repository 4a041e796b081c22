//! `p2pfaas bench simulate` from the command line: the same files on one core or many, parts of a sweep, and what is told
//! of mistakes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn simulate(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_p2pfaas");
    Command::new(program).args(["bench", "simulate"]).args(args).output().expect("it runs")
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let entries = entries.map(|entry| entry.expect("an entry").path());
    let runs = entries.filter(|path| path.extension().is_some_and(|ending| ending == "db"));
    let named = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    runs.map(|path| (named(&path), std::fs::read(&path).expect("a file"))).collect()
}

const SCENARIO: &str = r#"
name = "small"
nodes = { count = 5, k = 2, cores = [1, 2], speed = [1.0, 0.8] }
network = { latency_ms = 3, deviation_ms = 1, loss = 0.02 }
overheads = { client_ms = 0.1, probe_ms = 0.2, forward_ms = 0.3, end_ms = 1 }
faults = [
    { kind = "kill", nodes = 1, at_s = 3, for_s = 2 },
    { kind = "part", nodes = [2, 3], at_s = 6, for_s = 2 },
    { kind = "stall", nodes = 4, at_s = 1, for_s = 1 },
]
function = "fn-work"
payloads = [
    { name = "large", task_type = 0, query = "dist=exponential&mean_ms=100&seed={seed}" },
    { name = "small", task_type = 1, query = "mean_ms=30" },
]
deadlines_s = [0.3, 0.1]
duration_s = 10
rates = [10, 12, 14, 16, 18]
schedulers = ["PowerOfNScheduler 2 1 true 1", "LearningScheduler 2", "RoundRobinWithMasterScheduler true 10.0.0.1 true"]
seeds = [1, 2]
learner_warm_up_s = 5

[learner]
actions_n = 7
"#;

#[test]
fn files_are_the_same_to_the_byte_on_one_core_or_many_and_parts_are_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = folder.path().join("small.toml");
    std::fs::write(&scenario, SCENARIO).expect("a file");
    let make = |name: &str, more: &[&str]| {
        let output = folder.path().join(name);
        let (scenario, to) = (scenario.display().to_string(), output.display().to_string());
        let done = simulate(&[&[&*scenario, "--rows", "all", "--output", &to], more].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (files(&output), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (one, table) = make("one", &["--threads", "1"]);
    let (many, _) = make("many", &["--threads", "4"]);
    assert_eq!(one.len(), 6);
    assert!(one == many, "files differ");
    assert!(table.contains("LearningScheduler 2"), "{table}");
    let (first, _) = make("first", &["--shard", "1/2"]);
    let (second, _) = make("second", &["--shard", "2/2"]);
    let parts: BTreeMap<_, _> = first.into_iter().chain(second).collect();
    assert!(parts == one, "parts are not the whole");
}

/// Scenarios by chance; `RANDOM_SCENARIOS=n` makes so many.
const RANDOM_SCENARIOS: u64 = 24;

/// One of its choices.
fn one_of<'a>(random: &mut SmallRng, choices: &[&'a str]) -> &'a str {
    choices[random.random_range(0..choices.len())]
}

/// A scenario that is drawn from a seed: four runs of a few nodes, whatever they are, and whatever goes wrong.
fn drawn(seed: u64) -> String {
    let random = &mut SmallRng::seed_from_u64(seed);
    let nodes = random.random_range(2..9);
    let (k, cores, speed) = (
        random.random_range(1..5),
        random.random_range(1..4),
        f64::from(random.random_range(5..15)) / 10.0,
    );
    let membership = one_of(random, &["", ", membership = 'ruled'", ", membership = 'swim'"]);
    let topology = one_of(random, &["all", "ring", "grid", "random 3"]);
    let (latency, loss) = (random.random_range(0..30), one_of(random, &["0", "0.1"]));
    let function = one_of(random, &["fn-work", "fn-sleep"]);
    let query = one_of(random, &["mean_ms=40", "dist=exponential&mean_ms=40&seed={seed}"]);
    let (at, node) = (random.random_range(0..3), random.random_range(0..nodes));
    let fault = match one_of(random, &["", "kill", "stall", "part"]) {
        "" => String::new(),
        kind => format!("{{ kind = '{kind}', nodes = {node}, at_s = {at}, for_s = 1 }}"),
    };
    let schedulers = [
        "PowerOfNScheduler 2 1 true 1",
        "PowerOfNSchedulerTau 2 1 true 1 20ms",
        "ForwardScheduler 2",
        "RoundRobinWithMasterScheduler true 10.0.0.1 true",
    ];
    let scheduler = one_of(random, &schedulers);
    let rate = random.random_range(5..60);
    format!(
        "name = 'drawn'\nnodes = {{ count = {nodes}, k = {k}, cores = {cores}, speed = {speed:.1}{membership} }}\n\
         topology = '{topology}'\n\
         network = {{ latency_ms = {latency}, deviation_ms = 2, loss = {loss} }}\nfaults = [{fault}]\n\
         function = '{function}'\npayloads = [{{ query = '{query}' }}]\ndeadlines_s = [0.1]\nduration_s = 3\n\
         rates = [{rate}]\nschedulers = ['{scheduler}', 'LearningScheduler 2']\nseeds = [1, {seed}]\n\
         learner_warm_up_s = 1\n[learner]\nactions_n = {}\n",
        nodes + 2
    )
}

#[test]
fn scenarios_by_chance_give_the_same_files_on_one_core_and_on_two() {
    let number = std::env::var("RANDOM_SCENARIOS").ok().and_then(|text| text.parse().ok());
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 2..number.unwrap_or(RANDOM_SCENARIOS) + 2 {
        let text = drawn(seed);
        let scenario = folder.path().join(format!("{seed}.toml"));
        std::fs::write(&scenario, &text).expect("a file");
        let made = [1, 2].map(|threads| {
            let to = folder.path().join(format!("{seed}-{threads}"));
            let (path, output) = (scenario.display().to_string(), to.display().to_string());
            let threads = threads.to_string();
            let done =
                simulate(&[&path, "--rows", "all", "--threads", &threads, "--output", &output]);
            assert!(done.status.success(), "{}\n{text}", String::from_utf8_lossy(&done.stderr));
            files(&to)
        });
        assert_eq!(made[0].len(), 4, "{text}");
        assert!(made[0] == made[1], "files differ: {text}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the program that is told to stop runs in real time")]
fn a_simulation_that_is_told_to_stop_leaves_no_half_of_a_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = folder.path().join("long.toml");
    std::fs::write(&scenario, SCENARIO).expect("a file");
    let output = folder.path().join("out");
    let (path, to) = (scenario.display().to_string(), output.display().to_string());
    let program = env!("CARGO_BIN_EXE_p2pfaas");
    let args = ["bench", "simulate", "--duration-s", "80000", &path, "--output", &to];
    let mut running = Command::new(program).args(args).spawn().expect("it runs");
    let deadline = Instant::now() + Duration::from_secs(20);
    let until = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until("a run has begun", &mut || output.exists() && !files(&output).is_empty());
    let told = Command::new("kill").args(["-INT", &running.id().to_string()]).status();
    assert!(told.expect("kill runs").success());
    let mut status = None;
    until("it has ended", &mut || {
        status = running.try_wait().expect("it ran");
        status.is_some()
    });
    assert!(!status.expect("it has ended").success());
    assert!(!output.exists());
}

#[test]
fn what_cannot_be_simulated_is_told() {
    let told = |args: &[&str]| {
        let done = simulate(args);
        assert_eq!(done.status.code(), Some(78), "{args:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("none").display().to_string();
    let nodes = ["--nodes", "{ count = 2 }", "--output", &*to, "--duration-s", "1"];
    for (more, part) in [
        (&["--function", "my-function"][..], "service.durations"),
        (&["--network", "{ loss = 2 }"], "loss is 2"),
        (&["--network", "{ latency = 2 }"], "latency"),
        (&["--nodes", "{ count = 0 }"], "count is 0"),
        (&["--nodes", "{ count = 5000 }"], "topology says who"),
        (&["--faults", "{ kind = 'kill', nodes = 7, at_s = 1 }"], "node 7, but there are 2"),
        (&["--payloads", "{ query = 'mean_ms=x' }"], "mean_ms"),
    ] {
        let nodes = if more[0] == "--nodes" { &nodes[2..] } else { &nodes[..] };
        let words = told(&[nodes, more].concat());
        assert!(words.contains(part), "{more:?}: {words}");
        assert!(!Path::new(&to).exists(), "{more:?}: nothing is left behind");
    }
}

#[test]
fn real_nodes_are_not_asked_for_by_number() {
    let program = env!("CARGO_BIN_EXE_p2pfaas");
    let done = Command::new(program).args(["bench", "run", "--nodes", "{ count = 2 }"]).output();
    let done = done.expect("it runs");
    assert_eq!(done.status.code(), Some(78));
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(told.contains("count is for simulations"), "{told}");
}

/// What a run's file says of its calls, in the order of their sending: when, at which node, with which payload, seconds
/// that the function ran, and the rate.
fn jobs(run: &Path) -> Vec<(f64, u32, String, f64, f64)> {
    let db = rusqlite::Connection::open(run).expect("a database");
    let sql =
        "SELECT timestamp_start, node_id, payload_name, time_execution, requests_rate FROM jobs
               ORDER BY timestamp_start, node_id, req_id";
    let mut rows = db.prepare(sql).expect("the table");
    let row = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    };
    rows.query_map([], row).expect("rows").map(|row| row.expect("a row")).collect()
}

/// A folder with these recordings, and how to simulate one with three nodes.
struct Recordings(tempfile::TempDir);

impl Recordings {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("arrivals.csv", "at_s,node,payload\n0.5,2,1\n3,0,0\n1.25,1,\n9,1,1\n"),
            (
                "invocations.csv",
                "app,func,end_timestamp,duration\na,f,100.25,0.25\na,g,101.5,0.5\na,h,102.125,0.125\n\
                 b,f,103.75,0.75\na,g,108,0.5\n",
            ),
            (
                "counts.csv",
                "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,30,0\no,a,g,timer,0,12\n\
                 o,a,h,queue,7,7\no,a,i,queue,1,100\n",
            ),
            ("durations.csv", "duration_s\n0.0625\n"),
        ] {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Simulates a scenario with those lines; its files go to `to`.
    fn simulate(&self, to: &str, lines: &str) -> Output {
        let function = if lines.contains("function = ") { "" } else { "function = \"fn-work\"\n" };
        let text =
            format!("{function}nodes = {{ count = 3, cores = 9 }}\nduration_s = 5\n{lines}\n");
        std::fs::write(self.path("s.toml"), text).expect("a file");
        simulate(&[&self.path("s.toml"), "--output", &self.path(to)])
    }

    fn run(&self, to: &str, lines: &str) -> Vec<(f64, u32, String, f64, f64)> {
        let done = self.simulate(to, lines);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        jobs(&self.0.path().join(to).join("run-01.db"))
    }
}

#[test]
fn arrivals_of_a_file_come_when_and_where_it_says() {
    let recordings = Recordings::new();
    let payloads = "payloads = [{ name = \"zero\", mix = 1, query = \"mean_ms=20\" }, { name = \"one\", mix = 0, query = \
                    \"mean_ms=50\" }]";
    let all =
        recordings.run("own", &format!("recording = {{ file = \"arrivals.csv\" }}\n{payloads}"));
    let told: Vec<_> =
        all.iter().map(|(at, node, payload, ran, _)| (*at, *node, &**payload, *ran)).collect();
    // Without one of its own a call has a payload by the weights.
    assert_eq!(told, [(0.5, 2, "one", 0.05), (1.25, 1, "zero", 0.02), (3.0, 0, "zero", 0.02)]);
    let later =
        format!("recording = {{ file = \"arrivals.csv\", from_s = 1, speed = 4 }}\n{payloads}");
    let all = recordings.run("later", &later);
    let told: Vec<_> = all.iter().map(|(at, node, ..)| (*at, *node)).collect();
    assert_eq!(told, [(0.0625, 1), (0.5, 0), (2.0, 1)]);
    // Two calls in the recorded minute, which four times as fast takes 15 s.
    assert!((all[0].4 - 2.0 / 15.0).abs() < 1e-12, "{}", all[0].4);
}

#[test]
fn the_work_of_a_recorded_call_is_what_it_took() {
    let recordings = Recordings::new();
    let recording = "recording = { file = \"invocations.csv\" }\n";
    let all = recordings.run("plain", recording);
    let told: Vec<_> = all.iter().map(|(at, node, _, ran, _)| (*at, *node, *ran)).collect();
    // Functions go round the nodes; b's f is another one than a's.
    assert_eq!(told, [(0.0, 0, 0.25), (1.0, 1, 0.5), (2.0, 2, 0.125), (3.0, 0, 0.75)]);
    // The same by the query, as real nodes take it; any function, where nobody says what it takes.
    let by_query = "payloads = [{ query = \"dist=constant&mean_ms={duration_ms}\" }]";
    for (to, more) in [("asked", by_query), ("mine", "function = \"my-function\"")] {
        let all = recordings.run(to, &format!("{recording}{more}"));
        assert_eq!(all.iter().map(|job| job.3).collect::<Vec<_>>(), [0.25, 0.5, 0.125, 0.75]);
    }
    // Recorded durations that are drawn go before those of the calls.
    let drawn = format!("{recording}service = {{ durations = \"durations.csv\" }}");
    assert!(recordings.run("drawn", &drawn).iter().all(|job| job.3 == 0.0625));
}

#[test]
fn counts_are_spread_by_the_seed_and_load_factors_thin_or_repeat_them() {
    let recordings = Recordings::new();
    let lines = "recording = { file = \"counts.csv\", speed = 24 }\nload_factors = [1, 0.5, 3]\nseeds = [1, 2]\n";
    let all = recordings.run("one", lines);
    let at = |node: u32, minute: f64| {
        let within = |at: f64| (minute * 2.5..(minute + 1.0) * 2.5).contains(&at);
        all.iter().filter(|job| job.1 == node && within(job.0)).count()
    };
    // The fourth function goes to the first node again.
    let first_minute = [at(0, 0.0), at(1, 0.0), at(2, 0.0)];
    assert_eq!((first_minute, [at(0, 1.0), at(1, 1.0), at(2, 1.0)]), ([31, 0, 7], [100, 12, 7]));
    assert!(all.iter().all(|job| job.1 != 1 || (job.4 - 12.0 / 2.5).abs() < 1e-9));
    recordings.run("again", lines);
    let folder = |name: &str| recordings.0.path().join(name);
    let runs = files(&folder("one"));
    assert_eq!(runs.len(), 6);
    assert!(runs == files(&folder("again")), "the same seeds, the same files");
    let calls = |run: &str| jobs(&folder("one").join(run));
    assert_ne!(calls("run-01.db"), calls("run-04.db"), "another seed");
    let half = calls("run-02.db").len();
    // Six standard deviations.
    assert!((half as f64 - 157.0 / 2.0).abs() < 38.0, "{half}");
    assert_eq!(calls("run-03.db").len(), 3 * 157);
}

#[test]
fn what_a_recording_lacks_is_told() {
    let recordings = Recordings::new();
    let asks = "payloads = [{ name = \"p\", query = \"mean_ms={duration_ms}\" }]";
    let write =
        |name: &str, text: &str| std::fs::write(recordings.path(name), text).expect("a file");
    write("far.csv", "at_s,node\n1,0\n1,3\n");
    write("many.csv", "HashOwner,HashApp,HashFunction,Trigger,1\no,a,f,http,1001\n");
    write("long.csv", "app,func,end_timestamp,duration\na,f,9000,8000\n");
    for (recording, more, part) in [
        ("file = \"none.csv\"", "", "none.csv: "),
        ("file = \"far.csv\"", "", "far.csv: line 3: node is 3, but there are 3, from 0 on"),
        ("file = \"arrivals.csv\"", "", "arrivals.csv: line 2: payload is 1, but there are 1"),
        ("file = \"durations.csv\"", "", "the header is neither"),
        ("file = \"invocations.csv\", from_s = 8", "", "no call comes from second 8 to second 13"),
        ("file = \"counts.csv\"", asks, "payloads: p: {duration_ms} in its query"),
        ("file = \"long.csv\"", asks, "mean_ms is 8000000"),
        ("file = \"many.csv\"", "load_factors = [1, 1e4]", "load_factors: 10000 times"),
        ("file = \"counts.csv\"", "rates = 3", "a recording is given, too"),
        ("file = \"counts.csv\"", "function = \"mine\"", "or a recording names times"),
    ] {
        let lines = format!("recording = {{ {recording} }}\n{more}");
        let done = recordings.simulate("none", &lines);
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(78), "{lines}: {words}");
        assert!(words.contains(part), "{lines}: {words}");
        assert!(!Path::new(&recordings.path("none")).exists(), "nothing is left behind");
    }
    let done = simulate(&["--nodes", "{ count = 1 }", "--payloads", "{ query = '{duration_ms}' }"]);
    assert_eq!(done.status.code(), Some(78));
}
