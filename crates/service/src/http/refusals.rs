//! Requests that are rejected because a key or a scope is missing, as reported to operators.
//!
//! Each is counted by the name of its key. The first of a kind is logged at once; further ones within a minute are
//! summed up in one line, so that a caller that tries a million keys does not fill a disk. A key itself is never
//! logged.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Minimum time between two log lines of a kind.
const PAUSE: Duration = Duration::from_secs(60);
/// The name used for all unknown keys.
pub(super) const UNKNOWN: &str = "unknown";

/// Which key was refused, and why.
type Kind = (String, &'static str);

/// Refusals since they were last logged, by kind: the number of kinds is that of key names, times two or three.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Kind, Since>>);

#[derive(Debug)]
struct Since {
    logged_at: Instant,
    /// Refusals that have not been logged, and the route of the latest.
    unlogged: u64,
    route: String,
}

/// A line for operators.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    key: String,
    code: &'static str,
    route: String,
    /// How many refusals it covers.
    count: u64,
}

impl Refusals {
    /// Counts a refusal by the name of its key, and logs it if it is the first of its kind for a while.
    pub(super) fn note(&self, key: Option<&str>, code: &'static str, route: &str) {
        let key = key.unwrap_or(UNKNOWN);
        let labels = [(foretell_telemetry::KEY, key.to_owned()), (foretell_telemetry::CODE, code.to_owned())];
        metrics::counter!(foretell_telemetry::HTTP_REFUSED, &labels).increment(1);
        self.noted(key, code, route, Instant::now()).into_iter().for_each(log);
    }

    /// Logs refusals whose pause is over.
    pub(super) fn log_due(&self) {
        self.due(Instant::now()).into_iter().for_each(log);
    }

    fn noted(&self, key: &str, code: &'static str, route: &str, now: Instant) -> Option<Line> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = kinds.get_mut(&(key.to_owned(), code)) {
            since.unlogged += 1;
            since.route.clear();
            since.route.push_str(route);
            return None;
        }
        kinds.insert((key.to_owned(), code), Since { logged_at: now, unlogged: 0, route: route.to_owned() });
        Some(Line { key: key.to_owned(), code, route: route.to_owned(), count: 1 })
    }

    /// The lines that are due; a kind without refusals during the pause is removed.
    fn due(&self, now: Instant) -> Vec<Line> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        kinds.retain(|(key, code), since| {
            if now.saturating_duration_since(since.logged_at) < PAUSE {
                return true;
            }
            let count = std::mem::take(&mut since.unlogged);
            if count > 0 {
                lines.push(Line { key: key.clone(), code, route: since.route.clone(), count });
            }
            since.logged_at = now;
            count > 0
        });
        lines
    }
}

fn log(line: Line) {
    let Line { key, code, route, count } = line;
    tracing::warn!(key, code, route, count, "rejected requests");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, code: &'static str, route: &str, count: u64) -> Line {
        Line { key: key.into(), code, route: route.into(), count }
    }

    #[test]
    fn the_first_of_a_kind_is_told_at_once_and_the_others_together() {
        let (refusals, begun) = (Refusals::default(), Instant::now());
        let second = |n| begun + Duration::from_secs(n);
        assert_eq!(refusals.noted("crm", "A", "/v1/x", begun), Some(line("crm", "A", "/v1/x", 1)));
        assert_eq!(refusals.noted("crm", "B", "/v1/x", begun), Some(line("crm", "B", "/v1/x", 1)), "another kind");
        assert_eq!(refusals.noted("app", "A", "/v1/x", begun), Some(line("app", "A", "/v1/x", 1)), "another key");
        for _ in 0..1_000_000 {
            assert_eq!(refusals.noted("crm", "A", "/v1/y", second(1)), None);
        }
        assert_eq!(refusals.due(second(59)), []);
        assert_eq!(refusals.due(second(60)), [line("crm", "A", "/v1/y", 1_000_000)]);
        assert_eq!(refusals.noted("crm", "A", "/v1/z", second(61)), None, "within a minute of the line before");
        assert_eq!(refusals.due(second(120)), [line("crm", "A", "/v1/z", 1)]);
        assert_eq!(refusals.due(second(180)), []);
        assert_eq!(refusals.0.lock().unwrap().len(), 0, "what is quiet is forgotten");
        assert_eq!(refusals.noted("crm", "A", "/v1/x", second(181)), Some(line("crm", "A", "/v1/x", 1)));
    }
}
