//! What is claimed of algorithms, in simulated time: answers that come sooner, caps that hold, calls that nobody is
//! asked about.

use super::*;

/// What became of the calls that came after the first twenty seconds.
#[derive(Default)]
struct Came {
    calls: f64,
    served: f64,
    /// Of all that were served, together.
    seconds: f64,
    /// Nodes that asked others, together.
    asking: f64,
}

impl Came {
    fn takes(&mut self, call: &Finished) {
        if call.request.at < Duration::from_secs(20) {
            return;
        }
        self.calls += 1.0;
        if call.end == CallEnd::Served {
            self.served += 1.0;
            self.seconds += call.total.as_secs_f64();
        }
        self.asking += call.path.iter().filter(|passed| passed.probing.is_some()).count() as f64;
    }

    fn mean_s(&self) -> f64 {
        self.seconds / self.served
    }

    fn lost(&self) -> f64 {
        1.0 - self.served / self.calls
    }
}

fn came(world: World, requests: impl Iterator<Item = Request>) -> Came {
    let mut came = Came::default();
    Simulation::new(world, requests).expect("a good world").run(|call| came.takes(&call));
    came
}

fn long_line(k: u32) -> Limits {
    Limits { k, queue_length_max: 1000, queue_enabled: true }
}

#[test]
fn idle_nodes_that_enlist_are_found_without_asking_anybody() {
    for (load, gain) in [(0.5, 1.4), (0.7, 1.7)] {
        let requests = || poisson(20, load, 300.0, 5);
        let own = came(world(20, long_line(1), "NoScheduler false"), requests()).mean_s();
        let random = came(world(20, long_line(1), "ForwardScheduler 1"), requests()).mean_s();
        for words in ["JoinIdleQueueScheduler 1", "JoinIdleQueueScheduler 2"] {
            let (mut came, mut all) = (Came::default(), 0.0);
            let world = world(20, long_line(1), words);
            let mut simulation = Simulation::new(world, requests()).expect("a good world");
            simulation.run(|call| {
                all += 1.0;
                came.takes(&call);
            });
            let notes: f64 = (0..20)
                .filter_map(|node| simulation.memory(node)?.get("enlistments")?.as_f64())
                .sum();
            let mean = came.mean_s();
            assert!(mean * gain < own.min(random), "{words} at {load}: {mean} s, {own}, {random}");
            assert_eq!(came.asking, 0.0);
            assert!(notes > 0.0 && notes <= all, "{notes} notes for {all} calls");
        }
    }
}

#[test]
fn a_second_decision_loses_less_where_what_was_probed_is_old() {
    for (load, fan_out, threshold, at_most) in
        [(0.7, 2, 4, 0.7), (0.9, 1, 4, 0.95), (0.9, 2, 4, 0.95), (0.9, 1, 2, 1.06)]
    {
        let lost = |words: &str| {
            let mut world = world(20, no_line(4), words);
            // A tenth of a call's work: a probe is twice as old when the call comes.
            world.network.link.latency = Duration::from_millis(100);
            came(world, poisson(20, 4.0 * load, 80.0, 6)).lost()
        };
        let one = lost(&format!("PowerOfNScheduler {fan_out} {threshold} true 1"));
        let two = lost(&format!("SecondDecisionScheduler {fan_out} {threshold}"));
        assert!(two <= at_most * one, "{load}, F {fan_out}, T {threshold}: {two} against {one}");
    }
}

#[test]
fn no_node_is_ever_above_its_cap_and_more_rounds_lose_less() {
    let cap = 3;
    let run = |rounds: u32| {
        let mut world = world(20, long_line(4), &format!("CapScheduler {cap} 2 {rounds}"));
        // Calls overtake what was probed.
        world.network.link.latency = Duration::from_millis(20);
        let requests = poisson(20, 2.4, 100.0, 7);
        let mut simulation = Simulation::new(world, requests).expect("a good world");
        let mut came = Came::default();
        while let SimProgress::Finished(call) = simulation.advance() {
            came.takes(&call);
            assert!((0..20).all(|node| simulation.load(node).expect("a node").total() <= cap));
        }
        came
    };
    let (none, one, four) = (run(0), run(1), run(4));
    assert!((none.lost() - erlang_b(cap, 2.4)).abs() < 0.03, "{}", none.lost());
    assert!(one.lost() < 0.6 * none.lost() && four.lost() < 0.8 * one.lost());
}

#[test]
fn algorithms_that_look_at_latencies_spare_slow_nodes() {
    let run = |words: &str| {
        let mut world = world(12, long_line(2), words);
        for node in world.nodes.iter_mut().step_by(2) {
            node.speed = 0.4;
        }
        world.network.link.latency = Duration::from_millis(1);
        came(world, poisson(12, 0.9, 150.0, 8))
    };
    let random = run("ForwardScheduler 1").mean_s();
    let (latency, prequal) = (run("LatencyScheduler"), run("PrequalScheduler 3 16 0.84"));
    let power = run("PowerOfNScheduler 2 1 true 1").mean_s();
    assert!(latency.mean_s() < 0.7 * random && latency.asking == 0.0, "{}", latency.mean_s());
    assert!(prequal.mean_s() < 0.5 * random && prequal.asking <= prequal.calls);
    assert!(prequal.mean_s() < 1.1 * power, "{} against {power}", prequal.mean_s());
}
