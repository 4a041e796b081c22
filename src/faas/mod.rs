//! Where a function runs: one backend a file, behind one trait, in an ordered list.
//!
//! `BACKENDS` is that list: an explicit route, an embedded function if those are enabled, the OpenFaaS
//! gateway if there is one, else the container of that name. The first that serves a name has it. To add
//! a backend: its file, and its line in the list.

pub mod container;
pub mod embedded;
pub mod openfaas;
mod remote;
pub mod route;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};

use self::openfaas::OpenFaas;
use self::remote::Remote;
use crate::actors::queue::Slot;
use crate::call::function::{Answer, Backend, Invocation};
use crate::client::Hosts;
use crate::client::http1::{ClientRules, HttpClient};
use crate::config::Settings;
use crate::error::Error;
use crate::memory::budget::Budget;
use crate::types::FunctionName;

/// All backends, in the order in which they are asked.
const BACKENDS: &[Prepare] = &[
    route::prepare,
    embedded::prepare,
    openfaas::prepare,
    // Serves every name that is left.
    container::prepare,
];

/// Makes a backend ready for a node with these settings; `None`: it is off.
type Prepare = fn(&Settings) -> Result<Option<PreparedBackend>, BadBackend>;

/// A backend that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadBackend(pub String);

/// Makes a worker thread's own backend.
type MakeBackend = dyn Fn(&ThreadContext<'_>) -> Box<dyn FunctionBackend> + Send + Sync;

/// A backend of a node: what its worker threads share, and from which each makes its own.
pub struct PreparedBackend {
    /// The functions that it serves for certain; others may have further names.
    pub names: Vec<String>,
    /// Makes it for the current thread.
    pub make: Box<MakeBackend>,
}

/// What the backends of a worker thread are made from.
pub struct ThreadContext<'a> {
    settings: &'a Settings,
    bodies: Arc<Budget>,
}

impl ThreadContext<'_> {
    /// A client of this thread's own for these hosts.
    pub fn client(&self, hosts: Hosts) -> HttpClient {
        let settings = self.settings;
        HttpClient::new(ClientRules {
            hosts,
            connect: Duration::from_millis(settings.function_connect_timeout_ms),
            insists: true,
            machine_silence: Settings::seconds(settings.function_silence_timeout_s),
            first_byte: Settings::seconds(settings.function_timeout_s),
            next_byte: Settings::seconds(settings.function_idle_timeout_s),
            sealing: None,
        })
    }

    /// A way to functions on these hosts.
    fn remote(&self, hosts: Hosts) -> Remote {
        Remote::new(self.client(hosts), self.settings.body_bytes_max)
    }

    /// What all bodies on the node may hold.
    pub fn bodies(&self) -> Arc<Budget> {
        Arc::clone(&self.bodies)
    }

    /// How the node is configured.
    pub fn settings(&self) -> &Settings {
        self.settings
    }
}

/// A backend in the list.
pub trait FunctionBackend: Backend {
    /// Whether calls of the function `name` are this backend's.
    fn serves(&self, name: &FunctionName) -> bool;

    /// The platform whose API the node passes on, if the backend is one.
    fn gateway(&self) -> Option<&OpenFaas> {
        None
    }
}

/// The backends of a node, shared by its worker threads.
pub struct Backends(Vec<PreparedBackend>);

impl Backends {
    /// Those that are on by these settings, in order.
    ///
    /// # Errors
    /// One cannot be used as it is configured.
    pub fn prepare(settings: &Settings) -> Result<Arc<Self>, BadBackend> {
        let prepared = BACKENDS.iter().map(|prepare| prepare(settings));
        let prepared: Result<Vec<_>, _> = prepared.collect();
        Ok(Arc::new(Self(prepared?.into_iter().flatten().collect())))
    }

    /// The functions that are served for certain.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.iter().flat_map(|backend| &backend.names)
    }
}

/// All functions that a worker thread can run.
pub struct Functions {
    backends: Vec<Box<dyn FunctionBackend>>,
    served: Vec<String>,
    /// The names that the operator gave, here or in a route.
    named: HashSet<String>,
}

impl Functions {
    /// Those of `backends`, for the current thread.
    pub fn new(settings: &Settings, backends: &Backends, bodies: Arc<Budget>) -> Self {
        let context = ThreadContext { settings, bodies };
        Self {
            backends: backends.0.iter().map(|backend| (backend.make)(&context)).collect(),
            served: settings.fns_list.clone(),
            named: settings.fns_list.iter().chain(backends.names()).cloned().collect(),
        }
    }

    fn backend(&self, name: &FunctionName) -> Option<&dyn FunctionBackend> {
        self.backends.iter().find(|backend| backend.serves(name)).map(|backend| &**backend)
    }

    /// Whether this node serves a function of that name at all.
    ///
    /// # Errors
    /// The name is none, or not among those that the node serves.
    pub fn check(&self, name: &str) -> Result<FunctionName, Error> {
        let name = match self.named.contains(name) {
            true => FunctionName::parse_listed(name)?,
            false => FunctionName::parse(name)?,
        };
        if self.served.is_empty() || self.served.iter().any(|served| served == name.as_str()) {
            Ok(name)
        } else {
            Err(Error::FunctionNotServed(name))
        }
    }

    /// The gateway that functions run behind, if there is one.
    ///
    /// # Errors
    /// There is none.
    pub fn gateway(&self) -> Result<&OpenFaas, Error> {
        self.backends.iter().find_map(|backend| backend.gateway()).ok_or(Error::NoGateway)
    }
}

impl Backend for Functions {
    fn prepare<'a>(&'a self, call: &'a Invocation) -> LocalBoxFuture<'a, Result<(), Error>> {
        match self.backend(&call.name) {
            Some(backend) => backend.prepare(call),
            None => Box::pin(ready(Err(Error::UnknownFunction(call.name.clone())))),
        }
    }

    fn takes_whole(&self, name: &FunctionName, length: Option<u64>) -> bool {
        self.backend(name).is_some_and(|backend| backend.takes_whole(name, length))
    }

    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        match self.backend(&call.name) {
            Some(backend) => backend.call(call, slot),
            None => Box::pin(ready(Err(Error::UnknownFunction(call.name)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place in the list of the backend that has each of `names`.
    fn places(settings: &Settings, names: &[&str]) -> Vec<Option<usize>> {
        let backends = Backends::prepare(settings).expect("good settings");
        let functions = Functions::new(settings, &backends, Budget::new(1));
        let place = |name: &&str| {
            let name = FunctionName::parse(name).expect("a name");
            functions.backends.iter().position(|backend| backend.serves(&name))
        };
        names.iter().map(place).collect()
    }

    #[actix_rt::test]
    async fn the_first_backend_that_serves_a_name_has_it_and_one_that_is_off_is_not_there() {
        let mut settings = Settings { embedded_functions: true, ..Settings::default() };
        settings.routes.0.insert("routed".to_owned(), "http://10.0.0.1/x".to_owned());
        settings.routes.0.insert("fn-sleep".to_owned(), "http://10.0.0.1/y".to_owned());
        let names = ["routed", "fn-sleep", "fn-echo", "other"];
        assert_eq!(places(&settings, &names), [Some(0), Some(0), Some(1), Some(2)]);
        let folder = tempfile::tempdir().expect("a folder");
        settings.openfaas_enabled = true;
        settings.openfaas_secrets_path = folder.path().to_owned();
        settings.embedded_functions = false;
        assert_eq!(places(&settings, &names), [Some(0), Some(0), Some(1), Some(1)]);
    }

    #[test]
    fn the_functions_that_are_served_for_certain_are_the_routes_and_the_embedded_ones() {
        let mut settings = Settings { embedded_functions: true, ..Settings::default() };
        settings.routes.0.insert("routed".to_owned(), "http://10.0.0.1/x".to_owned());
        let names = |settings: &Settings| -> Vec<String> {
            Backends::prepare(settings).expect("good settings").names().cloned().collect()
        };
        assert!(names(&settings).contains(&"fn-echo".to_owned()));
        settings.embedded_functions = false;
        assert_eq!(names(&settings), ["routed"]);
    }
}
