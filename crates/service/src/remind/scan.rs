//! Finds the clients that may have a reminder due, and reads the rows that plans depend on.

use super::{ReminderTask, Serving};
use foretell_domain::address::{Bucket, Generation, RowKey, View};
use foretell_domain::view::agenda::Agenda;
use foretell_domain::view::client::{Client, REQUEST_EXPIRES_MS};
use foretell_domain::view::sent::{self, Calendar, SentReminders};
use foretell_engine::rows;
use foretell_events::time::HOUR_MS;
use foretell_ports::Error;
use foretell_ports::store::Row;
use serde::de::DeserializeOwned;

/// Rows of a bucket that are read at a time.
const PAGE_ROWS: usize = 1_000;

/// A client to plan for, with the rows to plan from.
pub(super) struct Candidate {
    /// `tenant:client_id`.
    pub(super) key: String,
    pub(super) tenant: String,
    pub(super) client_id: String,
    pub(super) client: Client,
    pub(super) sent: SentReminders,
}

/// A span of time, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

/// Pages through the hours that matter.
pub(super) struct Scan {
    /// Still to read, the next one last.
    buckets: Vec<(Generation, View, i64)>,
    /// Where the page of the last bucket ended.
    after: Option<(String, u32)>,
}

impl Scan {
    /// Everything that can matter now, at the beginning of `span`: visits that start before its end, on-demand requests
    /// that have not expired, and announcements for future starts.
    pub(super) async fn everything(
        shared: &ReminderTask,
        serving: Serving,
        partition: u32,
        span: Span,
    ) -> Result<Self, Error> {
        let now_ms = span.from_ms;
        let requests = hours(now_ms - REQUEST_EXPIRES_MS, now_ms + HOUR_MS)
            .map(|at| (serving.appointments, View::Agenda, Bucket::requests(at, partition).pack()));
        let calendar: Calendar = one(shared, serving.sent, sent::calendar_key(partition)).await?;
        let announced = calendar
            .hours
            .range(now_ms.div_euclid(HOUR_MS)..)
            .map(|(&hour, _)| (serving.sent, View::Announced, Bucket::Starts { hour, partition }.pack()));
        let starts = starts(serving, partition, span);
        // The earliest starts are read first.
        let mut buckets: Vec<_> = starts.into_iter().chain(announced).chain(requests).collect();
        buckets.reverse();
        Ok(Self { buckets, after: None })
    }

    /// Visits that start later than `reach_ms` as well: one of them may have been booked just now.
    pub(super) async fn and_farther(
        mut self,
        shared: &ReminderTask,
        serving: Serving,
        partition: u32,
        reach_ms: i64,
    ) -> Result<Self, Error> {
        let mut buckets = shared.store.buckets(serving.appointments, View::Agenda).await?;
        buckets.retain(|bucket| match Bucket::unpack(*bucket) {
            Bucket::Starts { hour, partition: of } => of == partition && hour * HOUR_MS > reach_ms,
            Bucket::Requests { .. } | Bucket::Calendar { .. } => false,
        });
        let farther = buckets.into_iter().map(|bucket| (serving.appointments, View::Agenda, bucket));
        // The nearest starts are read first.
        self.buckets.splice(0..0, farther);
        Ok(self)
    }

    /// Visits that start in `span`, hours rounded outwards.
    pub(super) fn of_starts(serving: Serving, partition: u32, span: Span) -> Self {
        Self { buckets: starts(serving, partition, span), after: None }
    }

    /// The keys of the next clients; none when all buckets are read.
    pub(super) async fn next(&mut self, shared: &ReminderTask) -> Result<Option<Vec<String>>, Error> {
        let Some((generation, view, bucket)) = self.buckets.last().copied() else { return Ok(None) };
        let after = self.after.as_ref().map(|(key, source)| (key.as_str(), *source));
        let page = shared.store.scan(generation, view, bucket, after, PAGE_ROWS).await?;
        self.after = (page.len() == PAGE_ROWS).then(|| page.last().map(|(k, row)| (k.clone(), row.source))).flatten();
        if self.after.is_none() {
            self.buckets.pop();
        }
        let mut keys = Vec::with_capacity(page.len());
        for (key, row) in page {
            let agenda: Agenda = state(Some(&row))?;
            if !agenda.entries.is_empty() {
                keys.push(key);
            }
        }
        Ok(Some(keys))
    }
}

/// The rows of clients by their keys, of a partition.
pub(super) async fn candidates(
    shared: &ReminderTask,
    serving: Serving,
    partition: u32,
    keys: Vec<String>,
) -> Result<Vec<Candidate>, Error> {
    let (store, source) = (&shared.store, Some(partition));
    let addresses = |view| keys.iter().map(|key| RowKey::hashed(view, key.clone())).collect::<Vec<_>>();
    let (clients, sents) = (addresses(View::Client), addresses(View::Sent));
    let (clients, sents) = tokio::try_join!(
        store.read(serving.appointments, source, &clients),
        store.read(serving.sent, source, &sents),
    )?;
    let candidate = |((key, client), sent): ((String, Vec<Row>), Vec<Row>)| {
        let (tenant, client_id) = key.split_once(':').unwrap_or(("", &key));
        let (tenant, client_id) = (tenant.to_owned(), client_id.to_owned());
        Ok(Candidate { key, tenant, client_id, client: state(client.first())?, sent: state(sent.first())? })
    };
    keys.into_iter().zip(clients).zip(sents).map(candidate).collect()
}

fn starts(serving: Serving, partition: u32, Span { from_ms, to_ms }: Span) -> Vec<(Generation, View, i64)> {
    let bucket = |at| (serving.appointments, View::Agenda, Bucket::starts(at, partition).pack());
    hours(from_ms, to_ms).map(bucket).collect()
}

/// The beginnings of the hours that touch `from_ms..to_ms`.
fn hours(from_ms: i64, to_ms: i64) -> impl Iterator<Item = i64> {
    (from_ms.div_euclid(HOUR_MS)..=to_ms.div_euclid(HOUR_MS)).map(|hour| hour * HOUR_MS)
}

async fn one<T: DeserializeOwned + Default>(shared: &ReminderTask, of: Generation, key: RowKey) -> Result<T, Error> {
    let rows = shared.store.read(of, None, &[key]).await?;
    state(rows.first().and_then(|partials| partials.first()))
}

fn state<T: DeserializeOwned + Default>(row: Option<&Row>) -> Result<T, Error> {
    row.map_or_else(|| Ok(T::default()), rows::decode)
}
