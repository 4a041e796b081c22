//! SWIM's messages as datagrams: a few bytes of what protocol this is, then fixed fields, numbers in network
//! byte order. Whatever comes from outside is read within bounds, and refused whole if any part is wrong.

use std::net::IpAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use foca::{Header, Member, Message, State};

use super::SwimId;

/// What every datagram begins with: the protocol and its version.
pub(super) const MAGIC: &[u8; 4] = b"p2s\x01";
/// Bytes of a datagram at most: they pass every network whole.
pub const DATAGRAM_BYTES_MAX: usize = 1200;
/// Bytes of an encoded member at most.
const MEMBER_BYTES_MAX: usize = 1 + 16 + 8 + 2 + 1;

/// A datagram that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDatagram {
    /// It ends too early.
    #[error("it ends in the middle of a field")]
    Short,
    /// A field has a value that none has.
    #[error("a field has a value without meaning")]
    Meaningless,
    /// There is no room for what is to be written.
    #[error("there is no room for another member")]
    Full,
    /// It says that another sent it than did.
    #[error("it does not come from whom it says")]
    Foreign,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatagramCodec;

fn put_id(id: &SwimId, mut to: impl BufMut) {
    match id.ip {
        IpAddr::V4(ip) => {
            to.put_u8(4);
            to.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.put_u8(6);
            to.put_slice(&ip.octets());
        }
    }
    to.put_u64(id.generation);
}

fn get_id(from: &mut impl Buf) -> Result<SwimId, BadDatagram> {
    let short = |_| BadDatagram::Short;
    let ip = match from.try_get_u8().map_err(short)? {
        4 => {
            let mut octets = [0; 4];
            from.try_copy_to_slice(&mut octets).map_err(short)?;
            IpAddr::from(octets)
        }
        6 => {
            let mut octets = [0; 16];
            from.try_copy_to_slice(&mut octets).map_err(short)?;
            IpAddr::from(octets)
        }
        _ => return Err(BadDatagram::Meaningless),
    };
    Ok(SwimId { ip, generation: from.try_get_u64().map_err(short)? })
}

/// The number of each message, the member that it names, and its probe's number.
fn parts(message: &Message<SwimId>) -> (u8, Option<&SwimId>, Option<u8>) {
    match message {
        Message::Ping(number) => (0, None, Some(*number)),
        Message::Ack(number) => (1, None, Some(*number)),
        Message::PingReq { target, probe_number } => (2, Some(target), Some(*probe_number)),
        Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(*probe_number)),
        Message::IndirectAck { target, probe_number } => (4, Some(target), Some(*probe_number)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(*probe_number)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    }
}

fn get_message(from: &mut impl Buf) -> Result<Message<SwimId>, BadDatagram> {
    let short = |_| BadDatagram::Short;
    Ok(match from.try_get_u8().map_err(short)? {
        0 => Message::Ping(from.try_get_u8().map_err(short)?),
        1 => Message::Ack(from.try_get_u8().map_err(short)?),
        2 => {
            let target = get_id(from)?;
            Message::PingReq { target, probe_number: from.try_get_u8().map_err(short)? }
        }
        3 => {
            let origin = get_id(from)?;
            Message::IndirectPing { origin, probe_number: from.try_get_u8().map_err(short)? }
        }
        4 => {
            let target = get_id(from)?;
            Message::IndirectAck { target, probe_number: from.try_get_u8().map_err(short)? }
        }
        5 => {
            let origin = get_id(from)?;
            Message::ForwardedAck { origin, probe_number: from.try_get_u8().map_err(short)? }
        }
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        _ => return Err(BadDatagram::Meaningless),
    })
}

impl foca::Codec<SwimId> for DatagramCodec {
    type Error = BadDatagram;

    fn encode_header(
        &mut self,
        header: &Header<SwimId>,
        mut to: impl BufMut,
    ) -> Result<(), BadDatagram> {
        put_id(&header.src, &mut to);
        to.put_u16(header.src_incarnation);
        put_id(&header.dst, &mut to);
        let (kind, member, number) = parts(&header.message);
        to.put_u8(kind);
        if let Some(member) = member {
            put_id(member, &mut to);
        }
        if let Some(number) = number {
            to.put_u8(number);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut from: impl Buf) -> Result<Header<SwimId>, BadDatagram> {
        let src = get_id(&mut from)?;
        let src_incarnation = from.try_get_u16().map_err(|_| BadDatagram::Short)?;
        let dst = get_id(&mut from)?;
        Ok(Header { src, src_incarnation, dst, message: get_message(&mut from)? })
    }

    fn encode_member(
        &mut self,
        member: &Member<SwimId>,
        mut to: impl BufMut,
    ) -> Result<(), BadDatagram> {
        if to.remaining_mut() < MEMBER_BYTES_MAX {
            return Err(BadDatagram::Full);
        }
        put_id(member.id(), &mut to);
        to.put_u16(member.incarnation());
        to.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut from: impl Buf) -> Result<Member<SwimId>, BadDatagram> {
        let short = |_| BadDatagram::Short;
        let id = get_id(&mut from)?;
        let incarnation = from.try_get_u16().map_err(short)?;
        let state = match from.try_get_u8().map_err(short)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(BadDatagram::Meaningless),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

/// A ping from `own` to a suspect that says what is said of it.
pub(super) fn accusation(own: SwimId, suspect: &Member<SwimId>) -> Bytes {
    use foca::Codec;
    let message = Message::Ping(u8::MAX);
    let header = Header { src: own, src_incarnation: 0, dst: *suspect.id(), message };
    let mut to = BytesMut::from(&MAGIC[..]);
    // A buffer that grows has room.
    let _ = DatagramCodec.encode_header(&header, &mut to);
    to.put_u16(1);
    let _ = DatagramCodec.encode_member(suspect, &mut to);
    to.freeze()
}

/// Whom a datagram, without its [`MAGIC`], is for, and all members that it names.
///
/// # Errors
/// It is none.
pub(super) fn named(mut datagram: &[u8]) -> Result<(SwimId, Vec<SwimId>), BadDatagram> {
    use foca::Codec;
    let header = DatagramCodec.decode_header(&mut datagram)?;
    let mut ids = vec![header.src];
    ids.extend(parts(&header.message).1);
    if datagram.remaining() >= 2 && header.message != Message::Broadcast {
        for _ in 0..datagram.get_u16() {
            ids.push(*DatagramCodec.decode_member(&mut datagram)?.id());
        }
    }
    Ok((header.dst, ids))
}
