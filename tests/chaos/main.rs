//! Chaos: real nodes in network namespaces, under calls all the time, to which everything happens that happens to
//! machines. After each fault the laws hold that always hold (`laws.rs`), and a row tells what it cost.
//!
//! Needs root, Linux with network namespaces and /dev/net/tun, and `ip`, `setpriv`, `prlimit` and `mount`. Where
//! something is missing it says so and is passed over. `course.rs` has what can be chosen by the environment.
#![expect(clippy::disallowed_methods, reason = "what is tested goes on in real time")]

mod cluster;
mod course;
mod faults;
mod function;
mod http;
mod keys;
mod laws;
mod load;
mod network;
mod node;
mod relay;
mod table;

use std::time::{Duration, Instant};

use cluster::Cluster;
use course::Course;
use faults::{Fault, Scene};
use laws::Fate;
use load::{Call, Load};
use network::{Network, run};
use table::{ms, row, say};

/// How long after a fault its calls may still be slow.
const AFTERMATH: Duration = Duration::from_secs(6);
/// From which lateness on the machine has stalled, and how often a fault may strike then.
const STALL: Duration = Duration::from_millis(500);
const TRIES: u32 = 3;
/// Calls before the first fault, until nodes hold what they will hold.
const WARM_UP: Duration = Duration::from_secs(5);

/// A runtime for one thread.
fn runtime() -> tokio::runtime::Runtime {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.expect("a runtime")
}

/// Lets time pass while calls go on.
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks again and again until it gives something; fails the test if that takes too long.
fn wait_for<T>(what: &str, most: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    let mut looks = || {
        found = look();
        found.is_some()
    };
    assert!(wait_until(most, &mut looks), "not within {most:?}: {what}");
    found.expect("it was found")
}

/// The same of a condition: whether it came true in time.
fn wait_until(most: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + most;
    loop {
        if is_true() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        pause(Duration::from_millis(20));
    }
}

/// What this machine lacks.
fn missing() -> Result<(), String> {
    for program in ["ip", "setpriv", "prlimit", "mount"] {
        run(program, &["-V"])?;
    }
    let network = Network::new()?;
    network.plug(cluster::address(0)).map(drop)
}

/// Tells how a fault is run again, should the test end here.
struct Again(String);

impl Drop for Again {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("to run it again: {}\n", self.0));
        }
    }
}

#[test]
fn nodes_keep_their_word_whatever_breaks() {
    if let Err(why) = missing() {
        let required = std::env::var("P2PFAAS_REQUIRE_CHAOS").is_ok_and(|value| value == "1");
        assert!(!required, "P2PFAAS_REQUIRE_CHAOS is set and there can be no chaos: {why}");
        say(&format!("skipped: no network can be made for chaos: {why}\n"));
        return;
    }
    let course = Course::of_environment();
    say(&format!(
        "chaos: {} nodes, {} calls/s, seed {}\n{}",
        course.nodes,
        course.rate,
        course.seed,
        table::HEAD
    ));
    let (mut rows, mut failures) = (String::new(), Vec::new());
    for (keys, faults) in course.clusters() {
        let mut cluster = Cluster::start(&course, keys)
            .unwrap_or_else(|why| panic!("the cluster cannot be made: {why}"));
        let load = Load::start(&cluster, course.rate, course.seed);
        pause(WARM_UP);
        load.stop();
        cluster.functions.take();
        for fault in faults {
            let again = Again(course.again(fault));
            let (row, broken) = strike_until_clear(&course, fault, &mut cluster);
            say(&row);
            rows += &row;
            if !broken.is_empty() {
                let (name, broken) = (fault.name, broken.join("\n  "));
                failures.push(format!("{name}:\n  {broken}\n  to run it again: {}", again.0));
            }
        }
    }
    if let Some(path) = &course.table {
        std::fs::write(path, format!("{}{rows}", table::HEAD)).expect("the table can be written");
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// One fault, once more where that tells more: where laws were broken while the machine gave nobody a turn for a long
/// time, which says something of the machine only; and where a node holds more memory than before, for its heap may
/// keep what was used once, but what grows again is lost.
fn strike_until_clear(
    course: &Course,
    fault: &Fault,
    cluster: &mut Cluster,
) -> (String, Vec<String>) {
    for _ in 1..TRIES {
        let struck = strike(course, fault, cluster);
        let why = match &struck {
            Struck { broken, grown: None, .. } if broken.is_empty() => "",
            Struck { late, .. } if *late >= STALL => "the machine stalled",
            Struck { broken, grown: Some(grown), .. } if broken.is_empty() => grown,
            _ => "",
        };
        if why.is_empty() {
            return struck.told();
        }
        say(&format!("once more, for {why}: {}", struck.row));
    }
    strike(course, fault, cluster).told()
}

/// What a fault did.
struct Struck {
    row: String,
    /// The laws that were broken, but for that on memory.
    broken: Vec<String>,
    /// The node that holds more than before.
    grown: Option<String>,
    /// By how much the clients were late at most.
    late: Duration,
}

impl Struck {
    /// Its row, and all laws that were broken.
    fn told(self) -> (String, Vec<String>) {
        (self.row, self.broken.into_iter().chain(self.grown).collect())
    }
}

/// One fault under load.
fn strike(course: &Course, fault: &Fault, cluster: &mut Cluster) -> Struck {
    cluster.outages.clear();
    cluster.functions.take();
    let load = Load::start(cluster, course.rate, course.seed);
    let began = Instant::now();
    pause(course.before);
    let memory = laws::memory(cluster);
    let random = course.random(fault);
    let mut scene = Scene { cluster, random, lasts: course.lasts, notes: Vec::new() };
    let struck = Instant::now();
    (fault.strike)(&mut scene);
    let (healed, notes) = (Instant::now(), scene.notes);
    let right = cluster.until_right();
    pause((healed + AFTERMATH + course.after).saturating_duration_since(Instant::now()));
    let outcome = load.stop();

    let (mut broken, runs) = (Vec::new(), cluster.functions.take());
    laws::k_is_kept(&outcome, &runs, &mut broken);
    laws::runs_are_true(&outcome, &runs, &mut broken);
    laws::few_are_lost(&outcome, cluster, (fault.bar, course.is_long), &mut broken);
    laws::calls_are_forwarded(&outcome, &mut broken);
    laws::nobody_panics(cluster, &mut broken);
    let (grown_kib, grown) = laws::memory_comes_back(cluster, &memory);
    let fates = laws::fates(&outcome, &cluster.outages);
    let is_before = |call: &Call| call.began >= began && call.began + call.took <= struck;
    let count = |fate| fates.get(&fate).copied().unwrap_or(0).to_string();
    let row = row(&[
        fault.about.to_owned(),
        outcome.calls.len().to_string(),
        count(Fate::Lost),
        format!("{} %", fault.bar * 100.0),
        count(Fate::OnLostNode),
        count(Fate::EntryGone),
        ms(laws::p99_ms(&outcome, is_before)),
        // Those that were under way when it struck among them.
        ms(laws::p99_ms(&outcome, |call| !is_before(call) && call.began < healed)),
        ms(laws::p99_ms(&outcome, |call| call.began >= healed + AFTERMATH)),
        format!("{:.1} s", right.as_secs_f64()),
        format!("{:+.1} MiB", grown_kib as f64 / 1024.0),
        notes.join(", "),
    ]);
    Struck { row, broken, grown, late: outcome.late }
}
