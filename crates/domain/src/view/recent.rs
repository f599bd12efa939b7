//! Repetitions: the fingerprints of the last events folded into an owner row.
//!
//! Producers repeat events. An event whose source, id and type are among the last [`RECENT_MAX`] distinct ones of its
//! user or client changes nothing; one that is repeated later than that is folded again. Checkpoints are not involved,
//! so the decision is a function of the log.

use serde::{Deserialize, Serialize};

/// Events remembered per owner.
pub const RECENT_MAX: usize = 64;

/// The fingerprints of the last [`RECENT_MAX`] distinct events, in the order of their offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentEvents(Vec<u64>);

impl RecentEvents {
    /// Whether an event is remembered.
    pub fn contains(&self, fingerprint: u64) -> bool {
        self.0.contains(&fingerprint)
    }

    /// Remembers an event; returns whether it is new.
    pub fn insert(&mut self, fingerprint: u64) -> bool {
        if self.contains(fingerprint) {
            return false;
        }
        if self.0.len() >= RECENT_MAX {
            self.0.remove(0);
        }
        self.0.push(fingerprint);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_repeated_while_it_is_among_the_last_64() {
        let mut recent = RecentEvents::default();
        assert!(recent.insert(0));
        for other in 1..64 {
            assert!(recent.insert(other));
        }
        assert!(!recent.insert(0), "63 others since: still known");
        assert!(recent.insert(64), "pushes the oldest out");
        assert!(recent.insert(0), "64 others since: counts again");
    }
}
