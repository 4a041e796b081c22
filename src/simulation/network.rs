//! How long messages between nodes take.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::service::drawn::normal;

/// What the kernel waits before it sends a lost packet again, at first; then twice as long each time.
const RESEND: Duration = Duration::from_millis(200);
/// How often a packet is lost in a row at most, so that there is an end to it.
const RESENDS_MAX: u32 = 6;

/// One way between two nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// What a message takes one way, in mean.
    pub latency: Duration,
    /// Its standard deviation; latencies are normal, but never below a tenth of their mean.
    pub deviation: Duration,
    /// Bytes a second that a body goes with; 0: it takes no time.
    pub bytes_per_s: f64,
}

/// The network: a link like all others, and those that are not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// Between any two nodes.
    pub link: Link,
    /// Between these, from the first to the second by their index.
    pub links: BTreeMap<(u32, u32), Link>,
    /// Between clients and nodes.
    pub clients: Link,
    /// The share of messages that are lost and sent again by the kernel, 0 to 1.
    pub loss: f64,
}

impl Network {
    /// What a message takes in mean from one node to another.
    pub fn latency(&self, from: u32, to: u32) -> Duration {
        self.between_them(from, to).latency
    }

    /// What a message of `bytes` takes between two nodes; all random parts come from `rng`.
    pub fn between(&self, from: u32, to: u32, bytes: u64, rng: &mut impl Rng) -> Duration {
        self.take(self.between_them(from, to), bytes, rng)
    }

    /// What a datagram of `bytes` takes between two nodes; `None`: it is lost.
    pub fn datagram(&self, from: u32, to: u32, bytes: u64, rng: &mut impl Rng) -> Option<Duration> {
        let is_lost = self.loss > 0.0 && rng.random::<f64>() < self.loss;
        (!is_lost).then(|| Self::once(self.between_them(from, to), bytes, rng))
    }

    fn between_them(&self, from: u32, to: u32) -> &Link {
        match self.links.is_empty() {
            true => &self.link,
            false => self.links.get(&(from, to)).unwrap_or(&self.link),
        }
    }

    /// What a message of `bytes` takes between a client and its node.
    pub fn to_client(&self, bytes: u64, rng: &mut impl Rng) -> Duration {
        self.take(&self.clients, bytes, rng)
    }

    fn take(&self, link: &Link, bytes: u64, rng: &mut impl Rng) -> Duration {
        let mut took = Self::once(link, bytes, rng);
        if self.loss > 0.0 {
            let lost = (0..RESENDS_MAX).take_while(|_| rng.random::<f64>() < self.loss);
            took += lost.map(|n| RESEND * 2u32.pow(n)).sum::<Duration>();
        }
        took
    }

    /// What it takes where nothing is lost.
    fn once(link: &Link, bytes: u64, rng: &mut impl Rng) -> Duration {
        let mut took = link.latency;
        if !link.deviation.is_zero() {
            let mean = link.latency.as_secs_f64();
            let drawn = mean + link.deviation.as_secs_f64() * normal(rng);
            took = Duration::from_secs_f64(drawn.max(mean / 10.0));
        }
        if link.bytes_per_s > 0.0 {
            took += Duration::from_secs_f64(bytes as f64 / link.bytes_per_s);
        }
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_message_takes_its_links_latency_and_its_bodys_bytes() {
        let rng = &mut SmallRng::seed_from_u64(1);
        let link = Link { latency: ms(5), bytes_per_s: 1e6, ..Link::default() };
        let far = Link { latency: ms(50), ..link };
        let network = Network { link, links: [((0, 2), far)].into(), ..Network::default() };
        assert_eq!(network.between(0, 1, 0, rng), ms(5));
        assert_eq!(network.between(0, 1, 20_000, rng), ms(25));
        assert_eq!(network.between(0, 2, 0, rng), ms(50));
        assert_eq!(network.between(2, 0, 0, rng), ms(5), "the way back is another link");
        assert_eq!(network.to_client(1 << 30, rng), Duration::ZERO);
    }

    #[test]
    fn normal_latencies_have_their_mean_and_lost_messages_come_later() {
        let rng = &mut SmallRng::seed_from_u64(1);
        let link = Link { latency: ms(20), deviation: ms(5), ..Link::default() };
        let mut network = Network { link, ..Network::default() };
        let mean = |network: &Network, rng: &mut SmallRng| {
            let n = 20_000;
            let sum: Duration = (0..n).map(|_| network.between(0, 1, 0, rng)).sum();
            sum.as_secs_f64() * 1e3 / f64::from(n)
        };
        let plain = mean(&network, rng);
        assert!((plain - 20.0).abs() < 0.2, "{plain}");
        network.loss = 0.1;
        let lost = (0..10_000).filter(|_| network.datagram(0, 1, 0, rng).is_none()).count();
        assert!((850..1150).contains(&lost), "{lost}");
        // 0.1 · 200 + 0.01 · 400 + 0.001 · 800 …
        let lossy = mean(&network, rng);
        assert!((lossy - 45.0).abs() < 2.0, "{lossy}");
    }
}
