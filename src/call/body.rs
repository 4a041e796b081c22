//! Bodies on their way through the node, in pieces: a client's to a function or a peer, and the answer's
//! back. What is held of one is bounded, whatever its length.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::http::header::HeaderMap;
use bytes::{Bytes, BytesMut};

use crate::error::Error;

/// What comes of a body, piece by piece; `None`: that was all.
pub type NextPiece = Option<Result<Bytes, Error>>;

/// Where the rest of a request's body comes from.
pub trait BodySource {
    /// The next piece. After an error nothing more comes.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece>;

    /// Begins anew with the first byte, for another try; `false`: not all of it is held any more.
    fn rewind(&mut self) -> bool;

    /// Bytes of it that are held now, to be sent again.
    fn held_bytes(&self) -> usize;
}

/// A request's body.
#[derive(Clone)]
pub enum RequestBody {
    /// All of it is there.
    Whole(Bytes),
    /// It comes in pieces. Clones share them.
    Streamed {
        /// Where they come from.
        source: Rc<RefCell<dyn BodySource>>,
        /// How many bytes they will be together, where that was told.
        length: Option<u64>,
    },
}

impl RequestBody {
    /// A body of which nothing came.
    pub const EMPTY: Self = Self::Whole(Bytes::new());

    /// Its length, as far as it is known before all of it has come.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Whole(body) => Some(body.len() as u64),
            Self::Streamed { length, .. } => *length,
        }
    }

    /// Bytes of it that the node holds for as long as the call waits.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Whole(body) => body.len(),
            Self::Streamed { source, .. } => source.borrow().held_bytes(),
        }
    }

    /// Makes it ready for another try; `false`: part of it is gone.
    #[must_use]
    pub fn rewind(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Streamed { source, .. } => source.borrow_mut().rewind(),
        }
    }

    /// The next piece of one that is streamed.
    pub fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<NextPiece> {
        match self {
            Self::Whole(_) => Poll::Ready(None),
            Self::Streamed { source, .. } => source.borrow_mut().poll_piece(cx),
        }
    }

    /// Reads all of it, for who needs it whole.
    ///
    /// # Errors
    /// It is larger than `limit_bytes`, or does not come to its end.
    pub async fn collect(self, limit_bytes: usize) -> Result<Bytes, Error> {
        let too_large = Err(Error::BodyTooLarge { limit_bytes });
        if let Self::Whole(body) = self {
            return if body.len() > limit_bytes { too_large } else { Ok(body) };
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| self.poll_piece(cx)).await {
            whole.extend_from_slice(&piece?);
            if whole.len() > limit_bytes {
                return too_large;
            }
        }
        Ok(whole.freeze())
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(body) => write!(f, "{} bytes", body.len()),
            Self::Streamed { length, .. } => write!(f, "a stream of {length:?} bytes"),
        }
    }
}

/// An answer's body that is not whole yet.
pub trait AnswerStream {
    /// The next piece. After an error nothing more comes, and the client is shown that the answer is
    /// not whole.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<NextPiece>;

    /// Ready once the answer is given up, though nobody has room for its next piece.
    fn poll_given_up(&mut self, _cx: &mut Context<'_>) -> Poll<Error> {
        Poll::Pending
    }

    /// Headers that came behind it.
    fn trailers(&mut self) -> HeaderMap {
        HeaderMap::new()
    }
}

/// An answer's body.
pub enum AnswerBody {
    /// All of it is there.
    Whole(Bytes),
    /// It comes in pieces.
    Streamed {
        /// Where they come from.
        stream: Box<dyn AnswerStream>,
        /// How many bytes they will be together, where that was told.
        length: Option<u64>,
    },
    /// There is none, for the request asked for none (HEAD) or the client has it already (304); an
    /// answer with a body would have had so many bytes.
    LeftOut {
        /// What the function told.
        length: Option<u64>,
    },
    /// What the function and the client say to each other from now on, on a connection of their own
    /// making: a WebSocket.
    Upgraded(Box<dyn AnswerStream>),
}

impl AnswerBody {
    /// An empty one.
    pub const EMPTY: Self = Self::Whole(Bytes::new());

    /// Reads all of it, for who needs it whole.
    ///
    /// # Errors
    /// It is larger than `limit_bytes`, or does not come to its end.
    pub async fn collect(self, limit_bytes: usize) -> Result<Bytes, Error> {
        let (mut stream, length) = match self {
            Self::Whole(body) => return Ok(body),
            Self::Streamed { stream, length } => (stream, length),
            Self::Upgraded(stream) => (stream, None),
            Self::LeftOut { .. } => return Ok(Bytes::new()),
        };
        let too_large = || Error::AnswerTooLarge { limit_bytes };
        if length.is_some_and(|length| length > limit_bytes as u64) {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| stream.poll_piece(cx)).await {
            whole.extend_from_slice(&piece?);
            if whole.len() > limit_bytes {
                return Err(too_large());
            }
        }
        Ok(whole.freeze())
    }
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(body) => write!(f, "{} bytes", body.len()),
            Self::Streamed { length, .. } => write!(f, "a stream of {length:?} bytes"),
            Self::LeftOut { length } => write!(f, "no body, of {length:?} bytes"),
            Self::Upgraded(_) => write!(f, "a connection"),
        }
    }
}
