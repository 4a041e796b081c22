//! What became of a request.

/// What the node's learner decided on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecisionShown {
    /// The decision's number.
    pub eid: u64,
    /// The state, as the node wrote it.
    pub state: String,
    /// The action.
    pub action: f64,
    /// The ε used.
    pub eps: f64,
    /// The reward, if somebody outside the node gave one.
    pub reward: Option<f64>,
}

/// Seconds that an answer tells, one per node that the call passed, the entry node first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobTimes {
    /// Arrival to completion.
    pub total: Vec<f64>,
    /// Arrival to the decision.
    pub scheduling: Vec<f64>,
    /// Asking peers.
    pub probing: Vec<f64>,
}

/// A request and its answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// The node that it was sent to, from 0.
    pub node: u32,
    /// Its number at that node.
    pub request: u64,
    /// Its task type.
    pub task_type: u32,
    /// Which payload, from 0.
    pub payload: usize,
    /// The node's rate when it was sent, in requests per second.
    pub rate: f64,
    /// Seconds from the planned time to the whole answer, or to the failure.
    pub total_s: f64,
    /// Seconds from the planned time to the answer's beginning; `None`: there was none.
    pub first_byte_s: Option<f64>,
    /// Seconds that the function ran, by the node's word.
    pub execution_s: Option<f64>,
    /// The status; 0 without an answer.
    pub status: u16,
    /// The code in an error's body; 0 for none.
    pub error_code: u32,
    /// Why there was no answer.
    pub net_error: Option<String>,
    /// Whether another node ran it.
    pub external: bool,
    /// The planned time, in Unix seconds.
    pub start: f64,
    /// Further times.
    pub timings: JobTimes,
    /// Addresses of the nodes passed, the entry node first; empty when it ran there.
    pub peers_ip: Vec<String>,
    /// Their ids.
    pub peers_id: Vec<String>,
    /// The learner's decision.
    pub learnt: Option<DecisionShown>,
}

impl Job {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        let JobTimes { total, scheduling, probing } = &self.timings;
        let times: usize =
            [total, scheduling, probing].iter().map(|times| size_of_val(&***times)).sum();
        let name = |text: &String| size_of::<String>() + text.len();
        let names: usize = self.peers_ip.iter().chain(&self.peers_id).map(name).sum();
        let texts = self.net_error.as_ref().map_or(0, String::len)
            + self.learnt.as_ref().map_or(0, |learnt| learnt.state.len());
        (size_of::<Self>() + times + names + texts) as u64
    }
}
