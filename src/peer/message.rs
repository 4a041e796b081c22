//! A call as the JSON message that v1 nodes get.

use actix_web::http::Method;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::call::body::RequestBody;
use crate::call::forward::{Forward, ForwardFailure};
use crate::connections::Bodies;
use crate::memory::budget::Reservation;
use crate::types::Cause;
use crate::wire::{PeerRequest, headers};

/// Bytes of headers that a forwarded call may have before they take a share of the bodies' budget, and
/// how often those beyond are held while it is under way.
const HEADERS_COVERED: usize = 8 << 10;
const HEADERS_TIMES: usize = 3;

/// The call as a peer message.
pub(super) async fn of(
    call: &Forward<'_>,
    bodies: &Bodies,
) -> Result<(Bytes, Reservation), ForwardFailure> {
    let invocation = call.invocation;
    let RequestBody::Whole(body) = &invocation.body else {
        return Err(ForwardFailure::Refused(Cause::of("its bodies are whole")));
    };
    if invocation.upgrades || invocation.path != "/" {
        return Err(ForwardFailure::Refused(Cause::of(
            "its wire has neither paths nor WebSockets",
        )));
    }
    let mut passed = headers::to_json(&invocation.headers);
    let content_type = passed.remove("content-type");
    let request = PeerRequest {
        service_id_request: Some(call.number.into()),
        service_id_tracing: Some(call.tracing_id.to_owned()),
        function_name: Some(invocation.name.to_string()),
        hops: Some(call.hops.into()),
        peers_list: Some(call.path.to_vec()),
        payload: Some(BASE64_STANDARD.encode(body)),
        content_type: Some(content_type.unwrap_or_default()),
        headers: Some(passed),
        method: (invocation.method != Method::POST).then(|| invocation.method.to_string()),
        query: (!invocation.query.is_empty()).then(|| invocation.query.clone()),
    };
    let body_bytes = request.payload.as_ref().map_or(0, String::len);
    let message = serde_json::to_vec(&request);
    let message = message.map_err(|why| ForwardFailure::Refused(Cause::of(why)))?;
    // What the body takes, its own share stands for; its headers are held several times as well.
    let headers = message.len().saturating_sub(body_bytes);
    let bytes = headers.saturating_sub(HEADERS_COVERED).saturating_mul(HEADERS_TIMES);
    let held = bodies.take(bytes as u64, None).await;
    let no_room = || ForwardFailure::Refused(Cause::of("there is no room for its message here"));
    Ok((Bytes::from(message), held.ok_or_else(no_room)?))
}
