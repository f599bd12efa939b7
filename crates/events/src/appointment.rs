//! Appointment and client facts.

use crate::Topic;
use crate::fact::event_types;
use crate::reminder::{Feedback, Request};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

event_types! {
    /// The facts about clients, their appointments, and what happened to their reminders.
    pub enum AppointmentFact in Topic::Appointments as crate::Fact::Appointment {
        /// An appointment exists.
        Booked(Box<Booking>) = "foretell.appointment.booked" to Report,
        /// An appointment has another start.
        Rescheduled(Box<Booking>) = "foretell.appointment.rescheduled" to Report,
        /// The client confirmed the visit.
        Confirmed(AppointmentRef) = "foretell.appointment.confirmed" to Report,
        /// The client came.
        Attended(AppointmentRef) = "foretell.appointment.attended" to Report,
        /// The client did not come.
        Missed(AppointmentRef) = "foretell.appointment.missed" to Report,
        /// The client or the business cancelled it.
        Cancelled(Cancellation) = "foretell.appointment.cancelled" to Report,
        /// It was entered in error and leaves no trace in the history.
        Deleted(AppointmentRef) = "foretell.appointment.deleted" to Report,
        /// How and when a client may be reached.
        ClientUpdated(Box<ClientUpdate>) = "foretell.client.updated" to Report,
        /// Everything about the client is forgotten.
        ClientErased(ClientErasure) = "foretell.client.erased" to Erase,
        /// A person requests a reminder now.
        ReminderRequested(Box<Request>) = "foretell.reminder.requested" to Remind,
        /// A reminder reached the client.
        ReminderDelivered(Box<Feedback>) = "foretell.reminder.delivered" to Report,
        /// A reminder did not reach the client.
        ReminderFailed(Box<Feedback>) = "foretell.reminder.failed" to Report,
        /// The client confirmed the visit in response to a reminder.
        ReminderConfirmed(Box<Feedback>) = "foretell.reminder.confirmed_by_client" to Report,
    }
}

/// A start as it was sent: either an instant, or a local time in a zone.
///
/// Both keep what is needed to derive the instant again with other zone rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartsAt {
    /// RFC 3339 with an offset; the zone may be given in addition.
    Instant {
        /// The instant.
        at_ms: i64,
        /// IANA zone of the visit, checked.
        zone: Option<String>,
    },
    /// A wall-clock time and its zone.
    Local {
        /// `YYYY-MM-DDTHH:MM:SS`, a date and time that exist on a calendar.
        local: jiff::civil::DateTime,
        /// IANA zone, checked.
        zone: String,
    },
}

/// An appointment with its start (`foretell.appointment.booked`, `.rescheduled`).
#[derive(Debug, Clone, PartialEq)]
pub struct Booking {
    /// The appointment.
    pub appointment_id: String,
    /// The client.
    pub client_id: String,
    /// When the visit begins.
    pub starts_at: StartsAt,
    /// How long it takes.
    pub duration_minutes: Option<u32>,
    /// Where.
    pub location_id: Option<String>,
    /// The practitioner.
    pub practitioner_id: Option<String>,
    /// The service, such as a treatment.
    pub service: Option<String>,
    /// When it was booked, if not at the event's time.
    pub booked_at_ms: Option<i64>,
    /// Further attributes from the tenant: strings, numbers, booleans.
    pub attributes: BTreeMap<String, Scalar>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A truth value.
    Boolean(bool),
    /// A finite number.
    Number(f64),
    /// A text.
    Text(String),
}

/// A fact about an appointment without further data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppointmentRef {
    /// The appointment.
    pub appointment_id: String,
    /// The client.
    pub client_id: String,
}

/// Who cancelled an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelledBy {
    /// The client.
    Client,
    /// The business.
    Business,
}

/// `foretell.appointment.cancelled`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancellation {
    /// The appointment.
    pub appointment_id: String,
    /// The client.
    pub client_id: String,
    /// Why.
    pub reason: Option<String>,
    /// Who cancelled it.
    pub by: Option<CancelledBy>,
}

/// A way to reach a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// WhatsApp message.
    Whatsapp,
    /// Text message.
    Sms,
    /// E-mail.
    Email,
    /// Push notification to an app.
    Push,
    /// A person calls.
    Call,
}

impl Channel {
    /// The name in events and configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Sms => "sms",
            Self::Email => "email",
            Self::Push => "push",
            Self::Call => "call",
        }
    }

    /// The channel of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Whatsapp, Self::Sms, Self::Email, Self::Push, Self::Call].into_iter().find(|c| c.name() == name)
    }
}

/// One channel of a client and whether it may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// The channel.
    pub channel: Channel,
    /// Whether the client agreed to it.
    pub consent: bool,
    /// Where the sender finds the address; never the address itself.
    pub address_ref: Option<String>,
}

/// Minutes after local midnight between which nothing is sent; equal values mean no quiet hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// First quiet minute, 0 to 1439.
    pub from_minute: u16,
    /// First minute that is not quiet again, 0 to 1439.
    pub to_minute: u16,
}

/// A field of an update: missing, `null`, or with a value.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum FieldUpdate<T> {
    /// Keeps the previous value.
    #[default]
    Keep,
    /// Removes the previous value.
    Clear,
    /// Sets this value.
    Set(T),
}

/// `foretell.client.updated`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientUpdate {
    /// The client.
    pub client_id: String,
    /// IANA zone, checked.
    pub time_zone: FieldUpdate<String>,
    /// BCP 47 tag.
    pub language: FieldUpdate<String>,
    /// Channels in order of preference; at most 16. An empty list refuses all.
    pub channels: FieldUpdate<Vec<Consent>>,
    /// When not to send.
    pub quiet_hours: FieldUpdate<QuietHours>,
    /// Further attributes from the tenant.
    pub attributes: FieldUpdate<BTreeMap<String, Scalar>>,
}

/// A client whose data is erased (`foretell.client.erased`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientErasure {
    /// The client.
    pub client_id: String,
}
