//! The rate at which the driver writes rows into Cassandra without Foretell: the flushes of a fold, recorded in memory
//! and then written directly, as one unlogged batch per bucket.

use crate::{Failure, figure, fold, generated};
use async_trait::async_trait;
use foretell_cassandra::Config as Cassandra;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_engine::pipeline::Config;
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::clock::System;
use foretell_ports::log::Log;
use foretell_ports::store::{Checkpoint, Flush, Row, RowWrite, Store, memory};
use futures::stream::{StreamExt, TryStreamExt, iter};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Partitions of a topic on Kafka by default.
const PARTITIONS: u32 = 8;

/// A store in memory that records what is written.
#[derive(Default)]
struct Recorder {
    store: memory::Store,
    flushes: Mutex<Vec<Vec<RowWrite>>>,
}

#[async_trait]
impl Store for Recorder {
    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        self.store.checkpoint(generation, partition).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        self.flushes.lock().unwrap_or_else(PoisonError::into_inner).push(flush.rows.clone());
        self.store.apply(flush).await
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        self.store.read(generation, source, keys).await
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        self.store.scan(generation, view, bucket, after, limit).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.store.drop_generation(generation).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.store.buckets(generation, view).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.store.pointer(family).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.store.swap_pointer(family, expected, new).await
    }
}

/// Records the flushes of a fold and writes them.
pub(crate) async fn run(node: &str, events: usize) -> Result<(), Failure> {
    let flushes = flushes(events).await?;
    let batches: Vec<_> = flushes.iter().flat_map(|rows| buckets(rows)).collect();
    let rows: usize = batches.iter().map(Vec::len).sum();
    let bytes: usize = batches.iter().flatten().map(|row| row.key.key.len() + row.cell.len()).sum();
    figure("rows per batch", rows as f64 / batches.len() as f64, "rows");
    figure("bytes per row", bytes as f64 / rows as f64, "bytes");
    let session = SessionBuilder::new().known_node(node).build().await?;
    let insert = prepare(&session).await?;
    let began = Instant::now();
    let writes: Vec<_> = batches.iter().map(|rows| write(&session, &insert, rows)).collect();
    iter(writes).buffer_unordered(Cassandra::default().concurrency_max).try_collect::<()>().await?;
    figure("only the driver", rows as f64 / began.elapsed().as_secs_f64(), "rows/s");
    Ok(())
}

async fn flushes(events: usize) -> Result<Vec<Vec<RowWrite>>, Failure> {
    let log = Arc::new(foretell_ports::log::memory::Log::new(|_| PARTITIONS, Arc::new(System)));
    let records: Vec<_> = generated::logins(1).take(events).map(generated::record).collect();
    log.append(records).await?;
    debug_assert_eq!(log.partitions(Topic::Logins), PARTITIONS);
    let recorder = Arc::new(Recorder::default());
    fold::fold(log, recorder.clone(), Config::default(), events).await?;
    let mut flushes = recorder.flushes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *flushes))
}

/// The rows of a flush by bucket, which is one Cassandra partition.
fn buckets(rows: &[RowWrite]) -> Vec<Vec<&RowWrite>> {
    let bytes_max = Cassandra::default().batch_bytes_max;
    let mut buckets: BTreeMap<(View, i64), Vec<&RowWrite>> = BTreeMap::new();
    rows.iter().for_each(|row| buckets.entry((row.key.view, row.key.bucket)).or_default().push(row));
    let fits =
        |rows: &[&RowWrite]| rows.iter().map(|row| row.key.key.len() + row.cell.len()).sum::<usize>() < bytes_max;
    let cut = |rows: Vec<_>| if fits(&rows) { vec![rows] } else { rows.chunks(8).map(<[_]>::to_vec).collect() };
    buckets.into_values().flat_map(cut).collect()
}

async fn prepare(session: &Session) -> Result<PreparedStatement, Failure> {
    for statement in [
        "CREATE KEYSPACE bare WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 1}",
        "CREATE TABLE bare.rows (view_name text, bucket bigint, key text, cell blob, PRIMARY KEY ((view_name, bucket), key))",
    ] {
        session.query_unpaged(statement, ()).await?;
    }
    let insert = "INSERT INTO bare.rows (view_name, bucket, key, cell) VALUES (?, ?, ?, ?)";
    Ok(session.prepare(insert).await?)
}

async fn write(session: &Session, insert: &PreparedStatement, rows: &[&RowWrite]) -> Result<(), Failure> {
    let mut batch = Batch::new(BatchType::Unlogged);
    rows.iter().for_each(|_| batch.append_statement(insert.clone()));
    let values: Vec<_> =
        rows.iter().map(|row| (row.key.view.name(), row.key.bucket, row.key.key.as_str(), &row.cell[..])).collect();
    session.batch(&batch, values).await?;
    Ok(())
}
