//! The learning client: what came of each decision goes to the learner of the node that took it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::experiment::design::job::{DecisionShown, Job};
use crate::experiment::design::scenario::Deadlines;
use crate::fleet::Api;

/// Batches on their way to one node at most; a learner that takes longer loses entries.
const UNDER_WAY_MAX: usize = 64;

/// How often it is looked whether all batches have come.
const LOOK: Duration = Duration::from_millis(10);

/// Trains all nodes.
pub struct Trainer {
    api: Rc<Api>,
    deadlines: Deadlines,
    batch: usize,
    nodes: Vec<Node>,
    /// Entries taken.
    taken: Cell<u64>,
    /// Of those, entries that their learner took.
    trained: Cell<u64>,
}

struct Node {
    address: IpAddr,
    entries: RefCell<Vec<Value>>,
    under_way: Cell<usize>,
}

/// v1's clients write numbers as texts, but for the reward.
fn entry(learnt: &DecisionShown, reward: f64) -> Value {
    json!({
        "eid": learnt.eid.to_string(),
        "state": learnt.state,
        "action": format!("{:.1}", learnt.action),
        "reward": reward,
    })
}

impl Trainer {
    /// Of the nodes with these addresses, in batches of that many entries.
    pub fn new(api: Rc<Api>, nodes: &[IpAddr], deadlines: Deadlines, batch: usize) -> Self {
        let node = |address: &IpAddr| Node {
            address: *address,
            entries: RefCell::default(),
            under_way: Cell::new(0),
        };
        let nodes = nodes.iter().map(node).collect();
        Self { api, deadlines, batch, nodes, taken: Cell::new(0), trained: Cell::new(0) }
    }

    /// Entries that the learners took, and all others.
    pub fn counts(&self) -> (u64, u64) {
        (self.trained.get(), self.taken.get() - self.trained.get())
    }

    /// Takes what came of a call that a learner decided on, and writes the reward into it.
    pub fn learn(self: &Rc<Self>, job: &mut Job) {
        let Some(node) = self.nodes.get(job.node as usize) else { return };
        let Some(learnt) = job.learnt.as_mut() else { return };
        let met = self.deadlines.met(job.task_type, job.status, job.total_s);
        let reward = f64::from(u8::from(met));
        learnt.reward = Some(reward);
        self.taken.set(self.taken.get() + 1);
        let mut entries = node.entries.borrow_mut();
        entries.push(entry(learnt, reward));
        if entries.len() >= self.batch {
            drop(entries);
            self.send(job.node as usize);
        }
    }

    /// Sends what is there, though no batch is full.
    pub fn flush(self: &Rc<Self>) {
        (0..self.nodes.len()).for_each(|node| self.send(node));
    }

    fn send(self: &Rc<Self>, index: usize) {
        let Some(node) = self.nodes.get(index) else { return };
        let entries = node.entries.take();
        let count = entries.len() as u64;
        if count == 0 {
            return;
        }
        if node.under_way.get() >= UNDER_WAY_MAX {
            return;
        }
        node.under_way.set(node.under_way.get() + 1);
        let this = Rc::clone(self);
        actix_rt::spawn(async move {
            let Some(node) = this.nodes.get(index) else { return };
            // What is not taken is counted as such.
            if this.api.train(node.address, &entries).await.is_ok() {
                this.trained.set(this.trained.get() + count);
            }
            node.under_way.set(node.under_way.get() - 1);
        });
    }

    /// Whether no batch is on its way.
    fn quiet(&self) -> bool {
        self.nodes.iter().all(|node| node.under_way.get() == 0)
    }

    /// Sends what is left, and waits until it has come, at most `limit`.
    pub async fn settle(self: &Rc<Self>, limit: Duration) {
        self.flush();
        let deadline = Instant::now() + limit;
        while !self.quiet() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::FleetAccess;

    fn job(node: u32, eid: u64, total_s: f64) -> Job {
        let learnt = DecisionShown {
            eid,
            state: "0.0,1.0".to_owned(),
            action: 3.0,
            ..DecisionShown::default()
        };
        Job { node, status: 200, total_s, learnt: Some(learnt), ..Job::default() }
    }

    #[actix_rt::test]
    async fn rewards_are_given_by_deadline_and_entries_wait_for_their_batch() {
        let api = Rc::new(Api::new(1, 1, 1, &FleetAccess::default()));
        let address = "127.0.0.1".parse().expect("an address");
        let trainer = Rc::new(Trainer::new(api, &[address], Deadlines(vec![0.1]), 3));
        let (mut early, mut late) = (job(0, 46, 0.05), job(0, 47, 0.2));
        trainer.learn(&mut early);
        trainer.learn(&mut late);
        let reward = |job: &Job| job.learnt.as_ref().and_then(|learnt| learnt.reward);
        assert_eq!((reward(&early), reward(&late)), (Some(1.0), Some(0.0)));
        trainer.learn(&mut Job::default());
        let entries = trainer.nodes[0].entries.borrow().clone();
        assert_eq!(
            entries,
            [
                json!({"eid": "46", "state": "0.0,1.0", "action": "3.0", "reward": 1.0}),
                json!({"eid": "47", "state": "0.0,1.0", "action": "3.0", "reward": 0.0}),
            ]
        );
        // The third fills the batch; nobody listens there.
        trainer.learn(&mut job(0, 48, 0.05));
        assert!(trainer.nodes[0].entries.borrow().is_empty() && !trainer.quiet());
        trainer.settle(Duration::from_secs(20)).await;
        assert!(trainer.quiet());
        assert_eq!(trainer.counts(), (0, 3));
    }
}
