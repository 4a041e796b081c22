//! The cluster's key is changed while calls go on.

use rustix::process::Signal;

use super::Scene;
use crate::keys;

/// Node by node, all learn to understand the new key, then to use it, then to forget the old one. In between they
/// differ, and nothing is to be lost of that.
pub fn rotate(scene: &mut Scene<'_>) {
    let known = scene.cluster.keys.clone().expect("such a cluster has keys");
    let (old, new) = (&*known.old, &*known.new);
    for stage in [&[old, new][..], &[new, old], &[new]] {
        for node in &scene.cluster.nodes {
            keys::write(&node.key_file, stage);
            node.signal(Signal::HUP);
        }
        scene.hold();
        scene.cluster.until_right();
    }
}
