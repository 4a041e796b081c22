//! The membership by histories of what was heard of machines.

use std::collections::BTreeSet;

use super::polling::TURN_MAX;
use super::*;
use crate::types::NAME_BYTES_MAX;

const RULES: Rules =
    Rules { dead_polls_threshold: 3, dead_poll_time: Duration::from_secs(30), machines_max: 4 };

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn at(s: u64) -> At {
    At { elapsed: Duration::from_secs(s), unix_s: 1_000 + s }
}

fn called(name: &str) -> Introduction {
    Introduction { name: name.to_owned(), ..Introduction::default() }
}

fn members() -> Membership {
    Membership::new(RULES, Some(ip(99)))
}

fn names(members: &Membership) -> Vec<(String, String)> {
    members.list().iter().map(|m| (m.is.name.clone(), m.ip.to_string())).collect()
}

fn pair(name: &str, ip: &str) -> (String, String) {
    (name.to_owned(), ip.to_owned())
}

fn kill(members: &mut Membership, ip: IpAddr) {
    assert_eq!([members.failed(ip), members.failed(ip), members.failed(ip)], [false, false, true]);
}

#[test]
fn the_list_is_ordered_bytewise_by_name_then_address() {
    let mut members = members();
    for (last, name) in [(9, "b"), (10, "b"), (1, "a")] {
        members.configured(ip(last), at(0));
        members.machines.get_mut(&ip(last)).expect("just added").is = called(name);
    }
    let want = [pair("a", "10.0.0.1"), pair("b", "10.0.0.10"), pair("b", "10.0.0.9")];
    assert_eq!(names(&members), want);
}

#[test]
fn hearsay_is_listed_once_it_has_answered() {
    let mut members = members();
    members.hearsay(ip(1), called("a"), at(0));
    assert!(members.list().is_empty());
    assert_eq!(members.due(at(0)), [ip(1)]);
    members.answered(ip(1), called("a2"), Duration::from_millis(3), at(1));
    assert_eq!(names(&members), [pair("a2", "10.0.0.1")]);
    assert_eq!(members.list()[0].ping, Duration::from_millis(3));
}

#[test]
fn hearsay_never_refreshes_or_revives() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    members.hearsay(ip(1), called("other"), at(5));
    assert_eq!(
        (names(&members), members.list()[0].last_update),
        (vec![pair("a", "10.0.0.1")], 1_000)
    );
    kill(&mut members, ip(1));
    members.hearsay(ip(1), called("a"), at(6));
    assert!(members.list().is_empty());
}

#[test]
fn three_failed_polls_kill_and_its_own_call_revives() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    kill(&mut members, ip(1));
    assert!(!members.failed(ip(1)), "it dies once");
    members.heartbeat(ip(1), called("a"), at(9));
    assert_eq!((members.list().len(), members.list()[0].dead_polls), (1, 0));
}

#[test]
fn an_answer_between_failures_starts_the_count_anew() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    members.failed(ip(1));
    members.failed(ip(1));
    members.answered(ip(1), called("a"), Duration::ZERO, at(1));
    assert!(!members.failed(ip(1)));
    assert_eq!(members.list().len(), 1);
}

#[test]
fn the_dead_are_asked_again_every_thirty_seconds() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    assert_eq!(members.due(at(0)), [ip(1)]);
    assert!(members.due(at(1)).is_empty(), "one poll at a time");
    kill(&mut members, ip(1));
    assert!(members.due(at(29)).is_empty());
    assert_eq!(members.due(at(30)), [ip(1)]);
    members.answered(ip(1), called("a"), Duration::ZERO, at(31));
    assert_eq!(members.due(at(32)), [ip(1)], "alive again, asked at every poll");
}

#[test]
fn an_init_server_is_asked_at_every_poll_also_when_it_is_dead() {
    let mut members = members();
    members.init_server(ip(1), at(0));
    kill(&mut members, ip(1));
    members.init_server(ip(1), at(1));
    assert_eq!(members.due(at(1)), [ip(1)]);
    members.init_server(ip(1), at(2));
    assert!(members.due(at(2)).is_empty(), "one poll at a time");
    members.failed(ip(1));
    assert!(members.due(at(3)).is_empty(), "no init server any more: its rest");
    members.init_server(ip(1), at(4));
    assert_eq!(members.due(at(4)), [ip(1)]);
    assert!(members.list().is_empty(), "being named is no sign of life");
}

#[test]
fn a_newcomer_is_asked_once_before_the_others_turn() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    assert_eq!(members.due(at(0)), [ip(1)]);
    members.hearsay(ip(2), called("b"), at(1));
    assert_eq!(members.due_first(at(1)), [ip(2)]);
    assert!(members.due_first(at(1)).is_empty());
    members.answered(ip(2), called("b"), Duration::ZERO, at(1));
    assert!(members.due_first(at(1)).is_empty());
    assert_eq!(members.due(at(2)), [ip(2)], "from then on with the others");
}

#[test]
fn a_machine_whose_address_changed_keeps_its_number_once_the_old_address_is_dead() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    let id = members.list()[0].id;
    members.heartbeat(ip(2), called("a"), at(1));
    assert_eq!(members.list().len(), 2, "for all that is known, they are two");
    kill(&mut members, ip(1));
    members.heartbeat(ip(2), called("a"), at(2));
    assert_eq!((names(&members), members.list()[0].id), (vec![pair("a", "10.0.0.2")], id));
    assert!(!members.hearsay(ip(1), called("a"), at(2)), "an old address is the same machine");
    members.hearsay(ip(3), Introduction::default(), at(3));
    kill(&mut members, ip(2));
    members.answered(ip(3), called("a"), Duration::ZERO, at(4));
    assert_eq!(names(&members), [pair("a", "10.0.0.3")], "also when it was polled there");
    assert_eq!((members.machines.len(), members.list()[0].id), (1, id));
}

#[test]
fn a_living_machines_name_is_not_taken_over_and_the_conflict_is_told_once() {
    let mut members = members();
    members.heartbeat(ip(2), called("a"), at(0));
    members.answered(ip(2), called("a"), Duration::ZERO, at(0));
    let id = members.list()[0].id;
    assert_eq!(members.heartbeat(ip(1), called("a"), at(1)), Some(ip(2)));
    assert_eq!(members.heartbeat(ip(1), called("a"), at(2)), None, "no news");
    assert_eq!(names(&members), [pair("a", "10.0.0.1"), pair("a", "10.0.0.2")]);
    assert_eq!(members.machines[&ip(2)].id, id);
    members.hearsay(ip(3), Introduction::default(), at(3));
    assert_eq!(members.answered(ip(3), called("a"), Duration::ZERO, at(3)), Some(ip(1)));
    assert_eq!(members.list().len(), 3);
    // Somebody calls as if from there: what it said of itself stands.
    members.heartbeat(ip(2), called("z"), at(4));
    assert_eq!(members.machines[&ip(2)].is, called("a"));
    members.answered(ip(2), called("b"), Duration::ZERO, at(5));
    assert_eq!(members.machines[&ip(2)].is, called("b"), "it may rename itself");
}

fn conflicts(members: &Membership, s: u64) -> Vec<Option<String>> {
    members.listed(Duration::from_secs(s)).into_iter().map(|machine| machine.conflict).collect()
}

#[test]
fn what_two_claim_shows_and_nobody_is_hidden() {
    let mut members = members();
    members.set_own_name("me");
    for (last, name) in [(1, "a"), (2, "a"), (3, "b")] {
        members.heartbeat(ip(last), called(name), at(0));
        members.answered(ip(last), called(name), Duration::ZERO, at(0));
    }
    let name = || Some("name".to_owned());
    assert_eq!(conflicts(&members, 1), [name(), name(), None]);
    // The node's own name.
    assert_eq!(members.answered(ip(3), called("me"), Duration::ZERO, at(1)), Some(ip(99)));
    assert_eq!(conflicts(&members, 1), [name(), name(), name()]);
    members.answered(ip(3), called("b"), Duration::ZERO, at(2));
    assert_eq!(conflicts(&members, 2), [name(), name(), None]);
}

#[test]
fn an_address_that_two_claim_shows_once_the_machine_there_was_asked() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    members.due(at(0));
    members.answered(ip(1), called("a"), Duration::ZERO, at(0));
    assert_eq!(members.heartbeat(ip(1), called("b"), at(2)), None);
    assert_eq!(members.due_first(at(2)), [ip(1)], "which is right?");
    assert_eq!(conflicts(&members, 2), [None]);
    assert_eq!(members.answered(ip(1), called("a"), Duration::ZERO, at(2)), Some(ip(1)));
    assert_eq!(names(&members), [pair("a", "10.0.0.1")]);
    assert_eq!(conflicts(&members, 2), [Some("address".to_owned())]);
    members.heartbeat(ip(1), called("b"), at(4));
    members.due_first(at(4));
    assert_eq!(members.answered(ip(1), called("a"), Duration::ZERO, at(4)), None, "no news");
    assert_eq!(conflicts(&members, 70), [None], "nobody claims it any more");
    // It was only renamed.
    members.heartbeat(ip(1), called("c"), at(70));
    members.due_first(at(70));
    members.answered(ip(1), called("c"), Duration::ZERO, at(70));
    assert_eq!(conflicts(&members, 70), [None]);
}

#[test]
fn names_and_groups_that_are_too_long_are_nobodys() {
    let mut members = members();
    let longest = called(&"a".repeat(NAME_BYTES_MAX));
    let long = called(&"a".repeat(NAME_BYTES_MAX + 1));
    members.heartbeat(ip(1), long.clone(), at(0));
    members.hearsay(ip(2), Introduction { group: long.name, ..Introduction::default() }, at(0));
    assert_eq!(members.machines.len(), 0);
    members.heartbeat(ip(1), longest, at(0));
    assert_eq!(members.list().len(), 1);
}

#[test]
fn what_is_only_heard_of_is_asked_in_small_numbers_and_forgotten_when_it_does_not_answer() {
    let rules = Rules { machines_max: 1000, ..RULES };
    let mut members = Membership::new(rules, Some(ip(99)));
    members.heartbeat([10, 0, 9, 9].into(), called("alive"), at(0));
    let unknown = |n: u16| IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
    for n in 0..300 {
        assert!(members.hearsay(unknown(n), Introduction::default(), at(0)));
    }
    let mut asked = std::collections::BTreeMap::<IpAddr, u32>::new();
    for round in 1..=15 {
        let mut due = members.due(at(round));
        assert!(due.len() <= UNKNOWN_ASKED_MAX + 1);
        assert!(due.contains(&[10, 0, 9, 9].into()), "the living are asked at every poll");
        assert!(members.due_first(at(round)).is_empty(), "not before the next poll");
        due.retain(|ip| *ip != IpAddr::from([10, 0, 9, 9]));
        for ip in due {
            *asked.entry(ip).or_default() += 1;
            assert!(!members.failed(ip), "nobody is told that it died");
        }
        members.answered([10, 0, 9, 9].into(), called("alive"), Duration::ZERO, at(round));
    }
    assert!(asked.len() == 300 && asked.values().all(|times| *times == 3), "{asked:?}");
    assert_eq!(members.machines.len(), 1, "all of them are forgotten");
}

#[test]
fn those_heard_of_that_answer_make_way_for_the_next_at_once() {
    let mut members = Membership::new(Rules { machines_max: 1000, ..RULES }, None);
    let unknown = |n: u16| IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
    for n in 0..300 {
        members.hearsay(unknown(n), Introduction::default(), at(0));
    }
    let mut due = members.due(at(0));
    for _ in 0..300 {
        let ip = due.remove(0);
        members.answered(ip, Introduction::default(), Duration::ZERO, at(0));
        due.extend(members.due_first(at(0)));
    }
    assert_eq!(members.list().len(), 300, "found within one poll");
}

#[test]
fn polls_that_are_still_under_way_count() {
    let mut members = Membership::new(Rules { machines_max: 1000, ..RULES }, None);
    for n in 0..200u8 {
        members.hearsay([10, 1, 0, n].into(), Introduction::default(), at(0));
    }
    assert_eq!(members.due(at(0)).len(), UNKNOWN_ASKED_MAX);
    assert!(members.due(at(2)).is_empty());
}

#[test]
fn a_flood_of_hearsay_drives_out_nobody_alive_and_at_most_half_of_the_dead() {
    let mut members = members();
    for last in 1..=4 {
        members.heartbeat(ip(last), called(""), at(last.into()));
    }
    kill(&mut members, ip(1));
    for last in 10..=50 {
        members.hearsay(ip(last), Introduction::default(), at(9));
    }
    assert_eq!((members.list().len(), members.count(Standing::Dead)), (3, 1));
    for last in 2..=4 {
        kill(&mut members, ip(last));
    }
    for last in 10..=50 {
        members.hearsay(ip(last), Introduction::default(), at(9));
    }
    let count = |standing| members.count(standing);
    assert_eq!((count(Standing::Dead), count(Standing::Hearsay)), (2, 2));
    // A sign of life, and an operator's word, need no empty place.
    members.heartbeat(ip(7), called("seven"), at(10));
    members.init_server(ip(8), at(10));
    assert_eq!((members.list().len(), members.count(Standing::Dead)), (1, 2));
    assert!(members.machines.contains_key(&ip(8)));
}

#[test]
fn a_machine_of_an_earlier_run_that_does_not_answer_stays_known() {
    let mut members = members();
    members.remembered(ip(1), called("a"), at(0));
    assert!(members.list().is_empty());
    kill(&mut members, ip(1));
    assert_eq!(members.due(at(31)), [ip(1)]);
    assert_eq!(members.known().count(), 1);
}

#[test]
fn machines_without_a_name_are_told_apart_by_address() {
    let mut members = members();
    members.heartbeat(ip(1), called(""), at(0));
    members.heartbeat(ip(2), called(""), at(0));
    assert_eq!(members.list().len(), 2);
}

#[test]
fn the_node_itself_and_addresses_of_nobody_are_never_listed() {
    let mut members = members();
    let guise = IpAddr::V6(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
    for nobody in [ip(99), [0, 0, 0, 0].into(), [127, 0, 0, 1].into(), guise] {
        members.configured(nobody, at(0));
        members.init_server(nobody, at(0));
        members.remembered(nobody, called("y"), at(0));
        members.hearsay(nobody, called("z"), at(0));
        members.heartbeat(nobody, called("x"), at(0));
        members.answered(nobody, called("x"), Duration::ZERO, at(0));
    }
    assert_eq!(members.machines.len(), 0);
    members.heartbeat(ip(5), called("me, before I knew"), at(0));
    members.set_own(Some(ip(5)));
    assert_eq!(members.machines.len(), 0);
    members.set_own(Some([127, 0, 0, 1].into()));
    members.heartbeat([127, 0, 0, 2].into(), called("x"), at(0));
    assert_eq!(members.machines.len(), 1, "a node on loopback has peers there");
    members.set_own(Some(ip(5)));
    assert_eq!(members.machines.len(), 0);
}

#[test]
fn a_configured_machine_is_listed_at_once_and_can_die() {
    let mut members = members();
    members.configured(ip(1), at(0));
    assert_eq!(names(&members), [pair("", "10.0.0.1")]);
    kill(&mut members, ip(1));
    members.configured(ip(1), at(1));
    assert!(members.list().is_empty(), "naming it again is no sign of life");
}

#[test]
fn held_machines_are_bounded_and_the_longest_dead_makes_room() {
    let mut members = members();
    for last in 1..=4 {
        members.heartbeat(ip(last), called(""), at(last.into()));
    }
    members.heartbeat(ip(5), called(""), at(9));
    assert_eq!(members.list().len(), 4, "nobody living is dropped for a newcomer");
    kill(&mut members, ip(3));
    kill(&mut members, ip(2));
    members.heartbeat(ip(5), called(""), at(10));
    assert!(!members.machines.contains_key(&ip(2)), "it was dead for longer");
    assert_eq!(members.list().len(), 3);
}

#[test]
fn an_answer_from_a_machine_forgotten_meanwhile_changes_nothing() {
    let mut members = members();
    members.heartbeat(ip(1), called("a"), at(0));
    members.reset();
    members.answered(ip(1), called("a"), Duration::ZERO, at(1));
    assert!(!members.failed(ip(1)));
    assert_eq!(members.machines.len(), 0);
}

#[test]
fn of_those_that_speak_our_protocol_a_few_are_polled_at_a_time_and_none_is_left_out() {
    let mut members = Membership::new(Rules { machines_max: 1000, ..RULES }, Some(ip(99)));
    let is = |streams| Introduction { streams, ..Introduction::default() };
    for last in 0..80 {
        members.heartbeat(ip(last), is(last < 60), at(0));
    }
    let mut asked = BTreeMap::<IpAddr, u32>::new();
    for round in 1..=8 {
        let due = members.due(at(round));
        assert_eq!(due.len(), TURN_MAX + 20, "those of v1 are polled each time");
        for ip in due {
            *asked.entry(ip).or_default() += 1;
            let streams = ip < IpAddr::from([10, 0, 0, 60]);
            members.answered(ip, is(streams), Duration::ZERO, at(round));
        }
    }
    assert_eq!((asked.len(), asked.values().min()), (80, Some(&2)));
    // Who has failed is asked again each time, and its list is asked for now and then.
    assert!(!members.is_polled_briefly(ip(0), at(9)) && members.is_polled_briefly(ip(0), at(10)));
    assert!(
        !members.is_polled_briefly(ip(0), at(39)) && !members.is_polled_briefly(ip(70), at(10))
    );
    members.due(at(9));
    members.failed(ip(0));
    assert!(members.due(at(10)).contains(&ip(0)) || members.machines[&ip(0)].polling);
}

#[test]
fn of_those_that_swim_each_is_polled_by_exactly_one_other_at_a_time() {
    let rules = Rules { machines_max: 100, ..RULES };
    let mut nodes: Vec<Membership> =
        (0..7).map(|own| Membership::new(rules, Some(ip(own)))).collect();
    for (own, node) in nodes.iter_mut().enumerate() {
        for last in (0..7).filter(|last| usize::from(*last) != own) {
            node.swims(ip(last), at(0));
            node.heartbeat(ip(last), Introduction::default(), at(0));
        }
    }
    let mut seen = vec![BTreeSet::new(); 7];
    for turn in 1..=12 {
        let mut polled = BTreeSet::new();
        for (node, seen) in nodes.iter_mut().zip(&mut seen) {
            let due = node.due(at(turn * 3));
            assert_eq!(due.len(), 1, "one at a time");
            assert!(node.due(at(turn * 3 + 1)).is_empty(), "not yet");
            assert!(polled.insert(due[0]), "by one other");
            seen.insert(due[0]);
            node.answered(due[0], Introduction::default(), Duration::ZERO, at(turn * 3));
        }
    }
    assert!(seen.iter().all(|seen| seen.len() == 6), "each has its turn");
}

#[test]
fn who_calls_but_did_not_answer_is_asked_before_it_is_listed() {
    let mut members = members();
    let is = Introduction { streams: true, ..called("a") };
    members.heartbeat(ip(1), is.clone(), at(0));
    assert_eq!(members.list().len(), 1, "a newcomer is");
    members.due(at(0));
    kill(&mut members, ip(1));
    assert_eq!(members.heartbeat(ip(1), is.clone(), at(1)), None);
    assert!(members.list().is_empty(), "it reaches us, but do we reach it?");
    assert_eq!(members.due_first(at(1)), [ip(1)]);
    members.answered(ip(1), is, Duration::ZERO, at(1));
    assert_eq!(members.list().len(), 1);
    // Those of v1 are believed, as v1 does.
    members.heartbeat(ip(2), called("b"), at(2));
    kill(&mut members, ip(2));
    members.heartbeat(ip(2), called("b"), at(3));
    assert_eq!(members.list().len(), 2);
}

#[test]
fn who_answers_that_it_stops_is_asked_again_when_it_calls() {
    let mut members = members();
    let is = Introduction { streams: true, ..called("a") };
    members.heartbeat(ip(1), is.clone(), at(0));
    assert_eq!(members.due(at(0)), [ip(1)]);
    assert!(members.left(ip(1)), "its answer to that");
    assert!(members.due(at(1)).is_empty() && members.list().is_empty());
    members.heartbeat(ip(1), is, at(2));
    assert_eq!(members.due_first(at(2)), [ip(1)], "it is back");
}

#[test]
fn where_there_is_a_key_members_come_before_those_in_the_clear() {
    let mut members = members();
    for n in 1..=4 {
        members.heartbeat(ip(n), called(&format!("v1-{n}")), at(0));
    }
    members.heartbeat(ip(5), called("v1-5"), at(1));
    assert!(members.alive_at(ip(5)).is_none(), "the list is full");
    let member = |port| Introduction { streams: true, tls_port: Some(port), ..called("member") };
    members.heartbeat(ip(6), member(18443), at(2));
    assert!(members.alive_at(ip(6)).is_some() && members.alive_at(ip(1)).is_none());
    // What it says of its port counts whatever was believed of it.
    kill(&mut members, ip(6));
    members.heartbeat(ip(6), member(28443), at(3));
    assert_eq!(members.tls_port_of(ip(6)), Some(28443));
}
