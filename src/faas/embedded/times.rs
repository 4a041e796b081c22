//! A node's stream of drawn times ([`ServiceTime`] says how they are drawn; the stream begins at `fn_seed`).

use std::sync::Mutex;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::lock;
use crate::service::drawn::{ServiceTime, TimeDistribution};

/// A node's drawn times.
pub struct Times {
    defaults: ServiceTime,
    stream: Mutex<SmallRng>,
}

impl Times {
    /// With these defaults, the stream beginning at `seed`.
    pub fn new(distribution: TimeDistribution, mean_ms: f64, seed: u64) -> Self {
        let defaults = ServiceTime { distribution, mean_ms, seed: None };
        Self { defaults, stream: Mutex::new(SmallRng::seed_from_u64(seed)) }
    }

    /// The time that a call with this query takes.
    ///
    /// # Errors
    /// What in the query cannot be read.
    pub fn draw(&self, query: &str) -> Result<Duration, String> {
        Ok(self.defaults.asked(query)?.draw(&mut *lock(&self.stream)))
    }
}
