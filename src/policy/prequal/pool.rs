//! Answers of peers to probes, which of them is the best, and when they leave.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use crate::policy::{Knowledge, Probe};
use crate::types::Peer;

/// δ: by how much the pool would grow by each call, before what is used up and too old leaves it.
const DELTA: f64 = 1.0;
/// r_remove: answers that leave the pool for each call.
pub(super) const R_REMOVE: f64 = 1.0;
/// An answer that is so old says nothing any more.
const AGE_MAX: Duration = Duration::from_secs(1);
/// An answer is used so often at most.
pub(super) const REUSES_MAX: f64 = 16.0;
/// Answers by which the distribution of requests in flight is estimated.
const RIFS_MAX: usize = 128;

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Signals {
    /// Requests in flight.
    pub(super) rif: u32,
    pub(super) latency_s: f64,
}

impl Signals {
    /// The better is less: the cold before the hot, of those the faster, of these the less loaded.
    fn order(&self, other: &Self, threshold: f64) -> Ordering {
        let is_hot = |signals: &Self| f64::from(signals.rif) > threshold;
        let by_latency = self.latency_s.total_cmp(&other.latency_s);
        let by_load = self.rif.cmp(&other.rif);
        is_hot(self).cmp(&is_hot(other)).then_with(|| match is_hot(self) {
            true => by_load.then(by_latency),
            false => by_latency.then(by_load),
        })
    }
}

/// An answer in the pool.
#[derive(Clone, Debug)]
struct Answer {
    peer: Peer,
    signals: Signals,
    came: Duration,
    /// How often it may still be used.
    uses: u32,
}

/// The answers, the oldest first; and what the last ones told of requests in flight, [`RIFS_MAX`] at most.
#[derive(Debug, Default)]
pub(super) struct AnswerPool {
    answers: VecDeque<Answer>,
    rifs: VecDeque<u32>,
    /// Whose turn it is to leave.
    worst_leaves: bool,
}

/// b_reuse: how often an answer is used in the mean. The formula is in [`prequal`](super).
pub(super) fn reuses(m: f64, n: f64, r_probe: f64) -> f64 {
    let grows = (1.0 - m / n.max(1.0)) * r_probe - R_REMOVE;
    if grows <= 0.0 { REUSES_MAX } else { ((1.0 + DELTA) / grows).clamp(1.0, REUSES_MAX) }
}

/// The `q` quantile of `rifs`: a node with more in flight is hot.
pub(super) fn threshold(rifs: &VecDeque<u32>, q: f64) -> f64 {
    if q >= 1.0 || rifs.is_empty() {
        return f64::INFINITY;
    }
    if q <= 0.0 {
        return -1.0;
    }
    let mut sorted: Vec<u32> = rifs.iter().copied().collect();
    sorted.sort_unstable();
    // A cast saturates.
    let place = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().map_or(f64::INFINITY, f64::from)
}

impl AnswerPool {
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn rifs(&self) -> &VecDeque<u32> {
        &self.rifs
    }

    /// An answer comes in the place of an older one of the same peer, to be used so often.
    pub(super) fn takes(&mut self, probe: &Probe, now: Duration, uses: u32, most: usize) {
        let rif = probe.load.total();
        if self.rifs.len() >= RIFS_MAX {
            self.rifs.pop_front();
        }
        self.rifs.push_back(rif);
        self.answers.retain(|answer| answer.peer.host != probe.peer.host);
        // What takes less than no time is nobody's; who tells none is taken for a usual one.
        let latency_s = probe.bid.filter(|bid| bid.is_finite()).map(|bid| bid.max(0.0));
        let latency_s = latency_s.unwrap_or_else(|| self.median_s());
        let signals = Signals { rif, latency_s };
        self.answers.push_back(Answer { peer: probe.peer.clone(), signals, came: now, uses });
        while self.answers.len() > most {
            self.answers.pop_front();
        }
    }

    fn median_s(&self) -> f64 {
        let mut all: Vec<f64> = self.answers.iter().map(|one| one.signals.latency_s).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// Answers that are too old leave, and those of peers that are gone. Those that this call alone cannot go to stay.
    pub(super) fn ages(&mut self, now: Duration, peers: &[Peer], heard: &Knowledge) {
        self.answers.retain(|answer| {
            let host = &answer.peer.host;
            let is_there = heard.failed(host) || peers.iter().any(|peer| peer.host == *host);
            now.saturating_sub(answer.came) < AGE_MAX && is_there
        });
    }

    /// Uses the best of all answers of peers that the call can go to; `None`: none of them is better than `own`.
    pub(super) fn take_best(
        &mut self,
        own: Signals,
        threshold: f64,
        heard: &Knowledge,
    ) -> Option<Peer> {
        let all = self.answers.iter().enumerate();
        let all = all.filter(|(_, answer)| !heard.failed(&answer.peer.host));
        let (place, best) =
            all.min_by(|one, other| one.1.signals.order(&other.1.signals, threshold))?;
        if best.signals.order(&own, threshold) != Ordering::Less {
            return None;
        }
        let answer = self.answers.get_mut(place)?;
        answer.signals.rif = answer.signals.rif.saturating_add(1);
        answer.uses = answer.uses.saturating_sub(1);
        let (peer, is_used_up) = (answer.peer.clone(), answer.uses == 0);
        if is_used_up {
            self.answers.remove(place);
        }
        Some(peer)
    }

    /// The oldest leaves, or the worst, by turns.
    pub(super) fn remove_one(&mut self, threshold: f64) {
        let all = self.answers.iter().enumerate();
        let worst = all.max_by(|one, other| one.1.signals.order(&other.1.signals, threshold));
        let place = if self.worst_leaves { worst.map_or(0, |(place, _)| place) } else { 0 };
        if self.answers.remove(place).is_some() {
            self.worst_leaves = !self.worst_leaves;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::*;
    use super::*;
    use crate::types::Load;

    fn answer(peer: &Peer, rif: u32, latency_s: f64) -> Probe {
        let load = Load { running: rif, waiting: 0 };
        Probe { bid: Some(latency_s), ..Probe::of(peer.clone(), load) }
    }

    fn pool(peers: &[Peer], all: &[(u32, f64)]) -> AnswerPool {
        let mut pool = AnswerPool::default();
        for (peer, (rif, latency_s)) in peers.iter().zip(all) {
            pool.takes(&answer(peer, *rif, *latency_s), Duration::ZERO, 3, 16);
        }
        pool
    }

    const BAD: Signals = Signals { rif: 1000, latency_s: 1e9 };

    #[test]
    fn how_often_an_answer_is_used_is_as_published() {
        for (m, n, r_probe, known) in [
            (16.0, 100.0, 3.0, 2.0 / (0.84 * 3.0 - 1.0)),
            (16.0, 1e9, 3.0, 1.0),
            (16.0, 1e9, 2.0, 2.0),
            (16.0, 1e9, 5.0, 1.0),
            (16.0, 64.0, 2.0, 4.0),
            (16.0, 1e9, 1.01, REUSES_MAX),
            (16.0, 1e9, 0.5, REUSES_MAX),
            (16.0, 12.0, 3.0, REUSES_MAX),
            (16.0, 0.0, 3.0, REUSES_MAX),
        ] {
            let reuses = reuses(m, n, r_probe);
            assert!((reuses - known).abs() < 1e-6, "{m} {n} {r_probe}: {reuses} against {known}");
        }
    }

    #[test]
    fn the_cold_and_fast_one_is_taken_and_where_all_are_hot_the_least_loaded() {
        let peers = peers(3);
        for (all, threshold, taken) in [
            ([(1, 0.3), (2, 0.1), (9, 0.0)], 5.0, 1),
            ([(6, 0.3), (7, 0.1), (5, 0.4)], 5.0, 2),
            ([(6, 0.3), (7, 0.1), (8, 0.0)], 5.0, 0),
            ([(6, 0.3), (6, 0.1), (8, 0.0)], 5.0, 1),
            ([(3, 0.2), (1, 0.2), (2, 0.2)], 5.0, 1),
            ([(6, 0.3), (7, 0.1), (8, 0.0)], f64::INFINITY, 2),
            ([(2, 0.0), (1, 9.0), (3, 0.0)], -1.0, 1),
        ] {
            let best = pool(&peers, &all).take_best(BAD, threshold, &Knowledge::default());
            assert_eq!(best, Some(peers[taken].clone()), "{all:?}, hot above {threshold}");
        }
        let own = Signals { rif: 1, latency_s: 0.1 };
        assert_eq!(
            pool(&peers, &[(1, 0.1), (2, 0.2)]).take_best(own, 5.0, &Knowledge::default()),
            None
        );
    }

    #[test]
    fn hot_is_whoever_is_above_the_quantile() {
        let rifs: VecDeque<u32> = (1..=100).rev().collect();
        for (q, known) in [(0.84, 84.0), (0.5, 50.0), (0.001, 1.0), (0.0, -1.0)] {
            assert_eq!(threshold(&rifs, q), known, "{q}");
        }
        assert!(threshold(&rifs, 1.0).is_infinite() && threshold(&VecDeque::new(), 0.5) > 1e9);
    }

    #[test]
    fn a_use_adds_a_call_and_answers_that_are_used_up_leave() {
        let peers = peers(1);
        let mut pool = pool(&peers, &[(0, 0.1)]);
        for use_number in 1..=3u32 {
            assert_eq!(pool.answers[0].signals.rif, use_number - 1);
            assert!(pool.take_best(BAD, 5.0, &Knowledge::default()).is_some());
        }
        assert_eq!((pool.len(), pool.take_best(BAD, 5.0, &Knowledge::default())), (0, None));
    }

    #[test]
    fn it_is_never_above_its_size_and_has_one_answer_of_each_peer() {
        let peers = peers(200);
        let mut pool = AnswerPool::default();
        for (peer, number) in peers.iter().chain(&peers).zip(0u32..) {
            pool.takes(&answer(peer, number, 0.1), Duration::ZERO, 3, 16);
            assert!(pool.len() <= 16 && pool.rifs.len() <= RIFS_MAX);
        }
        pool.takes(&answer(&peers[199], 7, 0.1), Duration::ZERO, 3, 16);
        let of_it = pool.answers.iter().filter(|answer| answer.peer == peers[199]);
        assert_eq!((pool.len(), of_it.count()), (16, 1));
        assert_eq!(pool.answers.back().map(|answer| answer.signals.rif), Some(7));
        pool.takes(&answer(&peers[0], 7, 0.1), Duration::ZERO, 3, 0);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn what_is_old_or_of_a_peer_that_is_gone_leaves() {
        let peers = peers(3);
        let mut pool = pool(&peers, &[(0, 0.1); 3]);
        pool.takes(&answer(&peers[0], 0, 0.1), Duration::from_millis(500), 3, 16);
        pool.ages(Duration::from_millis(999), &peers[..2], &Knowledge::default());
        assert_eq!(pool.len(), 2);
        pool.ages(Duration::from_millis(1000), &peers, &Knowledge::default());
        assert_eq!(pool.answers.iter().map(|a| &a.peer).collect::<Vec<_>>(), [&peers[0]]);
    }

    #[test]
    fn the_oldest_and_the_worst_leave_by_turns() {
        let peers = peers(4);
        let mut pool = pool(&peers, &[(1, 0.1), (9, 0.1), (1, 0.2), (1, 0.9)]);
        let mut left = Vec::new();
        while pool.len() > 0 {
            let before: Vec<Peer> = pool.answers.iter().map(|a| a.peer.clone()).collect();
            pool.remove_one(5.0);
            let gone = |peer: &&Peer| !pool.answers.iter().any(|answer| answer.peer == **peer);
            left.extend(before.iter().find(gone).cloned());
        }
        // The first is the oldest, the second hot, then the oldest and what is left.
        assert_eq!(left, [0, 1, 2, 3].map(|place: usize| peers[place].clone()));
        pool.remove_one(5.0);
    }
}
