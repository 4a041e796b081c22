//! A program outside decides in simulated time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::*;
use super::{no_line, poisson, world};

/// What a program was told: of whom, and the frame.
type Told = Rc<RefCell<Vec<(String, Value)>>>;

/// Probes each client's call's first peer, and sends the call there if nothing runs there.
struct FirstPeer(Told);

impl Oracle for FirstPeer {
    fn ask(&mut self, host: &str, url: &str, frames: &[String]) -> Option<Vec<u8>> {
        assert_eq!(url, "ws://127.0.0.1:9/");
        let frames = frames.iter().map(|text| serde_json::from_str(text).expect("JSON"));
        let mut told = self.0.borrow_mut();
        told.extend(frames.map(|frame| (host.to_owned(), frame)));
        let (_, call) = told.last()?;
        assert_eq!(call["type"], "call");
        let first = &call["peers"][0]["host"];
        let step = match call["heard"]["probes"].get(0) {
            _ if call["task"]["from_peer"] == true => json!("run"),
            None => json!({"probe": [first]}),
            Some(probe) if probe["running"] == 0 => json!({"forward": first}),
            Some(_) => json!("run_now"),
        };
        Some(json!({"id": call["id"], "step": step}).to_string().into_bytes())
    }
}

#[test]
fn a_program_outside_decides_hears_outcomes_and_takes_no_simulated_time() {
    let told = Told::default();
    let mut world = world(3, no_line(4), "ExternalScheduler ws://127.0.0.1:9/ 1ms");
    world.network.link.latency = Duration::from_millis(10);
    let simulation = Simulation::new(world, poisson(3, 1.0, 60.0, 5)).expect("a good world");
    let mut simulation = simulation.asking(Box::new(FirstPeer(Rc::clone(&told))));
    let mut ended = Vec::new();
    simulation.run(|call| ended.push(call));
    assert_eq!(simulation.fallbacks(), 0);
    let away = ended.iter().filter(|call| call.path.len() == 2).count();
    assert!(away > 20 && away < ended.len(), "{away} of {}", ended.len());
    // A probe there and back, and nothing for thinking.
    assert!(ended.iter().all(|call| call.path[0].scheduling == Duration::from_millis(20)));
    let told = told.borrow();
    let outcomes = told.iter().filter(|(_, frame)| frame["type"] == "outcome").count();
    let passed: usize = ended.iter().map(|call| call.path.len()).sum();
    // The last of each node nobody asks for.
    assert!(outcomes <= passed && outcomes + 50 > passed, "{outcomes} of {passed}");
    // Of a call that a node decided it hears under the same number, and once.
    let served = |(host, frame): &&(String, Value)| {
        frame["type"] == "outcome" && host == &told[0].0 && frame["id"] == told[0].1["id"]
    };
    assert_eq!(told.iter().filter(served).count(), 1);
}

#[test]
fn where_no_program_answers_calls_run_where_they_come() {
    struct Mute;
    impl Oracle for Mute {
        fn ask(&mut self, _: &str, _: &str, _: &[String]) -> Option<Vec<u8>> {
            None
        }
    }
    let words = "ExternalScheduler ws://127.0.0.1:9/";
    for oracle in [None, Some(Box::new(Mute))] {
        let requests = poisson(2, 0.5, 20.0, 3);
        let mut simulation =
            Simulation::new(world(2, no_line(9), words), requests).expect("a good world");
        if let Some(mute) = oracle {
            simulation = simulation.asking(mute);
        }
        let mut ended = Vec::new();
        simulation.run(|call| ended.push(call));
        assert!(ended.iter().all(|call| call.end == CallEnd::Served && call.path.len() == 1));
        assert_eq!(simulation.fallbacks(), ended.len() as u64);
    }
}
