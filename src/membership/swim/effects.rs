//! What foca says in one step, collected; and how long its timers are here.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use foca::{Message, Notification, Timer};

use super::codec::MAGIC;
use super::spread::SharedRecords;
use super::{Due, PROBE_PERIOD, SwimEffect, SwimId, SwimTimer};

/// A longer round trip makes no time-out longer.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// What of a measured round trip's excess is forgotten with each that is shorter.
const ROUND_TRIP_DECAY: f64 = 0.2;
/// What a measured round trip changes of what is known of one node's.
const ROUND_TRIP_NEW: f64 = 0.2;
/// How long an answer to a ping is still measured.
const LATE: Duration = Duration::from_secs(5);
/// Pings whose answers are awaited at most.
const PINGS_MAX: usize = 64;
/// Levels of own slowness, as Lifeguard has them; each adds one period.
const SLOW_MAX: u32 = 8;

/// What collects the effects of one step.
pub(super) struct Effects {
    pub(super) out: VecDeque<SwimEffect>,
    pub(super) now: Duration,
    /// Pings on their way: when each went out.
    pub(super) pings: BTreeMap<(SwimId, u8), Duration>,
    /// The longest round trip of late.
    pub(super) round_trip: Duration,
    /// How slow this node seems to be itself.
    pub(super) slow: u32,
    /// Something was learnt that all should hear at once.
    pub(super) urgent: bool,
    /// Whom this node has just begun to suspect.
    pub(super) suspects: Vec<SwimId>,
    /// Who was started again, as far as others say.
    pub(super) renamed: Vec<SwimId>,
    /// Those that are there have records.
    shared: Rc<RefCell<SharedRecords>>,
    /// The round trip to each, with the later ones counting for more.
    pub(super) round_trips: BTreeMap<IpAddr, Duration>,
}

impl Effects {
    pub(super) fn new(shared: Rc<RefCell<SharedRecords>>) -> Self {
        Self {
            out: VecDeque::new(),
            now: Duration::ZERO,
            pings: BTreeMap::new(),
            round_trip: Duration::ZERO,
            slow: 0,
            urgent: false,
            suspects: Vec::new(),
            renamed: Vec::new(),
            shared,
            round_trips: BTreeMap::new(),
        }
    }

    /// How long `timer`, which has `usual` where round trips are short, is here.
    fn time(&self, timer: &Timer<SwimId>, usual: Duration) -> Duration {
        let (round_trip, slow) = (self.round_trip.min(ROUND_TRIP_MAX), self.slow);
        match timer {
            Timer::SendIndirectProbe { .. } => usual.max(round_trip * 3 / 2) + usual * slow,
            // Others that are asked need two more round trips.
            Timer::ProbeRandomMember(_) => usual.max(round_trip * 4) + usual * slow,
            Timer::ChangeSuspectToDown { .. } => usual + round_trip * 8 + PROBE_PERIOD * slow,
            _ => usual,
        }
    }

    fn pinged(&mut self, id: SwimId, number: u8) {
        let now = self.now;
        self.pings.retain(|_, sent| now.saturating_sub(*sent) < LATE);
        if self.pings.len() < PINGS_MAX {
            self.pings.insert((id, number), now);
        }
    }

    /// A node is there.
    pub(super) fn up(&mut self, ip: IpAddr) {
        self.shared.borrow_mut().records.up(ip);
        self.out.push_back(SwimEffect::Up(ip));
    }

    /// Others are asked for the node at `ip`: several in a row, which is said once.
    fn doubts(&mut self, ip: IpAddr) {
        let doubt = SwimEffect::Doubt(ip);
        if !self.out.contains(&doubt) {
            self.out.push_back(doubt);
        }
    }

    fn answered(&mut self, id: SwimId, number: u8) {
        let Some(sent) = self.pings.remove(&(id, number)) else { return };
        let took = self.now.saturating_sub(sent);
        let excess = self.round_trip.saturating_sub(took);
        self.round_trip = took + excess.mul_f64(1.0 - ROUND_TRIP_DECAY);
        let smooth = self.round_trips.entry(id.ip).or_insert(took);
        *smooth = smooth.mul_f64(1.0 - ROUND_TRIP_NEW) + took.mul_f64(ROUND_TRIP_NEW);
        self.slow = self.slow.saturating_sub(1);
    }
}

impl foca::Runtime<SwimId> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, SwimId>) {
        match notification {
            Notification::MemberUp(id) => self.up(id.ip),
            // One that was started again before it was missed; or one that is down, and of which only that is new.
            Notification::Rename(_, id) => self.renamed.push(*id),
            Notification::MemberDown(id) => {
                self.urgent = true;
                self.shared.borrow_mut().records.down(id.ip);
                self.round_trips.remove(&id.ip);
                self.out.push_back(SwimEffect::Down(id.ip));
            }
            Notification::ProbeFailed(_, id) => {
                self.slow = (self.slow + 1).min(SLOW_MAX);
                self.suspects.push(*id);
                // Where there are only two, nobody else can be asked.
                self.doubts(id.ip);
            }
            Notification::DataSent(header) => match header.message {
                Message::Ping(number) => self.pinged(header.dst, number),
                Message::PingReq { target, .. } => self.doubts(target.ip),
                _ => {}
            },
            Notification::DataReceived(header) => {
                if let Message::Ack(number) = header.message {
                    self.answered(header.src, number);
                }
            }
            Notification::Active
            | Notification::Idle
            | Notification::Defunct
            | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: SwimId, data: &[u8]) {
        let datagram = [MAGIC, data].concat().into();
        self.out.push_back(SwimEffect::Send { to: to.ip, datagram });
    }

    fn submit_after(&mut self, timer: Timer<SwimId>, after: Duration) {
        let after = self.time(&timer, after);
        if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer {
            for part in [1, 2] {
                let timer = SwimTimer(Due::Tell(member_id, incarnation));
                self.out.push_back(SwimEffect::Wake { after: after * part / 3, timer });
            }
        }
        self.out.push_back(SwimEffect::Wake { after, timer: SwimTimer(Due::Step(timer)) });
    }
}
