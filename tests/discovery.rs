//! Discovery of the wire contract: the list, gossip, failures, its files.

mod common;

use common::raw::{RawServer, answer, ok};
use common::*;
use serde_json::{Value, json};

fn shape(machine: &Value) -> Vec<String> {
    machine.as_object().expect("an object").keys().cloned().collect()
}

#[actix_rt::test]
async fn an_empty_list_is_answered_as_recorded() {
    let node = TestNode::start(|settings| settings.machine_group_name = "cluster00".to_owned());
    let answered = get(&node.discovery("/list")).await;
    assert_eq!(answered.status, golden_status("118-disc-list-empty.txt"));
    assert_eq!(answered.json(), golden_json("118-disc-list-empty.txt"));
    assert_eq!(answered.header("content-type"), "application/json");
    assert_eq!(answered.header("p2pfaas-machine-group-name"), "cluster00");
    assert_eq!(answered.header("p2pfaas-machine-ip"), node.ip.to_string());
    assert_eq!(answered.header("p2pfaas-machine-name"), node.id(), "its machine_id");
}

#[actix_rt::test]
async fn the_configuration_has_the_recorded_form_is_merged_and_saved() {
    let mut node = TestNode::start(|_| {});
    let url = node.discovery("/configuration");
    let config = get(&url).await.json();
    assert_eq!(shape(&config), shape(&golden_json("119-disc-conf-get.txt")));
    // 120: init servers may hold what is no address, and the node itself.
    let servers = json!(["10.99.0.1", "bad", node.ip.to_string(), "172.17.0.3"]);
    let change = json!({"machine_id": "ref-n0", "init_servers": servers});
    let answered = post(&url, change.to_string()).await;
    assert_eq!((answered.status, answered.body.len()), (200, 0));
    let config = get(&url).await.json();
    assert_eq!(config["machine_id"], "ref-n0");
    assert_eq!(config["machine_ip"], node.ip.to_string());
    assert_eq!(config["init_servers"], servers);
    let saved = std::fs::read(node.file("p2p_faas-discovery.json")).expect("saved");
    let saved: Value = serde_json::from_slice(&saved).expect("JSON");
    assert_eq!((&saved["machine_id"], &saved["init_servers"]), (&json!("ref-n0"), &servers));
    node.stop().await;
    node.start_again();
    assert_eq!(get(&url).await.json(), config, "after a restart");
}

#[actix_rt::test]
async fn init_servers_are_listed_at_once_as_recorded_but_for_the_docker_network() {
    let node = TestNode::start(|settings| settings.poll_time_s = 3600.0);
    let servers = json!(["10.99.0.1", "bad", node.ip.to_string(), "172.17.0.3"]);
    post(&node.discovery("/configuration"), json!({"init_servers": servers}).to_string()).await;
    let list = get(&node.discovery("/list")).await.json();
    let recorded = golden_json("122-disc-list-after.txt");
    assert_eq!(shape(&list[0]), shape(&recorded[0]));
    // Polls that have failed count already where the network is known to have no way there.
    for key in ["_id", "ip", "name", "group_name", "alive"] {
        assert_eq!(list[0][key], recorded[0][key], "{key}");
    }
    assert_eq!(list.as_array().expect("a list").len(), 2, "ours does not drop 172.17.*");
    assert_eq!(list[1]["ip"], "172.17.0.3");
}

#[actix_rt::test]
async fn a_machine_that_calls_is_added_and_renamed_as_recorded() {
    let node = TestNode::start(|settings| settings.poll_time_s = 3600.0);
    post(&node.discovery("/configuration"), r#"{"init_servers":["10.99.0.1"]}"#).await;
    for (golden, name) in
        [("123-disc-list-machine.txt", "nm"), ("124-disc-list-machine-again.txt", "nm2")]
    {
        let headers = [
            MACHINE,
            ("p2pfaas-machine-ip", "10.99.0.2"),
            ("p2pfaas-machine-name", name),
            ("p2pfaas-machine-group-name", "g"),
        ];
        let list = send("GET", &node.discovery("/list"), &headers, "").await.json();
        let recorded = golden_json(golden);
        assert_eq!(list.as_array().map(Vec::len), recorded.as_array().map(Vec::len));
        for (got, want) in list.as_array().unwrap().iter().zip(recorded.as_array().unwrap()) {
            assert_eq!(shape(got), shape(want), "{golden}");
            // Polls that have failed count already where the network is known to have no way
            // there.
            for key in ["_id", "ip", "name", "group_name", "alive"] {
                assert_eq!(got[key], want[key], "{golden}: {key}");
            }
        }
    }
}

#[actix_rt::test]
async fn callers_that_are_no_machines_or_have_no_address_are_not_added() {
    let node = TestNode::start(|_| {});
    let ip = ("p2pfaas-machine-ip", "10.99.0.2");
    for headers in [
        &[ip][..],
        &[("User-Agent", "curl"), ip],
        &[MACHINE],
        &[MACHINE, ("p2pfaas-machine-ip", "bad")],
        &[MACHINE, ("p2pfaas-machine-ip", "0.0.0.0")],
        &[MACHINE, ("p2pfaas-machine-ip", "169.254.169.254")],
        &[MACHINE, ("p2pfaas-machine-ip", "255.255.255.255")],
        &[MACHINE, ("p2pfaas-machine-ip", "::ffff:10.99.0.2")],
        &[MACHINE, ("p2pfaas-machine-ip", "fe80::1")],
        &[MACHINE, ip, ("p2pfaas-machine-name", &"a".repeat(256))],
        &[MACHINE, ip, ("p2pfaas-machine-group-name", &"a".repeat(50_000))],
    ] {
        let answered = send("GET", &node.discovery("/list"), headers, "").await;
        assert_eq!((answered.status, answered.json()), (200, json!([])), "{headers:?}");
    }
}

#[actix_rt::test]
async fn a_malformed_configuration_is_400_code_4_and_changes_nothing() {
    let node = TestNode::start(|_| {});
    let url = node.discovery("/configuration");
    let before = get(&url).await.json();
    for bad in [
        "{bad",
        "[]",
        r#"{"machine_ip":7}"#,
        r#"{"machine_ip":"not an ip"}"#,
        r#"{"machine_id":"two\nlines"}"#,
        r#"{"machine_group_name":"nœud"}"#,
        r#"{"machine_id":"x","init_servers":"10.0.0.1"}"#,
        r#"{"machine_ip":"::ffff:10.0.0.1"}"#,
        &json!({"machine_id": "x".repeat(256)}).to_string(),
        &json!({"machine_group_name": "x".repeat(256)}).to_string(),
        &json!({"init_servers": vec!["10.0.0.1"; 65]}).to_string(),
    ] {
        let answered = post(&url, bad.to_owned()).await;
        assert_eq!((answered.status, answered.code()), (400, 4), "{bad}");
        assert_eq!(get(&url).await.json(), before, "{bad}");
    }
}

#[actix_rt::test]
async fn without_an_address_the_configuration_is_500_code_100() {
    let node = TestNode::start(|settings| {
        // A wildcard host tells no address, and no interface has this name.
        settings.host = [0, 0, 0, 0].into();
        settings.default_iface = "none0".to_owned();
        (settings.scheduler_port, settings.discovery_port) = (0, 19777);
        (settings.learner_port, settings.learner_ws_port) = (0, 0);
    });
    let url = "http://127.0.0.1:19777";
    let answered = get(&format!("{url}/configuration")).await;
    assert_eq!((answered.status, answered.code()), (500, 100));
    assert_eq!(get(&format!("{url}/list")).await.status, 200);
    assert_eq!(
        post(&format!("{url}/configuration"), r#"{"machine_ip":"10.9.9.9"}"#).await.status,
        200
    );
    let config = get(&format!("{url}/configuration")).await.json();
    assert_eq!(config["machine_id"], "p2pfaas-10.9.9.9");
    drop(node);
}

#[actix_rt::test]
async fn unknown_paths_are_404_wrong_methods_405_and_the_greeting_names_the_version() {
    let node = TestNode::start(|_| {});
    assert_eq!(get(&node.discovery("/nope")).await.status, 404);
    assert_eq!(post(&node.discovery("/list"), "").await.status, 405);
    assert!(get(&node.discovery("/")).await.text().contains(p2pfaas::VERSION));
}

#[actix_rt::test]
async fn nodes_find_each_other_through_one_of_them() {
    let first = TestNode::start(|_| {});
    let join = |settings: &mut p2pfaas::config::Settings| {
        settings.init_servers = vec![first.ip.to_string()];
    };
    let (second, third) = (TestNode::start(join), TestNode::start(join));
    first.lists(&[&second, &third]).await;
    second.lists(&[&first, &third]).await;
    third.lists(&[&first, &second]).await;
    let names: Vec<String> = get(&first.discovery("/list"))
        .await
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|machine| machine["name"].as_str().unwrap().to_owned())
        .collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted, "ordered by name");
}

#[actix_rt::test]
async fn a_v1_discovery_is_polled_as_v1_polls_and_its_machines_are_asked() {
    let (v1, its_friend) = (fresh_ip(), fresh_ip());
    let headers = format!(
        "Content-Type: application/json\r\nP2pfaas-Machine-Group-Name: cluster00\r\n\
         P2pfaas-Machine-Ip: {v1}\r\nP2pfaas-Machine-Name: {v1}\r\n"
    );
    let mut list = golden_json("122-disc-list-after.txt");
    list[0]["ip"] = json!(its_friend.to_string());
    let list = list.to_string();
    let discovery =
        RawServer::start(v1, 19000, move |_| answer("200 OK", &headers, list.as_bytes()));
    let friend = RawServer::start(its_friend, 19000, |_| ok("[]"));
    let node = TestNode::start(|settings| settings.init_servers = vec![v1.to_string()]);
    eventually("both are listed", || async { (node.listed().await.len() == 2).then_some(()) })
        .await;
    let poll = discovery.requests().remove(0);
    assert_eq!(poll.line(), "GET /list HTTP/1.1");
    // 210 recorded the headers by which nodes know each other.
    assert_eq!(poll.header("user-agent"), "Machine");
    assert_eq!(poll.header("p2pfaas-machine-ip"), node.ip.to_string());
    assert_eq!(poll.header("p2pfaas-machine-name"), node.id());
    assert!(poll.headers().contains_key("p2pfaas-machine-group-name"));
    let list = get(&node.discovery("/list")).await.json();
    let known = list.as_array().unwrap().iter().find(|m| m["ip"] == v1.to_string()).expect("v1");
    assert_eq!(
        (&known["name"], &known["group_name"]),
        (&json!(v1.to_string()), &json!("cluster00"))
    );
    assert!(known["ping"].as_f64().expect("a number") > 0.0);
    drop(friend);
}

#[actix_rt::test]
async fn a_machine_that_stops_answering_leaves_the_list_and_comes_back_when_it_answers() {
    let mut nodes = cluster::<3>(|settings| settings.dead_poll_time_s = 0.2).await;
    nodes[2].stop().await;
    nodes[0].lists(&[&nodes[1]]).await;
    nodes[1].lists(&[&nodes[0]]).await;
    nodes[2].start_again();
    let [one, two, three] = &nodes;
    one.lists(&[two, three]).await;
    two.lists(&[one, three]).await;
    three.lists(&[one, two]).await;
}

#[actix_rt::test]
async fn the_known_machines_survive_a_restart() {
    let friend = TestNode::start(|_| {});
    let mut node = TestNode::start(|settings| settings.init_servers = vec![friend.ip.to_string()]);
    node.lists(&[&friend]).await;
    node.stop().await;
    // Without its init server: what it still knows, it knows from its own file.
    node.settings.init_servers.clear();
    node.start_again();
    node.lists(&[&friend]).await;
}

#[actix_rt::test]
async fn a_file_of_known_machines_that_cannot_be_used_is_set_aside_and_the_node_starts() {
    let mut node = TestNode::start(|settings| settings.machines_max = 10);
    let file = node.file("p2pfaas-machines.json");
    let hint = json!({"ip": "10.99.0.1", "name": "a"});
    for (n, bad) in [
        "{bad".to_owned(),
        "{}".to_owned(),
        r#"[{"ip":7}]"#.to_owned(),
        json!(vec![&hint; 40]).to_string(),
        " ".repeat(1 << 20),
    ]
    .into_iter()
    .enumerate()
    {
        node.stop().await;
        std::fs::write(&file, &bad).expect("written");
        node.start_again();
        assert!(node.listed().await.is_empty());
        let aside = node.file(&format!("p2pfaas-machines.unfit-{}.json", n + 1));
        assert_eq!(std::fs::read_to_string(aside).expect("kept"), bad);
    }
    node.stop().await;
    let kept = std::fs::read_dir(node.folder.path()).expect("a folder").flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains("unfit")).count();
    assert_eq!(kept, 3);
    // Not even a folder in its place stops it.
    let _ = std::fs::remove_file(&file);
    std::fs::create_dir(&file).expect("made");
    node.start_again();
    assert!(node.listed().await.is_empty());
}

#[actix_rt::test]
async fn a_call_under_a_living_machines_name_takes_nothing_from_it() {
    let nodes = cluster::<2>(|_| {}).await;
    let name = nodes[1].id();
    for _ in 0..10 {
        let rogue =
            [MACHINE, ("p2pfaas-machine-ip", "10.99.0.66"), ("p2pfaas-machine-name", &name)];
        let list = send("GET", &nodes[0].discovery("/list"), &rogue, "").await.json();
        let list = list.as_array().expect("a list");
        let of = |ip: String| list.iter().find(|m| m["ip"] == ip).expect("listed").clone();
        assert_eq!(of(nodes[1].ip.to_string())["name"], name);
        assert_eq!(of("10.99.0.66".to_owned())["name"], name);
    }
}

#[actix_rt::test]
async fn a_reset_forgets_all_machines() {
    let node = TestNode::start(|settings| settings.poll_time_s = 3600.0);
    post(&node.discovery("/configuration"), r#"{"init_servers":["10.99.0.1"]}"#).await;
    assert_eq!(node.listed().await.len(), 1);
    let answered = get(&node.discovery("/reset")).await;
    assert_eq!((answered.status, answered.body.len()), (200, 0));
    assert!(node.listed().await.is_empty());
}

#[actix_rt::test]
async fn another_discovery_service_can_be_used_instead_of_our_own() {
    let (service, me, other) = (fresh_ip(), fresh_ip(), fresh_ip());
    let config =
        json!({"machine_ip": me.to_string(), "machine_id": "me", "machine_group_name": "g",
        "init_servers": []})
        .to_string();
    let list = json!([{"_id": 1, "ip": other.to_string(), "name": "other", "group_name": "g",
        "ping": 0.1, "last_update": 1, "alive": true, "dead_polls": 0}])
    .to_string();
    let _service = RawServer::start(service, 19000, move |request| match request.path() {
        "/configuration" => ok(&config),
        _ => ok(&list),
    });
    let message = golden_json("089-peer-machine.txt").to_string();
    let peer = RawServer::start(other, 18080, move |_| ok(&message));
    let node = TestNode::start(|settings| {
        settings.service_discovery_host = service.to_string();
        settings.scheduler = "ForwardScheduler 1".to_owned();
    });
    let answered = eventually("a call is forwarded to the service's machine", || async {
        let answered = post(&node.url("/function/fn-echo"), "hello").await;
        (answered.header("x-p2pfaas-hops") == "1").then_some(answered)
    })
    .await;
    assert_eq!(answered.names("x-p2pfaas-peers-list-id")[0], "me");
    assert!(!peer.requests().is_empty());
    assert!(try_send("GET", &node.discovery("/list"), &[], "").await.is_err(), "not served here");
}
