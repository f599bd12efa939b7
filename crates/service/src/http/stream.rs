//! `GET /v1/reminders/stream`: the reminders topic for subscribers without Kafka, as server-sent events.
//!
//! ```text
//!   partition 0 ─┐
//!   partition 1 ─┼─► tail of the process ─┬─► stream ─► id: cursor, event: type, data: CloudEvent
//!   partition n ─┘                        └─► stream      of the caller's tenant, without erased clients
//! ```
//!
//! The cursor contains the epoch of the topic and, for every partition, the first offset that was not sent. A browser
//! returns the last one by itself (`Last-Event-ID`), a page that opens a new stream in the query (`lastEventId`), and
//! the stream continues exactly there: each event is delivered at least once, and per client in order. A cursor of
//! another epoch or partition count is answered 410, because its offsets do not apply; the subscriber then starts again
//! and recognises repeated events by their ids.
//!
//! Other tenants' events advance the cursor, too: it is sent in a block with nothing but an id. By the standard that
//! sets the last event id and dispatches no event. So a tenant with few reminders does not return to offsets that
//! retention has removed.
//!
//! The first line is `retry:`, with a time that differs from stream to stream, so that the subscribers of a process
//! that drains do not all reconnect at once. A comment keeps an idle stream open. Both are single lines and not blocks,
//! because some clients treat the blank line after a block as an event.
//!
//! Streams end when the process drains, and the subscriber reconnects to another one. Their number is limited
//! separately from other requests.

mod erased;
mod sending;
pub(super) mod tail;

use super::Api;
use super::admission;
use super::answer;
use super::auth::Caller;
use super::problem::{Problem, ProblemCode};
use crate::limiter::{Full, Permit};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use erased::Erased;
use foretell_domain::address::Family;
use foretell_events::Topic;
use foretell_ports::log::Extent;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use sending::StreamSender;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use url::form_urlencoded;

/// The path that accepts tickets in place of keys.
pub(super) const ROUTE: &str = "/v1/reminders/stream";
/// How long a subscriber waits before it reconnects, in milliseconds: chosen from this range.
const RETRY_MS: std::ops::Range<u64> = 2_000..5_000;
/// Keeps an idle connection open.
const HEARTBEAT: &str = ": keep-alive\n";

/// The cursor of a subscriber: the epoch of the topic and, by partition, the first offset that was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    epoch: u8,
    next: Vec<i64>,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.epoch)?;
        self.next.iter().try_for_each(|next| write!(f, "-{next}"))
    }
}

impl std::str::FromStr for Cursor {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let malformed = || {
            Problem::new(ProblemCode::MalformedRequest, "the last event id is not the id of an event of this stream")
        };
        let (epoch, next) = text.split_once('-').ok_or_else(malformed)?;
        let next: Result<Vec<i64>, _> = next.split('-').map(str::parse).collect();
        let epoch = epoch.parse().map_err(|_| malformed())?;
        Ok(Self { epoch, next: next.map_err(|_| malformed())? })
    }
}

/// Reminders as they are announced and withdrawn: server-sent events, from the oldest retained one on.
///
/// `event:` is the type, `data:` the CloudEvent in structured JSON, `id:` a cursor to resume from. Only reminders of
/// the caller's tenant are sent, and none of clients who have been erased since. Delivery is at least once; recognise
/// repetitions by the `id` of the CloudEvent. Some blocks have only an `id:`: a cursor after events that were not
/// sent. Lines that begin with `:` are heartbeats. A page passes a ticket instead of a key (`createStreamTicket`), and
/// the cursor to resume from in `lastEventId`; if the header is also sent, the header is used.
#[utoipa::path(
    get, path = "/v1/reminders/stream", operation_id = "streamReminders", tag = "reminders",
    params(
        ("from" = Option<String>, Query, description = "`latest`: only new reminders"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id:` that was received; empty: none"),
        ("lastEventId" = Option<String>, Query, description = "The same, for clients that cannot send the header"),
        ("ticket" = Option<String>, Query, description = "A ticket, instead of an API key; the request consumes it"),
        ("Foretell-Tenant" = Option<String>, Header),
    ),
    responses(
        (status = 200, description = "A stream that does not end", body = String, content_type = "text/event-stream"),
        (status = 410),
    )
)]
pub(super) async fn reminders(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = From::read(query.as_deref(), &headers)?;
    let permit = api.streams.acquire(&caller.tenant, [1]).map_err(|full| match full {
        Full::All => Problem::new(ProblemCode::TooManyStreams, format!("{} streams are open", api.config.streams_max)),
        Full::Tenant => admission::over_capacity(full, "streams"),
    })?;
    let extents = extents(&api).await?;
    let cursor = begin(&api, from, &extents).await?;
    let ends: Vec<i64> = extents.iter().map(|extent| extent.end).collect();
    let tail = api.tail.join(api.ports.log.as_ref(), &ends).await.map_err(unreadable)?;
    let pulse = Duration::from_millis(api.config.stream_keep_alive_ms);
    let erased = Erased::new(api.rows.clone(), caller.tenant.clone());
    let parts = sending::Parts { log: api.ports.log.clone(), tail, tenant: caller.tenant, erased };
    let sending = StreamSender::new(parts, cursor, pulse);
    let blocks = stream::unfold((sending, Open::new(permit)), |(sending, open)| async {
        let (block, sending) = sending.next().await?;
        Some((block, (sending, open)))
    });
    let blocks = blocks.take_until(api.shutdown.clone().cancelled_owned());
    let first = stream::once(async { retry() });
    let lines = first.chain(with_heartbeats(blocks.boxed(), pulse)).map(Ok::<_, Infallible>);
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that buffer, as nginx does by default, would delay events.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn retry() -> String {
    let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
    format!("retry: {}\n", RETRY_MS.start + random % (RETRY_MS.end - RETRY_MS.start))
}

/// The blocks, and a heartbeat whenever there was none for as long as `pulse`.
fn with_heartbeats(blocks: BoxStream<'static, String>, pulse: Duration) -> BoxStream<'static, String> {
    let lines = stream::unfold(blocks, move |mut blocks| async move {
        match timeout(pulse, blocks.next()).await {
            Ok(block) => Some((block?, blocks)),
            Err(_) => Some((HEARTBEAT.to_owned(), blocks)),
        }
    });
    lines.boxed()
}

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Oldest,
    Latest,
    Cursor(Cursor),
}

impl From {
    fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let parameter = |wanted| {
            let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
            pairs.find(|(name, _)| name == wanted).map(|(_, value)| value)
        };
        let from = match parameter("from").as_deref() {
            None => Self::Oldest,
            Some("latest") => Self::Latest,
            Some(_) => return Err(Problem::new(ProblemCode::MalformedRequest, "from can only be latest").at("/from")),
        };
        // An empty id counts as none: no event has one, and by the HTML standard it is not sent.
        let queried = parameter("lastEventId").filter(|id| !id.is_empty()).map(|id| id.parse());
        let queried = queried.transpose().map_err(|problem: Problem| problem.at("/lastEventId"))?;
        let mut ids = headers.get_all("last-event-id").iter();
        let sent = match (ids.next(), ids.next()) {
            (_, Some(_)) => return Err(Problem::new(ProblemCode::MalformedRequest, "send Last-Event-ID once")),
            (Some(id), None) if !id.is_empty() => Some(id.to_str().unwrap_or_default().parse()?),
            _ => None,
        };
        // A browser that reconnects sends the original query, and the latest id in the header.
        Ok(sent.or(queried).map_or(from, Self::Cursor))
    }
}

async fn extents(api: &Api) -> Result<Vec<Extent>, Problem> {
    let mut extents = Vec::new();
    for partition in 0..api.ports.log.partitions(Topic::Reminders) {
        extents.push(api.ports.log.extent(Topic::Reminders, partition).await.map_err(unreadable)?);
    }
    Ok(extents)
}

async fn begin(api: &Api, from: From, extents: &[Extent]) -> Result<Cursor, Problem> {
    let pointer = api.rows.pointers().get(Family::Reminders).await.map_err(answer::unreadable)?;
    let next = match from {
        From::Oldest => extents.iter().map(|extent| extent.start).collect(),
        From::Latest => extents.iter().map(|extent| extent.end).collect(),
        From::Cursor(cursor) => {
            let within = |(next, extent): (&i64, &Extent)| (extent.start..=extent.end).contains(next);
            let same = cursor.epoch == pointer.epoch && cursor.next.len() == extents.len();
            if !same || !cursor.next.iter().zip(extents).all(within) {
                return Err(Problem::new(
                    ProblemCode::CursorExpired,
                    "start again, without Last-Event-ID and lastEventId",
                ));
            }
            cursor.next
        }
    };
    Ok(Cursor { epoch: pointer.epoch, next })
}

#[allow(clippy::needless_pass_by_value, reason = "is used in map_err")]
fn unreadable(error: foretell_ports::Error) -> Problem {
    tracing::warn!(%error, "cannot read reminders");
    Problem::new(ProblemCode::LogUnavailable, "try again")
}

/// Counts an open stream, and holds its slot, until it is dropped.
struct Open(#[allow(dead_code, reason = "held, and released when it is dropped")] Permit<1>);

impl Open {
    fn new(permit: Permit<1>) -> Self {
        metrics::gauge!(foretell_telemetry::HTTP_STREAMS).increment(1.0);
        Self(permit)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(foretell_telemetry::HTTP_STREAMS).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_stream_begins_is_checked_also_where_a_cursor_decides() {
        let read = |query: Option<&str>, ids: &[&str]| {
            let lines = ids.iter().map(|id| ("last-event-id".parse().unwrap(), id.parse().unwrap()));
            From::read(query, &lines.collect::<HeaderMap>()).map_err(|problem| problem.code())
        };
        let cursor = From::Cursor(Cursor { epoch: 0, next: vec![7] });
        for (query, ids, begin) in [
            (None, &[][..], Ok(From::Oldest)),
            (None, &[""], Ok(From::Oldest)),
            (Some("from=latest"), &[""], Ok(From::Latest)),
            (None, &["0-7"], Ok(cursor.clone())),
            // A browser that reconnects sends the original query.
            (Some("from=latest"), &["0-7"], Ok(cursor.clone())),
            (Some("lastEventId=0-6"), &["0-7"], Ok(cursor.clone())),
            (Some("lastEventId=0-7"), &[], Ok(cursor.clone())),
            (Some("lastEventId=0-7"), &[""], Ok(cursor.clone())),
            (Some("from=latest&lastEventId=0%2D7"), &[], Ok(cursor)),
            (Some("from=latest&lastEventId="), &[], Ok(From::Latest)),
            (Some("lastEventId=x"), &[], Err(ProblemCode::MalformedRequest)),
            (Some("lastEventId=x"), &["0-7"], Err(ProblemCode::MalformedRequest)),
            (Some("lastEventId=0-7"), &["x"], Err(ProblemCode::MalformedRequest)),
            (Some("from=bogus"), &["0-7"], Err(ProblemCode::MalformedRequest)),
            (Some("from=bogus"), &[], Err(ProblemCode::MalformedRequest)),
            (None, &["0-7", "0-8"], Err(ProblemCode::MalformedRequest)),
            (None, &["0-7", ""], Err(ProblemCode::MalformedRequest)),
            (None, &["x"], Err(ProblemCode::MalformedRequest)),
        ] {
            assert_eq!(read(query, ids), begin, "{query:?} {ids:?}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        let cursor = Cursor { epoch: 3, next: vec![0, 17, 1 << 43] };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for garbage in ["", "3", "3-", "x-1", "3-1-x", "300-1", "3--1", "3 1", "../../etc"] {
            assert!(garbage.parse::<Cursor>().is_err(), "{garbage:?}");
        }
    }
}
