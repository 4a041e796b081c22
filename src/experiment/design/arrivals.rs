//! When requests arrive: an arrival process whose rate follows straight lines between knots.
//!
//! Let Λ(t) = ∫₀ᵗ λ(u) du. If E₁, E₂, … are exponential with mean 1, the times
//!
//! ```text
//! tᵢ = Λ⁻¹(E₁ + … + Eᵢ)
//! ```
//!
//! are a Poisson process of rate λ(t) (E. Çinlar, *Introduction to Stochastic Processes*, 1975,
//! section 4.7). With Eᵢ = 1 in their place arrivals are deterministic: one each time that another
//! request is due. The first of those comes after a part of 1 drawn at random, so that nodes of the
//! same rate do not send in step. Λ is quadratic between knots, so the inverse is exact.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// How arrivals are spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    /// Exponential gaps.
    #[default]
    Poisson,
    /// Equal gaps, of one over the rate.
    Deterministic,
}

/// How a trace becomes a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Requests per second where the trace is 0.
    pub min_load: f64,
    /// Requests per second where the trace is 1.
    pub max_load: f64,
    /// Points by which the trace is moved: the run begins with the point of this index.
    pub shift: u32,
    /// How many times the trace is gone through, at least 1.
    pub repetitions: u32,
}

/// Requests per second over a run, in straight lines from knot to knot.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Seconds from the start and rates there; the first at 0, the last at the run's end.
    knots: Vec<(f64, f64)>,
}

impl Rates {
    /// The same all the time.
    pub fn constant(rate: f64, duration_s: f64) -> Self {
        Self { knots: vec![(0.0, rate), (duration_s, rate)] }
    }

    /// Along a trace of values from 0 to 1, one point after another spread over the run. The trace
    /// is taken as periodic: after its last point comes its first.
    pub fn along(trace: &[f64], shape: Shape, duration_s: f64) -> Self {
        let steps = trace.len().max(1) * shape.repetitions.max(1) as usize;
        let knot = |step: usize| {
            let index = (step + shape.shift as usize) % trace.len().max(1);
            let value = trace.get(index).copied().unwrap_or(0.0);
            let rate = shape.min_load + (shape.max_load - shape.min_load) * value;
            (duration_s * step as f64 / steps as f64, rate)
        };
        Self { knots: (0..=steps).map(knot).collect() }
    }

    /// All of it, times `factor`.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        self.knots.iter_mut().for_each(|(_, rate)| *rate *= factor);
        self
    }

    /// Requests per second at `t` seconds; 0 outside the run.
    pub fn at(&self, t: f64) -> f64 {
        let after = self.knots.partition_point(|(at, _)| *at <= t);
        match (after.checked_sub(1).and_then(|i| self.knots.get(i)), self.knots.get(after)) {
            (Some(&(t0, r0)), Some(&(t1, r1))) => r0 + (r1 - r0) * (t - t0) / (t1 - t0),
            (Some(&(end, rate)), None) if t == end => rate,
            _ => 0.0,
        }
    }

    /// Requests expected over the whole run, Λ at its end.
    pub fn expected(&self) -> f64 {
        let area = |two: &[(f64, f64)]| match two {
            [(t0, r0), (t1, r1)] => (r0 + r1) / 2.0 * (t1 - t0),
            _ => 0.0,
        };
        self.knots.windows(2).map(area).sum()
    }
}

/// The times of one node's requests, in seconds from the start, in order.
#[derive(Clone, Debug)]
pub struct Arrivals<R> {
    rates: Rates,
    process: Process,
    rng: R,
    /// The knot that the last arrival lies behind.
    knot: usize,
    /// The last arrival.
    at: f64,
    begun: bool,
}

impl<R: Rng> Arrivals<R> {
    /// Those of a run with these rates.
    pub fn new(rates: Rates, process: Process, rng: R) -> Self {
        Self { rates, process, rng, knot: 0, at: 0.0, begun: false }
    }

    /// What they follow.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// How much of Λ lies between one arrival and the next.
    fn gap(&mut self) -> f64 {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.process {
            Process::Deterministic if !first => 1.0,
            // From (0, 1].
            Process::Deterministic => 1.0 - self.rng.random::<f64>(),
            Process::Poisson => -(1.0 - self.rng.random::<f64>()).ln(),
        }
    }
}

impl<R: Rng> Iterator for Arrivals<R> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let mut left = self.gap();
        loop {
            let (&(t0, r0), &(t1, r1)) =
                (self.rates.knots.get(self.knot)?, self.rates.knots.get(self.knot + 1)?);
            let slope = (r1 - r0) / (t1 - t0);
            let rate = r0 + slope * (self.at - t0);
            let area = (rate + r1) / 2.0 * (t1 - self.at);
            if left < area {
                // The root of rate·x + slope·x²/2 = left, in the form that is exact for slope 0.
                let root = (rate * rate + 2.0 * slope * left).max(0.0).sqrt();
                self.at = (self.at + 2.0 * left / (rate + root)).min(t1);
                return Some(self.at);
            }
            left -= area;
            self.at = t1;
            self.knot += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn arrivals(rates: Rates, process: Process, seed: u64) -> Vec<f64> {
        Arrivals::new(rates, process, SmallRng::seed_from_u64(seed)).collect()
    }

    /// The largest distance between the distribution of `drawn` and `cdf` (Kolmogorov–Smirnov).
    fn distance(mut drawn: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
        drawn.sort_by(f64::total_cmp);
        let n = drawn.len() as f64;
        let off = |(i, x): (usize, &f64)| {
            let there = cdf(*x);
            (there - i as f64 / n).abs().max((there - (i + 1) as f64 / n).abs())
        };
        drawn.iter().enumerate().map(off).fold(0.0, f64::max)
    }

    #[test]
    fn poisson_gaps_are_exponential_with_the_rates_mean() {
        for (rate, seed) in [(0.5, 1), (8.0, 2), (1000.0, 3)] {
            let times = arrivals(Rates::constant(rate, 20_000.0 / rate), Process::Poisson, seed);
            let gaps: Vec<f64> = times.windows(2).map(|two| two[1] - two[0]).collect();
            // At 1.95/√n a true exponential fails once in a thousand seeds.
            let limit = 1.95 / (gaps.len() as f64).sqrt();
            let off = distance(gaps, |x| 1.0 - (-rate * x).exp());
            assert!(off < limit, "{rate}: {off} against {limit}");
        }
    }

    #[test]
    fn poisson_counts_have_a_variance_of_their_mean() {
        let times = arrivals(Rates::constant(10.0, 4000.0), Process::Poisson, 4);
        let mut counts = vec![0.0; 4000];
        times.iter().for_each(|t| counts[*t as usize] += 1.0);
        let mean = counts.iter().sum::<f64>() / 4000.0;
        let variance = counts.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / 3999.0;
        // Standard errors 0.05 and 0.23; four of them.
        assert!((mean - 10.0).abs() < 0.2 && (variance - 10.0).abs() < 0.95, "{mean} {variance}");
    }

    #[test]
    fn deterministic_gaps_are_one_over_the_rate() {
        let times = arrivals(Rates::constant(8.0, 10.0), Process::Deterministic, 5);
        assert_eq!(times.len(), 80);
        assert!(times[0] > 0.0 && times[0] <= 0.125);
        assert!(times.windows(2).all(|two| (two[1] - two[0] - 0.125).abs() < 1e-9));
        // Another node's do not fall together with them.
        assert_ne!(arrivals(Rates::constant(8.0, 10.0), Process::Deterministic, 6)[0], times[0]);
    }

    const SHAPE: Shape = Shape { min_load: 2.0, max_load: 10.0, shift: 0, repetitions: 1 };

    #[test]
    fn a_trace_is_interpolated_between_its_points_and_begins_again_after_the_last() {
        let rates = Rates::along(&[0.0, 1.0, 0.5, 0.25], SHAPE, 40.0);
        for (t, rate) in
            [(0.0, 2.0), (5.0, 6.0), (10.0, 10.0), (15.0, 8.0), (30.0, 4.0), (35.0, 3.0)]
        {
            assert!((rates.at(t) - rate).abs() < 1e-9, "{t}: {}", rates.at(t));
        }
        assert!((rates.at(40.0) - 2.0).abs() < 1e-9, "back at its first point");
        assert_eq!((rates.at(-0.1), rates.at(40.1)), (0.0, 0.0));
    }

    #[test]
    fn a_shift_begins_later_in_the_trace_and_repetitions_go_through_it_again() {
        let shape = Shape { shift: 1, repetitions: 2, ..SHAPE };
        let rates = Rates::along(&[0.0, 1.0], shape, 40.0);
        for (t, rate) in [(0.0, 10.0), (10.0, 2.0), (20.0, 10.0), (30.0, 2.0), (40.0, 10.0)] {
            assert!((rates.at(t) - rate).abs() < 1e-9, "{t}: {}", rates.at(t));
        }
        assert!((rates.scaled(1.5).at(5.0) - 9.0).abs() < 1e-9);
    }

    #[test]
    fn arrivals_along_a_trace_are_spread_as_its_area_is() {
        let trace = [0.1, 0.9, 0.3, 0.0, 0.6];
        let rates = Rates::along(&trace, Shape { min_load: 0.0, ..SHAPE }, 5000.0);
        let whole = rates.expected();
        for process in [Process::Poisson, Process::Deterministic] {
            let times = arrivals(rates.clone(), process, 7);
            let n = times.len() as f64;
            assert!((n - whole).abs() < 4.0 * whole.sqrt(), "{n} of {whole}");
            let until = |t: f64| {
                let steps = 1000;
                let h = t / f64::from(steps);
                (0..steps).map(|i| rates.at((f64::from(i) + 0.5) * h) * h).sum::<f64>() / whole
            };
            let off = distance(times, until);
            assert!(off < 1.95 / n.sqrt(), "{process:?}: {off}");
        }
    }

    #[test]
    fn where_the_rate_is_0_nothing_arrives() {
        assert_eq!(arrivals(Rates::constant(0.0, 100.0), Process::Poisson, 8), [0.0; 0]);
        let rates = Rates::along(&[0.0, 0.0, 1.0, 0.0], Shape { min_load: 0.0, ..SHAPE }, 400.0);
        for process in [Process::Poisson, Process::Deterministic] {
            let times = arrivals(rates.clone(), process, 9);
            // The area of two slopes of 100 s up to 10 per second.
            assert!((times.len() as f64 - 1000.0).abs() < 130.0, "{}", times.len());
            assert!(times.iter().all(|t| (100.0..=400.0).contains(t)), "{times:?}");
            assert!(times.windows(2).all(|two| two[0] <= two[1]));
        }
    }
}
