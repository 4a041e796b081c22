//! Functions behind an OpenFaaS gateway, and its API passed on. The gateway is a stand-in that does
//! what OpenFaaS documents of its own (openfaas/faas, `api-docs/spec.openapi.yml`).

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::raw::{RawServer, Reply, Request, answer, ok};
use common::*;
use p2pfaas::config::{Admin, Settings};
use serde_json::{Value, json};

/// Looks at a function that was scaled up until its new replica is there.
const LOOKS: u32 = 3;

#[derive(Clone, Copy)]
struct Deployed {
    replicas: u64,
    available: u64,
    looks: u32,
    /// Looks that a new replica takes.
    needs: u32,
    invocations: u64,
}

impl Deployed {
    fn at(replicas: u64) -> Self {
        Self { replicas, available: replicas, looks: 0, needs: LOOKS, invocations: 0 }
    }
}

type Functions = Mutex<BTreeMap<String, Deployed>>;

struct Gateway {
    server: RawServer,
    functions: Arc<Functions>,
}

impl Gateway {
    fn start() -> Self {
        let figlet = ("figlet".to_owned(), Deployed::at(1));
        let functions = Arc::new(Mutex::new(BTreeMap::from([figlet])));
        let known = Arc::clone(&functions);
        let server = RawServer::start(fresh_ip(), 8080, move |request| gateway(request, &known));
        Self { server, functions }
    }

    /// A node before this gateway.
    fn node(&self, change: impl FnOnce(&mut Settings)) -> TestNode {
        let host = self.server.url();
        let host = host.trim_start_matches("http://").split(':').next().expect("a host").to_owned();
        let secrets = tempfile::tempdir().expect("a folder");
        std::fs::write(secrets.path().join("basic-auth-user"), "admin\n").expect("written");
        std::fs::write(secrets.path().join("basic-auth-password"), "s3cret\n").expect("written");
        TestNode::start(|settings| {
            settings.embedded_functions = false;
            settings.openfaas_enabled = true;
            settings.openfaas_host = host;
            settings.openfaas_secrets_path = secrets.path().to_owned();
            change(settings);
        })
    }

    fn replicas(&self, name: &str) -> Option<u64> {
        self.functions.lock().unwrap().get(name).map(|f| f.replicas)
    }

    /// Changes what is known of `figlet`.
    fn figlet(&self, change: impl FnOnce(&mut Deployed)) {
        change(self.functions.lock().unwrap().get_mut("figlet").expect("it is there"));
    }

    /// Measures the scale delay of `figlet`, which has `before` replicas, and does `meanwhile` before
    /// its new one is available. Answers how many replicas it has in the end.
    async fn measured<F: Future<Output = ()>>(
        &self,
        node: &TestNode,
        before: u64,
        meanwhile: impl FnOnce() -> F,
    ) -> u64 {
        self.figlet(|f| *f = Deployed { needs: u32::MAX, ..Deployed::at(before) });
        let url = node.url("/monitoring/scale-delay/figlet");
        let measuring = actix_rt::spawn(async move { get(&url).await });
        eventually("it is scaled up", || async {
            (self.replicas("figlet") == Some(before + 1)).then_some(())
        })
        .await;
        meanwhile().await;
        self.figlet(|f| f.needs = 0);
        let answered = measuring.await.expect("it is measured");
        assert_eq!(answered.status, 200, "{}", answered.text());
        self.replicas("figlet").expect("it is there")
    }
}

fn gateway(request: &Request, functions: &Functions) -> Reply {
    let mut functions = functions.lock().unwrap();
    let (path, query) = request.path().split_once('?').unwrap_or((request.path(), ""));
    let method = request.line().split(' ').next().unwrap_or_default();
    if let Some(name) = path.strip_prefix("/function/") {
        return match functions.contains_key(name) {
            true => answer(
                "200 OK",
                &format!("X-Call-Id: 1\r\nX-Query: {query}\r\nContent-Type: text/art\r\n"),
                &request.body,
            ),
            false => answer("503 Service Unavailable", "", b"No endpoints available for: it."),
        };
    }
    let basic = format!("Basic {}", BASE64_STANDARD.encode("admin:s3cret"));
    if request.header("authorization") != basic {
        let ask = "WWW-Authenticate: Basic realm=\"Restricted\"\r\n";
        return answer("401 Unauthorized", ask, b"invalid credentials");
    }
    api(method, path, request, &mut functions)
}

/// The gateway's API, to those that it knows.
fn api(
    method: &str,
    path: &str,
    request: &Request,
    functions: &mut BTreeMap<String, Deployed>,
) -> Reply {
    let json_type = "Content-Type: application/json\r\n";
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let status = |name: &str, f: &Deployed| json!({"name": name, "image": "x", "replicas": f.replicas, "availableReplicas": f.available, "invocationCount": f.invocations});
    match (method, path) {
        ("GET", "/system/functions") => {
            let all: Vec<_> = functions.iter().map(|(name, f)| status(name, f)).collect();
            answer("200 OK", json_type, json!(all).to_string().as_bytes())
        }
        ("POST", "/system/functions") => {
            let Some(name) = body["service"].as_str() else {
                return answer("400 Bad Request", "", b"no service");
            };
            functions.insert(name.to_owned(), Deployed::at(1));
            answer("202 Accepted", "", b"")
        }
        ("PUT", "/system/functions") => ok(""),
        ("DELETE", "/system/functions") => {
            match functions.remove(body["functionName"].as_str().unwrap_or_default()) {
                Some(_) => ok(""),
                None => answer("404 Not Found", "", b"no such function"),
            }
        }
        ("GET", _) if path.starts_with("/system/function/") => {
            let name = path.trim_start_matches("/system/function/");
            let Some(f) = functions.get_mut(name) else {
                return answer("404 Not Found", "", b"");
            };
            f.looks += 1;
            if f.looks >= f.needs {
                f.available = f.replicas;
            }
            answer("200 OK", json_type, status(name, f).to_string().as_bytes())
        }
        ("POST", _) if path.starts_with("/system/scale-function/") => {
            let name = path.trim_start_matches("/system/scale-function/");
            let (Some(f), Some(wanted)) = (functions.get_mut(name), body["replicas"].as_u64())
            else {
                return answer("404 Not Found", "", b"");
            };
            assert_eq!(body["serviceName"], name);
            (f.replicas, f.available, f.looks) = (wanted, f.available.min(wanted), 0);
            answer("202 Accepted", "", b"")
        }
        _ => answer("404 Not Found", "", b"404 page not found"),
    }
}

#[actix_rt::test]
async fn a_function_runs_through_the_gateway_and_never_sees_the_nodes_credentials() {
    let gateway = Gateway::start();
    let node = gateway.node(|_| {});
    let answered = post(&node.url("/function/figlet?font=big"), "hello").await;
    assert_eq!((answered.status, &*answered.text()), (200, "hello"));
    assert_eq!(answered.header("x-query"), "font=big");
    assert_eq!(answered.header("content-type"), "text/art");
    assert_eq!(answered.header("x-p2pfaas-scheduler"), "NoScheduler");
    let own = [("Authorization", "Bearer of-the-client")];
    send("GET", &node.url("/function/figlet"), &own, "").await;
    let seen: Vec<String> =
        gateway.server.requests().iter().map(|r| r.header("authorization")).collect();
    assert_eq!(seen, ["", "Bearer of-the-client"], "the client's own travels, the node's does not");
}

#[actix_rt::test]
async fn routes_and_embedded_functions_come_before_the_gateway() {
    let gateway = Gateway::start();
    let routed = RawServer::start(fresh_ip(), 0, |_| ok("routed"));
    let node = gateway.node(|settings| {
        settings.embedded_functions = true;
        settings.routes.0.insert("figlet".to_owned(), routed.url());
    });
    assert_eq!(post(&node.url("/function/figlet"), "x").await.text(), "routed");
    assert_eq!(post(&node.url("/function/fn-echo"), "embedded").await.text(), "embedded");
    assert!(gateway.server.requests().is_empty());
}

#[actix_rt::test]
async fn a_function_that_the_gateway_does_not_know_is_404_code_3() {
    let gateway = Gateway::start();
    let node = gateway.node(|_| {});
    let answered = post(&node.url("/function/unknown"), "x").await;
    assert_eq!((answered.status, answered.code()), (404, 3));
}

#[actix_rt::test]
async fn a_functions_own_503_reaches_the_client() {
    let server = RawServer::start(fresh_ip(), 8080, |request| match request.path() {
        "/function/busy" => answer("503 Service Unavailable", "", b"busy"),
        _ => ok(r#"{"name":"busy","replicas":1,"availableReplicas":1}"#),
    });
    let gateway = Gateway { server, functions: Arc::default() };
    let node = gateway.node(|_| {});
    let answered = post(&node.url("/function/busy"), "x").await;
    assert_eq!((answered.status, &*answered.text()), (503, "busy"));
}

#[actix_rt::test]
async fn a_gateway_that_is_not_there_is_500_code_300() {
    let gateway = Gateway::start();
    let node = gateway.node(|settings| settings.openfaas_port = 9);
    for (method, path) in [
        ("POST", "/function/figlet"),
        ("GET", "/system/functions"),
        ("GET", "/monitoring/scale-delay/figlet"),
    ] {
        let answered = send(method, &node.url(path), &[], "").await;
        assert_eq!((answered.status, answered.code()), (500, 300), "{path}");
        assert!(answered.text().contains(":9"), "{}", answered.text());
    }
}

#[actix_rt::test]
async fn the_api_is_passed_on_with_the_nodes_credentials() {
    let gateway = Gateway::start();
    let node = gateway.node(|_| {});
    let listed = get(&node.url("/system/functions")).await;
    assert_eq!((listed.status, listed.header("content-type")), (200, "application/json"));
    assert_eq!(listed.json()[0]["name"], "figlet");
    let deploy = json!({"service": "cows", "image": "cows:1"}).to_string();
    assert_eq!(post(&node.url("/system/functions"), deploy.clone()).await.status, 202);
    assert_eq!(send("PUT", &node.url("/system/functions"), &[], deploy).await.status, 200);
    let scale = json!({"serviceName": "cows", "replicas": 4}).to_string();
    assert_eq!(post(&node.url("/system/scale-function/cows"), scale).await.status, 202);
    let status = get(&node.url("/system/function/cows")).await;
    assert_eq!(status.json()["replicas"], 4);
    assert_eq!(get(&node.url("/system/function/gone")).await.status, 404);
    let delete = json!({"functionName": "cows"}).to_string();
    let deleted = send("DELETE", &node.url("/system/functions"), &[], delete).await;
    assert_eq!((deleted.status, gateway.replicas("cows")), (200, None));
    assert_eq!(post(&node.url("/system/functions"), "{}").await.text(), "no service");
}

#[actix_rt::test]
async fn a_query_travels_and_a_name_cannot_lead_elsewhere_on_the_gateway() {
    let gateway = Gateway::start();
    let node = gateway.node(|_| {});
    get(&node.url("/system/function/figlet?namespace=edge")).await;
    let asked = gateway.server.requests()[0].path().to_owned();
    assert_eq!(asked, "/system/function/figlet?namespace=edge");
    for path in ["/system/function/..%2fsecrets", "/monitoring/scale-delay/a%3fb"] {
        let answered = get(&node.url(path)).await;
        assert_eq!((answered.status, answered.code()), (400, 100), "{path}");
    }
    assert_eq!(gateway.server.requests().len(), 1);
}

#[actix_rt::test]
async fn credentials_that_the_gateway_refuses_are_the_nodes_fault_not_the_clients() {
    let gateway = Gateway::start();
    let nowhere = tempfile::tempdir().expect("a folder");
    let node = gateway.node(|s| s.openfaas_secrets_path = nowhere.path().to_owned());
    let answered = get(&node.url("/system/functions")).await;
    assert_eq!((answered.status, answered.code()), (500, 300));
    assert!(answered.text().contains("credentials"), "{}", answered.text());
}

#[actix_rt::test]
async fn the_scale_delay_is_measured_by_one_replica_more_which_is_taken_back() {
    let gateway = Gateway::start();
    let node = gateway.node(|_| {});
    let measured = get(&node.url("/monitoring/scale-delay/figlet")).await.json();
    assert_eq!(measured["attempts"], LOOKS);
    assert_eq!(measured["error_margin"], 100);
    let delay = measured["approximate_delay"].as_f64().expect("a number");
    assert!(delay >= 0.2, "two waits of 0.1 s between three looks: {delay}");
    assert_eq!(gateway.replicas("figlet"), Some(1));
    let unknown = get(&node.url("/monitoring/scale-delay/unknown")).await;
    assert_eq!((unknown.status, unknown.code()), (404, 3));
}

#[actix_rt::test]
async fn a_replica_that_was_measured_stays_where_calls_need_it() {
    let gateway = Gateway::start();
    let node = gateway.node(|_| {});
    assert_eq!(gateway.measured(&node, 0, || async {}).await, 0, "nobody called it");
    let call = || async {
        assert_eq!(post(&node.url("/function/figlet"), "x").await.status, 200);
    };
    assert_eq!(gateway.measured(&node, 0, call).await, 1, "called through this node");
    let called_elsewhere = || async { gateway.figlet(|f| f.invocations += 1) };
    assert_eq!(gateway.measured(&node, 0, called_elsewhere).await, 1);
    assert_eq!(gateway.measured(&node, 1, call).await, 1, "it has what it had before");
}

#[actix_rt::test]
async fn what_others_have_scaled_meanwhile_stays() {
    let gateway = Gateway::start();
    let node = gateway.node(|_| {});
    for others in [5, 2] {
        let scale = || async { gateway.figlet(|f| (f.replicas, f.available) = (others, others)) };
        let left = gateway.measured(&node, if others == 5 { 1 } else { 0 }, scale).await;
        assert_eq!(left, others);
    }
}

#[actix_rt::test]
async fn a_node_that_stops_puts_back_the_replica_that_it_measures() {
    let gateway = Gateway::start();
    let mut node = gateway.node(|_| {});
    gateway.figlet(|f| f.needs = u32::MAX);
    let url = node.url("/monitoring/scale-delay/figlet");
    let measuring = actix_rt::spawn(async move { get(&url).await });
    eventually("it is scaled up", || async {
        (gateway.replicas("figlet") == Some(2)).then_some(())
    })
    .await;
    node.stop().await;
    assert_eq!(gateway.replicas("figlet"), Some(1));
    assert_eq!(measuring.await.expect("it is answered").status, 500);
}

#[actix_rt::test]
async fn what_changes_the_gateway_is_for_whoever_may_change_the_node() {
    let gateway = Gateway::start();
    let node = gateway.node(|settings| settings.admin = Admin::Off);
    for (method, path, status) in [
        ("GET", "/system/functions", 200),
        ("POST", "/system/functions", 403),
        ("PUT", "/system/functions", 403),
        ("DELETE", "/system/functions", 403),
        ("POST", "/system/scale-function/figlet", 403),
        ("GET", "/monitoring/scale-delay/figlet", 403),
    ] {
        let answered = send(method, &node.url(path), &[], "{}").await;
        assert_eq!(answered.status, status, "{method} {path}");
    }
    assert_eq!(gateway.server.requests().len(), 1);
    let metrics = get(&node.url("/metrics")).await.text();
    assert!(metrics.contains(r#"p2pfaas_refusals_total{kind="closed"} 5"#), "{metrics}");
}

#[actix_rt::test]
async fn a_function_with_more_replicas_than_can_be_counted_is_the_gateways_error() {
    let gateway = Gateway::start();
    let most = Deployed { available: 1, ..Deployed::at(u64::MAX) };
    gateway.functions.lock().unwrap().insert("most".to_owned(), most);
    let node = gateway.node(|_| {});
    let answered = get(&node.url("/monitoring/scale-delay/most")).await;
    assert_eq!((answered.status, answered.code()), (500, 300), "{}", answered.text());
    assert_eq!(gateway.replicas("most"), Some(u64::MAX));
}
