//! Records as bytes: fields with a number and a length each, so that a node passes on what it does not know
//! yet; numbers in network byte order. Whatever comes from outside is read within bounds, and refused whole
//! if any part is wrong.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Content, Part};
use crate::membership::swim::{BadDatagram, DATAGRAM_BYTES_MAX};
use crate::types::{
    NAME_BYTES_MAX, NodeDescription, NodeRecord, RecordLoad, SAYING_BYTES_MAX, Saying,
};

/// What every datagram that compares records begins with: the protocol and its version.
pub(super) const MAGIC: &[u8; 4] = b"p2r\x01";
/// Bytes of a part at most: it fits in a datagram of SWIM's.
pub(super) const PART_BYTES_MAX: usize = 1000;
/// Versions that one datagram holds at most.
pub(super) const VERSIONS_MAX: usize = 24;
/// Ranges that one datagram holds at most.
pub(super) const RANGES_MAX: usize = 8;

const SHORT: BadDatagram = BadDatagram::Short;
const MEANINGLESS: BadDatagram = BadDatagram::Meaningless;

const NAME: u8 = 1;
const GROUP: u8 = 2;
const SOFTWARE: u8 = 3;
const PROTOCOL: u8 = 4;
const FUNCTIONS: u8 = 5;
const TLS_PORT: u8 = 6;
const K: u8 = 1;
const RUNNING: u8 = 2;
const WAITING: u8 = 3;
const FAILING: u8 = 4;
const SAYING: u8 = 5;

/// An address in the order in which ranges of them are compared.
pub(super) fn key(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

pub(super) fn address(key: u128) -> IpAddr {
    IpAddr::from(Ipv6Addr::from_bits(key)).to_canonical()
}

/// A part of a record as it travels: how long ago it was said, whose it is, which version, and the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) age: Duration,
    pub(super) owner: IpAddr,
    pub(super) part: Part,
    pub(super) version: u64,
    pub(super) fields: Bytes,
}

/// Bytes before an item's fields.
const HEAD_BYTES: usize = 4 + 1 + 16 + 8;

impl Item {
    pub(super) fn put(&self, to: &mut BytesMut) {
        to.put_u32(u32::try_from(self.age.as_millis()).unwrap_or(u32::MAX));
        to.put_u8(self.part as u8);
        to.put_u128(key(self.owner));
        to.put_u64(self.version);
        to.put_slice(&self.fields);
    }

    pub(super) fn bytes(&self) -> usize {
        HEAD_BYTES + self.fields.len()
    }

    pub(super) fn get(mut from: &[u8]) -> Result<Self, BadDatagram> {
        if from.len() > HEAD_BYTES + PART_BYTES_MAX {
            return Err(MEANINGLESS);
        }
        let age = Duration::from_millis(from.try_get_u32().map_err(|_| SHORT)?.into());
        let part = match from.try_get_u8().map_err(|_| SHORT)? {
            0 => Part::About,
            1 => Part::Load,
            _ => return Err(MEANINGLESS),
        };
        let owner = address(from.try_get_u128().map_err(|_| SHORT)?);
        let version = from.try_get_u64().map_err(|_| SHORT)?;
        Ok(Self { age, owner, part, version, fields: Bytes::copy_from_slice(from) })
    }
}

fn field(to: &mut BytesMut, number: u8, value: &[u8]) {
    to.put_u8(number);
    // No value is longer than a part.
    to.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
    to.put_slice(value);
}

/// What a part says, as fields.
pub(super) fn fields(content: &Content) -> Bytes {
    let mut to = BytesMut::new();
    match content {
        Content::About(about) => {
            field(&mut to, NAME, about.name.as_bytes());
            field(&mut to, GROUP, about.group.as_bytes());
            field(&mut to, SOFTWARE, about.software.as_bytes());
            field(&mut to, PROTOCOL, &[about.protocol]);
            if let Some(port) = about.tls_port {
                field(&mut to, TLS_PORT, &port.to_be_bytes());
            }
            if let Some(functions) = &about.functions {
                let mut all = BytesMut::new();
                for function in functions {
                    let Ok(length) = u8::try_from(function.len()) else { continue };
                    // 3: the number and length of the field itself.
                    if to.len() + 3 + all.len() + 1 + function.len() > PART_BYTES_MAX {
                        break;
                    }
                    all.put_u8(length);
                    all.put_slice(function.as_bytes());
                }
                field(&mut to, FUNCTIONS, &all);
            }
        }
        Content::Load(load, saying) => {
            field(&mut to, K, &load.k.to_be_bytes());
            field(&mut to, RUNNING, &load.running.to_be_bytes());
            field(&mut to, WAITING, &load.waiting.to_be_bytes());
            field(&mut to, FAILING, &[load.failing_percent]);
            if !saying.is_empty() && saying.len() <= SAYING_BYTES_MAX {
                field(&mut to, SAYING, saying);
            }
        }
    }
    to.freeze()
}

fn text(value: &[u8]) -> Result<String, BadDatagram> {
    let text = std::str::from_utf8(value).map_err(|_| MEANINGLESS)?;
    let is_one = text.len() <= NAME_BYTES_MAX && text.bytes().all(|c| (b' '..=b'~').contains(&c));
    is_one.then(|| text.to_owned()).ok_or(MEANINGLESS)
}

fn number(value: &[u8]) -> Result<u32, BadDatagram> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| MEANINGLESS)
}

fn port(value: &[u8]) -> Result<u16, BadDatagram> {
    value.try_into().map(u16::from_be_bytes).map_err(|_| MEANINGLESS)
}

fn byte(value: &[u8]) -> Result<u8, BadDatagram> {
    match value {
        [byte] => Ok(*byte),
        _ => Err(MEANINGLESS),
    }
}

fn names(mut value: &[u8]) -> Result<Vec<String>, BadDatagram> {
    let mut all = Vec::new();
    while let Some((length, rest)) = value.split_first() {
        let (name, rest) = rest.split_at_checked((*length).into()).ok_or(SHORT)?;
        all.push(text(name)?);
        value = rest;
    }
    Ok(all)
}

/// What the fields of a part say. Unknown ones are left to those that know them.
///
/// # Errors
/// They are none.
pub(super) fn content(part: Part, mut fields: &[u8]) -> Result<Content, BadDatagram> {
    let (mut about, mut load) = (NodeDescription::default(), RecordLoad::default());
    let mut saying = Saying::default();
    while fields.has_remaining() {
        let number_of = fields.get_u8();
        let length = fields.try_get_u16().map_err(|_| SHORT)?;
        let (value, rest) = fields.split_at_checked(length.into()).ok_or(SHORT)?;
        match (part, number_of) {
            (Part::About, NAME) => about.name = text(value)?,
            (Part::About, GROUP) => about.group = text(value)?,
            (Part::About, SOFTWARE) => about.software = text(value)?,
            (Part::About, PROTOCOL) => about.protocol = byte(value)?,
            (Part::About, TLS_PORT) => about.tls_port = Some(port(value)?),
            (Part::About, FUNCTIONS) => about.functions = Some(names(value)?),
            (Part::Load, K) => load.k = number(value)?,
            (Part::Load, RUNNING) => load.running = number(value)?,
            (Part::Load, WAITING) => load.waiting = number(value)?,
            (Part::Load, FAILING) => load.failing_percent = byte(value)?.min(100),
            (Part::Load, SAYING) if value.len() > SAYING_BYTES_MAX => return Err(MEANINGLESS),
            (Part::Load, SAYING) => saying = value.into(),
            _ => {}
        }
        fields = rest;
    }
    Ok(match part {
        Part::About => Content::About(about),
        Part::Load => Content::Load(load, saying),
    })
}

/// `record` with what `content` says.
pub(super) fn with(mut record: NodeRecord, content: Content) -> NodeRecord {
    match content {
        Content::About(about) => record.about = Some(about),
        Content::Load(load, saying) => (record.load, record.saying) = (Some(load), saying),
    }
    record
}

/// Records of a range of addresses, both ends within: how many parts, and a hash of their versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: u128,
    pub(super) to: u128,
    pub(super) hash: u64,
}

/// A part of a record and its version.
pub(super) type Version = (u128, Part, u64);

/// What nodes say to each other to find what one of them has missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Hashes of what the sender knows. Who knows something else says more of it.
    Hashes(Vec<Range>),
    /// All that the sender knows of a range.
    Versions(Range, Vec<Version>),
    /// What the sender wants to have.
    Wanted(Vec<(u128, Part)>),
    /// What the other does not know yet.
    Items(Vec<Item>),
}

fn part(from: &mut impl Buf) -> Result<Part, BadDatagram> {
    match from.try_get_u8().map_err(|_| SHORT)? {
        0 => Ok(Part::About),
        1 => Ok(Part::Load),
        _ => Err(MEANINGLESS),
    }
}

fn range(from: &mut impl Buf) -> Result<Range, BadDatagram> {
    let (first, last) = (from.try_get_u128(), from.try_get_u128());
    let hash = from.try_get_u64();
    let range = Range {
        from: first.map_err(|_| SHORT)?,
        to: last.map_err(|_| SHORT)?,
        hash: hash.map_err(|_| SHORT)?,
    };
    (range.from <= range.to).then_some(range).ok_or(MEANINGLESS)
}

fn put_range(range: &Range, to: &mut BytesMut) {
    to.put_u128(range.from);
    to.put_u128(range.to);
    to.put_u64(range.hash);
}

impl Comparison {
    pub(super) fn to_datagram(&self) -> Bytes {
        let mut to = BytesMut::from(&MAGIC[..]);
        match self {
            // What is said most often takes least.
            Self::Hashes(ranges)
                if matches!(ranges[..], [Range { from: 0, to: u128::MAX, .. }]) =>
            {
                to.put_u8(0);
                ranges.iter().for_each(|range| to.put_u64(range.hash));
            }
            Self::Hashes(ranges) => {
                to.put_u8(1);
                ranges.iter().for_each(|range| put_range(range, &mut to));
            }
            Self::Versions(range, versions) => {
                to.put_u8(2);
                put_range(range, &mut to);
                for (owner, part, version) in versions {
                    to.put_u128(*owner);
                    to.put_u8(*part as u8);
                    to.put_u64(*version);
                }
            }
            Self::Wanted(parts) => {
                to.put_u8(3);
                for (owner, part) in parts {
                    to.put_u128(*owner);
                    to.put_u8(*part as u8);
                }
            }
            Self::Items(items) => {
                to.put_u8(4);
                for item in items {
                    to.put_u16(u16::try_from(item.bytes()).unwrap_or(u16::MAX));
                    item.put(&mut to);
                }
            }
        }
        to.freeze()
    }

    /// What a datagram, without its [`MAGIC`], says.
    ///
    /// # Errors
    /// It is none, or says more than one may.
    pub(super) fn read(mut from: &[u8]) -> Result<Self, BadDatagram> {
        let kind = from.try_get_u8().map_err(|_| SHORT)?;
        let mut ranges = Vec::new();
        match kind {
            0 => {
                let hash = from.try_get_u64().map_err(|_| SHORT)?;
                let all = Range { from: 0, to: u128::MAX, hash };
                if from.is_empty() { Ok(Self::Hashes(vec![all])) } else { Err(MEANINGLESS) }
            }
            1 => {
                while from.has_remaining() && ranges.len() < RANGES_MAX {
                    ranges.push(range(&mut from)?);
                }
                if from.is_empty() { Ok(Self::Hashes(ranges)) } else { Err(MEANINGLESS) }
            }
            2 => {
                let (of, mut versions) = (range(&mut from)?, Vec::new());
                while from.has_remaining() {
                    let owner = from.try_get_u128().map_err(|_| SHORT)?;
                    let part = part(&mut from)?;
                    versions.push((owner, part, from.try_get_u64().map_err(|_| SHORT)?));
                }
                Ok(Self::Versions(of, versions))
            }
            3 => {
                let mut parts = Vec::new();
                while from.has_remaining() {
                    let owner = from.try_get_u128().map_err(|_| SHORT)?;
                    parts.push((owner, part(&mut from)?));
                }
                Ok(Self::Wanted(parts))
            }
            4 => {
                let mut items = Vec::new();
                while from.has_remaining() {
                    let length = from.try_get_u16().map_err(|_| SHORT)?;
                    let (item, rest) = from.split_at_checked(length.into()).ok_or(SHORT)?;
                    items.push(Item::get(item)?);
                    from = rest;
                }
                Ok(Self::Items(items))
            }
            _ => Err(MEANINGLESS),
        }
    }
}

/// Items as few datagrams, none too long.
pub(super) fn packed(items: Vec<Item>) -> Vec<Comparison> {
    let (mut all, mut now, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let more = 2 + item.bytes();
        if bytes + more > DATAGRAM_BYTES_MAX - MAGIC.len() - 1 {
            all.push(Comparison::Items(std::mem::take(&mut now)));
            bytes = 0;
        }
        bytes += more;
        now.push(item);
    }
    if !now.is_empty() {
        all.push(Comparison::Items(now));
    }
    all
}
