//! All nodes of a fleet at once, by their public HTTP API alone, so that P2PFaaS v1 nodes can be
//! among them: what each should be, what it is, and what has to be changed.

mod access;
mod api;
mod file;
mod plan;

pub use self::access::{Credentials, FleetAccess, NoTrust, Ways};
pub use self::api::{Api, ApiError, Applied, Body, NodeLoad, Status};
pub use self::file::{BadFleet, Fleet, Member, look_up};
pub use self::plan::{Change, ChangePlan, ChangeStep, NodeAsIs, Wanted};
