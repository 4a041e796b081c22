//! What is written to a connection under guard.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{COVERED_BYTES, Guarded, Stream, WRITE_BUFFER_MAX};
use crate::connections::{CONNECTION_BYTES, Phase};
use crate::error::RefusalKind;
use crate::http::last_words;

impl<S: Stream> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let phase = this.connection.phase();
        if phase == Phase::Head {
            // Nobody was asked: the parser answers by itself.
            this.connection.table().refused(RefusalKind::BadHead);
            this.connection.enter(Phase::Answering, 0);
            if let Some(error) = last_words::of_parser(buf) {
                this.say(&error);
                return Poll::Ready(Ok(buf.len()));
            }
        }
        if buf.len() > COVERED_BYTES {
            let wanted = CONNECTION_BYTES + buf.len().min(WRITE_BUFFER_MAX) as u64;
            // An answer is not given up for want of room: its body has a share of its own.
            let _ = this.connection.grow(&mut this.held, wanted);
        }
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.connection.wrote(polled.is_ready());
        match &polled {
            Poll::Ready(Ok(sent)) if *sent < buf.len() => this.connection.progressed(*sent),
            Poll::Ready(_) => {}
            // A last word is written as far as it goes at once.
            Poll::Pending
                if matches!(phase, Phase::Answering | Phase::Session | Phase::Streaming)
                    && this.connection.ended().is_some() =>
            {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            Poll::Pending => this.connection.waits(cx.waker()),
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes when it has handed on all that it had.
        if self.connection.phase() == Phase::Answering {
            self.connection.served();
            // The server waits for the next request and does not look whether there can be one.
            if self.connection.ended().is_some() || !self.connection.body_ended() {
                cx.waker().wake_by_ref();
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        // The server would wait for the client to end it, too, before it says so.
        match self.connection.session_is_over() {
            true => Pin::new(&mut self.io).poll_shutdown(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<S: Stream> Drop for Guarded<S> {
    fn drop(&mut self) {
        // Before others are told that there is room.
        self.held.shrink(0);
        self.connection.table().close(&self.connection);
    }
}
