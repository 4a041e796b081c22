//! What a node says of itself to all others. A hint, never the truth: a probe tells what is true now.

use std::sync::Arc;

use serde::Serialize;

/// What a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct NodeDescription {
    /// Its name; may be empty.
    pub name: String,
    /// Its group; may be empty.
    pub group: String,
    /// Its program and version.
    pub software: String,
    /// The peer protocol that it speaks.
    pub protocol: u8,
    /// The port on which it answers other members of its cluster by TLS; `None`: it has no cluster key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<u16>,
    /// The functions that it serves, as far as there was room to say so; `None`: any.
    pub functions: Option<Vec<String>>,
}

/// How busy a node was when it last said so, and how its calls ended. It says so when that has changed by
/// much, and not more often than the size of the cluster allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct RecordLoad {
    /// K: functions that may run at once.
    pub k: u32,
    /// Functions that ran.
    pub running: u32,
    /// Calls that waited.
    pub waiting: u32,
    /// Of the calls that ran there of late, the share that failed: 0 to 100, in steps of 10.
    pub failing_percent: u8,
}

impl RecordLoad {
    /// Whether others should hear of this, having heard `said`: the load has changed by a quarter of K or
    /// more, or the rest by anything.
    pub fn differs_from(&self, said: &Self) -> bool {
        let quarters = |load: &Self| {
            let total = u64::from(load.running) + u64::from(load.waiting);
            (total * 4).div_ceil(u64::from(load.k.max(1))).min(16)
        };
        (self.k, self.failing_percent, quarters(self))
            != (said.k, said.failing_percent, quarters(said))
    }
}

/// Bytes of a short message between the scheduling algorithms of two nodes, at most.
pub const NOTE_BYTES_MAX: usize = 64;
/// Bytes of a [`Saying`] at most.
pub const SAYING_BYTES_MAX: usize = 400;

/// What a node's scheduling algorithm says, in a form of its own; empty: nothing.
pub type Saying = Arc<[u8]>;

/// A node's record: all that it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct NodeRecord {
    /// What it is; `None` while not heard.
    pub about: Option<NodeDescription>,
    /// How busy it was; `None` while not heard.
    pub load: Option<RecordLoad>,
    /// What its scheduling algorithm says to those of the same kind at other nodes.
    #[serde(skip)]
    pub saying: Saying,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_hear_of_a_load_that_has_changed_by_much() {
        let load = |running, waiting| RecordLoad { k: 8, running, waiting, failing_percent: 0 };
        assert!(load(1, 0).differs_from(&load(0, 0)), "idle no more");
        assert!(!load(2, 0).differs_from(&load(1, 0)));
        assert!(load(3, 0).differs_from(&load(2, 0)));
        assert!(!load(8, 40).differs_from(&load(8, 100)), "more than enough is more than enough");
        assert!(RecordLoad { failing_percent: 10, ..load(0, 0) }.differs_from(&load(0, 0)));
        assert!(RecordLoad { k: 0, ..load(0, 0) }.differs_from(&load(0, 0)));
    }
}
