//! Names the tenants whose events were skipped because a row had no capacity left, at a bounded rate.
//!
//! Such an event is lost until it is sent again, and most producers do not read outcomes. A nightly synchronisation can
//! send thousands of events for a full row, so one line per event would be too many.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Shortest time between two reports of a partition.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// Tenants that a report names, one per line; events of further tenants are only counted by metrics.
const TENANTS_MAX: usize = 16;

/// The events without capacity since the last report.
#[derive(Debug, Default)]
pub(super) struct FullRows {
    reported: Option<Instant>,
    /// Events by tenant.
    events: BTreeMap<String, u64>,
}

impl FullRows {
    /// Counts an event of a tenant.
    pub(super) fn note(&mut self, tenant: &str) {
        if let Some(events) = self.events.get_mut(tenant) {
            *events += 1;
        } else if self.events.len() < TENANTS_MAX {
            self.events.insert(tenant.to_owned(), 1);
        }
    }

    /// Logs a line for each tenant, unless the last report is too recent.
    pub(super) fn report(&mut self, now: Instant, family: &str, partition: u32) {
        for (tenant, events) in self.due(now) {
            tracing::warn!(
                family,
                partition,
                tenant,
                events,
                "events were skipped because rows are full of nearer visits: raise fold.client_appointments_max, and \
                 send them again"
            );
        }
    }

    /// Takes the events to report now.
    fn due(&mut self, now: Instant) -> BTreeMap<String, u64> {
        let is_young = self.reported.is_some_and(|reported| now.duration_since(reported) < REPORT_EVERY);
        if is_young || self.events.is_empty() {
            return BTreeMap::new();
        }
        self.reported = Some(now);
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_named_at_once_and_then_once_a_minute_with_all_events_since() {
        let (begun, mut crowded) = (Instant::now(), FullRows::default());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(crowded.due(at(0)).is_empty());
        crowded.note("a");
        assert!(crowded.due(at(1)).into_iter().eq([("a".to_owned(), 1)]));
        ["a", "b", "a"].iter().for_each(|tenant| crowded.note(tenant));
        assert!(crowded.due(at(60)).is_empty());
        assert!(crowded.due(at(61)).into_iter().eq([("a".to_owned(), 2), ("b".to_owned(), 1)]));
        assert!(crowded.due(at(200)).is_empty());
        (0..20).for_each(|n| crowded.note(&n.to_string()));
        assert_eq!(crowded.due(at(200)).len(), TENANTS_MAX);
    }
}
