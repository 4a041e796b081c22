//! `PrequalScheduler r_probe pool_max q_rif`: by answers of probes that are used again, calls go where they are
//! answered soonest, and away from where many are.
//!
//! ```text
//! for each client's call
//!     probe r_probe random peers (a fraction: one more so often); their answers go into the pool, which holds one
//!     for each peer, pool_max at most, the oldest leaving first
//!     θ    = the q_rif quantile of the requests in flight (RIF) that the last 128 answers told
//!     hot  = RIF > θ                                      q_rif 0: all are hot; 1: none is
//!     take the one that is cold with the lowest latency; if all are hot, the one with the lowest RIF   (HCL)
//!     its RIF in the pool grows by one; it leaves the pool when it was used b_reuse times, or is 1 s old
//!     r_remove = 1 leaves the pool, by turns the oldest and the worst by the same rule
//! b_reuse  = max(1, (1 + δ) / ((1 − m / n) · r_probe − r_remove))      m = pool_max, n = peers, δ = 1
//! with fewer than two answers in the pool    to this node or one of its peers, all alike, at random
//! a peer's call                              runs here
//! ```
//!
//! The latency of a node is the median of those of the calls that ran there last with about as many in flight as are
//! now; peers tell it as their bid ([`Policy::bid`]), and a peer that knows none counts as the median of
//! the pool; this node itself counts as fast then, so that it is found out.
//!
//! Source: Wydrowski, Kleinberg, Rumble, Archer, *Load is not what you should balance: Introducing Prequal*, NSDI 2024.
//! Published are r_probe 3, a pool of 16 and q_rif 2^−0.25 ≈ 0.84.
//!
//! What differs: there probes are sent beside the calls and serve later ones, so that no call waits; a step of an
//! algorithm here is waited for. So this is the published synchronous mode, in which a call is decided by the answers
//! to its own probes, but for two things: it waits for all of them and not for all but one, and answers stay in the
//! pool, with the rules of the asynchronous mode, for the calls after it. This node is a candidate as well, by its own
//! load and latency, which it knows unasked. With r_probe ≤ r_remove the pool runs dry, and calls go at random.
//! Where (1 − m / n) · r_probe is not more than r_remove, as in clusters that are hardly larger than the pool, the
//! formula gives no number, and answers are used 16 times. The guard against servers that look idle because they refuse
//! everything, of which the paper tells without a rule, is not here.

mod pool;
mod ran;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rand::{Rng, RngExt};
use serde_json::json;

use self::pool::{AnswerPool, R_REMOVE, Signals, reuses, threshold};
use self::ran::Ran;
use super::cap::new_peers;
use super::params::{BadParameters, Params};
use super::{Knowledge, Marks, NodeView, Outcome, Peer, Policy, Step, Task};
use crate::lock;

/// Bounds of the parameters.
const R_PROBE_MAX: f64 = 16.0;
const POOL_MAX: usize = 256;
/// See the module.
#[derive(Debug)]
pub struct PrequalScheduler {
    /// Peers that are probed for each call, in the mean.
    pub r_probe: f64,
    /// Answers in the pool at most.
    pub pool_max: usize,
    /// The quantile of requests in flight above which a node is hot.
    pub q_rif: f64,
    marks: Marks,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pool: AnswerPool,
    ran: Ran,
}

/// Reads a number from 0 to `most`, which `wanted` says in words.
fn number(
    params: &mut Params<'_>,
    what: &'static str,
    most: f64,
    wanted: &'static str,
) -> Result<f64, BadParameters> {
    let given = params.text(what)?;
    let number = given.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number));
    number.map(f64::abs).ok_or_else(|| params.wrong(what, given, wanted))
}

/// `x` in the mean: rounded up as often as its fraction says.
fn rounded(x: f64, rng: &mut dyn Rng) -> u32 {
    // A cast saturates.
    x.floor() as u32 + u32::from(rng.random::<f64>() < x.fract())
}

impl PrequalScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "PrequalScheduler";

    /// Reads `r_probe pool_max q_rif`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self {
            r_probe: number(params, "r_probe", R_PROBE_MAX, "a number from 0 to 16")?,
            pool_max: params.up_to("pool size", POOL_MAX, "an integer from 0 to 256")?,
            q_rif: number(params, "q_rif", 1.0, "a number from 0 to 1")?,
            marks: Marks::default(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The answers to a call's probes come into the pool.
    fn pools(&self, state: &mut State, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) {
        let budget = reuses(self.pool_max as f64, node.peers.len() as f64, self.r_probe);
        for probe in heard.probes.iter().flatten() {
            state.pool.takes(probe, node.now, rounded(budget, rng), self.pool_max);
        }
    }

    /// The peer that gets the call; `None`: this node.
    fn chosen(
        &self,
        state: &mut State,
        node: NodeView<'_>,
        heard: &Knowledge,
        rng: &mut dyn Rng,
    ) -> Option<Peer> {
        state.pool.ages(node.now, node.peers, heard);
        if state.pool.len() < node.peers.len().min(2) {
            // The place behind the last peer is this node's own.
            let place = rng.random_range(0..=node.peers.len());
            return node.peers.get(place).cloned();
        }
        let load = node.load.total();
        let own = Signals { rif: load, latency_s: state.ran.median_s(load).unwrap_or(0.0) };
        let threshold = threshold(state.pool.rifs(), self.q_rif);
        state.pool.take_best(own, threshold, heard)
    }
}

impl Policy for PrequalScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![self.r_probe.to_string(), self.pool_max.to_string(), self.q_rif.to_string()]
    }

    fn may_forward(&self, task: &Task) -> bool {
        !task.from_peer
    }

    fn mark(&self, _: &Task, _: Duration) -> u64 {
        self.marks.next()
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        if task.from_peer {
            self.state().ran.decided(heard.mark, Some(node.load.total()));
            return Step::run_here();
        }
        if heard.rounds == 0 {
            let drawn = new_peers(node.peers, heard, rounded(self.r_probe, rng), rng);
            if !drawn.is_empty() {
                return Step::Probe(drawn);
            }
        }
        let mut state = self.state();
        // A call that could not be handed over is decided anew, by the same answers.
        let is_anew = state.ran.knows(heard.mark);
        if !is_anew {
            self.pools(&mut state, node, heard, rng);
        }
        let chosen = self.chosen(&mut state, node, heard, rng);
        if !is_anew {
            let threshold = threshold(state.pool.rifs(), self.q_rif);
            state.pool.remove_one(threshold);
        }
        let here = chosen.is_none().then(|| node.load.total());
        state.ran.decided(heard.mark, here);
        chosen.map_or_else(Step::run_here, Step::forward)
    }

    fn warning(&self) -> Option<String> {
        (self.r_probe <= R_REMOVE).then(|| {
            format!(
                "r_probe {} is not above 1: an answer leaves the pool with each call, so that it runs \
                 dry and calls go to nodes at random",
                self.r_probe
            )
        })
    }

    fn hears_outcomes(&self) -> bool {
        true
    }

    fn outcome(&self, outcome: &Outcome<'_>) {
        self.state().ran.ended(outcome);
    }

    fn bids(&self) -> bool {
        true
    }

    fn bid(&self, _: &Task, node: NodeView<'_>) -> Option<f64> {
        self.state().ran.median_s(node.load.total())
    }

    fn memory(&self) -> Option<serde_json::Value> {
        let state = self.state();
        Some(json!({
            "pool": state.pool.len(),
            "hot_above": Some(threshold(state.pool.rifs(), self.q_rif)).filter(|at| at.is_finite()),
            "latencies": state.ran.count(),
        }))
    }
}

#[cfg(test)]
mod tests;
