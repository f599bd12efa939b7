//! The clients of a tenant who have visits in a window of time, and their rows.
//!
//! ```text
//!   hours of the window × source partitions ─► Store::scan after `tenant:` ─► client ids, by source partition
//!   client ids, a batch at a time            ─► Store::read of that partition ─► client rows
//! ```
//!
//! A bucket of the agenda contains one hour of one source partition, of all tenants, in the order of `tenant:client`.
//! So a scan begins after `tenant:` and ends at the first row with another prefix: other tenants cost at most one page
//! per bucket. The remaining cost is one scan for each hour and partition, empty or not, which is why callers bound
//! their windows.

use super::{Rows, decode, partition};
use foretell_domain::address::{Bucket, Family, Generation, View};
use foretell_domain::view::agenda::Agenda;
use foretell_domain::view::client::{self, Client};
use foretell_events::key;
use foretell_events::time::HOUR_MS;
use foretell_ports::Error;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Buckets that are scanned concurrently for one answer.
const SCANS_AT_ONCE: usize = 32;
/// Rows per page of a scan.
const PAGE_ROWS: usize = 200;
/// Client rows that are read together, from one source partition.
const BATCH_ROWS: usize = 100;
/// Batches that are read concurrently for one answer.
const BATCHES_AT_ONCE: usize = 4;

/// Clients who have open visits that start in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The generation of the rows that were scanned.
    generation: Generation,
    /// By source partition: only that one writes a client's row.
    clients: BTreeMap<u32, BTreeSet<String>>,
}

/// The result of looking up a window in the agenda.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduledScan {
    /// The clients to read.
    Scheduled(Scheduled),
    /// The window has more visits than the limit.
    LimitExceeded,
}

/// One bucket that contains visits of a tenant.
struct Found {
    source: u32,
    visits: usize,
    clients: Vec<String>,
}

impl Rows {
    /// The clients of a tenant with open visits in the hours that `window` (milliseconds since the epoch) touches, if
    /// those hours hold at most `visits_max` visits.
    pub async fn scheduled(&self, tenant: &str, window: Range<i64>, visits_max: usize) -> Result<ScheduledScan, Error> {
        let pointer = self.pointers.get(Family::Appointments).await?;
        let generation = pointer.serving(Family::Appointments);
        let prefix = key::of(tenant, "");
        let hours = window.start.div_euclid(HOUR_MS)..=(window.end - 1).div_euclid(HOUR_MS);
        let partitions = pointer.partitions;
        let places = hours.flat_map(move |hour| (0..partitions).map(move |source| (hour * HOUR_MS, source)));
        let scans = places.map(|(at_ms, source)| self.bucket(generation, at_ms, source, &prefix));
        let mut scans = stream::iter(scans).buffer_unordered(SCANS_AT_ONCE);
        let (mut clients, mut visits) = (BTreeMap::<u32, BTreeSet<String>>::new(), 0);
        while let Some(found) = scans.try_next().await? {
            visits += found.visits;
            if visits > visits_max {
                return Ok(ScheduledScan::LimitExceeded);
            }
            if !found.clients.is_empty() {
                clients.entry(found.source).or_default().extend(found.clients);
            }
        }
        Ok(ScheduledScan::Scheduled(Scheduled { generation, clients }))
    }

    /// The rows of some clients of a tenant, unordered; only those that exist.
    pub async fn clients_of(&self, tenant: &str, ids: BTreeSet<String>) -> Result<Vec<(String, Client)>, Error> {
        let pointer = self.pointers.get(Family::Appointments).await?;
        let mut clients = BTreeMap::<u32, BTreeSet<String>>::new();
        for id in ids {
            clients.entry(partition(&pointer, tenant, &id)).or_default().insert(id);
        }
        let generation = pointer.serving(Family::Appointments);
        self.clients(tenant, Scheduled { generation, clients }).try_concat().await
    }

    /// The rows of scheduled clients, a batch at a time, unordered; a batch contains only those that exist.
    pub fn clients<'a>(
        &'a self,
        tenant: &'a str,
        scheduled: Scheduled,
    ) -> BoxStream<'a, Result<Vec<(String, Client)>, Error>> {
        let Scheduled { generation, clients } = scheduled;
        let batches = clients.into_iter().flat_map(|(source, ids)| {
            let ids: Vec<_> = ids.into_iter().collect();
            ids.chunks(BATCH_ROWS).map(|batch| (source, batch.to_vec())).collect::<Vec<_>>()
        });
        let reads = batches.map(move |(source, ids)| async move {
            let keys: Vec<_> = ids.iter().map(|id| client::row_key(tenant, id)).collect();
            let rows = self.read(generation, Some(source), &keys).await?;
            let client = |(id, rows): (String, Vec<_>)| Some(decode(rows.first()?).map(|client| (id, client)));
            ids.into_iter().zip(rows).filter_map(client).collect()
        });
        stream::iter(reads).buffer_unordered(BATCHES_AT_ONCE).boxed()
    }

    /// The rows of a bucket whose keys begin with `prefix`.
    async fn bucket(&self, generation: Generation, at_ms: i64, source: u32, prefix: &str) -> Result<Found, Error> {
        let bucket = Bucket::starts(at_ms, source).pack();
        let mut found = Found { source, visits: 0, clients: Vec::new() };
        let mut after = (prefix.to_owned(), 0);
        loop {
            let behind = Some((after.0.as_str(), after.1));
            let page = self.store.scan(generation, View::Agenda, bucket, behind, PAGE_ROWS).await?;
            let is_last = page.len() < PAGE_ROWS;
            for (key, row) in page {
                let Some(client_id) = key.strip_prefix(prefix) else { return Ok(found) };
                let visits = decode::<Agenda>(&row)?.entries.len();
                if visits > 0 {
                    found.visits += visits;
                    found.clients.push(client_id.to_owned());
                }
                after = (key, row.source);
            }
            if is_last {
                return Ok(found);
            }
        }
    }
}
