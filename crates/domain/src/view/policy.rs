//! The owner row of policies: the document in force for a tenant, and the earlier ones.
//!
//! The topic is compacted: it is only sure to keep the last record of each policy. So the fold is as simple as
//! possible: the row is the content of the last record, and nothing that it depends on may be in an earlier one. That
//! is why a publication contains its history, and why repetitions are not recognised: they have the same content.

use super::{Contribution, Fold, FoldOutcome, Limits, RecordPosition, Skip};
use crate::address::{Family, RowKey, View};
use foretell_events::policy::{Kind, PolicyFact, Version};
use foretell_events::{Event, Fact, key};
use serde::{Deserialize, Serialize};

/// The state of a policy's row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// The version that was published last; 0 if there is none.
    pub version: u32,
    /// When.
    pub published_at_ms: i64,
    /// Who published it.
    pub published_by: Option<String>,
    /// The idempotency key of the request that published it, if it had one.
    pub request: Option<String>,
    /// A JSON object.
    pub document: String,
    /// The versions before it, the latest first.
    pub earlier: Vec<Version>,
}

impl PolicyRow {
    /// Version and document of all that are kept, the latest first.
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
pub struct PolicyFold {
    /// What it depends on in addition to the log.
    pub limits: Limits,
}

impl Fold for PolicyFold {
    type Owner = PolicyRow;
    type Decision = ();
    const FAMILY: Family = Family::Policies;
    const OWNER: View = View::Policy;

    fn fold(&self, policy: &mut PolicyRow, event: &Event, _: RecordPosition) -> FoldOutcome<()> {
        let Fact::Policy(PolicyFact::Published(publication)) = &event.fact else {
            return FoldOutcome::Skipped(Skip::Unchanged);
        };
        *policy = PolicyRow {
            version: publication.version,
            published_at_ms: event.envelope.time_ms,
            published_by: publication.published_by.clone(),
            request: publication.request.clone(),
            document: publication.document.clone(),
            earlier: publication.earlier.clone(),
        };
        FoldOutcome::Applied(())
    }

    fn contributions(&self, _: &Event, _: &(), _: RecordPosition) -> Vec<Contribution> {
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
