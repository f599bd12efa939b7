//! What the visits of a tenant are scored by: outcomes by lead, a published model, and its calibration.

use super::calibration::Calibration;
use super::model::NoShowModel;
use super::{Config, ModelInForce, VisitEvidence, VisitScore};
use crate::score::no_show;
use crate::view::client::Client;
use crate::view::client::snapshot::{Snapshot, Subject};
use crate::view::lead::Lead;
use std::sync::Arc;

/// A published model and its version.
#[derive(Clone)]
pub struct PublishedModel {
    /// The model.
    pub model: Arc<NoShowModel>,
    /// Its version, which answers name.
    pub version: Arc<str>,
}

/// The inputs that a tenant's visits are scored by, at one time.
#[derive(Clone)]
pub struct ScoringContext {
    config: Arc<Config>,
    lead: Arc<Lead>,
    model: Option<PublishedModel>,
    recent: Option<Arc<Calibration>>,
    /// Stable codes of what could not be taken into account.
    pub warnings: Vec<&'static str>,
}

impl ScoringContext {
    /// A basis of the outcomes by lead, a published model and the outcomes of recent visits; two counters if there is
    /// no model.
    pub fn new(
        config: Arc<Config>,
        lead: Arc<Lead>,
        model: Option<PublishedModel>,
        recent: Option<Arc<Calibration>>,
        warnings: Vec<&'static str>,
    ) -> Self {
        Self { config, lead, model, recent, warnings }
    }

    /// A basis of only the outcomes by lead: two counters.
    pub fn counting(config: Arc<Config>, lead: Arc<Lead>) -> Self {
        Self { config, lead, model: None, recent: None, warnings: Vec::new() }
    }

    /// Scores a visit of the client with this row, none for one never seen, by what is known at `now_ms`.
    pub fn score(&self, client: Option<&Client>, visit: Subject<'_>, now_ms: i64) -> VisitScore {
        let (config, recent) = (self.config.as_ref(), self.recent.as_deref());
        match &self.model {
            Some(PublishedModel { model, version }) => {
                let uncorrected = Calibration::default();
                let calibration = recent.unwrap_or(&uncorrected);
                let by = ModelInForce { model, version, calibration };
                let snapshot = Snapshot::of(client, visit, now_ms);
                no_show::score_by_model(&snapshot, client, &self.lead, by, config)
            }
            None => {
                let lead_days = visit.start.lead_days(visit.booked_at_ms);
                no_show::score_by_counters(&VisitEvidence { client, lead: &self.lead, lead_days }, recent, config)
            }
        }
    }
}
