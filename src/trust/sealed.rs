//! Datagrams that only members can read and make; and the greetings with which they begin a connection.
//!
//! ```text
//! "P2S" 1 | key id 4 | session 16 | number 8 | sealed: time 8, what is said | tag 16
//! ```
//!
//! A sender draws a session of 16 random bytes when it starts, and numbers its datagrams. What seals a
//! datagram is ChaCha20-Poly1305 (RFC 8439) with a key that is derived of the cluster key and the session, and
//! the number as its nonce: so no nonce comes twice under one key. The head and the receiver's address are
//! authenticated with it, so that nobody can send a datagram on to another node. Of each session it is
//! remembered which numbers have come, for as long as the times in them are believed
//! ([`CLOCKS_APART_MAX`]): a datagram acts once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::key::DerivedKeys;
use super::replays::NumbersSeen;
use super::{CLOCKS_APART_MAX, ClusterKeys, KeyId};

/// What every sealed datagram begins with: the form and its version.
const MAGIC: [u8; 4] = *b"P2S\x01";
/// Bytes of a session's name.
pub const SESSION_BYTES: usize = 16;
const HEAD_BYTES: usize = MAGIC.len() + 4 + SESSION_BYTES + 8;
const TIME_BYTES: usize = 8;
/// Bytes that a datagram is longer by for being sealed.
pub const SEAL_BYTES: usize = HEAD_BYTES + TIME_BYTES + 16;
/// Sessions that are remembered. Only members can begin one, each when it starts.
const SESSIONS_MAX: usize = 8192;

/// Why a datagram is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It is not sealed.
    #[error("it is not sealed")]
    Open,
    /// It is sealed with a key that is not in force here.
    #[error("it is sealed with another key")]
    OtherKey,
    /// It is not what a member sent here.
    #[error("it is forged")]
    Forged,
    /// Its time is too far from this node's.
    #[error("its time differs by {} s from this node's", .0.as_secs())]
    Time(Duration),
    /// It has come before.
    #[error("it has come before")]
    Replayed,
    /// There are too many sessions.
    #[error("too many nodes have started within a short time")]
    Sessions,
}

impl NotOpened {
    /// Whether a member has sent it: now, and it is refused all the same.
    pub fn is_of_member(self) -> bool {
        matches!(self, Self::Time(_) | Self::Sessions)
    }
}

fn aead(keys: &DerivedKeys, session: &[u8; SESSION_BYTES]) -> Option<LessSafeKey> {
    let of: [&[u8]; 1] = [session];
    let derived = keys.datagrams.expand(&of, &CHACHA20_POLY1305).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(derived)))
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some(end) = nonce.last_chunk_mut() {
        *end = number.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

/// What is authenticated beside what is sealed: the head, and whom it is for.
fn beside(head: &[u8; HEAD_BYTES], to: IpAddr) -> Aad<[u8; HEAD_BYTES + 16]> {
    let to = match to.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut all = [0; HEAD_BYTES + 16];
    let (first, last) = all.split_at_mut(HEAD_BYTES);
    first.copy_from_slice(head);
    last.copy_from_slice(&to.octets());
    Aad::from(all)
}

/// Seals what this node sends.
pub struct Sealer {
    session: [u8; SESSION_BYTES],
    /// The number of the next datagram.
    next: u64,
    /// What seals now, and of which key it was derived.
    with: Option<(KeyId, LessSafeKey)>,
}

impl Sealer {
    /// Whose session is `session`, which chance made.
    pub fn new(session: [u8; SESSION_BYTES]) -> Self {
        Self { session, next: 0, with: None }
    }

    /// Seals `said` for the node at `to`. `None`: there is no key.
    pub fn seal(
        &mut self,
        keys: &ClusterKeys,
        to: IpAddr,
        unix: Duration,
        said: &[u8],
    ) -> Option<Vec<u8>> {
        let key = keys.sealing()?;
        if self.with.as_ref().is_none_or(|(id, _)| *id != key.id) {
            self.with = Some((key.id, aead(key, &self.session)?));
        }
        let (_, aead) = self.with.as_ref()?;
        let number = self.next;
        self.next = number.checked_add(1)?;
        let mut datagram = Vec::with_capacity(SEAL_BYTES + said.len());
        datagram.extend_from_slice(&MAGIC);
        datagram.extend_from_slice(&key.id.0);
        datagram.extend_from_slice(&self.session);
        datagram.extend_from_slice(&number.to_be_bytes());
        let beside = beside(datagram.first_chunk()?, to);
        let time = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        datagram.extend_from_slice(&time.to_be_bytes());
        datagram.extend_from_slice(said);
        let text = datagram.get_mut(HEAD_BYTES..)?;
        let tag = aead.seal_in_place_separate_tag(nonce(number), beside, text).ok()?;
        datagram.extend_from_slice(tag.as_ref());
        Some(datagram)
    }
}

/// A sender since it started.
struct Session {
    aead: LessSafeKey,
    seen: NumbersSeen,
    /// The latest time in its datagrams.
    latest: Duration,
}

/// Opens what comes to this node.
#[derive(Default)]
pub struct Opener {
    sessions: HashMap<(KeyId, [u8; SESSION_BYTES]), Session>,
}

impl Opener {
    /// What a member said in `datagram` to this node, whose address is `own`.
    ///
    /// # Errors
    /// Nobody did, or it has come before.
    pub fn open(
        &mut self,
        keys: &ClusterKeys,
        own: IpAddr,
        unix: Duration,
        datagram: &[u8],
    ) -> Result<Vec<u8>, NotOpened> {
        let (head, sealed) = datagram.split_first_chunk::<HEAD_BYTES>().ok_or(NotOpened::Open)?;
        let rest = head.strip_prefix(&MAGIC).ok_or(NotOpened::Open)?;
        let (id, rest) = rest.split_first_chunk::<4>().ok_or(NotOpened::Open)?;
        let (session, rest) = rest.split_first_chunk::<SESSION_BYTES>().ok_or(NotOpened::Open)?;
        let number = u64::from_be_bytes(*rest.first_chunk().ok_or(NotOpened::Open)?);
        let key = keys.of(KeyId(*id)).ok_or(NotOpened::OtherKey)?;
        let known = self.sessions.get_mut(&(key.id, *session));
        let new = match &known {
            Some(_) => None,
            None => Some(aead(key, session).ok_or(NotOpened::Forged)?),
        };
        let aead = known.as_ref().map(|known| &known.aead).or(new.as_ref());
        let mut said = sealed.to_vec();
        let text = aead
            .and_then(|aead| aead.open_in_place(nonce(number), beside(head, own), &mut said).ok())
            .ok_or(NotOpened::Forged)?;
        let (time, _) = text.split_first_chunk::<TIME_BYTES>().ok_or(NotOpened::Forged)?;
        let time = Duration::from_millis(u64::from_be_bytes(*time));
        let apart = time.abs_diff(unix);
        if apart > CLOCKS_APART_MAX {
            return Err(NotOpened::Time(apart));
        }
        let length = text.len();
        let session = match (known, new) {
            (Some(known), _) => known,
            (None, Some(aead)) => self.begin((key.id, *session), aead, unix)?,
            (None, None) => return Err(NotOpened::Forged),
        };
        session.latest = session.latest.max(time);
        match session.seen.take(number) {
            true => {
                said.truncate(length);
                Ok(said.split_off(TIME_BYTES))
            }
            false => Err(NotOpened::Replayed),
        }
    }

    fn begin(
        &mut self,
        session: (KeyId, [u8; SESSION_BYTES]),
        aead: LessSafeKey,
        unix: Duration,
    ) -> Result<&mut Session, NotOpened> {
        if self.sessions.len() >= SESSIONS_MAX {
            // Nothing of these is believed any more.
            self.sessions.retain(|_, session| session.latest + CLOCKS_APART_MAX >= unix);
        }
        let room = self.sessions.len() < SESSIONS_MAX;
        match self.sessions.entry(session) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(free) if room => {
                let (seen, latest) = (NumbersSeen::default(), Duration::ZERO);
                Ok(free.insert(Session { aead, seen, latest }))
            }
            Entry::Vacant(_) => Err(NotOpened::Sessions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClusterKey;
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn key(n: u8) -> ClusterKey {
        ClusterKey::new(std::array::from_fn(|at| n.wrapping_mul(31).wrapping_add(at as u8 * 7)))
    }

    fn keys(all: &[u8]) -> ClusterKeys {
        ClusterKeys::new(&all.iter().map(|n| key(*n)).collect::<Vec<_>>(), "fog")
    }

    fn sealer(n: u8) -> Sealer {
        Sealer::new([n; SESSION_BYTES])
    }

    #[test]
    fn what_a_member_says_is_heard_once_and_by_whom_it_is_for() {
        let (keys, mut from, mut to) = (keys(&[1]), sealer(1), Opener::default());
        let datagram = from.seal(&keys, A, NOW, b"hello").expect("a key");
        assert_eq!(datagram.len(), SEAL_BYTES + 5);
        assert!(!datagram.windows(5).any(|part| part == b"hello"), "nobody else reads it");
        assert_eq!(to.open(&keys, B, NOW, &datagram), Err(NotOpened::Forged), "not for this node");
        assert_eq!(to.open(&keys, A, NOW, &datagram).as_deref(), Ok(&b"hello"[..]));
        assert_eq!(to.open(&keys, A, NOW, &datagram), Err(NotOpened::Replayed));
        let mapped = IpAddr::V6("::ffff:10.0.0.1".parse().expect("an address"));
        let next = from.seal(&keys, A, NOW, b"").expect("a key");
        assert_eq!(to.open(&keys, mapped, NOW, &next).as_deref(), Ok(&b""[..]), "the same address");
    }

    #[test]
    fn times_that_differ_too_much_are_refused_both_ways() {
        let (keys, mut from) = (keys(&[1]), sealer(1));
        let datagram = from.seal(&keys, A, NOW, b"hello").expect("a key");
        let at = |unix| Opener::default().open(&keys, A, unix, &datagram).map(drop);
        let second = Duration::from_secs(1);
        for (unix, want) in [
            (NOW + CLOCKS_APART_MAX, Ok(())),
            (NOW - CLOCKS_APART_MAX, Ok(())),
            (NOW + CLOCKS_APART_MAX + second, Err(NotOpened::Time(CLOCKS_APART_MAX + second))),
            (NOW - CLOCKS_APART_MAX - second, Err(NotOpened::Time(CLOCKS_APART_MAX + second))),
            (Duration::ZERO, Err(NotOpened::Time(NOW))),
        ] {
            assert_eq!(at(unix), want, "{unix:?}");
        }
    }

    #[test]
    fn the_first_key_seals_and_both_open() {
        let (old, both, turned, new) = (keys(&[1]), keys(&[1, 2]), keys(&[2, 1]), keys(&[2]));
        let opens = |from: &ClusterKeys, to: &ClusterKeys| {
            let datagram = sealer(1).seal(from, A, NOW, b"hello").expect("a key");
            Opener::default().open(to, A, NOW, &datagram).map(drop)
        };
        for (from, to) in [
            (&old, &both),
            (&both, &old),
            (&both, &turned),
            (&turned, &both),
            (&turned, &new),
            (&new, &turned),
        ] {
            assert_eq!(opens(from, to), Ok(()), "{from:?} {to:?}");
        }
        assert_eq!(opens(&old, &new), Err(NotOpened::OtherKey));
        let other_name = ClusterKeys::new(&[key(1)], "edge");
        assert_eq!(opens(&old, &other_name), Err(NotOpened::OtherKey), "another cluster");
    }

    #[test]
    fn a_session_is_remembered_for_as_long_as_its_times_are_believed() {
        let (keys, mut to) = (keys(&[1]), Opener::default());
        let session = |n: u32| {
            let mut session = [0; SESSION_BYTES];
            session[..4].copy_from_slice(&n.to_be_bytes());
            Sealer::new(session)
        };
        let first = session(0).seal(&keys, A, NOW, b"x").expect("a key");
        assert!(to.open(&keys, A, NOW, &first).is_ok());
        for n in 1..SESSIONS_MAX as u32 {
            let datagram = session(n).seal(&keys, A, NOW, b"x").expect("a key");
            assert!(to.open(&keys, A, NOW, &datagram).is_ok(), "{n}");
        }
        let late = NOW + CLOCKS_APART_MAX;
        let more = |at| session(u32::MAX).seal(&keys, A, at, b"x").expect("a key");
        assert_eq!(to.open(&keys, A, late, &more(late)), Err(NotOpened::Sessions));
        assert_eq!(to.open(&keys, A, late, &first), Err(NotOpened::Replayed), "none is forgotten");
        let later = late + Duration::from_millis(1);
        assert!(to.open(&keys, A, later, &more(later)).is_ok(), "the others' times are over");
        assert!(matches!(to.open(&keys, A, later, &first), Err(NotOpened::Time(_))));
    }

    proptest! {
        #[test]
        fn nothing_that_was_changed_is_opened(
            said in prop::collection::vec(any::<u8>(), 0..64),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let (keys, mut to) = (keys(&[1, 2]), Opener::default());
            let datagram = sealer(1).seal(&keys, A, NOW, &said).expect("a key");
            let mut changed = datagram.clone();
            let at = at.index(changed.len());
            changed[at] ^= flip;
            if let Some(cut) = cut {
                changed.truncate(cut.index(datagram.len()));
            }
            prop_assert!(to.open(&keys, A, NOW, &changed).is_err());
            prop_assert_eq!(to.open(&keys, A, NOW, &datagram), Ok(said));
        }
    }
}
