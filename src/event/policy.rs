//! Facts about policies: which document decides for a tenant.

use serde::{Deserialize, Serialize};

/// Longest document, in bytes of JSON.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024;
/// Most versions that a publication carries along besides its own.
pub const EARLIER_MAX: usize = 15;

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Scores of logins.
    Login,
}

impl Kind {
    /// The name in paths, keys and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Login].into_iter().find(|kind| kind.name() == name)
    }
}

/// A policy of a tenant from now on (`foretell.policy.published`).
///
/// It carries the versions before it along, so that the last record of a key says all that its topic, which is
/// compacted, has to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What it is for.
    pub kind: Kind,
    /// From 1; one more than the version before.
    pub version: u32,
    /// What the tenant wants otherwise, a JSON object of at most [`DOCUMENT_BYTES_MAX`], as canonical text.
    pub document: String,
    /// Who published it.
    pub published_by: Option<String>,
    /// Versions before it, the latest first; at most [`EARLIER_MAX`].
    pub earlier: Vec<Version>,
}

/// A version of a policy that another one has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// From 1.
    pub version: u32,
    /// When it was published.
    pub published_at_ms: i64,
    /// Its document, as canonical text.
    pub document: String,
}
