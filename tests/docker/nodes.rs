//! Nodes in containers, and how tests talk to them.

use std::net::Ipv4Addr;

use crate::common::*;
use crate::engine::{Container, Network};

/// A node in a container of its own.
pub struct Node {
    pub container: Container,
    /// Its address when it was last looked at.
    pub ip: Ipv4Addr,
}

impl Node {
    /// A node that finds the others by the name `node`, which all of them have.
    pub fn start(network: &Network, flags: &[&str]) -> Self {
        let join = ["-e", "P2PFAAS_INIT_SERVERS=node"];
        let flags = [&join[..], flags].concat();
        Self::of(Container::create(network, "node", "p2pfaas", &flags, &[]).started())
    }

    pub fn of(container: Container) -> Self {
        let ip = container.ip();
        Self { container, ip }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}:18080{path}", self.ip)
    }

    pub fn discovery(&self, path: &str) -> String {
        format!("http://{}:19000{path}", self.ip)
    }

    pub fn learner(&self, path: &str) -> String {
        format!("http://{}:19020{path}", self.ip)
    }

    pub async fn serves(&self) {
        eventually("a node in a container serves", || async {
            let answer = try_send("GET", &self.url("/health"), &[], "").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// The addresses of the machines that it lists as alive.
    pub async fn listed(&self) -> Vec<Ipv4Addr> {
        let machines = get(&self.discovery("/list")).await.json();
        let ip = |machine: &serde_json::Value| {
            machine["ip"].as_str().and_then(|ip| ip.parse().ok()).expect("an address")
        };
        let mut ips: Vec<_> = machines.as_array().expect("a list").iter().map(ip).collect();
        ips.sort();
        ips
    }

    pub async fn lists(&self, others: &[&Node]) {
        let mut want: Vec<_> = others.iter().map(|node| node.ip).collect();
        want.sort();
        eventually("a node in a container lists the others", || async {
            (self.listed().await == want).then_some(())
        })
        .await;
    }

    pub async fn set_scheduler(&self, words: &str) {
        let spec = p2pfaas::policy::registry::SchedulerSpec::from_words(words);
        let spec = serde_json::to_string(&spec).expect("JSON");
        assert_eq!(post(&self.url("/configuration/scheduler"), spec).await.status, 200);
    }

    /// One figure of its metrics, by its whole name; 0 while it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = get(&self.url("/metrics")).await.text();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or(0.0)
    }
}

/// Three nodes that know each other, and functions beside them.
pub struct Cluster {
    pub nodes: [Node; 3],
    #[allow(dead_code)]
    functions: Vec<Container>,
    /// The last to be dropped: a network with containers on it stays.
    pub network: Network,
}

impl Cluster {
    /// `functions` are images; those that are none of their own are the node's program.
    pub async fn start(functions: &[&str], flags: &[&str]) -> Self {
        let network = Network::new();
        let function = |name: &&str| match *name {
            "fn-echo" | "fn-thumbnail" | "fn-face" => {
                Container::create(&network, name, name, &[], &[]).started()
            }
            name => {
                let command = ["function", name];
                Container::create(&network, name, "p2pfaas", &[], &command).started()
            }
        };
        let functions = functions.iter().map(function).collect();
        let nodes = std::array::from_fn(|_| Node::start(&network, flags));
        let cluster = Self { nodes, functions, network };
        cluster.is_whole().await;
        cluster
    }

    pub async fn is_whole(&self) {
        let [a, b, c] = &self.nodes;
        for (node, others) in [(a, [b, c]), (b, [a, c]), (c, [a, b])] {
            node.serves().await;
            node.lists(&others).await;
        }
    }
}
