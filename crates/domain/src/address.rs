//! Addresses of rows: which view and family they belong to, and where a store finds them.

use foretell_events::{Topic, key};
use serde::{Deserialize, Serialize};

/// Buckets of a view whose rows are spread by key. Part of the schema: changing it means a rebuild.
pub const BUCKETS: u32 = 256;

/// The rows that move together: one topic, one fold, one checkpoint a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Views of the logins topic.
    Logins,
    /// Views of the appointments topic.
    Appointments,
    /// Views of the reminders topic.
    Reminders,
    /// Views of the policies topic.
    Policies,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Logins, Self::Appointments, Self::Reminders, Self::Policies];

    /// The family of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// The name in tables, groups, metrics and commands.
    pub const fn name(self) -> &'static str {
        self.topic().name()
    }

    /// The family that decides how many partitions this one has: reminders stand where their appointments do.
    pub const fn lead(self) -> Self {
        match self {
            Self::Logins => Self::Logins,
            Self::Appointments | Self::Reminders => Self::Appointments,
            Self::Policies => Self::Policies,
        }
    }

    /// The topic that it is the fold of.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Logins => Topic::Logins,
            Self::Appointments => Topic::Appointments,
            Self::Reminders => Topic::Reminders,
            Self::Policies => Topic::Policies,
        }
    }
}

/// A set of rows of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Owner rows of logins: known devices and login history of a user.
    User,
    /// How often a value of a login feature was seen, and by how many.
    Feature,
    /// Owner rows of appointments: a client, their appointments and their history.
    Client,
    /// A tenant's outcomes by lead bucket.
    Lead,
    /// Whom to look at, by hour.
    Agenda,
    /// Appointment to client.
    Lookup,
    /// Owner rows of reminders: what was announced to a client.
    Sent,
    /// Whom something was announced to, by hour of the announced start.
    Announced,
    /// Owner rows of policies: what decides for a tenant.
    Policy,
    /// A tenant's outcomes of one day, with what was known before.
    Outcome,
}

impl View {
    /// Every view.
    pub const ALL: [Self; 10] = [
        Self::User,
        Self::Feature,
        Self::Client,
        Self::Lead,
        Self::Agenda,
        Self::Lookup,
        Self::Sent,
        Self::Announced,
        Self::Policy,
        Self::Outcome,
    ];

    /// The name in tables and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Feature => "feature",
            Self::Client => "client",
            Self::Lead => "lead",
            Self::Agenda => "agenda",
            Self::Lookup => "lookup",
            Self::Sent => "sent",
            Self::Announced => "announced",
            Self::Policy => "policy",
            Self::Outcome => "outcome",
        }
    }

    /// The family that it moves with.
    pub const fn family(self) -> Family {
        match self {
            Self::User | Self::Feature => Family::Logins,
            Self::Client | Self::Lead | Self::Agenda | Self::Lookup | Self::Outcome => Family::Appointments,
            Self::Sent | Self::Announced => Family::Reminders,
            Self::Policy => Family::Policies,
        }
    }

    /// The view of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.name() == name)
    }
}

/// The address of a row, save its source partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    /// The view.
    pub view: View,
    /// The bucket: `murmur2(key) % BUCKETS` for most views, a point in time for those that are scanned.
    pub bucket: i64,
    /// Begins with `tenant:`; at most 1 KiB.
    pub key: String,
}

impl RowKey {
    /// The address of a row that is found by its key.
    pub fn hashed(view: View, key: String) -> Self {
        let bucket = i64::from(key::partition(key.as_bytes(), BUCKETS));
        Self { view, bucket, key }
    }
}

/// A complete set of rows of a family: folded from the beginning by one fold, within one epoch of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// Whose rows.
    pub family: Family,
    /// From 1, never reused.
    pub number: u32,
    /// Which physical topic, from 0 to 100: counts its re-creations.
    pub epoch: u8,
}
