//! A machine, and what is known of it.

use std::net::IpAddr;
use std::time::Duration;

use super::conflicts::CLAIM_SHOWN;
use crate::types::{NAME_BYTES_MAX, Peer};
use crate::wire::WireMachine;

/// How much is known of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Others speak of it; it has not answered yet. Not listed.
    Hearsay,
    /// It called or answered, or an operator named it.
    Alive,
    /// It failed as many polls in a row as the threshold says. Not listed.
    Dead,
}

/// What a machine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Its name (`machine_id`); may be empty.
    pub name: String,
    /// Its group; may be empty.
    pub group: String,
    /// Whether calls stream to it: it speaks peer protocol 2, and not only v1's.
    pub streams: bool,
    /// The port on which it answers other members of its cluster by TLS; `None`: it is spoken to in the clear.
    pub tls_port: Option<u16>,
}

impl Introduction {
    /// Whether name and group are short enough to be some.
    pub fn fits(&self) -> bool {
        self.name.len().max(self.group.len()) <= NAME_BYTES_MAX
    }
}

/// A known machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// A number that stays with it while it is known.
    pub id: u64,
    /// Its address.
    pub ip: IpAddr,
    /// What it says of itself.
    pub is: Introduction,
    /// The last poll's round trip.
    pub ping: Duration,
    /// Unix seconds of its last sign of life.
    pub last_update: u64,
    /// Whether it is believed alive.
    pub standing: Standing,
    /// Failed polls in a row.
    pub dead_polls: u32,
    pub(super) polled: Option<Duration>,
    pub(super) polling: bool,
    /// It was alive once, or an operator named it. What was only heard of is forgotten when it
    /// fails its polls.
    pub(super) proven: bool,
    /// Its own answer told its name, which calls in its name do not change.
    pub(super) named_itself: bool,
    /// The name under which somebody called from here who is not known by that name. It is asked which is right.
    pub(super) claim: Option<String>,
    /// When a machine of another name last said that it has this address.
    pub(super) claimed: Option<Duration>,
    /// When it was last asked for its list.
    pub(super) listed: Option<Duration>,
    /// SWIM says that it is there.
    pub(super) swims: bool,
    /// What [`Peer::far`] tells.
    pub(super) far: Duration,
}

impl Machine {
    /// Somebody called from here under that name. Where it is another one, the machine is to be asked.
    pub(super) fn is_claimed_by(&mut self, name: String, now: Duration) {
        let is_other = !name.is_empty() && name != self.is.name;
        let rested = self.polled.is_none_or(|then| now.saturating_sub(then) >= CLAIM_REST);
        if is_other && rested && !self.polling {
            (self.claim, self.polled) = (Some(name), None);
        }
    }

    /// It answered under `name`. Gives whether somebody else claims its address, if that is news.
    pub(super) fn claim_was_wrong(&mut self, name: &str, now: Duration) -> bool {
        if self.claim.take().is_none_or(|claim| claim == name) {
            return false;
        }
        let before = self.claimed.replace(now);
        before.is_none_or(|then| now.saturating_sub(then) >= CLAIM_SHOWN)
    }
}

impl From<&Machine> for WireMachine {
    fn from(machine: &Machine) -> Self {
        Self {
            id: machine.id,
            ip: machine.ip.to_string(),
            name: machine.is.name.clone(),
            group_name: machine.is.group.clone(),
            ping: machine.ping.as_secs_f64(),
            last_update: machine.last_update,
            alive: machine.standing == Standing::Alive,
            dead_polls: machine.dead_polls,
            conflict: None,
        }
    }
}

impl From<&Machine> for Peer {
    /// As a place to send calls to. What it says of itself in its record is not known here.
    fn from(machine: &Machine) -> Self {
        Self {
            host: machine.ip.to_string().into(),
            name: machine.is.name.as_str().into(),
            streams: machine.is.streams,
            tls_port: machine.is.tls_port,
            far: machine.far,
            record: None,
        }
    }
}

/// How often a machine is asked because somebody calls in its name.
const CLAIM_REST: Duration = Duration::from_secs(1);

/// The steps of [`Peer::far`], and its longest.
pub(super) const FAR_STEP: Duration = Duration::from_millis(50);
const FAR_MAX: Duration = Duration::from_secs(2);

/// A round trip in coarse steps; zero for one shorter than the first.
pub(super) fn coarse(round_trip: Duration) -> Duration {
    let steps = round_trip.min(FAR_MAX).as_millis() / FAR_STEP.as_millis();
    match u32::try_from(steps) {
        Ok(steps @ 1..) => FAR_STEP * (steps + 1),
        _ => Duration::ZERO,
    }
}
