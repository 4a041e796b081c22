use rand::RngExt;
use rand::rngs::SmallRng;

use super::super::testing::*;
use super::super::{OutcomeKind, Peer};
use super::state::EpochCount;
use super::*;
use crate::types::NodeRecord;

const ARMS: &str = "RejectScheduler|NoScheduler true|ForwardScheduler 1|CapScheduler 2 3 4";
const EPOCH_S: u64 = 5;
/// Calls of a node's clients in a second.
const CALLS: u32 = 20;

fn parse(words: &str) -> Result<PortfolioScheduler, BadParameters> {
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    PortfolioScheduler::parse(&mut Params::new(&words))
}

/// A node with a clock of its own.
struct Member {
    policy: PortfolioScheduler,
    /// When it started.
    from: Duration,
    /// The others, with the records that came last.
    peers: Vec<Peer>,
}

impl Member {
    fn new(from: Duration) -> Self {
        Self { policy: parse(&format!("5s {ARMS}")).expect("good"), from, peers: Vec::new() }
    }

    /// The number of its epoch, and the arm that is in force.
    fn at(&self) -> (u32, usize) {
        let state = self.policy.state();
        (state.number, state.arm)
    }
}

/// Nodes that hear of each other.
struct Members {
    all: Vec<Member>,
    /// The share of words that are lost.
    loss: f64,
    second: u64,
    rng: SmallRng,
}

impl Members {
    /// So many, which started within a second.
    fn new(count: u32, loss: f64) -> Self {
        let from = |index: u32| Duration::from_millis(1000 - u64::from(index) * 990 / 4);
        let all = (0..count).map(|index| Member::new(from(index))).collect();
        Self { all, loss, second: 2, rng: rng(11) }
    }

    /// A second passes, in which an arm's calls are in time by these shares. The arm in force at each moment;
    /// `None`: not the same at all nodes.
    fn passes(&mut self, shares: [f64; 4]) -> Vec<Option<usize>> {
        let begin = Duration::from_secs(self.second);
        let mut in_force = Vec::new();
        for call in 0..CALLS {
            let at = begin + Duration::from_secs(1) / CALLS * call;
            let mut arms = Vec::new();
            for member in &self.all {
                let (task, now) = (client(), at - member.from);
                let mark = member.policy.mark(&task, now);
                let arm = (mark >> ARM_SHIFT) as usize;
                arms.push(arm);
                let is_served = self.rng.random::<f64>() < shares[arm];
                let kind = if is_served { OutcomeKind::Served } else { OutcomeKind::Rejected };
                let total = Duration::from_millis(10);
                let (peer, execution) = (None, None);
                let outcome = Outcome { task: &task, mark, now, kind, peer, execution, total };
                member.policy.outcome(&outcome);
            }
            in_force.push(Some(arms[0]).filter(|first| arms.iter().all(|arm| arm == first)));
        }
        self.second += 1;
        let now = Duration::from_secs(self.second);
        let said: Vec<_> = self
            .all
            .iter()
            .map(|member| {
                let saying = member.policy.says(now - member.from);
                Arc::new(NodeRecord { saying: saying.into(), ..NodeRecord::default() })
            })
            .collect();
        for (index, member) in self.all.iter_mut().enumerate() {
            member.peers.resize_with(said.len(), || Peer::at("10.0.0.1"));
            for (other, said) in said.iter().enumerate().filter(|(other, _)| *other != index) {
                if self.rng.random::<f64>() >= self.loss {
                    member.peers[other].record = Some(Arc::clone(said));
                }
            }
            member.policy.hears(&member.peers, now - member.from);
        }
        in_force
    }

    /// So many epochs pass. The share of the time in which all have the same arm in force, and that in which this is
    /// `best`.
    fn pass(&mut self, epochs: u64, shares: [f64; 4], best: usize) -> (f64, f64) {
        let all: Vec<_> = (0..epochs * EPOCH_S).flat_map(|_| self.passes(shares)).collect();
        let share = |is_so: &dyn Fn(&Option<usize>) -> bool| {
            all.iter().filter(|arm| is_so(arm)).count() as f64 / all.len() as f64
        };
        (share(&|arm| arm.is_some()), share(&|arm| *arm == Some(best)))
    }
}

#[test]
fn nodes_agree_on_the_arm_without_a_leader_whatever_their_clocks_and_find_the_best() {
    for loss in [0.0, 0.1] {
        let mut members = Members::new(5, loss);
        let shares = [0.6, 0.9, 0.7, 0.5];
        let (agreed, _) = members.pass(20, shares, 1);
        let (later, at_best) = members.pass(60, shares, 1);
        assert!(agreed >= 0.7 && later >= 0.85, "{agreed} {later} of the time at loss {loss}");
        assert!(at_best >= 0.8, "{at_best} at loss {loss}");
        let numbers: Vec<u32> = members.all.iter().map(|member| member.at().0).collect();
        let (first, last) = (numbers.iter().min(), numbers.iter().max());
        assert!(last.zip(first).is_some_and(|(last, first)| last - first <= 1), "{numbers:?}");
    }
}

#[test]
fn a_node_that_joins_does_what_the_others_do_within_two_epochs() {
    let mut members = Members::new(4, 0.1);
    let shares = [0.6, 0.9, 0.7, 0.5];
    members.pass(20, shares, 1);
    members.all.push(Member::new(Duration::from_secs(members.second)));
    members.pass(2, shares, 1);
    let at: Vec<(u32, usize)> = members.all.iter().map(Member::at).collect();
    assert!(at[4].0.abs_diff(at[0].0) <= 1 && at[4].0 >= 20, "{at:?}");
    let same = (0..10).filter(|_| {
        members.passes(shares);
        members.all[4].at().1 == members.all[0].at().1
    });
    assert!(same.count() >= 8);
}

#[test]
fn what_is_best_after_a_step_of_the_load_is_found_within_ten_epochs() {
    for (loss, after) in [(0.0, [0.9, 0.5, 0.7, 0.5]), (0.1, [0.9, 0.5, 0.7, 0.5])] {
        let mut members = Members::new(5, loss);
        members.pass(60, [0.6, 0.9, 0.7, 0.5], 1);
        members.pass(10, after, 0);
        let (agreed, at_best) = members.pass(10, after, 0);
        assert!(agreed >= 0.85, "{agreed} of the time, loss {loss}");
        assert!(at_best >= 0.7, "{at_best} of the time after ten epochs, loss {loss}");
        let changes = members.all[0].policy.state().changes;
        assert!((1..4).contains(&changes), "{changes} changes of the load");
    }
}

#[test]
fn a_load_that_stays_is_not_taken_for_another_one_because_words_were_lost() {
    let mut members = Members::new(5, 0.3);
    members.pass(100, [0.85, 0.9, 0.8, 0.5], 1);
    for member in &members.all {
        assert_eq!(member.policy.state().changes, 0);
    }
}

#[test]
fn words_that_were_lost_are_no_calls_that_did_not_come() {
    for (silent, changes) in [(0, 1), (1, 0), (2, 0), (4, 0)] {
        let mut state = PortfolioState::new(1);
        (state.number, state.usual_calls, state.is_guess) = (7, 500.0, false);
        let calls = if silent == 0 { 50.0 } else { 100.0 };
        let counted = CountedCalls { calls, in_time: calls };
        state.last = EpochCount { counted, ..EpochCount::default() };
        let words = |number| Words {
            number,
            arm: 0,
            proposal: None,
            last_arm: 0,
            last: counted,
            arms: vec![CountedCalls::default()],
        };
        state.heard = (0..4).map(|other| words(if other < silent { 6 } else { 7 })).collect();
        state.propose();
        assert_eq!(state.changes, changes, "{silent} of four are silent");
    }
}

#[test]
fn parameters_are_read_as_they_are_shown_and_all_can_be_left_out() {
    for words in ["", "3s", "1h NoScheduler true", &format!("5s {ARMS}")] {
        let policy = parse(words).expect(words);
        let again = parse(&policy.parameters().join(" ")).expect("a normal form is good");
        assert_eq!((again.parameters(), again.tag), (policy.parameters(), policy.tag), "{words}");
    }
    let arms = parse("").expect("good").arms.len();
    assert_eq!((arms, parse(&format!("5s {ARMS}")).expect("good").arms.len()), (6, 4));
    let tag = |words| parse(words).expect(words).tag;
    let others =
        ["", "5s NoScheduler true", "5s NoScheduler false", "6s NoScheduler true"].map(tag);
    for (index, one) in others.iter().enumerate() {
        assert!(!others[..index].contains(one), "{others:?}");
    }
}

#[test]
fn portfolios_in_portfolios_and_too_many_arms_are_refused() {
    let many = |arms: usize| format!("5s {}", vec!["NoScheduler true"; arms].join("|"));
    assert!(parse(&many(ARMS_MAX)).is_ok());
    for wrong in [
        "5s PortfolioScheduler",
        "5s NoScheduler true|PortfolioScheduler 5s RejectScheduler",
        "5s NoScheduler true|",
        "5s NoScheduler true|Nobody",
        "5s NoScheduler",
        "999ms NoScheduler true",
        "61m NoScheduler true",
        "soon",
        &many(ARMS_MAX + 1),
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_call_is_decided_and_heard_of_by_the_arm_that_was_in_force_when_it_came() {
    let policy = parse("5s RejectScheduler|NoScheduler true").expect("good");
    let rejects = policy.mark(&client(), Duration::ZERO);
    for epoch in 1..=2 {
        policy.state().begin(epoch, Duration::from_secs(5) * epoch);
    }
    policy.state().arm = 1;
    let runs = policy.mark(&client(), Duration::from_secs(12));
    let step = |mark| {
        let heard = Knowledge { mark, ..Knowledge::default() };
        policy.next(&client(), view(0, 0, &[]), &heard, &mut rng(1))
    };
    assert_eq!(step(rejects), Step::Decide(Decision::Reject));
    assert_eq!(step(runs), Step::Decide(Decision::RunHere { may_wait: false }));
    // Peers' calls are counted where their clients are, and those of the first epochs not at all.
    let of_peer = policy.mark(&from_peer(1), Duration::from_secs(12));
    assert_eq!([runs, of_peer, rejects].map(|mark| mark & COUNTED), [COUNTED, 0, 0]);
}

#[test]
fn one_that_lies_neither_shortens_epochs_nor_chooses_the_arm_nor_outweighs_all_others() {
    let (now, epoch) = (Duration::from_secs(4), Duration::from_secs(EPOCH_S));
    let some = |calls: f64| CountedCalls { calls, in_time: calls };
    let words = |number, arm, calls| Words {
        number,
        arm,
        proposal: Some(arm),
        last_arm: 0,
        last: some(calls),
        arms: vec![some(100.0), some(calls)],
    };
    let mut state = PortfolioState::new(2);
    state.own = vec![some(100.0), some(10.0)];
    state.told.clone_from(&state.own);
    state.last.counted = some(10.0);
    state.heard = vec![words(1, 1, 4e8), words(0, 0, 10.0), words(0, 0, 10.0)];
    state.follow(now, epoch);
    assert_eq!((state.number, state.elected(1)), (0, 0));
    let (last, _) = state.pool();
    assert!(state.pooled[1].calls < 600.0, "{:?}", state.pooled);
    assert!(last.calls <= 100.0, "{last:?}");
    // Half of them are followed.
    state.heard = vec![words(1, 1, 10.0), words(1, 1, 10.0), words(0, 1, 10.0)];
    state.follow(now, epoch);
    assert_eq!((state.number, state.arm), (1, 1));
}

#[test]
fn one_that_lies_about_its_calls_makes_others_forget_a_few_times_only() {
    let some = |calls: f64| CountedCalls { calls, in_time: calls };
    let words = |number, calls| Words {
        number,
        arm: 0,
        proposal: Some(0),
        last_arm: 0,
        last: some(calls),
        arms: vec![some(100.0), some(0.0)],
    };
    let mut state = PortfolioState::new(2);
    for epoch in 1..=1000 {
        state.begin(epoch, Duration::from_secs(EPOCH_S) * epoch);
        state.own[0] = state.own[0].plus(some(100.0));
        state.last = EpochCount { arm: 0, counted: some(100.0), is_short: false };
        let lie = if epoch % 2 == 0 { 1e9 } else { 0.0 };
        state.heard = vec![words(epoch, 100.0), words(epoch, 100.0), words(epoch, lie)];
        state.propose();
    }
    assert!((2..=9).contains(&state.changes), "{}", state.changes);
    // After a long time a change is believed at once again, another one soon after it, and none between.
    let mut changes = |number, calls| {
        let before = state.changes;
        (state.number, state.usual_calls, state.heard) = (number, 500.0, Vec::new());
        state.last.counted = some(calls);
        state.propose();
        state.changes - before
    };
    assert_eq!([changes(20_000, 100.0), changes(20_004, 900.0), changes(20_005, 900.0)], [1, 0, 1]);
}
