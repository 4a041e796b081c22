//! What leaves a peer out, and what brings it back.

use super::*;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(text: &str) -> FunctionName {
    FunctionName::parse(text).expect("a name")
}

fn peers(count: usize) -> Vec<Peer> {
    (0..count).map(|n| Peer::at(&format!("10.0.0.{n}"))).collect()
}

/// A call of `function` at `peer`, from `now` on, for a millisecond.
fn call(outliers: &mut Outliers, peer: &Peer, function: &str, what: AtPeer, now: Duration) -> bool {
    let (function, took) = (name(function), Duration::from_millis(1));
    let call = outliers.goes(&peer.host, &function, now);
    outliers.ended(&peer.host, &function, call, what, now + took)
}

/// Calls of `f` fail at the first of `peers`, one every 2 ms, until it is left out. How many, and when.
fn fail(outliers: &mut Outliers, peers: &[Peer], what: AtPeer, now: Duration) -> (usize, Duration) {
    let at = |n: usize| now + Duration::from_millis(2 * n as u64);
    let failed = (1..20).find(|n| call(outliers, &peers[0], "f", what, at(*n)));
    let failed = failed.expect("it is left out some time");
    (failed, at(failed) + Duration::from_millis(1))
}

#[test]
fn failures_in_a_row_leave_a_peer_out_for_twice_as_long_each_time() {
    let (mut outliers, peers) = (Outliers::default(), peers(4));
    assert!(!call(&mut outliers, &peers[0], "f", AtPeer::Served, s(99)));
    let (count, mut now) = fail(&mut outliers, &peers, AtPeer::PeerFailed, s(100));
    assert_eq!(count, 2);
    for seconds in [5, 10, 20, 40, 80, 120, 120] {
        for (later, count) in [(0, 1), (seconds - 1, 1), (seconds, 0)] {
            let out = outliers.left_out(&peers, &[], &name("f"), now + s(later));
            assert_eq!(out.len(), count, "{seconds} {later}");
        }
        now += s(seconds);
        // One call goes on trial, and no other meanwhile.
        let trial = outliers.goes(&peers[0].host, &name("f"), now);
        assert_eq!(outliers.left_out(&peers, &[], &name("f"), now).len(), 1);
        now += s(1);
        let failed = AtPeer::PeerFailed;
        assert!(outliers.ended(&peers[0].host, &name("f"), trial, failed, now));
    }
    now += s(120);
    assert!(!call(&mut outliers, &peers[0], "f", AtPeer::Served, now));
    assert!(outliers.left_out(&peers, &[], &name("f"), now).is_empty(), "it is back");
    // A trial whose end nobody hears of is not waited for for ever.
    let (_, now) = fail(&mut outliers, &peers, AtPeer::PeerFailed, now);
    let trial = outliers.goes(&peers[0].host, &name("f"), now + s(120));
    outliers.given_up(&peers[0].host, trial);
    assert!(outliers.left_out(&peers, &[], &name("f"), now + s(131)).is_empty());
}

#[test]
fn of_one_that_never_served_a_call_nothing_good_is_known() {
    let (mut outliers, peers) = (Outliers::default(), peers(4));
    let (_, now) = fail(&mut outliers, &peers, AtPeer::PeerFailed, s(100));
    for (later, count) in [(29, 1), (30, 0)] {
        assert_eq!(outliers.left_out(&peers, &[], &name("f"), now + s(later)).len(), count);
    }
}

#[test]
fn where_some_fail_elsewhere_too_it_takes_one_more() {
    let (mut outliers, peers) = (Outliers::default(), peers(4));
    for n in 0..30 {
        let what = if n == 20 { AtPeer::PeerFailed } else { AtPeer::Served };
        assert!(!call(&mut outliers, &peers[1], "f", what, s(1)));
    }
    let (count, _) = fail(&mut outliers, &peers, AtPeer::PeerFailed, s(2));
    assert_eq!(count, 3);
}

#[test]
fn calls_that_were_under_way_when_it_was_left_out_say_nothing_new() {
    let (mut outliers, peers) = (Outliers::default(), peers(4));
    assert!(!call(&mut outliers, &peers[0], "f", AtPeer::Served, s(0)));
    let host = &peers[0].host;
    let mut before = || outliers.goes(host, &name("f"), s(1));
    let (first, second) = (before(), before());
    let (_, now) = fail(&mut outliers, &peers, AtPeer::PeerFailed, s(2));
    assert!(!outliers.ended(host, &name("f"), first, AtPeer::PeerFailed, now + s(6)));
    assert!(outliers.left_out(&peers, &[], &name("f"), now + s(6)).is_empty());
    let trial = outliers.goes(host, &name("f"), now + s(6));
    outliers.ended(host, &name("f"), second, AtPeer::Served, now + s(7));
    assert_eq!(outliers.left_out(&peers, &[], &name("f"), now + s(7)).len(), 1, "still on trial");
    assert!(outliers.ended(host, &name("f"), trial, AtPeer::PeerFailed, now + s(8)));
}

#[test]
fn a_function_that_fails_leaves_the_peer_out_for_that_function_alone() {
    let (mut outliers, peers) = (Outliers::default(), peers(2));
    fail(&mut outliers, &peers, AtPeer::FunctionFailed, s(1));
    assert_eq!(outliers.left_out(&peers, &[], &name("f"), s(2)), [Arc::clone(&peers[0].host)]);
    assert!(outliers.left_out(&peers, &[], &name("g"), s(2)).is_empty());
    assert_eq!(outliers.all_left_out(s(2)), [(Arc::clone(&peers[0].host), Some(name("f")))]);
    // Another function's answers say nothing of it.
    call(&mut outliers, &peers[0], "g", AtPeer::Served, s(2));
    assert_eq!(outliers.left_out(&peers, &[], &name("f"), s(2)).len(), 1);
}

#[test]
fn what_fails_now_and_then_counts_where_it_does_so_more_than_elsewhere() {
    let (mut outliers, all) = (Outliers::default(), peers(3));
    let at = |n: u64| s(1) + Duration::from_millis(10 * n);
    // Every second call, never three in a row.
    let out = (0..20).find(|n| {
        call(&mut outliers, &all[0], "f", AtPeer::Served, at(*n));
        call(&mut outliers, &all[0], "f", AtPeer::FunctionFailed, at(*n)) && *n > 0
    });
    assert!(out.is_some());
    // The same everywhere is the function's own way.
    let mut outliers = Outliers::default();
    let out = (0..40).any(|n| {
        all.iter().any(|peer| {
            call(&mut outliers, peer, "f", AtPeer::Served, at(n));
            call(&mut outliers, peer, "f", AtPeer::FunctionFailed, at(n))
        })
    });
    assert!(!out);
}

#[test]
fn no_more_than_half_are_left_out() {
    let (mut outliers, all) = (Outliers::default(), peers(5));
    for n in 0..5 {
        fail(&mut outliers, &all[n..], AtPeer::PeerFailed, s(1));
    }
    assert_eq!(outliers.left_out(&all, &[], &name("f"), s(2)).len(), 2);
    assert_eq!(outliers.left_out(&all[..1], &[], &name("f"), s(2)).len(), 1, "of one, that one");
}

#[test]
fn a_peer_that_hangs_is_held_back_until_something_returns() {
    let (mut outliers, all) = (Outliers::default(), peers(3));
    let ms = Duration::from_millis;
    for n in 0..100 {
        let call = outliers.goes(&all[1].host, &name("f"), s(1) + ms(n));
        let served = AtPeer::Served;
        outliers.ended(&all[1].host, &name("f"), call, served, s(1) + ms(n + 100));
    }
    let out = |outliers: &Outliers, now| outliers.left_out(&all, &[], &name("f"), now);
    let calls: Vec<_> =
        (0..3).map(|n| outliers.goes(&all[0].host, &name("f"), s(10) + ms(n * 50))).collect();
    assert!(out(&outliers, s(10) + ms(299)).is_empty(), "not yet");
    assert_eq!(out(&outliers, s(10) + ms(310)), [Arc::clone(&all[0].host)]);
    // One that is given up is not waited for.
    outliers.given_up(&all[0].host, calls[2]);
    assert!(out(&outliers, s(10) + ms(310)).is_empty());
    let third = outliers.goes(&all[0].host, &name("f"), s(10) + ms(310));
    assert_eq!(out(&outliers, s(11)).len(), 1);
    // What came later is back: it only takes long.
    outliers.ended(&all[0].host, &name("f"), third, AtPeer::Served, s(11));
    for n in 0..3 {
        outliers.goes(&all[0].host, &name("f"), s(11) + ms(n));
    }
    assert!(out(&outliers, s(11) + ms(100)).is_empty());
    // One call is enough where others are refused.
    let hangs = outliers.goes(&all[2].host, &name("f"), s(20));
    for n in 0..2 {
        assert!(out(&outliers, s(21)).len() < 2);
        let refused = outliers.goes(&all[2].host, &name("f"), s(20) + ms(n));
        outliers.ended(&all[2].host, &name("f"), refused, AtPeer::Refused, s(20) + ms(n));
    }
    assert!(out(&outliers, s(21)).contains(&all[2].host));
    outliers.ended(&all[2].host, &name("f"), hangs, AtPeer::Served, s(22));
    // What nobody knows the usual time of may take as long as it does.
    let mut outliers = Outliers::default();
    for _ in 0..9 {
        outliers.goes(&all[0].host, &name("g"), s(1));
    }
    assert!(outliers.left_out(&all, &[], &name("g"), s(900)).is_empty());
}

#[test]
fn who_says_that_it_fails_is_left_out_but_never_more_than_half() {
    let (outliers, all) = (Outliers::default(), peers(4));
    let failing: Vec<_> = all.iter().map(|peer| Arc::clone(&peer.host)).collect();
    assert_eq!(outliers.left_out(&all, &failing[..1], &name("f"), s(1)), failing[..1]);
    assert_eq!(outliers.left_out(&all, &failing, &name("f"), s(1)).len(), 2);
}

#[test]
fn the_share_of_failures_here_is_told_in_steps_and_forgotten() {
    let mut here = History::default();
    assert_eq!(here.failing_percent(0, 0, s(1)), 0);
    assert_eq!(here.failing_percent(0, 1, s(1)), 30, "one call says little");
    assert_eq!(here.failing_percent(0, 97, s(1)), 100);
    assert_eq!(here.failing_percent(0, 0, s(31)), 90);
    assert!(here.failing_percent(0, 0, s(120)) < 50);
    assert_eq!(here.failing_percent(100, 0, s(120)), 0);
}

#[test]
fn what_is_over_is_forgotten() {
    let (mut outliers, peers) = (Outliers::default(), peers(2));
    fail(&mut outliers, &peers, AtPeer::FunctionFailed, s(1));
    for (seconds, left) in [(200, 1), (550, 0)] {
        call(&mut outliers, &peers[0], "g", AtPeer::Served, s(seconds));
        if left > 0 {
            call(&mut outliers, &peers[0], "f", AtPeer::Served, s(seconds));
        }
        outliers.forget(s(seconds + 1));
        let functions = outliers.peers.get(&peers[0].host).map_or(0, |p| p.functions.len());
        assert_eq!(functions, left, "{seconds}");
    }
}
