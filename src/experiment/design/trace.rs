//! Daily traffic, generated: how busy the clients of each node are over a day, from 0 to 1.
//!
//! ```text
//! v(t) = s · clamp(b + m·g(t; 11 h) + e·g(t; 20 h) + n(t), 0, 1)
//! g(t; p) = exp(−d² / 2w²),  d = hours from p around the clock,  w = 2.5 h
//! n(t) = 0.9 n(t − 1) + ε,  ε normal with standard deviation 0.02
//! ```
//!
//! A base b = 0.15, a morning peak m, an evening peak e, and smooth noise n, an autoregressive
//! process of order one. Each node has its own peaks (m from 0.3 to 0.6, e from 0.5 to 0.8), its own
//! scale s from 0.3 to 1, and its own clock, shifted by up to two hours either way. The form is ours:
//! two peaks a day are what mobile networks see, the numbers are chosen to look like it.

use rand::{Rng, RngExt};

use crate::service::drawn::normal;

/// Where the two peaks are, in hours.
const PEAKS: [f64; 2] = [11.0, 20.0];
/// How wide they are, in hours.
const WIDTH: f64 = 2.5;
/// How busy it is without them.
const BASE: f64 = 0.15;
/// What is left of the noise a point later.
const SMOOTH: f64 = 0.9;
/// The standard deviation of what comes to the noise at each point.
const NOISE: f64 = 0.02;

/// A node's day: `points` values from 0 to 1, evenly spread from midnight on. The node's own
/// character and its noise come from `rng`.
pub fn day(rng: &mut dyn Rng, points: usize) -> Vec<f64> {
    let heights = [rng.random_range(0.3..0.6), rng.random_range(0.5..0.8)];
    let (scale, shift) = (rng.random_range(0.3..1.0), rng.random_range(-2.0..2.0));
    let mut noise = 0.0;
    let point = |index: usize| {
        let hour = 24.0 * index as f64 / points as f64 + shift;
        let peaks: f64 =
            PEAKS.iter().zip(heights).map(|(peak, height)| height * bell(hour - peak)).sum();
        noise = SMOOTH * noise + NOISE * normal(rng);
        scale * (BASE + peaks + noise).clamp(0.0, 1.0)
    };
    (0..points).map(point).collect()
}

/// 1 at 0 h, falling on both sides around the clock.
fn bell(hours: f64) -> f64 {
    let around = (hours + 12.0).rem_euclid(24.0) - 12.0;
    (-around * around / (2.0 * WIDTH * WIDTH)).exp()
}

/// The file's text: a line `index,value` per point.
pub fn csv(values: &[f64]) -> String {
    values.iter().enumerate().map(|(index, value)| format!("{index},{value}\n")).collect()
}

/// Points of a trace at most.
const POINTS_MAX: usize = 1_000_000;

/// Reads such a file; a first line of words is taken for column names.
///
/// # Errors
/// What is wrong, with the line.
pub fn parse(text: &str) -> Result<Vec<f64>, String> {
    let mut values = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        let mut cells = line.split(',').map(str::trim);
        if line.is_empty() || number == 1 && cells.clone().all(|cell| cell.parse::<f64>().is_err())
        {
            continue;
        }
        let value = cells.nth(1).and_then(|cell| cell.parse::<f64>().ok());
        match value.filter(|value| (0.0..=1.0).contains(value)) {
            Some(value) if values.len() < POINTS_MAX => values.push(value),
            Some(_) => return Err(format!("there are more than {POINTS_MAX} points")),
            None => return Err(format!("line {number} is not index,value with a value 0 to 1")),
        }
    }
    if values.is_empty() { Err("there are no points in it".to_owned()) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    fn rng(seed: u64) -> SmallRng {
        SmallRng::seed_from_u64(seed)
    }

    #[test]
    fn the_same_randomness_gives_the_same_day() {
        assert_eq!(day(&mut rng(7), 96), day(&mut rng(7), 96));
        assert_ne!(day(&mut rng(7), 96), day(&mut rng(8), 96));
    }

    #[test]
    fn values_stay_between_0_and_1_and_move_smoothly() {
        for seed in 0..50 {
            let day = day(&mut rng(seed), 96);
            assert_eq!(day.len(), 96);
            assert!(day.iter().all(|value| (0.0..=1.0).contains(value)));
            assert!(day.windows(2).all(|two| (two[0] - two[1]).abs() < 0.25), "{day:?}");
        }
    }

    #[test]
    fn a_day_has_two_peaks_and_a_quiet_night() {
        let nodes = 400;
        let days: Vec<Vec<f64>> = (0..nodes).map(|seed| day(&mut rng(seed), 24)).collect();
        let mean = |hour: usize| days.iter().map(|day| day[hour]).sum::<f64>() / nodes as f64;
        let (night, morning, midday, evening) = (mean(4), mean(11), mean(15), mean(20));
        assert!(night < midday && midday < morning && morning < evening);
    }

    #[test]
    fn a_file_has_a_line_of_index_and_value_per_point_and_reads_back() {
        assert_eq!(csv(&[0.5, 0.25]), "0,0.5\n1,0.25\n");
        let day = day(&mut rng(7), 96);
        assert_eq!(parse(&csv(&day)), Ok(day));
        assert_eq!(parse("index,value\n0, 0.5\n\n1,1\n"), Ok(vec![0.5, 1.0]));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_with_its_line() {
        for (text, part) in [
            ("0,0.5\n1,1.5", "line 2"),
            ("0,0.5\n1", "line 2"),
            ("0,0.5\n1,NaN", "line 2"),
            ("a,b\nc,d", "line 2"),
            ("", "no points"),
        ] {
            assert!(parse(text).expect_err(text).contains(part), "{text:?}");
        }
    }
}
