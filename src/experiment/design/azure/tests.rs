use super::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// A synthetic file that comes with the program.
fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/traces");
    std::fs::read_to_string(format!("{folder}/synthetic_{name}.csv")).expect("there")
}

const COUNTS_HEADER: &str = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\n";
const INVOCATIONS_HEADER: &str = "app,func,end_timestamp,duration\n";

fn invoked(text: &str) -> Vec<RecordedCall> {
    match parse(text) {
        Ok(Arrived::Invocations(all)) => all,
        other => panic!("{other:?}"),
    }
}

fn counted(text: &str) -> Vec<Vec<u32>> {
    match parse(text) {
        Ok(Arrived::Counts(counts)) => counts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_header_tells_the_layout() {
    for (text, expected) in [
        (&*file("counts"), Layout::Counts),
        (COUNTS_HEADER, Layout::Counts),
        (&file("invocations"), Layout::Invocations),
        (&file("arrivals"), Layout::Arrivals),
        ("at_s,node\n", Layout::Arrivals),
    ] {
        assert_eq!(layout(text), Ok(expected));
    }
    for (text, part) in [
        ("", "empty"),
        ("index,value\n", "line 1"),
        ("HashOwner,HashApp,HashFunction,Trigger\n", "line 1"),
        ("HashOwner,HashApp,HashFunction,Trigger,1,3\n", "minute 2 is not 2"),
        ("HashOwner,HashApp,HashFunction,Average,1\n", "line 1"),
    ] {
        assert!(layout(text).expect_err(text).contains(part), "{text:?}");
    }
    let week = |minutes: usize| {
        let names: Vec<String> = (1..=minutes).map(|minute| minute.to_string()).collect();
        layout(&format!("{},{}\n", COUNTED.join(","), names.join(",")))
    };
    assert_eq!(week(MINUTES_MAX), Ok(Layout::Counts));
    assert!(week(MINUTES_MAX + 1).expect_err("too many").contains("10080"));
}

#[test]
fn counts_have_a_row_for_each_function() {
    let text = format!("{COUNTS_HEADER}o,a,f,http,0,2,1\no,a,g,timer,5,0,0\n");
    assert_eq!(counted(&text), [[0, 2, 1], [5, 0, 0]]);
    let day = counted(&file("counts"));
    assert_eq!((day.len(), day[0].len()), (3, 1440));
    for (row, part) in [
        ("o,a,f,http,0,2", "line 2: it has 6 cells"),
        ("o,a,f,http,0,2.5,1", "line 2: a count is \"2.5\""),
        ("o,a,f,http,0,-1,1", "line 2"),
        ("", "no functions"),
    ] {
        let text = format!("{COUNTS_HEADER}{row}");
        assert!(parse(&text).expect_err(row).contains(part), "{row:?}");
    }
}

#[test]
fn invocations_start_before_they_end_and_are_told_from_the_first_start_on() {
    // The last to end was the first to start. Names are unique within an application only.
    let rows = "a,f,100.5,0.5\nb,f,101,0.25\na,f,110,12\n";
    let all = invoked(&format!("{INVOCATIONS_HEADER}{rows}"));
    let told: Vec<_> = all.iter().map(|i| (i.at_s, i.duration_s, i.function)).collect();
    assert_eq!(told, [(0.0, Some(12.0), 0), (2.0, Some(0.5), 0), (2.75, Some(0.25), 1)]);
    assert!(all.iter().all(|i| i.node.is_none() && i.payload.is_none()));
    let all = invoked(&file("invocations"));
    assert_eq!((all.len(), all[0].at_s), (12, 0.0));
    assert!(all.windows(2).all(|two| two[0].at_s <= two[1].at_s));
    for (row, part) in [
        ("a,f,1,-1", "line 2: duration"),
        ("a,f,NaN,1", "line 2: end_timestamp"),
        ("a,f,1e300,1", "line 2: end_timestamp"),
        ("a,f,1", "3 cells"),
        ("", "no invocations"),
    ] {
        let text = format!("{INVOCATIONS_HEADER}{row}");
        assert!(parse(&text).expect_err(row).contains(part), "{row:?}");
    }
}

#[test]
fn arrivals_keep_their_times_and_nodes() {
    let all = invoked("at_s,node,payload\n3.5,1,\n2,0,4\n");
    let told: Vec<_> = all.iter().map(|i| (i.at_s, i.node, i.payload)).collect();
    assert_eq!(told, [(2.0, Some(0), Some(4)), (3.5, Some(1), None)]);
    assert_eq!(invoked(&file("arrivals")).len(), 8);
    assert_eq!(invoked("at_s,node\n1,0\n")[0].payload, None);
    let told = "at_s,node,payload\n1,2,0\n2,0,1\n";
    assert!(parse_for(told, 3, 2).is_ok());
    for (nodes, payloads, part) in [
        (2, 2, "line 2: node is 2, but there are 2, from 0 on"),
        (3, 1, "line 3: payload is 1, but there are 1, from 0 on"),
    ] {
        assert_eq!(parse_for(told, nodes, payloads).expect_err(part), part);
    }
    for text in ["at_s,node\n-1,0\n", "at_s,node\n1,-1\n", "at_s,node\n1,0,0\n", "at_s,node\n"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn counted_invocations_are_spread_over_their_minute_by_the_randomness_that_is_given() {
    let spread = |seed| {
        let random = &mut SmallRng::seed_from_u64(seed);
        in_minute(2, 5, 1000, random).collect::<Vec<_>>()
    };
    let all = spread(7);
    assert_eq!(all.len(), 1000);
    assert!(all.iter().all(|i| (120.0..180.0).contains(&i.at_s) && i.function == 5));
    let mean = all.iter().map(|i| i.at_s).sum::<f64>() / 1000.0;
    assert!((mean - 150.0).abs() < 2.0, "{mean}");
    assert_eq!(all, spread(7));
    assert_ne!(all, spread(8));
}

#[test]
fn functions_go_round_the_nodes_and_an_arrival_has_its_own() {
    let of = |function, node| RecordedCall {
        at_s: 0.0,
        duration_s: None,
        function,
        node,
        payload: None,
    };
    let round: Vec<_> = (0..4).map(|function| node_of(&of(function, None), 3)).collect();
    assert_eq!(round, [Some(0), Some(1), Some(2), Some(0)]);
    assert_eq!(node_of(&of(0, Some(2)), 3), Some(2));
    assert_eq!(node_of(&of(0, Some(3)), 3), None);
    assert_eq!(node_of(&of(0, None), 0), None);
}
