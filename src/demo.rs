//! `demo`: a temporary instance with sample events, typical requests, and their answers.
//!
//! ```text
//!   story ─► events ─► an instance in an empty directory ─► question ─► answer ─► page: a sentence, or JSON
//!     └ clinic: visits in clinic hours, one of which gets a reminder at once
//! ```
//!
//! Afterwards the instance continues to serve until it is interrupted. All output fits a terminal of 50 lines and 100
//! columns.

mod clinic;
mod entry;
mod page;
mod question;
mod story;

use crate::app::{Role, Service, descriptors};
use crate::cli::ending::{Failure, on_signal};
use crate::config::Config;
use crate::ops::inspect::Print;
use clinic::REMINDED;
use foretell_lab::source::Sourced;
use foretell_ports::clock::{Clock, System};
use foretell_service::http;
use foretell_service::http::auth::{self, Insecure};
use page::Page;
use question::{Question, Request, is_reminded, of_logins, of_visits};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the demo waits for its own instance.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two polls.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves the story from a new temporary directory, prints questions with their answers, and continues until it is
/// interrupted. The directory is removed at the end.
pub async fn run(mut config: Config, print: Print, out: &mut dyn Write) -> Result<(), Failure> {
    let directory = tempfile::Builder::new().prefix("foretell-demo-").tempdir().map_err(|cause| {
        Failure::Other(format!("cannot create a directory for the demo: {cause}; set TMPDIR to one with free space"))
    })?;
    config.log = format!("disk:{}", directory.path().display());
    config.store.clone_from(&config.log);
    descriptors::raise();
    let listener = match http::listen(&config.http.listen).await {
        Ok(listener) => listener,
        // The default port is in use: take any free port, unless the user has set one.
        Err(_) if config.http.listen == http::Config::default().listen => http::listen("127.0.0.1:0").await?,
        Err(cause) => return Err(Failure::Other(format!("cannot listen on {}: {cause}", config.http.listen))),
    };
    let ops = match config.ops.address() {
        Some(address) => http::listen(address).await.ok(),
        None => None,
    };
    let address = listener.local_addr()?;
    auth::check_listen(address, None, Insecure::Refused).map_err(|_| {
        Failure::Other(format!("the demo has no API keys: {address} can be reached from other machines"))
    })?;
    let mut page = Page::new(out, print, format!("http://{address}"));
    let shutdown = CancellationToken::new();
    let roles = vec![Role::Http, Role::Views, Role::Reminders];
    let service = Service::new(config, Arc::new(System), roles, shutdown.clone());
    let mut served = tokio::spawn(service.run(listener, ops));
    // From the start, so that an early interrupt also removes the directory.
    tokio::spawn(on_signal(shutdown.clone()));
    let shown = tokio::select! {
        biased; // A demo that is interrupted during its own requests has not failed.
        () = shutdown.cancelled() => Ok(()),
        ended = &mut served => return Ok(ended.map_err(|panic| Failure::Other(panic.to_string()))??),
        shown = show(&mut page, directory.path()) => shown,
    };
    let shown = if shutdown.is_cancelled() { Ok(()) } else { shown };
    if shown.is_ok() {
        shutdown.cancelled().await;
    }
    shutdown.cancel();
    served.await.map_err(|panic| Failure::Other(panic.to_string()))??;
    shown
}

/// Sends the story, sends the requests, and prints the answers.
async fn show(page: &mut Page<'_>, directory: &Path) -> Result<(), Failure> {
    let client = Client::builder().timeout(PATIENCE).build().map_err(unreachable)?;
    let events: Vec<_> = story::events(System.now_ms()).iter().map(Sourced::structured).collect();
    page.begin(events.len(), directory)?;
    let events = Value::from(events).to_string();
    until(async || {
        let sent = client.post(format!("{}/v1/events", page.url())).body(events.clone());
        let sent = sent.header("content-type", "application/cloudevents-batch+json").header("prefer", "wait=10");
        Ok(sent.send().await.map_err(unreachable)?.status() == 200)
    })
    .await?;
    let mut answer = Value::Null;
    for question in of_logins() {
        answer = ask(&client, page.url(), &question).await?;
        page.answer(&question, &answer)?;
    }
    page.scale(&answer)?;
    // The planner announces the reminder in its next tick.
    let reminded = format!("{}/v1/appointments/{REMINDED}", page.url());
    until(async || Ok(is_reminded(&object(client.get(&reminded)).await?))).await?;
    for question in of_visits() {
        let answer = ask(&client, page.url(), &question).await?;
        page.answer(&question, &answer)?;
    }
    Ok(page.end()?)
}

/// The answer to a question.
async fn ask(client: &Client, url: &str, Question { request, .. }: &Question) -> Result<Value, Failure> {
    let url = format!("{url}{}", request.path());
    match request {
        Request::Get(_) => object(client.get(url)).await,
        Request::Login(body) => object(client.post(url).header("content-type", "application/json").body(*body)).await,
        Request::Stream => reminder(client.get(url)).await,
    }
}

/// The JSON body of a successful response; any other response is a failure.
async fn object(request: RequestBuilder) -> Result<Value, Failure> {
    let answer = request.send().await.map_err(unreachable)?;
    let (status, text) = (answer.status(), answer.text().await.map_err(unreachable)?);
    let refused = || Failure::Other(format!("the demo's instance answered {status}: {text}"));
    if status.is_success() { serde_json::from_str(&text).map_err(|_| refused()) } else { Err(refused()) }
}

/// The first reminder of [`REMINDED`] on the stream.
async fn reminder(request: RequestBuilder) -> Result<Value, Failure> {
    let mut stream = request.send().await.map_err(unreachable)?;
    let mut text = Vec::new();
    while let Some(chunk) = stream.chunk().await.map_err(unreachable)? {
        text.extend_from_slice(&chunk);
        // An incomplete line is not valid JSON, and is parsed again with the next chunk.
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
        let mut events = lines.filter_map(|data| serde_json::from_slice::<Value>(data).ok());
        if let Some(event) = events.find(|event| event["data"]["appointment_id"] == REMINDED) {
            return Ok(event);
        }
    }
    Err(Failure::Other("the demo's instance ended the stream of reminders; see the messages above".into()))
}

#[allow(clippy::needless_pass_by_value, reason = "has the signature that map_err expects")]
fn unreachable(error: reqwest::Error) -> Failure {
    Failure::Other(format!("cannot reach the demo: {error}"))
}

/// Polls a condition until it is true; fails after [`PATIENCE`].
async fn until(ask: impl AsyncFn() -> Result<bool, Failure>) -> Result<(), Failure> {
    let began = tokio::time::Instant::now();
    while !ask().await? {
        if began.elapsed() > PATIENCE {
            return Err(Failure::Other("the demo did not become ready in time; see the messages above".into()));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
