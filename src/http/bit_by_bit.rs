//! Long JSON that is written bit by bit as its client takes it, by a thread that may wait: as a whole
//! it may be several times what it is made of.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes that are handed on at once.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces that wait to be taken.
const PIECES_WAITING: usize = 2;

type Piece = io::Result<Bytes>;

/// The end that is written to.
struct Pieces {
    to: mpsc::Sender<Piece>,
    piece: BytesMut,
    /// After this, what its client has not taken is given up.
    until: Instant,
}

impl Pieces {
    fn hand_on(&mut self) -> io::Result<()> {
        if Instant::now() > self.until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let piece = self.piece.split().freeze();
        self.to.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.hand_on()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()
    }
}

/// The body that comes of it.
pub struct BitByBit(mpsc::Receiver<Piece>);

impl BitByBit {
    /// What `write` writes, within `limit`. Whatever goes along with `write` is dropped at its end.
    pub fn of(
        limit: Duration,
        write: impl FnOnce(&mut dyn Write) -> serde_json::Result<()> + Send + 'static,
    ) -> Self {
        let (to, from) = mpsc::channel(PIECES_WAITING);
        let now = Instant::now();
        let until = now.checked_add(limit).unwrap_or(now);
        drop(actix_rt::task::spawn_blocking(move || {
            let mut pieces = Pieces { to: to.clone(), piece: BytesMut::new(), until };
            let written = write(&mut pieces).map_err(io::Error::from);
            if let Err(why) = written.and_then(|()| pieces.flush()) {
                tracing::debug!(%why, "a long answer was not written to its end");
                // Nobody may be there any more. A body that ended here would look whole.
                let _ = to.try_send(Err(why));
            }
        }));
        Self(from)
    }
}

impl MessageBody for BitByBit {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.0.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;

    async fn next(body: &mut BitByBit) -> Option<Piece> {
        poll_fn(|cx| Pin::new(&mut *body).poll_next(cx)).await
    }

    #[actix_rt::test]
    async fn what_is_written_arrives_in_pieces_and_in_order() {
        let numbers: Vec<u32> = (0..100_000).collect();
        let wanted = serde_json::to_vec(&numbers).expect("JSON");
        let limit = Duration::from_secs(60);
        let mut body = BitByBit::of(limit, move |to| serde_json::to_writer(to, &numbers));
        let mut whole = Vec::new();
        while let Some(piece) = next(&mut body).await {
            let piece = piece.expect("written");
            assert!(piece.len() < 2 * PIECE_BYTES);
            whole.extend_from_slice(&piece);
        }
        assert!(whole == wanted);
    }

    #[actix_rt::test]
    async fn what_is_late_or_not_wanted_any_more_ends_without_looking_whole() {
        let mut late = BitByBit::of(Duration::ZERO, |to| serde_json::to_writer(to, "x"));
        assert!(next(&mut late).await.is_some_and(|piece| piece.is_err()));
        let along = Arc::new(());
        let held = Arc::clone(&along);
        let limit = Duration::from_secs(60);
        let body = BitByBit::of(limit, move |to| {
            let _held = held;
            loop {
                serde_json::to_writer(&mut *to, "x")?;
            }
        });
        drop(body);
        while Arc::strong_count(&along) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
