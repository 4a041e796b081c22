use super::*;
use futures_util::FutureExt;
use std::task::Waker;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

type Open = (Arc<Connection>, Reservation);

/// A table with room for `count` connections of the smallest kind, by their number or their bytes.
fn table(count: usize, by_bytes: bool) -> Arc<Connections> {
    let bytes = CONNECTION_BYTES * count as u64;
    let (count, bytes) = if by_bytes { (1000, bytes) } else { (count, 1 << 30) };
    let mut table = Connections::new(count, bytes, 4096, Arc::default());
    // As if the node ran for a while.
    Arc::get_mut(&mut table).expect("not shared yet").start_ms -= 60_000;
    table
}

fn open(table: &Arc<Connections>, from: IpAddr) -> Open {
    table.open(from).expect("there is room")
}

/// Ends, as its socket would, each of `all` that is to end; answers which stay.
fn settle(table: &Connections, all: Vec<Open>) -> Vec<Open> {
    let (going, staying): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(connection, _)| connection.ended().is_some());
    going.iter().for_each(|(connection, _)| table.close(connection));
    staying
}

fn numbers(all: &[Open]) -> Vec<u64> {
    let mut numbers: Vec<_> = all.iter().map(|(connection, _)| connection.number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn the_idle_end_first_then_the_slowest_and_never_one_that_runs() {
    for by_bytes in [false, true] {
        let table = table(4, by_bytes);
        let mut all: Vec<Open> = (0..4).map(|_| open(&table, HERE)).collect();
        all[0].0.begins(false);
        all[1].0.enter(Phase::Head, 5);
        all[2].0.enter(Phase::Head, 50_000);
        all[1].0.set_since(0, 0);
        all[2].0.set_since(0, 0);
        // Idle for a minute.
        all[3].0.set_since(0, 0);
        for ended in [3, 1, 2] {
            all.push(open(&table, HERE));
            let last = all.last().expect("just opened");
            last.0.begins(false);
            all = settle(&table, all);
            assert!(!numbers(&all).contains(&ended), "{ended} of {:?}", numbers(&all));
        }
        assert_eq!(table.open(HERE).err(), Some(NoRoom::AtAll), "all of them run");
        assert_eq!(table.count(), 4);
    }
}

#[test]
fn those_who_asked_often_outlive_those_who_never_did() {
    let table = table(100, false);
    let mut all: Vec<Open> = (0..10).map(|_| open(&table, HERE)).collect();
    for (connection, _) in &all {
        connection.set_served(20);
    }
    for _ in 0..2000 {
        let stranger = open(&table, HERE);
        stranger.0.begins(false);
        stranger.0.answers();
        stranger.0.served();
        all.push(stranger);
        all = settle(&table, all);
    }
    assert_eq!(numbers(&all)[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(table.count() <= 100);
}

#[test]
fn an_address_that_holds_more_than_half_goes_first() {
    let table = table(40, false);
    let mut all: Vec<Open> = (0..10).map(|_| open(&table, THERE)).collect();
    for (connection, _) in &all {
        // Idle for longer than any of the others.
        connection.set_since(0, 0);
    }
    for _ in 0..500 {
        all.push(open(&table, HERE));
        all = settle(&table, all);
    }
    assert_eq!(numbers(&all)[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn an_idle_one_that_asks_again_at_that_moment_stays_and_one_in_the_middle_does_not() {
    let table = table(2, true);
    let all = [open(&table, HERE), open(&table, HERE)];
    let (first, _) = &all[0];
    first.set_since(0, 0);
    assert_eq!(table.open(HERE).err(), Some(NoRoom::Yet), "the first is to end for it");
    assert_eq!(first.ended(), Some(EndReason::Room));
    first.enter(Phase::Head, 10);
    first.begins(false);
    assert_eq!((first.ended(), first.phase()), (None, Phase::Running));
    first.enter(Phase::Body, 0);
    assert!(first.end(EndReason::Slow).is_some());
    first.enter(Phase::Running, 0);
    assert_eq!(first.ended(), Some(EndReason::Slow));
    assert!(first.is_doomed());
}

#[test]
fn a_head_that_grows_takes_more_and_others_end_for_it() {
    let table = table(8, true);
    let mut all: Vec<Open> = (0..8).map(|_| open(&table, HERE)).collect();
    for (connection, _) in &all {
        // Idle for a minute.
        connection.set_since(0, 0);
    }
    let (connection, mut held) = all.remove(7);
    connection.enter(Phase::Head, 10);
    assert_eq!(connection.grow(&mut held, CONNECTION_BYTES), Ok(()));
    assert_eq!(connection.grow(&mut held, 3 * CONNECTION_BYTES), Ok(()));
    let left = settle(&table, all);
    assert!(left.len() <= 5, "two ended at least, {} are left", left.len());
    connection.begins(false);
    for (other, _) in &left {
        other.begins(false);
    }
    assert_eq!(connection.grow(&mut held, 20 * CONNECTION_BYTES), Err(NoRoom::AtAll));
    assert_eq!(held.bytes(), 3 * CONNECTION_BYTES, "nothing was taken");
}

#[test]
fn what_is_slow_is_found_phase_by_phase() {
    let table = table(10, false);
    let (connection, _held) = open(&table, HERE);
    let slow = |now: u64| connection.is_too_slow(now, 4096);
    let zero = table.now_ms();
    connection.set_since(zero, zero);
    assert!(!slow(zero + 3_600_000), "idle is not slow");
    connection.begins(false);
    assert!(!slow(zero + 3_600_000), "nor is who waits for a function");
    connection.enter(Phase::Head, 0);
    connection.set_since(zero, zero);
    assert!(!slow(zero + 5000) && slow(zero + 5001));
    connection.enter(Phase::Answering, 0);
    connection.set_since(zero, zero);
    assert!(!slow(zero + 30_000) && slow(zero + 30_001));
}

/// Milliseconds after which a body is given up of which `piece` bytes come every `pause_ms`, if it
/// is within a minute.
fn given_up_ms(piece: usize, pause_ms: u64) -> Option<u64> {
    let table = table(1, false);
    let (connection, _held) = open(&table, HERE);
    connection.enter(Phase::Body, 0);
    let zero = table.now_ms();
    connection.set_since(zero, zero);
    (1..120).map(|n| n * 500).find(|ms| {
        if ms % pause_ms == 0 {
            connection.moved(piece);
        }
        connection.is_too_slow(zero + ms, 4096)
    })
}

#[test]
fn a_body_keeps_to_the_least_rate_after_some_grace_whatever_came_at_first() {
    assert_eq!(given_up_ms(0, 500), Some(2500));
    assert_eq!(given_up_ms(10, 500), Some(2500));
    assert_eq!(given_up_ms(2048, 500), None);
    assert_eq!(given_up_ms(8192, 2000), None, "it may pause");
    assert_eq!(given_up_ms(1 << 20, 11_500), Some(2500), "but not for so long");
    // A mebibyte at once is credit for ten seconds, not for four minutes.
    let table = table(1, false);
    let (connection, _held) = open(&table, HERE);
    connection.enter(Phase::Body, 0);
    let zero = table.now_ms();
    connection.set_since(zero, zero);
    connection.moved(1 << 20);
    let late = (1..120).map(|n| n * 500).find(|ms| connection.is_too_slow(zero + ms, 4096));
    assert_eq!(late, Some(11_000));
}

#[tokio::test]
async fn a_body_makes_room_by_ending_those_that_stand_still_but_none_that_runs() {
    let table = table(10, false);
    let bodies = Bodies { budget: Budget::new(1 << 20), connections: Arc::clone(&table) };
    let (still, running) = (open(&table, HERE), open(&table, HERE));
    let held = bodies.budget.take(500 << 10).expect("there is room");
    still.0.enter(Phase::Body, 0);
    still.0.holds_body(&bodies.budget, 500 << 10);
    still.0.set_since(0, 0);
    let more = bodies.budget.take(500 << 10).expect("there is room");
    running.0.begins(false);
    running.0.holds_body(&bodies.budget, 500 << 10);
    still.0.waits(Waker::noop());
    let gives_back = async {
        while still.0.ended().is_none() {
            tokio::task::yield_now().await;
        }
        drop(held);
    };
    let (taken, ()) = tokio::join!(bodies.take(60 << 10, None), gives_back);
    assert!(taken.is_some());
    table.close(&still.0);
    assert!(bodies.take(600 << 10, None).await.is_none(), "what runs keeps its share");
    assert!(bodies.take(2 << 20, None).await.is_none());
    drop((more, running));
}

#[test]
fn a_body_that_comes_after_all_is_not_given_up() {
    let table = table(2, true);
    let (connection, _held) = open(&table, HERE);
    connection.enter(Phase::Body, 0);
    assert!(connection.end(EndReason::Room).is_some());
    assert!(connection.is_doomed() && connection.ended() == Some(EndReason::Room));
    connection.goes_on();
    assert_eq!((connection.ended(), connection.is_doomed()), (None, false));
    assert_eq!(connection.phase(), Phase::Body);
    assert!(connection.end(EndReason::Room).is_some(), "it may be ended again");
}

#[test]
fn a_session_may_be_idle_but_not_leave_its_answers_unread() {
    let table = table(9, false);
    let (connection, _held) = open(&table, HERE);
    connection.enter(Phase::Session, 0);
    let later = table.now_ms() + 3_600_000;
    assert!(!connection.is_too_slow(later, 0), "idle");
    connection.wrote(false);
    connection.wrote(false);
    assert!(!connection.is_too_slow(table.now_ms(), 0) && connection.is_too_slow(later, 0));
    connection.wrote(true);
    assert!(!connection.is_too_slow(later, 0), "some was read");
}

fn poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    future.poll_unpin(&mut std::task::Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn of_too_many_that_wait_the_newest_has_its_turn_and_the_oldest_gives_up() {
    let table = table(1, true);
    let (idle, held) = open(&table, HERE);
    idle.set_since(0, 0);
    let waits = || Box::pin(table.open_soon(HERE, std::future::pending()));
    let mut waiting: Vec<_> = (0..table.newcomers_max).map(|_| waits()).collect();
    for one in &mut waiting {
        assert!(poll(one).is_pending());
    }
    let mut newest = waits();
    assert!(poll(&mut newest).is_pending());
    assert!(poll(&mut waiting.remove(0)).is_ready(), "the oldest is refused");
    drop(held);
    table.close(&idle);
    let opened = poll(&mut newest);
    assert!(matches!(opened, std::task::Poll::Ready(Ok(_))), "the newest comes in");
    assert!(poll(&mut waiting.remove(0)).is_pending(), "the others wait");
    assert!(waiting.pop().expect("one").await.is_err(), "until their time is over");
}

#[tokio::test(start_paused = true)]
async fn who_asks_comes_in_before_those_who_only_wait() {
    let table = table(1, true);
    let (idle, held) = open(&table, HERE);
    idle.set_since(0, 0);
    let mut asks = Box::pin(table.open_soon(HERE, std::future::ready(())));
    let mut silent = Box::pin(table.open_soon(HERE, std::future::pending()));
    assert!(poll(&mut asks).is_pending() && poll(&mut silent).is_pending());
    drop(held);
    table.close(&idle);
    assert!(poll(&mut silent).is_pending());
    assert!(matches!(poll(&mut asks), std::task::Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_that_stays_after_all_tries_again() {
    let table = table(2, true);
    let all = [open(&table, HERE), open(&table, HERE)];
    all.iter().for_each(|(connection, _)| connection.set_since(0, 0));
    let mut waits = Box::pin(table.open_soon(HERE, std::future::pending()));
    assert!(poll(&mut waits).is_pending());
    let (stays, _) = all.iter().find(|(one, _)| one.ended().is_some()).expect("one is to end");
    stays.enter(Phase::Head, 1);
    stays.begins(false);
    assert_eq!(stays.ended(), None);
    assert!(poll(&mut waits).is_pending());
    let ended = all.iter().filter(|(one, _)| one.ended().is_some()).count();
    assert_eq!(ended, 1, "the other one is to end now");
}

#[test]
fn one_that_is_ended_again_counts_once() {
    let table = table(2, true);
    let (connection, _held) = open(&table, HERE);
    for _ in 0..3 {
        lock(&table.table).end(&connection, EndReason::Room).expect("it is idle");
        connection.forget_end();
    }
    assert_eq!(lock(&table.table).going_bytes, CONNECTION_BYTES);
    connection.spare();
    assert_eq!(lock(&table.table).going_bytes, 0);
}

#[test]
fn an_ipv6_host_counts_as_its_network() {
    let (a, b) = ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9");
    let [a, b] = [a, b].map(|text| network(text.parse().expect("an address")));
    assert_eq!(a, b);
    assert_eq!(network("::ffff:10.0.0.1".parse().expect("an address")), HERE);
}

#[test]
fn a_quarter_of_the_files_stays_for_all_else_and_what_a_node_needs() {
    assert_eq!(count_for(1024, 2), 768);
    assert_eq!(count_for(64, 1), 8);
    assert_eq!(count_for(10, 1), 0, "then the table takes one");
    assert_eq!(count_for(u64::MAX, 4), usize::MAX - usize::MAX / 4);
}
