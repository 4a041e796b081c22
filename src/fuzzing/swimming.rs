//! SWIM's datagrams, one after the other, and the timers that they lead to.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Bytes;
use crate::membership::swim::{DATAGRAM_BYTES_MAX, Swim, SwimEffect, SwimId};

const MEMBERS_MAX: usize = 8;
/// More than any datagram or timer leads to, where so few are known.
const EFFECTS_MAX: usize = 200;

/// Whatever comes, in whatever order, no more members are known than may be, and what is said stays within a
/// datagram's bounds.
pub(super) fn datagrams(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let own = SwimId { ip: IpAddr::from([10, 0, 0, 9]), generation: 5 };
    let mut swim = Swim::new(own, MEMBERS_MAX, Box::new(StdRng::seed_from_u64(1)));
    let (mut timers, mut now) = (VecDeque::new(), Duration::ZERO);
    while !bytes.0.is_empty() {
        now += Duration::from_millis(50);
        // Who is awake most often is the one that hears something.
        match (bytes.one_of(4), timers.pop_front()) {
            (0, Some(timer)) => swim.woken(timer, now),
            (1, _) => swim.refused(IpAddr::from([10, 0, 0, bytes.byte()]), now),
            (_, kept) => {
                timers.extend(kept);
                let from = IpAddr::from([10, 0, 0, bytes.byte()]);
                let length = bytes.one_of(256);
                let _ = swim.received(from, bytes.up_to(length), now);
            }
        }
        let mut effects = 0;
        while let Some(effect) = swim.effect() {
            effects += 1;
            match effect {
                SwimEffect::Send { datagram, .. } => assert!(datagram.len() <= DATAGRAM_BYTES_MAX),
                SwimEffect::Wake { timer, .. } => timers.push_back(timer),
                SwimEffect::Up(_) | SwimEffect::Down(_) | SwimEffect::Doubt(_) => {}
            }
        }
        assert!(effects <= EFFECTS_MAX, "{effects}");
        timers.truncate(EFFECTS_MAX);
        assert!(swim.alive().count() <= MEMBERS_MAX);
    }
}
