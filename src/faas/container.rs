//! A function in a container of its own: `http://<fn>:8080/`, the name resolved by Docker's DNS.
//! Images built with of-watchdog are such servers.

use futures_util::future::LocalBoxFuture;

use super::remote::Remote;
use super::{BadBackend, FunctionBackend, PreparedBackend};
use crate::actors::queue::Slot;
use crate::call::function::{Answer, Backend, Invocation};
use crate::client::Hosts;
use crate::client::http1::Origin;
use crate::config::Settings;
use crate::error::Error;
use crate::types::FunctionName;

/// The port at which functions answer.
const PORT: u16 = 8080;

/// Always on: whatever no other backend serves is a container.
///
/// # Errors
/// None.
pub fn prepare(settings: &Settings) -> Result<Option<PreparedBackend>, BadBackend> {
    let hosts = match settings.fns_list.is_empty() {
        // The name is what a client typed: it must not lead to this machine itself.
        true => Hosts::Others,
        // It is one of those that the operator lists.
        false => Hosts::Any,
    };
    Ok(Some(PreparedBackend {
        names: Vec::new(),
        make: Box::new(move |thread| Box::new(Container { remote: thread.remote(hosts) })),
    }))
}

/// See the module.
struct Container {
    remote: Remote,
}

impl FunctionBackend for Container {
    fn serves(&self, _: &FunctionName) -> bool {
        true
    }
}

fn origin(name: &FunctionName) -> Origin {
    Origin::new(name.as_str(), PORT)
}

impl Backend for Container {
    fn prepare<'a>(&'a self, call: &'a Invocation) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.remote.prepare(&origin(&call.name), &call.name).await })
    }

    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        let target = call.target("");
        Box::pin(self.remote.call(origin(&call.name), target, call, slot))
    }
}
