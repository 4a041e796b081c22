//! `PowerOfNSchedulerTau F T loss max_hops tau`: power-of-n choices with stale loads.
//!
//! As [`PowerOfNScheduler`], but a call that made the node probe is carried out no sooner than
//! tau after its arrival, which emulates a network in which a load is tau old when it is used.
//! The node's own load counts running calls only; below the threshold a call runs at once.
//!
//! Source: Beraldi, Canali, Lancellotti, Proietti Mattia, *On the impact of stale information on
//! distributed online load balancing protocols for edge computing*, Computer Networks, 2022, 108935;
//! tau is what is called schedule lag there.

use std::time::Duration;

use rand::Rng;

use super::params::{BadParameters, Params, duration_text};
use super::power_of_n::{PowerOfNScheduler, least_loaded};
use super::{Knowledge, NodeView, Policy, Step, Task};

/// See the module.
#[derive(Debug)]
pub struct PowerOfNSchedulerTau {
    /// F, T, loss and max hops.
    pub choices: PowerOfNScheduler,
    /// The least time from arrival to a decision that was made with probes.
    pub tau: Duration,
}

impl PowerOfNSchedulerTau {
    /// The name in configurations.
    pub const NAME: &'static str = "PowerOfNSchedulerTau";

    /// Reads `F T loss max_hops tau`.
    pub fn parse(params: &mut Params<'_>) -> Result<Self, BadParameters> {
        Ok(Self { choices: PowerOfNScheduler::parse(params)?, tau: params.duration("tau")? })
    }
}

impl Policy for PowerOfNSchedulerTau {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn parameters(&self) -> Vec<String> {
        let mut shown = self.choices.shown();
        shown.push(duration_text(self.tau));
        shown
    }

    fn next(&self, task: &Task, node: NodeView<'_>, heard: &Knowledge, rng: &mut dyn Rng) -> Step {
        let load = node.load.running;
        let Some(probes) = &heard.probes else {
            return self
                .choices
                .to_probe(task, load, node.peers, rng)
                .map_or_else(Step::run_here, Step::Probe);
        };
        if heard.elapsed < self.tau {
            return Step::WaitUntil(self.tau);
        }
        least_loaded(probes, load, heard, rng).map_or_else(Step::run_here, Step::forward)
    }

    fn may_forward(&self, task: &Task) -> bool {
        self.choices.may_forward(task)
    }

    fn warning(&self) -> Option<String> {
        self.choices.warning()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn policy() -> PowerOfNSchedulerTau {
        let choices = PowerOfNScheduler { fan_out: 1, threshold: 2, loss: true, max_hops: 1 };
        PowerOfNSchedulerTau { choices, tau: Duration::from_millis(100) }
    }

    #[test]
    fn only_running_calls_count_against_the_threshold() {
        let peers = peers(1);
        let heard = Knowledge::default();
        let step = policy().next(&client(), view(1, 9, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here());
        let step = policy().next(&client(), view(2, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::Probe(peers));
    }

    #[test]
    fn a_probed_call_is_decided_no_sooner_than_tau_after_its_arrival() {
        let peers = peers(1);
        let mut heard = probed(&[(&peers[0], 0, 0)]);
        heard.elapsed = Duration::from_millis(99);
        let step = policy().next(&client(), view(2, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::WaitUntil(Duration::from_millis(100)));
        heard.elapsed = Duration::from_millis(100);
        let step = policy().next(&client(), view(2, 0, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::forward(peers[0].clone()));
    }

    #[test]
    fn tau_also_delays_a_call_that_then_runs_here() {
        let peers = peers(1);
        let heard = probed(&[(&peers[0], 2, 0)]);
        let step = policy().next(&client(), view(2, 5, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::WaitUntil(Duration::from_millis(100)));
        let heard = Knowledge { elapsed: Duration::from_secs(1), ..heard };
        let step = policy().next(&client(), view(2, 5, &peers), &heard, &mut rng(1));
        assert_eq!(step, Step::run_here(), "the peer runs as much as we do");
    }

    #[test]
    fn its_full_name_ends_with_tau() {
        assert_eq!(policy().full_name(), "PowerOfNSchedulerTau(1, 2, true, 1, 100ms)");
    }
}
