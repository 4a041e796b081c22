use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::future::ready;
use std::sync::atomic::AtomicI64;

fn limits(k: u32, queue_length_max: u32) -> Limits {
    Limits { k, queue_length_max, queue_enabled: true }
}

fn call() -> Arriving {
    Arriving { bytes: 1, may_wait: true, task_type: TaskType(2.0), due: None }
}

fn slot(gate: &Arc<Gate>) -> Slot {
    match gate.enter(call()) {
        Ok(Entrance::Slot(slot)) => slot,
        _ => panic!("a slot should be free"),
    }
}

fn place(gate: &Arc<Gate>) -> Place {
    match gate.enter(call()) {
        Ok(Entrance::Place(place)) => place,
        _ => panic!("there should be a place in the line"),
    }
}

/// The place's slot if it has been given.
async fn given(place: &mut Place) -> Option<Slot> {
    tokio::select! {
        biased;
        slot = place => slot.ok(),
        () = ready(()) => None,
    }
}

fn queue(gate: &Arc<Gate>, folder: &std::path::Path) -> Queue {
    let limits = gate.limits();
    let layered = Layered { running: limits, saved: Limits::default() };
    Queue::new(gate.clone(), Arc::new(layered.into()), folder, Guard::new(|_| ()))
}

#[actix::test]
async fn a_slot_that_is_given_back_starts_the_first_in_line() {
    let gate = Gate::new(limits(1, 2), 100);
    let running = slot(&gate);
    let (mut first, mut second) = (place(&gate), place(&gate));
    assert_eq!(gate.load(), Load { running: 1, waiting: 2 });
    assert_eq!(gate.load_by_type(3)[2], gate.load());
    drop(running);
    assert!(given(&mut second).await.is_none());
    assert!(given(&mut first).await.is_some());
    assert!(given(&mut second).await.is_some(), "the first's slot was dropped at once");
    assert_eq!((gate.load(), gate.load_by_type(3)[2]), (Load::default(), Load::default()));
}

#[actix::test]
async fn a_client_that_hangs_up_while_it_waits_leaves_the_line() {
    let gate = Gate::new(limits(1, 2), 100);
    let running = slot(&gate);
    let (first, mut second) = (place(&gate), place(&gate));
    drop(first);
    assert_eq!(gate.load(), Load { running: 1, waiting: 1 });
    drop(running);
    assert!(given(&mut second).await.is_some());
}

#[actix::test]
async fn a_slot_given_to_a_client_that_hangs_up_before_it_takes_it_is_not_lost() {
    let gate = Gate::new(limits(1, 2), 100);
    let running = slot(&gate);
    let (first, mut second) = (place(&gate), place(&gate));
    drop(running);
    drop(first);
    assert!(given(&mut second).await.is_some());
}

#[test]
fn a_panic_gives_the_slot_back_once() {
    let gate = Gate::new(limits(1, 0), 100);
    let running = slot(&gate);
    let panicked = std::thread::spawn(move || {
        let _running = running;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(gate.load(), Load::default());
    let _again = slot(&gate);
    assert!(gate.enter(call()).is_err());
}

#[actix::test]
async fn closing_tells_everybody_in_the_line() {
    let gate = Gate::new(limits(0, 2), 100);
    let waiting = place(&gate);
    gate.close();
    assert_eq!(waiting.await.err(), Some(Refusal::Closed));
    assert_eq!(gate.enter(call()).err(), Some(Refusal::Closed));
}

#[actix::test]
async fn limits_change_at_once_both_ways_and_are_saved_without_the_flags() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Gate::new(limits(1, 5), 100);
    let addr = queue(&gate, folder.path()).start();
    let running = slot(&gate);
    let mut waiting = place(&gate);
    let up = LimitsPatch { parallel_running_functions_max: Some(2), ..LimitsPatch::default() };
    addr.send(ChangeLimits(up)).await.expect("it lives").expect("saved");
    let second = given(&mut waiting).await.expect("the raised K starts it");
    let state = ActorState::Queue { k: 2, queue_length_max: 5, running: 2, waiting: 0 };
    assert_eq!(addr.send(Observe).await, Ok(state));
    let down = LimitsPatch { parallel_running_functions_max: Some(0), ..LimitsPatch::default() };
    addr.send(ChangeLimits(down)).await.expect("it lives").expect("saved");
    assert_eq!(gate.load().running, 2, "what runs goes on");
    let mut third = place(&gate);
    drop((running, second));
    assert!(given(&mut third).await.is_none(), "and nothing new starts");
    let saved: LimitsPatch = storage::read(&folder.path().join(storage::QUEUE_FILE), "limits")
        .expect("a file")
        .expect("one");
    assert_eq!((saved.parallel_running_functions_max, saved.queue_length_max), (Some(0), Some(4)));
}

#[actix::test]
async fn limits_that_cannot_be_saved_are_not_put_in_force() {
    let gate = Gate::new(limits(1, 5), 100);
    let addr = queue(&gate, std::path::Path::new("/nonexistent/folder")).start();
    let patch = LimitsPatch { queue_length_max: Some(9), ..LimitsPatch::default() };
    assert!(addr.send(ChangeLimits(patch)).await.expect("it lives").is_err());
    assert_eq!(gate.limits().queue_length_max, 5);
}

#[actix::test]
async fn a_change_that_hung_in_one_that_was_replaced_ends_before_those_of_its_successor() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Gate::new(limits(1, 5), 100);
    let first = queue(&gate, folder.path());
    let saved = Arc::clone(&first.saved);
    let second = Queue::new(gate.clone(), Arc::clone(&saved), folder.path(), Guard::new(|_| ()));
    let (first, second) = (first.start(), second.start());
    let hangs = saved.lock().await;
    let to = |length| LimitsPatch { queue_length_max: Some(length), ..LimitsPatch::default() };
    let old = actix_rt::spawn(first.send(ChangeLimits(to(8))));
    tokio::task::yield_now().await;
    first.do_send(super::super::supervise::EndActor);
    let new = actix_rt::spawn(second.send(ChangeLimits(to(9))));
    tokio::task::yield_now().await;
    drop(hangs);
    old.await.expect("joins").expect("it ends what it began").expect("saved");
    let before = new.await.expect("joins").expect("it lives").expect("saved");
    assert_eq!((before.running.queue_length_max, gate.limits().queue_length_max), (8, 9));
    assert!(!first.connected());
}

#[actix::test]
async fn a_restart_of_the_actor_keeps_slots_line_and_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Gate::new(limits(1, 5), 100);
    let first = queue(&gate, folder.path()).start();
    let running = slot(&gate);
    let mut waiting = place(&gate);
    first.send(super::super::Crash).await.expect_err("it panics");
    let second = queue(&gate, folder.path()).start();
    assert!(given(&mut waiting).await.is_none(), "K still holds");
    let patch = LimitsPatch { queue_length_max: Some(9), ..LimitsPatch::default() };
    second.send(ChangeLimits(patch)).await.expect("it lives").expect("saved");
    drop(running);
    assert!(given(&mut waiting).await.is_some());
}

#[test]
fn many_threads_never_run_more_than_k_and_lose_nobody() {
    const K: i64 = 3;
    let gate = Gate::new(limits(K as u32, 1000), 1 << 20);
    let (running, served) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicU64::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (gate, running, served) = (gate.clone(), running.clone(), served.clone());
            std::thread::spawn(move || {
                let runtime = actix_rt::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    for round in 0..2000 {
                        let slot = match gate.enter(call()).expect("the line is long") {
                            Entrance::Slot(slot) => slot,
                            Entrance::Place(place) if (round + thread) % 5 == 0 => {
                                drop(place);
                                continue;
                            }
                            Entrance::Place(place) => place.await.expect("never closed"),
                        };
                        assert!(running.fetch_add(1, Ordering::SeqCst) < K);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        served.fetch_add(1, Ordering::SeqCst);
                        drop(slot);
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no assertion failed");
    }
    assert_eq!(gate.load(), Load::default());
    assert!(served.load(Ordering::SeqCst) >= 4 * 1600);
}

#[derive(Clone, Debug)]
enum Event {
    Enter,
    Finish(usize),
    HangUp(usize),
    Limits(u32, u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => Just(Event::Enter),
        4 => (0usize..6).prop_map(Event::Finish),
        2 => (0usize..6).prop_map(Event::HangUp),
        1 => (0u32..4, 0u32..5).prop_map(|(k, q)| Event::Limits(k, q)),
    ]
}

proptest! {
    #[test]
    fn slots_and_places_dropped_in_any_order_keep_k_order_and_count(
        events in prop::collection::vec(event(), 0..150)
    ) {
        actix_rt::Runtime::new().expect("a runtime").block_on(async {
            let gate = Gate::new(limits(2, 3), 100);
            let mut k = 2;
            let (mut slots, mut places) = (Vec::new(), VecDeque::new());
            for event in events {
                match event {
                    Event::Enter => match gate.enter(call()) {
                        Ok(Entrance::Slot(slot)) => slots.push(slot),
                        Ok(Entrance::Place(place)) => places.push_back(place),
                        Err(_) => {}
                    },
                    Event::Finish(which) if which < slots.len() => drop(slots.swap_remove(which)),
                    Event::HangUp(which) => drop(places.remove(which)),
                    Event::Limits(new_k, q) => {
                        k = new_k as usize;
                        gate.set_limits(limits(new_k, q));
                    }
                    Event::Finish(_) => {}
                }
                // Whoever was started stands at the front; a gap would be a broken order.
                let mut before = slots.len();
                while let Some(place) = places.front_mut() {
                    let Some(slot) = given(place).await else { break };
                    prop_assert!(before < k, "never above K");
                    before += 1;
                    slots.push(slot);
                    places.pop_front();
                }
                for place in &mut places {
                    prop_assert!(given(place).await.is_none(), "first in first out");
                }
                let load = Load { running: slots.len() as u32, waiting: places.len() as u32 };
                prop_assert_eq!(gate.load(), load);
                prop_assert_eq!(gate.load_by_type(3)[2], load);
            }
            Ok(())
        })?;
    }
}
