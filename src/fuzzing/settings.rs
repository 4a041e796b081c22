//! Files that people write, files of the node's own, and what is posted to change it.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use actix_http::header::HeaderValue;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use toml::Table;

use super::{Bytes, rewritten};
use crate::config::Settings;
use crate::experiment::design::azure::{self, Arrived};
use crate::experiment::design::replay::{Recording, Replayed, Stretch};
use crate::experiment::design::scenario::Scenario;
use crate::experiment::design::{recorded, trace};
use crate::fleet::Fleet;
use crate::memory;
use crate::policy::registry::SchedulerSpec;
use crate::queue::Limits;
use crate::rl::parameters::Parameters;
use crate::saved::eids::read_eids;
use crate::saved::model_file::ModelFile;
use crate::saved::{Dynamic, FlagOverrides, LearnerFile, LimitsPatch, MachineConfig, MachinePatch};
use crate::storage::{self, journal};
use crate::types::{INIT_SERVERS_MAX, NAME_BYTES_MAX};
use crate::wire::json::{self, Bounds};

/// What is accepted as an algorithm has a normal form, can be told in a header, and is the same when
/// it is read again.
fn check_spec(spec: &SchedulerSpec) {
    let policy = match spec.build() {
        Ok(policy) => policy,
        Err(why) => return assert!(why.to_string().len() < 1024, "{why}"),
    };
    HeaderValue::from_str(&policy.full_name()).expect("a header's value");
    let normal = SchedulerSpec::of(&*policy);
    let again = normal.build().expect("its normal form is good");
    assert_eq!(again.full_name(), policy.full_name());
    assert_eq!(SchedulerSpec::of(&*again), normal);
    assert_eq!(rewritten(&normal), normal);
    let words = normal.words();
    let plain = normal.parameters.iter().all(|p| !p.is_empty() && !p.contains(char::is_whitespace));
    assert!(!plain || SchedulerSpec::from_words(&words) == normal, "{words}");
}

/// An algorithm as it is posted.
pub(super) fn scheduler_json(bytes: &[u8]) {
    if let Ok(spec) = json::read_object::<SchedulerSpec>(bytes, &Bounds::SMALL) {
        check_spec(&spec);
    }
}

/// An algorithm as it stands in settings and on the command line.
pub(super) fn scheduler_words(bytes: &[u8]) {
    check_spec(&SchedulerSpec::from_words(&String::from_utf8_lossy(bytes)));
}

/// Who a machine is can be told to others.
fn check_machine(machine: &MachineConfig) {
    let identity = machine.identity(Some([10, 0, 0, 1].into()));
    for text in [&identity.id, &identity.group] {
        assert!(text.len() <= NAME_BYTES_MAX && HeaderValue::from_str(text).is_ok(), "{text:?}");
    }
    assert!(machine.init_servers.len() <= INIT_SERVERS_MAX);
    let patch = rewritten(&machine.to_patch());
    assert_eq!(&MachineConfig::default().merged(&patch), machine);
}

/// What is posted to `/configuration`.
pub(super) fn patches(bytes: &[u8]) {
    if let Ok(patch) = json::read_object::<LimitsPatch>(bytes, &Bounds::SMALL) {
        let limits = patch.over(Limits { k: 4, queue_length_max: 4, queue_enabled: true });
        assert_eq!(rewritten(&LimitsPatch::from(limits)).over(limits), limits);
    }
    if let Ok(patch) = json::read_object::<MachinePatch>(bytes, &Bounds::SMALL) {
        match patch.check() {
            Ok(()) => check_machine(&MachineConfig::default().merged(&patch)),
            Err(why) => assert!(why.len() < 2048, "{why}"),
        }
    }
}

/// Settings in a file.
pub(super) fn config_toml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(loaded) = Settings::layered(Some(("f", &text)), [], &[]) else { return };
    let shown = toml::to_string(&loaded.settings).expect("settings can be shown");
    let again = Settings::layered(Some(("f", &shown)), [], &[]).expect("and read again");
    // What is not shown is not read again.
    match loaded.settings.hidden().is_empty() {
        true => assert_eq!(again.settings, loaded.settings, "{shown}"),
        false => assert_eq!(toml::to_string(&again.settings).as_deref(), Ok(&*shown)),
    }
}

/// A fleet file or a hosts file.
pub(super) fn fleet_file(bytes: &[u8]) {
    // Each name has an address that follows from its length.
    let look_up = |name: &str| Ok(IpAddr::from([10, 0, 0, name.len() as u8]));
    let Ok(fleet) = Fleet::parse(&String::from_utf8_lossy(bytes), &look_up) else { return };
    assert!(!fleet.0.is_empty());
    for (n, member) in fleet.0.iter().enumerate() {
        assert!(fleet.0.iter().skip(n + 1).all(|other| other.address != member.address));
        if let Some(spec) = &member.wanted.scheduler {
            check_spec(spec);
        }
        assert_eq!(member.wanted.machine.check(), Ok(()));
    }
}

/// A scenario of a bench.
pub(super) fn scenario(bytes: &[u8]) {
    let Ok(table) = String::from_utf8_lossy(bytes).parse::<Table>() else { return };
    let Ok(scenario) = Scenario::from_table(&table) else { return };
    let points = scenario.points();
    assert!(!points.is_empty() && points.len() <= 10_000);
    let written = scenario.written();
    let again = written.parse::<Table>().map_err(|why| why.to_string());
    let again = again.and_then(|table| Scenario::from_table(&table).map_err(|why| why.to_string()));
    let again = again.unwrap_or_else(|why| panic!("{why}\n{written}"));
    // Of rates and traces only the one that a run follows is written.
    let rates = match again.traces.0.is_empty() {
        true => again.rates.clone(),
        false => scenario.rates.clone(),
    };
    assert_eq!(Scenario { rates, ..again }, scenario, "{written}");
}

/// A trace of traffic, generated or recorded, and what is recorded beside.
pub(super) fn trace(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    recorded(&text);
    let Ok(values) = trace::parse(&text) else { return };
    assert!(!values.is_empty() && values.iter().all(|value| (0.0..=1.0).contains(value)));
    assert_eq!(trace::parse(&trace::csv(&values)), Ok(values));
}

fn recorded(text: &str) {
    let arrived = azure::parse(text);
    if arrived.is_ok() {
        assert!(azure::layout(text).is_ok());
    }
    if let Ok(Arrived::Counts(counts)) = &arrived {
        assert!(counts.iter().all(|minutes| minutes.len() == counts[0].len()));
    }
    if let Ok(Arrived::Invocations(all)) = &arrived {
        assert!(all.iter().all(|one| one.at_s.is_finite() && one.at_s >= 0.0));
        assert!(all.windows(2).all(|two| two[0].at_s <= two[1].at_s));
    }
    if let Ok(arrived) = arrived {
        replayed(arrived);
    }
    if let Ok(durations) = recorded::durations(text) {
        assert!(durations.iter().all(|duration| duration.is_finite() && *duration >= 0.0));
    }
    for (from, to, latency_ms, bandwidth) in recorded::links(text).unwrap_or_default() {
        assert!(from != to && latency_ms >= 0.0 && bandwidth.is_none_or(|rate| rate > 0.0));
    }
}

/// The first calls of a run that goes through what was recorded.
fn replayed(arrived: Arrived) {
    let stretch = Stretch { from_s: 30.0, speed: 60.0, duration_s: 10.0 };
    let Ok(recording) = Recording::new(arrived, 3, stretch, 20.0) else { return };
    assert!(recording.longest_s().is_none_or(|longest| longest >= 0.0));
    // A minute with very many calls takes long, and is as all others.
    if recording.calls() > 10_000 {
        return;
    }
    let (recording, factor) = (Arc::new(recording), 1.5);
    let all: Vec<_> =
        Replayed { recording, stretch, factor }.arrivals(SmallRng::seed_from_u64(1)).collect();
    assert!(all.windows(2).all(|two| two[0].at_s <= two[1].at_s));
    assert!(all.iter().all(|call| call.node < 3 && (0.0..10.0).contains(&call.at_s)));
    assert!(all.iter().all(|call| call.rate > 0.0));
}

/// What the kernel tells of memory.
pub(super) fn cgroup(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (memory::bytes(&text), memory::total(&text));
    let nowhere = Path::new("/nonexistent");
    assert_eq!(memory::limit_of_groups(&text, nowhere), None, "it stays below its folder");
}

thread_local! {
    static FOLDER: OnceCell<(tempfile::TempDir, Settings)> = const { OnceCell::new() };
}

/// The model's journal, and the model that those of the examples belong to.
const JOURNAL_FILE: &str = "p2pfaas_learner-model.journal";
const JOURNALS_MODEL: &str = r#"{"format":1,"shape":{"actions_n":2,"value_function":"qtable","td_form":"sarsa_average_reward","compatibility":"none"},"average_reward":0,"epsilon":0.5,"values":{"states":[[0]],"table":[[0,1]]}}"#;

/// The node's own files.
pub(super) fn saved_files(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let files = [
        storage::QUEUE_FILE,
        storage::SCHEDULER_FILE,
        storage::DISCOVERY_FILE,
        storage::LEARNER_FILE,
        storage::EIDS_FILE,
        storage::MODEL_FILE,
        JOURNAL_FILE,
    ];
    let Some(file) = files.get(bytes.one_of(files.len())) else { return };
    FOLDER.with(|folder| {
        let (folder, settings) = folder.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a folder");
            let settings = Settings {
                data_path: folder.path().to_owned(),
                learner_memory_bytes_max: 1 << 20,
                ..Settings::default()
            };
            (folder, settings)
        });
        let (file, model) = (folder.path().join(file), folder.path().join(storage::MODEL_FILE));
        if file == journal::beside(&model) {
            std::fs::write(&model, JOURNALS_MODEL).expect("writable");
        }
        std::fs::write(&file, bytes.0).expect("writable");
        check_start(settings);
        // A model that does not fit was moved.
        [file, model].iter().for_each(|file| drop(std::fs::remove_file(file)));
    });
}

/// A node that starts from its files starts from what it saves then.
fn check_start(settings: &Settings) {
    let folder = &*settings.data_path;
    let _ = read_eids(folder);
    let parameters = Parameters { memory_bytes: 1 << 20, ..Parameters::default() };
    let _ = ModelFile::load(folder, parameters);
    let Ok(dynamic) = Dynamic::load(settings, &FlagOverrides::default()) else { return };
    check_spec(&dynamic.scheduler);
    check_machine(&dynamic.machine.saved);
    let limits = dynamic.limits.saved;
    assert_eq!(rewritten(&LimitsPatch::from(limits)).over(limits), limits);
    rewritten(&LearnerFile::of(&dynamic.learner));
}
