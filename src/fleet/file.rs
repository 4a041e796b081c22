//! The fleet file: TOML, or a hosts file with one address a line, as P2PFaaS v1's scripts use.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Table;

use super::plan::Wanted;
use crate::policy::registry::SchedulerSpec;
use crate::saved::{LimitsPatch, MachinePatch};
use crate::types::{List, beyond_json};

/// Why a file is no fleet; the text says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFleet(pub String);

/// A node of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Where it is reached.
    pub address: IpAddr,
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
    address: IpAddr,
    name: Option<String>,
    group: Option<String>,
    init_server: Option<List<String>>,
    k: Option<u32>,
    queue_length: Option<u32>,
    queue_enabled: Option<bool>,
    scheduler: Option<String>,
    #[serde(default)]
    learner: Map<String, Value>,
}

fn bad(why: impl std::fmt::Display) -> BadFleet {
    BadFleet(why.to_string())
}

impl Fleet {
    /// Reads either form.
    ///
    /// # Errors
    /// What is wrong, and with which node.
    pub fn parse(text: &str) -> Result<Self, BadFleet> {
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty())
            .collect();
        let hosts: Option<Vec<IpAddr>> = lines.iter().map(|line| line.parse().ok()).collect();
        let fleet = match hosts {
            Some(hosts) => {
                let member = |address| Member { address, wanted: Wanted::default() };
                Self(hosts.into_iter().map(member).collect())
            }
            None => Self::parse_toml(text)?,
        };
        fleet.check()?;
        Ok(fleet)
    }

    fn parse_toml(text: &str) -> Result<Self, BadFleet> {
        let mut common: Table = text.parse().map_err(bad)?;
        let nodes = match common.remove("nodes") {
            Some(toml::Value::Array(nodes)) => nodes,
            _ => return Err(bad("nodes: a list of addresses, or [[nodes]] tables, is missing")),
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
            member(merged(&common, one), index).map_err(|why| bad(format!("{named}: {why}")))
        };
        nodes.into_iter().enumerate().map(member).collect::<Result<_, _>>().map(Self)
    }

    fn check(&self) -> Result<(), BadFleet> {
        if self.0.is_empty() {
            return Err(bad("there are no nodes in it"));
        }
        let (mut addresses, mut names) = (HashSet::new(), HashSet::new());
        for Member { address, wanted } in &self.0 {
            if !addresses.insert(address) {
                return Err(bad(format!("{address} is there twice")));
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

fn member(table: Table, index: usize) -> Result<Member, String> {
    let entry: Entry = table.try_into().map_err(|why: toml::de::Error| why.message().to_owned())?;
    if let Some(key) = beyond_json(&entry.learner) {
        return Err(format!("learner: {key} is no finite number"));
    }
    let scheduler = entry.scheduler.map(|words| SchedulerSpec::from_words(&words));
    if let Some(Err(why)) = scheduler.as_ref().map(SchedulerSpec::build) {
        return Err(format!("scheduler: {why}"));
    }
    let init_servers = entry.init_server.map(|servers| {
        // Nobody joins through itself.
        let me = entry.address.to_string();
        servers.0.into_iter().filter(|server| *server != me).collect()
    });
    let machine = MachinePatch {
        machine_ip: None,
        machine_id: entry.name.map(|name| name.replace("{n}", &index.to_string())),
        machine_group_name: entry.group,
        init_servers,
    };
    machine.check()?;
    let limits = LimitsPatch {
        parallel_running_functions_max: entry.k,
        queue_length_max: entry.queue_length,
        queue_enabled: entry.queue_enabled,
    };
    let wanted = Wanted { machine, limits, scheduler, learner: entry.learner };
    Ok(Member { address: entry.address, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_hosts_file_has_one_address_a_line() {
        let fleet = Fleet::parse("# boards\n10.0.0.1\n\n  10.0.0.2 # the second\n").expect("good");
        let addresses: Vec<String> = fleet.0.iter().map(|m| m.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
        assert!(fleet.0.iter().all(|member| member.wanted == Wanted::default()));
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
            <[Member; 2]>::try_from(Fleet::parse(text).expect("good").0).expect("two nodes");
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
            ("nodes = [\"10.0.0.1\", \"board\"]", "node 2"),
            ("nodes = [7]", "7"),
            ("typo = 1\nnodes = [\"10.0.0.1\"]", "typo"),
            ("scheduler = \"Nope\"\nnodes = [\"10.0.0.1\"]", "Nope"),
            ("nodes = [\"10.0.0.1\"]\n[learner]\nalpha = nan", "alpha is no finite"),
            ("k = -1\nnodes = [\"10.0.0.1\"]", "node 1"),
            ("name = \"x\"\nnodes = [\"10.0.0.1\", \"10.0.0.2\"]", "{n}"),
        ] {
            let error = Fleet::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
