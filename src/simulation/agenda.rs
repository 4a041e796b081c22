//! What is to happen when: events in the order of their times, and of their making where times are equal.

use std::cmp::Ordering;

use dary_heap::QuaternaryHeap;

/// Nanoseconds since the beginning.
pub(super) type Nanos = u64;

/// A call, as events name it. A call that is over is not mistaken for one that has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A call comes to the node of its last hop.
    Comes(CallId),
    /// One of a call's probes comes to its peer.
    ProbeComes(CallId, u16),
    /// The answer to it is back, or none comes any more.
    ProbeBack(CallId, u16),
    /// A call has waited as long as its policy wished.
    Woken(CallId),
    /// The next call on a node's board may be done; the number says of which reckoning.
    BoardDue(u32, u32),
    /// A call that has a board of its own is done.
    Done(CallId),
    /// An answer, or an error, is back at the hop before, or at the client.
    Back(CallId),
    /// A call could not be handed to a peer; whether that is since the node did not wait any longer.
    Unreached(CallId, bool),
    /// Entries for a node's learner are sent, though no batch is full.
    Flush(u32),
    /// A batch of entries comes to a node's learner.
    Trains(u32),
    /// The fault of that index begins, or ends.
    FaultBegins(u32),
    FaultEnds(u32),
    /// The others notice that it has begun, or ended.
    Noticed,
    /// A node begins to take part in SWIM.
    SwimBegins(u32),
    /// A timer of a node's SWIM is due.
    SwimWakes(u32),
    /// It is time for a node's polls; the second number says of which of its starts.
    Polls(u32, u32),
    /// The first node is to ask the second once more.
    AsksAgain(u32, u32),
    /// A letter comes to whom it is for.
    Letter(u32),
    /// Algorithms say something in their nodes' records, and hear what others say.
    Converse,
    /// A note from one node's algorithm comes to another's.
    Note(u32),
}

#[derive(Debug)]
struct Entry {
    at: Nanos,
    number: u64,
    event: Event,
}

impl Ord for Entry {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// Of four children each: half as deep as one of two, which is what counts where it is larger than a cache.
    heap: QuaternaryHeap<Entry>,
    number: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Nanos, event: Event) {
        self.number += 1;
        self.heap.push(Entry { at, number: self.number, event });
    }

    /// When the next event is.
    pub(super) fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<(Nanos, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_times_and_then_of_their_making() {
        let mut agenda = Agenda::default();
        for (at, node) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            agenda.add(at, Event::Flush(node));
        }
        assert_eq!(agenda.next_at(), Some(3));
        let order: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        let flushed = [(3, 1), (3, 3), (4, 4), (5, 0), (5, 2)].map(|(at, n)| (at, Event::Flush(n)));
        assert_eq!(order, flushed);
    }
}
