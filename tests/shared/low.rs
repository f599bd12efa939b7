//! Risk for tests of when reminders are sent: every visit is known, and at the lowest level.

use async_trait::async_trait;
use foretell_domain::score::RiskLevel;
use foretell_domain::view::client::Client;
use foretell_events::reminder::Risk;
use foretell_service::remind::Assess;
use std::collections::BTreeMap;

pub(crate) struct Low;

#[async_trait]
impl Assess for Low {
    async fn risks(&self, _: &str, client: &Client, _: i64) -> BTreeMap<String, Risk> {
        let low = Risk { score: 0.1, level: RiskLevel::Low.name().to_owned() };
        client.appointments.keys().map(|id| (id.clone(), low.clone())).collect()
    }
}
