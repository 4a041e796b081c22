//! A recording as the arrivals of runs: a stretch of it, as fast and as many times as a run wants it.
//!
//! The recording is kept once, as far as runs need it, and every run goes through it anew, a minute at a time.
//! What a run draws by chance, it draws minute by minute from its own randomness, so that the same seed gives
//! the same calls:
//!
//! - where in their minute counted calls are ([`azure::in_minute`]),
//! - how often a call is sent under a load factor f: ⌊f⌋ times, and once more with the chance f − ⌊f⌋. The first
//!   time is the call's own; all further ones are drawn evenly from its minute. So the calls of a minute at a
//!   node are f times as many in the mean, none is moved to another minute, and f = 1 changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::arrivals::Rates;
use super::azure::{self, Arrived, RecordedCall};
use super::plan::ArrivedCall;

/// Which part of a recording a run sends, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// The second of the recording that the run begins with, from 0.
    pub from_s: f64,
    /// Recorded seconds that pass in one second of the run, above 0.
    pub speed: f64,
    /// Seconds that the run lasts.
    pub duration_s: f64,
}

impl Stretch {
    /// The second of the recording that the run ends before.
    pub fn until_s(self) -> f64 {
        self.from_s + self.speed * self.duration_s
    }

    /// The second of the run for a second of the recording; `None`: it is not in the run.
    fn in_run(self, at_s: f64) -> Option<f64> {
        let at = (at_s - self.from_s) / self.speed;
        (0.0..self.duration_s).contains(&at).then_some(at)
    }

    /// The minutes that it has a part of: the first, and the one behind the last.
    fn minutes(self) -> (u32, u32) {
        // A cast of what is too large gives the largest.
        (minute_of(self.from_s), (self.until_s() / 60.0).ceil() as u32)
    }
}

/// Which minute a second lies in.
fn minute_of(at_s: f64) -> u32 {
    (at_s / 60.0) as u32
}

/// Calls of a function in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    minute: u32,
    function: u32,
    count: u32,
}

/// What is kept, in the order of minutes.
#[derive(Clone, Debug)]
enum Kept {
    Counted(Vec<Counted>),
    Called(Vec<RecordedCall>),
}

/// A recording, as far as runs need it.
#[derive(Clone, Debug)]
pub struct Recording {
    kept: Kept,
    nodes: u32,
    /// Of each node the minutes in which calls come to it, in order, with how many.
    minutes: Vec<Vec<(u32, u32)>>,
}

impl Recording {
    /// Of what arrived at so many nodes, the minutes that a run has a part of, or a warm-up of so many
    /// seconds.
    ///
    /// # Errors
    /// No call is in the run, or none in its minutes where calls were counted by the minute; with when the
    /// recording ends. Or there are too many.
    pub fn new(arrived: Arrived, nodes: u32, run: Stretch, warm_up_s: f64) -> Result<Self, String> {
        let longest = Stretch { duration_s: run.duration_s.max(warm_up_s), ..run };
        let (first, end) = longest.minutes();
        let (kept, length_s, in_run) = match arrived {
            Arrived::Counts(counts) => {
                let length_s = 60.0 * counts.first().map_or(0, Vec::len) as f64;
                let of_stretch = |counts: &Vec<u32>| -> u64 {
                    let minutes = counts.iter().skip(first as usize);
                    minutes.take(end.saturating_sub(first) as usize).copied().map(u64::from).sum()
                };
                few(counts.iter().map(of_stretch).sum())?;
                let kept = counted(&counts, first, end);
                let any = kept.first().is_some_and(|first| first.minute < run.minutes().1);
                (Kept::Counted(kept), length_s, any)
            }
            Arrived::Invocations(mut calls) => {
                let length_s = calls.last().map_or(0.0, |call| call.at_s);
                calls.retain(|call| (first..end).contains(&minute_of(call.at_s)));
                calls.shrink_to_fit();
                let any = calls.iter().any(|call| run.in_run(call.at_s).is_some());
                (Kept::Called(calls), length_s, any)
            }
        };
        if !in_run {
            let (from_s, until_s) = (run.from_s, run.until_s());
            return Err(format!(
                "no call comes from second {from_s} to second {until_s}, and its last one by second {length_s}"
            ));
        }
        let minutes = per_node(&kept, nodes);
        Ok(Self { kept, nodes, minutes })
    }

    /// Calls of the minute that has most of them.
    pub fn busiest_minute(&self) -> u64 {
        let mut all: BTreeMap<u32, u64> = BTreeMap::new();
        for (minute, count) in self.minutes.iter().flatten() {
            *all.entry(*minute).or_default() += u64::from(*count);
        }
        all.into_values().max().unwrap_or_default()
    }

    /// Calls that are kept.
    pub fn calls(&self) -> u64 {
        match &self.kept {
            Kept::Counted(all) => all.iter().map(|one| u64::from(one.count)).sum(),
            Kept::Called(all) => all.len() as u64,
        }
    }

    /// The longest recorded duration, in seconds. `None`: there are calls without one.
    pub fn longest_s(&self) -> Option<f64> {
        match &self.kept {
            Kept::Counted(_) => None,
            Kept::Called(all) => {
                let longest =
                    |longest: f64, call: &RecordedCall| Some(longest.max(call.duration_s?));
                all.iter().try_fold(0.0, longest)
            }
        }
    }

    /// Calls a second to that node in that minute.
    fn rate(&self, node: usize, minute: u32) -> f64 {
        let minutes = self.minutes.get(node).map_or(&[][..], Vec::as_slice);
        let found = minutes.binary_search_by_key(&minute, |(minute, _)| *minute).ok();
        let count = found.and_then(|at| minutes.get(at)).map_or(0, |(_, count)| *count);
        f64::from(count) / 60.0
    }

    /// The calls of the first minute from the `next`-th entry on, that minute, and where the entries behind it
    /// begin. `None`: there are no more.
    fn minute(&self, next: usize, rng: &mut dyn Rng) -> Option<(u32, Vec<RecordedCall>, usize)> {
        match &self.kept {
            Kept::Counted(all) => {
                let rest = all.get(next..)?;
                let minute = rest.first()?.minute;
                let these = rest.iter().take_while(|one| one.minute == minute);
                let (mut calls, mut entries) = (Vec::new(), 0);
                for one in these {
                    let function = one.function as usize;
                    calls.extend(azure::in_minute(minute, function, one.count, &mut *rng));
                    entries += 1;
                }
                Some((minute, calls, next + entries))
            }
            Kept::Called(all) => {
                let rest = all.get(next..)?;
                let minute = minute_of(rest.first()?.at_s);
                let these = rest.iter().take_while(|call| minute_of(call.at_s) == minute);
                let calls: Vec<RecordedCall> = these.copied().collect();
                let next = next + calls.len();
                Some((minute, calls, next))
            }
        }
    }
}

/// Whether so many calls may be in a run.
fn few(calls: u64) -> Result<(), String> {
    match calls > azure::INVOCATIONS_MAX as u64 {
        true => {
            let most = azure::INVOCATIONS_MAX;
            Err(format!("{calls} calls come in the minutes of a run, at most {most} are sent"))
        }
        false => Ok(()),
    }
}

/// What is not 0 in those minutes, minute by minute.
fn counted(counts: &[Vec<u32>], first: u32, end: u32) -> Vec<Counted> {
    let minutes = counts.first().map_or(0, Vec::len) as u32;
    let of_minute = |minute: u32| {
        let functions = counts.iter().zip(0u32..);
        functions.filter_map(move |(counts, function)| {
            let count = *counts.get(minute as usize)?;
            (count > 0).then_some(Counted { minute, function, count })
        })
    };
    (first..end.min(minutes)).flat_map(of_minute).collect()
}

/// How many calls come to each node in which minute.
fn per_node(kept: &Kept, nodes: u32) -> Vec<Vec<(u32, u32)>> {
    let mut all: Vec<Vec<(u32, u32)>> = vec![Vec::new(); nodes as usize];
    let mut add = |call: &RecordedCall, minute: u32, count: u32| {
        let node = azure::node_of(call, nodes).and_then(|node| all.get_mut(node as usize));
        let Some(minutes) = node else { return };
        match minutes.last_mut() {
            Some((last, sum)) if *last == minute => *sum = sum.saturating_add(count),
            _ => minutes.push((minute, count)),
        }
    };
    match kept {
        Kept::Called(calls) => calls.iter().for_each(|call| add(call, minute_of(call.at_s), 1)),
        Kept::Counted(counted) => counted.iter().for_each(|one| {
            let function = one.function as usize;
            let call =
                RecordedCall { at_s: 0.0, duration_s: None, function, node: None, payload: None };
            add(&call, one.minute, one.count);
        }),
    }
    all
}

/// What a run sends of a recording.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The recording.
    pub recording: Arc<Recording>,
    /// Which part of it; within that for which it was kept.
    pub stretch: Stretch,
    /// How many times each call is sent, in the mean.
    pub factor: f64,
}

impl Replayed {
    /// The calls, in order, with what is drawn by chance from `rng`.
    pub fn arrivals<R: Rng>(self, rng: R) -> Replay<R> {
        Replay { replayed: self, rng, next: 0, ready: Vec::new().into_iter() }
    }

    /// Requests a second to `node` in the minute of the recording that has this second of it.
    fn rate(&self, node: usize, recorded_s: f64) -> f64 {
        let rate = self.recording.rate(node, minute_of(recorded_s));
        rate * self.stretch.speed * self.factor
    }
}

/// The calls of a run, from a recording.
pub struct Replay<R> {
    replayed: Replayed,
    rng: R,
    /// The entry of the recording that comes next.
    next: usize,
    /// What is left of the minute.
    ready: std::vec::IntoIter<RecordedCall>,
}

impl<R: Rng> Replay<R> {
    /// Takes the next minute. `None`: there is none.
    fn take_minute(&mut self) -> Option<()> {
        let Self { replayed, rng, next, ready } = self;
        let (minute, calls, following) = replayed.recording.minute(*next, rng)?;
        let mut sent = Vec::with_capacity(calls.len());
        for call in calls {
            let (whole, part) = (replayed.factor.floor(), replayed.factor.fract());
            // Nothing is drawn for a whole factor.
            let once_more = part > 0.0 && rng.random::<f64>() < part;
            let times = whole as u64 + u64::from(once_more);
            sent.extend((times > 0).then_some(call));
            sent.extend(
                (1..times).map(|_| RecordedCall { at_s: azure::sometime(minute, rng), ..call }),
            );
        }
        azure::in_order(&mut sent);
        (*next, *ready) = (following, sent.into_iter());
        Some(())
    }
}

impl<R: Rng> Iterator for Replay<R> {
    type Item = ArrivedCall;

    fn next(&mut self) -> Option<ArrivedCall> {
        loop {
            let Some(call) = self.ready.next() else {
                self.take_minute()?;
                continue;
            };
            let Replayed { recording, stretch, .. } = &self.replayed;
            if call.at_s >= stretch.until_s() {
                // What else is kept is for a longer warm-up.
                return None;
            }
            let at_s = stretch.in_run(call.at_s);
            let node = azure::node_of(&call, recording.nodes);
            if let (Some(at_s), Some(node)) = (at_s, node) {
                let node = node as usize;
                let rate = self.replayed.rate(node, call.at_s);
                let payload = call.payload.map(|payload| payload as usize);
                return Some(ArrivedCall {
                    at_s,
                    node,
                    rate,
                    payload,
                    duration_s: call.duration_s,
                });
            }
        }
    }
}

/// Requests a second to each node over a run.
#[derive(Clone, Debug)]
pub enum RunRates {
    /// As the scenario says of each node.
    Given(Vec<Rates>),
    /// As recorded.
    Recorded(Replayed),
}

/// What times in nanoseconds may have lost, in seconds.
const ROUNDED_S: f64 = 1e-9;

impl RunRates {
    /// To that node at that second of the run; of a recording, its mean over the recorded minute.
    pub fn at(&self, node: usize, at_s: f64) -> f64 {
        match self {
            Self::Given(all) => all.get(node).map_or(0.0, |rates| rates.at(at_s)),
            Self::Recorded(replayed) => {
                let Stretch { from_s, speed, .. } = replayed.stretch;
                replayed.rate(node, from_s + speed * (at_s + ROUNDED_S))
            }
        }
    }
}

#[cfg(test)]
mod tests;
