use super::*;
use proptest::prelude::*;

fn rules(window: u64) -> WindowRules {
    WindowRules { window, overlap: true, attempts: 100, held_max: 1000, bytes_max: 1 << 20 }
}

fn entry(eid: Eid) -> Entry {
    Entry { eid, state: [eid as f64].into(), action: 0, reward: 0.0 }
}

/// What left, with `|` where the next makes no pair with the last, and what was counted.
#[derive(Debug, Default, PartialEq)]
struct Left {
    text: String,
    windows: u64,
    skipped: u64,
    late: u64,
    duplicate: u64,
}

fn feed(window: &mut Window, eids: impl IntoIterator<Item = Eid>) -> Left {
    let (mut left, mut out) = (Left::default(), Vec::new());
    for eid in eids {
        match window.arrive(entry(eid)) {
            Arrival::Held => {}
            Arrival::Late => left.late += 1,
            Arrival::Duplicate => left.duplicate += 1,
        }
        while let Some(release) = window.release(&mut out) {
            for gone in out.drain(..) {
                left.text += &format!("{} ", gone.eid);
            }
            if release.cut {
                left.text += "| ";
            }
            left.windows += u64::from(release.window);
            left.skipped += release.skipped;
            left.late += release.late;
        }
    }
    left
}

#[test]
fn the_last_entry_of_a_window_is_the_first_of_the_next() {
    let mut window = Window::new(rules(3), 0);
    assert_eq!(feed(&mut window, [1, 2]), Left::default());
    assert_eq!(feed(&mut window, [3]).text, "1 2 3 ");
    assert_eq!(feed(&mut window, [4]).text, "");
    assert_eq!(feed(&mut window, [5]), Left { text: "4 5 ".into(), windows: 1, ..<_>::default() });
    assert_eq!((window.held(), window.expected()), (0, 6));
}

#[test]
fn windows_that_do_not_overlap_begin_after_one_another() {
    let mut window = Window::new(WindowRules { overlap: false, ..rules(3) }, 0);
    let left = feed(&mut window, 1..=7);
    assert_eq!((&*left.text, left.windows), ("1 2 3 | 4 5 6 | ", 2));
}

#[test]
fn it_starts_at_the_smallest_eid_from_which_w_are_consecutive() {
    let mut window = Window::new(rules(3), 0);
    assert_eq!(feed(&mut window, [2, 9, 12, 10, 5]).text, "");
    let left = feed(&mut window, [11]);
    assert_eq!((&*left.text, left.late), ("9 10 11 ", 2), "2 and 5 are late now");
    assert_eq!(feed(&mut window, [6]), Left { late: 1, ..Left::default() });
    assert_eq!(feed(&mut window, [13]).text, "12 13 ");
}

#[test]
fn what_comes_twice_is_a_duplicate_while_it_is_held_and_late_afterwards() {
    let mut window = Window::new(rules(2), 0);
    assert_eq!(feed(&mut window, [5, 5]).duplicate, 1);
    assert_eq!(feed(&mut window, [6, 6, 5]).late, 2);
}

#[test]
fn a_gap_is_skipped_after_that_many_arrivals_beyond_it() {
    let mut window = Window::new(WindowRules { attempts: 3, ..rules(3) }, 0);
    assert_eq!(feed(&mut window, [1, 2, 3, 4]).text, "1 2 3 ");
    assert_eq!(feed(&mut window, [7, 9]).text, "");
    let left = feed(&mut window, [8]);
    // 4 leaves though its window is short, 5 and 6 are given up, then 7, 8, 9 make a window.
    assert_eq!((&*left.text, left.skipped, left.windows), ("4 | 7 8 9 ", 2, 1));
    assert_eq!(feed(&mut window, [5]).late, 1);
}

#[test]
fn gaps_are_skipped_before_anything_was_trained_too() {
    let mut window = Window::new(WindowRules { attempts: 2, ..rules(5) }, 0);
    let left = feed(&mut window, [1, 2, 4, 5, 7, 8]);
    assert_eq!((&*left.text, left.skipped), ("1 2 | 4 5 | ", 2));
    assert_eq!(window.held(), 2);
}

#[test]
fn a_gap_at_the_front_is_skipped_too() {
    let mut window = Window::new(WindowRules { attempts: 2, ..rules(2) }, 0);
    assert_eq!(feed(&mut window, [1, 2, 4, 5, 6]).text, "1 2 | 4 5 6 ");
}

#[test]
fn at_the_bound_the_oldest_gap_is_skipped_at_once() {
    let bound = WindowRules { held_max: 4, attempts: 1000, ..rules(3) };
    let mut window = Window::new(bound, 0);
    assert_eq!(feed(&mut window, [10, 20, 30]).text, "");
    let left = feed(&mut window, [40]);
    assert_eq!((&*left.text, left.skipped, window.held()), ("10 | ", 9, 3));
}

#[test]
fn very_large_states_reach_the_bound_sooner() {
    let state: crate::rl::State = vec![0.0; 1024].into();
    let bytes_max = 4 * entry_bytes(&state);
    for (first, step, window_size) in [(1, 2, 3), (1, 100, 3), (1, 1, 50)] {
        let mut window = Window::new(WindowRules { bytes_max, ..rules(window_size) }, 0);
        let (mut gone, mut pairs) = (Vec::new(), 0);
        for n in 0..20 {
            let eid = first + n * step;
            let arrived = window.arrive(Entry { state: state.clone(), ..entry(eid) });
            assert_eq!(arrived, Arrival::Held);
            let mut before = gone.len();
            while let Some(release) = window.release(&mut gone) {
                pairs += gone.len() - before - usize::from(release.cut);
                before = gone.len();
            }
            assert!(window.bytes < bytes_max && window.held() < 4);
        }
        let in_order: Vec<Eid> = (0..gone.len() as u64).map(|n| first + n * step).collect();
        assert_eq!(gone.iter().map(|entry| entry.eid).collect::<Vec<_>>(), in_order);
        // Without a gap every pair is learnt from, though windows are short.
        assert_eq!(pairs, if step == 1 { gone.len() } else { 0 });
    }
}

#[test]
fn one_entry_far_away_holds_nothing_up_and_skips_nothing() {
    let mut window = Window::new(rules(2), 0);
    let left = feed(&mut window, [1, 2, crate::rl::EID_MAX, 3, 4]);
    assert_eq!((&*left.text, left.skipped), ("1 2 3 4 ", 0));
}

#[test]
fn a_smaller_window_lets_go_what_waited_for_a_larger_one() {
    let mut window = Window::new(rules(10), 0);
    feed(&mut window, [9, 3, 4, 5, 6]);
    window.set_rules(rules(3));
    assert_eq!(feed(&mut window, []).text, "");
    let mut out = Vec::new();
    while window.release(&mut out).is_some() {}
    assert_eq!(out.iter().map(|e| e.eid).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn a_smaller_window_lets_go_one_window_after_the_other() {
    let cases = [(true, "11 12 13 14 15 16 17 18 ", 4), (false, "11 12 13 | 14 15 16 | ", 2)];
    for (overlap, text, windows) in cases {
        let mut window = Window::new(WindowRules { overlap, ..rules(10) }, 0);
        feed(&mut window, 1..=18);
        window.set_rules(WindowRules { overlap, ..rules(3) });
        let left = feed(&mut window, [0]);
        assert_eq!((&*left.text, left.windows, left.late), (text, windows, 1));
    }
}

#[test]
fn below_the_floor_all_is_late() {
    let mut window = Window::new(rules(2), 100);
    assert_eq!(
        feed(&mut window, [98, 99, 100, 101]),
        Left { text: "100 101 ".into(), windows: 1, late: 2, ..Left::default() }
    );
}

/// An order in which no entry is overtaken by `w` or more later ones: entry i leaves a line in
/// which at most `w − 1` later ones go before it.
fn overtaking(first: Eid, n: usize, w: usize) -> impl Strategy<Value = Vec<Eid>> {
    prop::collection::vec(0..usize::MAX, n).prop_map(move |draws| {
        let mut waiting: Vec<(Eid, usize)> = Vec::new();
        let (mut order, mut next) = (Vec::new(), first);
        for draw in draws {
            while waiting.len() < w && next < first + n as Eid {
                waiting.push((next, 0));
                next += 1;
            }
            // The first that was overtaken often enough must go now.
            let bound = waiting.iter().position(|(_, overtaken)| *overtaken + 1 >= w);
            let pick = draw % (bound.unwrap_or(waiting.len() - 1) + 1);
            let (eid, _) = waiting.remove(pick);
            waiting.iter_mut().take(pick).for_each(|(_, overtaken)| *overtaken += 1);
            order.push(eid);
        }
        order
    })
}

proptest! {
    #[test]
    fn whoever_is_overtaken_by_fewer_than_w_leaves_as_in_order(
        (w, order, overlap) in (2usize..9, 0u64..200, 1usize..300, any::<bool>()).prop_flat_map(
            |(w, first, n, overlap)| (Just(w), overtaking(first, n, w), Just(overlap)))
    ) {
        let rules = WindowRules { overlap, ..rules(w as u64) };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let in_order = feed(&mut Window::new(rules, 0), sorted);
        let reordered = feed(&mut Window::new(rules, 0), order);
        prop_assert_eq!(in_order, reordered);
    }

    #[test]
    fn whatever_comes_leaves_in_order_once_or_is_counted(
        eids in prop::collection::vec(0u64..150, 0..400),
        window in 2u64..7, attempts in 0u64..20, held_max in 7usize..30, overlap: bool,
        bytes_max in 600usize..10_000,
    ) {
        let rules = WindowRules { window, overlap, attempts, held_max, bytes_max };
        let mut reorder = Window::new(rules, 0);
        let left = feed(&mut reorder, eids.iter().copied());
        let gone: Vec<Eid> =
            left.text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        prop_assert!(gone.is_sorted_by(|a, b| a < b));
        let counted = left.late + left.duplicate;
        prop_assert_eq!(eids.len(), gone.len() + counted as usize + reorder.held());
        prop_assert!(reorder.held() < held_max.max(window as usize));
        prop_assert!(reorder.bytes < bytes_max);
        let entries: usize = reorder.held() * (ENTRY_BYTES + 8);
        prop_assert_eq!(reorder.bytes, entries + reorder.pages.len() * PAGE_BYTES);
        for run in left.text.split('|') {
            let run: Vec<Eid> = run.split_whitespace().flat_map(str::parse).collect();
            prop_assert!(run.windows(2).all(|two| two[0] + 1 == two[1]), "{:?}", run);
        }
    }
}
