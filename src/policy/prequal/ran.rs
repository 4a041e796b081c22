//! How long calls took here, by how many were in flight when they came.

use std::collections::{BTreeMap, VecDeque};

use crate::policy::{Outcome, OutcomeKind};

/// Calls whose latency is remembered.
const RAN_MAX: usize = 128;
/// Of those, as many as are nearest to the load of now say how long a call takes.
const NEAREST: usize = 15;
/// Calls under way that are known; of more, the oldest are forgotten.
const UNDER_WAY_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// What each call found, and how long it took; the oldest first, at most [`RAN_MAX`].
    latencies: VecDeque<(u32, f64)>,
    /// What the calls of these marks found here; `None`: they are at a peer. At most [`UNDER_WAY_MAX`].
    under_way: BTreeMap<u64, Option<u32>>,
}

impl Ran {
    pub(super) fn count(&self) -> usize {
        self.latencies.len()
    }

    /// Whether the call of that mark was decided before.
    pub(super) fn knows(&self, mark: u64) -> bool {
        self.under_way.contains_key(&mark)
    }

    /// The call of that mark runs here, where so many are in flight; `None`: it goes to a peer.
    pub(super) fn decided(&mut self, mark: u64, rif: Option<u32>) {
        self.under_way.insert(mark, rif);
        if self.under_way.len() > UNDER_WAY_MAX {
            self.under_way.pop_first();
        }
    }

    /// It has ended.
    pub(super) fn ended(&mut self, outcome: &Outcome<'_>) {
        let found = self.under_way.remove(&outcome.mark).flatten();
        if let Some(rif) = found
            && outcome.kind == OutcomeKind::Served
            && outcome.peer.is_none()
        {
            if self.latencies.len() >= RAN_MAX {
                self.latencies.pop_front();
            }
            self.latencies.push_back((rif, outcome.total.as_secs_f64()));
        }
    }

    /// The median of the latencies of calls that found about so many; `None`: none has ended here.
    pub(super) fn median_s(&self, rif: u32) -> Option<f64> {
        // Of those that are equally near, the later ones.
        let mut near: Vec<(u32, f64)> =
            self.latencies.iter().rev().map(|(found, took)| (found.abs_diff(rif), *took)).collect();
        near.sort_by_key(|(off, _)| *off);
        near.truncate(NEAREST);
        near.sort_by(|one, other| one.1.total_cmp(&other.1));
        near.get(near.len() / 2).map(|(_, took)| *took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Task;
    use std::time::Duration;

    fn ends(ran: &mut Ran, mark: u64, ms: u64, kind: OutcomeKind, peer: Option<&str>) {
        let (task, total) = (Task::default(), Duration::from_millis(ms));
        let now = Duration::ZERO;
        ran.ended(&Outcome { task: &task, mark, now, kind, peer, execution: None, total });
    }

    #[test]
    fn the_median_is_of_calls_that_found_about_as_many() {
        let mut ran = Ran::default();
        assert_eq!(ran.median_s(0), None);
        for mark in 0..60u64 {
            let rif = u32::try_from(mark % 3).unwrap_or(0);
            ran.decided(mark, Some(rif * 10));
            ends(&mut ran, mark, 100 * (u64::from(rif) + 1) + mark / 3, OutcomeKind::Served, None);
        }
        for (rif, about_s) in [(0, 0.1), (3, 0.1), (9, 0.2), (22, 0.3), (u32::MAX, 0.3)] {
            let median_s = ran.median_s(rif).expect("some");
            // The fifteen last ones of twenty.
            assert!((median_s - about_s - 0.012).abs() < 1e-9, "{rif}: {median_s}");
        }
    }

    #[test]
    fn only_calls_that_were_served_here_count_and_all_is_bounded() {
        let mut ran = Ran::default();
        for mark in 0..5000 {
            ran.decided(mark, Some(1));
        }
        assert_eq!(ran.under_way.len(), UNDER_WAY_MAX);
        ends(&mut ran, 4000, 5, OutcomeKind::Failed, None);
        ends(&mut ran, 4001, 5, OutcomeKind::Served, Some("10.0.0.1"));
        ends(&mut ran, 0, 5, OutcomeKind::Served, None);
        ran.decided(4002, None);
        ends(&mut ran, 4002, 5, OutcomeKind::Served, None);
        assert!(ran.count() == 0 && !ran.knows(4000) && ran.knows(4003));
        for mark in 4003..4500 {
            ends(&mut ran, mark, 5, OutcomeKind::Served, None);
        }
        assert_eq!(ran.count(), RAN_MAX);
    }
}
