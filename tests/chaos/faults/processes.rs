//! What becomes of processes: killed, stopped, restarted, moved, short of file descriptors.

use rustix::process::Signal;

use super::Scene;

/// SIGKILL; the node begins again once the fault has lasted.
pub fn kill(scene: &mut Scene<'_>) {
    let victim = scene.victim();
    scene.cluster.kill(victim);
    let time = scene.cluster.until_right();
    scene.note_time("off all lists", time);
    scene.hold();
    scene.cluster.begin_again(victim, None);
}

/// SIGSTOP, then SIGCONT. The kernel goes on taking connections; the calls in them wait.
pub fn pause(scene: &mut Scene<'_>) {
    let victim = scene.victim();
    scene.cluster.nodes[victim].signal(Signal::STOP);
    scene.hold();
    scene.cluster.nodes[victim].signal(Signal::CONT);
}

/// A restart with a limit of 64 file descriptors, and one without in the end.
pub fn descriptors(scene: &mut Scene<'_>) {
    let victim = scene.victim();
    scene.cluster.stop(victim);
    scene.cluster.begin_again(victim, Some(64));
    scene.hold();
    scene.cluster.stop(victim);
    scene.cluster.begin_again(victim, None);
}

/// A node stops, its machine gets another address, and it begins again under the same name.
pub fn address(scene: &mut Scene<'_>) {
    let victim = scene.victim();
    scene.cluster.stop(victim);
    scene.cluster.move_away(victim);
    scene.cluster.begin_again(victim, None);
    let time = scene.cluster.until_right();
    scene.note_time("on all lists, and the old address off,", time);
    scene.hold();
}

/// Each node stops, begins again, and is on all lists before the next one stops.
pub fn rolling(scene: &mut Scene<'_>) {
    for number in 0..scene.cluster.nodes.len() {
        scene.cluster.stop(number);
        scene.cluster.begin_again(number, None);
        scene.cluster.until_right();
    }
}
