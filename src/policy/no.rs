//! `NoScheduler loss`: every call runs here; the baseline of every comparison.
//!
//! With *loss* a call is refused when no slot is free (an M/M/K/K loss system), whatever the
//! queue's settings; without it the queue decides (M/M/K/(K+Q)).

use rand::Rng;

use super::params::{BadParameters, Params};
use super::{Decision, Knowledge, NodeView, Policy, Step, Task};

/// See the module.
#[derive(Debug)]
pub struct NoScheduler {
    /// Refuse when no slot is free instead of waiting.
    pub loss: bool,
}

impl NoScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "NoScheduler";

    /// Reads `loss`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self { loss: params.bool("loss")? })
    }

    fn decision(&self) -> Decision {
        Decision::RunHere { may_wait: !self.loss }
    }
}

impl Policy for NoScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        vec![self.loss.to_string()]
    }

    fn next(&self, _: &Task, _: NodeView<'_>, _: &Knowledge, _: &mut dyn Rng) -> Step {
        Step::Decide(self.decision())
    }

    fn always(&self) -> Option<Decision> {
        Some(self.decision())
    }

    /// v1 shows this one without its parameter.
    fn full_name(&self) -> String {
        Self::NAME.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn everything_runs_here_and_only_loss_forbids_waiting() {
        for loss in [true, false] {
            let policy = NoScheduler { loss };
            let peers = peers(3);
            for task in [client(), from_peer(2)] {
                let step =
                    policy.next(&task, view(9, 9, &peers), &Knowledge::default(), &mut rng(1));
                assert_eq!(step, Step::Decide(Decision::RunHere { may_wait: !loss }));
                assert_eq!(policy.always().map(Step::Decide), Some(step));
            }
            assert_eq!(policy.full_name(), "NoScheduler");
        }
    }
}
