//! A call as the message that a peer gets.

use actix_web::http::Method;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::Call;
use super::state::NodeState;
use crate::connections::Bodies;
use crate::error::Error;
use crate::memory::budget::Reservation;
use crate::queue::Refusal;
use crate::wire::{PeerHop, PeerRequest, Timings, headers};

/// Bytes of headers that a forwarded call may have before they take a share of the bodies' budget, and
/// how often those beyond are held while it is under way.
const HEADERS_COVERED: usize = 8 << 10;
const HEADERS_TIMES: usize = 3;

/// The call as a peer message. Made once, whoever it is sent to.
pub(super) async fn of(
    call: &Call,
    node: &NodeState,
    bodies: &Bodies,
) -> Result<(Bytes, Reservation), Error> {
    let invocation = &call.invocation;
    let me = node.published.load().identity.clone();
    let mut path = call.path.clone();
    path.push(PeerHop { machine_ip: me.ip_text(), machine_id: me.id, timings: Timings::default() });
    let mut passed = headers::to_json(&invocation.headers);
    let content_type = passed.remove("content-type");
    let request = PeerRequest {
        service_id_request: Some(node.next_request().into()),
        service_id_tracing: Some(call.tracing_id.clone()),
        function_name: Some(invocation.name.to_string()),
        hops: Some(i128::from(call.task.hops) + 1),
        peers_list: Some(path),
        payload: Some(BASE64_STANDARD.encode(&invocation.body)),
        content_type: Some(content_type.unwrap_or_default()),
        headers: Some(passed),
        method: (invocation.method != Method::POST).then(|| invocation.method.to_string()),
        query: (!invocation.query.is_empty()).then(|| invocation.query.clone()),
    };
    let body_bytes = request.payload.as_ref().map_or(0, String::len);
    let message = serde_json::to_vec(&request);
    let message = message.map_err(|why| Error::Internal(why.to_string()))?;
    // What the body takes, its own share stands for; its headers are held several times as well.
    let headers = message.len().saturating_sub(body_bytes);
    let bytes = headers.saturating_sub(HEADERS_COVERED).saturating_mul(HEADERS_TIMES);
    let held = bodies.take(bytes as u64, None).await;
    Ok((Bytes::from(message), held.ok_or(Refusal::BytesFull)?))
}
