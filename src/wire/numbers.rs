//! Times and numbers as texts.

use std::time::Duration;

/// Times that are told at most, some thirty years.
const SECONDS_MAX: f64 = 1e9;

/// A time as the wire's JSON lists show it: seconds with up to nine decimals, `0` for none.
pub fn seconds_text(seconds: f64) -> String {
    // Peers tell times, and the largest float has 309 digits.
    let seconds = if seconds.is_finite() { seconds.clamp(-SECONDS_MAX, SECONDS_MAX) } else { 0.0 };
    let nanos = seconds * 1e9;
    let mut text = match (0.0..=EXACT_MAX).contains(&nanos) {
        true => decimal(nanos.round() as u64, 9),
        false => format!("{seconds:.9}"),
    };
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text
}

/// Whole numbers up to this are exact as floats.
const EXACT_MAX: f64 = (1u64 << 53) as f64;

/// A number of units of the last of `places` decimals. (Several times faster than the formatting machinery,
/// and an answer has up to a dozen of these.)
fn decimal(mut units: u64, places: usize) -> String {
    let mut reversed = Vec::with_capacity(24);
    for place in 0.. {
        if place == places {
            reversed.push(b'.');
        } else if place > places && units == 0 {
            break;
        }
        reversed.push(b'0' + (units % 10) as u8);
        units /= 10;
    }
    reversed.reverse();
    // Digits and a point are text.
    String::from_utf8(reversed).unwrap_or_default()
}

/// A time as clients see it: seconds with six decimals.
pub fn six_decimals(seconds: f64) -> String {
    // A cast saturates, so no time that a peer may tell can go wrong here.
    decimal((seconds * 1e6).round() as u64, 6)
}

/// A number as the learner's headers show it, with six decimals.
pub fn float_text(x: f64) -> String {
    // Most are small whole numbers, and integers are written several times faster.
    if x.fract() == 0.0 && (0.0..1e9).contains(&x) && x.is_sign_positive() {
        return format!("{}.000000", x as u32);
    }
    format!("{x:.6}")
}

/// A duration in the wire's unit.
pub fn seconds(duration: Duration) -> Option<f64> {
    Some(duration.as_secs_f64())
}
