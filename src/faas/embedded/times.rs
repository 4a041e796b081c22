//! How the embedded functions draw the time that a call takes.
//!
//! A distribution with a mean, from the configuration or the call's query string:
//! `dist=constant|exponential`, `mean_ms=…`, `seed=…`. Without a seed in the query, times come one
//! after another from the node's own stream (seeded by `fn_seed`). With one, the time depends on
//! nothing else: the same seed gives the same time on every node and under every scheduler, so
//! that runs can be compared call by call.

use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::Deserialize;

use crate::config::TimeDistribution;
use crate::lock;

/// The longest mean; a time drawn is at most a hundred times that.
const MEAN_MS_MAX: f64 = 3.6e6;

/// What a call's query may say.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    dist: Option<TimeDistribution>,
    mean_ms: Option<f64>,
    seed: Option<u64>,
}

/// A node's drawn times.
pub struct Times {
    distribution: TimeDistribution,
    mean_ms: f64,
    stream: Mutex<SmallRng>,
}

impl Times {
    /// With these defaults, the stream beginning at `seed`.
    pub fn new(distribution: TimeDistribution, mean_ms: f64, seed: u64) -> Self {
        Self { distribution, mean_ms, stream: Mutex::new(SmallRng::seed_from_u64(seed)) }
    }

    /// The time that a call with this query takes.
    ///
    /// # Errors
    /// What in the query cannot be read.
    pub fn draw(&self, query: &str) -> Result<Duration, String> {
        let asked = actix_web::web::Query::<Asked>::from_query(query)
            .map_err(|why| format!("the query: {why}; known: dist, mean_ms, seed"))?;
        let mean_ms = asked.mean_ms.unwrap_or(self.mean_ms);
        if !(0.0..=MEAN_MS_MAX).contains(&mean_ms) {
            return Err(format!("mean_ms is {mean_ms}, which is not within 0 to {MEAN_MS_MAX}"));
        }
        let time_ms = match (asked.dist.unwrap_or(self.distribution), asked.seed) {
            (TimeDistribution::Constant, _) => mean_ms,
            (TimeDistribution::Exponential, Some(seed)) => {
                exponential(mean_ms, &mut SmallRng::seed_from_u64(seed))
            }
            (TimeDistribution::Exponential, None) => exponential(mean_ms, &mut *lock(&self.stream)),
        };
        Ok(Duration::from_secs_f64(time_ms / 1000.0))
    }
}

/// A draw from the exponential distribution, by inversion: −mean · ln(1 − U), U uniform in [0, 1).
fn exponential(mean: f64, rng: &mut impl Rng) -> f64 {
    let uniform: f64 = rng.random();
    -mean * (1.0 - uniform).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(distribution: TimeDistribution) -> Times {
        Times::new(distribution, 100.0, 7)
    }

    #[test]
    fn constant_times_are_the_mean() {
        let times = times(TimeDistribution::Constant);
        assert_eq!(times.draw(""), Ok(Duration::from_millis(100)));
        assert_eq!(times.draw("mean_ms=2.5&other=x"), Ok(Duration::from_micros(2500)));
    }

    #[test]
    fn exponential_times_have_their_mean_and_their_median() {
        let times = times(TimeDistribution::Exponential);
        let mut drawn: Vec<f64> =
            (0..20_000).map(|_| times.draw("").expect("good").as_secs_f64()).collect();
        drawn.sort_by(f64::total_cmp);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        // Standard error of the mean 0.1/√20000 = 0.0007; of the median the same. Five of them.
        assert!((mean - 0.1).abs() < 0.0035, "mean {mean}");
        let median = drawn[drawn.len() / 2];
        assert!((median - 0.1 * 2f64.ln()).abs() < 0.0035, "median {median}");
    }

    #[test]
    fn the_same_seed_gives_the_same_stream_and_a_seed_in_the_query_the_same_time() {
        let (one, other) =
            (times(TimeDistribution::Exponential), times(TimeDistribution::Exponential));
        let stream = |times: &Times| [times.draw(""), times.draw(""), times.draw("")];
        assert_eq!(stream(&one), stream(&other));
        let seeded = one.draw("seed=3");
        assert_eq!((one.draw("seed=3"), other.draw("seed=3")), (seeded.clone(), seeded.clone()));
        assert_ne!(one.draw("seed=4"), seeded);
    }
}
