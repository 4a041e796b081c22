//! Nodes with keys meet in memory, without a network.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::trust::{CLOCKS_APART_MAX, ClusterKey};

fn keys(all: &[u8], cluster: &str) -> ClusterKeys {
    let key =
        |n: &u8| ClusterKey::new(std::array::from_fn(|at| n.wrapping_mul(31) ^ (at as u8 * 7)));
    ClusterKeys::new(&all.iter().map(key).collect::<Vec<_>>(), cluster)
}

#[expect(clippy::disallowed_methods, reason = "certificates are looked at by the real time")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

fn node(keys: &ClusterKeys, ip: &str, at: Duration) -> Arc<Epoch> {
    let addresses = vec![ip.parse().expect("an address")];
    let names = CertifiedNames { addresses, name: format!("node at {ip}") };
    let tls = PeerTls::new([7; 16]);
    assert!(tls.renew(keys, &names, at).expect("it can"));
    assert!(!tls.renew(keys, &names, at).expect("it can"), "nothing has changed");
    tls.epoch().expect("a key")
}

/// Lets `client` and `server` speak until both have finished or one refuses.
fn meet(client: &Epoch, server: &Epoch, at: &str) -> Result<Option<ClusterMember>, rustls::Error> {
    let name = ServerName::IpAddress(at.parse::<IpAddr>().expect("an address").into());
    let mut client = ClientConnection::new(Arc::clone(&client.client), name)?;
    let mut accepted = ServerConnection::new(Arc::clone(&server.server))?;
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        accepted.read_tls(&mut &wire[..]).expect("memory");
        accepted.process_new_packets()?;
        let mut wire = Vec::new();
        while accepted.wants_write() {
            accepted.write_tls(&mut wire).expect("memory");
        }
        client.read_tls(&mut &wire[..]).expect("memory");
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !accepted.is_handshaking());
    let _ = client.writer().write(b"x");
    let mut wire = Vec::new();
    client.write_tls(&mut wire).expect("memory");
    accepted.read_tls(&mut &wire[..]).expect("memory");
    accepted.process_new_packets()?;
    let mut said = [0; 2];
    let read: io::Result<usize> = accepted.reader().read(&mut said);
    assert_eq!(read.ok(), Some(1), "what was said came");
    Ok(server.member(accepted.peer_certificates()))
}

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";

#[test]
fn members_know_each_other_by_address_and_name() {
    let keys = keys(&[1], "fog");
    let (a, b) = (node(&keys, A, now()), node(&keys, B, now()));
    let member = meet(&a, &b, B).expect("both have the key").expect("it has a certificate");
    assert!(member.is_at(A.parse().expect("an address")));
    assert!(member.is_at("::ffff:10.0.0.1".parse().expect("an address")), "the same address");
    assert!(!member.is_at(B.parse().expect("an address")));
    assert!(member.is_named("node at 10.0.0.1") && !member.is_named("node at 10.0.0.2"));
    assert_eq!(member.key, keys.all()[0].id);
    assert!(meet(&a, &b, A).is_err(), "b is not at a's address");
}

#[test]
fn others_are_refused_whatever_they_have() {
    let fog = keys(&[1], "fog");
    let a = node(&fog, A, now());
    for (other, why) in [
        (node(&keys(&[2], "fog"), B, now()), "another key"),
        (node(&keys(&[1], "edge"), B, now()), "another cluster"),
        (node(&fog, B, now() - LIFETIME - Duration::from_secs(2)), "a certificate that is over"),
        (node(&fog, B, now() + LIFETIME), "one that has not begun"),
    ] {
        assert!(meet(&a, &other, B).is_err(), "{why}");
        assert!(meet(&other, &a, A).is_err(), "{why}");
    }
    let late = CLOCKS_APART_MAX + Duration::from_secs(1);
    for at in [now() - late, now() + late] {
        assert!(meet(&a, &node(&fog, B, at), B).is_ok(), "clocks differ a little");
    }
}

#[test]
fn keys_take_each_others_place_while_all_go_on() {
    let [old, both, turned, new] = [&[1][..], &[1, 2], &[2, 1], &[2]].map(|all| keys(all, "fog"));
    for (one, other) in [(&old, &both), (&both, &turned), (&turned, &new), (&both, &both)] {
        let (a, b) = (node(one, A, now()), node(other, B, now()));
        let met = meet(&a, &b, B).expect("one of the keys is common").expect("a certificate");
        assert_eq!(met.key, one.all()[0].id);
        assert!(meet(&b, &a, A).is_ok());
    }
    assert!(meet(&node(&old, A, now()), &node(&new, B, now()), B).is_err());
}

#[test]
fn a_certificate_is_renewed_in_time_and_one_number_tells_what_is_in_force() {
    let (tls, keys) = (PeerTls::new([7; 16]), keys(&[1], "fog"));
    let mut names = CertifiedNames::default();
    let renew = |names: &CertifiedNames, at| tls.renew(&keys, names, at).expect("it can");
    assert_eq!((tls.number(), renew(&names, now()), tls.number()), (0, true, 1));
    assert!(!renew(&names, now() + LIFETIME / 2 - Duration::from_secs(5)));
    assert!(renew(&names, now() + LIFETIME / 2 + Duration::from_secs(5)));
    assert!(renew(&names, now()), "the clock was set back");
    names.name = "another".to_owned();
    assert_eq!((renew(&names, now()), tls.number()), (true, 4));
    assert!(renew(&names, Duration::from_secs(u64::MAX / 4)), "whatever the clock says");
}

/// What `said` is worth to a node at `own`, as the name of a protocol in a first message.
fn heard(node: &PeerTls, said: &[u8], own: &[&str], at: Duration) -> Result<(), NotOpened> {
    let epoch = node.epoch().expect("a key");
    let name = ServerName::IpAddress(IpAddr::from([10, 0, 0, 1]).into());
    let (config, said) = (Arc::clone(&epoch.client), vec![said.to_vec()]);
    let mut client = ClientConnection::new_with_alpn(config, name, said).expect("a client");
    let (mut wire, mut acceptor) = (Vec::new(), Acceptor::default());
    client.write_tls(&mut wire).expect("memory");
    acceptor.read_tls(&mut &wire[..]).expect("memory");
    let accepted = acceptor.accept().map_err(|(why, _)| why).expect("good").expect("whole");
    let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().expect("an address")).collect();
    node.hears(&epoch, &accepted.client_hello(), &own, at)
}

#[test]
fn a_greeting_is_good_once_for_one_node_and_for_a_while() {
    let (fog, names) = (keys(&[1], "fog"), CertifiedNames::default());
    let node = |session, keys: &ClusterKeys| {
        let tls = PeerTls::new([session; 16]);
        tls.renew(keys, &names, now()).expect("it can");
        tls
    };
    let (from, to, stranger) = (node(1, &fog), node(2, &fog), node(3, &keys(&[2], "fog")));
    let to_ip = A.parse().expect("an address");
    let greet = |from: &PeerTls, at| from.greeting(&from.epoch().expect("a key"), to_ip, at);
    let greeting = greet(&from, now());
    assert_eq!(heard(&to, &greeting, &[B], now()), Err(NotOpened::Forged), "for another node");
    assert_eq!(heard(&to, &greeting, &[B, A], now()), Ok(()), "one of its addresses");
    assert_eq!(heard(&to, &greeting, &[B, A], now()), Err(NotOpened::Replayed));
    let late = heard(&to, &greet(&from, now() - CLOCKS_APART_MAX * 2), &[A], now());
    assert!(matches!(late, Err(NotOpened::Time(_))), "{late:?}");
    assert_eq!(heard(&to, &greet(&stranger, now()), &[A], now()), Err(NotOpened::OtherKey));
    assert_eq!(heard(&to, b"h2", &[A], now()), Err(NotOpened::Open));
    let keys = &from.epoch().expect("a key").keys;
    let datagram = Sealer::new([9; 16]).seal(keys, to_ip, now(), b"p2s").expect("a key");
    assert_eq!(heard(&to, &datagram, &[A], now()), Err(NotOpened::Open), "no datagram is one");
}
