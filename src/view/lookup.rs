//! Appointment to client: an appointment's id alone must find the row that it lives in.
//!
//! Partials of two partitions, and events of two clients, can claim one id, as when a visit was moved to another
//! client. The one with the later booking event is meant, then the one with the smaller client id.

use crate::event::key;
use crate::store::{RowKey, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Clients kept an appointment id; the one booked first is forgotten first.
const CLAIMS_MAX: usize = 8;

/// A change of who has an appointment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// The client has it, by a booking event of that time.
    Claim {
        /// The client.
        client_id: String,
        /// Time of the booking event.
        placed_at_ms: i64,
    },
    /// The client does not have it any more.
    Release {
        /// The client.
        client_id: String,
    },
}

/// The state of an appointment's row: who claims it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Client to the time of the latest booking event.
    pub claims: BTreeMap<String, i64>,
}

impl Lookup {
    /// Takes a change in.
    pub fn apply(&mut self, delta: &Delta) {
        match delta {
            Delta::Claim { client_id, placed_at_ms } => {
                self.claims.insert(client_id.clone(), *placed_at_ms);
                if self.claims.len() > CLAIMS_MAX {
                    let first = self.claims.iter().min_by_key(|(id, at)| (**at, std::cmp::Reverse(*id)));
                    first.map(|(id, _)| id.clone()).and_then(|id| self.claims.remove(&id));
                }
            }
            Delta::Release { client_id } => {
                self.claims.remove(client_id);
            }
        }
    }

    /// Takes the partial of another partition in.
    pub fn merge(&mut self, other: &Self) {
        for (client_id, placed_at_ms) in &other.claims {
            let mine = self.claims.entry(client_id.clone()).or_insert(*placed_at_ms);
            *mine = (*mine).max(*placed_at_ms);
        }
    }

    /// The client that has the appointment.
    pub fn client_id(&self) -> Option<&str> {
        self.claims.iter().max_by_key(|(id, at)| (**at, std::cmp::Reverse(*id))).map(|(id, _)| id.as_str())
    }
}

/// The address of an appointment's row.
pub fn row_key(tenant: &str, appointment_id: &str) -> RowKey {
    RowKey::hashed(View::Lookup, key::of(tenant, appointment_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(client: &str, at: i64) -> Delta {
        Delta::Claim { client_id: client.into(), placed_at_ms: at }
    }

    #[test]
    fn the_later_booking_has_it_then_the_smaller_client() {
        let mut row = Lookup::default();
        row.apply(&claim("b", 5));
        row.apply(&claim("a", 5));
        row.apply(&claim("c", 4));
        assert_eq!(row.client_id(), Some("a"));
        row.apply(&Delta::Release { client_id: "a".into() });
        assert_eq!(row.client_id(), Some("b"));
        let mut other = Lookup::default();
        other.apply(&claim("z", 9));
        row.merge(&other);
        assert_eq!(row.client_id(), Some("z"));
    }
}
