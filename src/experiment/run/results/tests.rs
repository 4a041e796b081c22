use super::*;
use crate::experiment::design::about::NodeAbout;
use crate::experiment::design::job::JobTimes;
use crate::experiment::design::scenario::Deadlines;

fn about() -> About {
    let node = |address: &str| NodeAbout { address: address.to_owned(), ..Default::default() };
    About {
        deadlines_s: Deadlines(vec![0.1]),
        payload_names: vec!["face.jpg".to_owned()],
        nodes: vec![node("10.0.0.1"), node("10.0.0.2")],
        ..About::default()
    }
}

/// A call each: run by another node, decided by a learner that the bench rewarded, refused, without
/// an answer, too late.
fn jobs() -> Vec<Job> {
    let job = |request, status, total_s| Job { request, status, total_s, ..Job::default() };
    let way = JobTimes { total: vec![0.04, 0.03], scheduling: vec![0.001], probing: vec![0.002] };
    let decision = DecisionShown {
        state: "0.0,1.0".to_owned(),
        action: 1.0,
        eps: 0.5,
        reward: Some(0.0),
        ..DecisionShown::default()
    };
    vec![
        Job {
            execution_s: Some(0.02),
            first_byte_s: Some(0.04),
            external: true,
            timings: way,
            peers_ip: vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()],
            peers_id: vec!["one".to_owned(), "two".to_owned()],
            ..job(0, 200, 0.05)
        },
        Job { learnt: Some(decision), ..job(1, 200, 0.05) },
        Job { error_code: 401, ..job(2, 503, 0.05) },
        Job { net_error: Some("no answer".to_owned()), ..job(3, 0, 0.05) },
        job(4, 200, 0.2),
    ]
}

/// A file with these calls, written as a run does it.
fn written(path: &Path, about: &About, jobs: Vec<Job>) -> Connection {
    let results = Results::create(path, about).expect("a new file");
    let way = results.jobs();
    jobs.into_iter().for_each(|job| way.send(job).expect("there is room"));
    drop(way);
    results.finish(about, false).expect("written");
    open(path).expect("a file")
}

fn column<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> Vec<T> {
    let mut select = db.prepare(sql).expect(sql);
    let rows = select.query_map([], |row| row.get(0)).expect(sql);
    rows.collect::<Result<_, _>>().expect(sql)
}

#[test]
fn v1s_scripts_find_v1s_words_and_a_value_in_every_cell() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = written(&folder.path().join("run.db"), &about(), jobs());
    for (table, columns) in TABLES {
        for name in columns.iter().filter_map(|column| column.split(' ').next()) {
            let sql = format!("SELECT COUNT(*) FROM {table} WHERE {name} IS NULL");
            assert_eq!(column::<u32>(&db, &sql), [0], "{table}.{name}");
        }
    }
    let of = |name: &str| column::<f64>(&db, &format!("SELECT {name} FROM jobs ORDER BY req_id"));
    assert_eq!(of("time_execution"), [0.02, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(of("times_parsed"), [1.0, 0.0, 0.0, 0.0, 0.0]);
    // By the deadline; but what a learner was told stands as it was told.
    assert_eq!(of("learning_reward"), [1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(of("learning_action"), [0.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(of("learning_eps"), [0.0, 0.5, 0.0, 0.0, 0.0]);
    let texts = |name: &str| {
        column::<String>(&db, &format!("SELECT {name} FROM jobs ORDER BY req_id")).join("|")
    };
    assert_eq!(texts("learning_state"), "|0.0,1.0|||");
    assert_eq!(texts("req_net_error_message"), "|||no answer|");
    let kinds: Vec<String> = column(&db, "SELECT DISTINCT time_type FROM timings ORDER BY 1");
    assert_eq!(kinds, ["first_byte", "probing", "scheduling", "service"]);
    let of = "SELECT time_value FROM timings WHERE time_type = 'service' ORDER BY index_i";
    assert_eq!(column::<f64>(&db, of), [0.04, 0.03]);
    let kinds = "SELECT DISTINCT value_type FROM values_strings ORDER BY 1";
    assert_eq!(column::<String>(&db, kinds), ["peer_id", "peer_ip"]);
}

#[test]
fn without_deadlines_no_call_has_a_reward_but_what_a_learner_was_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let about = About { deadlines_s: Deadlines::default(), ..about() };
    let mut jobs = jobs();
    jobs.iter_mut().filter_map(|job| job.learnt.as_mut()).for_each(|of| of.reward = Some(1.0));
    let db = written(&folder.path().join("run.db"), &about, jobs);
    let rewards: Vec<f64> = column(&db, "SELECT learning_reward FROM jobs ORDER BY req_id");
    assert_eq!(rewards, [0.0, 1.0, 0.0, 0.0, 0.0]);
}

/// What release 1.0.0 wrote of [`jobs`].
const OLD: &str = "
    UPDATE jobs SET time_execution = NULL WHERE times_parsed = 0;
    UPDATE jobs SET req_net_error_message = NULL WHERE req_net_error = 0;
    UPDATE jobs SET learning_state = NULL, learning_action = NULL, learning_eps = NULL,
        learning_reward = NULL WHERE learning_state = '';
    UPDATE timings SET time_type = 'total' WHERE time_type = 'service';
    UPDATE values_strings SET value_type = 'peers_list_' || SUBSTR(value_type, 6);";

#[test]
fn files_of_release_1_0_0_and_new_ones_are_read_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.db");
    let db = written(&path, &about(), jobs());
    let read = || -> Vec<Job> {
        let sql = "SELECT j.*, NULL FROM jobs j ORDER BY req_id";
        let mut select = db.prepare(sql).expect("the table");
        let rows = select.query_map([], |row| job(row, &[])).expect("rows");
        rows.collect::<Result<_, _>>().expect("jobs")
    };
    let (new, new_summary) = (read(), summary(&path).expect("a run"));
    db.execute_batch(OLD).expect("written anew");
    let names: Vec<String> = column(&db, "SELECT DISTINCT value_type FROM values_strings");
    assert_eq!(names, ["peers_list_ip", "peers_list_id"]);
    assert_eq!(read(), new);
    assert_eq!(summary(&path).expect("a run"), new_summary);
    // Nothing is taken for a measurement or a decision that was none.
    let timed: Vec<Option<f64>> = new.iter().map(|job| job.execution_s).collect();
    assert_eq!(timed, [Some(0.02), None, None, None, None]);
    let learnt: Vec<Option<f64>> =
        new.iter().map(|job| job.learnt.as_ref().map(|of| of.action)).collect();
    assert_eq!(learnt, [None, Some(1.0), None, None, None]);
    let errors: Vec<Option<&str>> = new.iter().map(|job| job.net_error.as_deref()).collect();
    assert_eq!(errors, [None, None, None, Some("no answer"), None]);
    assert_eq!(new_summary.actions().iter().sum::<u32>(), 1);
    assert_eq!(new_summary.ran[0], [2, 1, 0]);
}

#[test]
fn jobs_wait_within_their_bytes_however_much_nodes_tell() {
    let usual = Job::default();
    let long = Job {
        learnt: Some(DecisionShown { state: "1".repeat(30_000), ..DecisionShown::default() }),
        peers_ip: vec!["i".repeat(200); 64],
        peers_id: vec!["n".repeat(200); 64],
        ..Job::default()
    };
    assert!(usual.bytes() < 1000 && long.bytes() > 30_000 + 2 * 64 * 200);
    let (jobs, queue) = Jobs::new(10 * long.bytes());
    let sent = |job: &Job| (0..1000).take_while(|_| jobs.send(job.clone()).is_some()).count();
    assert_eq!(sent(&long), 10);
    assert!(jobs.send(usual.clone()).is_none());
    // What is written makes room.
    assert!(queue.iter().take(10).map(|(job, _held)| job).eq(vec![long; 10]));
    assert_eq!(sent(&usual), 1000);
    drop(queue);
    assert!(jobs.send(usual).is_none(), "nobody writes");
}
