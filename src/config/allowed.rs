//! What a setting of each type can be, in words, for messages about one that is not.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{Admin, Routes, TimeDistribution};
use crate::telemetry::LogFormat;

/// What values of a type are.
pub(super) trait Allowed {
    /// After "… is not"; empty where reading one says it better.
    const ALLOWED: &'static str;
}

macro_rules! allowed {
    ($($type:ty => $words:literal),+ $(,)?) => {
        $( impl Allowed for $type { const ALLOWED: &'static str = $words; } )+
    };
}

allowed! {
    Admin => "one of any, loopback, off",
    LogFormat => "one of text, json",
    TimeDistribution => "one of constant, exponential",
    IpAddr => "an IP address",
    PathBuf => "a path",
    String => "a text",
    Vec<String> => "a list of texts",
    Routes => "",
    bool => "true or false",
    f64 => "a number",
    u16 => "a whole number from 0 to 65535",
    u32 => "a whole number from 0 to 4294967295",
    u64 => "a whole number from 0 on",
    usize => "a whole number from 0 on",
    Option<u64> => "a whole number from 0 on",
}
