//! Risk for tests of when reminders go out: every visit is known, and at the lowest level.

use async_trait::async_trait;
use foretell::event::reminder::Risk;
use foretell::remind::Assess;
use foretell::score::Level;
use foretell::view::client::Client;
use std::collections::BTreeMap;

pub(crate) struct Low;

#[async_trait]
impl Assess for Low {
    async fn risks(&self, _: &str, client: &Client, _: i64) -> BTreeMap<String, Risk> {
        let low = Risk { score: 0.1, level: Level::Low.name().to_owned() };
        client.appointments.keys().map(|id| (id.clone(), low.clone())).collect()
    }
}
