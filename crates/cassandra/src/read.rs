//! Reading rows and checkpoints.

use super::{Cassandra, fault, int};
use bytes::Bytes;
use foretell_domain::address::{Generation, RowKey, View};
use foretell_ports::Error;
use foretell_ports::store::{Checkpoint, Row};
use futures::stream::{self, StreamExt, TryStreamExt};
use scylla::response::query_result::QueryResult;
use std::collections::{BTreeMap, BTreeSet};

/// Keys per look-up.
const KEYS_MAX: usize = 64;
/// Rows per page of a scan.
const PAGE_ROWS_MAX: i32 = 1_000;

/// A bucket of a view of a generation: one Cassandra partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partition {
    pub(super) generation: Generation,
    pub(super) view: View,
    pub(super) bucket: i64,
}

/// The selected columns of a row: key, source, cell.
type Selected = (String, i32, Bytes);

impl Cassandra {
    /// The offset at which a new owner of the partition starts.
    pub(super) async fn read_checkpoint(
        &self,
        generation: Generation,
        partition: u32,
    ) -> Result<Option<Checkpoint>, Error> {
        let operation = "read a checkpoint";
        let values = (generation.family.name(), int(generation.number)?, int(partition)?);
        let result = self.session.execute_unpaged(&self.statements.read_checkpoint, values).await;
        let rows = result
            .map_err(|error| fault::execution(operation, &error))?
            .into_rows_result()
            .map_err(|error| fault::shape(operation, &error))?;
        let row = rows.maybe_first_row::<(String,)>().map_err(|error| fault::shape(operation, &error))?;
        row.map(|(state,)| serde_json::from_str(&state).map_err(|error| fault::shape(operation, &error))).transpose()
    }

    /// One look-up per bucket, in parallel; the results are in the order of `keys`.
    pub(super) async fn read_rows(
        &self,
        generation: Generation,
        source: Option<u32>,
        keys: &[RowKey],
    ) -> Result<Vec<Vec<Row>>, Error> {
        let source = source.map(int).transpose()?;
        let look_ups = look_ups(keys);
        let reads: Vec<_> = look_ups
            .iter()
            .map(|((view, bucket), names)| {
                let partition = Partition { generation, view: *view, bucket: *bucket };
                self.look_up(partition, source, names)
            })
            .collect();
        let found: Vec<(Partition, Vec<Selected>)> =
            stream::iter(reads).buffer_unordered(self.limits.concurrency_max).try_collect().await?;
        let mut partials: BTreeMap<(View, i64, String), Vec<Row>> = BTreeMap::new();
        for (Partition { view, bucket, .. }, rows) in found {
            for (key, source, cell) in rows {
                partials.entry((view, bucket, key)).or_default().push(row(source, &cell));
            }
        }
        let of = |key: &RowKey| partials.get(&(key.view, key.bucket, key.key.clone())).cloned().unwrap_or_default();
        Ok(keys.iter().map(of).collect())
    }

    async fn look_up(
        &self,
        partition: Partition,
        source: Option<i32>,
        keys: &[&str],
    ) -> Result<(Partition, Vec<Selected>), Error> {
        let Partition { generation, view, bucket } = partition;
        let number = int(generation.number)?;
        let result = match source {
            None => {
                let values = (view.name(), number, bucket, keys);
                self.session.execute_unpaged(&self.statements.read_keys, values).await
            }
            Some(source) => {
                let values = (view.name(), number, bucket, keys, source);
                self.session.execute_unpaged(&self.statements.read_keys_of_source, values).await
            }
        };
        Ok((partition, selected(result.map_err(|error| fault::execution("read rows", &error))?)?))
    }

    /// Pages through a bucket in its clustering order.
    pub(super) async fn scan_bucket(
        &self,
        partition: Partition,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        let operation = "scan a bucket";
        if limit == 0 {
            return Ok(Vec::new());
        }
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let Partition { generation, view, bucket } = partition;
        let number = int(generation.number)?;
        let pager = match after {
            None => {
                let mut statement = self.statements.scan.clone();
                statement.set_page_size(limit.min(PAGE_ROWS_MAX));
                self.session.execute_iter(statement, (view.name(), number, bucket, limit)).await
            }
            Some((key, source)) => {
                let mut statement = self.statements.scan_after.clone();
                statement.set_page_size(limit.min(PAGE_ROWS_MAX));
                let values = (view.name(), number, bucket, key, int(source)?, limit);
                self.session.execute_iter(statement, values).await
            }
        };
        pager
            .map_err(|error| fault::first_page(operation, &error))?
            .rows_stream::<Selected>()
            .map_err(|error| fault::shape(operation, &error))?
            .map_ok(|(key, source, cell)| (key, row(source, &cell)))
            .map_err(|error| fault::next_row(operation, &error))
            .try_collect()
            .await
    }

    /// Scans all partitions of the table.
    pub(super) async fn list_buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        let operation = "list buckets";
        let number = int(generation.number)?;
        let pager = self.session.execute_iter(self.statements.buckets.clone(), ()).await;
        let mut rows = pager
            .map_err(|error| fault::first_page(operation, &error))?
            .rows_stream::<(String, i32, i64)>()
            .map_err(|error| fault::shape(operation, &error))?;
        let mut buckets = BTreeSet::new();
        while let Some((name, of, bucket)) =
            rows.try_next().await.map_err(|error| fault::next_row(operation, &error))?
        {
            if of == number && name == view.name() {
                buckets.insert(bucket);
            }
        }
        Ok(buckets.into_iter().collect())
    }
}

/// The distinct keys of each bucket, in look-ups of at most [`KEYS_MAX`].
fn look_ups(keys: &[RowKey]) -> Vec<((View, i64), Vec<&str>)> {
    let mut buckets: BTreeMap<(View, i64), BTreeSet<&str>> = BTreeMap::new();
    for key in keys {
        buckets.entry((key.view, key.bucket)).or_default().insert(&key.key);
    }
    let mut look_ups = Vec::with_capacity(buckets.len());
    for (partition, names) in buckets {
        let names: Vec<&str> = names.into_iter().collect();
        look_ups.extend(names.chunks(KEYS_MAX).map(|chunk| (partition, chunk.to_vec())));
    }
    look_ups
}

fn selected(result: QueryResult) -> Result<Vec<Selected>, Error> {
    let operation = "read rows";
    let rows = result.into_rows_result().map_err(|error| fault::shape(operation, &error))?;
    let rows = rows.rows::<Selected>().map_err(|error| fault::shape(operation, &error))?;
    rows.collect::<Result<_, _>>().map_err(|error| fault::shape(operation, &error))
}

/// Copies the cell: the driver's slice would keep the whole response in memory.
fn row(source: i32, cell: &Bytes) -> Row {
    Row { source: u32::try_from(source).unwrap_or_default(), cell: Bytes::copy_from_slice(cell) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_name_each_key_once_and_stay_within_the_bound() {
        let key = |view, bucket, key: &str| RowKey { view, bucket, key: key.to_owned() };
        let mut keys = vec![key(View::User, 1, "a"), key(View::User, 1, "a"), key(View::Lead, 1, "a")];
        keys.extend((0..100).map(|n| key(View::Agenda, 7, &n.to_string())));
        let look_ups = look_ups(&keys);
        let shapes: Vec<_> = look_ups.iter().map(|(partition, names)| (*partition, names.len())).collect();
        let agenda = (View::Agenda, 7);
        assert_eq!(shapes, [((View::User, 1), 1), ((View::Lead, 1), 1), (agenda, 64), (agenda, 36)]);
    }
}
