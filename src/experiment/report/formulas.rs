//! Closed forms that a node can be held against: Poisson arrivals, exponential service, K servers,
//! Q places to wait.

/// How such a system is in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongRun {
    /// The share of calls that are refused.
    pub blocking: f64,
    /// Mean calls that wait.
    pub line: f64,
}

/// M/M/K/(K+Q) with the offered load a = λ/μ, one place after another. With n places the share
/// refused is pₙ of a birth-death process (Kleinrock, *Queueing Systems*, vol. 1, sections 3.1 and
/// 3.7), for which
///
/// ```text
/// B(n) = ρₙ B(n−1) / (1 + ρₙ B(n−1)),  ρₙ = a / min(n, K),  B(0) = 1
/// ```
///
/// which for Q = 0 is Erlang's B formula by its recursion; and a new place takes its share from
/// all others alike: L(n) = L(n−1)·(1 − B(n)) + (n − K)⁺·B(n). Takes K + Q steps.
pub fn long_run(a: f64, k: u32, q: u32) -> LongRun {
    let place = |of: LongRun, n: u32| {
        let rho = a / f64::from(n.min(k));
        let blocking = rho * of.blocking / (1.0 + rho * of.blocking);
        let waiting = f64::from(n.saturating_sub(k));
        LongRun { blocking, line: of.line * (1.0 - blocking) + waiting * blocking }
    };
    (1..=k.saturating_add(q)).fold(LongRun { blocking: 1.0, line: 0.0 }, place)
}

/// The share of calls refused in M/M/K/(K+Q).
pub fn blocking(a: f64, k: u32, q: u32) -> f64 {
    long_run(a, k, q).blocking
}

/// The mean wait of calls that are let in, in mean service times, by Little's law.
pub fn mean_wait(a: f64, k: u32, q: u32) -> f64 {
    let LongRun { blocking, line } = long_run(a, k, q);
    line / (a * (1.0 - blocking))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_is_as_tabled() {
        // Erlang B tables: 10 servers, 5 erlang; 1 server, 1 erlang.
        assert!((blocking(5.0, 10, 0) - 0.018_385).abs() < 1e-6);
        assert_eq!(blocking(1.0, 1, 0), 0.5);
    }

    #[test]
    fn it_is_the_stationary_distribution_by_its_weights() {
        for (a, k, q) in [(0.9, 1, 4), (2.8, 3, 2), (4.5, 4, 4), (8.0, 4, 0)] {
            // pₙ ∝ a/1 · a/2 ⋯ a/min(n, K).
            let mut weights = vec![1.0];
            for n in 1..=k + q {
                weights.push(weights[weights.len() - 1] * a / f64::from(n.min(k)));
            }
            let sum: f64 = weights.iter().sum();
            let line: f64 =
                (0..).zip(&weights).map(|(n, w)| f64::from(u32::saturating_sub(n, k)) * w).sum();
            let of = long_run(a, k, q);
            assert!((of.blocking - weights[weights.len() - 1] / sum).abs() < 1e-12);
            assert!((of.line - line / sum).abs() < 1e-12);
        }
    }

    #[test]
    fn a_single_server_waits_as_m_m_1_with_room_enough() {
        // M/M/1: the mean wait is ρ/(1 − ρ) service times.
        assert!((mean_wait(0.5, 1, 200) - 1.0).abs() < 1e-9);
        assert_eq!(mean_wait(2.0, 3, 0), 0.0);
    }

    #[test]
    fn large_systems_stay_finite() {
        for (a, k, q) in [(8.0, 4, 5000), (2000.0, 1000, 0), (1e6, 1, 100)] {
            assert!(mean_wait(a, k, q).is_finite() && (0.0..=1.0).contains(&blocking(a, k, q)));
        }
    }
}
