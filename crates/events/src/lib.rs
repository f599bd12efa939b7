//! The vocabulary: what can happen, to whom, and where it stands in the log.
//!
//! An [`Event`] is a fact somebody sent, decoded once by [`codec`] and trusted from there on: the addresses are
//! addresses, the zones exist, the dates exist, the ids are within their bounds. Everything behind the codec
//! works on these types and never sees JSON.
//!
//! Times are milliseconds since the Unix epoch, UTC, in fields that end in `_ms`.

pub mod address;
pub mod agent;
pub mod appointment;
pub mod catalog;
pub mod codec;
pub mod country;
pub mod document;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod gate;
pub mod judge;
pub mod key;
pub mod login;
pub mod partitioner;
pub mod policy;
pub mod record;
pub mod reminder;
pub mod suggest;
pub mod topic;
pub mod zone;

pub use topic::Topic;

use appointment::{Booking, Cancellation, ClientUpdate, Visit};
use login::{Device, Login, Verdict};
use policy::Publication;
use reminder::{Announcement, Feedback, Request, Withdrawal};

/// Longest id, in bytes, of a user, client, appointment, device, session or event.
pub const ID_BYTES_MAX: usize = 512;
/// How far an event's `time` may lie ahead of its record's own timestamp.
pub const AHEAD_MS_MAX: i64 = 5 * 60 * 1000;
/// The tenant of whoever names none.
pub const DEFAULT_TENANT: &str = "default";

/// Where a record stands: positions of different topics, partitions or epochs are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The topic.
    pub topic: Topic,
    /// The partition, from 0.
    pub partition: u32,
    /// The offset in the partition, from 0, with holes on Kafka.
    pub offset: i64,
}

/// Who said it and when: the CloudEvents attributes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Unique within `source`; at most [`ID_BYTES_MAX`] bytes.
    pub id: String,
    /// Who sent it, a URI reference.
    pub source: String,
    /// `[a-z0-9-]{1,63}`.
    pub tenant: String,
    /// When it happened.
    pub time_ms: i64,
}

/// One fact: its envelope and what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Who said it and when.
    pub envelope: Envelope,
    /// What happened.
    pub fact: Fact,
}

/// What can happen. The names of the types are in [`Fact::type_name`].
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// Somebody tried to log in, with or without success.
    Login(Box<Login>),
    /// The person says that an attempt was theirs.
    LoginConfirmed(Box<Verdict>),
    /// The person says that an attempt was not theirs.
    LoginReported(Box<Verdict>),
    /// A device is known from now on, until it is revoked.
    DeviceTrusted(Device),
    /// A device is new again.
    DeviceRevoked(Device),
    /// Everything about the user is forgotten.
    UserErased {
        /// The user.
        user_id: String,
    },
    /// An appointment exists.
    Booked(Box<Booking>),
    /// An appointment has another start.
    Rescheduled(Box<Booking>),
    /// The client said that they will come.
    Confirmed(Visit),
    /// The client came.
    Attended(Visit),
    /// The client did not come.
    Missed(Visit),
    /// Somebody called it off.
    Cancelled(Cancellation),
    /// It was entered in error and leaves no trace in the history.
    Deleted(Visit),
    /// How and when a client may be reached.
    ClientUpdated(Box<ClientUpdate>),
    /// Everything about the client is forgotten.
    ClientErased {
        /// The client.
        client_id: String,
    },
    /// Somebody asks for a reminder by hand.
    ReminderRequested(Box<Request>),
    /// A reminder reached the client.
    ReminderDelivered(Box<Feedback>),
    /// A reminder did not reach the client.
    ReminderFailed(Box<Feedback>),
    /// The client answered a reminder: they will come.
    ConfirmedByClient(Box<Feedback>),
    /// Another document decides for the tenant (written by Foretell).
    PolicyPublished(Box<Publication>),
    /// A reminder is to be sent now (written by Foretell).
    ReminderDue(Box<Announcement>),
    /// An announced reminder no longer holds (written by Foretell).
    ReminderWithdrawn(Withdrawal),
}

impl Fact {
    /// The CloudEvents `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Login(login) if login.succeeded => "foretell.login.succeeded",
            Self::Login(_) => "foretell.login.failed",
            Self::LoginConfirmed(_) => "foretell.login.confirmed",
            Self::LoginReported(_) => "foretell.login.reported",
            Self::DeviceTrusted(_) => "foretell.device.trusted",
            Self::DeviceRevoked(_) => "foretell.device.revoked",
            Self::UserErased { .. } => "foretell.user.erased",
            Self::Booked(_) => "foretell.appointment.booked",
            Self::Rescheduled(_) => "foretell.appointment.rescheduled",
            Self::Confirmed(_) => "foretell.appointment.confirmed",
            Self::Attended(_) => "foretell.appointment.attended",
            Self::Missed(_) => "foretell.appointment.missed",
            Self::Cancelled(_) => "foretell.appointment.cancelled",
            Self::Deleted(_) => "foretell.appointment.deleted",
            Self::ClientUpdated(_) => "foretell.client.updated",
            Self::ClientErased { .. } => "foretell.client.erased",
            Self::ReminderRequested(_) => "foretell.reminder.requested",
            Self::ReminderDelivered(_) => "foretell.reminder.delivered",
            Self::ReminderFailed(_) => "foretell.reminder.failed",
            Self::ConfirmedByClient(_) => "foretell.reminder.confirmed_by_client",
            Self::PolicyPublished(_) => "foretell.policy.published",
            Self::ReminderDue(_) => "foretell.reminder.due",
            Self::ReminderWithdrawn(_) => "foretell.reminder.withdrawn",
        }
    }

    /// The topic that events of this type live in.
    pub fn topic(&self) -> Topic {
        match self {
            Self::Login(_)
            | Self::LoginConfirmed(_)
            | Self::LoginReported(_)
            | Self::DeviceTrusted(_)
            | Self::DeviceRevoked(_)
            | Self::UserErased { .. } => Topic::Logins,
            Self::PolicyPublished(_) => Topic::Policies,
            Self::ReminderDue(_) | Self::ReminderWithdrawn(_) => Topic::Reminders,
            _ => Topic::Appointments,
        }
    }

    /// The digest of the request that the fact was appended for, if that had an idempotency key.
    pub fn idempotency_digest(&self) -> Option<&str> {
        match self {
            Self::LoginConfirmed(verdict) | Self::LoginReported(verdict) => verdict.idempotency_digest.as_deref(),
            Self::DeviceTrusted(device) | Self::DeviceRevoked(device) => device.idempotency_digest.as_deref(),
            Self::ReminderRequested(request) => request.idempotency_digest.as_deref(),
            _ => None,
        }
    }

    /// Sets the digest of the request that the fact is appended for; facts that take none stay as they are.
    pub fn set_idempotency_digest(&mut self, digest: &str) {
        let slot = match self {
            Self::LoginConfirmed(verdict) | Self::LoginReported(verdict) => &mut verdict.idempotency_digest,
            Self::DeviceTrusted(device) | Self::DeviceRevoked(device) => &mut device.idempotency_digest,
            Self::ReminderRequested(request) => &mut request.idempotency_digest,
            _ => return,
        };
        *slot = Some(digest.to_owned());
    }

    /// The user, client or policy that the fact is about.
    pub fn subject(&self) -> &str {
        match self {
            Self::Login(login) => &login.user_id,
            Self::LoginConfirmed(verdict) | Self::LoginReported(verdict) => &verdict.user_id,
            Self::DeviceTrusted(device) | Self::DeviceRevoked(device) => &device.user_id,
            Self::UserErased { user_id } => user_id,
            Self::Booked(booking) | Self::Rescheduled(booking) => &booking.client_id,
            Self::Confirmed(visit) | Self::Attended(visit) | Self::Missed(visit) | Self::Deleted(visit) => {
                &visit.client_id
            }
            Self::Cancelled(cancellation) => &cancellation.client_id,
            Self::ClientUpdated(update) => &update.client_id,
            Self::ClientErased { client_id } => client_id,
            Self::ReminderRequested(request) => &request.client_id,
            Self::ReminderDelivered(feedback) | Self::ReminderFailed(feedback) | Self::ConfirmedByClient(feedback) => {
                &feedback.client_id
            }
            Self::PolicyPublished(publication) => publication.kind.name(),
            Self::ReminderDue(announcement) => &announcement.client_id,
            Self::ReminderWithdrawn(withdrawal) => &withdrawal.client_id,
        }
    }
}

impl Event {
    /// The 64-bit fingerprint of source, id and type by which repetitions are recognised (XXH3).
    ///
    /// The type is part of it because producers reuse ids: one that sends the number of its booking as the id of both
    /// the booking and the cancellation means two events.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for part in [&self.envelope.source, &self.envelope.id, self.fact.type_name()] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        hash.digest()
    }

    /// The country that somebody logged in from, as far as the event names one.
    pub fn country(&self) -> Option<&str> {
        match &self.fact {
            Fact::Login(login) => login.attempt.country.as_deref(),
            Fact::LoginConfirmed(verdict) | Fact::LoginReported(verdict) => verdict.country.as_deref(),
            _ => None,
        }
    }

    /// The record key: `tenant:subject`. A tenant has no colon, so the first one separates.
    pub fn key(&self) -> String {
        key::of(&self.envelope.tenant, self.fact.subject())
    }
}
