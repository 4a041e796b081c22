//! Heads of requests that other nodes send, as they are cut down for the parser.

use actix_http::HttpMessage;
use actix_http::header;

use super::Bytes;
use super::connections::parsed;
use crate::http::peer_head::PeerHead;
use crate::wire::headers;

/// Shorter ones have no line that is too long.
const SHORT: usize = 4 << 10;

/// What the parser gets of `head` in pieces of that size.
fn given(head: &[u8], size: usize) -> Vec<u8> {
    let mut peer_head = PeerHead::default();
    let parts = head.chunks(size).map(|part| peer_head.take(part).unwrap_or(part.to_vec()));
    parts.collect::<Vec<_>>().concat()
}

/// Whatever the pieces, the same is left of a head; and the parser, if it can read the whole one, sees
/// the same request.
pub(super) fn peer_head(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let size = bytes.one_of(60) + 1;
    let head = bytes.0;
    let cut = given(head, head.len().max(1));
    assert!(given(head, size) == cut, "in pieces of {size}");
    if head.len() >= SHORT {
        return;
    }
    let Some(whole) = parsed(head) else { return };
    let cut = parsed(&cut).expect("it can be read still");
    assert_eq!((cut.method(), cut.uri()), (whole.method(), whole.uri()));
    assert_eq!(cut.chunked().ok(), whole.chunked().ok());
    assert_eq!(cut.head().upgrade(), whole.head().upgrade());
    assert_eq!(cut.head().expect(), whole.head().expect());
    assert_eq!(cut.head().connection_type(), whole.head().connection_type());
    let names = [&header::CONTENT_LENGTH, &header::USER_AGENT, &headers::TRACING_ID];
    for name in names.into_iter().chain([&headers::TASK_TYPE, &headers::DEADLINE]) {
        assert!(cut.headers().get_all(name).eq(whole.headers().get_all(name)), "{name}");
    }
}
