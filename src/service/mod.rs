//! What functions take: the time that a call is given ([`drawn`]), and how calls that run on one board slow each
//! other down ([`sharing`]). Core: the embedded functions and the simulator use the same.

pub mod drawn;
pub mod sharing;
