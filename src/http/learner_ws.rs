//! The learner's WebSocket: a text frame with a state, `[1.0,0.0,2.0]`, is answered by one with the
//! action and the ε used, `1.00000,0.89100`. One answer per frame, in order. Any path.
//!
//! A session never pings and never closes an idle socket: v1's scheduler holds twenty and reads
//! none that is idle.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, StreamHandler, WrapFuture};
use actix_web::error::PayloadError;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use futures_util::StreamExt;

use super::errors;
use super::learner_api::LearnerWorker;
use crate::call::state::NodePhase;
use crate::connections::{self, Connection};
use crate::error::Error;
use crate::rl::FEATURES_MAX;
use crate::wire::frames::FrameWatch;
use crate::wire::json::{self, Bounds};

/// Bytes of a frame at most; also of a message in several.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// A state; one more feature than it may have is for the learner to refuse.
const STATE: Bounds = Bounds {
    bytes: FRAME_BYTES_MAX,
    depth: 1,
    entries: FEATURES_MAX + 1,
    string_bytes: 0,
    values: FEATURES_MAX + 2,
    long: &[],
};
/// Bytes of a closing reason, by the protocol.
const REASON_BYTES_MAX: usize = 123;

/// One client's session.
pub struct Session {
    worker: Rc<LearnerWorker>,
    /// The parts of a message that comes in several, as far as they have come.
    parts: Option<Vec<u8>>,
    /// Whether a frame began that is larger than it may be.
    too_large: Rc<Cell<bool>>,
}

/// `GET` of any path, with an upgrade.
pub async fn connect(
    request: HttpRequest,
    payload: web::Payload,
    worker: web::Data<Rc<LearnerWorker>>,
) -> HttpResponse {
    if request.method() != Method::GET {
        return errors::response(&Error::WrongMethod);
    }
    let too_large = Rc::new(Cell::new(false));
    let session =
        Session { worker: Rc::clone(&worker), parts: None, too_large: Rc::clone(&too_large) };
    let mut watch = FrameWatch::new(FRAME_BYTES_MAX as u64);
    let frames = payload.map(move |piece| {
        let piece = piece?;
        watch.came(&piece).map_err(|_| {
            too_large.set(true);
            PayloadError::Overflow
        })?;
        Ok(piece)
    });
    let started =
        ws::WsResponseBuilder::new(session, &request, frames).frame_size(FRAME_BYTES_MAX).start();
    if let (Ok(_), Some(connection)) = (&started, request.conn_data::<Arc<Connection>>()) {
        connection.enter(connections::Phase::Session, 0);
    }
    started.unwrap_or_else(|_| {
        let mut refused = errors::response(&Error::NotAWebSocket);
        let websocket = HeaderValue::from_static("websocket");
        refused.headers_mut().insert(header::UPGRADE, websocket);
        refused
    })
}

impl Actor for Session {
    type Context = ws::WebsocketContext<Self>;

    /// Ends with the node: an idle socket must not hold up its stop.
    fn started(&mut self, ctx: &mut Self::Context) {
        let mut phase = self.worker.node.phase.subscribe();
        let stopping = async move {
            // An error means that the node is gone altogether.
            let _ = phase.wait_for(|phase| *phase > NodePhase::Serving).await;
        };
        ctx.spawn(stopping.into_actor(self).map(|(), _, ctx| {
            close(ctx, ws::CloseCode::Away, "the node is stopping".to_owned());
        }));
    }
}

impl Session {
    /// The answer to a message.
    fn act(&self, message: &[u8]) -> Result<String, String> {
        let choice = self.worker.act(&read_state(message)?).map_err(|why| why.to_string())?;
        Ok(format!("{}.00000,{:.5}", choice.action, choice.epsilon))
    }

    fn answer(&self, message: &[u8], ctx: &mut <Self as Actor>::Context) {
        match self.act(message) {
            Ok(answer) => ctx.text(answer),
            Err(why) => close(ctx, ws::CloseCode::Unsupported, why),
        }
    }

    /// A part of a message, perhaps the last. `None`: none is under way.
    fn part(&mut self, part: &[u8], last: bool, ctx: &mut <Self as Actor>::Context) {
        let Some(mut parts) = self.parts.take() else { return };
        parts.extend_from_slice(part);
        if parts.len() > FRAME_BYTES_MAX {
            close(ctx, ws::CloseCode::Size, "the message is too large".to_owned());
        } else if last {
            self.answer(&parts, ctx);
        } else {
            self.parts = Some(parts);
        }
    }
}

/// Reads a message, `[1.0,0.0,2.0]`.
///
/// # Errors
/// It is none, in words.
pub(crate) fn read_state(message: &[u8]) -> Result<Vec<f64>, String> {
    json::read(message, &STATE).map_err(|why| format!("the message is no list of numbers: {why}"))
}

/// Closes with 1003 or what else fits, saying why.
fn close(ctx: &mut ws::WebsocketContext<Session>, code: ws::CloseCode, mut why: String) {
    let end = (0..=REASON_BYTES_MAX.min(why.len())).rev().find(|at| why.is_char_boundary(*at));
    why.truncate(end.unwrap_or(0));
    ctx.close(Some(ws::CloseReason { code, description: Some(why) }));
    ctx.stop();
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Session {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        use actix_web_actors::ws::{CloseCode, Message, ProtocolError};
        match message {
            Ok(Message::Text(text)) => self.answer(text.as_bytes(), ctx),
            Ok(Message::Ping(payload)) => ctx.pong(&payload),
            Ok(Message::Pong(_) | Message::Nop) => {}
            Ok(Message::Continuation(item)) => self.continued(item, ctx),
            Ok(Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Ok(Message::Binary(_)) => {
                close(ctx, CloseCode::Unsupported, "the message is no text".to_owned());
            }
            Err(ProtocolError::Io(_)) if self.too_large.get() => {
                close(ctx, CloseCode::Size, "the message is too large".to_owned());
            }
            Err(ProtocolError::Overflow) => {
                close(ctx, CloseCode::Size, "the message is too large".to_owned());
            }
            Err(ProtocolError::Io(_)) => ctx.stop(),
            Err(why) => close(ctx, CloseCode::Protocol, why.to_string()),
        }
    }
}

impl Session {
    fn continued(&mut self, item: actix_http::ws::Item, ctx: &mut <Self as Actor>::Context) {
        use actix_http::ws::Item;
        match item {
            Item::FirstText(part) => {
                self.parts = Some(Vec::new());
                self.part(&part, false, ctx);
            }
            Item::FirstBinary(_) => {
                let why = "the message is no text".to_owned();
                close(ctx, ws::CloseCode::Unsupported, why);
            }
            Item::Continue(part) => self.part(&part, false, ctx),
            Item::Last(part) => self.part(&part, true, ctx),
        }
    }
}
