//! What settings must be beyond the range of each: forms that have words only, and what several must be
//! together.

use super::Settings;
use super::admin_token::{BadToken, has_form};
use crate::keys::Problem;
use crate::policy::registry::SchedulerSpec;
use crate::trust::read_keys;
use crate::types::{FunctionName, InitServer, Neighbours, check_init_servers, check_machine};

impl Settings {
    /// Checks texts against their forms, and settings that belong together against one another.
    pub(super) fn check_together(&self, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, why: String| problems.push(Problem::of(key, why));
        if self.forward_timeout_s < self.function_timeout_s {
            let why = format!(
                "{} is less than function_timeout_s, {}: a call that may take as long here would be given \
                 up where it is forwarded",
                self.forward_timeout_s, self.function_timeout_s
            );
            problem("forward_timeout_s", why);
        }
        self.check_access(&mut problem);
        self.check_cluster_key(&mut problem);
        let machine = check_machine(&self.machine_ip, &self.machine_id, &self.machine_group_name);
        if let Err((key, why)) = machine {
            problem(key, why);
        }
        if let Err(why) = self.neighbours.parse::<Neighbours>() {
            problem("neighbours", why);
        }
        if self.openfaas_enabled && self.openfaas_host.parse::<InitServer>().is_err() {
            let why = format!("{:?} is neither an IP address nor a host name", self.openfaas_host);
            problem("openfaas_host", why);
        }
        for name in &self.host_names {
            if let Err(why) = name.parse::<InitServer>() {
                problem("host_names", why);
            }
        }
        if let Err(why) = check_init_servers(&self.init_servers) {
            problem("init_servers", why);
        }
        if let Err(why) = SchedulerSpec::from_words(&self.scheduler).build() {
            problem("scheduler", why.to_string());
        }
        for (key, names) in [
            ("routes", self.routes.0.keys().collect::<Vec<_>>()),
            ("function_total_timeouts_s", self.function_total_timeouts_s.0.keys().collect()),
            ("fns_list", self.fns_list.iter().collect()),
        ] {
            for name in names {
                if let Err(why) = FunctionName::parse_listed(name) {
                    problem(key, format!("{name:?}: {why}"));
                }
            }
        }
        for (name, seconds) in &self.function_total_timeouts_s.0 {
            if !(0.001..=604_800.0).contains(seconds) {
                problem(
                    "function_total_timeouts_s",
                    format!("{name}: {seconds} is not 0.001–604800"),
                );
            }
        }
        for (name, url) in &self.routes.0 {
            let parsed = url.parse::<awc::http::Uri>();
            let good = parsed.is_ok_and(|u| u.scheme_str() == Some("http") && u.host().is_some());
            if !good {
                problem("routes", format!("{name}: {url:?} is no http:// URL"));
            }
        }
    }

    /// Who may change the node, and how clients are served.
    fn check_access(&self, problem: &mut impl FnMut(&str, String)) {
        if self.admin_token.is_set() {
            if self.admin_token_file.is_some() {
                problem("admin_token_file", BadToken::Both.to_string());
            }
            if !has_form(self.admin_token.reveal()) {
                let of = "what was given".to_owned();
                problem("admin_token", BadToken::Form { of }.to_string());
            }
        }
        for (key, set, other, other_set) in [
            ("tls_cert", &self.tls_cert, "tls_key", &self.tls_key),
            ("tls_key", &self.tls_key, "tls_cert", &self.tls_cert),
        ] {
            if set.is_some() && other_set.is_none() {
                problem(key, format!("it needs {other} beside it"));
            }
        }
    }

    /// Checks what makes the cluster private. What is in files is looked at when they are read.
    fn check_cluster_key(&self, problem: &mut impl FnMut(&str, String)) {
        if self.cluster_key.is_set() {
            if self.cluster_key_file.is_some() {
                let why = "cluster_key and cluster_key_file are both set: only one of them may be";
                problem("cluster_key_file", why.to_owned());
            }
            if let Err(why) = read_keys(self.cluster_key.reveal()) {
                problem("cluster_key", format!("{why} (it is not shown)"));
            }
        }
        if !self.has_cluster_key() && !self.v1_peers.is_empty() {
            let why =
                "it needs a cluster key beside it: without one all are spoken to in the clear";
            problem("v1_peers", why.to_owned());
        }
        if self.has_cluster_key() && !self.service_discovery_host.is_empty() {
            let why = "another discovery service cannot tell who has the cluster key";
            problem("service_discovery_host", why.to_owned());
        }
    }
}
