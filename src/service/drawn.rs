//! How the time that a call takes is drawn.
//!
//! A distribution with a mean, from the configuration or the call's query string:
//! `dist=constant|exponential`, `mean_ms=…`, `seed=…`. Without a seed in the query, times come one
//! after another from the node's own stream. With one, the time depends on nothing else: the same seed
//! gives the same time on every node and under every scheduler, so that runs can be compared call by call.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// The longest mean, in milliseconds.
const MEAN_MS_MAX: f64 = 3.6e6;

/// How times are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeDistribution {
    /// Always the mean.
    Constant,
    /// Exponential with that mean.
    Exponential,
}

/// What a call's query may say.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    dist: Option<TimeDistribution>,
    mean_ms: Option<f64>,
    seed: Option<u64>,
}

/// What a call's time is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceTime {
    /// How times are spread.
    pub distribution: TimeDistribution,
    /// Their mean, in milliseconds, 0 to 3.6 · 10⁶.
    pub mean_ms: f64,
    /// What the time depends on alone; `None`: on the node's own stream.
    pub seed: Option<u64>,
}

impl ServiceTime {
    /// These defaults, with what `query` says instead.
    ///
    /// # Errors
    /// What in the query cannot be read.
    pub fn asked(self, query: &str) -> Result<Self, String> {
        let asked: Asked = serde_urlencoded::from_str(query)
            .map_err(|why| format!("the query: {why}; known: dist, mean_ms, seed"))?;
        let mean_ms = asked.mean_ms.unwrap_or(self.mean_ms);
        if !(0.0..=MEAN_MS_MAX).contains(&mean_ms) {
            return Err(format!("mean_ms is {mean_ms}, which is not within 0 to {MEAN_MS_MAX}"));
        }
        let distribution = asked.dist.unwrap_or(self.distribution);
        Ok(Self { distribution, mean_ms, seed: asked.seed.or(self.seed) })
    }

    /// A time. `stream` is drawn from only if the time is random and has no seed of its own.
    pub fn draw(self, stream: &mut dyn Rng) -> Duration {
        let time_ms = match (self.distribution, self.seed) {
            (TimeDistribution::Constant, _) => self.mean_ms,
            (TimeDistribution::Exponential, Some(seed)) => {
                exponential(self.mean_ms, &mut SmallRng::seed_from_u64(seed))
            }
            (TimeDistribution::Exponential, None) => exponential(self.mean_ms, stream),
        };
        Duration::from_secs_f64(time_ms / 1000.0)
    }
}

/// A draw from the exponential distribution, by inversion: −mean · ln(1 − U), U uniform in [0, 1).
fn exponential(mean: f64, rng: &mut dyn Rng) -> f64 {
    let uniform: f64 = rng.random();
    -mean * (1.0 - uniform).ln()
}

/// A standard normal variate (G. E. P. Box, M. E. Muller, *A note on the generation of random normal
/// deviates*, Annals of Mathematical Statistics 29(2), 1958).
pub fn normal(rng: &mut dyn Rng) -> f64 {
    // From (0, 1], whose logarithm is finite.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(distribution: TimeDistribution, query: &str, stream: &mut SmallRng) -> Duration {
        let defaults = ServiceTime { distribution, mean_ms: 100.0, seed: None };
        defaults.asked(query).expect("good").draw(stream)
    }

    #[test]
    fn constant_times_are_the_mean() {
        let stream = &mut SmallRng::seed_from_u64(7);
        let constant = TimeDistribution::Constant;
        assert_eq!(drawn(constant, "", stream), Duration::from_millis(100));
        assert_eq!(drawn(constant, "mean_ms=2.5&other=x", stream), Duration::from_micros(2500));
    }

    #[test]
    fn exponential_times_have_their_mean_and_their_median() {
        let stream = &mut SmallRng::seed_from_u64(7);
        let mut draw = || drawn(TimeDistribution::Exponential, "", stream).as_secs_f64();
        let mut drawn: Vec<f64> = (0..20_000).map(|_| draw()).collect();
        drawn.sort_by(f64::total_cmp);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        // Standard error of the mean 0.1/√20000 = 0.0007; of the median the same. Five of them.
        assert!((mean - 0.1).abs() < 0.0035, "mean {mean}");
        let median = drawn[drawn.len() / 2];
        assert!((median - 0.1 * 2f64.ln()).abs() < 0.0035, "median {median}");
    }

    #[test]
    fn the_same_stream_gives_the_same_times_and_a_seed_in_the_query_the_same_time() {
        let (one, other) = (&mut SmallRng::seed_from_u64(7), &mut SmallRng::seed_from_u64(7));
        let draw = |query: &str, stream: &mut SmallRng| {
            drawn(TimeDistribution::Exponential, query, stream)
        };
        let seeded = draw("seed=3", one);
        let three = |stream: &mut SmallRng| [(); 3].map(|()| draw("", stream));
        assert_eq!(three(one), three(other), "one that is seeded takes nothing from the stream");
        assert_eq!(draw("seed=3", other), seeded);
        assert_ne!(draw("seed=4", one), seeded);
    }

    #[test]
    fn what_cannot_be_a_time_is_refused() {
        let defaults =
            ServiceTime { distribution: TimeDistribution::Constant, mean_ms: 1.0, seed: None };
        for (query, part) in
            [("mean_ms=-1", "within 0"), ("mean_ms=x", "known:"), ("dist=x", "known:")]
        {
            assert!(defaults.asked(query).expect_err(query).contains(part), "{query}");
        }
    }

    #[test]
    fn normal_variates_have_mean_0_and_variance_1() {
        let mut rng = SmallRng::seed_from_u64(1);
        let n = 100_000;
        let drawn: Vec<f64> = (0..n).map(|_| normal(&mut rng)).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(n);
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean}, {variance}");
    }
}
