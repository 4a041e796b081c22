//! What can stand in a scenario, and what a run of it is.

use super::*;
use crate::keys::Allowed;
use crate::types::List;

fn read(text: &str) -> Result<Scenario, BadScenario> {
    Scenario::from_table(&text.parse().expect("TOML"))
}

#[test]
fn a_sweep_is_all_combinations_with_all_algorithms_on_the_same_requests_first() {
    let scenario = read(
        r#"
        schedulers = ["NoScheduler false", "LearningScheduler 2"]
        load_factors = [1.0, 1.5]
        deadline_factors = [1, 1.3]
        seeds = 7
        deadlines_s = [0.1, 0.2]
        "#,
    )
    .expect("good");
    let points = scenario.points();
    assert_eq!(points.len(), 8);
    assert!(!points[0].learns() && points[1].learns());
    assert_eq!((points[1].load_factor, points[1].deadline_factor), (1.0, 1.0));
    assert_eq!((points[2].load_factor, points[2].deadline_factor), (1.0, 1.3));
    assert_eq!((points[4].load_factor, points[7].seed), (1.5, 7));
    assert_eq!(scenario.deadlines(&points[2]).0, [0.1 * 1.3, 0.2 * 1.3]);
}

#[test]
fn rewards_are_for_good_answers_within_the_types_deadline() {
    let deadlines = Deadlines(vec![0.1, 0.5]);
    assert!(deadlines.met(0, 200, 0.1) && !deadlines.met(0, 200, 0.100_001));
    assert!(deadlines.met(1, 204, 0.5) && deadlines.met(9, 200, 0.5), "the last one goes on");
    assert!(!deadlines.met(0, 500, 0.01) && !deadlines.met(0, 302, 0.01));
    assert!(!deadlines.met(0, 0, 0.01), "no answer");
    assert!(Deadlines::default().met(0, 200, 1e9) && !Deadlines::default().met(0, 503, 0.0));
}

#[test]
fn everything_that_is_wrong_is_named() {
    let problems = read(
        "duration_s = -1\nrates = []\nname = \"../x\"\nfunction = \"a..b\"\nschedulers = \"Nope\"",
    )
    .expect_err("bad")
    .0;
    for key in ["duration_s", "rates", "name", "function", "Nope"] {
        assert!(problems.iter().any(|why| why.to_string().contains(key)), "{key}: {problems:?}");
    }
    let problems = read("durations = 1\nrates = \"x\"\narrivals = 3").expect_err("bad").0;
    for key in ["durations", "rates", "arrivals"] {
        assert!(problems.iter().any(|why| why.to_string().contains(key)), "{key}: {problems:?}");
    }
    let problems = read("payloads = [{ mix = 0 }]").expect_err("bad").0;
    assert_eq!(problems[0].key, "payloads");
    assert!(read("theory_service_s = 0.1\nrates = [1, 2]").is_err());
    let seeds: Vec<u64> = (0..101).collect();
    let factors = vec![1.0; 100];
    let many = |seeds: &[u64]| read(&format!("seeds = {seeds:?}\nload_factors = {factors:?}"));
    assert!(many(&seeds[..100]).is_ok());
    assert!(many(&seeds).expect_err("too many").0[0].why.contains("10100 runs"));
    assert!(read("theory_service_s = 0.1\nschedulers = \"ForwardScheduler 1\"").is_err());
    assert!(read("traces = \"t.csv\"\nrates = 3").is_err());
    for key in ["traces = \"t.csv\"", "rates = 3", "arrivals = \"poisson\""] {
        let why = read(&format!("recording = {{ file = \"r.csv\" }}\n{key}")).expect_err("both");
        assert!(why.to_string().contains("a recording is given, too"), "{why}");
    }
    for (table, part) in [
        ("from_s = 1", "file"),
        ("file = \"r\", from_s = -1", "from_s is -1"),
        ("file = \"r\", from_s = nan", "from_s is NaN"),
        ("file = \"r\", from_s = 2e9", "from_s is 2000000000"),
        ("file = \"r\", speed = 0", "speed is 0"),
        ("file = \"r\", speed = inf", "speed is inf"),
        ("file = \"r\", until_s = 1", "until_s"),
    ] {
        let why = read(&format!("recording = {{ {table} }}")).expect_err(table).to_string();
        assert!(why.starts_with("recording: ") && why.contains(part), "{why}");
    }
    let closed = "theory_service_s = 0.1\nschedulers = \"NoScheduler false\"";
    assert!(read(closed).is_ok());
    assert!(read(&format!("recording = {{ file = \"r.csv\" }}\n{closed}")).is_err());
    for learner in ["alpha = nan", "reward = { deadlines_s = [inf] }"] {
        let why = read(&format!("[learner]\n{learner}")).expect_err("no JSON").to_string();
        assert!(why.contains("no finite number"), "{why}");
    }
}

#[test]
fn a_scenario_written_out_reads_the_same() {
    let scenario = read(
        r#"
        traces = "traffic_{n}.csv"
        k = 3
        payloads = [{ file = "a/b.jpg", mix = 2 }, { name = "x", task_type = 1 }]
        learner = { alpha = 0.5, reward = { source = "node", deadlines_s = [1] } }
        "#,
    )
    .expect("good");
    assert_eq!(read(&scenario.written()), Ok(scenario.clone()));
    let fixed = Scenario { rates: List(vec![3.0]), ..Scenario::default() };
    assert_eq!(read(&fixed.written()), Ok(fixed));
    let recorded = read("recording = { file = \"r.csv\", speed = 60 }").expect("good");
    assert_eq!(read(&recorded.written()), Ok(recorded));
    assert_eq!(scenario.trace_of(3), Some(PathBuf::from("traffic_3.csv")));
    assert_eq!(scenario.payloads[0].title(), "b.jpg");
}

#[test]
fn every_word_that_a_key_lists_can_be_given_and_every_default_is_in_its_range() {
    for key in Scenario::KEYS {
        let Allowed::OneOf(words) = key.allowed else { continue };
        for word in words() {
            let given = read(&format!("deadlines_s = 1\n{} = {word:?}", key.name));
            assert!(given.is_ok(), "{} {word}: {given:?}", key.name);
        }
    }
    assert_eq!(read(&Scenario::default().written()), Ok(Scenario::default()));
}

#[test]
fn a_rate_of_a_trace_that_falls_is_refused_with_both_keys() {
    let why = read("min_load = 3\nmax_load = 2").expect_err("it falls").to_string();
    assert_eq!(why, "max_load: 2 is less than min_load, 3");
}
