//! Two nodes that compare what they know; what comes from outside.

use proptest::prelude::*;

use super::*;
use crate::membership::swim::DATAGRAM_BYTES_MAX;
use crate::types::SAYING_BYTES_MAX;

fn ip(n: usize) -> IpAddr {
    match n % 3 {
        0 => IpAddr::from([10, 1, (n >> 8) as u8, n as u8]),
        _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n as u16]),
    }
}

fn about(name: &str) -> NodeDescription {
    NodeDescription {
        name: name.to_owned(),
        software: "p2pfaas 1".to_owned(),
        ..NodeDescription::default()
    }
}

fn load(running: u32) -> RecordLoad {
    RecordLoad { k: 4, running, waiting: 0, failing_percent: 0 }
}

/// What the node `n` says as the `version`th.
fn item(n: usize, part: Part, version: u64) -> Bytes {
    let content = match part {
        Part::About => Content::About(about(&format!("n{n}-{version}"))),
        Part::Load => {
            Content::Load(load(u32::try_from(version).expect("a small one")), Saying::default())
        }
    };
    let mut bytes = BytesMut::new();
    let (owner, fields) = (ip(n), fields(&content));
    Item { age: Duration::from_millis(7), owner, part, version, fields }.put(&mut bytes);
    bytes.freeze()
}

/// A node that knows `count` others to be there.
fn node(own: usize, count: usize) -> Records {
    let mut records = Records::new(ip(own));
    (0..count).filter(|n| *n != own).for_each(|n| records.up(ip(n)));
    records
}

fn known(records: &Records) -> Vec<codec::Version> {
    records.within(0, u128::MAX).collect()
}

/// Lets `a` compare with `b` until nobody answers any more; gives how many datagrams that took.
fn exchange(a: &mut Records, b: &mut Records, now: Duration) -> usize {
    let (_, first) = a.compare(now).expect("it is time");
    let _ = b.compare(now);
    let (mut to_b, mut to_a, mut count) = (vec![first], Vec::new(), 0);
    while !(to_a.is_empty() && to_b.is_empty()) {
        for datagram in std::mem::take(&mut to_b) {
            to_a.extend(b.compared(a.own, &datagram, now).expect("one"));
            count += 1;
        }
        for datagram in std::mem::take(&mut to_a) {
            assert!(datagram.len() <= DATAGRAM_BYTES_MAX, "{}", datagram.len());
            to_b.extend(a.compared(b.own, &datagram, now).expect("one"));
            count += 1;
        }
        assert!(count < 1000, "it ends");
    }
    count
}

#[test]
fn what_a_node_says_of_itself_is_read_as_it_was_meant() {
    let (mut from, mut to) = (node(0, 2), node(1, 2));
    let functions = Some(vec!["fn-a".to_owned(), "b".to_owned()]);
    let about = NodeDescription { group: "g".to_owned(), protocol: 2, functions, ..about("fog-1") };
    let now = Duration::from_secs(1);
    let said = from.say(&about, load(3), &Saying::default(), now, 1000);
    assert_eq!(said.len(), 2);
    for item in &said {
        assert!(to.heard(item, now).expect("one").is_some());
        assert!(to.heard(item, now).expect("one").is_none(), "it is no news twice");
    }
    let record =
        NodeRecord { about: Some(about.clone()), load: Some(load(3)), ..NodeRecord::default() };
    assert_eq!(to.of(ip(0)).map(|record| &**record), Some(&record));
    assert!(
        from.say(&about, load(3), &Saying::default(), now * 2, 1000).is_empty(),
        "nothing has changed"
    );
    assert_eq!(from.say(&about, load(4), &Saying::default(), now * 3, 1000).len(), 1);
    assert!(
        from.say(&about, load(0), &Saying::default(), now * 3, 1000).is_empty(),
        "so soon again"
    );
    // Many functions: as many as there is room for.
    let many = (0..500).map(|n| format!("function-{n}")).collect();
    let said = from.say(
        &NodeDescription { functions: Some(many), ..about },
        load(4),
        &Saying::default(),
        now * 4,
        1000,
    );
    assert!(to.heard(&said[0], now * 4).expect("one").is_some());
    let told = to.of(ip(0)).and_then(|record| record.about.clone()).and_then(|a| a.functions);
    assert!((40..500).contains(&told.expect("some").len()));
}

#[test]
fn the_age_of_what_is_told_is_what_it_was_and_the_time_since() {
    let mut records = node(0, 3);
    records.heard(&item(1, Part::Load, 1), Duration::from_secs(10)).expect("one");
    let all = records.all(Duration::from_secs(12));
    assert_eq!(all[0].load_age, Some(Duration::from_millis(2007)));
    assert_eq!(all[0].about_age, None);
}

#[test]
fn who_was_started_again_or_has_moved_is_believed_by_its_newest_word() {
    let (mut first, mut other) = (node(0, 2), node(1, 2));
    let now = Duration::from_secs(1);
    for item in first.say(&about("a"), load(1), &Saying::default(), now, 5000) {
        other.heard(&item, now).expect("one");
    }
    // Its clock was set back.
    let mut again = node(0, 2);
    for item in again.say(&about("a"), load(2), &Saying::default(), now, 10) {
        assert!(other.heard(&item, now).expect("one").is_none());
    }
    exchange(&mut again, &mut other, now);
    for item in again.say(&about("a"), load(2), &Saying::default(), now, 10) {
        assert!(other.heard(&item, now).expect("one").is_some());
    }
    assert_eq!(other.of(ip(0)).and_then(|record| record.load), Some(load(2)));
    // Only those that are there have a record.
    assert!(other.heard(&item(2, Part::Load, 1), now).expect("one").is_none());
    other.down(ip(0));
    assert_eq!(other.all(now), []);
    again.moved(ip(3));
    assert!(
        again.all(now).is_empty()
            && again.say(&about("a"), load(2), &Saying::default(), now, 10).len() == 2
    );
}

#[test]
fn who_fails_by_its_own_word_more_than_others_is_failing() {
    let peers = |shares: &[u8]| -> Vec<Peer> {
        let record = |failing_percent: &u8| {
            let load =
                Some(RecordLoad { failing_percent: *failing_percent, ..RecordLoad::default() });
            Some(Arc::new(NodeRecord { load, ..NodeRecord::default() }))
        };
        let peer = |(n, share)| Peer { record: record(share), ..Peer::at(&format!("10.0.0.{n}")) };
        shares.iter().enumerate().map(peer).collect()
    };
    let are = |shares: &[u8]| failing(&peers(shares)).len();
    assert_eq!((are(&[]), are(&[0]), are(&[100]), are(&[0, 100])), (0, 0, 1, 1));
    assert_eq!((are(&[0, 40, 0]), are(&[0, 50, 0]), are(&[10, 0, 90, 0])), (0, 1, 1));
    assert_eq!((are(&[100; 4]), are(&[80, 80, 100, 80])), (0, 0), "it is the same everywhere");
    assert!(failing(&[Peer::at("10.0.0.1")]).is_empty(), "it says nothing");
}

#[test]
fn a_forged_version_that_none_can_exceed_makes_nobody_talk_for_ever() {
    let (mut records, now) = (node(0, 2), Duration::from_secs(1));
    records.say(&about("a"), load(0), &Saying::default(), now, 1000);
    let forged = |version| {
        let (owner, fields) = (ip(0), fields(&Content::About(about("z"))));
        let mut bytes = BytesMut::new();
        Item { age: Duration::ZERO, owner, part: Part::About, version, fields }.put(&mut bytes);
        bytes.freeze()
    };
    assert_eq!(records.heard(&forged(u64::MAX), now).err(), Some(BadDatagram::Meaningless));
    for version in [VERSION_MAX - 1, VERSION_MAX] {
        assert!(records.heard(&forged(version), now).expect("one").is_none());
        records.say(&about("a"), load(0), &Saying::default(), now * 2, 1000);
    }
    assert!(records.say(&about("a"), load(0), &Saying::default(), now * 3, 1000).is_empty());
    assert!(node(1, 2).heard(&forged(u64::MAX), now).is_err(), "nor does anybody else take it");
}

#[test]
fn strangers_and_whoever_asks_too_often_are_not_answered() {
    let (mut a, mut b) = (node(0, 10), node(1, 10));
    let (_, datagram) = b.compare(Duration::ZERO).expect("it is time");
    let now = Duration::from_secs(1);
    assert_eq!(a.compared(ip(77), &datagram, now), Err(BadDatagram::Foreign));
    for n in 2..10 {
        a.heard(&item(n, Part::About, 1), now).expect("one");
    }
    let answers = (0..10_000).filter_map(|_| a.compared(ip(1), &datagram, now).ok()).flatten();
    let bytes: usize = answers.map(|answer| answer.len()).sum();
    assert!((ANSWERS_BYTES_MAX / 2..=ANSWERS_BYTES_MAX).contains(&bytes), "{bytes}");
    let _ = a.compare(now);
    assert!(a.compared(ip(1), &datagram, now).is_ok(), "later again");
}

#[test]
fn each_compares_with_others_at_growing_distances() {
    let mut records = node(4, 12);
    let now = |n: u32| COMPARE * n;
    let asked: Vec<_> = (1..9).filter_map(|n| records.compare(now(n))).map(|(to, _)| to).collect();
    assert_eq!(asked.len(), 8);
    let others: BTreeSet<_> = asked.iter().collect();
    assert_eq!(others.len(), 4, "1, 2, 4 and 8 places away: {asked:?}");
    assert!(!others.contains(&ip(4)));
    assert!(records.compare(now(8)).is_none(), "not yet");
    assert!(node(0, 1).compare(now(1)).is_none(), "with nobody");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_that_compare_know_the_same_after_few_datagrams(
        count in 3..400_usize,
        differing in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 1..9u64, 0..9u64), 0..60),
    ) {
        let (mut a, mut b) = (node(0, count), node(1, count));
        let now = Duration::from_secs(1);
        for n in 2..count {
            for part in [Part::About, Part::Load] {
                a.heard(&item(n, part, 20), now).expect("one");
                b.heard(&item(n, part, 20), now).expect("one");
            }
        }
        for (n, is_load, in_a, in_b) in &differing {
            let (n, part) = (2 + n.index(count - 2), if *is_load { Part::Load } else { Part::About });
            a.heard(&item(n, part, 20 + in_a), now).expect("one");
            b.heard(&item(n, part, 20 + in_b), now).expect("one");
        }
        let mut rounds = 0;
        while known(&a) != known(&b) {
            rounds += 1;
            exchange(&mut a, &mut b, now + COMPARE * rounds);
            prop_assert!(rounds <= 6, "it goes on");
        }
        // And then they say no more than that.
        prop_assert_eq!(exchange(&mut b, &mut a, now + COMPARE * 9), 1);
    }

    #[test]
    fn whatever_comes_is_taken_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..1200),
        kind in 0..6u8,
        hash in any::<u64>(),
    ) {
        let mut records = node(0, 40);
        for n in 1..40 {
            records.heard(&item(n, Part::Load, hash >> 40), Duration::ZERO).expect("one");
        }
        let _ = records.heard(&bytes, Duration::ZERO);
        let datagram = [&MAGIC[..], &[kind], &bytes].concat();
        for answer in records.compared(ip(1), &datagram, Duration::ZERO).unwrap_or_default() {
            prop_assert!(answer.len() <= DATAGRAM_BYTES_MAX);
        }
        prop_assert!(records.parts.len() <= 80);
    }
}

#[test]
fn what_an_algorithm_says_travels_with_the_load_and_too_much_of_it_is_refused() {
    let (mut from, mut to) = (Records::new(ip(1)), Records::new(ip(2)));
    to.up(ip(1));
    let saying: Saying = vec![7u8; SAYING_BYTES_MAX].into();
    let mut at = COMPARE;
    for said in [saying, Saying::default()] {
        for item in from.say(&NodeDescription::default(), load(1), &said, at, 1000) {
            to.heard(&item, at).expect("it is one");
        }
        assert_eq!(to.of(ip(1)).map(|record| Arc::clone(&record.saying)), Some(said));
        at += COMPARE * 5;
    }
    let long = vec![0u8; SAYING_BYTES_MAX + 1];
    let mut fields = bytes::BytesMut::new();
    bytes::BufMut::put_u8(&mut fields, 5);
    bytes::BufMut::put_u16(&mut fields, u16::try_from(long.len()).expect("short"));
    bytes::BufMut::put_slice(&mut fields, &long);
    assert!(codec::content(Part::Load, &fields).is_err());
}
