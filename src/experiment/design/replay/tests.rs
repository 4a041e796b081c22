use super::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

fn recording(text: &str, nodes: u32, run: Stretch) -> Result<Arc<Recording>, String> {
    let arrived = azure::parse_for(text, nodes.into(), 10)?;
    Recording::new(arrived, nodes, run, 0.0).map(Arc::new)
}

const fn stretch(from_s: f64, speed: f64, duration_s: f64) -> Stretch {
    Stretch { from_s, speed, duration_s }
}

fn replayed(text: &str, nodes: u32, run: Stretch, factor: f64) -> Replayed {
    let recording = recording(text, nodes, run).expect("calls");
    Replayed { recording, stretch: run, factor }
}

fn calls(replayed: &Replayed, seed: u64) -> Vec<ArrivedCall> {
    let all: Vec<_> = replayed.clone().arrivals(SmallRng::seed_from_u64(seed)).collect();
    assert!(all.windows(2).all(|two| two[0].at_s <= two[1].at_s), "in order");
    let rates = RunRates::Recorded(replayed.clone());
    for call in &all {
        assert!((0.0..replayed.stretch.duration_s).contains(&call.at_s));
        // A time in nanoseconds finds the same minute.
        let rounded = (call.at_s * 1e9).round() / 1e9;
        assert_eq!(rates.at(call.node, rounded), call.rate, "{call:?}");
    }
    all
}

const ARRIVALS: &str = "at_s,node,payload\n1,1,\n10,0,3\n59,0,\n60,1,\n61,1,2\n130,0,\n";

#[test]
fn a_stretch_of_arrivals_comes_as_fast_as_it_is_wanted_with_nodes_and_payloads_as_recorded() {
    let all = calls(&replayed(ARRIVALS, 2, stretch(10.0, 5.0, 20.0), 1.0), 1);
    let told: Vec<_> = all.iter().map(|c| (c.at_s, c.node, c.payload)).collect();
    assert_eq!(told, [(0.0, 0, Some(3)), (9.8, 0, None), (10.0, 1, None), (10.2, 1, Some(2))]);
    // Two calls a minute at each, five times as fast; the minute counts as a whole.
    assert!(all.iter().all(|call| call.rate == 2.0 / 60.0 * 5.0 && call.duration_s.is_none()));
    // Behind the last call comes nothing more.
    assert_eq!(calls(&replayed(ARRIVALS, 2, stretch(0.0, 1.0, 1e6), 1.0), 1).len(), 6);
    // Edges of minutes that no number of nanoseconds is.
    calls(&replayed(ARRIVALS, 2, stretch(0.1, 7.0, 20.0), 1.0), 1);
}

#[test]
fn a_stretch_without_a_call_is_refused_with_when_the_last_one_comes() {
    for (text, from_s, part) in [
        (ARRIVALS, 131.0, "from second 131 to second 141, and its last one by second 130"),
        (ARRIVALS, 70.0, "no call comes"),
        ("HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,3,0\n", 70.0, "by second 120"),
        ("HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,3,0\n", 1e9, "no call comes"),
        ("app,func,end_timestamp,duration\na,f,9,1\n", 1.0, "by second 0"),
    ] {
        let why = recording(text, 2, stretch(from_s, 1.0, 10.0)).expect_err(text);
        assert!(why.contains(part), "{why}");
    }
    // A longer warm-up keeps more of it, but the run must have a call, too.
    let arrived = || azure::parse("HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,0,3\n");
    let new = |run_s, warm_up_s| {
        Recording::new(arrived().expect("counts"), 1, stretch(0.0, 1.0, run_s), warm_up_s)
    };
    assert!(new(60.0, 100.0).is_err());
    assert_eq!(new(61.0, 0.0).map(|kept| kept.calls()), Ok(3));
}

#[test]
fn counts_come_in_their_minute_at_their_functions_node_by_the_seed() {
    let text = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,5,0,40\n\
                o,a,g,http,0,30,0\no,a,h,http,0,0,2\n";
    let whole = replayed(text, 2, stretch(0.0, 60.0, 3.0), 1.0);
    let all = calls(&whole, 1);
    assert_eq!(all, calls(&whole, 1));
    assert_ne!(all, calls(&whole, 2));
    let told = |minute: f64, node: usize| {
        let within = |at_s: f64| (minute..minute + 1.0).contains(&at_s);
        all.iter().filter(|call| within(call.at_s) && call.node == node).count()
    };
    assert_eq!([told(0.0, 0), told(1.0, 1), told(2.0, 0), all.len()], [5, 30, 42, 77]);
    assert!(all.iter().filter(|call| call.at_s >= 2.0).all(|call| call.rate == 42.0));
    assert_eq!(RunRates::Recorded(whole.clone()).at(1, 0.5), 0.0, "none comes there then");
    assert_eq!(whole.recording.longest_s(), None);
    // A part of a minute has a part of its calls, by chance.
    let part = calls(&replayed(text, 2, stretch(90.0, 1.0, 30.0), 1.0), 1);
    assert!((1..30).contains(&part.len()), "{}", part.len());
}

#[test]
fn invocations_have_their_durations_and_load_factors_thin_them_or_send_them_again_in_their_minute()
{
    let rows: String =
        (0..1200).map(|n| format!("a,f{},{}.5,0.{}\n", n % 3, n, 1 + n % 4)).collect();
    let text = format!("app,func,end_timestamp,duration\n{rows}");
    let with = |factor| calls(&replayed(&text, 2, stretch(0.0, 1.0, 2000.0), factor), 3);
    let once = with(1.0);
    assert_eq!(once.len(), 1200);
    assert!(once.iter().all(|call| call.duration_s.is_some_and(|s| (0.1..0.5).contains(&s))));
    // Of the three functions two go to the first node.
    assert_eq!(once.iter().filter(|call| call.node == 0).count(), 800);
    assert!(with(0.0).is_empty());
    // Four standard deviations of a binomial count.
    let half = with(0.5);
    assert!((half.len() as f64 - 600.0).abs() < 4.0 * 300f64.sqrt(), "{}", half.len());
    assert!(half.iter().all(|kept| once.iter().any(|call| call.at_s == kept.at_s)));
    let more = with(2.5);
    assert!((more.len() as f64 - 3000.0).abs() < 4.0 * 300f64.sqrt(), "{}", more.len());
    assert!(once.iter().all(|call| more.iter().any(|sent| sent.at_s == call.at_s)), "the first");
    let twice = with(2.0);
    let of_minute = |all: &[ArrivedCall], minute: usize| {
        all.iter().filter(|call| call.at_s as usize / 60 == minute).count()
    };
    for minute in 0..20 {
        assert_eq!(of_minute(&twice, minute), 2 * of_minute(&once, minute), "{minute}");
    }
    let recording = recording(&text, 2, stretch(0.0, 1.0, 10.0)).expect("calls");
    assert_eq!(recording.longest_s(), Some(0.4));
    assert_eq!(recording.calls(), 60, "of a short run the first minute is kept");
}

#[test]
fn of_a_busy_day_a_stretch_is_taken_and_no_more_calls_than_a_run_may_have() {
    let day = "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,4000000000,3\n";
    let all = calls(&replayed(day, 1, stretch(60.0, 1.0, 60.0), 1.0), 1);
    assert_eq!(all.len(), 3);
    let refused = recording(day, 1, stretch(59.0, 1.0, 60.0)).expect_err("too many");
    assert!(refused.contains("4000000003 calls"), "{refused}");
}
