//! Reports, for operators: read from the log while the instance goes on.

use super::lines;
use crate::decisions::reading::{self, Asked};
use crate::http::problem::Problem;
use crate::http::{Api, answer};
use crate::report::reading as visits;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use foretell_domain::address::Family;
use foretell_engine::pipeline::family;
use foretell_events::Topic;
use std::sync::Arc;

/// `GET /admin/report/decisions[?since_ms=N][&tenant=T]`: how good decisions were, told as JSON Lines of
/// [`Told`](crate::report::Told). Ends when nobody reads any more.
pub(in crate::http) async fn decisions(
    State(api): State<Arc<Api>>,
    Query(asked): Query<Asked>,
) -> Result<impl IntoResponse, Problem> {
    let since_ms = asked.since_ms.or_else(|| kept_since_ms(&api));
    let gated_from_ms = family::gated_from_ms(api.store.as_ref(), Family::Logins).await.map_err(answer::unreadable)?;
    Ok(lines(reading::spawn(api.log.clone(), gated_from_ms, Asked { since_ms, ..asked })))
}

/// `GET /admin/report/no-show[?since_ms=N][&until_ms=N][&tenant=T]`: how visits went and what was said of them before,
/// told as JSON Lines of [`Told`](crate::report::Told). Ends when nobody reads any more.
pub(in crate::http) async fn no_show(
    State(api): State<Arc<Api>>,
    Query(asked): Query<visits::Asked>,
) -> impl IntoResponse {
    let sources = visits::Sources {
        log: api.log.clone(),
        store: api.store.clone(),
        pointers: api.rows.pointers().clone(),
        decisions_since_ms: kept_since_ms(&api),
        now_ms: api.clock.now_ms(),
    };
    lines(visits::spawn(sources, asked))
}

/// Since when decisions are kept.
fn kept_since_ms(api: &Api) -> Option<i64> {
    Some(api.clock.now_ms() - api.retention.ms(Topic::Decisions)?)
}
