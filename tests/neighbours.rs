//! What nodes say of themselves, and whom they hand calls to.

mod common;

use std::collections::BTreeSet;

use common::raw::{RawServer, answer};
use common::*;
use serde_json::{Value, json};

async fn records(node: &TestNode) -> Vec<Value> {
    let answered = get(&node.discovery("/records")).await;
    assert_eq!(answered.status, 200);
    answered.json().as_array().expect("a list").clone()
}

/// The record of the node `of`, as `node` has it, once it is as it should be.
async fn record(node: &TestNode, of: &TestNode, is: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("the record of {} is known", of.ip), || async {
        let all = records(node).await;
        all.into_iter().find(|record| record["ip"] == of.ip.to_string() && is(record))
    })
    .await
}

async fn becomes(node: &TestNode, neighbours: &str) {
    let change = json!({ "neighbours": neighbours }).to_string();
    assert_eq!(post(&node.discovery("/configuration"), change).await.status, 200);
}

/// Those that `node` hands calls to.
fn peers(node: &TestNode) -> Vec<String> {
    node.state().published.load().peers.iter().map(|peer| peer.host.to_string()).collect()
}

#[actix_rt::test]
async fn nodes_know_what_the_others_say_of_themselves() {
    let nodes = cluster::<3>(|settings| {
        settings.parallel_running_functions_max = 2;
        settings.fns_list = vec!["fn-echo".to_owned(), "fn-sleep".to_owned()];
    })
    .await;
    for node in &nodes {
        for of in &nodes {
            let record = record(node, of, |record| record["load_age_s"].is_f64()).await;
            assert_eq!(record["own"], node.ip == of.ip);
            assert_eq!(record["neighbour"], node.ip != of.ip);
            assert_eq!((&record["name"], &record["k"]), (&json!(of.id()), &json!(2)));
            assert_eq!(record["software"], format!("p2pfaas {}", p2pfaas::VERSION));
            assert_eq!((&record["protocol"], &record["failing_percent"]), (&json!(2), &json!(0)));
            assert_eq!(record["functions"], json!(["fn-echo", "fn-sleep"]));
            assert_eq!(record["left_out"], json!([]));
        }
        assert_eq!(records(node).await.len(), 3);
    }
    // What changes is told.
    let change = json!({"machine_group_name": "attic"}).to_string();
    assert_eq!(post(&nodes[0].discovery("/configuration"), change).await.status, 200);
    record(&nodes[2], &nodes[0], |record| record["group"] == "attic").await;
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let url = nodes[0].url("/function/fn-sleep?mean_ms=15000");
            actix_rt::spawn(async move { post(&url, "").await.status })
        })
        .collect();
    record(&nodes[2], &nodes[0], |record| record["running"] == 2).await;
    let known = nodes[2].state().published.load();
    let peer = known.peers.iter().find(|peer| *peer.host == nodes[0].ip.to_string());
    let load = peer.and_then(|peer| peer.record.as_ref()?.load).expect("policies see it");
    assert_eq!((load.k, load.running), (2, 2));
    calls.iter().for_each(|call| call.abort());
    record(&nodes[2], &nodes[0], |record| record["running"] == 0).await;
}

#[actix_rt::test]
async fn a_node_of_v1_has_an_empty_record() {
    let v1 = fresh_ip();
    let _discovery = RawServer::start(v1, 19000, move |_| {
        let head = format!("p2pfaas-machine-ip: {v1}\r\np2pfaas-machine-name: old\r\n");
        answer("200 OK", &head, b"[]")
    });
    let node = TestNode::start(|settings| settings.init_servers = vec![v1.to_string()]);
    let record = eventually("it answers", || async {
        records(&node).await.into_iter().find(|record| record["name"] == "old")
    })
    .await;
    assert_eq!((&record["ip"], &record["neighbour"]), (&json!(v1.to_string()), &json!(true)));
    assert_eq!((&record["protocol"], &record["software"]), (&json!(1), &json!("")));
    assert!(record.get("k").is_none() && record.get("load_age_s").is_none());
}

#[actix_rt::test]
async fn neighbours_change_while_a_node_runs_and_are_saved() {
    let mut nodes = cluster::<4>(|settings| {
        settings.scheduler = "ForwardScheduler 1".to_owned();
    })
    .await;
    let ips = nodes.each_ref().map(|node| node.ip.to_string());
    assert_eq!(peers(&nodes[0]).len(), 3);
    assert!(get(&nodes[0].discovery("/configuration")).await.json().get("neighbours").is_none());
    becomes(&nodes[0], &format!("list {} 10.9.9.9", ips[2])).await;
    assert_eq!(peers(&nodes[0]), [ips[2].clone()]);
    let told = get(&nodes[0].discovery("/configuration")).await.json();
    assert_eq!(told["neighbours"], format!("list {} 10.9.9.9", ips[2]));
    for _ in 0..5 {
        let answered = post(&nodes[0].url("/function/fn-echo"), "x").await;
        assert_eq!(answered.names("x-p2pfaas-peers-list-ip"), [ips[0].clone(), ips[2].clone()]);
    }
    assert_eq!(nodes[0].listed().await.len(), 3, "all are known");
    // Those of the own group.
    for node in [&nodes[0], &nodes[3]] {
        let change = json!({"machine_group_name": "attic"}).to_string();
        assert_eq!(post(&node.discovery("/configuration"), change).await.status, 200);
    }
    becomes(&nodes[0], "group").await;
    eventually("the group is known", || async {
        (peers(&nodes[0]) == [ips[3].clone()]).then_some(())
    })
    .await;
    becomes(&nodes[0], "nearest 2").await;
    assert_eq!(peers(&nodes[0]).len(), 2);
    // What is none changes nothing.
    let wrong = json!({"neighbours": "farthest 2"}).to_string();
    let answered = post(&nodes[0].discovery("/configuration"), wrong).await;
    assert_eq!((answered.status, answered.code()), (400, 4));
    assert_eq!(peers(&nodes[0]).len(), 2);
    nodes[0].stop().await;
    nodes[0].start_again();
    let told = get(&nodes[0].discovery("/configuration")).await.json();
    assert_eq!(told["neighbours"], "nearest 2");
    becomes(&nodes[0], "all").await;
    assert!(get(&nodes[0].discovery("/configuration")).await.json().get("neighbours").is_none());
}

#[actix_rt::test]
async fn calls_find_their_way_round_a_ring_and_never_circle() {
    let nodes = cluster::<5>(|settings| settings.scheduler = "ForwardScheduler 9".to_owned()).await;
    let ips = nodes.each_ref().map(|node| node.ip.to_string());
    let next_to = |n: usize| [ips[(n + 1) % 5].clone(), ips[(n + 4) % 5].clone()];
    for (n, node) in nodes.iter().enumerate() {
        becomes(node, &format!("list {}", next_to(n).join(" "))).await;
    }
    for (n, node) in nodes.iter().enumerate() {
        let answered = post(&node.url("/function/fn-echo"), "x").await;
        assert_eq!(answered.status, 200);
        let path = answered.names("x-p2pfaas-peers-list-ip");
        let passed: BTreeSet<&String> = path.iter().collect();
        assert_eq!((path.len(), passed.len()), (5, 5), "{path:?}");
        assert_eq!(path[0], ips[n]);
        let place = |ip: &String| ips.iter().position(|other| other == ip).expect("one of them");
        for pair in path.windows(2) {
            assert!(next_to(place(&pair[0])).contains(&pair[1]), "{path:?}");
        }
    }
}

#[actix_rt::test]
async fn two_of_one_name_are_both_listed_and_it_shows() {
    let nodes = cluster::<3>(|_| {}).await;
    let conflicts = async |node: &TestNode| -> Vec<Value> {
        let listed = get(&node.discovery("/list")).await.json();
        let machines = listed.as_array().expect("a list").clone();
        machines.iter().map(|machine| machine["conflict"].clone()).collect()
    };
    assert_eq!(conflicts(&nodes[0]).await, [Value::Null, Value::Null]);
    for node in &nodes[1..] {
        let change = json!({"machine_id": "twin"}).to_string();
        assert_eq!(post(&node.discovery("/configuration"), change).await.status, 200);
    }
    eventually("the conflict shows", || async {
        (conflicts(&nodes[0]).await == ["name", "name"]).then_some(())
    })
    .await;
    // The one of them sees it as well.
    eventually("its own name is another's", || async {
        conflicts(&nodes[1]).await.contains(&json!("name")).then_some(())
    })
    .await;
}
