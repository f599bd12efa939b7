//! The catalog: the event types, the topic of each, and the schema of its data.
//!
//! Other systems read the files under `catalog/`. The binary contains the same files, so that documents and error
//! messages describe exactly what the codec reads; a test compares the two.

use crate::fact::event_type;
use crate::suggest;
use crate::{Fact, Topic};

/// A type of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// The CloudEvents `type`.
    pub name: &'static str,
    /// The topic of its records.
    pub topic: Topic,
    /// JSON Schema 2020-12 of its data.
    pub schema: &'static str,
}

/// Every event type that is a fact, by topic.
pub fn types() -> impl Iterator<Item = &'static Type> {
    Fact::types()
}

/// The event type of decision records. It is not a fact and not folded, so the codec of events does not read it:
/// `foretell_domain::decision::record` writes and reads it.
pub const DECISION: Type = event_type!(Topic::Decisions, "foretell.decision.made");

/// `catalog/topics.toml`: descriptions of topics, their keys and their types.
pub const TOPICS: &str = include_str!("../../../catalog/topics.toml");

/// JSON Schema 2020-12 of a policy for logins, as tenants write it.
pub const LOGIN_POLICY: &str = include_str!("../../../catalog/policies/login.schema.json");

/// JSON Schema 2020-12 of a policy for reminders, as tenants write it.
pub const REMINDERS_POLICY: &str = include_str!("../../../catalog/policies/reminders.schema.json");

/// The type of that name.
pub fn find(name: &str) -> Option<&'static Type> {
    types().find(|known| known.name == name)
}

/// The known type that is most similar to an unknown name, if any is.
pub fn suggest(name: &str) -> Option<&'static str> {
    const NAME_BYTES_MAX: usize = 128;
    // All names begin with the same text.
    const ALIKE_MIN: f64 = 0.85;
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    suggest::nearest(name, types().map(|known| known.name), ALIKE_MIN)
}
