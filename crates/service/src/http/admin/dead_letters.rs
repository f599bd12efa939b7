//! A single dead letter, for operators. Operations on many of them are jobs.

use crate::http::problem::{Problem, ProblemCode};
use crate::http::{Api, answer};
use axum::Json;
use axum::extract::{Path, State};
use foretell_domain::dead::Id;
use foretell_domain::dead::details::DeadLetterDetails;
use foretell_engine::dead_letters::DeadLetters;
use std::sync::Arc;

/// `GET /admin/dead-letters/{partition}/{offset}`: a complete dead letter.
pub(in crate::http) async fn show(
    State(api): State<Arc<Api>>,
    Path((partition, offset)): Path<(u32, i64)>,
) -> Result<Json<DeadLetterDetails>, Problem> {
    let id = Id { partition, offset };
    let (log, clock, topic_prefix) = (api.ports.log.clone(), api.ports.clock.clone(), api.topic_prefix.clone());
    let shown = DeadLetters { log, clock, topic_prefix }.show(id).await.map_err(answer::unreadable)?;
    shown.map(Json).ok_or_else(|| Problem::new(ProblemCode::PathNotFound, format!("there is no dead letter {id}")))
}
