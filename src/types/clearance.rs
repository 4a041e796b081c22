//! Who is spoken to in the clear.

use std::net::IpAddr;

use ipnet::IpNet;

/// Which machines a node speaks to, and hears, without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clearance {
    /// All: there is no cluster key.
    All,
    /// Those of these networks, as v1 nodes that can do no other; members of the cluster by TLS all the same.
    Networks(Vec<IpNet>),
}

impl Clearance {
    /// Whether the machine at `ip` may be spoken to in the clear.
    pub fn covers(&self, ip: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Networks(networks) => {
                let ip = ip.to_canonical();
                networks.iter().any(|network| network.contains(&ip))
            }
        }
    }

    /// Whether members are told from others at all.
    pub fn is_keyed(&self) -> bool {
        *self != Self::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_the_networks_that_are_named_and_no_others() {
        let network = |text: &str| text.parse().expect("a network");
        let some = Clearance::Networks(vec![network("10.1.0.0/16"), network("fd00::1/128")]);
        for (ip, covered) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd00::1", true),
            ("fd00::2", false),
        ] {
            assert_eq!(some.covers(ip.parse().expect("an address")), covered, "{ip}");
        }
        assert!(Clearance::All.covers("10.2.0.1".parse().expect("an address")));
        assert!(!Clearance::Networks(Vec::new()).covers("10.2.0.1".parse().expect("an address")));
        assert!(some.is_keyed() && !Clearance::All.is_keyed());
    }
}
