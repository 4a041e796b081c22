//! New connections that wait for room, and whose turn it is.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// New connections that wait for room, the newest last. They are told to try again when another has
/// ended, and dropped when too many wait.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// A whole request has come from these already.
    asking: VecDeque<oneshot::Sender<()>>,
    others: VecDeque<oneshot::Sender<()>>,
}

impl Newcomers {
    /// One more. Beyond `most` in all the oldest waits no longer: it has waited the longest in vain,
    /// and its client is the likeliest to have given up.
    pub(super) fn wait(&mut self, asks: bool, most: usize) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        if asks { &mut self.asking } else { &mut self.others }.push_back(tell);
        if self.asking.len() + self.others.len() > most {
            // Those that wait no longer first.
            self.asking.retain(|waiting| !waiting.is_closed());
            self.others.retain(|waiting| !waiting.is_closed());
        }
        if self.asking.len() + self.others.len() > most {
            self.others.pop_front().or_else(|| self.asking.pop_front());
        }
        told
    }

    /// Tells one that it may try again: the newest of those that ask, or else of the others.
    pub(super) fn call(&mut self) {
        while let Some(newest) = self.asking.pop_back().or_else(|| self.others.pop_back()) {
            if newest.send(()).is_ok() {
                return;
            }
        }
    }
}
