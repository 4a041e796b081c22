//! Reading an answer's body to its proper end; `awc` takes the end of the connection for it.

use std::future::poll_fn;
use std::pin::Pin;

use awc::ClientResponse;
use awc::error::PayloadError;
use awc::http::{StatusCode, Version, header};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use super::socket::ENDED;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFailure {
    /// It is larger than the limit.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// An HTTP/1.1 answer with neither length nor chunks; `awc` reads no body then.
    #[error("the answer tells neither its length nor that it comes in chunks")]
    NoLength,
    /// An answer that only announces another (1xx).
    #[error("an interim answer came in place of the final one")]
    Interim,
    /// The connection ended first.
    #[error("the connection was closed in the middle of the answer")]
    Truncated,
    /// Anything else.
    #[error("{0}")]
    Unreadable(String),
}

/// Reads the body of `response`, `limit_bytes` at most.
///
/// # Errors
/// It is larger, or not whole.
pub async fn read_body<S>(
    response: &mut ClientResponse<S>,
    limit_bytes: usize,
) -> Result<Bytes, BodyFailure>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    // Without a length and without chunks, a body ends with its connection.
    let delimited = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .iter()
        .any(|name| response.headers().contains_key(name));
    let status = response.status();
    if status.is_informational() {
        return Err(BodyFailure::Interim);
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        // These have no body, whatever length they tell; `awc` would wait for it.
        return Ok(Bytes::new());
    }
    if !delimited && response.version() == Version::HTTP_11 {
        return Err(BodyFailure::NoLength);
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let next = poll_fn(|cx| {
            // One poll touches this response's stream alone, so the mark is about it.
            ENDED.set(false);
            Pin::new(&mut *response).poll_next(cx).map(|next| (next, ENDED.get()))
        });
        let chunk = match next.await {
            (None, ended) if ended && delimited => return Err(BodyFailure::Truncated),
            (None, _) => break,
            (Some(Err(why)), _) => return Err(BodyFailure::Unreadable(why.to_string())),
            (Some(Ok(chunk)), _) => chunk,
        };
        let held = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if held + chunk.len() > limit_bytes {
            return Err(BodyFailure::TooLarge(limit_bytes));
        }
        match first {
            None => first = Some(chunk),
            Some(_) => rest.extend_from_slice(&chunk),
        }
    }
    Ok(match first {
        None => Bytes::new(),
        // Most answers come in one piece and are handed on as it is.
        Some(whole) if rest.is_empty() => whole,
        Some(start) => [&start[..], &rest].concat().into(),
    })
}
