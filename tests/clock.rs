//! A node whose machine has a wrong clock: boards without a battery start far from now.

#![expect(clippy::disallowed_methods, reason = "what is tested goes on in real time")]

mod common;

use std::path::PathBuf;

use common::process::Process;
use common::websocket::Client;
use common::*;

/// The library that makes a program see another time; `None`, said aloud, where it is not
/// installed; then P2PFAAS_REQUIRE_FAKETIME=1 makes it an error.
fn faketime() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = folders.map(|folder| folder.path()).collect();
    places.push("/usr/lib".into());
    let library = |place: PathBuf| place.join("faketime/libfaketimeMT.so.1");
    let found = places.into_iter().map(library).find(|path| path.exists());
    let required = std::env::var("P2PFAAS_REQUIRE_FAKETIME").is_ok_and(|value| value == "1");
    assert!(found.is_some() || !required, "P2PFAAS_REQUIRE_FAKETIME is set, and it is not there");
    if found.is_none() {
        eprintln!("skipped: libfaketime is not installed (Debian: apt-get install faketime)");
    }
    found.map(|path| path.display().to_string())
}

async fn serves_all_ports_at(time: &str) {
    let Some(library) = faketime() else { return };
    let (ip, folder) = (fresh_ip(), tempfile::tempdir().expect("a folder"));
    let (host, path) = (ip.to_string(), folder.path().display().to_string());
    let arguments = ["node", "--host", &host, "--data-path", &path, "--embedded-functions"];
    // Time goes on from there; timers keep to the machine's real one.
    let time = format!("@{time}");
    let environment = [
        ("LD_PRELOAD", &*library),
        ("FAKETIME", &time),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let mut node = Process::start_in(&arguments, &environment);
    let line = node.wait_for("the node serves");
    assert!(line.contains(&time[1..5]), "the clock is not {time}: {line}");
    // More often than actix's half second takes to write the next date.
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(1500);
    while std::time::Instant::now() < deadline {
        for url in [":18080/monitoring/load", ":19000/list", ":19020/learner/stats"] {
            let answered = get(&format!("http://{ip}{url}")).await;
            assert_eq!(answered.status, 200, "{url}: {}", answered.text());
        }
        let answered = post(&format!("http://{ip}:18080/function/fn-echo"), "hello").await;
        assert_eq!((answered.status, answered.text()), (200, "hello".to_owned()));
        let (_, head) = Client::connect(ip, 8765, "/");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    }
    node.kill();
}

#[actix_rt::test]
async fn a_node_whose_clock_is_before_1970_serves_on_all_ports() {
    serves_all_ports_at("1960-06-01 12:00:00").await;
}
