//! The no-show risk that a reminder carries: the score that every other answer has.

use super::Assess;
use crate::assess::{Assessor, Basis};
use crate::event::reminder::Risk;
use crate::view::client::Client;
use crate::view::client::snapshot::Subject;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Scores with what HTTP answers are scored with.
pub struct ByRows {
    /// Scores visits.
    pub assessor: Arc<Assessor>,
    /// How long a model and its calibration are waited for where none is known, in milliseconds: a reminder can wait
    /// longer than an answer.
    pub read_ms_max: u64,
}

#[async_trait]
impl Assess for ByRows {
    async fn risks(&self, tenant: &str, client: &Client, now_ms: i64) -> BTreeMap<String, Risk> {
        if to_come(client, now_ms).next().is_none() {
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

/// The risks of those open visits of a client that start after `now_ms`, by appointment.
pub fn risks(client: &Client, basis: &Basis, now_ms: i64) -> BTreeMap<String, Risk> {
    let risk = |visit| {
        let score = basis.score(Some(client), visit, now_ms);
        Risk { score: score.score, level: score.level.name().to_owned() }
    };
    to_come(client, now_ms).map(|(id, visit)| (id.to_owned(), risk(visit))).collect()
}

/// The open visits that start after `now_ms`.
fn to_come(client: &Client, now_ms: i64) -> impl Iterator<Item = (&str, Subject<'_>)> {
    let open = client.appointments.iter().filter(|(_, visit)| visit.status.is_open());
    let visits = open.filter_map(|(id, visit)| Some((id.as_str(), visit.subject(id)?)));
    visits.filter(move |(_, visit)| visit.start.at_ms > now_ms)
}
