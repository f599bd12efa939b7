//! Facts about reminders: requested by people, announced and withdrawn by Foretell.

use super::appointment::Channel;
use crate::Topic;
use crate::fact::event_types;
use serde::{Deserialize, Serialize};

event_types! {
    /// The facts about reminders that subscribers act on; Foretell writes them. Requests for a reminder and reports of
    /// its delivery come from producers: they are facts of the topic `appointments`.
    pub enum ReminderFact in Topic::Reminders as crate::Fact::Reminder {
        /// A reminder is to be sent now.
        Due(Box<Announcement>) = "foretell.reminder.due" to Report,
        /// An announced reminder is no longer valid.
        Withdrawn(Withdrawal) = "foretell.reminder.withdrawn" to Report,
    }
}

/// `foretell.reminder.requested`: send one now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The appointment.
    pub appointment_id: String,
    /// The client.
    pub client_id: String,
    /// Used instead of the client's own channels; consent is still required.
    pub channels: Vec<Channel>,
    /// Used instead of the configured template.
    pub template: Option<String>,
    /// Why, for the record.
    pub reason: Option<String>,
    /// Digest of a request with an idempotency key, so that a different body with the same key is recognised.
    pub idempotency_digest: Option<String>,
}

/// The receipt of an announced reminder, from its sender (`foretell.reminder.delivered`, `.failed`,
/// `.confirmed_by_client`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The reminder.
    pub reminder_id: String,
    /// The appointment that it was announced for.
    pub appointment_id: String,
    /// The client.
    pub client_id: String,
    /// The channel; a failure without one means that no announced channel worked.
    pub channel: Option<Channel>,
    /// Why it failed, for the record.
    pub reason: Option<String>,
}

/// The no-show risk in a reminder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Risk {
    /// Probability of a no-show, 0 to 1.
    pub score: f64,
    /// `low`, `medium` or `high`.
    pub level: String,
}

/// `foretell.reminder.due`: the data of the event, as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Deterministic; also the event's id.
    pub reminder_id: String,
    /// The appointment.
    pub appointment_id: String,
    /// The client.
    pub client_id: String,
    /// When the visit begins, RFC 3339 in UTC.
    pub starts_at: String,
    /// The same, in the visit's zone: `YYYY-MM-DDTHH:MM:SS`.
    pub local_start: String,
    /// IANA zone of the visit.
    pub time_zone: String,
    /// `72h`, `24h` or `manual`.
    pub step: String,
    /// In order of preference.
    pub channels: Vec<Channel>,
    /// Which text to send.
    pub template: String,
    /// How likely the visit is to be missed, if the views could determine it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub risk: Option<Risk>,
    /// RFC 3339 in UTC; do not send after it.
    pub expires_at: String,
    /// All visits that the reminder names, the earliest first, if it names more than one.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub visits: Vec<NamedVisit>,
}

/// One of several visits of a client that a single reminder names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedVisit {
    /// The appointment.
    pub appointment_id: String,
    /// See [`Announcement::starts_at`].
    pub starts_at: String,
    /// See [`Announcement::local_start`].
    pub local_start: String,
}

/// `foretell.reminder.withdrawn`: the data of the event, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// The reminder that is no longer valid.
    pub reminder_id: String,
    /// Its appointment, or another one that it names: then it is no longer valid only for that one.
    pub appointment_id: String,
    /// Its client.
    pub client_id: String,
    /// `cancelled`, `rescheduled`, `deleted` or `erased`.
    pub reason: String,
}

/// The id of an on-demand reminder: the same request, the same id.
pub fn manual_id(tenant: &str, appointment_id: &str, request_event_id: &str) -> String {
    digest(&[tenant, appointment_id, "manual", request_event_id])
}

/// The id of a planned reminder. `client` is the key `tenant:client_id`: an appointment that is moved to another client
/// at the same start is announced to both, as two reminders. `local_start` with its zone identifies the start. `before`
/// counts the earlier announcements of this step to this client that were withdrawn or could not be delivered, so that
/// a visit moved away and back is announced again, and a failed reminder over another channel.
pub fn step_id(client: &str, appointment_id: &str, local_start: &str, step: &str, before: u32) -> String {
    digest(&[client, appointment_id, local_start, step, &before.to_string()])
}

/// The id of the event that withdraws a reminder, or withdraws only another visit that it names.
pub fn withdrawal_id(withdrawal: &Withdrawal, announced_for: &str) -> String {
    let Withdrawal { reminder_id, appointment_id, .. } = withdrawal;
    if appointment_id == announced_for {
        return format!("{reminder_id}-withdrawn");
    }
    format!("{reminder_id}-withdrawn-{}", digest(&[appointment_id]))
}

/// 128 bits of XXH3 over length-prefixed parts, as 32 hexadecimal digits.
fn digest(parts: &[&str]) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("{:032x}", hash.digest128())
}
