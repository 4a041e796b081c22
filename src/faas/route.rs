//! A function at a URL that an operator named: `--route NAME=URL`.

use actix_web::http::Uri;
use futures_util::future::{LocalBoxFuture, ready};

use super::remote::Remote;
use crate::actors::queue::Slot;
use crate::call::function::{Answer, Backend, Invocation};
use crate::error::Error;

/// See the module.
pub struct Route {
    /// Checked when the configuration was read; kept parsed, since most calls have no query.
    uri: Result<Uri, String>,
    url: String,
    remote: Remote,
}

impl Route {
    /// Calls go to `url` through `remote`.
    pub fn new(url: &str, remote: Remote) -> Self {
        let uri = url.parse().map_err(|why| format!("{url}: {why}"));
        Self { uri, url: url.to_owned(), remote }
    }

    /// The URL with the call's query added to its own.
    fn with_query(&self, query: &str) -> Result<Uri, String> {
        if query.is_empty() {
            return self.uri.clone();
        }
        let joint = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{joint}{query}", self.url).parse().map_err(|why| format!("the query: {why}"))
    }
}

impl Backend for Route {
    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        match self.with_query(&call.query) {
            Ok(uri) => Box::pin(async move {
                self.remote.call(uri, call, slot).await.map_err(|error| match error {
                    // The function is known; it is its host that is not there.
                    Error::UnknownFunction(name) => Error::FunctionUnreachable {
                        name,
                        why: "the host of its route cannot be resolved".to_owned(),
                    },
                    error => error,
                })
            }),
            Err(why) => Box::pin(ready(Err(Error::Malformed(why)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Hosts, Renewed};
    use crate::config::Settings;
    use crate::connections::{Bodies, Connections};
    use crate::memory::budget::Budget;
    use std::sync::Arc;
    use std::time::Duration;

    #[actix_rt::test]
    async fn a_calls_query_is_added_to_the_routes_own() {
        let bodies = Bodies {
            budget: Budget::new(1),
            connections: Connections::of(&Settings::default(), &Arc::default()),
        };
        let client = Renewed::new(Duration::from_secs(1), Hosts::Any);
        let remote = Remote::new(client, 1, bodies);
        for (url, query, whole) in [
            ("http://a/x", "", "http://a/x"),
            ("http://a/x", "b=1", "http://a/x?b=1"),
            ("http://a/x?c=2", "b=1", "http://a/x?c=2&b=1"),
        ] {
            let uri = Route::new(url, remote.clone()).with_query(query).expect("good");
            assert_eq!(uri.to_string(), whole);
        }
    }
}
