//! The no-show risk that a reminder contains: the same score as in all other answers.

use super::Assess;
use crate::assess::Assessor;
use async_trait::async_trait;
use foretell_domain::remind::risk::{risks, upcoming};
use foretell_domain::view::client::Client;
use foretell_events::reminder::Risk;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Scores with the same model and rows as HTTP answers.
pub struct ByRows {
    /// Scores visits.
    pub assessor: Arc<Assessor>,
    /// How long to wait for a model and its calibration if none is cached, in milliseconds: a reminder can wait longer
    /// than an answer.
    pub read_ms_max: u64,
}

#[async_trait]
impl Assess for ByRows {
    async fn risks(&self, tenant: &str, client: &Client, now_ms: i64) -> BTreeMap<String, Risk> {
        if upcoming(client, now_ms).next().is_none() {
            return BTreeMap::new();
        }
        let deadline = Instant::now() + Duration::from_millis(self.read_ms_max);
        match self.assessor.basis(tenant, now_ms, deadline).await {
            Ok(basis) => risks(client, &basis, now_ms),
            Err(error) => {
                tracing::warn!(%error, "reminders are planned without their risk");
                BTreeMap::new()
            }
        }
    }
}
