//! Functions at URLs that an operator named: `--route NAME=URL`.

use std::collections::HashMap;

use actix_web::http::Uri;
use futures_util::future::{LocalBoxFuture, ready};

use super::remote::Remote;
use super::{BadBackend, FunctionBackend, PreparedBackend};
use crate::actors::queue::Slot;
use crate::call::function::{Answer, Backend, Invocation};
use crate::client::Hosts;
use crate::client::http1::Origin;
use crate::config::Settings;
use crate::error::Error;
use crate::types::{Cause, FunctionName};

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
            let route =
                |(name, url): (&String, &String)| Some((name.clone(), Place::of(url).ok()?));
            Box::new(Routes { routes: routes.iter().filter_map(route).collect(), remote })
        }),
    }))
}

/// See the module.
struct Routes {
    routes: HashMap<String, Place>,
    remote: Remote,
}

/// The port of `http` where a URL names none.
const HTTP_PORT: u16 = 80;

/// Where a route's URL leads.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    origin: Origin,
    path: String,
    query: String,
}

impl Place {
    fn of(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|why| format!("{url}: {why}"))?;
        let host = uri.host().ok_or_else(|| format!("{url} names no host"))?;
        Ok(Self {
            origin: Origin::new(host, uri.port_u16().unwrap_or(HTTP_PORT)),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
        })
    }

    /// What a call's path and query are here: its own come behind the route's.
    fn target(&self, call: &Invocation) -> String {
        let path = match &*call.path {
            "/" => self.path.clone(),
            below => [self.path.trim_end_matches('/'), below].concat(),
        };
        let queries = [&*self.query, &*call.query];
        let queries: Vec<&str> = queries.into_iter().filter(|query| !query.is_empty()).collect();
        match queries.is_empty() {
            true => path,
            false => [&*path, "?", &queries.join("&")].concat(),
        }
    }
}

impl FunctionBackend for Routes {
    fn serves(&self, name: &FunctionName) -> bool {
        self.routes.contains_key(name.as_str())
    }
}

/// The function is known; it is its host that is not there.
fn known(error: Error) -> Error {
    match error {
        Error::UnknownFunction(name) => Error::FunctionUnreachable {
            name,
            cause: Cause::of("the host of its route cannot be resolved"),
        },
        error => error,
    }
}

impl Backend for Routes {
    fn prepare<'a>(&'a self, call: &'a Invocation) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Some(place) = self.routes.get(call.name.as_str()) else {
                return Err(Error::UnknownFunction(call.name.clone()));
            };
            self.remote.prepare(&place.origin, &call.name).await.map_err(known)
        })
    }

    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        let Some(place) = self.routes.get(call.name.as_str()) else {
            return Box::pin(ready(Err(Error::UnknownFunction(call.name))));
        };
        let (origin, target) = (place.origin.clone(), place.target(&call));
        Box::pin(async move { self.remote.call(origin, target, call, slot).await.map_err(known) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::body::RequestBody;
    use crate::types::FunctionName;
    use actix_web::http::Method;
    use actix_web::http::header::HeaderMap;

    #[test]
    fn a_calls_path_and_query_come_behind_the_routes_own() {
        for (url, path, query, whole) in [
            ("http://a/x", "/", "", "/x"),
            ("http://a/x", "/", "b=1", "/x?b=1"),
            ("http://a/x?c=2", "/", "b=1", "/x?c=2&b=1"),
            ("http://a/x?c=2", "/y//z/", "", "/x/y//z/?c=2"),
            ("http://a/x/", "/", "", "/x/"),
            ("http://a/x/", "/y", "", "/x/y"),
            ("http://a", "/", "", "/"),
            ("http://a:81", "/%2e%2E/y", "", "/%2e%2E/y"),
        ] {
            let call = Invocation {
                name: FunctionName::parse("fn").expect("a name"),
                method: Method::GET,
                path: path.to_owned(),
                query: query.to_owned(),
                headers: HeaderMap::new(),
                body: RequestBody::EMPTY,
                upgrades: false,
            };
            let place = Place::of(url).expect("a place");
            assert_eq!(place.target(&call), whole, "{url} {path}");
        }
        let six = Place::of("http://[::1]:81/").expect("a place");
        assert_eq!(six.origin, Origin::new("::1", 81));
        assert!(Place::of("/x").is_err());
    }
}
