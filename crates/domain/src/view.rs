//! The fold: how an event changes the row of its owner, and what that means for the rows it shares.
//!
//! ```text
//!  event ─► Fold::fold(owner row) ─► Outcome ─► Fold::contributions ─► Aggregate::apply(delta), one row each
//!           the only place with        kept in the       derived from event
//!           history: repeated?         owner row until    and decision alone,
//!           first success? corrected?  it is durable      so that a replay agrees
//! ```
//!
//! Everything here is a pure function of the log: no clock, no randomness, no I/O, no hash order. Network,
//! country and city come with the event. What else a fold depends on is in [`Limits`] and in the versions of the
//! rules for zones and user agents, and [`fingerprint`] names all three; a process folds only generations whose fingerprint is its own.
//!
//! An **owner row** belongs to one user or client and has one partition to itself. An **aggregate row** counts
//! over owners: each source partition keeps a partial of its own, and a reader [merges](Aggregate::merge) them.

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
pub mod user;

use crate::address::{Family, RowKey, View};
use foretell_events::{Event, agent, zone};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Raised whenever the same log gives other rows than before.
pub const FOLD_VERSION: u32 = 8;

/// What a fold depends on besides the log; part of the fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// IANA zone of visits whose event and client name none.
    pub time_zone_default: String,
    /// Directory of zone rules that stand over the bundled ones. Its place is not what a fold depends on, but what it
    /// holds: the fingerprint names that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zones_dir: Option<std::path::PathBuf>,
    /// Devices kept a user; revoked ones are forgotten first, then the one seen longest ago, trusted ones last.
    pub user_devices_max: usize,
    /// Values kept a user and login feature; the rarest is forgotten first, then the one seen longest ago.
    pub user_values_max: usize,
    /// Latest successes kept a user: what a report can take out of the history, and what travel is judged by; the
    /// oldest is forgotten first, and stays in the history.
    pub user_logins_max: usize,
    /// Failures kept a user for the short window; the oldest is forgotten first.
    pub user_failures_max: usize,
    /// Accounts kept an address or network that failed there of late; the oldest is forgotten first.
    pub fan_out_users_max: usize,
    /// Appointments kept a client. Forgotten first are notes of appointments that were never placed, then visits that are
    /// off or over, the farthest from now first, then visits to come, the farthest first; where that is the appointment
    /// of the event itself, the event is skipped.
    pub client_appointments_max: usize,
    /// Requests by hand kept an appointment; the oldest is forgotten first, and none that is younger than a day:
    /// while all are, further ones are not taken.
    pub appointment_requests_max: usize,
    /// Receipts of reminders kept an appointment; the oldest is forgotten first.
    pub appointment_receipts_max: usize,
    /// Announcements kept an appointment: enough for those that a policy makes of one visit, with the requests of a day;
    /// the oldest withdrawn one is forgotten first.
    pub appointment_reminders_max: usize,
    /// Outcomes kept a tenant, day and source partition, with what was known before them; an even draw of all.
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

/// Names everything that a fold depends on: equal fingerprints give equal rows from equal logs.
pub fn fingerprint(limits: &Limits) -> String {
    // A named map in declaration order: the text is canonical.
    let limits = serde_json::to_string(&Limits { time_zones_dir: None, ..limits.clone() }).unwrap_or_default();
    let digest = xxhash_rust::xxh3::xxh3_64(limits.as_bytes());
    format!("fold{FOLD_VERSION}-zones{}-agents{}-limits{digest:016x}", zone::version(), agent::rules())
}

/// The version of the fold that a fingerprint names; none where it names none.
pub fn fold_version(fingerprint: &str) -> Option<u32> {
    fingerprint.strip_prefix("fold")?.split('-').next()?.parse().ok()
}

/// Where the event stood, as far as a fold may know.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
}

/// What an owner row made of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<D> {
    /// It changed nothing, for this reason.
    Skipped(Skip),
    /// It was folded, and this was decided.
    Applied(D),
}

/// Why an event changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Skip {
    /// It is a repetition, see [`recent`].
    Repeated,
    /// It is not later than the erasure of its subject.
    Erased,
    /// It restates what already holds, or a later event overrules it.
    Unchanged,
    /// The row of its subject is full of what matters more. The event is not remembered, so it can be sent again.
    NoRoom,
    /// The visit cannot have that outcome yet. The event is not remembered, so it can be sent again, as when the visit was
    /// moved to an earlier start.
    Impossible,
}

impl<D> Outcome<D> {
    /// Why the event changed nothing; none where it changed something.
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

/// A change of an aggregate row, by view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// To [`feature::Feature`].
    Feature(feature::Delta),
    /// To [`lead::Lead`].
    Lead(lead::Delta),
    /// To [`agenda::Agenda`], of the agenda and of the announced.
    Agenda(agenda::Delta),
    /// To [`lookup::Lookup`].
    Lookup(lookup::Delta),
    /// To [`sent::Calendar`].
    Calendar(sent::CalendarDelta),
    /// To [`outcome::Outcome`].
    Outcome(outcome::Delta),
}

/// The state of an aggregate row, by view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aggregate {
    /// See [`View::Feature`].
    Feature(Box<feature::Feature>),
    /// See [`View::Lead`].
    Lead(lead::Lead),
    /// See [`View::Agenda`] and [`View::Announced`].
    Agenda(agenda::Agenda),
    /// See [`View::Lookup`].
    Lookup(lookup::Lookup),
    /// See [`sent::CALENDAR_BUCKET`].
    Calendar(sent::Calendar),
    /// See [`View::Outcome`].
    Outcome(outcome::Outcome),
}

impl Aggregate {
    /// The state of a row nobody has written.
    ///
    /// Owner views have no aggregate state; for them this is an empty agenda that nothing ever reads.
    pub fn empty(key: &RowKey) -> Self {
        match key.view {
            View::Feature => Self::Feature(Box::default()),
            View::Lead => Self::Lead(lead::Lead::default()),
            View::Lookup => Self::Lookup(lookup::Lookup::default()),
            View::Outcome => Self::Outcome(outcome::Outcome::default()),
            View::Announced if sent::is_calendar(key.bucket) => Self::Calendar(sent::Calendar::default()),
            _ => Self::Agenda(agenda::Agenda::default()),
        }
    }

    /// Takes a change in.
    pub fn apply(&mut self, delta: &Delta, limits: &Limits) {
        match (self, delta) {
            (Self::Feature(state), Delta::Feature(delta)) => state.apply(delta, limits),
            (Self::Lead(state), Delta::Lead(delta)) => state.apply(delta),
            (Self::Agenda(state), Delta::Agenda(delta)) => state.apply(delta),
            (Self::Lookup(state), Delta::Lookup(delta)) => state.apply(delta),
            (Self::Calendar(state), Delta::Calendar(delta)) => state.apply(delta),
            (Self::Outcome(state), Delta::Outcome(delta)) => state.apply(delta, limits),
            // The key decides both sides, so a mismatch cannot be built from a fold.
            _ => debug_assert!(false, "a delta of another view"),
        }
    }

    /// Canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// Puts the canonical bytes in place of what is there.
    pub fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Feature(state) => cell::write(to, state.as_ref()),
            Self::Lead(state) => cell::write(to, state),
            Self::Agenda(state) => cell::write(to, state),
            Self::Lookup(state) => cell::write(to, state),
            Self::Calendar(state) => cell::write(to, state),
            Self::Outcome(state) => cell::write(to, state),
        }
    }

    /// The state of the row at `key` from its bytes.
    pub fn decode(key: &RowKey, bytes: &[u8]) -> Result<Self, cell::Corrupt> {
        Ok(match Self::empty(key) {
            Self::Feature(_) => Self::Feature(Box::new(cell::decode_state(bytes)?)),
            Self::Lead(_) => Self::Lead(cell::decode_state(bytes)?),
            Self::Agenda(_) => Self::Agenda(cell::decode_state(bytes)?),
            Self::Lookup(_) => Self::Lookup(cell::decode_state(bytes)?),
            Self::Calendar(_) => Self::Calendar(cell::decode_state(bytes)?),
            Self::Outcome(_) => Self::Outcome(cell::decode_state(bytes)?),
        })
    }
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

    /// Takes an event into its owner's row.
    fn fold(&self, owner: &mut Self::Owner, event: &Event, place: Place) -> Outcome<Self::Decision>;

    /// Whether the event came too late to change what it is about, which is counted.
    fn is_too_late(_: &Self::Decision) -> bool {
        false
    }

    /// Whether a visit to come was forgotten to make room for that of the event, which is counted.
    fn has_displaced(_: &Self::Decision) -> bool {
        false
    }

    /// What the event has settled about its subject, which is counted; asked of the row that has just taken it in.
    fn settled(_: &Self::Owner, _: &Event) -> Option<&'static str> {
        None
    }

    /// What the event changes in aggregate rows, each row at most once.
    fn contributions(&self, event: &Event, decision: &Self::Decision, place: Place) -> Vec<Contribution>;

    /// What a fold depends on besides the log.
    fn limits(&self) -> &Limits;
}
