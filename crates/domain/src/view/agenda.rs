//! Whom the planner must look at, by hour.
//!
//! The rows of an hour and source partition stand in one bucket, so that one scan returns them; a row is a client
//! and says which of their things lie in that hour. It only finds candidates: the client's own row decides.
//! A row that holds nothing any more stays, empty.

use crate::address::{RowKey, View};
use foretell_events::key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 60 * 60 * 1000;

/// Added to the buckets of requests: above all those of starts.
const REQUESTED: i64 = 1 << 48;

/// What happens in the hour that a bucket stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A visit starts.
    Starts,
    /// Somebody asked for a reminder by hand.
    Requested,
}

/// The bucket of an hour and source partition.
pub fn bucket(kind: Kind, at_ms: i64, partition: u32) -> i64 {
    let kind = match kind {
        Kind::Starts => 0,
        Kind::Requested => REQUESTED,
    };
    kind + (at_ms.div_euclid(HOUR_MS) << 16) + i64::from(partition)
}

/// When the hour begins whose visits a bucket holds, of that source partition; none of other buckets.
pub fn starts_of(bucket: i64, partition: u32) -> Option<i64> {
    let at_ms = (bucket >> 16) * HOUR_MS;
    (self::bucket(Kind::Starts, at_ms, partition) == bucket && bucket < REQUESTED).then_some(at_ms)
}

/// The address of a client's row in a bucket of `view`: the agenda, or the announced.
pub fn row_key(view: View, bucket: i64, tenant: &str, client_id: &str) -> RowKey {
    RowKey { view, bucket, key: key::of(tenant, client_id) }
}

/// What one event changed: how many times more (or fewer) each thing lies in the hour.
pub type Delta = Vec<(String, i32)>;

/// The state of a client's row in an hour: appointments, or reminders, that lie in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agenda {
    /// Never 0.
    pub entries: BTreeMap<String, i32>,
}

impl Agenda {
    /// Takes changes in.
    pub fn apply(&mut self, delta: &Delta) {
        for (entry, times) in delta {
            let count = self.entries.entry(entry.clone()).or_default();
            *count += times;
            if *count == 0 {
                self.entries.remove(entry);
            }
        }
    }
}
