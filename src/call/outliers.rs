//! How calls went at all peers, and here, for all threads of a node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock;
use crate::outliers::{AtPeer, AwayCall, History, Outliers};
use crate::types::{FunctionName, Peer};

/// What ran on this node, and how it ended: told to the others, so that a node that fails fast does not look
/// idle to them.
#[derive(Debug, Default)]
struct Here {
    served: AtomicU64,
    failed: AtomicU64,
    history: Mutex<History>,
}

impl Here {
    /// See [`History::failing_percent`].
    fn failing_percent(&self, now: Duration) -> u8 {
        let counted = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let (served, failed) = (counted(&self.served), counted(&self.failed));
        lock(&self.history).failing_percent(served, failed, now)
    }
}

/// See the module.
#[derive(Debug)]
pub struct SharedOutliers {
    outliers: Mutex<Outliers>,
    here: Here,
    began: Instant,
}

impl Default for SharedOutliers {
    fn default() -> Self {
        Self { outliers: Mutex::default(), here: Here::default(), began: Instant::now() }
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
        lock(&self.outliers).left_out(peers, failing, function, self.began.elapsed())
    }

    /// A call of `function` goes to the peer at `host`. Who does not say what became of it has given it up.
    pub fn goes(&self, host: &Arc<str>, function: &FunctionName) -> Away<'_> {
        let call = lock(&self.outliers).goes(host, function, self.began.elapsed());
        Away { outliers: self, host: Arc::clone(host), function: function.clone(), call }
    }

    /// A function has ended here.
    pub fn ended_here(&self, failed: bool) {
        let count = if failed { &self.here.failed } else { &self.here.served };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Of the calls that ran here of late, the share that failed: 0 to 100, in steps of 10.
    pub fn failing_here_percent(&self) -> u8 {
        lock(&self.outliers).forget(self.began.elapsed());
        self.here.failing_percent(self.began.elapsed())
    }

    /// As [`Outliers::all_left_out`].
    pub fn all_left_out(&self) -> Vec<(Arc<str>, Option<FunctionName>)> {
        lock(&self.outliers).all_left_out(self.began.elapsed())
    }
}

/// A call that is at a peer.
pub struct Away<'a> {
    outliers: &'a SharedOutliers,
    host: Arc<str>,
    function: FunctionName,
    call: AwayCall,
}

impl Away<'_> {
    /// It has ended there. Gives whether the peer is left out from now on.
    pub fn ended(self, what: AtPeer) -> bool {
        let now = self.outliers.began.elapsed();
        lock(&self.outliers.outliers).ended(&self.host, &self.function, self.call, what, now)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        lock(&self.outliers.outliers).given_up(&self.host, self.call);
    }
}
