//! What the embedded functions are sent.

use std::time::Duration;

use crate::faas::embedded::thumbnail::{Size, cost_bytes, scale};
use crate::faas::embedded::times::Times;
use crate::service::drawn::TimeDistribution;

use super::Bytes;

/// More than this is told, but not worked on: it takes its time.
const COST_MAX: u64 = 1 << 20;

/// Pictures.
pub(super) fn thumbnail(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let query = format!("width={}&height={}", bytes.byte(), bytes.byte());
    let Ok(size) = Size::from_query(&query) else { return };
    let picture = bytes.0;
    let Ok(cost) = cost_bytes(picture) else {
        assert!(scale(picture, size, COST_MAX).is_err(), "what cannot be told is not decoded");
        return;
    };
    if cost > COST_MAX {
        return;
    }
    if let Ok(small) = scale(picture, size, cost) {
        let told = cost_bytes(&small).expect("a JPEG");
        assert!(told <= 255 * 255 * 12, "it fits into the box");
        assert!(scale(&small, size, told.max(1 << 16)).is_ok(), "and can be read");
    }
}

/// The queries of those that take their time.
pub(super) fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for distribution in [TimeDistribution::Constant, TimeDistribution::Exponential] {
        let times = Times::new(distribution, 100.0, 7);
        if let Ok(time) = times.draw(&text) {
            assert!(time <= Duration::from_secs(3600) * 100, "{time:?}");
        }
    }
    let _ = Size::from_query(&text);
}
