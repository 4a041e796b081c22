//! `LatencyScheduler [decay]`: of two nodes, the one that has answered faster of late, for what it has to do.
//!
//! Two candidates are drawn at random among this node and its peers, and the cheaper one gets the call:
//!
//! ```text
//! cost(p) = max(ewma(p), age of the oldest call outstanding at p) · (outstanding(p) + 1)
//!
//! a call took t         ewma ← t                               where t > ewma: a peak counts at once
//!                       ewma ← ewma · w + t · (1 − w)          else, w = exp(−time since the last one / decay)
//! a call failed         as one that took the decay at least
//! when costs are asked  ewma · w: who was slow is tried again
//! nothing is known      the smallest ewma of all: who is new is tried
//! a peer's call         runs here
//! ```
//!
//! t is the time from a call's arrival here to its answer, be it that it ran here or at a peer; outstanding are the
//! calls that this node has decided to send there and that have not ended. Nobody is asked anything. decay is 10 s where
//! it is not given.
//!
//! Source: Finagle's balancer "power of two choices with peak EWMA" (Twitter, `PeakEwma`), with two candidates after
//! Mitzenmacher, *The power of two choices in randomized load balancing*, IEEE TPDS 12(10), 2001. Finagle lets a failure
//! count as long as it took, so that who fails fast looks good, and keeps away from nodes of which nothing is known;
//! neither is so here, and who does not answer at all is not taken for fast because its last latency fades. It balances clients over servers; here this node is a candidate, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::Rng;
use rand::seq::index;
use serde_json::{Map, json};

use super::params::{BadParameters, Params, duration_text};
use super::{Knowledge, Marks, NodeView, Outcome, OutcomeKind, Peer, Policy, Step, Task};
use crate::lock;

/// The decay where none is given, and its bounds.
const DECAY: Duration = Duration::from_secs(10);
const DECAY_MIN: Duration = Duration::from_millis(1);
const DECAY_MAX: Duration = Duration::from_secs(3600);
/// Peers that are remembered; lists are far shorter.
const PEERS_MAX: usize = 4096;
/// Calls under way that are counted; of more, the oldest count as ended.
const UNDER_WAY_MAX: usize = 4096;
/// See the module.
#[derive(Debug)]
pub struct LatencyScheduler {
    /// The time constant with which latencies are forgotten.
    pub decay: Duration,
    marks: Marks,
    state: Mutex<State>,
}

/// A node's latency of late.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Recent {
    ewma_s: f64,
    /// When it was this.
    at: Duration,
}

#[derive(Debug, Default)]
struct State {
    own: Option<Recent>,
    /// At most [`PEERS_MAX`].
    peers: BTreeMap<Arc<str>, Recent>,
    /// Where the calls of these marks are, `None` being here, and since when; at most [`UNDER_WAY_MAX`].
    under_way: BTreeMap<u64, (Option<Arc<str>>, Duration)>,
    /// Those at each of these places.
    outstanding: BTreeMap<Option<Arc<str>>, BTreeSet<u64>>,
}

impl Recent {
    /// What has been forgotten by now is not in it.
    fn weight(self, now: Duration, decay: Duration) -> f64 {
        (-now.saturating_sub(self.at).as_secs_f64() / decay.as_secs_f64()).exp()
    }

    fn seen(of: Option<Self>, took: Duration, now: Duration, decay: Duration) -> Self {
        let took_s = took.as_secs_f64();
        let ewma_s = match of {
            Some(recent) if took_s <= recent.ewma_s => {
                let weight = recent.weight(now, decay);
                recent.ewma_s * weight + took_s * (1.0 - weight)
            }
            _ => took_s,
        };
        Self { ewma_s, at: now }
    }
}

impl State {
    fn recent(&self, of: &Option<Arc<str>>) -> Option<Recent> {
        of.as_ref().map_or(self.own, |host| self.peers.get(host).copied())
    }

    /// What it costs to send one more call there; `unknown_s` is the latency where none is known.
    fn cost(&self, of: &Option<Arc<str>>, unknown_s: f64, now: Duration, decay: Duration) -> f64 {
        let recent = self.recent(of);
        let ewma_s = recent.map_or(unknown_s, |recent| recent.ewma_s * recent.weight(now, decay));
        let Some(outstanding) = self.outstanding.get(of) else { return ewma_s };
        let oldest = outstanding.first().and_then(|mark| self.under_way.get(mark));
        let age = oldest.map(|(_, since)| now.saturating_sub(*since)).unwrap_or_default();
        ewma_s.max(age.as_secs_f64()) * (outstanding.len() as f64 + 1.0)
    }

    /// The smallest latency of all; without any they only have to be alike.
    fn smallest_s(&self, now: Duration, decay: Duration) -> f64 {
        let all = self.peers.values().chain(&self.own);
        let now_s = all.map(|recent| recent.ewma_s * recent.weight(now, decay));
        now_s.reduce(f64::min).unwrap_or(1.0)
    }

    /// The call of that mark is on its way there. If it was elsewhere before, it could not be handed over.
    fn goes(&mut self, mark: u64, to: Option<Arc<str>>, now: Duration) {
        self.ended(mark);
        self.outstanding.entry(to.clone()).or_default().insert(mark);
        self.under_way.insert(mark, (to, now));
        if self.under_way.len() > UNDER_WAY_MAX
            && let Some((oldest, _)) = self.under_way.first_key_value()
        {
            self.ended(*oldest);
        }
    }

    /// The call of that mark is nowhere any more. Whether it was under way.
    fn ended(&mut self, mark: u64) -> bool {
        let Some((place, _)) = self.under_way.remove(&mark) else { return false };
        if let Some(marks) = self.outstanding.get_mut(&place) {
            marks.remove(&mark);
            if marks.is_empty() {
                self.outstanding.remove(&place);
            }
        }
        true
    }
}

impl LatencyScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "LatencyScheduler";

    /// Reads `decay`, which may be left out.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        let wanted = "a duration from 1ms to 1h, such as 10s";
        let decay = match params.has_more() {
            true => params.duration_within("decay", DECAY_MIN, DECAY_MAX, wanted)?,
            false => DECAY,
        };
        Ok(Self { decay, marks: Marks::default(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The cheaper of two candidates; `None`: this node.
    fn chosen<'a>(&self, state: &State, node: NodeView<'a>, rng: &mut dyn Rng) -> Option<&'a Peer> {
        // The place behind the last peer is this node's own.
        let drawn = index::sample(rng, node.peers.len() + 1, 2.min(node.peers.len() + 1));
        let unknown_s = state.smallest_s(node.now, self.decay);
        let candidates = drawn.iter().map(|index| {
            let peer = node.peers.get(index);
            let place = peer.map(|peer| Arc::clone(&peer.host));
            (peer, state.cost(&place, unknown_s, node.now, self.decay))
        });
        candidates.min_by(|one, other| one.1.total_cmp(&other.1)).and_then(|(peer, _)| peer)
    }
}

impl Policy for LatencyScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![duration_text(self.decay)]
    }

    fn may_forward(&self, task: &Task) -> bool {
        !task.from_peer
    }

    fn mark(&self, _: &Task, _: Duration) -> u64 {
        self.marks.next()
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        if task.from_peer {
            return Step::run_here();
        }
        let mut state = self.state();
        // Peers that this call cannot go to are not listed for it, and are no less there.
        if heard.unreachable.is_empty() && state.peers.len() > node.peers.len() {
            state.peers.retain(|host, _| node.peers.iter().any(|peer| peer.host == *host));
        }
        let chosen = self.chosen(&state, node, rng);
        state.goes(heard.mark, chosen.map(|peer| Arc::clone(&peer.host)), node.now);
        chosen.cloned().map_or_else(Step::run_here, Step::forward)
    }

    fn hears_outcomes(&self) -> bool {
        true
    }

    fn outcome(&self, outcome: &Outcome<'_>) {
        let mut state = self.state();
        let was_decided = state.ended(outcome.mark);
        if outcome.kind == OutcomeKind::Gone {
            return;
        }
        let failed = outcome.kind != OutcomeKind::Served;
        // Why a peer's call did not end well, its own node is to judge.
        if failed && !was_decided {
            return;
        }
        let took = if failed { outcome.total.max(self.decay) } else { outcome.total };
        let seen = |before| Recent::seen(before, took, outcome.now, self.decay);
        let Some(host) = outcome.peer else {
            state.own = Some(seen(state.own));
            return;
        };
        let before = state.peers.get(host).copied();
        if before.is_some() || state.peers.len() < PEERS_MAX {
            state.peers.insert(host.into(), seen(before));
        }
    }

    fn memory(&self) -> Option<serde_json::Value> {
        let state = self.state();
        let peers: Map<_, _> = state
            .peers
            .iter()
            .map(|(host, recent)| (host.to_string(), json!(recent.ewma_s)))
            .collect();
        Some(json!({
            "seconds_here": state.own.map(|recent| recent.ewma_s),
            "seconds_by_peer": peers,
            "outstanding": state.under_way.len(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Decision, NodeView};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> LatencyScheduler {
        LatencyScheduler { decay: DECAY, marks: Marks::default(), state: Mutex::default() }
    }

    fn at(peers: &[Peer], now: Duration) -> NodeView<'_> {
        NodeView { now, ..view(0, 0, peers) }
    }

    fn marked(mark: u64) -> Knowledge {
        Knowledge { mark, ..Knowledge::default() }
    }

    /// A call of that mark has ended.
    fn ends(
        policy: &LatencyScheduler,
        mark: u64,
        peer: Option<&str>,
        took: Duration,
        now: Duration,
    ) {
        ends_as(policy, OutcomeKind::Served, mark, peer, took, now);
    }

    fn ends_as(
        policy: &LatencyScheduler,
        kind: OutcomeKind,
        mark: u64,
        peer: Option<&str>,
        took: Duration,
        now: Duration,
    ) {
        let task = client();
        let execution = peer.is_none().then_some(took);
        policy.outcome(&Outcome { task: &task, mark, now, kind, peer, execution, total: took });
    }

    /// To whom a call of that mark goes; `None`: it runs here.
    fn goes(policy: &LatencyScheduler, mark: u64, node: NodeView<'_>, seed: u64) -> Option<Peer> {
        match policy.next(&client(), node, &marked(mark), &mut rng(seed)) {
            Step::Decide(Decision::Forward(peer)) => Some(peer),
            Step::Decide(Decision::RunHere { may_wait: true }) => None,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_with_the_decay() {
        let seen = |of, took_s, now_s| {
            let took = Duration::from_secs_f64(took_s);
            Recent::seen(of, took, Duration::from_secs_f64(now_s), DECAY)
        };
        let first = seen(None, 0.1, 0.0);
        let peak = seen(Some(first), 2.0, 1.0);
        assert_eq!((first.ewma_s, peak.ewma_s), (0.1, 2.0));
        for (took_s, now_s, known) in [
            (0.0, 11.0, 2.0 * (-1.0_f64).exp()),
            (1.0, 11.0, 1.0 + (-1.0_f64).exp()),
            (1.0, 1.0, 2.0),
            (1.0, 1e6, 1.0),
        ] {
            let ewma_s = seen(Some(peak), took_s, now_s).ewma_s;
            assert!((ewma_s - known).abs() < 1e-9, "{ewma_s} against {known}");
        }
        assert!((peak.weight(Duration::from_secs(21), DECAY) - (-2.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn the_faster_of_two_gets_the_call_until_it_has_enough_to_do() {
        let (policy, peers) = (policy(), peers(1));
        ends(&policy, 900, None, SECOND * 3, SECOND);
        ends(&policy, 901, Some(&peers[0].host), SECOND, SECOND);
        // 1, 2 against 3; at 3 against 3 it is a matter of the draw, at 4 against 3 it runs here.
        assert_eq!(goes(&policy, 1, at(&peers, SECOND), 1), Some(peers[0].clone()));
        assert_eq!(goes(&policy, 2, at(&peers, SECOND), 2), Some(peers[0].clone()));
        policy.state().goes(3, Some(peers[0].host.clone()), SECOND);
        assert_eq!(goes(&policy, 4, at(&peers, SECOND), 4), None);
        ends(&policy, 4, None, SECOND * 3, SECOND);
        for mark in 1..=3 {
            ends(&policy, mark, Some(&peers[0].host), SECOND, SECOND);
        }
        assert!(policy.state().under_way.is_empty() && policy.state().outstanding.is_empty());
        assert_eq!(goes(&policy, 5, at(&peers, SECOND), 5), Some(peers[0].clone()));
    }

    #[test]
    fn who_does_not_answer_at_all_gets_slower_and_not_faster() {
        let (policy, peers) = (policy(), peers(1));
        ends(&policy, 900, None, SECOND, SECOND);
        ends(&policy, 901, Some(&peers[0].host), SECOND / 10, SECOND);
        policy.state().goes(1, Some(peers[0].host.clone()), SECOND);
        for (mark, seconds) in [(2, 3), (3, 60), (4, 600)] {
            let node = at(&peers, SECOND * seconds);
            assert_eq!(goes(&policy, mark, node, mark), None, "after {seconds} s");
            ends(&policy, mark, None, SECOND, SECOND * seconds);
        }
    }

    #[test]
    fn a_call_that_is_decided_anew_is_counted_once_where_it_went_at_last() {
        let (policy, peers) = (policy(), peers(1));
        policy.state().goes(7, Some(peers[0].host.clone()), SECOND);
        let heard = Knowledge { unreachable: vec![peers[0].host.clone()], ..marked(7) };
        let step = policy.next(&client(), at(&[], SECOND), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
        assert_eq!(policy.state().under_way, BTreeMap::from([(7, (None, SECOND))]));
        assert_eq!(policy.state().outstanding, BTreeMap::from([(None, BTreeSet::from([7]))]));
        ends(&policy, 7, None, SECOND, SECOND);
        ends(&policy, 7, None, SECOND, SECOND);
        assert!(policy.state().under_way.is_empty() && policy.state().outstanding.is_empty());
    }

    #[test]
    fn whoever_is_unknown_or_was_not_heard_of_for_long_is_tried() {
        let (policy, peers) = (policy(), peers(2));
        ends(&policy, 900, None, SECOND * 3, SECOND);
        ends(&policy, 901, Some(&peers[0].host), SECOND, SECOND);
        let to = |now| {
            (0..60)
                .filter_map(|seed| {
                    let peer = goes(&policy, 1, at(&peers, now), seed);
                    ends(&policy, 1, None, SECOND * 3, now);
                    peer
                })
                .collect::<std::collections::HashSet<_>>()
        };
        assert!(to(SECOND).contains(&peers[1]), "as cheap as the cheapest");
        ends(&policy, 902, Some(&peers[1].host), SECOND * 20, SECOND);
        assert!(!to(SECOND).contains(&peers[1]));
        assert!(to(SECOND * 60).contains(&peers[1]));
    }

    #[test]
    fn failures_are_no_fast_answers_and_peers_calls_are_not_judged_here() {
        let (policy, peers) = (policy(), peers(1));
        ends(&policy, 900, None, SECOND, SECOND);
        for kind in [OutcomeKind::Failed, OutcomeKind::Lost, OutcomeKind::Full] {
            policy.state().goes(1, Some(peers[0].host.clone()), SECOND);
            ends_as(&policy, kind, 1, Some(&peers[0].host), Duration::ZERO, SECOND);
            assert_eq!(policy.state().peers[&peers[0].host].ewma_s, 10.0);
            assert_eq!(goes(&policy, 2, at(&peers, SECOND), 1), None);
            ends(&policy, 2, None, SECOND, SECOND);
        }
        ends_as(&policy, OutcomeKind::Lost, 777, None, Duration::ZERO, SECOND);
        assert_eq!(policy.state().own.map(|own| own.ewma_s), Some(1.0));
    }

    #[test]
    fn peers_that_are_gone_are_forgotten_and_calls_under_way_are_bounded() {
        let (policy, peers) = (policy(), peers(3));
        for host in ["10.9.9.1", "10.9.9.2", "10.9.9.3", "10.0.0.1"] {
            ends(&policy, 900, Some(host), SECOND, SECOND);
        }
        for mark in 0..5000 {
            policy.state().goes(mark, None, SECOND);
        }
        assert_eq!(policy.state().under_way.len(), UNDER_WAY_MAX);
        goes(&policy, 5000, at(&peers, SECOND), 1);
        assert_eq!(
            policy.state().peers.keys().map(|host| &**host).collect::<Vec<_>>(),
            ["10.0.0.1"]
        );
        assert!(policy.mark(&client(), SECOND) != policy.mark(&client(), SECOND));
    }

    #[test]
    fn a_peers_call_runs_here_and_alone_it_runs_all() {
        let (policy, peers) = (policy(), peers(3));
        let step = policy.next(&from_peer(1), at(&peers, SECOND), &marked(1), &mut rng(1));
        assert_eq!((step, policy.may_forward(&from_peer(1))), (Step::run_here(), false));
        assert_eq!(goes(&policy, 2, at(&[], SECOND), 1), None);
    }
}
