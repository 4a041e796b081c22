//! Nodes on a simulated network, in simulated time: what is lost, late, stalled, parted or killed, by seed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::types::{NodeDescription, RecordLoad};

/// Bytes of an IP and a UDP head.
const HEADS_BYTES: u64 = 28;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn ip(n: usize) -> IpAddr {
    IpAddr::from([10, 0, (n >> 8) as u8, n as u8])
}

fn swim(ip: IpAddr, generation: u64, members_max: usize, seed: u64) -> Swim {
    let rng = StdRng::seed_from_u64(seed);
    Swim::new(SwimId { ip, generation }, members_max, Box::new(rng))
}

#[derive(PartialEq, Eq)]
enum Event {
    Datagram {
        from: IpAddr,
        to: usize,
        datagram: Bytes,
    },
    Timer {
        of: usize,
        start: u64,
        timer: SwimTimer,
    },
    /// The node that doubts another has found that its machine refuses connections.
    Refused {
        by: usize,
        start: u64,
        ip: IpAddr,
    },
}

/// One node, and what it believes.
struct Node {
    swim: Swim,
    lists: BTreeSet<IpAddr>,
    /// Counts its starts; what was meant for an earlier one is gone.
    start: u64,
    killed: bool,
    /// What comes before that waits until then.
    stalled_until: Duration,
    downs: usize,
}

struct Net {
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<Event>>,
    now: Duration,
    number: u64,
    rng: StdRng,
    /// The share of datagrams that is lost.
    loss: f64,
    /// One way.
    delay: Duration,
    /// Whether a datagram from one to another gets through.
    passes: Box<dyn Fn(usize, usize) -> bool>,
    bytes: u64,
}

impl Net {
    /// So many nodes, each of which knows only the first. They begin within a second.
    fn new(count: usize, seed: u64, loss: f64, delay: Duration) -> Self {
        let mut net = Self {
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            now: Duration::ZERO,
            number: 0,
            rng: StdRng::seed_from_u64(seed),
            loss,
            delay,
            passes: Box::new(|_, _| true),
            bytes: 0,
        };
        for of in 0..count {
            let swim = net.swim(of, 1);
            net.nodes.push(Node {
                swim,
                lists: BTreeSet::new(),
                start: 1,
                killed: false,
                stalled_until: Duration::ZERO,
                downs: 0,
            });
        }
        for of in 0..count {
            let about = NodeDescription { name: format!("n{of}"), ..NodeDescription::default() };
            net.nodes[of].swim.say(&about, RecordLoad::default(), &Saying::default(), net.now, 1);
            if of > 0 {
                net.join(of, 0);
            }
        }
        net
    }

    fn swim(&mut self, of: usize, generation: u64) -> Swim {
        swim(ip(of), generation, 2000, self.rng.random())
    }

    /// A node asks another one until it is heard, as Discovery does.
    fn join(&mut self, of: usize, at: usize) {
        for _ in 0..10 {
            let ip = self.nodes[at].swim.own().ip;
            self.nodes[of].swim.join(ip, self.now);
            self.drain(of);
        }
    }

    fn put(&mut self, at: Duration, event: Event) {
        self.events.push(Some(event));
        self.queue.push(Reverse((at, self.number, self.events.len() - 1)));
        self.number += 1;
    }

    fn drain(&mut self, of: usize) {
        let start = self.nodes[of].start;
        while let Some(effect) = self.nodes[of].swim.effect() {
            match effect {
                SwimEffect::Send { to, datagram } => {
                    self.bytes += datagram.len() as u64 + HEADS_BYTES;
                    let from = self.nodes[of].swim.own().ip;
                    let Some(to) = self.at(to) else { continue };
                    if (self.passes)(of, to) && !self.rng.random_bool(self.loss) {
                        let jitter = self.delay.mul_f64(self.rng.random_range(0.0..0.1));
                        self.put(
                            self.now + self.delay + jitter,
                            Event::Datagram { from, to, datagram },
                        );
                    }
                }
                SwimEffect::Wake { after, timer } => {
                    self.put(self.now + after, Event::Timer { of, start, timer });
                }
                SwimEffect::Up(ip) => drop(self.nodes[of].lists.insert(ip)),
                SwimEffect::Down(ip) => {
                    self.nodes[of].lists.remove(&ip);
                    self.nodes[of].downs += 1;
                }
                SwimEffect::Doubt(ip) => {
                    let killed = self.nodes.iter().any(|n| n.killed && n.swim.own().ip == ip);
                    if killed {
                        let at = self.now + self.delay * 2 + ms(1);
                        self.put(at, Event::Refused { by: of, start, ip });
                    }
                }
            }
        }
    }

    /// Goes on for that long, or until `done`; tells whether it was.
    fn run(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + time;
        while let Some(Reverse((at, _, index))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            let event = self.events[index].take().expect("each comes once");
            let (Event::Datagram { to: of, .. }
            | Event::Timer { of, .. }
            | Event::Refused { by: of, .. }) = event;
            let node = &mut self.nodes[of];
            if node.killed {
                continue;
            }
            if node.stalled_until > at {
                let until = node.stalled_until;
                self.put(until, event);
                continue;
            }
            match event {
                Event::Datagram { from, datagram, .. } => {
                    // Of two that compare their records, one may not know yet that the other is there.
                    let received = node.swim.received(from, &datagram, at);
                    use BadDatagram::{Foreign, Full};
                    let is_one = matches!(received, Ok(()) | Err(Foreign | Full));
                    assert!(is_one, "{received:?}");
                }
                Event::Timer { start, timer, .. } if start == node.start => {
                    node.swim.woken(timer, at);
                }
                Event::Refused { start, ip, .. } if start == node.start => {
                    node.swim.refused(ip, at);
                }
                _ => {}
            }
            self.drain(of);
            if done(self) {
                return true;
            }
        }
        self.now = end;
        done(self)
    }

    /// The node at that address.
    fn at(&self, ip: IpAddr) -> Option<usize> {
        let IpAddr::V4(v4) = ip else { return None };
        let [.., high, low] = v4.octets();
        let guess = usize::from(u16::from_be_bytes([high, low]));
        let is = |of: &usize| self.nodes.get(*of).is_some_and(|node| node.swim.own().ip == ip);
        Some(guess).filter(is).or_else(|| (0..self.nodes.len()).find(is))
    }

    /// Whether all that live list exactly those that do.
    fn agrees(&self) -> bool {
        let living: BTreeSet<IpAddr> =
            self.nodes.iter().filter(|n| !n.killed).map(|n| n.swim.own().ip).collect();
        if self.nodes.iter().any(|n| !n.killed && n.lists.len() + 1 != living.len()) {
            return false;
        }
        self.nodes.iter().filter(|n| !n.killed).all(|node| {
            node.lists.len() + 1 == living.len()
                && node.lists.iter().all(|ip| living.contains(ip) && *ip != node.swim.own().ip)
        })
    }

    fn downs(&self) -> usize {
        self.nodes.iter().map(|node| node.downs).sum()
    }
}

#[test]
fn all_find_each_other_through_one_of_them() {
    for (count, seed) in [(2, 1), (12, 2), (100, 3)] {
        let mut net = Net::new(count, seed, 0.0, ms(1));
        assert!(net.run(ms(10_000), Net::agrees), "{count}");
        assert_eq!(net.downs(), 0);
    }
}

#[test]
fn a_killed_node_is_off_everybodys_list_soon_and_sooner_if_its_machine_says_so() {
    for count in [12, 100] {
        for seed in 0..10 {
            let mut net = Net::new(count, seed, 0.0, ms(1));
            assert!(net.run(ms(20_000), Net::agrees));
            net.run(ms(3000), |_| false);
            net.nodes[count / 2].killed = true;
            assert!(net.run(ms(1500), Net::agrees), "{count} nodes, seed {seed}");
            assert_eq!(net.downs(), count - 1);
        }
    }
    // Nobody says so: its machine is off.
    let mut net = Net::new(12, 9, 0.0, ms(1));
    assert!(net.run(ms(10_000), Net::agrees));
    net.passes = Box::new(|from, to| from != 3 && to != 3);
    let lists = |net: &Net| net.nodes.iter().filter(|n| n.lists.contains(&ip(3))).count();
    assert!(net.run(SUSPECT + ms(2000), |net| lists(net) == 0));
}

#[test]
fn the_living_are_not_taken_for_dead_where_a_tenth_is_lost() {
    let mut net = Net::new(12, 4, 0.1, ms(2));
    assert!(net.run(ms(20_000), Net::agrees));
    net.run(Duration::from_secs(1800), |_| false);
    assert_eq!(net.downs(), 0);
    assert!(net.agrees());
    // Nor are they told so.
    assert!(net.nodes.iter().all(|node| node.swim.own().generation == 1));
}

/// A tenth of `count` nodes stalls for up to a second, each second, for so many.
fn some_stall(count: usize, seconds: usize) {
    let mut net = Net::new(count, 5, 0.0, ms(1));
    assert!(net.run(ms(20_000), Net::agrees));
    for _ in 0..seconds {
        for of in 0..count / 10 {
            let stalls = ms(net.rng.random_range(0..1000));
            net.nodes[of].stalled_until = net.now + stalls;
        }
        net.run(ms(1000), |_| false);
    }
    assert_eq!(net.downs(), 0);
}

#[test]
fn the_living_are_not_taken_for_dead_where_some_stall_for_up_to_a_second() {
    some_stall(50, 120);
}

#[test]
#[ignore = "takes minutes where the compiler has not optimised it"]
fn the_living_are_not_taken_for_dead_where_some_of_a_hundred_stall_for_half_an_hour() {
    some_stall(100, 1800);
}

#[test]
fn the_far_are_not_taken_for_dead() {
    for (seed, round_trip) in [160, 260, 400, 160, 260, 400, 900].into_iter().enumerate() {
        let mut net = Net::new(8, seed as u64, 0.01, ms(round_trip / 2));
        assert!(net.run(ms(30_000), Net::agrees), "{round_trip}");
        net.run(Duration::from_secs(300), |_| false);
        assert_eq!(net.downs(), 0, "{round_trip}");
    }
}

#[test]
fn what_was_parted_finds_itself_again() {
    let mut net = Net::new(12, 6, 0.0, ms(1));
    assert!(net.run(ms(10_000), Net::agrees));
    net.passes = Box::new(|from, to| (from < 5) == (to < 5));
    let parted = |net: &Net| {
        net.nodes.iter().enumerate().all(|(n, node)| node.lists.len() == if n < 5 { 4 } else { 6 })
    };
    assert!(net.run(ms(20_000), parted), "each side lists itself alone");
    net.run(ms(60_000), |_| false);
    net.passes = Box::new(|_, _| true);
    assert!(net.run(ms(10_000), Net::agrees));
    // One alone.
    net.passes = Box::new(|from, to| from != 7 && to != 7);
    assert!(net.run(ms(30_000), |net| net.nodes[7].lists.is_empty()));
    net.passes = Box::new(|_, _| true);
    assert!(net.run(ms(5000), Net::agrees));
}

#[test]
fn one_that_leaves_is_off_the_lists_at_once_and_one_that_starts_again_is_back() {
    let mut net = Net::new(12, 7, 0.0, ms(1));
    assert!(net.run(ms(10_000), Net::agrees));
    net.nodes[4].swim.leave(net.now);
    net.drain(4);
    net.run(ms(2), |_| false);
    net.nodes[4].killed = true;
    assert!(net.run(ms(1000), Net::agrees));
    for (start, generation) in [(2, 20), (3, 30), (4, 5)] {
        // The second time it was not even missed. The third time its clock was set back.
        let swim = net.swim(4, generation);
        let node = &mut net.nodes[4];
        (node.swim, node.killed, node.start) = (swim, false, start);
        node.lists.clear();
        net.join(4, 0);
        assert!(net.run(ms(9000), Net::agrees), "{generation}");
    }
}

/// Lets one node after the other say something new of itself; gives how long it took until all knew each.
fn times_until_all_know(net: &mut Net, changes: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..changes {
        let of = n * 7 % net.nodes.len();
        let load = RecordLoad { k: 4, running: n as u32 + 1, waiting: 0, failing_percent: 0 };
        let about = NodeDescription { name: format!("{of}-{n}"), ..NodeDescription::default() };
        let (now, owner) = (net.now, net.nodes[of].swim.own().ip);
        net.nodes[of].swim.say(&about, load, &Saying::default(), now, 0);
        net.drain(of);
        let knows = |node: &Node| {
            let records = node.swim.records();
            records.of(owner).and_then(|record| record.about.as_ref()) == Some(&about)
        };
        // Who knows it does not forget it.
        let mut lacking: Vec<usize> = (0..net.nodes.len()).collect();
        let done = net.run(ms(60_000), |net| {
            lacking.retain(|n| !knows(&net.nodes[*n]));
            lacking.is_empty()
        });
        assert!(done, "all hear of it some time");
        times.push(net.now - now);
        net.run(ms(200), |_| false);
    }
    times.sort_unstable();
    times
}

#[test]
fn what_a_node_says_of_itself_is_known_to_all_soon() {
    for (count, loss, bar_ms) in [(12, 0.0, 1000), (100, 0.0, 1000), (100, 0.1, 10_000)] {
        let mut net = Net::new(count, 11, loss, ms(1));
        assert!(net.run(ms(20_000), Net::agrees));
        net.run(ms(5000), |_| false);
        let times = times_until_all_know(&mut net, 100);
        assert!(times[98] <= ms(bar_ms), "{count} nodes, {loss} lost: {:?}", &times[95..]);
    }
}

/// So many nodes that all begin at once know each other within a minute, what each says within two seconds, and
/// that one is killed within a second and a half; and say little where nothing happens.
#[expect(clippy::print_stderr, reason = "its figures stand in docs/reliability.md")]
fn many_nodes_know_of_each_other(count: usize) {
    let mut net = Net::new(count, 12, 0.0, ms(1));
    // To look at all is slow: now and then.
    let seconds = (1..60).find(|_| net.run(ms(1000), |_| false) || net.agrees());
    eprintln!("all know each other after {seconds:?} s");
    assert!(seconds.is_some());
    net.run(ms(20_000), |_| false);
    let times = times_until_all_know(&mut net, 20);
    eprintln!("what one says is known to all after {times:?}");
    assert!(times[19] <= ms(2000), "{times:?}");
    net.run(ms(5000), |_| false);
    net.bytes = 0;
    net.run(ms(10_000), |_| false);
    let each = net.bytes / 10 / count as u64;
    eprintln!("{each} bytes a second each");
    assert!(each <= 1000, "{each} bytes a second each");
    assert_eq!(net.downs(), 0);
    net.nodes[count / 2].killed = true;
    let ip = ip(count / 2);
    let lists = |net: &Net| net.nodes.iter().filter(|n| n.lists.contains(&ip)).count();
    net.run(ms(1500), |_| false);
    assert_eq!(lists(&net), 0);
}

#[test]
fn hundreds_of_nodes_know_of_each_other() {
    many_nodes_know_of_each_other(200);
}

#[test]
#[ignore = "takes minutes where the compiler has not optimised it"]
fn a_thousand_nodes_know_of_each_other() {
    many_nodes_know_of_each_other(1000);
}

impl Net {
    /// Something happens to one node, or to the ways between them.
    fn strike(&mut self, moves: &mut u8) {
        let (count, now) = (self.nodes.len(), self.now);
        let of = self.rng.random_range(0..count);
        match self.rng.random_range(0..7) {
            0 => self.nodes[of].killed = true,
            1 if !self.nodes[of].killed => {
                self.nodes[of].swim.leave(now);
                self.drain(of);
                self.nodes[of].killed = true;
            }
            2 => {
                let stalls = ms(self.rng.random_range(0..3000));
                self.nodes[of].stalled_until = now + stalls;
            }
            3 => {
                let side = self.rng.random_range(0..=u16::MAX);
                let is_in = move |n: usize| side >> n & 1 == 1;
                self.passes = Box::new(move |from, to| is_in(from) == is_in(to));
            }
            // One way alone is cut.
            4 => self.passes = Box::new(move |from, _| from != of),
            5 if !self.nodes[of].killed => {
                *moves += 1;
                self.nodes[of].swim.moved([10, 9, 0, *moves].into(), now);
                self.drain(of);
            }
            _ => self.passes = Box::new(|_, _| true),
        }
    }

    /// A node that was killed begins again, sometimes with a clock that was set back.
    fn start_again(&mut self, of: usize) {
        let start = self.nodes[of].start + 1;
        let back = self.rng.random_bool(0.2);
        let generation = if back { 1 } else { start * 10 };
        let (ip, seed) = (self.nodes[of].swim.own().ip, self.rng.random());
        let again = swim(ip, generation, 2000, seed);
        let node = &mut self.nodes[of];
        (node.swim, node.killed, node.start) = (again, false, start);
        node.lists.clear();
        self.join(of, (of + 1) % self.nodes.len());
    }
}

/// Nodes to which anything happens for a while know all that are there, and nobody else, once it is quiet: with
/// their records.
fn history(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (count, loss) = (rng.random_range(3..9), rng.random_range(0.0..0.1));
    let delay = ms(rng.random_range(1..60));
    let mut net = Net::new(count, seed, loss, delay);
    net.run(ms(rng.random_range(0..5000)), |_| false);
    let mut moves = 0;
    for _ in 0..rng.random_range(1..12) {
        net.strike(&mut moves);
        net.run(ms(rng.random_range(10..5000)), |_| false);
        let of = rng.random_range(0..count);
        if net.nodes[of].killed {
            net.start_again(of);
        }
    }
    net.passes = Box::new(|_, _| true);
    for of in 0..count {
        let name = NodeDescription { name: format!("quiet {of}"), ..NodeDescription::default() };
        let now = net.now;
        let unix_ms = 1 + now.as_millis() as u64;
        net.nodes[of].swim.say(&name, RecordLoad::default(), &Saying::default(), now, unix_ms);
        net.drain(of);
    }
    let told = |net: &Net| {
        let living = || net.nodes.iter().filter(|node| !node.killed);
        living().all(|node| {
            living().all(|of| {
                let records = node.swim.records();
                let record = records.of(of.swim.own().ip).and_then(|record| record.about.clone());
                record.is_some_and(|about| about.name.starts_with("quiet"))
            })
        })
    };
    let is_right = (0..40).any(|_| {
        // Discovery asks those that it remembers, again and again.
        for of in 0..count {
            let living = (1..count).map(|n| (of + n) % count).find(|n| !net.nodes[*n].killed);
            let is_lacking = |n: &usize| {
                let ip = net.nodes[*n].swim.own().ip;
                !net.nodes[of].lists.contains(&ip)
            };
            if let Some(living) = living.filter(is_lacking) {
                net.join(of, living);
            }
        }
        net.run(ms(1500), |net| net.agrees() && told(net))
    });
    assert!(is_right, "history {seed}: {count} nodes do not agree");
}

#[test]
fn after_any_history_all_agree_once_it_is_quiet() {
    // HISTORY runs one again, HISTORIES so many.
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("HISTORY") {
        Some(seed) => history(seed),
        None => (0..number("HISTORIES").unwrap_or(1000)).for_each(history),
    }
}

#[test]
fn little_is_said_where_nothing_happens() {
    for (count, seconds) in [(12, 60), (100, 30)] {
        let mut net = Net::new(count, 8, 0.0, ms(1));
        assert!(net.run(ms(20_000), Net::agrees));
        net.run(ms(10_000), |_| false);
        net.bytes = 0;
        net.run(Duration::from_secs(seconds), |_| false);
        let each = net.bytes / seconds / count as u64;
        assert!(each <= 1000, "{count} nodes: {each} bytes a second each");
    }
}

#[test]
fn who_moves_is_known_under_the_new_address_alone() {
    let mut net = Net::new(6, 10, 0.0, ms(1));
    assert!(net.run(ms(10_000), Net::agrees));
    net.nodes[2].swim.moved(ip(200), net.now);
    net.drain(2);
    assert!(net.run(ms(5000), Net::agrees));
    assert!(net.nodes[0].lists.contains(&ip(200)) && !net.nodes[0].lists.contains(&ip(2)));
}

#[test]
fn no_more_are_known_than_there_is_room_for() {
    let mut full = swim(ip(0), 1, 5, 1);
    let mut taken = 0;
    for other in 1..100 {
        let mut other = swim(ip(other), 1, 5, 1);
        other.join(ip(0), Duration::ZERO);
        let Some(SwimEffect::Send { datagram, .. }) = other.effect() else { panic!("it asks") };
        let from = other.own().ip;
        taken += usize::from(full.received(from, &datagram, Duration::ZERO).is_ok());
        let spoken_for = full.received(ip(1000), &datagram, Duration::ZERO);
        assert_eq!(spoken_for, Err(BadDatagram::Foreign));
    }
    assert_eq!((taken, full.alive().count()), (5, 5));
}

/// Some datagram that a node sends.
fn datagram() -> Vec<u8> {
    let mut net = Net::new(3, 1, 0.0, ms(1));
    net.run(ms(3000), Net::agrees);
    net.nodes[1].swim.leave(net.now);
    let sent = std::iter::from_fn(|| net.nodes[1].swim.effect()).find_map(|effect| match effect {
        SwimEffect::Send { datagram, .. } => Some(datagram.to_vec()),
        _ => None,
    });
    sent.expect("it tells somebody")
}

proptest! {
    #[test]
    fn whatever_comes_is_taken_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        at in 0..200_usize,
        own in 0..3_usize,
    ) {
        let mut sent = datagram();
        for (to, from) in sent.iter_mut().skip(at).zip(&bytes) {
            *to = *from;
        }
        let mut swim = swim(ip(own), 1, 100, 1);
        let _ = swim.received(ip(1), &sent, Duration::ZERO);
        let _ = swim.received(ip(1), &[&MAGIC[..], &bytes].concat(), Duration::ZERO);
        let _ = swim.received(ip(1), &bytes, Duration::ZERO);
        while let Some(effect) = swim.effect() {
            if let SwimEffect::Send { datagram, .. } = effect {
                prop_assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
            }
        }
    }
}
