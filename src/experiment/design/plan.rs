//! Which request goes to which node when, and what it carries: all of a run's requests in the order
//! of their times. The same seeds give the same plan, whatever the nodes do with it, so that
//! algorithms are compared on the very same requests.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::{Rng, RngExt};

use super::arrivals::Arrivals;
use super::replay::Replay;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Seconds from the start.
    pub at_s: f64,
    /// The node that it goes to, from 0.
    pub node: usize,
    /// Its number at that node, from 0.
    pub request: u64,
    /// Which payload, from 0.
    pub payload: usize,
    /// The node's rate at that time, in requests per second.
    pub rate: f64,
    /// Randomness of its own, for the function.
    pub seed: u64,
    /// Seconds that it took where it was recorded, if that is known.
    pub duration_s: Option<f64>,
}

/// A call that arrives, and what is known of it by its arrival alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrivedCall {
    /// Seconds from the start.
    pub at_s: f64,
    /// The node that it comes to, from 0.
    pub node: usize,
    /// The node's rate at that time, in requests per second.
    pub rate: f64,
    /// Which payload, from 0; `None`: any, by their weights.
    pub payload: Option<usize>,
    /// Seconds that it took where it was recorded, if that is known.
    pub duration_s: Option<f64>,
}

/// How often each payload is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix(Vec<f64>);

impl Mix {
    /// In proportion to these weights; the last takes what is left.
    pub fn new(weights: &[f64]) -> Self {
        let whole: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let up_to = |weight: &f64| {
            sum += weight / whole;
            sum
        };
        Self(weights.iter().map(up_to).collect())
    }

    fn draw(&self, rng: &mut impl Rng) -> usize {
        let drawn: f64 = rng.random();
        let found = self.0.iter().position(|up_to| drawn < *up_to);
        found.unwrap_or(self.0.len().saturating_sub(1))
    }
}

/// The arrivals of all nodes, drawn for each and put in order.
struct Drawn<R> {
    nodes: Vec<Arrivals<R>>,
    /// The next arrival of each node; times are not negative, so their bits order as they do.
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

impl<R: Rng> Drawn<R> {
    fn new(nodes: Vec<Arrivals<R>>) -> Self {
        let mut drawn = Self { nodes, next: BinaryHeap::new() };
        (0..drawn.nodes.len()).for_each(|node| drawn.draw_next(node));
        drawn
    }

    fn draw_next(&mut self, node: usize) {
        if let Some(at) = self.nodes.get_mut(node).and_then(Iterator::next) {
            self.next.push(Reverse((at.to_bits(), node)));
        }
    }
}

impl<R: Rng> Iterator for Drawn<R> {
    type Item = ArrivedCall;

    fn next(&mut self) -> Option<ArrivedCall> {
        let Reverse((bits, node)) = self.next.pop()?;
        let at_s = f64::from_bits(bits);
        let rate = self.nodes.get(node)?.rates().at(at_s);
        self.draw_next(node);
        Some(ArrivedCall { at_s, node, rate, payload: None, duration_s: None })
    }
}

/// Where arrivals come from.
enum Source<R> {
    Drawn(Drawn<R>),
    Recorded(Box<Replay<R>>),
}

/// One node's part of a plan.
struct Stream<R> {
    /// For all but the times, which must not depend on what else is drawn.
    rng: R,
    sent: u64,
}

/// All requests in order.
pub struct Plan<R> {
    mix: Mix,
    streams: Vec<Stream<R>>,
    source: Source<R>,
}

impl<R: Rng> Plan<R> {
    /// Of nodes with these arrivals, each with randomness for what it sends; it ends with them.
    pub fn new(nodes: impl IntoIterator<Item = (Arrivals<R>, R)>, mix: Mix) -> Self {
        let (arrivals, rngs): (_, Vec<R>) = nodes.into_iter().unzip();
        Self::of(Source::Drawn(Drawn::new(arrivals)), rngs, mix)
    }

    /// Of recorded arrivals at nodes, each with randomness for what it sends.
    pub fn recorded(arrivals: Replay<R>, nodes: impl IntoIterator<Item = R>, mix: Mix) -> Self {
        Self::of(Source::Recorded(Box::new(arrivals)), nodes, mix)
    }

    fn of(source: Source<R>, rngs: impl IntoIterator<Item = R>, mix: Mix) -> Self {
        let streams = rngs.into_iter().map(|rng| Stream { rng, sent: 0 }).collect();
        Self { mix, streams, source }
    }
}

impl<R: Rng> Iterator for Plan<R> {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let call = match &mut self.source {
            Source::Drawn(drawn) => drawn.next(),
            Source::Recorded(replay) => replay.next(),
        }?;
        let stream = self.streams.get_mut(call.node)?;
        let payload = self.mix.draw(&mut stream.rng);
        let planned = Planned {
            at_s: call.at_s,
            node: call.node,
            request: stream.sent,
            payload: call.payload.unwrap_or(payload),
            rate: call.rate,
            seed: stream.rng.random(),
            duration_s: call.duration_s,
        };
        stream.sent += 1;
        Some(planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::design::arrivals::{Process, Rates};
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn plan(rates: &[f64], seed: u64) -> Vec<Planned> {
        let rng = |n: u64| SmallRng::seed_from_u64(seed * 1000 + n);
        let nodes = rates.iter().zip(0..).map(|(rate, n)| {
            let rates = Rates::constant(*rate, 100.0);
            (Arrivals::new(rates, Process::Poisson, rng(n)), rng(n + 500))
        });
        Plan::new(nodes, Mix::new(&[75.0, 25.0])).collect()
    }

    #[test]
    fn requests_come_in_order_and_each_nodes_are_numbered() {
        let plan = plan(&[5.0, 20.0], 1);
        assert!(plan.windows(2).all(|two| two[0].at_s <= two[1].at_s));
        for (node, rate) in [(0, 5.0), (1, 20.0)] {
            let own: Vec<&Planned> = plan.iter().filter(|p| p.node == node).collect();
            assert!(own.iter().zip(0..).all(|(p, n)| p.request == n && p.rate == rate));
            let expected = rate * 100.0;
            assert!((own.len() as f64 - expected).abs() < 4.0 * expected.sqrt());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_one_more_node_changes_no_others() {
        assert_eq!(plan(&[5.0, 20.0], 2), plan(&[5.0, 20.0], 2));
        assert_ne!(plan(&[5.0, 20.0], 2), plan(&[5.0, 20.0], 3));
        let three: Vec<Planned> =
            plan(&[5.0, 20.0, 9.0], 2).into_iter().filter(|p| p.node < 2).collect();
        assert_eq!(three, plan(&[5.0, 20.0], 2));
    }

    #[test]
    fn payloads_are_sent_in_proportion_to_their_weights() {
        let plan = plan(&[100.0], 4);
        let second = plan.iter().filter(|p| p.payload == 1).count() as f64;
        let n = plan.len() as f64;
        // Four standard errors.
        assert!((second / n - 0.25).abs() < 4.0 * (0.25 * 0.75 / n).sqrt());
    }
}
