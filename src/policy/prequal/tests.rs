use super::super::testing::*;
use super::super::{Decision, Load, OutcomeKind, Probe};
use super::*;

fn policy(r_probe: f64) -> PrequalScheduler {
    PrequalScheduler {
        r_probe,
        pool_max: 16,
        q_rif: 0.84,
        marks: Marks::default(),
        state: Mutex::default(),
    }
}

fn at(peers: &[Peer], now: Duration) -> NodeView<'_> {
    NodeView { now, ..view(100, 0, peers) }
}

/// Asks until it has decided; peers answer with a load of their place. How many were probed, and the decision.
fn decides(
    policy: &PrequalScheduler,
    node: NodeView<'_>,
    mark: u64,
    rng: &mut dyn Rng,
) -> (usize, Option<Peer>) {
    let (mut heard, mut probed) = (Knowledge { mark, ..Knowledge::default() }, 0);
    loop {
        match policy.next(&client(), node, &heard, rng) {
            Step::Probe(drawn) => {
                probed += drawn.len();
                let place = |peer: &Peer| node.peers.iter().position(|p| p == peer).expect("one");
                let load = |peer| Load { running: place(peer) as u32, waiting: 0 };
                let answers = drawn.iter().map(|peer| Probe::of(peer.clone(), load(peer)));
                let answers = answers.collect();
                heard.answered(drawn.iter().map(|peer| peer.host.clone()).collect(), answers);
            }
            Step::Decide(Decision::Forward(peer)) => return (probed, Some(peer)),
            Step::Decide(Decision::RunHere { may_wait: true }) => return (probed, None),
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn so_many_peers_are_probed_for_each_call_in_the_mean() {
    let peers = peers(40);
    for r_probe in [0.0, 0.5, 1.5, 3.0] {
        let (policy, rng) = (policy(r_probe), &mut rng(1));
        let all: usize = (1..=1000)
            .map(|mark| {
                let now = Duration::from_millis(10 * mark);
                let probed = decides(&policy, at(&peers, now), mark, rng).0;
                assert!(policy.state().pool.len() <= 16);
                probed
            })
            .sum();
        let mean = all as f64 / 1000.0;
        assert!((mean - r_probe).abs() < 0.06, "{mean} against {r_probe}");
    }
}

#[test]
fn answers_serve_later_calls_that_ask_nobody() {
    let peers = peers(40);
    let policy = policy(3.0);
    decides(&policy, at(&peers, Duration::ZERO), 1, &mut rng(1));
    decides(&policy, at(&peers, Duration::ZERO), 2, &mut rng(2));
    let pooled = policy.state().pool.len();
    assert!(pooled >= 3, "{pooled}");
    let asked = Knowledge { rounds: 1, mark: 3, ..Knowledge::default() };
    let step = policy.next(&client(), at(&peers, Duration::ZERO), &asked, &mut rng(3));
    assert!(matches!(step, Step::Decide(Decision::Forward(_))));
}

#[test]
fn with_fewer_than_two_answers_it_is_any_of_all_nodes() {
    let peers = peers(3);
    let policy = policy(0.0);
    let went: Vec<_> = (0..400)
        .map(|mark| decides(&policy, at(&peers, Duration::ZERO), mark, &mut rng(mark)).1)
        .collect();
    for to in [None, Some(&peers[0]), Some(&peers[1]), Some(&peers[2])] {
        let count = went.iter().filter(|went| went.as_ref() == to).count();
        assert!((60..140).contains(&count), "{to:?}: {count} of 400");
    }
}

#[test]
fn who_asks_for_too_few_probes_is_told_so() {
    assert!(policy(1.0).warning().is_some_and(|warning| warning.contains("r_probe 1 ")));
    assert_eq!(policy(3.0).warning(), None);
}

#[test]
fn this_node_is_a_candidate_unasked() {
    let peers = peers(40);
    let node =
        NodeView { load: Load { running: 0, waiting: 0 }, ..at(&peers[1..], Duration::ZERO) };
    let policy = PrequalScheduler { q_rif: 0.0, ..policy(3.0) };
    let (probed, to) = decides(&policy, node, 1, &mut rng(1));
    assert_eq!((probed, to), (3, None), "nobody has less than nothing in flight");
}

#[test]
fn a_call_that_is_decided_anew_pools_no_answer_twice() {
    let peers = peers(3);
    let policy = policy(3.0);
    let (_, to) = decides(&policy, at(&peers, Duration::ZERO), 1, &mut rng(1));
    let to = to.expect("this node is busier");
    let rest: Vec<Peer> = peers.iter().filter(|peer| **peer != to).cloned().collect();
    let answer = Probe::of(to.clone(), Load::default());
    let mut heard =
        Knowledge { mark: 1, unreachable: vec![to.host.clone()], ..Knowledge::default() };
    heard.answered(vec![to.host.clone()], vec![answer]);
    let step = policy.next(&client(), at(&rest, Duration::ZERO), &heard, &mut rng(1));
    assert_ne!(step, Step::forward(to.clone()));
    assert!(policy.state().pool.len() <= 2);
    assert_eq!(policy.state().pool.rifs().len(), 3);
}

#[test]
fn its_bid_is_how_long_calls_took_here() {
    let (policy, peers) = (policy(3.0), peers(3));
    let node = at(&peers, Duration::ZERO);
    assert_eq!(policy.bid(&client(), node), None);
    let heard = Knowledge { mark: 5, ..Knowledge::default() };
    let step = policy.next(&from_peer(1), node, &heard, &mut rng(1));
    assert_eq!((step, policy.may_forward(&from_peer(1))), (Step::run_here(), false));
    let (task, total) = (from_peer(1), Duration::from_millis(250));
    policy.outcome(&Outcome {
        task: &task,
        mark: 5,
        now: total,
        kind: OutcomeKind::Served,
        peer: None,
        execution: Some(total),
        total,
    });
    assert_eq!(policy.bid(&client(), node), Some(0.25));
}

#[test]
fn parameters_are_numbers_within_their_bounds() {
    let parse = |words: &str| {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        PrequalScheduler::parse(&mut Params::new(&words)).map(|policy| policy.parameters())
    };
    assert_eq!(parse("3 16 0.84"), Ok(["3", "16", "0.84"].map(str::to_owned).to_vec()));
    assert_eq!(parse("1.5 256 -0"), Ok(["1.5", "256", "0"].map(str::to_owned).to_vec()));
    for wrong in
        ["17 16 0.84", "3 257 0.84", "3 16 1.1", "nan 16 0.84", "3 16 x", "inf 1 1", "3 16"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
