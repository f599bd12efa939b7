//! Facts about reminders: asked for by people, announced and withdrawn by Foretell.

use super::appointment::Channel;
use crate::Topic;
use crate::fact::event_types;
use serde::{Deserialize, Serialize};

event_types! {
    /// The facts about reminders that subscribers act on; Foretell writes them. Requests for a reminder and reports of
    /// its delivery come from producers: they are facts of the topic `appointments`.
    pub enum ReminderFact in Topic::Reminders as crate::Fact::Reminder {
        /// A reminder is to be sent now.
        Due(Box<Announcement>) = "foretell.reminder.due",
        /// An announced reminder is no longer valid.
        Withdrawn(Withdrawal) = "foretell.reminder.withdrawn",
    }
}

/// `foretell.reminder.requested`: send one now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The appointment.
    pub appointment_id: String,
    /// Whose it is.
    pub client_id: String,
    /// Instead of the client's own channels; consent still decides.
    pub channels: Vec<Channel>,
    /// Instead of the configured template.
    pub template: Option<String>,
    /// Why, for the record.
    pub reason: Option<String>,
    /// Digest of what the caller sent under an idempotency key, so that another body under it is told apart.
    pub idempotency_digest: Option<String>,
}

/// What became of an announced reminder, as whoever sent it says (`foretell.reminder.delivered`, `.failed`,
/// `.confirmed_by_client`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The reminder.
    pub reminder_id: String,
    /// The appointment that it was announced for.
    pub appointment_id: String,
    /// Whose it is.
    pub client_id: String,
    /// By which channel; of a failure, none says that no announced channel worked.
    pub channel: Option<Channel>,
    /// Why it failed, for the record.
    pub reason: Option<String>,
}

/// The no-show risk that a reminder carries.
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
    /// Whose it is.
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
    /// How likely the visit is to be missed, when the views could say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub risk: Option<Risk>,
    /// RFC 3339 in UTC; do not send after it.
    pub expires_at: String,
    /// All visits that the reminder names, the earliest first, where it names more than one.
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
    /// The reminder that no longer holds.
    pub reminder_id: String,
    /// Its appointment; another one that it names: of that one alone it does not hold any more.
    pub appointment_id: String,
    /// Its client.
    pub client_id: String,
    /// `cancelled`, `rescheduled`, `deleted` or `erased`.
    pub reason: String,
}

/// The id of a reminder that was asked for by hand: the same request, the same id.
pub fn manual_id(tenant: &str, appointment_id: &str, request_event_id: &str) -> String {
    digest(&[tenant, appointment_id, "manual", request_event_id])
}

/// The id of a planned reminder. `client` is the key `tenant:client_id`: an appointment that is moved to another
/// client at the same start is announced to both, and those are two reminders. `local_start` with its zone says which
/// start it is for, `before` how many announcements of this step to this client were withdrawn or could not be
/// delivered before, so that a visit moved away and back is announced again, and a failed reminder by another channel.
pub fn step_id(client: &str, appointment_id: &str, local_start: &str, step: &str, before: u32) -> String {
    digest(&[client, appointment_id, local_start, step, &before.to_string()])
}

/// The id of the event that withdraws a reminder, or one of the visits that it names besides its own.
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
