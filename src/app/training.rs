//! Learns no-show models for operators of a running instance, from its own log.

use async_trait::async_trait;
use foretell_domain::address::Family;
use foretell_domain::score::no_show;
use foretell_domain::view::Limits;
use foretell_engine::pipeline::family;
use foretell_events::codec::rfc3339;
use foretell_lab::train::reading::{self, Asked, Settings};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use foretell_service::http::admin::train::Trainer;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Learns from the log of an instance, under the settings of its scores.
pub struct Training {
    /// What is read.
    pub log: Arc<dyn Log>,
    /// Says from when on records are checked by the gate.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The settings of the scores.
    pub config: no_show::Config,
    /// What the fold depends on.
    pub limits: Limits,
}

#[async_trait]
impl Trainer for Training {
    async fn begin(&self, query: Value, slot: OwnedSemaphorePermit) -> Result<mpsc::Receiver<Value>, Error> {
        let query: Asked = serde_json::from_value(query)
            .map_err(|error| Error::reject("learn a model", format!("not a question for a model: {error}")))?;
        let gated_from_ms = family::gated_from_ms(self.store.as_ref(), Family::Appointments).await?;
        let now = rfc3339(self.clock.now_ms());
        let settings = Settings { config: self.config.clone(), limits: self.limits.clone(), now, gated_from_ms };
        let mut lines = reading::spawn(self.log.clone(), query, settings, slot);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                let line = serde_json::to_value(line).expect("invariant: a line has a form in JSON");
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}
