//! The programs in `examples/` run and print what their first lines promise.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::*;

/// An example, which `cargo test` puts into the folder beside that of the tests. With `--test` it
/// builds no examples.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let built = test.parent().and_then(|tests| tests.parent()).expect("a folder above");
    let path = built.join("examples").join(name);
    assert!(path.exists(), "{} is missing: run cargo build --examples first", path.display());
    path
}

fn printed(name: &str, arguments: &[&str]) -> Vec<String> {
    let ended = Command::new(example(name)).args(arguments).output().expect("it is built");
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{name}: {complaint}");
    let text = String::from_utf8(ended.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

/// The numbers of a line, in order.
fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn in_simulated_time_power_of_n_refuses_fewer_calls_than_no_scheduler() {
    let lines = printed("simulated_queueing", &[]);
    let figures = |line: &str| numbers(&line.replace(" true", "").replace("1 2 1 ", ""));
    let [alone, together] = <[String; 2]>::try_from(lines).expect("two lines");
    assert!(alone.starts_with("NoScheduler") && together.starts_with("PowerOfNScheduler"));
    let ([alone, none, _], [together, elsewhere, _]) = (
        <[f64; 3]>::try_from(figures(&alone)).expect("three figures"),
        <[f64; 3]>::try_from(figures(&together)).expect("three figures"),
    );
    assert!(alone > 10.0 && together < alone / 3.0, "{alone} and {together}");
    assert!(none == 0.0 && elsewhere > 10.0, "{none} and {elsewhere}");
}

#[test]
fn the_value_function_learns_to_run_calls_here_up_to_a_load_of_four() {
    let lines = printed("value_function", &[]);
    assert_eq!(lines.len(), 12, "{lines:?}");
    for (load, line) in lines[1..11].iter().enumerate() {
        // Around the load where both are worth the same, chance decides.
        let wanted = match load {
            0..=3 => "run here",
            4 | 5 => continue,
            _ => "forward",
        };
        assert!(line.ends_with(wanted), "{line}");
    }
    let average = numbers(&lines[11])[0];
    assert!((0.60..0.75).contains(&average), "{average}");
}

#[actix_rt::test]
async fn the_client_trains_the_learner_of_a_node() {
    let node = TestNode::start(|settings| {
        settings.scheduler = "LearningScheduler 1".to_owned();
        settings.parallel_running_functions_max = 1;
        settings.queue_length_max = 5;
    });
    let ip = node.ip.to_string();
    let lines = actix_rt::task::spawn_blocking(move || printed("training_client", &[&ip])).await;
    let lines = lines.expect("it runs");
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("trained with 150")), "{lines:?}");
    let stats = get(&node.learner("/learner/stats")).await.json();
    let trained = stats["trained_items"].as_u64().expect("a count");
    assert!(trained >= 740, "all but those that wait for a whole window: {stats}");
}
