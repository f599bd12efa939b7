//! Writing a flush: rows by bucket, then the checkpoint.

use super::{Cassandra, fault, int};
use foretell_domain::address::View;
use foretell_ports::Error;
use foretell_ports::retry::{Backoff, retry};
use foretell_ports::store::{Flush, RowWrite};
use futures::stream::{self, StreamExt, TryStreamExt};
use scylla::statement::batch::{Batch, BatchType};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

/// How often one write is repeated before the error is returned to the pipeline.
const REPEATS_MAX: usize = 4;
/// The pauses before a write is repeated.
const REPEATS: Backoff = Backoff::doubling(Duration::from_millis(50), Duration::from_millis(400));
/// Positions are below this power of two, epochs above it.
const POSITION_BITS: u32 = 44;
/// Beyond this epoch, timestamps would overlap those of ordinary clocks.
const EPOCH_MAX: u8 = 100;
/// Above all timestamps of rows and checkpoints, and below those of ordinary clocks.
pub(super) const ABOVE_ALL_ROWS: i64 = (EPOCH_MAX as i64 + 1) << POSITION_BITS;

/// The bound values of a row: view, generation, bucket, key, source, cell, timestamp.
type RowValues<'a> = (&'static str, i32, i64, &'a str, i32, &'a [u8], i64);

impl Cassandra {
    /// Writes all rows, in any order; returns when the last one is acknowledged.
    pub(super) async fn write_rows(&self, flush: &Flush) -> Result<(), Error> {
        let chunks = chunks(&flush.rows, self.limits.batch_bytes_max);
        let writes: Vec<_> = chunks.iter().map(|chunk| self.write_chunk(flush, chunk)).collect();
        stream::iter(writes).buffer_unordered(self.limits.concurrency_max).try_collect::<()>().await
    }

    async fn write_chunk(&self, flush: &Flush, chunk: &[&RowWrite]) -> Result<(), Error> {
        let rows = values(flush, chunk)?;
        repeat(|| self.write_bucket(&rows)).await
    }

    /// Writes how far the partition is folded. Must follow its rows, otherwise a crash in between would skip records.
    pub(super) async fn write_checkpoint(&self, flush: &Flush) -> Result<(), Error> {
        let operation = "write a checkpoint";
        let state = serde_json::to_string(&flush.checkpoint).map_err(|error| Error::fatal(operation, error))?;
        let generation = flush.generation;
        let timestamp = timestamp(generation.epoch, flush.checkpoint.next)?;
        let (number, source) = (int(generation.number)?, int(flush.partition)?);
        let values = (generation.family.name(), number, source, state, timestamp);
        repeat(|| async {
            let written = self.session.execute_unpaged(&self.statements.write_checkpoint, &values).await;
            written.map(drop).map_err(|error| fault::execution(operation, &error))
        })
        .await
    }

    /// Writes rows of one bucket, which is one Cassandra partition: all or none of them.
    async fn write_bucket(&self, rows: &[RowValues<'_>]) -> Result<(), Error> {
        let written = if let [row] = rows {
            self.session.execute_unpaged(&self.statements.write_row, row).await
        } else {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            for _ in rows {
                batch.append_statement(self.statements.write_row.clone());
            }
            self.session.batch(&batch, rows).await
        };
        written.map(drop).map_err(|error| fault::execution("write rows", &error))
    }
}

/// The rows by bucket, split where they exceed the limit; a single larger row is sent alone.
fn chunks(rows: &[RowWrite], bytes_max: usize) -> Vec<Vec<&RowWrite>> {
    let mut buckets: BTreeMap<(View, i64), Vec<&RowWrite>> = BTreeMap::new();
    for row in rows {
        buckets.entry((row.key.view, row.key.bucket)).or_default().push(row);
    }
    let mut chunks: Vec<Vec<&RowWrite>> = Vec::with_capacity(buckets.len());
    for bucket in buckets.into_values() {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        for row in bucket {
            let size = row.key.key.len() + row.cell.len();
            if bytes + size > bytes_max && !chunk.is_empty() {
                chunks.push(std::mem::take(&mut chunk));
                bytes = 0;
            }
            bytes += size;
            chunk.push(row);
        }
        chunks.push(chunk);
    }
    chunks
}

fn values<'a>(flush: &Flush, rows: &[&'a RowWrite]) -> Result<Vec<RowValues<'a>>, Error> {
    let (generation, source) = (int(flush.generation.number)?, int(flush.partition)?);
    rows.iter()
        .map(|row| {
            let timestamp = timestamp(flush.generation.epoch, row.position)?;
            let RowWrite { key, cell, .. } = row;
            Ok((key.view.name(), generation, key.bucket, key.key.as_str(), source, &cell[..], timestamp))
        })
        .collect()
}

/// The write timestamp of a position: ordered by epoch first, then by position.
fn timestamp(epoch: u8, position: i64) -> Result<i64, Error> {
    if epoch > EPOCH_MAX || !(0..1_i64 << POSITION_BITS).contains(&position) {
        return Err(Error::fatal("write", format!("no timestamp for position {position} of epoch {epoch}")));
    }
    Ok(i64::from(epoch) << POSITION_BITS | position)
}

/// Repeats an idempotent write while it fails with transient errors.
pub(super) async fn repeat<F: Future<Output = Result<(), Error>>>(write: impl FnMut() -> F) -> Result<(), Error> {
    let notify = |error: &Error, pause: Duration| {
        tracing::debug!(%error, pause_ms = pause.as_millis() as u64, "repeating a write");
    };
    retry(REPEATS.at_most(REPEATS_MAX), notify, write).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use foretell_domain::address::RowKey;
    use foretell_ports::Kind;

    #[test]
    fn timestamps_order_epochs_before_positions() {
        let of = |epoch, position| timestamp(epoch, position).expect("a good position");
        assert!(of(0, 0) < of(0, 1));
        assert!(of(0, (1 << 44) - 1) < of(1, 0));
        assert!(of(100, (1 << 44) - 1) > 0);
        for (epoch, position) in [(0, -1), (0, 1 << 44), (101, 0)] {
            assert!(timestamp(epoch, position).is_err(), "{epoch} {position}");
        }
    }

    #[test]
    fn chunks_hold_one_bucket_and_no_more_than_the_bound() {
        let row = |view, bucket, bytes: usize| RowWrite {
            key: RowKey { view, bucket, key: "k".to_owned() },
            position: 0,
            cell: Bytes::from(vec![0; bytes]),
        };
        let rows = [
            row(View::User, 1, 40),
            row(View::User, 2, 40),
            row(View::User, 1, 40),
            row(View::User, 1, 40),
            row(View::Feature, 1, 500),
        ];
        let chunks = chunks(&rows, 100);
        let shapes: Vec<_> = chunks.iter().map(|chunk| (chunk[0].key.view, chunk[0].key.bucket, chunk.len())).collect();
        assert_eq!(shapes, [(View::User, 1, 2), (View::User, 1, 1), (View::User, 2, 1), (View::Feature, 1, 1)]);
        for chunk in &chunks {
            assert!(chunk.iter().all(|row| (row.key.view, row.key.bucket) == (chunk[0].key.view, chunk[0].key.bucket)));
        }
    }

    #[tokio::test]
    async fn writes_are_repeated_after_transient_errors_only_and_not_forever() {
        for (kind, expected) in [(Kind::Retry, REPEATS_MAX + 1), (Kind::Reject, 1), (Kind::Fatal, 1)] {
            let attempts = std::cell::Cell::new(0);
            let done = repeat(|| {
                attempts.set(attempts.get() + 1);
                async move { Err(Error { kind, operation: "write", detail: String::new() }) }
            })
            .await;
            assert_eq!(done.map_err(|error| error.kind), Err(kind));
            assert_eq!(attempts.get(), expected, "{kind:?}");
        }
    }
}
