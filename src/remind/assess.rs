//! The no-show risk that a reminder carries, from the tenant's row and the client's.

use super::Assess;
use crate::event::reminder::Risk;
use crate::rows::Rows;
use crate::score::no_show::{self, Config, Evidence};
use crate::view::client::Client;
use async_trait::async_trait;
use std::sync::Arc;

/// Scores with the rows that HTTP answers are scored with.
pub struct ByRows {
    /// Where a tenant's outcomes are read.
    pub rows: Arc<Rows>,
    /// How visits are scored.
    pub config: Config,
}

#[async_trait]
impl Assess for ByRows {
    async fn risk(&self, tenant: &str, client: &Client, appointment_id: &str) -> Option<Risk> {
        let lead_days = client.appointments.get(appointment_id)?.lead_days()?;
        let lead = match self.rows.lead(tenant).await {
            Ok(lead) => lead,
            Err(error) => {
                tracing::warn!(%error, "a reminder goes out without its risk");
                return None;
            }
        };
        let score = no_show::score(&Evidence { client: Some(client), lead: &lead, lead_days }, &self.config);
        Some(Risk { score: score.score, level: score.level.name().to_owned() })
    }
}
