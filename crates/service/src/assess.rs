//! The only component that scores visits. Answers, lists and reminders all use it.
//!
//! ```text
//!   tenant's outcomes by lead ─┐
//!   published model ───────────┼─► Basis ─► score(client's row, visit, instant), pure, as many as there are
//!   its calibration ───────────┘
//! ```
//!
//! The model is a [document](crate::policies) that is refreshed in the background. So is the calibration, at most once
//! per [`CALIBRATED_FOR`] and tenant: computing it reads the rows of several weeks, which takes too long for a request.
//! The first caller waits for both until its deadline; a value that is not available by then is reported as a warning.
//!
//! A tenant that has published no model is scored by two counters, which need neither.

use crate::policies::{Active, InForce};
use crate::refreshed::{Refresh, Refreshed};
use foretell_domain::score::no_show::calibration::{self, Calibration, RecentSamples};
use foretell_domain::score::no_show::context::{PublishedModel, ScoringContext};
use foretell_domain::score::no_show::model::PublishedDocument;
use foretell_domain::score::no_show::{Config, Rates, bands, counters};
use foretell_domain::view::client::snapshot::Snapshot;
use foretell_domain::view::lead::Lead;
use foretell_engine::rows::Rows;
use foretell_ports::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long a calibration is used before it is computed again.
pub(crate) const CALIBRATED_FOR: Duration = Duration::from_secs(60);
/// Tenants whose calibration is kept in memory; the least recently used is evicted first.
const TENANTS_MAX: usize = 10_000;
/// Days whose rows are read in one call.
const DAYS_AT_ONCE: usize = 7;

/// The recent outcomes could not be read in time, so no score was corrected.
pub(crate) const CALIBRATION_UNAVAILABLE: &str = "CALIBRATION_UNAVAILABLE";

/// Scores visits.
pub struct Assessor {
    rows: Arc<Rows>,
    config: Arc<Config>,
    models: Arc<InForce<PublishedDocument>>,
    known: Refreshed<Calibrated>,
}

/// The calibration of a version of a model, or one that is being computed.
#[derive(Clone)]
struct Calibrated {
    version: String,
    ready: watch::Receiver<Option<Arc<Calibration>>>,
}

impl Assessor {
    /// Scores visits from `rows`, with these settings and the models in force.
    pub fn new(rows: Arc<Rows>, config: Config, models: Arc<InForce<PublishedDocument>>) -> Self {
        Self { rows, config: Arc::new(config), models, known: Refreshed::new(TENANTS_MAX, CALIBRATED_FOR) }
    }

    /// The models in force.
    pub fn models(&self) -> &Arc<InForce<PublishedDocument>> {
        &self.models
    }

    /// What a tenant's visits are scored with. Fails if its outcomes by lead cannot be read.
    pub async fn basis(
        self: &Arc<Self>,
        tenant: &str,
        now_ms: i64,
        deadline: Instant,
    ) -> Result<ScoringContext, Error> {
        Ok(self.with(self.rows.lead(tenant).await?, tenant, now_ms, deadline).await)
    }

    /// The same, if the outcomes by lead have already been read.
    pub async fn with(
        self: &Arc<Self>,
        lead: Arc<Lead>,
        tenant: &str,
        now_ms: i64,
        deadline: Instant,
    ) -> ScoringContext {
        let model = self.models.get(tenant, deadline).await;
        let mut warnings: Vec<_> = model.warning.into_iter().collect();
        let mut recent = None;
        // Two counters correct themselves; only bands by quantiles need the distribution of recent scores.
        if model.policy.model.is_some() || self.config.bands.by == bands::BandMethod::Quantiles {
            recent = self.calibration(tenant, &model, now_ms, deadline).await;
            warnings.extend(recent.is_none().then_some(CALIBRATION_UNAVAILABLE));
        }
        let version = model.version.as_str();
        let published = model.policy.model.clone().map(|model| PublishedModel { model, version: version.into() });
        ScoringContext::new(self.config.clone(), lead, published, recent, warnings)
    }

    /// Computes the calibration from the outcomes of the tenant's recent visits and the scores that the model gives
    /// them now.
    pub(crate) async fn review(
        &self,
        tenant: &str,
        model: &Active<PublishedDocument>,
        now_ms: i64,
    ) -> Result<Calibration, Error> {
        let (today, half_life) = (calibration::day(now_ms), self.config.recalibration_half_life_days);
        let rates = Rates::of(self.rows.lead(tenant).await?.as_ref(), &self.config);
        let days: Vec<_> = calibration::days(today, &self.config).collect();
        let mut recent = RecentSamples::default();
        for days in days.chunks(DAYS_AT_ONCE) {
            let read = self.rows.outcomes(tenant, days.iter().copied()).await?;
            let (days, config, model) = (days.to_vec(), self.config.clone(), model.policy.model.clone());
            let add = move || {
                let says = |visit: &Snapshot| match &model {
                    Some(model) => model.log_odds(visit),
                    None => counters::log_odds(visit, &rates, &config),
                };
                for (day, row) in days.iter().zip(&read) {
                    recent.add(row, says, (today - day) as f64, half_life);
                }
                recent
            };
            let added = tokio::task::spawn_blocking(add).await;
            recent = added.map_err(|panic| Error::retry("score recent visits", panic))?;
        }
        let cases = recent.cases();
        Ok(match model.policy.model {
            Some(_) => Calibration::fit(&cases),
            None => Calibration::uncorrected(&cases),
        })
    }

    /// The known calibration. If there is none, waits for it until the deadline.
    async fn calibration(
        self: &Arc<Self>,
        tenant: &str,
        model: &Arc<Active<PublishedDocument>>,
        now_ms: i64,
        deadline: Instant,
    ) -> Option<Arc<Calibration>> {
        let known = self.known.get(tenant).filter(|(known, _)| known.version == model.version);
        let mut calibrated = match known {
            Some((known, None)) => known,
            Some((known, refresh)) => {
                self.refresh(tenant, model, now_ms, refresh);
                known
            }
            None => self.refresh(tenant, model, now_ms, None),
        };
        let ready = timeout_at(deadline, calibrated.ready.wait_for(Option::is_some)).await.ok()?.ok()?;
        ready.clone()
    }

    /// Computes a calibration in the background. The old one stays in use until the new one is complete.
    fn refresh(
        self: &Arc<Self>,
        tenant: &str,
        model: &Arc<Active<PublishedDocument>>,
        now_ms: i64,
        refresh: Option<Refresh<Calibrated>>,
    ) -> Calibrated {
        let (found, ready) = watch::channel(None);
        let read_at = Instant::now();
        let calibrated = Calibrated { version: model.version.clone(), ready };
        if refresh.is_none() {
            self.known.keep(tenant, read_at, calibrated.clone());
        }
        let (assessor, tenant, model, new) = (self.clone(), tenant.to_owned(), model.clone(), calibrated.clone());
        tokio::spawn(async move {
            match (assessor.review(&tenant, &model, now_ms).await, &refresh) {
                (Ok(calibration), refresh) => {
                    found.send_replace(Some(Arc::new(calibration)));
                    if refresh.is_some() {
                        assessor.known.keep(&tenant, read_at, new);
                    }
                }
                (Err(error), Some(_)) => {
                    tracing::warn!(tenant, %error, "outcomes cannot be read; the previous calibration stays in use");
                }
                (Err(error), None) => {
                    tracing::warn!(tenant, %error, "outcomes cannot be read; scores are not calibrated");
                    assessor.known.forget(&tenant);
                }
            }
        });
        calibrated
    }
}
