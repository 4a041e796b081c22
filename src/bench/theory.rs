//! Closed forms that a node can be held against: Poisson arrivals, exponential service, K servers,
//! Q places to wait.

/// The stationary distribution of M/M/K/(K+Q): pₙ ∝ aⁿ/n! for n ≤ K, and pₙ = p_K·(a/K)^(n−K)
/// beyond, with a = λ/μ (Kleinrock, *Queueing Systems*, vol. 1, section 3.6). K + Q + 1 values.
pub fn stationary(a: f64, k: u32, q: u32) -> Vec<f64> {
    let mut weight = 1.0;
    let next = |n: u32| {
        if n > 0 {
            weight *= a / f64::from(n.min(k));
        }
        weight
    };
    let weights: Vec<f64> = (0..=k.saturating_add(q)).map(next).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Erlang's B formula, the share of calls that find all K servers busy in M/M/K/K, by its
/// recursion B(k) = a·B(k−1) / (k + a·B(k−1)).
pub fn erlang_b(a: f64, k: u32) -> f64 {
    (1..=k).fold(1.0, |b, servers| a * b / (f64::from(servers) + a * b))
}

/// The share of calls refused in M/M/K/(K+Q).
pub fn blocking(a: f64, k: u32, q: u32) -> f64 {
    if q == 0 {
        return erlang_b(a, k);
    }
    stationary(a, k, q).last().copied().unwrap_or(1.0)
}

/// The mean wait of calls that are let in, in mean service times, by Little's law.
pub fn mean_wait(a: f64, k: u32, q: u32) -> f64 {
    let waiting = |(n, p): (u32, f64)| f64::from(n.saturating_sub(k)) * p;
    let line: f64 = (0..).zip(stationary(a, k, q)).map(waiting).sum();
    line / (a * (1.0 - blocking(a, k, q)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_is_as_tabled() {
        // Erlang B tables: 10 servers, 5 erlang; 1 server, 1 erlang.
        assert!((erlang_b(5.0, 10) - 0.018_385).abs() < 1e-6);
        assert_eq!(erlang_b(1.0, 1), 0.5);
    }

    #[test]
    fn the_two_closed_forms_agree_where_they_meet() {
        let p = stationary(3.0, 4, 0);
        assert!((p[4] - erlang_b(3.0, 4)).abs() < 1e-12);
    }

    #[test]
    fn a_single_server_waits_as_m_m_1_with_room_enough() {
        // M/M/1: the mean wait is ρ/(1 − ρ) service times.
        assert!((mean_wait(0.5, 1, 200) - 1.0).abs() < 1e-9);
        assert_eq!(mean_wait(2.0, 3, 0), 0.0);
    }
}
