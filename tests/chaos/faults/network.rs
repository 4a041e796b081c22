//! What becomes of the network between nodes. Clients reach all nodes all the time.

use std::time::Duration;

use super::Scene;
use crate::relay::{Delay, Weather};

/// Between two halves of the nodes nothing is carried.
pub fn halves(scene: &mut Scene<'_>) {
    let (one, other) = scene.two_halves();
    scene.cluster.cut(&one, &other);
    scene.cluster.cut(&other, &one);
    scene.hold();
    scene.cluster.clear();
}

/// What one half sends does not arrive at the other, but the other way it does.
pub fn one_way(scene: &mut Scene<'_>) {
    let (one, other) = scene.two_halves();
    scene.cluster.cut(&one, &other);
    scene.hold();
    scene.cluster.clear();
}

fn bad_weather(scene: &mut Scene<'_>, change: impl FnOnce(&mut Weather)) {
    change(&mut scene.cluster.relay.weather());
    scene.hold();
    scene.cluster.clear();
}

/// One packet of ten is lost, datagrams and those of connections.
pub fn loss_10(scene: &mut Scene<'_>) {
    bad_weather(scene, |weather| weather.loss = 0.1);
}

/// Three of ten.
pub fn loss_30(scene: &mut Scene<'_>) {
    bad_weather(scene, |weather| weather.loss = 0.3);
}

/// Packets are late, and not equally, but keep their order.
pub fn delay(scene: &mut Scene<'_>) {
    let delay = Delay { mean: Duration::from_millis(50), spread: Duration::from_millis(20) };
    bad_weather(scene, |weather| weather.delay = Some(delay));
}
