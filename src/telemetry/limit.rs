//! How many lines each place of the program may write.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, callsite};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::lock;

/// Between two lines of one place, once its burst is used.
const REFILL: Duration = Duration::from_secs(1);
/// Between two words on what was left out.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Characters of a line that stands for those left out.
const SAMPLE_CHARS: usize = 80;

/// Lines left out since the process began.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that the process did not log, because one place of the program wrote too many.
pub fn lines_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A token bucket a place. There are as many as the program has places that log.
struct Buckets<K> {
    burst: u32,
    of: HashMap<K, Bucket>,
    told: Option<Instant>,
}

struct Bucket {
    tokens: u32,
    refilled: Instant,
    /// Left out since that was told last.
    dropped: u64,
    /// How such a line begins.
    sample: String,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(burst: u32) -> Self {
        Self { burst, of: HashMap::new(), told: None }
    }

    /// Whether a line from `place` may be logged.
    fn take(&mut self, place: K, now: Instant, sample: impl FnOnce() -> String) -> bool {
        let burst = self.burst;
        let new = || Bucket { tokens: burst, refilled: now, dropped: 0, sample: sample() };
        let bucket = self.of.entry(place).or_insert_with(new);
        let since = now.saturating_duration_since(bucket.refilled);
        let more = since.as_secs() / REFILL.as_secs();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            bucket.tokens = bucket.tokens.saturating_add(more).min(burst);
            bucket.refilled = now;
        }
        let left = bucket.tokens.checked_sub(1);
        bucket.dropped += u64::from(left.is_none());
        bucket.tokens = left.unwrap_or(0);
        left.is_some()
    }

    /// What was left out, if that is to be told now.
    fn take_untold(&mut self, now: Instant) -> Vec<(u64, String)> {
        let due = now.saturating_duration_since(*self.told.get_or_insert(now)) >= TOLD_EVERY;
        if !due {
            return Vec::new();
        }
        self.told = Some(now);
        let dropped = self.of.values_mut().filter(|bucket| bucket.dropped > 0);
        dropped.map(|bucket| (std::mem::take(&mut bucket.dropped), bucket.sample.clone())).collect()
    }
}

/// The layer that leaves lines out.
pub(super) struct Limit(Option<Mutex<Buckets<callsite::Identifier>>>);

impl Limit {
    /// `burst` lines at once, then one a second; 0: no limit.
    pub(super) fn new(burst: u32) -> Self {
        Self((burst > 0).then(|| Mutex::new(Buckets::new(burst))))
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge where the limit gets its time; a subscriber is handed none"
    )]
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let Some(buckets) = &self.0 else { return true };
        let (now, place) = (Instant::now(), event.metadata().callsite());
        let (good, untold) = {
            let mut buckets = lock(buckets);
            let good = buckets.take(place, now, || sample(event));
            (good, buckets.take_untold(now))
        };
        if !good {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        for (lines, like) in untold {
            tracing::warn!(like, "{lines} lines like this were left out");
        }
        good
    }
}

/// How an event's message begins.
fn sample(event: &Event<'_>) -> String {
    struct Message(String);

    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            if field.name() == "message" {
                let _ = write!(self.0, "{value:?}");
            }
        }
    }

    let mut message = Message(String::new());
    event.record(&mut message);
    message.0.chars().take(SAMPLE_CHARS).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time is as good as another")]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_write_a_burst_and_then_one_line_a_second() {
        let (mut buckets, start) = (Buckets::new(20), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut take = |place, ms| buckets.take(place, at(ms), || "line".to_owned());
        assert_eq!((0..1000).filter(|_| take(1, 0)).count(), 20);
        assert_eq!((0..1000).filter(|_| take(2, 0)).count(), 20, "each place its own");
        assert_eq!((1..10_000).filter(|ms| take(1, *ms)).count(), 9, "one a second");
        assert_eq!((0..1000).filter(|_| take(1, 3_600_000)).count(), 20, "no more than a burst");
    }

    #[test]
    fn what_was_left_out_is_told_every_ten_seconds() {
        let (mut buckets, start) = (Buckets::new(2), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        for _ in 0..7 {
            buckets.take((), at(0), || "like".to_owned());
        }
        assert!(buckets.take_untold(at(0)).is_empty() && buckets.take_untold(at(9)).is_empty());
        assert_eq!(buckets.take_untold(at(10)), [(5, "like".to_owned())]);
        assert!(buckets.take_untold(at(30)).is_empty(), "nothing more was");
    }

    #[test]
    fn the_layer_counts_what_it_leaves_out() {
        use tracing_subscriber::layer::SubscriberExt;
        let written = std::sync::Arc::new(Mutex::new(Vec::<u8>::new()));
        struct Shared(std::sync::Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                lock(&self.0).extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let to = std::sync::Arc::clone(&written);
        let lines = tracing_subscriber::fmt::layer().with_writer(move || Shared(to.clone()));
        let limited = tracing_subscriber::registry().with(Limit::new(20)).with(lines);
        let before = lines_dropped();
        tracing::subscriber::with_default(limited, || {
            for n in 0..1000 {
                tracing::info!(n, "a line");
            }
            tracing::info!("another");
        });
        let text = String::from_utf8(lock(&written).clone()).expect("text");
        assert!((20..25).contains(&text.matches("a line").count()), "{text}");
        assert!(text.contains("another"));
        assert!(lines_dropped() - before >= 975);
    }
}
