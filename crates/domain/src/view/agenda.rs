//! The clients that the planner must examine, by hour.
//!
//! The rows of an hour and source partition are in one bucket, so that one scan returns them. A row belongs to a client
//! and lists the client's entries in that hour. It only finds candidates: the client's own row decides. An empty row is
//! kept.

use super::{AggregateView, Limits};
use crate::address::{Bucket, RowKey, View};
use foretell_events::key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The address of a client's row in a bucket of `view`: the agenda, or the announced.
pub fn row_key(view: View, bucket: Bucket, tenant: &str, client_id: &str) -> RowKey {
    RowKey::in_bucket(view, bucket, key::of(tenant, client_id))
}

/// The changes of one event: by how much the number of each entry in the hour rises or falls.
pub type Delta = Vec<(String, i32)>;

/// The state of a client's row in an hour: its appointments or reminders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agenda {
    /// Never 0.
    pub entries: BTreeMap<String, i32>,
}

impl AggregateView for Agenda {
    type Delta = Delta;

    fn apply(&mut self, delta: &Delta, _: &Limits) {
        for (entry, times) in delta {
            let count = self.entries.entry(entry.clone()).or_default();
            *count += times;
            if *count == 0 {
                self.entries.remove(entry);
            }
        }
    }
}
