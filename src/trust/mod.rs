//! What makes a cluster private: one secret, the cluster key, of which everything else is derived. Core: no
//! IO; time and randomness are passed in.
//!
//! Whoever has the key is a member, and members trust each other. Who does not have it can neither read
//! nor forge what members say: datagrams are sealed ([`sealed`]), and the authority that signs the
//! certificates for TLS between nodes has a key that is derived as well. Two keys can be in force at a time,
//! so that one can take the other's place while all nodes go on.

mod key;
mod replays;
pub mod sealed;

pub use self::key::{
    BadClusterKey, ClusterKey, ClusterKeys, DerivedKeys, KEY_BYTES, KEYS_MAX, KeyId, read_keys,
};

/// How far the clocks of two nodes may be apart.
pub const CLOCKS_APART_MAX: std::time::Duration = std::time::Duration::from_secs(300);
