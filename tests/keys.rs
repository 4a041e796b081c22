//! Clusters with a key: who gets in, what members hear of each other, and how one key takes another's place.

mod common;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use common::raw::{RawServer, answer, spoken};
use common::*;
use p2pfaas::config::Settings;
use p2pfaas::keys::Secret;
use p2pfaas::time::since_1970;
use p2pfaas::tls::{CertifiedNames, LIFETIME, PeerTls};
use p2pfaas::trust::{ClusterKey, ClusterKeys};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// A key that is another for each number.
fn key(n: u8) -> ClusterKey {
    ClusterKey::new(std::array::from_fn(|at| n.wrapping_mul(31).wrapping_add(at as u8 * 7)))
}

fn with_key(n: u8) -> impl Fn(&mut Settings) {
    move |settings| settings.cluster_key = Secret::new(key(n).text())
}

/// What a program of a stranger's, or a member's, has of the cluster's trust.
fn program(n: u8, ip: Ipv4Addr, name: &str, before: Duration) -> PeerTls {
    let unix = since_1970() - before;
    let names = CertifiedNames { addresses: vec![ip.into()], name: name.to_owned() };
    static SESSIONS: AtomicU8 = AtomicU8::new(1);
    let tls = PeerTls::new([SESSIONS.fetch_add(1, Ordering::Relaxed); 16]);
    tls.renew(&ClusterKeys::new(&[key(n)], "p2pfaas"), &names, unix).expect("it can");
    tls
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects to the members' port of a node, from 127.0.0.1.
async fn connect(node: &TestNode, program: &PeerTls) -> std::io::Result<Tls> {
    connect_from(Ipv4Addr::LOCALHOST, node, program).await
}

/// The same from an address of choice.
async fn connect_from(from: Ipv4Addr, node: &TestNode, program: &PeerTls) -> std::io::Result<Tls> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect((node.ip, 18443).into()).await?;
    let (ip, epoch) = (std::net::IpAddr::from(node.ip), program.epoch().expect("a key"));
    let greeting = program.greeting(&epoch, ip, since_1970());
    let connector = TlsConnector::from(Arc::clone(&epoch.client));
    connector.with_alpn(vec![greeting]).connect(ip.into(), stream).await
}

/// Asks on such a connection; empty: it has ended.
async fn ask(tls: &mut Tls, head: &str) -> String {
    if tls.write_all(format!("{head}\r\n\r\n").as_bytes()).await.is_err() {
        return String::new();
    }
    let mut answer = vec![0; 64 << 10];
    let read = tokio::time::timeout(PATIENCE, tls.read(&mut answer)).await.expect("in time");
    answer.truncate(read.unwrap_or(0));
    String::from_utf8(answer).expect("text")
}

/// What a machine of that name at that address says when it polls.
fn introduction(ip: Ipv4Addr, name: &str) -> String {
    format!(
        "GET /list HTTP/1.1\r\nhost: x\r\nuser-agent: Machine\r\np2pfaas-machine-ip: {ip}\r\n\
         p2pfaas-machine-name: {name}\r\np2pfaas-protocol: 2"
    )
}

async fn refused(node: &TestNode, kind: &str) -> u64 {
    let wanted = format!("p2pfaas_refusals_total{{kind=\"{kind}\"}} ");
    let text = get(&node.url("/metrics")).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&wanted)).expect("counted");
    line.parse().expect("a number")
}

#[actix_rt::test]
async fn members_find_each_other_and_hand_calls_on() {
    let nodes = cluster::<3>(with_key(1)).await;
    for node in &nodes {
        node.set_scheduler("ForwardScheduler 1").await;
    }
    let long = "0123456789abcdef".repeat(1 << 16);
    for body in ["hi", &long] {
        for node in &nodes {
            let url = node.url("/function/fn-echo");
            let answered = post(&url, body.to_owned()).await;
            assert_eq!((answered.status, answered.text().len()), (200, body.len()));
            assert_eq!(answered.names("x-p2pfaas-peers-list-ip").len(), 2, "it was handed on");
        }
    }
    for node in &nodes {
        let peers = node.state().published.load().peers.clone();
        assert!(peers.iter().all(|peer| peer.tls_port == Some(18443)), "{peers:?}");
    }
}

#[actix_rt::test]
async fn strangers_get_nowhere() {
    let nodes = cluster::<2>(with_key(1)).await;
    let [node, other] = &nodes;
    let ip = fresh_ip();
    // By hand.
    let headers = [
        MACHINE,
        ("p2pfaas-machine-ip", &*ip.to_string()),
        ("p2pfaas-machine-name", "stranger"),
        ("p2pfaas-machine-group-name", ""),
    ];
    let answered = send("GET", &node.discovery("/list"), &headers, "").await;
    assert_eq!((answered.status, answered.code()), (403, 1));
    assert!(answered.header("p2pfaas-machine-ip").is_empty());
    let peer_call = r#"{"function_name":"fn-echo","payload":"aGk="}"#;
    let answered = send("POST", &node.url("/peer/function/fn-echo"), &[MACHINE], peer_call).await;
    assert_eq!(answered.status, 403);
    assert_eq!(answered.json()["peers_list"][0]["machine_ip"], node.ip.to_string(), "v1 reads it");
    let hops = [("p2pfaas-hops", "1")];
    let answered = send("POST", &node.url("/peer/2/function/fn-echo"), &hops, "hi").await;
    assert_eq!((answered.status, answered.header("p2pfaas-outcome")), (403, "1"));
    assert!(!spoken(node.ip, 18443, "GET /list HTTP/1.1\r\n\r\n", 1).await.contains("HTTP"));
    // By a program that is like the nodes'.
    let join = |settings: &mut Settings| settings.init_servers = vec![node.ip.to_string()];
    let mut all_kinds = vec![
        TestNode::start(join),
        TestNode::start(|settings| {
            with_key(2)(settings);
            join(settings);
        }),
        TestNode::start(|settings| {
            with_key(1)(settings);
            settings.cluster_name = "another".to_owned();
            join(settings);
        }),
    ];
    let before = refused(node, "stranger").await;
    eventually("they have tried", || async {
        (refused(node, "stranger").await > before + 6).then_some(())
    })
    .await;
    for stranger in &mut all_kinds {
        let own = stranger.ip.to_string();
        let peers = stranger.state().published.load().peers.clone();
        assert!(peers.iter().all(|peer| *peer.host == *node.ip.to_string()), "it hears of nobody");
        for node in [node, other] {
            assert!(!node.listed().await.contains(&own));
        }
        stranger.stop().await;
    }
    node.lists(&[other]).await;
}

#[actix_rt::test]
async fn a_certificate_is_good_for_its_own_node_alone_and_not_for_long() {
    let node = TestNode::start(with_key(1));
    let here = Ipv4Addr::LOCALHOST;
    let none = Duration::ZERO;
    let mut member = connect(&node, &program(1, here, "a", none)).await.expect("it has the key");
    let load = ask(&mut member, "GET /monitoring/load HTTP/1.1\r\nhost: x").await;
    assert!(load.starts_with("HTTP/1.1 200"), "{load}");
    for (name, ip, status) in
        [("a", here, 200), ("b", here, 403), ("a", Ipv4Addr::new(127, 0, 0, 9), 403)]
    {
        let answered = ask(&mut member, &introduction(ip, name)).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status}")), "{name} {ip}: {answered}");
    }
    for (program, why) in [
        (program(1, Ipv4Addr::new(10, 9, 9, 9), "a", none), "taken from another node"),
        (program(1, here, "a", LIFETIME + Duration::from_secs(2)), "old"),
        (program(2, here, "a", none), "of another key"),
    ] {
        // TLS 1.3 tells who connects only later that it is refused.
        let load = match connect(&node, &program).await {
            Ok(mut tls) => ask(&mut tls, "GET /monitoring/load HTTP/1.1\r\nhost: x").await,
            Err(_) => String::new(),
        };
        assert_eq!(load, "", "{why}");
    }
    assert_eq!(refused(&node, "stranger").await, 5);
}

fn write_keys(file: &Path, keys: &[u8]) {
    let keys: Vec<String> = keys.iter().map(|n| key(*n).text()).collect();
    std::fs::write(file, keys.join(",")).expect("written");
}

/// Waits until a node has taken over what is in its file.
async fn has_keys(node: &TestNode, keys: &[u8]) {
    let all: Vec<ClusterKey> = keys.iter().map(|n| key(*n)).collect();
    let want = ClusterKeys::new(&all, "p2pfaas").ids();
    eventually("the node has these keys", || async {
        let epoch = node.state().trust.members.epoch().expect("a key");
        (epoch.keys.ids() == want).then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn a_key_takes_anothers_place_node_by_node_and_no_call_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |node: &TestNode| folder.path().join(node.ip.to_string());
    let first = folder.path().join("first");
    write_keys(&first, &[1]);
    let mut nodes = cluster::<3>(|settings| {
        let own = folder.path().join(settings.host.to_string());
        std::fs::copy(&first, &own).expect("copied");
        settings.cluster_key_file = Some(own);
    })
    .await;
    for node in &nodes {
        node.set_scheduler("ForwardScheduler 1").await;
    }
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let urls: Vec<String> = nodes.iter().map(|node| node.url("/function/fn-echo")).collect();
    let load = actix_rt::spawn(async move {
        let mut calls = 0;
        while !*stopped.borrow_and_update() {
            for url in &urls {
                let answered = post(url, "hi").await;
                assert_eq!((answered.status, answered.text().as_str()), (200, "hi"));
                assert_eq!(answered.names("x-p2pfaas-peers-list-ip").len(), 2, "it was handed on");
                calls += 1;
            }
        }
        calls
    });
    for (old, new) in [(1, 2), (2, 3), (3, 4)] {
        for keys in [&[old, new][..], &[new, old], &[new]] {
            for node in &nodes {
                write_keys(&file(node), keys);
                has_keys(node, keys).await;
            }
            for node in &nodes {
                let alive = node.state().published.load().peers.len();
                assert_eq!(alive, 2, "all are there");
            }
        }
    }
    // What cannot be used changes nothing.
    std::fs::write(file(&nodes[0]), "no key").expect("written");
    stop.send(true).expect("it runs");
    assert!(load.await.expect("no call was lost") > 30);
    has_keys(&nodes[0], &[4]).await;
    let served = connect(&nodes[0], &program(1, Ipv4Addr::LOCALHOST, "a", Duration::ZERO)).await;
    assert!(served.is_err(), "the old key opens nothing any more");
    for node in &mut nodes {
        node.stop().await;
    }
}

#[actix_rt::test]
async fn who_was_let_in_by_a_key_that_is_no_longer_good_asks_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    write_keys(&file, &[1]);
    let node = TestNode::start(|settings| settings.cluster_key_file = Some(file.clone()));
    let here = Ipv4Addr::LOCALHOST;
    let mut old = connect(&node, &program(1, here, "a", Duration::ZERO)).await.expect("a member");
    let head = "GET /monitoring/load HTTP/1.1\r\nhost: x";
    assert!(ask(&mut old, head).await.starts_with("HTTP/1.1 200"));
    write_keys(&file, &[2, 1]);
    has_keys(&node, &[2, 1]).await;
    assert!(ask(&mut old, head).await.starts_with("HTTP/1.1 200"), "both open");
    write_keys(&file, &[2]);
    has_keys(&node, &[2]).await;
    assert_eq!(ask(&mut old, head).await, "");
    let mut new = connect(&node, &program(2, here, "a", Duration::ZERO)).await.expect("a member");
    assert!(ask(&mut new, head).await.starts_with("HTTP/1.1 200"));
}

#[actix_rt::test]
async fn a_member_sends_notes_in_its_own_name_alone() {
    let [node, peer] = cluster(|settings: &mut Settings| {
        with_key(1)(settings);
        settings.scheduler = "JoinIdleQueueScheduler 1".to_owned();
    })
    .await;
    let note = format!(
        "POST /peer/2/note/JoinIdleQueueScheduler HTTP/1.1\r\nhost: x\r\np2pfaas-path: n@{}\r\n\
         p2pfaas-note: 00\r\ncontent-length: 0",
        peer.ip
    );
    for (from, heard) in [(Ipv4Addr::LOCALHOST, 0), (peer.ip, 1)] {
        let program = program(1, from, "n", Duration::ZERO);
        let mut member = connect_from(from, &node, &program).await.expect("a member");
        let answered = ask(&mut member, &note).await;
        assert!(answered.starts_with("HTTP/1.1 204"), "{from}: {answered}");
        let stats = node.learner_stats().await;
        let idle = stats["scheduler"]["memory"]["idle_peers"].as_array().expect("a list").len();
        assert_eq!(idle, heard, "said from {from}: {stats}");
    }
}

#[actix_rt::test]
async fn nor_does_what_such_a_one_had_sent_ahead() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    write_keys(&file, &[1]);
    let node = TestNode::start(|settings| settings.cluster_key_file = Some(file.clone()));
    let here = Ipv4Addr::LOCALHOST;
    let mut old = connect(&node, &program(1, here, "a", Duration::ZERO)).await.expect("a member");
    let slow = "POST /peer/2/function/fn-sleep?dist=constant&mean_ms=3000 HTTP/1.1\r\nhost: x\r\np2pfaas-hops: 1\r\n\
        content-length: 0\r\n\r\n";
    let ahead = "GET /monitoring/load HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20);
    old.write_all(format!("{slow}{ahead}").as_bytes()).await.expect("it reads");
    eventually("the first one runs", || async {
        (node.state().gate.load().running == 1).then_some(())
    })
    .await;
    write_keys(&file, &[2]);
    has_keys(&node, &[2]).await;
    assert_eq!(node.state().gate.load().running, 1, "it runs still");
    let mut answers = Vec::new();
    let read = tokio::time::timeout(PATIENCE, old.read_to_end(&mut answers)).await;
    assert!(read.is_ok(), "the connection ends");
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "what ran is answered: {answers}");
}

#[actix_rt::test]
async fn a_key_is_taken_over_though_nothing_but_the_text_has_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    write_keys(&path, &[1]);
    let node = TestNode::start(|settings| settings.cluster_key_file = Some(path.clone()));
    let then = std::fs::metadata(&path).and_then(|about| about.modified()).expect("a time");
    write_keys(&path, &[2]);
    let file = std::fs::File::options().write(true).open(&path).expect("it is ours");
    file.set_modified(then).expect("it is ours");
    has_keys(&node, &[2]).await;
    // It may be there before it can be read.
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::remove_dir(&path).expect("removed");
    write_keys(&path, &[3, 2]);
    has_keys(&node, &[3, 2]).await;
}

#[actix_rt::test]
async fn who_speaks_in_the_clear_says_nothing_of_members() {
    let node = TestNode::start(|settings| {
        with_key(1)(settings);
        // Whatever comes on loopback comes from 127.0.0.1.
        settings.v1_peers =
            vec!["127.0.0.1/32".parse().unwrap(), "127.255.0.0/24".parse().unwrap()];
        settings.machine_dead_polls_threshold = 1000;
    });
    let [member, _] = fresh_ips();
    for (ip, status) in [(member.to_string(), 403), ("127.255.0.7".to_owned(), 200)] {
        let headers = [
            MACHINE,
            ("p2pfaas-machine-ip", &*ip),
            ("p2pfaas-machine-name", "liar"),
            ("p2pfaas-protocol", "2"),
            ("p2pfaas-tls-port", "1"),
        ];
        let answered = send("GET", &node.discovery("/list"), &headers, "").await;
        assert_eq!(answered.status, status, "{ip}");
    }
    assert_eq!(node.listed().await, ["127.255.0.7"]);
    let peers = node.state().published.load().peers.clone();
    assert_eq!(peers[0].tls_port, None, "that is for a certificate to say");
}

#[actix_rt::test]
async fn an_open_cluster_becomes_one_with_a_key_while_it_goes_on() {
    let clear = |settings: &mut Settings| settings.v1_peers = vec!["127.0.0.0/8".parse().unwrap()];
    let mut nodes = cluster::<3>(|_| {}).await;
    let all_list_all = async |nodes: &[TestNode; 3]| {
        for node in nodes {
            let others: Vec<_> = nodes.iter().filter(|other| other.ip != node.ip).collect();
            node.lists(&others).await;
        }
    };
    let hand_on = async |nodes: &[TestNode; 3]| {
        for node in nodes {
            let headers = [FORWARD];
            let answered = send("POST", &node.url("/function/fn-echo"), &headers, "hi").await;
            assert_eq!((answered.status, answered.text().as_str()), (200, "hi"));
            assert_eq!(answered.names("x-p2pfaas-peers-list-ip").len(), 2, "it was handed on");
        }
    };
    for at in 0..3 {
        nodes[at].stop().await;
        with_key(1)(&mut nodes[at].settings);
        clear(&mut nodes[at].settings);
        nodes[at].settings.init_servers = vec![nodes[(at + 1) % 3].ip.to_string()];
        nodes[at].start_again();
        all_list_all(&nodes).await;
        hand_on(&nodes).await;
    }
    for at in 0..3 {
        nodes[at].stop().await;
        nodes[at].settings.v1_peers.clear();
        nodes[at].start_again();
        all_list_all(&nodes).await;
        hand_on(&nodes).await;
    }
    for node in &nodes {
        eventually("they speak by TLS", || async {
            let peers = node.state().published.load().peers.clone();
            peers.iter().all(|peer| peer.tls_port.is_some()).then_some(())
        })
        .await;
        let answered = send("GET", &node.discovery("/list"), &[MACHINE], "").await;
        assert_eq!(answered.status, 403);
    }
}

#[actix_rt::test]
async fn v1_nodes_are_members_where_their_network_is_named() {
    let ip = fresh_ip();
    let own = ip.to_string();
    let told = format!("p2pfaas-machine-ip: {own}\r\np2pfaas-machine-name: {own}\r\n");
    let _list = RawServer::start(ip, 19000, move |_| answer("200 OK", &told, b"[]"));
    let reply = r#"{"peers_list":[{"machine_id":"v1","machine_ip":"x","timings":{"execution_time":0.1}}],"body":"djE=","status_code":200}"#;
    let calls = RawServer::start(ip, 18080, move |_| answer("200 OK", "", reply.as_bytes()));
    for (network, let_in) in [(format!("{own}/32"), true), ("10.0.0.0/8".to_owned(), false)] {
        let node = TestNode::start(|settings| {
            with_key(1)(settings);
            // Whatever comes on loopback comes from 127.0.0.1.
            settings.v1_peers = vec![network.parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
            settings.init_servers = vec![own.clone()];
            settings.machine_dead_polls_threshold = 1;
        });
        if let_in {
            eventually("it is listed with its name", || async {
                let list = get(&node.discovery("/list")).await.json();
                (list[0]["name"] == own.as_str()).then_some(())
            })
            .await;
            let answered = send("POST", &node.url("/function/fn-echo"), &[FORWARD], "hi").await;
            assert_eq!((answered.status, answered.text().as_str()), (200, "v1"));
            let peer_call = r#"{"function_name":"fn-echo","payload":"aGk="}"#;
            let url = node.url("/peer/function/fn-echo");
            assert_eq!(send("POST", &url, &[MACHINE], peer_call).await.status, 200);
        } else {
            let before = calls.requests().len();
            eventually("it is not listed", || async {
                node.listed().await.is_empty().then_some(())
            })
            .await;
            assert_eq!(calls.requests().len(), before, "nothing was sent there in the clear");
        }
    }
}

#[actix_rt::test]
async fn what_is_no_tls_ends_its_own_connection_and_nothing_else() {
    let node = TestNode::start(with_key(1));
    let hello = [&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0][..], &[0xff; 300]].concat();
    for rubbish in [&b"\0"[..], b"GET / HTTP/1.1\r\n\r\n", &hello, &[0x16; 70_000]] {
        let said = spoken(node.ip, 18443, rubbish, rubbish.len()).await;
        assert!(!said.contains("HTTP"), "no more than that it is no TLS: {said}");
    }
    // Who says nothing has as long as a head may take.
    let mut silent = TcpStream::connect((node.ip, 18443)).await.expect("it listens");
    let ended = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 64])).await.expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(get(&node.url("/health")).await.status, 200);
}
