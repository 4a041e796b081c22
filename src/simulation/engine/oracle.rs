//! Programs outside, which decide in real time while simulated time stands still.

use crate::policy::external::{Advised, Consultation};

/// The way from a simulation to programs outside.
pub trait Oracle {
    /// Sends `frames` of the node at `host` to the program at `url`; gives what that answers to the last of them. It waits
    /// as long as that takes. `None`: the program is gone.
    fn ask(&mut self, host: &str, url: &str, frames: &[String]) -> Option<Vec<u8>>;
}

/// What a simulation has of them.
#[derive(Default)]
pub(super) struct AskedPrograms {
    pub(super) oracle: Option<Box<dyn Oracle>>,
    pub(super) fallbacks: u64,
}

impl AskedPrograms {
    /// What the program says to the node at `host`. No simulated time passes.
    pub(super) fn consult(&mut self, host: &str, consultation: &Consultation) -> Advised {
        let Consultation { url, frames, .. } = consultation;
        let said = self.oracle.as_mut().and_then(|oracle| oracle.ask(host, url, frames));
        consultation.read(said.as_deref()).unwrap_or_else(|_| {
            self.fallbacks += 1;
            consultation.fallback()
        })
    }
}
