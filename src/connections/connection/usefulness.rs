//! Which connection ends first when there is no room for all, and which is too slow.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::{Connection, ENDED, Phase};
use crate::connections::SWEEP;

/// A connection that was of use within this time is no idle one yet.
const RECENT_MS: u64 = 5000;
/// Each request that a connection brought counts as if it were of use so much later, up to so many.
const SERVED_MS: u64 = 1000;
const SERVED_MAX: u32 = 5;
/// A connection that was opened within this time may not have been heard yet; it counts as much
/// as one that brought a request.
const YOUNG_MS: u64 = 20;
const YOUNG_CREDIT_MS: u64 = 1000;
/// A request or an answer that began within this time is not slow yet, the less so on a connection
/// that brought some before: a busy node takes its time, too.
const JUST_BEGUN_MS: u64 = 250;
const BEGUN_AGAIN_MS: u64 = 500;
/// What a body may lag behind its least rate at most, once it came faster.
const CREDIT_MAX_MS: i64 = 10_000;
/// A body or an answer stands still after so long without a byte, or so long below that rate.
const STILL_MS: u64 = 150;
const HARDLY_MS: u64 = 1000;
const HARDLY_RATE: u64 = 64 << 10;
/// From its first byte to its last, a request's head may take this long.
const HEAD_MS: u64 = 5000;
/// An answer of which the client takes nothing for so long is given up.
const ANSWER_MS: u64 = 30_000;

/// How little a connection would be missed: the smallest ends first.
#[derive(Clone, Copy, Debug)]
pub(in crate::connections) struct Usefulness {
    /// 0 where its address holds more than half of all connections.
    pub(in crate::connections) modest: u8,
    /// One of the `RANK_…`.
    pub(in crate::connections) rank: u8,
    /// Of the idle, the time since which; of the slow, their rate in bytes a second.
    pub(in crate::connections) value: f64,
}

impl Usefulness {
    pub(in crate::connections) fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
        let whole = (self.modest, self.rank).cmp(&(other.modest, other.rank));
        whole.then_with(|| self.value.total_cmp(&other.value))
    }
}

/// Nobody asks anything on it.
const RANK_IDLE: u8 = 0;
/// A request comes, or an answer goes.
pub(in crate::connections) const RANK_SLOW: u8 = 1;
/// It was of use a moment ago, or began just now.
pub(in crate::connections) const RANK_RECENT: u8 = 2;

impl Connection {
    /// Whether nothing moved for a moment, or hardly anything for longer.
    pub(in crate::connections) fn stands_still(&self, now: u64) -> bool {
        let still = now.saturating_sub(self.since_ms.load(Ordering::Relaxed));
        let took = now.saturating_sub(self.began_ms.load(Ordering::Relaxed));
        let rate = self.moved.load(Ordering::Relaxed).saturating_mul(1000) / took.max(1);
        still >= STILL_MS || took >= HARDLY_MS && rate < HARDLY_RATE
    }

    /// `None`: it is never ended.
    pub(in crate::connections) fn usefulness(
        &self,
        now: u64,
        crowd: Option<IpAddr>,
    ) -> Option<Usefulness> {
        let code = self.phase.load(Ordering::Acquire);
        if code & ENDED != 0 {
            return None;
        }
        let modest = u8::from(crowd != Some(self.from));
        let since = self.since_ms.load(Ordering::Relaxed);
        let served = self.served.load(Ordering::Relaxed);
        let took = now.saturating_sub(self.began_ms.load(Ordering::Relaxed)).max(1);
        // Who has asked often will ask again.
        let credit = match served {
            0 => YOUNG_CREDIT_MS,
            times => SERVED_MS * u64::from(times.min(SERVED_MAX)),
        };
        let credit = (since + credit) as f64;
        let still = now.saturating_sub(since);
        let (rank, value) = match Phase::of(code) {
            Phase::Running => return None,
            Phase::Streaming if self.stalled_ms.load(Ordering::Relaxed) == 0 => return None,
            Phase::Idle | Phase::Session => {
                match still < if served > 0 { RECENT_MS } else { YOUNG_MS } {
                    true => (RANK_RECENT, credit),
                    false => (RANK_IDLE, since as f64),
                }
            }
            _ if took < if served > 0 { BEGUN_AGAIN_MS } else { JUST_BEGUN_MS } => {
                (RANK_RECENT, credit)
            }
            Phase::Head | Phase::Waiting | Phase::Body | Phase::Answering | Phase::Streaming => {
                (RANK_SLOW, self.moved.load(Ordering::Relaxed) as f64 / took as f64)
            }
        };
        Some(Usefulness { modest, rank, value })
    }

    /// Whether it is too slow, at `now`.
    pub(in crate::connections) fn is_too_slow(&self, now: u64, rate_min: u64) -> bool {
        let began = self.began_ms.load(Ordering::Relaxed);
        match self.phase() {
            Phase::Head => now.saturating_sub(began) > HEAD_MS,
            Phase::Answering => {
                now.saturating_sub(self.since_ms.load(Ordering::Relaxed)) > ANSWER_MS
            }
            // It may be idle for ever, but not leave its answers unread.
            Phase::Session | Phase::Streaming => {
                let stalled = self.stalled_ms.load(Ordering::Relaxed);
                stalled > 0 && now.saturating_sub(stalled) > ANSWER_MS
            }
            Phase::Body if rate_min > 0 => {
                let moved = self.moved.load(Ordering::Relaxed);
                let more = moved.saturating_sub(self.counted.swap(moved, Ordering::Relaxed));
                let earned =
                    i64::try_from(more.saturating_mul(1000) / rate_min).unwrap_or(i64::MAX);
                // The sweep's own time; the first may come at once.
                let passed = now.saturating_sub(began).min(SWEEP.as_millis() as u64) as i64;
                let credit = self.credit_ms.load(Ordering::Relaxed);
                let left = credit.saturating_add(earned).saturating_sub(passed).min(CREDIT_MAX_MS);
                self.credit_ms.store(left, Ordering::Relaxed);
                left < 0
            }
            _ => false,
        }
    }
}
