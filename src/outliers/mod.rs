//! Peers at which calls fail are left out for a while, as Envoy's outlier detection does, so that a peer that
//! fails fast does not look idle. Sans-IO: what became of calls, and the time, come in.
//!
//! A peer is left out after three calls in a row that failed there (two where hardly any fail at the others), or when
//! of its last calls a larger share failed than at the others by 30 points; for one function where the failure is the function's, for all where
//! it is the peer's. The first time for 5 s (30 s if it never served a call before), then for twice as long each time, at
//! most for 120 s. Then one call
//! goes there on trial: if it is served, the peer is back.
//!
//! A peer that hangs fails late. So one is held back, too, while it is *overdue*: a call is away there for
//! `OVERDUE_TIMES` as long as such calls usually take at peers, none that came later has been served, and with
//! those that were refused since then they are `OVERDUE_CALLS` or more. If it has refused `REFUSED_CALLS` since,
//! `REFUSED_TIMES` as long is enough: who is full and well ends some calls.
//!
//! No more than half of the peers are left out, but of one or two, one may be.

mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use self::history::History;
use crate::types::{FunctionName, Peer};

/// Functions that are told apart at one peer, and whose usual times are known.
const FUNCTIONS_MAX: usize = 64;
/// See the module.
const OVERDUE_CALLS: usize = 3;
const OVERDUE_TIMES: f64 = 3.0;
const REFUSED_CALLS: usize = 2;
const REFUSED_TIMES: f64 = 2.0;
const OVERDUE_MIN: Duration = Duration::from_millis(250);
/// What a call changes of what is known of its function's usual time.
const USUAL_NEW: f64 = 0.1;

/// What became of a call that was handed to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtPeer {
    /// The function answered, whatever it said but for 5xx.
    Served,
    /// The function failed there.
    FunctionFailed,
    /// The peer failed.
    PeerFailed,
    /// It was not run there, since the peer is full, or does not want it. That is no failure.
    Refused,
}

/// A call that is at a peer: its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AwayCall {
    began: Duration,
    number: u64,
}

#[derive(Debug, Default)]
struct PeerHistory {
    whole: History,
    functions: BTreeMap<FunctionName, History>,
    /// Calls that are there, and how long such calls usually take, as far as that is known.
    away: BTreeMap<AwayCall, Option<Duration>>,
    /// When the latest that was served had begun.
    served: Option<Duration>,
    /// Calls that were refused since then.
    refused: usize,
    /// Whether it is among [`Outliers::suspects`].
    is_suspect: bool,
}

impl PeerHistory {
    fn is_overdue(&self, now: Duration) -> bool {
        let Some((oldest, usual)) = self.away.first_key_value() else { return false };
        let times = if self.refused >= REFUSED_CALLS { REFUSED_TIMES } else { OVERDUE_TIMES };
        let waited = now.saturating_sub(oldest.began);
        let is_late = usual.is_some_and(|usual| waited > usual.mul_f64(times).max(OVERDUE_MIN));
        let none_came = self.served.is_none_or(|served| served < oldest.began);
        self.away.len() + self.refused >= OVERDUE_CALLS && is_late && none_came
    }

    /// Whether no call of `function` is to go there now.
    fn is_out(&self, function: &FunctionName, now: Duration) -> bool {
        let of_function = || self.functions.get(function).is_some_and(|of| of.is_out(now));
        self.whole.is_out(now) || self.is_overdue(now) || of_function()
    }

    /// Whether it may be out, at whatever time.
    fn may_be_out(&self) -> bool {
        self.whole.was_out()
            || !self.functions.is_empty()
            || self.away.len() + self.refused >= OVERDUE_CALLS
    }

    fn is_forgotten(&self, now: Duration) -> bool {
        self.away.is_empty() && self.functions.is_empty() && self.whole.is_forgotten(now)
    }
}

/// How calls went at all peers. See the module.
#[derive(Debug, Default)]
pub struct Outliers {
    peers: BTreeMap<Arc<str>, PeerHistory>,
    /// Those that may be left out: each call looks at these, and there may be a thousand others.
    suspects: BTreeSet<Arc<str>>,
    /// Seconds that calls of a function take at peers, the later ones counting for more.
    usual: BTreeMap<FunctionName, f64>,
    number: u64,
}

impl Outliers {
    /// A call of `function` goes to the peer at `host`. It is to be told by [`ended`](Self::ended) or
    /// [`given_up`](Self::given_up) what became of it.
    pub fn goes(&mut self, host: &Arc<str>, function: &FunctionName, now: Duration) -> AwayCall {
        self.number += 1;
        let call = AwayCall { began: now, number: self.number };
        let usual = self.usual.get(function).copied().map(Duration::from_secs_f64);
        let peer = match self.peers.get_mut(host) {
            Some(peer) => peer,
            None => self.peers.entry(Arc::clone(host)).or_default(),
        };
        peer.away.insert(call, usual);
        peer.whole.goes(now);
        if let Some(of_function) = peer.functions.get_mut(function) {
            of_function.goes(now);
        }
        self.suspect(host);
        call
    }

    /// Something was heard of the peer at `host`.
    fn suspect(&mut self, host: &Arc<str>) {
        let Some(peer) = self.peers.get_mut(host) else { return };
        let may_be_out = peer.may_be_out();
        if std::mem::replace(&mut peer.is_suspect, may_be_out) != may_be_out {
            if may_be_out {
                self.suspects.insert(Arc::clone(host));
            } else {
                self.suspects.remove(host);
            }
        }
    }

    /// Nobody waits any longer for `call`, which went to the peer at `host`.
    pub fn given_up(&mut self, host: &str, call: AwayCall) {
        if let Some(peer) = self.peers.get_mut(host) {
            peer.away.remove(&call);
        }
    }

    /// `call`, of `function`, has ended at the peer at `host`. Gives whether that peer is left out from now on.
    pub fn ended(
        &mut self,
        host: &Arc<str>,
        function: &FunctionName,
        call: AwayCall,
        what: AtPeer,
        now: Duration,
    ) -> bool {
        let goes = self.takes_in(host, function, call, what, now);
        self.suspect(host);
        goes
    }

    fn takes_in(
        &mut self,
        host: &Arc<str>,
        function: &FunctionName,
        call: AwayCall,
        what: AtPeer,
        now: Duration,
    ) -> bool {
        let others = match what {
            AtPeer::Served | AtPeer::Refused => 0.0,
            _ => self.share_of_others(host, function, what),
        };
        let Some(peer) = self.peers.get_mut(host) else { return false };
        peer.away.remove(&call);
        if what == AtPeer::Refused {
            peer.refused = peer.refused.saturating_add(1);
            return false;
        }
        if what == AtPeer::PeerFailed {
            return peer.whole.peer_failed(others, call.began, now);
        }
        // The peer itself did its part.
        peer.whole.served(call.began, now);
        if what == AtPeer::FunctionFailed {
            let is_known = peer.functions.contains_key(function);
            if !is_known && peer.functions.len() >= FUNCTIONS_MAX {
                return false;
            }
            let history = peer.functions.entry(function.clone()).or_default();
            return history.failed(others, call.began, now);
        }
        (peer.served, peer.refused) = (peer.served.max(Some(call.began)), 0);
        if !peer.functions.is_empty() {
            if let Some(of_function) = peer.functions.get_mut(function) {
                of_function.served(call.began, now);
            }
            peer.functions.retain(|_, history| !history.is_forgotten(now));
        }
        self.learn_usual(function, now.saturating_sub(call.began));
        false
    }

    fn learn_usual(&mut self, function: &FunctionName, took: Duration) {
        let took = took.as_secs_f64();
        if let Some(usual) = self.usual.get_mut(function) {
            *usual += (took - *usual) * USUAL_NEW;
        } else if self.usual.len() < FUNCTIONS_MAX {
            self.usual.insert(function.clone(), took);
        }
    }

    /// Forgets peers of which nothing is worth knowing any more.
    pub fn forget(&mut self, now: Duration) {
        self.peers.retain(|_, peer| !peer.is_forgotten(now));
        self.suspects.retain(|host| self.peers.contains_key(host));
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
        let is_out =
            |host: &&Arc<str>| self.peers.get(*host).is_some_and(|peer| peer.is_out(function, now));
        let failed = self.suspects.iter().filter(is_out);
        let mut out: Vec<_> = failed.chain(failing).cloned().collect();
        if !out.is_empty() {
            // Who is no peer now takes nobody's place.
            out.retain(|host| peers.iter().any(|peer| peer.host == *host));
            out.sort_unstable();
            out.dedup();
            out.truncate((peers.len() / 2).max(1));
        }
        out
    }

    /// What is left out now, with the functions for which it is; `None`: for all.
    pub fn all_left_out(&self, now: Duration) -> Vec<(Arc<str>, Option<FunctionName>)> {
        let mut all = Vec::new();
        for (host, peer) in &self.peers {
            if peer.whole.is_out(now) || peer.is_overdue(now) {
                all.push((Arc::clone(host), None));
            }
            let functions = peer.functions.iter().filter(|(_, history)| history.is_out(now));
            all.extend(functions.map(|(name, _)| (Arc::clone(host), Some(name.clone()))));
        }
        all
    }
}

#[cfg(test)]
mod tests;
