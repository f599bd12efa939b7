//! `GET /v1/reminders/stream`: the reminders topic for subscribers without Kafka, as server-sent events.
//!
//! ```text
//!   partition 0 ─┐
//!   partition 1 ─┼─► tail, one a process ─┬─► stream ─► event: type, data: CloudEvent, id: cursor
//!   partition n ─┘                        └─► stream      of the caller's tenant
//! ```
//!
//! The cursor names the epoch of the topic and, for every partition, the first offset that was not sent. A browser
//! sends the last one back by itself (`Last-Event-ID`), and the stream goes on exactly there: each event comes at
//! least once, and per client in order. A cursor of another epoch or partition count is answered 410, because
//! nobody could say where it stands; the subscriber then starts anew and knows repeated events by their ids.
//!
//! Other tenants' events move the cursor, too: an event with nothing but an id tells it. By the standard that sets
//! the last event id, and no application hears of it. So a tenant that is seldom spoken of does not come back to
//! all that the others have been told since, or to what retention has removed.
//!
//! Streams end when the process drains, and the subscriber comes back to another one. Their number is bounded apart
//! from other requests.

mod sending;
pub(super) mod tail;

use super::Api;
use super::answer;
use super::auth::Caller;
use super::problem::{Code, Problem};
use crate::event::Topic;
use crate::log::Extent;
use crate::store::Family;
use crate::telemetry;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::StreamExt;
use futures::stream;
use sending::Sending;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Where a subscriber stands: the epoch of the topic and, by partition, the first offset that was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
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
        let malformed =
            || Problem::new(Code::MalformedRequest, "Last-Event-ID is not the id of an event of this stream");
        let (epoch, next) = text.split_once('-').ok_or_else(malformed)?;
        let next: Result<Vec<i64>, _> = next.split('-').map(str::parse).collect();
        let epoch = epoch.parse().map_err(|_| malformed())?;
        Ok(Self { epoch, next: next.map_err(|_| malformed())? })
    }
}

/// Reminders as they are announced and withdrawn: server-sent events, from the oldest retained one on.
///
/// `event:` is the type, `data:` the CloudEvent in structured JSON, `id:` a cursor to resume from. Only the
/// caller's tenant is seen. Delivery is at least once; tell repetitions by the `id` of the CloudEvent. Now and then
/// an `id:` comes alone: a cursor behind events of others.
#[utoipa::path(
    get, path = "/v1/reminders/stream", tag = "reminders",
    params(
        ("from" = Option<String>, Query, description = "`latest`: only what comes from now on"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last `id:` that was received"),
        ("Foretell-Tenant" = Option<String>, Header),
    ),
    responses(
        (status = 200, description = "A stream that does not end", body = String, content_type = "text/event-stream"),
        (status = 410, description = "The cursor is of a log that no longer exists; start anew",
            body = super::problem::Document, content_type = "application/problem+json"),
        (status = "4XX", body = super::problem::Document, content_type = "application/problem+json"),
        (status = "5XX", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reminders(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Sse<impl stream::Stream<Item = Result<Event, Infallible>>>, Problem> {
    let from = From::read(query.as_deref(), &headers)?;
    let place = api.streams.clone().try_acquire_owned();
    let place = place
        .map_err(|_| Problem::new(Code::TooManyStreams, format!("{} streams are open", api.config.streams_max)))?;
    let extents = extents(&api).await?;
    let cursor = begin(&api, from, &extents).await?;
    let ends: Vec<i64> = extents.iter().map(|extent| extent.end).collect();
    let tail = api.tail.join(api.log.as_ref(), &ends).await.map_err(unreadable)?;
    let pulse = Duration::from_millis(api.config.stream_keep_alive_ms);
    let sending = Sending::new(api.log.clone(), tail, caller.tenant, cursor, pulse);
    let events = stream::unfold((sending, Open::new(place)), |(sending, open)| async {
        let (event, sending) = sending.next().await?;
        Some((Ok(event), (sending, open)))
    });
    let events = events.take_until(api.shutdown.clone().cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(pulse)))
}

/// Where a subscriber wants to begin.
enum From {
    Oldest,
    Latest,
    Cursor(Cursor),
}

impl From {
    fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        if let Some(id) = headers.get("last-event-id") {
            let text = id.to_str().unwrap_or_default();
            return text.parse().map(Self::Cursor);
        }
        let mut froms = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("from="));
        match froms.next() {
            None => Ok(Self::Oldest),
            Some("latest") => Ok(Self::Latest),
            Some(_) => Err(Problem::new(Code::MalformedRequest, "from can only be latest")),
        }
    }
}

async fn extents(api: &Api) -> Result<Vec<Extent>, Problem> {
    let mut extents = Vec::new();
    for partition in 0..api.log.partitions(Topic::Reminders) {
        extents.push(api.log.extent(Topic::Reminders, partition).await.map_err(unreadable)?);
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
                return Err(Problem::new(Code::CursorExpired, "start anew, without Last-Event-ID"));
            }
            cursor.next
        }
    };
    Ok(Cursor { epoch: pointer.epoch, next })
}

#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn unreadable(error: crate::log::Error) -> Problem {
    tracing::warn!(%error, "cannot read reminders");
    Problem::new(Code::LogUnavailable, "try again")
}

/// Counts an open stream, and holds its place, until it is dropped.
struct Open(#[allow(dead_code, reason = "held, and given back by its drop")] OwnedSemaphorePermit);

impl Open {
    fn new(place: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(telemetry::HTTP_STREAMS).increment(1.0);
        Self(place)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::HTTP_STREAMS).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        let cursor = Cursor { epoch: 3, next: vec![0, 17, 1 << 43] };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for garbage in ["", "3", "3-", "x-1", "3-1-x", "300-1", "3--1", "3 1", "../../etc"] {
            assert!(garbage.parse::<Cursor>().is_err(), "{garbage:?}");
        }
    }
}
