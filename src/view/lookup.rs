//! Appointment to client: an appointment's id alone must find the row that it lives in.
//!
//! Several clients can have the same id: members of a group, or the clients before and after a correction. An answer about
//! the id is about one of them: a client whose visit is on, else one whose visit is over, else one who called it off. Of
//! several, the one with the later booking, then the one with the smaller client id.

use crate::event::key;
use crate::store::{RowKey, View};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Clients kept for an appointment id; the one with the lowest claim is forgotten first.
pub const CLAIMS_MAX: usize = 64;

/// How an appointment ranks among those with the same id, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// It was called off.
    Off,
    /// It is known how the visit went.
    Over,
    /// It is on.
    On,
}

/// That a client has an appointment; of several claims the greatest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Whether the visit is on, over or off.
    pub standing: Standing,
    /// Event time of the booking.
    pub placed_at_ms: i64,
}

/// A change of who has an appointment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// The client has it.
    Claim {
        /// The client.
        client_id: String,
        /// Their claim.
        claim: Claim,
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
    /// By client.
    pub claims: BTreeMap<String, Claim>,
}

impl Lookup {
    /// Takes a change in.
    pub fn apply(&mut self, delta: &Delta) {
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

    /// Takes the partial of another partition in.
    pub fn merge(&mut self, other: &Self) {
        for (client_id, claim) in &other.claims {
            let mine = self.claims.entry(client_id.clone()).or_insert(*claim);
            *mine = (*mine).max(*claim);
        }
    }

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

    fn claim(client: &str, standing: Standing, placed_at_ms: i64) -> Delta {
        Delta::Claim { client_id: client.into(), claim: Claim { standing, placed_at_ms } }
    }

    fn row(deltas: &[Delta]) -> Lookup {
        let mut row = Lookup::default();
        deltas.iter().for_each(|delta| row.apply(delta));
        row
    }

    #[test]
    fn a_visit_that_is_on_wins_then_the_later_booking_then_the_smaller_client() {
        use Standing::{Off, On, Over};
        for (deltas, meant) in [
            (vec![claim("b", On, 5), claim("a", On, 5), claim("c", On, 4)], Some("a")),
            (vec![claim("a", On, 4), claim("b", Over, 5), claim("c", Off, 6)], Some("a")),
            (vec![claim("a", Off, 6), claim("b", Over, 5)], Some("b")),
            (vec![claim("a", On, 5), claim("b", On, 6), claim("b", Off, 6)], Some("a")),
            (vec![claim("a", On, 5), Delta::Release { client_id: "a".into() }, claim("b", Off, 1)], Some("b")),
            (vec![claim("a", On, 5), Delta::Release { client_id: "a".into() }], None),
        ] {
            assert_eq!(row(&deltas).client_id(), meant, "{deltas:?}");
        }
    }

    #[test]
    fn partials_of_two_partitions_are_one_row() {
        let mut both = row(&[claim("a", Standing::Off, 9)]);
        both.merge(&row(&[claim("z", Standing::On, 1)]));
        assert_eq!(both.client_id(), Some("z"));
    }

    #[test]
    fn a_full_row_forgets_the_lowest_claim() {
        let mut full = row(&[claim("off", Standing::Off, 1_000), claim("early", Standing::On, 0)]);
        (1..CLAIMS_MAX as i64).for_each(|n| full.apply(&claim(&format!("c{n}"), Standing::On, n)));
        assert!(!full.claims.contains_key("off"), "called off goes before what is on, however late it was booked");
        full.apply(&claim("over", Standing::Over, 2_000));
        assert!(!full.claims.contains_key("over"));
        full.apply(&claim("late", Standing::On, 2_000));
        assert!(!full.claims.contains_key("early"));
        assert_eq!((full.claims.len(), full.client_id()), (CLAIMS_MAX, Some("late")));
    }
}
