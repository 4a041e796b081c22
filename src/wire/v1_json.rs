//! Peer messages as v1 reads them, with Go's `encoding/json` and `encoding/base64`, which take what
//! `serde_json` does not: keys in any case, the same key more than once, bytes that are no UTF-8, halves
//! of surrogate pairs, line ends within base64. Nodes and scripts that v1 understands are understood here.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::{memchr, memchr2};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};

use super::json::{self, Bounds};

/// Bytes of a message that may be no UTF-8: each becomes three, so they are few.
const BAD_BYTES_MAX: usize = 64 << 10;
/// How a half of a surrogate pair is written, and what it stands for then.
const ESCAPE_BYTES: usize = 6;
const REPLACEMENT: &[u8] = br"\ufffd";

/// As Go's: padding is needed, and the bits that the last character has too many are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Reads the object `text` within `bounds`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_object<T: DeserializeOwned>(text: &[u8], bounds: &Bounds) -> Result<T, String> {
    // Of the message as it came: what is replaced below changes no bound but that of its bytes.
    json::check(text, bounds).map_err(|why| why.to_string())?;
    let text = with_whole_pairs(in_utf8(text)?);
    let bounds = Bounds { bytes: usize::MAX, string_bytes: usize::MAX, ..*bounds };
    json::read_object(&text, &bounds).map_err(|why| why.to_string())
}

/// The bytes that `text` stands for.
///
/// # Errors
/// It is no base64, in words.
pub fn read_base64(text: &str) -> Result<Vec<u8>, String> {
    let is_end = |c: &u8| matches!(c, b'\r' | b'\n');
    let text = match memchr2(b'\r', b'\n', text.as_bytes()) {
        None => Cow::Borrowed(text.as_bytes()),
        Some(_) => text.bytes().filter(|c| !is_end(c)).collect::<Vec<u8>>().into(),
    };
    BASE64.decode(text).map_err(|why| why.to_string())
}

/// `text` with U+FFFD for each byte that belongs to no character.
fn in_utf8(text: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if std::str::from_utf8(text).is_ok() {
        return Ok(Cow::Borrowed(text));
    }
    let bad: usize = text.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    if bad > BAD_BYTES_MAX {
        return Err(format!("{bad} bytes are no UTF-8, at most {BAD_BYTES_MAX} are taken"));
    }
    let mut whole = String::with_capacity(text.len() + 2 * bad);
    for chunk in text.utf8_chunks() {
        whole.push_str(chunk.valid());
        whole.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Ok(Cow::Owned(whole.into_bytes()))
}

/// `text` with U+FFFD for each escaped half of a surrogate pair that stands alone.
fn with_whole_pairs(mut text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let mut at = 0;
    while let Some(found) = memchr(b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        let escape = |at: usize| unit(text.get(at..).unwrap_or_default());
        match (escape(at), escape(at + ESCAPE_BYTES)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 2 * ESCAPE_BYTES,
            (Some(0xD800..=0xDFFF), _) => {
                if let Some(half) = text.to_mut().get_mut(at..at + ESCAPE_BYTES) {
                    half.copy_from_slice(REPLACEMENT);
                }
                at += ESCAPE_BYTES;
            }
            // The character behind a backslash begins no escape.
            _ => at += 2,
        }
    }
    text
}

/// The UTF-16 unit that an escape `\uXXXX` at the beginning of `text` stands for.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.get(..ESCAPE_BYTES)?.strip_prefix(br"\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|c| c.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// A key, in small letters.
pub(super) struct LowerCaseKey(pub(super) String);

impl<'de> Deserialize<'de> for LowerCaseKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = LowerCaseKey;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<LowerCaseKey, E> {
                Ok(LowerCaseKey(key.chars().map(small).collect()))
            }
        }

        from.deserialize_str(Text)
    }
}

/// A letter of a key as it is compared: beside capitals, two letters beyond ASCII have one of ASCII as
/// their small form.
fn small(letter: char) -> char {
    match letter {
        '\u{212A}' => 'k',
        '\u{017F}' => 's',
        letter => letter.to_ascii_lowercase(),
    }
}

/// Has a struct read as Go reads one: keys in any case; of a key that comes more than once the last that
/// is not null counts. Fields that are not there stay at their default.
macro_rules! read_as_v1 {
    ($name:ident { $( $field:ident: $type:ty ),+ $(,)? }) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$name, A::Error> {
                        let mut read = $name::default();
                        while let Some(key) = map.next_key::<$crate::wire::v1_json::LowerCaseKey>()? {
                            match &*key.0 {
                                $( stringify!($field) => {
                                    if let Some(value) = map.next_value::<Option<$type>>()? {
                                        read.$field = value.into();
                                    }
                                } )+
                                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                            }
                        }
                        Ok(read)
                    }

                    fn visit_unit<E>(self) -> Result<$name, E> {
                        Ok($name::default())
                    }
                }

                from.deserialize_any(Fields)
            }
        }
    };
}

pub(super) use read_as_v1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{PeerAnswer, PeerRequest, read_peer_answer, read_peer_request};
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    fn request(message: impl AsRef<[u8]>) -> PeerRequest {
        let message = message.as_ref();
        let read = read_peer_request(message, 1 << 20);
        read.unwrap_or_else(|why| panic!("{why}: {}", message.escape_ascii()))
    }

    fn answer(message: impl AsRef<[u8]>) -> PeerAnswer {
        let message = message.as_ref();
        let read = read_peer_answer(message, 1 << 20);
        read.unwrap_or_else(|why| panic!("{why}: {}", message.escape_ascii()))
    }

    #[test]
    fn keys_match_in_any_case_all_the_way_down() {
        for key in ["payload", "Payload", "PAYLOAD", "payLoad", r"\u0050ayload"] {
            let read = request(format!(r#"{{"{key}":"aGk="}}"#));
            assert_eq!(read.payload.as_deref(), Some("aGk="), "{key}");
        }
        let read = request(r#"{"Function_Name":"f","HOPS":2,"Content_Type":"t","serviceId":"x"}"#);
        assert_eq!((read.function_name.as_deref(), read.hops), (Some("f"), Some(2)));
        assert_eq!((read.content_type.as_deref(), read.service_id_tracing), (Some("t"), None));
        let read = answer(
            r#"{"Peers_List":[{"Machine_Id":"n","MACHINE_IP":"i","Timings":{"Total_Time":2}}],
                "BODY":"aGk=","Status_Code":201}"#,
        );
        let hop = &read.peers_list.expect("a list")[0];
        assert_eq!((&*hop.machine_id, &*hop.machine_ip), ("n", "i"));
        assert_eq!(hop.timings.total_time, Some(2.0));
        assert_eq!((read.body.as_deref(), read.status_code), (Some("aGk="), Some(201)));
        // The letters that Go folds beside those of ASCII.
        assert_eq!(request("{\"hop\u{17F}\":3}").hops, Some(3));
        // Names of headers are no keys of a struct.
        let headers = request(r#"{"headers":{"X-A":"1","x-a":"2"}}"#).headers.expect("headers");
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn the_last_of_a_repeated_key_counts_unless_it_is_null() {
        let read =
            request(r#"{"payload":"YQ==","Payload":"Yg==","payload":null,"hops":1,"hops":2}"#);
        assert_eq!((read.payload.as_deref(), read.hops), (Some("Yg=="), Some(2)));
        let read = answer(r#"{"status_code":200,"status_code":500,"body":"YQ==","body":"Yg=="}"#);
        assert_eq!((read.status_code, read.body.as_deref()), (Some(500), Some("Yg==")));
        let read = answer(r#"{"peers_list":[{"machine_id":"a","machine_id":"b"}]}"#);
        assert_eq!(read.peers_list.expect("a list")[0].machine_id, "b");
        // One that cannot be read is an error wherever it stands.
        assert!(read_peer_request(br#"{"hops":"x","hops":2}"#, 99).is_err());
    }

    #[test]
    fn what_is_no_utf8_and_half_a_pair_is_replaced() {
        let read = request(b"{\"function_name\":\"f\xFF\xE2\x82g\",\"\xC3(\":1}");
        assert_eq!(read.function_name.as_deref(), Some("f\u{FFFD}\u{FFFD}\u{FFFD}g"));
        for (escaped, text) in [
            (r"\ud800", "\u{FFFD}"),
            (r"\uDFFF!", "\u{FFFD}!"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud83d\ud83d\ude00", "\u{FFFD}😀"),
            (r"\ud83d\u0041", "\u{FFFD}A"),
            (r"\\ud800", r"\ud800"),
            (r"\\\ud800", "\\\u{FFFD}"),
        ] {
            let read = request(format!(r#"{{"content_type":"{escaped}"}}"#));
            assert_eq!(read.content_type.as_deref(), Some(text), "{escaped}");
        }
        // Outside a string it is no JSON, and neither are other escapes.
        for bad in [&b"{\xFF}"[..], br#"{"a":"\ud8"}"#, br#"{"a":"\x"}"#, b"\xEF\xBB\xBF{}"] {
            assert!(read_peer_request(bad, 99).is_err(), "{}", bad.escape_ascii());
        }
        let many = [b"{\"payload\":\"", &[0xFF; BAD_BYTES_MAX + 1][..], b"\"}"].concat();
        let why = read_peer_request(&many, 1 << 20).expect_err("too many");
        assert!(why.contains("UTF-8"), "{why}");
    }

    #[test]
    fn base64_has_line_ends_anywhere_and_padding() {
        for good in ["aGVsbG8=", "aGVs\nbG8=", "aGVsbG8=\n", "\r\naGVsbG8\r\n=", "aGVsbG9="] {
            assert_eq!(read_base64(good).as_deref(), Ok(&b"hello"[..]), "{good:?}");
        }
        assert_eq!(read_base64("\n"), Ok(Vec::new()));
        for bad in ["aGVsbG8", "aGVsbG8==", "aGVs bG8=", "aGVsbG8=x", "%%%", "aGVs-G8_", "="] {
            assert!(read_base64(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(body: Vec<u8>, id: String, cut in 1..9_usize) {
            let text = BASE64_STANDARD.encode(&body);
            let lines: Vec<_> = text.as_bytes().chunks(cut).map(String::from_utf8_lossy).collect();
            prop_assert_eq!(read_base64(&lines.join("\r\n")), Ok(body));
            let sent = PeerRequest { service_id_tracing: Some(id), ..PeerRequest::default() };
            let read = request(serde_json::to_vec(&sent).expect("JSON"));
            prop_assert_eq!(read.service_id_tracing, sent.service_id_tracing);
        }

        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>) {
            let _ = read_peer_request(&message, 1 << 16);
            let quoted = [b"{\"payload\":\"", &message[..], b"\"}"].concat();
            let _ = read_peer_request(&quoted, 1 << 16);
        }
    }
}
