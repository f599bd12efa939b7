//! The fold: how an event changes the row of its owner, and what that means for the rows it shares.
//!
//! ```text
//!  event ─► Fold::fold(owner row) ─► Outcome ─► Fold::contributions ─► Aggregate::apply(delta), one row each
//!           the only place with        kept in the       derived from event
//!           history: repeated?         owner row until    and decision alone,
//!           first success? corrected?  it is durable      so that a replay agrees
//! ```
//!
//! Everything here is a pure function of the log: no clock, no randomness, no I/O, no hash order. Network, country and
//! city are in the event. Other inputs of a fold are in [`Limits`] and in the versions of the rules for zones and user
//! agents, and [`fingerprint`] names all three; a process folds only generations whose fingerprint is its own.
//!
//! An **owner row** belongs to one user or client, and only one partition writes it. An **aggregate row** counts over
//! owners: each source partition keeps its own partial, and a reader [merges](Merge::merge) them.
//!
//! The families and views are the rows of one table, from which their names, tags and states follow everywhere.

pub mod agenda;
pub mod cell;
pub mod client;
pub mod feature;
pub mod lead;
pub mod lookup;
pub mod materialized;
pub mod outcome;
pub mod policy;
pub mod recent;
pub mod sent;
pub mod sketch;
mod states;
pub mod user;

pub use states::{Mismatch, StateVisitor, print};

use crate::address::{Bucket, Family, RowKey, View};
use foretell_events::{Event, agent, zone};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use states::generate;
use std::fmt::Debug;

/// The families and views. `address.rs` makes [`Family`] and [`View`] of it; `view/states.rs` [`Delta`], [`Aggregate`],
/// [`with_state`] and [`Family::with_fold`].
///
/// A family's row has its tag and the family that decides its number of partitions. Its topic has the same name.
///
/// A view's row has its tag, its name, its family, how its rows are found, and their state:
/// - `owner {fold}`: the owner rows of a family, with the state of its fold. Each family has one such view.
/// - `aggregate {state}`: rows that are shared by owners, with a state of their own.
/// - `as {View: state, in buckets Bucket: other}`: the state of another view, and another state in some buckets.
///
/// Tags and names are stored, and so is the order: rows are never changed, and only added at the end.
macro_rules! table {
    ($expand:ident) => {
        $expand! {
            families {
                /// Views of the logins topic.
                Logins = 1, led by Logins;
                /// Views of the appointments topic.
                Appointments = 2, led by Appointments;
                /// Views of the reminders topic.
                Reminders = 3, led by Appointments;
                /// Views of the policies topic.
                Policies = 4, led by Policies;
            }
            views {
                /// Owner rows of logins: known devices and login history of a user.
                User = 1 "user" of Logins, by Key, owner { user::LoginFold };
                /// How often a value of a login feature was seen, and by how many.
                Feature = 2 "feature" of Logins, by Key, aggregate { Box<feature::Feature> };
                /// Owner rows of appointments: a client, their appointments and their history.
                Client = 3 "client" of Appointments, by Key, owner { client::AppointmentFold };
                /// A tenant's outcomes by lead bucket.
                Lead = 4 "lead" of Appointments, by Key, aggregate { lead::Lead };
                /// Clients with visits or requests for a reminder, by hour.
                Agenda = 5 "agenda" of Appointments, by Hour, aggregate { agenda::Agenda };
                /// Appointment to client.
                Lookup = 6 "lookup" of Appointments, by Key, aggregate { lookup::Lookup };
                /// Owner rows of reminders: what was announced to a client.
                Sent = 7 "sent" of Reminders, by Key, owner { sent::ReminderFold };
                /// Clients with announcements, by hour of the announced start; and a calendar of these hours.
                Announced = 8 "announced" of Reminders, by Hour,
                    as { Agenda: agenda::Agenda, in buckets Calendar: sent::Calendar };
                /// Owner rows of policies: the documents that apply to a tenant.
                Policy = 9 "policy" of Policies, by Key, owner { policy::PolicyFold };
                /// A tenant's outcomes of one day, with what was known before.
                Outcome = 10 "outcome" of Appointments, by Key, aggregate { outcome::DayOutcomes };
            }
        }
    };
}

pub(crate) use table;
table!(generate);

/// Raised whenever the same log results in different rows than before.
pub const FOLD_VERSION: u32 = 8;

/// What a fold depends on in addition to the log; part of the fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// IANA zone of visits if neither the event nor the client has one.
    pub time_zone_default: String,
    /// Directory of zone rules that override the bundled ones. A fold depends on its contents, which the fingerprint
    /// names, and not on its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zones_dir: Option<std::path::PathBuf>,
    /// Devices kept per user; revoked ones are forgotten first, then the one seen longest ago, trusted ones last.
    pub user_devices_max: usize,
    /// Values kept per user and login feature; the rarest is forgotten first, then the one seen longest ago.
    pub user_values_max: usize,
    /// Latest successes kept per user: a report can remove them from the history, and travel is judged by them. The
    /// oldest is forgotten first, and stays counted in the history.
    pub user_logins_max: usize,
    /// Failures kept per user for the short window; the oldest is forgotten first.
    pub user_failures_max: usize,
    /// Accounts with recent failures kept per address or network; the oldest is forgotten first.
    pub fan_out_users_max: usize,
    /// Appointments kept per client. Forgotten first are notes of appointments that were never placed, then visits that
    /// are cancelled or over, the farthest from now first, then future visits, the farthest first; if that is the
    /// appointment of the event itself, the event is skipped.
    pub client_appointments_max: usize,
    /// On-demand requests kept per appointment; the oldest is forgotten first, but none younger than a day: if all are
    /// younger, further ones are not accepted.
    pub appointment_requests_max: usize,
    /// Receipts of reminders kept per appointment; the oldest is forgotten first.
    pub appointment_receipts_max: usize,
    /// Announcements kept per appointment: enough for those of a policy for one visit and the requests of a day; the
    /// oldest withdrawn one is forgotten first.
    pub appointment_reminders_max: usize,
    /// Outcomes kept per tenant, day and source partition, with what was known before them; a uniform sample of all.
    pub outcome_samples_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time_zone_default: "UTC".into(),
            time_zones_dir: None,
            user_devices_max: 32,
            user_values_max: 64,
            user_logins_max: 16,
            user_failures_max: 128,
            fan_out_users_max: 64,
            client_appointments_max: 256,
            appointment_requests_max: 8,
            appointment_receipts_max: 16,
            appointment_reminders_max: 64,
            outcome_samples_max: 1_024,
        }
    }
}

/// A name of everything that a fold depends on: equal fingerprints mean equal rows from equal logs.
pub fn fingerprint(limits: &Limits) -> String {
    // A struct is serialised with its names in declaration order, so the text is canonical.
    let limits = serde_json::to_string(&Limits { time_zones_dir: None, ..limits.clone() }).unwrap_or_default();
    let digest = xxhash_rust::xxh3::xxh3_64(limits.as_bytes());
    format!("fold{FOLD_VERSION}-zones{}-agents{}-limits{digest:016x}", zone::version(), agent::rules())
}

/// The version of the fold in a fingerprint; none if it contains none.
pub fn fold_version(fingerprint: &str) -> Option<u32> {
    fingerprint.strip_prefix("fold")?.split('-').next()?.parse().ok()
}

/// The position of the event, reduced to what a fold may use.
#[derive(Debug, Clone, Copy)]
pub struct RecordPosition {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
}

/// The result of an event for an owner row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoldOutcome<D> {
    /// It changed nothing, for this reason.
    Skipped(Skip),
    /// It was folded, with this decision.
    Applied(D),
}

/// Why an event changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Skip {
    /// It is a repetition, see [`recent`].
    Repeated,
    /// It is not later than the erasure of its subject.
    Erased,
    /// It restates the current state, or a later event overrules it.
    Unchanged,
    /// The row of its subject is full of more important entries. The event is not remembered, so it can be sent again.
    NoRoom,
    /// The visit cannot have that outcome yet. The event is not remembered, so it can be sent again, for example after
    /// the visit was moved to an earlier start.
    Impossible,
}

impl<D> FoldOutcome<D> {
    /// Why the event changed nothing; none if it changed something.
    pub const fn skipped(&self) -> Option<Skip> {
        match self {
            Self::Skipped(reason) => Some(*reason),
            Self::Applied(_) => None,
        }
    }
}

impl Skip {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Repeated, Self::Erased, Self::Unchanged, Self::NoRoom, Self::Impossible];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Erased => "erased",
            Self::Unchanged => "unchanged",
            Self::NoRoom => "no_room",
            Self::Impossible => "impossible",
        }
    }
}

/// What an event changes in an aggregate row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// View of the row.
    pub view: View,
    /// Bucket of the row.
    pub bucket: i64,
    /// Key of the row.
    pub key: String,
    /// The change.
    pub delta: Delta,
}

impl Contribution {
    /// A change of the row at `key`.
    pub fn new(key: RowKey, delta: Delta) -> Self {
        Self { view: key.view, bucket: key.bucket, key: key.key, delta }
    }

    /// The row that changes, and how.
    pub fn into_parts(self) -> (RowKey, Delta) {
        (RowKey { view: self.view, bucket: self.bucket, key: self.key }, self.delta)
    }
}

impl Aggregate {
    /// The state of a row before its first change. Fails for owner rows.
    pub fn empty(key: &RowKey) -> Result<Self, Mismatch> {
        with_state(key, states::Empty(key))
    }

    /// The state of the row at `key` from its bytes. Also fails for owner rows.
    pub fn decode(key: &RowKey, bytes: &[u8]) -> Result<Self, cell::Corrupt> {
        with_state(key, states::Decode(key, bytes))
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }
}

/// The state of an aggregate row: what owners contribute to it.
pub trait AggregateView: Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync {
    /// What one event changes.
    type Delta: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync;

    /// Applies a change. Equal changes in equal order result in equal states.
    fn apply(&mut self, delta: &Self::Delta, limits: &Limits);
}

/// The state of an aggregate row that several source partitions write: each writes its own partial.
pub trait Merge: AggregateView {
    /// Adds the partial of another partition. The order of partials makes no difference.
    fn merge(&mut self, other: &Self);
}

/// An operation on a family that is generic over its fold. See [`Family::with_fold`].
pub trait FoldVisitor {
    /// Its result.
    type Output;

    /// Runs with the fold of the family.
    fn visit<F: Fold>(self, fold: F) -> Self::Output;
}

/// How the events of one family become rows.
pub trait Fold: Debug + Clone + Send + Sync + 'static {
    /// The state of an owner row.
    type Owner: Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync;
    /// What the owner row decided about an event: with the event, enough to derive its contributions again.
    type Decision: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync;

    /// The family.
    const FAMILY: Family;
    /// The view of the owner rows.
    const OWNER: View;

    /// Folds an event into its owner's row.
    fn fold(&self, owner: &mut Self::Owner, event: &Event, place: RecordPosition) -> FoldOutcome<Self::Decision>;

    /// Whether the event came too late to change what it is about, which is counted.
    fn is_too_late(_: &Self::Decision) -> bool {
        false
    }

    /// Whether a future visit was forgotten to make space for that of the event, which is counted.
    fn has_displaced(_: &Self::Decision) -> bool {
        false
    }

    /// How the event resolved its subject, which is counted; reads the row after the event was folded.
    fn resolved_as(_: &Self::Owner, _: &Event) -> Option<&'static str> {
        None
    }

    /// What the event changes in aggregate rows, each row at most once.
    fn contributions(&self, event: &Event, decision: &Self::Decision, place: RecordPosition) -> Vec<Contribution>;

    /// What a fold depends on in addition to the log.
    fn limits(&self) -> &Limits;
}
