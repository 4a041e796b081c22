//! Who is whose neighbour: what [`Neighbours`] means among the machines that are there, and shapes for whole
//! fleets.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::Machine;
use crate::types::{Neighbours, shortened};

/// Who is a neighbour now takes the place of one that was it before only if its round trip is shorter than
/// this share of the other's: those that are equally near do not change places all the time.
const NEARER: f64 = 0.8;

/// Whether a machine is a neighbour. `group` is the node's own; `nearest` are those that [`nearest`] gave.
pub fn is_neighbour(
    neighbours: &Neighbours,
    machine: &Machine,
    group: &str,
    nearest: &BTreeSet<IpAddr>,
) -> bool {
    match neighbours {
        Neighbours::All => true,
        Neighbours::Group => machine.is.group == group,
        Neighbours::Nearest(_) => nearest.contains(&machine.ip),
        Neighbours::List(all) => all.contains(&machine.ip),
    }
}

/// The `count` machines with the shortest round trips, of those with their round trips; one that is not
/// known is the longest. Those of `before` stay unless others are much nearer.
pub fn nearest(
    count: usize,
    machines: impl IntoIterator<Item = (IpAddr, Option<Duration>)>,
    before: &BTreeSet<IpAddr>,
) -> BTreeSet<IpAddr> {
    let mut all: Vec<_> = machines
        .into_iter()
        .map(|(ip, round_trip)| {
            let seconds = round_trip.map_or(f64::MAX, |time| time.as_secs_f64());
            (if before.contains(&ip) { seconds * NEARER } else { seconds }, ip)
        })
        .collect();
    all.sort_by(|(a, a_ip), (b, b_ip)| a.total_cmp(b).then(a_ip.cmp(b_ip)));
    all.into_iter().take(count).map(|(_, ip)| ip).collect()
}

/// The shape of a fleet: who is whose neighbour among nodes 0, 1, 2, …, always both ways. Written as `all`,
/// `ring`, `grid`, `tree` or `random D`, with a seed after it if it is to be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Each is everybody's.
    All,
    /// The one before and the one after.
    Ring,
    /// Left, right, above and below, in rows of ⌈√n⌉.
    Grid,
    /// The parent and up to two children: node n's parent is ⌊(n − 1) / 2⌋.
    Tree,
    /// Up to `degree` others, by chance, with a way from each to each.
    Random {
        /// At least 2.
        degree: usize,
        /// Of the chance.
        seed: u64,
    },
}

impl FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["all"] => Ok(Self::All),
            ["ring"] => Ok(Self::Ring),
            ["grid"] => Ok(Self::Grid),
            ["tree"] => Ok(Self::Tree),
            ["random", degree, ref rest @ ..] if rest.len() <= 1 => {
                let degree = degree.parse().ok().filter(|degree| (2..=1000).contains(degree));
                let degree = degree.ok_or("random D: a number from 2 to 1000 is wanted")?;
                let seed = rest.first().map_or(Ok(1), |seed| seed.parse());
                let seed = seed.map_err(|_| "random D SEED: the seed is no number")?;
                Ok(Self::Random { degree, seed })
            }
            _ => {
                let text = shortened(text, 64);
                Err(format!("{text:?} is none of `all`, `ring`, `grid`, `tree` and `random D`"))
            }
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Ring => f.write_str("ring"),
            Self::Grid => f.write_str("grid"),
            Self::Tree => f.write_str("tree"),
            Self::Random { degree, seed: 1 } => write!(f, "random {degree}"),
            Self::Random { degree, seed } => write!(f, "random {degree} {seed}"),
        }
    }
}

impl Topology {
    /// The neighbours of each of `count` nodes, in order.
    pub fn neighbours(&self, count: usize) -> Vec<BTreeSet<usize>> {
        let mut all = vec![BTreeSet::new(); count];
        for (a, b) in self.ways(count) {
            if a == b {
                continue;
            }
            for (from, to) in [(a, b), (b, a)] {
                if let Some(of) = all.get_mut(from).filter(|_| to < count) {
                    of.insert(to);
                }
            }
        }
        all
    }

    /// Ways between two nodes, some of them perhaps twice, or from one to itself.
    fn ways(&self, count: usize) -> Vec<(usize, usize)> {
        let each = 0..count;
        match *self {
            Self::All => each.flat_map(|a| (0..a).map(move |b| (a, b))).collect(),
            Self::Ring => each.map(|n| (n, (n + 1) % count)).collect(),
            Self::Grid => {
                let row = (1..=count).find(|row| row * row >= count).unwrap_or(1);
                let right = each.clone().filter(|n| (n + 1) % row != 0 && n + 1 < count);
                let below = each.filter(|n| n + row < count);
                right.map(|n| (n, n + 1)).chain(below.map(|n| (n, n + row))).collect()
            }
            Self::Tree => each.skip(1).map(|n| (n, (n - 1) / 2)).collect(),
            Self::Random { degree, seed } => random_ways(count, degree, seed),
        }
    }

    /// What each of the nodes at `addresses` is to be told.
    pub fn told(&self, addresses: &[IpAddr]) -> Vec<Neighbours> {
        let of = |all: BTreeSet<usize>| match self {
            Self::All => Neighbours::All,
            _ => Neighbours::List(all.iter().filter_map(|n| addresses.get(*n)).copied().collect()),
        };
        self.neighbours(addresses.len()).into_iter().map(of).collect()
    }
}

/// A number of which no bit tells those of `n`: the same in every version of the program. (The last step of
/// SplitMix64; Steele, Lea, Flood, 2014.)
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// ⌊degree / 2⌋ circles through all nodes in an order of chance, and pairs if the degree is odd.
fn random_ways(count: usize, degree: usize, seed: u64) -> Vec<(usize, usize)> {
    let order = |turn: usize| {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_cached_key(|n| mixed(mixed(mixed(seed) ^ turn as u64) ^ *n as u64));
        order
    };
    let mut ways = Vec::new();
    for turn in 0..degree / 2 {
        let order = order(turn);
        let next = order.iter().cycle().skip(1);
        ways.extend(order.iter().copied().zip(next.copied()));
    }
    if degree % 2 == 1 {
        ways.extend(order(degree).chunks_exact(2).filter_map(|pair| match pair {
            [a, b] => Some((*a, *b)),
            _ => None,
        }));
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn neighbours(text: &str, count: usize) -> Vec<Vec<usize>> {
        let topology: Topology = text.parse().expect("one");
        let all = topology.neighbours(count);
        all.into_iter().map(|of| of.into_iter().collect()).collect()
    }

    #[test]
    fn shapes_are_what_their_names_say() {
        assert_eq!(neighbours("ring", 4), [[1, 3], [0, 2], [1, 3], [0, 2]]);
        assert_eq!(neighbours("ring", 2), [[1], [0]]);
        assert_eq!(neighbours("ring", 1), [[0usize; 0]]);
        assert_eq!(neighbours("all", 3), [[1, 2], [0, 2], [0, 1]]);
        // 0 1 2
        // 3 4 5
        // 6
        let grid = neighbours("grid", 7);
        assert_eq!((&*grid[0], &*grid[4], &*grid[6]), (&[1, 3][..], &[1, 3, 5][..], &[3][..]));
        let tree = neighbours("tree", 6);
        assert_eq!((&*tree[0], &*tree[1], &*tree[5]), (&[1, 2][..], &[0, 3, 4][..], &[2][..]));
        for wrong in ["", "star", "random", "random 1", "random x", "ring 3", "random 3 x"] {
            assert!(wrong.parse::<Topology>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_is_told_the_addresses_of_its_neighbours() {
        let addresses = [ip(1), ip(2), ip(3), ip(4)];
        let told = Topology::Ring.told(&addresses);
        assert_eq!(told[0].to_string(), "list 10.0.0.2 10.0.0.4");
        assert_eq!(Topology::All.told(&addresses), vec![Neighbours::All; 4]);
    }

    #[test]
    fn those_that_are_equally_near_do_not_change_places() {
        let ms = Duration::from_millis;
        let machines = [(ip(1), Some(ms(10))), (ip(2), Some(ms(9))), (ip(3), None)];
        let nobody = BTreeSet::new();
        assert_eq!(nearest(1, machines, &nobody), BTreeSet::from([ip(2)]));
        assert_eq!(nearest(1, machines, &BTreeSet::from([ip(1)])), BTreeSet::from([ip(1)]));
        let machines = [(ip(1), Some(ms(10))), (ip(2), Some(ms(7))), (ip(3), None)];
        assert_eq!(nearest(1, machines, &BTreeSet::from([ip(1)])), BTreeSet::from([ip(2)]));
        assert_eq!(nearest(9, machines, &nobody).len(), 3);
    }

    proptest! {
        #[test]
        fn there_is_a_way_from_each_to_each_and_all_ways_go_both_ways(
            count in 1..80_usize,
            degree in 2..7_usize,
            seed in 0..50_u64,
            which in 0..4,
        ) {
            let topology = match which {
                0 => Topology::Random { degree, seed },
                1 => Topology::Ring,
                2 => Topology::Grid,
                _ => Topology::Tree,
            };
            prop_assert_eq!(topology.to_string().parse(), Ok(topology));
            let all = topology.neighbours(count);
            let mut reached = BTreeSet::from([0]);
            let mut next = vec![0];
            while let Some(n) = next.pop() {
                next.extend(all[n].iter().filter(|other| reached.insert(**other)));
            }
            prop_assert_eq!(reached.len(), count);
            for (n, of) in all.iter().enumerate() {
                prop_assert!(!of.contains(&n));
                prop_assert!(of.iter().all(|other| all[*other].contains(&n)));
                if which == 0 {
                    prop_assert!(of.len() <= degree);
                }
            }
        }
    }
}
