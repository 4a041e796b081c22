//! The fleet file: TOML, or a hosts file with one address or host name a line, as P2PFaaS v1's scripts
//! use. A name stands for the address that it has when the file is read.

use std::collections::HashSet;
use std::net::{IpAddr, ToSocketAddrs};

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Table;

use super::plan::Wanted;
use crate::membership::topology::Topology;
use crate::policy::registry::SchedulerSpec;
use crate::saved::{LimitsPatch, MachinePatch};
use crate::types::{InitServer, List, Neighbours, beyond_json};

/// Why a file is no fleet; the text says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFleet(pub String);

/// A node of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The address or host name that the file gives it.
    pub host: String,
    /// Where it is reached.
    pub address: IpAddr,
    /// Whether its scheduler port speaks TLS.
    pub tls: bool,
    /// What it should be.
    pub wanted: Wanted,
}

/// All nodes, in the file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet(pub Vec<Member>);

/// What stands in the file for all nodes and for one; the latter wins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    address: String,
    name: Option<String>,
    group: Option<String>,
    init_server: Option<List<String>>,
    neighbours: Option<String>,
    k: Option<u32>,
    queue_length: Option<u32>,
    queue_enabled: Option<bool>,
    scheduler: Option<String>,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    learner: Map<String, Value>,
}

fn bad(why: impl std::fmt::Display) -> BadFleet {
    BadFleet(why.to_string())
}

/// The address of a host name, from the system's resolver: an IPv4 one if there is any. Blocks until
/// the resolver answers.
///
/// # Errors
/// The name has no address.
pub fn look_up(name: &str) -> Result<IpAddr, String> {
    let found = (name, 0).to_socket_addrs().map_err(|why| why.to_string())?;
    let mut addresses: Vec<IpAddr> = found.map(|found| found.ip()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.first().copied().ok_or_else(|| "it has no address".to_owned())
}

/// How a host name becomes an address: [`look_up`], or what a test puts in its place.
type LookUp<'a> = &'a dyn Fn(&str) -> Result<IpAddr, String>;

/// Where the node at `host`, an address or a host name, is reached.
fn address_of(host: &str, look_up: LookUp<'_>) -> Result<IpAddr, String> {
    match host.parse()? {
        InitServer::Address(address) => Ok(address),
        InitServer::Name(name) => look_up(&name)
            .map_err(|why| format!("the address of the host {name} cannot be found: {why}")),
    }
}

impl Fleet {
    /// Reads either form. What has no `=` in it is a hosts file.
    ///
    /// # Errors
    /// What is wrong, and with which node; or a name whose address cannot be found.
    pub fn parse(text: &str, look_up: LookUp<'_>) -> Result<Self, BadFleet> {
        let lines: Vec<(usize, &str)> = (1..)
            .zip(text.lines())
            .map(|(number, line)| (number, line.split('#').next().unwrap_or_default().trim()))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        let fleet = if lines.iter().any(|(_, line)| line.contains('=')) {
            Self::parse_toml(text, look_up)?
        } else {
            let host = |&(number, line): &(usize, &str)| {
                let address = address_of(line, look_up).map_err(|why| {
                    bad(format!(
                        "line {number}: {why}; a hosts file has one address or host name a line, a \
                         fleet file has keys, such as nodes = [\"10.0.0.1\"]"
                    ))
                })?;
                let wanted = Wanted::default();
                Ok(Member { host: line.to_owned(), address, tls: false, wanted })
            };
            Self(lines.iter().map(host).collect::<Result<_, BadFleet>>()?)
        };
        fleet.check()?;
        Ok(fleet)
    }

    fn parse_toml(text: &str, look_up: LookUp<'_>) -> Result<Self, BadFleet> {
        let mut common: Table = text.parse().map_err(bad)?;
        let nodes = match common.remove("nodes") {
            Some(toml::Value::Array(nodes)) => nodes,
            _ => {
                return Err(bad(
                    "nodes: a list of addresses or host names, or [[nodes]] tables, is missing",
                ));
            }
        };
        let topology = match common.remove("topology") {
            None => None,
            Some(toml::Value::String(words)) => {
                let read: Result<Topology, _> = words.parse();
                Some(read.map_err(|why| bad(format!("topology: {why}")))?)
            }
            Some(other) => return Err(bad(format!("topology: {other} is no text"))),
        };
        let member = |(index, node): (usize, toml::Value)| {
            let one = match node {
                toml::Value::String(address) => {
                    Table::from_iter([("address".to_owned(), address.into())])
                }
                toml::Value::Table(table) => table,
                other => return Err(bad(format!("nodes: {other} is no address and no table"))),
            };
            let named = format!("node {} of the list", index + 1);
            member(merged(&common, one), index, look_up)
                .map_err(|why| bad(format!("{named}: {why}")))
        };
        let mut fleet = Self(nodes.into_iter().enumerate().map(member).collect::<Result<_, _>>()?);
        if let Some(topology) = topology {
            fleet.take_shape(topology);
        }
        Ok(fleet)
    }

    /// So many nodes without a place of their own, for simulations: from 10.0.0.1 on.
    pub fn numbered(count: u32) -> Self {
        let member = |number: u32| {
            let address =
                IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0001_u32.wrapping_add(number)));
            Member { host: address.to_string(), address, tls: false, wanted: Wanted::default() }
        };
        Self((0..count).map(member).collect())
    }

    /// The nodes become neighbours as `topology` has it, but those for which something else is wanted.
    pub fn take_shape(&mut self, topology: Topology) {
        let addresses: Vec<IpAddr> = self.0.iter().map(|member| member.address).collect();
        for (member, neighbours) in self.0.iter_mut().zip(topology.told(&addresses)) {
            member.wanted.machine.neighbours.get_or_insert_with(|| neighbours.to_string());
        }
    }

    fn check(&self) -> Result<(), BadFleet> {
        if self.0.is_empty() {
            return Err(bad("there are no nodes in it"));
        }
        let (mut addresses, mut names) = (HashSet::new(), HashSet::new());
        for Member { host, address, wanted, .. } in &self.0 {
            if !addresses.insert(address) {
                let named = if *host == address.to_string() { "" } else { &format!(" ({host})") };
                return Err(bad(format!("{address}{named} is there twice")));
            }
            if let Some(name) = &wanted.machine.machine_id
                && !names.insert(name)
            {
                return Err(bad(format!(
                    "two nodes are called {name:?}; {{n}} in a name for all becomes a number"
                )));
            }
        }
        Ok(())
    }
}

/// `one` over what stands for all, learner parameters key by key.
fn merged(common: &Table, one: Table) -> Table {
    let mut all = common.clone();
    for (key, value) in one {
        match (all.get_mut(&key), value) {
            (Some(toml::Value::Table(of_all)), toml::Value::Table(of_one)) => of_all.extend(of_one),
            (_, value) => {
                all.insert(key, value);
            }
        }
    }
    all
}

/// Whom a node hands calls to, in its normal form.
fn in_words(words: &str) -> Result<String, String> {
    let read: Result<Neighbours, _> = words.parse();
    read.map(|neighbours| neighbours.to_string()).map_err(|why| format!("neighbours: {why}"))
}

fn member(table: Table, index: usize, look_up: LookUp<'_>) -> Result<Member, String> {
    let entry: Entry = table.try_into().map_err(|why: toml::de::Error| why.message().to_owned())?;
    let address = address_of(&entry.address, look_up)?;
    if let Some(key) = beyond_json(&entry.learner) {
        return Err(format!("learner: {key} is no finite number"));
    }
    let scheduler = entry.scheduler.map(|words| SchedulerSpec::from_words(&words));
    if let Some(Err(why)) = scheduler.as_ref().map(SchedulerSpec::build) {
        return Err(format!("scheduler: {why}"));
    }
    let init_servers = entry.init_server.map(|servers| {
        // Nobody joins through itself.
        let me = [&entry.address, &address.to_string()];
        servers.0.into_iter().filter(|server| !me.contains(&server)).collect()
    });
    let machine = MachinePatch {
        machine_ip: None,
        machine_id: entry.name.map(|name| name.replace("{n}", &index.to_string())),
        machine_group_name: entry.group,
        init_servers,
        neighbours: entry.neighbours.map(|words| in_words(&words)).transpose()?,
    };
    machine.check()?;
    let limits = LimitsPatch {
        parallel_running_functions_max: entry.k,
        queue_length_max: entry.queue_length,
        queue_enabled: entry.queue_enabled,
    };
    let wanted = Wanted { machine, limits, scheduler, learner: entry.learner };
    Ok(Member { host: entry.address, address, tls: entry.tls, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As `Fleet::parse` with a resolver that knows two names.
    fn parse(text: &str) -> Result<Fleet, BadFleet> {
        Fleet::parse(text, &|name| match name {
            "board-1" => Ok(IpAddr::from([10, 0, 0, 1])),
            "board-2.lab" => Ok(IpAddr::from([10, 0, 0, 2])),
            _ => Err("not known".to_owned()),
        })
    }

    fn addresses(fleet: &Fleet) -> Vec<String> {
        fleet.0.iter().map(|member| member.address.to_string()).collect()
    }

    #[test]
    fn a_hosts_file_has_one_address_a_line() {
        let fleet = parse("# boards\n10.0.0.1\n\n  10.0.0.2 # the second\n").expect("good");
        assert_eq!(addresses(&fleet), ["10.0.0.1", "10.0.0.2"]);
        assert!(fleet.0.iter().all(|member| member.wanted == Wanted::default()));
    }

    #[test]
    fn host_names_work_like_addresses_in_both_forms() {
        let lists = parse("board-1\nboard-2.lab\n10.0.0.3\n").expect("good");
        let text = r#"init_server = "board-1"
            nodes = ["board-1", { address = "board-2.lab" }, "10.0.0.3"]"#;
        let fleet = parse(text).expect("good");
        for fleet in [&lists, &fleet] {
            assert_eq!(addresses(fleet), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
            let hosts: Vec<&str> = fleet.0.iter().map(|member| &*member.host).collect();
            assert_eq!(hosts, ["board-1", "board-2.lab", "10.0.0.3"]);
        }
        let joins = fleet.0.iter().map(|member| member.wanted.machine.init_servers.as_deref());
        let through = ["board-1".to_owned()];
        let wanted = [Some(&through[..0]), Some(&through[..]), Some(&through[..])];
        assert_eq!(joins.collect::<Vec<_>>(), wanted, "nobody joins through itself");
    }

    #[test]
    fn the_resolver_of_the_system_knows_this_machine_and_prefers_ipv4() {
        assert_eq!(look_up("localhost"), Ok(IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn what_stands_for_one_node_goes_before_what_stands_for_all() {
        let text = r#"
            name = "board-{n}"
            k = 3
            init_server = "10.0.0.1"
            scheduler = "LearningScheduler 2"
            nodes = ["10.0.0.1", { address = "10.0.0.2", k = 1, learner = { alpha = 1 } }]
            [learner]
            actions_n = 14
            alpha = 0.5
        "#;
        let [first, second] =
            <[Member; 2]>::try_from(parse(text).expect("good").0).expect("two nodes");
        assert_eq!(first.wanted.machine.machine_id.as_deref(), Some("board-0"));
        assert_eq!(first.wanted.machine.init_servers, Some(Vec::new()), "not through itself");
        assert_eq!(second.wanted.machine.init_servers, Some(vec!["10.0.0.1".to_owned()]));
        let k = |member: &Member| member.wanted.limits.parallel_running_functions_max;
        assert_eq!((k(&first), k(&second)), (Some(3), Some(1)));
        assert_eq!(Value::from(first.wanted.learner), json!({"actions_n": 14, "alpha": 0.5}));
        assert_eq!(Value::from(second.wanted.learner), json!({"actions_n": 14, "alpha": 1}));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_node() {
        for (text, part) in [
            ("", "no nodes"),
            ("k = 3", "nodes"),
            ("10.0.0.1\n10.0.0.1", "twice"),
            ("10.0.0.1\nboard-1", "10.0.0.1 (board-1) is there twice"),
            ("10.0.0.1\nboard-3", "line 2: the address of the host board-3 cannot be found"),
            ("\n10.0.0.1 board-1", "line 2: \"10.0.0.1 board-1\" is neither an IP address"),
            ("10.0.0.1:19000", "one address or host name a line"),
            ("[nodes]", "a fleet file has keys"),
            ("nodes = [\"10.0.0.1\", \"board\"]", "node 2 of the list: the address of the host"),
            ("nodes = [\"10.0.0.1\", \"a b\"]", "node 2 of the list: \"a b\" is neither"),
            ("nodes = [7]", "7"),
            ("typo = 1\nnodes = [\"10.0.0.1\"]", "typo"),
            ("scheduler = \"Nope\"\nnodes = [\"10.0.0.1\"]", "Nope"),
            ("nodes = [\"10.0.0.1\"]\n[learner]\nalpha = nan", "alpha is no finite"),
            ("k = -1\nnodes = [\"10.0.0.1\"]", "node 1"),
            ("name = \"x\"\nnodes = [\"10.0.0.1\", \"10.0.0.2\"]", "{n}"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
