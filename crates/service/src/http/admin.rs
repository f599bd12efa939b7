//! What operators can inspect and run in an instance, only on its own Unix socket.
//!
//! A data directory belongs to its `serve`, so commands cannot open it next to it; they send requests here. Only the
//! operator can open the socket (mode 0600), so there are no keys. The socket also serves the public routes, for
//! `import` to append through. Work that takes long is a [job](foretell_engine::jobs).

pub mod dead_letters;

use super::Api;
use super::problem::{Problem, ProblemCode};
use super::request::{self, Body as JsonBody};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use foretell_domain::address::{Family, FoundBy, View};
use foretell_engine::jobs::JobRefusal;
use foretell_engine::rows::{self, Partial};
use foretell_events::Topic;
use foretell_ports::Error;
use serde::{Deserialize, Serialize};
use std::iter;
use std::sync::Arc;

/// A topic in its current state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicState {
    /// Full name.
    pub topic: String,
    /// By partition, from 0: the lowest offset that can be read, and one past the highest.
    pub partitions: Vec<(i64, i64)>,
}

/// The purpose of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationRole {
    /// Answers are read from it.
    Serving,
    /// It will serve when it has caught up and is verified.
    Building,
}

impl GenerationRole {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Building => "building",
        }
    }
}

/// How far a partition is folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionState {
    /// The family.
    pub family: Family,
    /// The generation.
    pub generation: u32,
    /// Its purpose.
    pub stage: GenerationRole,
    /// The epoch of its topic.
    pub epoch: u8,
    /// The partition.
    pub partition: u32,
    /// The lowest offset that is not folded; none if nothing was folded.
    pub next: Option<i64>,
    /// One past the highest offset of the log.
    pub end: i64,
    /// Age of the oldest record that is not folded into the serving generation, in milliseconds; none for a building
    /// one.
    pub lag_ms: Option<u64>,
}

/// The row to read.
#[derive(Debug, Clone, Deserialize)]
pub struct RowQuery {
    /// Tenant and the rest of the key, joined by a colon.
    key: String,
    /// For rows of the agenda and of announcements, which are stored in buckets by time.
    bucket: Option<i64>,
}

/// `GET /admin/topics`: the contents of the log.
pub(super) async fn topics(State(api): State<Arc<Api>>) -> Result<Json<Vec<TopicState>>, Problem> {
    let mut topics = Vec::new();
    for topic in Topic::ALL {
        let mut partitions = Vec::new();
        for partition in 0..api.ports.log.partitions(topic) {
            let extent = api.ports.log.extent(topic, partition).await.map_err(unreadable)?;
            partitions.push((extent.start, extent.end));
        }
        topics.push(TopicState { topic: api.topic_name(topic), partitions });
    }
    Ok(Json(topics))
}

/// `GET /admin/positions`: how far the views are folded, whatever rules they are folded by.
pub(super) async fn positions(State(api): State<Arc<Api>>) -> Result<Json<Vec<PositionState>>, Problem> {
    let mut positions = Vec::new();
    for family in Family::ALL {
        let pointer = api.ports.store.pointer(family).await.map_err(unreadable)?;
        let pointer = pointer.ok_or_else(|| {
            let detail = format!(
                "no views of {} have been folded into this store yet; `foretell serve` folds them",
                family.name()
            );
            Problem::new(ProblemCode::ViewsUnavailable, detail)
        })?;
        let building = pointer.building(family).map(|generation| (generation, GenerationRole::Building));
        for (generation, stage) in iter::once((pointer.serving(family), GenerationRole::Serving)).chain(building) {
            for partition in 0..api.ports.log.partitions(family.topic()) {
                let checkpoint = api.ports.store.checkpoint(generation, partition).await.map_err(unreadable)?;
                let extent = api.ports.log.extent(family.topic(), partition).await.map_err(unreadable)?;
                let lag_ms = api.progress.view(family, partition).lag_ms;
                positions.push(PositionState {
                    family,
                    generation: generation.number,
                    stage,
                    epoch: generation.epoch,
                    partition,
                    next: checkpoint.map(|checkpoint| checkpoint.next),
                    end: extent.end,
                    lag_ms: (stage == GenerationRole::Serving).then_some(lag_ms),
                });
            }
        }
    }
    Ok(Json(positions))
}

/// `GET /admin/rows/{view}?key=TENANT:KEY[&bucket=N]`: the partials of a row, decoded; empty if it does not exist.
pub(super) async fn row(
    State(api): State<Arc<Api>>,
    Path(view): Path<String>,
    Query(query): Query<RowQuery>,
) -> Result<Json<Vec<Partial>>, Problem> {
    let view = named(&view)?;
    if view.found_by() == FoundBy::Hour && query.bucket.is_none() {
        let detail = format!("rows of {} are stored in buckets by time: choose one with --bucket", view.name());
        return Err(Problem::new(ProblemCode::MalformedRequest, detail));
    }
    let key = rows::row_key(view, query.bucket, query.key);
    api.rows.partials(&key).await.map(Json).map_err(unreadable)
}

/// `POST /admin/jobs/{name}` with the job's query: runs it, and returns its events as JSON Lines of
/// [`JobEvent`](foretell_engine::jobs::JobEvent). The job is cancelled when the client disconnects.
pub(super) async fn job(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<impl IntoResponse, Problem> {
    let lines = api.jobs.start(&name, request::json(&body)?).map_err(|refusal| match refusal {
        JobRefusal::NotFound(detail) => Problem::new(ProblemCode::PathNotFound, detail),
        JobRefusal::Malformed(detail) => Problem::new(ProblemCode::MalformedRequest, detail),
        JobRefusal::Busy(detail) => Problem::new(ProblemCode::Overloaded, detail),
    })?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)))
}

/// Operators receive the cause.
#[allow(clippy::needless_pass_by_value, reason = "is used in map_err")]
fn unreadable(error: Error) -> Problem {
    Problem::new(ProblemCode::ViewsUnavailable, error.to_string())
}

fn named(view: &str) -> Result<View, Problem> {
    View::parse(view).ok_or_else(|| {
        let names: Vec<_> = View::ALL.iter().map(|view| view.name()).collect();
        Problem::new(ProblemCode::PathNotFound, format!("views are {}", names.join(", ")))
    })
}
