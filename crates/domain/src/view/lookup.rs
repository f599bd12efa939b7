//! Appointment to client: finds the client's row by the appointment id alone.
//!
//! Several clients can have the same id: members of a group, or the clients before and after a correction. An answer
//! about the id is about one of them: a client whose visit was not cancelled, if there is one. Of several, the one with
//! the later booking, then the one with the smaller client id.
//!
//! The outcome of a visit makes no difference, so that an outcome, which nearly every visit gets, does not cause a
//! write of this row.

use super::{AggregateView, Limits, Merge};
use crate::address::{RowKey, View};
use foretell_events::key;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Clients kept for an appointment id; the one with the lowest claim is forgotten first.
pub(crate) const CLAIMS_MAX: usize = 64;

/// The claim of a client to an appointment; the greatest of several claims wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Whether the visit is booked or over, and was not cancelled.
    pub is_on: bool,
    /// Event time of the booking.
    pub placed_at_ms: i64,
}

/// A change of the clients that have an appointment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// The client has it.
    Claim {
        /// The client.
        client_id: String,
        /// Their claim.
        claim: Claim,
    },
    /// The client no longer has it.
    Release {
        /// The client.
        client_id: String,
    },
}

/// The state of an appointment's row: the clients that claim it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// By client.
    pub claims: BTreeMap<String, Claim>,
}

impl AggregateView for Lookup {
    type Delta = Delta;

    fn apply(&mut self, delta: &Delta, _: &Limits) {
        match delta {
            Delta::Claim { client_id, claim } => {
                self.claims.insert(client_id.clone(), *claim);
                if self.claims.len() > CLAIMS_MAX {
                    let last = self.claims.iter().min_by_key(|(id, claim)| (**claim, Reverse(*id)));
                    last.map(|(id, _)| id.clone()).and_then(|id| self.claims.remove(&id));
                }
            }
            Delta::Release { client_id } => {
                self.claims.remove(client_id);
            }
        }
    }
}

impl Merge for Lookup {
    fn merge(&mut self, other: &Self) {
        for (client_id, claim) in &other.claims {
            let mine = self.claims.entry(client_id.clone()).or_insert(*claim);
            *mine = (*mine).max(*claim);
        }
    }
}

impl Lookup {
    /// The client with the greatest claim.
    pub fn client_id(&self) -> Option<&str> {
        self.claims.iter().max_by_key(|(id, claim)| (**claim, Reverse(*id))).map(|(id, _)| id.as_str())
    }
}

/// The address of an appointment's row.
pub fn row_key(tenant: &str, appointment_id: &str) -> RowKey {
    RowKey::hashed(View::Lookup, key::of(tenant, appointment_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(client: &str, is_on: bool, placed_at_ms: i64) -> Delta {
        Delta::Claim { client_id: client.into(), claim: Claim { is_on, placed_at_ms } }
    }

    fn row(deltas: &[Delta]) -> Lookup {
        let mut row = Lookup::default();
        deltas.iter().for_each(|delta| row.apply(delta, &Limits::default()));
        row
    }

    #[test]
    fn a_visit_that_is_on_wins_then_the_later_booking_then_the_smaller_client() {
        for (deltas, meant) in [
            (vec![claim("b", true, 5), claim("a", true, 5), claim("c", true, 4)], Some("a")),
            (vec![claim("a", true, 4), claim("b", false, 5), claim("c", false, 6)], Some("a")),
            (vec![claim("a", false, 6), claim("b", false, 5)], Some("a")),
            (vec![claim("a", true, 5), claim("b", true, 6), claim("b", false, 6)], Some("a")),
            (vec![claim("a", true, 5), Delta::Release { client_id: "a".into() }, claim("b", false, 1)], Some("b")),
            (vec![claim("a", true, 5), Delta::Release { client_id: "a".into() }], None),
        ] {
            assert_eq!(row(&deltas).client_id(), meant, "{deltas:?}");
        }
    }

    #[test]
    fn partials_of_two_partitions_are_one_row() {
        let mut both = row(&[claim("a", false, 9)]);
        both.merge(&row(&[claim("z", true, 1)]));
        assert_eq!(both.client_id(), Some("z"));
    }

    #[test]
    fn a_full_row_forgets_the_lowest_claim() {
        let mut full = row(&[claim("off", false, 1_000), claim("early", true, 0)]);
        let mut take = |claim| full.apply(&claim, &Limits::default());
        (1..CLAIMS_MAX as i64).for_each(|n| take(claim(&format!("c{n}"), true, n)));
        assert!(!full.claims.contains_key("off"), "called off goes before what is on, however late it was booked");
        full.apply(&claim("late", true, 2_000), &Limits::default());
        assert!(!full.claims.contains_key("early"));
        assert_eq!((full.claims.len(), full.client_id()), (CLAIMS_MAX, Some("late")));
    }
}
