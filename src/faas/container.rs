//! A function in a container of its own: `http://<fn>:8080/`, the name resolved by Docker's DNS.
//! Images built with of-watchdog are such servers.

use actix_web::http::Uri;
use futures_util::future::{LocalBoxFuture, ready};

use super::remote::Remote;
use crate::actors::queue::Slot;
use crate::call::function::{Answer, Backend, Invocation};
use crate::error::Error;

/// The port at which functions answer.
const PORT: u16 = 8080;

/// See the module.
pub struct Container {
    remote: Remote,
}

impl Container {
    /// Calls go out through `remote`.
    pub fn new(remote: Remote) -> Self {
        Self { remote }
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
