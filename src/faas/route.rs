//! Functions at URLs that an operator named: `--route NAME=URL`.

use std::collections::HashMap;

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

/// On if there are routes.
///
/// # Errors
/// None: what is wrong with a URL was said when the configuration was read.
pub fn prepare(settings: &Settings) -> Result<Option<PreparedBackend>, BadBackend> {
    let routes = settings.routes.0.clone();
    Ok((!routes.is_empty()).then(|| PreparedBackend {
        names: routes.keys().cloned().collect(),
        make: Box::new(move |thread| {
            let remote = thread.remote(Hosts::Any);
            let route = |(name, url): (&String, &String)| (name.clone(), Route::new(url));
            Box::new(Routes { routes: routes.iter().map(route).collect(), remote })
        }),
    }))
}

/// See the module.
struct Routes {
    routes: HashMap<String, Route>,
    remote: Remote,
}

/// Where one function is.
struct Route {
    /// Checked when the configuration was read; kept parsed, since most calls have no query.
    uri: Result<Uri, String>,
    url: String,
}

impl Route {
    fn new(url: &str) -> Self {
        let uri = url.parse().map_err(|why| format!("{url}: {why}"));
        Self { uri, url: url.to_owned() }
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

impl FunctionBackend for Routes {
    fn serves(&self, name: &FunctionName) -> bool {
        self.routes.contains_key(name.as_str())
    }
}

impl Backend for Routes {
    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        let Some(route) = self.routes.get(call.name.as_str()) else {
            return Box::pin(ready(Err(Error::UnknownFunction(call.name))));
        };
        match route.with_query(&call.query) {
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

    #[test]
    fn a_calls_query_is_added_to_the_routes_own() {
        for (url, query, whole) in [
            ("http://a/x", "", "http://a/x"),
            ("http://a/x", "b=1", "http://a/x?b=1"),
            ("http://a/x?c=2", "b=1", "http://a/x?c=2&b=1"),
        ] {
            let uri = Route::new(url).with_query(query).expect("good");
            assert_eq!(uri.to_string(), whole);
        }
    }
}
