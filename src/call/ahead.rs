//! Answers that are read ahead of their clients, within a window: a function that is through gives its
//! slot back, though its client takes its time. An answer of a known, modest length is read whole where
//! there is room for it, and so whoever does not read his answers keeps no function busy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_rt::task::JoinHandle;
use actix_web::http::header::HeaderMap;

use super::body::{AnswerStream, NextPiece};
use crate::memory::budget::{Budget, Reservation};
use std::sync::Arc;

/// Bytes of any answer that are held without a share of the budget, and the steps in which shares grow.
const FREE_BYTES: usize = 16 << 10;
const STEP_BYTES: u64 = 32 << 10;

/// How far an answer is read ahead.
pub(super) struct AheadRules {
    /// Bytes that are held of any answer, as far as the budget has room for them.
    pub(super) window_bytes: usize,
    /// Bytes of an answer that may be held whole, if the budget has room for them.
    pub(super) whole_bytes_max: usize,
    /// What all that is held shares.
    pub(super) budget: Arc<Budget>,
}

#[derive(Default)]
struct Ahead {
    pieces: VecDeque<Result<bytes::Bytes, crate::error::Error>>,
    bytes: usize,
    bytes_max: usize,
    window_bytes: usize,
    ended: bool,
    trailers: HeaderMap,
    held: Option<Reservation>,
    reader: Option<Waker>,
    filler: Option<Waker>,
}

impl Ahead {
    /// Whether one more piece may be held.
    fn has_room(&mut self, budget: &Arc<Budget>) -> bool {
        if self.bytes >= self.bytes_max {
            return false;
        }
        let covered = self.held.as_ref().map_or(0, Reservation::bytes) + FREE_BYTES as u64;
        if (self.bytes as u64) < covered {
            return true;
        }
        match (&mut self.held, budget.take(STEP_BYTES)) {
            (Some(held), Some(more)) => held.join(more),
            (held, Some(more)) => *held = Some(more),
            (_, None) => return false,
        }
        true
    }
}

/// The reader's end. Dropping it drops the answer.
struct ReadAhead {
    shared: Rc<RefCell<Ahead>>,
    filler: JoinHandle<()>,
}

/// Reads `stream`, of `length` bytes if that is known, ahead.
pub(super) fn read_ahead(
    mut stream: Box<dyn AnswerStream>,
    length: Option<u64>,
    rules: &AheadRules,
) -> Box<dyn AnswerStream> {
    let whole = length.and_then(|length| usize::try_from(length).ok());
    let whole = whole.filter(|bytes| (rules.window_bytes..=rules.whole_bytes_max).contains(bytes));
    let held = whole.and_then(|bytes| rules.budget.take(bytes as u64));
    let bytes_max = match &held {
        // One more, so that its end is seen as well.
        Some(_) => whole.map_or(rules.window_bytes, |bytes| bytes.saturating_add(1)),
        None => rules.window_bytes,
    };
    let window_bytes = rules.window_bytes;
    let ahead = Ahead { bytes_max, window_bytes, held, ..Ahead::default() };
    let shared = Rc::new(RefCell::new(ahead));
    let of_filler = Rc::clone(&shared);
    let budget = Arc::clone(&rules.budget);
    let filler = actix_rt::spawn(async move {
        loop {
            let next = poll_fn(|cx| {
                let mut shared = of_filler.borrow_mut();
                if !shared.has_room(&budget) {
                    shared.filler = Some(cx.waker().clone());
                    return stream.poll_given_up(cx).map(|error| Some(Err(error)));
                }
                drop(shared);
                stream.poll_piece(cx)
            });
            let next = next.await;
            let mut shared = of_filler.borrow_mut();
            shared.ended = !matches!(next, Some(Ok(_)));
            if shared.ended {
                shared.trailers = stream.trailers();
            }
            shared.bytes += next.as_ref().map_or(0, |piece| piece.as_ref().map_or(0, |p| p.len()));
            shared.pieces.extend(next);
            if let Some(reader) = shared.reader.take() {
                reader.wake();
            }
            if shared.ended {
                return;
            }
        }
    });
    Box::new(ReadAhead { shared, filler })
}

impl AnswerStream for ReadAhead {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        let mut shared = self.shared.borrow_mut();
        let piece = ready!(match shared.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(piece)),
            None if shared.ended => Poll::Ready(None),
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        });
        if let Some(Ok(piece)) = &piece {
            shared.bytes -= piece.len();
        }
        if shared.bytes < shared.bytes_max
            && let Some(filler) = shared.filler.take()
        {
            filler.wake();
        }
        // A share is for what waits. One that was taken for the whole stays until that is through.
        if shared.pieces.is_empty() && (piece.is_none() || shared.bytes_max <= shared.window_bytes)
        {
            shared.held = None;
        }
        Poll::Ready(piece)
    }

    fn trailers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.shared.borrow_mut().trailers)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.filler.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::cell::Cell;

    /// Pieces of ten bytes, and a count of those that were taken.
    struct Tens {
        left: usize,
        taken: Rc<Cell<usize>>,
        dropped: Rc<Cell<bool>>,
    }

    impl AnswerStream for Tens {
        fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<NextPiece> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            self.taken.set(self.taken.get() + 1);
            Poll::Ready(Some(Ok(Bytes::from_static(b"0123456789"))))
        }
    }

    impl Drop for Tens {
        fn drop(&mut self) {
            self.dropped.set(true);
        }
    }

    async fn settled() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[actix_rt::test]
    async fn no_more_than_the_window_is_held_and_a_modest_answer_whole_where_there_is_room() {
        let budget = Budget::new(1000);
        let rules = AheadRules { window_bytes: 35, whole_bytes_max: 800, budget };
        for (length, room, held, taken) in [
            (None, 0, 0, 4),
            (Some(1000), 0, 0, 4),
            (Some(700), 0, 700, 70),
            (Some(700), 400, 0, 4),
            (Some(20), 0, 0, 2),
        ] {
            let other = rules.budget.take(room).expect("room");
            let (count, dropped) = (Rc::default(), Rc::default());
            let left = length.unwrap_or(1000) as usize / 10;
            let tens = Tens { left, taken: Rc::clone(&count), dropped: Rc::clone(&dropped) };
            let mut ahead = read_ahead(Box::new(tens), length, &rules);
            settled().await;
            assert_eq!(count.get(), taken, "{length:?}");
            assert_eq!(dropped.get(), taken == left, "one that is through is given back");
            assert_eq!(rules.budget.held(), held + room);
            let mut read = 0;
            while let Some(piece) = poll_fn(|cx| ahead.poll_piece(cx)).await {
                read += piece.expect("good").len();
            }
            assert_eq!(read, left * 10);
            drop(other);
            assert_eq!(rules.budget.held(), 0);
        }
    }

    #[actix_rt::test]
    async fn an_answer_that_nobody_wants_any_more_is_given_up() {
        let rules = AheadRules { window_bytes: 35, whole_bytes_max: 0, budget: Budget::new(0) };
        let (count, dropped) = (Rc::default(), Rc::default());
        let tens = Tens { left: 1000, taken: Rc::clone(&count), dropped: Rc::clone(&dropped) };
        let ahead = read_ahead(Box::new(tens), None, &rules);
        settled().await;
        drop(ahead);
        settled().await;
        assert!(dropped.get());
    }

    #[actix_rt::test]
    async fn what_waits_has_a_share_of_the_budget_and_gives_it_back() {
        let mut rules = AheadRules {
            window_bytes: 256 << 10,
            whole_bytes_max: 0,
            budget: Budget::new(40 << 10),
        };
        for (budget, pieces) in [(40 << 10, (48 << 10) / 10 + 1), (0, (16 << 10) / 10 + 1)] {
            rules.budget = Budget::new(budget);
            let (count, dropped) = (Rc::default(), Rc::default());
            let tens = Tens { left: 100_000, taken: Rc::clone(&count), dropped };
            let mut ahead = read_ahead(Box::new(tens), None, &rules);
            settled().await;
            assert_eq!(count.get(), pieces, "bounded by the budget");
            let before = count.get();
            for _ in 0..before {
                let piece = poll_fn(|cx| ahead.poll_piece(cx)).await;
                assert!(piece.is_some());
            }
            settled().await;
            assert!(count.get() > before, "it goes on when it is read");
            drop(ahead);
            settled().await;
            assert_eq!(rules.budget.held(), 0);
        }
    }
}
