//! `RoundRobinWithMasterScheduler is_master master_ip loss`: the classical central dispatcher, as
//! a baseline. Clients call any node; that node sends the call to the master; the master hands
//! the calls that peers send it to the machines it knows, one after another in the order of the
//! list, and runs none itself while there is one. A client's own call to the master is refused
//! (code 400), as in v1.
//!
//! *loss* is kept and shown but changes nothing: the queue of the node that runs the call decides.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::Rng;

use super::params::{BadParameters, Params};
use super::{Decision, Knowledge, NodeView, Peer, Policy, Step, Task};

/// See the module.
#[derive(Debug)]
pub struct RoundRobinWithMasterScheduler {
    /// Whether this node is the master.
    pub is_master: bool,
    /// The master's address; any text is kept, one that cannot be connected to means run here.
    pub master_ip: String,
    /// Kept and shown only.
    pub loss: bool,
    /// The place in the list that is served next, counted on without end.
    cursor: AtomicUsize,
}

impl RoundRobinWithMasterScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "RoundRobinWithMasterScheduler";

    /// Reads `is_master master_ip loss`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self {
            is_master: params.bool("is master")?,
            master_ip: params.printable("master IP")?,
            loss: params.bool("loss")?,
            cursor: AtomicUsize::new(0),
        })
    }

    fn hand_on(&self, peers: &[Peer]) -> Step {
        if peers.is_empty() {
            return Step::run_here();
        }
        let place = self.cursor.fetch_add(1, Ordering::Relaxed) % peers.len();
        peers.get(place).cloned().map_or_else(Step::run_here, Step::forward)
    }
}

impl Policy for RoundRobinWithMasterScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![self.is_master.to_string(), self.master_ip.clone(), self.loss.to_string()]
    }

    /// The master's turns go through all machines that it knows, the one that sent a call among them.
    fn may_return(&self) -> bool {
        true
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, _: &mut dyn Rng) -> Step {
        match (self.is_master, task.from_peer) {
            (true, true) => self.hand_on(node.peers),
            (true, false) => Step::Decide(Decision::Refuse),
            (false, true) => Step::run_here(),
            (false, false) if heard.failed(&self.master_ip) => Step::run_here(),
            (false, false) => Step::forward(Peer::at(&self.master_ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn policy(is_master: &str) -> RoundRobinWithMasterScheduler {
        let values = [is_master, "10.0.0.9", "true"].map(str::to_owned);
        RoundRobinWithMasterScheduler::parse(&mut Params::new(&values)).expect("good parameters")
    }

    #[test]
    fn the_master_hands_peer_calls_to_its_machines_in_turn() {
        let (policy, peers) = (policy("true"), peers(3));
        for turn in 0..7 {
            let heard = Knowledge::default();
            let step = policy.next(&from_peer(1), view(0, 0, &peers), &heard, &mut rng(1));
            assert_eq!(step, Step::forward(peers[turn % 3].clone()));
        }
    }

    #[test]
    fn the_master_without_machines_runs_peer_calls_itself() {
        let step =
            policy("true").next(&from_peer(1), view(0, 0, &[]), &Knowledge::default(), &mut rng(1));
        assert_eq!(step, Step::run_here());
    }

    #[test]
    fn the_master_refuses_a_clients_own_call() {
        let peers = peers(3);
        let step =
            policy("true").next(&client(), view(0, 0, &peers), &Knowledge::default(), &mut rng(1));
        assert_eq!(step, Step::Decide(Decision::Refuse));
    }

    #[test]
    fn a_non_master_sends_client_calls_to_the_master_and_runs_peer_calls() {
        let (policy, peers) = (policy("false"), peers(3));
        let mut heard = Knowledge::default();
        let step = policy.next(&client(), view(0, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::forward(Peer::at("10.0.0.9")));
        let step = policy.next(&from_peer(2), view(0, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
        heard.unreachable.push("10.0.0.9".into());
        let step = policy.next(&client(), view(0, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here(), "a master that cannot be connected to is no error");
    }
}
