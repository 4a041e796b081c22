//! Algorithm parameters arrive as strings and read as v1's do: Go's `ParseBool`, `ParseUint` and
//! `ParseDuration`.

use std::time::Duration;

use crate::types::{Mended, as_printable, shortened};

/// Why a parameter was refused; its text names the parameter and what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadParameters {
    /// No algorithm has this name.
    #[error("there is no scheduler named {name:?}; known: {known}")]
    UnknownName {
        /// What was asked for.
        name: String,
        /// The names that are.
        known: String,
    },
    /// Name and parameters are too long.
    #[error("name and parameters have {bytes} bytes together, at most {max} are taken")]
    TooLong {
        /// As many as they have.
        bytes: usize,
        /// As many as they may have.
        max: usize,
    },
    /// Fewer parameters than the algorithm takes.
    #[error("parameter {index} ({what}) is missing")]
    Missing {
        /// Its place, from 1.
        index: usize,
        /// What it means.
        what: &'static str,
    },
    /// A parameter that does not read as what it must be.
    #[error("parameter {index} ({what}) is {given:?}, which is not {wanted}")]
    Wrong {
        /// Its place, from 1.
        index: usize,
        /// What it means.
        what: &'static str,
        /// What was given.
        given: String,
        /// What it must be.
        wanted: &'static str,
    },
}

/// Bytes of a parameter that is shown as it is, in a header of every answer; those of a host's name.
const PRINTABLE_BYTES_MAX: usize = 253;
/// The longest duration.
const NANOSECONDS_MAX: u64 = 9_199_999_999_999_999_999;
/// Characters of what was given that a refusal repeats.
const GIVEN_SHOWN_MAX: usize = 64;

/// Reads an algorithm's parameters one after another; those never asked for are ignored, as in v1.
pub struct Params<'a> {
    values: &'a [String],
    taken: usize,
    /// Where a saved value that means nothing is taken at the nearest that does; `None`: it is refused.
    mended: Option<Vec<(usize, Mended)>>,
}

impl<'a> Params<'a> {
    /// Starts at the first of `values`.
    pub fn new(values: &'a [String]) -> Self {
        Self { values, taken: 0, mended: None }
    }

    /// The same for values that were saved by v1, which takes more: one that means nothing here is
    /// taken at the nearest that does.
    pub fn saved(values: &'a [String]) -> Self {
        Self { values, taken: 0, mended: Some(Vec::new()) }
    }

    /// What was taken for something else, each with its place from 0.
    pub fn mended(self) -> Vec<(usize, Mended)> {
        self.mended.unwrap_or_default()
    }

    /// The next parameter as text.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, BadParameters> {
        let index = self.taken + 1;
        let value = self.values.get(self.taken).ok_or(BadParameters::Missing { index, what })?;
        self.taken = index;
        Ok(value)
    }

    /// The next parameter as text that can stand in a header, as all of an algorithm's name does.
    pub fn printable(&mut self, what: &'static str) -> Result<String, BadParameters> {
        let wanted = "printable ASCII of at most 253 characters";
        let fits = |text: &str| {
            text.len() <= PRINTABLE_BYTES_MAX && text.bytes().all(|c| (b' '..=b'~').contains(&c))
        };
        let parse = |text: &str| fits(text).then(|| text.to_owned());
        self.read(what, wanted, parse, |text| Some(as_printable(text, PRINTABLE_BYTES_MAX)))
    }

    /// Reads by `parse`, and what that refuses of a saved file as the text that `nearest` has for it.
    fn read<T>(
        &mut self,
        what: &'static str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        nearest: impl Fn(&str) -> Option<String>,
    ) -> Result<T, BadParameters> {
        let given = self.text(what)?;
        let index = self.taken;
        if let Some(value) = parse(given) {
            return Ok(value);
        }
        if let Some(mended) = &mut self.mended
            && let Some(taken) = nearest(given)
            && let Some(value) = parse(&taken)
        {
            let key = format!("parameter {index} ({what})");
            mended.push((index - 1, Mended::of(key, given, taken)));
            return Ok(value);
        }
        let given = shortened(given, GIVEN_SHOWN_MAX).into_owned();
        Err(BadParameters::Wrong { index, what, given, wanted })
    }

    /// The next parameter as a truth value.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, BadParameters> {
        self.read(what, "a boolean (true or false)", parse_bool, |_| None)
    }

    /// The next parameter as an unsigned 32-bit integer.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, BadParameters> {
        let nearest = |text: &str| nearest_unsigned(text, f64::from(u32::MAX));
        self.read(what, "an integer from 0 to 4294967295", parse_unsigned, nearest)
    }

    /// The next parameter as an integer from 0 to `max`, which `wanted` says in words.
    pub fn up_to(
        &mut self,
        what: &'static str,
        max: usize,
        wanted: &'static str,
    ) -> Result<usize, BadParameters> {
        let parse = |text: &str| parse_unsigned(text).filter(|value| *value <= max);
        self.read(what, wanted, parse, |text| nearest_unsigned(text, max as f64))
    }

    /// Whether there is a further parameter.
    pub fn has_more(&self) -> bool {
        self.taken < self.values.len()
    }

    /// All further parameters as one text, with a space between.
    pub fn rest(&mut self) -> String {
        let rest = self.values.get(self.taken..).unwrap_or_default().join(" ");
        self.taken = self.values.len();
        rest
    }

    /// What is wrong with the last parameter that was read.
    pub fn wrong(&self, what: &'static str, given: &str, wanted: &'static str) -> BadParameters {
        let given = shortened(given, GIVEN_SHOWN_MAX).into_owned();
        BadParameters::Wrong { index: self.taken, what, given, wanted }
    }

    /// The next parameter as a duration from `least` to `most`, which `wanted` says in words.
    pub fn duration_within(
        &mut self,
        what: &'static str,
        least: Duration,
        most: Duration,
        wanted: &'static str,
    ) -> Result<Duration, BadParameters> {
        let parse = |text: &str| parse_duration(text).filter(|d| (least..=most).contains(d));
        self.read(what, wanted, parse, |_| None)
    }

    /// The next parameter as a duration, such as `100ms` or `1h2m`.
    pub fn duration(&mut self, what: &'static str) -> Result<Duration, BadParameters> {
        self.read(what, "a duration such as 100ms, 1.5s or 1h2m", parse_duration, nearest_duration)
    }
}

/// The whole number from 0 to `max` that is nearest to the number `text`.
fn nearest_unsigned(text: &str, max: f64) -> Option<String> {
    let number = text.trim().parse::<f64>().ok().filter(|number| !number.is_nan())?;
    // A cast saturates, and knows no zero below zero.
    Some((number.round().clamp(0.0, max) as u64).to_string())
}

/// The duration that is nearest to `text`, which may have a sign, and be as long as Go's may.
fn nearest_duration(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let nanos = u64::try_from(parse_nanoseconds(unsigned)?).unwrap_or(u64::MAX);
    let nanos = if text.starts_with('-') { 0 } else { nanos.min(NANOSECONDS_MAX) };
    Some(duration_text(Duration::from_nanos(nanos)))
}

/// Go's `strconv.ParseUint`: digits only, no sign.
fn parse_unsigned<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `time.ParseDuration` without the sign: decimal numbers, each with its unit; a bare `0`.
fn parse_duration(text: &str) -> Option<Duration> {
    let nanos = u64::try_from(parse_nanoseconds(text)?).ok()?;
    // Go counts nanoseconds in 63 bits and refuses more.
    (nanos <= NANOSECONDS_MAX).then(|| Duration::from_nanos(nanos))
}

/// The nanoseconds of such a text, however many.
fn parse_nanoseconds(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        // A lone "." has no digit and fails here; "1." and ".5" are numbers in Go and in Rust.
        number.parse::<f64>().ok()?;
        // A float would be off by some nanoseconds where there are many.
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let whole = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()? };
        let part = format!("0.{part}").parse::<f64>().ok()? * scale as f64;
        nanos = nanos.checked_add(whole.checked_mul(scale.into())?)?;
        nanos = nanos.checked_add(part.round() as u128)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(nanos)
}

/// A duration as v1 shows it: in milliseconds (`3720000ms`), with decimals only where needed.
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos % 1_000_000 {
        0 => format!("{}ms", nanos / 1_000_000),
        rest => {
            let decimals = format!("{rest:06}");
            format!("{}.{}ms", nanos / 1_000_000, decimals.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one<T>(text: &str, read: impl Fn(&mut Params<'_>) -> Result<T, BadParameters>) -> Option<T> {
        read(&mut Params::new(&[text.to_owned()])).ok()
    }

    #[test]
    fn booleans_read_as_gos_parse_bool() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(one(text, |p| p.bool("x")), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(one(text, |p| p.bool("x")), Some(false), "{text}");
        }
        for text in ["", "tRUE", "yes", " true"] {
            assert_eq!(one(text, |p| p.bool("x")), None, "{text:?}");
        }
    }

    #[test]
    fn integers_are_unsigned_decimal_and_fit_32_bits() {
        assert_eq!(one("4294967295", |p| p.u32("x")), Some(u32::MAX));
        for text in ["4294967296", "-1", "+1", "1.0", "", "0x1", "1_0"] {
            assert_eq!(one(text, |p| p.u32("x")), None, "{text:?}");
        }
    }

    #[test]
    fn durations_read_as_gos_parse_duration_and_show_in_milliseconds() {
        for (text, shown) in [
            ("100ms", "100ms"),
            ("1h2m", "3720000ms"),
            ("1.5s", "1500ms"),
            (".5s", "500ms"),
            ("1.s", "1000ms"),
            ("0", "0ms"),
            ("250us", "0.25ms"),
            ("1µs", "0.001ms"),
            ("10ns", "0.00001ms"),
            ("142949672960.501008ms", "142949672960.501008ms"),
        ] {
            let read = one(text, |p| p.duration("tau"));
            assert_eq!(read.map(duration_text).as_deref(), Some(shown), "{text}");
            let again = one(shown, |p| p.duration("tau"));
            assert_eq!(again, read, "{shown} reads back as {text}");
        }
        for text in ["", "100", "ms", "-1s", "1d", ".s", "1..5s", "1 s", "1s2", "9999999h"] {
            assert_eq!(one(text, |p| p.duration("tau")), None, "{text:?}");
        }
    }

    #[test]
    fn text_that_cannot_stand_in_a_header_is_refused() {
        assert!(one("any string", |p| p.printable("x")).is_some());
        for text in ["a\nb", "é", "\x7f"] {
            assert!(one(text, |p| p.printable("x")).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_parameter_and_what_was_given() {
        let values = ["1".to_owned(), "x".to_owned()];
        let mut params = Params::new(&values);
        params.u32("fan-out").expect("the first is fine");
        let wrong = params.u32("threshold").expect_err("x is no integer");
        assert_eq!(
            wrong.to_string(),
            "parameter 2 (threshold) is \"x\", which is not an integer from 0 to 4294967295"
        );
        let missing = params.bool("loss").expect_err("there are only two");
        assert_eq!(missing.to_string(), "parameter 3 (loss) is missing");
    }

    #[test]
    fn what_v1_saved_is_taken_at_the_nearest_value_that_means_something() {
        type Read = fn(&mut Params<'_>) -> Result<String, BadParameters>;
        let whole: Read = |p| p.u32("x").map(|n| n.to_string());
        let few: Read = |p| p.up_to("x", 256, "few").map(|n| n.to_string());
        let tau: Read = |p| p.duration("x").map(duration_text);
        let text: Read = |p| p.printable("x");
        for (given, read, taken) in [
            ("18446744073709551615", whole, "4294967295"),
            ("-1", whole, "0"),
            ("-0", whole, "0"),
            ("2.7", whole, "3"),
            ("1e99", whole, "4294967295"),
            (" 7 ", whole, "7"),
            ("257", few, "256"),
            ("18446744073709551615", few, "256"),
            ("-5ms", tau, "0ms"),
            ("+5ms", tau, "5ms"),
            ("-0", tau, "0ms"),
            ("2562047h47m16.854775807s", tau, "9199999999999.999999ms"),
            ("n\u{f8}de\n1", text, "n_de_1"),
        ] {
            let values = [given.to_owned()];
            let mut params = Params::saved(&values);
            assert_eq!(read(&mut params), Ok(taken.to_owned()), "{given:?}");
            let mended = params.mended();
            assert_eq!(mended, [(0, Mended::of("parameter 1 (x)", given, taken))]);
            assert!(read(&mut Params::new(&values)).is_err(), "{given:?} from others");
        }
        for (given, read) in [("x", whole), ("nan", whole), ("", few), ("5 ms", tau), ("-", tau)] {
            assert!(read(&mut Params::saved(&[given.to_owned()])).is_err(), "{given:?}");
        }
        let fine = ["7".to_owned()];
        let mut params = Params::saved(&fine);
        assert_eq!((whole(&mut params), params.mended()), (Ok("7".to_owned()), Vec::new()));
    }
}
