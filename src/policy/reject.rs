//! `RejectScheduler`: rejects every call (code 401). For drills and for taking a node out of work
//! while it stays reachable.

use rand::Rng;

use super::params::{BadParameters, Params};
use super::{Decision, Knowledge, NodeView, Policy, Step, Task};

/// See the module.
#[derive(Debug)]
pub struct RejectScheduler;

impl RejectScheduler {
    /// The name in configurations.
    pub const NAME: &'static str = "RejectScheduler";

    /// Takes no parameters.
    pub fn parse(_: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self)
    }
}

impl Policy for RejectScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        Vec::new()
    }

    fn next(&self, _: &Task, _: NodeView<'_>, _: &Knowledge, _: &mut dyn Rng) -> Step {
        Step::Decide(Decision::Reject)
    }

    fn always(&self) -> Option<Decision> {
        Some(Decision::Reject)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn everything_is_rejected() {
        let step =
            RejectScheduler.next(&client(), view(0, 0, &[]), &Knowledge::default(), &mut rng(1));
        assert_eq!(step, Step::Decide(Decision::Reject));
        assert_eq!(RejectScheduler.always(), Some(Decision::Reject));
        assert_eq!(RejectScheduler.full_name(), "RejectScheduler");
    }
}
