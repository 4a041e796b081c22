//! The cluster key as it is given, and sealed datagrams as strangers would like to have them opened.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::Bytes;
use crate::trust::sealed::{Opener, SEAL_BYTES, Sealer};
use crate::trust::{ClusterKey, ClusterKeys, KEY_BYTES, KEYS_MAX, read_keys};

/// What is read as keys is one or two, each of which is read again from how it is written; what is not says
/// nothing of the text.
pub(super) fn cluster_key(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match read_keys(&text) {
        Ok(keys) => {
            assert!((1..=KEYS_MAX).contains(&keys.len()));
            let all: Vec<String> = keys.iter().map(ClusterKey::text).collect();
            assert_eq!(read_keys(&all.join("\n")), Ok(keys));
        }
        Err(why) => {
            let said = why.to_string();
            assert!(text.trim().len() < 8 || !said.contains(text.trim()), "{said}");
        }
    }
}

/// Whatever is done to what members have sent, and whatever else comes: what is opened is what was sent, for
/// this node, and once.
pub(super) fn sealed(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let key = |n: u8| ClusterKey::new(std::array::from_fn(|at| n ^ (at as u8).wrapping_mul(7)));
    let keys = ClusterKeys::new(&[key(1), key(2)], "fog");
    let old = ClusterKeys::new(&[key(2)], "fog");
    let (own, now) = (IpAddr::from([10, 0, 0, 1]), Duration::from_secs(1 << 30));
    let (mut first, mut second) = (Sealer::new([1; 16]), Sealer::new([2; 16]));
    let sent: Vec<Vec<u8>> = (0..4u8)
        .filter_map(|n| match n % 2 {
            0 => first.seal(&keys, own, now, &[n; KEY_BYTES]),
            _ => second.seal(&old, own, now, &[n; KEY_BYTES]),
        })
        .collect();
    let (mut opener, mut opened) = (Opener::default(), BTreeSet::new());
    while !bytes.0.is_empty() {
        let which = bytes.one_of(5);
        let mut datagram = sent.get(which).cloned().unwrap_or_default();
        let changes = bytes.one_of(4);
        for _ in 0..changes {
            let (at, flip) = (bytes.one_of(datagram.len()), bytes.byte());
            if let Some(byte) = datagram.get_mut(at) {
                *byte ^= flip;
            }
        }
        if which == 4 {
            let length = bytes.number() % 300;
            datagram = bytes.up_to(length).to_vec();
        }
        if let Ok(said) = opener.open(&keys, own, now, &datagram) {
            assert!(sent.contains(&datagram), "nobody sent this");
            assert_eq!(said.len() + SEAL_BYTES, datagram.len());
            assert!(opened.insert(datagram), "a second time");
        }
    }
}
