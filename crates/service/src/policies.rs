//! The policies in force, for scores and plans: the one that a tenant has published, merged over that of the settings.
//!
//! ```text
//!   PUT /v1/policies/login ─► topic, compacted ─► view policy ─► here, in every process:
//!      validated, fenced                          a row           read again when older than stale_ms_max
//! ```
//!
//! A kind of policy is a [`PolicyDocument`]; [`InForce`] caches the current ones of all tenants.
//!
//! A request for a score never waits for a policy that is cached: an old one is used while it is read again. A change
//! is therefore in force everywhere within [`rows::Config::stale_ms_max`](foretell_engine::rows::Config) after it is
//! folded. If a document cannot be used, for example because it was written by a later version of Foretell, the version
//! before it stays in force.

use crate::refreshed::Refreshed;
use async_trait::async_trait;
use foretell_domain::remind::policy as reminders;
use foretell_domain::score::no_show::model::PublishedDocument;
use foretell_domain::score::{login, no_show};
use foretell_domain::view::policy::PolicyRow;
use foretell_engine::rows::Rows;
use foretell_events::policy::{Invalid, Kind, Version};
use foretell_ports::Error;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Tenants whose policy is kept in memory; the least recently used is evicted first.
const TENANTS_MAX: usize = 10_000;

/// The tenant's policy could not be read, so that of the settings was used.
pub const POLICY_UNAVAILABLE: &str = "POLICY_UNAVAILABLE";
/// The latest document cannot be used, so an earlier version was used.
pub const POLICY_INVALID: &str = "POLICY_INVALID";

/// A document that a tenant may publish, and the policy that results from it.
pub trait PolicyDocument: Clone + Serialize + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;

    /// The policy that results from merging a document over the settings.
    fn read(document: &Value, settings: &Self) -> Result<Self, Invalid>;
}

impl PolicyDocument for login::LoginPolicy {
    const KIND: Kind = Kind::Login;

    fn read(document: &Value, settings: &Self) -> Result<Self, Invalid> {
        Self::read(document, settings)
    }
}

impl PolicyDocument for reminders::ReminderPolicy {
    const KIND: Kind = Kind::Reminders;

    fn read(document: &Value, settings: &Self) -> Result<Self, Invalid> {
        Self::read(document, settings)
    }
}

impl PolicyDocument for PublishedDocument {
    const KIND: Kind = Kind::NoShowModel;

    fn read(document: &Value, settings: &Self) -> Result<Self, Invalid> {
        Self::read(document, settings)
    }
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Active<D> {
    /// The number of its version, or the digest of the settings.
    pub version: String,
    /// The version that a change replaces, whether or not it can be used: see [`PublishedPolicies::latest`].
    pub latest: Latest,
    /// The policy itself.
    pub policy: D,
    /// The published version; none if the settings are in force.
    pub published: Option<Version>,
    /// A stable code that callers should see.
    pub warning: Option<&'static str>,
}

/// The version that a change replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latest {
    /// The number of the latest published version; if there is none, the digest of the settings.
    pub version: String,
    /// When it was published, in milliseconds since the epoch; none if nothing was published.
    pub published_at_ms: Option<i64>,
    /// No earlier remembered version was published in the same second, so a date in whole seconds identifies this
    /// version uniquely.
    pub is_dated_alone: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let (login, reminders) = (login::LoginPolicy::default(), reminders::ReminderPolicy::default());
        Self { login, reminders, protected_attributes: no_show::Config::default().protected_attributes }
    }
}

/// The policies of all kinds.
#[derive(Clone)]
pub struct Policies {
    /// The thresholds, signals and rules for logins.
    pub login: Arc<InForce<login::LoginPolicy>>,
    /// When and how clients are reminded.
    pub reminders: Arc<InForce<reminders::ReminderPolicy>>,
    /// Which model scores visits.
    pub no_show_model: Arc<InForce<PublishedDocument>>,
}

/// The policies of tenants that have published nothing.
#[derive(Debug, Clone)]
pub struct Settings {
    /// See [`Policies::login`].
    pub login: login::LoginPolicy,
    /// See [`Policies::reminders`].
    pub reminders: reminders::ReminderPolicy,
    /// Attributes that no [model](Policies::no_show_model) may use.
    pub protected_attributes: Vec<String>,
}

impl Policies {
    /// Policies from `rows` over these settings; see [`InForce::new`].
    pub fn new(rows: &Arc<Rows>, settings: Settings, stale_ms_max: u64) -> Self {
        let Settings { login, reminders, protected_attributes } = settings;
        let no_show_model = PublishedDocument::nothing(protected_attributes);
        Self {
            no_show_model: Arc::new(InForce::new(rows.clone(), no_show_model, stale_ms_max)),
            login: Arc::new(InForce::new(rows.clone(), login, stale_ms_max)),
            reminders: Arc::new(InForce::new(rows.clone(), reminders, stale_ms_max)),
        }
    }

    /// The policies of a kind, for callers that do not need to know their type.
    pub fn of(&self, kind: Kind) -> Arc<dyn PublishedPolicies> {
        match kind {
            Kind::Login => self.login.clone(),
            Kind::Reminders => self.reminders.clone(),
            Kind::NoShowModel => self.no_show_model.clone(),
        }
    }
}

/// The policies of one kind, as the API returns and changes them.
#[async_trait]
pub trait PublishedPolicies: Send + Sync {
    /// The version that a change replaces, from a tenant's row: the latest published one, else that of the settings.
    fn latest(&self, row: &PolicyRow) -> Latest;

    /// Whether a document can be used. Blocks while rules are parsed.
    fn check(&self, document: &Value) -> Result<(), Invalid>;

    /// A tenant's complete policy in force, read from the store.
    async fn show(&self, tenant: &str) -> Result<Active<Value>, Error>;
}

#[async_trait]
impl<D: PolicyDocument> PublishedPolicies for InForce<D> {
    fn latest(&self, row: &PolicyRow) -> Latest {
        let mut versions = row.versions();
        let Some(latest) = versions.next() else { return self.settings.latest.clone() };
        let second = |version: &Version| version.published_at_ms.div_euclid(1_000);
        Latest {
            version: latest.version.to_string(),
            published_at_ms: Some(latest.published_at_ms),
            is_dated_alone: versions.all(|earlier| second(&earlier) != second(&latest)),
        }
    }

    fn check(&self, document: &Value) -> Result<(), Invalid> {
        D::read(document, &self.settings.policy).map(drop)
    }

    async fn show(&self, tenant: &str) -> Result<Active<Value>, Error> {
        let active = self.read(tenant).await?;
        Ok(Active {
            version: active.version.clone(),
            latest: active.latest.clone(),
            policy: serde_json::to_value(&active.policy).unwrap_or_default(),
            published: active.published.clone(),
            warning: active.warning,
        })
    }
}

/// The policies of one kind, of all tenants.
pub struct InForce<D> {
    rows: Arc<Rows>,
    settings: Arc<Active<D>>,
    known: Refreshed<Arc<Active<D>>>,
}

impl<D: PolicyDocument> InForce<D> {
    /// Policies from `rows`, at most `stale_ms_max` milliseconds old unless they have not been used for longer;
    /// `settings` applies to tenants that have published none.
    pub fn new(rows: Arc<Rows>, settings: D, stale_ms_max: u64) -> Self {
        let version = digest(&settings);
        let latest = Latest { version: version.clone(), published_at_ms: None, is_dated_alone: true };
        let settings = Arc::new(Active { version, latest, policy: settings, published: None, warning: None });
        let known = Refreshed::new(TENANTS_MAX, Duration::from_millis(stale_ms_max));
        Self { rows, settings, known }
    }

    /// The policy of tenants that have published nothing.
    pub fn settings(&self) -> &Arc<Active<D>> {
        &self.settings
    }

    /// A tenant's policy in force. Returns that of the settings, with a warning, if the first read does not complete by
    /// the deadline.
    pub async fn get(self: &Arc<Self>, tenant: &str, deadline: Instant) -> Arc<Active<D>> {
        let Some((active, refresh)) = self.known.get(tenant) else {
            return match timeout_at(deadline, self.read(tenant)).await {
                Ok(Ok(active)) => active,
                Ok(Err(_)) | Err(_) => {
                    Arc::new(Active { warning: Some(POLICY_UNAVAILABLE), ..self.settings.as_ref().clone() })
                }
            };
        };
        if let Some(refresh) = refresh {
            let (policies, tenant) = (Arc::clone(self), tenant.to_owned());
            tokio::spawn(async move {
                if let Err(error) = policies.read(&tenant).await {
                    tracing::warn!(tenant, %error, "the policy cannot be refreshed; the cached one stays in use");
                }
                drop(refresh);
            });
        }
        active
    }

    /// Reads a tenant's policy, even if it is cached, and caches it.
    pub async fn read(&self, tenant: &str) -> Result<Arc<Active<D>>, Error> {
        let read_at = Instant::now();
        let row = self.rows.policy(tenant, D::KIND).await?;
        let active = match (row, self.known.peek(tenant)) {
            // The policy in force need not be compiled again.
            (Some(row), Some(known)) if known.warning.is_none() && row.versions().next() == known.published => known,
            (Some(row), _) => Arc::new(self.resolved(tenant, row).await?),
            (None, _) => self.settings.clone(),
        };
        // A read that began earlier and completed later does not restore an older policy.
        Ok(self.known.keep(tenant, read_at, active))
    }

    /// The latest version that can be used.
    async fn resolved(&self, tenant: &str, row: PolicyRow) -> Result<Active<D>, Error> {
        let settings = self.settings.clone();
        let latest = self.latest(&row);
        let find = move || {
            let mut refused = Vec::new();
            for version in row.versions() {
                match compiled::<D>(&version, &settings.policy) {
                    Ok(policy) => return (Some((version, policy)), refused),
                    Err(why) => refused.push((version.version, why)),
                }
            }
            (None, refused)
        };
        // Parsing rules takes milliseconds, during which a worker could not serve other requests.
        let found = tokio::task::spawn_blocking(find).await;
        let (found, refused) = found.map_err(|panic| Error::retry("read a policy", panic))?;
        for (version, why) in &refused {
            metrics::counter!(foretell_telemetry::POLICIES_REFUSED).increment(1);
            tracing::error!(tenant, version, %why, "a published policy cannot be used; the previous one stays in force");
        }
        let warning = (!refused.is_empty()).then_some(POLICY_INVALID);
        Ok(match found {
            Some((version, policy)) => {
                Active { version: version.version.to_string(), latest, policy, published: Some(version), warning }
            }
            None => Active { latest, warning, ..self.settings.as_ref().clone() },
        })
    }
}

fn compiled<D: PolicyDocument>(version: &Version, settings: &D) -> Result<D, String> {
    let document = serde_json::from_str(&version.document).map_err(|error| error.to_string())?;
    D::read(&document, settings).map_err(|invalid| invalid.to_string())
}

fn digest(settings: &impl Serialize) -> String {
    let text = serde_json::to_string(settings).unwrap_or_default();
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}
