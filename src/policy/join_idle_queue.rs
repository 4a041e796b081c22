//! `JoinIdleQueueScheduler choices`: idle nodes say so, and nobody is asked when a call comes.
//!
//! A node that becomes idle enlists at one peer by a short note. A node that schedules a client's call hands it to
//! one that is enlisted with it:
//!
//! ```text
//! a call ended, load = 0, not enlisted    choices = 1: enlist at a random peer
//!                                         choices = d: of d random peers, at the one whose list is the shortest
//! client's call, load = 0                 run here
//! client's call, somebody is enlisted     forward to the first of the list, which is struck out
//! client's call, the list is empty        to this node or one of its peers, all alike, at random
//! a peer's call                           run here; this node is not enlisted any more
//! ```
//!
//! Source: Lu, Xie, Kliot, Geller, Larus, Greenberg, *Join-Idle-Queue: a novel load balancing algorithm for
//! dynamically scalable web services*, Performance Evaluation 68(11), 2011: JIQ-Random is `choices` 1, JIQ-SQ(2) is
//! `choices` 2.
//!
//! Two things differ, as there each dispatcher has a list and each processor has none, and here nodes are both. A node
//! that is idle keeps its own clients' calls, though it stays in the list of a peer, which may hand it a call while
//! it is busy. And lists' lengths are not asked for: each note says how long its sender's own list is, a peer of which
//! nothing was heard counts as having an empty one, and of equals the one at which this node enlisted less recently is
//! taken. (Simulated with 20 nodes, that is no better than a random one.) Notes can be lost: whoever was not handed a
//! call for a minute may enlist again, and is struck out by then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::json;

use super::params::{BadParameters, Params};
use super::{Knowledge, NodeView, Note, Peer, Policy, Step, Task};
use crate::lock;

/// Peers among which the one to enlist at is chosen, at most.
const CHOICES_MAX: usize = 16;
/// Idle peers that are remembered; of more, those that have waited longest are forgotten.
const LISTED_MAX: usize = 256;
/// Peers of which the length of their list is remembered.
const KNOWN_MAX: usize = 1024;
/// How long an enlistment holds.
const LEASE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct JoinIdleQueueScheduler {
    /// Random peers of which the one with the shortest list is enlisted at; at least 1.
    pub choices: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who is idle, and since when; at most [`LISTED_MAX`].
    idle: VecDeque<(Arc<str>, Duration)>,
    /// Where this node is enlisted, and since when.
    enlisted: Option<(Arc<str>, Duration)>,
    /// At most [`KNOWN_MAX`].
    known: BTreeMap<Arc<str>, Known>,
    /// How often this node enlisted.
    enlistments: u64,
}

/// What is known of a peer's list. The smaller is enlisted at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    length: u8,
    /// When this node last enlisted there.
    enlisted: Option<Duration>,
}

impl State {
    /// Strikes out the first that is idle and among `peers`, and all that are gone. Those that this call alone cannot go
    /// to stay.
    fn pop(&mut self, peers: &[Peer], heard: &Knowledge, now: Duration) -> Option<Peer> {
        let find = |host: &Arc<str>| peers.iter().find(|peer| peer.host == *host);
        self.idle.retain(|(host, since)| {
            now.saturating_sub(*since) < LEASE && (heard.failed(host) || find(host).is_some())
        });
        let first = self.idle.iter().position(|(host, _)| find(host).is_some())?;
        let (host, _) = self.idle.remove(first)?;
        find(&host).cloned()
    }

    /// Whether this node is in the list of one of these peers.
    fn is_enlisted(&self, peers: &[Peer], now: Duration) -> bool {
        self.enlisted.as_ref().is_some_and(|(host, since)| {
            now.saturating_sub(*since) < LEASE && peers.iter().any(|peer| peer.host == *host)
        })
    }

    /// What is known of the list of the peer at `host`.
    fn of(&mut self, host: &Arc<str>) -> Option<&mut Known> {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(host) {
            return None;
        }
        Some(self.known.entry(Arc::clone(host)).or_default())
    }
}

impl JoinIdleQueueScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "JoinIdleQueueScheduler";

    /// Reads `choices`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        let wanted = "an integer from 1 to 16";
        let choices = params.up_to("choices", CHOICES_MAX, wanted)?;
        if choices == 0 {
            return Err(params.wrong("choices", "0", wanted));
        }
        Ok(Self { choices, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Policy for JoinIdleQueueScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![self.choices.to_string()]
    }

    fn may_forward(&self, task: &Task) -> bool {
        !task.from_peer
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        if task.from_peer {
            self.state().enlisted = None;
            return Step::run_here();
        }
        if node.load.total() == 0 {
            return Step::run_here();
        }
        if let Some(peer) = self.state().pop(node.peers, heard, node.now) {
            return Step::forward(peer);
        }
        // The place behind the last peer is this node's own.
        let place = rng.random_range(0..=node.peers.len());
        node.peers.get(place).cloned().map_or_else(Step::run_here, Step::forward)
    }

    fn notices_idle(&self) -> bool {
        true
    }

    fn on_idle(&self, node: NodeView<'_>, rng: &mut dyn Rng) -> Option<Note> {
        let mut state = self.state();
        if node.load.total() > 0 || state.is_enlisted(node.peers, node.now) {
            return None;
        }
        if state.known.len() > node.peers.len() {
            state.known.retain(|host, _| node.peers.iter().any(|peer| peer.host == *host));
        }
        let known = |peer: &&Peer| state.known.get(&peer.host).copied().unwrap_or_default();
        // Others do not hear notes: nodes of v1, and those of which nothing is known yet.
        let hear: Vec<&Peer> = node.peers.iter().filter(|peer| peer.streams).collect();
        let to = hear.sample(rng, self.choices).copied().min_by_key(known)?.clone();
        if let Some(known) = state.of(&to.host) {
            known.enlisted = Some(node.now);
        }
        state.enlisted = Some((Arc::clone(&to.host), node.now));
        state.enlistments += 1;
        let length = u8::try_from(state.idle.len()).unwrap_or(u8::MAX);
        Some(Note { to, text: vec![length] })
    }

    fn noted(&self, from: &str, text: &[u8], now: Duration) {
        let mut state = self.state();
        let host: Arc<str> = from.into();
        state.idle.retain(|(idle, _)| *idle != host);
        if state.idle.len() >= LISTED_MAX {
            state.idle.pop_front();
        }
        if let (Some(length), Some(known)) = (text.first(), state.of(&host)) {
            known.length = *length;
        }
        state.idle.push_back((host, now));
    }

    fn memory(&self) -> Option<serde_json::Value> {
        let state = self.state();
        Some(json!({
            "idle_peers": state.idle.iter().map(|(host, _)| &**host).collect::<Vec<_>>(),
            "enlisted_at": state.enlisted.as_ref().map(|(host, _)| &**host),
            "enlistments": state.enlistments,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Decision, Load};
    use super::*;
    use std::collections::HashSet;

    fn policy(choices: usize) -> JoinIdleQueueScheduler {
        JoinIdleQueueScheduler { choices, state: Mutex::default() }
    }

    fn idle(peers: &[Peer], now_s: u64) -> NodeView<'_> {
        NodeView { now: Duration::from_secs(now_s), ..view(0, 0, peers) }
    }

    fn next(policy: &JoinIdleQueueScheduler, task: &Task, node: NodeView<'_>, seed: u64) -> Step {
        policy.next(task, node, &Knowledge::default(), &mut rng(seed))
    }

    #[test]
    fn a_node_that_is_idle_itself_runs_its_clients_calls() {
        let (policy, peers) = (policy(1), peers(3));
        policy.noted(&peers[0].host, &[0], Duration::ZERO);
        assert_eq!(next(&policy, &client(), view(0, 0, &peers), 1), Step::run_here());
    }

    #[test]
    fn idle_peers_get_calls_in_the_order_in_which_they_enlisted_each_once() {
        let (policy, peers) = (policy(1), peers(3));
        for peer in [2, 0, 2] {
            policy.noted(&peers[peer].host, &[0], Duration::ZERO);
        }
        for peer in [0, 2] {
            let step = next(&policy, &client(), view(1, 0, &peers), 1);
            assert_eq!(step, Step::forward(peers[peer].clone()));
        }
        assert!(policy.state().idle.is_empty());
    }

    #[test]
    fn without_an_idle_peer_it_is_any_of_all_nodes_with_nobody_asked() {
        let (policy, peers) = (policy(1), peers(2));
        let steps: Vec<Step> =
            (0..300).map(|seed| next(&policy, &client(), view(1, 0, &peers), seed)).collect();
        let here = steps.iter().filter(|step| **step == Step::run_here()).count();
        let to = |step: &Step| match step {
            Step::Decide(Decision::Forward(peer)) => Some(peer.host.clone()),
            _ => None,
        };
        let to: HashSet<_> = steps.iter().filter_map(to).collect();
        assert!((70..130).contains(&here) && to.len() == 2, "{here} of 300 here");
    }

    #[test]
    fn those_that_are_gone_or_have_waited_too_long_are_struck_out() {
        let (policy, peers) = (policy(1), peers(3));
        policy.noted("10.9.9.9", &[0], LEASE);
        policy.noted(&peers[0].host, &[0], Duration::ZERO);
        policy.noted(&peers[1].host, &[0], LEASE);
        let node = NodeView { now: LEASE, ..view(1, 0, &peers) };
        assert_eq!(next(&policy, &client(), node, 1), Step::forward(peers[1].clone()));
    }

    #[test]
    fn a_peers_call_runs_here_and_asks_nobody() {
        let (policy, peers) = (policy(1), peers(3));
        policy.noted(&peers[0].host, &[0], Duration::ZERO);
        assert_eq!(next(&policy, &from_peer(1), view(3, 2, &peers), 1), Step::run_here());
        assert!(!policy.may_forward(&from_peer(1)));
    }

    #[test]
    fn it_enlists_once_until_it_is_handed_a_call() {
        let (policy, peers) = (policy(1), peers(3));
        let busy = NodeView { load: Load { running: 1, waiting: 0 }, ..idle(&peers, 0) };
        assert_eq!(policy.on_idle(busy, &mut rng(1)), None);
        let note = policy.on_idle(idle(&peers, 0), &mut rng(1)).expect("it is idle");
        assert_eq!(note.text, [0]);
        next(&policy, &client(), idle(&peers, 1), 1);
        assert_eq!(policy.on_idle(idle(&peers, 2), &mut rng(1)), None, "a call of its own");
        next(&policy, &from_peer(1), idle(&peers, 3), 1);
        assert!(policy.on_idle(idle(&peers, 4), &mut rng(1)).is_some());
        assert_eq!(policy.state().enlistments, 2);
    }

    #[test]
    fn it_enlists_again_where_the_peer_is_gone_or_nothing_came_for_long() {
        let (policy, peers) = (policy(1), peers(2));
        let to = policy.on_idle(idle(&peers, 0), &mut rng(1)).expect("it is idle").to;
        let rest: Vec<Peer> = peers.iter().filter(|peer| **peer != to).cloned().collect();
        let again = policy.on_idle(idle(&rest, 1), &mut rng(1)).expect("the first is gone");
        assert_eq!(again.to, rest[0]);
        assert_eq!(policy.on_idle(idle(&peers, 60), &mut rng(1)), None);
        assert!(policy.on_idle(idle(&peers, 61), &mut rng(1)).is_some());
        assert_eq!(policy.on_idle(idle(&[], 200), &mut rng(1)), None, "nobody is there");
    }

    #[test]
    fn of_several_choices_the_shortest_list_is_taken_then_the_one_least_recently_enlisted_at() {
        let (policy, peers) = (policy(3), peers(3));
        for (peer, length) in peers.iter().zip([2, 1, 1]) {
            policy.noted(&peer.host, &[length], Duration::ZERO);
        }
        let mut to = Vec::new();
        for second in 0..4 {
            let note = policy.on_idle(idle(&peers, second), &mut rng(second)).expect("it is idle");
            assert_eq!(note.text, [3], "its own list");
            to.push(note.to);
            next(&policy, &from_peer(1), idle(&peers, second), 1);
        }
        assert!(to[0] != to[1] && to[0] == to[2] && to[1] == to[3] && !to.contains(&peers[0]));
    }

    #[test]
    fn what_it_remembers_is_bounded_and_strange_notes_do_no_harm() {
        let (policy, peers) = (policy(2), peers(2));
        for number in 0..3000 {
            policy.noted(&format!("host-{number}"), &[9; 3], Duration::ZERO);
        }
        policy.noted(&peers[0].host, &[], Duration::ZERO);
        let sizes = |state: &State| (state.idle.len(), state.known.len());
        assert_eq!(sizes(&policy.state()), (LISTED_MAX, KNOWN_MAX));
        policy.on_idle(idle(&peers, 1), &mut rng(1)).expect("it is idle");
        assert!(policy.state().known.len() <= peers.len());
        let step = next(&policy, &client(), view(1, 0, &peers), 1);
        assert_eq!(step, Step::forward(peers[0].clone()));
    }
}
