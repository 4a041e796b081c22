//! How calls went at one place.

use std::time::Duration;

/// Failures in a row that leave a peer out; and fewer, where of the calls at all other peers hardly any fail.
const IN_A_ROW: u32 = 3;
const IN_A_ROW_ALONE: u32 = 2;
const HARDLY_ANY: f64 = 0.01;
/// By how much the share of failures may exceed that of the other peers, from so many calls on.
const SHARE: f64 = 0.3;
const SHARE_CALLS: f64 = 10.0;
/// Calls are forgotten by half in that time.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// How long a peer is left out the first time, and at most.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(120);
/// How long a peer is left out at least that has never served a call.
const UNPROVEN: Duration = Duration::from_secs(30);
/// What a call on trial may take before another one may go.
const TRIAL: Duration = Duration::from_secs(10);
/// Calls that count as served, whatever has happened, where a node tells of itself.
const FORGETTING: f64 = 2.0;
/// How long a peer that serves calls is remembered to have failed some.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How calls went at one place: at a peer, at a peer for one function, or here.
#[derive(Debug, Default)]
pub struct History {
    in_a_row: u32,
    /// Calls and failures, each counted the less the longer it is ago.
    calls: f64,
    failures: f64,
    counted: Duration,
    /// How often it was left out of late.
    times: u32,
    /// When it was last left out: calls that began before say nothing new.
    since: Option<Duration>,
    /// Until when it is left out, or a call on trial is awaited.
    until: Option<Duration>,
    /// It was left out and has served no call since.
    on_trial: bool,
    /// It has served a call once.
    is_proven: bool,
}

impl History {
    fn decay(&mut self, now: Duration) {
        let halves = now.saturating_sub(self.counted).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let left = 0.5f64.powf(halves);
        (self.calls, self.failures, self.counted) = (self.calls * left, self.failures * left, now);
    }

    pub(super) fn share(&self) -> f64 {
        if self.calls > 0.0 { self.failures / self.calls } else { 0.0 }
    }

    /// Adds calls that were served and failed until `now`, and gives the share that failed of late: 0 to 100, in
    /// steps of 10. What is over is forgotten, since some calls always count as served.
    pub fn failing_percent(&mut self, served: u64, failed: u64, now: Duration) -> u8 {
        self.decay(now);
        self.calls += (served + failed) as f64;
        self.failures += failed as f64;
        let share = self.failures / (self.calls + FORGETTING);
        let tenths = (0..10).filter(|n| share > f64::from(*n) * 0.1 + 0.05).count();
        u8::try_from(tenths * 10).unwrap_or(100)
    }

    /// Whether a call that began then began before this was left out.
    fn is_old(&self, began: Duration) -> bool {
        self.since.is_some_and(|since| began <= since)
    }

    /// A call that began then was served.
    pub(super) fn served(&mut self, began: Duration, now: Duration) {
        if self.is_old(began) {
            return;
        }
        self.decay(now);
        self.calls += 1.0;
        (self.in_a_row, self.is_proven) = (0, true);
        if std::mem::take(&mut self.on_trial) {
            (self.until, self.failures) = (None, 0.0);
        }
    }

    /// A call that began then failed; `others` is the share at the other peers. Gives whether it is left out
    /// from now on.
    pub(super) fn failed(&mut self, others: f64, began: Duration, now: Duration) -> bool {
        if self.is_old(began) {
            return false;
        }
        self.decay(now);
        self.calls += 1.0;
        self.failures += 1.0;
        self.in_a_row = self.in_a_row.saturating_add(1);
        let is_worse = self.calls >= SHARE_CALLS && self.share() > others + SHARE;
        let in_a_row = if others < HARDLY_ANY { IN_A_ROW_ALONE } else { IN_A_ROW };
        let goes = self.on_trial || self.in_a_row >= in_a_row || is_worse;
        if goes {
            let time = FIRST * 2u32.saturating_pow(self.times.min(16));
            (self.since, self.until) = (Some(now), Some(now + time.min(LONGEST)));
            self.times += 1;
            self.on_trial = false;
        }
        goes
    }

    /// The same of a peer as a whole: of one that has never done its part, nothing good is known.
    pub(super) fn peer_failed(&mut self, others: f64, began: Duration, now: Duration) -> bool {
        let goes = self.failed(others, began, now);
        if goes && !self.is_proven {
            self.until = self.until.max(Some(now + UNPROVEN));
        }
        goes
    }

    /// Whether no call may go there now.
    pub(super) fn is_out(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether it was ever left out, as far as that is remembered.
    pub(super) fn was_out(&self) -> bool {
        self.until.is_some()
    }

    /// A call goes there. If it was left out until now, that is the one on trial.
    pub(super) fn goes(&mut self, now: Duration) {
        if self.until.is_some_and(|until| now >= until) {
            (self.until, self.on_trial) = (Some(now + TRIAL), true);
        }
    }

    pub(super) fn is_forgotten(&self, now: Duration) -> bool {
        let rested = self.until.is_none_or(|until| now > until + REMEMBERED);
        let never_failed = self.times == 0 && self.failures < 0.5;
        rested && (never_failed || now > self.counted + REMEMBERED)
    }
}
