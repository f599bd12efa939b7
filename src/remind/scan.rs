//! Finds the clients that something may be due for: a walk over the hours that matter, a page at a time.

use super::{Reminders, Serving};
use crate::log::Error;
use crate::rows;
use crate::store::{Generation, Row, RowKey, View};
use crate::view::agenda::{self, Agenda, HOUR_MS, Kind};
use crate::view::client::{Client, REQUEST_EXPIRES_MS};
use crate::view::sent::{self, Calendar, Sent};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// A client to plan for, with the rows to plan from.
pub(super) struct Candidate {
    pub(super) tenant: String,
    pub(super) client_id: String,
    pub(super) client: Client,
    pub(super) sent: Sent,
}

/// The clients named in a list of buckets, each once.
pub(super) struct Scan<'a> {
    shared: &'a Reminders,
    serving: Serving,
    partition: u32,
    /// Still to read, the next one last.
    buckets: Vec<(Generation, View, i64)>,
    /// Where the page of the last bucket ended.
    after: Option<(String, u32)>,
    seen: BTreeSet<String>,
}

/// The beginning of the hour behind `now_ms`: until then no other hour comes into reach.
pub(super) fn next_hour_ms(now_ms: i64) -> i64 {
    (now_ms.div_euclid(HOUR_MS) + 1) * HOUR_MS
}

impl<'a> Scan<'a> {
    /// Everything that can matter at `now_ms`: visits that start within the longest step, requests by hand that have
    /// not expired, and announcements for starts to come.
    pub(super) async fn new(
        shared: &'a Reminders,
        serving: Serving,
        partition: u32,
        now_ms: i64,
    ) -> Result<Scan<'a>, Error> {
        let starts = hours(now_ms, now_ms + shared.config.policy.longest_ms() + HOUR_MS)
            .map(|at| (serving.appointments, View::Agenda, agenda::bucket(Kind::Starts, at, partition)));
        let requests = hours(now_ms - REQUEST_EXPIRES_MS, now_ms + HOUR_MS)
            .map(|at| (serving.appointments, View::Agenda, agenda::bucket(Kind::Requested, at, partition)));
        let calendar: Calendar = one(shared, serving.sent, sent::calendar_key(partition)).await?;
        let announced = calendar
            .hours
            .range(now_ms.div_euclid(HOUR_MS)..)
            .map(|(hour, _)| (serving.sent, View::Announced, agenda::bucket(Kind::Starts, hour * HOUR_MS, partition)));
        let buckets = starts.chain(requests).chain(announced).collect();
        Ok(Scan { shared, serving, partition, buckets, after: None, seen: BTreeSet::new() })
    }

    /// The next candidates; none when all buckets are read.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Candidate>>, Error> {
        let mut keys = Vec::new();
        while keys.len() < self.shared.config.clients_max {
            let Some((generation, view, bucket)) = self.buckets.last().copied() else { break };
            let limit = self.shared.config.clients_max;
            let after = self.after.as_ref().map(|(key, source)| (key.as_str(), *source));
            let page = self.shared.store.scan(generation, view, bucket, after, limit).await?;
            self.after = (page.len() == limit).then(|| page.last().map(|(k, row)| (k.clone(), row.source))).flatten();
            if self.after.is_none() {
                self.buckets.pop();
            }
            for (key, row) in page {
                let agenda: Agenda = state(Some(&row))?;
                if !agenda.entries.is_empty() && self.seen.insert(key.clone()) {
                    keys.push(key);
                }
            }
        }
        if keys.is_empty() { Ok(None) } else { self.candidates(keys).await.map(Some) }
    }

    async fn candidates(&self, keys: Vec<String>) -> Result<Vec<Candidate>, Error> {
        let (store, source) = (&self.shared.store, Some(self.partition));
        let addresses = |view| keys.iter().map(|key| RowKey::hashed(view, key.clone())).collect::<Vec<_>>();
        let (clients, sents) = (addresses(View::Client), addresses(View::Sent));
        let (clients, sents) = tokio::try_join!(
            store.read(self.serving.appointments, source, &clients),
            store.read(self.serving.sent, source, &sents),
        )?;
        let candidate = |((key, client), sent): ((String, Vec<Row>), Vec<Row>)| {
            let (tenant, client_id) = key.split_once(':').unwrap_or(("", &key));
            let (tenant, client_id) = (tenant.to_owned(), client_id.to_owned());
            Ok(Candidate { tenant, client_id, client: state(client.first())?, sent: state(sent.first())? })
        };
        keys.into_iter().zip(clients).zip(sents).map(candidate).collect()
    }
}

/// The beginnings of the hours that touch `from_ms..to_ms`.
fn hours(from_ms: i64, to_ms: i64) -> impl Iterator<Item = i64> {
    (from_ms.div_euclid(HOUR_MS)..=to_ms.div_euclid(HOUR_MS)).map(|hour| hour * HOUR_MS)
}

async fn one<T: DeserializeOwned + Default>(shared: &Reminders, of: Generation, key: RowKey) -> Result<T, Error> {
    let rows = shared.store.read(of, None, &[key]).await?;
    state(rows.first().and_then(|partials| partials.first()))
}

fn state<T: DeserializeOwned + Default>(row: Option<&Row>) -> Result<T, Error> {
    row.map_or_else(|| Ok(T::default()), rows::decode)
}
