//! The one place that scores visits: answers, lists and reminders all ask here.
//!
//! ```text
//!   tenant's outcomes by lead ─┐
//!   published model ───────────┼─► Basis ─► score(client's row, visit, instant), pure, as many as there are
//!   its calibration ───────────┘
//! ```
//!
//! The model is a [document](crate::policies) that is read again in the background; so is the calibration, at most
//! once in [`CALIBRATED_FOR`] and tenant: it looks at the rows of weeks, which is not for the way of a score. Whoever
//! asks first waits for both, up to the deadline, and is told if it did not come.
//!
//! A tenant that has published no model is answered by two counters, which need neither.

use crate::policies::{Active, InForce};
use foretell_domain::score::no_show::basis::{Basis, PublishedModel};
use foretell_domain::score::no_show::calibration::{self, Calibration, Recent};
use foretell_domain::score::no_show::model::Published;
use foretell_domain::score::no_show::{Config, Rates, bands, counters};
use foretell_domain::view::client::snapshot::Snapshot;
use foretell_domain::view::lead::Lead;
use foretell_engine::rows::Rows;
use foretell_ports::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long a calibration is used before it is looked for again.
pub const CALIBRATED_FOR: Duration = Duration::from_secs(60);
/// Tenants whose calibration is kept in memory; that of the one who asked longest ago is forgotten first.
const TENANTS_MAX: u64 = 10_000;
/// Days whose rows are read at once.
const DAYS_AT_ONCE: usize = 7;

/// What recent outcomes say could not be read in time, so nothing was corrected.
pub const CALIBRATION_UNAVAILABLE: &str = "CALIBRATION_UNAVAILABLE";

/// Scores visits.
pub struct Assessor {
    rows: Arc<Rows>,
    config: Arc<Config>,
    models: Arc<InForce<Published>>,
    held: moka::sync::Cache<String, Arc<Held>>,
}

/// A calibration, or that it is being looked for.
struct Held {
    version: String,
    asked_at: Instant,
    /// Somebody looks for the next one.
    is_asked: AtomicBool,
    ready: watch::Receiver<Option<Arc<Calibration>>>,
}

impl Assessor {
    /// Scores by `rows` under these settings, and by the models that are in force.
    pub fn new(rows: Arc<Rows>, config: Config, models: Arc<InForce<Published>>) -> Self {
        Self { rows, config: Arc::new(config), models, held: moka::sync::Cache::new(TENANTS_MAX) }
    }

    /// The models in force.
    pub fn models(&self) -> &Arc<InForce<Published>> {
        &self.models
    }

    /// What a tenant's visits are scored by. Errs where its outcomes by lead cannot be read.
    pub async fn basis(self: &Arc<Self>, tenant: &str, now_ms: i64, deadline: Instant) -> Result<Basis, Error> {
        Ok(self.with(self.rows.lead(tenant).await?, tenant, now_ms, deadline).await)
    }

    /// The same, where the outcomes by lead are at hand.
    pub async fn with(self: &Arc<Self>, lead: Arc<Lead>, tenant: &str, now_ms: i64, deadline: Instant) -> Basis {
        let model = self.models.get(tenant, deadline).await;
        let mut warnings: Vec<_> = model.warning.into_iter().collect();
        let mut recent = None;
        // Two counters correct themselves; only quantiles need to know what recent scores were.
        if model.policy.model.is_some() || self.config.bands.by == bands::By::Quantiles {
            recent = self.calibration(tenant, &model, now_ms, deadline).await;
            warnings.extend(recent.is_none().then_some(CALIBRATION_UNAVAILABLE));
        }
        let version = model.version.as_str();
        let published = model.policy.model.clone().map(|model| PublishedModel { model, version: version.into() });
        Basis::new(self.config.clone(), lead, published, recent, warnings)
    }

    /// How the tenant's recent visits went beside what is said of them now, read anew.
    pub async fn review(&self, tenant: &str, model: &Active<Published>, now_ms: i64) -> Result<Calibration, Error> {
        let (today, half_life) = (calibration::day(now_ms), self.config.recalibration_half_life_days);
        let rates = Rates::of(self.rows.lead(tenant).await?.as_ref(), &self.config);
        let days: Vec<_> = calibration::days(today, &self.config).collect();
        let mut recent = Recent::default();
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

    /// The calibration that is known; where none is, the one that comes by the deadline.
    async fn calibration(
        self: &Arc<Self>,
        tenant: &str,
        model: &Arc<Active<Published>>,
        now_ms: i64,
        deadline: Instant,
    ) -> Option<Arc<Calibration>> {
        let known = self.held.get(tenant).filter(|held| held.version == model.version);
        let held = match known {
            Some(held) => {
                if held.asked_at.elapsed() >= CALIBRATED_FOR && !held.is_asked.swap(true, Ordering::AcqRel) {
                    self.look(tenant, model, now_ms, Some(held.clone()));
                }
                held
            }
            None => self.look(tenant, model, now_ms, None),
        };
        let mut ready = held.ready.clone();
        let known = timeout_at(deadline, ready.wait_for(Option::is_some)).await.ok()?.ok()?;
        known.clone()
    }

    /// Looks for a calibration in the background. One that replaces another takes its place when it is there.
    fn look(
        self: &Arc<Self>,
        tenant: &str,
        model: &Arc<Active<Published>>,
        now_ms: i64,
        old: Option<Arc<Held>>,
    ) -> Arc<Held> {
        let (found, ready) = watch::channel(None);
        let (version, asked_at) = (model.version.clone(), Instant::now());
        let held = Arc::new(Held { version, asked_at, is_asked: AtomicBool::new(false), ready });
        if old.is_none() {
            self.held.insert(tenant.to_owned(), held.clone());
        }
        let (assessor, tenant, model, looking) = (self.clone(), tenant.to_owned(), model.clone(), held.clone());
        tokio::spawn(async move {
            match (assessor.review(&tenant, &model, now_ms).await, old) {
                (Ok(calibration), old) => {
                    found.send_replace(Some(Arc::new(calibration)));
                    if old.is_some() {
                        assessor.held.insert(tenant, looking);
                    }
                }
                (Err(error), Some(old)) => {
                    tracing::warn!(tenant, %error, "outcomes cannot be read again; the known calibration stays");
                    old.is_asked.store(false, Ordering::Release);
                }
                (Err(error), None) => {
                    tracing::warn!(tenant, %error, "outcomes cannot be read; scores are not calibrated");
                    assessor.held.invalidate(&tenant);
                }
            }
        });
        held
    }
}
