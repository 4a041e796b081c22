//! A client that trains a node's learner with rewards of its own making, over HTTP alone.
//!
//! Under `LearningScheduler` every answer tells the decision that was taken for the call: its number
//! (EID), the state and the action. A client that knows what the answer was worth sends these three
//! back with a reward, in batches, to `/train_batch` of the learner API.
//!
//! Here an answer within 70 ms is worth 1, a later one −1, and a call that the node rejected 0. Six
//! callers ask a node that runs one call of 20 ms at a time: if it takes them all, most come late. So
//! the learner finds out from which load on it is better to reject a call.
//!
//! ```console
//! $ cargo run --example training_client                # against a node that it starts itself
//! $ cargo run --example training_client -- 127.0.0.1   # against the node there
//! ```
//!
//! A node that runs already has to have the embedded functions, `LearningScheduler 1` and rewards by
//! clients, which is the default: `p2pfaas node --embedded-functions --scheduler 'LearningScheduler 1'
//! --k 1 --queue-length 5`. Its learner is trained further, not reset.
//!
//! It prints, round by round, the shares of calls in time, late and rejected, and the learner's ε.

#![expect(clippy::disallowed_methods, reason = "a client of a node in real time")]

use std::error::Error;
use std::time::{Duration, Instant};

use awc::Client;
use futures_util::future::join_all;
use p2pfaas::client::{Hosts, client};
use p2pfaas::config::Settings;
use p2pfaas::node::Node;
use p2pfaas::saved::FlagOverrides;
use serde_json::{Value, json};

const ROUNDS: usize = 5;
/// Callers at once, and what each sends in a round, one after the other.
const CALLERS: usize = 6;
const CALLS: usize = 25;
/// What a caller waits between two calls.
const PAUSE: Duration = Duration::from_millis(30);
const DEADLINE: Duration = Duration::from_millis(70);
/// Where the example's own node listens.
const OWN_NODE: [u8; 4] = [127, 0, 18, 80];

/// What one call came to.
struct Outcome {
    status: u16,
    in_time: bool,
    /// What the learner can be trained with; `None`: no decision was told.
    entry: Option<(u64, Value)>,
}

async fn call(http: &Client, host: &str) -> Result<Outcome, Box<dyn Error>> {
    let sent = Instant::now();
    let url = format!("http://{host}:18080/function/fn-sleep?mean_ms=20");
    let answer = http.post(url).send().await?;
    let in_time = sent.elapsed() <= DEADLINE;
    let status = answer.status().as_u16();
    let told = |part: &str| {
        let name = format!("x-p2pfaas-scheduler-learning-{part}");
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let reward = match (status, in_time) {
        (200, true) => 1.0,
        (200, false) => -1.0,
        _ => 0.0,
    };
    // An EID of 0 means that nobody decided.
    let eid = told("eid").parse().ok().filter(|eid| *eid != 0);
    let entry = eid.map(|eid| {
        let (state, action) = (told("state"), told("action"));
        (eid, json!({"eid": told("eid"), "state": state, "action": action, "reward": reward}))
    });
    Ok(Outcome { status, in_time, entry })
}

/// One of the callers: sends its calls one after the other.
async fn caller(http: &Client, host: &str) -> Result<Vec<Outcome>, Box<dyn Error>> {
    let mut outcomes = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        outcomes.push(call(http, host).await?);
        actix_rt::time::sleep(PAUSE).await;
    }
    Ok(outcomes)
}

/// Sends a round of calls, trains the learner with what they were worth, and prints both.
async fn round(number: usize, http: &Client, host: &str) -> Result<(), Box<dyn Error>> {
    let callers = join_all((0..CALLERS).map(|_| caller(http, host))).await;
    let outcomes: Vec<Outcome> =
        callers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    // Calls end out of order. The learner puts entries in order, but not over any distance.
    let mut entries: Vec<&(u64, Value)> =
        outcomes.iter().filter_map(|one| one.entry.as_ref()).collect();
    entries.sort_by_key(|(eid, _)| *eid);
    let entries: Vec<&Value> = entries.into_iter().map(|(_, entry)| entry).collect();
    let trained = http.post(format!("http://{host}:19020/train_batch")).send_json(&entries).await?;
    if !trained.status().is_success() {
        return Err(format!("the learner refuses the batch: {}", trained.status()).into());
    }
    let stats = http.get(format!("http://{host}:19020/learner/stats")).send().await?.json().await;
    let stats: Value = stats?;
    let share = |which: &dyn Fn(&Outcome) -> bool| {
        let count = outcomes.iter().filter(|one| which(one)).count();
        100.0 * count as f64 / outcomes.len() as f64
    };
    println!(
        "round {number}: in time {:>3.0} %   late {:>3.0} %   rejected {:>3.0} %   trained with {}   ε {:.3}",
        share(&|one| one.status == 200 && one.in_time),
        share(&|one| one.status == 200 && !one.in_time),
        share(&|one| one.status != 200),
        entries.len(),
        stats["epsilon"].as_f64().unwrap_or(f64::NAN)
    );
    Ok(())
}

/// A node in this process, with its files in `folder`.
fn own_node(folder: &tempfile::TempDir) -> Result<Node, Box<dyn Error>> {
    let settings = Settings {
        host: OWN_NODE.into(),
        data_path: folder.path().to_owned(),
        workers: 1,
        embedded_functions: true,
        scheduler: "LearningScheduler 1".to_owned(),
        parallel_running_functions_max: 1,
        queue_length_max: 5,
        ..Settings::default()
    };
    Ok(Node::start(settings, &FlagOverrides::default())?)
}

async fn train(host: &str) -> Result<(), Box<dyn Error>> {
    let http = client(Duration::from_secs(2), Hosts::Any);
    // Few calls are made here: each should count, and ε fall soon.
    let parameters = json!({"alpha": 0.1, "epsilon_decay": 0.995, "epsilon_min": 0.05});
    http.post(format!("http://{host}:19020/learner/parameters")).send_json(&parameters).await?;
    for number in 1..=ROUNDS {
        round(number, &http, host).await?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    actix_rt::System::new().block_on(async {
        if let Some(host) = std::env::args().nth(1) {
            return train(&host).await;
        }
        let folder = tempfile::tempdir()?;
        let node = own_node(&folder)?;
        let trained = train(&std::net::Ipv4Addr::from(OWN_NODE).to_string()).await;
        node.stop().await;
        trained
    })
}
