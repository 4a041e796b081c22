//! Waiting for a time, and giving up after one; and what time it is, where that must be known.

pub mod limit;
pub mod timer;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970, as far as this machine's clock is right.
#[expect(clippy::disallowed_methods, reason = "what members tell each other holds for a time")]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
