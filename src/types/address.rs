//! Which addresses can be those of another machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether another machine can be at `ip`, for a node at `own`. Whoever names an address makes this
/// node connect to it, so what leads back to this machine, to its link, to many, or to nobody is
/// none, and neither is an IPv4 address in the guise of an IPv6 one, which would pass for another
/// machine than the IPv4 address itself. Loopback addresses are machines to a node that is on
/// loopback itself, as those of a local cluster are.
pub fn may_be_machine(ip: IpAddr, own: Option<IpAddr>) -> bool {
    if ip.is_loopback() {
        return own.is_some_and(|own| own.is_loopback());
    }
    match ip {
        IpAddr::V4(ip) => is_v4_machine(ip),
        IpAddr::V6(ip) => is_v6_machine(ip),
    }
}

/// Whether a node can tell others that it is at `ip`.
pub fn may_be_own(ip: IpAddr) -> bool {
    ip.is_loopback() || may_be_machine(ip, None)
}

fn is_v4_machine(ip: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is "this network"; 240.0.0.0/4 was never given to anybody, and ends with broadcast.
    !matches!(ip.octets(), [0 | 240..=255, ..]) && !ip.is_link_local() && !ip.is_multicast()
}

fn is_v6_machine(ip: Ipv6Addr) -> bool {
    let embeds_v4 = match ip.segments() {
        // ::/96 (unspecified and loopback among them) and ::ffff:0:0/96: compatible and mapped.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => true,
        // ::ffff:0:0:0/96: translated (SIIT).
        [0, 0, 0, 0, 0xffff, 0, ..] => true,
        // 64:ff9b::/96 and 64:ff9b:1::/48: NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => true,
        // 2002::/16: 6to4. 2001::/32: Teredo.
        [0x2002, ..] | [0x2001, 0, ..] => true,
        _ => false,
    };
    !embeds_v4 && !ip.is_multicast() && !ip.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_addresses_of_their_own() {
        let may = |ip: &str, own: Option<&str>| {
            let address = |text: &str| text.parse().expect("an address");
            may_be_machine(address(ip), own.map(address))
        };
        for good in ["10.0.0.1", "172.17.0.3", "192.168.1.255", "8.8.8.8", "100.64.0.1"] {
            assert!(may(good, None), "{good}");
        }
        for good in ["fd00::1", "2001:db8::1", "2a00::1", "fec0::1"] {
            assert!(may(good, None), "{good}");
        }
        for bad in ["0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "239.1.1.1"] {
            assert!(!may(bad, None) && !may(bad, Some("127.0.0.1")), "{bad}");
        }
        for bad in ["240.0.0.1", "255.255.255.255", "::", "ff02::1", "fe80::1"] {
            assert!(!may(bad, None) && !may(bad, Some("127.0.0.1")), "{bad}");
        }
        for guise in [
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:a00:1::1",
            "2001:0:a00:1::1",
        ] {
            assert!(!may(guise, None) && !may(guise, Some("127.0.0.1")), "{guise}");
        }
        for loopback in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert!(!may(loopback, None) && !may(loopback, Some("10.0.0.1")), "{loopback}");
            assert!(may(loopback, Some("127.0.0.1")) && may(loopback, Some("::1")), "{loopback}");
            assert!(may_be_own(loopback.parse().expect("an address")));
        }
        assert!(!may_be_own([169, 254, 1, 1].into()) && may_be_own([10, 0, 0, 1].into()));
    }
}
