//! Learning, for operators: read from the log while the instance goes on.

use super::lines;
use crate::http::problem::{Code, Problem};
use crate::http::request::{self, Body};
use crate::http::{Api, answer};
use async_trait::async_trait;
use axum::extract::State;
use axum::response::IntoResponse;
use foretell_ports::Error;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Learns models in the background.
#[async_trait]
pub trait Trainer: Send + Sync {
    /// Begins to learn what the query names and holds `slot` meanwhile; the lines of the answer arrive here. When the
    /// receiver is dropped it ends.
    ///
    /// Reject where the query is none.
    async fn begin(&self, query: Value, slot: OwnedSemaphorePermit) -> Result<mpsc::Receiver<Value>, Error>;
}

/// `POST /admin/train/no-show`: a model of a tenant's history, reported as JSON Lines. Publishes nothing. One at a
/// time; ends when the client disconnects.
pub(in crate::http) async fn no_show(
    State(api): State<Arc<Api>>,
    Body(body): Body,
) -> Result<impl IntoResponse, Problem> {
    let query = request::json(&body)?;
    let Ok(slot) = api.lessons.clone().try_acquire_owned() else {
        return Err(Problem::new(Code::Overloaded, "a model is being learnt already, and only one is at a time"));
    };
    let begun = api.trainer.begin(query, slot).await;
    let report = begun.map_err(|error| match error.kind {
        foretell_ports::Kind::Reject => Problem::new(Code::MalformedJson, error.detail),
        _ => answer::unreadable(error),
    })?;
    Ok(lines(report))
}
