//! Ingestion: the one path by which facts reach the log, from every sender.
//!
//! ```text
//!   POST /v1/events ─┐  Terms::admit        ready                     append
//!   import ──────────┼─► gate: pure ──► address data, encoding ──► trace, metrics, log ──► positions
//!   own facts ───────┘  (all faults)       (fields dropped)
//! ```
//!
//! Every path runs the same steps, so none checks less than another. Paths differ only in their [`GateContext`]: the
//! sender, and its tenant. An [`Admitted`] event can only come from the [gate](foretell_events::gate), a
//! [`ReadyRecord`] record only from an admitted event, and nothing else is appended here. A new kind of sender
//! (webhooks, sources, vendors) only needs its own terms.
//!
//! The steps are separate because their costs differ: admission is pure and lets a caller reject a whole batch before
//! the first effect; [`Ingest::ready`] takes CPU time, so a server can run long batches elsewhere; [`Ingest::append`]
//! waits for the log.
//!
//! Three kinds of records do not come through here, because no sender names their content: decisions, reminders that
//! the planner announces, and dead letters. A redriven dead letter passes the same gate and is appended as it was sent.
//!
//! The crate depends on `foretell_enrich` directly. It has one implementation, needs no service to run, and without
//! configured files it changes nothing, so a trait would only hide which data an event is completed with.

use foretell_domain::view::recent::RECENT_MAX;
use foretell_enrich::Enricher;
use foretell_events::codec::Faults;
use foretell_events::gate::{API_SOURCE, Admitted, GateContext, Sender};
use foretell_events::record::NewRecord;
use foretell_events::{Envelope, Event, Fact, Position, Topic};
use foretell_ports::clock::Clock;
use foretell_ports::log::{Fenced, Log, present_name};
use foretell_telemetry::{meter, trace};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Instrument;

/// Maximum number of events in a batch.
pub const BATCH_EVENTS_MAX: usize = 1_000;
/// Maximum number of events of one user or client in a batch: as many as its row remembers, so that a batch can be sent
/// again.
pub const BATCH_SUBJECT_EVENTS_MAX: usize = RECENT_MAX;

/// Accepts events: completes them, and appends them to the log.
#[derive(Clone)]
pub struct Ingest {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    enricher: Arc<Enricher>,
    /// Prefix of the names of topics, with its dot.
    topic_prefix: String,
}

/// The record of an admitted event, complete and encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyRecord {
    id: String,
    record: NewRecord,
}

impl ReadyRecord {
    /// The id of the event.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key of the record: tenant and subject.
    pub fn key(&self) -> &str {
        self.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
    }
}

/// A fact that Foretell writes itself.
#[derive(Debug, Clone)]
pub struct OwnFact<'a> {
    /// The tenant that it belongs to.
    pub tenant: &'a str,
    /// The id of its event. An event with the id and type of an earlier one changes nothing.
    pub id: String,
    /// What happened.
    pub fact: Fact,
}

/// Why a fact was not published.
#[derive(Debug)]
pub enum Error {
    /// The gate rejected it; nothing was appended.
    Faulty(Faults),
    /// The log failed, as [`Ingest::append`] does; Fatal also where another owner has the fence.
    Log(foretell_ports::Error),
}

impl Ingest {
    /// Ingestion into a log.
    pub const fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, enricher: Arc<Enricher>, topic_prefix: String) -> Self {
        Self { log, clock, enricher, topic_prefix }
    }

    /// The terms for a sender whose events arrive now. With a tenant, events must belong to it.
    pub fn terms<'a>(&self, sender: Sender, tenant: Option<&'a str>) -> GateContext<'a> {
        GateContext { now_ms: self.clock.now_ms(), tenant, sender }
    }

    /// Completes an admitted event with what data files contain about its address, and encodes it.
    ///
    /// Network and location are written into the event, because a fold must not depend on files. Unknown fields beyond
    /// the limit of the gate are dropped and counted.
    pub fn ready(&self, mut admitted: Admitted) -> ReadyRecord {
        admitted.parsed_mut().fill_in(|attempt| drop(self.enricher.enrich(attempt)));
        let id = admitted.event().envelope.id.clone();
        let (record, dropped) = admitted.into_record();
        meter::fields_dropped(record.topic.name(), dropped);
        ReadyRecord { id, record }
    }

    /// Appends records with the trace of the request; returns their positions in the same order once they are durable.
    ///
    /// # Errors
    /// Reject: a record is larger than the log accepts, and none was appended. Retry or Fatal: some may be stored. The
    /// sender repeats all of them, and equal ids change nothing.
    pub async fn append(&self, ready: Vec<ReadyRecord>) -> Result<Vec<Position>, foretell_ports::Error> {
        let Some(first) = ready.first() else { return Ok(Vec::new()) };
        let topic = first.record.topic;
        let destination = || present_name(self.log.as_ref(), &self.topic_prefix, topic);
        let span = trace::sending(self.log.system(), destination, ready.len());
        let traced = |ReadyRecord { mut record, .. }| {
            trace::inject_from(&span, &mut record.headers);
            metrics::counter!(foretell_telemetry::EVENTS_ACCEPTED, foretell_telemetry::FAMILY => record.topic.name())
                .increment(1);
            record
        };
        let records = ready.into_iter().map(traced).collect();
        let appended = timed(self.log.append(records)).instrument(span.clone()).await;
        trace::sent(&span, &appended);
        appended
    }

    /// Completes and appends admitted events.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn accept(&self, admitted: Vec<Admitted>) -> Result<Vec<Position>, foretell_ports::Error> {
        self.append(admitted.into_iter().map(|admitted| self.ready(admitted)).collect()).await
    }

    /// Appends a fact of Foretell itself, timed now; it passes the gate like any other.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish(&self, own: OwnFact<'_>) -> Result<Position, Error> {
        let ready = self.own(own).map_err(Error::Faulty)?;
        only(self.append(vec![ready]).await)
    }

    /// Appends a fact as [`publish`](Self::publish) does, through the fence of its partition: only its owner can.
    ///
    /// The record carries no trace and is not counted as an accepted event: it is a state that others read, not an
    /// event that a sender traces.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish_fenced(&self, fenced: &mut dyn Fenced, own: OwnFact<'_>) -> Result<Position, Error> {
        let ready = self.own(own).map_err(Error::Faulty)?;
        only(timed(fenced.append(vec![ready.record])).await)
    }

    fn own(&self, own: OwnFact<'_>) -> Result<ReadyRecord, Faults> {
        let OwnFact { tenant, id, fact } = own;
        let envelope =
            Envelope { id, source: API_SOURCE.to_owned(), tenant: tenant.to_owned(), time_ms: self.clock.now_ms() };
        Ok(self.ready(Admitted::own(Event { envelope, fact })?))
    }
}

/// The position of the only record of an append.
fn only(appended: Result<Vec<Position>, foretell_ports::Error>) -> Result<Position, Error> {
    let positions = appended.map_err(Error::Log)?;
    let missing = || Error::Log(foretell_ports::Error::fatal("append", "the log returned no position"));
    positions.first().copied().ok_or_else(missing)
}

/// Measures how long an append takes, whether it succeeds or not.
async fn timed<T>(append: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let appended = append.await;
    metrics::histogram!(foretell_telemetry::LOG_APPEND_SECONDS).record(begun.elapsed().as_secs_f64());
    appended
}

/// The events of a batch that exceed [`BATCH_SUBJECT_EVENTS_MAX`]: the index of each, and its number among the events
/// of its user or client, from 1.
pub fn over_subject_limit(events: &[Admitted]) -> Vec<(usize, usize)> {
    let mut subjects: BTreeMap<(Topic, String), usize> = BTreeMap::new();
    let numbered = events.iter().enumerate().map(|(index, admitted)| {
        let event = admitted.event();
        let count = subjects.entry((event.fact.topic(), event.key())).or_default();
        *count += 1;
        (index, *count)
    });
    numbered.filter(|(_, number)| *number > BATCH_SUBJECT_EVENTS_MAX).collect()
}

#[cfg(test)]
mod tests;
