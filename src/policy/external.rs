//! `ExternalScheduler ws://HOST:PORT/PATH [timeout]`: a program outside decides, in whatever language.
//!
//! ```text
//! next(task, node, heard) → Consult(outcomes since, then the call)
//! answer → run | run_now | reject | forward HOST → that
//!          probe HOST, …                         → Probe, then Consult again with the answers
//!          none in time, or none that is a step  → run here
//! ```
//!
//! The rule is the program's own. Source of the exchange: the agent and environment of reinforcement learning
//! (R. S. Sutton, A. G. Barto, *Reinforcement Learning*, 2nd ed., section 3.1), where the call with what is
//! known of it is the state, the step the action, and the outcome what the reward is made of. The frames stand
//! in [`frames`].
//!
//! Outcomes wait here for the next question, which takes them along, and carriers ask for them
//! ([`Policy::tells`]) where none comes. A program that is gone costs a call its time-out at most, and the call
//! runs here.

pub mod frames;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;

use self::frames::{BadAdvice, StepSaid};
use super::params::{BadParameters, Params, duration_text};
use super::{Decision, Knowledge, MARK_BITS, Marks, NodeView, Outcome, Policy, Step, Task};
use crate::lock;
use crate::types::Peer;

/// How long an answer may take where nobody says otherwise.
const PATIENCE: Duration = Duration::from_millis(100);
const PATIENCE_MIN: Duration = Duration::from_millis(1);
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// Characters of a URL.
const URL_BYTES_MAX: usize = 253;
/// Peers of a frame, and peers that are probed for one call.
pub const PEERS_MAX: usize = 256;
/// Rounds of probing for one call.
const ROUNDS_MAX: u32 = 4;
/// Outcomes that wait; beyond it the oldest goes.
const OUTCOMES_MAX: usize = 1024;
/// Outcomes that one question takes along.
const TAKEN_ALONG_MAX: usize = 256;
/// Task types whose load the program is told.
const TASK_TYPES: usize = 16;

/// What a policy says to a program outside, and what it asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Consultation {
    /// Where the program is.
    pub url: Arc<str>,
    /// How long its answer may take.
    pub patience: Duration,
    /// What it is told: outcomes, and last the question if there is one.
    pub frames: Vec<String>,
    /// Outcomes that it is never told, since the last time.
    pub dropped: u64,
    /// `None`: nothing is asked.
    question: Option<Asked>,
}

/// What was asked, as far as the answer must fit it.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    id: u64,
    peers: Vec<Peer>,
    /// Peers that may still be probed.
    probes_left: usize,
    known: (u32, usize),
}

/// What a program has said of a call, as a step that can be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Advised {
    step: Step,
    /// What was known when it was asked: rounds of probes, and peers that could not be connected to.
    known: (u32, usize),
}

fn known(heard: &Knowledge) -> (u32, usize) {
    (heard.rounds, heard.unreachable.len())
}

impl Consultation {
    /// Whether an answer is wanted.
    pub fn asks(&self) -> bool {
        self.question.is_some()
    }

    /// What the program's answer means; `None`: there was none in time.
    ///
    /// # Errors
    /// It is no step that can be taken.
    pub fn read(&self, said: Option<&[u8]>) -> Result<Advised, BadAdvice> {
        let (Some(said), Some(asked)) = (said, &self.question) else {
            return Err(BadAdvice::Silent);
        };
        let step = match frames::read_answer(said, asked.id)? {
            StepSaid::Run => Step::run_here(),
            StepSaid::RunNow => Step::Decide(Decision::RunHere { may_wait: false }),
            StepSaid::Reject => Step::Decide(Decision::Reject),
            StepSaid::Forward(host) => Step::forward(asked.peer(&host)?),
            StepSaid::Probe(hosts) => Step::Probe(asked.peers_to_probe(&hosts)?),
        };
        Ok(Advised { step, known: asked.known })
    }

    /// What stands in for an answer that is none: run here.
    pub fn fallback(&self) -> Advised {
        let known = self.question.as_ref().map_or((0, 0), |asked| asked.known);
        Advised { step: Step::run_here(), known }
    }
}

impl Asked {
    fn peer(&self, host: &str) -> Result<Peer, BadAdvice> {
        let found = self.peers.iter().find(|peer| &*peer.host == host).cloned();
        found.ok_or_else(|| BadAdvice::no_such_peer(host))
    }

    /// Each of them once.
    fn peers_to_probe(&self, hosts: &[String]) -> Result<Vec<Peer>, BadAdvice> {
        if hosts.is_empty() || hosts.len() > self.probes_left {
            return Err(BadAdvice::Probes { asked: hosts.len(), left: self.probes_left });
        }
        let mut peers: Vec<Peer> = Vec::with_capacity(hosts.len());
        for host in hosts {
            let peer = self.peer(host)?;
            if peers.iter().all(|other| other.host != peer.host) {
                peers.push(peer);
            }
        }
        Ok(peers)
    }
}

/// Outcomes on their way to the program.
#[derive(Debug, Default)]
struct Outcomes {
    waiting: VecDeque<String>,
    dropped: u64,
}

/// See the module.
#[derive(Debug)]
pub struct ExternalScheduler {
    url: Arc<str>,
    patience: Duration,
    marks: Marks,
    outcomes: Mutex<Outcomes>,
}

impl ExternalScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "ExternalScheduler";

    /// Reads `URL [timeout]`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        let what = "URL";
        let url = params.text(what)?;
        check_url(url).map_err(|wanted| params.wrong(what, url, wanted))?;
        let wanted = "a duration from 1ms to 10s, such as 100ms";
        let patience = match params.has_more() {
            true => params.duration_within("timeout", PATIENCE_MIN, PATIENCE_MAX, wanted)?,
            false => PATIENCE,
        };
        let (url, marks, outcomes) = (url.into(), Marks::default(), Mutex::default());
        Ok(Self { url, patience, marks, outcomes })
    }

    /// The outcomes that the next frames take along, and how many there are no more.
    fn taken_along(&self) -> (Vec<String>, u64) {
        let mut outcomes = lock(&self.outcomes);
        let count = outcomes.waiting.len().min(TAKEN_ALONG_MAX);
        let mut frames = Vec::with_capacity(count + 1);
        frames.extend(outcomes.waiting.drain(..count));
        (frames, std::mem::take(&mut outcomes.dropped))
    }

    fn asks(
        &self,
        task: &Task,
        node: NodeView<'_>,
        heard: &Knowledge,
        rng: &mut dyn Rng,
    ) -> Consultation {
        let id = heard.mark & ((1 << MARK_BITS) - 1);
        let peers = shown(node.peers, heard, rng);
        let probes_left = match heard.rounds < ROUNDS_MAX {
            true => PEERS_MAX.saturating_sub(heard.asked.len()),
            false => 0,
        };
        let (mut frames, dropped) = self.taken_along();
        frames.push(frames::call(id, task, node, &peers, heard));
        let question = Some(Asked { id, peers, probes_left, known: known(heard) });
        let (url, patience) = (Arc::clone(&self.url), self.patience);
        Consultation { url, patience, frames, dropped, question }
    }
}

/// The peers of a frame. Where there are too many, those that were probed are among them, and of the others some
/// by chance.
fn shown(peers: &[Peer], heard: &Knowledge, rng: &mut dyn Rng) -> Vec<Peer> {
    if peers.len() <= PEERS_MAX {
        return peers.to_vec();
    }
    let was_asked = |peer: &&Peer| heard.asked.contains(&peer.host);
    let (mut some, others): (Vec<&Peer>, Vec<&Peer>) = peers.iter().partition(was_asked);
    some.truncate(PEERS_MAX);
    some.extend(others.sample(rng, PEERS_MAX - some.len()));
    some.into_iter().cloned().collect()
}

/// Whether a URL can be used, or what it must be.
fn check_url(url: &str) -> Result<(), &'static str> {
    let printable = url.bytes().all(|c| c.is_ascii_graphic());
    if url.len() > URL_BYTES_MAX || !printable {
        return Err("printable ASCII of at most 253 characters");
    }
    let Some(rest) = url.strip_prefix("ws://") else {
        return Err(
            "a URL such as ws://127.0.0.1:9090/, which begins with ws:// (wss is not spoken)",
        );
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    // Answers to clients show the whole of it.
    if authority.contains('@') || url.contains(['#', '|']) {
        return Err("a URL without a user, a password, a fragment and a |");
    }
    let bare = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map(|(host, port)| (host, port.strip_prefix(':'))),
        None => Some(match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match bare {
        Some((host, port)) if !host.is_empty() && port.is_none_or(is_port) => Ok(()),
        _ => Err("a URL with a host and a port, such as ws://127.0.0.1:9090/"),
    }
}

impl Policy for ExternalScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![self.url.to_string(), duration_text(self.patience)]
    }

    fn mark(&self, _: &Task, _: Duration) -> u64 {
        self.marks.next()
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        match &heard.advised {
            Some(advised) if advised.known == known(heard) => advised.step.clone(),
            // What it was told is old, or it was not asked yet.
            _ => Step::Consult(Box::new(self.asks(task, node, heard, rng))),
        }
    }

    fn task_types(&self) -> usize {
        TASK_TYPES
    }

    fn hears_outcomes(&self) -> bool {
        true
    }

    fn outcome(&self, outcome: &Outcome<'_>) {
        let frame = frames::outcome(outcome.mark & ((1 << MARK_BITS) - 1), outcome);
        let mut outcomes = lock(&self.outcomes);
        if outcomes.waiting.len() >= OUTCOMES_MAX {
            outcomes.waiting.pop_front();
            outcomes.dropped += 1;
        }
        outcomes.waiting.push_back(frame);
    }

    fn program(&self) -> Option<&str> {
        Some(&self.url)
    }

    fn tells(&self) -> Option<Consultation> {
        let (frames, dropped) = self.taken_along();
        let (url, patience) = (Arc::clone(&self.url), self.patience);
        let told = Consultation { url, patience, frames, dropped, question: None };
        (dropped > 0 || !told.frames.is_empty()).then_some(told)
    }
}

#[cfg(test)]
mod tests;
