//! What Discovery is told and asked, and what it asks of the network.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use crate::error::NoMachineIp;
use crate::membership::Introduction;
use crate::membership::records::AgedRecord;
use crate::saved::MachinePatch;
use crate::storage::StorageError;
use crate::types::{Identity, Peer};
use crate::wire::WireMachine;

/// The machines known alive, in the wire's order. A caller that is a machine is added or
/// refreshed first: this is the gossip.
#[derive(Clone, Message)]
#[rtype(result = "Listing")]
pub struct ListMachines {
    /// The calling machine, if it is one.
    pub caller: Option<(IpAddr, Introduction)>,
    /// Whether it says that it stops. Anybody could say so for another: it is asked itself.
    pub leaves: bool,
}

/// The answer to [`ListMachines`].
pub struct Listing {
    /// Who answers.
    pub identity: Identity,
    /// Who is alive.
    pub machines: Vec<WireMachine>,
}

/// What nodes say of themselves, this one included, in the order of the list of machines.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Vec<RecordListing>")]
pub struct ListRecords;

/// A node's record, and what this node makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordListing {
    /// What it says of itself.
    pub aged: AgedRecord,
    /// Whether it is this node itself.
    pub own: bool,
    /// Whether calls may go there.
    pub neighbour: bool,
    /// The round trip to it, as measured of late.
    pub round_trip: Option<Duration>,
}

/// The configuration in force.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Result<MachinePatch, NoMachineIp>")]
pub struct GetMachineConfig;

/// Merges over the configuration, saves it, and takes it into use. Answers when all is done.
#[derive(Clone, Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct ChangeMachineConfig(pub MachinePatch);

/// Forgets all machines.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Reset;

/// A forward or probe could not be connected: counts as a failed poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Unreachable {
    /// Which machine.
    pub ip: IpAddr,
    /// It was this node that did not wait any longer.
    pub own_deadline: bool,
}

/// The node takes no calls any more: others are not to hear that it is there, and those that understand
/// it are told. Answers when they know, or soon.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Leave;

/// Saves what is not saved yet. Answers when it is.
#[derive(Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Flush;

/// A poll ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Polled {
    pub(super) ip: IpAddr,
    pub(super) ping: Duration,
    /// `None`: no good answer in time.
    pub(super) answer: Option<PollAnswer>,
}

/// A machine that SWIM tells of has not answered, and is to be asked once more. It has no answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct AskAgain(pub(super) IpAddr);

/// An init server's name was looked up.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Resolved {
    pub(super) name: String,
    pub(super) addresses: Result<Vec<IpAddr>, String>,
}

/// A datagram of SWIM came. It has no answer.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct SwimDatagram {
    /// From where.
    pub from: IpAddr,
    /// All of it.
    pub bytes: Bytes,
}

/// A timer of SWIM is over. It has no answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SwimWoken;

/// A machine of which SWIM doubts whether it is there refuses connections. It has no answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SwimRefused(pub(super) IpAddr);

/// What everybody reads without asking the actor.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Who this node is.
    pub identity: Identity,
    /// The machines known alive that calls may go to, ordered by name, then address.
    pub peers: Vec<Peer>,
    /// Those of them at which calls fail by their own word.
    pub failing: Vec<Arc<str>>,
}

/// What a machine answered to a poll.
#[derive(Clone, Debug, Default)]
pub struct PollAnswer {
    /// What it says of itself.
    pub is: Introduction,
    /// The address that it says it has.
    pub ip: Option<IpAddr>,
    /// The machines that it knows alive.
    pub knows: Vec<(IpAddr, Introduction)>,
    /// Whether it says that it stops; then it says nothing else.
    pub leaves: bool,
}

/// How Discovery looks at the network.
pub trait Poller {
    /// Asks the machine at `ip` for its list, introducing ourselves as `me`; `briefly`, only what it says of
    /// itself. By TLS it answers at `tls_port`, where that is known. `None`: no good answer in time.
    fn poll(
        &self,
        ip: IpAddr,
        tls_port: Option<u16>,
        me: &Identity,
        briefly: bool,
    ) -> LocalBoxFuture<'static, Option<PollAnswer>>;

    /// Whether SWIM's datagrams can be sent.
    fn swims(&self) -> bool;

    /// Sends a datagram of SWIM to the machine at `ip`, if that can be done at once.
    fn datagram(&self, ip: IpAddr, datagram: &[u8]);

    /// Whether the machine at `ip` is there and says that nothing listens.
    fn refuses(&self, ip: IpAddr) -> LocalBoxFuture<'static, bool>;

    /// Tells the machine at `ip` that this node, `me`, stops. Resolves when it knows, or soon.
    fn farewell(
        &self,
        ip: IpAddr,
        tls_port: Option<u16>,
        me: &Identity,
    ) -> LocalBoxFuture<'static, ()>;

    /// Asks the other discovery service that is configured instead of our own for this node's
    /// identity and its machines. `None`: no good answer in time.
    fn follow(&self) -> LocalBoxFuture<'static, Option<(Identity, PollAnswer)>>;

    /// All addresses that the host `name` has now, or why it has none.
    fn resolve(&self, name: String) -> LocalBoxFuture<'static, Result<Vec<IpAddr>, String>>;

    /// This machine's own address as its interface has it now.
    fn own_address(&self) -> Option<IpAddr>;
}
