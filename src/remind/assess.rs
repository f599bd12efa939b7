//! The no-show risk that a reminder carries, from the tenant's row and the client's.

use super::Assess;
use crate::event::reminder::Risk;
use crate::rows::Rows;
use crate::score::no_show::{self, Config, Evidence};
use crate::view::client::{Appointment, Client};
use crate::view::lead::Lead;
use async_trait::async_trait;
use std::collections::BTreeMap;
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
    async fn risks(&self, tenant: &str, client: &Client, now_ms: i64) -> BTreeMap<String, Risk> {
        if to_come(client, now_ms).next().is_none() {
            return BTreeMap::new();
        }
        let lead = match self.rows.lead(tenant).await {
            Ok(lead) => lead,
            Err(error) => {
                tracing::warn!(%error, "reminders are planned without their risk");
                return BTreeMap::new();
            }
        };
        risks(client, &lead, &self.config, now_ms)
    }
}

/// The risks of those open visits of a client that start after `now_ms`, by appointment.
pub fn risks(client: &Client, lead: &Lead, config: &Config, now_ms: i64) -> BTreeMap<String, Risk> {
    let risk = |lead_days| {
        let score = no_show::score(&Evidence { client: Some(client), lead, lead_days }, config);
        Risk { score: score.score, level: score.level.name().to_owned() }
    };
    to_come(client, now_ms).map(|(id, lead_days)| (id.clone(), risk(lead_days))).collect()
}

/// The open visits that start after `now_ms`, with their leads.
fn to_come(client: &Client, now_ms: i64) -> impl Iterator<Item = (&String, i32)> {
    let is_to_come = move |visit: &Appointment| {
        visit.status.is_open() && visit.start.as_ref().is_some_and(|start| start.at_ms > now_ms)
    };
    let visits = client.appointments.iter().filter(move |(_, visit)| is_to_come(visit));
    visits.filter_map(|(id, visit)| Some((id, visit.lead_days()?)))
}
