//! Reports, for operators: read from the log while the instance goes on.

use super::lines;
use crate::decisions::reading::{self, Asked};
use crate::event::Topic;
use crate::http::Api;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use std::sync::Arc;

/// `GET /admin/report/decisions[?since_ms=N][&tenant=T]`: how good decisions were, told as JSON Lines of
/// [`Told`](crate::decisions::reading::Told). Ends when nobody reads any more.
pub(in crate::http) async fn decisions(State(api): State<Arc<Api>>, Query(asked): Query<Asked>) -> impl IntoResponse {
    let kept_ms = api.retention.ms(Topic::Decisions);
    let since_ms = asked.since_ms.or_else(|| Some(api.clock.now_ms() - kept_ms?));
    lines(reading::spawn(api.log.clone(), Asked { since_ms, ..asked }))
}
