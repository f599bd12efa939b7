//! How a command accesses an instance: by URL, through the socket of a running one, or through its own ports.

use super::Error;
use super::import::ImportTarget;
use crate::app::backend_urls::{self, BackendUrls};
use crate::app::{self, Backends, SOCKET};
use crate::config::Config;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request};
use axum::response::Response;
use foretell_domain::address::Family;
use foretell_engine::ingest::Ingest;
use foretell_engine::pipeline::task;
use foretell_events::codec::structured_event;
use foretell_events::gate::Sender;
use foretell_lab::source::Sourced;
use foretell_ports::clock::Clock;
use foretell_ports::retry::{Backoff, retry_if};
use foretell_service::http::auth::TENANT_HEADER;
use foretell_service::http::events::IMPORT_HEADER;
use foretell_service::http::{self, Api};
use foretell_service::instance::Instance;
use foretell_service::ports::Ports;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

/// Timeout of a request to an instance.
const REQUEST: Duration = Duration::from_secs(60);
/// Placeholder for the host in requests through a socket.
const LOCAL: &str = "http://localhost";
/// How often, and after which pause, an append is retried while the instance is overloaded or does not respond.
const RETRIES_MAX: usize = 60;
const RETRIES: Backoff = Backoff::constant(Duration::from_secs(1));
const NOT_REPEATABLE: &str = "the request cannot be repeated";

/// Access to an instance.
pub enum Access {
    /// A service at a URL, or at the socket in a data directory.
    Service {
        /// Sends requests to it.
        client: reqwest::Client,
        /// Prefix of every path.
        base: String,
        /// The API key, if one is needed.
        key: Option<String>,
    },
    /// No process serves the ports: this process has opened them.
    Opened(Box<Opened>),
}

/// Ports that a command has opened itself.
pub struct Opened {
    backends: Backends,
    instance: Instance,
    config: Config,
}

impl Opened {
    /// The routes of an instance over these ports: for queries, and for facts that operators append directly.
    fn routes(&self) -> Router {
        let jobs = self.backends.jobs(&self.instance, &self.config);
        http::admin_router(&Api::new(self.instance.parts(jobs, None, CancellationToken::new())))
    }

    /// Appends events of an operator; they are durable when it returns. The steps are those of a service.
    async fn append(&self, events: &[Sourced], tenant: Option<&str>) -> Result<(), Error> {
        let Ports { log, clock, enricher, .. } = self.backends.ports.clone();
        tokio::task::block_in_place(|| enricher.reload());
        let ingest = Ingest::new(log, clock, enricher, self.config.topics.prefix.clone());
        let terms = ingest.terms(Sender::Operator { topic: None }, tenant);
        let admitted = events.iter().map(|event| terms.admit(event.parsed()));
        let admitted: Result<_, _> = admitted.collect();
        ingest.accept(admitted.map_err(|faults| Error::Answer(faults.to_string()))?).await?;
        Ok(())
    }

    async fn answer(&self, method: Method, path: &str, body: String) -> Result<Response, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(body))
            .map_err(|e| Error::Answer(e.to_string()))?;
        Ok(self.routes().oneshot(request).await.unwrap_or_else(|never| match never {}))
    }
}

async fn whole(answer: Response) -> Result<Vec<u8>, Error> {
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await;
    Ok(body.map_err(|error| Error::Answer(error.to_string()))?.to_vec())
}

/// A response with one JSON value per line.
pub struct Lines {
    answer: Answer,
    /// The incomplete last line.
    rest: Vec<u8>,
}

enum Answer {
    Remote(reqwest::Response),
    Local(BodyDataStream),
}

impl Lines {
    /// The next value; none at the end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let value = serde_json::from_slice(&line);
                return value.map(Some).map_err(|error| Error::Answer(format!("the answer cannot be read: {error}")));
            }
            let chunk = match &mut self.answer {
                Answer::Remote(answer) => answer.chunk().await.map_err(unreachable)?,
                Answer::Local(body) => {
                    body.next().await.transpose().map_err(|error| Error::Answer(error.to_string()))?
                }
            };
            let Some(chunk) = chunk else { return Ok(None) };
            self.rest.extend_from_slice(&chunk);
        }
    }
}

/// A service other than the one of the configuration.
#[derive(Debug, Clone, Default)]
pub struct RemoteService {
    /// Its URL, as in `http://host:8080`.
    pub url: Option<String>,
    /// Its API key.
    pub key: Option<String>,
}

impl Access {
    /// Access to the remote service if one is named, else to the instance of the configuration.
    pub async fn find(config: &Config, remote: RemoteService, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        if remote.url.is_some() {
            return Self::remote(remote);
        }
        if let Some(client) = serving(config).await? {
            return Ok(Self::Service { client, base: LOCAL.into(), key: None });
        }
        let backends = app::open(config, clock).await?;
        let (instance, config) = (backends.instance(config), config.clone());
        Ok(Self::Opened(Box::new(Opened { backends, instance, config })))
    }

    /// Access to the existing instance of a configuration: nothing is created.
    pub async fn look(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let directories = [app::disk_directory(&config.log), app::disk_directory(&config.store)];
        if let Some(absent) = directories.into_iter().flatten().find(|directory| !directory.exists()) {
            let detail = format!("there is no directory {}; `foretell serve` creates it", absent.display());
            return Err(Error::Answer(detail));
        }
        Self::find(config, RemoteService::default(), clock).await
    }

    /// Folds a family until the returned guard is dropped, unless a service does.
    pub fn fold(&self, family: Family) -> Option<DropGuard> {
        let Self::Opened(opened) = self else { return None };
        let stop = CancellationToken::new();
        let folding = opened.instance.fold(family, task::none(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = folding.await {
                tracing::error!(%error, "cannot fold");
            }
        });
        Some(stop.drop_guard())
    }

    /// Access to a service at a URL.
    pub fn remote(remote: RemoteService) -> Result<Self, Error> {
        let url = remote.url.ok_or_else(|| Error::Answer("name the URL of a service".into()))?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::Answer(format!(
                "{url:?} is not the URL of a service: write it as http://127.0.0.1:8080"
            )));
        }
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self::Service { client: client(None)?, base, key: remote.key })
    }

    /// Sends a GET, and returns the response.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        let (who, status, body) = match self {
            Self::Service { client, base, key } => {
                let request = client.get(format!("{base}{path}"));
                let request = key.iter().fold(request, |request, key| request.bearer_auth(key));
                let (status, body) = send(request).await?;
                (SERVICE, status, body)
            }
            Self::Opened(opened) => {
                let answer = opened.answer(Method::GET, path, String::new()).await?;
                (OWN, answer.status().as_u16(), whole(answer).await?)
            }
        };
        read(who, status, &body)
    }

    /// Sends a PUT of JSON for a tenant, and returns the response.
    pub async fn put(&self, path: &str, tenant: &str, document: &Value) -> Result<Value, Error> {
        let body = document.to_string();
        let (who, status, body) = match self {
            Self::Service { client, base, key } => {
                let request = client.put(format!("{base}{path}")).header("content-type", "application/json");
                let request = request.header("foretell-tenant", tenant).body(body);
                let request = key.iter().fold(request, |request, key| request.bearer_auth(key));
                let (status, body) = send(request).await?;
                (SERVICE, status, body)
            }
            Self::Opened(opened) => {
                let request = Request::builder().method(Method::PUT).uri(path);
                let request = request.header("content-type", "application/json").header("foretell-tenant", tenant);
                let request = request.body(Body::from(body)).map_err(|e| Error::Answer(e.to_string()))?;
                let answer = opened.routes().oneshot(request).await.unwrap_or_else(|never| match never {});
                (OWN, answer.status().as_u16(), whole(answer).await?)
            }
        };
        read(who, status, &body)
    }

    /// Sends a POST of JSON, and returns the lines of the response, without a timeout.
    pub async fn lines(&self, path: &str, body: &Value) -> Result<Lines, Error> {
        let body = body.to_string();
        let answer = match self {
            Self::Service { client, base, key } => {
                let request = client.post(format!("{base}{path}")).body(body).timeout(Duration::MAX);
                let request = key.iter().fold(request, |request, key| request.bearer_auth(key));
                let answer = request.send().await.map_err(unreachable)?;
                if !answer.status().is_success() {
                    let status = answer.status().as_u16();
                    return Err(refused(SERVICE, status, &answer.bytes().await.map_err(unreachable)?));
                }
                Answer::Remote(answer)
            }
            Self::Opened(opened) => {
                let answer = opened.answer(Method::POST, path, body).await?;
                let status = answer.status();
                if !status.is_success() {
                    return Err(refused(OWN, status.as_u16(), &whole(answer).await?));
                }
                Answer::Local(answer.into_body().into_data_stream())
            }
        };
        Ok(Lines { answer, rest: Vec::new() })
    }

    /// Appends events; they are durable when it returns. Waits while a service is overloaded or its log is unreachable.
    pub async fn append(
        &self,
        events: &[Sourced],
        ImportTarget { tenant, .. }: &ImportTarget<'_>,
    ) -> Result<(), Error> {
        match self {
            Self::Opened(opened) => opened.append(events, *tenant).await,
            Self::Service { client, base, key } => {
                let batch: Vec<_> = events.iter().map(|event| structured_event(&event.parsed())).collect();
                let request = client
                    .post(format!("{base}/v1/events"))
                    .header("content-type", "application/cloudevents-batch+json")
                    .header(IMPORT_HEADER, "true")
                    .body(Value::Array(batch).to_string());
                let request = tenant.iter().fold(request, |request, tenant| request.header(TENANT_HEADER, *tenant));
                patiently(key.iter().fold(request, |request, key| request.bearer_auth(key))).await
            }
        }
    }
}

/// Sends a request until it is accepted; equal ids change nothing, so it is safe to send it again.
async fn patiently(request: reqwest::RequestBuilder) -> Result<(), Error> {
    let attempt = || async {
        let again = request.try_clone().ok_or_else(|| Attempt::Failed(Error::Answer(NOT_REPEATABLE.into())))?;
        let (status, body) = send(again).await.map_err(Attempt::Unreachable)?;
        let read = read(SERVICE, status, &body).map(drop);
        read.map_err(if matches!(status, 429 | 503) { Attempt::Busy } else { Attempt::Failed })
    };
    let is_transient = |attempt: &Attempt| !matches!(attempt, Attempt::Failed(_));
    let notify = |attempt: &Attempt, _| {
        if let Attempt::Unreachable(error) = attempt {
            tracing::warn!(%error, "waiting for the service");
        }
    };
    retry_if(RETRIES.at_most(RETRIES_MAX), is_transient, notify, attempt).await.map_err(Attempt::into_error)
}

/// Why a request was not accepted.
enum Attempt {
    /// The service did not respond.
    Unreachable(Error),
    /// It is overloaded, or its log is unreachable.
    Busy(Error),
    /// The same request would fail again.
    Failed(Error),
}

impl Attempt {
    fn into_error(self) -> Error {
        let (Self::Unreachable(error) | Self::Busy(error) | Self::Failed(error)) = self;
        error
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), Error> {
    let answer = request.send().await.map_err(unreachable)?;
    let status = answer.status().as_u16();
    Ok((status, answer.bytes().await.map_err(unreachable)?.to_vec()))
}

#[allow(clippy::needless_pass_by_value, reason = "required by map_err")]
fn unreachable(error: reqwest::Error) -> Error {
    let place = error.url().map_or_else(|| "the service".to_owned(), |url| url.origin().ascii_serialization());
    // The message of reqwest omits the cause: it is the last of its sources.
    let first: &dyn std::error::Error = &error;
    let causes = std::iter::successors(Some(first), |cause| cause.source());
    let refused = causes.clone().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    if refused.clone().any(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused) {
        let detail = format!("cannot reach {place}: connection refused. Is `foretell serve` running there?");
        return Error::Answer(detail);
    }
    let last = causes.last().map(ToString::to_string).unwrap_or_default();
    Error::Answer(format!("cannot reach {place}: {last}"))
}

/// Beginning of an error message: the response is from another process, or from the routes of this one.
const SERVICE: &str = "the service answered ";
const OWN: &str = "";

/// The body of a successful response, or the problem in an unsuccessful one.
fn read(who: &str, status: u16, body: &[u8]) -> Result<Value, Error> {
    if status >= 400 {
        return Err(refused(who, status, body));
    }
    let elsewhere = |_| Error::Answer(format!("{who}{status} without JSON: is that the address of Foretell?"));
    serde_json::from_slice(body).map_err(elsewhere)
}

/// The problem in an unsuccessful response.
fn refused(who: &str, status: u16, body: &[u8]) -> Error {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let faults = value.get("errors").and_then(Value::as_array).into_iter().flatten().take(5);
    let faults: String = faults.map(|fault| format!("\n  {fault}")).collect();
    if text("code").is_empty() {
        return Error::Answer(format!("{who}{status} without a reason: is that the address of Foretell?"));
    }
    let status = if who.is_empty() { String::new() } else { format!("{status} ") };
    Error::Answer(format!("{who}{status}{}: {}{faults}", text("code"), text("detail")))
}

fn client(socket: Option<PathBuf>) -> Result<reqwest::Client, Error> {
    let builder = reqwest::Client::builder().timeout(REQUEST);
    let builder = socket.into_iter().fold(builder, |builder, socket| builder.unix_socket(socket));
    builder.build().map_err(|error| Error::Answer(format!("cannot build an HTTP client: {error}")))
}

/// A client of the process that serves the data directory, if there is one.
///
/// # Errors
/// That process has another log or store than the settings here.
async fn serving(config: &Config) -> Result<Option<reqwest::Client>, Error> {
    let Some(socket) = app::data_directory(config).map(|directory| directory.join(SOCKET)) else { return Ok(None) };
    if UnixStream::connect(&socket).await.is_err() {
        return Ok(None);
    }
    let client = client(Some(socket))?;
    let (status, body) = send(client.get(format!("{LOCAL}{}", backend_urls::PATH))).await?;
    if status == 404 {
        let detail =
            "an older version serves the directory: use the same version, or restart the service with this one";
        return Err(Error::Answer(detail.into()));
    }
    let unreadable =
        |error| Error::Answer(format!("unreadable answer of the process that serves the directory: {error}"));
    let theirs: BackendUrls = serde_json::from_value(read(SERVICE, status, &body)?).map_err(unreadable)?;
    let ours = BackendUrls::of(config);
    if theirs == ours {
        return Ok(Some(client));
    }
    let (BackendUrls { log, store }, BackendUrls { log: our_log, store: our_store }) = (theirs, ours);
    Err(Error::Answer(format!(
        "a process serves the log {log} and the store {store}, and this command has the log {our_log} and the store \
         {our_store}: set both with --log and --store"
    )))
}
