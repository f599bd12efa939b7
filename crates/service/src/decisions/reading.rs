//! Reads the two topics that a report on decisions is made of: what became known first, then the decisions.
//!
//! Both are read from the time that was asked for up to where they ended when the reading began. Only what
//! [`Tally`] holds is kept of it.

use crate::report::{Records, Telling, Told};
use foretell_domain::decision::report::{Report, Tally};
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::Log;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc;

const OPERATION: &str = "report on decisions";

/// Which decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Those of this time or later, in milliseconds since the epoch; none: all that are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Those of one tenant; none: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// Reads in the background; what is told arrives here, and the reading ends when the receiver is dropped.
///
/// `gated_from_ms` is from when on logins are asked what the gate asks of producers: see [`foretell_domain::pointer::Pointer`].
pub fn spawn(log: Arc<dyn Log>, gated_from_ms: Option<i64>, asked: Asked) -> mpsc::Receiver<Told<Report>> {
    Telling::spawn(OPERATION, move |telling| read(log, gated_from_ms, asked, telling))
}

async fn read(
    log: Arc<dyn Log>,
    gated_from_ms: Option<i64>,
    asked: Asked,
    telling: Telling<Report>,
) -> Result<Report, Error> {
    let log = log.as_ref();
    let of = |topic| Records { topic, since_ms: asked.since_ms, tenant: asked.tenant.as_deref() };
    let mut tally = Tally::new();
    let partitions = log.partitions(Topic::Logins);
    let hear = |record: &_| match foretell_events::judge::judge(record, partitions, gated_from_ms) {
        Ok(event) => tally.hear(&event).map_err(|too_many| Error::reject(OPERATION, too_many)),
        // What cannot be folded is a dead letter, and says nothing about anybody.
        Err(_) => Ok(()),
    };
    telling.topic(log, of(Topic::Logins), hear).await?;
    let count = |record: &_| {
        tally.count(record);
        Ok(())
    };
    telling.topic(log, of(Topic::Decisions), count).await?;
    Ok(tally.report())
}
