//! Facts about policies: the document that determines a tenant's decisions or reminders.

use crate::Topic;
use crate::fact::event_types;
use crate::suggest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

event_types! {
    /// The facts about policies; Foretell writes them.
    pub enum PolicyFact in Topic::Policies as crate::Fact::Policy {
        /// A tenant has a new version of a policy from now on.
        Published(Box<Publication>) = "foretell.policy.published" to Report,
    }
}

/// Longest document, in bytes of JSON.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024;
/// Longest text that a document is read from, in bytes: the difference to the limit of the document is for comments and
/// white space.
pub const TEXT_BYTES_MAX: usize = 4 * DOCUMENT_BYTES_MAX;
/// Most earlier versions that a publication contains.
pub const EARLIER_MAX: usize = 15;

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Scores of logins.
    Login,
    /// When and how clients are reminded.
    Reminders,
    /// The trained model that scores visits.
    NoShowModel,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Login, Self::Reminders, Self::NoShowModel];

    /// The name in paths, keys and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Reminders => "reminders",
            Self::NoShowModel => "no-show-model",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A tenant's policy from now on (`foretell.policy.published`).
///
/// It contains the earlier versions, so that the last record of a key contains everything that its topic, which is
/// compacted, has to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What it is for.
    pub kind: Kind,
    /// From 1; one more than the version before.
    pub version: u32,
    /// The tenant's differences from the settings, a JSON object of at most [`DOCUMENT_BYTES_MAX`], as canonical text.
    pub document: String,
    /// Who published it.
    pub published_by: Option<String>,
    /// The idempotency key of the request that published it, if it had one.
    pub request: Option<String>,
    /// Earlier versions, the latest first; at most [`EARLIER_MAX`].
    pub earlier: Vec<Version>,
}

/// An earlier version of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// From 1.
    pub version: u32,
    /// When it was published.
    pub published_at_ms: i64,
    /// Its document, as canonical text.
    pub document: String,
    /// See [`Publication::request`].
    pub request: Option<String>,
}

/// A document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct Invalid {
    /// The place in the document, a JSON pointer (RFC 6901); empty for the whole document.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

impl Invalid {
    /// What is wrong at a place.
    pub fn at(pointer: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        Self { pointer: pointer.into(), detail: detail.to_string() }
    }
}

/// The value of a document merged into `base`: a JSON merge patch (RFC 7396), so that a list replaces a list. The
/// caller decides whether the result can be used.
pub fn over<T: Serialize + DeserializeOwned>(document: &Value, base: &T) -> Result<T, Invalid> {
    if !document.is_object() {
        return Err(Invalid::at("", "a policy must be a table of settings"));
    }
    if document.to_string().len() > DOCUMENT_BYTES_MAX {
        return Err(Invalid::at("", format!("longer than {DOCUMENT_BYTES_MAX} bytes")));
    }
    let mut whole = serde_json::to_value(base).map_err(|error| Invalid::at("", error))?;
    json_patch::merge(&mut whole, document);
    read(&whole)
}

/// The value of a complete document; errors name the place.
pub fn read<T: DeserializeOwned>(document: &Value) -> Result<T, Invalid> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let pointer = pointer(error.path());
        Invalid::at(pointer, suggest::explained(&error.into_inner().to_string()))
    })
}

/// The JSON pointer of a path.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { variant } => format!("{pointer}/{variant}"),
        Segment::Unknown => pointer,
    })
}
