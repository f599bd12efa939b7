//! When to evaluate which client again.
//!
//! The planner keeps the next instant of each client in memory, so that a tick evaluates only clients with a change or
//! with something due. The schedule follows from the rows: a new owner of a partition builds it again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The next instant of each client that has one.
#[derive(Debug, Default)]
pub struct Schedule {
    by_time: BTreeSet<(i64, Arc<str>)>,
    of: HashMap<Arc<str>, i64>,
}

impl Schedule {
    /// Evaluates a client again at `at_ms`, and at no other instant; `None` means never.
    pub fn set(&mut self, key: &str, at_ms: Option<i64>) {
        if let Some((key, at_ms)) = self.of.remove_entry(key) {
            self.by_time.remove(&(at_ms, key));
        }
        if let Some(at_ms) = at_ms {
            let key: Arc<str> = key.into();
            self.by_time.insert((at_ms, key.clone()));
            self.of.insert(key, at_ms);
        }
    }

    /// Whether the instant of any client has been reached.
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.by_time.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms)
    }

    /// Those whose instant has been reached, the earliest first; at most `count`.
    pub fn due(&self, now_ms: i64, count: usize) -> impl Iterator<Item = &(i64, Arc<str>)> {
        self.by_time.iter().take_while(move |(at_ms, _)| *at_ms <= now_ms).take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_instant() {
        let mut schedule = Schedule::default();
        schedule.set("a", Some(5));
        schedule.set("b", Some(4));
        schedule.set("a", Some(3));
        let due =
            |schedule: &Schedule, count| schedule.due(4, count).map(|(_, key)| key.to_string()).collect::<Vec<_>>();
        assert_eq!(due(&schedule, 9), ["a", "b"]);
        assert_eq!(due(&schedule, 1), ["a"]);
        schedule.set("a", None);
        assert!(schedule.is_due(4) && !schedule.is_due(3));
        schedule.set("b", None);
        assert_eq!((schedule.by_time.len(), schedule.of.len()), (0, 0));
    }
}
