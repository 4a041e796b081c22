//! JSON from outside, bounded: a few bytes of JSON can become many bytes of memory (`{}` in a list
//! becomes a whole struct), so the number of bytes alone bounds nothing. [`read`] walks a message
//! once, before anything is made of it, and refuses what has too many values, is too deep, or has
//! too long a list, map, string or number. What passes takes memory in proportion to
//! [`Bounds::values`] and [`Bounds::bytes`].
//!
//! The walk does not decide what is JSON: `serde_json` does, and stops at the first mistake. Up to
//! there both see the same values.

use memchr::memchr2;
use serde::de::DeserializeOwned;

use crate::types::cut;

/// Characters of a number at most; the longest that a program prints has some 330.
const NUMBER_BYTES_MAX: usize = 512;
/// Levels of nesting that can be bounded; `serde_json` itself goes no deeper than 127.
const DEPTH_MAX: usize = 32;

/// How large a message may be, and each thing in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the whole message.
    pub bytes: usize,
    /// Lists and maps inside each other, 1 to 32.
    pub depth: usize,
    /// Entries of each list and of each map.
    pub entries: usize,
    /// Bytes of each string as it stands in the message, keys included.
    pub string_bytes: usize,
    /// Values in all, keys included.
    pub values: usize,
    /// Keys of the outermost map, in any case, whose strings are bounded by `bytes` alone.
    pub long: &'static [&'static str],
}

impl Bounds {
    /// A small message: a configuration, an error, an answer of a few values.
    pub const SMALL: Self = Self {
        bytes: 64 << 10,
        depth: 8,
        entries: 1024,
        string_bytes: 8 << 10,
        values: 4096,
        long: &[],
    };
}

/// Why a message is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJson {
    /// More bytes than it may have.
    #[error("the JSON has {bytes} bytes, it may have {max}")]
    Bytes {
        /// As many as it has.
        bytes: usize,
        /// As many as it may have.
        max: usize,
    },
    /// Something in it is beyond its bound.
    #[error("the JSON has {what}, at byte {at}")]
    Beyond {
        /// What there is too much of, with the bound.
        what: String,
        /// Where.
        at: usize,
    },
    /// It had to be an object; serde alone takes `[1, 2]` for a struct as well.
    #[error("the body is no JSON object")]
    NoObject,
    /// It is no JSON, or not of the form that is expected.
    #[error("{0}")]
    Unreadable(String),
}

/// Reads `text`, which must keep to `bounds`.
///
/// # Errors
/// It does not, or is not of that form.
pub fn read<T: DeserializeOwned>(text: &[u8], bounds: &Bounds) -> Result<T, BadJson> {
    check(text, bounds)?;
    serde_json::from_slice(text).map_err(|why| {
        let (why, line, column) = (why.to_string(), why.line(), why.column());
        let quoted = cut(&why);
        BadJson::Unreadable(match quoted.len() < why.len() {
            true => format!("{quoted}… at line {line} column {column}"),
            false => why,
        })
    })
}

/// The same for what must be an object.
///
/// # Errors
/// As [`read`], and if it is none.
pub fn read_object<T: DeserializeOwned>(text: &[u8], bounds: &Bounds) -> Result<T, BadJson> {
    let first = text.iter().find(|c| !c.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(BadJson::NoObject);
    }
    read(text, bounds)
}

/// Walks `text` and compares it with `bounds`. Allocates nothing.
///
/// # Errors
/// What is beyond its bound first.
pub fn check(text: &[u8], bounds: &Bounds) -> Result<(), BadJson> {
    if text.len() > bounds.bytes {
        return Err(BadJson::Bytes { bytes: text.len(), max: bounds.bytes });
    }
    let mut walk =
        Walk { text, bounds, at: 0, values: 0, depth: 0, entries: [0; DEPTH_MAX], key: b"" };
    while let Some(byte) = text.get(walk.at) {
        match byte {
            b'"' => walk.string()?,
            b'{' | b'[' => walk.open()?,
            b'}' | b']' => {
                walk.depth = walk.depth.saturating_sub(1);
                walk.at += 1;
            }
            b',' => walk.entry()?,
            b':' | b' ' | b'\n' | b'\r' | b'\t' => walk.at += 1,
            _ => walk.number()?,
        }
    }
    Ok(())
}

struct Walk<'a> {
    text: &'a [u8],
    bounds: &'a Bounds,
    at: usize,
    values: usize,
    depth: usize,
    /// Commas seen at each level that is open.
    entries: [usize; DEPTH_MAX],
    /// The last string at the outermost level: the key of what follows it.
    key: &'a [u8],
}

impl<'a> Walk<'a> {
    fn beyond(&self, what: String) -> BadJson {
        BadJson::Beyond { what, at: self.at }
    }

    fn value(&mut self) -> Result<(), BadJson> {
        self.values += 1;
        match self.values > self.bounds.values {
            true => Err(self.beyond(format!("more than {} values", self.bounds.values))),
            false => Ok(()),
        }
    }

    fn open(&mut self) -> Result<(), BadJson> {
        self.value()?;
        let max = self.bounds.depth.min(DEPTH_MAX);
        match self.entries.get_mut(self.depth).filter(|_| self.depth < max) {
            Some(entries) => *entries = 1,
            None => return Err(self.beyond(format!("more than {max} levels"))),
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// A comma: one more in the list or map that is open.
    fn entry(&mut self) -> Result<(), BadJson> {
        if let Some(entries) = self.depth.checked_sub(1).and_then(|d| self.entries.get_mut(d)) {
            *entries += 1;
            if *entries > self.bounds.entries {
                let what = format!("a list or map of more than {} entries", self.bounds.entries);
                return Err(self.beyond(what));
            }
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), BadJson> {
        self.value()?;
        let start = self.at + 1;
        let mut at = start;
        let end = loop {
            let rest = self.text.get(at..).unwrap_or_default();
            match memchr2(b'"', b'\\', rest) {
                Some(found) if rest.get(found) == Some(&b'"') => break at + found,
                // The character after a backslash ends no string.
                Some(found) => at += found + 2,
                None => break self.text.len(),
            }
        };
        let string = self.text.get(start..end).unwrap_or_default();
        let is_long = || {
            self.depth == 1
                && self
                    .bounds
                    .long
                    .iter()
                    .any(|long| long.as_bytes().eq_ignore_ascii_case(self.key))
        };
        if string.len() > self.bounds.string_bytes && !is_long() {
            let max = self.bounds.string_bytes;
            return Err(self.beyond(format!("a string of {} bytes, above {max}", string.len())));
        }
        if self.depth == 1 {
            self.key = string;
        }
        self.at = end + 1;
        Ok(())
    }

    /// A number, a literal, or something that is no JSON.
    fn number(&mut self) -> Result<(), BadJson> {
        self.value()?;
        let rest = self.text.get(self.at..).unwrap_or_default();
        let ends = |c: &u8| c.is_ascii_whitespace() || b",:{}[]\"".contains(c);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        if length > NUMBER_BYTES_MAX {
            return Err(self.beyond(format!("a number of {length} characters")));
        }
        // At least one, also at something that `ends` and the caller see differently.
        self.at += length.max(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const SOME: Bounds = Bounds {
        bytes: 1000,
        depth: 3,
        entries: 4,
        string_bytes: 10,
        values: 12,
        long: &["payload"],
    };

    #[test]
    fn each_bound_holds_and_what_is_at_it_passes() {
        for good in [
            "[[[1]]]",
            "[1,2,3,4]",
            r#"{"a":1,"b":2,"c":3,"d":4}"#,
            r#""0123456789""#,
            r#"{"payload":"0123456789012345678901234567890"}"#,
            r#"{"a":"\"\"\\\"","payload": "0123456789\\\"0123"}"#,
            r#"{"PayLoad":"0123456789012345678901234567890"}"#,
            " { } ",
        ] {
            assert_eq!(check(good.as_bytes(), &SOME), Ok(()), "{good}");
            read::<Value>(good.as_bytes(), &SOME).expect(good);
        }
        for (bad, what) in [
            ("[[[[1]]]]", "levels"),
            ("[1,2,3,4,5]", "entries"),
            (r#"{"a":1,"b":2,"c":3,"d":4,"e":5}"#, "entries"),
            (r#""01234567890""#, "string"),
            (r#"{"01234567890":1}"#, "string"),
            (r#"{"a":{"payload":"01234567890"}}"#, "string"),
            ("[[1,2,3,4],[1,2,3,4],[1,2,3,4]]", "values"),
            (&format!("1{}", "0".repeat(512)), "number"),
            (&" ".repeat(1001), "bytes"),
        ] {
            let why = check(bad.as_bytes(), &SOME).expect_err(bad).to_string();
            assert!(why.contains(what), "{bad}: {why}");
        }
    }

    #[test]
    fn what_must_be_an_object_is_one() {
        for body in ["", "[]", "[1,2]", "7", "null", "\"x\""] {
            let read = read_object::<Value>(body.as_bytes(), &SOME);
            assert_eq!(read, Err(BadJson::NoObject), "{body}");
        }
        assert!(matches!(read_object::<Value>(b"{bad", &SOME), Err(BadJson::Unreadable(_))));
    }

    /// How `value` compares with the bounds by what was made of it.
    fn keeps(value: &Value, depth: usize, values: &mut usize, bounds: &Bounds) -> bool {
        *values += 1;
        match value {
            Value::Array(list) => {
                depth < bounds.depth
                    && list.len() <= bounds.entries
                    && list.iter().all(|value| keeps(value, depth + 1, values, bounds))
            }
            Value::Object(map) => {
                *values += map.len();
                depth < bounds.depth
                    && map.len() <= bounds.entries
                    && map.values().all(|value| keeps(value, depth + 1, values, bounds))
            }
            _ => *values <= bounds.values,
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a\"\\\\{},:\u{e9}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-f\"{]{0,3}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_walk_sees_what_serde_makes_of_it(value in any_json(), pretty: bool) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&value),
                false => serde_json::to_string(&value),
            }.expect("JSON");
            let bounds = Bounds { bytes: 1 << 20, string_bytes: 100, ..SOME };
            let mut values = 0;
            let good = keeps(&value, 0, &mut values, &bounds) && values <= bounds.values;
            prop_assert_eq!(check(text.as_bytes(), &bounds).is_ok(), good, "{}", text);
        }

        #[test]
        fn no_bytes_make_it_panic_or_go_on_for_ever(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = check(&text, &SOME);
        }
    }
}
