//! The catalogue: which types of events there are, in which topic each lives, and the schema of its data.
//!
//! The files under `catalog/` are what other systems read. The binary carries the same files, so that documents and
//! error messages speak of exactly what the codec reads; a test holds the two against each other.

use crate::Topic;
use crate::suggest;

/// A type of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// The CloudEvents `type`.
    pub name: &'static str,
    /// Where its records live.
    pub topic: Topic,
    /// JSON Schema 2020-12 of its data.
    pub schema: &'static str,
}

macro_rules! types {
    ($($topic:ident: $($name:literal),+;)+) => {
        &[$($(Type {
            name: concat!("foretell.", $name),
            topic: Topic::$topic,
            schema: include_str!(concat!("../../../catalog/schemas/foretell.", $name, ".schema.json")),
        }),+),+]
    };
}

/// Every type that is a fact, by topic.
pub const TYPES: &[Type] = types! {
    Logins:
        "login.succeeded", "login.failed", "login.confirmed", "login.reported",
        "device.trusted", "device.revoked", "user.erased";
    Appointments:
        "appointment.booked", "appointment.rescheduled", "appointment.confirmed", "appointment.attended",
        "appointment.missed", "appointment.cancelled", "appointment.deleted",
        "client.updated", "client.erased",
        "reminder.requested", "reminder.delivered", "reminder.failed", "reminder.confirmed_by_client";
    Reminders:
        "reminder.due", "reminder.withdrawn";
    Policies:
        "policy.published";
};

/// What is written of every score. It is no fact and folded into nothing, so the codec of events does not read it:
/// [`foretell_domain::decision::made`] writes and reads it.
pub const DECISION: Type = Type {
    name: "foretell.decision.made",
    topic: Topic::Decisions,
    schema: include_str!("../../../catalog/schemas/foretell.decision.made.schema.json"),
};

/// `catalog/topics.toml`: topics, their keys and their types, described.
pub const TOPICS: &str = include_str!("../../../catalog/topics.toml");

/// JSON Schema 2020-12 of a policy for logins, as tenants write it.
pub const LOGIN_POLICY: &str = include_str!("../../../catalog/policies/login.schema.json");

/// JSON Schema 2020-12 of a policy for reminders, as tenants write it.
pub const REMINDERS_POLICY: &str = include_str!("../../../catalog/policies/reminders.schema.json");

/// The type of that name.
pub fn find(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|known| known.name == name)
}

/// The known type that an unknown name most resembles, if any does.
pub fn suggest(name: &str) -> Option<&'static str> {
    const NAME_BYTES_MAX: usize = 128;
    // All names begin alike.
    const ALIKE_MIN: f64 = 0.85;
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    suggest::nearest(name, TYPES.iter().map(|known| known.name), ALIKE_MIN)
}
