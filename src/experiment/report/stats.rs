//! Means with confidence intervals, quantiles.
//!
//! **Batch means** (A. M. Law, *Simulation Modeling and Analysis*, 5th ed., section 9.5.3): the
//! measurements of one run, in the order of their arrival, are cut into batches of equal size; the
//! means of the batches are taken as independent and normal, though single measurements, which
//! queue behind each other, are not. The interval is mean ± t(n−1) · s/√n over the n batches.

/// Batches that a run is cut into.
pub const BATCHES: usize = 20;

/// Measurements that a batch has at least.
const BATCH_MIN: usize = 10;

/// A mean with half its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the interval's width; `None` with too few measurements to tell.
    pub half: Option<f64>,
}

impl Estimate {
    /// Whether a value lies in the interval; an estimate without one says no.
    pub fn covers(&self, value: f64) -> bool {
        self.half.is_some_and(|half| (value - self.mean).abs() <= half)
    }
}

/// The value that |t| with that many degrees of freedom stays below 19 times in 20.
///
/// To 30 the tabled values, beyond them the first terms of its expansion around the normal value z,
/// z + (z³ + z)/(4n) + (5z⁵ + 16z³ + 3z)/(96n²), good to 0.001 (M. Abramowitz, I. A. Stegun,
/// *Handbook of Mathematical Functions*, table 26.10 and 26.7.5).
pub fn t_95(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    let z = 1.959_964_f64;
    let tabled = degrees.checked_sub(1).and_then(|index| TABLE.get(index));
    let n = degrees.max(1) as f64;
    let expanded = || {
        z + (z.powi(3) + z) / (4.0 * n)
            + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
    };
    tabled.copied().unwrap_or_else(expanded)
}

/// The mean of independent values with its interval; `None` for no values.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let n = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let half = (values.len() > 1).then(|| {
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        t_95(values.len() - 1) * (variance / n).sqrt()
    });
    Some(Estimate { mean, half })
}

/// The mean of measurements that depend on each other, by batch means; they are in the order of
/// their arrival. The interval needs at least ten measurements a batch.
pub fn batch_means(measured: &[f64]) -> Option<Estimate> {
    let size = measured.len() / BATCHES;
    if size < BATCH_MIN {
        return Some(Estimate { half: None, ..estimate(measured)? });
    }
    // Up to 19 of the earliest are left out, so that all batches weigh the same.
    let even = measured.get(measured.len() - size * BATCHES..)?;
    let means: Vec<f64> =
        even.chunks(size).map(|batch| batch.iter().sum::<f64>() / size as f64).collect();
    let mean = measured.iter().sum::<f64>() / measured.len() as f64;
    Some(Estimate { mean, ..estimate(&means)? })
}

/// The share of measurements that are true, by batch means. Where none is, or all are, nothing
/// varies that an interval could come from; it then goes as far as 3/n, beyond which such a sample
/// would come less than once in twenty (J. A. Hanley, A. Lippman-Hand, *If nothing goes wrong, is
/// everything all right?*, JAMA 249(13), 1983).
pub fn share(measured: impl Iterator<Item = bool>) -> Option<Estimate> {
    let measured: Vec<f64> = measured.map(|yes| f64::from(u8::from(yes))).collect();
    let of = batch_means(&measured)?;
    let same = of.mean == 0.0 || of.mean == 1.0;
    let half = of.half.map(|half| if same { 3.0 / measured.len() as f64 } else { half });
    Some(Estimate { half, ..of })
}

/// The value below which the share `q` (0 to 1) of `sorted` lies, interpolated between neighbours;
/// `None` for no values.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q.clamp(0.0, 1.0) * (sorted.len().checked_sub(1)? as f64);
    let (low, part) = (place.floor() as usize, place.fract());
    let at = sorted.get(low)?;
    Some(sorted.get(low + 1).map_or(*at, |next| at + (next - at) * part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn t_is_as_tabled_and_goes_on_smoothly_to_the_normal_value() {
        assert_eq!((t_95(1), t_95(19), t_95(30)), (12.706, 2.093, 2.042));
        assert!((t_95(40) - 2.021).abs() < 1e-3 && (t_95(120) - 1.980).abs() < 1e-3);
        assert!((1..200).all(|n| t_95(n) > t_95(n + 1)));
        assert!((t_95(1_000_000) - 1.96).abs() < 1e-3);
    }

    #[test]
    fn an_estimate_of_known_values_is_as_by_hand() {
        let of = estimate(&[1.0, 2.0, 3.0, 4.0]).expect("values");
        // s² = 5/3, t(3) = 3.182.
        assert!((of.mean - 2.5).abs() < 1e-12);
        assert!((of.half.expect("four") - 3.182 * (5.0_f64 / 12.0).sqrt()).abs() < 1e-12);
        assert!(of.covers(4.5) && !of.covers(4.6));
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[7.0]), Some(Estimate { mean: 7.0, half: None }));
    }

    #[test]
    fn intervals_of_independent_measurements_cover_the_truth_95_times_in_100() {
        let mut rng = SmallRng::seed_from_u64(1);
        let covered = (0..1000).filter(|_| {
            let measured: Vec<f64> =
                (0..2000).map(|_| f64::from(u8::from(rng.random::<f64>() < 0.3))).collect();
            batch_means(&measured).expect("measured").covers(0.3)
        });
        let share = covered.count() as f64 / 1000.0;
        // Standard error 0.007.
        assert!((0.925..=0.975).contains(&share), "{share}");
    }

    #[test]
    fn batch_means_see_that_neighbours_depend_on_each_other() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut value = 0.0;
        let next = |_| {
            value = 0.95 * value + rng.random::<f64>() - 0.5;
            value
        };
        let measured: Vec<f64> = (0..20_000).map(next).collect();
        let batched = batch_means(&measured).and_then(|e| e.half).expect("an interval");
        let naive = estimate(&measured).and_then(|e| e.half).expect("an interval");
        // In theory √((1 + 0.95)/(1 − 0.95)) = 6.2 times as wide.
        assert!((3.5..=9.5).contains(&(batched / naive)), "{}", batched / naive);
    }

    #[test]
    fn batch_means_keep_the_mean_of_all_and_need_ten_measurements_a_batch() {
        let measured: Vec<f64> = (0..207).map(f64::from).collect();
        let of = batch_means(&measured).expect("measured");
        assert!((of.mean - 103.0).abs() < 1e-12 && of.half.is_some());
        assert_eq!(batch_means(&measured[..199]).expect("measured").half, None);
        assert_eq!(batch_means(&[]), None);
    }

    #[test]
    fn what_never_happened_may_still_happen_at_times() {
        let never = share((0..600).map(|_| false)).expect("measured");
        assert_eq!((never.mean, never.half), (0.0, Some(0.005)));
        assert_eq!(share((0..600).map(|_| true)).expect("measured").half, Some(0.005));
        let half = share((0..600).map(|n| n % 2 == 0)).expect("measured");
        assert_eq!((half.mean, half.half), (0.5, Some(0.0)));
        assert_eq!(share(std::iter::empty()), None);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let sorted = [1.0, 2.0, 3.0, 5.0];
        assert_eq!(quantile(&sorted, 0.0), Some(1.0));
        assert_eq!(quantile(&sorted, 0.5), Some(2.5));
        assert_eq!(quantile(&sorted, 1.0), Some(5.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
