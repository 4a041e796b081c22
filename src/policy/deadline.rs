//! `DeadlineScheduler F rounds`: a call is taken where its deadline can still be met, and nowhere else.
//!
//! The node measures how long functions of each task type take alone, and how much slower they are the more
//! of them run (`deadline/board.rs`); nobody tells it how many cores there are. With that it foretells when all calls
//! that it has would end, with and without one more:
//!
//! ```text
//! spare(c) = deadline of c − time at which c would end here
//! harm(c)  = calls here that would be in time without c and would not be with it
//!
//! fewer calls here than cores, spare ≥ 0, harm = 0     run here
//! else, for round 1 … rounds                           ask F new peers; it goes where most is to spare, here
//!                                                      or there, if that is ≥ 0 and there is no harm
//! else                                                 reject now, rather than be late later
//! ```
//!
//! A probe is answered with what the peer itself foretells ([`Policy::bid`]: `spare`, or nothing where there is
//! harm). Calls that wait for a slot stand in the order of their deadlines (Liu, Layland, *Scheduling algorithms
//! for multiprogramming in a hard-real-time environment*, JACM 20(1), 1973). Calls without a deadline are always
//! in time: they go where they end first, and are never rejected here.
//!
//! Source: admission by response times that are foretold and not by load is that of real-time systems (Ramamritham,
//! Stankovic, Zhao, *Distributed scheduling of tasks with deadlines and resource requirements*, IEEE TC 38(8), 1989,
//! with bidding between nodes); that the board shares its cores equally among what runs is processor sharing.

mod board;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rand::Rng;

use self::board::BoardModel;
use super::cap::{new_peers, rounds};
use super::params::{BadParameters, Params};
use super::{
    Decision, Knowledge, LineOrder, Marks, MemoryFigure, NodeView, Outcome, Policy, Probe, Step,
    Task,
};
use crate::lock;

/// See the module.
pub struct DeadlineScheduler {
    /// F: peers asked at once.
    pub fan_out: u32,
    /// How often peers are asked at most.
    pub rounds: u32,
    marks: Marks,
    board: Mutex<BoardModel>,
}

/// What would become of one more call here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prospect {
    /// When it would end, from now, in seconds.
    pub(super) ends_s: f64,
    /// Calls that would be late because of it.
    pub(super) harm: usize,
    /// Whether it would have a core of its own at once.
    pub(super) is_unhindered: bool,
}

impl Prospect {
    /// What would be left of its deadline, in seconds; `None`: others would be harmed.
    fn spare(&self, deadline: Option<Duration>) -> Option<f64> {
        let left = deadline.map_or(0.0, |deadline| deadline.as_secs_f64());
        (self.harm == 0).then_some(left - self.ends_s)
    }
}

impl DeadlineScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "DeadlineScheduler";

    /// Reads `F rounds`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self {
            fan_out: params.u32("fan-out F")?,
            rounds: rounds(params)?,
            marks: Marks::default(),
            board: Mutex::default(),
        })
    }

    fn board(&self) -> MutexGuard<'_, BoardModel> {
        lock(&self.board)
    }
}

/// The call runs here. `board` is the one that was asked what becomes of it: nobody else was let in meanwhile.
fn run_here(board: &mut BoardModel, task: &Task, node: NodeView<'_>, heard: &Knowledge) -> Step {
    board.admits(heard.mark, task, node.now, left(task, heard), node.k);
    Step::run_here()
}

/// What is left of a call's deadline.
fn left(task: &Task, heard: &Knowledge) -> Option<Duration> {
    task.deadline.map(|deadline| deadline.saturating_sub(heard.elapsed))
}

/// The answer with the largest bid. Peers bid for the whole deadline, of which some has passed meanwhile; and nobody
/// has more to spare than all of it.
fn best<'a>(task: &Task, heard: &'a Knowledge) -> Option<(&'a Probe, f64)> {
    let whole = task.deadline.map_or(0.0, |deadline| deadline.as_secs_f64());
    let passed = task.deadline.map_or(0.0, |_| heard.elapsed.as_secs_f64());
    let bid = |probe: &'a Probe| {
        let bid = probe.bid.filter(|bid| *bid <= whole)?;
        Some((probe, bid - passed))
    };
    let usable = heard.probes.iter().flatten().filter(|probe| !heard.failed(&probe.peer.host));
    usable.filter_map(bid).max_by(|one, other| one.1.total_cmp(&other.1))
}

impl Policy for DeadlineScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        [self.fan_out, self.rounds].map(|number| number.to_string()).to_vec()
    }

    fn may_forward(&self, task: &Task) -> bool {
        !task.from_peer
    }

    fn mark(&self, _: &Task, _: Duration) -> u64 {
        self.marks.next()
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        let left = left(task, heard);
        let mut board = self.board();
        let prospect = board.prospect(task, node, left, Some(heard.mark));
        // Without a deadline nothing is late: then it goes where it ends first.
        let good = |spare: f64| left.is_none() || spare >= 0.0;
        let here = prospect.spare(left).filter(|spare| good(*spare));
        if here.is_some() && (prospect.is_unhindered || task.from_peer) {
            return run_here(&mut board, task, node, heard);
        }
        let there = best(task, heard).filter(|(_, spare)| good(*spare));
        match (here, there) {
            (Some(here), Some((_, spare))) if here >= spare => {
                return run_here(&mut board, task, node, heard);
            }
            (_, Some((probe, _))) => return Step::forward(probe.peer.clone()),
            _ => {}
        }
        // One round is enough to compare with; more are for those that find no place.
        if !task.from_peer && heard.rounds < self.rounds && (here.is_none() || heard.rounds == 0) {
            let drawn = new_peers(node.peers, heard, self.fan_out, rng);
            if !drawn.is_empty() {
                return Step::Probe(drawn);
            }
        }
        match here.is_some() || left.is_none() {
            true => run_here(&mut board, task, node, heard),
            false => Step::Decide(Decision::Reject),
        }
    }

    fn line_order(&self, _: u64) -> LineOrder {
        LineOrder::EarliestDeadline
    }

    fn hears_outcomes(&self) -> bool {
        true
    }

    fn outcome(&self, outcome: &Outcome<'_>) {
        self.board().ended(outcome);
    }

    fn bids(&self) -> bool {
        true
    }

    fn bid(&self, task: &Task, node: NodeView<'_>) -> Option<f64> {
        self.board().prospect(task, node, task.deadline, None).spare(task.deadline)
    }

    fn memory(&self) -> Option<serde_json::Value> {
        Some(self.board().memory())
    }

    fn figures(&self) -> Vec<MemoryFigure> {
        self.board().figures()
    }
}

#[cfg(test)]
mod tests;
