//! Reading an answer's body to its proper end; `awc` takes the end of the connection for it.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use awc::ClientResponse;
use awc::error::PayloadError;
use awc::http::{StatusCode, Version, header};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use super::socket::ENDED;
use crate::connections::Bodies;
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::types::Cause;

/// Bytes up to which a body of a known length takes no share of a budget; in steps of as many the
/// others do.
const HELD_BYTES_MIN: u64 = 16 << 10;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
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
    /// Nothing came of it for so long.
    #[error("nothing came for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The request's own body failed meanwhile.
    #[error("{0}")]
    Request(#[source] Error),
    /// There is no room for it among the bodies and answers that the node holds.
    #[error("there is no room for the answer")]
    NoRoom,
    /// Anything else.
    #[error("{0}")]
    Unreadable(#[source] Cause),
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
    read(response, limit_bytes, None).await.map(|(body, _)| body)
}

/// The same within a budget: what there is no room for is not read on until there is. Small bodies
/// of a known length take no share.
///
/// # Errors
/// It is larger, not whole, or there is no room for it.
pub async fn read_held_body<S>(
    response: &mut ClientResponse<S>,
    limit_bytes: usize,
    bodies: &Bodies,
) -> Result<(Bytes, Option<Reservation>), BodyFailure>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    read(response, limit_bytes, Some(bodies)).await
}

/// Reads the body of `response` to its end, and keeps its first `keep_bytes`.
///
/// # Errors
/// It is not whole.
pub async fn read_start<S>(
    response: &mut ClientResponse<S>,
    keep_bytes: usize,
) -> Result<Bytes, BodyFailure>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let mut kept = BytesMut::new();
    if let Some(delimited) = delimited(response)? {
        while let Some(chunk) = next_chunk(response, delimited).await? {
            let room = keep_bytes - kept.len();
            kept.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        }
    }
    Ok(kept.freeze())
}

/// Whether the body of `response` tells its end; `None`: it has none.
fn delimited<S>(response: &ClientResponse<S>) -> Result<Option<bool>, BodyFailure> {
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
        return Ok(None);
    }
    if !delimited && response.version() == Version::HTTP_11 {
        return Err(BodyFailure::NoLength);
    }
    Ok(Some(delimited))
}

/// What comes next of a body; `None`: that was all.
async fn next_chunk<S>(
    response: &mut ClientResponse<S>,
    delimited: bool,
) -> Result<Option<Bytes>, BodyFailure>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let next = poll_fn(|cx| {
        // One poll touches this response's stream alone, so the mark is about it.
        ENDED.set(false);
        Pin::new(&mut *response).poll_next(cx).map(|next| (next, ENDED.get()))
    });
    match next.await {
        (None, ended) if ended && delimited => Err(BodyFailure::Truncated),
        (None, _) => Ok(None),
        (Some(Err(why)), _) => Err(BodyFailure::Unreadable(Cause::of(why.to_string()))),
        (Some(Ok(chunk)), _) => Ok(Some(chunk)),
    }
}

async fn read<S>(
    response: &mut ClientResponse<S>,
    limit_bytes: usize,
    bodies: Option<&Bodies>,
) -> Result<(Bytes, Option<Reservation>), BodyFailure>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    let Some(delimited) = delimited(response)? else { return Ok((Bytes::new(), None)) };
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit_bytes as u64) {
        return Err(BodyFailure::TooLarge(limit_bytes));
    }
    let mut held = None;
    if let Some(bodies) = bodies
        && length.is_none_or(|length| length > HELD_BYTES_MIN)
    {
        let bytes = length.unwrap_or(HELD_BYTES_MIN);
        held = Some(bodies.take_for_answer(bytes).await.ok_or(BodyFailure::NoRoom)?);
    }
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(chunk) = next_chunk(response, delimited).await? {
        let bytes = first.as_ref().map_or(0, Bytes::len) + rest.len() + chunk.len();
        if bytes > limit_bytes {
            return Err(BodyFailure::TooLarge(limit_bytes));
        }
        if let (Some(bodies), Some(held)) = (bodies, &mut held)
            && bytes as u64 > held.bytes()
        {
            let more = (bytes as u64 - held.bytes()).max(HELD_BYTES_MIN);
            held.join(bodies.take_for_answer(more).await.ok_or(BodyFailure::NoRoom)?);
        }
        match first {
            None => first = Some(chunk),
            Some(_) => rest.extend_from_slice(&chunk),
        }
    }
    let body = match first {
        None => Bytes::new(),
        // Most answers come in one piece and are handed on as it is.
        Some(whole) if rest.is_empty() => whole,
        Some(start) => [&start[..], &rest].concat().into(),
    };
    Ok((body, held))
}
