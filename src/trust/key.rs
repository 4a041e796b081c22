//! The cluster key, and what is derived of it.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

/// Bytes of a cluster key.
pub const KEY_BYTES: usize = 32;
/// Keys that can be in force at a time.
pub const KEYS_MAX: usize = 2;
/// Different bytes that a key must have. One of chance has 30 on average, and fewer than this never.
const DIFFERENT_BYTES_MIN: usize = 8;

/// The secret of a cluster. It is never shown but by [`ClusterKey::text`].
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

/// Why a text is no cluster key. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadClusterKey {
    /// There is nothing in it.
    #[error("there is no key in it; `p2pfaas key new` makes one")]
    Empty,
    /// It has another form.
    #[error("it is no key of 32 bytes, in 64 hexadecimal digits or in base64")]
    Form,
    /// Anybody could guess it.
    #[error("it is no key made by chance: its bytes are too much alike")]
    Guessable,
    /// There are too many.
    #[error("there are more than {KEYS_MAX} keys in it")]
    TooMany,
    /// There are two, and they are the same.
    #[error("both keys in it are the same")]
    Twice,
}

const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

impl ClusterKey {
    /// A key of bytes that chance made.
    pub fn new(random: [u8; KEY_BYTES]) -> Self {
        Self(random)
    }

    /// Reads one from 64 hexadecimal digits, or from base64 (either alphabet, with padding or without).
    ///
    /// # Errors
    /// It is none, or one that can be guessed.
    pub fn parse(text: &str) -> Result<Self, BadClusterKey> {
        let read = match text.len() {
            64 => from_hex(text),
            _ => [&alphabet::STANDARD, &alphabet::URL_SAFE]
                .into_iter()
                .find_map(|letters| GeneralPurpose::new(letters, BASE64).decode(text).ok()),
        };
        let bytes: [u8; KEY_BYTES] =
            read.and_then(|bytes| bytes.try_into().ok()).ok_or(BadClusterKey::Form)?;
        let mut different = bytes;
        different.sort_unstable();
        let different = different.chunk_by(|a, b| a == b).count();
        match different < DIFFERENT_BYTES_MIN {
            true => Err(BadClusterKey::Guessable),
            false => Ok(Self(bytes)),
        }
    }

    /// As 64 hexadecimal digits: for the one who made it, and for nobody else.
    pub fn text(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Some(
        digits?
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect(),
    )
}

/// Reads one key or two, with a comma or white space between them: the first seals, both open.
///
/// # Errors
/// One of them is none, or there are not one or two different ones.
pub fn read_keys(text: &str) -> Result<Vec<ClusterKey>, BadClusterKey> {
    let words = text.split(|c: char| c == ',' || c.is_ascii_whitespace());
    let keys: Vec<ClusterKey> =
        words.filter(|word| !word.is_empty()).map(ClusterKey::parse).collect::<Result<_, _>>()?;
    match keys.as_slice() {
        [] => Err(BadClusterKey::Empty),
        [one, other] if one == other => Err(BadClusterKey::Twice),
        [_] | [_, _] => Ok(keys),
        _ => Err(BadClusterKey::TooMany),
    }
}

/// What tells keys apart, without telling anything of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is derived of one key and the cluster's name (HKDF with SHA-256, RFC 5869): each use has a key of
/// its own, and clusters of different names have nothing in common even if they were given one key.
pub struct DerivedKeys {
    /// Tells it from the other one.
    pub id: KeyId,
    /// The seed of the authority's own key (Ed25519).
    pub authority_seed: [u8; 32],
    /// Of which the keys for datagrams and greetings are derived.
    pub(super) datagrams: Prk,
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DerivedKeys({})", self.id)
    }
}

/// So many bytes.
pub(super) struct Bytes(pub(super) usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// `N` bytes for one use.
pub(super) fn expand<const N: usize>(from: &Prk, of: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    // It fails only beyond 255 times 32 bytes.
    if let Ok(derived) = from.expand(of, Bytes(N)) {
        let _ = derived.fill(&mut bytes);
    }
    bytes
}

impl DerivedKeys {
    fn new(key: &ClusterKey, cluster: &str) -> Self {
        let salt = [b"p2pfaas cluster ", cluster.as_bytes()].concat();
        let root = Salt::new(HKDF_SHA256, &salt).extract(&key.0);
        let datagrams: [u8; 32] = expand(&root, &[b"datagrams"]);
        Self {
            id: KeyId(expand(&root, &[b"id"])),
            authority_seed: expand(&root, &[b"authority"]),
            datagrams: Prk::new_less_safe(HKDF_SHA256, &datagrams),
        }
    }
}

/// The keys in force: the first seals, all open. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterKeys(Arc<[DerivedKeys]>);

impl ClusterKeys {
    /// Of one or two keys of the cluster of that name.
    pub fn new(keys: &[ClusterKey], cluster: &str) -> Self {
        Self(keys.iter().take(KEYS_MAX).map(|key| DerivedKeys::new(key, cluster)).collect())
    }

    /// All of them, the one that seals first.
    pub fn all(&self) -> &[DerivedKeys] {
        &self.0
    }

    /// The one that seals.
    pub fn sealing(&self) -> Option<&DerivedKeys> {
        self.0.first()
    }

    /// The one of that id.
    pub fn of(&self, id: KeyId) -> Option<&DerivedKeys> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Their ids, the one that seals first.
    pub fn ids(&self) -> Vec<KeyId> {
        self.0.iter().map(|key| key.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    fn key(n: u8) -> ClusterKey {
        ClusterKey::new(std::array::from_fn(|at| n.wrapping_mul(31).wrapping_add(at as u8 * 7)))
    }

    #[test]
    fn a_key_is_read_in_the_forms_that_common_tools_write() {
        let key = key(200);
        for text in
            [key.text(), BASE64_STANDARD.encode(key.0), BASE64_URL_SAFE_NO_PAD.encode(key.0)]
        {
            assert_eq!(ClusterKey::parse(&text), Ok(key.clone()), "{text}");
        }
        assert_eq!(ClusterKey::parse(&key.text().to_uppercase()), Ok(key));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        for (text, why) in [
            ("", BadClusterKey::Empty),
            (" \n", BadClusterKey::Empty),
            ("hunter2", BadClusterKey::Form),
            (&"0".repeat(64), BadClusterKey::Guessable),
            (&"é".repeat(32), BadClusterKey::Form),
            (&"g".repeat(64), BadClusterKey::Form),
            (&key(1).text()[..62], BadClusterKey::Form),
        ] {
            assert_eq!(read_keys(text), Err(why), "{text}");
            assert!(text.trim().is_empty() || !why.to_string().contains(text));
        }
        let [a, b, c] = [1, 2, 3].map(|n| key(n).text());
        assert_eq!(read_keys(&format!("{a} {b},{c}")), Err(BadClusterKey::TooMany));
        assert_eq!(read_keys(&format!("{a},{a}")), Err(BadClusterKey::Twice));
        assert_eq!(read_keys(&format!("{a}\n{b}\n")).map(|keys| keys.len()), Ok(2));
        assert_eq!(format!("{:?}", key(1)), "ClusterKey(…)");
    }

    #[test]
    fn each_use_each_key_and_each_cluster_has_bytes_of_its_own() {
        let derived = |n, cluster| ClusterKeys::new(&[key(n)], cluster);
        let (a, again, other_key, other_name) =
            (derived(1, "fog"), derived(1, "fog"), derived(2, "fog"), derived(1, "edge"));
        let of = |keys: &ClusterKeys| {
            let one = &keys.all()[0];
            (one.id, one.authority_seed)
        };
        assert_eq!(of(&a), of(&again));
        for other in [of(&other_key), of(&other_name)] {
            assert!(of(&a).0 != other.0 && of(&a).1 != other.1);
        }
        let shown = format!("{a:?}");
        assert!(!shown.contains(&hex(&of(&a).1)) && shown.len() < 64, "{shown}");
    }
}
