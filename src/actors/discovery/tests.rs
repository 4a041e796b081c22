//! Discovery alone, with machines that answer as the test says and time under control.

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::actors::Crash;
use crate::membership::Rules;
use crate::membership::swim::{Swim, SwimEffect, SwimId};
use crate::saved::MachinePatch;
use crate::storage;
use crate::types::Identity;
use futures_util::future::LocalBoxFuture;
use std::cell::Cell;
use std::collections::HashMap;

/// Answers polls from a table that the test changes as it goes.
#[derive(Default)]
struct Machines {
    answers: RefCell<HashMap<IpAddr, PollAnswer>>,
    asked: RefCell<Vec<IpAddr>>,
    told_farewell: Rc<RefCell<Vec<IpAddr>>>,
    followed: RefCell<Option<(Identity, PollAnswer)>>,
    names: RefCell<HashMap<String, Vec<IpAddr>>>,
    /// The last number of this machine's own address.
    own: Cell<u8>,
    /// What the node sent to others.
    datagrams: RefCell<Vec<(IpAddr, Bytes)>>,
    /// Whether those that have no answer keep the node waiting for as long as a poll may take.
    silent: Cell<bool>,
    /// Those whose machines are there, and say that nothing listens.
    refusing: RefCell<Vec<IpAddr>>,
}

impl Poller for Machines {
    fn poll(
        &self,
        ip: IpAddr,
        _: Option<u16>,
        _: &Identity,
        _: bool,
    ) -> LocalBoxFuture<'static, Option<PollAnswer>> {
        self.asked.borrow_mut().push(ip);
        let answer = self.answers.borrow().get(&ip).cloned();
        let waits = self.silent.get() && answer.is_none();
        Box::pin(async move {
            if waits {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            answer
        })
    }

    fn swims(&self) -> bool {
        true
    }

    fn datagram(&self, ip: IpAddr, datagram: &[u8]) {
        self.datagrams.borrow_mut().push((ip, datagram.to_vec().into()));
    }

    fn refuses(&self, ip: IpAddr) -> LocalBoxFuture<'static, bool> {
        let refuses = self.refusing.borrow().contains(&ip);
        Box::pin(async move { refuses })
    }

    fn farewell(&self, ip: IpAddr, _: Option<u16>, _: &Identity) -> LocalBoxFuture<'static, ()> {
        let told = Rc::clone(&self.told_farewell);
        Box::pin(async move { told.borrow_mut().push(ip) })
    }

    fn follow(&self) -> LocalBoxFuture<'static, Option<(Identity, PollAnswer)>> {
        let answer = self.followed.borrow().clone();
        Box::pin(async move { answer })
    }

    fn resolve(&self, name: String) -> LocalBoxFuture<'static, Result<Vec<IpAddr>, String>> {
        let found = self.names.borrow().get(&name).cloned();
        Box::pin(async move { found.ok_or_else(|| "no such name".to_owned()) })
    }

    fn own_address(&self) -> Option<IpAddr> {
        (self.own.get() != 0).then(|| ip(self.own.get()))
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn named(name: &str) -> Introduction {
    Introduction { name: name.to_owned(), ..Introduction::default() }
}

struct Node {
    addr: actix::Addr<Discovery>,
    kept: Rc<DiscoveryState>,
    machines: Rc<Machines>,
    settings: DiscoverySettings,
    folder: tempfile::TempDir,
}

fn start(init_servers: &[&str], follows: bool) -> Node {
    tokio::time::pause();
    let folder = tempfile::tempdir().expect("a folder");
    let rules = Rules {
        dead_polls_threshold: 3,
        dead_poll_time: Duration::from_secs(30),
        machines_max: 10,
    };
    let config = MachineConfig {
        init_servers: init_servers.iter().map(|s| (*s).to_owned()).collect(),
        ..MachineConfig::default()
    };
    let kept = Rc::new(DiscoveryState {
        membership: RefCell::new(Membership::new(rules, None)),
        config: Mutex::new(Layered { running: config.clone(), saved: config }),
        published: Arc::default(),
        writing: Default::default(),
    });
    let settings = DiscoverySettings {
        poll_time: Duration::from_secs(2),
        follows,
        data_path: folder.path().to_owned(),
        machines_max: 10,
        seed: 1,
        about: NodeDescription { software: "p2pfaas".to_owned(), ..NodeDescription::default() },
        said: Rc::new(Default::default),
    };
    let machines = Rc::new(Machines { own: Cell::new(99), ..Machines::default() });
    let addr = actor(&kept, &settings, &machines).start();
    Node { addr, kept, machines, settings, folder }
}

fn actor(
    kept: &Rc<DiscoveryState>,
    settings: &DiscoverySettings,
    machines: &Rc<Machines>,
) -> Discovery {
    let (kept, machines) = (Rc::clone(kept), Rc::clone(machines));
    Discovery::new(kept, settings.clone(), machines, Arc::default(), Guard::new(|_| ()))
}

impl Node {
    async fn list(&self) -> Vec<String> {
        let listing =
            self.addr.send(ListMachines { caller: None, leaves: false }).await.expect("it lives");
        listing.machines.into_iter().map(|machine| machine.ip).collect()
    }

    fn answers(&self, last: u8, knows: &[u8]) {
        let answer = PollAnswer {
            is: named(&format!("n{last}")),
            ip: Some(ip(last)),
            knows: knows.iter().map(|n| (ip(*n), Introduction::default())).collect(),
            leaves: false,
        };
        self.machines.answers.borrow_mut().insert(ip(last), answer);
    }
}

async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

#[actix::test]
async fn it_learns_of_others_through_an_init_server_and_publishes_them_by_name() {
    let node = start(&["10.0.0.2"], false);
    node.answers(2, &[1, 99]);
    node.answers(1, &[]);
    seconds(5).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"]);
    let published = node.kept.published.load();
    let peers: Vec<&str> = published.peers.iter().map(|peer| &*peer.name).collect();
    assert_eq!((peers, &*published.identity.id), (vec!["n1", "n2"], "p2pfaas-10.0.0.99"));
}

async fn goes_and_comes_back(init_server: &str) {
    let node = start(&[init_server], false);
    node.machines.names.borrow_mut().insert("nodes".to_owned(), vec![ip(1)]);
    node.answers(1, &[]);
    seconds(3).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
    node.machines.answers.borrow_mut().clear();
    seconds(7).await;
    assert!(node.list().await.is_empty());
    node.answers(1, &[]);
    seconds(3).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
}

#[actix::test]
async fn an_init_server_that_stops_answering_is_gone_and_back_as_soon_as_it_answers() {
    goes_and_comes_back("10.0.0.1").await;
}

#[actix::test]
async fn so_is_one_that_is_known_by_a_name() {
    goes_and_comes_back("nodes").await;
}

#[actix::test]
async fn a_machine_that_was_only_heard_of_and_is_dead_is_asked_again_after_its_rest() {
    let node = start(&["10.0.0.2"], false);
    node.answers(2, &[1]);
    node.answers(1, &[]);
    seconds(3).await;
    node.machines.answers.borrow_mut().remove(&ip(1));
    seconds(7).await;
    assert_eq!(node.list().await, ["10.0.0.2"]);
    node.answers(1, &[]);
    seconds(31).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"]);
}

#[actix::test]
async fn a_node_that_leaves_asks_nobody_any_more() {
    let node = start(&["10.0.0.1"], false);
    node.answers(1, &[]);
    seconds(3).await;
    node.addr.send(Leave).await.expect("it lives");
    node.machines.asked.borrow_mut().clear();
    seconds(10).await;
    assert!(node.machines.asked.borrow().is_empty());
}

#[actix::test]
async fn a_node_that_leaves_tells_those_that_understand_it_and_is_called_no_more() {
    let node = start(&["10.0.0.1", "10.0.0.2"], false);
    node.answers(1, &[]);
    node.answers(2, &[]);
    node.machines.answers.borrow_mut().get_mut(&ip(2)).expect("there").is.streams = true;
    seconds(3).await;
    node.addr.send(Leave).await.expect("it lives");
    assert_eq!(*node.machines.told_farewell.borrow(), [ip(2)]);
}

#[actix::test]
async fn a_machine_that_is_said_to_stop_is_asked_itself_and_then_called_no_more_until_it_is_back() {
    let node = start(&["10.0.0.1", "10.0.0.2"], false);
    node.answers(1, &[]);
    node.answers(2, &[]);
    seconds(3).await;
    let says = |leaves| {
        let caller = Some((ip(2), named("two")));
        node.addr.send(ListMachines { caller, leaves })
    };
    node.machines.asked.borrow_mut().clear();
    // A stranger says so, as often as he likes.
    for _ in 0..5 {
        says(true).await.expect("it lives");
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(*node.machines.asked.borrow(), [ip(2)]);
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"]);
    // It says so itself.
    tokio::time::sleep(LEAVE_REST).await;
    let leaves = PollAnswer { leaves: true, ..PollAnswer::default() };
    node.machines.answers.borrow_mut().insert(ip(2), leaves);
    says(true).await.expect("it lives");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
    assert_eq!(node.kept.published.load().peers.len(), 1, "it is called no more");
    says(false).await.expect("it lives");
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"], "until it is back");
}

#[actix::test]
async fn failed_connections_count_as_failed_polls_at_once() {
    let node = start(&["10.0.0.1"], false);
    node.answers(1, &[]);
    seconds(1).await;
    for _ in 0..3 {
        node.addr.send(Unreachable { ip: ip(1), own_deadline: false }).await.expect("it lives");
    }
    assert!(node.kept.published.load().peers.is_empty());
}

#[actix::test]
async fn a_machine_that_calls_is_listed_at_once() {
    let node = start(&[], false);
    let caller = Some((ip(7), named("seven")));
    let listing = node.addr.send(ListMachines { caller, leaves: false }).await.expect("it lives");
    assert_eq!(listing.machines.len(), 1);
    assert_eq!((&*listing.machines[0].name, listing.machines[0].alive), ("seven", true));
}

#[actix::test]
async fn an_init_server_that_is_this_node_is_not_listed() {
    let node = start(&["10.0.0.99", "10.0.0.50", "bad"], false);
    let me = PollAnswer { ip: Some(ip(99)), ..PollAnswer::default() };
    node.machines.answers.borrow_mut().insert(ip(50), me);
    seconds(1).await;
    assert!(node.list().await.is_empty());
}

#[actix::test]
async fn an_init_server_known_by_another_of_its_addresses_is_listed_once_and_stays() {
    let node = start(&["10.0.0.50"], false);
    node.answers(1, &[]);
    let other_side = node.machines.answers.borrow()[&ip(1)].clone();
    node.machines.answers.borrow_mut().insert(ip(50), other_side);
    seconds(1).await;
    let caller = Some((ip(1), named("n1")));
    node.addr.send(ListMachines { caller, leaves: false }).await.expect("it lives");
    for _ in 0..5 {
        assert_eq!(node.list().await, ["10.0.0.1"]);
        seconds(2).await;
    }
}

#[actix::test]
async fn a_reset_forgets_everybody_and_init_servers_are_found_again() {
    let node = start(&["10.0.0.1"], false);
    node.answers(1, &[]);
    seconds(1).await;
    node.addr.send(Reset).await.expect("it lives");
    assert!(node.list().await.is_empty());
    seconds(3).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
}

#[actix::test]
async fn a_changed_configuration_is_saved_and_used_at_once() {
    let node = start(&[], false);
    let patch = MachinePatch {
        machine_ip: Some("10.0.0.5".to_owned()),
        init_servers: Some(vec!["10.0.0.1".to_owned(), "10.0.0.5".to_owned()]),
        ..MachinePatch::default()
    };
    node.addr.send(ChangeMachineConfig(patch)).await.expect("it lives").expect("saved");
    assert_eq!(node.list().await, ["10.0.0.1"], "listed at once, as in v1; never ourselves");
    let config = node.addr.send(GetMachineConfig).await.expect("it lives").expect("an IP");
    assert_eq!(config.machine_id.as_deref(), Some("p2pfaas-10.0.0.5"));
    let file = node.folder.path().join(storage::DISCOVERY_FILE);
    let saved: MachinePatch = storage::read(&file, "it").expect("readable").expect("there");
    assert_eq!(saved.machine_id.as_deref(), Some(""), "unset stays unset");
}

#[actix::test]
async fn the_known_machines_are_saved_alive_or_not() {
    let node = start(&["10.0.0.1"], false);
    node.answers(1, &[]);
    seconds(1).await;
    node.machines.answers.borrow_mut().clear();
    seconds(20).await;
    assert!(node.list().await.is_empty());
    node.addr.send(Flush).await.expect("it lives");
    let file = node.folder.path().join(storage::MACHINES_FILE);
    let saved = storage::read_bounded(&file, 9999).expect("readable");
    let saved = crate::wire::read_machines(&saved, 9).expect("a list");
    assert_eq!((&*saved[0].ip, &*saved[0].name), ("10.0.0.1", "n1"));
}

#[actix::test]
async fn machines_that_change_all_the_time_are_saved_at_once_then_seldom_and_at_the_end() {
    let node = start(&[], false);
    let file = node.folder.path().join(storage::MACHINES_FILE);
    let saved = || {
        let text = storage::read_bounded(&file, 9999).ok()?;
        Some(crate::wire::read_machines(&text, 9).expect("a list").first()?.name.clone())
    };
    let mut seen = Vec::new();
    for n in 0..40 {
        let caller = Some((ip(1), named(&format!("n{n}"))));
        node.addr.send(ListMachines { caller, leaves: false }).await.expect("it lives");
        seconds(1).await;
        seen.push(saved());
    }
    assert!(seen[2].is_some(), "{seen:?}");
    seen.dedup();
    assert_eq!(seen.iter().flatten().count(), 3, "{seen:?}");
    node.addr.send(Flush).await.expect("it lives");
    assert_eq!(saved().as_deref(), Some("n39"));
}

#[actix::test]
async fn a_restart_of_the_actor_keeps_the_machines_and_goes_on_polling() {
    let node = start(&["10.0.0.1"], false);
    node.answers(1, &[]);
    seconds(1).await;
    node.addr.send(Crash).await.expect_err("it panics");
    let again = actor(&node.kept, &node.settings, &node.machines).start();
    let node = Node { addr: again, ..node };
    assert_eq!(node.list().await, ["10.0.0.1"]);
    let before = node.machines.asked.borrow().len();
    seconds(5).await;
    assert!(node.machines.asked.borrow().len() > before);
}

#[actix::test]
async fn another_discovery_service_is_followed_where_one_is_configured() {
    let node = start(&[], true);
    let me = Identity { ip: Some(ip(3)), id: "me".to_owned(), group: "g".to_owned() };
    let knows = vec![(ip(3), named("me")), (ip(4), named("other"))];
    let list = PollAnswer { knows, ..PollAnswer::default() };
    *node.machines.followed.borrow_mut() = Some((me.clone(), list));
    seconds(3).await;
    let published = node.kept.published.load();
    assert_eq!(published.identity, me);
    assert_eq!(published.peers.len(), 1);
    assert!(node.machines.asked.borrow().is_empty(), "it polls nobody itself");
}

#[actix::test]
async fn a_name_is_looked_up_at_every_poll_and_all_its_addresses_are_joined_but_our_own() {
    let node = start(&["nodes"], false);
    for last in 1..=3 {
        node.answers(last, &[]);
    }
    seconds(3).await;
    assert!(node.list().await.is_empty(), "the name leads to nothing yet");
    let names = |last: &[u8]| {
        let addresses = last.iter().map(|last| ip(*last)).collect();
        node.machines.names.borrow_mut().insert("nodes".to_owned(), addresses);
    };
    names(&[1, 2, 99]);
    seconds(2).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"]);
    assert!(!node.machines.asked.borrow().contains(&ip(99)), "this node is no peer of its own");
    names(&[3]);
    seconds(2).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

#[actix::test]
async fn a_name_that_leads_to_this_node_by_another_address_is_asked_seldom() {
    let node = start(&["nodes"], false);
    node.answers(99, &[]);
    let other_way = node.machines.answers.borrow()[&ip(99)].clone();
    node.machines.answers.borrow_mut().insert(ip(7), other_way);
    node.machines.names.borrow_mut().insert("nodes".to_owned(), vec![ip(7)]);
    seconds(20).await;
    assert_eq!(*node.machines.asked.borrow(), [ip(7)]);
    assert!(node.list().await.is_empty());
    // Somebody else has that address now.
    node.answers(7, &[]);
    seconds(20).await;
    assert_eq!(node.list().await, ["10.0.0.7"]);
}

#[actix::test]
async fn a_machine_that_is_heard_of_is_asked_at_once() {
    let node = start(&["10.0.0.2"], false);
    node.answers(2, &[1]);
    node.answers(1, &[]);
    seconds(1).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"], "before the second poll");
}

#[actix::test]
async fn a_node_tells_the_address_that_its_interface_has_now() {
    let node = start(&[], false);
    seconds(1).await;
    let told = || node.kept.published.load().identity.ip;
    assert_eq!(told(), Some(ip(99)));
    node.machines.own.set(0);
    seconds(3).await;
    assert_eq!(told(), Some(ip(99)), "cut off, it keeps the last one");
    node.machines.own.set(98);
    seconds(3).await;
    assert_eq!(told(), Some(ip(98)));
    assert_eq!(node.kept.published.load().identity.id, "p2pfaas-10.0.0.98");
}

#[actix::test]
async fn a_machine_whose_name_is_too_long_gets_the_list_but_is_not_on_it() {
    let node = start(&["10.0.0.1"], false);
    node.answers(1, &[]);
    seconds(1).await;
    for long in [256, 110_000] {
        let caller = Some((ip(7), named(&"a".repeat(long))));
        let listing =
            node.addr.send(ListMachines { caller, leaves: false }).await.expect("it lives");
        assert_eq!(listing.machines.len(), 1);
    }
    // Neither is one that answers with such a name.
    let long = PollAnswer { is: named(&"a".repeat(256)), ..PollAnswer::default() };
    node.machines.answers.borrow_mut().insert(ip(1), long);
    seconds(7).await;
    assert!(node.list().await.is_empty());
}

#[actix::test]
async fn who_answers_under_a_living_machines_name_takes_nothing_from_it() {
    let node = start(&["10.0.0.1", "10.0.0.2"], false);
    node.answers(1, &[]);
    let mut rogue = node.machines.answers.borrow()[&ip(1)].clone();
    rogue.ip = Some(ip(2));
    node.machines.answers.borrow_mut().insert(ip(2), rogue);
    for _ in 0..5 {
        seconds(2).await;
        assert_eq!(node.list().await[..2], ["10.0.0.1", "10.0.0.2"]);
        let caller = Some((ip(3), named("n1")));
        node.addr.send(ListMachines { caller, leaves: false }).await.expect("it lives");
        assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    }
}

#[actix::test]
async fn one_answer_makes_a_bounded_number_of_machines_known() {
    let node = start(&["10.0.0.1"], false);
    node.kept.membership.replace(Membership::new(
        Rules {
            dead_polls_threshold: 3,
            dead_poll_time: Duration::from_secs(30),
            machines_max: 10_000,
        },
        Some(ip(99)),
    ));
    let knows = (0..5_000u16)
        .map(|n| (IpAddr::from([10, 1, (n >> 8) as u8, n as u8]), Introduction::default()));
    let answer =
        PollAnswer { is: named("n1"), ip: Some(ip(1)), knows: knows.collect(), leaves: false };
    node.machines.answers.borrow_mut().insert(ip(1), answer);
    // From between two polls to between the next two.
    seconds(1).await;
    let mut before = node.machines.asked.borrow().len();
    for _ in 0..10 {
        seconds(2).await;
        let asked = node.machines.asked.borrow().len();
        assert!(asked - before <= crate::membership::UNKNOWN_ASKED_MAX + 1, "{}", asked - before);
        before = asked;
        assert_eq!(node.list().await, ["10.0.0.1"]);
    }
}

#[actix::test]
async fn few_names_are_looked_up_at_a_time_and_all_get_their_turn() {
    let mut joins = Joins::default();
    let names: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
    joins.wants(names.clone());
    let begun: Vec<String> = std::iter::from_fn(|| joins.begin()).collect();
    assert_eq!(begun, names[..8]);
    joins.wants(names.clone());
    assert!(joins.begin().is_none());
    assert!(joins.end("n3", Err("nothing".to_owned())).is_empty());
    joins.wants(names.clone());
    assert_eq!(joins.begin().as_deref(), Some("n8"), "the next one, not the first once more");
    let many = (0..=255).map(ip).collect();
    assert_eq!(joins.end("n8", Ok(many)).len(), 64);
}

/// Another node, as far as SWIM sees it.
fn swimmer(last: u8) -> Swim {
    let rng = Box::new(StdRng::seed_from_u64(last.into()));
    Swim::new(SwimId { ip: ip(last), generation: 1 }, 10, rng)
}

impl Node {
    /// Carries datagrams between this node and the `others` for that many seconds.
    async fn swims_with(&self, others: &mut [Swim], for_seconds: u64) {
        for _ in 0..for_seconds * 20 {
            for (to, datagram) in self.machines.datagrams.take() {
                for other in others.iter_mut().filter(|other| other.own().ip == to) {
                    other.received(ip(99), &datagram, Duration::ZERO).expect("it is one");
                }
            }
            for other in others.iter_mut() {
                while let Some(effect) = other.effect() {
                    if let SwimEffect::Send { to, datagram } = effect
                        && to == ip(99)
                    {
                        let from = other.own().ip;
                        let datagram = SwimDatagram { from, bytes: datagram };
                        self.addr.send(datagram).await.expect("it lives");
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whom it polls in so many seconds.
    async fn polls(&self, others: &mut [Swim], for_seconds: u64) -> Vec<IpAddr> {
        self.machines.asked.borrow_mut().clear();
        self.swims_with(others, for_seconds).await;
        self.machines.asked.take()
    }

    /// The same as [`Self::answers`], and it speaks our protocol.
    fn answers_and_swims(&self, last: u8) {
        self.answers(last, &[]);
        self.machines.answers.borrow_mut().get_mut(&ip(last)).expect("there").is.streams = true;
    }
}

#[actix::test]
async fn who_swims_is_found_by_it_and_polled_one_at_a_time() {
    let node = start(&["10.0.0.1"], false);
    (1..=4).for_each(|last| node.answers_and_swims(last));
    let mut others: Vec<Swim> = (1..=4).map(swimmer).collect();
    // Who is polled and speaks our protocol is asked; the others tell of themselves.
    node.swims_with(&mut others[..1], 3).await;
    for other in &mut others[1..] {
        other.join(ip(99), Duration::ZERO);
    }
    node.swims_with(&mut others, 3).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    let mut polled = node.polls(&mut others, 24).await;
    assert!((4..=7).contains(&polled.len()), "{polled:?}");
    polled.sort();
    polled.dedup();
    assert_eq!(polled.len(), 4, "each has its turn");
}

#[actix::test]
async fn who_refuses_connections_when_it_does_not_answer_is_not_waited_for() {
    let node = start(&["10.0.0.1"], false);
    node.answers_and_swims(1);
    let mut others = [swimmer(1)];
    node.swims_with(&mut others, 3).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
    node.machines.answers.borrow_mut().clear();
    node.machines.refusing.borrow_mut().push(ip(1));
    node.swims_with(&mut [], 1).await;
    assert!(node.list().await.is_empty());
}

#[actix::test]
async fn who_is_silent_is_listed_while_it_is_suspected_and_no_longer() {
    let node = start(&["10.0.0.1"], false);
    node.answers_and_swims(1);
    let mut others = [swimmer(1)];
    node.swims_with(&mut others, 3).await;
    node.machines.answers.borrow_mut().clear();
    node.machines.silent.set(true);
    node.swims_with(&mut [], 2).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
    node.swims_with(&mut [], 4).await;
    assert!(node.list().await.is_empty());
}

#[actix::test]
async fn who_is_heard_but_cannot_be_reached_is_not_listed_until_it_can() {
    let node = start(&[], false);
    let mut others = [swimmer(1)];
    seconds(1).await;
    others[0].join(ip(99), Duration::ZERO);
    node.swims_with(&mut others, 30).await;
    assert!(node.list().await.is_empty());
    assert!(node.polls(&mut others, 4).await.len() > 1, "it is asked again and again");
    node.answers_and_swims(1);
    node.swims_with(&mut others, 3).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
}

#[actix::test]
async fn a_deadline_of_ones_own_says_nothing_of_who_is_heard() {
    let node = start(&["10.0.0.1"], false);
    node.answers_and_swims(1);
    let mut others = [swimmer(1)];
    node.swims_with(&mut others, 3).await;
    for own_deadline in [true, false] {
        for _ in 0..3 {
            node.addr.send(Unreachable { ip: ip(1), own_deadline }).await.expect("it lives");
        }
        assert_eq!(node.list().await.is_empty(), !own_deadline);
    }
}

#[actix::test]
async fn who_is_not_heard_any_more_but_answers_stays_listed_and_is_polled_again() {
    let node = start(&["10.0.0.1"], false);
    node.answers_and_swims(1);
    let mut others = [swimmer(1)];
    node.swims_with(&mut others, 3).await;
    // Its datagrams do not come through any more.
    node.swims_with(&mut [], 10).await;
    assert_eq!(node.list().await, ["10.0.0.1"]);
    assert!(node.polls(&mut [], 10).await.len() >= 4);
}

/// What says to the node that has sent `heard`, as if from the node 1, that the node 2 was started for the
/// `times`th time, and is down.
fn comes_and_goes(heard: &[u8], times: u64) -> Bytes {
    let id = |last: u8, times: u64| [&[4, 10, 0, 0, last][..], &times.to_be_bytes()].concat();
    let member = |state: u8| [&id(2, times)[..], &[0, 0], &[state]].concat();
    // A head: sender, its incarnation, receiver, gossip; and two members.
    let head = [b"p2s\x01", &id(1, 1)[..], &[0, 0], &heard[4..17], &[8]].concat();
    [&head[..], &[0, 2], &member(0), &member(2)].concat().into()
}

#[actix::test]
async fn whoever_begins_too_many_timers_makes_swim_begin_anew_and_no_more() {
    let node = start(&["10.0.0.1"], false);
    node.answers_and_swims(1);
    node.answers_and_swims(2);
    let mut others = [swimmer(1), swimmer(2)];
    node.swims_with(&mut others, 3).await;
    others[1].join(ip(99), Duration::ZERO);
    node.swims_with(&mut others, 3).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"]);
    let heard = loop {
        let sent = node
            .machines
            .datagrams
            .borrow()
            .iter()
            .find_map(|(_, bytes)| bytes.starts_with(b"p2s").then(|| bytes.clone()));
        if let Some(sent) = sent {
            break sent;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for times in 2..600 {
        let bytes = comes_and_goes(&heard, times);
        node.addr.send(SwimDatagram { from: ip(1), bytes }).await.expect("it lives");
    }
    assert!(!node.kept.membership.borrow().is_swimming(ip(2)), "it has begun anew");
    node.swims_with(&mut others, 12).await;
    assert_eq!(node.list().await, ["10.0.0.1", "10.0.0.2"]);
    assert!(node.kept.membership.borrow().is_swimming(ip(1)));
}
