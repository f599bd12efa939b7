//! The job that reports on decisions. It reads two topics: first what became known, then the decisions.
//!
//! Both are read from a time on up to their ends when the reading began. Only the contents of [`DecisionTally`] are
//! kept.

use crate::report::{Records, read_topic};
use async_trait::async_trait;
use foretell_domain::address::Family;
use foretell_domain::decision::report::{DecisionReport, DecisionTally};
use foretell_engine::jobs::{Job, JobContext};
use foretell_engine::pipeline::family;
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::{Log, Retention};
use foretell_ports::store::Store;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const OPERATION: &str = "report on decisions";

/// Which decisions to report on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionQuery {
    /// Decisions of this time or later, in milliseconds since the epoch; none: all in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Decisions of one tenant; none: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Reports on decisions about logins.
#[derive(Clone)]
pub struct DecisionReportJob {
    /// Contains logins and decisions.
    pub log: Arc<dyn Log>,
    /// Contains the time from which on logins are checked by the gate.
    pub store: Arc<dyn Store>,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// How long decisions are kept.
    pub retention: Retention,
}

#[async_trait]
impl Job for DecisionReportJob {
    const NAME: &'static str = "report-decisions";
    const OPERATION: &'static str = OPERATION;
    type Query = DecisionQuery;
    type Item = ();
    type Report = DecisionReport;

    async fn run(&self, query: DecisionQuery, context: &JobContext<()>) -> Result<DecisionReport, Error> {
        let log = self.log.as_ref();
        let gated_from_ms = family::gated_from_ms(self.store.as_ref(), Family::Logins).await?;
        let kept_since_ms = self.retention.ms(Topic::Decisions).map(|kept_ms| self.clock.now_ms() - kept_ms);
        let (since_ms, tenant) = (query.since_ms.or(kept_since_ms), query.tenant.as_deref());
        let of = |topic| Records { operation: OPERATION, topic, since_ms, tenant };
        let mut tally = DecisionTally::new();
        let partitions = log.partitions(Topic::Logins);
        let take = |record: &_| match foretell_events::judge::judge(record, partitions, gated_from_ms) {
            Ok(event) => tally.record_event(&event).map_err(|too_many| Error::reject(OPERATION, too_many)),
            // A record that cannot be folded is a dead letter, and states nothing about a login.
            Err(_) => Ok(()),
        };
        read_topic(context, log, of(Topic::Logins), take).await?;
        let count = |record: &_| {
            tally.count(record);
            Ok(())
        };
        read_topic(context, log, of(Topic::Decisions), count).await?;
        Ok(tally.report())
    }
}
