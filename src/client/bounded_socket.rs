//! A WebSocket from here, to a server that asks nothing and answers questions: bounded in bytes and times.

use std::time::Duration;

use actix_codec::{Decoder, Encoder, Framed};
use awc::BoxedSocket;
use awc::error::WsProtocolError as ProtocolError;
use awc::ws::{Codec, Frame, Message};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;

use crate::wire::frames::check_next;

/// What a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// Bytes of a frame that a server sends at most.
const FRAME_BYTES_MAX: u64 = 64 << 10;

/// Such a WebSocket.
pub type BoundedSocket = Framed<BoxedSocket, BoundedCodec>;

/// The protocol's codec, which waits for no frame that is too large.
pub struct BoundedCodec(Codec);

impl Decoder for BoundedCodec {
    type Item = Frame;
    type Error = ProtocolError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        // What is there begins with a frame's head: whole frames are taken off.
        check_next(from, FRAME_BYTES_MAX).map_err(|_| ProtocolError::Overflow)?;
        self.0.decode(from)
    }
}

impl Encoder<Message> for BoundedCodec {
    type Error = ProtocolError;

    fn encode(&mut self, message: Message, to: &mut BytesMut) -> Result<(), ProtocolError> {
        self.0.encode(message, to)
    }
}

/// Opens a WebSocket that takes no frame that is too large.
///
/// # Errors
/// Why it cannot be had, in words.
pub async fn connect(http: &awc::Client, url: &str) -> Result<BoundedSocket, String> {
    match timeout(HANDSHAKE, http.ws(url).connect()).await {
        Ok(Ok((_, socket))) => Ok(socket.into_map_codec(BoundedCodec)),
        Ok(Err(why)) => Err(format!("it cannot be connected to: {why}")),
        Err(_) => Err("it does not answer the handshake".to_owned()),
    }
}

/// Whether `messages` were sent in time, as few packets as can be. A server that reads nothing is given up like one
/// that is gone.
pub async fn sent(
    socket: &mut BoundedSocket,
    messages: impl IntoIterator<Item = Message>,
    patience: Duration,
) -> bool {
    let all = async {
        for message in messages {
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    matches!(timeout(patience, all).await, Ok(Ok(())))
}

/// The next text that comes. `None`: the socket has ended.
pub async fn answer(socket: &mut BoundedSocket) -> Option<Bytes> {
    loop {
        match socket.next().await?.ok()? {
            Frame::Text(text) => return Some(text),
            Frame::Ping(payload) => socket.send(Message::Pong(payload)).await.ok()?,
            Frame::Pong(_) => {}
            Frame::Binary(_) | Frame::Continuation(_) | Frame::Close(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_reads_nothing_is_given_up() {
        let (ours, _theirs) = tokio::net::UnixStream::pair().expect("sockets");
        let socket: BoxedSocket = Box::new(ours);
        let mut socket = Framed::new(socket, BoundedCodec(Codec::new().client_mode()));
        let frame = || [Message::Binary(vec![0; 1 << 16].into())];
        let patience = Duration::from_millis(10);
        let mut taken = 0;
        while sent(&mut socket, frame(), patience).await {
            taken += 1;
            assert!(taken < 1000, "the kernel's buffers are full by now");
        }
    }
}
