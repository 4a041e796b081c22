//! What nodes know of one another: one record a node, in two parts, each with a version that its owner alone
//! makes larger. Core: what is said comes in and goes out as bytes, time is passed in.
//!
//! What is new travels with SWIM's datagrams, from node to node. What was lost on the way is found by
//! comparing: every [`COMPARE`] a node tells another one a hash of all versions that it knows. If the other
//! one's differs, they compare halves of the range of addresses, and so on, until they can name what one of
//! them lacks (Meyer, *Range-Based Set Reconciliation*, 2023).
//!
//! A node takes records only of those that SWIM says are there, so there are no more than members.

mod codec;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::codec::{
    Comparison, Item, MAGIC, RANGES_MAX, Range, VERSIONS_MAX, content, fields, key, packed, with,
};
use super::swim::BadDatagram;
use crate::types::{NodeDescription, NodeRecord, Peer, RecordLoad, Saying};

/// How often a node compares what it knows with another one.
pub const COMPARE: Duration = Duration::from_secs(4);
/// Bytes of answers to those that compare, within [`COMPARE`] at most: the rest follows after the next
/// comparison, and whoever asks all the time is not heard.
const ANSWERS_BYTES_MAX: usize = 64 << 10;
/// Nodes that are not known to be there and are asked because others have their records, within [`COMPARE`]
/// at most.
const UNKNOWN_MAX: usize = 16;
/// How often a node says how busy it is at most, where it is alone, and how much more seldom for each member.
const SAY: Duration = Duration::from_millis(900);
const SAY_EACH: Duration = Duration::from_millis(10);

/// Larger versions than any clock gives are nobody's.
const VERSION_MAX: u64 = 1 << 60;

/// From so many percent of failing calls on, by its own word, a peer is left out; and where elsewhere fewer
/// fail by so many.
const FAILING: u8 = 50;
const MORE_THAN_OTHERS: u8 = 30;

/// Those of `peers` at which calls fail by their own word, and more than at others: at half of them at least.
pub fn failing(peers: &[Peer]) -> Vec<Arc<str>> {
    let share = |peer: &Peer| {
        let load = peer.record.as_ref().and_then(|record| record.load);
        load.map_or(0, |load| load.failing_percent)
    };
    let mut shares: Vec<u8> = peers.iter().map(share).collect();
    shares.sort_unstable();
    // Of an even number, the lower one in the middle: of two, one can be the better.
    let usual = match shares.len() {
        0 | 1 => 0,
        count => shares.get((count - 1) / 2).copied().unwrap_or_default(),
    };
    let fails = |peer: &&Peer| share(peer) >= FAILING.max(usual.saturating_add(MORE_THAN_OTHERS));
    peers.iter().filter(fails).map(|peer| Arc::clone(&peer.host)).collect()
}

/// The parts of a record. They change at times of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    About = 0,
    Load = 1,
}

/// What a part says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    About(NodeDescription),
    Load(RecordLoad, Saying),
}

/// A part as it was heard.
struct Heard {
    version: u64,
    /// When, and how old it was then.
    at: Duration,
    age: Duration,
    fields: Bytes,
}

/// One node's record, with what is known of its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgedRecord {
    /// Whose it is.
    pub owner: IpAddr,
    /// What it says.
    pub record: Arc<NodeRecord>,
    /// How long ago its owner said what it is.
    pub about_age: Option<Duration>,
    /// How long ago its owner said how busy it is.
    pub load_age: Option<Duration>,
}

/// What replaces what, in SWIM's datagrams: a part of a record, and which version of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ItemKey {
    owner: IpAddr,
    part: Part,
}

impl ItemKey {
    /// Of an item as it travels.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn of(item: &[u8]) -> Result<Self, BadDatagram> {
        Item::get(item).map(|Item { owner, part, .. }| Self { owner, part })
    }
}

impl foca::Invalidates for ItemKey {
    fn invalidates(&self, other: &Self) -> bool {
        // Only what is newer is taken at all.
        (self.owner, self.part) == (other.owner, other.part)
    }
}

/// All records that a node has heard, and its own.
pub struct Records {
    own: IpAddr,
    alive: BTreeSet<IpAddr>,
    parts: BTreeMap<(u128, Part), Heard>,
    read: BTreeMap<IpAddr, Arc<NodeRecord>>,
    version: u64,
    /// What this node last said of its load, its algorithm with it, and when.
    said: Option<(RecordLoad, Saying, Duration)>,
    /// Versions of its own parts that others have and this node has not: from before a restart.
    surpassed: BTreeMap<Part, u64>,
    compared: Option<Duration>,
    /// How far the next one to compare with is away in the order of addresses.
    stride: usize,
    /// Bytes of answers since the last comparison.
    answered: usize,
    /// Of whom others have records, and this node does not know that they are there.
    unknown: BTreeSet<IpAddr>,
    /// How many of them may still be named before the next comparison.
    unknown_left: usize,
}

impl Records {
    /// Of a node at `own` that knows nobody.
    pub fn new(own: IpAddr) -> Self {
        Self {
            own,
            alive: BTreeSet::new(),
            parts: BTreeMap::new(),
            read: BTreeMap::new(),
            version: 0,
            said: None,
            surpassed: BTreeMap::new(),
            compared: None,
            stride: 1,
            answered: 0,
            unknown: BTreeSet::new(),
            unknown_left: UNKNOWN_MAX,
        }
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the node at `ip` says of itself.
    pub fn of(&self, ip: IpAddr) -> Option<&Arc<NodeRecord>> {
        self.read.get(&ip)
    }

    /// All records, this node's among them, by address.
    pub fn all(&self, now: Duration) -> Vec<AgedRecord> {
        let age = |ip, part| {
            let heard = self.parts.get(&(key(ip), part))?;
            Some(heard.age + now.saturating_sub(heard.at))
        };
        let aged = |(ip, record): (&IpAddr, &Arc<NodeRecord>)| AgedRecord {
            owner: *ip,
            record: Arc::clone(record),
            about_age: age(*ip, Part::About),
            load_age: age(*ip, Part::Load),
        };
        self.read.iter().map(aged).collect()
    }

    /// A node is there: its record is taken.
    pub(super) fn up(&mut self, ip: IpAddr) {
        self.alive.insert(ip);
        if self.alive.len() == 1 {
            // Whoever finds the first other asks it for all.
            self.compared = None;
        }
    }

    /// A node is not there any more.
    pub(super) fn down(&mut self, ip: IpAddr) {
        self.alive.remove(&ip);
        self.forget(ip);
    }

    fn forget(&mut self, ip: IpAddr) {
        for part in [Part::About, Part::Load] {
            self.parts.remove(&(key(ip), part));
        }
        self.version += u64::from(self.read.remove(&ip).is_some());
    }

    /// This node has another address now.
    pub(super) fn moved(&mut self, ip: IpAddr) {
        self.forget(self.own);
        self.forget(ip);
        (self.own, self.said) = (ip, None);
        self.surpassed.clear();
    }

    /// What this node says of itself now; `unix_ms` makes its versions larger than those before a restart.
    /// Gives what the others are to be told.
    pub(super) fn say(
        &mut self,
        about: &NodeDescription,
        load: RecordLoad,
        saying: &Saying,
        now: Duration,
        unix_ms: u64,
    ) -> Vec<Bytes> {
        let rest = SAY + SAY_EACH * u32::try_from(self.alive.len()).unwrap_or(u32::MAX);
        let may_say = self.said.as_ref().is_none_or(|(said, said_so, at)| {
            let differs = load.differs_from(said) || saying != said_so;
            differs && now.saturating_sub(*at) >= rest.min(COMPARE * 4)
        });
        let surpassed = |part| self.surpassed.contains_key(&part);
        let says_load = may_say || surpassed(Part::Load);
        let own = self.read.get(&self.own).and_then(|record| record.about.as_ref());
        let says_about = own != Some(about) || surpassed(Part::About);
        let mut contents = Vec::new();
        if says_about {
            contents.push((Part::About, Content::About(about.clone())));
        }
        if says_load {
            self.said = Some((load, Arc::clone(saying), now));
            contents.push((Part::Load, Content::Load(load, Arc::clone(saying))));
        }
        contents
            .into_iter()
            .map(|(part, content)| {
                let had = self.parts.get(&(key(self.own), part)).map_or(0, |heard| heard.version);
                let had = had.max(self.surpassed.remove(&part).unwrap_or_default());
                let version = had.saturating_add(1).max(unix_ms).min(VERSION_MAX);
                let (owner, fields) = (self.own, fields(&content));
                let item = Item { age: Duration::ZERO, owner, part, version, fields };
                let mut bytes = BytesMut::new();
                item.put(&mut bytes);
                self.keep(item, content, now);
                bytes.freeze()
            })
            .collect()
    }

    fn keep(&mut self, item: Item, content: Content, now: Duration) {
        let Item { age, owner, part, version, fields } = item;
        self.parts.insert((key(owner), part), Heard { version, at: now, age, fields });
        let record = self.read.entry(owner).or_default();
        *record = Arc::new(with((**record).clone(), content));
        self.version += 1;
    }

    /// Takes a part of a record; `None`: it is not news, or not of anybody who is there.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn heard(
        &mut self,
        item: &[u8],
        now: Duration,
    ) -> Result<Option<ItemKey>, BadDatagram> {
        let item = Item::get(item)?;
        self.take(item, now)
    }

    fn take(&mut self, item: Item, now: Duration) -> Result<Option<ItemKey>, BadDatagram> {
        if item.version > VERSION_MAX {
            return Err(BadDatagram::Meaningless);
        }
        let content = content(item.part, &item.fields)?;
        let (owner, part) = (item.owner, item.part);
        let had = self.parts.get(&(key(owner), part)).map(|heard| heard.version);
        if had.is_some_and(|had| had >= item.version) {
            return Ok(None);
        }
        if owner == self.own {
            // Nothing that this node could say would be newer than the newest: then it says nothing.
            if item.version < VERSION_MAX {
                self.surpassed.insert(part, item.version);
            }
            return Ok(None);
        }
        if !self.alive.contains(&owner) {
            if self.unknown_left > 0 && self.unknown.insert(owner) {
                self.unknown_left -= 1;
            }
            return Ok(None);
        }
        self.keep(item, content, now);
        Ok(Some(ItemKey { owner, part }))
    }

    /// Whom to tell what, if it is time to compare again.
    pub(super) fn compare(&mut self, now: Duration) -> Option<(IpAddr, Bytes)> {
        if self.compared.is_some_and(|then| now.saturating_sub(then) < COMPARE) {
            return None;
        }
        let count = self.alive.len();
        let behind = self.alive.range(self.own..).count();
        // In the order of addresses, 1 further, then 2, 4, …: so what one knows all know after few rounds.
        let place = (count - behind + self.stride - 1).checked_rem(count)?;
        let to = *self.alive.iter().nth(place)?;
        self.stride = if self.stride * 2 > count { 1 } else { self.stride * 2 };
        (self.compared, self.answered, self.unknown_left) = (Some(now), 0, UNKNOWN_MAX);
        let all = Comparison::Hashes(vec![self.hashed(0, u128::MAX)]);
        Some((to, all.to_datagram()))
    }

    /// Those of whom others have records, and who are not known to be there: worth asking whether they are.
    pub(super) fn take_unknown(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.unknown)
    }

    /// Whether a datagram is one that compares records.
    pub(super) fn is_comparison(datagram: &[u8]) -> bool {
        datagram.starts_with(MAGIC)
    }

    /// A datagram that compares records came from `from`. Gives the answers, and what is news to others.
    ///
    /// # Errors
    /// It is none, or its sender is not there, or too many come.
    pub(super) fn compared(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        now: Duration,
    ) -> Result<Vec<Bytes>, BadDatagram> {
        let data = datagram.strip_prefix(MAGIC).ok_or(BadDatagram::Meaningless)?;
        if !self.alive.contains(&from) {
            return Err(BadDatagram::Foreign);
        }
        if self.answered >= ANSWERS_BYTES_MAX {
            return Err(BadDatagram::Full);
        }
        let answers = match Comparison::read(data)? {
            Comparison::Hashes(ranges) => self.differing(&ranges),
            Comparison::Versions(range, theirs) => self.lacking(range, &theirs, now),
            Comparison::Wanted(parts) => packed(self.items(parts, now)),
            Comparison::Items(items) => {
                for item in items {
                    self.take(item, now)?;
                }
                Vec::new()
            }
        };
        let mut datagrams = Vec::new();
        for datagram in answers.iter().map(Comparison::to_datagram) {
            self.answered += datagram.len();
            if self.answered > ANSWERS_BYTES_MAX {
                break;
            }
            datagrams.push(datagram);
        }
        Ok(datagrams)
    }

    /// What to say of ranges of which somebody else knows something else.
    fn differing(&self, ranges: &[Range]) -> Vec<Comparison> {
        let (mut halves, mut answers) = (Vec::new(), Vec::new());
        for range in ranges {
            if self.hashed(range.from, range.to) == *range {
                continue;
            }
            let known: Vec<_> = self.within(range.from, range.to).collect();
            if known.len() <= VERSIONS_MAX {
                answers.push(Comparison::Versions(*range, known));
                continue;
            }
            let middle = known.get(known.len() / 2).map_or(range.to, |(owner, ..)| *owner);
            // Both parts of one record stay together.
            for (from, to) in [(range.from, middle.saturating_sub(1)), (middle, range.to)] {
                if from <= to {
                    halves.push(self.hashed(from, to));
                }
            }
        }
        answers.extend(halves.chunks(RANGES_MAX).map(|some| Comparison::Hashes(some.to_vec())));
        answers
    }

    /// What somebody who knows `theirs` of a range lacks, and what it is asked for.
    fn lacking(&self, range: Range, theirs: &[codec::Version], now: Duration) -> Vec<Comparison> {
        let theirs: BTreeMap<_, _> =
            theirs.iter().map(|(owner, part, version)| ((*owner, *part), *version)).collect();
        let ours: BTreeMap<_, _> = self
            .within(range.from, range.to)
            .map(|(owner, part, version)| ((owner, part), version))
            .collect();
        let newer = |of: &BTreeMap<(u128, Part), u64>, than: &BTreeMap<(u128, Part), u64>| {
            let is_newer =
                |(at, version): &(&(u128, Part), &u64)| than.get(*at).is_none_or(|n| n < *version);
            of.iter().filter(is_newer).map(|(at, _)| *at).collect::<Vec<_>>()
        };
        let mut wanted = newer(&theirs, &ours);
        wanted.truncate(VERSIONS_MAX * 2);
        let mut answers = Vec::new();
        if !wanted.is_empty() {
            answers.push(Comparison::Wanted(wanted));
        }
        answers.extend(packed(self.items(newer(&ours, &theirs), now)));
        answers
    }

    fn items(&self, parts: Vec<(u128, Part)>, now: Duration) -> Vec<Item> {
        let item = |(owner, part)| {
            let heard = self.parts.get(&(owner, part))?;
            Some(Item {
                age: heard.age + now.saturating_sub(heard.at),
                owner: codec::address(owner),
                part,
                version: heard.version,
                fields: heard.fields.clone(),
            })
        };
        parts.into_iter().filter_map(item).collect()
    }

    fn within(&self, from: u128, to: u128) -> impl Iterator<Item = codec::Version> {
        let known = self.parts.range((from, Part::About)..=(to, Part::Load));
        known.map(|((owner, part), heard)| (*owner, *part, heard.version))
    }

    fn hashed(&self, from: u128, to: u128) -> Range {
        let parts = self.within(from, to);
        let hash = parts.fold(FNV_START, |hash, (owner, part, version)| {
            let bytes = owner.to_be_bytes().into_iter().chain([part as u8]);
            bytes
                .chain(version.to_be_bytes())
                .fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
        });
        Range { from, to, hash }
    }
}

/// FNV-1a of 64 bits: the same in every version of the program.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests;
