//! A function in a container of its own: `http://<fn>:8080/`, the name resolved by Docker's DNS.
//! Images built with of-watchdog are such servers.

use actix_web::http::Uri;
use futures_util::future::{LocalBoxFuture, ready};

use super::remote::Remote;
use super::{BadBackend, FunctionBackend, PreparedBackend};
use crate::actors::queue::Slot;
use crate::call::function::{Answer, Backend, Invocation};
use crate::client::Hosts;
use crate::config::Settings;
use crate::error::Error;
use crate::types::FunctionName;

/// The port at which functions answer.
const PORT: u16 = 8080;

/// Always on: whatever no other backend serves is a container.
///
/// # Errors
/// None.
pub fn prepare(_: &Settings) -> Result<Option<PreparedBackend>, BadBackend> {
    Ok(Some(PreparedBackend {
        names: Vec::new(),
        // The name is what a client typed: it must not lead to this machine itself.
        make: Box::new(|thread| Box::new(Container { remote: thread.remote(Hosts::Others) })),
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

impl Backend for Container {
    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        let query = if call.query.is_empty() { "" } else { "?" };
        let url = format!("http://{}:{PORT}/{query}{}", call.name, call.query);
        match url.parse::<Uri>() {
            Ok(uri) => Box::pin(self.remote.call(uri, call, slot)),
            Err(why) => Box::pin(ready(Err(Error::Malformed(format!("the query: {why}"))))),
        }
    }
}
