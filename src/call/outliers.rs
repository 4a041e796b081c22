//! Peers at which calls fail are left out for a while, as Envoy's outlier detection does, so that a peer that
//! fails fast does not look idle. Sans-IO: what became of calls, and the time, come in.
//!
//! A peer is left out after `IN_A_ROW` calls in a row that failed there, or when of its last calls a larger share
//! failed than at the others by `SHARE`; for one function where the failure is the function's, for all where it
//! is the peer's. The first time for `FIRST`, then for twice as long each time, at most for `LONGEST`. Then one call
//! goes there on trial: if it is served, the peer is back. No more than half of the peers are left out, but of one
//! or two, one may be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock;
use crate::types::{FunctionName, Peer};

/// Failures in a row that leave a peer out.
const IN_A_ROW: u32 = 3;
/// By how much the share of failures may exceed that of the other peers, from so many calls on.
const SHARE: f64 = 0.3;
const SHARE_CALLS: f64 = 10.0;
/// Calls are forgotten by half in that time.
const HALF_LIFE: Duration = Duration::from_secs(15);
/// How long a peer is left out the first time, and at most.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(120);
/// What a call on trial may take before another one may go.
const TRIAL: Duration = Duration::from_secs(10);
/// Calls that count as served, whatever has happened.
const FORGETTING: f64 = 2.0;
/// How long a peer that serves calls is remembered to have failed some.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Functions that are told apart at one peer.
const FUNCTIONS_MAX: usize = 64;

/// What became of a call that was handed to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtPeer {
    /// The function answered, whatever it said but for 5xx.
    Served,
    /// The function failed there.
    FunctionFailed,
    /// The peer failed.
    PeerFailed,
}

/// How calls went at one place.
#[derive(Debug, Default)]
struct History {
    in_a_row: u32,
    /// Calls and failures, each counted the less the longer it is ago.
    calls: f64,
    failures: f64,
    counted: Duration,
    /// How often it was left out of late.
    times: u32,
    /// Until when it is left out, or a call on trial is awaited.
    until: Option<Duration>,
    /// It was left out and has served no call since.
    on_trial: bool,
}

impl History {
    fn decay(&mut self, now: Duration) {
        let halves = now.saturating_sub(self.counted).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let left = 0.5f64.powf(halves);
        (self.calls, self.failures, self.counted) = (self.calls * left, self.failures * left, now);
    }

    fn share(&self) -> f64 {
        if self.calls > 0.0 { self.failures / self.calls } else { 0.0 }
    }

    fn served(&mut self, now: Duration) {
        self.decay(now);
        self.calls += 1.0;
        self.in_a_row = 0;
        if std::mem::take(&mut self.on_trial) {
            (self.until, self.failures) = (None, 0.0);
        }
    }

    /// A call failed; `others` is the share at the other peers. Gives whether it is left out from now on.
    fn failed(&mut self, others: f64, now: Duration) -> bool {
        self.decay(now);
        self.calls += 1.0;
        self.failures += 1.0;
        self.in_a_row = self.in_a_row.saturating_add(1);
        let is_worse = self.calls >= SHARE_CALLS && self.share() > others + SHARE;
        let goes = self.on_trial || self.in_a_row >= IN_A_ROW || is_worse;
        // Calls that were under way when it was left out say nothing new.
        let is_out = !self.on_trial && self.until.is_some_and(|until| now < until);
        if goes && !is_out {
            let time = FIRST * 2u32.saturating_pow(self.times.min(16));
            self.until = Some(now + time.min(LONGEST));
            self.times += 1;
            self.on_trial = false;
        }
        goes && !is_out
    }

    /// Whether no call may go there now.
    fn is_out(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// A call goes there. If it was left out until now, that is the one on trial.
    fn goes(&mut self, now: Duration) {
        if self.until.is_some_and(|until| now >= until) {
            (self.until, self.on_trial) = (Some(now + TRIAL), true);
        }
    }

    fn is_forgotten(&self, now: Duration) -> bool {
        let rested = self.until.is_none_or(|until| now > until + REMEMBERED);
        rested && now > self.counted + REMEMBERED
    }
}

#[derive(Debug, Default)]
struct PeerHistory {
    whole: History,
    functions: BTreeMap<FunctionName, History>,
}

/// All peers at which calls have failed. See the module.
#[derive(Debug, Default)]
pub struct Outliers {
    peers: BTreeMap<Arc<str>, PeerHistory>,
}

impl Outliers {
    /// Whether no call has failed of late: then there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A call of `function` goes to the peer at `host`.
    pub fn goes(&mut self, host: &str, function: &FunctionName, now: Duration) {
        if let Some(peer) = self.peers.get_mut(host) {
            peer.whole.goes(now);
            if let Some(of_function) = peer.functions.get_mut(function) {
                of_function.goes(now);
            }
        }
    }

    /// A call of `function` has ended at the peer at `host`. Gives whether that peer is left out from now on.
    pub fn ended(
        &mut self,
        host: &Arc<str>,
        function: &FunctionName,
        what: AtPeer,
        now: Duration,
    ) -> bool {
        if what == AtPeer::Served {
            if let Some(peer) = self.peers.get_mut(host) {
                peer.whole.served(now);
                if let Some(of_function) = peer.functions.get_mut(function) {
                    of_function.served(now);
                }
            }
            self.peers.retain(|_, peer| {
                peer.functions.retain(|_, history| !history.is_forgotten(now));
                !(peer.functions.is_empty() && peer.whole.is_forgotten(now))
            });
            return false;
        }
        let others = self.share_of_others(host, function, what);
        let peer = self.peers.entry(Arc::clone(host)).or_default();
        if what == AtPeer::PeerFailed {
            return peer.whole.failed(others, now);
        }
        // The peer itself did its part.
        peer.whole.served(now);
        if peer.functions.len() >= FUNCTIONS_MAX && !peer.functions.contains_key(function) {
            return false;
        }
        peer.functions.entry(function.clone()).or_default().failed(others, now)
    }

    /// The largest share of failures at the other peers, of those at which calls have failed.
    fn share_of_others(&self, host: &str, function: &FunctionName, what: AtPeer) -> f64 {
        let others = self.peers.iter().filter(|(other, _)| &***other != host);
        let shares = others.filter_map(|(_, peer)| match what {
            AtPeer::PeerFailed => Some(peer.whole.share()),
            _ => peer.functions.get(function).map(History::share),
        });
        shares.fold(0.0, f64::max)
    }

    /// Those of `peers` to which no call of `function` is to go now, those that are `failing` by their own
    /// word among them: half of them at most.
    pub fn left_out(
        &self,
        peers: &[Peer],
        failing: &[Arc<str>],
        function: &FunctionName,
        now: Duration,
    ) -> Vec<Arc<str>> {
        let is_out = |peer: &&Peer| {
            failing.contains(&peer.host)
                || self.peers.get(&peer.host).is_some_and(|history| {
                    let of_function = history.functions.get(function);
                    history.whole.is_out(now)
                        || of_function.is_some_and(|history| history.is_out(now))
                })
        };
        let out = peers.iter().filter(is_out).map(|peer| Arc::clone(&peer.host));
        out.take((peers.len() / 2).max(1)).collect()
    }
}

/// What ran on this node, and how it ended: told to the others, so that a node that fails fast does not look
/// idle to them.
#[derive(Debug, Default)]
struct Here {
    served: AtomicU64,
    failed: AtomicU64,
    history: Mutex<History>,
}

impl Here {
    /// Of the calls that ran here of late, the share that failed: 0 to 100, in steps of 10. What is over is
    /// forgotten, since `FORGETTING` calls always count as served.
    fn failing_percent(&self, now: Duration) -> u8 {
        let mut history = lock(&self.history);
        history.decay(now);
        let counted = |count: &AtomicU64| count.swap(0, Ordering::Relaxed) as f64;
        let (served, failed) = (counted(&self.served), counted(&self.failed));
        history.calls += served + failed;
        history.failures += failed;
        let share = history.failures / (history.calls + FORGETTING);
        let tenths = (0..10).filter(|n| share > f64::from(*n) * 0.1 + 0.05).count();
        u8::try_from(tenths * 10).unwrap_or(100)
    }
}

/// The same for all threads of a node. While no call fails it costs a look at a flag.
#[derive(Debug)]
pub struct SharedOutliers {
    outliers: Mutex<Outliers>,
    any: AtomicBool,
    here: Here,
    began: Instant,
}

impl Default for SharedOutliers {
    fn default() -> Self {
        let (outliers, any) = (Mutex::default(), AtomicBool::new(false));
        Self { outliers, any, here: Here::default(), began: Instant::now() }
    }
}

impl SharedOutliers {
    /// As [`Outliers::left_out`].
    pub fn left_out(
        &self,
        peers: &[Peer],
        failing: &[Arc<str>],
        function: &FunctionName,
    ) -> Vec<Arc<str>> {
        if failing.is_empty() && !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        lock(&self.outliers).left_out(peers, failing, function, self.began.elapsed())
    }

    /// A function has ended here.
    pub fn ended_here(&self, failed: bool) {
        let count = if failed { &self.here.failed } else { &self.here.served };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Of the calls that ran here of late, the share that failed: 0 to 100, in steps of 10.
    pub fn failing_here_percent(&self) -> u8 {
        self.here.failing_percent(self.began.elapsed())
    }

    /// What is left out now, with the functions for which it is; `None`: for all.
    pub fn all_left_out(&self) -> Vec<(Arc<str>, Option<FunctionName>)> {
        let (outliers, now) = (lock(&self.outliers), self.began.elapsed());
        let all = outliers.peers.iter().flat_map(|(host, peer)| {
            let whole = peer.whole.is_out(now).then(|| (Arc::clone(host), None));
            let functions = peer.functions.iter().filter(|(_, history)| history.is_out(now));
            let functions = functions.map(|(name, _)| (Arc::clone(host), Some(name.clone())));
            whole.into_iter().chain(functions.collect::<Vec<_>>())
        });
        all.collect()
    }

    /// As [`Outliers::goes`].
    pub fn goes(&self, host: &str, function: &FunctionName) {
        if self.any.load(Ordering::Acquire) {
            lock(&self.outliers).goes(host, function, self.began.elapsed());
        }
    }

    /// As [`Outliers::ended`].
    pub fn ended(&self, host: &Arc<str>, function: &FunctionName, what: AtPeer) -> bool {
        if what == AtPeer::Served && !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut outliers = lock(&self.outliers);
        let goes = outliers.ended(host, function, what, self.began.elapsed());
        self.any.store(!outliers.is_empty(), Ordering::Release);
        goes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn name(text: &str) -> FunctionName {
        FunctionName::parse(text).expect("a name")
    }

    fn peers(count: usize) -> Vec<Peer> {
        (0..count).map(|n| Peer::at(&format!("10.0.0.{n}"))).collect()
    }

    /// Calls of `f` fail at the first of `peers` until it is left out.
    fn fail(outliers: &mut Outliers, peers: &[Peer], what: AtPeer, now: Duration) -> usize {
        let failed = (1..20).find(|_| outliers.ended(&peers[0].host, &name("f"), what, now));
        failed.expect("it is left out some time")
    }

    #[test]
    fn three_failures_in_a_row_leave_a_peer_out_for_twice_as_long_each_time() {
        let (mut outliers, peers) = (Outliers::default(), peers(4));
        let mut now = s(100);
        assert_eq!(fail(&mut outliers, &peers, AtPeer::PeerFailed, now), 3);
        for seconds in [5, 10, 20, 40, 80, 120, 120] {
            for (later, count) in [(0, 1), (seconds - 1, 1), (seconds, 0)] {
                let out = outliers.left_out(&peers, &[], &name("f"), now + s(later));
                assert_eq!(out.len(), count, "{seconds} {later}");
            }
            now += s(seconds);
            // One call goes on trial, and no other meanwhile.
            outliers.goes("10.0.0.0", &name("f"), now);
            assert_eq!(outliers.left_out(&peers, &[], &name("f"), now).len(), 1);
            assert_eq!(fail(&mut outliers, &peers, AtPeer::PeerFailed, now), 1);
        }
        now += s(120);
        outliers.goes("10.0.0.0", &name("f"), now);
        assert!(!outliers.ended(&peers[0].host, &name("f"), AtPeer::Served, now));
        assert!(outliers.left_out(&peers, &[], &name("f"), now).is_empty(), "it is back");
        // A trial whose end nobody hears of is not waited for for ever.
        assert_eq!(fail(&mut outliers, &peers, AtPeer::PeerFailed, now), 3);
        outliers.goes("10.0.0.0", &name("f"), now + s(120));
        assert!(outliers.left_out(&peers, &[], &name("f"), now + s(131)).is_empty());
    }

    #[test]
    fn a_function_that_fails_leaves_the_peer_out_for_that_function_alone() {
        let (mut outliers, peers) = (Outliers::default(), peers(2));
        fail(&mut outliers, &peers, AtPeer::FunctionFailed, s(1));
        assert_eq!(outliers.left_out(&peers, &[], &name("f"), s(2)), [Arc::clone(&peers[0].host)]);
        assert!(outliers.left_out(&peers, &[], &name("g"), s(2)).is_empty());
        // Another function's answers say nothing of it.
        outliers.ended(&peers[0].host, &name("g"), AtPeer::Served, s(2));
        assert_eq!(outliers.left_out(&peers, &[], &name("f"), s(2)).len(), 1);
    }

    #[test]
    fn what_fails_now_and_then_counts_where_it_does_so_more_than_elsewhere() {
        let (mut outliers, peers) = (Outliers::default(), peers(3));
        // Every second call, never three in a row.
        let out = (0..20).find(|n| {
            outliers.ended(&peers[0].host, &name("f"), AtPeer::Served, s(1));
            outliers.ended(&peers[0].host, &name("f"), AtPeer::FunctionFailed, s(1)) && *n > 0
        });
        assert!(out.is_some());
        // The same everywhere is the function's own way.
        let mut outliers = Outliers::default();
        let out = (0..40).any(|_| {
            peers.iter().any(|peer| {
                outliers.ended(&peer.host, &name("f"), AtPeer::Served, s(1));
                outliers.ended(&peer.host, &name("f"), AtPeer::FunctionFailed, s(1))
            })
        });
        assert!(!out);
    }

    #[test]
    fn no_more_than_half_are_left_out() {
        let (mut outliers, all) = (Outliers::default(), peers(5));
        for n in 0..5 {
            fail(&mut outliers, &all[n..], AtPeer::PeerFailed, s(1));
        }
        assert_eq!(outliers.left_out(&all, &[], &name("f"), s(2)).len(), 2);
        assert_eq!(
            outliers.left_out(&all[..1], &[], &name("f"), s(2)).len(),
            1,
            "of one, that one"
        );
    }

    #[test]
    fn who_says_that_it_fails_is_left_out_but_never_more_than_half() {
        let (outliers, all) = (Outliers::default(), peers(4));
        let failing: Vec<_> = all.iter().map(|peer| Arc::clone(&peer.host)).collect();
        assert_eq!(outliers.left_out(&all, &failing[..1], &name("f"), s(1)), failing[..1]);
        assert_eq!(outliers.left_out(&all, &failing, &name("f"), s(1)).len(), 2);
    }

    #[test]
    fn the_share_of_failures_here_is_told_in_steps_and_forgotten() {
        let here = Here::default();
        assert_eq!(here.failing_percent(s(1)), 0);
        here.failed.store(1, Ordering::Relaxed);
        assert_eq!(here.failing_percent(s(1)), 30, "one call says little");
        here.failed.store(97, Ordering::Relaxed);
        assert_eq!(here.failing_percent(s(1)), 100);
        assert_eq!(here.failing_percent(s(31)), 90);
        assert!(here.failing_percent(s(120)) < 50);
        here.served.store(100, Ordering::Relaxed);
        assert_eq!(here.failing_percent(s(120)), 0);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (mut outliers, peers) = (Outliers::default(), peers(2));
        fail(&mut outliers, &peers, AtPeer::FunctionFailed, s(1));
        outliers.ended(&peers[1].host, &name("f"), AtPeer::Served, s(300));
        assert!(!outliers.is_empty());
        outliers.ended(&peers[1].host, &name("f"), AtPeer::Served, s(400));
        assert!(outliers.is_empty());
    }
}
