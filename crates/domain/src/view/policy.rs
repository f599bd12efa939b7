//! The owner row of policies: the document that decides for a tenant, and those before it.
//!
//! The topic is compacted: of each policy it need only keep the last record. So the fold is as simple as it can be,
//! the row is what the last record says, and nothing that it depends on may lie in an earlier one. That is why a
//! publication carries its history along, and why repetitions are not recognised: they say the same.

use super::{Contribution, Fold, Limits, Outcome, Place, Skip};
use crate::address::{Family, RowKey, View};
use foretell_events::policy::{Kind, PolicyFact, Version};
use foretell_events::{Event, Fact, key};
use serde::{Deserialize, Serialize};

/// The state of a policy's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The version that was published last; 0 where none was.
    pub version: u32,
    /// When.
    pub published_at_ms: i64,
    /// By whom.
    pub published_by: Option<String>,
    /// By which request, if that had an idempotency key.
    pub request: Option<String>,
    /// A JSON object.
    pub document: String,
    /// The versions before it, the latest first.
    pub earlier: Vec<Version>,
}

impl Policy {
    /// Version and document of all that is remembered, the latest first.
    pub fn versions(&self) -> impl Iterator<Item = Version> {
        let Self { version, published_at_ms, ref document, .. } = *self;
        let present = (version > 0).then(|| Version {
            version,
            published_at_ms,
            document: document.clone(),
            request: self.request.clone(),
        });
        present.into_iter().chain(self.earlier.iter().cloned())
    }
}

/// The fold of the policies topic.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// What it depends on besides the log.
    pub limits: Limits,
}

impl Fold for Policies {
    type Owner = Policy;
    type Decision = ();
    const FAMILY: Family = Family::Policies;
    const OWNER: View = View::Policy;

    fn fold(&self, policy: &mut Policy, event: &Event, _: Place) -> Outcome<()> {
        let Fact::Policy(PolicyFact::Published(publication)) = &event.fact else {
            return Outcome::Skipped(Skip::Unchanged);
        };
        *policy = Policy {
            version: publication.version,
            published_at_ms: event.envelope.time_ms,
            published_by: publication.published_by.clone(),
            request: publication.request.clone(),
            document: publication.document.clone(),
            earlier: publication.earlier.clone(),
        };
        Outcome::Applied(())
    }

    fn contributions(&self, _: &Event, (): &(), _: Place) -> Vec<Contribution> {
        Vec::new()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// The address of a policy's row.
pub fn row_key(tenant: &str, kind: Kind) -> RowKey {
    RowKey::hashed(View::Policy, key::of(tenant, kind.name()))
}
