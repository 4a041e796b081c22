//! Functions behind an OpenFaaS gateway, and the part of its API that nodes pass on.
//!
//! The API as OpenFaaS documents it (openfaas/faas, `api-docs/spec.openapi.yml`): functions are
//! invoked at `/function/{name}` without credentials; everything under `/system` asks for basic
//! authentication. So functions never get to see the node's credentials: the gateway hands a
//! call's headers on to them.

mod scale_delay;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::time::timeout;

use self::scale_delay::{FunctionStatus, Scaling};
use super::remote::Remote;
use super::{BadBackend, FunctionBackend, PreparedBackend};
use crate::actors::queue::Slot;
use crate::call::body::{AnswerBody, RequestBody};
use crate::call::function::{Answer, Backend, Invocation};
use crate::client::Hosts;
use crate::client::http1::{HttpClient, Origin, OutgoingRequest};
use crate::config::Settings;
use crate::error::Error;
use crate::storage::{SECRET_BYTES_MAX, read_text};
use crate::types::{Cause, FunctionName, url_host};
use crate::wire::headers;
use crate::wire::json::Bounds;
use crate::wire::read_object;

/// The files with the credentials, as OpenFaaS itself names them.
const USER_FILE: &str = "basic-auth-user";
const PASSWORD_FILE: &str = "basic-auth-password";
/// Bytes of an answer of the API that are read at most.
const API_BYTES_MAX: usize = 4 << 20;
/// A function's status; it may have long annotations.
const STATUS: Bounds = Bounds { bytes: API_BYTES_MAX, string_bytes: 64 << 10, ..Bounds::SMALL };
/// Bytes of its error that are passed on.
const SAID_BYTES_MAX: usize = 1 << 10;
/// What a request to the API may take.
const API_TIME: Duration = Duration::from_secs(30);
/// What it may take to find out whether a function is known that did not answer well.
const KNOWN_TIME: Duration = Duration::from_secs(1);

/// On if the gateway is enabled; then it serves every name that comes to it.
///
/// # Errors
/// One of the credentials is there and the other is not, or one is no text.
pub fn prepare(settings: &Settings) -> Result<Option<PreparedBackend>, BadBackend> {
    Ok(Access::of(settings)?.map(|access| PreparedBackend {
        names: Vec::new(),
        make: Box::new(move |thread| {
            Box::new(OpenFaas {
                origin: Origin::new(&access.host, access.port),
                access: Arc::clone(&access),
                client: thread.client(Hosts::Any),
                functions: thread.remote(Hosts::Any),
            })
        }),
    }))
}

/// Where the gateway is and how the node is known there. One per node.
struct Access {
    host: String,
    port: u16,
    /// The header with the credentials; `None`: the gateway asks for none.
    authorization: Option<HeaderValue>,
    /// The measured scale delay that is under way.
    scaling: Scaling,
}

impl Access {
    /// As configured; `None` if there is no gateway.
    fn of(settings: &Settings) -> Result<Option<Arc<Self>>, BadBackend> {
        if !settings.openfaas_enabled {
            return Ok(None);
        }
        let (host, port) = (settings.openfaas_host.clone(), settings.openfaas_port);
        let authorization = credentials(&settings.openfaas_secrets_path)?;
        if authorization.is_none() {
            let folder = settings.openfaas_secrets_path.display();
            tracing::info!(%folder, "no credentials for the OpenFaaS gateway: it is asked without");
        }
        let scaling = Scaling::default();
        Ok(Some(Arc::new(Self { host, port, authorization, scaling })))
    }

    /// Where it is, for people.
    fn base(&self) -> String {
        format!("http://{}:{}", url_host(&self.host), self.port)
    }
}

/// The header with the credentials of `folder`; `None`: there are none.
fn credentials(folder: &Path) -> Result<Option<HeaderValue>, BadBackend> {
    let (user_file, password_file) = (folder.join(USER_FILE), folder.join(PASSWORD_FILE));
    let unreadable = |path: &Path, why: &dyn std::fmt::Display| {
        let path = path.display();
        BadBackend(format!("{path}: the OpenFaaS gateway's credentials cannot be read: {why}"))
    };
    let is_there = |path: &PathBuf| path.try_exists().map_err(|why| unreadable(path, &why));
    if !is_there(&user_file)? && !is_there(&password_file)? {
        return Ok(None);
    }
    let read = |path: PathBuf| match read_text(&path, SECRET_BYTES_MAX) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(why) => Err(unreadable(&path, &why)),
    };
    let pair = format!("{}:{}", read(user_file)?, read(password_file)?);
    // Base64 is always a header's text.
    Ok(HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(pair))).ok())
}

/// A worker thread's way to the gateway. Cheap to clone.
#[derive(Clone)]
pub struct OpenFaas {
    access: Arc<Access>,
    origin: Origin,
    /// For the gateway's own API.
    client: HttpClient,
    functions: Remote,
}

impl OpenFaas {
    /// Asks the gateway's API. Its answer is passed on, whatever its status, except that it does
    /// not take this node's credentials, which is nothing that a client could mend.
    ///
    /// # Errors
    /// The gateway does not answer, or does not know this node.
    pub async fn api(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap, Bytes), Error> {
        let failed = |why| failed_at(self.access.base(), why);
        let mut told = HeaderMap::new();
        if let Some(authorization) = &self.access.authorization {
            told.insert(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(content_type) = content_type {
            told.insert(header::CONTENT_TYPE, content_type.clone());
        }
        let request = OutgoingRequest {
            origin: self.origin.clone(),
            method,
            target: path.to_owned(),
            headers: told,
            body: RequestBody::Whole(body),
            upgrades: false,
            asks_first: false,
        };
        let asked = async {
            let answer = self.client.send(request).await.map_err(|why| failed(Cause::of(why)))?;
            let body = answer.body.collect(API_BYTES_MAX).await;
            let body = body.map_err(|why| failed(Cause::of(why)))?;
            Ok::<_, Error>((answer.status, headers::from_function(answer.headers), body))
        };
        let late = |_| failed(Cause::of(format!("no answer within {} s", API_TIME.as_secs())));
        let answer = timeout(API_TIME, asked).await.map_err(late)??;
        match answer.0 {
            StatusCode::UNAUTHORIZED => Err(failed(Cause::of(match self.access.authorization {
                Some(_) => "it refuses this node's credentials",
                None => "it asks for credentials and this node has none",
            }))),
            _ => Ok(answer),
        }
    }

    async fn status(&self, name: &FunctionName) -> Result<FunctionStatus, Error> {
        let path = format!("/system/function/{name}");
        let (status, _, body) = self.api(Method::GET, &path, None, Bytes::new()).await?;
        match status {
            StatusCode::NOT_FOUND => Err(Error::UnknownFunction(name.clone())),
            status if status.is_success() => {
                read_object(&body, &STATUS).map_err(|why| failed_at(&path, Cause::of(why)))
            }
            status => Err(failed_at(&path, Cause::of(format!("status {status}")))),
        }
    }

    async fn scale(&self, name: &FunctionName, replicas: u64) -> Result<(), Error> {
        let path = format!("/system/scale-function/{name}");
        let wanted = serde_json::json!({"serviceName": name.as_str(), "replicas": replicas});
        let json = HeaderValue::from_static("application/json");
        let body = Bytes::from(wanted.to_string());
        let (status, _, body) = self.api(Method::POST, &path, Some(&json), body).await?;
        if status.is_success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(body.get(..SAID_BYTES_MAX).unwrap_or(&body));
        Err(failed_at(&path, Cause::of(format!("status {status}: {said}"))))
    }
}

/// Something went wrong with the gateway at an address, or at a path of its API.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {cause}")]
struct GatewayFault {
    at: String,
    #[source]
    cause: Cause,
}

fn failed_at(at: impl std::fmt::Display, cause: Cause) -> Error {
    Error::Gateway(Cause::of(GatewayFault { at: at.to_string(), cause }))
}

impl OpenFaas {
    /// The gateway is not there; whether there is such a function nobody knows.
    fn gateway_failed(&self, error: Error) -> Error {
        match error {
            Error::UnknownFunction(_) => failed_at(self.access.base(), Cause::of("no such host")),
            Error::FunctionUnreachable { cause, .. } => failed_at(self.access.base(), cause),
            error => error,
        }
    }
}

impl FunctionBackend for OpenFaas {
    fn serves(&self, _: &FunctionName) -> bool {
        true
    }

    fn gateway(&self) -> Option<&OpenFaas> {
        Some(self)
    }
}

impl Backend for OpenFaas {
    fn prepare<'a>(&'a self, call: &'a Invocation) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let prepared = self.functions.prepare(&self.origin, &call.name).await;
            prepared.map_err(|error| self.gateway_failed(error))
        })
    }

    fn call(&self, call: Invocation, slot: Slot) -> LocalBoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let name = call.name.clone();
            self.access.scaling.called(&name);
            // The gateway's path without the call's own has no slash at its end.
            let mut target = call.target(&format!("/function/{name}"));
            if call.path == "/" {
                target = target.replacen("/?", "?", 1).trim_end_matches('/').to_owned();
            }
            let called = self.functions.call(self.origin.clone(), target, call, slot).await;
            let answer = called.map_err(|error| self.gateway_failed(error))?;
            // The gateway's word for "no such function" differs by version; a function may answer
            // with the same status.
            let ambiguous = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
            if ambiguous.contains(&answer.status)
                && matches!(answer.body, AnswerBody::Whole(_))
                && let Ok(Err(unknown @ Error::UnknownFunction(_))) =
                    timeout(KNOWN_TIME, self.status(&name)).await
            {
                return Err(unknown);
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_without_their_line_ends_and_half_of_them_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(credentials(folder.path()).expect("none is fine"), None);
        std::fs::write(folder.path().join(USER_FILE), "admin\n").expect("writable");
        let half = credentials(folder.path()).expect_err("no password").to_string();
        assert!(half.contains(PASSWORD_FILE), "{half}");
        std::fs::write(folder.path().join(PASSWORD_FILE), "s3cret: x\r\n").expect("writable");
        let header = credentials(folder.path()).expect("both").expect("there");
        let text = header.to_str().expect("text").strip_prefix("Basic ").expect("basic").to_owned();
        assert_eq!(BASE64_STANDARD.decode(text).expect("base64"), b"admin:s3cret: x");
    }
}
