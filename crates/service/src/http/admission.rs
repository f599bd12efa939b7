//! What a request needs before its handler receives it, and what it holds until it is answered.
//!
//! ```text
//!   request ─► key, tenant ─► whole body ──────────► a slot ─────────► handler ─► answer
//!               401, 400, 403   408, 413; 429, 503    429, 503           503        holds the slot until it is read
//! ```
//!
//! A request takes a slot only when its body is complete, so an incomplete body does not delay other requests: it only
//! uses body capacity, for at most [`Config::body_ms_max`](super::Config::body_ms_max). A tenant has a share of both.
//! If its own requests use up the share, the answer is 429; if the total is used up, it is 503. Nothing is queued.
//!
//! Everything that needs a key is under [`KEYED`], and so are unknown paths there: see [`Needs`]. For other requests no
//! body is read, except for operators on their socket.

use super::auth;
use super::problem::{Problem, ProblemCode};
use super::{Api, guard};
use crate::limiter::{Full, Permit};
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use hyper::body::Frame;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What the paths of all routes that need a key begin with.
pub(super) const KEYED: &str = "/v1/";
/// What the paths of all routes for operators begin with.
const OPERATORS: &str = "/admin/";
/// What the routes of documents begin with.
const DOCUMENTS: [&str; 2] = ["/docs", "/openapi.json"];
/// Documents that are answered concurrently: a copy of one takes more than a megabyte.
pub(super) const DOCUMENTS_MAX: usize = 16;
/// Body capacity that a request with a body uses before any of it is received.
pub(super) const BODY_COST: u64 = 16 * 1024;
/// A request that occupies a worker for longer than this delays others noticeably.
const LONG_POLL: Duration = Duration::from_millis(5);

/// What a request needs before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// A key, and capacity for its body and a slot, both of its tenant's share.
    Key,
    /// The same capacity and slot, but no key: only the operator may open the socket.
    Place,
    /// A slot for documents.
    Document,
    /// Nothing: the answer is small, and the same for every caller.
    Nothing,
}

impl Needs {
    /// What a request needs, by its route, or by its path if it has none.
    fn of(route: Option<&str>, path: &str) -> Self {
        match route.unwrap_or(path) {
            keyed if keyed.starts_with(KEYED) => Self::Key,
            operators if route.is_some() && operators.starts_with(OPERATORS) => Self::Place,
            document if route.is_some() && DOCUMENTS.iter().any(|begin| document.starts_with(begin)) => Self::Document,
            _ => Self::Nothing,
        }
    }
}

/// Answers a request, by its handler or with a problem.
pub(super) async fn answer(api: &Api, route: &str, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().is_some().then_some(route);
    let answered = match Needs::of(matched, request.uri().path()) {
        Needs::Key => return keyed(api, route, request, next).await,
        Needs::Place => admitted(api, "", route, request, next).await,
        Needs::Document => match api.documents.acquire("", [1]) {
            Ok(permit) => Ok(holding(permit, without_body(request, next).await)),
            Err(full) => Err(over_capacity(full, "documents")),
        },
        Needs::Nothing => Ok(without_body(request, next).await),
    };
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// Answers a request that needs a key: the key is checked before anything else.
async fn keyed(api: &Api, route: &str, mut request: Request, next: Next) -> Response {
    let sender = match guard::check(api, &request).and_then(|()| auth::sender(api, route, &request)) {
        Ok(sender) => sender,
        Err(problem) => return refused(api, route, None, problem.into_response()),
    };
    let checked = sender.check_tenant(request.headers());
    request.extensions_mut().insert(sender.clone());
    let answered = match checked {
        Ok(()) => admitted(api, sender.tenant(), route, request, next).await,
        Err(problem) => Err(problem),
    };
    refused(api, route, sender.key(), answered.unwrap_or_else(IntoResponse::into_response))
}

/// Answers without reading the body. Over HTTP/1 the connection is then closed, because the body may still arrive.
async fn without_body(request: Request, next: Next) -> Response {
    let is_last = !request.body().is_end_stream() && request.version() <= Version::HTTP_11;
    let mut response = caught(next.run(request.map(|_| Body::empty()))).await;
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The same answer; a rejection of the sender is counted.
fn refused(api: &Api, route: &str, key: Option<&str>, response: Response) -> Response {
    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let code = response.extensions().get::<ProblemCode>().map_or("", |code| code.name());
        api.refusals.note(key, code, route);
    }
    response
}

/// Reads the body, takes a slot, and answers in time.
async fn admitted(api: &Api, tenant: &str, route: &str, request: Request, next: Next) -> Result<Response, Problem> {
    let (request, _body) = with_body(api, tenant, request).await?;
    let permit = api.requests.acquire(tenant, [1]).map_err(|full| over_capacity(full, "requests"))?;
    let longest = Duration::from_millis(api.config.request_ms_max);
    let answer = held(route, caught(next.run(request)));
    let Ok(response) = tokio::time::timeout(longest, answer).await else {
        let detail = format!("no answer within {} ms; the events may have been stored", longest.as_millis());
        return Err(Problem::new(ProblemCode::Timeout, detail));
    };
    Ok(holding(permit, response))
}

/// The same answer, which holds its slot until the connection has taken the last of it. A stream has a slot of its own
/// kind instead.
fn holding(permit: Permit<1>, response: Response) -> Response {
    let is_whole = response.body().size_hint().exact().is_some();
    if is_whole { response.map(|body| Body::new(LimitedBody { body, _permit: permit })) } else { response }
}

/// The problem for a tenant that gets no slot or capacity.
pub(super) fn over_capacity(full: Full, what: &str) -> Problem {
    match full {
        Full::All => Problem::new(ProblemCode::Overloaded, format!("there is no capacity for more {what}")),
        Full::Tenant => {
            let detail = format!("the tenant's {what} use up its share: send fewer concurrently");
            Problem::new(ProblemCode::TenantOverloaded, detail)
        }
    }
}

/// The request with its complete body in memory, and the capacity that this uses.
async fn with_body(api: &Api, tenant: &str, request: Request) -> Result<(Request, Option<Permit<1>>), Problem> {
    if request.body().is_end_stream() {
        return Ok((request, None));
    }
    let mut permit = api.bodies.acquire(tenant, [BODY_COST]).map_err(|full| over_capacity(full, "bodies"))?;
    let (parts, body) = request.into_parts();
    let longest = Duration::from_millis(api.config.body_ms_max);
    let read = tokio::time::timeout(longest, whole(body, api.config.body_bytes_max, &mut permit)).await;
    let bytes = read.unwrap_or_else(|_| {
        let detail = format!("the body was not received within {} ms", longest.as_millis());
        Err(Problem::new(ProblemCode::BodyTimeout, detail))
    })?;
    Ok((Request::from_parts(parts, Body::from(bytes)), Some(permit)))
}

async fn whole(mut body: Body, bytes_max: usize, permit: &mut Permit<1>) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(ProblemCode::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut read = Parts::default();
    while let Some(frame) = futures::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| Problem::new(ProblemCode::MalformedRequest, "the body is incomplete"))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.bytes() + data.len() > bytes_max {
            return Err(too_large());
        }
        permit.grow([data.len() as u64]).map_err(|full| over_capacity(full, "bodies"))?;
        read.push(data);
    }
    Ok(read.join())
}

/// The part of a body that was received: most arrive in one part, which is passed on as it is.
#[derive(Default)]
struct Parts {
    first: Bytes,
    rest: BytesMut,
}

impl Parts {
    fn bytes(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() {
            self.first = data;
        } else {
            self.rest.extend_from_slice(&data);
        }
    }

    fn join(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut all = BytesMut::with_capacity(self.bytes());
        all.extend_from_slice(&self.first);
        all.extend_from_slice(&self.rest);
        all.freeze()
    }
}

/// The body of an answer and its slot.
struct LimitedBody {
    body: Body,
    _permit: Permit<1>,
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Counts answers that occupy a worker for long.
async fn held(route: &str, answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    futures::future::poll_fn(|cx| {
        let begun = Instant::now();
        let polled = answer.as_mut().poll(cx);
        if begun.elapsed() > LONG_POLL {
            metrics::counter!(foretell_telemetry::HTTP_LONG_POLLS, foretell_telemetry::ROUTE => route.to_owned())
                .increment(1);
        }
        polled
    })
    .await
}

/// A handler that panics has a bug; the caller gets the same answer as for any other fault of the service.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Problem::internal(format!("a handler panicked: {}", text.unwrap_or_default())).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_paths_under_v1_need_a_key_and_what_leads_nowhere_needs_nothing() {
        for (route, path, needs) in [
            (Some("/v1/users/{user_id}"), "/v1/users/u", Needs::Key),
            (None, "/v1/nothing", Needs::Key),
            (None, "/v1/", Needs::Key),
            (None, "/v1", Needs::Nothing),
            (None, "/v10/users", Needs::Nothing),
            (None, "/nowhere", Needs::Nothing),
            (None, "/admin/topics", Needs::Nothing),
            (None, "/docs.html", Needs::Nothing),
            (Some("/admin/topics"), "/admin/topics", Needs::Place),
            (Some("/docs/{*rest}"), "/docs/swagger-ui-bundle.js", Needs::Document),
            (Some("/docs"), "/docs", Needs::Document),
            (Some("/openapi.json"), "/openapi.json", Needs::Document),
            (Some("/livez"), "/livez", Needs::Nothing),
            (Some("/readyz"), "/readyz", Needs::Nothing),
            (Some("/metrics"), "/metrics", Needs::Nothing),
        ] {
            assert_eq!(Needs::of(route, path), needs, "{route:?} {path}");
        }
    }
}
