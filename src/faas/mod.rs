//! Where a function runs: one backend a file, behind one trait, chosen per function name.
//!
//! In this order: an explicit route, an embedded function if those are enabled, the OpenFaaS gateway
//! if there is one, else the container of that name.

pub mod container;
pub mod embedded;
pub mod openfaas;
mod remote;
pub mod route;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use self::container::Container;
use self::embedded::Embedded;
use self::openfaas::OpenFaas;
use self::route::Route;
use crate::actors::queue::Slot;
use crate::call::function::{Answer, Backend, Invocation};
use crate::client::{Hosts, Renewed};
use crate::config::Settings;
use crate::connections::Bodies;
use crate::error::Error;
use crate::time::limit::{Expired, TimeLimit};
use crate::types::FunctionName;

/// All functions that a worker thread can run.
pub struct Functions {
    routes: HashMap<String, Route>,
    embedded: Option<Rc<Embedded>>,
    openfaas: Option<OpenFaas>,
    container: Container,
    served: Vec<String>,
    limit: TimeLimit,
}

impl Functions {
    /// As configured. `embedded` and `gateway` are shared by all threads of the node.
    pub fn new(
        settings: &Settings,
        embedded: Arc<embedded::Shared>,
        gateway: Option<Arc<openfaas::Access>>,
        bodies: Bodies,
    ) -> Self {
        let connect = Duration::from_millis(settings.function_connect_timeout_ms);
        let remote = |hosts| {
            let client = Renewed::new(connect, hosts);
            remote::Remote::new(client, settings.body_bytes_max, bodies.clone())
        };
        let routed = remote(Hosts::Any);
        let route =
            |(name, url): (&String, &String)| (name.clone(), Route::new(url, routed.clone()));
        Self {
            routes: settings.routes.0.iter().map(route).collect(),
            openfaas: gateway.map(|access| {
                OpenFaas::new(access, Renewed::new(connect, Hosts::Any), routed.clone())
            }),
            embedded: settings.embedded_functions.then(|| Rc::new(Embedded::new(embedded))),
            container: Container::new(remote(Hosts::Others)),
            served: settings.fns_list.clone(),
            limit: TimeLimit::new(Settings::seconds(settings.function_timeout_s)),
        }
    }

    /// Whether this node serves a function of that name at all.
    ///
    /// # Errors
    /// The name is none, or not among those that the node serves.
    pub fn check(&self, name: &str) -> Result<FunctionName, Error> {
        let name = FunctionName::parse(name)?;
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
        self.openfaas.as_ref().ok_or(Error::NoGateway)
    }

    fn backend(&self, name: &FunctionName) -> &dyn Backend {
        if let Some(route) = self.routes.get(name.as_str()) {
            return route;
        }
        match &self.embedded {
            Some(embedded) if embedded::EmbeddedName::parse(name.as_str()).is_some() => &**embedded,
            _ => self.openfaas.as_ref().map_or(&self.container, |gateway| gateway),
        }
    }
}

impl Backend for Functions {
    /// Runs a function within its time limit.
    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let name = call.name.clone();
            match self.limit.hold(self.backend(&name).call(call, slot)).await {
                Ok(result) => result,
                Err(Expired) => Err(Error::FunctionTimedOut { name, limit: self.limit.length() }),
            }
        })
    }
}
